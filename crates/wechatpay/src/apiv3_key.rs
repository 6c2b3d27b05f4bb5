//! The APIv3 key: 32 bytes shared with a merchant. It seals notifications and platform certificates.
//!
//! Does not seal anything itself.

use std::fmt;

/// 32 ASCII letters or digits. Prints as `Apiv3Key(…)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Apiv3Key([u8; 32]);

/// Says what is wrong with a key without showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Apiv3KeyError {
    #[error("the APIv3 key has {0} bytes; it needs exactly 32 ASCII letters or digits")]
    Length(usize),
    #[error("byte {0} of the APIv3 key is no ASCII letter or digit; set a key of these only")]
    Character(usize),
}

impl Apiv3Key {
    pub fn parse(text: &str) -> Result<Apiv3Key, Apiv3KeyError> {
        let bytes: [u8; 32] =
            text.as_bytes().try_into().map_err(|_| Apiv3KeyError::Length(text.len()))?;
        match bytes.iter().position(|it| !it.is_ascii_alphanumeric()) {
            None => Ok(Apiv3Key(bytes)),
            Some(at) => Err(Apiv3KeyError::Character(at + 1)),
        }
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Apiv3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apiv3Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_letters_or_digits() {
        assert!(Apiv3Key::parse("0123456789abcdef0123456789ABCDEF").is_ok());
        assert_eq!(Apiv3Key::parse("short"), Err(Apiv3KeyError::Length(5)));
        let odd = "0123456789abcdef0123456789ABCDE-";
        assert_eq!(Apiv3Key::parse(odd), Err(Apiv3KeyError::Character(32)));
    }
}
