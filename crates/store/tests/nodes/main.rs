//! Several processes on one PostgreSQL, and everything that can go wrong between them and it.
//!
//! A commit ends as done, as a named refusal, or as unknown. Afterwards the database is read: what
//! was done is there, once and in whole; what was refused is not; what is unknown is either.

#[path = "../contract/desk.rs"]
#[allow(dead_code, reason = "this suite needs less of it than the contract")]
mod desk;
mod faults;
mod full;
mod locks;
mod proxy;
mod silence;
mod truth;
mod writers;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use store::{PostgresStore, PostgresUrl};
use testkit::postgres::PostgresServer;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(4).enable_all().build().unwrap()
});

fn run<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

/// One server for tests that do it no harm; each has a database of its own.
static POSTGRES: LazyLock<PostgresServer> = LazyLock::new(PostgresServer::quick);
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn database() -> String {
    let name = format!("nodes_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    POSTGRES.create(&name);
    name
}

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&PostgresUrl::parse(url).unwrap()).await.unwrap()
}

/// A session of somebody else.
async fn stranger(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
