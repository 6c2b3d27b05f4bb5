//! Placing and closing an order.

use crate::evidence::NewsError;
use crate::ports::{Commit, CommitError, Intent, IntentChange, IntentKind, Put, StoreError};
use crate::{Change, Courier, Merchant, Platform, Provider, Store, Versioned};
use channel::Product;
use kernel::{Money, Serial, SerialKind, Timestamp};
use payments::{CloseRefusal, Mode, Payment, PaymentState, Terms, TradeProduct};
use routing::{Decision, OrderFacts};

/// A placed order and, if its channel was asked at once, what the payer needs.
#[derive(Clone, Debug)]
pub struct Placed {
    pub payment: Payment,
    pub prepay: Option<channel::Prepay>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("risk control refuses the order: {}", .0.reasons.iter().map(|it| it.text.as_str()).collect::<Vec<_>>().join("; "))]
    Risk(risk::Verdict),
    #[error("no channel takes the order: {}", refusals(.0))]
    NoChannel(Decision),
    #[error("order number {0} was used with other parameters")]
    Different(String),
    #[error("order number {0} is already paid")]
    Paid(String),
    #[error("order {0} is closed")]
    Closed(String),
    #[error("time_expire has passed or is less than a minute ahead")]
    Expired,
    #[error("the channel refuses: {} {}", .0.code, .0.message)]
    Declined(channel::Decline),
    #[error("the channel did not answer")]
    InDoubt,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the order could not be written")]
    Commit(#[source] CommitError),
}

fn refusals(decision: &Decision) -> String {
    let words = decision.refused.iter().map(|(id, it)| format!("{id}: {}", it.code()));
    words.collect::<Vec<_>>().join(", ")
}

#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("no such order")]
    NotFound,
    #[error("the order is already paid")]
    Paid,
    #[error("a channel did not answer; the order may still be paid")]
    InDoubt,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the closing could not be written")]
    Commit(#[source] CommitError),
}

pub(crate) fn channel_product(product: TradeProduct) -> Option<Product> {
    match product {
        TradeProduct::Native => Some(Product::Native),
        TradeProduct::Jsapi => Some(Product::Jsapi),
        TradeProduct::App => Some(Product::App),
        TradeProduct::H5 => Some(Product::H5),
        TradeProduct::Cashier => None,
    }
}

impl<S: Store, P: Provider, C: Courier> Platform<S, P, C> {
    /// Creates the merchant's order, or finds the one it created before with the same terms.
    ///
    /// - Input: `verifies_with` names the platform key that the merchant's client trusts.
    ///
    /// Eager orders are durable before the channel hears of them; if the channel stays silent the
    /// order is there, in doubt, and asking again under the same number goes on with it.
    #[tracing::instrument(target = "feiqian::trace", level = "trace", skip_all)]
    pub async fn place_order(
        &self,
        merchant: &Merchant,
        terms: Terms,
        verifies_with: Option<String>,
        now: Timestamp,
    ) -> Result<Placed, PlaceError> {
        let mode = match terms.product {
            TradeProduct::Jsapi | TradeProduct::App => Mode::Eager,
            TradeProduct::Native | TradeProduct::H5 => merchant.mode,
            TradeProduct::Cashier => Mode::Lazy,
        };
        let policy = self.policy();
        let verdict = risk::assess(
            &risk::Facts {
                merchant: &merchant.id,
                amount: terms.amount,
                payer: terms.payer.as_deref(),
                payer_ip: terms.payer_ip.as_deref(),
            },
            &policy.risk,
        );
        if verdict.action != risk::Action::Allow {
            return Err(PlaceError::Risk(verdict));
        }
        let facts = OrderFacts { amount: terms.amount, product: channel_product(terms.product) };
        let decision = routing::choose(&facts, &policy.candidates);
        let Some(chosen) = decision.chosen.clone() else {
            return Err(PlaceError::NoChannel(decision));
        };
        let mut payment = self.new_payment(merchant, terms, mode, now);
        payment.verifies_with = verifies_with;
        if mode == Mode::Eager {
            let attempt = self.new_attempt(&payment, &chosen, payment.terms.product, now);
            payment = payment.with_attempt(attempt);
        }
        let commit = Commit {
            payments: vec![Put { value: payment.clone(), expected: 0 }],
            intents: vec![IntentChange::Schedule(first_heal(&payment, now))],
            ..Commit::default()
        };
        match self.commit(commit).await {
            Ok(()) => {}
            Err(CommitError::Exists(_)) => return self.placed_before(&payment, now).await,
            Err(error) => return Err(PlaceError::Commit(error)),
        }
        match payment.attempts.first().map(|it| it.serial) {
            Some(attempt) => self.prepare_placed(payment, attempt, now).await,
            None => Ok(Placed { payment, prepay: None }),
        }
    }

    fn new_payment(
        &self,
        merchant: &Merchant,
        terms: Terms,
        mode: Mode,
        now: Timestamp,
    ) -> Payment {
        let zero = Money::zero(terms.amount.currency());
        let expires = terms.time_expire.unwrap_or(now.plus_s(self.policy().default_expiry_s));
        Payment {
            serial: self.serial(now, SerialKind::Payment),
            merchant: merchant.id.clone(),
            terms,
            mode,
            verifies_with: None,
            trace: self.trace(),
            fee_rate: merchant.fee_rate,
            late: merchant.late,
            state: PaymentState::NotPay,
            created: now,
            expires,
            attempts: vec![],
            receipt: None,
            refunded: zero,
            fee_returned: zero,
            cost_returned: zero,
            refunds: 0,
            unexpected: vec![],
            contradictions: vec![],
        }
    }

