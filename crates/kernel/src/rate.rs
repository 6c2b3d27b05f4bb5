//! Rates in basis points, and the two places where a rate meets money.

use crate::Money;
use std::fmt;

/// A rate of 0 to 100 % in hundredths of a percent: 60 is 0.60 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BasisPoints(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} basis points are more than 100 %; write 0.60 % as 60")]
pub struct RateError(pub u16);

impl BasisPoints {
    pub const ZERO: BasisPoints = BasisPoints(0);

    pub const fn new(bps: u16) -> Result<BasisPoints, RateError> {
        if bps <= 10_000 { Ok(BasisPoints(bps)) } else { Err(RateError(bps)) }
    }

    pub const fn get(self) -> u16 {
        self.0
    }
}

/// As bills print it: `0.60%`.
impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}%", self.0 / 100, self.0 % 100)
    }
}

/// Returns the fee kept from `gross`.
///
/// - Input: `gross` in minor units, negative for a refund.
/// - Output: currency and sign of `gross`; half a minor unit rounds away from zero.
/// - Errors: none. A rate is at most 100 %, so the fee always fits where `gross` did.
/// - Source: rounded per transaction, as WeChat Pay bills show it, not per batch.
///
/// ```
/// # use kernel::{fee, BasisPoints, Currency::Cny, Money};
/// let rate = BasisPoints::new(38).unwrap(); // 0.38 %
/// assert_eq!(fee(Money::new(10_050, Cny), rate), Money::new(38, Cny)); // 38.19 fen
/// assert_eq!(fee(Money::new(-1_316, Cny), rate), Money::new(-5, Cny)); // -5.0008 fen
/// ```
pub fn fee(gross: Money, rate: BasisPoints) -> Money {
    scale(gross, i128::from(rate.0), 10_000)
}

/// Returns the share of `whole` that belongs to `part` of `total`, for giving a fee back with each
/// partial refund.
///
/// - Input: `part` is the *running* sum of what was refunded, `0 ≤ part ≤ total`, `total > 0`,
///   all in one currency. The step of one refund is the difference of two calls.
/// - Output: half a minor unit rounds away from zero; `part == total` gives `whole` exactly, so
///   the steps of any sequence of refunds add up to the whole fee and never to more.
///
/// ```
/// # use kernel::{share_so_far, Currency::Cny, Money};
/// let (fee, total) = (Money::new(5, Cny), Money::new(300, Cny));
/// assert_eq!(share_so_far(fee, Money::new(100, Cny), total).minor(), 2); // 1.67
/// assert_eq!(share_so_far(fee, total, total), fee);
/// ```
pub fn share_so_far(whole: Money, part: Money, total: Money) -> Money {
    debug_assert!(0 <= part.minor() && part.minor() <= total.minor() && total.is_positive());
    scale(whole, i128::from(part.minor()), i128::from(total.minor()))
}

/// `money × numerator ÷ denominator`, half away from zero, for factors of at most one.
fn scale(money: Money, numerator: i128, denominator: i128) -> Money {
    let exact = i128::from(money.minor()) * numerator;
    let rounded = (exact.abs() * 2 + denominator) / (denominator * 2) * exact.signum();
    let minor = i64::try_from(rounded).expect("a factor of at most one keeps 64 bits");
    Money::new(minor, money.currency())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Currency::Cny;
    use proptest::prelude::*;

    #[test]
    fn a_rate_prints_as_on_a_bill() {
        let check = |bps, want: &str| {
            assert_eq!(BasisPoints::new(bps).map(|it| it.to_string()), Ok(want.into()))
        };
        check(60, "0.60%");
        check(5, "0.05%");
        check(10_000, "100.00%");
        assert_eq!(BasisPoints::new(10_001), Err(RateError(10_001)));
    }

    proptest! {
        /// A fee is off its exact value by at most half a minor unit and mirrors the sign.
        #[test]
        fn fees_round_half_away(gross in any::<i64>(), bps in 0u16..=10_000) {
            let rate = BasisPoints::new(bps).unwrap();
            let kept = i128::from(fee(Money::new(gross, Cny), rate).minor());
            let exact = i128::from(gross) * i128::from(bps);
            prop_assert!((kept * 10_000 - exact).abs() * 2 <= 10_000);
            if gross != i64::MIN {
                let mirrored = fee(Money::new(-gross, Cny), rate).minor();
                prop_assert_eq!(i128::from(mirrored), -kept);
            }
        }

        /// Whatever the sequence of partial refunds, the fee comes back once and in whole.
        #[test]
        fn refund_steps_add_up(fee in 0i64..1_000_000, parts in prop::collection::vec(1i64..100_000, 1..50)) {
            let total = Money::new(parts.iter().sum(), Cny);
            let fee = Money::new(fee.min(total.minor()), Cny);
            let (mut run, mut before, mut sum) = (0, 0, 0);
            for part in parts {
                run += part;
                let now = share_so_far(fee, Money::new(run, Cny), total).minor();
                prop_assert!(now >= before);
                sum += now - before;
                before = now;
            }
            prop_assert_eq!(sum, fee.minor());
        }
    }
}
