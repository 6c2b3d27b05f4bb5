//! The clauses of the contract that an example shows.

use crate::desk::{Desk, NOW, cny, put};
use crate::dump::{Dump, FROM, UNTIL, dump};
use crate::run;
use app::{Commit, CommitError, Intent, IntentChange, IntentKind, NotificationState, Put, Store};
use futures::future::join_all;
use kernel::{Currency, MerchantId, Money, Serial, SerialKind};
use ledger::{Account, AccountKind, Balance, BalanceError, Event, Posting};
use payments::Payment;
use std::sync::Arc;

fn merchant_account(desk: &Desk, kind: AccountKind) -> Account {
    Account::merchant(&desk.merchant, kind, Currency::Cny)
}

fn moved(debit: &Account, credit: &Account, minor: i64) -> Posting {
    Posting { debit: debit.clone(), credit: credit.clone(), amount: cny(minor) }
}

pub fn an_empty_store_has_nothing<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        assert_eq!(dump(&store, &[&desk.merchant]).await, Dump::default());
        assert_eq!(store.next_due().await.unwrap(), None);
        let order = desk.order("T1", 100);
        assert_eq!(store.payment(&desk.merchant, order.serial).await.unwrap(), None);
        assert_eq!(store.payment_by_order(&desk.merchant, "T1").await.unwrap(), None);
        assert_eq!(store.refund_by_no(&desk.merchant, "R1").await.unwrap(), None);
        let account = merchant_account(&desk, AccountKind::Suspense);
        assert_eq!(store.balance(&account).await.unwrap(), Balance::default());
        store.commit(Commit::default()).await.unwrap();
        assert_eq!(dump(&store, &[&desk.merchant]).await, Dump::default());
    });
}

/// A store with a merchant, a paid order with a refund, and an unpaid order.
async fn furnish(store: &impl Store, desk: &Desk) -> (Payment, Payment) {
    let (first, second) = (desk.order("T1", 10_000), desk.order("T2", 500));
    let (paid, _) = desk.paid(&first);
    let register = Commit { merchants: vec![put(desk.card(), 0)], ..Commit::default() };
    store.commit(register).await.unwrap();
    store.commit(desk.place(&first)).await.unwrap();
    store.commit(desk.pay(&first, 1)).await.unwrap();
    store.commit(desk.place(&second)).await.unwrap();
    store.commit(desk.refund(&paid, 2, "R1", 1_000)).await.unwrap();
    let paid = store.payment(&desk.merchant, first.serial).await.unwrap().unwrap();
    assert_eq!(paid.version, 3);
    (paid.value, second)
}

/// A commit that would change a row of every kind, were it not for what is added to it.
fn full(desk: &Desk, paid: &Payment, open: &Payment) -> Commit {
    let fresh = desk.order("T9", 700);
    let mut commit = desk.refund(paid, 3, "R9", 100);
    let pay = desk.pay(&fresh, 0);
    commit.merchants.push(put(Desk::new("1900000999", 9).card(), 0));
    commit.payments.extend(pay.payments);
    commit.notifications.extend(pay.notifications);
    commit.journals.extend(pay.journals);
    commit.intents.extend(pay.intents);
    commit.intents.push(desk.finish(IntentKind::Heal, open.serial));
    commit
}

