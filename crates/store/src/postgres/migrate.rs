//! Taking the steps of the schema on PostgreSQL, one process at a time.

use super::connect::{PostgresError, PostgresUrl, Session};
use crate::migrations::{MigrationError, STEPS, Step, admit};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Whoever migrates holds this advisory lock: "feiqian" in ASCII.
const LOCK: i64 = 0x0066_6569_7169_616e;

const BOOK: &str = "CREATE TABLE IF NOT EXISTS schema_step \
                    (version BIGINT NOT NULL PRIMARY KEY, oldest BIGINT NOT NULL)";

/// The portable schema as PostgreSQL wants it: names and numbers compare byte by byte, and there
/// are no tables without row ids.
fn dialect(sql: &str) -> String {
    sql.replace(" TEXT", " TEXT COLLATE \"C\"")
        .replace(" INTEGER", " BIGINT")
        .replace(" WITHOUT ROWID", "")
}

/// Brings a database up to date; each step is a transaction. Returns how many steps were taken.
pub(crate) async fn migrate(
    url: &PostgresUrl,
    tls: &MakeRustlsConnect,
) -> Result<u32, MigrationError> {
    take(Session::open(url, tls).await?, &STEPS).await
}

/// The same for a program that knows these steps.
#[cfg(test)]
pub(crate) async fn migrate_steps(
    url: &PostgresUrl,
    steps: &[Step],
) -> Result<u32, MigrationError> {
    let tls = super::connect::tls(url)?;
    take(Session::open(url, &tls).await?, steps).await
}

async fn take(session: Session, steps: &[Step]) -> Result<u32, MigrationError> {
    let client = &session.client;
    let failed = |error: tokio_postgres::Error| MigrationError::from(PostgresError::from(error));
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(failed)?;
    client.batch_execute(BOOK).await.map_err(failed)?;
    let read = "SELECT COALESCE(MAX(version), 0), COALESCE(MAX(oldest), 0) FROM schema_step";
    let row = client.query_one(read, &[]).await.map_err(failed)?;
    let number = |index| u32::try_from(row.get::<_, i64>(index)).unwrap_or(u32::MAX);
    let (before, oldest) = (number(0), number(1));
    let missing = admit(before, oldest, steps)?;
    for (version, step) in (1..).zip(steps).filter(|it| it.0 > before) {
        let book = format!("INSERT INTO schema_step VALUES ({version}, {})", step.oldest);
        let whole = format!("BEGIN; {} {book}; COMMIT", dialect(step.sql));
        client.batch_execute(&whole).await.map_err(failed)?;
    }
    // The lock goes with the session.
    Ok(missing)
}
