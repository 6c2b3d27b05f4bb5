//! Any workload, handed in one by one or in groups, ends as a simple model says.

use crate::desk::{Desk, NOW, cny, put};
use crate::dump::{Dump, dump};
use crate::run;
use app::{Commit, CommitError, Intent, IntentChange, IntentKind, Put, Store, Versioned};
use futures::future::join_all;
use kernel::{Currency, Money, Serial, SerialKind};
use ledger::{Account, AccountKind, Balance, Event, Posting};
use payments::{Payment, Refund};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet, HashSet};

const ORDERS: usize = 4;
const REFUNDS: usize = 3;
const SUBJECTS: usize = 6;

/// A commit as indices into small pools, so that its parts often meet.
#[derive(Clone, Debug)]
struct Plan {
    /// Serial, number, expected version.
    payments: Vec<(usize, usize, u32)>,
    refunds: Vec<(usize, u32)>,
    journals: Vec<(usize, Event, Vec<Move>)>,
    intents: Vec<Change>,
}

/// Debit, credit, amount.
type Move = (usize, usize, i64);

#[derive(Clone, Debug)]
enum Change {
    Schedule(usize, i64),
    Finish(usize),
    Settle(usize, i64, Option<i64>),
}

fn plan() -> impl Strategy<Value = Plan> {
    let order = prop_oneof![
        9 => (0..ORDERS, 0u32..4).prop_map(|(index, expected)| (index, index, expected)),
        1 => (0..ORDERS, 0..ORDERS).prop_map(|(serial, number)| (serial, number, 0)),
    ];
    let event = select(vec![Event::Paid, Event::RefundAccepted]);
    let amount = prop_oneof![20 => 1i64..100, 1 => Just(i64::MAX), 1 => Just(0)];
    let posting = (0..ACCOUNTS.len(), 0..ACCOUNTS.len(), amount);
    let journal = (0..SUBJECTS, event, prop::collection::vec(posting, 1..4));
    let change = prop_oneof![
        (0..SUBJECTS, 0i64..4).prop_map(|(subject, due)| Change::Schedule(subject, due)),
        (0..SUBJECTS).prop_map(Change::Finish),
        (0..SUBJECTS, 0i64..4, prop::option::of(0i64..4))
            .prop_map(|(subject, due, next)| Change::Settle(subject, due, next)),
    ];
    (
        prop::collection::vec(order, 0..3),
        prop::collection::vec((0..REFUNDS, 0u32..3), 0..2),
        prop::collection::vec(journal, 0..3),
        prop::collection::vec(change, 0..3),
    )
        .prop_map(|(payments, refunds, journals, intents)| Plan {
            payments,
            refunds,
            journals,
            intents,
        })
}

const ACCOUNTS: [AccountKind; 5] = [
    AccountKind::ReserveBank,
    AccountKind::MarketingCost,
    AccountKind::MerchantPending,
    AccountKind::MerchantAvailable,
    AccountKind::RefundPayable,
];

/// The values that plans speak of.
struct Pools {
    desk: Desk,
    orders: Vec<Payment>,
    refunds: Vec<Refund>,
    subjects: Vec<Serial>,
    accounts: Vec<Account>,
}

impl Pools {
    fn new() -> Pools {
        let desk = Desk::new("1900000109", 0);
        let orders: Vec<Payment> =
            (0..ORDERS).map(|it| desk.order(&format!("T{it}"), 1_000)).collect();
        let (paid, _) = desk.paid(&orders[0]);
        let refund = |it| desk.refund(&paid, 0, &format!("R{it}"), 10).refunds.remove(0).value;
        Pools {
            refunds: (0..REFUNDS).map(refund).collect(),
            subjects: (0..SUBJECTS).map(|_| desk.serial(SerialKind::Attempt)).collect(),
            accounts: ACCOUNTS
                .map(|it| Account::merchant(&desk.merchant, it, Currency::Cny))
                .into(),
            orders,
            desk,
        }
    }

    fn intent(&self, subject: usize, due: i64) -> Intent {
        self.desk.intent(IntentKind::Heal, self.subjects[subject], NOW.plus_s(due))
    }

