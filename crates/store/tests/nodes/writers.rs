//! Four processes write the same merchants, orders and accounts; then the same, and they are killed.
//!
//! The processes are this test binary again.

use crate::desk::{Desk, cny};
use crate::truth::{balanced, solvent, whole};
use crate::{POSTGRES, database, open, run, stranger};
use app::{Commit, CommitError, Store};
use kernel::{Currency, Serial, SerialKind};
use ledger::{Account, AccountKind, Event, Posting};
use payments::PaymentState;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use store::PostgresStore;

const URL: &str = "FEIQIAN_NODES_URL";
/// The number of the process: its serials are its own.
const NODE: &str = "FEIQIAN_NODES_NODE";
/// How many steps it takes.
const STEPS: &str = "FEIQIAN_NODES_STEPS";
const PROCESSES: u16 = 4;
const MERCHANTS: [&str; 2] = ["1900000109", "1900000110"];
/// How many commits a process keeps under way.
const IN_FLIGHT: u32 = 24;

/// A commit and the serial by which it can be found: of a payment, a notification or a posting's
/// subject.
struct Step {
    mark: Serial,
    commit: Commit,
}

fn draw(desk: &Desk, moves: &[(AccountKind, AccountKind, i64)]) -> Step {
    let account = |kind| Account::merchant(&desk.merchant, kind, Currency::Cny);
    let posting = |(from, to, minor): &(AccountKind, AccountKind, i64)| Posting {
        debit: account(*from),
        credit: account(*to),
        amount: cny(*minor),
    };
    let mark = desk.serial(SerialKind::Refund);
    let postings = moves.iter().map(posting).collect();
    let journal = desk.journal(&desk.order("-", 1), mark, Event::RefundAccepted, postings);
    Step { mark, commit: Commit { journals: vec![journal], ..Commit::default() } }
}

/// The step of this number. All processes take the same, so they race.
async fn step(store: &PostgresStore, desk: &Desk, node: u16, number: u32) -> Option<Step> {
    use AccountKind::{MerchantAvailable, MerchantPending, RefundPayable};
    // Two orders of the same numbers, one after the other in one process, the other way round in
    // the next: whoever inserts them as handed in waits for each other.
    let race = |it: u32| format!("RACE{}", it / 12 * 2 + (it + u32::from(node)) % 2);
    Some(match number % 6 {
        0 => {
            let (mark, commit) = whole(desk, &format!("N{node}T{number}"));
            Step { mark, commit }
        }
        1 | 2 => {
            let order = desk.order(&race(number), 10_000);
            Step { mark: order.serial, commit: desk.place(&order) }
        }
        3 => {
            let found = store.payment_by_order(&desk.merchant, &race(number)).await.unwrap()?;
            if found.value.state != PaymentState::NotPay {
                return None;
            }
            let commit = desk.pay(&found.value, found.version);
            Step { mark: commit.notifications[0].value.id, commit }
        }
        4 => draw(desk, &[(MerchantPending, RefundPayable, 3_000)]),
        _ => {
            let moves = [
                (MerchantPending, MerchantAvailable, 2_000),
                (MerchantAvailable, RefundPayable, 2_500),
            ];
            draw(desk, &moves)
        }
    })
}

/// Not a test by itself: commits until it has taken its steps or is killed, and prints how each
/// ended.
#[test]
fn child() {
    let [Ok(url), Ok(node), Ok(steps)] = [URL, NODE, STEPS].map(std::env::var) else { return };
    let (node, steps): (u16, u32) = (node.parse().unwrap(), steps.parse().unwrap());
    run(async {
        let store = open(&url).await;
        let desks =
            [0, 1].map(|it| Desk::new(MERCHANTS[it], node * 2 + u16::try_from(it).unwrap()));
        let next = AtomicU32::new(0);
        let clerk = async || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= steps {
                    return;
                }
                let desk = &desks[usize::try_from(number / 6 % 2).unwrap()];
                let Some(Step { mark, commit }) = step(&store, desk, node, number).await else {
                    continue;
                };
                let word = match store.commit(commit).await {
                    Ok(()) => "done",
                    Err(CommitError::Exists(_)) => "exists",
                    Err(CommitError::Stale(_)) => "stale",
                    Err(CommitError::Books(_)) => "poor",
                    Err(error) => panic!("the server was well, but: {error}"),
                };
                writeln!(std::io::stdout(), "{word} {mark}").unwrap();
            }
        };
        futures::future::join_all((0..IN_FLIGHT).map(|_| clerk())).await;
    });
}

