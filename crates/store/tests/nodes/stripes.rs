//! An account in stripes is still one account: it gives no more than it has.

use crate::desk::{Desk, cny};
use crate::truth::balanced;
use crate::{POSTGRES, database, open, run, stranger};
use app::{Commit, CommitError, Store};
use kernel::{Currency, SerialKind};
use ledger::{Account, AccountKind, Event, Posting};
use std::sync::Arc;

fn moved(from: &Account, to: &Account, minor: i64) -> Posting {
    Posting { debit: from.clone(), credit: to.clone(), amount: cny(minor) }
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
        let give = vec![moved(&cost, &first, 100), moved(&cost, &second, 100)];
        one.commit(book(give)).await.unwrap();
        // Something to lock on the first account, and the last of all stripes for what is there.
        one.commit(book(vec![moved(&first, &cost, 1)])).await.unwrap();
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
        let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = CURRENT_DATABASE()";
        let watch = stranger(&url).await;
        while watch.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
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
