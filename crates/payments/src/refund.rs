//! Refunds: what may be refunded, and what the channel made of it.

use crate::{Payment, PaymentState, Receipt};
use kernel::{MerchantId, Money, Serial, Timestamp, fee, share_so_far};

/// WeChat: one year.
pub const REFUND_WINDOW_DAYS: i64 = 365;
pub const REFUNDS_PER_PAYMENT: u16 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefundState {
    Processing,
    Success,
    Closed,
    /// The payer's card or account cannot take it; someone must act.
    Abnormal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundEvidence {
    Processing,
    Success { account: Option<String>, at: Timestamp },
    Closed { why: String },
    Abnormal,
    NotFound,
    NoAnswer { why: String },
}

/// Who asked for the money to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Merchant,
    /// Money that the order could not use.
    Automatic,
}

/// What the merchant asked for. Asking again with equal terms is the same refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundTerms {
    /// The merchant's own number (`out_refund_no`).
    pub refund_no: String,
    pub amount: Money,
    /// The total that the merchant believes the order has.
    pub total: Money,
    pub reason: Option<String>,
    pub notify_url: Option<String>,
    /// Everything else the merchant sent, as JSON text in a fixed order.
    pub extras: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    pub serial: Serial,
    pub merchant: MerchantId,
    pub payment: Serial,
    /// Whose money goes back.
    pub attempt: Serial,
    pub terms: RefundTerms,
    pub origin: Origin,
    pub state: RefundState,
    pub fee_back: Money,
    pub cost_back: Money,
    /// How much of the amount was taken from the available balance, the rest from pending.
    pub from_available_minor: i64,
    pub created: Timestamp,
    pub done: Option<Timestamp>,
    pub account: Option<String>,
    /// The channel's last word that was no answer or a refusal.
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefundRefusal {
    #[error("the order is not paid")]
    NotPaid,
    #[error("refund of {asked} exceeds the {left} still refundable")]
    ExceedsRest { asked: Money, left: Money },
    #[error("the order's total is {total}, not {said}")]
    WrongTotal { said: Money, total: Money },
    #[error("the order was paid more than {REFUND_WINDOW_DAYS} days ago")]
    Overdue,
    #[error("the order already has {REFUNDS_PER_PAYMENT} refunds")]
    TooMany,
}

/// What a piece of evidence does to a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundChange {
    None,
    To(RefundState),
    /// It cannot be true together with what was known.
    Contradiction,
}

impl RefundState {
    pub fn is_final(self) -> bool {
        match self {
            Self::Processing | Self::Abnormal => false,
            Self::Success | Self::Closed => true,
        }
    }

    /// Total and without `_`.
    pub fn next(self, evidence: &RefundEvidence) -> RefundChange {
        use RefundChange::{Contradiction, None, To};
        use RefundEvidence as E;
        match (self, evidence) {
            (Self::Processing, E::Processing | E::NoAnswer { .. } | E::NotFound) => None,
            (Self::Processing | Self::Abnormal, E::Success { .. }) => To(Self::Success),
            (Self::Processing | Self::Abnormal, E::Closed { .. }) => To(Self::Closed),
            (Self::Processing, E::Abnormal) => To(Self::Abnormal),
            (Self::Abnormal, E::Processing | E::Abnormal | E::NoAnswer { .. } | E::NotFound) => {
                None
            }
            (Self::Success, E::Success { .. } | E::Processing | E::NoAnswer { .. }) => None,
            (Self::Success, E::Closed { .. } | E::Abnormal | E::NotFound) => Contradiction,
            (Self::Closed, E::Closed { .. } | E::Processing | E::NoAnswer { .. } | E::NotFound) => {
                None
            }
            (Self::Closed, E::Success { .. } | E::Abnormal) => Contradiction,
        }
    }
}

impl Refund {
    /// The refund after `evidence`, with what changed.
    pub fn after(&self, evidence: &RefundEvidence, now: Timestamp) -> (Refund, RefundChange) {
        let change = self.state.next(evidence);
        let mut next = self.clone();
        match change {
            RefundChange::To(state) => next.state = state,
            RefundChange::None => {}
            RefundChange::Contradiction => {
                next.note =
                    Some(format!("refund is {:?}, but the channel says {evidence:?}", self.state));
                return (next, change);
            }
        }
        match evidence {
            RefundEvidence::Success { account, at } => {
                if self.done.is_none() {
                    (next.account, next.done) = (account.clone(), Some(*at));
                }
            }
            RefundEvidence::Closed { why } => {
                if self.done.is_none() {
                    (next.note, next.done) = (Some(why.clone()), Some(now));
                }
            }
            RefundEvidence::NoAnswer { why } => next.note = Some(why.clone()),
            RefundEvidence::Processing | RefundEvidence::Abnormal | RefundEvidence::NotFound => {}
        }
        (next, change)
    }
}

