//! The ports and the policy in one value; the use cases are its methods.

use crate::{
    BusinessEvent, Commit, CommitError, IntentChange, Publisher, Publishing, Store, Unpublished,
};
use arc_swap::ArcSwap;
use kernel::{MerchantId, Money, Serial, SerialGenerator, SerialKind, Timestamp};
use ledger::Event;
use payments::{Payment, RefundState, TradeProduct};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What operators configure.
#[derive(Clone, Debug)]
pub struct Policy {
    pub candidates: Vec<routing::Candidate>,
    pub risk: risk::Policy,
    /// Seconds between the tries of a notification; after the last it is given up.
    pub notify_ladder_s: Vec<i64>,
    /// How long an order lives whose merchant did not say.
    pub default_expiry_s: i64,
    /// Whether anybody listens to events.
    pub publish: bool,
}

/// Hears of every change once it is durable: wakes workers, refreshes pages.
pub trait Observer: Send + Sync {
    /// `due`: the earliest time at which something newly scheduled wants to be done.
    fn committed(&self, payment: Option<(&MerchantId, Serial)>, due: Option<Timestamp>);

    /// How the store answered a commit, and after how long by the machine's clock.
    fn answered(&self, _result: &Result<(), CommitError>, _took: Duration) {}

    /// What business change has just become durable.
    fn changed(&self, _change: &Change) {}

    /// Text to keep with a payment that is made now, so that later work on it can be tied to this.
    fn trace(&self) -> Option<String> {
        None
    }
}

/// A business change, for those who count them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    OrderCreated(TradeProduct),
    Paid {
        channel: String,
        amount: Money,
    },
    /// An attempt ended without money.
    AttemptEnded {
        channel: String,
    },
    OrderClosed,
    /// `Processing`: accepted.
    Refund(RefundState, Money),
}

pub struct Platform<S, P, C> {
    pub store: S,
    pub provider: P,
    pub courier: C,
    policy: ArcSwap<Policy>,
    serials: Mutex<SerialGenerator>,
    observer: Box<dyn Observer>,
    publisher: Box<dyn Publisher>,
}

/// Where events wait that were written when somebody listened.
struct Nowhere;

impl Publisher for Nowhere {
    fn publish<'a>(&'a self, _event: &'a BusinessEvent) -> Publishing<'a> {
        let why = "this process has neither a bus nor webhooks";
        Box::pin(std::future::ready(Err(Unpublished(why.into()))))
    }
}

impl<S: Store, P, C> Platform<S, P, C> {
    pub fn new(
        store: S,
        provider: P,
        courier: C,
        policy: Policy,
        serials: SerialGenerator,
        observer: Box<dyn Observer>,
    ) -> Platform<S, P, C> {
        let (policy, serials) = (ArcSwap::from_pointee(policy), Mutex::new(serials));
        let publisher = Box::new(Nowhere);
        Platform { store, provider, courier, policy, serials, observer, publisher }
    }

    /// The same, for an installation whose events somebody hears.
    pub fn heard_by(self, publisher: Box<dyn Publisher>) -> Platform<S, P, C> {
        Platform { publisher, ..self }
    }

    /// The policy of the moment. A decision takes it once.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// From now on. Use cases under way end with the policy that they began with.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Serials from now on come from another generator: this process is another node now.
    pub fn draw_from(&self, serials: SerialGenerator) {
        *self.serials.lock().unwrap_or_else(PoisonError::into_inner) = serials;
    }

    pub(crate) fn serial(&self, now: Timestamp, kind: SerialKind) -> Serial {
        // A panic while counting leaves a valid counter behind.
        self.serials.lock().unwrap_or_else(PoisonError::into_inner).next(now, kind)
    }

    pub(crate) fn publisher(&self) -> &dyn Publisher {
        self.publisher.as_ref()
    }

    pub(crate) fn trace(&self) -> Option<String> {
        self.observer.trace()
    }

    pub(crate) fn changed(&self, change: &Change) {
        self.observer.changed(change);
    }

    #[tracing::instrument(target = "feiqian::trace", level = "trace", skip_all)]
    pub(crate) async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let changes = changes(&commit);
        let payment = commit.payments.first().map(|it| id_of(&it.value));
        let scheduled = commit.intents.iter().filter_map(|it| match it {
            IntentChange::Schedule(intent) => Some(intent.due),
            IntentChange::Settle { next, .. } => next.map(|it| it.0),
            IntentChange::Finish { .. } => None,
        });
        let due = scheduled.min();
        let began = Instant::now();
        let result = self.store.commit(commit).await;
        self.observer.answered(&result, began.elapsed());
        result?;
        changes.iter().for_each(|it| self.observer.changed(it));
        self.observer.committed(payment.as_ref().map(|it| (&it.0, it.1)), due);
        Ok(())
    }
}

fn id_of(payment: &Payment) -> (MerchantId, Serial) {
    (payment.merchant.clone(), payment.serial)
}

/// The changes that a commit shows by itself. Those that only a comparison with before shows are
/// told by whoever compares.
fn changes(commit: &Commit) -> Vec<Change> {
    let mut changes = Vec::new();
    let made = commit.payments.iter().filter(|it| it.expected == 0);
    changes.extend(made.map(|it| Change::OrderCreated(it.value.terms.product)));
    for journal in &commit.journals {
        match journal.event {
            Event::Paid => {
                let payment = commit.payments.iter().find(|it| it.value.serial == journal.payment);
                let receipt = payment.and_then(|it| it.value.receipt.as_ref().zip(Some(&it.value)));
                changes.extend(receipt.map(|(receipt, payment)| Change::Paid {
                    channel: crate::evidence::channel_of(payment, receipt.attempt),
                    amount: receipt.amount,
                }));
            }
            Event::RefundAccepted | Event::RefundDone | Event::RefundFailed => {
                let refund = commit.refunds.iter().find(|it| it.value.serial == journal.subject);
                changes
                    .extend(refund.map(|it| Change::Refund(it.value.state, it.value.terms.amount)));
            }
            Event::Unexpected => {}
        }
    }
    changes
}
