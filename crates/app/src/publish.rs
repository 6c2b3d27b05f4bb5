//! Telling whoever listens what became of payments and refunds. An event shows the state at the
//! moment it is made, so it is never ahead of the books; a state that has passed by then is left
//! out. How events look on the wire and how they travel is the publisher's business.

use crate::evidence::NewsError;
use crate::ports::{Commit, Intent, IntentChange, IntentKind, StoreError};
use crate::{Courier, Platform, Provider, Store};
use kernel::{MerchantId, Money, Serial, SerialKind, Timestamp};
use payments::{Payment, PaymentState, Refund, RefundState};

/// Seconds between the tries of an event; the last repeats for ever.
const PUBLISH_LADDER_S: [i64; 8] = [1, 2, 5, 15, 30, 60, 120, 300];

/// What became of a payment or a refund. The names are part of the API and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventName {
    PaymentSucceeded,
    PaymentClosed,
    RefundProcessing,
    RefundSucceeded,
    RefundClosed,
    RefundAbnormal,
}

impl EventName {
    pub const ALL: [EventName; 6] = [
        EventName::PaymentSucceeded,
        EventName::PaymentClosed,
        EventName::RefundProcessing,
        EventName::RefundSucceeded,
        EventName::RefundClosed,
        EventName::RefundAbnormal,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EventName::PaymentSucceeded => "payment.succeeded",
            EventName::PaymentClosed => "payment.closed",
            EventName::RefundProcessing => "refund.processing",
            EventName::RefundSucceeded => "refund.succeeded",
            EventName::RefundClosed => "refund.closed",
            EventName::RefundAbnormal => "refund.abnormal",
        }
    }

    /// The second word.
    pub fn state(self) -> &'static str {
        self.as_str().split_once('.').map_or("", |it| it.1)
    }
}

/// Names no person: who paid, and from where, stays in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusinessEvent {
    pub name: EventName,
    pub merchant: MerchantId,
    pub payment: Serial,
    /// The merchant's own number of the order.
    pub order_no: String,
    /// The refund with the merchant's own number of it.
    pub refund: Option<(Serial, String)>,
    /// Of the payment, or of the refund if there is one.
    pub amount: Money,
    /// When the money moved.
    pub done: Option<Timestamp>,
    /// The trace that was kept with the payment.
    pub trace: Option<String>,
}

impl BusinessEvent {
    /// The same for each try, and for no other event.
    pub fn id(&self) -> String {
        let subject = self.refund.as_ref().map_or(self.payment, |it| it.0);
        format!("{subject}-{}", self.name.state())
    }

    /// `None`: the payment has not come to anything yet.
    fn of_payment(payment: &Payment) -> Option<BusinessEvent> {
        let name = match payment.state {
            PaymentState::Success => EventName::PaymentSucceeded,
            PaymentState::Closed => EventName::PaymentClosed,
            PaymentState::NotPay
            | PaymentState::UserPaying
            | PaymentState::Revoked
            | PaymentState::PayError => return None,
        };
        Some(BusinessEvent {
            name,
            merchant: payment.merchant.clone(),
            payment: payment.serial,
            order_no: payment.terms.order_no.clone(),
            refund: None,
            amount: payment.terms.amount,
            done: payment.receipt.as_ref().map(|it| it.at),
            trace: payment.trace.clone(),
        })
    }

    fn of_refund(payment: &Payment, refund: &Refund) -> BusinessEvent {
        let name = match refund.state {
            RefundState::Processing => EventName::RefundProcessing,
            RefundState::Success => EventName::RefundSucceeded,
            RefundState::Closed => EventName::RefundClosed,
            RefundState::Abnormal => EventName::RefundAbnormal,
        };
        BusinessEvent {
            name,
            merchant: refund.merchant.clone(),
            payment: refund.payment,
            order_no: payment.terms.order_no.clone(),
            refund: Some((refund.serial, refund.terms.refund_no.clone())),
            amount: refund.terms.amount,
            done: refund.done,
            trace: payment.trace.clone(),
        }
    }
}

impl<S: Store, P: Provider, C: Courier> Platform<S, P, C> {
    /// Has an event made of a payment or refund that this commit brings into a new state.
    pub(crate) fn announce(
        &self,
        commit: &mut Commit,
        merchant: &MerchantId,
        subject: Serial,
        now: Timestamp,
    ) {
        if self.policy().publish {
            commit.intents.push(IntentChange::Schedule(publication(merchant, subject, now)));
        }
    }

    pub(crate) async fn publish(&self, intent: &Intent, now: Timestamp) -> Result<(), NewsError> {
        let Some(event) = self.event(intent).await? else {
            return self.settle(intent, None).await;
        };
        if let Err(error) = self.publisher().publish(&event).await {
            let rung = usize::try_from(intent.tries).unwrap_or(usize::MAX);
            let pause = PUBLISH_LADDER_S[rung.min(PUBLISH_LADDER_S.len() - 1)];
            tracing::warn!(event = event.id(), %error, "not published; will be tried again");
            return self.settle(intent, Some(now.plus_s(pause))).await;
        }
        self.settle(intent, None).await?;
        // The clock is coarser than the store: a change of the same millisecond looks like the
        // intent that has just been settled.
        match self.event(intent).await? {
            Some(newer) if newer.name != event.name => {
                let again = publication(&intent.merchant, intent.subject, now);
                let intents = vec![IntentChange::Schedule(again)];
                let commit = Commit { intents, ..Commit::default() };
                self.commit(commit).await.map_err(NewsError::Commit)
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn event(&self, intent: &Intent) -> Result<Option<BusinessEvent>, StoreError> {
        let (merchant, subject) = (&intent.merchant, intent.subject);
        if subject.kind() != SerialKind::Refund {
            let found = self.store.payment(merchant, subject).await?;
            return Ok(found.and_then(|it| BusinessEvent::of_payment(&it.value)));
        }
        let Some(refund) = self.store.refund(merchant, subject).await? else { return Ok(None) };
        let payment = self.store.payment(merchant, refund.value.payment).await?;
        Ok(payment.map(|it| BusinessEvent::of_refund(&it.value, &refund.value)))
    }
}

fn publication(merchant: &MerchantId, subject: Serial, due: Timestamp) -> Intent {
    let (merchant, kind) = (merchant.clone(), IntentKind::Publish);
    Intent { merchant, kind, subject, due, tries: 0, holder: None }
}
