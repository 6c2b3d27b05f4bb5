//! PostgreSQL: several processes on one database.
//!
//! Writers have a connection each and commit in groups; a merchant's commits all take one of
//! them, in order. Reads and small changes go through a pool. Nothing depends on which server of
//! a cluster answers, as long as it is the one that writes.

mod connect;
mod facts;
mod front;
mod migrate;
mod outside;
mod writer;

pub use connect::{PostgresError, PostgresUrl};
pub use front::PostgresFront;
#[cfg(test)]
pub(crate) use migrate::migrate_steps;
pub use outside::PostgresLook;
