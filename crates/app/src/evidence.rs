//! What channels say, compared with what we asked, folded in exactly once.

use crate::ports::{Commit, CommitError, Intent, IntentChange, IntentKind, Put, StoreError};
use crate::{
    Change, Courier, Notification, NotificationEvent, NotificationState, Platform, Provider, Store,
    Versioned,
};
use channel::{Answer, ChannelId, ChannelState, Operation, PaymentFacts};
use kernel::{MerchantId, Money, Serial, SerialKind, Timestamp, fee};
use ledger::{Event, Journal, RefundMoney, Source};
use payments::{AttemptState, Care, Effect, Evidence, Payment, Receipt, Recorded};

/// Why news could not be taken in; whoever brought it should bring it again.
#[derive(Debug, thiserror::Error)]
pub enum NewsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("news could not be written")]
    Commit(#[source] CommitError),
    #[error(
        "attempt {attempt} is said to be paid with {said}; asked about it, the channel says {answer}"
    )]
    Unconfirmed { attempt: Serial, said: Money, answer: &'static str },
}

/// How often a decision is made again because someone else wrote first.
pub(crate) const RACES: usize = 64;

impl<S: Store, P: Provider, C: Courier> Platform<S, P, C> {
    /// Takes in a channel's callback about a payment, once its signature held.
    ///
    /// `None`: it names an order or account that is not ours; nothing was changed.
    pub async fn payment_called_back(
        &self,
        channel: &ChannelId,
        merchant: &MerchantId,
        payment: Serial,
        facts: &PaymentFacts,
        now: Timestamp,
    ) -> Result<Option<Payment>, NewsError> {
        let Some(known) = self.store.payment(merchant, payment).await? else { return Ok(None) };
        let named = known.value.attempts.iter().find(|it| it.serial.as_str() == facts.attempt);
        let Some(attempt) = named.filter(|it| it.channel == channel.as_str()) else {
            return Ok(None);
        };
        let serial = attempt.serial;
        let evidence = self.evidence_of(channel, serial, facts);
        let Some(evidence) = evidence else { return Ok(None) };
        if let Evidence::Paid(receipt) = &evidence
            && receipt.amount != attempt.amount
        {
            self.confirm(channel, &known.value, receipt, now).await?;
        }
        Ok(Some(self.record(merchant, payment, serial, &evidence, now).await?))
    }

    /// A callback names another amount than we asked for. Before money is held for it the channel
    /// is asked: its answer counts, and a callback that differs is written down beside it.
    async fn confirm(
        &self,
        channel: &ChannelId,
        payment: &Payment,
        receipt: &Receipt,
        now: Timestamp,
    ) -> Result<(), NewsError> {
        let attempt = receipt.attempt;
        let answer = self.heard(channel, attempt, &Operation::Query { attempt }).await;
        let word = answer.word();
        let paid = matches!(answer, Evidence::Paid(_));
        self.record(&payment.merchant, payment.serial, attempt, &answer, now).await?;
        match paid {
            true => Ok(()),
            false => {
                tracing::error!(%attempt, said = %receipt.amount, answer = word, "unconfirmed");
                Err(NewsError::Unconfirmed { attempt, said: receipt.amount, answer: word })
            }
        }
    }

    /// Believes facts only if they speak of this attempt and of our account at the channel.
    fn evidence_of(
        &self,
        channel: &ChannelId,
        attempt: Serial,
        facts: &PaymentFacts,
    ) -> Option<Evidence> {
        if facts.attempt != attempt.as_str() {
            return None;
        }
        let evidence = match (facts.state, &facts.paid) {
            (ChannelState::Waiting, _) => Evidence::Waiting,
            (ChannelState::Paying, _) => Evidence::Paying,
            (ChannelState::Closed, _) => Evidence::Closed,
            (ChannelState::Failed, _) => Evidence::Failed { why: "the channel says so".into() },
            (ChannelState::Paid, None) => return None,
            (ChannelState::Paid, Some(paid)) => {
                if Some(&paid.payee) != self.provider.payee(channel).as_ref() {
                    tracing::error!(%channel, %attempt, payee = paid.payee, "paid to another account");
                    return None;
                }
                Evidence::Paid(Receipt {
                    attempt,
                    amount: paid.amount,
                    transaction: paid.transaction.clone(),
                    payer: paid.payer.clone(),
                    bank: paid.bank.clone(),
                    at: paid.at,
                })
            }
        };
        Some(evidence)
    }

    /// Asks the channel about one attempt and folds the answer in.
    pub(crate) async fn ask(
        &self,
        payment: &Payment,
        attempt: Serial,
        now: Timestamp,
    ) -> Result<Payment, NewsError> {
        let operation = Operation::Query { attempt };
        self.ask_with(payment, attempt, &operation, now).await
    }

    async fn ask_with(
        &self,
        payment: &Payment,
        attempt: Serial,
        operation: &Operation,
        now: Timestamp,
    ) -> Result<Payment, NewsError> {
        let Some(known) = payment.attempt(attempt) else { return Ok(payment.clone()) };
        let id = ChannelId::new(&known.channel);
        let evidence = self.heard(&id, attempt, operation).await;
        self.record(&payment.merchant, payment.serial, attempt, &evidence, now).await
    }

