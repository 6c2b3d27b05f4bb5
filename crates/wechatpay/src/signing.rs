//! What is signed: the exact bytes of every message, the names of the schemes, how old a
//! signature may be, and the client-side payment parameters.
//!
//! No key is chosen here and nothing is verified.

use kernel::Timestamp;
use seal::{Scheme, Signer};

/// RSASSA-PKCS1-v1_5 with SHA-256.
pub const SCHEME_RSA: &str = "WECHATPAY2-SHA256-RSA2048";
/// 国密: SM2 with SM3.
pub const SCHEME_SM2: &str = "WECHATPAY2-SM2-WITH-SM3";
/// Our own fast extra; WeChat Pay does not know it.
pub const SCHEME_ED25519: &str = "FEIQIAN-ED25519";

/// A deliberately wrong signature begins with this. Do not look for it: it fails verification by
/// itself. It is here for simulators.
pub const PROBE_PREFIX: &str = "WECHATPAY/SIGNTEST/";

/// How far a timestamp may be from now, in seconds.
pub const FRESH_S: i64 = 300;

pub fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Rsa => SCHEME_RSA,
        Scheme::Sm2 => SCHEME_SM2,
        Scheme::Ed25519 => SCHEME_ED25519,
    }
}

/// Exact: case and blanks count.
pub fn scheme_of(name: &str) -> Option<Scheme> {
    [Scheme::Rsa, Scheme::Sm2, Scheme::Ed25519].into_iter().find(|it| scheme_name(*it) == name)
}

/// Whether a timestamp is close enough to now.
pub fn is_fresh(timestamp: i64, now: Timestamp) -> bool {
    timestamp.abs_diff(now.seconds()) <= FRESH_S.unsigned_abs()
}

fn lines(parts: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::with_capacity(parts.iter().map(|it| it.len() + 1).sum());
    for part in parts {
        message.extend_from_slice(part);
        message.push(b'\n');
    }
    message
}

/// What a request signs.
///
/// - Input: `method` in upper case; `path_and_query` exactly as in the request line; `body` as
///   sent, empty for GET, the text of the `meta` part for uploads.
pub fn request_message(
    method: &str,
    path_and_query: &str,
    timestamp: i64,
    nonce: &str,
    body: &[u8],
) -> Vec<u8> {
    let time = timestamp.to_string();
    lines(&[method.as_bytes(), path_and_query.as_bytes(), time.as_bytes(), nonce.as_bytes(), body])
}

/// What a response or a notification signs. `body` is empty for 204.
pub fn response_message(timestamp: i64, nonce: &str, body: &[u8]) -> Vec<u8> {
    let time = timestamp.to_string();
    lines(&[time.as_bytes(), nonce.as_bytes(), body])
}

/// What `paySign` of JSAPI and mini programs signs. `package` is `prepay_id=…`.
pub fn jsapi_message(appid: &str, timestamp: i64, nonce: &str, package: &str) -> Vec<u8> {
    let time = timestamp.to_string();
    lines(&[appid.as_bytes(), time.as_bytes(), nonce.as_bytes(), package.as_bytes()])
}

/// What `sign` of the App signs: the prepay id stands bare.
pub fn app_message(appid: &str, timestamp: i64, nonce: &str, prepay_id: &str) -> Vec<u8> {
    jsapi_message(appid, timestamp, nonce, prepay_id)
}

/// The parameters of `getBrandWCPayRequest` and `wx.requestPayment`, in the documented order.
///
/// - Input: `signer` holds the merchant's API key.
pub fn jsapi_pay_params(
    appid: &str,
    prepay_id: &str,
    timestamp: i64,
    nonce: &str,
    signer: &Signer,
) -> Vec<(String, String)> {
    let package = format!("prepay_id={prepay_id}");
    let sign = signer.sign_base64(&jsapi_message(appid, timestamp, nonce, &package));
    let sign_type = match signer.scheme() {
        Scheme::Rsa => "RSA",
        Scheme::Sm2 => "SM2",
        Scheme::Ed25519 => "ED25519",
    };
    named([
        ("appId", appid),
        ("timeStamp", &timestamp.to_string()),
        ("nonceStr", nonce),
        ("package", &package),
        ("signType", sign_type),
        ("paySign", &sign),
    ])
}

/// The parameters of the App's `PayReq`, in the documented order.
///
/// - Input: `partnerid` is the mchid; `signer` holds the merchant's API key.
pub fn app_pay_params(
    appid: &str,
    partnerid: &str,
    prepay_id: &str,
    timestamp: i64,
    nonce: &str,
    signer: &Signer,
) -> Vec<(String, String)> {
    let sign = signer.sign_base64(&app_message(appid, timestamp, nonce, prepay_id));
    named([
        ("appid", appid),
        ("partnerid", partnerid),
        ("prepayid", prepay_id),
        ("package", "Sign=WXPay"),
        ("noncestr", nonce),
        ("timestamp", &timestamp.to_string()),
        ("sign", &sign),
    ])
}

fn named<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_fresh_for_five_minutes_either_way() {
        let now = Timestamp::from_ms(1_700_000_000_999);
        let check = |timestamp, want| assert_eq!(is_fresh(timestamp, now), want, "{timestamp}");
        check(1_700_000_000, true);
        check(1_700_000_300, true);
        check(1_699_999_700, true);
        check(1_700_000_301, false);
        check(1_699_999_699, false);
        check(i64::MIN, false);
    }

    #[test]
    fn scheme_names_read_back_exactly() {
        for scheme in [Scheme::Rsa, Scheme::Sm2, Scheme::Ed25519] {
            assert_eq!(scheme_of(scheme_name(scheme)), Some(scheme));
        }
        assert_eq!(scheme_of("wechatpay2-sha256-rsa2048"), None);
    }
}
