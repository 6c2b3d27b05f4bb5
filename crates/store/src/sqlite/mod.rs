//! SQLite: a durable file with a writer thread, or an engine in memory.

mod checkpoint;
mod engine;
mod front;
mod migrate;

pub use checkpoint::Checkpointer;
pub use engine::Engine;
pub use front::{Figures, MemoryFront, OpenError, ThreadFront, open_writer};
pub use migrate::migrate;
#[cfg(test)]
pub(crate) use migrate::migrate_steps;
