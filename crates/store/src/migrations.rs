//! The schema, as an ordered list of steps that only ever grows.
//!
//! Integers for time and money, text for names and JSON. Every key begins with the merchant, so
//! that the tables can be distributed by it. Bodies hold what nothing searches for.

use rusqlite::Connection;

/// How many steps there are; a database knows in `user_version` how many it has seen.
pub const VERSION: u32 = 1;

const STEPS: [&str; VERSION as usize] = [r"
CREATE TABLE merchant (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE payment (
    merchant TEXT NOT NULL,
    serial TEXT NOT NULL,
    order_no TEXT NOT NULL,
    state TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    paid_ms INTEGER,
    version INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX payment_serial ON payment (merchant, serial);
CREATE UNIQUE INDEX payment_order ON payment (merchant, order_no);
CREATE INDEX payment_paid ON payment (merchant, paid_ms) WHERE paid_ms IS NOT NULL;
CREATE TABLE refund (
    merchant TEXT NOT NULL,
    serial TEXT NOT NULL,
    refund_no TEXT NOT NULL,
    payment TEXT NOT NULL,
    state TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX refund_serial ON refund (merchant, serial);
CREATE UNIQUE INDEX refund_number ON refund (merchant, refund_no);
CREATE INDEX refund_payment ON refund (merchant, payment);
CREATE INDEX refund_created ON refund (merchant, created_ms);
CREATE TABLE notification (
    merchant TEXT NOT NULL,
    id TEXT NOT NULL,
    payment TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX notification_id ON notification (merchant, id);
CREATE INDEX notification_payment ON notification (merchant, payment);
CREATE TABLE notification_try (
    merchant TEXT NOT NULL,
    notification TEXT NOT NULL,
    number INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    status INTEGER,
    duration_ms INTEGER NOT NULL,
    body_head TEXT NOT NULL,
    error TEXT,
    PRIMARY KEY (merchant, notification, number)
) WITHOUT ROWID;
CREATE TABLE posting (
    merchant TEXT NOT NULL,
    payment TEXT NOT NULL,
    subject TEXT NOT NULL,
    event TEXT NOT NULL,
    line INTEGER NOT NULL,
    journal TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    PRIMARY KEY (merchant, payment, subject, event, line)
) WITHOUT ROWID;
CREATE TABLE balance (
    account TEXT NOT NULL PRIMARY KEY,
    debit_minor INTEGER NOT NULL,
    credit_minor INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE intent (
    merchant TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    due_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    PRIMARY KEY (merchant, kind, subject)
) WITHOUT ROWID;
CREATE INDEX intent_due ON intent (due_ms);
"];

#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(
        "the database was written by a newer feiqian (schema {found}, this one knows {VERSION}); use that one"
    )]
    Newer { found: u32 },
    #[error("the schema could not be brought up to date")]
    Database(#[from] rusqlite::Error),
}

/// Brings a database up to date; each step is a transaction. Returns how many steps were taken.
pub fn migrate(connection: &mut Connection) -> Result<u32, MigrationError> {
    let read = |it: &Connection| it.query_row("PRAGMA user_version", [], |row| row.get(0));
    let before: u32 = read(connection)?;
    if before > VERSION {
        return Err(MigrationError::Newer { found: before });
    }
    for (index, step) in (0..).zip(STEPS).filter(|it| it.0 >= before) {
        let work =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another process may have been quicker.
        let seen: u32 = read(&work)?;
        if seen == index {
            work.execute_batch(step)?;
            work.pragma_update(None, "user_version", index + 1)?;
        }
        work.commit()?;
    }
    Ok(VERSION - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_twice_is_fine_and_a_newer_schema_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(migrate(&mut connection).unwrap(), VERSION);
        assert_eq!(migrate(&mut connection).unwrap(), 0);
        connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
        let refused = migrate(&mut connection);
        assert!(matches!(refused, Err(MigrationError::Newer { found }) if found == VERSION + 1));
    }

    /// The tables can be distributed by merchant: each key begins with it. Balances are keyed by
    /// account, whose name begins with its owner.
    #[test]
    fn every_key_begins_with_the_merchant() {
        for statement in STEPS.join(";").split(';').map(str::trim).filter(|it| !it.is_empty()) {
            let whole =
                ["CREATE TABLE merchant ", "CREATE TABLE balance ", "CREATE INDEX intent_due "];
            if whole.iter().any(|it| statement.starts_with(it)) {
                continue;
            }
            let keyed = match statement.find("PRIMARY KEY (") {
                Some(at) => statement[at..].starts_with("PRIMARY KEY (merchant"),
                None if statement.starts_with("CREATE TABLE") => true,
                None => statement.contains(" (merchant"),
            };
            assert!(keyed, "{statement}");
        }
    }
}
