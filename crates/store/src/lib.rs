//! Storage behind the `Store` port: rows, migrations, group commit.
//!
//! Two engines, one schema, one list of migrations, one decision about each batch of commits.
//! SQLite is compiled in: `SqliteStore` is a durable file with a writer thread, `MemoryStore` the
//! same engine without thread or file, for tests and the simulator. PostgreSQL is for several
//! processes.

mod any;
mod batch;
mod database;
mod migrations;
mod postgres;
mod query;
mod rows;
mod sqlite;
#[cfg(test)]
mod upgrade;

pub use any::{Address, AnyFront};
pub use database::{Database, Front};
pub use migrations::{MigrationError, VERSION};
pub use postgres::{PostgresError, PostgresFront, PostgresLook, PostgresUrl};
pub use query::Query;
pub use rows::Prepared;
pub use sqlite::{
    Checkpointer, Engine, Figures, MemoryFront, OpenError, ThreadFront, migrate, open_writer,
};

/// A durable store in a file.
pub type SqliteStore = Database<ThreadFront>;
/// A store that is gone when it is dropped.
pub type MemoryStore = Database<MemoryFront>;
/// A store on a PostgreSQL server.
pub type PostgresStore = Database<PostgresFront>;
/// A store of either kind.
pub type AnyStore = Database<AnyFront>;
