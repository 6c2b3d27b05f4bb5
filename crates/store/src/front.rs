//! Ways to an engine, and the `Store` port on top of them.

use crate::checkpoint::Checkpointer;
use crate::engine::Engine;
use crate::migrations::MigrationError;
use crate::read;
use crate::rows::Prepared;
use app::{
    Commit, CommitError, Intent, JournalRow, Merchant, Notification, NotificationState, Store,
    StoreError, Try, Versioned,
};
use kernel::{MerchantId, Serial, Timestamp};
use ledger::{Account, Balance};
use payments::{Payment, Refund};
use rusqlite::{Connection, OpenFlags};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the database {path} cannot be opened")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error(transparent)]
    Migration(#[from] MigrationError),
    #[error("no thread for the database writer")]
    Thread(#[from] std::io::Error),
}

/// How commits reach an engine and how reads reach a connection.
pub trait Front: Send + Sync {
    fn commit(&self, commit: Prepared) -> impl Future<Output = Result<(), CommitError>> + Send;

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError>;
}

/// A store on SQLite. Cheap to clone; all clones are one.
pub struct Sqlite<F> {
    front: Arc<F>,
}

impl<F> Clone for Sqlite<F> {
    fn clone(&self) -> Sqlite<F> {
        Sqlite { front: self.front.clone() }
    }
}

/// Commits that one transaction takes at most.
const BATCH: usize = 1024;
/// Commits that may wait before callers have to.
const QUEUE: usize = 8192;
/// How long a process waits for another one that writes the same file.
const BUSY: Duration = Duration::from_secs(10);

/// A writer thread with the only writing connection, and reading connections for the callers.
pub struct ThreadFront {
    queue: mpsc::Sender<Waiting>,
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    done: Arc<Done>,
}

#[derive(Debug, Default)]
struct Done {
    commits: AtomicU64,
    batches: AtomicU64,
}

/// What the writer has answered since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub commits: u64,
    pub batches: u64,
}

struct Waiting {
    commit: Prepared,
    answer: oneshot::Sender<Answer>,
}

/// The commit goes back with its answer: its caller takes it apart, not the writer.
type Answer = (Result<(), CommitError>, Prepared);

impl Sqlite<ThreadFront> {
    /// Opens or creates the file and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Sqlite<ThreadFront>, OpenError> {
        let named = |source| OpenError::Open { path: path.into(), source };
        let connection = open_writer(path).map_err(named)?;
        let engine = Engine::new(connection)?;
        let checkpointer = Checkpointer::start(path).map_err(named)?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("store".into());
        let done = Arc::new(Done::default());
        let counted = done.clone();
        thread.spawn(move || write_in_groups(engine, checkpointer, waiting, &counted))?;
        let (path, readers) = (path.into(), Mutex::new(Vec::new()));
        Ok(Sqlite { front: Arc::new(ThreadFront { queue, path, readers, done }) })
    }

    pub fn figures(&self) -> Figures {
        let done = &self.front.done;
        Figures {
            commits: done.commits.load(Ordering::Relaxed),
            batches: done.batches.load(Ordering::Relaxed),
        }
    }
}

/// Opens a connection that is durable and quick: every commit is flushed before it returns, and the
/// log is moved into the file by a [`Checkpointer`] only.
pub fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    // One thread at a time uses it, as its type demands: SQLite need not lock it as well.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -32_000)?;
    Ok(connection)
}

/// Takes what queued while the last batch was made durable: batches grow with load, no timer.
fn write_in_groups(
    mut engine: Engine,
    mut checkpointer: Checkpointer,
    mut waiting: mpsc::Receiver<Waiting>,
    done: &Done,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.blocking_recv_many(&mut batch, BATCH) > 0 {
        let (commits, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|it| (it.commit, it.answer)).unzip();
        let results = engine.apply(&commits);
        done.commits.fetch_add(commits.len().try_into().unwrap_or(0), Ordering::Relaxed);
        done.batches.fetch_add(1, Ordering::Relaxed);
        let count = commits.len();
        for (answer, result) in answers.into_iter().zip(results.into_iter().zip(commits)) {
            // A caller that has gone away does not mind.
            answer.send(result).ok();
        }
        checkpointer.after_batch(count, engine.connection());
    }
}

impl Front for ThreadFront {
    async fn commit(&self, commit: Prepared) -> Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || CommitError::Refused("the writer has stopped".into());
        // `send` alone may yield in between and let a later commit of the same task go first.
        match self.queue.try_send(Waiting { commit, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(it)) => self.queue.send(it).await.map_err(|_| stopped())?,
            Err(TrySendError::Closed(_)) => return Err(stopped()),
        }
        let lost = |_| CommitError::Unknown("the writer stopped before it answered".into());
        let (result, _) = answered.await.map_err(lost)?;
        result
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open_reader().map_err(|error| StoreError(error.to_string()))?,
        };
        let result = work(&connection);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

impl ThreadFront {
    fn open_reader(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }
}

/// An engine in memory; every commit is applied at once, in the caller.
pub struct MemoryFront {
    engine: Mutex<Engine>,
}

impl Sqlite<MemoryFront> {
    pub fn in_memory() -> Result<Sqlite<MemoryFront>, OpenError> {
        let named = |source| OpenError::Open { path: ":memory:".into(), source };
        let connection = Connection::open_in_memory().map_err(named)?;
        let engine = Mutex::new(Engine::new(connection)?);
        Ok(Sqlite { front: Arc::new(MemoryFront { engine }) })
    }
}

