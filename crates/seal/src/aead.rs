//! Authenticated encryption with associated data: AES-256-GCM and SM4-GCM, tag at the end.
//!
//! The caller chooses the nonce and must never use one twice under a key for different texts.

use aes_gcm::AesGcm;
use aes_gcm::aead::{Aead, KeyInit, Payload, consts::U12};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sm3::{Digest, Sm3};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AeadError {
    #[error(
        "{bytes} bytes of cipher text do not open: \
         wrong key, nonce or associated data, or the text was changed"
    )]
    DoesNotOpen { bytes: usize },
}

/// AES-256-GCM. Returns cipher text and the 16-byte tag.
pub fn seal_gcm(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    seal_with(&aes_key(key), nonce, aad, plain)
}

/// The inverse of [`seal_gcm`].
pub fn open_gcm(
    key: &[u8; 32],
    nonce: &[u8; 12],
    aad: &[u8],
    closed: &[u8],
) -> Result<Vec<u8>, AeadError> {
    open_with(&aes_key(key), nonce, aad, closed)
}

pub(crate) fn aes_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key"))
}

pub(crate) fn seal_with(key: &LessSafeKey, nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(plain.len() + 16);
    text.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut text)
        .expect("GCM takes any text below 64 GiB");
    text
}

pub(crate) fn open_with(
    key: &LessSafeKey,
    nonce: &[u8; 12],
    aad: &[u8],
    closed: &[u8],
) -> Result<Vec<u8>, AeadError> {
    let mut text = closed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = key.open_in_place(nonce, Aad::from(aad), &mut text);
    let plain = plain.map_err(|_| AeadError::DoesNotOpen { bytes: closed.len() })?;
    let bytes = plain.len();
    text.truncate(bytes);
    Ok(text)
}

/// The SM4 key of an APIv3 key: the first 128 bits of its SM3 digest.
pub fn sm4_key(apiv3: &[u8]) -> [u8; 16] {
    let digest = Sm3::digest(apiv3);
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

/// SM4-GCM. Returns cipher text and the 16-byte tag.
pub fn sm4_seal_gcm(key: &[u8; 16], nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let cipher = AesGcm::<sm4::Sm4, U12>::new(&(*key).into());
    cipher
        .encrypt(&(*nonce).into(), Payload { msg: plain, aad })
        .expect("GCM takes any text below 64 GiB")
}

/// The inverse of [`sm4_seal_gcm`].
pub fn sm4_open_gcm(
    key: &[u8; 16],
    nonce: &[u8; 12],
    aad: &[u8],
    closed: &[u8],
) -> Result<Vec<u8>, AeadError> {
    let cipher = AesGcm::<sm4::Sm4, U12>::new(&(*key).into());
    cipher
        .decrypt(&(*nonce).into(), Payload { msg: closed, aad })
        .map_err(|_| AeadError::DoesNotOpen { bytes: closed.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8998, appendix A.1.
    #[test]
    fn sm4_gcm_matches_its_rfc() {
        let key = 0x0123456789ABCDEFFEDCBA9876543210_u128.to_be_bytes();
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&0x0000123456780000_u64.to_be_bytes());
        nonce[8..].copy_from_slice(&0x0000ABCD_u32.to_be_bytes());
        let mut aad = [0; 20];
        aad[..16].copy_from_slice(&0xFEEDFACEDEADBEEFFEEDFACEDEADBEEF_u128.to_be_bytes());
        aad[16..].copy_from_slice(&0xABADDAD2_u32.to_be_bytes());
        let plain: Vec<u8> = [0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF, 0xEE, 0xAA]
            .into_iter()
            .flat_map(|it: u8| [it; 8])
            .collect();
        let closed = sm4_seal_gcm(&key, &nonce, &aad, &plain);
        assert_eq!(
            crate::digest::hex_upper(&closed),
            "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735\
             D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D\
             83DE3541E4C2B58177E065A9BF7B62EC"
        );
    }

    proptest! {
        #[test]
        fn both_open_what_they_sealed_and_nothing_else(
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; 12]>(),
            aad in prop::collection::vec(any::<u8>(), 0..20),
            plain in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let short: [u8; 16] = key[..16].try_into().unwrap();
            let aes = seal_gcm(&key, &nonce, &aad, &plain);
            let sm4 = sm4_seal_gcm(&short, &nonce, &aad, &plain);
            prop_assert_eq!(open_gcm(&key, &nonce, &aad, &aes), Ok(plain.clone()));
            prop_assert_eq!(sm4_open_gcm(&short, &nonce, &aad, &sm4), Ok(plain));

            let flip = |text: &[u8]| {
                let mut text = text.to_vec();
                let at = at.index(text.len());
                text[at] ^= 1 << bit;
                text
            };
            prop_assert!(open_gcm(&key, &nonce, &aad, &flip(&aes)).is_err());
            prop_assert!(sm4_open_gcm(&short, &nonce, &aad, &flip(&sm4)).is_err());
            let mut other = aad.clone();
            other.push(0);
            prop_assert!(open_gcm(&key, &nonce, &other, &aes).is_err());
            prop_assert!(sm4_open_gcm(&short, &nonce, &other, &sm4).is_err());
        }

        #[test]
        fn any_bytes_are_answered(closed in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(open_gcm(&[7; 32], &[0; 12], b"", &closed).is_err());
            prop_assert!(sm4_open_gcm(&[7; 16], &[0; 12], b"", &closed).is_err());
        }
    }
}
