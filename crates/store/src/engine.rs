//! Applying commits to SQLite: many commits, one durable transaction.
//!
//! Each commit is checked whole before any of it is written, so one that fails fails alone and
//! needs no savepoint. Balances are kept in memory during the batch and written once at its end:
//! an account that every payment touches costs one update a batch.

use crate::migrations::{MigrationError, migrate};
use crate::rows::{Prepared, Word};
use app::{CommitError, IntentChange};
use ledger::Balance;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::HashMap;

pub struct Engine {
    connection: Connection,
}

/// Balances touched by a batch: by account name, loaded once.
#[derive(Default)]
struct Books {
    loaded: HashMap<String, Balance>,
    /// Names whose balance changed.
    touched: HashMap<String, Balance>,
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
            Err(Failure::Commit(error)) => {
                let unknown = || Err(CommitError::Unknown(error.to_string()));
                batch.iter().map(|_| unknown()).collect()
            }
            // Nothing in the batch is to blame; asking again for each would wait for each.
            Err(Failure::Begin(error)) => {
                batch.iter().map(|_| Err(CommitError::Refused(error.to_string()))).collect()
            }
            Err(Failure::Before(error)) if batch.len() == 1 => {
                vec![Err(CommitError::Refused(error.to_string()))]
            }
            // Something in the batch cannot be written; find out what by going one by one.
            Err(Failure::Before(_)) => {
                batch.iter().flat_map(|it| self.apply(std::slice::from_ref(it))).collect()
            }
        }
    }

    fn apply_together(
        &mut self,
        batch: &[Prepared],
    ) -> Result<Vec<Result<(), CommitError>>, Failure> {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let work = begun.map_err(Failure::Begin)?;
        let mut books = Books::default();
        let mut answers = Vec::with_capacity(batch.len());
        for commit in batch {
            let verdict = check(&work, commit, &mut books)?;
            if verdict.is_ok() {
                write(&work, commit)?;
            }
            answers.push(verdict);
        }
        books.write(&work)?;
        work.commit().map_err(Failure::Commit)?;
        Ok(answers)
    }
}

/// Where a batch broke: before COMMIT nothing was written; during it nobody knows.
enum Failure {
    Begin(rusqlite::Error),
    Before(rusqlite::Error),
    Commit(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Before(error)
    }
}

type Sql<T> = Result<T, rusqlite::Error>;

/// Everything that can make a commit fail, before anything of it is written. Balances move only
/// if all is well.
fn check(
    work: &Transaction<'_>,
    commit: &Prepared,
    books: &mut Books,
) -> Sql<Result<(), CommitError>> {
    for row in &commit.merchants {
        let sql = "SELECT version FROM merchant WHERE id = ?1";
        let found = version(work, sql, &[&row.id])?;
        if let Err(error) = compare(found, row.expected, "merchant", &row.id) {
            return Ok(Err(error));
        }
    }
    for row in &commit.payments {
        let (sql, key) = match row.expected {
            0 => {
                ("SELECT version FROM payment WHERE merchant = ?1 AND order_no = ?2", &row.order_no)
            }
            _ => ("SELECT version FROM payment WHERE merchant = ?1 AND serial = ?2", &row.serial),
        };
        let found = version(work, sql, &[&row.merchant, key])?;
        if let Err(error) = compare(found, row.expected, "order", key) {
            return Ok(Err(error));
        }
    }
    for row in &commit.refunds {
        let (sql, key) = match row.expected {
            0 => (
                "SELECT version FROM refund WHERE merchant = ?1 AND refund_no = ?2",
                &row.refund_no,
            ),
            _ => ("SELECT version FROM refund WHERE merchant = ?1 AND serial = ?2", &row.serial),
        };
        let found = version(work, sql, &[&row.merchant, key])?;
        if let Err(error) = compare(found, row.expected, "refund", key) {
            return Ok(Err(error));
        }
    }
    for row in &commit.notifications {
        let sql = "SELECT version FROM notification WHERE merchant = ?1 AND id = ?2";
        let found = version(work, sql, &[&row.merchant, &row.id])?;
        if let Err(error) = compare(found, row.expected, "notification", &row.id) {
            return Ok(Err(error));
        }
    }
    let mut after: HashMap<String, Balance> = HashMap::new();
    for journal in &commit.journals {
        let sql = "SELECT 1 FROM posting WHERE merchant = ?1 AND payment = ?2 AND subject = ?3 \
                   AND event = ?4 AND line = 0";
        let mut known = work.prepare_cached(sql)?;
        let key = [
            journal.merchant.as_str(),
            journal.payment.as_str(),
            journal.subject.as_str(),
            journal.event.name(),
        ];
        if known.exists(key)? {
            let what = format!("journal {} of {}", journal.event.name(), journal.subject);
            return Ok(Err(CommitError::Exists(what)));
        }
        for posting in &journal.postings {
            for (account, side) in posting.legs() {
                let name = account.to_string();
                let before = match after.get(&name) {
                    Some(known) => *known,
                    None => books.balance(work, &name)?,
                };
                match before.post(account, side, posting.amount) {
                    Ok(balance) => after.insert(name, balance),
                    Err(error) => return Ok(Err(CommitError::Books(error))),
                };
            }
        }
    }
    books.touched.extend(after);
    Ok(Ok(()))
}

