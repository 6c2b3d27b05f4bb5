//! What use cases need from outside: storage, channels, merchants' servers.

use crate::{BusinessEvent, Merchant, Notification, NotificationState, Try};
use channel::{Answer, ChannelId, Operation};
use kernel::{MerchantId, Serial, Timestamp};
use ledger::{Account, Balance, BalanceError, Journal, Posting};
use payments::{Payment, Refund};
use std::future::Future;
use std::pin::Pin;

/// A stored value and how often it was written: the first write is version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    pub value: T,
    pub version: u32,
}

/// A value to write. `expected` is the version it was made from; 0 means it must not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<T> {
    pub value: T,
    pub expected: u32,
}

/// Work to be done later, at least once. A subject has at most one intent of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    pub merchant: MerchantId,
    pub kind: IntentKind,
    /// A payment, refund or notification, as the kind says; to publish, either of the first two.
    pub subject: Serial,
    pub due: Timestamp,
    /// How often it was tried since it was last scheduled afresh.
    pub tries: u32,
    /// The node that works on it.
    pub holder: Option<Holder>,
}

/// Names one run of one process, never used again.
pub type Holder = String;

/// A running process, as the store knows it. It lives as long as it renews its lease; meanwhile
/// its number, which makes its serials its own, and the intents it has claimed are nobody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub number: u16,
    pub holder: Holder,
}

/// Node numbers are 0 to 999: serials have three digits for them.
pub const NODES: u16 = 1000;

/// Intents of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub open: u64,
    pub due: u64,
    /// When the one that is due first was or will be due.
    pub oldest: Option<Timestamp>,
}

