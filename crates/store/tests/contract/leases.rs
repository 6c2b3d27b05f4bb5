//! Nodes, their leases, and the work they claim. Short leases, and waiting for what they bring.

use crate::desk::{Desk, NOW, put};
use crate::dump::UNTIL;
use crate::run;
use app::{Backlog, Commit, Intent, IntentChange, IntentKind, Node, Pulse, Store, Try};
use futures::future::join_all;
use kernel::SerialKind;
use payments::AttemptState;
use std::collections::BTreeSet;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any test.
const LONG: i64 = 3_600_000;
/// Over before anybody minds.
const SHORT: i64 = 200;

async fn enroll(store: &impl Store, wanted: Option<u16>, holder: &str, lease: i64) -> Option<Node> {
    store.enroll(wanted, holder, lease).await.unwrap()
}

async fn living(store: &impl Store, holder: &str) -> Node {
    enroll(store, None, holder, LONG).await.expect("there are numbers left")
}

/// Asks until the answer is yes.
async fn until(mut ask: impl AsyncFnMut() -> bool) {
    while !ask().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn living_nodes_have_numbers_of_their_own<S: Store + 'static>(make: impl Fn() -> S) {
    let store = Arc::new(make());
    run(async {
        let racers = (0..24).map(|it| {
            let store = store.clone();
            tokio::spawn(async move { living(&*store, &format!("h{it}")).await })
        });
        let nodes: Vec<Node> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
        let numbers: BTreeSet<u16> = nodes.iter().map(|it| it.number).collect();
        assert_eq!(numbers, (0..24).collect(), "the smallest that are free");
        assert!(nodes.iter().enumerate().all(|(index, it)| it.holder == format!("h{index}")));
        // A number is refused while its node lives, whoever asks.
        assert_eq!(enroll(&*store, Some(3), "late", LONG).await, None);
        let wanted = enroll(&*store, Some(700), "wanted", LONG).await.unwrap();
        assert_eq!(wanted.number, 700);
        // What was given back goes to the next; giving back twice is nothing.
        let third = nodes.iter().find(|it| it.number == 3).unwrap();
        store.retire(third).await.unwrap();
        let next = living(&*store, "next").await;
        assert_eq!(next.number, 3);
        store.retire(third).await.unwrap();
        assert!(!store.renew(third, LONG).await.unwrap());
        assert!(store.renew(&next, LONG).await.unwrap());
    });
}

pub fn a_number_is_taken_over_when_its_lease_ran_out<S: Store>(make: impl Fn() -> S) {
    let store = make();
    run(async {
        let old = enroll(&store, Some(5), "old", SHORT).await.unwrap();
        // Renewed: then it is refused although the first lease is over.
        assert!(store.renew(&old, LONG).await.unwrap());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(enroll(&store, Some(5), "new", LONG).await, None);
        assert!(store.renew(&old, SHORT).await.unwrap());
        until(async || enroll(&store, Some(5), "new", LONG).await.is_some()).await;
        assert!(!store.renew(&old, LONG).await.unwrap(), "it is another's");
        // Nor can the old one end the lease of the new one.
        store.retire(&old).await.unwrap();
        assert_eq!(enroll(&store, Some(5), "newest", LONG).await, None);
        assert!(store.renew(&Node { number: 5, holder: "new".into() }, LONG).await.unwrap());
        // A lease that ran out and that nobody took can be renewed.
        let idle = enroll(&store, Some(6), "idle", 1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(store.renew(&idle, LONG).await.unwrap());
    });
}

fn intents(desk: &Desk, after_s: &[i64]) -> Vec<Intent> {
    let intent =
        |it: &i64| desk.intent(IntentKind::Heal, desk.serial(SerialKind::Payment), NOW.plus_s(*it));
    after_s.iter().map(intent).collect()
}

async fn change(store: &impl Store, intents: Vec<IntentChange>) {
    store.commit(Commit { intents, ..Commit::default() }).await.unwrap();
}

fn schedule(list: &[Intent]) -> Vec<IntentChange> {
    list.iter().cloned().map(IntentChange::Schedule).collect()
}

fn held(intent: &Intent, node: &Node) -> Intent {
    Intent { holder: Some(node.holder.clone()), ..intent.clone() }
}

pub fn claims_come_in_order_and_no_more_than_asked<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let list = intents(&desk, &[7, 3, 0, 9, 5, 1, 2, 8, 4, 6]);
        change(&store, schedule(&list)).await;
        let mut sorted = list.clone();
        sorted.sort_by_key(|it| it.due);
        let (one, two) = (living(&store, "one").await, living(&store, "two").await);
        let claim = async |node: &Node, after_s, limit| {
            store.claim(node, NOW.plus_s(after_s), limit).await.unwrap()
        };
        let mine: Vec<_> = sorted.iter().map(|it| held(it, &one)).collect();
        assert_eq!(claim(&one, -1, 9).await, []);
        assert_eq!(claim(&one, 9, 0).await, []);
        assert_eq!(claim(&one, 9, 3).await, mine[..3]);
        // Neither the other's nor, again, its own.
        assert_eq!(claim(&two, 2, 9).await, []);
        assert_eq!(claim(&one, 2, 9).await, []);
        assert_eq!(store.claimed(&one, NOW.plus_s(9)).await.unwrap(), mine[..3]);
        assert_eq!(store.claimed(&one, NOW.plus_s(1)).await.unwrap(), mine[..2]);
        assert_eq!(store.claimed(&two, NOW.plus_s(9)).await.unwrap(), []);
        let theirs: Vec<_> = sorted.iter().map(|it| held(it, &two)).collect();
        assert_eq!(claim(&two, 4, 9).await, theirs[3..5], "due at that moment is due");
        assert_eq!(claim(&one, 99, 99).await, mine[5..]);
        // All are listed as due, whoever holds them.
        assert_eq!(store.due(UNTIL, 99).await.unwrap().len(), 10);
    });
}