/// Every way to be refused, with the refusal's name. `known` is a notification that is there.
fn refusals(
    desk: &Desk,
    paid: &Payment,
    open: &Payment,
    known: Serial,
) -> Vec<(&'static str, Commit)> {
    let with = |change: &dyn Fn(&mut Commit)| {
        let mut commit = full(desk, paid, open);
        change(&mut commit);
        commit
    };
    let pending = merchant_account(desk, AccountKind::MerchantPending);
    let frozen = merchant_account(desk, AccountKind::MerchantFrozen);
    let cost = Account::platform(AccountKind::MarketingCost, Currency::Cny);
    let booked = |postings: Vec<Posting>| {
        let subject = desk.serial(SerialKind::Attempt);
        let journal = desk.journal(open, subject, Event::Unexpected, postings);
        with(&|it| it.journals.push(journal.clone()))
    };
    let zero = Posting { amount: cny(0), ..moved(&cost, &pending, 1) };
    let dollars = Posting { amount: Money::new(1, Currency::Usd), ..zero.clone() };
    let again = |it: &mut Commit| {
        let subject = paid.attempts[0].serial;
        it.journals.push(desk.journal(paid, subject, Event::Paid, vec![moved(&cost, &pending, 1)]));
    };
    let refund_of = |commit: &mut Commit, expected| commit.refunds[0].expected = expected;
    vec![
        ("Exists", with(&|it| it.payments.push(put(desk.order("T2", 1), 0)))),
        ("Exists", with(&|it| it.merchants.push(put(desk.card(), 0)))),
        ("Exists", with(&|it| it.refunds[0].value.terms.refund_no = "R1".into())),
        ("Exists", with(&again)),
        ("Exists", with(&|it| it.notifications[0].value.id = known)),
        ("Stale", with(&|it| it.payments.push(put(open.clone(), 2)))),
        ("Stale", with(&|it| it.payments[0].expected = 2)),
        ("Stale", with(&|it| it.payments.push(put(desk.order("T8", 1), 1)))),
        ("Stale", with(&|it| refund_of(it, 1))),
        ("Stale", with(&|it| it.notifications[0].expected = 1)),
        ("Stale", with(&|it| it.merchants.push(put(desk.card(), 2)))),
        ("Stale", with(&|it| it.merchants[0].expected = 1)),
        ("Insufficient", booked(vec![moved(&pending, &frozen, 1_000_000)])),
        ("Insufficient", booked(vec![moved(&frozen, &pending, 1), moved(&pending, &frozen, 1)])),
        ("Overflow", booked(vec![moved(&cost, &cost, i64::MAX), moved(&cost, &cost, 1)])),
        ("Nonsense", booked(vec![moved(&cost, &pending, 1), zero])),
        ("Nonsense", booked(vec![moved(&cost, &pending, 1), dollars])),
    ]
}

fn name(refusal: &CommitError) -> &'static str {
    match refusal {
        CommitError::Exists(_) => "Exists",
        CommitError::Stale(_) => "Stale",
        CommitError::Books(BalanceError::Insufficient { .. }) => "Insufficient",
        CommitError::Books(BalanceError::Overflow { .. }) => "Overflow",
        CommitError::Books(BalanceError::Nonsense { .. }) => "Nonsense",
        CommitError::Refused(_) => "Refused",
        CommitError::Unknown(_) => "Unknown",
    }
}

pub fn a_refused_commit_writes_nothing<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let (paid, open) = furnish(&store, &desk).await;
        let before = dump(&store, &[]).await;
        let known = before.notifications[0].value.id;
        for (index, (want, commit)) in refusals(&desk, &paid, &open, known).into_iter().enumerate()
        {
            let refusal = store.commit(commit).await.unwrap_err();
            assert_eq!(name(&refusal), want, "commit {index}: {refusal:?}");
            assert_eq!(dump(&store, &[]).await, before, "after commit {index}");
        }
        // One value twice in a commit is a slip of the caller; it must not get half through.
        type Slip = fn(&mut Commit);
        let slips: [Slip; 5] = [
            |it| it.payments.extend_from_within(..1),
            |it| it.payments.extend_from_within(1..),
            |it| it.refunds.extend_from_within(..),
            |it| it.merchants.extend_from_within(..),
            |it| it.journals.extend_from_within(..),
        ];
        for (index, slip) in slips.into_iter().enumerate() {
            let mut commit = full(&desk, &paid, &open);
            slip(&mut commit);
            let refusal = store.commit(commit).await.unwrap_err();
            assert_ne!(name(&refusal), "Unknown", "slip {index}");
            assert_eq!(dump(&store, &[]).await, before, "after slip {index}");
        }
        // Without the additions it is a good commit.
        store.commit(full(&desk, &paid, &open)).await.unwrap();
        let after = dump(&store, &[]).await;
        assert_ne!(after, before);
        assert_eq!(after.balances, after.recomputed);
    });
}

