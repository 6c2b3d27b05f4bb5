//! Certificates, and what WeChat Pay does not have: routing explained, notifications shown and
//! replayed.

use super::{Answer, Call, Reply, system_error, wire};
use crate::courier::event_type;
use app::{NotificationState, ReplayError, Store};
use routing::OrderFacts;
use seal::Certificate;
use serde_json::json;
use wechatpay::ApiError;
use wechatpay::beijing::rfc3339;
use wechatpay::certificates::{PlatformCertificate, render};

pub(super) fn certificates(call: &Call<'_>) -> Answer {
    let listed = |own: &Certificate| PlatformCertificate {
        serial_no: own.serial().into(),
        effective_time: own.not_before(),
        expire_time: own.not_after(),
        pem: own.pem().into(),
    };
    let nonce = || seal::random_nonce()[..12].to_owned();
    let settings = call.gateway.settings();
    let all: Vec<_> = settings.certificates.iter().map(|it| (listed(it), nonce())).collect();
    let body = render(&all, &call.caller.known.apiv3_key);
    body.map(Reply::Json).map_err(|it| system_error(&it))
}

/// Why a payment's channel was chosen, and why the others were not.
pub(super) async fn routing(call: &Call<'_>, number: &str) -> Answer {
    let merchant = &call.caller.known.merchant.id;
    let found = call.gateway.store().payment_by_order(merchant, number).await;
    let found = found.map_err(|it| system_error(&it))?;
    let Some(payment) = found.map(|it| it.value) else {
        return Err(ApiError::order_not_exist());
    };
    let facts = OrderFacts { amount: payment.terms.amount, product: None };
    let now = routing::choose(&facts, &call.gateway.platform.policy().candidates);
    let refused: Vec<_> = now
        .refused
        .iter()
        .map(|(id, it)| json!({ "channel": id.as_str(), "reason": it.code() }))
        .collect();
    let attempts: Vec<_> = payment
        .attempts
        .iter()
        .map(|it| {
            json!({
                "attempt": it.serial.as_str(),
                "channel": it.channel,
                "state": format!("{:?}", it.state),
                "cost_bps": it.cost_rate.get(),
                "started_at": rfc3339(it.started),
            })
        })
        .collect();
    let would = now.chosen.as_ref().map(|it| it.as_str().to_owned());
    let body = json!({ "attempts": attempts, "would_choose": would, "refused": refused });
    Ok(Reply::Json(body.to_string()))
}

/// The newest notifications with all their tries; `?out_trade_no=` narrows them.
pub(super) async fn notifications(call: &Call<'_>) -> Answer {
    let merchant = &call.caller.known.merchant.id;
    let store = call.gateway.store();
    let failed = |it: app::StoreError| system_error(&it);
    let payment = match call.query.get("out_trade_no") {
        None => None,
        Some(number) => {
            let found = store.payment_by_order(merchant, number).await.map_err(failed)?;
            Some(found.ok_or_else(ApiError::order_not_exist)?.value.serial)
        }
    };
    let list = store.notifications(merchant, payment, None, 50).await.map_err(failed)?;
    let mut shown = Vec::with_capacity(list.len());
    for it in list {
        let tries = store.tries_of(merchant, it.id).await.map_err(failed)?;
        let tries: Vec<_> = tries
            .into_iter()
            .map(|it| {
                json!({
                    "number": it.number,
                    "at": rfc3339(it.at),
                    "status": it.status,
                    "duration_ms": it.duration_ms,
                    "body_head": it.body_head,
                    "error": it.error,
                })
            })
            .collect();
        shown.push(json!({
            "id": it.id.as_str(),
            "event_type": event_type(it.event).word(),
            "transaction_id": it.payment.as_str(),
            "url": it.url,
            "state": state_word(it.state),
            "created_at": rfc3339(it.created),
            "tries": tries,
        }));
    }
    Ok(Reply::Json(json!({ "data": shown }).to_string()))
}

pub fn state_word(state: NotificationState) -> &'static str {
    match state {
        NotificationState::Pending => "PENDING",
        NotificationState::Delivered => "DELIVERED",
        NotificationState::GivenUp => "GIVEN_UP",
    }
}

pub(super) async fn replay(call: &Call<'_>, id: &str) -> Answer {
    let merchant = &call.caller.known.merchant.id;
    let id = wire::serial(id).ok_or_else(ApiError::not_found)?;
    match call.gateway.platform.replay(merchant, id, call.gateway.clock.now()).await {
        Ok(it) => {
            let body = json!({ "id": it.id.as_str(), "state": state_word(it.state) });
            Ok(Reply::Json(body.to_string()))
        }
        Err(ReplayError::NotFound { .. }) => Err(ApiError::not_found()),
        Err(error @ (ReplayError::Store(_) | ReplayError::Commit(_))) => Err(system_error(&error)),
    }
}
