//! What was answered is there: after reopening, after `kill -9`, after the disk was full.
//!
//! The tests that need a process to die run this test binary again as that process.

use crate::desk::{Desk, NOW};
use crate::dump::dump;
use crate::{Folder, run};
use app::{CommitError, Store};
use kernel::Serial;
use payments::PaymentState;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use store::SqliteStore;

/// The file that a child process is to write.
const FILE: &str = "FEIQIAN_CONTRACT_FILE";
/// The number of the child: serials and order numbers of each are its own.
const NODE: &str = "FEIQIAN_CONTRACT_NODE";
/// How many commits a child keeps under way.
const IN_FLIGHT: u32 = 24;

#[test]
fn a_reopened_file_shows_every_commit() {
    let folder = Folder::new();
    let path = folder.file("one.db");
    let desk = Desk::new("1900000109", 0);
    let mut known = Default::default();
    for round in 0..4 {
        let store = SqliteStore::open(&path).unwrap();
        run(async {
            assert_eq!(dump(&store, &[]).await, known);
            for number in 0..20 {
                let order = desk.order(&format!("T{round}n{number}"), 10_000);
                store.commit(desk.place(&order)).await.unwrap();
                store.commit(desk.pay(&order, 1)).await.unwrap();
            }
            known = dump(&store, &[]).await;
        });
    }
}

/// Not a test by itself: commits until it is killed or refused, and prints what was answered.
#[test]
fn child() {
    let (Ok(path), Ok(node)) = (std::env::var(FILE), std::env::var(NODE)) else { return };
    let store = Arc::new(SqliteStore::open(Path::new(&path)).unwrap());
    let desk = Arc::new(Desk::new("1900000109", node.parse().unwrap()));
    let (next, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    run(async {
        let clerk = || {
            let (store, desk) = (store.clone(), desk.clone());
            let (next, failed, node) = (next.clone(), failed.clone(), node.clone());
            async move {
                while failed.load(Ordering::Relaxed) < 3 * IN_FLIGHT {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let order = desk.order(&format!("N{node}T{number}"), 10_000);
                    let serial = order.serial;
                    let (word, why) = match store.commit(desk.pay(&order, 0)).await {
                        Ok(()) => ("done", None),
                        Err(CommitError::Refused(why)) => ("refused", Some(why)),
                        Err(error) => ("unknown", Some(error.to_string())),
                    };
                    writeln!(std::io::stdout(), "{word} {serial}").unwrap();
                    if let Some(why) = why {
                        writeln!(std::io::stderr(), "{why}").unwrap();
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        };
        futures::future::join_all((0..IN_FLIGHT).map(|_| tokio::spawn(clerk()))).await;
    });
}

/// What a child said, line by line; complete lines only.
fn listen(child: &mut Child) -> Receiver<(String, Serial)> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (said, heard) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            // The test harness prints too.
            let Some((word, serial)) = line.split_once(' ') else { continue };
            let Ok(serial) = Serial::parse(serial) else { continue };
            if said.send((word.into(), serial)).is_err() {
                break;
            }
        }
    });
    heard
}

fn spawn(mut command: Command, path: &Path, node: u32) -> Child {
    command.args(["durability::child", "--exact", "--nocapture"]);
    command.env(FILE, path).env(NODE, node.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Checks that `done` is there, `refused` is not, and that whatever is there is there in whole.
fn check(path: &Path, done: &BTreeSet<Serial>, refused: &BTreeSet<Serial>) {
    let store = SqliteStore::open(path).unwrap();
    run(async {
        let audit = app::audit(&store, |_| {}).await.unwrap();
        assert_eq!(audit.findings, [""; 0]);
        let dump = dump(&store, &[]).await;
        let there: BTreeSet<Serial> = dump.payments.iter().map(|it| it.value.serial).collect();
        let lost: Vec<_> = done.difference(&there).collect();
        assert!(lost.is_empty(), "{} were answered, {} are lost: {lost:?}", done.len(), lost.len());
        assert_eq!(refused.intersection(&there).count(), 0, "refused, but there");
        assert!(dump.payments.iter().all(|it| it.value.state == PaymentState::Success));
        // The audit compares postings; an order also has its notification and intent.
        let told: Vec<_> = dump.notifications.iter().map(|it| it.value.payment).collect();
        assert!(told.len() == there.len() && told.into_iter().collect::<BTreeSet<_>>() == there);
        let intents: BTreeSet<_> = dump.intents.iter().map(|it| it.subject).collect();
        assert!(dump.notifications.iter().all(|it| intents.contains(&it.value.id)));
        assert!(intents.len() == there.len() && dump.intents.iter().all(|it| it.due == NOW));
    });
}

#[test]
fn what_was_answered_survives_a_killed_writer() {
    let folder = Folder::new();
    let path = folder.file("killed.db");
    let mut done = BTreeSet::new();
    for round in 0..8 {
        let mut child = spawn(Command::new(std::env::current_exe().unwrap()), &path, round);
        let heard = listen(&mut child);
        let first = heard.recv_timeout(Duration::from_secs(60)).expect("the child commits");
        // A different moment each time, from in the middle of the first batch to a second later.
        std::thread::sleep(Duration::from_millis(u64::from(round * round * 17)));
        child.kill().unwrap();
        child.wait().unwrap();
        let all: Vec<_> = std::iter::once(first).chain(heard.iter()).collect();
        assert!(all.iter().all(|it| it.0 == "done"), "{all:?}");
        done.extend(all.into_iter().map(|it| it.1));
        check(&path, &done, &BTreeSet::new());
    }
}

/// A limit on the size of files stands for a full disk: a write fails in the middle of a commit.
#[cfg(unix)]
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let folder = Folder::new();
    let path = folder.file("full.db");
    let (mut done, mut refused, mut unknown) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (node, blocks) in (0..).zip([300, 700, 2_500]) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        shell.arg(std::env::current_exe().unwrap());
        let mut child = spawn(shell, &path, node);
        for (word, serial) in listen(&mut child) {
            match word.as_str() {
                "done" => _ = done.insert(serial),
                "refused" => _ = refused.insert(serial),
                _ => unknown += 1,
            }
        }
        child.wait().unwrap();
        assert!(!refused.is_empty() || unknown > 0, "the limit was never met");
        check(&path, &done, &refused);
    }
    assert!(!done.is_empty());
}
