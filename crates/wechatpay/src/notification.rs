//! Notifications: the envelope around an encrypted payload, event types, the retry ladder.
//!
//! Signing the whole is done with `headers`; when the next try is due is decided by whoever has a
//! clock.

use crate::beijing;
use crate::wire_error::{WireError, read, time};
use crate::{Apiv3Key, RefundStatus};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kernel::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// Seconds to wait after each failed try: 15 more tries over 24 h 4 min.
pub const NOTIFY_LADDER_S: [i64; 15] = [
    15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600, 21_600,
];

/// A receiver has this long to answer.
pub const ANSWER_WITHIN_MS: u64 = 5_000;

pub const ALGORITHM: &str = "AEAD_AES_256_GCM";
pub const RESOURCE_TYPE: &str = "encrypt-resource";

/// `event_type`. Kinds that we do not act on keep their word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventType {
    TransactionSuccess,
    RefundSuccess,
    RefundAbnormal,
    RefundClosed,
    Other(String),
}

impl EventType {
    pub fn parse(word: &str) -> EventType {
        match word {
            "TRANSACTION.SUCCESS" => EventType::TransactionSuccess,
            "REFUND.SUCCESS" => EventType::RefundSuccess,
            "REFUND.ABNORMAL" => EventType::RefundAbnormal,
            "REFUND.CLOSED" => EventType::RefundClosed,
            other => EventType::Other(other.to_owned()),
        }
    }

    pub fn word(&self) -> &str {
        match self {
            EventType::TransactionSuccess => "TRANSACTION.SUCCESS",
            EventType::RefundSuccess => "REFUND.SUCCESS",
            EventType::RefundAbnormal => "REFUND.ABNORMAL",
            EventType::RefundClosed => "REFUND.CLOSED",
            EventType::Other(word) => word,
        }
    }

    /// `None` while the refund is being processed: that is not announced.
    pub fn of_refund(status: RefundStatus) -> Option<EventType> {
        match status {
            RefundStatus::Processing => None,
            RefundStatus::Success => Some(EventType::RefundSuccess),
            RefundStatus::Closed => Some(EventType::RefundClosed),
            RefundStatus::Abnormal => Some(EventType::RefundAbnormal),
        }
    }

    /// `summary`.
    pub fn summary(&self) -> &'static str {
        match self {
            EventType::TransactionSuccess => "支付成功",
            EventType::RefundSuccess => "退款成功",
            EventType::RefundAbnormal => "退款异常",
            EventType::RefundClosed => "退款关闭",
            EventType::Other(_) => "通知",
        }
    }

    /// `original_type` and `associated_data`.
    pub fn original_type(&self) -> &'static str {
        match self {
            EventType::TransactionSuccess => "transaction",
            EventType::RefundSuccess | EventType::RefundAbnormal | EventType::RefundClosed => {
                "refund"
            }
            EventType::Other(_) => "notification",
        }
    }
}

/// A notification as it travels, payload still encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The same on every retry.
    pub id: String,
    pub create_time: Timestamp,
    pub event_type: EventType,
    pub summary: String,
    pub original_type: String,
    pub associated_data: String,
    /// 12 bytes.
    pub nonce: String,
    pub ciphertext: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    #[error(transparent)]
    Unreadable(#[from] WireError),
    #[error("notification is encrypted with {0:?}; we open {ALGORITHM} only")]
    Algorithm(String),
    #[error("nonce of the notification has {0} bytes; AES-256-GCM needs 12")]
    Nonce(usize),
    #[error("ciphertext of the notification is not base64")]
    NotBase64,
    #[error("the APIv3 key does not open notification {0}; compare it with the platform's")]
    WrongKey(String),
}

/// The nonce of AES-GCM is 12 bytes of text.
pub(crate) fn nonce_bytes(nonce: &str) -> Option<&[u8; 12]> {
    nonce.as_bytes().try_into().ok()
}

impl Envelope {
    /// Encrypts `plain` with the usual words for `event_type`.
    ///
    /// - Input: `nonce` of 12 ASCII letters or digits, never used twice with one key.
    pub fn seal(
        id: &str,
        create_time: Timestamp,
        event_type: EventType,
        plain: &[u8],
        nonce: &str,
        key: &Apiv3Key,
    ) -> Result<Envelope, NotificationError> {
        let twelve = nonce_bytes(nonce).ok_or(NotificationError::Nonce(nonce.len()))?;
        let kind = event_type.original_type();
        let ciphertext = seal::aead::seal_gcm(key.expose(), twelve, kind.as_bytes(), plain);
        Ok(Envelope {
            id: id.to_owned(),
            create_time,
            summary: event_type.summary().to_owned(),
            event_type,
            original_type: kind.to_owned(),
            associated_data: kind.to_owned(),
            nonce: nonce.to_owned(),
            ciphertext,
        })
    }

    pub fn to_json(&self) -> String {
        json!({
            "id": self.id,
            "create_time": beijing::rfc3339(self.create_time),
            "event_type": self.event_type.word(),
            "resource_type": RESOURCE_TYPE,
            "summary": self.summary,
            "resource": {
                "algorithm": ALGORITHM,
                "ciphertext": STANDARD.encode(&self.ciphertext),
                "associated_data": self.associated_data,
                "original_type": self.original_type,
                "nonce": self.nonce,
            },
        })
        .to_string()
    }

