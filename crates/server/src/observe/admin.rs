//! What operators and their machines ask of a process: is it alive, can it work, what is it, how
//! is it doing. On a listener of its own if the configuration names one.

use crate::gateway::Gateway;
use crate::serve::Peer;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use std::sync::Arc;
use std::time::Duration;

/// What Prometheus calls its text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A store that has not answered by then is down.
const STORE_WITHIN: Duration = Duration::from_secs(2);

/// For the main listener. Balancers look there whether the process lives; the rest is there only
/// if it has no place of its own.
pub fn beside_the_api(gateway: &Gateway) -> Router<Arc<Gateway>> {
    let router = health();
    match gateway.config.server.admin_listen {
        Some(_) => router,
        None => router.route("/buildz", get(build)).route("/metrics", get(metrics_nearby)),
    }
}

/// For the listener of its own.
pub fn alone(gateway: Arc<Gateway>) -> Router {
    let router = health().route("/buildz", get(build)).route("/metrics", get(metrics));
    router.with_state(gateway)
}

fn health() -> Router<Arc<Gateway>> {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

/// Ready means that the store answers, that the process holds its lease, and that nobody has told it
/// to stop. A process that was cut off comes back with connections that are dead and do not know
/// it; its lease tells before a merchant's request does.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.live.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    if !gateway.membership.holds() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the lease has run out\n").into_response();
    }
    match look(&gateway).await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Reads something small from the store.
async fn look(gateway: &Gateway) -> Result<(), String> {
    let read = app::Store::next_due(gateway.store());
    let seen = match tokio::time::timeout(STORE_WITHIN, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store did not answer within {} s", STORE_WITHIN.as_secs())),
    };
    gateway.observe.metrics.store_up(seen.is_ok());
    seen
}

async fn build(State(gateway): State<Arc<Gateway>>) -> Response {
    Json(gateway.observe.about()).into_response()
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let metrics = &gateway.observe.metrics;
    // What it is now, not what it was when someone last used it. The metric tells the outcome.
    look(&gateway).await.ok();
    metrics.spans_dropped(super::export::dropped());
    ([(header::CONTENT_TYPE, TEXT)], metrics.render()).into_response()
}

/// Turnover is nobody's business outside. A request that came through a proxy is from outside,
/// whatever its last hop.
async fn metrics_nearby(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let peer = request.extensions().get::<Peer>();
    let forwarded = ["x-forwarded-for", "forwarded"];
    let direct = !forwarded.iter().any(|it| request.headers().contains_key(*it));
    if direct && peer.is_some_and(|it| it.0.ip().to_canonical().is_loopback()) {
        metrics(State(gateway)).await
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}
