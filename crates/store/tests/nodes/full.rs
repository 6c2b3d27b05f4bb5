//! The disk is full. A limit on the size of files stands for it: PostgreSQL cannot tell them apart.

use crate::desk::{Desk, NOW};
use crate::truth::{Book, whole};
use crate::{open, run, stranger};
use app::{CommitError, Store, Try};
use std::cell::Cell;
use std::process::Command;
use testkit::postgres::PostgresServer;

/// More than a segment of the log, so that only tables meet it.
const MOST: u64 = 20 << 20;

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let server = PostgresServer::durable();
    let url = server.create("full");
    run(async {
        let store = open(&url).await;
        let (desk, book) = (Desk::new("1900000109", 0), Book::default());
        let pid = std::fs::read_to_string(server.data().join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        // Only the owner of a process may limit it.
        let mut limit = Command::new("sh");
        limit.args([
            "-c",
            "[ $(id -u) != 0 ] || set -- runuser -u postgres -- \"$@\"; \"$@\"",
            "sh",
        ]);
        limit.args(["prlimit", "--pid", &pid, &format!("--fsize={MOST}")]);
        assert!(limit.status().unwrap().success());
        // Backends inherit the limit when they start.
        let other = stranger(&url).await;
        other
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = 'full' AND pid <> pg_backend_pid(); \
                 CREATE TABLE ballast AS SELECT 1",
            )
            .await
            .unwrap();
        // Nearly full: what we do not need takes the room.
        let fill = "INSERT INTO notification_try SELECT 'nobody', 'x' || n, 1, 0, NULL, 0, \
                    REPEAT(MD5(n::TEXT), 60), NULL FROM GENERATE_SERIES(1, 2000) AS n";
        while other.batch_execute(fill).await.is_ok() {}
        let fill = fill.replace("2000", "5").replace("'x'", "'y' || RANDOM()");
        while other.batch_execute(&fill).await.is_ok() {}
        let number = Cell::new(0);
        let next = async |refused: bool| {
            number.set(number.get() + 1);
            let (serial, mut commit) = whole(&desk, &format!("T{}", number.get()));
            commit.tries.push(Try {
                merchant: desk.merchant.clone(),
                notification: commit.notifications[0].value.id,
                number: 1,
                at: NOW,
                status: Some(500),
                duration_ms: 1,
                body_head: "no".repeat(2_000),
                error: None,
            });
            let answer = store.commit(commit).await;
            book.note(serial, &answer);
            if refused {
                let named = |it: &CommitError| it.to_string().contains("could not extend file");
                assert!(answer.as_ref().is_err_and(named), "{answer:?}");
            }
            answer.is_ok()
        };
        while next(false).await {}
        for _ in 0..10 {
            next(true).await;
        }
        // Reading goes on.
        assert!(!store.balances().await.unwrap().is_empty() || number.get() <= 11);
        other
            .batch_execute("DELETE FROM notification_try WHERE merchant = 'nobody'")
            .await
            .unwrap();
        other.batch_execute("VACUUM notification_try").await.unwrap();
        for _ in 0..20 {
            assert!(next(false).await);
        }
        book.check(&store, &[&desk.merchant]).await;
    });
}