pub fn one_bad_commit_in_a_group_fails_alone<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let (paid, open) = furnish(&store, &desk).await;
        let known = dump(&store, &[]).await.notifications[0].value.id;
        let mut wanted = Vec::new();
        let mut commits = Vec::new();
        for (index, (want, bad)) in refusals(&desk, &paid, &open, known).into_iter().enumerate() {
            let good = desk.order(&format!("G{index}"), 900);
            commits.extend([desk.place(&good), bad, desk.pay(&good, 1)]);
            wanted.extend([None, Some(want), None]);
        }
        let mut twice = desk.place(&desk.order("S1", 5));
        twice.payments.extend_from_within(..);
        commits.push(twice);
        commits.push(desk.place(&desk.order("S2", 5)));
        wanted.extend([Some("Exists"), None]);
        let count = wanted.len();
        let answers = join_all(commits.into_iter().map(|it| store.commit(it))).await;
        let names: Vec<_> = answers.iter().map(|it| it.as_ref().err().map(name)).collect();
        assert_eq!(names, wanted);
        let after = dump(&store, &[]).await;
        let good = (count - 2) / 3;
        assert_eq!(after.payments.len(), 2 + good + 1);
        assert_eq!(after.balances, after.recomputed);
        assert_eq!(app::audit(&store, |_| {}).await.unwrap().findings, [""; 0]);
    });
}

pub fn a_journal_is_booked_once<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let (order, other) = (desk.order("T1", 10_000), desk.order("T2", 10_000));
        store.commit(desk.pay(&order, 0)).await.unwrap();
        store.commit(desk.pay(&other, 0)).await.unwrap();
        let book = |payment: &Payment, subject, event| {
            let cost = Account::platform(AccountKind::MarketingCost, Currency::Cny);
            let to = merchant_account(&desk, AccountKind::Suspense);
            let journal = desk.journal(payment, subject, event, vec![moved(&cost, &to, 7)]);
            store.commit(Commit { journals: vec![journal], ..Commit::default() })
        };
        let attempt = order.attempts[0].serial;
        let twice = book(&order, attempt, Event::Paid).await.unwrap_err();
        assert_eq!(name(&twice), "Exists");
        // Another event, subject or payment is another journal.
        book(&order, attempt, Event::Unexpected).await.unwrap();
        book(&order, desk.serial(SerialKind::Attempt), Event::Paid).await.unwrap();
        book(&other, attempt, Event::Paid).await.unwrap();
        let rows = store.postings_of(&desk.merchant, order.serial).await.unwrap();
        let (_, first) = desk.paid(&order);
        let postings: Vec<Posting> = rows.iter().map(|it| it.posting.clone()).collect();
        assert_eq!(postings[..3], first.postings, "in the order of journals and lines");
        assert_eq!(postings.len(), 5);
        let told = (rows[3].event, rows[3].subject, rows[3].payment, rows[3].at);
        assert_eq!(told, (Event::Unexpected, attempt, order.serial, NOW));
        assert_eq!(rows[3].serial.kind(), SerialKind::Journal);
    });
}

