//! Payments, attempts and refunds: their states, and the total functions that fold evidence in.
//!
//! Order and attempt are different things: one payment (the merchant's order), many attempts (one
//! a channel order). The first success pays the order; any further money is unexpected and goes
//! back or waits for a person. Pure: the time is an argument, what must follow is returned.

mod attempt;
mod care;
mod payment;
mod refund;

pub use attempt::{Attempt, AttemptState, Contradiction, Evidence, Prepay, Receipt};
pub use care::{Care, POLL_LADDER_S, poll_delay_s};
pub use payment::{
    CloseRefusal, Effect, LatePolicy, Mode, Payment, PaymentState, RecordError, Recorded,
    StartRefusal, Terms, TradeProduct, Unexpected, UnexpectedCause, UnexpectedState,
};
pub use refund::{
    Origin, REFUND_WINDOW_DAYS, REFUNDS_PER_PAYMENT, Refund, RefundChange, RefundEvidence,
    RefundRefusal, RefundState, RefundTerms,
};
