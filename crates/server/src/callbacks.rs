//! What channels tell us by themselves. Believed only if the signature holds *and* order,
//! merchant, account, amount and currency are ours.

use crate::gateway::Gateway;
use crate::observe::trace;
use axum::body::Body;
use axum::response::Response;
use channel::{Callback, CallbackError, ChannelId, HttpMessage};
use http::StatusCode;
use kernel::{MerchantId, Serial};
use wechatpay::notification::{accepted_body, refused_body};

/// Takes in a callback to `/callback/{channel}/{merchant}/{payment}`. The path only helps to find
/// the payment; what counts is what the provider signed.
pub async fn handle(
    gateway: &Gateway,
    channel: &str,
    merchant: &str,
    payment: &str,
    message: HttpMessage,
) -> Response {
    let id = ChannelId::new(channel);
    let named = MerchantId::parse(merchant).ok().zip(Serial::parse(payment).ok());
    let Some((merchant, payment)) = named else { return refuse(404, "no such payment") };
    let now = gateway.clock.now();
    let told = match gateway.roster.callback(&id, &message).await {
        None => return refuse(404, "no such channel"),
        Some(Err(error)) => {
            tracing::warn!(channel, %payment, %error, "callback refused");
            let status = match error {
                CallbackError::Unreadable(_) | CallbackError::MissingHeader(_) => 400,
                CallbackError::UnknownKey(_)
                | CallbackError::BadSignature
                | CallbackError::Clock { .. } => 401,
            };
            return refuse(status, &error.to_string());
        }
        Some(Ok(told)) => told,
    };
    let platform = &gateway.platform;
    let taken = async {
        match told {
            Callback::Payment(facts) => {
                let taken = platform.payment_called_back(&id, &merchant, payment, &facts, now);
                taken.await.map(|it| it.is_some())
            }
            Callback::Refund(facts) => {
                let taken = platform.refund_called_back(&id, &merchant, &facts, now);
                taken.await.map(|it| it.is_some())
            }
            Callback::Other { kind } => {
                tracing::info!(channel, kind, "a callback that we do not act on");
                Ok(true)
            }
        }
    };
    match trace::called_back(gateway, channel, &merchant, payment, taken).await {
        Ok(true) => reply(StatusCode::OK, accepted_body()),
        Ok(false) => {
            tracing::error!(channel, %merchant, %payment, "a signed callback that is not about this payment");
            refuse(404, "not a payment of ours")
        }
        Err(error) => {
            tracing::error!(%error, "a callback could not be written; the channel will repeat it");
            refuse(500, "try again")
        }
    }
}

fn refuse(status: u16, why: &str) -> Response {
    reply(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), refused_body(why))
}

fn reply(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static(wechatpay::headers::JSON);
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
