//! Reading query strings: `mchid=1900000109&bill_date=2019-06-11`.
//!
//! Does not judge the values; each endpoint does.

/// The parameters of a query string, percent-decoded, in order. Empty parts are skipped: one SDK
/// sends `?&out_order_no=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The query of a request target: `/path?query`, or `/path` with none.
    pub fn of_target(path_and_query: &str) -> Query {
        Query::parse(path_and_query.split_once('?').map_or("", |it| it.1))
    }

    /// - Input: what follows the first `?`, or the body of a form.
    pub fn parse(query: &str) -> Query {
        let pairs = query.split('&').filter(|it| !it.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name, true), decode(value, true))
        });
        Query(pairs.collect())
    }

    /// The first value of that name, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|it| it.0 == name)?;
        Some(found.1.as_str()).filter(|it| !it.is_empty())
    }
}

/// Decodes `%XX` in a path segment. What is no valid escape stays as it is; bytes that are not
/// UTF-8 become U+FFFD.
pub fn decode_segment(text: &str) -> String {
    decode(text, false)
}

/// Encodes a value for a query string: everything but letters, digits and `-_.~`.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode(text: &str, plus_is_blank: bool) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|&it| char::from(it).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits are one byte"));
                at += 3;
                continue;
            }
            (b'+', _, _) if plus_is_blank => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_reads_as_sent() {
        let query = Query::of_target("/v3/x?&mchid=19&note=a%7Cb+c%&empty=&flag");
        assert_eq!(query.get("mchid"), Some("19"));
        assert_eq!(query.get("note"), Some("a|b c%"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("flag"), None);
        assert_eq!(Query::parse("to=a?b=c").get("to"), Some("a?b=c"));
        assert_eq!(Query::of_target("/v3/x=1"), Query::parse(""));
        assert_eq!(decode_segment("T%7C1+%E4%BD%A0"), "T|1+你");
    }

    proptest! {
        #[test]
        fn encoded_values_read_back(value in "\\PC{1,40}") {
            let query = Query::parse(&format!("a={}", encode(&value)));
            prop_assert_eq!(query.get("a"), Some(value.as_str()));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = (Query::parse(&text), decode_segment(&text));
        }
    }
}