impl Front for MemoryFront {
    async fn commit(&self, commit: Prepared) -> Result<(), CommitError> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = engine.apply(std::slice::from_ref(&commit));
        answers.pop().unwrap_or_else(|| Err(CommitError::Refused("no answer".into())))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        work(self.engine.lock().unwrap_or_else(PoisonError::into_inner).connection())
    }
}

type Reply<T> = Result<T, StoreError>;

impl<F: Front> Store for Sqlite<F> {
    async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.front.commit(Prepared::from(commit)).await
    }

    async fn merchant(&self, id: &MerchantId) -> Reply<Option<Versioned<Merchant>>> {
        self.front.read(|it| read::merchant(it, id))
    }

    async fn merchants(&self) -> Reply<Vec<Merchant>> {
        self.front.read(read::merchants)
    }

    async fn payment(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> Reply<Option<Versioned<Payment>>> {
        self.front.read(|it| read::payment(it, merchant, serial))
    }

    async fn payment_by_order(
        &self,
        merchant: &MerchantId,
        order_no: &str,
    ) -> Reply<Option<Versioned<Payment>>> {
        self.front.read(|it| read::payment_by_order(it, merchant, order_no))
    }

    async fn payments_after(
        &self,
        after: Option<(MerchantId, Serial)>,
        limit: u32,
    ) -> Reply<Vec<Payment>> {
        self.front.read(|it| read::payments_after(it, after, limit))
    }

    async fn paid_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<Payment>> {
        self.front.read(|it| read::paid_between(it, merchant, from, until))
    }

    async fn refund(
        &self,
        merchant: &MerchantId,
        serial: Serial,
    ) -> Reply<Option<Versioned<Refund>>> {
        self.front.read(|it| read::refund(it, merchant, serial))
    }

    async fn refund_by_no(
        &self,
        merchant: &MerchantId,
        refund_no: &str,
    ) -> Reply<Option<Versioned<Refund>>> {
        self.front.read(|it| read::refund_by_no(it, merchant, refund_no))
    }

    async fn refunds_of(&self, merchant: &MerchantId, payment: Serial) -> Reply<Vec<Refund>> {
        self.front.read(|it| read::refunds_of(it, merchant, payment))
    }

    async fn refunds_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<Refund>> {
        self.front.read(|it| read::refunds_between(it, merchant, from, until))
    }

    async fn notification(
        &self,
        merchant: &MerchantId,
        id: Serial,
    ) -> Reply<Option<Versioned<Notification>>> {
        self.front.read(|it| read::notification(it, merchant, id))
    }

    async fn notifications(
        &self,
        merchant: &MerchantId,
        payment: Option<Serial>,
        state: Option<NotificationState>,
        limit: u32,
    ) -> Reply<Vec<Notification>> {
        self.front.read(|it| read::notifications(it, merchant, payment, state, limit))
    }

    async fn tries_of(&self, merchant: &MerchantId, notification: Serial) -> Reply<Vec<Try>> {
        self.front.read(|it| read::tries_of(it, merchant, notification))
    }

    async fn due(&self, now: Timestamp, limit: u32) -> Reply<Vec<Intent>> {
        self.front.read(|it| read::due(it, now, limit))
    }

    async fn next_due(&self) -> Reply<Option<Timestamp>> {
        self.front.read(read::next_due)
    }

    async fn balance(&self, account: &Account) -> Reply<Balance> {
        self.front.read(|it| read::balance(it, account))
    }

    async fn balances(&self) -> Reply<Vec<(Account, Balance)>> {
        self.front.read(read::balances)
    }

    async fn postings_of(&self, merchant: &MerchantId, payment: Serial) -> Reply<Vec<JournalRow>> {
        self.front.read(|it| read::postings_of(it, merchant, payment))
    }

    async fn postings_between(
        &self,
        merchant: &MerchantId,
        from: Timestamp,
        until: Timestamp,
    ) -> Reply<Vec<JournalRow>> {
        self.front.read(|it| read::postings_between(it, merchant, from, until))
    }

    async fn recomputed_balances(&self) -> Reply<Vec<(Account, Balance)>> {
        self.front.read(read::recomputed_balances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(queue: mpsc::Sender<Waiting>) -> ThreadFront {
        let (path, readers) = (PathBuf::new(), Mutex::new(Vec::new()));
        ThreadFront { queue, path, readers, done: Arc::default() }
    }

    /// A writer that panics takes its batch's answers with it: nobody knows. After that nothing
    /// is taken any more, and everybody knows.
    #[tokio::test]
    async fn a_writer_that_stops_says_what_is_known() {
        let (queue, mut waiting) = mpsc::channel(1);
        let front = front(queue);
        let commit = || front.commit(Prepared::from(Commit::default()));
        let writer = async {
            drop(waiting.recv().await);
            drop(waiting);
        };
        let (answer, ()) = futures::join!(commit(), writer);
        assert!(matches!(answer, Err(CommitError::Unknown(_))), "{answer:?}");
        let answer = commit().await;
        assert!(matches!(answer, Err(CommitError::Refused(_))), "{answer:?}");
    }
}
