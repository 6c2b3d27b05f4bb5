//! HTTP: paths to handlers, header names in title case, graceful end.

use crate::cashier_pages::{self, Payer};
use crate::gateway::Gateway;
use crate::limits::{Patient, Phase, Refused, Slot, refuse, refuse_connection};
use crate::observe::{admin, requests};
use crate::{callbacks, v3};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
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
use tokio::net::TcpListener;
use tokio::sync::watch;
use wechatpay::Language;

/// The least that hyper buffers.
const LEAST_BUFFER: usize = 8_192;
/// How long requests under way may take when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

#[derive(Debug, Deserialize)]
struct PageQuery {
    lang: Option<String>,
}

pub fn router(gateway: Arc<Gateway>) -> Router {
    let counted = middleware::from_fn_with_state(gateway.clone(), count_address);
    Router::new()
        .route("/v3/{*path}", any(merchant_api))
        .route("/pay/{token}", get(show))
        .route("/pay/{token}/live", get(live))
        .route("/pay/{token}/{method}", post(choose))
        .route("/assets/{name}", get(asset))
        .route_layer(counted)
        // Channels send from few addresses, and health checks often: neither is counted.
        .route("/callback/{channel}/{merchant}/{payment}", post(callback))
        .merge(admin::beside_the_api(&gateway))
        // Said explicitly, so that it is counted, too.
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(middleware::from_fn_with_state(gateway.clone(), requests::watch))
        .layer(middleware::from_fn_with_state(gateway.clone(), farewell))
        .with_state(gateway)
}

/// The client's address: the connection's, or what our own proxy saw last.
fn client_ip(gateway: &Gateway, request: &Request) -> Option<String> {
    let forwarded = request.headers().get("x-forwarded-for").and_then(|it| it.to_str().ok());
    let trusted = forwarded.filter(|_| gateway.settings().config.server.behind_proxy);
    let seen = trusted.and_then(|it| it.rsplit(',').next()).map(|it| it.trim().to_owned());
    seen.or_else(|| request.extensions().get::<Peer>().map(|it| it.0.ip().to_string()))
}

/// Refuses whoever asks too often, before anything else is looked at.
async fn count_address(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let ip = client_ip(&gateway, &request).and_then(|it| it.parse().ok());
    let counted = ip.map_or(Ok(()), |it| gateway.limits.count_address(it));
    match counted {
        Ok(()) => next.run(request).await,
        Err(refused) => refuse(refused, language(request.headers())),
    }
}

fn language(headers: &HeaderMap) -> Language {
    Language::accepted(headers.get(header::ACCEPT_LANGUAGE).and_then(|it| it.to_str().ok()))
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
    let language = language(&parts.headers);
    let within = gateway.limits.config().body_timeout();
    // A notification carries at most one megabyte of text.
    let limit = 2 << 20;
    let body = match tokio::time::timeout(within, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refuse(Refused::BodyTooLarge { limit }, language),
        Err(_) => return refuse(Refused::Slow, language),
    };
    // The channel repeats what was not taken.
    let _permit = match gateway.limits.enter_callback().await {
        Ok(permit) => permit,
        Err(refused) => return refuse(refused, language),
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
    let ip = client_ip(&gateway, &request);
    let payer = payer(query, request.headers().clone(), ip);
    let _permit = match gateway.limits.enter_page().await {
        Ok(permit) => permit,
        Err(refused) => return refuse(refused, language(&payer.headers)),
    };
    cashier_pages::show(&gateway, &token, &payer).await
}

async fn choose(
    State(gateway): State<Arc<Gateway>>,
    Path((token, method)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
    request: Request,
) -> Response {
    let ip = client_ip(&gateway, &request);
    let payer = payer(query, request.headers().clone(), ip);
    let _permit = match gateway.limits.enter_page().await {
        Ok(permit) => permit,
        Err(refused) => return refuse(refused, language(&payer.headers)),
    };
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

/// Serves until `stop` turns true, then lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    gateway: Arc<Gateway>,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    // How long a head may take is watched by the socket itself: hyper counts the time between two
    // requests as well.
    http.title_case_headers(true).timer(TokioTimer::new()).header_read_timeout(None);
    let header_bytes = gateway.config.limits.header_bytes;
    http.max_header_size(header_bytes).max_buf_size(header_bytes.max(LEAST_BUFFER));
    let drained = drained(&gateway, &mut stop);
    let mut drained = std::pin::pin!(drained);
    loop {
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
            () = &mut drained => break,
        };
        let behind_proxy = gateway.settings().config.server.behind_proxy;
        let slot = match gateway.limits.connect(peer.ip(), behind_proxy) {
            Ok(slot) => slot,
            Err(refused) => {
                refuse_connection(refused, &socket);
                continue;
            }
        };
        // Answers are small and must not wait for more.
        socket.set_nodelay(true).ok();
        let (socket, phase) = Patient::new(socket, gateway.limits.clone());
        let service = service(&router, peer, phase);
        let connection = http.serve_connection(TokioIo::new(socket), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _slot: Slot = slot;
            if let Err(error) = watched.await {
                tracing::debug!(%peer, %error, "a connection broke");
            }
        });
    }
    drop(listener);
    gateway.live.end();
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open when the server stopped");
    }
}

/// Ends when the process is to stop and balancers have had the time to notice.
async fn drained(gateway: &Gateway, stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can tell any more: then it ends, too.
    stop.wait_for(|it| *it).await.ok();
    gateway.live.drain();
    tokio::time::sleep(Duration::from_secs(gateway.config.server.drain_s.into())).await;
}

/// A client that keeps its connection would find it closed: it is told with the answer before.
async fn farewell(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if gateway.live.is_draining() {
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

fn service(
    router: &Router,
    peer: SocketAddr,
    phase: Phase,
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
            let (router, answered) = (router.clone(), phase.begin());
            async move {
                let response = tower::ServiceExt::oneshot(router, request).await?;
                Ok(response.map(|it| answered.with(it)))
            }
        },
    ))
}
