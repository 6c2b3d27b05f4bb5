//! What happened, as the books see it.

use crate::{Account, Side};
use kernel::{MerchantId, Money, Serial, Timestamp};

/// One amount from one account to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    pub debit: Account,
    pub credit: Account,
    pub amount: Money,
}

impl Posting {
    /// Both legs: account, side.
    pub fn legs(&self) -> [(&Account, Side); 2] {
        [(&self.debit, Side::Debit), (&self.credit, Side::Credit)]
    }
}

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Paid,
    /// Money came that the order could not use.
    Unexpected,
    RefundAccepted,
    RefundDone,
    RefundFailed,
}

const NAMES: [(Event, &str); 5] = [
    (Event::Paid, "paid"),
    (Event::Unexpected, "unexpected"),
    (Event::RefundAccepted, "refund_accepted"),
    (Event::RefundDone, "refund_done"),
    (Event::RefundFailed, "refund_failed"),
];

impl Event {
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|it| it.0 == self).expect("every event stands in NAMES").1
    }

    pub fn parse(name: &str) -> Option<Event> {
        NAMES.iter().find(|it| it.1 == name).map(|it| it.0)
    }
}

/// The postings of one event; written whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    pub serial: Serial,
    pub merchant: MerchantId,
    /// The payment whose money this is.
    pub payment: Serial,
    /// The attempt or refund that caused it: with `event` it identifies the journal, so the same
    /// event of the same subject can be booked once only.
    pub subject: Serial,
    pub event: Event,
    pub at: Timestamp,
    pub postings: Vec<Posting>,
}