pub fn intents_are_scheduled_settled_and_finished<S: Store>(make: impl Fn() -> S) {
    use IntentChange::{Schedule, Settle};
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let subject = desk.serial(SerialKind::Payment);
        let heal = |after_s, tries| Intent {
            tries,
            ..desk.intent(IntentKind::Heal, subject, NOW.plus_s(after_s))
        };
        let check = async |change: IntentChange, want: &[Intent]| {
            let commit = Commit { intents: vec![change.clone()], ..Commit::default() };
            store.commit(commit).await.unwrap();
            let left = store.due(UNTIL, 9).await.unwrap();
            assert_eq!(left, want, "after {change:?}");
            let earliest = left.iter().map(|it| it.due).min();
            assert_eq!(store.next_due().await.unwrap(), earliest);
        };
        let settle = |claimed: Intent, next: Option<(i64, u32)>| Settle {
            claimed,
            next: next.map(|(after_s, tries)| (NOW.plus_s(after_s), tries)),
        };
        // Settling, finishing what is not there is nothing.
        check(settle(heal(0, 0), Some((5, 1))), &[]).await;
        check(desk.finish(IntentKind::Heal, subject), &[]).await;
        // A subject has one intent of a kind; scheduling replaces it.
        check(Schedule(heal(9, 3)), &[heal(9, 3)]).await;
        check(Schedule(heal(0, 0)), &[heal(0, 0)]).await;
        check(settle(heal(0, 0), Some((5, 1))), &[heal(5, 1)]).await;
        // Someone rescheduled it since it was claimed: their word stays.
        check(settle(heal(0, 0), None), &[heal(5, 1)]).await;
        check(settle(heal(5, 0), Some((9, 9))), &[heal(5, 1)]).await;
        check(settle(heal(6, 1), None), &[heal(5, 1)]).await;
        // Other kinds, merchants and subjects are others.
        let stranger = Desk::new("1900000110", 0);
        check(desk.finish(IntentKind::Notify, subject), &[heal(5, 1)]).await;
        check(stranger.finish(IntentKind::Heal, subject), &[heal(5, 1)]).await;
        let tell = Intent { kind: IntentKind::Notify, ..heal(7, 0) };
        check(Schedule(tell.clone()), &[heal(5, 1), tell.clone()]).await;
        check(settle(heal(5, 1), None), &[tell]).await;
        check(desk.finish(IntentKind::Notify, subject), &[]).await;
        // Changes of one commit follow each other.
        let chain = vec![
            Schedule(heal(0, 0)),
            settle(heal(0, 0), Some((3, 1))),
            settle(heal(3, 1), None),
            Schedule(heal(4, 0)),
        ];
        store.commit(Commit { intents: chain, ..Commit::default() }).await.unwrap();
        assert_eq!(store.due(UNTIL, 9).await.unwrap(), [heal(4, 0)]);
    });
}

pub fn due_intents_come_in_their_order<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let after = [7, 3, 0, 9, 5, 1, 2, 8, 4, 6];
        let intents = after.map(|it| {
            desk.intent(IntentKind::Heal, desk.serial(SerialKind::Payment), NOW.plus_s(it))
        });
        let changes = intents.iter().cloned().map(IntentChange::Schedule).collect();
        store.commit(Commit { intents: changes, ..Commit::default() }).await.unwrap();
        let mut sorted = intents.to_vec();
        sorted.sort_by_key(|it| it.due);
        let due = async |after_s, limit| store.due(NOW.plus_s(after_s), limit).await.unwrap();
        assert_eq!(due(9, 100).await, sorted);
        assert_eq!(due(4, 100).await, sorted[..5], "due at that moment is due");
        assert_eq!(due(9, 3).await, sorted[..3]);
        assert_eq!(due(9, 0).await, []);
        assert_eq!(due(-1, 9).await, []);
        assert_eq!(store.next_due().await.unwrap(), Some(NOW));
    });
}

pub fn periods_take_their_start_and_leave_their_end<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let mut numbers = Vec::new();
        // Written out of order: what counts is when the money came.
        for after in [3i64, 1, 2, 0] {
            let at = NOW.plus_s(after);
            let order = desk.order(&format!("T{after}"), 10_000);
            let mut pay = desk.pay(&order, 0);
            let paid = &mut pay.payments[0].value;
            let receipt = paid.receipt.as_mut().unwrap();
            receipt.at = at;
            paid.attempts[0].receipt = paid.receipt.clone();
            pay.journals[0].at = at;
            let paid = paid.clone();
            store.commit(pay).await.unwrap();
            let mut refund = desk.refund(&paid, 1, &format!("R{after}"), 100);
            refund.refunds[0].value.created = at;
            refund.journals[0].at = at.plus_ms(1);
            numbers.push((after, paid.serial, refund.refunds[0].value.serial));
            store.commit(refund).await.unwrap();
        }
        let check = async |from: i64, until: i64| {
            let (id, from_at, until_at) = (&desk.merchant, NOW.plus_s(from), NOW.plus_s(until));
            let mut inside: Vec<_> =
                numbers.iter().filter(|it| from <= it.0 && it.0 < until).collect();
            let refunds = store.refunds_between(id, from_at, until_at).await.unwrap();
            let found: Vec<_> = refunds.iter().map(|it| it.serial).collect();
            assert_eq!(found, inside.iter().map(|it| it.2).collect::<Vec<_>>());
            let postings = store.postings_between(id, from_at, until_at).await.unwrap();
            assert_eq!(postings.len(), inside.len() * (3 + 2));
            assert!(postings.is_sorted_by_key(|it| it.serial));
            let paid = store.paid_between(id, from_at, until_at).await.unwrap();
            inside.sort();
            let found: Vec<_> = paid.iter().map(|it| it.serial).collect();
            assert_eq!(found, inside.iter().map(|it| it.1).collect::<Vec<_>>());
        };
        for (from, until) in [(0, 4), (0, 3), (1, 3), (1, 2), (2, 2), (3, 1), (-9, 0), (4, 9)] {
            check(from, until).await;
        }
        let stranger = MerchantId::parse("1900000110").unwrap();
        assert_eq!(store.paid_between(&stranger, FROM, UNTIL).await.unwrap(), []);
    });
}

