//! Every request on its way in and out: counted, timed, traced, and logged if it went wrong.

use super::trace;
use crate::gateway::Gateway;
use crate::v3;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// The fixed name of what a request asks for. Never a path: paths hold numbers of orders, and a
/// label with them would be a time series for each order.
fn route(request: &Request) -> &'static str {
    let pattern = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    match pattern {
        "/v3/{*path}" => v3::route_name(request.method().as_str(), request.uri().path()),
        "/callback/{channel}/{merchant}/{payment}" => "callback",
        "/pay/{token}" => "cashier_show",
        "/pay/{token}/live" => "cashier_live",
        "/pay/{token}/{method}" => "cashier_choose",
        "/assets/{name}" => "asset",
        "/healthz" => "healthz",
        "/readyz" => "readyz",
        "/buildz" => "buildz",
        "/metrics" => "metrics",
        _ => "unknown",
    }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Whether a request is business: traced, and worth a line when it fails.
fn is_business(route: &str) -> bool {
    !matches!(
        route,
        "asset" | "cashier_live" | "healthz" | "readyz" | "buildz" | "metrics" | "unknown"
    )
}

pub async fn watch(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let (began, route) = (Instant::now(), route(&request));
    let method = method_name(request.method());
    let metrics = &gateway.observe.metrics;
    let under_way = metrics.in_flight();
    if !is_business(route) {
        let response = next.run(request).await;
        metrics.answered(route, method, response.status().as_u16(), began.elapsed());
        return response;
    }
    let share = gateway.config.observe.trace_share;
    let span = trace::request(route, method, request.headers(), share);
    let response = next.run(request).instrument(span.clone()).await;
    drop(under_way);
    let status = response.status().as_u16();
    metrics.answered(route, method, status, began.elapsed());
    // What a merchant quotes to support: from here it leads to the trace.
    let id = response.headers().get(wechatpay::headers::REQUEST_ID);
    let request_id = id.and_then(|it| it.to_str().ok()).unwrap_or("");
    span.record("http.response.status_code", status);
    span.record("request_id", request_id);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    // Those that a limit turned away are counted; a line for each would be the next overload.
    let limited = matches!(status, 429 | 503);
    if status >= 400 && !limited || trace::is_sampled(&span) {
        span.in_scope(|| tracing::info!(route, method, status, request_id, "answered"));
    }
    response
}
