//! Signatures of the classic XML interface (V2), and the encrypted part of its refund notice.
//!
//! MD5 and ECB are weak and stay only because the old interface has nothing else. The XML itself
//! is not read here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kernel::Secret;
use seal::digest;

/// `sign_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignType {
    #[default]
    Md5,
    HmacSha256,
}

impl SignType {
    pub fn word(self) -> &'static str {
        match self {
            SignType::Md5 => "MD5",
            SignType::HmacSha256 => "HMAC-SHA256",
        }
    }

    /// Absent or empty is MD5.
    pub fn parse(word: Option<&str>) -> Option<SignType> {
        match word {
            None | Some("" | "MD5") => Some(SignType::Md5),
            Some("HMAC-SHA256") => Some(SignType::HmacSha256),
            Some(_) => None,
        }
    }
}

/// The text that is signed, without the key: all elements but `sign` and the empty ones, by name
/// in byte order, raw.
pub fn text_to_sign(elements: &[(&str, &str)]) -> String {
    let mut kept: Vec<_> =
        elements.iter().filter(|it| it.0 != "sign" && !it.1.is_empty()).collect();
    kept.sort_by_key(|it| it.0);
    let pairs: Vec<String> = kept.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Upper-case hex.
pub fn sign(elements: &[(&str, &str)], key: &Secret, sign_type: SignType) -> String {
    let text = format!("{}&key={}", text_to_sign(elements), key.expose());
    match sign_type {
        SignType::Md5 => digest::md5_hex_upper(text.as_bytes()),
        SignType::HmacSha256 => {
            digest::hmac_sha256_hex_upper(key.expose().as_bytes(), text.as_bytes())
        }
    }
}

/// Whether `signature` is that of the elements. In time that does not tell where they differ.
pub fn holds(
    elements: &[(&str, &str)],
    key: &Secret,
    sign_type: SignType,
    signature: &str,
) -> bool {
    digest::same_bytes(sign(elements, key, sign_type).as_bytes(), signature.as_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReqInfoError {
    #[error("req_info is not base64")]
    NotBase64,
    #[error("the APIv2 key does not open req_info; compare it with the platform's")]
    WrongKey,
    #[error("req_info holds no UTF-8 text; the APIv2 key is probably another")]
    NotText,
}

fn req_info_key(key: &Secret) -> [u8; 32] {
    let hex = digest::md5_hex(key.expose().as_bytes());
    hex.as_bytes().try_into().expect("MD5 in hex is 32 characters")
}

/// Encrypts the XML of a refund notice (root element `root`).
pub fn seal_req_info(plain: &str, key: &Secret) -> String {
    STANDARD.encode(digest::aes256_ecb_encrypt(&req_info_key(key), plain.as_bytes()))
}

/// Opens `req_info`. The notice carries no signature: query the refund before acting on it.
pub fn open_req_info(req_info: &str, key: &Secret) -> Result<String, ReqInfoError> {
    let closed = STANDARD.decode(req_info.trim()).map_err(|_| ReqInfoError::NotBase64)?;
    let plain = digest::aes256_ecb_decrypt(&req_info_key(key), &closed)
        .map_err(|_| ReqInfoError::WrongKey)?;
    String::from_utf8(plain).map_err(|_| ReqInfoError::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ELEMENTS: [(&str, &str); 6] = [
        ("appid", "wx2421b1c4370ec43b"),
        ("mch_id", "10000100"),
        ("device_info", "1000"),
        ("body", "test"),
        ("nonce_str", "ibuaiVcKdpRxkhJA"),
        ("empty", ""),
    ];

    fn key() -> Secret {
        Secret::new("192006250b4c09247ec02edce69f6a2d")
    }

    /// Known answers of V2, made with a throw-away key.
    #[test]
    fn known_answers() {
        let check = |elements: &[(&str, &str)], md5: &str, hmac: &str| {
            assert_eq!(sign(elements, &key(), SignType::Md5), md5);
            assert_eq!(sign(elements, &key(), SignType::HmacSha256), hmac);
        };
        check(
            &ELEMENTS,
            "18F67CFD0DA3DC1FE014E8094991E71D",
            "D1F262DE7CDAC3C6479640334DA1D326E110B4BD39A116A19EDF86E41394A023",
        );
        let mut official = ELEMENTS;
        official[0].1 = "wxd930ea5d5a258f4f";
        check(
            &official,
            "9A0A8659F005D6984697E2CA0A9CF3B7",
            "6A9AE1657590FD6257D693A078E1C3E4BB6BA4DC30B23E0EE2496E54170DACD6",
        );
        assert_eq!(
            text_to_sign(&ELEMENTS),
            "appid=wx2421b1c4370ec43b&body=test&device_info=1000&mch_id=10000100&\
             nonce_str=ibuaiVcKdpRxkhJA"
        );
        let plain =
            "<root><out_refund_no>R1</out_refund_no><refund_status>SUCCESS</refund_status></root>";
        let closed = "WBzGpzQuNpcFxIlFjUUD9CdH4BF3YHmtiHaWV8j0mqDmyt1ktL6KiRuDf54lmRtRsuivy+W7GO\
                      HBqU/pCYFHI29h5zsVoYNuky4WwJWgve1lKN3BmGhU1XAFvvxnrPcC";
        assert_eq!(seal_req_info(plain, &key()), closed);
        assert_eq!(open_req_info(closed, &key()).as_deref(), Ok(plain));
    }

    #[test]
    fn a_sign_element_and_order_do_not_matter_but_values_do() {
        let signature = sign(&ELEMENTS, &key(), SignType::Md5);
        let mut turned: Vec<_> = ELEMENTS.into_iter().rev().collect();
        turned.push(("sign", "whatever"));
        assert!(holds(&turned, &key(), SignType::Md5, &signature));
        turned[1].1 = "changed";
        assert!(!holds(&turned, &key(), SignType::Md5, &signature));
        assert_eq!(SignType::parse(Some("SHA1")), None);
    }

    proptest! {
        #[test]
        fn no_req_info_makes_it_panic(text in "[A-Za-z0-9+/=]{0,200}") {
            let _ = open_req_info(&text, &key());
        }
    }
}
