//! HTTP: paths to handlers, header names in title case, graceful end.

use crate::cashier_pages::{self, Payer};
use crate::gateway::Gateway;
use crate::live::Live;
use crate::{callbacks, v3};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use channel::HttpMessage;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A client that has not sent its headers by then is cut off.
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// How long requests under way may take when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

#[derive(Debug, Deserialize)]
struct PageQuery {
    lang: Option<String>,
}

pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/v3/{*path}", any(merchant_api))
        .route("/callback/{channel}/{merchant}/{payment}", post(callback))
        .route("/pay/{token}", get(show))
        .route("/pay/{token}/live", get(live))
        .route("/pay/{token}/{method}", post(choose))
        .route("/assets/{name}", get(asset))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(gateway)
}

/// The payer's address: the connection's, or what our own proxy saw last.
fn payer_ip(gateway: &Gateway, request: &Request) -> Option<String> {
    let forwarded = request.headers().get("x-forwarded-for").and_then(|it| it.to_str().ok());
    let trusted = forwarded.filter(|_| gateway.settings().config.server.behind_proxy);
    let seen = trusted.and_then(|it| it.rsplit(',').next()).map(|it| it.trim().to_owned());
    seen.or_else(|| request.extensions().get::<Peer>().map(|it| it.0.ip().to_string()))
}

async fn merchant_api(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    v3::handle(&gateway, request).await
}

async fn callback(
    State(gateway): State<Arc<Gateway>>,
    Path((channel, merchant, payment)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    // A notification carries at most one megabyte of text.
    let Ok(body) = Limited::new(body, 2 << 20).collect().await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let readable = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let headers = parts.headers.iter().filter_map(readable).collect();
    let message = HttpMessage { status: 0, headers, body: body.to_bytes().into() };
    callbacks::handle(&gateway, &channel, &merchant, &payment, message).await
}

fn payer(query: PageQuery, headers: HeaderMap, ip: Option<String>) -> Payer {
    Payer { lang_query: query.lang, headers, ip }
}

async fn show(
    State(gateway): State<Arc<Gateway>>,
    Path(token): Path<String>,
    Query(query): Query<PageQuery>,
    request: Request,
) -> Response {
    let ip = payer_ip(&gateway, &request);
    let payer = payer(query, request.headers().clone(), ip);
    cashier_pages::show(&gateway, &token, &payer).await
}

async fn choose(
    State(gateway): State<Arc<Gateway>>,
    Path((token, method)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
    request: Request,
) -> Response {
    let ip = payer_ip(&gateway, &request);
    let payer = payer(query, request.headers().clone(), ip);
    cashier_pages::choose(&gateway, &token, &method, &payer).await
}

async fn live(State(gateway): State<Arc<Gateway>>, Path(token): Path<String>) -> Response {
    match cashier_pages::live(gateway, &token).await {
        Some(events) => events.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn asset(Path(name): Path<String>) -> Response {
    cashier_pages::asset(&name).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// Ready means that the store answers.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    match app::Store::next_due(gateway.store()).await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// Serves until `stop` turns true, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    live: Live,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.title_case_headers(true).timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    while !*stop.borrow() {
        let (socket, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(it) => it,
                Err(error) => {
                    // Too many open files: those that are open must end first.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = stop.changed() => break,
        };
        let connection =
            http.serve_connection(TokioIo::new(socket_of(socket)), service(&router, peer));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%peer, %error, "a connection broke");
            }
        });
    }
    drop(listener);
    live.end();
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open when the server stopped");
    }
}

fn socket_of(socket: TcpStream) -> TcpStream {
    // Answers are small and must not wait for more.
    socket.set_nodelay(true).ok();
    socket
}

fn service(
    router: &Router,
    peer: SocketAddr,
) -> TowerToHyperService<
    impl tower::Service<
        http::Request<hyper::body::Incoming>,
        Response = Response,
        Error = std::convert::Infallible,
        Future: Send,
    > + Clone
    + use<>,
> {
    let router = router.clone();
    TowerToHyperService::new(tower::service_fn(
        move |request: http::Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            let router = router.clone();
            async move { tower::ServiceExt::oneshot(router, request).await }
        },
    ))
}
