//! Names of headers, and the five that sign a response or a notification.
//!
//! Names are in lower case, as HTTP libraries want them; whoever sends over HTTP/1.1 writes title
//! case, because one SDK looks them up by exact case.

use crate::signing::{response_message, scheme_name};
use seal::{Signer, Verifier};

pub const ACCEPT: &str = "accept";
pub const ACCEPT_LANGUAGE: &str = "accept-language";
pub const AUTHORIZATION: &str = "authorization";
pub const CONTENT_TYPE: &str = "content-type";
pub const CONTENT_LANGUAGE: &str = "content-language";
pub const REQUEST_ID: &str = "request-id";
pub const USER_AGENT: &str = "user-agent";
pub const WECHATPAY_NONCE: &str = "wechatpay-nonce";
pub const WECHATPAY_SERIAL: &str = "wechatpay-serial";
pub const WECHATPAY_SIGNATURE: &str = "wechatpay-signature";
pub const WECHATPAY_SIGNATURE_TYPE: &str = "wechatpay-signature-type";
pub const WECHATPAY_TIMESTAMP: &str = "wechatpay-timestamp";

/// The content type of every JSON answer. One SDK verifies decoded text: the charset matters.
pub const JSON: &str = "application/json; charset=utf-8";

/// What the id of a platform public key begins with.
pub const PUBLIC_KEY_ID_PREFIX: &str = "PUB_KEY_ID_";

/// The five headers of a signed response or notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// Unix seconds.
    pub timestamp: i64,
    pub nonce: String,
    pub signature: String,
    /// Of the platform certificate, or the id of the public key.
    pub serial: String,
    pub signature_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureHeadersError {
    #[error("header {0} is missing; an unsigned message proves nothing")]
    Missing(&'static str),
    #[error("header wechatpay-timestamp is {0:?}, not Unix seconds")]
    Timestamp(String),
}

impl SignatureHeaders {
    /// Signs `body`; empty for 204.
    pub fn sign(
        signer: &Signer,
        serial: &str,
        timestamp: i64,
        nonce: &str,
        body: &[u8],
    ) -> SignatureHeaders {
        SignatureHeaders {
            timestamp,
            nonce: nonce.to_owned(),
            signature: signer.sign_base64(&response_message(timestamp, nonce, body)),
            serial: serial.to_owned(),
            signature_type: scheme_name(signer.scheme()).to_owned(),
        }
    }

    /// Names and values, to put on a message.
    pub fn pairs(self) -> [(&'static str, String); 5] {
        [
            (WECHATPAY_TIMESTAMP, self.timestamp.to_string()),
            (WECHATPAY_NONCE, self.nonce),
            (WECHATPAY_SIGNATURE, self.signature),
            (WECHATPAY_SERIAL, self.serial),
            (WECHATPAY_SIGNATURE_TYPE, self.signature_type),
        ]
    }

    /// Reads them off a message. A missing signature type means RSA: older servers leave it out.
    ///
    /// - Input: `get` finds a header by its lower-case name.
    pub fn read<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<SignatureHeaders, SignatureHeadersError> {
        let need = |name: &'static str| match get(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(SignatureHeadersError::Missing(name)),
        };
        let time = need(WECHATPAY_TIMESTAMP)?;
        let bad_time = || SignatureHeadersError::Timestamp(time.chars().take(32).collect());
        Ok(SignatureHeaders {
            timestamp: time.parse().map_err(|_| bad_time())?,
            nonce: need(WECHATPAY_NONCE)?.to_owned(),
            signature: need(WECHATPAY_SIGNATURE)?.to_owned(),
            serial: need(WECHATPAY_SERIAL)?.to_owned(),
            signature_type: get(WECHATPAY_SIGNATURE_TYPE)
                .unwrap_or(crate::signing::SCHEME_RSA)
                .to_owned(),
        })
    }

    /// Whether the signature is that of `verifier` over `body`, in the scheme the headers name.
    /// Freshness is a question of its own: [`crate::signing::is_fresh`].
    pub fn holds(&self, verifier: &Verifier, body: &[u8]) -> bool {
        scheme_name(verifier.scheme()) == self.signature_type
            && verifier.verify_base64(
                &response_message(self.timestamp, &self.nonce, body),
                &self.signature,
            )
    }
}
