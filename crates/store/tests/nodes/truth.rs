//! What was said of each commit, and whether the database agrees.

use crate::desk::{Desk, NOW};
use app::{Commit, CommitError, Store};
use kernel::{MerchantId, Serial, Timestamp};
use payments::PaymentState;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Orders that were placed and paid in one commit, by how the commit ended.
#[derive(Default)]
pub struct Said {
    pub done: BTreeSet<Serial>,
    pub refused: BTreeSet<Serial>,
    pub unknown: BTreeSet<Serial>,
}

#[derive(Default)]
pub struct Book(Mutex<Said>);

/// A commit that changes a row of most kinds, and the order that it is about.
pub fn whole(desk: &Desk, order_no: &str) -> (Serial, Commit) {
    let order = desk.order(order_no, 10_000);
    (order.serial, desk.pay(&order, 0))
}

impl Book {
    /// Any other end than these three is a fault.
    pub fn note(&self, serial: Serial, answer: &Result<(), CommitError>) {
        let mut said = self.0.lock().unwrap();
        let new = match answer {
            Ok(()) => said.done.insert(serial),
            Err(CommitError::Refused(_)) => said.refused.insert(serial),
            Err(CommitError::Unknown(_)) => said.unknown.insert(serial),
            Err(error) => panic!("{serial} was good, but: {error}"),
        };
        assert!(new, "{serial} was noted twice");
    }

    pub fn done(&self) -> usize {
        self.0.lock().unwrap().done.len()
    }

    pub fn failed(&self) -> usize {
        let said = self.0.lock().unwrap();
        said.refused.len() + said.unknown.len()
    }

    pub fn unknown(&self) -> BTreeSet<Serial> {
        self.0.lock().unwrap().unknown.clone()
    }

    /// Checks it against the database, of which it knows everything.
    pub async fn check(&self, store: &impl Store, merchants: &[&MerchantId]) {
        let audit = app::audit(store, |_| {}).await.unwrap();
        assert_eq!(audit.findings, [""; 0]);
        balanced(store).await;
        let payments = store.payments_after(None, u32::MAX).await.unwrap();
        assert!(payments.iter().all(|it| it.state == PaymentState::Success));
        let there: BTreeSet<Serial> = payments.iter().map(|it| it.serial).collect();
        self.agrees(&there);
        // The audit compares postings; an order also has its notification and intent.
        let mut told = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for merchant in merchants {
            for it in store.notifications(merchant, None, None, u32::MAX).await.unwrap() {
                assert!(told.insert(it.payment), "told twice of {}", it.payment);
                ids.insert(it.id);
            }
        }
        assert_eq!(told, there);
        let intents = store.due(Timestamp::from_ms(i64::MAX), u32::MAX).await.unwrap();
        assert!(intents.iter().all(|it| it.due == NOW));
        assert_eq!(intents.iter().map(|it| it.subject).collect::<BTreeSet<_>>(), ids);
    }

    /// Checks what was said against the orders that are there.
    fn agrees(&self, there: &BTreeSet<Serial>) {
        let said = self.0.lock().unwrap();
        let lost: Vec<_> = said.done.difference(there).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), said.done.len());
        let ghosts: Vec<_> = said.refused.intersection(there).collect();
        assert!(ghosts.is_empty(), "refused, but there: {ghosts:?}");
        let known = said.done.len() + said.unknown.intersection(there).count();
        assert_eq!(there.len(), known, "something is there that nobody wrote");
    }
}

/// Balances are what the postings come to, and nobody has less than nothing.
pub async fn balanced(store: &impl Store) {
    let balances = store.balances().await.unwrap();
    assert_eq!(balances, store.recomputed_balances().await.unwrap());
    solvent(&balances);
}

pub fn solvent(balances: &[(ledger::Account, ledger::Balance)]) {
    for (account, balance) in balances.iter().filter(|it| it.0.kind.is_guarded()) {
        let held = balance.held(account.kind.side());
        assert!(held >= 0, "{account} holds {held}");
    }
}
