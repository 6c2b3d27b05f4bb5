//! New keys, and certificates that a platform gives to itself. Randomness comes from the system.

use crate::signer::SM2_SIGNER_ID;
use crate::{KeyError, Signer, pem, random_bytes};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::Ed25519KeyPair;
use kernel::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};
use sm2::pkcs8::{EncodePrivateKey, LineEnding};
use std::fmt;
use std::time::Duration;

/// A fresh key. `private_pem` is PKCS#8, `public_pem` SubjectPublicKeyInfo.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPairPem {
    pub private_pem: String,
    pub public_pem: String,
}

impl fmt::Debug for KeyPairPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPairPem {{ private_pem: …, public_pem: {:?} }}", self.public_pem)
    }
}

impl KeyPairPem {
    fn of(private_pem: String) -> KeyPairPem {
        let signer = Signer::from_pem(&private_pem).expect("a key that was made just now");
        KeyPairPem { private_pem, public_pem: signer.public_key_pem() }
    }
}

/// A new RSA key of 2048 bits: what WeChat Pay and its SDKs use. Takes a few tenths of a second.
pub fn generate_rsa() -> KeyPairPem {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("RSA generation needs only memory");
    let der: Pkcs8V1Der = pair.as_der().expect("a new key encodes");
    KeyPairPem::of(pem::encode("PRIVATE KEY", der.as_ref()))
}

pub fn generate_ed25519() -> KeyPairPem {
    let pair = Ed25519KeyPair::generate().expect("Ed25519 generation needs only memory");
    // Version 1 of PKCS#8, because OpenSSL reads no other for Ed25519.
    let der: Pkcs8V1Der = pair.as_der().expect("a new key encodes");
    KeyPairPem::of(pem::encode("PRIVATE KEY", der.as_ref()))
}

pub fn generate_sm2() -> KeyPairPem {
    let secret = loop {
        // A draw is out of range once in 2^32, and `SigningKey` refuses one value more.
        let Ok(secret) = sm2::SecretKey::from_slice(&random_bytes::<32>()) else { continue };
        if sm2::dsa::SigningKey::new(SM2_SIGNER_ID, &secret).is_ok() {
            break secret;
        }
    };
    let private = secret.to_pkcs8_pem(LineEnding::LF).expect("a new key encodes");
    KeyPairPem::of(private.to_string())
}

/// Returns a certificate that the key signs for itself, as PEM.
///
/// - Input: an RSA or Ed25519 key in PKCS#8. The first bit of `serial` is cleared and the second
///   set, so that the number is positive and always shows as 40 hex digits: read the final serial
///   with [`crate::Certificate::serial`]. Times count in whole seconds.
/// - Errors: SM2 keys (the certificate library does not know them) and unreadable keys.
pub fn self_signed(
    private_pem: &str,
    common_name: &str,
    serial: [u8; 20],
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<String, KeyError> {
    let refused = |why: rcgen::Error| KeyError::Unreadable {
        what: "key for a certificate",
        why: why.to_string(),
    };
    let key = KeyPair::from_pem(private_pem).map_err(refused)?;
    let mut serial = serial;
    serial[0] = serial[0] & 0x7f | 0x40;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| epoch + Duration::from_secs(time.seconds().unsigned_abs());
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.not_before = at(not_before);
    params.not_after = at(not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = name;
    Ok(params.self_signed(&key).map_err(refused)?.pem())
}
