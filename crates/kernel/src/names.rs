//! Names that outsiders give to things.

use std::fmt;
use std::sync::Arc;

/// A merchant's number (商户号): 1 to 32 digits or letters. Cheap to clone; it keys every hot table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MerchantId(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("merchant number {0:?} is not 1 to 32 ASCII letters or digits")]
pub struct NameError(pub String);

impl MerchantId {
    pub fn parse(text: &str) -> Result<MerchantId, NameError> {
        let fits = (1..=32).contains(&text.len());
        if fits && text.bytes().all(|it| it.is_ascii_alphanumeric()) {
            Ok(MerchantId(text.into()))
        } else {
            Err(NameError(text.chars().take(64).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MerchantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
