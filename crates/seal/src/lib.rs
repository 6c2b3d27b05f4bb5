//! Cryptography of the house: signatures, authenticated encryption, digests, key rings, the vault.
//!
//! Bytes and PEM text in, bytes and text out. No HTTP, no provider's message format, no file is
//! read and no clock; randomness is drawn only for keys, nonces and OAEP.

pub mod aead;
mod certificate;
pub mod digest;
mod generate;
mod key_error;
mod pem;
mod random;
mod ring;
mod signer;
mod stream;
mod vault;
mod verifier;

pub use certificate::{Certificate, normal_serial, same_serial};
pub use generate::{KeyPairPem, generate_ed25519, generate_rsa, generate_sm2, self_signed};
pub use key_error::{KeyError, OaepError};
pub use random::{random_bytes, random_nonce};
pub use ring::{KeyRing, NamedSigner, VerifierRing};
pub use signer::Signer;
pub use stream::{SealedReader, SealedWriter, StreamError, stream_key_id};
pub use vault::{Vault, VaultError};
pub use verifier::Verifier;

/// A way of signing. Each party's key decides; nothing is negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// RSASSA-PKCS1-v1_5 with SHA-256: deterministic, and what every WeChat Pay SDK speaks.
    Rsa,
    /// SM2 with SM3 (国密), signer id `1234567812345678`, signature as DER of (r, s).
    Sm2,
    /// Ed25519: our own extra, several times faster than RSA to sign with.
    Ed25519,
}

impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scheme::Rsa => "RSA",
            Scheme::Sm2 => "SM2",
            Scheme::Ed25519 => "Ed25519",
        })
    }
}
