//! Numbers drawn from a seed: identifiers, nonces, chances. Repeatable, and not fit for secrets.

/// SplitMix64: one step is an addition and a mix, and every seed gives a different run.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// True with a chance of `per_mille` in a thousand.
    pub(super) fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.roll() % 1_000 < u64::from(per_mille)
    }

    /// `len` characters of `alphabet`.
    pub(super) fn text(&mut self, alphabet: &[u8], len: usize) -> String {
        let count = u64::try_from(alphabet.len()).expect("an alphabet is short");
        let mut pick = || {
            let at = usize::try_from(self.roll() % count).expect("an index into the alphabet");
            char::from(alphabet[at])
        };
        (0..len).map(|_| pick()).collect()
    }
}

pub(super) const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
pub(super) const HEX: &[u8] = b"0123456789abcdef";
