//! The `Authorization` header of a request.
//!
//! Only its shape. Whether the clock, the serial and the signature are right is decided by whoever
//! knows the time and the merchant's keys.

use std::fmt::Write;

/// The five parameters and the scheme. `signature` is still base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    pub scheme: String,
    pub mchid: String,
    pub nonce: String,
    /// Unix seconds.
    pub timestamp: i64,
    pub serial: String,
    pub signature: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    #[error("Authorization is empty; write `SCHEME mchid=\"…\",nonce_str=\"…\",…`")]
    Empty,
    #[error("Authorization has a scheme but no parameters after it")]
    NoParameters,
    #[error("Authorization breaks off at character {0}: write parameters as name=\"value\"")]
    Malformed(usize),
    #[error("Authorization lacks {0}")]
    Missing(&'static str),
    #[error("Authorization names {0} twice")]
    Twice(&'static str),
    #[error("timestamp {0:?} of Authorization is not in Unix seconds")]
    Timestamp(String),
}

const NAMES: [&str; 5] = ["mchid", "nonce_str", "timestamp", "serial_no", "signature"];

impl Authorization {
    /// Reads the header. Parameters may come in any order with blanks around the commas; ones we
    /// do not know are ignored. A value ends at its closing quote, so base64 needs no escapes.
    ///
    /// ```
    /// # use wechatpay::Authorization;
    /// let header = r#"WECHATPAY2-SHA256-RSA2048 mchid="19",nonce_str="n",signature="a+/=",timestamp="17",serial_no="AB""#;
    /// let it = Authorization::parse(header).unwrap();
    /// assert_eq!((it.mchid.as_str(), it.timestamp, it.signature.as_str()), ("19", 17, "a+/="));
    /// assert_eq!(Authorization::parse(&it.render()), Ok(it));
    /// ```
    pub fn parse(header: &str) -> Result<Authorization, AuthorizationError> {
        let text = header.trim();
        if text.is_empty() {
            return Err(AuthorizationError::Empty);
        }
        let (scheme, rest) = text.split_once(' ').ok_or(AuthorizationError::NoParameters)?;
        let mut found: [Option<&str>; 5] = [None; 5];
        let mut rest = rest.trim_start();
        if rest.is_empty() {
            return Err(AuthorizationError::NoParameters);
        }
        loop {
            let at = || AuthorizationError::Malformed(header.len() - rest.len());
            let (name, after) = rest.split_once("=\"").ok_or_else(at)?;
            let (value, after) = after.split_once('"').ok_or_else(at)?;
            let name = name.trim();
            if name.is_empty() || name.contains([',', '"', '=', ' ']) {
                return Err(at());
            }
            if let Some(index) = NAMES.iter().position(|&it| it == name)
                && found[index].replace(value).is_some()
            {
                return Err(AuthorizationError::Twice(NAMES[index]));
            }
            let after = after.trim_start();
            if after.is_empty() {
                break;
            }
            rest = after.strip_prefix(',').ok_or_else(at)?.trim_start();
        }
        let get = |index: usize| match found[index] {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(AuthorizationError::Missing(NAMES[index])),
        };
        let timestamp = get(2)?;
        let digits = timestamp.len() <= 18 && timestamp.bytes().all(|it| it.is_ascii_digit());
        let seconds = if digits { timestamp.parse().ok() } else { None };
        Ok(Authorization {
            scheme: scheme.to_owned(),
            mchid: get(0)?,
            nonce: get(1)?,
            timestamp: seconds.ok_or_else(|| {
                AuthorizationError::Timestamp(timestamp.chars().take(32).collect())
            })?,
            serial: get(3)?,
            signature: get(4)?,
        })
    }

    pub fn render(&self) -> String {
        let mut text = String::with_capacity(512);
        let Authorization { scheme, mchid, nonce, timestamp, serial, signature } = self;
        write!(
            text,
            "{scheme} mchid=\"{mchid}\",nonce_str=\"{nonce}\",signature=\"{signature}\",\
             timestamp=\"{timestamp}\",serial_no=\"{serial}\""
        )
        .expect("writing to a string cannot fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(header: &str, want: AuthorizationError) {
        assert_eq!(Authorization::parse(header), Err(want), "{header}");
    }

    #[test]
    fn bad_headers_are_refused_by_what_is_wrong() {
        use AuthorizationError::{Empty, Malformed, Missing, NoParameters, Timestamp, Twice};
        check("", Empty);
        check("   ", Empty);
        check("WECHATPAY2-SHA256-RSA2048", NoParameters);
        check("S mchid", Malformed(2));
        check("S mchid=1", Malformed(2));
        check("S mchid=\"1", Malformed(2));
        check("S mchid=\"1\";nonce_str=\"2\"", Malformed(2));
        check("S =\"1\"", Malformed(2));
        check("S mchid=\"1\"", Missing("timestamp"));
        check("S mchid=\"1\",mchid=\"2\"", Twice("mchid"));
        let all = |time: &str| {
            format!(
                "S mchid=\"1\",nonce_str=\"n\",timestamp=\"{time}\",serial_no=\"s\",signature=\"g\""
            )
        };
        check(&all("soon"), Timestamp("soon".into()));
        check(&all("-1"), Timestamp("-1".into()));
        check(&all("9999999999999999999"), Timestamp("9999999999999999999".into()));
        check(&all("17").replace("mchid=\"1\"", "mchid=\"\""), Missing("mchid"));
    }

    #[test]
    fn order_blanks_and_extra_parameters_do_not_matter() {
        let header = "S signature=\"a=,b\" , extra=\"x\",serial_no=\"s\",mchid=\"1\", timestamp=\"17\",nonce_str=\"n\"";
        let it = Authorization::parse(header).unwrap();
        assert_eq!((it.signature.as_str(), it.serial.as_str(), it.timestamp), ("a=,b", "s", 17));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            scheme in "[A-Z0-9-]{1,40}",
            words in prop::array::uniform3("[0-9A-Za-z_-]{1,40}"),
            timestamp in 0i64..=i64::from(u32::MAX),
            signature in "[0-9A-Za-z+/]{1,400}={0,2}",
        ) {
            let [mchid, nonce, serial] = words;
            let it = Authorization { scheme, mchid, nonce, timestamp, serial, signature };
            prop_assert_eq!(Authorization::parse(&it.render()), Ok(it));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = Authorization::parse(&text);
        }
    }
}
