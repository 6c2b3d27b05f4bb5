//! Taking the steps of the schema on SQLite.

use crate::migrations::{MigrationError, STEPS, Step, admit};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

impl From<rusqlite::Error> for MigrationError {
    fn from(error: rusqlite::Error) -> MigrationError {
        MigrationError::Database(error.to_string())
    }
}

const BOOK: &str = "CREATE TABLE IF NOT EXISTS schema_step \
                    (version INTEGER NOT NULL PRIMARY KEY, oldest INTEGER NOT NULL)";

/// Brings a database up to date; each step is a transaction. Returns how many steps were taken.
pub fn migrate(connection: &mut Connection) -> Result<u32, MigrationError> {
    migrate_steps(connection, &STEPS)
}

/// The same for a program that knows these steps.
pub(crate) fn migrate_steps(
    connection: &mut Connection,
    steps: &[Step],
) -> Result<u32, MigrationError> {
    let (before, oldest) = read(connection)?;
    let missing = admit(before, oldest, steps)?;
    for (version, step) in (1..).zip(steps).filter(|it| it.0 > before) {
        let work = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been quicker.
        if read(&work)?.0 < version {
            work.execute_batch(step.sql)?;
            work.execute_batch(BOOK)?;
            let book = "INSERT OR REPLACE INTO schema_step (version, oldest) VALUES (?1, ?2)";
            work.execute(book, [version, step.oldest])?;
            work.pragma_update(None, "user_version", version)?;
        }
        work.commit()?;
    }
    Ok(missing)
}

/// How many steps were taken, and the oldest version that may still write.
fn read(connection: &Connection) -> rusqlite::Result<(u32, u32)> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let booked = "SELECT 1 FROM sqlite_master WHERE name = 'schema_step'";
    if connection.query_row(booked, [], |_| Ok(())).optional()?.is_none() {
        return Ok((version, version));
    }
    let oldest = "SELECT COALESCE(MAX(oldest), 0) FROM schema_step";
    Ok((version, connection.query_row(oldest, [], |row| row.get(0))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::VERSION;

    #[test]
    fn migrating_twice_is_fine_and_a_schema_that_leaves_us_behind_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(migrate(&mut connection).unwrap(), VERSION);
        assert_eq!(migrate(&mut connection).unwrap(), 0);
        let next = "INSERT INTO schema_step VALUES (?1, ?2)";
        connection.execute(next, [VERSION + 1, VERSION]).unwrap();
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert_eq!(migrate(&mut connection).unwrap(), 0, "the step only added something");
        connection.execute(next, [VERSION + 2, VERSION + 2]).unwrap();
        connection.pragma_update(None, "user_version", VERSION + 2).unwrap();
        let refused = migrate(&mut connection);
        assert!(matches!(refused, Err(MigrationError::Newer { found }) if found == VERSION + 2));
    }

    /// What version 1 had in one table of balances is in parts now, each with its owner.
    #[test]
    fn balances_of_version_1_are_kept() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(STEPS[0].sql).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let old = "INSERT INTO merchant VALUES ('19', 1, '{}'); INSERT INTO merchant VALUES ('190', 1, '{}'); \
                   INSERT INTO balance VALUES ('merchant/190/merchant_pending/CNY', 3, 10); \
                   INSERT INTO balance VALUES ('platform/fee_income/CNY', 0, 3);";
        connection.execute_batch(old).unwrap();
        assert_eq!(migrate(&mut connection).unwrap(), VERSION - 1);
        let sql = "SELECT merchant, account, stripe, debit_minor, credit_minor FROM balance \
                   ORDER BY account";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |it| Ok((it.get(0)?, it.get(1)?, it.get(2)?, it.get(3)?, it.get(4)?)));
        let rows: Vec<(String, String, i64, i64, i64)> =
            rows.unwrap().collect::<Result<_, _>>().unwrap();
        let pending = ("190".into(), "merchant/190/merchant_pending/CNY".into(), 0, 3, 10);
        let fees = (String::new(), "platform/fee_income/CNY".into(), 0, 0, 3);
        assert_eq!(rows, [pending, fees]);
    }
}
