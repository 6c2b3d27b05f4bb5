//! What is said to those who are refused: at once, unsigned, and when to come again.

use super::rate::Exceeded;
use axum::response::Response;
use http::HeaderMap;
use tokio::net::TcpStream;
use wechatpay::{ApiError, Language};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Merchant(Exceeded),
    Address(Exceeded),
    Overload,
    /// A body that does not arrive.
    Slow,
    BodyTooLarge {
        limit: usize,
    },
    Connections,
}

impl Refused {
    pub fn reason(self) -> &'static str {
        match self {
            Refused::Merchant(_) => "rate_limit_merchant",
            Refused::Address(_) => "rate_limit_ip",
            Refused::Overload => "overload",
            Refused::Slow => "slow",
            Refused::BodyTooLarge { .. } => "body_too_large",
            Refused::Connections => "connections",
        }
    }

    pub fn count(self) {
        metrics::counter!("feiqian_http_rejected_total", "reason" => self.reason()).increment(1);
    }

    fn error(self) -> ApiError {
        match self {
            Refused::Merchant(_) | Refused::Address(_) => ApiError::frequency_limited(),
            Refused::Overload | Refused::Connections => ApiError::service_unavailable(),
            Refused::Slow => ApiError::new(
                408,
                "INVALID_REQUEST",
                "请求体未能在规定时间内送达，请用相同参数重试",
                "The body did not arrive in time; send the same request again",
            ),
            Refused::BodyTooLarge { limit } => ApiError::new(
                413,
                "PARAM_ERROR",
                format!("请求体超过上限 {limit} 字节，请精简后重试"),
                format!("The body exceeds {limit} bytes; send less"),
            ),
        }
    }
}

fn put(headers: &mut HeaderMap, name: &'static str, number: u64) {
    headers.insert(name, number.into());
}

/// Counts the refusal and says it.
pub fn refuse(refused: Refused, language: Language) -> Response {
    refused.count();
    let error = refused.error();
    let body = error.body(language);
    let mut response = crate::v3::unsigned(error.status, Some(body), language, error.reason);
    let headers = response.headers_mut();
    match refused {
        Refused::Merchant(it) | Refused::Address(it) => {
            let seconds = it.retry_after.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            put(headers, "retry-after", seconds);
            for [limit, remaining, reset] in [
                ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
                ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
            ] {
                put(headers, limit, it.limit.into());
                put(headers, remaining, 0);
                put(headers, reset, seconds);
            }
        }
        Refused::Overload | Refused::Connections => put(headers, "retry-after", 1),
        // What is left of the body would be taken for the next request.
        Refused::Slow | Refused::BodyTooLarge { .. } => {
            headers.insert("connection", http::HeaderValue::from_static("close"));
        }
    }
    response
}

/// Tells a connection that there is no room for it. Nobody waits until it has heard.
pub fn refuse_connection(refused: Refused, socket: &TcpStream) {
    refused.count();
    let error = refused.error();
    let body = error.body(Language::default());
    let text = format!(
        "HTTP/1.1 {} Service Unavailable\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{body}",
        error.status,
        wechatpay::headers::JSON,
        body.len()
    );
    // A fresh socket takes so little; if not, it is closed without a word.
    socket.try_write(text.as_bytes()).ok();
}
