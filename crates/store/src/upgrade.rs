//! An upgrade while the version before still serves, on both engines: the statements of the version
//! before run before, during and after a second process takes the newest steps.
//!
//! Whoever adds a step adds to `BEFORE` what the version before it writes and reads, as it stood in
//! its source. A step that leaves that version behind says so with `oldest`, and the test follows.

use crate::migrations::{MigrationError, STEPS, VERSION};
use crate::postgres::migrate_steps as migrate_postgres;
use crate::sqlite::{migrate_steps as migrate_sqlite, open_writer};
use crate::{PostgresStore, PostgresUrl, SqliteStore};
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use testkit::postgres::PostgresServer;

/// What a version wrote and read, in the dialect of [`crate::query`]: `?1` is a number that is new
/// each time. Each runs as a transaction of its own; the reads must find one row.
struct Before {
    version: u32,
    writes: &'static [&'static str],
    reads: &'static [&'static str],
}

const BEFORE: [Before; 1] = [Before {
    version: 2,
    writes: &[
        "INSERT INTO merchant (id, version, body) VALUES ('m' || CAST(?1 AS TEXT), 1, '{}')",
        "UPDATE merchant SET version = 2, body = '{}' WHERE id = 'm' || CAST(?1 AS TEXT)",
        "INSERT INTO payment (merchant, serial, version, state, paid_ms, body, order_no, \
         amount_minor, currency, created_ms) VALUES ('m', 's' || CAST(?1 AS TEXT), 1, 'NOTPAY', NULL, \
         '{}', 'o' || CAST(?1 AS TEXT), 100, 'CNY', 1)",
        "UPDATE payment SET version = 2, state = 'SUCCESS', paid_ms = 5, body = '{}' \
         WHERE merchant = 'm' AND serial = 's' || CAST(?1 AS TEXT)",
        "INSERT INTO refund (merchant, serial, version, state, body, refund_no, payment, \
         amount_minor, created_ms) VALUES ('m', 's' || CAST(?1 AS TEXT), 1, 'PROCESSING', '{}', \
         'r' || CAST(?1 AS TEXT), 's' || CAST(?1 AS TEXT), 7, 1)",
        "UPDATE refund SET version = 2, state = 'SUCCESS', body = '{}' \
         WHERE merchant = 'm' AND serial = 's' || CAST(?1 AS TEXT)",
        "INSERT INTO notification (merchant, id, version, state, body, payment) \
         VALUES ('m', 'n' || CAST(?1 AS TEXT), 1, 'pending', '{}', 's' || CAST(?1 AS TEXT))",
        "UPDATE notification SET version = 2, state = 'done', body = '{}' \
         WHERE merchant = 'm' AND id = 'n' || CAST(?1 AS TEXT)",
        "INSERT INTO notification_try (merchant, notification, number, at_ms, status, duration_ms, \
         body_head, error) VALUES ('m', 'n' || CAST(?1 AS TEXT), 1, 1, 200, 3, '', NULL) \
         ON CONFLICT (merchant, notification, number) DO UPDATE SET at_ms = 1, status = 200, \
         duration_ms = 3, body_head = '', error = NULL",
        "INSERT INTO posting (merchant, payment, subject, event, line, journal, at_ms, debit, \
         credit, amount_minor) VALUES ('m', 's' || CAST(?1 AS TEXT), 'a', 'paid', 0, 'j', 1, 'd', \
         'c', 100)",
        "INSERT INTO intent (merchant, kind, subject, due_ms, tries, holder) \
         VALUES ('m', 'heal', 's' || CAST(?1 AS TEXT), 1, 0, NULL) \
         ON CONFLICT (merchant, kind, subject) DO UPDATE SET due_ms = 1, tries = 0, holder = NULL",
        "UPDATE intent SET holder = 'h' WHERE (merchant, kind, subject) IN (SELECT merchant, kind, \
         subject FROM intent AS it WHERE subject = 's' || CAST(?1 AS TEXT) AND holder IS NULL)",
        "DELETE FROM intent WHERE merchant = 'm' AND kind = 'heal' \
         AND subject = 's' || CAST(?1 AS TEXT)",
        "INSERT INTO balance (merchant, account, stripe, debit_minor, credit_minor) \
         VALUES ('m', 'a', 0, 100, ?1 - ?1) ON CONFLICT (merchant, account, stripe) DO UPDATE \
         SET debit_minor = balance.debit_minor + 100",
        "INSERT INTO node (number, holder, alive_ms) VALUES (7, 'h', ?1) \
         ON CONFLICT (number) DO UPDATE SET holder = 'h', alive_ms = ?1",
    ],
    reads: &[
        "SELECT version FROM payment WHERE merchant = 'm' AND serial = 's' || CAST(?1 AS TEXT)",
        "SELECT merchant, serial, order_no, state, amount_minor, currency, created_ms, body, version \
         FROM payment WHERE merchant = 'm' AND order_no = 'o' || CAST(?1 AS TEXT)",
        "SELECT version FROM refund WHERE merchant = 'm' AND refund_no = 'r' || CAST(?1 AS TEXT)",
        "SELECT debit_minor FROM balance WHERE merchant = 'm' AND account = 'a' AND ?1 > 0",
    ],
}];

