//! Double-entry books: accounts, postings, the chart of accounts and what each event posts. Pure.
//!
//! A posting moves one amount from a credited to a debited account, so a set of postings always
//! balances. Money that is promised but not gone sits in an account of its own (`refund_payable`,
//! `payout_in_transit`) rather than in a pending column: every state of the money is a balance.

mod account;
mod balance;
mod chart;
mod journal;

pub use account::{Account, AccountError, AccountKind, Owner, Side};
pub use balance::{Balance, BalanceError};
pub use chart::{
    Paid, RefundMoney, Source, Unexpected, expected_net, paid, refund_accepted, refund_done,
    refund_failed, unexpected,
};
pub use journal::{Event, Journal, Posting};
