//! Storage behind the `Store` port: rows, migrations, group commit.
//!
//! One engine so far: SQLite, compiled in. `SqliteStore` is the durable file with a writer thread
//! that commits in groups; `MemoryStore` is the same engine without thread or file, for tests
//! and the simulator.

mod checkpoint;
mod engine;
mod front;
mod migrations;
mod read;
mod rows;

pub use checkpoint::Checkpointer;
pub use engine::Engine;
pub use front::{Figures, Front, MemoryFront, OpenError, Sqlite, ThreadFront, open_writer};
pub use migrations::{MigrationError, VERSION, migrate};
pub use rows::Prepared;

/// A durable store in a file.
pub type SqliteStore = Sqlite<ThreadFront>;
/// A store that is gone when it is dropped.
pub type MemoryStore = Sqlite<MemoryFront>;
