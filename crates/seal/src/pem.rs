//! The PEM armour (RFC 7468): text around base64. Knows no key format.

use crate::KeyError;
use base64::{Engine, engine::general_purpose::STANDARD};

pub(crate) struct Block {
    pub label: String,
    pub der: Vec<u8>,
}

/// Reads the first block of `text`.
///
/// Lenient about what people do to files: text before and after, CR LF, blanks and lines of any
/// length. Strict about base64.
pub(crate) fn decode(text: &str, want: &'static str) -> Result<Block, KeyError> {
    let missing = || KeyError::NoPem { want };
    let (_, rest) = text.split_once("-----BEGIN ").ok_or_else(missing)?;
    let (label, rest) = rest.split_once("-----").ok_or_else(missing)?;
    let label: String = label.chars().take(40).collect();
    let damaged = || KeyError::Damaged { block: label.clone() };
    let (body, _) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(damaged)?;
    let body: String = body.chars().filter(|it| !it.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(body).map_err(|_| damaged())?;
    Ok(Block { label, der })
}

/// Writes one block in lines of 64 characters, each ended by LF.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_files_still_read() {
        let check = |text: &str| assert_eq!(decode(text, "X").map(|it| it.der), Ok(vec![1, 2, 3]));
        check("-----BEGIN X-----\nAQID\n-----END X-----\n");
        check("Bag Attributes\r\n-----BEGIN X-----\r\nAQ\r\n ID\r\n-----END X-----");
        check("-----BEGIN X-----AQID-----END X-----");
    }

    proptest! {
        #[test]
        fn armour_reads_back(der in prop::collection::vec(any::<u8>(), 0..400)) {
            let block = decode(&encode("PUBLIC KEY", &der), "PUBLIC KEY").unwrap();
            prop_assert_eq!(block.label, "PUBLIC KEY");
            prop_assert_eq!(block.der, der);
        }

        #[test]
        fn any_text_is_answered(text in "(-----BEGIN A-----)?.*(-----END A-----)?") {
            let _ = decode(&text, "A");
        }
    }
}
