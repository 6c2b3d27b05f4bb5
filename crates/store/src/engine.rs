//! Applying commits to SQLite: many commits, one durable transaction.
//!
//! Whatever a caller may run into is checked before any of its commit is written, so that a
//! commit which fails fails alone and needs no savepoint. What only a slip can cause (a number
//! drawn twice, a value named twice in one commit) is left to the constraints of the tables: it
//! undoes the batch, which is then halved until the culprit is alone.
//!
//! Balances are kept in memory during the batch and written once at its end: an account that every
//! payment touches costs one update a batch.

use crate::migrations::{MigrationError, migrate};
use crate::rows::{NamedAccount, Prepared, Word};
use app::{CommitError, IntentChange};
use ledger::{Balance, Side};
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OptionalExtension, Params, TransactionBehavior, params,
};
use std::collections::HashMap;

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
        let mut answers = Vec::with_capacity(batch.len());
        let mut sql = Statements { connection: &work, open: Vec::with_capacity(16) };
        let mut books = Books::default();
        for commit in batch {
            let verdict = check(&mut sql, commit, &mut books)?;
            if verdict.is_ok() {
                write(&mut sql, commit)?;
            }
            answers.push(verdict);
        }
        books.write(&mut sql)?;
        drop(sql);
        work.commit().map_err(Failure::Commit)?;
        Ok(answers)
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

    /// Changes exactly one row; another number means that the commit names a value twice.
    fn update(&mut self, sql: &'static str, values: impl Params) -> Sql<()> {
        match self.execute(sql, values)? {
            1 => Ok(()),
            changed => Err(rusqlite::Error::StatementChangedRows(changed)),
        }
    }

    fn version(&mut self, sql: &'static str, key: impl Params) -> Sql<Option<u32>> {
        self.get(sql)?.query_row(key, |row| row.get(0)).optional()
    }
}

/// Everything that a caller may run into, before anything of the commit is written. Balances move
/// only if all is well.
fn check(
    sql: &mut Statements<'_>,
    commit: &Prepared,
    books: &mut Books,
) -> Sql<Result<(), CommitError>> {
    for row in &commit.merchants {
        let found = sql.version("SELECT version FROM merchant WHERE id = ?1", [&row.id])?;
        if let Err(error) = compare(found, row.expected, "merchant", &row.id) {
            return Ok(Err(error));
        }
    }
    for row in &commit.payments {
        let (text, key) = match row.expected {
            0 => {
                ("SELECT version FROM payment WHERE merchant = ?1 AND order_no = ?2", &row.order_no)
            }
            _ => ("SELECT version FROM payment WHERE merchant = ?1 AND serial = ?2", &row.serial),
        };
        let found = sql.version(text, [&row.merchant, key])?;
        if let Err(error) = compare(found, row.expected, "order", key) {
            return Ok(Err(error));
        }
    }
    for row in &commit.refunds {
        let (text, key) = match row.expected {
            0 => (
                "SELECT version FROM refund WHERE merchant = ?1 AND refund_no = ?2",
                &row.refund_no,
            ),
            _ => ("SELECT version FROM refund WHERE merchant = ?1 AND serial = ?2", &row.serial),
        };
        let found = sql.version(text, [&row.merchant, key])?;
        if let Err(error) = compare(found, row.expected, "refund", key) {
            return Ok(Err(error));
        }
    }
    for row in commit.notifications.iter().filter(|it| it.expected > 0) {
        let text = "SELECT version FROM notification WHERE merchant = ?1 AND id = ?2";
        let found = sql.version(text, [&row.merchant, &row.id])?;
        if let Err(error) = compare(found, row.expected, "notification", &row.id) {
            return Ok(Err(error));
        }
    }
    books.post(sql, commit)
}

fn compare(found: Option<u32>, expected: u32, kind: &str, key: &str) -> Result<(), CommitError> {
    match (found, expected) {
        (None, 0) => Ok(()),
        (Some(_), 0) => Err(CommitError::Exists(format!("{kind} {key}"))),
        (Some(found), _) if found == expected => Ok(()),
        (Some(_) | None, _) => Err(CommitError::Stale(format!("{kind} {key}"))),
    }
}

/// Balances that a batch has met, by account name, and whether it changed them.
#[derive(Default)]
struct Books {
    held: HashMap<String, (Balance, bool)>,
}

impl Books {
    /// Posts a commit's journals, all of them or none.
    fn post(
        &mut self,
        sql: &mut Statements<'_>,
        commit: &Prepared,
    ) -> Sql<Result<(), CommitError>> {
        let accounts = &commit.accounts;
        let mut after = Vec::with_capacity(accounts.len());
        for it in accounts {
            after.push(self.balance(sql, &it.name)?);
        }
        for posting in commit.journals.iter().flat_map(|it| &it.postings) {
            for (index, side) in [(posting.debit, Side::Debit), (posting.credit, Side::Credit)] {
                match after[index].post(&accounts[index].account, side, posting.amount) {
                    Ok(balance) => after[index] = balance,
                    Err(error) => return Ok(Err(CommitError::Books(error))),
                }
            }
        }
        for (NamedAccount { name, .. }, balance) in accounts.iter().zip(after) {
            if let Some(held) = self.held.get_mut(name) {
                *held = (balance, true);
            }
        }
        Ok(Ok(()))
    }

