//! Amounts. An amount is a whole number of minor units of one currency; floats never appear.

use std::fmt;

/// A currency of ISO 4217 that the platform books.
///
/// Adding one is a line in `LIST`; nothing else knows how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Currency {
    Cny,
    Hkd,
    Usd,
    Eur,
    Gbp,
    Jpy,
    Krw,
    Sgd,
    Thb,
    Myr,
    Aud,
    Cad,
}

const LIST: [(Currency, &str, u8); 12] = [
    (Currency::Cny, "CNY", 2),
    (Currency::Hkd, "HKD", 2),
    (Currency::Usd, "USD", 2),
    (Currency::Eur, "EUR", 2),
    (Currency::Gbp, "GBP", 2),
    (Currency::Jpy, "JPY", 0),
    (Currency::Krw, "KRW", 0),
    (Currency::Sgd, "SGD", 2),
    (Currency::Thb, "THB", 2),
    (Currency::Myr, "MYR", 2),
    (Currency::Aud, "AUD", 2),
    (Currency::Cad, "CAD", 2),
];

impl Currency {
    fn row(self) -> (&'static str, u8) {
        let found = LIST.iter().find(|it| it.0 == self);
        let (_, code, digits) = found.expect("every currency stands in LIST");
        (code, *digits)
    }

    /// The three letters of ISO 4217.
    pub fn code(self) -> &'static str {
        self.row().0
    }

    /// Digits after the decimal point: 2 for CNY, 0 for JPY.
    pub fn digits(self) -> u8 {
        self.row().1
    }

    /// Reads the three upper-case letters; `None` for a currency the platform does not book.
    pub fn parse(code: &str) -> Option<Currency> {
        LIST.iter().find(|it| it.1 == code).map(|it| it.0)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount: whole minor units (fen, cent, yen) of one currency.
///
/// Invariant: sums never mix currencies and never wrap; both are errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("{left} and {right} are different currencies")]
    CurrencyMismatch { left: Money, right: Money },
    #[error("{left} and {right} together do not fit 64 bits")]
    Overflow { left: Money, right: Money },
}

impl Money {
    pub const fn new(minor: i64, currency: Currency) -> Money {
        Money { minor, currency }
    }

    pub const fn zero(currency: Currency) -> Money {
        Money::new(0, currency)
    }

    pub const fn minor(self) -> i64 {
        self.minor
    }

    pub const fn currency(self) -> Currency {
        self.currency
    }

    pub const fn is_positive(self) -> bool {
        self.minor > 0
    }

    pub fn checked_add(self, other: Money) -> Result<Money, MoneyError> {
        self.combine(other, i64::checked_add)
    }

    pub fn checked_sub(self, other: Money) -> Result<Money, MoneyError> {
        self.combine(other, i64::checked_sub)
    }

    fn combine(
        self,
        other: Money,
        operation: fn(i64, i64) -> Option<i64>,
    ) -> Result<Money, MoneyError> {
        let (left, right) = (self, other);
        if left.currency != right.currency {
            return Err(MoneyError::CurrencyMismatch { left, right });
        }
        match operation(left.minor, right.minor) {
            Some(minor) => Ok(Money { minor, ..left }),
            None => Err(MoneyError::Overflow { left, right }),
        }
    }

    /// The amount in major units without the currency: `12.30`, `-0.05`, `1230` for yen.
    pub fn major(self) -> String {
        let digits = usize::from(self.currency.digits());
        let sign = if self.minor < 0 { "-" } else { "" };
        let text = format!("{:0>width$}", self.minor.unsigned_abs(), width = digits + 1);
        let (whole, fraction) = text.split_at(text.len() - digits);
        if digits == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.major(), self.currency)
    }
}

