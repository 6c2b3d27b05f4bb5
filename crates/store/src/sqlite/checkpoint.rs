//! Moving the write-ahead log into the database file, beside the writer instead of inside it.
//!
//! SQLite's own automatic checkpoint runs in whichever commit crosses a limit: long tails. Here a
//! thread with its own connection copies pages while the writer goes on; only when the log has
//! become long does the writer finish the job between two batches, so that the log starts over.

use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Commits between two checkpoints of the thread.
const EVERY: usize = 2_000;
/// Pages in the log beyond which the writer helps: 64 MiB.
const LONG_PAGES: i64 = 16_384;

pub struct Checkpointer {
    since: usize,
    nudge: SyncSender<()>,
    long: Arc<AtomicBool>,
}

impl Checkpointer {
    pub fn start(path: &Path) -> rusqlite::Result<Checkpointer> {
        let connection = Connection::open(path)?;
        let (nudge, nudged) = sync_channel(1);
        let long = Arc::new(AtomicBool::new(false));
        let told = long.clone();
        let thread = std::thread::Builder::new().name("checkpoint".into());
        let run = move || copy_when_nudged(&connection, &nudged, &told);
        if let Err(error) = thread.spawn(run) {
            tracing::warn!(%error, "no thread for checkpoints; the writer makes them");
        }
        Ok(Checkpointer { since: 0, nudge, long })
    }

    /// To be called by the writer between batches.
    pub fn after_batch(&mut self, commits: usize, writer: &Connection) {
        self.since += commits;
        if self.since < EVERY {
            return;
        }
        self.since = 0;
        let alone = matches!(self.nudge.try_send(()), Err(TrySendError::Disconnected(())));
        if alone || self.long.swap(false, Ordering::Relaxed) {
            log_pages(writer);
        }
    }
}

fn copy_when_nudged(connection: &Connection, nudged: &Receiver<()>, long: &AtomicBool) {
    while nudged.recv().is_ok() {
        if log_pages(connection).is_some_and(|pages| pages > LONG_PAGES) {
            long.store(true, Ordering::Relaxed);
        }
    }
}

/// Copies what can be copied without waiting; returns how long the log is.
fn log_pages(connection: &Connection) -> Option<i64> {
    let answer = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1));
    answer.inspect_err(|error| tracing::warn!(%error, "checkpoint failed")).ok()
}
