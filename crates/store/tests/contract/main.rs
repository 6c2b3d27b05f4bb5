//! What every implementation of the `Store` port must do: one suite, run on each of them.
//!
//! A further engine joins with one line at the end of this file. What only a durable file can
//! show (killed writers, full disks, reopening) is in `durability`.

mod clauses;
mod desk;
mod dump;
mod durability;
mod entities;
mod leases;
mod workload;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use store::{PostgresStore, PostgresUrl};
use testkit::postgres::PostgresServer;
use tokio::runtime::Runtime;

/// A folder of this process that goes when it is dropped.
struct Folder(PathBuf);

static FOLDERS: AtomicU32 = AtomicU32::new(0);

impl Folder {
    fn new() -> Folder {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("feiqian-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Several threads, so that races are races; one runtime, since stores have tasks of their own.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(4).enable_all().build().unwrap()
});

fn run<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

/// One real server for all tests of this process; each store is a database of its own.
static POSTGRES: LazyLock<PostgresServer> = LazyLock::new(PostgresServer::quick);

fn postgres(_: &Folder, _: u32) -> PostgresStore {
    run(PostgresStore::open(&postgres_url())).unwrap()
}

/// As on a database that is distributed by merchant.
fn by_merchant(_: &Folder, _: u32) -> PostgresStore {
    run(PostgresStore::open(&postgres_url().by_merchant())).unwrap()
}

fn postgres_url() -> PostgresUrl {
    let database = format!("test_{}", FOLDERS.fetch_add(1, Ordering::Relaxed));
    PostgresUrl::parse(&POSTGRES.create(&database)).unwrap()
}

/// Gives fresh, empty stores, each with a number of its own.
fn fresh<S>(folder: &Folder, make: fn(&Folder, u32) -> S) -> impl Fn() -> S {
    let next = Cell::new(0);
    move || make(folder, next.replace(next.get() + 1))
}

/// The whole contract, a test for each clause, on the stores that `make` gives.
macro_rules! suite {
    ($name:ident: $make:expr) => {
        suite!($name: $make =>
            clauses::an_empty_store_has_nothing,
            clauses::a_refused_commit_writes_nothing,
            clauses::one_bad_commit_in_a_group_fails_alone,
            clauses::a_journal_is_booked_once,
            clauses::intents_are_scheduled_settled_and_finished,
            clauses::due_intents_come_in_their_order,
            clauses::periods_take_their_start_and_leave_their_end,
            clauses::audits_page_through_all_payments,
            clauses::notifications_are_listed_newest_first,
            clauses::of_many_racing_for_an_account_just_enough_win,
            clauses::of_many_racing_for_an_order_one_wins,
            clauses::commits_take_effect_as_handed_in,
            clauses::a_read_sees_what_was_answered,
            leases::living_nodes_have_numbers_of_their_own,
            leases::a_number_is_taken_over_when_its_lease_ran_out,
            leases::claims_come_in_order_and_no_more_than_asked,
            leases::no_intent_has_two_holders,
            leases::claims_of_the_dead_come_back,
            leases::only_the_holder_settles,
            leases::the_pulse_counts_what_waits,
            leases::a_try_may_say_anything,
            entities::everything_reads_back,
            workload::any_workload_agrees_with_the_model,
        );
    };
    ($name:ident: $make:expr => $($part:ident::$clause:ident,)+) => {
        mod $name {
            $(
                #[test]
                fn $clause() {
                    let folder = crate::Folder::new();
                    crate::$part::$clause(crate::fresh(&folder, $make));
                }
            )+
        }
    };
}

suite!(sqlite_file: |folder, number| {
    store::SqliteStore::open(&folder.file(&format!("{number}.db"))).unwrap()
});
suite!(sqlite_memory: |_, _| store::MemoryStore::in_memory().unwrap());
suite!(postgres: crate::postgres);
suite!(postgres_by_merchant: crate::by_merchant);

#[test]
fn a_database_without_citus_is_not_distributed_and_says_so() {
    let refused = run(store::distribute(&postgres_url())).unwrap_err();
    assert!(matches!(refused, store::DistributeError::NoCitus), "{refused}");
    assert!(refused.to_string().contains("CREATE EXTENSION citus"), "{refused}");
}
