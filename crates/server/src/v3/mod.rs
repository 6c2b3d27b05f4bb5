//! The merchant API: WeChat Pay V3 as its SDKs know it, and our extras beside it.
//!
//! One pipeline for all: path, method, `Authorization`, clock, serial, signature, then the
//! endpoint; the answer is signed on the way out. What is refused before the signature held is
//! not signed, as in production.

mod authenticate;
mod bills;
mod extras;
mod orders;
mod refunds;
mod route;
pub mod wire;

use crate::clock;
use crate::gateway::Gateway;
use crate::limits::{Refused, refuse};
use crate::merchants::KnownMerchant;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use route::Endpoint;
use std::sync::Arc;
use wechatpay::error::{Text, reason};
use wechatpay::headers::{self, SignatureHeaders};
use wechatpay::query::Query;
use wechatpay::{ApiError, Language};

pub use authenticate::NonceBook;
pub(crate) use route::name as route_name;

/// A request whose signature held.
pub struct Caller {
    pub known: Arc<KnownMerchant>,
    /// The platform key that the caller wants answers signed with.
    wants: Option<String>,
    scheme: seal::Scheme,
}

/// What an endpoint gets.
pub struct Call<'a> {
    pub gateway: &'a Gateway,
    pub caller: &'a Caller,
    pub query: Query,
    pub body: Vec<u8>,
}

/// What an endpoint answers.
pub enum Reply {
    Json(String),
    NoContent,
    /// A download: neither signed nor JSON.
    File {
        kind: &'static str,
        bytes: Vec<u8>,
    },
}

pub type Answer = Result<Reply, ApiError>;

/// Answers a request below `/v3/`.
pub async fn handle(gateway: &Gateway, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let language = Language::accepted(header(&parts.headers, headers::ACCEPT_LANGUAGE));
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    let endpoint = match route::find(parts.method.as_str(), parts.uri.path()) {
        Ok(endpoint) => endpoint,
        Err(error) => return unsigned_refusal(&error, language),
    };
    // Before the body is read and the signature checked: what has no prospect costs nothing.
    if let Err(refused) = gateway.limits.knock() {
        return refuse(refused, language);
    }
    let body = match read(gateway, body).await {
        Ok(body) => body,
        Err(Unread::Refused(refused)) => return refuse(refused, language),
        Err(Unread::Broken(error)) => return unsigned_refusal(&error, language),
    };
    let proof = authenticate::authenticate(
        gateway,
        parts.method.as_str(),
        target,
        &parts.headers,
        &body,
        endpoint.wants_agent(),
    );
    let caller = match proof.await {
        Ok(caller) => caller,
        Err(error) => return unsigned_refusal(&error, language),
    };
    // Only now: nobody uses up a merchant's rate by naming its number. Unsigned, although the
    // caller is known: signatures are what there is too little of.
    if let Err(refused) = gateway.limits.count_merchant(&caller.known.merchant.id) {
        return refuse(refused, language);
    }
    let _entered = match gateway.limits.enter().await {
        Ok(permit) => permit,
        Err(refused) => return refuse(refused, language),
    };
    tracing::Span::current().record("merchant", caller.known.merchant.id.as_str());
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    let call = Call { gateway, caller: &caller, query, body };
    match answer(endpoint, &call).await {
        Ok(Reply::Json(text)) => {
            signed(gateway, &caller, 200, Some(text), language, reason::SUCCESS).await
        }
        Ok(Reply::NoContent) => {
            signed(gateway, &caller, 204, None, language, reason::SUCCESS).await
        }
        Ok(Reply::File { kind, bytes }) => {
            let mut response = Response::new(Body::from(bytes));
            set(response.headers_mut(), headers::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            let body = Some(error.body(language)).filter(|it| !it.is_empty());
            match body {
                Some(_) => {
                    signed(gateway, &caller, error.status, body, language, error.reason).await
                }
                None => unsigned(error.status, body, language, error.reason),
            }
        }
    }
}

async fn answer(endpoint: Endpoint, call: &Call<'_>) -> Answer {
    match endpoint {
        Endpoint::Create(product) => orders::create(call, product).await,
        Endpoint::QueryById(id) => orders::query_by_id(call, &id).await,
        Endpoint::QueryByNumber(number) => orders::query_by_number(call, &number).await,
        Endpoint::Close(number) => orders::close(call, &number).await,
        Endpoint::RefundCreate => refunds::create(call).await,
        Endpoint::RefundQuery(number) => refunds::query(call, &number).await,
        Endpoint::Certificates => extras::certificates(call),
        Endpoint::TradeBill => bills::trade(call).await,
        Endpoint::FundBill => bills::fund_flow(call).await,
        Endpoint::BillDownload => bills::download(call).await,
        Endpoint::Cashier => orders::create_cashier(call).await,
        Endpoint::Routing(number) => extras::routing(call, &number).await,
        Endpoint::Notifications => extras::notifications(call).await,
        Endpoint::Replay(id) => extras::replay(call, &id).await,
    }
}

/// Why there is no body.
enum Unread {
    Refused(Refused),
    Broken(ApiError),
}

async fn read(gateway: &Gateway, body: Body) -> Result<Vec<u8>, Unread> {
    let config = gateway.limits.config();
    let limit = config.body_bytes;
    let whole = Limited::new(body, limit).collect();
    match tokio::time::timeout(config.body_timeout(), whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Unread::Refused(Refused::BodyTooLarge { limit }))
        }
        Ok(Err(_)) => Err(Unread::Broken(ApiError::new(
            400,
            "INVALID_REQUEST",
            "请求体未能完整接收，请用相同参数重试",
            "The body broke off; send the same request again",
        ))),
        Err(_) => Err(Unread::Refused(Refused::Slow)),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|it| it.to_str().ok())
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // Whatever cannot stand in a header is none of the headers that we write.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// An answer with the headers that every answer carries.
pub fn unsigned(status: u16, body: Option<String>, language: Language, reason: u32) -> Response {
    let json = body.as_ref().is_some_and(|it| !it.is_empty());
    let mut response = Response::new(body.map_or(Body::empty(), Body::from));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let list = response.headers_mut();
    if json {
        set(list, headers::CONTENT_TYPE, headers::JSON);
    }
    set(list, headers::CONTENT_LANGUAGE, language.tag());
    set(list, "cache-control", "no-cache, must-revalidate");
    set(list, "x-content-type-options", "nosniff");
    let id = seal::digest::hex_upper(&seal::random_bytes::<22>());
    set(list, headers::REQUEST_ID, &format!("{id}-{reason}"));
    response
}