    /// What the channel says to a question about one attempt, or to closing it.
    pub(crate) async fn heard(
        &self,
        channel: &ChannelId,
        attempt: Serial,
        operation: &Operation,
    ) -> Evidence {
        let closing = matches!(operation, Operation::Close { .. });
        match self.provider.ask(channel, operation).await {
            Answer::Payment(facts) => {
                self.evidence_of(channel, attempt, &facts).unwrap_or_else(|| Evidence::NoAnswer {
                    why: "the answer speaks of another order".into(),
                })
            }
            Answer::Closed => Evidence::Closed,
            // Nobody holds a code of an order that the channel does not know.
            Answer::NotFound if closing => Evidence::Closed,
            Answer::NotFound => Evidence::NotFound,
            Answer::Declined(it) => {
                Evidence::NoAnswer { why: format!("refused: {} {}", it.code, it.message) }
            }
            Answer::InDoubt { why } => Evidence::NoAnswer { why },
            other => Evidence::NoAnswer { why: format!("an odd answer: {other:?}") },
        }
    }

    /// Asks about each attempt once more, then closes those that are still open.
    pub(crate) async fn close_attempts(
        &self,
        payment: &Payment,
        attempts: &[Serial],
        now: Timestamp,
    ) -> Result<(), NewsError> {
        for &attempt in attempts {
            let after = self.ask(payment, attempt, now).await?;
            if after.attempt(attempt).is_some_and(|it| it.state.is_open()) {
                let close = Operation::Close { attempt };
                let after = self.ask_with(&after, attempt, &close, now).await?;
                // A refusal to close usually means that it was paid a moment ago.
                if after.attempt(attempt).is_some_and(|it| it.state.is_open()) {
                    self.ask(&after, attempt, now).await?;
                }
            }
        }
        Ok(())
    }

    /// Folds evidence into the payment and commits what follows. Repeats change nothing.
    pub(crate) async fn record(
        &self,
        merchant: &MerchantId,
        payment: Serial,
        attempt: Serial,
        evidence: &Evidence,
        now: Timestamp,
    ) -> Result<Payment, NewsError> {
        let mut lost = CommitError::Stale(payment.to_string());
        for _ in 0..RACES {
            let found = self.store.payment(merchant, payment).await?;
            let Some(Versioned { value: before, version }) = found else {
                return Err(NewsError::Store(StoreError(format!("payment {payment} is gone"))));
            };
            let recorded = match before.record(attempt, evidence) {
                Ok(recorded) => recorded,
                Err(error) => return Err(NewsError::Store(StoreError(error.to_string()))),
            };
            if !recorded.changed {
                return Ok(before);
            }
            if recorded.payment.contradictions.len() > before.contradictions.len() {
                tracing::error!(%payment, %attempt, evidence = evidence.word(), "contradiction");
            }
            let after = recorded.payment.clone();
            let mut commit = self.news(recorded, version, now);
            // What had to be closed before is being looked after; asking at once again, after
            // each answer that is none, would never end.
            if matches!(before.care(now), Care::Close(_)) {
                commit.intents.retain(|it| !is_heal(it));
            }
            match self.commit(commit).await {
                Ok(()) => {
                    if let Some(channel) = ended_unpaid(&before, &after, attempt) {
                        self.changed(&Change::AttemptEnded { channel });
                    }
                    return Ok(after);
                }
                Err(error @ (CommitError::Stale(_) | CommitError::Exists(_))) => lost = error,
                Err(error) => return Err(NewsError::Commit(error)),
            }
        }
        Err(NewsError::Commit(lost))
    }

    /// The commit that news about a payment makes.
    pub(crate) fn news(&self, recorded: Recorded, version: u32, now: Timestamp) -> Commit {
        let Recorded { payment, effects, .. } = recorded;
        let mut commit = Commit::default();
        for effect in effects {
            match effect {
                Effect::Paid(receipt) => self.book_paid(&mut commit, &payment, &receipt, now),
                Effect::Suspend { receipt, cause } => {
                    tracing::warn!(payment = %payment.serial, ?cause, "unexpected money");
                    let channel = channel_of(&payment, receipt.attempt);
                    let postings = ledger::unexpected(&ledger::Unexpected {
                        merchant: &payment.merchant,
                        channel: &channel,
                        amount: receipt.amount,
                        cost: cost_of(&payment, &receipt),
                    });
                    let subject = receipt.attempt;
                    commit.journals.push(Journal {
                        serial: self.serial(now, SerialKind::Journal),
                        merchant: payment.merchant.clone(),
                        payment: payment.serial,
                        subject,
                        event: Event::Unexpected,
                        at: now,
                        postings,
                    });
                }
                Effect::SendBack { receipt, .. } => {
                    let serial = self.serial(now, SerialKind::Refund);
                    let refund = payment.send_back(serial, &receipt, now);
                    self.book_refund(&mut commit, &payment, refund, now);
                }
            }
        }
        let heal = |due| Intent {
            merchant: payment.merchant.clone(),
            kind: IntentKind::Heal,
            subject: payment.serial,
            due,
            tries: 0,
            holder: None,
        };
        match payment.care(now) {
            Care::Close(_) => commit.intents.push(IntentChange::Schedule(heal(now))),
            Care::Done => commit.intents.push(IntentChange::Finish {
                merchant: payment.merchant.clone(),
                kind: IntentKind::Heal,
                subject: payment.serial,
            }),
            // Whoever asked goes on, and the intent that is there stays.
            Care::Ask(_) | Care::Rest { .. } | Care::Expire => {}
        }
        commit.payments.push(Put { value: payment, expected: version });
        commit
    }