pub fn no_intent_has_two_holders<S: Store + 'static>(make: impl Fn() -> S) {
    let (store, desk) = (Arc::new(make()), Desk::new("1900000109", 0));
    run(async {
        let list = intents(&desk, &[0; 300]);
        change(&*store, schedule(&list)).await;
        let workers = (0..6).map(|it| {
            let store = store.clone();
            tokio::spawn(async move {
                let node = living(&*store, &format!("h{it}")).await;
                let mut mine = Vec::new();
                loop {
                    let claimed = store.claim(&node, NOW, 7).await.unwrap();
                    assert!(claimed.len() <= 7);
                    assert!(claimed.iter().all(|it| it.holder.as_ref() == Some(&node.holder)));
                    // Others' locks are passed over: that there is nothing is known only when
                    // nothing is free.
                    let free = store.due(NOW, u32::MAX).await.unwrap();
                    if claimed.is_empty() && free.iter().all(|it| it.holder.is_some()) {
                        return mine;
                    }
                    mine.extend(claimed.into_iter().map(|it| it.subject));
                }
            })
        });
        let all: Vec<_> = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(all.len(), 300);
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 300);
    });
}

pub fn claims_of_the_dead_come_back<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let list = intents(&desk, &[0, 1]);
        change(&store, schedule(&list)).await;
        let now = NOW.plus_s(9);
        let dying = enroll(&store, None, "dying", SHORT).await.unwrap();
        let heir = living(&store, "heir").await;
        assert_eq!(store.claim(&dying, now, 9).await.unwrap().len(), 2);
        // While it renews, its claims are its own.
        assert!(store.renew(&dying, LONG).await.unwrap());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(store.claim(&heir, now, 9).await.unwrap(), []);
        assert!(store.renew(&dying, SHORT).await.unwrap());
        let mut got = Vec::new();
        until(async || {
            got.extend(store.claim(&heir, now, 9).await.unwrap());
            !got.is_empty()
        })
        .await;
        assert_eq!(got, [held(&list[0], &heir), held(&list[1], &heir)]);
        assert_eq!(store.claimed(&dying, now).await.unwrap(), []);
        // Who retires leaves everything at once.
        store.retire(&heir).await.unwrap();
        let last = living(&store, "last").await;
        assert_eq!(store.claim(&last, now, 9).await.unwrap().len(), 2);
    });
}