fn spawn(url: &str, node: u16, steps: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["writers::child", "--exact", "--nocapture"])
        .env(URL, url)
        .env(NODE, node.to_string())
        .env(STEPS, steps.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a process said, line by line; complete lines only.
fn listen(child: &mut Child) -> Receiver<(String, Serial)> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (said, heard) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            // The test harness prints too.
            let Some((word, mark)) = line.split_once(' ') else { continue };
            let Ok(mark) = Serial::parse(mark) else { continue };
            if said.send((word.into(), mark)).is_err() {
                break;
            }
        }
    });
    heard
}

/// Looks at the balances all the time, each time in one snapshot.
struct Watch {
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u32>,
}

impl Watch {
    async fn begin(url: &str) -> Watch {
        let (store, over) = (open(url).await, Arc::<AtomicBool>::default());
        let stop = over.clone();
        let task = tokio::spawn(async move {
            let mut looks = 0;
            while !stop.load(Ordering::SeqCst) {
                solvent(&store.balances().await.unwrap());
                looks += 1;
            }
            looks
        });
        Watch { over, task }
    }

    async fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        assert!(self.task.await.unwrap() > 0);
    }
}

async fn check(url: &str, database: &str, said: &[(String, Serial)]) {
    let store = open(url).await;
    balanced(&store).await;
    let client = stranger(url).await;
    let marks = "SELECT serial FROM payment UNION ALL SELECT id FROM notification \
                 UNION ALL SELECT subject FROM (SELECT DISTINCT subject, journal FROM posting) it";
    let rows = client.query(marks, &[]).await.unwrap();
    let list: Vec<String> = rows.iter().map(|it| it.get(0)).collect();
    let there: BTreeSet<&str> = list.iter().map(String::as_str).collect();
    assert_eq!(there.len(), list.len(), "something is there twice");
    for (word, mark) in said {
        assert_eq!(word == "done", there.contains(mark.as_str()), "{word} {mark}");
    }
    // Whatever was paid was told and booked, with the commit that paid it.
    let torn = "SELECT COUNT(*) FROM payment AS it WHERE state = 'SUCCESS' AND NOT EXISTS \
                (SELECT 1 FROM notification AS n JOIN intent AS i ON i.subject = n.id \
                JOIN posting AS p ON p.payment = n.payment WHERE n.payment = it.serial)";
    assert_eq!(client.query_one(torn, &[]).await.unwrap().get::<_, i64>(0), 0);
    let dead_locks = "SELECT deadlocks FROM pg_stat_database WHERE datname = $1";
    let row = client.query_one(dead_locks, &[&database]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "dead-locks");
}

#[test]
fn four_processes_on_the_same_rows() {
    let database = database();
    let url = POSTGRES.url(&database);
    let watch = run(async {
        open(&url).await;
        Watch::begin(&url).await
    });
    let mut children: Vec<_> = (0..PROCESSES).map(|it| spawn(&url, it, 1_200)).collect();
    let heard: Vec<_> = children.iter_mut().map(listen).collect();
    let said: Vec<Vec<_>> = heard.iter().map(|it| it.iter().collect()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    run(watch.end());
    for (node, said) in said.iter().enumerate() {
        let done = said.iter().filter(|it| it.0 == "done").count();
        assert!(done > 100, "process {node} got {done} commits through");
    }
    let said: Vec<_> = said.concat();
    for word in ["done", "exists", "stale", "poor"] {
        assert!(said.iter().any(|it| it.0 == word), "nothing ended as {word}");
    }
    run(check(&url, &database, &said));
}

/// Counts moments up, so that each is another.
static MOMENTS: LazyLock<AtomicU32> = LazyLock::new(AtomicU32::default);

#[test]
fn four_processes_that_are_killed() {
    let database = database();
    let url = POSTGRES.url(&database);
    let watch = run(async {
        open(&url).await;
        Watch::begin(&url).await
    });
    let mut said = Vec::new();
    let mut node = 100;
    for _ in 0..4 {
        let mut children = Vec::new();
        for _ in 0..PROCESSES {
            node += 1;
            let mut child = spawn(&url, node, u32::MAX);
            let heard = listen(&mut child);
            children.push((child, heard));
        }
        // One after the other, while the rest write on.
        for (mut child, heard) in children {
            let first = heard.recv_timeout(Duration::from_secs(60)).expect("it commits");
            let moment = MOMENTS.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(u64::from(moment * 97 % 230)));
            child.kill().unwrap();
            child.wait().unwrap();
            said.push(first);
            said.extend(heard.iter());
        }
    }
    run(watch.end());
    assert!(said.iter().filter(|it| it.0 == "done").count() > 100);
    run(check(&url, &database, &said));
}