/// Divides `total` by `weights`, remainders by largest remainder, ties to the earlier part.
///
/// - Input: any total; at least one weight above zero, else all parts are zero but the first,
///   which takes everything.
/// - Output: one part a weight, in their order; the parts add up to `total` exactly, and none is
///   off its exact share by a whole minor unit.
///
/// ```
/// # use kernel::{split, Currency::Cny, Money};
/// let parts = split(Money::new(100, Cny), &[1, 1, 1]);
/// assert_eq!(parts.iter().map(|it| it.minor()).collect::<Vec<_>>(), [34, 33, 33]);
/// ```
pub fn split(total: Money, weights: &[u32]) -> Vec<Money> {
    let weight_sum: i128 = weights.iter().map(|&it| i128::from(it)).sum();
    let mut parts: Vec<i128> = vec![0; weights.len()];
    if weight_sum == 0 {
        if let Some(first) = parts.first_mut() {
            *first = i128::from(total.minor);
        }
    } else {
        let magnitude = i128::from(total.minor).abs();
        let mut order: Vec<(i128, usize)> = Vec::with_capacity(weights.len());
        for (index, &weight) in weights.iter().enumerate() {
            let exact = magnitude * i128::from(weight);
            parts[index] = exact / weight_sum;
            order.push((exact % weight_sum, index));
        }
        order.sort_by_key(|&(remainder, index)| (std::cmp::Reverse(remainder), index));
        let rest = magnitude - parts.iter().sum::<i128>();
        for &(_, index) in order.iter().take(usize::try_from(rest).unwrap_or(0)) {
            parts[index] += 1;
        }
        let sign = i128::from(total.minor.signum());
        parts.iter_mut().for_each(|it| *it *= sign);
    }
    let fits = |minor| i64::try_from(minor).expect("a part is no larger than the whole");
    parts.into_iter().map(|it| Money::new(fits(it), total.currency)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        let check = |minor, currency, want: &str| {
            assert_eq!(Money::new(minor, currency).to_string(), want);
        };
        check(1230, Currency::Cny, "12.30 CNY");
        check(-5, Currency::Cny, "-0.05 CNY");
        check(0, Currency::Usd, "0.00 USD");
        check(1230, Currency::Jpy, "1230 JPY");
        check(i64::MIN, Currency::Cny, "-92233720368547758.08 CNY");
    }

    #[test]
    fn currencies_never_mix_and_sums_never_wrap() {
        let (fen, cent) = (Money::new(1, Currency::Cny), Money::new(1, Currency::Usd));
        assert!(matches!(fen.checked_add(cent), Err(MoneyError::CurrencyMismatch { .. })));
        let most = Money::new(i64::MAX, Currency::Cny);
        assert!(matches!(most.checked_add(fen), Err(MoneyError::Overflow { .. })));
    }

    #[test]
    fn every_currency_is_listed_and_reads_back() {
        for (currency, code, _) in LIST {
            assert_eq!(Currency::parse(code), Some(currency));
            assert_eq!(currency.code(), code);
        }
        assert_eq!(Currency::parse("cny"), None);
    }

    proptest! {
        /// Splitting neither makes nor loses money; no part is off by a whole minor unit.
        #[test]
        fn split_conserves(
            total in any::<i64>(),
            weights in prop::collection::vec(0u32..1_000, 1..20),
        ) {
            let parts = split(Money::new(total, Currency::Cny), &weights);
            let sum: i128 = parts.iter().map(|it| i128::from(it.minor())).sum();
            prop_assert_eq!(sum, i128::from(total));
            let weight_sum: i128 = weights.iter().map(|&it| i128::from(it)).sum();
            for (part, &weight) in parts.iter().zip(&weights) {
                if weight_sum == 0 { break }
                let exact = i128::from(total) * i128::from(weight);
                let error = i128::from(part.minor()) * weight_sum - exact;
                prop_assert!(error.abs() < weight_sum, "{} is off by {}/{}", part, error, weight_sum);
            }
        }

        /// Adding then taking away is where one started.
        #[test]
        fn addition_has_an_inverse(left in any::<i64>(), right in any::<i64>()) {
            let (left, right) = (Money::new(left, Currency::Cny), Money::new(right, Currency::Cny));
            if let Ok(sum) = left.checked_add(right) {
                prop_assert_eq!(sum.checked_sub(right), Ok(left));
            }
        }
    }
}
