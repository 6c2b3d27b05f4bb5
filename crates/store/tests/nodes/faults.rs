//! The server fails while writers write: connections end, it restarts, it crashes, its owner sets
//! limits, others hold locks.

use crate::desk::Desk;
use crate::truth::{Book, whole};
use crate::{POSTGRES, database, open, run, stranger};
use app::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use store::PostgresStore;
use testkit::postgres::PostgresServer;
use tokio::task::JoinHandle;

const MERCHANTS: [&str; 4] = ["1900000109", "1900000110", "1900000111", "1900000112"];
const CLERKS: usize = 16;

/// Writers that go on whatever happens, through two stores.
struct Office {
    book: Arc<Book>,
    desks: Arc<Vec<Desk>>,
    over: Arc<AtomicBool>,
    clerks: Vec<JoinHandle<()>>,
}

impl Office {
    async fn open(url: &str) -> Office {
        let stores = [Arc::new(open(url).await), Arc::new(open(url).await)];
        let desks = (0..).zip(MERCHANTS).map(|(node, it)| Desk::new(it, node));
        let desks: Arc<Vec<_>> = Arc::new(desks.collect());
        let (book, over) = (Arc::<Book>::default(), Arc::<AtomicBool>::default());
        let next = Arc::new(AtomicU32::new(0));
        let clerk = |index: usize| {
            let (store, book, over) = (stores[index % 2].clone(), book.clone(), over.clone());
            let (desks, next) = (desks.clone(), next.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let desk = &desks[usize::try_from(number).unwrap() % desks.len()];
                    let (serial, commit) = whole(desk, &format!("T{number}"));
                    let answer = store.commit(commit).await;
                    book.note(serial, &answer);
                    if answer.is_err() {
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                }
            })
        };
        let clerks = (0..CLERKS).map(clerk).collect();
        Office { book, desks, over, clerks }
    }

    /// Waits until that many more commits were done: through the same stores, so they recovered.
    async fn progress(&self, more: usize) {
        let enough = self.book.done() + more;
        while self.book.done() < enough {
            tokio::task::yield_now().await;
            assert!(!self.clerks.iter().any(JoinHandle::is_finished), "a clerk has gone home");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn close(self, store: &PostgresStore) {
        self.over.store(true, Ordering::SeqCst);
        for clerk in self.clerks {
            clerk.await.unwrap();
        }
        let merchants: Vec<_> = self.desks.iter().map(|it| &it.merchant).collect();
        self.book.check(store, &merchants).await;
    }
}

#[test]
fn connections_are_ended() {
    run(async {
        let database = database();
        let url = POSTGRES.url(&database);
        let office = Office::open(&url).await;
        let admin = stranger(&POSTGRES.url("postgres")).await;
        for _ in 0..25 {
            office.progress(7).await;
            let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE datname = $1";
            admin.query_one(end, &[&database]).await.unwrap();
        }
        office.progress(50).await;
        office.close(&open(&url).await).await;
    });
}

#[test]
fn statements_are_cancelled() {
    run(async {
        let database = database();
        let url = POSTGRES.url(&database);
        let office = Office::open(&url).await;
        let admin = stranger(&POSTGRES.url("postgres")).await;
        for _ in 0..60 {
            office.progress(3).await;
            let end = "SELECT COUNT(pg_cancel_backend(pid)) FROM pg_stat_activity \
                       WHERE datname = $1";
            admin.query_one(end, &[&database]).await.unwrap();
        }
        office.progress(50).await;
        office.close(&open(&url).await).await;
    });
}

#[test]
fn the_server_restarts_and_crashes() {
    let mut server = PostgresServer::durable();
    let url = server.create("faults");
    let office = run(Office::open(&url));
    for round in 0..6 {
        run(office.progress(40));
        // SIGKILL to all of it, or an orderly stop that ends connections.
        if round % 2 == 0 {
            server.crash()
        } else {
            server.stop()
        }
        let failed = office.book.failed();
        run(async {
            while office.book.failed() == failed {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        server.run();
    }
    run(async {
        office.progress(100).await;
        office.close(&open(&url).await).await;
    });
}

/// What the owner of the server sets for everyone does not cut our transactions short, nor change
/// what they see.
#[test]
fn defaults_of_the_role_do_not_matter() {
    run(async {
        let database = database();
        let url = POSTGRES.url(&database);
        let admin = stranger(&POSTGRES.url("postgres")).await;
        for (name, value) in [
            ("statement_timeout", "'50ms'"),
            ("lock_timeout", "'50ms'"),
            ("idle_in_transaction_session_timeout", "'50ms'"),
            ("default_transaction_isolation", "'serializable'"),
            ("synchronous_commit", "off"),
            ("timezone", "'Asia/Kathmandu'"),
        ] {
            let set = format!("ALTER ROLE feiqian IN DATABASE {database} SET {name} = {value}");
            admin.batch_execute(&set).await.unwrap();
        }
        let office = Office::open(&url).await;
        let other = stranger(&url).await;
        other
            .batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            .await
            .unwrap();
        for _ in 0..3 {
            office.progress(20).await;
            // Held longer than those timeouts allow.
            let hold = "BEGIN; LOCK TABLE balance; SELECT pg_sleep(0.3); COMMIT";
            other.batch_execute(hold).await.unwrap();
        }
        office.progress(20).await;
        assert_eq!(office.book.failed(), 0);
        office.close(&open(&url).await).await;
    });
}

/// Somebody else's transaction locks our rows in the other order: whoever the server sacrifices,
/// our commits are done.
#[test]
fn a_dead_lock_with_a_stranger_is_survived() {
    run(async {
        let database = database();
        let url = POSTGRES.url(&database);
        let store = Arc::new(open(&url).await);
        let (desk, book) = (Desk::new(MERCHANTS[0], 0), Book::default());
        let (first, commit) = whole(&desk, "T0");
        book.note(first, &store.commit(commit).await);
        let watch = stranger(&url).await;
        for round in 1..=2 {
            let other = stranger(&url).await;
            // It has more patience than we: the server's check finds us first.
            other.batch_execute("SET deadlock_timeout = '30s'").await.unwrap();
            other.batch_execute("BEGIN; SELECT 1 FROM balance FOR UPDATE").await.unwrap();
            let paid = store.payment(&desk.merchant, first).await.unwrap().unwrap();
            let (serial, mut commit) = whole(&desk, &format!("T{round}"));
            commit.payments.push(app::Put { value: paid.value, expected: paid.version });
            let waiting = tokio::spawn({
                let store = store.clone();
                async move { store.commit(commit).await }
            });
            let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                         AND datname = CURRENT_DATABASE()";
            while watch.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::task::yield_now().await;
            }
            other.batch_execute("SELECT 1 FROM payment FOR UPDATE; COMMIT").await.unwrap();
            let answer = waiting.await.unwrap();
            assert_eq!(answer, Ok(()));
            book.note(serial, &answer);
        }
        let count = "SELECT deadlocks FROM pg_stat_database WHERE datname = CURRENT_DATABASE()";
        drop(store);
        while watch.query_one(count, &[]).await.unwrap().get::<_, i64>(0) < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        book.check(&open(&url).await, &[&desk.merchant]).await;
    });
}

/// A backend that stands still in the middle of everything, and goes on later.
#[test]
fn a_backend_stands_still() {
    run(async {
        let database = database();
        let url = POSTGRES.url(&database);
        let office = Office::open(&url).await;
        office.progress(20).await;
        let admin = stranger(&POSTGRES.url("postgres")).await;
        let list = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query <> ''";
        let rows = admin.query(list, &[&database]).await.unwrap();
        let pids: Vec<String> = rows.iter().map(|it| it.get::<_, i32>(0).to_string()).collect();
        let signal = |name: &str| {
            let mut kill = std::process::Command::new("kill");
            assert!(kill.arg(name).args(&pids).status().unwrap().success());
        };
        signal("-STOP");
        let failed = office.book.failed();
        while office.book.failed() == failed {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        signal("-CONT");
        office.progress(50).await;
        office.close(&open(&url).await).await;
    });
}