/// What waits, for those who watch over the house.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    pub backlog: Vec<(IntentKind, Backlog)>,
    /// Payments with an attempt whose channel did not answer.
    pub in_doubt: u64,
    pub in_doubt_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IntentKind {
    /// Ask about, close or expire a payment.
    Heal,
    /// Send a refund to its channel, then ask about it.
    Refund,
    /// Tell the merchant.
    Notify,
    /// Tell whoever listens what became of a payment or refund.
    Publish,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntentChange {
    /// Inserts, or replaces due time and tries; whoever works on it goes on.
    Schedule(Intent),
    Finish {
        merchant: MerchantId,
        kind: IntentKind,
        subject: Serial,
    },
    /// Ends a try of the node that claimed it: unless someone has rescheduled the intent since
    /// then, it becomes `next`, or goes. Either way it is free again. If another node has taken it
    /// over, nothing happens.
    Settle {
        claimed: Intent,
        next: Option<(Timestamp, u32)>,
    },
}

/// All that one command changes: written in one database transaction or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    pub merchants: Vec<Put<Merchant>>,
    pub payments: Vec<Put<Payment>>,
    pub refunds: Vec<Put<Refund>>,
    pub notifications: Vec<Put<Notification>>,
    pub tries: Vec<Try>,
    pub journals: Vec<Journal>,
    pub intents: Vec<IntentChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The order, refund, notification or journal number is taken.
    #[error("{0} already exists")]
    Exists(String),
    /// Someone else wrote first: load again and decide again.
    #[error("{0} was changed by someone else")]
    Stale(String),
    #[error("the books refuse it")]
    Books(#[source] BalanceError),
    /// Nothing was written.
    #[error("storage refused: {0}")]
    Refused(String),
    /// It may or may not be written: load again and see.
    #[error("storage did not answer: {0}")]
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage cannot be read: {0}")]
pub struct StoreError(pub String);

/// One posting with the journal it belongs to, for statements and audits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    pub serial: Serial,
    pub merchant: MerchantId,
    pub payment: Serial,
    pub subject: Serial,
    pub event: ledger::Event,
    pub at: Timestamp,
    pub posting: Posting,
}

type Reply<T> = Result<T, StoreError>;

/// Storage. One suite of contract tests runs on every implementation.
///
/// - `commit` is atomic and durable before it answers. A commit handed in after another was
///   answered takes effect after it.
/// - A guarded account never goes below zero; the commit that would do it fails alone.
/// - Leases are measured by the store's own clock, which is one for all nodes.
/// - A read that begins after a commit was answered sees it.
/// - Not promised: two reads need not see the same moment.
pub trait Store: Send + Sync {
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<(), CommitError>> + Send;

    fn merchant(
        &self,
        id: &MerchantId,
    ) -> impl Future<Output = Reply<Option<Versioned<Merchant>>>> + Send;
    fn merchants(&self) -> impl Future<Output = Reply<Vec<Merchant>>> + Send;

    fn payment(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> impl Future<Output = Reply<Option<Versioned<Payment>>>> + Send;
    fn payment_by_order(
        &self,
        merchant: &MerchantId,
        order_no: &str,
    ) -> impl Future<Output = Reply<Option<Versioned<Payment>>>> + Send;
    /// Payments after `after` in the order of merchant and serial, for audits.
    fn payments_after(
        &self,
        after: Option<(MerchantId, Serial)>,
        limit: u32,
    ) -> impl Future<Output = Reply<Vec<Payment>>> + Send;
    /// Payments that became paid in `from ≤ t < until`, oldest first.
    fn paid_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Reply<Vec<Payment>>> + Send;

    fn refund(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> impl Future<Output = Reply<Option<Versioned<Refund>>>> + Send;
    fn refund_by_no(
        &self,
        merchant: &MerchantId,
        refund_no: &str,
    ) -> impl Future<Output = Reply<Option<Versioned<Refund>>>> + Send;
    fn refunds_of(
        &self,
        merchant: &MerchantId,
        payment: Serial,
    ) -> impl Future<Output = Reply<Vec<Refund>>> + Send;
    /// Refunds accepted in `from ≤ t < until`, oldest first.
    fn refunds_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Reply<Vec<Refund>>> + Send;

    fn notification(
        &self,
        merchant: &MerchantId,
        id: Serial,
    ) -> impl Future<Output = Reply<Option<Versioned<Notification>>>> + Send;
    /// The newest notifications first; `state` and `payment` narrow them.
    fn notifications(
        &self,
        merchant: &MerchantId,
        payment: Option<Serial>,
        state: Option<NotificationState>,
        limit: u32,
    ) -> impl Future<Output = Reply<Vec<Notification>>> + Send;
    fn tries_of(
        &self,
        merchant: &MerchantId,
        notification: Serial,
    ) -> impl Future<Output = Reply<Vec<Try>>> + Send;

    /// Takes the node number `wanted`, or any, that no living node has. `None`: it is taken.
    fn enroll(
        &self,
        wanted: Option<u16>,
        holder: &str,
        lease_ms: i64,
    ) -> impl Future<Output = Reply<Option<Node>>> + Send;
    /// False: the lease ran out and another process has the number now.
    fn renew(&self, node: &Node, lease_ms: i64) -> impl Future<Output = Reply<bool>> + Send;
    /// Ends a lease: what the node still holds is free at once.
    fn retire(&self, node: &Node) -> impl Future<Output = Reply<()>> + Send;
    /// Makes the node the holder of due intents that no living node holds, and returns those that
    /// it holds now and did not hold before.
    fn claim(
        &self,
        node: &Node,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Reply<Vec<Intent>>> + Send;
    /// Due intents that the node holds: after an error, or when the answer to a claim was lost.
    fn claimed(
        &self,
        node: &Node,
        now: Timestamp,
    ) -> impl Future<Output = Reply<Vec<Intent>>> + Send;

    fn pulse(&self, now: Timestamp) -> impl Future<Output = Reply<Pulse>> + Send;
    /// All due intents, whoever holds them.
    fn due(&self, now: Timestamp, limit: u32) -> impl Future<Output = Reply<Vec<Intent>>> + Send;
    /// When the next intent falls due.
    fn next_due(&self) -> impl Future<Output = Reply<Option<Timestamp>>> + Send;

    fn balance(&self, account: &Account) -> impl Future<Output = Reply<Balance>> + Send;
    fn balances(&self) -> impl Future<Output = Reply<Vec<(Account, Balance)>>> + Send;
    fn postings_of(
        &self,
        merchant: &MerchantId,
        payment: Serial,
    ) -> impl Future<Output = Reply<Vec<JournalRow>>> + Send;
    /// Postings of a merchant in `from ≤ t < until`, in the order of their journals.
    fn postings_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Reply<Vec<JournalRow>>> + Send;
    /// Debits and credits recomputed from all postings, an account at a time.
    fn recomputed_balances(&self) -> impl Future<Output = Reply<Vec<(Account, Balance)>>> + Send;
}

/// The channels. Silence is an [`Answer::InDoubt`], never an error.
pub trait Provider: Send + Sync {
    fn ask(
        &self,
        channel: &ChannelId,
        operation: &Operation,
    ) -> impl Future<Output = Answer> + Send;

    /// The account at the channel that our payers pay into.
    fn payee(&self, channel: &ChannelId) -> Option<String>;
}

impl<P: Provider> Provider for std::sync::Arc<P> {
    async fn ask(&self, channel: &ChannelId, operation: &Operation) -> Answer {
        P::ask(self, channel, operation).await
    }

    fn payee(&self, channel: &ChannelId) -> Option<String> {
        P::payee(self, channel)
    }
}

/// What a notification is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub payment: Payment,
    pub refund: Option<Refund>,
}

/// What a merchant's server made of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub status: Option<u16>,
    pub duration_ms: u64,
    pub body_head: String,
    pub error: Option<String>,
}

impl Delivery {
    /// 200 and 204 are success; anything else is asked again.
    pub fn accepted(&self) -> bool {
        matches!(self.status, Some(200 | 204))
    }
}

/// Brings notifications to merchants: seals, signs, posts.
pub trait Courier: Send + Sync {
    fn deliver(
        &self,
        merchant: &Merchant,
        notification: &Notification,
        subject: &Subject,
    ) -> impl Future<Output = Delivery> + Send;
}

/// The bus or the listeners did not take an event, or did not say so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unpublished(pub String);

pub type Publishing<'a> = Pin<Box<dyn Future<Output = Result<(), Unpublished>> + Send + 'a>>;

/// Brings events to whoever listens, at least once: the same event may come again, and listeners
/// know it by its id.
pub trait Publisher: Send + Sync {
    fn publish<'a>(&'a self, event: &'a BusinessEvent) -> Publishing<'a>;
}
