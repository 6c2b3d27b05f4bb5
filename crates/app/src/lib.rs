//! The use cases: load, decide, commit.
//!
//! Decisions live in the pure crates; here they meet what is stored and what channels answer.
//! Storage, channels and merchants' servers are ports. Nothing here calls the outside while
//! something is being written, and everything that must happen later is an intent in the same
//! commit as what caused it.

mod attend;
mod audit;
mod evidence;
mod merchant;
mod notify;
mod pay;
mod place;
mod platform;
mod ports;
mod publish;
mod refunds;

pub use audit::{AuditError, AuditReport, audit};
pub use evidence::NewsError;
pub use merchant::Merchant;
pub use notify::{
    Notification, NotificationEvent, NotificationState, ReplayError, Try, next_try_s,
};
pub use pay::{PayError, PayRequest};
pub use place::{CloseError, PlaceError, Placed};
pub use platform::{Change, Observer, Platform, Policy};
pub use ports::{
    Backlog, Commit, CommitError, Courier, Delivery, Holder, Intent, IntentChange, IntentKind,
    JournalRow, NODES, Node, Provider, Publisher, Publishing, Pulse, Put, Store, StoreError,
    Subject, Unpublished, Versioned,
};
pub use publish::{BusinessEvent, EventName};
pub use refunds::{OrderRef, RefundAsk, RefundError};