fn version(work: &Transaction<'_>, sql: &str, key: &[&dyn rusqlite::ToSql]) -> Sql<Option<u32>> {
    work.prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()
}

fn compare(found: Option<u32>, expected: u32, kind: &str, key: &str) -> Result<(), CommitError> {
    match (found, expected) {
        (None, 0) => Ok(()),
        (Some(_), 0) => Err(CommitError::Exists(format!("{kind} {key}"))),
        (Some(found), _) if found == expected => Ok(()),
        (Some(_) | None, _) => Err(CommitError::Stale(format!("{kind} {key}"))),
    }
}

impl Books {
    fn balance(&mut self, work: &Transaction<'_>, name: &str) -> Sql<Balance> {
        if let Some(known) = self.touched.get(name).or_else(|| self.loaded.get(name)) {
            return Ok(*known);
        }
        let sql = "SELECT debit_minor, credit_minor FROM balance WHERE account = ?1";
        let found = work
            .prepare_cached(sql)?
            .query_row([name], |row| {
                Ok(Balance { debit_minor: row.get(0)?, credit_minor: row.get(1)? })
            })
            .optional()?;
        let balance = found.unwrap_or_default();
        self.loaded.insert(name.into(), balance);
        Ok(balance)
    }

    fn write(self, work: &Transaction<'_>) -> Sql<()> {
        let mut put = work.prepare_cached(
            "INSERT INTO balance (account, debit_minor, credit_minor) VALUES (?1, ?2, ?3) \
             ON CONFLICT (account) DO UPDATE SET debit_minor = ?2, credit_minor = ?3",
        )?;
        for (name, balance) in &self.touched {
            put.execute(params![name, balance.debit_minor, balance.credit_minor])?;
        }
        Ok(())
    }
}