async fn signed(
    gateway: &Gateway,
    caller: &Caller,
    status: u16,
    body: Option<String>,
    language: Language,
    reason: u32,
) -> Response {
    let settings = gateway.settings();
    let keys = &settings.keys;
    let wants = caller.wants.as_deref();
    let key = keys.signer_of(caller.scheme, wants).unwrap_or_else(|| keys.default_signer());
    let key = key.clone();
    let proof = gateway.limits.sign(move || {
        // The time of signing: a merchant refuses what is five minutes old.
        let (time, nonce) = (clock::wall().seconds(), seal::random_nonce());
        let text = body.as_deref().unwrap_or("").as_bytes();
        let proof = SignatureHeaders::sign(&key.signer, &key.id, time, &nonce, text);
        (proof, body)
    });
    let Some((proof, body)) = proof.await else {
        return unsigned_refusal(&ApiError::system_error(), language);
    };
    let mut response = unsigned(status, body, language, reason);
    for (name, value) in proof.pairs() {
        set(response.headers_mut(), name, &value);
    }
    response
}

fn unsigned_refusal(error: &ApiError, language: Language) -> Response {
    let body = Some(error.body(language)).filter(|it| !it.is_empty());
    unsigned(error.status, body, language, error.reason)
}

/// Storage or a channel let us down: the caller should repeat with the same number.
fn system_error(error: &dyn std::error::Error) -> ApiError {
    let source = error.source().map(ToString::to_string);
    tracing::error!(%error, source, "a request could not be answered");
    ApiError::system_error()
}

/// A refusal of one member, said in both languages.
fn bad_param(
    field: &str,
    value: Option<serde_json::Value>,
    zh: &'static str,
    en: &'static str,
) -> ApiError {
    let location = wechatpay::error::Location::Body;
    ApiError::param(location, field, value, Text::new(zh, en))
}