fn steps_of(version: u32) -> &'static [crate::migrations::Step] {
    &STEPS[..usize::try_from(version).unwrap()]
}

/// The oldest version that may still work once all steps are taken.
fn oldest() -> u32 {
    STEPS.iter().map(|it| it.oldest).max().unwrap()
}

/// A process of each version meets the newest schema: those from `oldest` on go on, others are told.
#[track_caller]
fn check_admission(version: u32, met: Result<u32, MigrationError>) {
    match met {
        Ok(taken) => assert!(taken == 0 && version >= oldest(), "version {version} went on"),
        Err(MigrationError::Newer { found }) => {
            assert!(found == VERSION && version < oldest(), "version {version} was refused");
        }
        Err(other) => panic!("{other}"),
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("feiqian-upgrade-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn the_version_before_is_known() {
    let known = BEFORE.iter().any(|it| it.version + 1 == VERSION);
    assert!(known, "add the statements of version {} to BEFORE", VERSION - 1);
}

fn serve_sqlite(connection: &Connection, before: &Before, number: i64) {
    for sql in before.writes {
        let run = connection.prepare_cached(sql).and_then(|mut it| it.execute([number]));
        run.unwrap_or_else(|error| panic!("version {}: {sql}: {error}", before.version));
    }
    for sql in before.reads {
        let mut statement = connection.prepare_cached(sql).unwrap();
        assert!(statement.exists([number]).unwrap(), "version {}: {sql}", before.version);
    }
}

#[test]
fn sqlite_is_upgraded_while_the_version_before_serves() {
    for before in BEFORE.iter().filter(|it| it.version >= oldest()) {
        let folder = Folder::new();
        let path = folder.0.join("feiqian.db");
        let mut old = open_writer(&path).unwrap();
        assert_eq!(migrate_sqlite(&mut old, steps_of(before.version)).unwrap(), before.version);
        serve_sqlite(&old, before, 1);
        let upgraded = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let serving = scope.spawn(move || {
                let (mut number, mut after) = (2, 0);
                while after < 20 {
                    after += i64::from(upgraded.load(Ordering::SeqCst));
                    serve_sqlite(&old, before, number);
                    number += 1;
                }
                number - 1
            });
            drop(SqliteStore::open(&path).unwrap());
            upgraded.store(true, Ordering::SeqCst);
            let last = serving.join().unwrap();
            let mut new = open_writer(&path).unwrap();
            let sql = "SELECT COUNT(*), SUM(amount_minor) FROM payment WHERE state = 'SUCCESS'";
            let found: (i64, i64) =
                new.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(found, (last, 100 * last), "nothing of the old version is lost");
            for version in 1..=VERSION {
                check_admission(version, migrate_sqlite(&mut new, steps_of(version)));
            }
        });
    }
}

async fn serve_postgres(client: &tokio_postgres::Client, prepared: &Prepared, number: i64) {
    for it in &prepared.writes {
        client.execute(it, &[&number]).await.unwrap();
    }
    for it in &prepared.reads {
        assert_eq!(client.query(it, &[&number]).await.unwrap().len(), 1);
    }
}

/// Prepared once, as a process does: a statement must survive that its tables change under it.
struct Prepared {
    writes: Vec<tokio_postgres::Statement>,
    reads: Vec<tokio_postgres::Statement>,
}

async fn prepare(client: &tokio_postgres::Client, before: &Before) -> Prepared {
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for (list, into) in [(before.writes, &mut writes), (before.reads, &mut reads)] {
        for sql in list {
            let sql = sql.replace("?1", "$1");
            let types = [tokio_postgres::types::Type::INT8];
            let statement = client.prepare_typed(&sql, &types).await;
            into.push(statement.unwrap_or_else(|error| panic!("{sql}: {error:?}")));
        }
    }
    Prepared { writes, reads }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_upgraded_while_the_version_before_serves() {
    let server = PostgresServer::quick();
    for before in BEFORE.iter().filter(|it| it.version >= oldest()) {
        let address = server.create(&format!("version_{}", before.version));
        let url = PostgresUrl::parse(&address).unwrap();
        let taken = migrate_postgres(&url, steps_of(before.version)).await.unwrap();
        assert_eq!(taken, before.version);
        let (client, connection) =
            tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let prepared = prepare(&client, before).await;
        serve_postgres(&client, &prepared, 1).await;
        let upgraded = std::sync::Arc::new(AtomicBool::new(false));
        let told = upgraded.clone();
        let serving = tokio::spawn(async move {
            let (mut number, mut after) = (2, 0);
            while after < 20 {
                after += i64::from(told.load(Ordering::SeqCst));
                serve_postgres(&client, &prepared, number).await;
                number += 1;
            }
            number - 1
        });
        drop(PostgresStore::open(&url).await.unwrap());
        upgraded.store(true, Ordering::SeqCst);
        let last = serving.await.unwrap();
        let sql =
            "SELECT COUNT(*) || ' ' || SUM(amount_minor) FROM payment WHERE state = 'SUCCESS'";
        let found = server.psql(&format!("version_{}", before.version), sql);
        assert_eq!(found, format!("{last} {}", 100 * last), "nothing of the old version is lost");
        for version in 1..=VERSION {
            check_admission(version, migrate_postgres(&url, steps_of(version)).await);
        }
    }
}
