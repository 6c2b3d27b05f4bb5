//! What can be wrong with a key or with what a key is used on. Never shows key material.

use crate::Scheme;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("no PEM block found; the text must hold a line like -----BEGIN {want}-----")]
    NoPem { want: &'static str },
    #[error("PEM block is a {found:?}, not a {want}; check that the files were not swapped")]
    WrongBlock { found: String, want: &'static str },
    #[error(
        "the private key is protected by a password; \
         decrypt it first with `openssl pkcs8 -in KEY -out PLAIN`"
    )]
    Encrypted,
    #[error("PEM block {block} is cut off or is not base64; copy the file again")]
    Damaged { block: String },
    #[error("{what} cannot be read ({why}); copy the file again or make a new one")]
    Unreadable { what: &'static str, why: String },
    #[error("key algorithm {found} is not supported; use RSA (2048 bits or more), SM2 or Ed25519")]
    UnknownAlgorithm { found: String },
    #[error("the key is {found}, but {want} is needed here")]
    OtherScheme { found: Scheme, want: Scheme },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OaepError {
    #[error("{0} keys cannot encrypt fields; an RSA key is needed")]
    NotRsa(Scheme),
    #[error("{bytes} bytes are too long for one RSA-OAEP field; at most {most} fit this key")]
    TooLong { bytes: usize, most: usize },
    #[error("encrypted field is not base64")]
    NotBase64,
    #[error(
        "encrypted field does not decrypt; \
         it was probably encrypted for another key (see Wechatpay-Serial)"
    )]
    Undecryptable,
}
