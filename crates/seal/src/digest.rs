//! Digests and message codes, most of them for V2 of WeChat Pay. SHA-1, MD5 and ECB are weak:
//! they stand here because a wire format demands them and protect nothing new.

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::{digest as sha, hmac};
use md5::{Digest, Md5};

pub fn hex_lower(bytes: &[u8]) -> String {
    let digit = |it: u8| char::from(b"0123456789abcdef"[usize::from(it)]);
    bytes.iter().flat_map(|it| [digit(it >> 4), digit(it & 15)]).collect()
}

pub fn hex_upper(bytes: &[u8]) -> String {
    hex_lower(bytes).to_ascii_uppercase()
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex_lower(sha::digest(&sha::SHA256, bytes).as_ref())
}

/// SHA-256 of what comes piece by piece.
pub struct Sha256(sha::Context);

impl Default for Sha256 {
    fn default() -> Sha256 {
        Sha256(sha::Context::new(&sha::SHA256))
    }
}

impl Sha256 {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish_hex(self) -> String {
        hex_lower(self.0.finish().as_ref())
    }
}

/// For bill files, whose hash the provider states in SHA-1.
pub fn sha1_hex(bytes: &[u8]) -> String {
    hex_lower(sha::digest(&sha::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref())
}

pub fn md5_hex(bytes: &[u8]) -> String {
    hex_lower(&Md5::digest(bytes))
}

/// For V2 signatures.
pub fn md5_hex_upper(bytes: &[u8]) -> String {
    hex_upper(&Md5::digest(bytes))
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("a SHA-256 tag has 32 bytes")
}

/// For V2 signatures.
pub fn hmac_sha256_hex_upper(key: &[u8], message: &[u8]) -> String {
    hex_upper(&hmac_sha256(key, message))
}

/// Whether two texts are equal, in time that tells only their lengths. For comparing a secret
/// code with what a stranger sent.
pub fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not AES-256-ECB text under this key; check the APIv2 key")]
pub struct EcbError {
    pub bytes: usize,
}

/// AES-256-ECB with PKCS#7 padding. Only for V2 refund notices (`req_info`): ECB shows equal
/// blocks and notices no change, so nothing else may use it.
pub fn aes256_ecb_encrypt(key: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let key = UnboundCipherKey::new(&AES_256, key).expect("32 bytes are an AES-256 key");
    let key = PaddedBlockEncryptingKey::ecb_pkcs7(key).expect("AES-256 has an ECB mode");
    let mut text = plain.to_vec();
    key.encrypt(&mut text).expect("ECB takes any text");
    text
}

/// The inverse of [`aes256_ecb_encrypt`], for V2 refund notices only.
pub fn aes256_ecb_decrypt(key: &[u8; 32], closed: &[u8]) -> Result<Vec<u8>, EcbError> {
    let key = UnboundCipherKey::new(&AES_256, key).expect("32 bytes are an AES-256 key");
    let key = PaddedBlockDecryptingKey::ecb_pkcs7(key).expect("AES-256 has an ECB mode");
    let refused = |_| EcbError { bytes: closed.len() };
    let mut text = closed.to_vec();
    let plain = key.decrypt(&mut text, DecryptionContext::None).map_err(refused)?.len();
    text.truncate(plain);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_digests() {
        assert_eq!(sha1_hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(md5_hex(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        let mut pieces = Sha256::default();
        pieces.update(b"a");
        pieces.update(b"bc");
        assert_eq!(pieces.finish_hex(), sha256_hex(b"abc"));
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    proptest! {
        #[test]
        fn ecb_reads_back(plain in prop::collection::vec(any::<u8>(), 0..100)) {
            let closed = aes256_ecb_encrypt(&[3; 32], &plain);
            prop_assert_eq!(aes256_ecb_decrypt(&[3; 32], &closed), Ok(plain));
        }

        #[test]
        fn any_bytes_are_answered(closed in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = aes256_ecb_decrypt(&[3; 32], &closed);
        }
    }
}