    fn book_paid(&self, commit: &mut Commit, payment: &Payment, receipt: &Receipt, now: Timestamp) {
        let postings = ledger::paid(&ledger::Paid {
            merchant: &payment.merchant,
            channel: &channel_of(payment, receipt.attempt),
            gross: receipt.amount,
            fee: payment.fee(),
            cost: payment.cost(),
        });
        commit.journals.push(Journal {
            serial: self.serial(now, SerialKind::Journal),
            merchant: payment.merchant.clone(),
            payment: payment.serial,
            subject: receipt.attempt,
            event: Event::Paid,
            at: now,
            postings,
        });
        self.announce(commit, &payment.merchant, payment.serial, now);
        if let Some(url) = payment.terms.notify_url.clone() {
            let event = NotificationEvent::PaymentSucceeded;
            self.tell(commit, payment, event, None, url, now);
        }
    }

    pub(crate) fn tell(
        &self,
        commit: &mut Commit,
        payment: &Payment,
        event: NotificationEvent,
        refund: Option<Serial>,
        url: String,
        now: Timestamp,
    ) {
        let notification = Notification {
            id: self.serial(now, SerialKind::Notification),
            merchant: payment.merchant.clone(),
            payment: payment.serial,
            refund,
            event,
            url,
            created: now,
            state: NotificationState::Pending,
            tries: 0,
            ladder_from: 0,
        };
        commit.intents.push(IntentChange::Schedule(Intent {
            merchant: payment.merchant.clone(),
            kind: IntentKind::Notify,
            subject: notification.id,
            due: now,
            tries: 0,
            holder: None,
        }));
        commit.notifications.push(Put { value: notification, expected: 0 });
    }

    /// A person decides that the held money of `attempt` goes back to its payer.
    ///
    /// `None`: no such payment, or nothing is held there.
    pub async fn release_held(
        &self,
        merchant: &MerchantId,
        payment: Serial,
        attempt: Serial,
        now: Timestamp,
    ) -> Result<Option<Payment>, NewsError> {
        let Some(known) = self.store.payment(merchant, payment).await? else { return Ok(None) };
        let Some(released) = known.value.release_held(attempt) else { return Ok(None) };
        let after = released.payment.clone();
        let mut commit = self.news(released, known.version, now);
        // Nobody looked after the order while money was held; now it can be paid, or end, again.
        commit.intents.push(IntentChange::Schedule(Intent {
            merchant: merchant.clone(),
            kind: IntentKind::Heal,
            subject: payment,
            due: now,
            tries: 0,
            holder: None,
        }));
        self.commit(commit).await.map_err(NewsError::Commit)?;
        Ok(Some(after))
    }
}

fn is_heal(change: &IntentChange) -> bool {
    matches!(change, IntentChange::Schedule(it) if it.kind == IntentKind::Heal)
}

/// The channel of `attempt` if it was open before and has now ended without money.
fn ended_unpaid(before: &Payment, after: &Payment, attempt: Serial) -> Option<String> {
    let (before, after) = (before.attempt(attempt)?, after.attempt(attempt)?);
    let unpaid = !after.state.is_open() && after.state != AttemptState::Succeeded;
    (before.state.is_open() && unpaid).then(|| after.channel.clone())
}

pub(crate) fn channel_of(payment: &Payment, attempt: Serial) -> String {
    payment.attempt(attempt).map_or_else(String::new, |it| it.channel.clone())
}

/// What the channel keeps of `receipt`.
pub(crate) fn cost_of(payment: &Payment, receipt: &Receipt) -> Money {
    let zero = Money::zero(receipt.amount.currency());
    payment.attempt(receipt.attempt).map_or(zero, |it| fee(receipt.amount, it.cost_rate))
}

/// The sums of a refund, as the books need them.
pub(crate) fn refund_money<'a>(refund: &'a payments::Refund, channel: &'a str) -> RefundMoney<'a> {
    RefundMoney {
        merchant: &refund.merchant,
        channel,
        amount: refund.terms.amount,
        fee_back: refund.fee_back,
        cost_back: refund.cost_back,
        source: match refund.origin {
            payments::Origin::Merchant => {
                Source::Merchant { from_available_minor: refund.from_available_minor }
            }
            payments::Origin::Automatic => Source::Suspense,
        },
    }
}
