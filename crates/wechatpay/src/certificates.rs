//! The list of platform certificates: `GET /v3/certificates`, each encrypted with the APIv3 key.
//!
//! Which certificates are listed, and which of them is trusted, is decided elsewhere.

use crate::notification::{ALGORITHM, NotificationError, nonce_bytes};
use crate::wire_error::{WireError, read, time};
use crate::{Apiv3Key, beijing};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kernel::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

pub const PATH: &str = "/v3/certificates";
const ASSOCIATED_DATA: &str = "certificate";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformCertificate {
    pub serial_no: String,
    pub effective_time: Timestamp,
    pub expire_time: Timestamp,
    pub pem: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificatesError {
    #[error(transparent)]
    Unreadable(#[from] WireError),
    #[error("certificate {serial_no} cannot be opened: {why}")]
    Closed { serial_no: String, why: &'static str },
}

/// Writes the list.
///
/// - Input: with each certificate a nonce of 12 ASCII characters, never used twice with one key.
/// - Errors: a nonce of another length.
pub fn render(
    certificates: &[(PlatformCertificate, String)],
    key: &Apiv3Key,
) -> Result<String, NotificationError> {
    let mut data = Vec::with_capacity(certificates.len());
    for (it, nonce) in certificates {
        let twelve = nonce_bytes(nonce).ok_or(NotificationError::Nonce(nonce.len()))?;
        let aad = ASSOCIATED_DATA.as_bytes();
        let ciphertext = seal::aead::seal_gcm(key.expose(), twelve, aad, it.pem.as_bytes());
        data.push(json!({
            "serial_no": it.serial_no,
            "effective_time": beijing::rfc3339(it.effective_time),
            "expire_time": beijing::rfc3339(it.expire_time),
            "encrypt_certificate": {
                "algorithm": ALGORITHM,
                "nonce": nonce,
                "associated_data": ASSOCIATED_DATA,
                "ciphertext": STANDARD.encode(ciphertext),
            },
        }));
    }
    Ok(json!({ "data": Value::Array(data) }).to_string())
}

#[derive(Deserialize)]
struct RawList {
    data: Vec<RawCertificate>,
}

#[derive(Deserialize)]
struct RawCertificate {
    serial_no: String,
    effective_time: String,
    expire_time: String,
    encrypt_certificate: RawClosed,
}

#[derive(Deserialize)]
struct RawClosed {
    algorithm: String,
    nonce: String,
    associated_data: Option<String>,
    ciphertext: String,
}

/// Reads and opens the list. All must open: a list of which a part is forged is worth nothing.
pub fn parse(body: &[u8], key: &Apiv3Key) -> Result<Vec<PlatformCertificate>, CertificatesError> {
    let list: RawList = read("a list of certificates", body)?;
    list.data.into_iter().map(|it| open(it, key)).collect()
}

fn open(raw: RawCertificate, key: &Apiv3Key) -> Result<PlatformCertificate, CertificatesError> {
    let closed = |why| CertificatesError::Closed {
        serial_no: raw.serial_no.chars().take(64).collect(),
        why,
    };
    let sealed = &raw.encrypt_certificate;
    if sealed.algorithm != ALGORITHM {
        return Err(closed("its algorithm is not AEAD_AES_256_GCM"));
    }
    let nonce = nonce_bytes(&sealed.nonce).ok_or_else(|| closed("its nonce is not 12 bytes"))?;
    let ciphertext =
        STANDARD.decode(&sealed.ciphertext).map_err(|_| closed("its ciphertext is not base64"))?;
    let aad = sealed.associated_data.as_deref().unwrap_or("").as_bytes();
    let plain = seal::aead::open_gcm(key.expose(), nonce, aad, &ciphertext)
        .map_err(|_| closed("the APIv3 key does not fit"))?;
    let pem = String::from_utf8(plain).map_err(|_| closed("it is not text"))?;
    let moment = |member, text: &str| {
        let found = time(member, Some(text))?;
        found.ok_or(WireError::BadValue { member, value: String::new(), want: "an RFC 3339 time" })
    };
    Ok(PlatformCertificate {
        effective_time: moment("effective_time", &raw.effective_time)?,
        expire_time: moment("expire_time", &raw.expire_time)?,
        serial_no: raw.serial_no,
        pem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Apiv3Key {
        Apiv3Key::parse("0123456789abcdef0123456789ABCDEF").unwrap()
    }

    #[test]
    fn a_list_reads_back_with_the_right_key_only() {
        let one = PlatformCertificate {
            serial_no: "5157F09EFDC096DE15EBE81A47057A7232F1B8E1".into(),
            effective_time: Timestamp::from_ms(1_528_427_696_000),
            expire_time: Timestamp::from_ms(1_686_107_696_000),
            pem: "-----BEGIN CERTIFICATE-----\n…".into(),
        };
        let two = PlatformCertificate { serial_no: "AB".into(), ..one.clone() };
        let listed = [(one.clone(), "61f9c719728a".into()), (two.clone(), "61f9c719728b".into())];
        let body = render(&listed, &key()).unwrap();
        assert_eq!(parse(body.as_bytes(), &key()), Ok(vec![one, two]));
        let other = Apiv3Key::parse("1123456789abcdef0123456789ABCDEF").unwrap();
        assert!(matches!(parse(body.as_bytes(), &other), Err(CertificatesError::Closed { .. })));
        assert_eq!(render(&[], &key()).unwrap(), r#"{"data":[]}"#);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in any::<Vec<u8>>()) {
            let _ = parse(&body, &key());
        }
    }
}
