//! Fields encrypted at rest, under master keys that can be rotated. Stores nothing by itself and
//! does not know where master keys come from.
//!
//! ```text
//! v1.2026-11.q83vEjRWeJCrze8S…
//! │  │       └ base64 of nonce (12 bytes), cipher text, tag (16 bytes); AES-256-GCM
//! │  └ id of the master key
//! └ layout
//! ```

use crate::aead::{aes_key, open_with, seal_with};
use crate::random_bytes;
use aws_lc_rs::aead::LessSafeKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use kernel::Secret;
use std::fmt;

/// Seals with the newest key, opens with any it holds.
///
/// Nonces are random, so a master key should seal fewer than 2^32 fields: rotate it yearly.
pub struct Vault {
    keys: Vec<(String, LessSafeKey)>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("the vault was given no master key; configure at least one")]
    NoKey,
    #[error("master key id {0:?} is not 1 to 32 letters, digits, '-' or '_'")]
    BadId(String),
    #[error("master key id {0} was given twice; give every key its own id")]
    DoubleId(String),
    #[error("the field is not sealed text of the form v1.<key id>.<base64>")]
    NotSealed,
    #[error("the field is sealed under master key {0}, which is not configured; add it again")]
    UnknownKey(String),
    #[error(
        "the field does not open under master key {key} as {context}: \
         it was changed, moved from another record, or the key is not the one of that id"
    )]
    DoesNotOpen { key: String, context: String },
}

impl Vault {
    /// - Input: ids and keys, newest first. Ids are public; they stand in every sealed field.
    pub fn new(keys: Vec<(String, [u8; 32])>) -> Result<Vault, VaultError> {
        if keys.is_empty() {
            return Err(VaultError::NoKey);
        }
        let mut parsed: Vec<(String, LessSafeKey)> = Vec::with_capacity(keys.len());
        for (id, key) in keys {
            let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
            if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
                return Err(VaultError::BadId(id.chars().take(64).collect()));
            }
            if parsed.iter().any(|it| it.0 == id) {
                return Err(VaultError::DoubleId(id));
            }
            parsed.push((id, aes_key(&key)));
        }
        Ok(Vault { keys: parsed })
    }

    /// - Input: `context` says whose field it is, such as merchant number and field name. Opening
    ///   needs the same words, so that a sealed field moved to another record stays shut.
    pub fn seal(&self, context: &str, secret: &Secret) -> String {
        let (id, key) = self.keys.first().expect("a vault holds at least one key");
        let nonce = random_bytes::<12>();
        let mut bytes = nonce.to_vec();
        bytes.extend(seal_with(key, &nonce, context.as_bytes(), secret.expose().as_bytes()));
        format!("v1.{id}.{}", STANDARD.encode(bytes))
    }

    pub fn open(&self, context: &str, sealed: &str) -> Result<Secret, VaultError> {
        let (id, body) = parts(sealed).ok_or(VaultError::NotSealed)?;
        let found = self.keys.iter().find(|it| it.0 == id);
        let (_, key) = found.ok_or_else(|| VaultError::UnknownKey(id.into()))?;
        let bytes = STANDARD.decode(body).map_err(|_| VaultError::NotSealed)?;
        let (nonce, closed) = bytes.split_first_chunk::<12>().ok_or(VaultError::NotSealed)?;
        let shut = || VaultError::DoesNotOpen { key: id.into(), context: context.into() };
        let plain = open_with(key, nonce, context.as_bytes(), closed).map_err(|_| shut())?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| shut())
    }

    /// Whether `sealed` is under the newest key already; if not, rotation should seal it again.
    pub fn is_current(&self, sealed: &str) -> bool {
        parts(sealed).is_some_and(|it| self.keys.first().is_some_and(|newest| newest.0 == it.0))
    }
}

fn parts(sealed: &str) -> Option<(&str, &str)> {
    sealed.strip_prefix("v1.")?.split_once('.')
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|it| it.0.as_str()).collect();
        write!(f, "Vault({}, …)", ids.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vault(keys: &[(&str, u8)]) -> Vault {
        Vault::new(keys.iter().map(|it| (it.0.into(), [it.1; 32])).collect()).unwrap()
    }

    #[test]
    fn keys_rotate_and_old_fields_still_open() {
        let secret = Secret::new("hunter2");
        let before = vault(&[("2025", 1)]);
        let old = before.seal("1900000109/apiv3", &secret);
        assert!(old.starts_with("v1.2025."), "{old}");
        let after = vault(&[("2026", 2), ("2025", 1)]);
        assert_eq!(after.open("1900000109/apiv3", &old), Ok(secret.clone()));
        assert!(!after.is_current(&old));
        let new = after.seal("1900000109/apiv3", &secret);
        assert!(after.is_current(&new));
        assert_eq!(
            before.open("1900000109/apiv3", &new),
            Err(VaultError::UnknownKey("2026".into()))
        );
    }

    #[test]
    fn a_field_opens_only_where_it_belongs() {
        let vault = vault(&[("a", 1)]);
        let sealed = vault.seal("one/key", &Secret::new("s"));
        assert!(matches!(vault.open("two/key", &sealed), Err(VaultError::DoesNotOpen { .. })));
        for text in ["", "v1", "v1.a", "v1.a.", "v1.a.AAAA", "v1.a.!", "v2.a.AAAA", "hunter2"] {
            assert_eq!(vault.open("one/key", text).err(), Some(VaultError::NotSealed), "{text}");
        }
    }

    #[test]
    fn bad_master_keys_are_refused_by_name() {
        let check = |ids: &[&str], want: VaultError| {
            let keys = ids.iter().map(|&it| (it.into(), [0; 32])).collect();
            assert_eq!(Vault::new(keys).err(), Some(want));
        };
        check(&[], VaultError::NoKey);
        check(&["a.b"], VaultError::BadId("a.b".into()));
        check(&[""], VaultError::BadId("".into()));
        check(&["a", "a"], VaultError::DoubleId("a".into()));
    }

    #[test]
    fn neither_keys_nor_errors_show_secrets() {
        let vault = vault(&[("a", 65)]);
        assert_eq!(format!("{vault:?}"), "Vault(a, …)");
    }

    proptest! {
        #[test]
        fn sealing_is_undone_by_opening(text in ".*", context in ".*") {
            let vault = vault(&[("k", 9)]);
            let sealed = vault.seal(&context, &Secret::new(text.as_str()));
            prop_assert_eq!(vault.open(&context, &sealed), Ok(Secret::new(text)));
        }

        #[test]
        fn any_flipped_bit_is_noticed(text in ".{0,40}", at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let vault = vault(&[("k", 9)]);
            let sealed = vault.seal("c", &Secret::new(text));
            let mut bytes = STANDARD.decode(sealed.strip_prefix("v1.k.").unwrap()).unwrap();
            bytes[at.index(sealed.len()) % 28] ^= 1 << bit;
            let changed = format!("v1.k.{}", STANDARD.encode(bytes));
            prop_assert!(vault.open("c", &changed).is_err());
        }
    }
}
