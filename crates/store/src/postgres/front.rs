//! Ways to PostgreSQL: writers for commits, a pool for everything else.

use super::connect::{PostgresError, PostgresUrl, SESSION, tls, told};
use super::migrate::migrate;
use super::writer::{Waiting, Writer};
use crate::database::{Database, Front};
use crate::figures::{Done, Figures};
use crate::migrations::MigrationError;
use crate::query::{Columns, Query, Value};
use crate::rows::Prepared;
use app::{CommitError, StoreError};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::ToSql;

/// Commits that may wait for a writer before callers have to.
const QUEUE: usize = 8192;
/// Writers of one process. Two keep a server of two cores busy; a merchant's commits take one.
pub const WRITERS: usize = 2;
/// Connections for reads.
const READERS: usize = 16;
/// How long a read waits for a connection.
const WAIT: Duration = Duration::from_secs(5);

pub struct PostgresFront {
    queues: Vec<mpsc::Sender<Waiting>>,
    pool: Pool,
    done: Arc<Done>,
}

impl Database<PostgresFront> {
    /// Connects, and brings the schema up to date.
    pub async fn open(url: &PostgresUrl) -> Result<Database<PostgresFront>, MigrationError> {
        PostgresFront::open(url).await.map(Database::new)
    }
}

impl PostgresFront {
    pub(crate) async fn open(url: &PostgresUrl) -> Result<PostgresFront, MigrationError> {
        let tls = tls(url).map_err(MigrationError::from)?;
        migrate(url, &tls).await?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(url.config.clone(), tls.clone(), recycling);
        let prepare = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
            Box::pin(async move { client.batch_execute(SESSION).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(manager)
            .max_size(READERS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .post_create(prepare)
            .build()
            .map_err(|error| MigrationError::Database(error.to_string()))?;
        let done = Arc::new(Done::default());
        let mut queues = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            let (queue, waiting) = mpsc::channel(QUEUE);
            tokio::spawn(Writer::new(url.clone(), tls.clone(), done.clone()).run(waiting));
            queues.push(queue);
        }
        Ok(PostgresFront { queues, pool, done })
    }

    async fn ask<T>(&self, query: &Query<T>) -> Result<Vec<T>, Ask> {
        let client = self.pool.get().await.map_err(|error| Ask::Gone(error.to_string()))?;
        let failed = |error: tokio_postgres::Error| match error.code() {
            None => Ask::Gone(told(&error)),
            Some(_) => Ask::Failed(StoreError(told(&error))),
        };
        let statement = client.prepare_cached(&dialect(query.sql)).await.map_err(failed)?;
        let values: Vec<Box<dyn ToSql + Sync + Send>> = query
            .values
            .iter()
            .map(|it| match it {
                Value::Text(it) => Box::new(it.clone()) as Box<dyn ToSql + Sync + Send>,
                Value::Int(it) => Box::new(*it),
                Value::NoText => Box::new(None::<String>),
            })
            .collect();
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect();
        let rows = client.query(&statement, &values).await.map_err(failed)?;
        rows.iter().map(|it| (query.read)(it).map_err(Ask::Failed)).collect()
    }
}

enum Ask {
    /// The connection, not the question.
    Gone(String),
    Failed(StoreError),
}

impl From<Ask> for StoreError {
    fn from(ask: Ask) -> StoreError {
        match ask {
            Ask::Gone(problem) => StoreError(problem),
            Ask::Failed(error) => error,
        }
    }
}

/// The server's clock.
const NOW_MS: &str = "CAST(EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000 AS BIGINT)";

fn dialect(sql: &'static str) -> String {
    sql.replace('?', "$")
        .replace("{now_ms}", NOW_MS)
        .replace("{skip_locked}", " FOR UPDATE OF it SKIP LOCKED")
}

impl Front for PostgresFront {
    fn figures(&self) -> Figures {
        self.done.figures()
    }

    async fn commit(&self, commit: Prepared) -> Result<(), CommitError> {
        let stopped = || CommitError::Refused("the writer has stopped".into());
        let mut hasher = DefaultHasher::new();
        commit.merchant().hash(&mut hasher);
        let count = u64::try_from(self.queues.len()).unwrap_or(1);
        let index = usize::try_from(hasher.finish() % count).unwrap_or(0);
        let queue = self.queues.get(index).ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        // `send` alone may yield in between and let a later commit of the same task go first.
        match queue.try_send(Waiting { commit, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(it)) => queue.send(it).await.map_err(|_| stopped())?,
            Err(TrySendError::Closed(_)) => return Err(stopped()),
        }
        let lost = |_| CommitError::Unknown("the writer stopped before it answered".into());
        let (result, _) = answered.await.map_err(lost)?;
        result
    }

    async fn read<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        match self.ask(&query).await {
            // A connection of the pool may have lost its server since it was used last.
            Err(Ask::Gone(_)) => Ok(self.ask(&query).await?),
            answer => Ok(answer?),
        }
    }

    async fn change<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        Ok(self.ask(&query).await?)
    }
}

fn column<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r tokio_postgres::Row,
    index: usize,
) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| StoreError(format!("a row cannot be read: {error}")))
}

impl Columns for tokio_postgres::Row {
    fn text(&self, index: usize) -> Result<String, StoreError> {
        column(self, index)
    }

    fn maybe_text(&self, index: usize) -> Result<Option<String>, StoreError> {
        column(self, index)
    }

    fn int(&self, index: usize) -> Result<i64, StoreError> {
        column(self, index)
    }

    fn maybe_int(&self, index: usize) -> Result<Option<i64>, StoreError> {
        column(self, index)
    }
}

impl From<PostgresError> for MigrationError {
    fn from(error: PostgresError) -> MigrationError {
        MigrationError::Database(error.to_string())
    }
}