    pub fn parse(body: &[u8]) -> Result<Envelope, NotificationError> {
        let raw: RawEnvelope = read("a notification", body)?;
        let resource = raw.resource;
        if resource.algorithm != ALGORITHM {
            let name = resource.algorithm.chars().take(64).collect();
            return Err(NotificationError::Algorithm(name));
        }
        if nonce_bytes(&resource.nonce).is_none() {
            return Err(NotificationError::Nonce(resource.nonce.len()));
        }
        let ciphertext =
            STANDARD.decode(&resource.ciphertext).map_err(|_| NotificationError::NotBase64)?;
        let create_time = time("create_time", Some(&raw.create_time))?;
        Ok(Envelope {
            id: raw.id,
            create_time: create_time.ok_or(WireError::BadValue {
                member: "create_time",
                value: raw.create_time,
                want: "an RFC 3339 time",
            })?,
            event_type: EventType::parse(&raw.event_type),
            summary: raw.summary.unwrap_or_default(),
            original_type: resource.original_type.unwrap_or_default(),
            associated_data: resource.associated_data.unwrap_or_default(),
            nonce: resource.nonce,
            ciphertext,
        })
    }

    /// The payload. Opening it proves that the sender knows the APIv3 key and nothing more: check
    /// the signature first.
    pub fn open(&self, key: &Apiv3Key) -> Result<Vec<u8>, NotificationError> {
        let nonce = nonce_bytes(&self.nonce).ok_or(NotificationError::Nonce(self.nonce.len()))?;
        let aad = self.associated_data.as_bytes();
        seal::aead::open_gcm(key.expose(), nonce, aad, &self.ciphertext)
            .map_err(|_| NotificationError::WrongKey(self.id.chars().take(64).collect()))
    }
}

#[derive(Deserialize)]
struct RawEnvelope {
    id: String,
    create_time: String,
    event_type: String,
    summary: Option<String>,
    resource: RawResource,
}

#[derive(Deserialize)]
struct RawResource {
    algorithm: String,
    ciphertext: String,
    associated_data: Option<String>,
    original_type: Option<String>,
    nonce: String,
}

/// What a receiver answers when it accepts: nothing, with 204, or this with 200.
pub fn accepted_body() -> String {
    json!({ "code": "SUCCESS", "message": "成功" }).to_string()
}

/// What a receiver answers with 4xx or 5xx when it does not. The message is cut at 256 characters.
pub fn refused_body(message: &str) -> String {
    let message: String = message.chars().take(256).collect();
    json!({ "code": "FAIL", "message": Value::from(message) }).to_string()
}

/// Whether the receiver took the notification: 200 or 204. Other 2xx are undocumented and count
/// as failures.
pub fn is_accepted(status: u16) -> bool {
    matches!(status, 200 | 204)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Apiv3Key {
        Apiv3Key::parse("0123456789abcdef0123456789ABCDEF").unwrap()
    }

    #[test]
    fn the_ladder_takes_24_hours_and_4_minutes() {
        assert_eq!(NOTIFY_LADDER_S.iter().sum::<i64>(), 24 * 3_600 + 4 * 60);
    }

    #[test]
    fn bad_envelopes_are_refused_by_what_is_wrong() {
        let envelope = |algorithm: &str, nonce: &str, ciphertext: &str| {
            json!({
                "id": "1", "create_time": "2018-06-08T10:34:56+08:00",
                "event_type": "TRANSACTION.SUCCESS", "resource_type": "encrypt-resource",
                "resource": { "algorithm": algorithm, "nonce": nonce, "ciphertext": ciphertext },
            })
            .to_string()
        };
        let check = |body: String, want: NotificationError| {
            assert_eq!(Envelope::parse(body.as_bytes()), Err(want), "{body}");
        };
        check(
            envelope("AEAD_SM4_GCM", "fdasflkja484", ""),
            NotificationError::Algorithm("AEAD_SM4_GCM".into()),
        );
        check(envelope(ALGORITHM, "short", ""), NotificationError::Nonce(5));
        check(envelope(ALGORITHM, "fdasflkja484", "*"), NotificationError::NotBase64);
        let forged = envelope(ALGORITHM, "fdasflkja484", "AAAA");
        let forged = Envelope::parse(forged.as_bytes()).unwrap();
        assert_eq!(forged.open(&key()), Err(NotificationError::WrongKey("1".into())));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(plain in any::<Vec<u8>>(), nonce in "[0-9A-Za-z]{12}", s in 0i64..4_000_000_000) {
            let at = Timestamp::from_ms(s * 1_000);
            let kind = EventType::RefundSuccess;
            let sealed = Envelope::seal("EV-1", at, kind, &plain, &nonce, &key()).unwrap();
            let read = Envelope::parse(sealed.to_json().as_bytes()).unwrap();
            prop_assert_eq!(&read, &sealed);
            prop_assert_eq!(read.open(&key()), Ok(plain));
        }

        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>()) {
            let _ = Envelope::parse(&body).map(|it| it.open(&key()));
        }
    }
}
