//! The `Store` port on top of any engine.

use crate::figures::Figures;
use crate::query::{self, Query};
use crate::rows::Prepared;
use app::{
    Commit, CommitError, Intent, JournalRow, Merchant, NODES, Node, Notification,
    NotificationState, Pulse, Store, StoreError, Try, Versioned,
};
use kernel::{MerchantId, Serial, Timestamp};
use ledger::{Account, Balance};
use payments::{Payment, Refund};
use std::future::Future;
use std::sync::Arc;

type Reply<T> = Result<T, StoreError>;

/// How commits and statements reach an engine.
pub trait Front: Send + Sync + 'static {
    fn figures(&self) -> Figures;

    fn commit(&self, commit: Prepared) -> impl Future<Output = Result<(), CommitError>> + Send;

    fn read<T: Send + 'static>(
        &self,
        query: Query<T>,
    ) -> impl Future<Output = Reply<Vec<T>>> + Send;

    /// A statement that changes something and is no commit: a lease, a claim.
    fn change<T: Send + 'static>(
        &self,
        query: Query<T>,
    ) -> impl Future<Output = Reply<Vec<T>>> + Send;
}

/// A store. Cheap to clone; all clones are one.
pub struct Database<F> {
    front: Arc<F>,
}

impl<F> Clone for Database<F> {
    fn clone(&self) -> Database<F> {
        Database { front: self.front.clone() }
    }
}

impl<F> Database<F> {
    pub(crate) fn new(front: F) -> Database<F> {
        Database { front: Arc::new(front) }
    }
}

impl<F: Front> Database<F> {
    pub fn figures(&self) -> Figures {
        self.front.figures()
    }

    async fn one<T: Send + 'static>(&self, query: Query<T>) -> Reply<Option<T>> {
        Ok(self.front.read(query).await?.pop())
    }
}

impl<F: Front> Store for Database<F> {
    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.front.commit(Prepared::from(commit)).await
    }

    async fn merchant(&self, id: &MerchantId) -> Reply<Option<Versioned<Merchant>>> {
        self.one(query::merchant(id)).await
    }

    async fn merchants(&self) -> Reply<Vec<Merchant>> {
        self.front.read(query::merchants()).await
    }

    async fn payment(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> Reply<Option<Versioned<Payment>>> {
        self.one(query::payment(merchant, serial)).await
    }

    async fn payment_by_order(
        &self,
        merchant: &MerchantId,
        order_no: &str,
    ) -> Reply<Option<Versioned<Payment>>> {
        self.one(query::payment_by_order(merchant, order_no)).await
    }

    async fn payments_after(
        &self,
        after: Option<(MerchantId, Serial)>,
        limit: u32,
    ) -> Reply<Vec<Payment>> {
        self.front.read(query::payments_after(after, limit)).await
    }

    async fn paid_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<Payment>> {
        self.front.read(query::paid_between(merchant, from, until)).await
    }

    async fn refund(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> Reply<Option<Versioned<Refund>>> {
        self.one(query::refund(merchant, serial)).await
    }

    async fn refund_by_no(
        &self,
        merchant: &MerchantId,
        refund_no: &str,
    ) -> Reply<Option<Versioned<Refund>>> {
        self.one(query::refund_by_no(merchant, refund_no)).await
    }

    async fn refunds_of(&self, merchant: &MerchantId, payment: Serial) -> Reply<Vec<Refund>> {
        self.front.read(query::refunds_of(merchant, payment)).await
    }

    async fn refunds_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<Refund>> {
        self.front.read(query::refunds_between(merchant, from, until)).await
    }

    async fn notification(
        &self,
        merchant: &MerchantId,
        id: Serial,
    ) -> Reply<Option<Versioned<Notification>>> {
        self.one(query::notification(merchant, id)).await
    }

    async fn notifications(
        &self,
        merchant: &MerchantId,
        payment: Option<Serial>,
        state: Option<NotificationState>,
        limit: u32,
    ) -> Reply<Vec<Notification>> {
        self.front.read(query::notifications(merchant, payment, state, limit)).await
    }

    async fn tries_of(&self, merchant: &MerchantId, notification: Serial) -> Reply<Vec<Try>> {
        self.front.read(query::tries_of(merchant, notification)).await
    }

    async fn enroll(
        &self,
        wanted: Option<u16>,
        holder: &str,
        lease_ms: i64,
    ) -> Reply<Option<Node>> {
        // Others may be as quick: then the next free number is tried.
        for _ in 0..NODES {
            let number = match wanted {
                Some(number) => number,
                None => match self.one(query::free_number()).await? {
                    Some(number) if number < NODES => number,
                    Some(_) | None => return Ok(None),
                },
            };
            let taken = self.front.change(query::enroll(number, holder, lease_ms)).await?;
            if !taken.is_empty() {
                return Ok(Some(Node { number, holder: holder.into() }));
            }
            if wanted.is_some() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    async fn renew(&self, node: &Node, lease_ms: i64) -> Reply<bool> {
        Ok(!self.front.change(query::renew(node, lease_ms)).await?.is_empty())
    }

    async fn retire(&self, node: &Node) -> Reply<()> {
        self.front.change(query::retire(node)).await?;
        Ok(())
    }

    async fn claim(&self, node: &Node, now: Timestamp, limit: u32) -> Reply<Vec<Intent>> {
        let mut claimed = self.front.change(query::claim(node, now, limit)).await?;
        claimed.sort_by_key(|it| it.due);
        Ok(claimed)
    }

    async fn claimed(&self, node: &Node, now: Timestamp) -> Reply<Vec<Intent>> {
        self.front.read(query::claimed(node, now)).await
    }

    async fn pulse(&self, now: Timestamp) -> Reply<Pulse> {
        let backlog = self.front.read(query::backlog(now)).await?;
        let (in_doubt, in_doubt_since) = self.one(query::in_doubt()).await?.unwrap_or((0, None));
        Ok(Pulse { backlog, in_doubt, in_doubt_since })
    }

    async fn due(&self, now: Timestamp, limit: u32) -> Reply<Vec<Intent>> {
        self.front.read(query::due(now, limit)).await
    }

    async fn next_due(&self) -> Reply<Option<Timestamp>> {
        Ok(self.one(query::next_due()).await?.flatten())
    }

    async fn balance(&self, account: &Account) -> Reply<Balance> {
        Ok(self.one(query::balance(account)).await?.unwrap_or_default())
    }

    async fn balances(&self) -> Reply<Vec<(Account, Balance)>> {
        self.front.read(query::balances()).await
    }

    async fn postings_of(&self, merchant: &MerchantId, payment: Serial) -> Reply<Vec<JournalRow>> {
        self.front.read(query::postings_of(merchant, payment)).await
    }

    async fn postings_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<JournalRow>> {
        self.front.read(query::postings_between(merchant, from, until)).await
    }

    async fn recomputed_balances(&self) -> Reply<Vec<(Account, Balance)>> {
        self.front.read(query::recomputed_balances()).await
    }
}