pub fn audits_page_through_all_payments<S: Store>(make: impl Fn() -> S) {
    let store = make();
    // Neither of creation nor of numeric value, but of merchant and serial.
    let desks = ["9", "10", "A", "a1", "a"].map(|it| Desk::new(it, 0));
    run(async {
        let mut all = Vec::new();
        for number in 0..7 {
            for desk in &desks {
                let order = desk.order(&format!("T{number}"), 100);
                store.commit(desk.place(&order)).await.unwrap();
                all.push(order);
            }
        }
        all.sort_by_key(|it| (it.merchant.clone(), it.serial));
        for limit in [1, 2, 7, 34, 35, 36] {
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let page = store.payments_after(after, limit).await.unwrap();
                assert!(page.len() <= usize::try_from(limit).unwrap());
                let Some(last) = page.last() else { break };
                after = Some((last.merchant.clone(), last.serial));
                found.extend(page);
            }
            assert_eq!(found, all, "in pages of {limit}");
        }
    });
}

pub fn notifications_are_listed_newest_first<S: Store>(make: impl Fn() -> S) {
    use NotificationState::{Delivered, GivenUp, Pending};
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let orders = [desk.order("T1", 100), desk.order("T2", 100)];
        let mut all = Vec::new();
        for (index, state) in [Pending, Delivered, Pending, GivenUp].into_iter().enumerate() {
            let mut notification = desk.notification(&orders[index % 2]);
            notification.state = state;
            all.insert(0, notification.clone());
            let notifications = vec![put(notification, 0)];
            store.commit(Commit { notifications, ..Commit::default() }).await.unwrap();
        }
        let check = async |order: Option<usize>, state: Option<NotificationState>, limit| {
            let payment = order.map(|it| orders[it].serial);
            let mut want = all.clone();
            want.retain(|it| payment.is_none_or(|serial| it.payment == serial));
            want.retain(|it| state.is_none_or(|state| it.state == state));
            want.truncate(usize::try_from(limit).unwrap());
            let found = store.notifications(&desk.merchant, payment, state, limit).await.unwrap();
            assert_eq!(found, want, "{order:?} {state:?} {limit}");
        };
        for order in [None, Some(0), Some(1)] {
            for state in [None, Some(Pending), Some(Delivered), Some(GivenUp)] {
                for limit in [0, 1, 2, 9] {
                    check(order, state, limit).await;
                }
            }
        }
    });
}

