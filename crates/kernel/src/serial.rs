//! Serial numbers (统一交易流水号): 28 digits that sort by time and say what they number.
//!
//! ```text
//! 20261121 52364098 11 007 000042 3
//! day      ms of    kind   sequence
//!          the day     node       check digit (Luhn)
//! ```
//!
//! Unique without coordination as long as no two live processes share a node number.

use crate::{Timestamp, Zone};
use std::fmt;

const LEN: usize = 28;

/// What a serial numbers; a support person can tell from digits 17 and 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SerialKind {
    Payment,
    Attempt,
    Refund,
    Journal,
    Intent,
    Notification,
    Split,
    Payout,
}

const KINDS: [(SerialKind, u8); 8] = [
    (SerialKind::Payment, 11),
    (SerialKind::Attempt, 12),
    (SerialKind::Refund, 21),
    (SerialKind::Journal, 31),
    (SerialKind::Intent, 41),
    (SerialKind::Notification, 42),
    (SerialKind::Split, 51),
    (SerialKind::Payout, 61),
];

/// A serial number. Ordering is by time, then kind, node and sequence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; LEN]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerialError {
    #[error("serial number {0:?} is not 28 digits")]
    NotDigits(String),
    #[error("serial number {0} has a wrong check digit; a digit was probably mistyped")]
    CheckDigit(String),
    #[error("serial number {0} is of no known kind (digits 17 and 18)")]
    NoKind(String),
}

impl Serial {
    pub fn parse(text: &str) -> Result<Serial, SerialError> {
        let named = || text.chars().take(40).collect::<String>();
        let digits: [u8; LEN] =
            text.as_bytes().try_into().map_err(|_| SerialError::NotDigits(named()))?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(SerialError::NotDigits(named()));
        }
        if digits[LEN - 1] != check_digit(&digits[..LEN - 1]) {
            return Err(SerialError::CheckDigit(named()));
        }
        let serial = Serial(digits);
        let known = KINDS.iter().any(|it| it.1 == serial.kind_code());
        if known { Ok(serial) } else { Err(SerialError::NoKind(named())) }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only digits are ever stored")
    }

    fn kind_code(&self) -> u8 {
        (self.0[16] - b'0') * 10 + (self.0[17] - b'0')
    }

    pub fn kind(&self) -> SerialKind {
        let found = KINDS.iter().find(|it| it.1 == self.kind_code());
        found.expect("parse and next only let known kinds in").0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The Luhn digit of `digits`: finds any single wrong digit and most swapped neighbours.
fn check_digit(digits: &[u8]) -> u8 {
    let sum: u32 = digits.iter().rev().enumerate().fold(0, |sum, (index, &digit)| {
        let value = u32::from(digit - b'0') * if index % 2 == 0 { 2 } else { 1 };
        sum + value / 10 + value % 10
    });
    b'0' + u8::try_from((10 - sum % 10) % 10).expect("one digit")
}

/// Hands out serials of one node. Feed it the time; it never goes back, even if the clock does.
#[derive(Clone, Debug)]
pub struct SerialGenerator {
    node: u16,
    zone: Zone,
    last: Timestamp,
    sequence: u32,
    /// The text of the day of `last` and the moments between which it holds.
    day: (String, Timestamp, Timestamp),
}

const SEQUENCES: u32 = 1_000_000;

impl SerialGenerator {
    /// - Input: `node` 0 to 999, unique among live processes; larger numbers are reduced.
    pub fn new(node: u16, zone: Zone) -> SerialGenerator {
        let epoch = Timestamp::from_ms(0);
        let day = (String::new(), epoch, epoch);
        SerialGenerator { node: node % 1000, zone, last: epoch, sequence: 0, day }
    }

    pub fn next(&mut self, now: Timestamp, kind: SerialKind) -> Serial {
        if now > self.last {
            (self.last, self.sequence) = (now, 0);
        } else {
            self.sequence += 1;
            if self.sequence == SEQUENCES {
                // A million in one millisecond, or a clock that stands still: borrow the next one.
                (self.last, self.sequence) = (self.last.plus_ms(1), 0);
            }
        }
        if self.last < self.day.1 || self.last >= self.day.2 {
            let day = self.zone.day(self.last);
            self.day = (day.compact(), self.zone.start(day), self.zone.start(day.plus_days(1)));
        }
        let code = KINDS.iter().find(|it| it.0 == kind).expect("every kind stands in KINDS").1;
        let mut digits = [b'0'; LEN];
        digits[..8].copy_from_slice(self.day.0.as_bytes());
        write_number(&mut digits[8..16], self.last.ms_since(self.day.1).unsigned_abs());
        write_number(&mut digits[16..18], u64::from(code));
        write_number(&mut digits[18..21], u64::from(self.node));
        write_number(&mut digits[21..27], u64::from(self.sequence));
        digits[27] = check_digit(&digits[..27]);
        Serial(digits)
    }
}

fn write_number(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).expect("one digit");
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn generator() -> SerialGenerator {
        SerialGenerator::new(7, Zone::shanghai())
    }

    #[test]
    fn a_serial_reads_as_the_head_of_this_file_says() {
        let noon = Timestamp::parse_rfc3339("2026-11-21T12:00:00+08:00").unwrap();
        let serial = generator().next(noon, SerialKind::Refund);
        assert_eq!(&serial.as_str()[..27], "202611214320000021007000000");
        assert_eq!(serial.kind(), SerialKind::Refund);
    }

    #[test]
    fn a_clock_that_goes_back_repeats_nothing() {
        let mut generator = generator();
        let now = Timestamp::from_ms(1_800_000_000_000);
        let first = generator.next(now, SerialKind::Payment);
        let second = generator.next(now.plus_ms(-5_000), SerialKind::Payment);
        assert!(second > first);
    }

    proptest! {
        #[test]
        fn serials_are_unique_ordered_and_read_back(steps in prop::collection::vec(-3i64..3, 1..200)) {
            let mut generator = generator();
            let mut now = Timestamp::from_ms(1_800_000_000_000);
            let mut before: Option<Serial> = None;
            for step in steps {
                now = now.plus_ms(step);
                let serial = generator.next(now, SerialKind::Payment);
                prop_assert_eq!(Serial::parse(serial.as_str()), Ok(serial));
                prop_assert!(before.is_none_or(|it| it < serial));
                before = Some(serial);
            }
        }

        /// Any one mistyped digit is found.
        #[test]
        fn a_typo_is_found(at in 0usize..28, by in 1u8..10) {
            let serial = generator().next(Timestamp::from_ms(1_800_000_000_000), SerialKind::Payment);
            let mut text = serial.as_str().as_bytes().to_vec();
            text[at] = (text[at] - b'0' + by) % 10 + b'0';
            prop_assert!(Serial::parse(std::str::from_utf8(&text).unwrap()).is_err());
        }
    }
}