    fn balance(&mut self, sql: &mut Statements<'_>, name: &str) -> Sql<Balance> {
        if let Some((known, _)) = self.held.get(name) {
            return Ok(*known);
        }
        let statement =
            sql.get("SELECT debit_minor, credit_minor FROM balance WHERE account = ?1")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Balance { debit_minor: row.get(0)?, credit_minor: row.get(1)? })
        };
        let balance = statement.query_row([name], read).optional()?.unwrap_or_default();
        self.held.insert(name.into(), (balance, false));
        Ok(balance)
    }

    fn write(self, sql: &mut Statements<'_>) -> Sql<()> {
        let text = "INSERT INTO balance (account, debit_minor, credit_minor) VALUES (?1, ?2, ?3) \
                    ON CONFLICT (account) DO UPDATE SET debit_minor = ?2, credit_minor = ?3";
        for (name, (balance, _)) in self.held.iter().filter(|it| it.1.1) {
            sql.execute(text, params![name, balance.debit_minor, balance.credit_minor])?;
        }
        Ok(())
    }
}

fn write(sql: &mut Statements<'_>, commit: &Prepared) -> Sql<()> {
    for row in &commit.merchants {
        if row.expected == 0 {
            let text = "INSERT INTO merchant (id, version, body) VALUES (?1, 1, ?2)";
            sql.execute(text, params![row.id, row.body])?;
        } else {
            let text = "UPDATE merchant SET version = version + 1, body = ?3 \
                        WHERE id = ?1 AND version = ?2";
            sql.update(text, params![row.id, row.expected, row.body])?;
        }
    }
    for row in &commit.payments {
        if row.expected == 0 {
            let text = "INSERT INTO payment (merchant, serial, order_no, state, amount_minor, \
                        currency, created_ms, paid_ms, version, body) \
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9)";
            let values = params![
                row.merchant,
                row.serial,
                row.order_no,
                row.state,
                row.amount_minor,
                row.currency,
                row.created_ms,
                row.paid_ms,
                row.body
            ];
            sql.execute(text, values)?;
        } else {
            let text = "UPDATE payment SET state = ?4, paid_ms = ?5, version = version + 1, \
                        body = ?6 WHERE merchant = ?1 AND serial = ?2 AND version = ?3";
            let key = (&row.merchant, &row.serial, row.expected);
            sql.update(text, params![key.0, key.1, key.2, row.state, row.paid_ms, row.body])?;
        }
    }
    for row in &commit.refunds {
        if row.expected == 0 {
            let text = "INSERT INTO refund (merchant, serial, refund_no, payment, state, \
                        amount_minor, created_ms, version, body) \
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8)";
            let values = params![
                row.merchant,
                row.serial,
                row.refund_no,
                row.payment,
                row.state,
                row.amount_minor,
                row.created_ms,
                row.body
            ];
            sql.execute(text, values)?;
        } else {
            let text = "UPDATE refund SET state = ?4, version = version + 1, body = ?5 \
                        WHERE merchant = ?1 AND serial = ?2 AND version = ?3";
            let key = (&row.merchant, &row.serial, row.expected);
            sql.update(text, params![key.0, key.1, key.2, row.state, row.body])?;
        }
    }
    for row in &commit.notifications {
        if row.expected == 0 {
            let text = "INSERT INTO notification (merchant, id, payment, state, version, body) \
                        VALUES (?1, ?2, ?3, ?4, 1, ?5)";
            sql.execute(text, params![row.merchant, row.id, row.payment, row.state, row.body])?;
        } else {
            let text = "UPDATE notification SET state = ?4, version = version + 1, body = ?5 \
                        WHERE merchant = ?1 AND id = ?2 AND version = ?3";
            let key = (&row.merchant, &row.id, row.expected);
            sql.update(text, params![key.0, key.1, key.2, row.state, row.body])?;
        }
    }
    for it in &commit.tries {
        let text = "INSERT OR REPLACE INTO notification_try (merchant, notification, number, \
                    at_ms, status, duration_ms, body_head, error) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![
            it.merchant.as_str(),
            it.notification.as_str(),
            it.number,
            it.at.ms(),
            it.status,
            i64::try_from(it.duration_ms).unwrap_or(i64::MAX),
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
    for change in &commit.intents {
        write_intent(sql, change)?;
    }
    Ok(())
}

fn write_intent(sql: &mut Statements<'_>, change: &IntentChange) -> Sql<()> {
    match change {
        IntentChange::Schedule(it) => {
            let text = "INSERT INTO intent (merchant, kind, subject, due_ms, tries) \
                        VALUES (?1, ?2, ?3, ?4, ?5) \
                        ON CONFLICT (merchant, kind, subject) DO UPDATE SET due_ms = ?4, tries = ?5";
            let key = (it.merchant.as_str(), it.kind.word(), it.subject.as_str());
            sql.execute(text, params![key.0, key.1, key.2, it.due.ms(), it.tries])?;
        }
        IntentChange::Finish { merchant, kind, subject } => {
            let text = "DELETE FROM intent WHERE merchant = ?1 AND kind = ?2 AND subject = ?3";
            sql.execute(text, params![merchant.as_str(), kind.word(), subject.as_str()])?;
        }
        IntentChange::Settle { claimed: it, next } => {
            let key = (it.merchant.as_str(), it.kind.word(), it.subject.as_str());
            let was = (it.due.ms(), it.tries);
            match next {
                None => {
                    let text = "DELETE FROM intent WHERE merchant = ?1 AND kind = ?2 \
                                AND subject = ?3 AND due_ms = ?4 AND tries = ?5";
                    sql.execute(text, params![key.0, key.1, key.2, was.0, was.1])?;
                }
                Some((due, tries)) => {
                    let text = "UPDATE intent SET due_ms = ?6, tries = ?7 WHERE merchant = ?1 \
                                AND kind = ?2 AND subject = ?3 AND due_ms = ?4 AND tries = ?5";
                    let next = (due.ms(), tries);
                    sql.execute(text, params![key.0, key.1, key.2, was.0, was.1, next.0, next.1])?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use app::{Commit, Intent, IntentKind};
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
            let intent = Intent { merchant, kind, subject, due: now, tries: 0 };
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
