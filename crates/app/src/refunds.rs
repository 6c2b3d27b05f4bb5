//! Refunds: accepted into the books first, then sent to the channel until it has an answer.

use crate::evidence::{NewsError, RACES, channel_of, refund_money};
use crate::pay::callback_path;
use crate::ports::{Commit, CommitError, Intent, IntentChange, IntentKind, Put, StoreError};
use crate::{Change, Courier, Merchant, NotificationEvent, Platform, Provider, Store, Versioned};
use channel::{Answer, ChannelId, CreateRefund, Operation, RefundChannelState, RefundFacts};
use kernel::{MerchantId, Serial, SerialKind, Timestamp};
use ledger::{Account, AccountKind, BalanceError, Event, Journal};
use payments::{
    Origin, Payment, Refund, RefundChange, RefundEvidence, RefundRefusal, RefundState, RefundTerms,
    UnexpectedState,
};

/// Seconds between questions about a refund; the last repeats.
const REFUND_LADDER_S: [i64; 7] = [5, 30, 60, 300, 900, 1800, 3600];

/// How long a channel may go on refusing for the moment (no funds yet) before the refund is
/// closed: WeChat's own limit.
const TEMPORARY_MS: i64 = 7 * 86_400_000;

/// How a merchant names the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderRef {
    Transaction(Serial),
    OrderNo(String),
}

#[derive(Clone, Debug)]
pub struct RefundAsk {
    pub order: OrderRef,
    pub terms: RefundTerms,
}