pub fn only_the_holder_settles<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let first = intents(&desk, &[0]).remove(0);
        let now = NOW.plus_s(99);
        let (one, two) = (living(&store, "one").await, living(&store, "two").await);
        let settle =
            |claimed: &Intent, next| IntentChange::Settle { claimed: claimed.clone(), next };
        let there = async || store.due(UNTIL, 9).await.unwrap();
        change(&store, schedule(from_ref(&first))).await;
        let mine = store.claim(&one, now, 9).await.unwrap().remove(0);
        // Another holder's word, or nobody's, changes nothing.
        for stranger in [held(&first, &two), first.clone()] {
            change(&store, vec![settle(&stranger, None)]).await;
            change(&store, vec![settle(&stranger, Some((NOW.plus_s(5), 1)))]).await;
            assert_eq!(there().await, from_ref(&mine));
        }
        // Scheduled while it is held: the holder goes on.
        let later = Intent { due: NOW.plus_s(7), tries: 3, ..first.clone() };
        change(&store, schedule(from_ref(&later))).await;
        assert_eq!(there().await, [held(&later, &one)]);
        assert_eq!(store.claim(&two, now, 9).await.unwrap(), []);
        // The holder's try was of what it claimed: the newer word stays, and is free.
        change(&store, vec![settle(&mine, None)]).await;
        assert_eq!(there().await, from_ref(&later));
        // Settled by its holder it becomes what is next, free; or it goes.
        let again = store.claim(&two, now, 9).await.unwrap().remove(0);
        assert_eq!(again, held(&later, &two));
        change(&store, vec![settle(&mine, None)]).await;
        assert_eq!(there().await, from_ref(&again), "it is another's by now");
        change(&store, vec![settle(&again, Some((NOW.plus_s(8), 4)))]).await;
        let next = Intent { due: NOW.plus_s(8), tries: 4, ..first.clone() };
        assert_eq!(there().await, [next]);
        let last = store.claim(&one, now, 9).await.unwrap().remove(0);
        change(&store, vec![settle(&last, None)]).await;
        assert_eq!(there().await, []);
        // Finished while it is held: gone, and the holder's settling brings nothing back.
        change(&store, schedule(from_ref(&first))).await;
        let mine = store.claim(&one, now, 9).await.unwrap().remove(0);
        change(&store, vec![desk.finish(IntentKind::Heal, first.subject)]).await;
        change(&store, vec![settle(&mine, Some((NOW, 1)))]).await;
        assert_eq!(there().await, []);
    });
}

pub fn the_pulse_counts_what_waits<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        assert_eq!(store.pulse(NOW).await.unwrap(), Pulse::default());
        change(&store, schedule(&intents(&desk, &[-3, 0, 4]))).await;
        let tell = desk.intent(IntentKind::Notify, desk.serial(SerialKind::Notification), NOW);
        change(&store, vec![IntentChange::Schedule(tell)]).await;
        let node = living(&store, "one").await;
        // Held work waits, too.
        assert_eq!(store.claim(&node, NOW, 1).await.unwrap().len(), 1);
        let heal = Backlog { open: 3, due: 2, oldest: Some(NOW.plus_s(-3)) };
        let notify = Backlog { open: 1, due: 1, oldest: Some(NOW) };
        let backlog = vec![(IntentKind::Heal, heal), (IntentKind::Notify, notify)];
        let mut want = Pulse { backlog, ..Pulse::default() };
        assert_eq!(store.pulse(NOW).await.unwrap(), want);
        // Orders whose channel did not answer, and since when.
        let mut orders = [desk.order("T1", 100), desk.order("T2", 100), desk.order("T3", 100)];
        for (order, after_s) in orders.iter_mut().zip([5, 2, 9]) {
            order.attempts[0].started = NOW.plus_s(after_s);
            order.attempts[0].state = AttemptState::InDoubt;
        }
        orders[2].attempts[0].state = AttemptState::Waiting;
        let payments = orders.iter().map(|it| put(it.clone(), 0)).collect();
        store.commit(Commit { payments, ..Commit::default() }).await.unwrap();
        (want.in_doubt, want.in_doubt_since) = (2, Some(NOW.plus_s(2)));
        assert_eq!(store.pulse(NOW).await.unwrap(), want);
        let mut healed = orders[1].clone();
        healed.attempts[0].state = AttemptState::Closed;
        let payments = vec![put(healed, 1)];
        store.commit(Commit { payments, ..Commit::default() }).await.unwrap();
        (want.in_doubt, want.in_doubt_since) = (1, Some(NOW.plus_s(5)));
        assert_eq!(store.pulse(NOW).await.unwrap(), want);
    });
}

/// What a merchant's server answers is not ours to choose; no store may refuse it.
pub fn a_try_may_say_anything<S: Store>(make: impl Fn() -> S) {
    let (store, desk) = (make(), Desk::new("1900000109", 0));
    run(async {
        let notification = desk.notification(&desk.order("T1", 100));
        let said = Try {
            merchant: desk.merchant.clone(),
            notification: notification.id,
            number: 1,
            at: NOW,
            status: Some(500),
            duration_ms: 7,
            body_head: "no\0t\u{1}\u{fffe}✓".into(),
            error: Some("\0".into()),
        };
        let commit = Commit {
            notifications: vec![put(notification.clone(), 0)],
            tries: vec![said.clone()],
            ..Commit::default()
        };
        store.commit(commit).await.unwrap();
        let tries = store.tries_of(&desk.merchant, notification.id).await.unwrap();
        let body_head = said.body_head.replace('\0', "\u{fffd}");
        assert_eq!(tries, [Try { body_head, error: Some("\u{fffd}".into()), ..said }]);
    });
}
