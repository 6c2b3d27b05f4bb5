//! Distributing the tables by merchant over several machines, by the extension Citus.
//!
//! Every key begins with the merchant, so a merchant's rows of all tables lie together and its
//! transactions stay on one machine.

use super::connect::{PostgresError, PostgresUrl, Session, tls};
use super::migrate::migrate;
use crate::migrations::MigrationError;
use tokio_postgres_rustls::MakeRustlsConnect;

#[derive(Debug, thiserror::Error)]
pub enum DistributeError {
    #[error(
        "this database has no Citus; install the extension on every machine, run CREATE EXTENSION citus as a superuser, then try again"
    )]
    NoCitus,
    #[error(transparent)]
    Database(#[from] PostgresError),
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

/// Distributed by merchant, all beside each other.
pub(crate) const BY_MERCHANT: [&str; 7] =
    ["payment", "refund", "notification", "notification_try", "posting", "balance", "intent"];
/// Small, and the same on every machine.
const EVERYWHERE: [&str; 2] = ["merchant", "node"];

const HAS_CITUS: &str = "SELECT COUNT(*) FROM pg_extension WHERE extname = 'citus'";

/// Distributes what is not distributed yet; returns the names of those tables.
pub async fn distribute(url: &PostgresUrl) -> Result<Vec<&'static str>, DistributeError> {
    let tls = tls(url)?;
    migrate(url, &tls).await?;
    let session = Session::open(url, &tls).await?;
    if !has_citus(&session).await? {
        return Err(DistributeError::NoCitus);
    }
    let known = "SELECT logicalrelid::regclass::text FROM pg_dist_partition";
    let rows = session.client.query(known, &[]).await.map_err(PostgresError::from)?;
    let known: Vec<String> = rows.iter().map(|it| it.get(0)).collect();
    let mut done = Vec::new();
    for table in EVERYWHERE.into_iter().chain(BY_MERCHANT) {
        if known.iter().any(|it| it == table) {
            continue;
        }
        let call = match EVERYWHERE.contains(&table) {
            true => format!("SELECT create_reference_table('{table}')"),
            false if table == BY_MERCHANT[0] => {
                format!("SELECT create_distributed_table('{table}', 'merchant')")
            }
            false => format!(
                "SELECT create_distributed_table('{table}', 'merchant', colocate_with => '{}')",
                BY_MERCHANT[0]
            ),
        };
        session.client.batch_execute(&call).await.map_err(PostgresError::from)?;
        done.push(table);
    }
    Ok(done)
}

async fn has_citus(session: &Session) -> Result<bool, PostgresError> {
    Ok(session.client.query_one(HAS_CITUS, &[]).await?.get::<_, i64>(0) > 0)
}

pub(crate) async fn is_distributed(
    url: &PostgresUrl,
    tls: &MakeRustlsConnect,
) -> Result<bool, PostgresError> {
    let session = Session::open(url, tls).await?;
    if !has_citus(&session).await? {
        return Ok(false);
    }
    let count = "SELECT COUNT(*) FROM pg_dist_partition WHERE logicalrelid = 'payment'::regclass";
    Ok(session.client.query_one(count, &[]).await?.get::<_, i64>(0) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements of a batch, as they stand in the source.
    fn statements(source: &str) -> Vec<String> {
        let code = source.split("#[cfg(test)]").next().unwrap_or("");
        let texts = code.split('"').skip(1).step_by(2);
        let plain = texts.map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "));
        let verbs = ["SELECT it.", "SELECT 1 FROM ", "INSERT INTO ", "UPDATE ", "DELETE FROM "];
        plain.filter(|it| verbs.iter().any(|verb| it.starts_with(verb))).collect()
    }

    /// On a distributed database a statement that does not name its merchant goes to every machine,
    /// and one that locks cannot run at all.
    #[test]
    fn every_statement_of_a_batch_names_its_merchant() {
        let facts = statements(include_str!("facts.rs"));
        let writes = statements(include_str!("writer.rs"));
        assert!(facts.len() >= 11 && writes.len() >= 13, "{} {}", facts.len(), writes.len());
        for sql in facts.iter().chain(&writes) {
            let named = |table: &str| {
                ["FROM ", "INTO ", "UPDATE "]
                    .iter()
                    .any(|it| sql.contains(&format!("{it}{table} ")))
            };
            if !BY_MERCHANT.iter().any(|it| named(it)) {
                assert!(sql.contains(" merchant "), "of no known table: {sql}");
                continue;
            }
            let by_key = sql.contains("it.merchant = n.merchant") && sql.contains("{of_one}");
            let new = sql.starts_with("INSERT INTO ") && sql.contains(" (merchant, ");
            assert!(by_key || new, "{sql}");
            let arbiter = sql.split("ON CONFLICT (").nth(1);
            assert!(arbiter.is_none_or(|it| it.starts_with("merchant, ")), "{sql}");
        }
    }
}