#[derive(Debug, thiserror::Error)]
pub enum RefundError {
    #[error("no such order")]
    NoSuchOrder,
    #[error("refund number {0} was used with other parameters")]
    Different(String),
    #[error(transparent)]
    Refused(#[from] RefundRefusal),
    #[error("the balance does not suffice")]
    NotEnough,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the refund could not be written")]
    Commit(#[source] CommitError),
}

impl<S: Store, P: Provider, C: Courier> Platform<S, P, C> {
    /// Accepts a refund, or finds the one accepted before with the same terms.
    #[tracing::instrument(target = "feiqian::trace", level = "trace", skip_all)]
    pub async fn refund(
        &self,
        merchant: &Merchant,
        ask: &RefundAsk,
        now: Timestamp,
    ) -> Result<(Payment, Refund), RefundError> {
        let mut lost = CommitError::Stale(ask.terms.refund_no.clone());
        for _ in 0..RACES {
            let found = match &ask.order {
                OrderRef::Transaction(serial) => self.store.payment(&merchant.id, *serial).await?,
                OrderRef::OrderNo(no) => self.store.payment_by_order(&merchant.id, no).await?,
            };
            let Some(Versioned { value: payment, version }) = found else {
                return Err(RefundError::NoSuchOrder);
            };
            let before = self.store.refund_by_no(&merchant.id, &ask.terms.refund_no).await?;
            if let Some(Versioned { value: refund, .. }) = before {
                let same = refund.payment == payment.serial && refund.terms == ask.terms;
                let no = ask.terms.refund_no.clone();
                return same.then_some((payment, refund)).ok_or(RefundError::Different(no));
            }
            let currency = payment.terms.amount.currency();
            let available =
                Account::merchant(&merchant.id, AccountKind::MerchantAvailable, currency);
            let held = self.store.balance(&available).await?.held(available.kind.side());
            let from_available = held.clamp(0, ask.terms.amount.minor());
            let serial = self.serial(now, SerialKind::Refund);
            let (after, refund) =
                payment.accept_refund(serial, ask.terms.clone(), from_available, now)?;
            let mut commit = Commit {
                payments: vec![Put { value: after.clone(), expected: version }],
                ..Commit::default()
            };
            self.book_refund(&mut commit, &after, refund.clone(), now);
            match self.commit(commit).await {
                Ok(()) => return Ok((after, refund)),
                Err(CommitError::Books(BalanceError::Insufficient { account, .. })) => {
                    // The available balance may have shrunk since it was read; pending cannot help.
                    if account.kind != AccountKind::MerchantAvailable {
                        return Err(RefundError::NotEnough);
                    }
                }
                Err(error @ (CommitError::Stale(_) | CommitError::Exists(_))) => lost = error,
                Err(error) => return Err(RefundError::Commit(error)),
            }
        }
        Err(RefundError::Commit(lost))
    }

    /// Adds a new refund with its postings and the intent to send it.
    pub(crate) fn book_refund(
        &self,
        commit: &mut Commit,
        payment: &Payment,
        refund: Refund,
        now: Timestamp,
    ) {
        self.book_refund_event(commit, payment, &refund, Event::RefundAccepted, now);
        commit.intents.push(IntentChange::Schedule(Intent {
            merchant: refund.merchant.clone(),
            kind: IntentKind::Refund,
            subject: refund.serial,
            due: now,
            tries: 0,
            holder: None,
        }));
        self.announce(commit, &refund.merchant, refund.serial, now);
        commit.refunds.push(Put { value: refund, expected: 0 });
    }

    fn book_refund_event(
        &self,
        commit: &mut Commit,
        payment: &Payment,
        refund: &Refund,
        event: Event,
        now: Timestamp,
    ) {
        let channel = channel_of(payment, refund.attempt);
        let money = refund_money(refund, &channel);
        let postings = match event {
            Event::RefundDone => ledger::refund_done(&money),
            Event::RefundFailed => ledger::refund_failed(&money),
            Event::RefundAccepted | Event::Paid | Event::Unexpected => {
                ledger::refund_accepted(&money)
            }
        };
        commit.journals.push(Journal {
            serial: self.serial(now, SerialKind::Journal),
            merchant: refund.merchant.clone(),
            payment: refund.payment,
            subject: refund.serial,
            event,
            at: now,
            postings,
        });
    }

    /// Takes in a channel's callback about a refund. `None`: it is not one of ours.
    pub async fn refund_called_back(
        &self,
        channel: &ChannelId,
        merchant: &MerchantId,
        facts: &RefundFacts,
        now: Timestamp,
    ) -> Result<Option<Refund>, NewsError> {
        let Ok(serial) = Serial::parse(&facts.refund) else { return Ok(None) };
        let Some(known) = self.store.refund(merchant, serial).await? else { return Ok(None) };
        let Some(payment) = self.store.payment(merchant, known.value.payment).await? else {
            return Ok(None);
        };
        if channel_of(&payment.value, known.value.attempt) != channel.as_str() {
            return Ok(None);
        }
        let Some(evidence) = evidence_of(&known.value, facts, now) else { return Ok(None) };
        Ok(Some(self.record_refund(merchant, serial, &evidence, now).await?))
    }

    /// Sends a refund to its channel, or asks what became of it. Returns when to look again.
    pub(crate) async fn push_refund(
        &self,
        intent: &Intent,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, NewsError> {
        let Some(known) = self.store.refund(&intent.merchant, intent.subject).await? else {
            return Ok(None);
        };
        let refund = known.value;
        let Some(payment) = self.store.payment(&intent.merchant, refund.payment).await? else {
            return Ok(None);
        };
        if refund.state.is_final() {
            return Ok(None);
        }
        let evidence = self.refund_evidence(&payment.value, &refund, intent.tries, now).await;
        let after = self.record_refund(&intent.merchant, refund.serial, &evidence, now).await?;
        let rung = usize::try_from(intent.tries).unwrap_or(usize::MAX);
        let pause = REFUND_LADDER_S[rung.min(REFUND_LADDER_S.len() - 1)];
        Ok((!after.state.is_final()).then(|| now.plus_s(pause)))
    }

    async fn refund_evidence(
        &self,
        payment: &Payment,
        refund: &Refund,
        tries: u32,
        now: Timestamp,
    ) -> RefundEvidence {
        let Some(attempt) = payment.attempt(refund.attempt) else {
            return RefundEvidence::NoAnswer { why: "its attempt is gone".into() };
        };
        let id = ChannelId::new(&attempt.channel);
        let total = attempt.receipt.as_ref().map_or(attempt.amount, |it| it.amount);
        let send = Operation::Refund(CreateRefund {
            refund: refund.serial,
            attempt: refund.attempt,
            callback_path: callback_path(payment),
            amount: refund.terms.amount,
            total,
            reason: refund.terms.reason.clone(),
        });
        let query = Operation::QueryRefund { refund: refund.serial };
        if tries > 0 {
            let known = self.refund_answer(&id, refund, &query, now).await;
            if known != RefundEvidence::NotFound {
                return known;
            }
        }
        match self.refund_answer(&id, refund, &send, now).await {
            // Refused for good. An earlier, unanswered request may have taken effect all the
            // same, so the refund counts as closed only if the channel does not know it.
            RefundEvidence::Closed { why } if refund.done.is_none() => {
                match self.refund_answer(&id, refund, &query, now).await {
                    RefundEvidence::NotFound => RefundEvidence::Closed { why },
                    known => known,
                }
            }
            evidence => evidence,
        }
    }

    async fn refund_answer(
        &self,
        channel: &ChannelId,
        refund: &Refund,
        operation: &Operation,
        now: Timestamp,
    ) -> RefundEvidence {
        match self.provider.ask(channel, operation).await {
            Answer::Refund(facts) => evidence_of(refund, &facts, now).unwrap_or_else(|| {
                RefundEvidence::NoAnswer { why: "the answer speaks of another refund".into() }
            }),
            Answer::NotFound if !operation.is_read() => {
                RefundEvidence::NoAnswer { why: "the channel does not know the payment".into() }
            }
            Answer::NotFound => RefundEvidence::NotFound,
            Answer::Declined(it) => {
                let why = format!("{} {}", it.code, it.message);
                let patient = it.temporary && now.ms_since(refund.created) < TEMPORARY_MS;
                if patient || operation.is_read() {
                    RefundEvidence::NoAnswer { why }
                } else {
                    RefundEvidence::Closed { why }
                }
            }
            Answer::InDoubt { why } => RefundEvidence::NoAnswer { why },
            other => RefundEvidence::NoAnswer { why: format!("an odd answer: {other:?}") },
        }
    }

    /// Folds evidence into a refund and commits what follows. Repeats change nothing.
    async fn record_refund(
        &self,
        merchant: &MerchantId,
        serial: Serial,
        evidence: &RefundEvidence,
        now: Timestamp,
    ) -> Result<Refund, NewsError> {
        let gone = || NewsError::Store(StoreError(format!("refund {serial} is gone")));
        let mut lost = CommitError::Stale(serial.to_string());
        for _ in 0..RACES {
            let known = self.store.refund(merchant, serial).await?.ok_or_else(gone)?;
            let found = self.store.payment(merchant, known.value.payment).await?;
            let Versioned { value: payment, version } = found.ok_or_else(gone)?;
            let (refund, change) = known.value.after(evidence, now);
            if refund == known.value {
                return Ok(refund);
            }
            let mut commit = Commit::default();
            match change {
                RefundChange::None => {}
                RefundChange::Contradiction => {
                    tracing::error!(refund = %serial, ?evidence, "contradiction");
                }
                RefundChange::To(state) => {
                    self.refund_changed(&mut commit, &payment, version, &refund, state, now);
                }
            }
            commit.refunds.push(Put { value: refund.clone(), expected: known.version });
            match self.commit(commit).await {
                Ok(()) => {
                    // Nothing is booked for it, so the commit alone does not show it.
                    if change == RefundChange::To(RefundState::Abnormal) {
                        self.changed(&Change::Refund(refund.state, refund.terms.amount));
                    }
                    return Ok(refund);
                }
                Err(error @ (CommitError::Stale(_) | CommitError::Exists(_))) => lost = error,
                Err(error) => return Err(NewsError::Commit(error)),
            }
        }
        Err(NewsError::Commit(lost))
    }

    fn refund_changed(
        &self,
        commit: &mut Commit,
        payment: &Payment,
        version: u32,
        refund: &Refund,
        state: RefundState,
        now: Timestamp,
    ) {
        match state {
            RefundState::Success => {
                self.book_refund_event(commit, payment, refund, Event::RefundDone, now);
            }
            RefundState::Closed => {
                self.book_refund_event(commit, payment, refund, Event::RefundFailed, now);
                let after = match refund.origin {
                    Origin::Merchant => payment.without_refund(refund),
                    Origin::Automatic => held_again(payment, refund),
                };
                commit.payments.push(Put { value: after, expected: version });
            }
            RefundState::Processing | RefundState::Abnormal => {}
        }
        self.announce(commit, &refund.merchant, refund.serial, now);
        if state.is_final() {
            commit.intents.push(IntentChange::Finish {
                merchant: refund.merchant.clone(),
                kind: IntentKind::Refund,
                subject: refund.serial,
            });
        }
        let url = refund.terms.notify_url.clone().or_else(|| payment.terms.notify_url.clone());
        if let (Origin::Merchant, Some(url)) = (refund.origin, url) {
            let event = match state {
                RefundState::Success => NotificationEvent::RefundSucceeded,
                RefundState::Closed => NotificationEvent::RefundClosed,
                RefundState::Abnormal => NotificationEvent::RefundAbnormal,
                RefundState::Processing => return,
            };
            self.tell(commit, payment, event, Some(refund.serial), url, now);
        }
    }
}

/// The channel would not send unexpected money back: a person must look.
fn held_again(payment: &Payment, refund: &Refund) -> Payment {
    let mut next = payment.clone();
    for it in next.unexpected.iter_mut().filter(|it| it.attempt == refund.attempt) {
        it.state = UnexpectedState::Held;
    }
    next
}

/// Believes facts only if they speak of this refund and its amount.
fn evidence_of(refund: &Refund, facts: &RefundFacts, now: Timestamp) -> Option<RefundEvidence> {
    if facts.refund != refund.serial.as_str() || facts.amount != refund.terms.amount {
        return None;
    }
    Some(match facts.state {
        RefundChannelState::Processing => RefundEvidence::Processing,
        RefundChannelState::Abnormal => RefundEvidence::Abnormal,
        RefundChannelState::Closed => RefundEvidence::Closed { why: "the channel says so".into() },
        RefundChannelState::Success => {
            RefundEvidence::Success { account: facts.account.clone(), at: facts.at.unwrap_or(now) }
        }
    })
}