fn write(work: &Transaction<'_>, commit: &Prepared) -> Sql<()> {
    for row in &commit.merchants {
        if row.expected == 0 {
            let sql = "INSERT INTO merchant (id, version, body) VALUES (?1, 1, ?2)";
            work.prepare_cached(sql)?.execute(params![row.id, row.body])?;
        } else {
            let sql = "UPDATE merchant SET version = version + 1, body = ?3 \
                       WHERE id = ?1 AND version = ?2";
            update(work, sql, params![row.id, row.expected, row.body])?;
        }
    }
    for row in &commit.payments {
        if row.expected == 0 {
            let sql = "INSERT INTO payment (merchant, serial, order_no, state, amount_minor, \
                       currency, created_ms, paid_ms, version, body) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9)";
            work.prepare_cached(sql)?.execute(params![
                row.merchant,
                row.serial,
                row.order_no,
                row.state,
                row.amount_minor,
                row.currency,
                row.created_ms,
                row.paid_ms,
                row.body
            ])?;
        } else {
            let sql = "UPDATE payment SET state = ?4, paid_ms = ?5, version = version + 1, \
                       body = ?6 WHERE merchant = ?1 AND serial = ?2 AND version = ?3";
            let key = (&row.merchant, &row.serial, row.expected);
            update(work, sql, params![key.0, key.1, key.2, row.state, row.paid_ms, row.body])?;
        }
    }
    for row in &commit.refunds {
        if row.expected == 0 {
            let sql = "INSERT INTO refund (merchant, serial, refund_no, payment, state, \
                       amount_minor, created_ms, version, body) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8)";
            work.prepare_cached(sql)?.execute(params![
                row.merchant,
                row.serial,
                row.refund_no,
                row.payment,
                row.state,
                row.amount_minor,
                row.created_ms,
                row.body
            ])?;
        } else {
            let sql = "UPDATE refund SET state = ?4, version = version + 1, body = ?5 \
                       WHERE merchant = ?1 AND serial = ?2 AND version = ?3";
            let key = (&row.merchant, &row.serial, row.expected);
            update(work, sql, params![key.0, key.1, key.2, row.state, row.body])?;
        }
    }
    for row in &commit.notifications {
        if row.expected == 0 {
            let sql = "INSERT INTO notification (merchant, id, payment, state, version, body) \
                       VALUES (?1, ?2, ?3, ?4, 1, ?5)";
            let values = params![row.merchant, row.id, row.payment, row.state, row.body];
            work.prepare_cached(sql)?.execute(values)?;
        } else {
            let sql = "UPDATE notification SET state = ?4, version = version + 1, body = ?5 \
                       WHERE merchant = ?1 AND id = ?2 AND version = ?3";
            let key = (&row.merchant, &row.id, row.expected);
            update(work, sql, params![key.0, key.1, key.2, row.state, row.body])?;
        }
    }
    for it in &commit.tries {
        let sql = "INSERT OR REPLACE INTO notification_try (merchant, notification, number, \
                   at_ms, status, duration_ms, body_head, error) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        work.prepare_cached(sql)?.execute(params![
            it.merchant.as_str(),
            it.notification.as_str(),
            it.number,
            it.at.ms(),
            it.status,
            i64::try_from(it.duration_ms).unwrap_or(i64::MAX),
            it.body_head,
            it.error
        ])?;
    }
    for journal in &commit.journals {
        let sql = "INSERT INTO posting (merchant, payment, subject, event, line, journal, at_ms, \
                   debit, credit, amount_minor) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let mut insert = work.prepare_cached(sql)?;
        for (line, posting) in (0_u32..).zip(&journal.postings) {
            insert.execute(params![
                journal.merchant.as_str(),
                journal.payment.as_str(),
                journal.subject.as_str(),
                journal.event.name(),
                line,
                journal.serial.as_str(),
                journal.at.ms(),
                posting.debit.to_string(),
                posting.credit.to_string(),
                posting.amount.minor()
            ])?;
        }
    }
    for change in &commit.intents {
        write_intent(work, change)?;
    }
    Ok(())
}

/// Changes exactly one row; another number means that the commit names a value twice.
fn update(work: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Sql<()> {
    match work.prepare_cached(sql)?.execute(values)? {
        1 => Ok(()),
        changed => Err(rusqlite::Error::StatementChangedRows(changed)),
    }
}

fn write_intent(work: &Transaction<'_>, change: &IntentChange) -> Sql<()> {
    const KEY: &str = "merchant = ?1 AND kind = ?2 AND subject = ?3";
    match change {
        IntentChange::Schedule(it) => {
            let sql = "INSERT INTO intent (merchant, kind, subject, due_ms, tries) \
                       VALUES (?1, ?2, ?3, ?4, ?5) \
                       ON CONFLICT (merchant, kind, subject) DO UPDATE SET due_ms = ?4, tries = ?5";
            work.prepare_cached(sql)?.execute(params![
                it.merchant.as_str(),
                it.kind.word(),
                it.subject.as_str(),
                it.due.ms(),
                it.tries
            ])?;
        }
        IntentChange::Finish { merchant, kind, subject } => {
            let values = params![merchant.as_str(), kind.word(), subject.as_str()];
            work.prepare_cached(&format!("DELETE FROM intent WHERE {KEY}"))?.execute(values)?;
        }
        IntentChange::Settle { claimed, next } => {
            let key = (claimed.merchant.as_str(), claimed.kind.word(), claimed.subject.as_str());
            let same = format!("{KEY} AND due_ms = ?4 AND tries = ?5");
            match next {
                None => {
                    let sql = format!("DELETE FROM intent WHERE {same}");
                    let values = params![key.0, key.1, key.2, claimed.due.ms(), claimed.tries];
                    work.prepare_cached(&sql)?.execute(values)?;
                }
                Some((due, tries)) => {
                    let sql = format!("UPDATE intent SET due_ms = ?6, tries = ?7 WHERE {same}");
                    work.prepare_cached(&sql)?.execute(params![
                        key.0,
                        key.1,
                        key.2,
                        claimed.due.ms(),
                        claimed.tries,
                        due.ms(),
                        tries
                    ])?;
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
