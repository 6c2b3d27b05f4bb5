//! Applying batches to SQLite: many commits, one durable transaction.
//!
//! A commit that fails fails alone and needs no savepoint: whether it holds is decided in memory
//! ([`crate::batch`]) before anything is written. Facts are looked up when the decision asks for
//! them; a look costs a microsecond or two.

use super::migrate::migrate;
use crate::batch::{Change, Facts, IntentKey, IntentState, Outcome, Rows, Table, decide};
use crate::migrations::MigrationError;
use crate::query::{Columns, Query, Value};
use crate::rows::Prepared;
use app::{CommitError, StoreError};
use ledger::Balance;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OptionalExtension, Params, Row, TransactionBehavior,
    params,
};
use std::borrow::Cow;

pub struct Engine {
    connection: Connection,
}

impl Engine {
    pub fn new(mut connection: Connection) -> Result<Engine, MigrationError> {
        connection.set_prepared_statement_cache_capacity(128);
        migrate(&mut connection)?;
        Ok(Engine { connection })
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Applies commits in order and makes them durable together. Answers in the same order.
    pub fn apply(&mut self, batch: &[Prepared]) -> Vec<Result<(), CommitError>> {
        match self.apply_together(batch) {
            Ok(answers) => answers,
            Err(Failure::Before(error)) if batch.len() > 1 => {
                tracing::warn!(%error, commits = batch.len(), "a batch is halved");
                let (left, right) = batch.split_at(batch.len() / 2);
                let mut answers = self.apply(left);
                answers.extend(self.apply(right));
                answers
            }
            Err(failure) => {
                let refusal = failure.refusal();
                batch.iter().map(|_| Err(refusal.clone())).collect()
            }
        }
    }

    fn apply_together(
        &mut self,
        batch: &[Prepared],
    ) -> Result<Vec<Result<(), CommitError>>, Failure> {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let work = begun.map_err(Failure::Begin)?;
        let mut sql = Statements { connection: &work, open: Vec::with_capacity(16) };
        let outcome = decide(batch, &mut sql)?;
        write(&mut sql, &outcome)?;
        drop(sql);
        work.commit().map_err(Failure::Commit)?;
        Ok(outcome.answers)
    }
}

/// Where a batch broke: before COMMIT nothing was written; during it nobody knows.
enum Failure {
    /// No commit is to blame.
    Begin(rusqlite::Error),
    Before(rusqlite::Error),
    Commit(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Before(error)
    }
}

impl Failure {
    /// What a commit that broke alone is told.
    fn refusal(&self) -> CommitError {
        match self {
            Failure::Before(error)
                if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
            {
                CommitError::Exists(format!("a number in the commit ({error})"))
            }
            Failure::Begin(error) | Failure::Before(error) => {
                CommitError::Refused(error.to_string())
            }
            Failure::Commit(error) => CommitError::Unknown(error.to_string()),
        }
    }
}

type Sql<T> = Result<T, rusqlite::Error>;

/// The statements of one batch, each taken from the connection's cache when first needed.
struct Statements<'c> {
    connection: &'c Connection,
    open: Vec<(&'static str, CachedStatement<'c>)>,
}

