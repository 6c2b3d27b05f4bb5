//! A private key that signs, and that opens fields encrypted to it. Never shows the key.

use crate::{KeyError, OaepError, Scheme, Verifier, pem};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::{Engine, engine::general_purpose::STANDARD};
use sm2::dsa::{Signature as Sm2Signature, SigningKey, signature::Signer as _};
use sm2::pkcs8::{DecodePrivateKey, EncodePublicKey, ObjectIdentifier, PrivateKeyInfoRef};
use std::fmt;
use std::sync::Arc;

/// The signer id that Chinese standards give to whoever has no other (GM/T 0009).
pub(crate) const SM2_SIGNER_ID: &str = "1234567812345678";

pub(crate) const OID_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(crate) const OID_EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(crate) const OID_SM2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.301");
pub(crate) const OID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

const WANT: &str = "PRIVATE KEY";

/// A private key, parsed once. A clone shares it.
#[derive(Clone)]
pub struct Signer(Arc<Inner>);

struct Inner {
    key: Key,
    /// SubjectPublicKeyInfo, DER.
    public: Vec<u8>,
}

enum Key {
    Rsa { pair: RsaKeyPair, opener: OaepPrivateDecryptingKey },
    Sm2(SigningKey),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// Reads an unencrypted private key and finds out what it is: PKCS#8, or PKCS#1 for RSA.
    pub fn from_pem(text: &str) -> Result<Signer, KeyError> {
        let block = pem::decode(text, WANT)?;
        match block.label.as_str() {
            "PRIVATE KEY" => Signer::from_pkcs8(&block.der),
            "RSA PRIVATE KEY" => {
                let pair = RsaKeyPair::from_der(&block.der).map_err(rejected)?;
                Signer::rsa(pair)
            }
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
            _ => Err(KeyError::WrongBlock { found: block.label, want: WANT }),
        }
    }

    /// Reads a key of PKCS#8 or PKCS#1 (`RSA PRIVATE KEY`), 2048 to 8192 bits.
    pub fn rsa_from_pem(pem: &str) -> Result<Signer, KeyError> {
        Signer::from_pem(pem)?.only(Scheme::Rsa)
    }

    pub fn sm2_from_pem(pem: &str) -> Result<Signer, KeyError> {
        Signer::from_pem(pem)?.only(Scheme::Sm2)
    }

    pub fn ed25519_from_pem(pem: &str) -> Result<Signer, KeyError> {
        Signer::from_pem(pem)?.only(Scheme::Ed25519)
    }

    fn only(self, want: Scheme) -> Result<Signer, KeyError> {
        let found = self.scheme();
        if found == want { Ok(self) } else { Err(KeyError::OtherScheme { found, want }) }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Signer, KeyError> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(rejected)?;
        match info.algorithm.oid {
            OID_RSA => Signer::rsa(RsaKeyPair::from_pkcs8(der).map_err(rejected)?),
            OID_ED25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(der).map_err(rejected)?;
                let public: PublicKeyX509Der = pair.public_key().as_der().map_err(rejected)?;
                let public = public.as_ref().to_vec();
                Ok(Signer(Arc::new(Inner { key: Key::Ed25519(pair), public })))
            }
            OID_EC if info.algorithm.parameters_oid() == Ok(OID_SM2) => {
                let secret = sm2::SecretKey::from_pkcs8_der(der).map_err(rejected)?;
                let pair = SigningKey::new(SM2_SIGNER_ID, &secret).map_err(rejected)?;
                let public = secret.public_key().to_public_key_der().map_err(rejected)?;
                Ok(Signer(Arc::new(Inner { key: Key::Sm2(pair), public: public.into_vec() })))
            }
            other => Err(KeyError::UnknownAlgorithm { found: other.to_string() }),
        }
    }

    fn rsa(pair: RsaKeyPair) -> Result<Signer, KeyError> {
        let public: PublicKeyX509Der = pair.public_key().as_der().map_err(rejected)?;
        let public = public.as_ref().to_vec();
        let private: Pkcs8V1Der = pair.as_der().map_err(rejected)?;
        let opener = PrivateDecryptingKey::from_pkcs8(private.as_ref()).map_err(rejected)?;
        let opener = OaepPrivateDecryptingKey::new(opener).map_err(rejected)?;
        Ok(Signer(Arc::new(Inner { key: Key::Rsa { pair, opener }, public })))
    }

    pub fn scheme(&self) -> Scheme {
        match self.0.key {
            Key::Rsa { .. } => Scheme::Rsa,
            Key::Sm2(_) => Scheme::Sm2,
            Key::Ed25519(_) => Scheme::Ed25519,
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0.key {
            Key::Rsa { pair, .. } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("a checked key of 2048 bits or more signs any message");
                signature
            }
            Key::Sm2(pair) => {
                let signature: Sm2Signature =
                    pair.try_sign(message).expect("SM2 signing fails once in 2^256 tries");
                signature.to_der().as_ref().to_vec()
            }
            Key::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub fn sign_base64(&self, message: &[u8]) -> String {
        STANDARD.encode(self.sign(message))
    }

    /// The public half as SubjectPublicKeyInfo (`PUBLIC KEY`).
    pub fn public_key_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.0.public)
    }

    pub fn verifier(&self) -> Verifier {
        Verifier::from_spki(&self.0.public).expect("a public key that this key made")
    }

    /// Opens what [`Verifier::encrypt_oaep`] closed: base64 of RSA-OAEP with SHA-1, empty label.
    pub fn decrypt_oaep(&self, text: &str) -> Result<Vec<u8>, OaepError> {
        let Key::Rsa { opener, .. } = &self.0.key else {
            return Err(OaepError::NotRsa(self.scheme()));
        };
        let closed = STANDARD.decode(text).map_err(|_| OaepError::NotBase64)?;
        let mut plain = vec![0; opener.min_output_size()];
        let plain = opener
            .decrypt(&OAEP_SHA1_MGF1SHA1, &closed, &mut plain, None)
            .map_err(|_| OaepError::Undecryptable)?;
        Ok(plain.to_vec())
    }
}

fn rejected(why: impl fmt::Display) -> KeyError {
    KeyError::Unreadable { what: "private key", why: why.to_string() }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, …)", self.scheme())
    }
}
