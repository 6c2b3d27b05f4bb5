//! The network fails in the middle of a COMMIT: the answer is that nobody knows, and reading tells.

use crate::desk::Desk;
use crate::proxy::{Cut, Proxy};
use crate::truth::{Book, whole};
use crate::{POSTGRES, database, open, run};
use app::{CommitError, Store};
use std::time::Duration;

async fn cut(kind: Cut, rounds: usize) {
    let database = database();
    let proxy = Proxy::to(POSTGRES.port()).await;
    let store = open(&proxy.url(&database)).await;
    let direct = open(&POSTGRES.url(&database)).await;
    let (desk, book) = (Desk::new("1900000109", 0), Book::default());
    for round in 0..rounds {
        let (before, commit) = whole(&desk, &format!("B{round}"));
        book.note(before, &store.commit(commit).await);
        proxy.cut_next(kind);
        let (serial, commit) = whole(&desk, &format!("T{round}"));
        let again = commit.clone();
        let answer = store.commit(commit).await;
        assert!(matches!(answer, Err(CommitError::Unknown(_))), "{kind:?}: {answer:?}");
        book.note(serial, &answer);
        // Reading tells, through the same store.
        let there = store.payment(&desk.merchant, serial).await.unwrap().is_some();
        assert_eq!(there, matches!(kind, Cut::After | Cut::SilentAfter), "{kind:?}");
        // Handed in again it is done once, whatever had become of it: even while the server still
        // waits for the rest of what was cut.
        let answer = store.commit(again).await;
        match there {
            true => assert!(matches!(answer, Err(CommitError::Exists(_))), "{answer:?}"),
            false => assert_eq!(answer, Ok(())),
        }
        let (after, commit) = whole(&desk, &format!("A{round}"));
        book.note(after, &store.commit(commit).await);
    }
    assert_eq!(usize::try_from(proxy.cuts()).unwrap(), rounds);
    assert_eq!((book.done(), book.unknown().len()), (2 * rounds, rounds));
    book.check(&direct, &[&desk.merchant]).await;
}

#[test]
fn a_commit_whose_answer_is_lost_is_unknown_and_there() {
    run(cut(Cut::After, 20));
}

#[test]
fn a_commit_that_is_lost_is_unknown_and_not_there() {
    run(cut(Cut::Before, 20));
}

#[test]
fn silence_after_a_commit_ends() {
    run(cut(Cut::SilentAfter, 1));
}

#[test]
fn silence_before_a_commit_ends() {
    run(cut(Cut::SilentBefore, 1));
}

/// Neither commits nor reads nor leases wait for ever, and all is well when the network is.
#[test]
fn a_silent_network_is_an_error_and_then_over() {
    run(async {
        let database = database();
        let proxy = Proxy::to(POSTGRES.port()).await;
        let store = open(&proxy.url(&database)).await;
        let (desk, book) = (Desk::new("1900000109", 0), Book::default());
        let node = store.enroll(None, "one", 1_000_000).await.unwrap().unwrap();
        let (serial, commit) = whole(&desk, "T0");
        book.note(serial, &store.commit(commit).await);
        proxy.silence(true);
        let (lost, commit) = whole(&desk, "T1");
        let all = async {
            let (answer, read, lease) = tokio::join!(
                store.commit(commit),
                store.payment(&desk.merchant, serial),
                store.renew(&node, 1_000_000),
            );
            assert!(read.is_err() && lease.is_err(), "{read:?}, {lease:?}");
            answer
        };
        // A net for what would hang.
        let answer = tokio::time::timeout(Duration::from_secs(120), all).await.unwrap();
        book.note(lost, &answer);
        assert_eq!(book.failed(), 1);
        proxy.silence(false);
        assert!(store.payment(&desk.merchant, serial).await.unwrap().is_some());
        assert!(store.renew(&node, 1_000_000).await.unwrap());
        let (serial, commit) = whole(&desk, "T2");
        book.note(serial, &store.commit(commit).await);
        assert_eq!(book.done(), 2);
        book.check(&store, &[&desk.merchant]).await;
    });
}