    /// - Input: `mark` is written into every value, so that each write can be told from others.
    fn commit(&self, plan: &Plan, mark: usize) -> Commit {
        let payment = |&(serial, number, expected): &(usize, usize, u32)| {
            let mut value = self.orders[serial].clone();
            value.terms.order_no = self.orders[number].terms.order_no.clone();
            value.contradictions = vec![mark.to_string()];
            put(value, expected)
        };
        let refund = |&(index, expected): &(usize, u32)| {
            put(Refund { note: Some(mark.to_string()), ..self.refunds[index].clone() }, expected)
        };
        let posting = |&(debit, credit, minor): &Move| Posting {
            debit: self.accounts[debit].clone(),
            credit: self.accounts[credit].clone(),
            amount: cny(minor),
        };
        let change = |it: &Change| match it {
            Change::Schedule(subject, due) => IntentChange::Schedule(self.intent(*subject, *due)),
            Change::Finish(subject) => self.desk.finish(IntentKind::Heal, self.subjects[*subject]),
            Change::Settle(subject, due, next) => IntentChange::Settle {
                claimed: self.intent(*subject, *due),
                next: next.map(|it| (NOW.plus_s(it), 0)),
            },
        };
        Commit {
            payments: plan.payments.iter().map(payment).collect(),
            refunds: plan.refunds.iter().map(refund).collect(),
            journals: plan
                .journals
                .iter()
                .map(|(subject, event, postings)| {
                    let postings = postings.iter().map(posting).collect();
                    self.desk.journal(&self.orders[0], self.subjects[*subject], *event, postings)
                })
                .collect(),
            intents: plan.intents.iter().map(change).collect(),
            ..Commit::default()
        }
    }
}

/// What a store must hold, kept as plainly as possible.
#[derive(Clone, Default)]
struct Model {
    payments: BTreeMap<Serial, Versioned<Payment>>,
    refunds: BTreeMap<Serial, Versioned<Refund>>,
    journals: HashSet<(Serial, Serial, Event)>,
    balances: BTreeMap<String, (Account, Balance)>,
    intents: BTreeMap<Serial, Intent>,
}

/// Applies a put; whatever is odd is a reason to refuse.
fn place<T: Clone>(
    rows: &mut BTreeMap<Serial, Versioned<T>>,
    reasons: &mut BTreeSet<&'static str>,
    key: Serial,
    put: &Put<T>,
    taken: bool,
) {
    match rows.get(&key).map(|it| it.version) {
        None if put.expected == 0 && !taken => {}
        Some(version) if put.expected == version => {}
        // A number that is taken under another serial may be refused by any name.
        None if put.expected == 0 => reasons.extend(["Exists", "Refused"]),
        Some(_) if put.expected == 0 => reasons.extend(["Exists", "Refused"]),
        None | Some(_) => _ = reasons.insert("Stale"),
    }
    rows.insert(key, Versioned { value: put.value.clone(), version: put.expected + 1 });
}

impl Model {
    /// Changes the model, or says by which names the commit may be refused.
    fn apply(&mut self, commit: &Commit) -> Result<(), BTreeSet<&'static str>> {
        let mut next = self.clone();
        let mut reasons = BTreeSet::new();
        let serials: HashSet<Serial> = commit.payments.iter().map(|it| it.value.serial).collect();
        // Only a new order brings its number along.
        let new = || commit.payments.iter().filter(|it| it.expected == 0);
        let numbers: HashSet<&str> = new().map(|it| it.value.terms.order_no.as_str()).collect();
        if serials.len() < commit.payments.len() || numbers.len() < new().count() {
            // Whatever it finds first.
            reasons.extend(["Refused", "Stale", "Exists"]);
        }
        for it in &commit.payments {
            let (serial, number) = (it.value.serial, &it.value.terms.order_no);
            let taken = self.payments.values().any(|known| known.value.terms.order_no == *number);
            let mut it = it.clone();
            if let Some(known) = self.payments.get(&serial).filter(|_| it.expected > 0) {
                // An order keeps its number.
                it.value.terms.order_no = known.value.terms.order_no.clone();
            }
            place(&mut next.payments, &mut reasons, serial, &it, taken);
        }
        for it in &commit.refunds {
            place(&mut next.refunds, &mut reasons, it.value.serial, it, false);
        }
        for it in &commit.journals {
            if self.journals.contains(&(it.payment, it.subject, it.event)) {
                reasons.insert("Exists");
            } else if !next.journals.insert((it.payment, it.subject, it.event)) {
                reasons.extend(["Refused", "Exists"]);
            }
            for posting in &it.postings {
                for (account, side) in posting.legs() {
                    let known = next.balances.get(&account.to_string()).map(|it| it.1);
                    match known.unwrap_or_default().post(account, side, posting.amount) {
                        Ok(after) => {
                            next.balances.insert(account.to_string(), (account.clone(), after));
                        }
                        Err(_) => _ = reasons.insert("Books"),
                    }
                }
            }
        }
        for it in &commit.intents {
            next.change(it);
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        *self = next;
        Ok(())
    }

