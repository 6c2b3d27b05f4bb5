//! Connections: where to, with which trust, and what each session is told first.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "this is no address of a PostgreSQL database: {0}; write postgres://user:password@host:port/name"
    )]
    Url(String),
    #[error("the certificates of this machine cannot be used: {0}")]
    Trust(String),
    #[error("PostgreSQL: {0}")]
    Database(String),
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> PostgresError {
        PostgresError::Database(told(&error))
    }
}

/// What a server said; the outer error alone says only "db error".
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(it) => format!("{} ({})", it.message(), it.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

/// Where the database is and who we are there. Holds a password, so it is never shown.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(crate) config: Config,
    pub(crate) by_merchant: bool,
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({:?}, {:?})", self.config.get_hosts(), self.config.get_dbname())
    }
}

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A peer that has vanished without a word is noticed after this long, not after hours.
const SILENCE: Duration = Duration::from_secs(5);

impl PostgresUrl {
    pub fn parse(text: &str) -> Result<PostgresUrl, PostgresError> {
        // The parser's error may quote the password.
        let mut config: Config =
            text.trim().parse().map_err(|_| PostgresError::Url("it cannot be read".into()))?;
        if config.get_hosts().is_empty() {
            return Err(PostgresError::Url("it names no host".into()));
        }
        if config.get_dbname().is_none() {
            return Err(PostgresError::Url("it names no database".into()));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WITHIN);
        }
        if config.get_application_name().is_none() {
            config.application_name("feiqian");
        }
        config.tcp_user_timeout(SILENCE).keepalives_idle(SILENCE);
        // Encrypted and verified, or plain where the address says nothing: a certificate that nobody
        // checks protects from nobody.
        if config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(SslMode::Disable);
        }
        // Of several hosts the one that writes.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(PostgresUrl { config, by_merchant: false })
    }

    /// Whether what goes over the line is encrypted and its other end verified, or never leaves this
    /// machine.
    pub fn is_private(&self) -> bool {
        let local = |it: &Host| match it {
            Host::Tcp(name) => {
                let address = name.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback());
                name == "localhost" || address
            }
            Host::Unix(_) => true,
        };
        let encrypted = self.config.get_ssl_mode() == SslMode::Require;
        encrypted || self.config.get_hosts().iter().all(local)
    }

    /// Transactions of one merchant each, as on a database that is distributed by merchant: for
    /// trying that out where it is not.
    pub fn by_merchant(self) -> PostgresUrl {
        PostgresUrl { by_merchant: true, ..self }
    }
}

/// TLS as the address asks for it (`sslmode`), trusting what the machine trusts.
pub(crate) fn tls(url: &PostgresUrl) -> Result<MakeRustlsConnect, PostgresError> {
    let trust = |error: &dyn fmt::Display| PostgresError::Trust(error.to_string());
    if url.config.get_ssl_mode() == SslMode::Require {
        let (connect, problems) = MakeRustlsConnect::with_native_certs()
            .map_err(|problems| PostgresError::Trust(format!("{problems:?}")))?;
        for problem in problems {
            tracing::warn!(%problem, "a trusted certificate cannot be used");
        }
        return Ok(connect);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| trust(&error))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// What a session is told first: an answered commit is on disk, and on the synchronous standby if
/// there is one, whatever the server's default is; nothing waits for ever. Between reading facts and
/// writing a healthy writer takes milliseconds: one that vanished in between must not keep its
/// locks, for which the others wait.
pub(crate) const SESSION: &str = "SET synchronous_commit = on; SET lock_timeout = '8s'; \
                                  SET idle_in_transaction_session_timeout = '2s'; \
                                  SET statement_timeout = 0; SET timezone = 'UTC'";

/// A connection of a writer's own.
pub(crate) struct Session {
    pub client: Client,
    /// The server warned that it stopped waiting for its standby: what it then calls committed is
    /// on one machine only.
    pub unconfirmed: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Session {
    pub async fn open(
        url: &PostgresUrl,
        tls: &MakeRustlsConnect,
    ) -> Result<Session, PostgresError> {
        let (client, mut connection) = url.config.connect(tls.clone()).await?;
        let unconfirmed = Arc::new(AtomicBool::new(false));
        let warned = unconfirmed.clone();
        let driver = tokio::spawn(async move {
            let mut next = std::pin::pin!(futures::stream::poll_fn(
                |context| connection.poll_message(context)
            ));
            while let Some(message) = futures::StreamExt::next(&mut next).await {
                match message {
                    Ok(AsyncMessage::Notice(it))
                        if it.message().contains("synchronous replication") =>
                    {
                        warned.store(true, Ordering::SeqCst);
                    }
                    Ok(AsyncMessage::Notice(it)) => tracing::debug!(notice = it.message()),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "a connection to PostgreSQL ended");
                        return;
                    }
                }
            }
        });
        client.batch_execute(SESSION).await?;
        Ok(Session { client, unconfirmed, driver })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::PostgresUrl;

    #[test]
    fn an_address_names_a_host_and_a_database_and_never_shows_its_password() {
        for wrong in ["", "postgres://", "postgres://u:hunter2@h", "x://u:hunter2@h/d", "dbname=d"]
        {
            let problem = PostgresUrl::parse(wrong).unwrap_err().to_string();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let url = |text: &str| PostgresUrl::parse(text).unwrap();
        let shown = format!("{:?}", url("postgres://u:hunter2@h1:1,h2:2/d"));
        assert!(!shown.contains("hunter2") && shown.contains("h2"), "{shown}");
        assert!(url("postgres://u@127.0.0.1:5432/d").is_private());
        assert!(url("postgres://u@db.example/d?sslmode=require").is_private());
        assert!(!url("postgres://u@127.0.0.1,db.example/d").is_private());
    }
}