pub fn of_many_racing_for_an_account_just_enough_win<S: Store + 'static>(make: impl Fn() -> S) {
    let (store, desk) = (Arc::new(make()), Arc::new(Desk::new("1900000109", 0)));
    run(async {
        let order = Arc::new(desk.order("T1", 100));
        let pending = merchant_account(&desk, AccountKind::MerchantPending);
        let payable = merchant_account(&desk, AccountKind::RefundPayable);
        store.commit(desk.pay(&order, 0)).await.unwrap();
        let held = async |it: &Account| store.balance(it).await.unwrap().held(it.kind.side());
        // 100 less a fee of 0.60, rounded to 1.
        assert_eq!(held(&pending).await, 99);
        let racers = (0..200).map(|_| {
            let (store, desk, order) = (store.clone(), desk.clone(), order.clone());
            let move_seven = vec![moved(&pending, &payable, 7)];
            tokio::spawn(async move {
                let subject = desk.serial(SerialKind::Refund);
                let journal = desk.journal(&order, subject, Event::RefundAccepted, move_seven);
                store.commit(Commit { journals: vec![journal], ..Commit::default() }).await
            })
        });
        let answers = join_all(racers).await.into_iter().map(Result::unwrap);
        let (won, lost): (Vec<_>, Vec<_>) = answers.partition(Result::is_ok);
        assert_eq!(won.len(), 14, "14 times 7 is 98");
        assert!(lost.iter().all(|it| name(it.as_ref().unwrap_err()) == "Insufficient"));
        assert_eq!((held(&pending).await, held(&payable).await), (1, 98));
        assert_eq!(store.balances().await.unwrap(), store.recomputed_balances().await.unwrap());
    });
}

pub fn of_many_racing_for_an_order_one_wins<S: Store + 'static>(make: impl Fn() -> S) {
    let (store, desk) = (Arc::new(make()), Arc::new(Desk::new("1900000109", 0)));
    run(async {
        let race = async |commits: Vec<Commit>, lost: &str| {
            let racers = commits.into_iter().map(|commit| {
                let store = store.clone();
                tokio::spawn(async move { store.commit(commit).await })
            });
            let answers: Vec<_> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(answers.iter().filter(|it| it.is_ok()).count(), 1);
            assert!(answers.iter().filter_map(|it| it.as_ref().err()).all(|it| name(it) == lost));
        };
        // Many create an order of one number, then many pay the one that was created.
        let places = (0..60).map(|_| desk.place(&desk.order("T1", 100)));
        race(places.collect(), "Exists").await;
        let found = store.payment_by_order(&desk.merchant, "T1").await.unwrap().unwrap();
        let pays = (0..60).map(|_| desk.pay(&found.value, found.version));
        race(pays.collect(), "Stale").await;
        let after = store.payment_by_order(&desk.merchant, "T1").await.unwrap().unwrap();
        assert_eq!(after.version, 2);
        let listed = store.notifications(&desk.merchant, None, None, 9).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(app::audit(&*store, |_| {}).await.unwrap().findings, [""; 0]);
    });
}

pub fn commits_take_effect_as_handed_in<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let order = desk.order("T1", 100);
        let steps = (0..400).map(|step| {
            let mut next = order.clone();
            next.contradictions.push(format!("step {step}"));
            let payments = vec![Put { value: next, expected: step }];
            store.commit(Commit { payments, ..Commit::default() })
        });
        // All are under way before the first is answered; each needs the one before it.
        let answers = join_all(steps).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        let last = store.payment(&desk.merchant, order.serial).await.unwrap().unwrap();
        assert_eq!((last.version, last.value.contradictions[0].as_str()), (400, "step 399"));
    });
}

pub fn a_read_sees_what_was_answered<S: Store + 'static>(make: impl Fn() -> S) {
    let (store, desk) = (Arc::new(make()), Arc::new(Desk::new("1900000109", 0)));
    run(async {
        let clerks = (0..8).map(|clerk| {
            let (store, desk) = (store.clone(), desk.clone());
            tokio::spawn(async move {
                for number in 0..25 {
                    let order = desk.order(&format!("T{clerk}n{number}"), 100);
                    store.commit(desk.place(&order)).await.unwrap();
                    let found = store.payment(&desk.merchant, order.serial).await.unwrap();
                    assert_eq!(found.unwrap().value, order);
                    store.commit(desk.pay(&order, 1)).await.unwrap();
                    let rows = store.postings_of(&desk.merchant, order.serial).await.unwrap();
                    assert_eq!(rows.len(), 2, "gross and fee; a cost of 0.2 rounds to nothing");
                }
            })
        });
        join_all(clerks).await.into_iter().for_each(|it| it.unwrap());
    });
}
