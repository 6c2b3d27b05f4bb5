//! The ports and the policy in one value; the use cases are its methods.

use crate::{Commit, CommitError, IntentChange, Store};
use arc_swap::ArcSwap;
use kernel::{MerchantId, Serial, SerialGenerator, SerialKind, Timestamp};
use payments::Payment;
use std::sync::{Arc, Mutex, PoisonError};

/// What operators configure.
#[derive(Clone, Debug)]
pub struct Policy {
    pub candidates: Vec<routing::Candidate>,
    pub risk: risk::Policy,
    /// Seconds between the tries of a notification; after the last it is given up.
    pub notify_ladder_s: Vec<i64>,
    /// How long an order lives whose merchant did not say.
    pub default_expiry_s: i64,
}

/// Hears of every change once it is durable: wakes workers, refreshes pages.
pub trait Observer: Send + Sync {
    /// `due`: the earliest time at which something newly scheduled wants to be done.
    fn committed(&self, payment: Option<(&MerchantId, Serial)>, due: Option<Timestamp>);
}

pub struct Platform<S, P, C> {
    pub store: S,
    pub provider: P,
    pub courier: C,
    policy: ArcSwap<Policy>,
    serials: Mutex<SerialGenerator>,
    observer: Box<dyn Observer>,
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
        Platform { store, provider, courier, policy, serials, observer }
    }

    /// The policy of the moment. A decision takes it once.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// From now on. Use cases under way end with the policy that they began with.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    pub(crate) fn serial(&self, now: Timestamp, kind: SerialKind) -> Serial {
        // A panic while counting leaves a valid counter behind.
        self.serials.lock().unwrap_or_else(PoisonError::into_inner).next(now, kind)
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let payment = commit.payments.first().map(|it| id_of(&it.value));
        let scheduled = commit.intents.iter().filter_map(|it| match it {
            IntentChange::Schedule(intent) => Some(intent.due),
            IntentChange::Settle { next, .. } => next.map(|it| it.0),
            IntentChange::Finish { .. } => None,
        });
        let due = scheduled.min();
        self.store.commit(commit).await?;
        self.observer.committed(payment.as_ref().map(|it| (&it.0, it.1)), due);
        Ok(())
    }
}

fn id_of(payment: &Payment) -> (MerchantId, Serial) {
    (payment.merchant.clone(), payment.serial)
}