impl<'c> Statements<'c> {
    fn get(&mut self, sql: &'static str) -> Sql<&mut CachedStatement<'c>> {
        // Literals that are one text may be two, which costs a second statement and nothing else.
        let known = self.open.iter().position(|it| std::ptr::eq(it.0, sql));
        let index = match known {
            Some(index) => index,
            None => {
                self.open.push((sql, self.connection.prepare_cached(sql)?));
                self.open.len() - 1
            }
        };
        Ok(&mut self.open[index].1)
    }

    fn execute(&mut self, sql: &'static str, values: impl Params) -> Sql<usize> {
        self.get(sql)?.execute(values)
    }

    fn find<T>(
        &mut self,
        sql: &'static str,
        key: impl Params,
        read: impl FnOnce(&Row<'_>) -> Sql<T>,
    ) -> Sql<Option<T>> {
        self.get(sql)?.query_row(key, read).optional()
    }
}

impl Facts for Statements<'_> {
    type Error = rusqlite::Error;

    fn version(&mut self, table: Table, merchant: &str, key: &str) -> Sql<Option<u32>> {
        let sql = match table {
            Table::Merchant => "SELECT version FROM merchant WHERE id = ?1 AND id = ?2",
            Table::Payment => "SELECT version FROM payment WHERE merchant = ?1 AND serial = ?2",
            Table::Refund => "SELECT version FROM refund WHERE merchant = ?1 AND serial = ?2",
            Table::Notification => {
                "SELECT version FROM notification WHERE merchant = ?1 AND id = ?2"
            }
        };
        self.find(sql, [merchant, key], |row| row.get(0))
    }

    fn numbered(&mut self, table: Table, merchant: &str, number: &str) -> Sql<Option<u32>> {
        let sql = match table {
            Table::Payment => "SELECT version FROM payment WHERE merchant = ?1 AND order_no = ?2",
            Table::Refund => "SELECT version FROM refund WHERE merchant = ?1 AND refund_no = ?2",
            // These have no number beside their key.
            Table::Merchant | Table::Notification => return self.version(table, merchant, number),
        };
        self.find(sql, [merchant, number], |row| row.get(0))
    }

    fn intent(&mut self, (merchant, kind, subject): IntentKey<'_>) -> Sql<Option<IntentState>> {
        let sql = "SELECT due_ms, tries, holder FROM intent \
                   WHERE merchant = ?1 AND kind = ?2 AND subject = ?3";
        self.find(sql, [merchant, kind, subject], |row| {
            Ok(IntentState { due_ms: row.get(0)?, tries: row.get(1)?, holder: row.get(2)? })
        })
    }

    fn balance(&mut self, merchant: &str, account: &str) -> Sql<Balance> {
        let sql = "SELECT COALESCE(SUM(debit_minor), 0), COALESCE(SUM(credit_minor), 0) \
                   FROM balance WHERE merchant = ?1 AND account = ?2";
        let found = self.find(sql, [merchant, account], |row| {
            Ok(Balance { debit_minor: row.get(0)?, credit_minor: row.get(1)? })
        })?;
        Ok(found.unwrap_or_default())
    }

    /// A look costs little here.
    fn looks_at_all(&self) -> bool {
        true
    }
}

fn write(sql: &mut Statements<'_>, outcome: &Outcome<'_>) -> Sql<()> {
    let insert = "INSERT INTO merchant (id, version, body) VALUES (?1, ?2, ?3)";
    let update = "UPDATE merchant SET version = ?2, body = ?3 WHERE id = ?1";
    each(sql, &outcome.merchants, |sql, it| {
        let (row, version, new) = (it.row, it.version, it.base == 0);
        let text = if new { insert } else { update };
        sql.execute(text, params![row.id, version, row.body])
    })?;
    let insert = "INSERT INTO payment (merchant, serial, version, state, paid_ms, doubt_ms, body, \
                  order_no, amount_minor, currency, created_ms) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let update = "UPDATE payment SET version = ?3, state = ?4, paid_ms = ?5, doubt_ms = ?6, \
                  body = ?7 WHERE merchant = ?1 AND serial = ?2";
    each(sql, &outcome.payments, |sql, it| {
        let (row, version, new) = (it.row, it.version, it.base == 0);
        let (key, paid, doubt) = ((&row.merchant, &row.serial), row.paid_ms, row.doubt_ms);
        if new {
            let first = it.first;
            let values = params![
                key.0,
                key.1,
                version,
                row.state,
                paid,
                doubt,
                row.body,
                first.order_no,
                first.amount_minor,
                first.currency,
                first.created_ms
            ];
            sql.execute(insert, values)
        } else {
            sql.execute(update, params![key.0, key.1, version, row.state, paid, doubt, row.body])
        }
    })?;
    let insert = "INSERT INTO refund (merchant, serial, version, state, body, refund_no, payment, \
                  amount_minor, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let update = "UPDATE refund SET version = ?3, state = ?4, body = ?5 \
                  WHERE merchant = ?1 AND serial = ?2";
    each(sql, &outcome.refunds, |sql, it| {
        let (row, version, new) = (it.row, it.version, it.base == 0);
        let key = (&row.merchant, &row.serial);
        if new {
            let first = it.first;
            let values = params![
                key.0,
                key.1,
                version,
                row.state,
                row.body,
                first.refund_no,
                first.payment,
                first.amount_minor,
                first.created_ms
            ];
            sql.execute(insert, values)
        } else {
            sql.execute(update, params![key.0, key.1, version, row.state, row.body])
        }
    })?;
    let insert = "INSERT INTO notification (merchant, id, version, state, body, payment) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let update = "UPDATE notification SET version = ?3, state = ?4, body = ?5 \
                  WHERE merchant = ?1 AND id = ?2";
    each(sql, &outcome.notifications, |sql, it| {
        let (row, version, new) = (it.row, it.version, it.base == 0);
        let key = (&row.merchant, &row.id);
        if new {
            let values = params![key.0, key.1, version, row.state, row.body, it.first.payment];
            sql.execute(insert, values)
        } else {
            sql.execute(update, params![key.0, key.1, version, row.state, row.body])
        }
    })?;
    for commit in &outcome.held {
        write_additions(sql, commit)?;
    }
    write_intents(sql, outcome)?;
    write_balances(sql, outcome)
}

fn each<'b, R>(
    sql: &mut Statements<'_>,
    rows: &Rows<'b, R>,
    run: impl Fn(&mut Statements<'_>, &Change<'b, R>) -> Sql<usize>,
) -> Sql<()> {
    for change in &rows.changes {
        match run(sql, change)? {
            1 => {}
            changed => return Err(rusqlite::Error::StatementChangedRows(changed)),
        }
    }
    Ok(())
}

