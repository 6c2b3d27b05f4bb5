//! What programs beside us need to know of a database: PostgreSQL's own tools, and backups.

use super::connect::{PostgresError, PostgresUrl, Session, tls};
use tokio_postgres::config::{Host, SslMode};

/// A database server as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresLook {
    pub major: u32,
    /// Steps of the schema that were taken; 0 without any.
    pub schema: u32,
    /// The server's clock.
    pub now_ms: i64,
}

/// Certificates that Debian's and Red Hat's machines trust.
const TRUSTED: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

impl PostgresUrl {
    /// Asks the server that writes. Changes nothing.
    pub async fn look(&self) -> Result<PostgresLook, PostgresError> {
        let session = Session::open(self, &tls(self)?).await?;
        let client = &session.client;
        let sql = "SELECT current_setting('server_version_num')::BIGINT / 10000, \
                   (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT, \
                   to_regclass('schema_step') IS NOT NULL";
        let row = client.query_one(sql, &[]).await?;
        let schema = if row.get(2) {
            let sql = "SELECT COALESCE(MAX(version), 0) FROM schema_step";
            client.query_one(sql, &[]).await?.get(0)
        } else {
            0
        };
        let small = |it: i64| u32::try_from(it).unwrap_or(0);
        Ok(PostgresLook { major: small(row.get(0)), schema: small(schema), now_ms: row.get(1) })
    }

    /// The address as PostgreSQL's programs take it: variables, so that no list of processes shows
    /// the password.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let host = |it: &Host| match it {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<String> = config.get_hosts().iter().map(host).collect();
        let ports: Vec<String> = config.get_ports().iter().map(ToString::to_string).collect();
        let mut list = vec![
            ("PGHOST", hosts.join(",")),
            ("PGPORT", ports.join(",")),
            ("PGTARGETSESSIONATTRS", "read-write".into()),
            ("PGAPPNAME", "feiqian-backup".into()),
            ("PGCONNECT_TIMEOUT", "10".into()),
        ];
        if let Some(user) = config.get_user() {
            list.push(("PGUSER", user.into()));
        }
        if let Some(password) = config.get_password() {
            list.push(("PGPASSWORD", String::from_utf8_lossy(password).into_owned()));
        }
        if config.get_ssl_mode() == SslMode::Require {
            list.push(("PGSSLMODE", "verify-full".into()));
            let trusted = TRUSTED.iter().find(|it| std::path::Path::new(it).exists());
            list.extend(trusted.map(|it| ("PGSSLROOTCERT", (*it).into())));
        } else {
            list.push(("PGSSLMODE", "disable".into()));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_told_all_that_the_address_says() {
        let text = "postgres://me:s%20cret@one:5433,two:5434/books?sslmode=require";
        let list = PostgresUrl::parse(text).unwrap().environment();
        for (name, value) in [
            ("PGHOST", "one,two"),
            ("PGPORT", "5433,5434"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "s cret"),
            ("PGSSLMODE", "verify-full"),
        ] {
            assert!(list.contains(&(name, value.into())), "{name}: {list:?}");
        }
    }
}
