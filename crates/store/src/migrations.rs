//! The schema, as an ordered list of steps that only ever grows: one list for both engines.
//!
//! Integers for time and money, text for names and JSON. Every key begins with the merchant, so
//! that the tables can be distributed by it. Bodies hold what nothing searches for.
//!
//! A step says which versions may go on working beside it. A step that only adds (a table, a
//! column that may be absent, an index) leaves the version before it at work, so that an installation
//! is upgraded one process at a time. `upgrade` tries that.

pub(crate) struct Step {
    /// The oldest version that may still write once this step is taken.
    pub oldest: u32,
    pub sql: &'static str,
}

/// How many steps there are; a database knows how many it has seen.
pub const VERSION: u32 = 3;

pub(crate) const STEPS: [Step; VERSION as usize] = [
    Step {
        oldest: 1,
        sql: r"
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
",
    },
    // Balances in parts: by the merchant whose commits move them, and by writer. What version 1
    // had on accounts that are no merchant's stays as the part of nobody.
    Step {
        oldest: 2,
        sql: r"
ALTER TABLE balance RENAME TO balance_whole;
CREATE TABLE balance (
    merchant TEXT NOT NULL,
    account TEXT NOT NULL,
    stripe INTEGER NOT NULL,
    debit_minor INTEGER NOT NULL,
    credit_minor INTEGER NOT NULL,
    PRIMARY KEY (merchant, account, stripe)
) WITHOUT ROWID;
INSERT INTO balance (merchant, account, stripe, debit_minor, credit_minor)
    SELECT COALESCE(merchant.id, ''), account, 0, debit_minor, credit_minor FROM balance_whole
    LEFT JOIN merchant ON account LIKE 'merchant/' || merchant.id || '/%';
DROP TABLE balance_whole;
CREATE TABLE node (
    number INTEGER NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    alive_ms INTEGER NOT NULL
);
ALTER TABLE intent ADD COLUMN holder TEXT;
",
    },
    // How many payments are in doubt, and since when, without opening their bodies.
    Step {
        oldest: 2,
        sql: r"
ALTER TABLE payment ADD COLUMN doubt_ms INTEGER;
CREATE INDEX payment_doubt ON payment (merchant, doubt_ms) WHERE doubt_ms IS NOT NULL;
",
    },
];

/// Whether a program that knows these steps may work on a database, and how many it would take.
///
/// - Input: what the database has seen: `before` steps, which demand version `oldest` at least.
pub(crate) fn admit(before: u32, oldest: u32, steps: &[Step]) -> Result<u32, MigrationError> {
    let ours = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if before > ours && oldest > ours {
        return Err(MigrationError::Newer { found: before });
    }
    Ok(ours.saturating_sub(before))
}

#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(
        "the database was written by a newer feiqian (schema {found}, this one knows {VERSION}); use that one"
    )]
    Newer { found: u32 },
    #[error("the schema could not be brought up to date: {0}")]
    Database(String),
}