/// What is only ever added.
fn write_additions(sql: &mut Statements<'_>, commit: &Prepared) -> Sql<()> {
    for it in &commit.tries {
        let text = "INSERT INTO notification_try (merchant, notification, number, at_ms, status, \
                    duration_ms, body_head, error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                    ON CONFLICT (merchant, notification, number) DO UPDATE SET at_ms = ?4, \
                    status = ?5, duration_ms = ?6, body_head = ?7, error = ?8";
        let key = (it.merchant.as_str(), it.notification.as_str());
        let values = params![
            key.0,
            key.1,
            it.number,
            it.at_ms,
            it.status,
            it.duration_ms,
            it.body_head,
            it.error
        ];
        sql.execute(text, values)?;
    }
    for journal in &commit.journals {
        let text = "INSERT INTO posting (merchant, payment, subject, event, line, journal, at_ms, \
                    debit, credit, amount_minor) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        for (line, posting) in (0_u32..).zip(&journal.postings) {
            let values = params![
                journal.merchant.as_str(),
                journal.payment.as_str(),
                journal.subject.as_str(),
                journal.event,
                line,
                journal.serial.as_str(),
                journal.at_ms,
                commit.accounts[posting.debit].name,
                commit.accounts[posting.credit].name,
                posting.amount.minor()
            ];
            sql.execute(text, values)?;
        }
    }
    Ok(())
}

fn write_intents(sql: &mut Statements<'_>, outcome: &Outcome<'_>) -> Sql<()> {
    for it in outcome.intents.writes.iter().filter(|it| it.is_change()) {
        let key = it.key;
        match &it.now {
            Some(now) => {
                let text = "INSERT INTO intent (merchant, kind, subject, due_ms, tries, holder) \
                            VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                            ON CONFLICT (merchant, kind, subject) \
                            DO UPDATE SET due_ms = ?4, tries = ?5, holder = ?6";
                let values = params![key.0, key.1, key.2, now.due_ms, now.tries, now.holder];
                sql.execute(text, values)?;
            }
            None => {
                let text = "DELETE FROM intent WHERE merchant = ?1 AND kind = ?2 AND subject = ?3";
                sql.execute(text, params![key.0, key.1, key.2])?;
            }
        }
    }
    Ok(())
}

fn write_balances(sql: &mut Statements<'_>, outcome: &Outcome<'_>) -> Sql<()> {
    for line in outcome.books.lines.iter().filter(|it| it.moved != Balance::default()) {
        let text = "INSERT INTO balance (merchant, account, stripe, debit_minor, credit_minor) \
                    VALUES (?1, ?2, 0, ?3, ?4) ON CONFLICT (merchant, account, stripe) DO UPDATE \
                    SET debit_minor = debit_minor + ?3, credit_minor = credit_minor + ?4";
        let moved = (line.moved.debit_minor, line.moved.credit_minor);
        sql.execute(text, params![line.merchant, line.account, moved.0, moved.1])?;
    }
    Ok(())
}

