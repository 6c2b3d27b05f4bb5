//! Either engine, chosen by configuration.

use crate::database::{Database, Front};
use crate::figures::Figures;
use crate::postgres::{PostgresFront, PostgresUrl};
use crate::query::Query;
use crate::rows::Prepared;
use crate::sqlite::{OpenError, ThreadFront};
use app::{CommitError, StoreError};
use std::path::PathBuf;

/// Where a store is.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a process has one")]
pub enum Address {
    /// A SQLite file.
    File(PathBuf),
    Postgres(PostgresUrl),
}

pub enum AnyFront {
    Sqlite(ThreadFront),
    Postgres(PostgresFront),
}

impl Database<AnyFront> {
    /// Opens the store, or makes it, and brings its schema up to date.
    pub async fn open(address: &Address) -> Result<Database<AnyFront>, OpenError> {
        Ok(Database::new(match address {
            Address::File(path) => AnyFront::Sqlite(ThreadFront::open(path)?),
            Address::Postgres(url) => AnyFront::Postgres(PostgresFront::open(url).await?),
        }))
    }
}

impl Front for AnyFront {
    fn is_distributed(&self) -> bool {
        match self {
            AnyFront::Sqlite(it) => it.is_distributed(),
            AnyFront::Postgres(it) => it.is_distributed(),
        }
    }

    fn figures(&self) -> Figures {
        match self {
            AnyFront::Sqlite(it) => it.figures(),
            AnyFront::Postgres(it) => it.figures(),
        }
    }

    async fn commit(&self, commit: Prepared) -> Result<(), CommitError> {
        match self {
            AnyFront::Sqlite(it) => it.commit(commit).await,
            AnyFront::Postgres(it) => it.commit(commit).await,
        }
    }

    async fn read<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        match self {
            AnyFront::Sqlite(it) => it.read(query).await,
            AnyFront::Postgres(it) => it.read(query).await,
        }
    }

    async fn change<T: Send + 'static>(&self, query: Query<T>) -> Result<Vec<T>, StoreError> {
        match self {
            AnyFront::Sqlite(it) => it.change(query).await,
            AnyFront::Postgres(it) => it.change(query).await,
        }
    }
}