impl Payment {
    /// Accepts a refund of the order's own money, or says why not.
    ///
    /// The refund gives its share of the fee and of the channel's cost back; the shares of all
    /// refunds add up to exactly the whole when everything is refunded.
    pub fn accept_refund(
        &self,
        serial: Serial,
        terms: RefundTerms,
        from_available_minor: i64,
        now: Timestamp,
    ) -> Result<(Payment, Refund), RefundRefusal> {
        let receipt = match (self.state, &self.receipt) {
            (PaymentState::Success, Some(receipt)) => receipt,
            (
                PaymentState::Success
                | PaymentState::NotPay
                | PaymentState::UserPaying
                | PaymentState::Closed
                | PaymentState::Revoked
                | PaymentState::PayError,
                None | Some(_),
            ) => return Err(RefundRefusal::NotPaid),
        };
        let total = self.terms.amount;
        if terms.total != total {
            return Err(RefundRefusal::WrongTotal { said: terms.total, total });
        }
        let left = Money::new(total.minor() - self.refunded.minor(), total.currency());
        let exceeds = RefundRefusal::ExceedsRest { asked: terms.amount, left };
        if terms.amount.currency() != total.currency() || terms.amount.minor() > left.minor() {
            return Err(exceeds);
        }
        if self.refunds >= REFUNDS_PER_PAYMENT {
            return Err(RefundRefusal::TooMany);
        }
        if now.ms_since(receipt.at) > REFUND_WINDOW_DAYS * 86_400_000 {
            return Err(RefundRefusal::Overdue);
        }
        let refunded = self.refunded.checked_add(terms.amount).map_err(|_| exceeds)?;
        let step = |whole: Money, returned: Money| {
            let so_far = share_so_far(whole, refunded, total).minor();
            // An earlier refund that failed may have left the run a fen ahead of its share.
            Money::new((so_far - returned.minor()).max(0), total.currency())
        };
        let fee_back = step(self.fee(), self.fee_returned);
        let cost_back = step(self.cost(), self.cost_returned);
        let refund = Refund {
            serial,
            merchant: self.merchant.clone(),
            payment: self.serial,
            attempt: receipt.attempt,
            terms,
            origin: Origin::Merchant,
            state: RefundState::Processing,
            fee_back,
            cost_back,
            from_available_minor,
            created: now,
            done: None,
            account: None,
            note: None,
        };
        let mut next = self.clone();
        next.refunded = refunded;
        next.fee_returned = plus(self.fee_returned, fee_back);
        next.cost_returned = plus(self.cost_returned, cost_back);
        next.refunds += 1;
        Ok((next, refund))
    }

    /// A refund of the order's own money failed for good: it is refundable again.
    pub fn without_refund(&self, refund: &Refund) -> Payment {
        let minus = |a: Money, b: Money| Money::new(a.minor() - b.minor(), a.currency());
        let mut next = self.clone();
        next.refunded = minus(self.refunded, refund.terms.amount);
        next.fee_returned = minus(self.fee_returned, refund.fee_back);
        next.cost_returned = minus(self.cost_returned, refund.cost_back);
        next
    }

    /// The refund that sends unexpected money back; it costs the merchant nothing.
    pub fn send_back(&self, serial: Serial, receipt: &Receipt, now: Timestamp) -> Refund {
        let rate = self.attempt(receipt.attempt).map(|it| it.cost_rate);
        let zero = Money::zero(receipt.amount.currency());
        Refund {
            serial,
            merchant: self.merchant.clone(),
            payment: self.serial,
            attempt: receipt.attempt,
            terms: RefundTerms {
                refund_no: format!("AUTO{serial}"),
                amount: receipt.amount,
                total: receipt.amount,
                reason: None,
                notify_url: None,
                extras: None,
            },
            origin: Origin::Automatic,
            state: RefundState::Processing,
            fee_back: zero,
            cost_back: rate.map_or(zero, |it| fee(receipt.amount, it)),
            from_available_minor: 0,
            created: now,
            done: None,
            account: None,
            note: None,
        }
    }
}

fn plus(left: Money, right: Money) -> Money {
    left.checked_add(right).expect("both are at most the order's amount")
}
