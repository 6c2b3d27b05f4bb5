//! From a callback to what it says: headers, clock, key, signature, then the sealed payload. A
//! probe with a wrong signature is refused like any other.

use super::{Wechat, facts};
use channel::{Callback, CallbackError, HttpMessage};
use kernel::Timestamp;
use wechatpay::headers::{SignatureHeaders, SignatureHeadersError};
use wechatpay::notification::{Envelope, EventType};
use wechatpay::{RefundNotice, Transaction, signing};

pub(super) fn read(
    wechat: &Wechat,
    message: &HttpMessage,
    now: Timestamp,
) -> Result<Callback, CallbackError> {
    let headers =
        SignatureHeaders::read(|name| message.header(name)).map_err(|error| match error {
            SignatureHeadersError::Missing(name) => CallbackError::MissingHeader(name),
            SignatureHeadersError::Timestamp(_) => unreadable(error),
        })?;
    if !signing::is_fresh(headers.timestamp, now) {
        let seconds = headers.timestamp.saturating_sub(now.seconds());
        return Err(CallbackError::Clock { seconds });
    }
    let Some(verifier) = wechat.verifier(&headers.serial) else {
        return Err(CallbackError::UnknownKey(headers.serial.chars().take(64).collect()));
    };
    if !headers.holds(&verifier, &message.body) {
        return Err(CallbackError::BadSignature);
    }
    payload(wechat, &message.body)
}

fn payload(wechat: &Wechat, body: &[u8]) -> Result<Callback, CallbackError> {
    let envelope = Envelope::parse(body).map_err(unreadable)?;
    let plain = envelope.open(&wechat.apiv3_key).map_err(unreadable)?;
    match (&envelope.event_type, envelope.original_type.as_str()) {
        (EventType::TransactionSuccess, "transaction" | "") => {
            let transaction = Transaction::parse(&plain).map_err(unreadable)?;
            let facts = facts::payment(transaction)
                .map_err(|member| unreadable(format!("a paid order without {member}")))?;
            Ok(Callback::Payment(facts))
        }
        (
            EventType::RefundSuccess | EventType::RefundAbnormal | EventType::RefundClosed,
            "refund" | "",
        ) => {
            let notice = RefundNotice::parse(&plain).map_err(unreadable)?;
            if notice.mchid != wechat.settings.mchid {
                return Err(unreadable(format!("a refund of merchant {}", notice.mchid)));
            }
            Ok(Callback::Refund(facts::refund_notice(notice)))
        }
        // Profit sharing announces itself as TRANSACTION.SUCCESS too.
        (
            EventType::TransactionSuccess
            | EventType::RefundSuccess
            | EventType::RefundAbnormal
            | EventType::RefundClosed
            | EventType::Other(_),
            _,
        ) => Ok(Callback::Other { kind: envelope.event_type.word().to_owned() }),
    }
}

fn unreadable(why: impl ToString) -> CallbackError {
    CallbackError::Unreadable(why.to_string())
}
