//! Query-and-heal: what an order needs when its time has come.

use crate::{Payment, PaymentState};
use kernel::{Serial, Timestamp};

/// Seconds between questions about an attempt that is silent; the last one repeats.
pub const POLL_LADDER_S: [i64; 9] = [5, 10, 15, 30, 60, 120, 300, 600, 1800];

/// The pause after `asked` questions.
pub fn poll_delay_s(asked: u32) -> i64 {
    let last = POLL_LADDER_S.len() - 1;
    POLL_LADDER_S[usize::try_from(asked).unwrap_or(last).min(last)]
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Care {
    /// Ask the channels about these attempts, then look again.
    Ask(Vec<Serial>),
    /// Nobody may pay any more: ask, then close these at their channels, then look again.
    Close(Vec<Serial>),
    /// No attempt is open and the time is up: close the order.
    Expire,
    /// Nothing to do before then.
    Rest { until: Timestamp },
    /// Nothing will ever be to do.
    Done,
}

impl Payment {
    /// What the order needs at `now`.
    pub fn care(&self, now: Timestamp) -> Care {
        let open: Vec<Serial> = self.open_attempts().map(|it| it.serial).collect();
        let over = match self.state {
            PaymentState::NotPay | PaymentState::UserPaying => {
                now >= self.expires || self.has_held_money()
            }
            PaymentState::Success
            | PaymentState::Closed
            | PaymentState::Revoked
            | PaymentState::PayError => true,
        };
        match (over, open.is_empty()) {
            (true, false) => Care::Close(open),
            (false, false) => Care::Ask(open),
            (false, true) => Care::Rest { until: self.expires },
            (true, true) => match self.state {
                // An order with held money stays as it is until a person decides.
                PaymentState::NotPay | PaymentState::UserPaying if !self.has_held_money() => {
                    Care::Expire
                }
                PaymentState::NotPay
                | PaymentState::UserPaying
                | PaymentState::Success
                | PaymentState::Closed
                | PaymentState::Revoked
                | PaymentState::PayError => Care::Done,
            },
        }
    }
}
