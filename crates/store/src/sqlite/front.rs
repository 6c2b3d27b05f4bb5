//! Ways to an engine: a writer thread that commits in groups to a file, or one in memory.

use super::checkpoint::Checkpointer;
use super::engine::{Engine, run};
use crate::database::{Database, Front};
use crate::figures::{Done, Figures};
use crate::migrations::MigrationError;
use crate::query::Query;
use crate::rows::Prepared;
use app::{CommitError, StoreError};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
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

/// Commits that one transaction takes at most.
const BATCH: usize = 1024;
/// Commits that may wait before callers have to.
const QUEUE: usize = 8192;
/// How long a process waits for another one that writes the same file.
const BUSY: Duration = Duration::from_secs(10);

/// A writer thread with the only writing connection, and reading connections for the callers.
pub struct ThreadFront {
    queue: mpsc::Sender<Waiting>,
    readers: Arc<Readers>,
    done: Arc<Done>,
}

/// Connections that read, opened as they are needed.
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

enum Waiting {
    Commit {
        commit: Prepared,
        answer: oneshot::Sender<Answer>,
    },
    /// A change that is no commit.
    Other(Box<dyn FnOnce(&Connection) + Send>),
}

/// The commit goes back with its answer: its caller takes it apart, not the writer.
type Answer = (Result<(), CommitError>, Prepared);

impl Database<ThreadFront> {
    /// Opens or creates the file and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Database<ThreadFront>, OpenError> {
        ThreadFront::open(path).map(Database::new)
    }
}

impl ThreadFront {
    pub(crate) fn open(path: &Path) -> Result<ThreadFront, OpenError> {
        let named = |source| OpenError::Open { path: path.into(), source };
        let connection = open_writer(path).map_err(named)?;
        let engine = Engine::new(connection)?;
        let checkpointer = Checkpointer::start(path).map_err(named)?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("store".into());
        let done = Arc::new(Done::default());
        let counted = done.clone();
        thread.spawn(move || write_in_groups(engine, checkpointer, waiting, &counted))?;
        let readers = Arc::new(Readers { path: path.into(), idle: Mutex::default() });
        Ok(ThreadFront { queue, readers, done })
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
        let (mut commits, mut answers) = (Vec::with_capacity(batch.len()), Vec::new());
        let mut others = Vec::new();
        for it in batch.drain(..) {
            match it {
                Waiting::Commit { commit, answer } => {
                    commits.push(commit);
                    answers.push(answer);
                }
                Waiting::Other(work) => others.push(work),
            }
        }
        for work in others {
            work(engine.connection());
        }
        if commits.is_empty() {
            continue;
        }
        let results = engine.apply(&commits);
        done.count(commits.len());
        let count = commits.len();
        for (answer, result) in answers.into_iter().zip(results.into_iter().zip(commits)) {
            // A caller that has gone away does not mind.
            answer.send(result).ok();
        }
        checkpointer.after_batch(count, engine.connection());
    }
}

impl ThreadFront {
    fn stopped() -> &'static str {
        "the writer has stopped"
    }

    async fn hand_in(&self, work: Waiting) -> Result<(), ()> {
        // `send` alone may yield in between and let a later commit of the same task go first.
        match self.queue.try_send(work) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(it)) => self.queue.send(it).await.map_err(|_| ()),
            Err(TrySendError::Closed(_)) => Err(()),
        }
    }
}

impl Front for ThreadFront {
    fn figures(&self) -> Figures {
        self.done.figures()
    }

    async fn commit(&self, commit: Prepared) -> Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        let handed = self.hand_in(Waiting::Commit { commit, answer }).await;
        handed.map_err(|()| CommitError::Refused(Self::stopped().into()))?;
        let lost = |_| CommitError::Unknown("the writer stopped before it answered".into());
        let (result, _) = answered.await.map_err(lost)?;
        result
    }

    async fn read<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        if !query.long {
            return self.readers.run(&query);
        }
        let readers = self.readers.clone();
        let reading = tokio::task::spawn_blocking(move || readers.run(&query));
        reading.await.map_err(|error| StoreError(error.to_string()))?
    }

    async fn change<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let work = move |connection: &Connection| {
            // A caller that has gone away does not mind.
            answer.send(run(connection, &query)).ok();
        };
        let stopped = || StoreError(Self::stopped().into());
        self.hand_in(Waiting::Other(Box::new(work))).await.map_err(|()| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Readers {
    fn run<T>(&self, query: &Query<T>) -> Result<Vec<T>, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open().map_err(|error| StoreError(error.to_string()))?,
        };
        let result = run(&connection, query);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    fn open(&self) -> rusqlite::Result<Connection> {
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

impl Database<MemoryFront> {
    pub fn in_memory() -> Result<Database<MemoryFront>, OpenError> {
        let named = |source| OpenError::Open { path: ":memory:".into(), source };
        let connection = Connection::open_in_memory().map_err(named)?;
        let engine = Mutex::new(Engine::new(connection)?);
        Ok(Database::new(MemoryFront { engine }))
    }
}

impl Front for MemoryFront {
    fn figures(&self) -> Figures {
        Figures::default()
    }

    async fn commit(&self, commit: Prepared) -> Result<(), CommitError> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = engine.apply(std::slice::from_ref(&commit));
        answers.pop().unwrap_or_else(|| Err(CommitError::Refused("no answer".into())))
    }

    async fn read<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        run(self.engine.lock().unwrap_or_else(PoisonError::into_inner).connection(), &query)
    }

    async fn change<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        self.read(query).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use app::Commit;

    fn front(queue: mpsc::Sender<Waiting>) -> ThreadFront {
        let readers = Arc::new(Readers { path: PathBuf::new(), idle: Mutex::default() });
        ThreadFront { queue, readers, done: Arc::default() }
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
