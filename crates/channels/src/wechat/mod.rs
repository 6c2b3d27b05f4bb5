//! WeChat Pay, APIv3, direct merchant mode: our own account at WeChat receives the money.
//!
//! Bytes in, bytes out; the wire format itself lives in the crate `wechatpay`. Nothing is sent
//! here, and what an answer means for a payment is decided by the caller.

mod callback;
mod decode;
mod encode;
mod facts;
mod refusal;
mod settings;

pub use settings::{TrustedKey, WechatSettings, WechatSettingsError, direct_merchant_abilities};

use channel::{
    Abilities, Answer, Callback, CallbackError, Channel, ChannelId, EncodeError, HttpMessage,
    HttpRequest, Moment, Operation, ProviderKey,
};
use kernel::Timestamp;
use seal::{Certificate, VerifierRing};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};
use wechatpay::Apiv3Key;

pub struct Wechat {
    settings: WechatSettings,
    /// Scheme, host and port, without a slash at the end.
    origin: String,
    apiv3_key: Apiv3Key,
    /// The public key that answers should be signed with, if we hold one.
    asked_key: Option<String>,
    trust: RwLock<VerifierRing>,
    /// In milliseconds; 0 before a certificate was learnt.
    keys_end: AtomicI64,
}

impl Wechat {
    pub fn new(settings: WechatSettings) -> Result<Wechat, WechatSettingsError> {
        let origin = settings.origin()?;
        let apiv3_key = settings.checked_apiv3_key()?;
        settings.check_signer()?;
        settings.check_notify_urls()?;
        let mut ring = VerifierRing::default();
        for key in &settings.trust {
            ring.insert(&key.serial, key.verifier.clone());
        }
        let prefix = wechatpay::headers::PUBLIC_KEY_ID_PREFIX;
        let asked = settings.trust.iter().find(|it| it.serial.starts_with(prefix));
        let asked_key = asked.map(|it| it.serial.clone());
        Ok(Wechat {
            settings,
            origin,
            apiv3_key,
            asked_key,
            trust: RwLock::new(ring),
            keys_end: AtomicI64::new(0),
        })
    }

    fn verifier(&self, serial: &str) -> Option<seal::Verifier> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).get(serial).cloned()
    }
}

/// Keys stay out of logs.
impl fmt::Debug for Wechat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wechat({} at {}, mchid {})", self.settings.id, self.origin, self.settings.mchid)
    }
}

impl Channel for Wechat {
    fn id(&self) -> &ChannelId {
        &self.settings.id
    }

    fn abilities(&self) -> &Abilities {
        &self.settings.abilities
    }

    fn payee(&self) -> &str {
        &self.settings.mchid
    }

    fn encode(&self, operation: &Operation, moment: &Moment) -> Result<HttpRequest, EncodeError> {
        encode::request(self, operation, moment)
    }

    fn decode(&self, operation: &Operation, message: &HttpMessage, moment: &Moment) -> Answer {
        decode::answer(self, operation, message, moment)
    }

    fn callback(&self, message: &HttpMessage, now: Timestamp) -> Result<Callback, CallbackError> {
        callback::read(self, message, now)
    }

    /// Certificates that cannot be read are left out: they came through `decode`, which read them.
    fn learn(&self, keys: &[ProviderKey]) {
        let mut ring = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if let Ok(certificate) = Certificate::from_pem(&key.certificate_pem) {
                ring.insert(&key.serial, certificate.verifier());
                self.keys_end.fetch_max(certificate.not_after().ms(), Ordering::Relaxed);
            }
        }
    }

    fn keys_end(&self) -> Option<Timestamp> {
        let end = self.keys_end.load(Ordering::Relaxed);
        (end > 0).then(|| Timestamp::from_ms(end))
    }
}
