//! How an event looks to whoever listens: `docs/events.md` says it in more words. The form is part
//! of the API: fields may be added, none is taken away.

use super::EVENTS;
use crate::observe::trace;
use app::BusinessEvent;
use kernel::Timestamp;
use serde::Serialize;
use wechatpay::beijing::rfc3339;

#[derive(Serialize)]
struct Body<'a> {
    id: String,
    r#type: &'a str,
    /// When this event was made, which is not when the money moved.
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    merchant: &'a str,
    payment: &'a str,
    order_no: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_no: Option<&'a str>,
    amount_minor: i64,
    currency: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

/// `feiqian.event.refund.succeeded.1900000109`.
pub fn subject(event: &BusinessEvent) -> String {
    format!("{EVENTS}.{}.{}", event.name.as_str(), event.merchant)
}

pub fn json(event: &BusinessEvent, now: Timestamp) -> Vec<u8> {
    let body = Body {
        id: event.id(),
        r#type: event.name.as_str(),
        timestamp: rfc3339(now),
        data: Data {
            merchant: event.merchant.as_str(),
            payment: event.payment.as_str(),
            order_no: &event.order_no,
            refund: event.refund.as_ref().map(|it| it.0.as_str()),
            refund_no: event.refund.as_ref().map(|it| it.1.as_str()),
            amount_minor: event.amount.minor(),
            currency: event.amount.currency().code(),
            state: event.name.state(),
            done_at: event.done.map(rfc3339),
            trace_id: event.trace.as_deref().and_then(trace::id_of),
        },
    };
    serde_json::to_vec(&body).expect("texts and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use app::EventName;
    use kernel::{Currency, MerchantId, Money, Serial};

    #[test]
    fn a_refund_as_listeners_read_it() {
        let serial = |text| Serial::parse(text).unwrap();
        let event = BusinessEvent {
            name: EventName::RefundSucceeded,
            merchant: MerchantId::parse("1900000109").unwrap(),
            payment: serial("2026112241400000110000000015"),
            order_no: "ORDER-1".into(),
            refund: Some((serial("2026112241420000210000000011"), "BACK-1".into())),
            amount: Money::new(250, Currency::Cny),
            done: Some(Timestamp::from_ms(1_795_318_220_000)),
            trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        };
        assert_eq!(subject(&event), "feiqian.event.refund.succeeded.1900000109");
        let body = json(&event, Timestamp::from_ms(1_795_318_221_000));
        let wanted = concat!(
            r#"{"id":"2026112241420000210000000011-succeeded","type":"refund.succeeded","#,
            r#""timestamp":"2026-11-22T11:30:21+08:00","data":{"merchant":"1900000109","#,
            r#""payment":"2026112241400000110000000015","order_no":"ORDER-1","#,
            r#""refund":"2026112241420000210000000011","refund_no":"BACK-1","#,
            r#""amount_minor":250,"currency":"CNY","state":"succeeded","#,
            r#""done_at":"2026-11-22T11:30:20+08:00","#,
            r#""trace_id":"0af7651916cd43dd8448eb211c80319c"}}"#,
        );
        assert_eq!(String::from_utf8(body).unwrap(), wanted);
    }
}