    /// The number is taken: the same order again, or a refusal.
    async fn placed_before(&self, asked: &Payment, now: Timestamp) -> Result<Placed, PlaceError> {
        let order_no = asked.terms.order_no.clone();
        let found = self.store.payment_by_order(&asked.merchant, &order_no).await?;
        let Some(Versioned { value: payment, .. }) = found else {
            let why = format!("order {order_no} exists but cannot be found");
            return Err(PlaceError::Store(StoreError(why)));
        };
        match payment.state {
            PaymentState::Success => return Err(PlaceError::Paid(order_no)),
            PaymentState::Closed | PaymentState::Revoked | PaymentState::PayError => {
                return Err(PlaceError::Closed(order_no));
            }
            PaymentState::NotPay | PaymentState::UserPaying => {}
        }
        if payment.terms != asked.terms {
            return Err(PlaceError::Different(order_no));
        }
        let open = payment.open_attempts().next().map(|it| it.serial);
        match (payment.mode, open) {
            (Mode::Lazy, _) => Ok(Placed { payment, prepay: None }),
            (Mode::Eager, Some(attempt)) => self.prepare_placed(payment, attempt, now).await,
            (Mode::Eager, None) => {
                let product = payment.terms.product;
                let request = crate::PayRequest {
                    merchant: payment.merchant.clone(),
                    payment: payment.serial,
                    product,
                    channel: None,
                    payer_ip: None,
                };
                let prepay = self.pay(&request, now).await.map_err(PlaceError::from)?;
                Ok(Placed { payment, prepay: Some(prepay) })
            }
        }
    }

    async fn prepare_placed(
        &self,
        payment: Payment,
        attempt: Serial,
        now: Timestamp,
    ) -> Result<Placed, PlaceError> {
        let prepay = self.prepare(&payment, attempt, None, now).await.map_err(PlaceError::from)?;
        Ok(Placed { payment, prepay: Some(prepay) })
    }

    /// Closes an unpaid order, at its channels first. Closing again is fine.
    #[tracing::instrument(target = "feiqian::trace", level = "trace", skip_all)]
    pub async fn close_order(
        &self,
        merchant: &Merchant,
        order_no: &str,
        now: Timestamp,
    ) -> Result<(), CloseError> {
        for _ in 0..8 {
            let found = self.store.payment_by_order(&merchant.id, order_no).await?;
            let Some(Versioned { value: payment, version }) = found else {
                return Err(CloseError::NotFound);
            };
            match payment.close() {
                Err(CloseRefusal::Paid) => return Err(CloseError::Paid),
                Err(CloseRefusal::Open) => {
                    let open: Vec<Serial> = payment.open_attempts().map(|it| it.serial).collect();
                    self.close_attempts(&payment, &open, now).await?;
                    let again = self.store.payment_by_order(&merchant.id, order_no).await?;
                    if again.is_some_and(|it| it.value.open_attempts().next().is_some()) {
                        return Err(CloseError::InDoubt);
                    }
                }
                Ok(closed) if closed == payment => return Ok(()),
                Ok(closed) => match self.commit_close(closed, version, now).await {
                    Ok(()) => return Ok(()),
                    Err(CommitError::Stale(_)) => {}
                    Err(error) => return Err(CloseError::Commit(error)),
                },
            }
        }
        Err(CloseError::InDoubt)
    }

    pub(crate) async fn commit_close(
        &self,
        closed: Payment,
        version: u32,
        now: Timestamp,
    ) -> Result<(), CommitError> {
        let finish = IntentChange::Finish {
            merchant: closed.merchant.clone(),
            kind: IntentKind::Heal,
            subject: closed.serial,
        };
        let mut commit = Commit { intents: vec![finish], ..Commit::default() };
        self.announce(&mut commit, &closed.merchant, closed.serial, now);
        commit.payments.push(Put { value: closed, expected: version });
        self.commit(commit).await?;
        self.changed(&Change::OrderClosed);
        Ok(())
    }
}

/// When a fresh order wants attention first: soon if a channel was asked, else when it expires.
fn first_heal(payment: &Payment, now: Timestamp) -> Intent {
    let due = match payment.attempts.is_empty() {
        true => payment.expires,
        false => now.plus_s(payments::poll_delay_s(0)).min(payment.expires),
    };
    Intent {
        merchant: payment.merchant.clone(),
        kind: IntentKind::Heal,
        subject: payment.serial,
        due,
        tries: 0,
        holder: None,
    }
}

impl From<crate::PayError> for PlaceError {
    fn from(error: crate::PayError) -> PlaceError {
        use crate::PayError as E;
        match error {
            E::NotFound => PlaceError::Store(StoreError("the order vanished".into())),
            E::NoChannel(decision) => PlaceError::NoChannel(decision),
            E::Start { order_no, refusal } => match refusal {
                payments::StartRefusal::Paid => PlaceError::Paid(order_no),
                payments::StartRefusal::Expired => PlaceError::Expired,
                payments::StartRefusal::Closed | payments::StartRefusal::Held => {
                    PlaceError::Closed(order_no)
                }
            },
            E::Declined(decline) => PlaceError::Declined(decline),
            E::InDoubt => PlaceError::InDoubt,
            E::Store(error) => PlaceError::Store(error),
            E::Commit(error) => PlaceError::Commit(error),
        }
    }
}

impl From<NewsError> for CloseError {
    fn from(error: NewsError) -> CloseError {
        match error {
            NewsError::Store(error) => CloseError::Store(error),
            NewsError::Commit(error) => CloseError::Commit(error),
            NewsError::Unconfirmed { .. } => CloseError::InDoubt,
        }
    }
}
