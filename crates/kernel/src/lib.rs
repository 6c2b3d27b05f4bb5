//! The words every other crate speaks: money, rates, time, serial numbers, names, secrets.
//!
//! Values only. No clock is read, no randomness drawn and nothing stored here.

mod money;
mod names;
mod rate;
mod secret;
mod serial;
mod time;

pub use money::{Currency, Money, MoneyError, split};
pub use names::{MerchantId, NameError};
pub use rate::{BasisPoints, RateError, fee, share_so_far};
pub use secret::Secret;
pub use serial::{Serial, SerialError, SerialGenerator, SerialKind};
pub use time::{BusinessDay, TimeError, Timestamp, Zone};
