//! The engine under a benchmark: a SQLite file, or a PostgreSQL server of its own that flushes as
//! one in production does.

use super::disk::Workplace;
use crate::cli::Fault;
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use store::{Address, PostgresUrl};
use testkit::postgres::PostgresServer;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    Sqlite,
    Postgres,
}

pub enum Engine {
    Sqlite(PathBuf),
    Postgres(PostgresServer),
}

impl Engine {
    pub fn start(kind: StoreKind, place: &Workplace) -> Result<Engine, Fault> {
        let folder = place.folder().canonicalize()?;
        Ok(match kind {
            StoreKind::Sqlite => Engine::Sqlite(folder),
            StoreKind::Postgres => Engine::Postgres(PostgresServer::start_in(
                &folder.join("postgres"),
                testkit::postgres::DURABLE,
            )),
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Engine::Sqlite(_) => "sqlite",
            Engine::Postgres(_) => "postgres",
        }
    }

    /// A new, empty place for a store.
    pub fn address(&self, name: &str) -> Result<Address, Fault> {
        Ok(match self {
            Engine::Sqlite(folder) => Address::File(folder.join(format!("{name}.db"))),
            Engine::Postgres(server) => {
                Address::Postgres(PostgresUrl::parse(&server.create(name))?)
            }
        })
    }

    /// Lets an installation that was just prepared use this engine.
    pub fn put_under(&self, installation: &Path, name: &str) -> Result<(), Fault> {
        if let Engine::Postgres(server) = self {
            let file = installation.join(crate::config::FILE_NAME);
            let url = format!("[store]\nurl = \"{}\"\n", server.create(name));
            let text = std::fs::read_to_string(&file)?;
            std::fs::write(&file, text.replacen("[store]\n", &url, 1))?;
        }
        Ok(())
    }
}
