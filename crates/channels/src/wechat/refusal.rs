//! What an error answer means for what was asked. Decided by status and code, never by message.
//! Only a clear no is a no: all else leaves the outcome unknown.

use channel::{Answer, Decline, Operation};
use wechatpay::ApiError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Refused, no effect; the same request will be refused again.
    No,
    /// Refused, no effect; the same request may succeed later.
    NotNow,
    NotFound,
    Closed,
    Unknown,
}

/// - Input: the body of an answer that is not 2xx.
pub(super) fn answer(operation: &Operation, status: u16, body: &[u8]) -> Answer {
    let error = ApiError::parse(status, body);
    let message: String = error.message.zh.chars().take(256).collect();
    let code: String = error.code.chars().take(64).collect();
    let verdict = match status {
        // A body that is no error object comes from a gateway or a wrong address, not from WeChat.
        400..=499 if !code.starts_with("HTTP_") && !code.is_empty() => {
            verdict(operation, status, &code)
        }
        _ => Verdict::Unknown,
    };
    match verdict {
        Verdict::No => Answer::Declined(Decline { code, message, temporary: false }),
        Verdict::NotNow => Answer::Declined(Decline { code, message, temporary: true }),
        Verdict::NotFound => Answer::NotFound,
        Verdict::Closed => Answer::Closed,
        Verdict::Unknown => Answer::InDoubt { why: format!("status {status} {code}: {message}") },
    }
}