    fn change(&mut self, change: &IntentChange) {
        match change {
            IntentChange::Schedule(it) => _ = self.intents.insert(it.subject, it.clone()),
            IntentChange::Finish { subject, .. } => _ = self.intents.remove(subject),
            IntentChange::Settle { claimed, next } => {
                if self.intents.get(&claimed.subject) == Some(claimed) {
                    self.intents.remove(&claimed.subject);
                    if let Some((due, tries)) = *next {
                        let settled = Intent { due, tries, ..claimed.clone() };
                        self.intents.insert(claimed.subject, settled);
                    }
                }
            }
        }
    }

    fn compare(&self, dump: Dump) {
        assert!(dump.payments.iter().eq(self.payments.values()), "{:?}", dump.payments);
        assert!(dump.refunds.iter().eq(self.refunds.values()), "{:?}", dump.refunds);
        let mut intents = dump.intents;
        assert!(intents.is_sorted_by_key(|it| it.due));
        intents.sort_by_key(|it| it.subject);
        assert!(intents.iter().eq(self.intents.values()), "{intents:?}");
        assert!(dump.balances.iter().eq(self.balances.values()), "{:?}", dump.balances);
        assert_eq!(dump.balances, dump.recomputed);
        let lines: HashSet<_> =
            dump.postings.iter().map(|it| (it.payment, it.subject, it.event)).collect();
        assert_eq!(lines, self.journals);
    }
}

fn name(refusal: &CommitError) -> &'static str {
    match refusal {
        CommitError::Exists(_) => "Exists",
        CommitError::Stale(_) => "Stale",
        CommitError::Books(_) => "Books",
        CommitError::Refused(_) => "Refused",
        CommitError::Unknown(_) => "Unknown",
    }
}

pub fn any_workload_agrees_with_the_model<S: Store>(make: impl Fn() -> S) {
    let groups = prop::collection::vec(prop::collection::vec(plan(), 1..12), 1..12);
    let mut runner =
        TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&groups, |groups| {
        let (store, pools, mut model) = (make(), Pools::new(), Model::default());
        let mut mark = 0;
        run(async {
            // The unlimited account on the other side makes some of the guarded ones rich.
            let [bank, _, pending, ..] = pools.accounts.as_slice() else { unreachable!() };
            let amount = Money::new(200, Currency::Cny);
            let gift = Posting { debit: bank.clone(), credit: pending.clone(), amount };
            let start = pools.desk.serial(SerialKind::Attempt);
            let start = pools.desk.journal(&pools.orders[0], start, Event::Paid, vec![gift]);
            let start = Commit { journals: vec![start], ..Commit::default() };
            assert_eq!(model.apply(&start), Ok(()));
            store.commit(start).await.unwrap();
            for group in groups {
                let mut under_way = Vec::new();
                let mut wanted = Vec::new();
                for plan in &group {
                    mark += 1;
                    let commit = pools.commit(plan, mark);
                    wanted.push(model.apply(&commit));
                    under_way.push(store.commit(commit));
                }
                let answers = join_all(under_way).await;
                for ((answer, want), plan) in answers.iter().zip(wanted).zip(&group) {
                    match (answer, want) {
                        (Ok(()), Ok(())) => {}
                        (Err(refusal), Err(names)) if names.contains(name(refusal)) => {}
                        (answer, want) => panic!("{plan:?}: {answer:?}, but the model {want:?}"),
                    }
                }
                model.compare(dump(&store, &[&pools.desk.merchant]).await);
            }
        });
        Ok(())
    });
    outcome.unwrap();
}
