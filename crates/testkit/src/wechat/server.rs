//! HTTP around the core: the merchant API, the wallet pages, the control API, and the sender of
//! notifications.
//!
//! Reads the wall clock; decides nothing. Every answer and notification is the core's.

use super::answer::{SimAnswer, SimRequest};
use super::control;
use super::orders::{Outcome, Reference, code_in};
use super::settings::{SettingsError, WechatSimSettings};
use super::sim::WechatSim;
use super::wallet::{Bill, Ended, Page};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use kernel::{Secret, Timestamp};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use wechatpay::TradeState;
use wechatpay::error::Language;
use wechatpay::headers::{ACCEPT_LANGUAGE, CONTENT_TYPE};
use wechatpay::notification::ANSWER_WITHIN_MS;
use wechatpay::query::Query;

/// No request of the protocol that we simulate is larger.
const BODY_MOST: usize = 1 << 20;
/// How often the sender looks for notifications that are due.
const LOOK_MS: u64 = 20;

/// A running simulator. It stops when this is dropped.
pub struct WechatSimServer {
    addr: SocketAddr,
    base_url: String,
    sim: Arc<Mutex<WechatSim>>,
    tasks: Vec<JoinHandle<()>>,
}

impl WechatSimServer {
    /// Listens on `addr`; port 0 takes a free one. Needs a tokio runtime.
    pub async fn start(
        addr: SocketAddr,
        settings: WechatSimSettings,
    ) -> Result<WechatSimServer, SettingsError> {
        let listen = |source| SettingsError::Listen { addr: addr.to_string(), source };
        let mut sim = WechatSim::new(settings)?;
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        if sim.settings.base_url.is_empty() {
            sim.set_base_url(&format!("http://{addr}"));
        }
        let base_url = sim.settings.base_url.clone();
        // Notifications go where the merchant says and nowhere else: no proxy, no redirects.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .http1_title_case_headers()
            .timeout(Duration::from_millis(ANSWER_WITHIN_MS))
            .build()
            .map_err(|it| SettingsError::Sender(it.to_string()))?;
        let sim = Arc::new(Mutex::new(sim));
        let front = Front { sim: sim.clone(), secret: Secret::new(seal::random_nonce()) };
        let tasks = vec![
            tokio::spawn(accept(listener, Arc::new(front))),
            tokio::spawn(send(sim.clone(), client)),
        ];
        Ok(WechatSimServer { addr, base_url, sim, tasks })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:9001`: for the connector, and with `/wallet/` for people.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Looks into the core or steers it, without HTTP.
    pub fn with<T>(&self, act: impl FnOnce(&mut WechatSim) -> T) -> T {
        act(&mut lock(&self.sim))
    }

    /// The wall clock that the simulator goes by.
    pub fn wall_now() -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Drop for WechatSimServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A panic in one call leaves the core usable for the next.
fn lock(sim: &Mutex<WechatSim>) -> MutexGuard<'_, WechatSim> {
    sim.lock().unwrap_or_else(|it| it.into_inner())
}

struct Front {
    sim: Arc<Mutex<WechatSim>>,
    /// Proves that a form came from our own page.
    secret: Secret,
}

/// The line is cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the simulator cuts the line, as it was told to")]
struct Cut;

type Reply = Result<Response<Full<Bytes>>, Cut>;

/// Serves connections. `axum::serve` is not used because header names must be in title case: one
/// SDK looks them up by exact case.
async fn accept(listener: TcpListener, front: Arc<Front>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file handles, or the peer left already: neither is for ever.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let front = front.clone();
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let front = front.clone();
                async move { front.answer(request).await }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let serve = hyper::server::conn::http1::Builder::new()
                .title_case_headers(true)
                .serve_connection(io, service);
            // A cut line and a peer that left both end here, and neither needs a word.
            let _ = serve.await;
        });
    }
}

/// Sends what is due, each on its own, and reports what came back.
async fn send(sim: Arc<Mutex<WechatSim>>, client: reqwest::Client) {
    let mut look = tokio::time::interval(Duration::from_millis(LOOK_MS));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sending = tokio::task::JoinSet::new();
    loop {
        look.tick().await;
        while sending.try_join_next().is_some() {}
        let due = lock(&sim).due_callbacks(WechatSimServer::wall_now());
        for callback in due {
            let (sim, client) = (sim.clone(), client.clone());
            sending.spawn(async move {
                let mut request = client.post(&callback.url).body(callback.body);
                for (name, value) in callback.headers {
                    request = request.header(name, value);
                }
                let status = request.send().await.ok().map(|it| it.status().as_u16());
                tracing::debug!(url = callback.url, ?status, "notification sent");
                let now = WechatSimServer::wall_now();
                lock(&sim).callback_answered(callback.id, status, now);
            });
        }
    }
}

fn html(status: u16, page: String) -> SimAnswer {
    let headers = vec![
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        ("cache-control", "no-store".to_owned()),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
             frame-ancestors 'none'; base-uri 'none'"
                .to_owned(),
        ),
    ];
    SimAnswer { status, headers, body: page.into_bytes(), ..SimAnswer::default() }
}

fn see_other(to: String) -> SimAnswer {
    SimAnswer { status: 303, headers: vec![("location", to)], ..SimAnswer::default() }
}

impl Front {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
        let text = |it: &hyper::header::HeaderValue| String::from_utf8_lossy(it.as_bytes()).into();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        let headers: Vec<(String, String)> = headers.collect();
        let Ok(body) = Limited::new(body, BODY_MOST).collect().await else {
            return Ok(render(SimAnswer { status: 413, ..SimAnswer::default() }));
        };
        let request = SimRequest {
            method: head.method.to_string(),
            path_and_query: target,
            headers,
            body: body.to_bytes().to_vec(),
        };
        let now = WechatSimServer::wall_now();
        let answer = match request.path() {
            path if path.starts_with("/_sim/") => self.control(&request, now),
            path if path == "/" || path == "/wallet" => see_other("/wallet/".to_owned()),
            path if path.starts_with("/wallet/") => self.wallet(&request, now),
            _ => lock(&self.sim).handle(&request, now),
        };
        if answer.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(answer.delay_ms)).await;
        }
        if answer.drop { Err(Cut) } else { Ok(render(answer)) }
    }

    fn control(&self, request: &SimRequest, now: Timestamp) -> SimAnswer {
        let query = query_of(request);
        let mut sim = lock(&self.sim);
        let (method, path) = (request.method.as_str(), request.path());
        let called = control::call(&mut sim, method, path, &query, &request.body, now);
        let (status, body) = called.unwrap_or_else(|| {
            let message = format!("no {method} {path} here; see the head of testkit::wechat");
            (404, serde_json::json!({ "code": "NOT_FOUND", "message": message }))
        });
        SimAnswer {
            status,
            headers: vec![(CONTENT_TYPE, "application/json; charset=utf-8".to_owned())],
            body: body.to_string().into_bytes(),
            ..SimAnswer::default()
        }
    }

    fn wallet(&self, request: &SimRequest, now: Timestamp) -> SimAnswer {
        match (request.method.as_str(), request.path()) {
            ("GET" | "HEAD", "/wallet/") => {
                let query = query_of(request);
                let language = language_of(request, &query);
                let page = Page { language, code: "", redirect_url: None };
                html(200, page.enter(false))
            }
            ("GET" | "HEAD", "/wallet/pay") => self.pay_page(request, now),
            ("POST", "/wallet/pay") => self.press(request, now),
            _ => SimAnswer { status: 404, ..SimAnswer::default() },
        }
    }

    fn pay_page(&self, request: &SimRequest, now: Timestamp) -> SimAnswer {
        let query = query_of(request);
        let language = language_of(request, &query);
        let sent = query.get("pr").or(query.get("prepay_id")).unwrap_or("");
        let code = code_in(sent);
        let page = Page { language, code: &code, redirect_url: redirect_of(&query) };
        let mut sim = lock(&self.sim);
        let business_now = sim.tick(now);
        let Some(index) = sim.find_code(&code) else {
            return html(404, Page { code: "", ..page }.enter(true));
        };
        let order = &sim.orders[index];
        let merchant = sim.merchant(&order.request.mchid).facts.clone();
        let ended = match order.state {
            TradeState::Success | TradeState::Refund => Some(Ended::Paid),
            TradeState::Closed | TradeState::Revoked | TradeState::PayError => Some(Ended::Closed),
            TradeState::NotPay | TradeState::UserPaying | TradeState::Accept => {
                let over = business_now > order.expires || business_now > order.code_ends;
                over.then_some(Ended::Expired)
            }
        };
        let bill = Bill {
            merchant: &merchant.name,
            goods: &order.request.description,
            amount: order.request.amount,
            out_trade_no: &order.request.out_trade_no,
            ended,
            paying: order.state == TradeState::UserPaying,
        };
        match bill.ended {
            Some(ended) => html(200, page.done(&bill, ended)),
            None => {
                let declined = query.get("declined").is_some();
                html(200, page.pay(&bill, &self.token(&code), declined))
            }
        }
    }

    /// A button of the pay page.
    fn press(&self, request: &SimRequest, now: Timestamp) -> SimAnswer {
        let form = Query::parse(&String::from_utf8_lossy(&request.body));
        let language = language_of(request, &form);
        let code = code_in(form.get("pr").unwrap_or(""));
        let page = Page { language, code: &code, redirect_url: redirect_of(&form) };
        let token = form.get("token").unwrap_or("");
        let foreign = request.header("sec-fetch-site").is_some_and(|it| it == "cross-site");
        if foreign || !seal::digest::same_bytes(self.token(&code).as_bytes(), token.as_bytes()) {
            let why = match language {
                Language::Zh => "表单已失效，请返回付款页重试。",
                Language::En => "The form is not from this page or is outdated. Go back and retry.",
            };
            return html(403, page.refused(why));
        }
        let outcome = match form.get("outcome") {
            Some("success") => Outcome::Success,
            Some("paying") => Outcome::Paying,
            Some("decline") => Outcome::Decline,
            _ => return html(400, page.refused("outcome?")),
        };
        let confirmed = lock(&self.sim).confirm(Reference::Code(&code), outcome, None, now);
        match confirmed {
            Ok(_) => {
                let declined = if outcome == Outcome::Decline { "&declined=1" } else { "" };
                see_other(page.address("/wallet/pay", language) + declined)
            }
            Err(error) => html(409, page.refused(&error.to_string())),
        }
    }

    fn token(&self, code: &str) -> String {
        let tag = seal::digest::hmac_sha256(self.secret.expose().as_bytes(), code.as_bytes());
        seal::digest::hex_lower(&tag)
    }
}

fn query_of(request: &SimRequest) -> Query {
    Query::of_target(&request.path_and_query)
}

fn language_of(request: &SimRequest, query: &Query) -> Language {
    Language::accepted(query.get("lang").or(request.header(ACCEPT_LANGUAGE)))
}

/// Only an address that a browser opens as a page: no `javascript:`, no `data:`.
fn redirect_of(query: &Query) -> Option<&str> {
    let url = query.get("redirect_url")?;
    (url.starts_with("https://") || url.starts_with("http://")).then_some(url)
}

fn render(answer: SimAnswer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        let name = hyper::header::HeaderName::from_static(name);
        if let Ok(value) = hyper::header::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
