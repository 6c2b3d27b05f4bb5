//! The limit of `bench ledger`: the same rows, byte for byte, written by a bare group-commit loop.
//!
//! The loop does no work but SQLite's own: rows are at hand before the clock starts, statements are
//! prepared once, nothing is looked up, checked, queued or answered. It has the same schema,
//! pragmas, checkpoints and batch sizes as the store, and likewise writes each balance that a
//! batch touches once, at the end of the batch.

use super::report::own_time;
use rusqlite::types::Value;
use rusqlite::{Connection, Statement, params_from_iter};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::Checkpointer;

type Sql<T> = rusqlite::Result<T>;
type Row = Vec<Value>;

/// The rows of one commit, by table.
pub struct Rows {
    tables: [Vec<Row>; TABLES.len()],
}

/// Tables that a payment writes to, and how many columns they have.
const TABLES: [(&str, usize); 4] =
    [("payment", 11), ("notification", 6), ("posting", 10), ("intent", 6)];

/// Reads the rows of what the store wrote, in its order, slice after slice.
pub struct Source {
    path: PathBuf,
    /// Payments, each with one notification, that were read.
    seen: i64,
}

impl Source {
    pub fn new(path: &Path) -> Source {
        Source { path: path.into(), seen: 0 }
    }

    /// What was written since the last call: commits, and the balances after them.
    pub fn fresh(&mut self) -> Sql<(Vec<Rows>, Vec<Row>)> {
        let connection = Connection::open(&self.path)?;
        // SQLite may let connections share one page cache. Room for all that is read here, given
        // back at the end, leaves the pages of those that are measured where they are.
        connection.pragma_update(None, "cache_size", -2_000_000)?;
        let read = |table: &str, rest: &str, key: &[Value]| -> Sql<Vec<Row>> {
            let columns = match TABLES.iter().find(|it| it.0 == table) {
                Some(it) => it.1,
                None => 5,
            };
            let sql = format!("SELECT * FROM {table} {rest}");
            let mut statement = connection.prepare_cached(&sql)?;
            let row = |row: &rusqlite::Row<'_>| (0..columns).map(|it| row.get(it)).collect();
            statement.query_map(params_from_iter(key), row)?.collect()
        };
        let newer = "WHERE rowid > ? ORDER BY rowid";
        let payments = read("payment", newer, &[self.seen.into()])?;
        let notifications = read("notification", newer, &[self.seen.into()])?;
        let balances = read("balance", "ORDER BY account", &[])?;
        let mut commits = Vec::with_capacity(payments.len());
        for (payment, notification) in payments.into_iter().zip(notifications) {
            let of_payment = "WHERE merchant = ? AND payment = ?";
            let postings = read("posting", of_payment, &payment[..2])?;
            let of_notification = "WHERE merchant = ? AND kind = 'notify' AND subject = ?";
            let intents = read("intent", of_notification, &notification[..2])?;
            commits.push(Rows { tables: [vec![payment], vec![notification], postings, intents] });
        }
        self.seen += i64::try_from(commits.len()).unwrap_or(i64::MAX);
        Ok((commits, balances))
    }
}

pub struct Bare {
    connection: Connection,
    checkpointer: Checkpointer,
}

impl Bare {
    pub fn create(path: &Path) -> Result<Bare, crate::cli::Fault> {
        let mut connection = store::open_writer(path)?;
        store::migrate(&mut connection)?;
        Ok(Bare { connection, checkpointer: Checkpointer::start(path)? })
    }

    /// Whether SQLite was built with one page cache for all connections. Then the store's pages and
    /// the loop's push each other out, and the limit comes out too low.
    pub fn shares_its_cache(&self) -> Sql<bool> {
        let sql = "SELECT sqlite_compileoption_used('ENABLE_MEMORY_MANAGEMENT')";
        self.connection.query_row(sql, [], |row| row.get(0))
    }

    /// Writes all commits in batches of `batch`. Returns how long that took, and how much of it on
    /// a core.
    pub fn write(
        &mut self,
        commits: &[Rows],
        balances: &[Row],
        batch: usize,
    ) -> Sql<(Duration, Duration)> {
        let Bare { connection, checkpointer } = self;
        let insert = |table: &str, columns: usize| {
            let marks = vec!["?"; columns].join(", ");
            connection.prepare(&format!("INSERT INTO {table} VALUES ({marks})"))
        };
        let [payment, notification, posting, intent] = TABLES;
        let mut inserts = [
            insert(payment.0, payment.1)?,
            insert(notification.0, notification.1)?,
            insert(posting.0, posting.1)?,
            insert(intent.0, intent.1)?,
        ];
        let mut put =
            connection.prepare("INSERT OR REPLACE INTO balance VALUES (?, ?, ?, ?, ?)")?;
        let batches = commits.chunks(batch.max(1)).map(|it| (it, touched(it, balances)));
        let batches: Vec<_> = batches.collect();
        let (start, cpu) = (Instant::now(), own_time());
        for (group, touched) in batches {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for commit in group {
                for (statement, rows) in inserts.iter_mut().zip(&commit.tables) {
                    write_rows(statement, rows)?;
                }
            }
            write_rows(&mut put, touched)?;
            connection.execute_batch("COMMIT")?;
            checkpointer.after_batch(group.len(), connection);
        }
        Ok((start.elapsed(), own_time().saturating_sub(cpu)))
    }
}

fn write_rows<'a>(
    statement: &mut Statement<'_>,
    rows: impl IntoIterator<Item = &'a Row>,
) -> Sql<()> {
    for row in rows {
        statement.execute(params_from_iter(row))?;
    }
    Ok(())
}

/// The balances that a batch touches, each once.
fn touched<'a>(batch: &[Rows], balances: &'a [Row]) -> Vec<&'a Row> {
    let [merchant, debit, credit] = [0, 7, 8];
    let postings = || batch.iter().flat_map(|it| &it.tables[2]);
    let in_batch = |balance: &Row| {
        postings().any(|it| {
            it[merchant] == balance[0] && [&it[debit], &it[credit]].contains(&&balance[1])
        })
    };
    balances.iter().filter(|it| in_batch(it)).collect()
}
