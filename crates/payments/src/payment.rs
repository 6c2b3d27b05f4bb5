//! The merchant's order: what was agreed, what was paid, and what must follow from news.

use crate::{Attempt, AttemptState, Contradiction, Evidence, Prepay, Receipt};
use kernel::{BasisPoints, MerchantId, Money, Serial, Timestamp, fee};

/// How the order was created by the merchant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TradeProduct {
    Native,
    Jsapi,
    App,
    H5,
    /// A hosted cashier link: the payer's device decides.
    Cashier,
}

/// When the channel's order is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// At once; the merchant gets the channel's own code.
    Eager,
    /// When the payer opens our cashier.
    Lazy,
}

/// What becomes of money that arrives after the order was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LatePolicy {
    /// The order counts as paid after all.
    Reopen,
    /// The payer gets it back.
    Refund,
}

/// What the merchant asked for. Asking again with equal terms is the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The merchant's own number (`out_trade_no`).
    pub order_no: String,
    pub appid: String,
    pub product: TradeProduct,
    pub amount: Money,
    pub description: String,
    pub attach: Option<String>,
    pub notify_url: Option<String>,
    /// As asked; the payment's `expires` holds even when this is absent.
    pub time_expire: Option<Timestamp>,
    pub payer: Option<String>,
    pub payer_ip: Option<String>,
    pub h5_type: Option<String>,
    pub device_id: Option<String>,
    pub return_url: Option<String>,
    /// Everything else the merchant sent, as JSON text in a fixed order: kept, compared, echoed.
    pub extras: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaymentState {
    NotPay,
    UserPaying,
    Success,
    Closed,
    Revoked,
    PayError,
}

/// Why money cannot be used for its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnexpectedCause {
    SecondSuccess,
    LateSuccess,
    WrongAmount,
    WrongCurrency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnexpectedState {
    /// A person must look.
    Held,
    /// On its way back to the payer.
    Refunding,
}

/// Money that the order did not wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    pub attempt: Serial,
    pub cause: UnexpectedCause,
    pub state: UnexpectedState,
    pub amount: Money,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub serial: Serial,
    pub merchant: MerchantId,
    pub terms: Terms,
    pub mode: Mode,
    /// The platform key that the merchant's client asked answers to be signed with; its
    /// notifications are signed with the same. `None`: it did not say.
    pub verifies_with: Option<String>,
    /// Ties later work on the order to the request that made it, for people who look for a fault.
    /// Opaque: nothing is decided by it.
    pub trace: Option<String>,
    /// The merchant's rate on the day of the order.
    pub fee_rate: BasisPoints,
    pub late: LatePolicy,
    pub state: PaymentState,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub attempts: Vec<Attempt>,
    /// The money that pays the order.
    pub receipt: Option<Receipt>,
    /// Accepted refunds that have not failed.
    pub refunded: Money,
    pub fee_returned: Money,
    pub cost_returned: Money,
    /// Refunds ever accepted.
    pub refunds: u16,
    pub unexpected: Vec<Unexpected>,
    /// Contradicting evidence, in words, oldest first.
    pub contradictions: Vec<String>,
}

