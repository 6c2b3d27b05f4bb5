//! Why a message of WeChat Pay could not be read by us as its client.
//!
//! Not the errors that a server answers: those are `ApiError`.

/// A message that is not what the protocol promises. The effect of the call is unknown then: treat
/// it as in doubt, and ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{what} is not the JSON expected: {problem}")]
    Unreadable { what: &'static str, problem: String },
    #[error("{member} is {word:?}, a word we do not know; look it up before acting on it")]
    UnknownWord { member: &'static str, word: String },
    #[error("{member} is {value:?}, which is not {want}")]
    BadValue { member: &'static str, value: String, want: &'static str },
}

impl WireError {
    pub(crate) fn unknown(member: &'static str, word: &str) -> WireError {
        WireError::UnknownWord { member, word: word.chars().take(64).collect() }
    }
}

/// Reads a JSON document into `T`.
pub(crate) fn read<'a, T: serde::Deserialize<'a>>(
    what: &'static str,
    body: &'a [u8],
) -> Result<T, WireError> {
    serde_json::from_slice(body)
        .map_err(|error| WireError::Unreadable { what, problem: error.to_string() })
}

/// Reads a time that may be absent.
pub(crate) fn time(
    member: &'static str,
    text: Option<&str>,
) -> Result<Option<kernel::Timestamp>, WireError> {
    let Some(text) = text.filter(|it| !it.is_empty()) else { return Ok(None) };
    kernel::Timestamp::parse_rfc3339(text).map(Some).map_err(|_| WireError::BadValue {
        member,
        value: text.chars().take(64).collect(),
        want: "an RFC 3339 time",
    })
}

/// Reads a currency; absent is CNY, as WeChat Pay has it.
pub(crate) fn currency(
    member: &'static str,
    text: Option<&str>,
) -> Result<kernel::Currency, WireError> {
    let code = text.unwrap_or("CNY");
    kernel::Currency::parse(code).ok_or_else(|| WireError::unknown(member, code))
}