fn verdict(operation: &Operation, status: u16, code: &str) -> Verdict {
    match (operation, code) {
        // "The system is confused" is no answer, whatever the status.
        (_, "SYSTEM_ERROR" | "SYSTEMERROR" | "SERVICE_UNAVAILABLE") => Verdict::Unknown,

        // The number is in use: the order exists, and may be paid. The query knows.
        (Operation::Create(_), "ORDER_CLOSED" | "OUT_TRADE_NO_USED" | "ORDERPAID") => {
            Verdict::Unknown
        }

        (Operation::Query { .. }, "ORDER_NOT_EXIST" | "RESOURCE_NOT_EXISTS") if status == 404 => {
            Verdict::NotFound
        }
        (Operation::QueryRefund { .. }, "RESOURCE_NOT_EXISTS") if status == 404 => {
            Verdict::NotFound
        }
        // A question that was refused tells nothing about the money.
        (Operation::Query { .. } | Operation::QueryRefund { .. }, _) => Verdict::Unknown,

        (Operation::Close { .. }, "ORDER_NOT_EXIST") if status == 404 => Verdict::NotFound,
        (Operation::Close { .. }, "ORDER_CLOSED") => Verdict::Closed,
        // Often because it was paid a moment ago.
        (Operation::Close { .. }, "INVALID_REQUEST" | "TRADE_ERROR" | "ORDERPAID") => {
            Verdict::Unknown
        }

        // The order is unknown or unpaid there.
        (Operation::Refund(_), "RESOURCE_NOT_EXISTS" | "ORDER_NOT_EXIST") => Verdict::NotFound,
        (Operation::Refund(_), "NOT_ENOUGH") => Verdict::NotNow,
        // Accepted, says WeChat Pay: repeat with the same number.
        (Operation::Refund(_), _) if status == 429 => Verdict::Unknown,

        (Operation::Bill { .. }, "STATEMENT_CREATING") => Verdict::NotNow,

        // Our key, serial or clock is wrong, or we ask too fast: nothing is wrong with the order.
        (_, _) if status == 401 || status == 429 => Verdict::NotNow,
        (
            _,
            "FREQUENCY_LIMITED"
            | "FREQUENCY_LIMIT_EXCEED"
            | "FREQENCY_LIMIT"
            | "RATE_LIMITED"
            | "RATELIMIT_EXCEEDED",
        ) => Verdict::NotNow,
        // A request time-out, or a clash with another request: what came of it is open.
        (_, _) if status == 408 || status == 409 => Verdict::Unknown,
        (_, _) => Verdict::No,
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Closed, No, NotFound, NotNow, Unknown};
    use super::*;
    use channel::{CreateOrder, CreateRefund, Product};
    use kernel::{
        BusinessDay, Currency, Money, Serial, SerialGenerator, SerialKind, Timestamp, Zone,
    };

    fn serial() -> Serial {
        let mut generator = SerialGenerator::new(1, Zone::shanghai());
        generator.next(Timestamp::from_ms(1_700_000_000_000), SerialKind::Attempt)
    }

    fn operations() -> [Operation; 6] {
        let (attempt, amount) = (serial(), Money::new(100, Currency::Cny));
        [
            Operation::Create(CreateOrder {
                attempt,
                callback_path: "m/p".into(),
                product: Product::Native,
                amount,
                description: "x".into(),
                expires: Timestamp::from_ms(0),
                payer: None,
                payer_ip: None,
                h5_type: None,
            }),
            Operation::Query { attempt },
            Operation::Close { attempt },
            Operation::Refund(CreateRefund {
                refund: attempt,
                attempt,
                callback_path: "m/r".into(),
                amount,
                total: amount,
                reason: None,
            }),
            Operation::QueryRefund { refund: attempt },
            Operation::Bill { day: BusinessDay::parse("2026-11-21").unwrap() },
        ]
    }

    #[test]
    fn an_error_means_what_the_protocol_says() {
        // What it means for:  create, query, close, refund, query of a refund, bill.
        let check = |status: u16, code: &str, want: [Verdict; 6]| {
            let body = format!(r#"{{"code":"{code}","message":"原因"}}"#);
            for (operation, want) in operations().iter().zip(want) {
                let got = match answer(operation, status, body.as_bytes()) {
                    Answer::Declined(it) if it.temporary => NotNow,
                    Answer::Declined(_) => No,
                    Answer::NotFound => NotFound,
                    Answer::Closed => Closed,
                    Answer::InDoubt { .. } => Unknown,
                    other => panic!("{other:?}"),
                };
                assert_eq!(got, want, "{status} {code} to {operation:?}");
            }
        };
        check(400, "PARAM_ERROR", [No, Unknown, No, No, Unknown, No]);
        check(400, "INVALID_REQUEST", [No, Unknown, Unknown, No, Unknown, No]);
        check(400, "APPID_MCHID_NOT_MATCH", [No, Unknown, No, No, Unknown, No]);
        check(400, "ORDER_CLOSED", [Unknown, Unknown, Closed, No, Unknown, No]);
        check(400, "NO_STATEMENT_EXIST", [No, Unknown, No, No, Unknown, No]);
        check(400, "STATEMENT_CREATING", [No, Unknown, No, No, Unknown, NotNow]);
        check(401, "SIGN_ERROR", [NotNow, Unknown, NotNow, NotNow, Unknown, NotNow]);
        check(403, "NO_AUTH", [No, Unknown, No, No, Unknown, No]);
        check(403, "OUT_TRADE_NO_USED", [Unknown, Unknown, No, No, Unknown, No]);
        check(403, "NOT_ENOUGH", [No, Unknown, No, NotNow, Unknown, No]);
        check(403, "TRADE_ERROR", [No, Unknown, Unknown, No, Unknown, No]);
        check(404, "ORDER_NOT_EXIST", [No, NotFound, NotFound, NotFound, Unknown, No]);
        check(404, "RESOURCE_NOT_EXISTS", [No, NotFound, No, NotFound, NotFound, No]);
        check(404, "MCH_NOT_EXISTS", [No, Unknown, No, No, Unknown, No]);
        check(404, "NOT_FOUND", [No, Unknown, No, No, Unknown, No]);
        check(400, "ORDER_NOT_EXIST", [No, Unknown, No, NotFound, Unknown, No]);
        check(429, "FREQUENCY_LIMITED", [NotNow, Unknown, NotNow, Unknown, Unknown, NotNow]);
        check(403, "RATELIMIT_EXCEEDED", [NotNow, Unknown, NotNow, NotNow, Unknown, NotNow]);
        for status in [301, 400, 403, 429, 500, 502, 503] {
            check(status, "SYSTEM_ERROR", [Unknown; 6]);
        }
        for status in [302, 500, 502, 503, 504] {
            check(status, "ORDER_NOT_EXIST", [Unknown; 6]);
        }
    }

    #[test]
    fn a_body_that_is_no_error_object_decides_nothing() {
        for body in ["", "<html>Not Found</html>", "[]", "{}", r#"{"code":404}"#, r#"{"code":""}"#]
        {
            for status in [400, 401, 403, 404, 405, 429] {
                for operation in operations() {
                    let got = answer(&operation, status, body.as_bytes());
                    assert!(matches!(got, Answer::InDoubt { .. }), "{status} {body:?}: {got:?}");
                }
            }
        }
    }
}
