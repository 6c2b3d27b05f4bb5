//! Certificates as name tags of keys: serial, validity, public key. No chain is built or judged:
//! WeChat Pay hands its certificates over under its own seal.

use crate::{KeyError, Verifier, digest, pem};
use kernel::Timestamp;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

const WANT: &str = "CERTIFICATE";

#[derive(Clone, Debug)]
pub struct Certificate {
    serial: String,
    not_before: Timestamp,
    not_after: Timestamp,
    verifier: Verifier,
    pem: String,
}

impl Certificate {
    /// Reads the first certificate of `text`.
    pub fn from_pem(text: &str) -> Result<Certificate, KeyError> {
        let block = pem::decode(text, WANT)?;
        if block.label != WANT {
            return Err(KeyError::WrongBlock { found: block.label, want: WANT });
        }
        let unreadable = |why: String| KeyError::Unreadable { what: "certificate", why };
        let (_, parsed) =
            X509Certificate::from_der(&block.der).map_err(|why| unreadable(why.to_string()))?;
        // DER puts a zero byte before a number whose first bit is set; serials are shown without.
        let serial = match parsed.raw_serial() {
            [0, rest @ ..] if !rest.is_empty() => rest,
            all => all,
        };
        let at = |time: ASN1Time| Timestamp::from_ms(time.timestamp().saturating_mul(1000));
        Ok(Certificate {
            serial: digest::hex_upper(serial),
            not_before: at(parsed.validity().not_before),
            not_after: at(parsed.validity().not_after),
            verifier: Verifier::from_spki(parsed.public_key().raw)?,
            pem: pem::encode(WANT, &block.der),
        })
    }

    /// Upper-case hex, two digits a byte: normally 40 digits.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }
}

/// The one spelling of a serial that can be compared and used as a key: upper case, without
/// leading zeros. `PUB_KEY_ID_…` stays as it is.
///
/// ```
/// assert_eq!(seal::normal_serial("00ab12"), "AB12");
/// assert_eq!(seal::normal_serial("PUB_KEY_ID_0119"), "PUB_KEY_ID_0119");
/// ```
pub fn normal_serial(serial: &str) -> String {
    serial.trim().trim_start_matches('0').to_ascii_uppercase()
}

/// Whether two spellings are one number: SDKs differ in case and in leading zeros.
pub fn same_serial(one: &str, other: &str) -> bool {
    let digits = |it: &str| -> String { it.trim().trim_start_matches('0').into() };
    digits(one).eq_ignore_ascii_case(&digits(other))
}
