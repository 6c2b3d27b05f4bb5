//! A public key that verifies, and that encrypts fields to its owner. Parsed once, used often.

use crate::signer::{OID_EC, OID_ED25519, OID_RSA, OID_SM2, SM2_SIGNER_ID};
use crate::{Certificate, KeyError, OaepError, Scheme, pem};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::{Engine, engine::general_purpose::STANDARD};
use sm2::dsa::{Signature as Sm2Signature, VerifyingKey, signature::Verifier as _};
use sm2::pkcs8::{DecodePublicKey, SubjectPublicKeyInfoRef};
use std::fmt;
use std::sync::Arc;

const WANT: &str = "PUBLIC KEY";

/// A public key in the form that verifies fastest. A clone shares it.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    key: Key,
    /// SubjectPublicKeyInfo, DER.
    public: Vec<u8>,
}

enum Key {
    Rsa { key: ParsedPublicKey, closer: OaepPublicEncryptingKey },
    Sm2(VerifyingKey),
    Ed25519(ParsedPublicKey),
}

impl Verifier {
    /// Reads SubjectPublicKeyInfo and finds out what it is.
    pub fn from_public_key_pem(text: &str) -> Result<Verifier, KeyError> {
        let block = pem::decode(text, WANT)?;
        if block.label != WANT {
            return Err(KeyError::WrongBlock { found: block.label, want: WANT });
        }
        Verifier::from_spki(&block.der)
    }

    /// Takes the key out of a certificate. Neither issuer nor validity is judged.
    pub fn from_certificate_pem(text: &str) -> Result<Verifier, KeyError> {
        Ok(Certificate::from_pem(text)?.verifier())
    }

    pub(crate) fn from_spki(der: &[u8]) -> Result<Verifier, KeyError> {
        let info = SubjectPublicKeyInfoRef::try_from(der).map_err(rejected)?;
        let key = match info.algorithm.oid {
            OID_RSA => {
                let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der);
                let closer = PublicEncryptingKey::from_der(der).map_err(rejected)?;
                let closer = OaepPublicEncryptingKey::new(closer).map_err(rejected)?;
                Key::Rsa { key: key.map_err(rejected)?, closer }
            }
            OID_ED25519 => Key::Ed25519(ParsedPublicKey::new(&ED25519, der).map_err(rejected)?),
            OID_EC if info.algorithm.parameters_oid() == Ok(OID_SM2) => {
                let public = sm2::PublicKey::from_public_key_der(der).map_err(rejected)?;
                Key::Sm2(VerifyingKey::new(SM2_SIGNER_ID, public).map_err(rejected)?)
            }
            other => return Err(KeyError::UnknownAlgorithm { found: other.to_string() }),
        };
        Ok(Verifier(Arc::new(Inner { key, public: der.to_vec() })))
    }

    pub fn scheme(&self) -> Scheme {
        match self.0.key {
            Key::Rsa { .. } => Scheme::Rsa,
            Key::Sm2(_) => Scheme::Sm2,
            Key::Ed25519(_) => Scheme::Ed25519,
        }
    }

    /// Whether `signature` is this key's over exactly `message`. Any malformed one is just wrong.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0.key {
            Key::Rsa { key, .. } | Key::Ed25519(key) => key.verify_sig(message, signature).is_ok(),
            Key::Sm2(key) => {
                let signature = Sm2Signature::from_der(signature);
                signature.is_ok_and(|it| key.verify(message, &it).is_ok())
            }
        }
    }

    /// [`Verifier::verify`] on standard base64 with padding. WeChat's signature probes
    /// (`WECHATPAY/SIGNTEST/…`) need no special case: they fail here.
    pub fn verify_base64(&self, message: &[u8], signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|it| self.verify(message, &it))
    }

    /// Encrypts a sensitive field to the owner: base64 of RSA-OAEP with SHA-1, empty label.
    ///
    /// - Input: at most 214 bytes for a 2048-bit key.
    /// - Source: SHA-1 is what all WeChat Pay SDKs use; OAEP does not depend on its
    ///   collision resistance.
    pub fn encrypt_oaep(&self, plain: &[u8]) -> Result<String, OaepError> {
        let Key::Rsa { closer, .. } = &self.0.key else {
            return Err(OaepError::NotRsa(self.scheme()));
        };
        let most = closer.max_plaintext_size(&OAEP_SHA1_MGF1SHA1);
        let too_long = OaepError::TooLong { bytes: plain.len(), most };
        if plain.len() > most {
            return Err(too_long);
        }
        let mut closed = vec![0; closer.ciphertext_size()];
        let closed = closer.encrypt(&OAEP_SHA1_MGF1SHA1, plain, &mut closed, None);
        // A length that was checked leaves no way to fail; if there is one, the caller hears of it.
        closed.map(|it| STANDARD.encode(it)).map_err(|_| too_long)
    }

    /// The key as SubjectPublicKeyInfo (`PUBLIC KEY`).
    pub fn public_key_pem(&self) -> String {
        pem::encode(WANT, &self.0.public)
    }
}

fn rejected(why: impl fmt::Display) -> KeyError {
    KeyError::Unreadable { what: "public key", why: why.to_string() }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.scheme())
    }
}

/// Two verifiers are the same if their public keys are.
impl PartialEq for Verifier {
    fn eq(&self, other: &Verifier) -> bool {
        self.0.public == other.0.public
    }
}

impl Eq for Verifier {}