/// What must be done because of news; the caller turns it into postings and intents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The order is paid: book it, tell the merchant.
    Paid(Receipt),
    /// Money for the suspense account.
    Suspend { receipt: Receipt, cause: UnexpectedCause },
    /// Suspended money that must go back to the payer.
    SendBack { receipt: Receipt, cause: UnexpectedCause },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub payment: Payment,
    pub effects: Vec<Effect>,
    /// False if the news was none.
    pub changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("payment {payment} has no attempt {attempt}")]
    NoSuchAttempt { payment: Serial, attempt: Serial },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartRefusal {
    #[error("the order is already paid")]
    Paid,
    #[error("the order is closed")]
    Closed,
    #[error("the order has expired")]
    Expired,
    #[error("money of a wrong amount arrived and waits for a person")]
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseRefusal {
    #[error("the order is already paid")]
    Paid,
    /// These must be closed at their channels first.
    #[error("an attempt may still be paid")]
    Open,
}

impl Payment {
    pub fn attempt(&self, serial: Serial) -> Option<&Attempt> {
        self.attempts.iter().find(|it| it.serial == serial)
    }

    /// The attempt that paid the order.
    pub fn paid_attempt(&self) -> Option<&Attempt> {
        self.receipt.as_ref().and_then(|it| self.attempt(it.attempt))
    }

    pub fn open_attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|it| it.state.is_open())
    }

    /// What the channel's code or link is, if the payer can use one now.
    pub fn prepay(&self, attempt: Serial) -> Option<&Prepay> {
        let open = self.attempt(attempt).filter(|it| it.state.is_open());
        open.and_then(|it| it.prepay.as_ref())
    }

    /// The fee on the whole amount.
    pub fn fee(&self) -> Money {
        fee(self.terms.amount, self.fee_rate)
    }

    /// What the channel kept of the order's own money.
    pub fn cost(&self) -> Money {
        let zero = Money::zero(self.terms.amount.currency());
        self.paid_attempt().map_or(zero, |it| fee(self.terms.amount, it.cost_rate))
    }

    pub fn has_held_money(&self) -> bool {
        self.unexpected.iter().any(|it| it.state == UnexpectedState::Held)
    }

    /// Whether a further attempt may start.
    pub fn may_start(&self, now: Timestamp) -> Result<(), StartRefusal> {
        match self.state {
            PaymentState::NotPay | PaymentState::UserPaying => {
                if self.has_held_money() {
                    Err(StartRefusal::Held)
                } else if now >= self.expires {
                    Err(StartRefusal::Expired)
                } else {
                    Ok(())
                }
            }
            PaymentState::Success => Err(StartRefusal::Paid),
            PaymentState::Closed | PaymentState::Revoked | PaymentState::PayError => {
                Err(StartRefusal::Closed)
            }
        }
    }

    /// With one more attempt.
    pub fn with_attempt(&self, attempt: Attempt) -> Payment {
        let mut next = self.clone();
        next.attempts.push(attempt);
        next
    }

    /// Folds what a channel says about one attempt into the order.
    ///
    /// - The same evidence again changes nothing.
    /// - A contradiction is written down and changes nothing else.
    /// - Money in another amount or currency, a second success, or a success after closing never
    ///   pays the order silently; see [`Effect`].
    pub fn record(&self, attempt: Serial, evidence: &Evidence) -> Result<Recorded, RecordError> {
        let index = self.attempts.iter().position(|it| it.serial == attempt);
        let index = index.ok_or(RecordError::NoSuchAttempt { payment: self.serial, attempt })?;
        let mut next = self.clone();
        let mut effects = Vec::new();
        match self.attempts[index].after(evidence) {
            Err(contradiction) => next.note(&contradiction),
            Ok(after) => {
                let news = self.attempts[index].receipt.is_none();
                next.attempts[index] = after;
                match &next.attempts[index].receipt {
                    Some(receipt) if news => {
                        let receipt = receipt.clone();
                        effects = next.take(receipt);
                    }
                    Some(_) | None => next.state = next.unpaid_state(),
                }
            }
        }
        let changed = next != *self;
        Ok(Recorded { payment: next, effects, changed })
    }

    fn note(&mut self, contradiction: &Contradiction) {
        let words = contradiction.to_string();
        if !self.contradictions.contains(&words) {
            self.contradictions.push(words);
        }
    }

    /// The state that open attempts give an order nobody has paid.
    fn unpaid_state(&self) -> PaymentState {
        match self.state {
            PaymentState::NotPay | PaymentState::UserPaying => {
                let typing = self.attempts.iter().any(|it| it.state == AttemptState::Paying);
                if typing { PaymentState::UserPaying } else { PaymentState::NotPay }
            }
            PaymentState::Success
            | PaymentState::Closed
            | PaymentState::Revoked
            | PaymentState::PayError => self.state,
        }
    }

    /// Money has come, for the first time from this attempt.
    fn take(&mut self, receipt: Receipt) -> Vec<Effect> {
        let Some((cause, state)) = self.unexpected_cause(&receipt) else {
            self.state = PaymentState::Success;
            self.receipt = Some(receipt.clone());
            return vec![Effect::Paid(receipt)];
        };
        self.unexpected.push(Unexpected {
            attempt: receipt.attempt,
            cause,
            state,
            amount: receipt.amount,
            at: receipt.at,
        });
        self.state = self.unpaid_state();
        let suspend = Effect::Suspend { receipt: receipt.clone(), cause };
        match state {
            UnexpectedState::Refunding => vec![suspend, Effect::SendBack { receipt, cause }],
            UnexpectedState::Held => vec![suspend],
        }
    }

    /// Why `receipt` cannot pay the order, and what becomes of it.
    fn unexpected_cause(&self, receipt: &Receipt) -> Option<(UnexpectedCause, UnexpectedState)> {
        use UnexpectedState::{Held, Refunding};
        if receipt.amount.currency() != self.terms.amount.currency() {
            return Some((UnexpectedCause::WrongCurrency, Held));
        }
        if receipt.amount != self.terms.amount {
            return Some((UnexpectedCause::WrongAmount, Held));
        }
        match (self.state, self.late) {
            (PaymentState::Success, LatePolicy::Reopen | LatePolicy::Refund) => {
                Some((UnexpectedCause::SecondSuccess, Refunding))
            }
            (
                PaymentState::Closed | PaymentState::Revoked | PaymentState::PayError,
                LatePolicy::Refund,
            ) => Some((UnexpectedCause::LateSuccess, Refunding)),
            (
                PaymentState::Closed | PaymentState::Revoked | PaymentState::PayError,
                LatePolicy::Reopen,
            )
            | (
                PaymentState::NotPay | PaymentState::UserPaying,
                LatePolicy::Reopen | LatePolicy::Refund,
            ) => None,
        }
    }

    /// Closes an order that nobody can pay any more. Closing twice is fine.
    pub fn close(&self) -> Result<Payment, CloseRefusal> {
        match self.state {
            PaymentState::NotPay | PaymentState::UserPaying => {
                if self.open_attempts().next().is_some() {
                    return Err(CloseRefusal::Open);
                }
                Ok(Payment { state: PaymentState::Closed, ..self.clone() })
            }
            PaymentState::Success => Err(CloseRefusal::Paid),
            PaymentState::Closed | PaymentState::Revoked | PaymentState::PayError => {
                Ok(self.clone())
            }
        }
    }

    /// A person decided that the held money of `attempt` goes back to its payer. `None` if that
    /// attempt holds none.
    pub fn release_held(&self, attempt: Serial) -> Option<Recorded> {
        let held = |it: &Unexpected| it.attempt == attempt && it.state == UnexpectedState::Held;
        let index = self.unexpected.iter().position(held)?;
        let receipt = self.attempt(attempt)?.receipt.clone()?;
        let cause = self.unexpected[index].cause;
        let mut next = self.clone();
        next.unexpected[index].state = UnexpectedState::Refunding;
        let effects = vec![Effect::SendBack { receipt, cause }];
        Some(Recorded { payment: next, effects, changed: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Care, RefundRefusal, RefundTerms, TradeProduct};
    use kernel::{Currency::Cny, SerialGenerator, SerialKind, Zone};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

    /// An order of 100 fen with `attempts` attempts that were sent.
    fn order(attempts: usize, late: LatePolicy) -> Payment {
        let mut serials = SerialGenerator::new(0, Zone::shanghai());
        let amount = Money::new(100, Cny);
        let rate = |bps| BasisPoints::new(bps).unwrap();
        let attempt = |serial| Attempt {
            serial,
            channel: "wechat".into(),
            product: TradeProduct::Native,
            amount,
            cost_rate: rate(30),
            state: AttemptState::Sent,
            started: NOW,
            prepay: None,
            receipt: None,
            note: None,
        };
        Payment {
            serial: serials.next(NOW, SerialKind::Payment),
            merchant: MerchantId::parse("1900000109").unwrap(),
            terms: Terms {
                order_no: "T1".into(),
                appid: "wx1".into(),
                product: TradeProduct::Native,
                amount,
                description: "tea".into(),
                attach: None,
                notify_url: None,
                time_expire: None,
                payer: None,
                payer_ip: None,
                h5_type: None,
                device_id: None,
                return_url: None,
                extras: None,
            },
            mode: Mode::Eager,
            verifies_with: None,
            trace: None,
            fee_rate: rate(600),
            late,
            state: PaymentState::NotPay,
            created: NOW,
            expires: NOW.plus_s(7200),
            attempts: (0..attempts)
                .map(|_| attempt(serials.next(NOW, SerialKind::Attempt)))
                .collect(),
            receipt: None,
            refunded: Money::zero(Cny),
            fee_returned: Money::zero(Cny),
            cost_returned: Money::zero(Cny),
            refunds: 0,
            unexpected: vec![],
            contradictions: vec![],
        }
    }

    fn paid(attempt: Serial, minor: i64) -> Evidence {
        Evidence::Paid(Receipt {
            attempt,
            amount: Money::new(minor, Cny),
            transaction: format!("42{attempt}"),
            payer: None,
            bank: None,
            at: NOW,
        })
    }

    /// Feeds evidence (index of attempt, evidence by word) and tells the effects in words.
    #[track_caller]
    fn check(late: LatePolicy, news: &[(usize, &str)], want: &str) -> Payment {
        let mut payment = order(2, late);
        let mut told: Vec<String> = vec![];
        for (index, word) in news {
            let attempt = payment.attempts[*index].serial;
            let evidence = match *word {
                "paid" => paid(attempt, 100),
                "short" => paid(attempt, 99),
                "closed" => Evidence::Closed,
                "paying" => Evidence::Paying,
                "waiting" => Evidence::Waiting,
                "silent" => Evidence::NoAnswer { why: "timeout".into() },
                "close order" => {
                    payment = payment.close().unwrap();
                    continue;
                }
                other => panic!("no evidence {other}"),
            };
            let recorded = payment.record(attempt, &evidence).unwrap();
            told.extend(recorded.effects.iter().map(|it| match it {
                Effect::Paid(_) => "paid".into(),
                Effect::Suspend { cause, .. } => format!("{cause:?}"),
                Effect::SendBack { .. } => "back".into(),
            }));
            payment = recorded.payment;
        }
        told.push(format!("{:?}", payment.state));
        assert_eq!(told.join(" "), want, "after {news:?}");
        payment
    }

    #[test]
    fn news_may_come_late_twice_or_against_us() {
        use LatePolicy::{Refund, Reopen};
        check(Refund, &[(0, "paid")], "paid Success");
        check(Refund, &[(0, "silent"), (0, "paid"), (0, "paid")], "paid Success");
        check(Refund, &[(0, "paying")], "UserPaying");
        check(Refund, &[(0, "paying"), (0, "waiting")], "NotPay");
        check(Refund, &[(0, "paid"), (0, "waiting"), (0, "paying")], "paid Success");
        // The second success goes back, whichever policy holds.
        check(Refund, &[(0, "paid"), (1, "paid")], "paid SecondSuccess back Success");
        check(Reopen, &[(1, "paid"), (0, "paid"), (0, "paid")], "paid SecondSuccess back Success");
        // Late money after closing follows the merchant's policy.
        let closed = [(0, "closed"), (1, "closed"), (0, "close order"), (0, "paid")];
        check(Refund, &closed, "LateSuccess back Closed");
        check(Reopen, &closed, "paid Success");
        // A wrong amount never pays, and stops further attempts until a person decides.
        let held = check(Reopen, &[(0, "short")], "WrongAmount NotPay");
        assert_eq!(held.may_start(NOW), Err(StartRefusal::Held));
        assert!(matches!(held.care(NOW), Care::Close(_)));
        assert!(matches!(
            held.release_held(held.attempts[0].serial).unwrap().effects[0],
            Effect::SendBack { .. }
        ));
        // A denial after a success is written down, never applied.
        let denied = check(Refund, &[(0, "paid"), (0, "closed")], "paid Success");
        assert_eq!(denied.contradictions.len(), 1);
        assert_eq!(denied.attempts[0].state, AttemptState::Succeeded);
        // So is another amount of the same payment.
        let disputed = check(Refund, &[(0, "paid"), (0, "short"), (0, "short")], "paid Success");
        assert_eq!(disputed.contradictions.len(), 1);
        assert_eq!(disputed.receipt.unwrap().amount, Money::new(100, Cny));
    }

    #[test]
    fn an_order_that_may_still_be_paid_does_not_close() {
        assert_eq!(order(1, LatePolicy::Refund).close(), Err(CloseRefusal::Open));
        assert!(order(0, LatePolicy::Refund).close().is_ok());
    }

    fn refund_of(amount: i64, total: i64) -> RefundTerms {
        RefundTerms {
            refund_no: "R".into(),
            amount: Money::new(amount, Cny),
            total: Money::new(total, Cny),
            reason: None,
            notify_url: None,
            extras: None,
        }
    }

    #[test]
    fn refunds_are_refused_by_name() {
        let payment = check(LatePolicy::Refund, &[(0, "paid")], "paid Success");
        let serial = payment.serial;
        let ask = |it: &Payment, amount, total, days: i64| {
            it.accept_refund(serial, refund_of(amount, total), 0, NOW.plus_s(days * 86_400))
                .map(|it| it.0)
        };
        let unpaid = order(1, LatePolicy::Refund);
        assert_eq!(ask(&unpaid, 1, 100, 0), Err(RefundRefusal::NotPaid));
        assert!(matches!(ask(&payment, 1, 99, 0), Err(RefundRefusal::WrongTotal { .. })));
        assert!(matches!(ask(&payment, 101, 100, 0), Err(RefundRefusal::ExceedsRest { .. })));
        assert_eq!(ask(&payment, 1, 100, 366), Err(RefundRefusal::Overdue));
        let half = ask(&payment, 60, 100, 0).unwrap();
        assert!(matches!(ask(&half, 41, 100, 0), Err(RefundRefusal::ExceedsRest { .. })));
        let mut many = payment;
        for _ in 0..50 {
            many = ask(&many, 1, 100, 0).unwrap();
        }
        assert_eq!(ask(&many, 1, 100, 0), Err(RefundRefusal::TooMany));
    }

    proptest! {
        /// Whatever is refunded, fails and is refunded again: never more than was paid, and a full
        /// refund returns the whole fee and cost.
        #[test]
        fn refunds_conserve(steps in prop::collection::vec((1i64..60, any::<bool>()), 1..30)) {
            let mut payment = check(LatePolicy::Refund, &[(0, "paid")], "paid Success");
            for (amount, fails) in steps {
                let Ok((next, refund)) =
                    payment.accept_refund(payment.serial, refund_of(amount, 100), 0, NOW) else { continue };
                payment = if fails { next.without_refund(&refund) } else { next };
                prop_assert!(payment.refunded.minor() <= 100);
                prop_assert!(payment.fee_returned.minor() <= payment.fee().minor());
            }
            let rest = 100 - payment.refunded.minor();
            if rest > 0 && payment.refunds < 50 {
                payment = payment
                    .accept_refund(payment.serial, refund_of(rest, 100), 0, NOW).unwrap().0;
                prop_assert_eq!(payment.fee_returned, payment.fee());
                prop_assert_eq!(payment.cost_returned, payment.cost());
            }
        }

        /// In any order of news, an order is paid at most once, and each attempt's money is taken
        /// into account exactly once.
        #[test]
        fn money_is_counted_once(news in prop::collection::vec((0usize..2, 0usize..6), 0..40)) {
            let mut payment = order(2, LatePolicy::Refund);
            let (mut paid_times, mut suspended) = (0, 0);
            for (index, word) in news {
                let attempt = payment.attempts[index].serial;
                let evidence = match word {
                    0 | 1 => paid(attempt, 100),
                    2 => Evidence::Closed,
                    3 => Evidence::Paying,
                    4 => Evidence::Waiting,
                    _ => Evidence::NoAnswer { why: "timeout".into() },
                };
                let recorded = payment.record(attempt, &evidence).unwrap();
                for effect in &recorded.effects {
                    match effect {
                        Effect::Paid(_) => paid_times += 1,
                        Effect::Suspend { .. } => suspended += 1,
                        Effect::SendBack { .. } => {}
                    }
                }
                payment = recorded.payment;
                if let Ok(closed) = payment.close() { payment = closed }
            }
            let with_money = payment.attempts.iter().filter(|it| it.receipt.is_some()).count();
            prop_assert!(paid_times <= 1);
            prop_assert_eq!(paid_times + suspended, with_money);
            prop_assert_eq!(payment.receipt.is_some(), paid_times == 1);
        }
    }
}