/// The store's clock.
const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

fn dialect(sql: &'static str) -> Cow<'static, str> {
    if sql.contains('{') {
        Cow::Owned(sql.replace("{now_ms}", NOW_MS).replace("{skip_locked}", ""))
    } else {
        Cow::Borrowed(sql)
    }
}

/// Runs a statement that is no commit.
pub(crate) fn run<T>(connection: &Connection, query: &Query<T>) -> Result<Vec<T>, StoreError> {
    let failed = |error: rusqlite::Error| StoreError(error.to_string());
    let mut statement = connection.prepare_cached(&dialect(query.sql)).map_err(failed)?;
    let values = rusqlite::params_from_iter(&query.values);
    let mut rows = statement.query(values).map_err(failed)?;
    let mut read = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        read.push((query.read)(row)?);
    }
    Ok(read)
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Text(it) => ValueRef::Text(it.as_bytes()),
            Value::Int(it) => ValueRef::Integer(*it),
            Value::NoText => ValueRef::Null,
        }))
    }
}

fn column<T: rusqlite::types::FromSql>(row: &Row<'_>, index: usize) -> Result<T, StoreError> {
    row.get(index).map_err(|error| StoreError(format!("a row cannot be read: {error}")))
}

impl Columns for Row<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use app::{Commit, Intent, IntentChange, IntentKind};
    use kernel::{MerchantId, SerialGenerator, SerialKind, Timestamp, Zone};
    use std::time::{Duration, Instant};

    /// Commits of an intent each.
    fn commits(count: usize) -> Vec<Prepared> {
        let mut serials = SerialGenerator::new(0, Zone::shanghai());
        let now = Timestamp::from_ms(1_800_000_000_000);
        let merchant = MerchantId::parse("1900000109").unwrap();
        let mut commit = || {
            let subject = serials.next(now, SerialKind::Payment);
            let (merchant, kind) = (merchant.clone(), IntentKind::Heal);
            let intent = Intent { merchant, kind, subject, due: now, tries: 0, holder: None };
            let intents = vec![IntentChange::Schedule(intent)];
            Prepared::from(Commit { intents, ..Commit::default() })
        };
        (0..count).map(|_| commit()).collect()
    }

    fn count(engine: &Engine) -> i64 {
        let sql = "SELECT COUNT(*) FROM intent";
        engine.connection().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_batch_without_room_is_refused_and_what_still_fits_is_written() {
        let mut engine = Engine::new(Connection::open_in_memory().unwrap()).unwrap();
        let pages = |engine: &Engine, pragma: &str| -> u32 {
            engine.connection().pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
        };
        let room = pages(&engine, "page_count") + 4;
        engine.connection().pragma_update(None, "max_page_count", room).unwrap();
        let answers = engine.apply(&commits(1_000));
        let written = answers.iter().filter(|it| it.is_ok()).count();
        assert!((1..1_000).contains(&written), "{written}");
        assert_eq!(count(&engine), i64::try_from(written).unwrap());
        let refused = |it: &Result<(), CommitError>| matches!(it, Err(CommitError::Refused(_)));
        assert_eq!(answers.iter().filter(|it| refused(it)).count(), 1_000 - written);
        // With room again, the engine goes on.
        engine.connection().pragma_update(None, "max_page_count", room + 400).unwrap();
        engine.connection().execute("DELETE FROM intent", []).unwrap();
        assert!(engine.apply(&commits(1_000)).iter().all(Result::is_ok));
    }

    /// Another process holds the file: the batch waits once, not once a commit.
    #[test]
    fn a_busy_file_refuses_a_batch_after_one_wait() {
        let path = std::env::temp_dir().join(format!("feiqian-busy-{}.db", std::process::id()));
        let connection = Connection::open(&path).unwrap();
        connection.busy_timeout(Duration::from_millis(100)).unwrap();
        let mut engine = Engine::new(connection).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let start = Instant::now();
        let answers = engine.apply(&commits(50));
        assert!(answers.iter().all(|it| matches!(it, Err(CommitError::Refused(_)))));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        other.execute_batch("ROLLBACK").unwrap();
        assert!(engine.apply(&commits(50)).iter().all(Result::is_ok));
        drop((engine, other));
        std::fs::remove_file(&path).unwrap();
    }
}
