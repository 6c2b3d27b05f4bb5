//! Keys by name: those that the platform signs with, and those that it trusts. Values; how they
//! are loaded and replaced is the caller's business.

use crate::{Scheme, Signer, Verifier, normal_serial};
use std::collections::HashMap;

/// A platform key with the name it goes by: a certificate serial or a `PUB_KEY_ID_…`.
#[derive(Clone, Debug)]
pub struct NamedSigner {
    pub id: String,
    pub signer: Signer,
}

/// The platform's own signing keys. There is always a default one.
#[derive(Clone, Debug)]
pub struct KeyRing {
    /// Never empty; the first is the default.
    keys: Vec<NamedSigner>,
}

impl KeyRing {
    pub fn new(id: &str, signer: Signer) -> KeyRing {
        KeyRing { keys: vec![NamedSigner { id: id.into(), signer }] }
    }

    /// Adds a key, or replaces the one of the same name. The default stays what it was.
    pub fn add(&mut self, id: &str, signer: Signer) {
        let normal = normal_serial(id);
        let new = NamedSigner { id: id.into(), signer };
        match self.keys.iter_mut().find(|it| normal_serial(&it.id) == normal) {
            Some(old) => *old = new,
            None => self.keys.push(new),
        }
    }

    pub fn default_signer(&self) -> &NamedSigner {
        self.keys.first().expect("a ring begins with one key")
    }

    fn named(&self, id: &str) -> Option<&NamedSigner> {
        let normal = normal_serial(id);
        self.keys.iter().find(|it| normal_serial(&it.id) == normal)
    }

    /// The key that a request asked for with `Wechatpay-Serial`; the default if it asked for none
    /// or for one that we do not have.
    pub fn signer_for(&self, requested: Option<&str>) -> &NamedSigner {
        requested.and_then(|it| self.named(it)).unwrap_or(self.default_signer())
    }

    /// The same among keys of one scheme, because the scheme of a request chooses that of its
    /// answer. `None` if the ring has no key of that scheme.
    pub fn signer_of(&self, scheme: Scheme, requested: Option<&str>) -> Option<&NamedSigner> {
        let fits = |it: &&NamedSigner| it.signer.scheme() == scheme;
        let asked = requested.and_then(|it| self.named(it)).filter(fits);
        asked.or_else(|| self.keys.iter().find(fits))
    }

    pub fn iter(&self) -> impl Iterator<Item = &NamedSigner> {
        self.keys.iter()
    }
}

/// Keys that somebody else signs with, by serial. Spelling of the serial does not matter.
#[derive(Clone, Debug, Default)]
pub struct VerifierRing {
    keys: HashMap<String, Verifier>,
}

impl VerifierRing {
    /// Adds a key, or replaces the one of that serial.
    pub fn insert(&mut self, serial: &str, verifier: Verifier) {
        self.keys.insert(normal_serial(serial), verifier);
    }

    pub fn get(&self, serial: &str) -> Option<&Verifier> {
        self.keys.get(&normal_serial(serial))
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generate_ed25519, generate_sm2};

    #[test]
    fn the_asked_for_key_signs_and_else_the_default() {
        let signer = || Signer::from_pem(&generate_ed25519().private_pem).unwrap();
        let mut ring = KeyRing::new("0AB1", signer());
        ring.add("PUB_KEY_ID_01", signer());
        ring.add("SM", Signer::from_pem(&generate_sm2().private_pem).unwrap());
        let check = |asked: Option<&str>, want| assert_eq!(ring.signer_for(asked).id, want);
        check(None, "0AB1");
        check(Some("ab1"), "0AB1");
        check(Some("PUB_KEY_ID_01"), "PUB_KEY_ID_01");
        check(Some("nobody"), "0AB1");

        let of = |scheme, asked| ring.signer_of(scheme, asked).map(|it| it.id.as_str());
        assert_eq!(of(Scheme::Sm2, Some("ab1")), Some("SM"));
        assert_eq!(of(Scheme::Ed25519, Some("PUB_KEY_ID_01")), Some("PUB_KEY_ID_01"));
        assert_eq!(of(Scheme::Ed25519, None), Some("0AB1"));
        assert_eq!(of(Scheme::Rsa, None), None);
    }

    #[test]
    fn trusted_keys_are_found_however_the_serial_is_spelt() {
        let signer = Signer::from_pem(&generate_ed25519().private_pem).unwrap();
        let mut ring = VerifierRing::default();
        ring.insert("00Ab12", signer.verifier());
        for spelling in ["AB12", "0ab12", "00AB12"] {
            assert_eq!(ring.get(spelling), Some(&signer.verifier()), "{spelling}");
        }
        assert_eq!(ring.get("AB120"), None);
    }
}
