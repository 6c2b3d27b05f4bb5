//! Two writers that wait for each other's locks, at the worst moment.

use crate::desk::{Desk, cny, put};
use crate::truth::balanced;
use crate::{POSTGRES, database, open, run, stranger};
use app::{Commit, CommitError, Store};
use kernel::{Currency, SerialKind};
use ledger::{Account, AccountKind, Event, Posting};
use std::sync::Arc;

fn moved(from: &Account, to: &Account, minor: i64) -> Posting {
    Posting { debit: from.clone(), credit: to.clone(), amount: cny(minor) }
}

/// Waits until so many sessions wait for locks.
async fn waiting_for_locks(watch: &tokio_postgres::Client, count: i64) {
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND datname = CURRENT_DATABASE()";
    while watch.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) < count {
        tokio::task::yield_now().await;
    }
}

/// A draw that waited for a lock on another account does not decide on what it saw before: others
/// may have added on a new stripe and drawn from that meanwhile.
#[test]
fn a_draw_that_waited_looks_again() {
    run(async {
        let database = database();
        let url = POSTGRES.url(&database);
        let (one, two) = (Arc::new(open(&url).await), open(&url).await);
        let other = stranger(&url).await;
        let desk = Desk::new("1900000109", 0);
        let order = desk.order("T1", 100);
        let account = |kind| Account::merchant(&desk.merchant, kind, Currency::Cny);
        let cost = Account::platform(AccountKind::MarketingCost, Currency::Cny);
        let first = account(AccountKind::MerchantAvailable);
        let second = account(AccountKind::MerchantPending);
        assert!(first.to_string() < second.to_string(), "locks are taken in this order");
        let book = |postings| {
            let subject = desk.serial(SerialKind::Refund);
            let journal = desk.journal(&order, subject, Event::RefundAccepted, postings);
            Commit { journals: vec![journal], ..Commit::default() }
        };
        let give = vec![moved(&cost, &first, 100), moved(&cost, &second, 101)];
        one.commit(book(give)).await.unwrap();
        // Something to lock on both, and the last of all stripes for what is there.
        let draws = vec![moved(&first, &cost, 1), moved(&second, &cost, 1)];
        one.commit(book(draws)).await.unwrap();
        other.batch_execute("UPDATE balance SET stripe = 99 WHERE stripe > 0").await.unwrap();
        other
            .batch_execute(
                "BEGIN; SELECT 1 FROM balance WHERE account LIKE '%available%' FOR UPDATE",
            )
            .await
            .unwrap();
        let both = book(vec![moved(&first, &cost, 1), moved(&second, &cost, 100)]);
        let waiting = tokio::spawn({
            let one = one.clone();
            async move { one.commit(both).await }
        });
        waiting_for_locks(&stranger(&url).await, 1).await;
        two.commit(book(vec![moved(&cost, &second, 50)])).await.unwrap();
        two.commit(book(vec![moved(&second, &cost, 120)])).await.unwrap();
        other.batch_execute("COMMIT").await.unwrap();
        let answer = waiting.await.unwrap();
        assert!(matches!(answer, Err(CommitError::Books(_))), "30 are left: {answer:?}");
        balanced(&two).await;
        // What is there can be drawn, whichever stripe it came in on; refusals leave nothing.
        one.commit(book(vec![moved(&second, &cost, 30)])).await.unwrap();
        let empty = account(AccountKind::MerchantFrozen);
        let answers = tokio::join!(
            one.commit(book(vec![moved(&empty, &cost, 1)])),
            one.commit(book(vec![moved(&cost, &second, 7)])),
        );
        assert!(matches!(answers, (Err(CommitError::Books(_)), Ok(()))), "{answers:?}");
        balanced(&two).await;
    });
}

/// Whoever is first with one of them gets both, and nobody is sacrificed.
#[test]
fn two_who_insert_the_same_numbers_do_not_lock_each_other_out() {
    run(async {
        let database = database();
        let url = POSTGRES.url(&database);
        let (one, two) = (open(&url).await, open(&url).await);
        let (other, watch) = (stranger(&url).await, stranger(&url).await);
        let (desk, rival) = (Desk::new("1900000109", 0), Desk::new("1900000109", 1));
        let orders = |desk: &Desk, numbers: &[&str]| Commit {
            payments: numbers.iter().map(|it| put(desk.order(it, 100), 0)).collect(),
            ..Commit::default()
        };
        // Somebody is about to use the number in the middle.
        other
            .batch_execute(
                "BEGIN; INSERT INTO payment (merchant, serial, order_no, state, version, \
                 amount_minor, currency, created_ms, body) \
                 VALUES ('1900000109', 'X', 'M', 'X', 1, 1, 'CNY', 0, '')",
            )
            .await
            .unwrap();
        let answers = tokio::join!(
            one.commit(orders(&desk, &["A", "M", "Z"])),
            async {
                waiting_for_locks(&watch, 1).await;
                two.commit(orders(&rival, &["Z", "A"])).await
            },
            async {
                waiting_for_locks(&watch, 2).await;
                other.batch_execute("ROLLBACK").await.unwrap();
            },
        );
        assert!(matches!(answers, (Ok(()), Err(CommitError::Exists(_)), ())), "{answers:?}");
        drop((one, two, other));
        // Sessions report when they end.
        let sessions = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = CURRENT_DATABASE()";
        while watch.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let count = "SELECT deadlocks FROM pg_stat_database WHERE datname = CURRENT_DATABASE()";
        assert_eq!(watch.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0);
    });
}
