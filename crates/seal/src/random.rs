//! Randomness from the operating system. Nothing here can be seeded.

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness once booted");
    bytes
}

/// 32 letters and digits, about 190 bits: the form of a WeChat Pay nonce and of an APIv3 key.
pub fn random_nonce() -> String {
    let mut nonce = String::with_capacity(32);
    while nonce.len() < 32 {
        for byte in random_bytes::<48>() {
            // 248 = 4 × 62: a plain remainder of all 256 would favour the first eight letters.
            if byte < 248 && nonce.len() < 32 {
                nonce.push(char::from(LETTERS[usize::from(byte % 62)]));
            }
        }
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_32_letters_or_digits_and_differ() {
        let (one, other) = (random_nonce(), random_nonce());
        for nonce in [&one, &other] {
            assert_eq!(nonce.len(), 32);
            assert!(nonce.bytes().all(|it| it.is_ascii_alphanumeric()), "{nonce}");
        }
        assert_ne!(one, other);
    }
}
