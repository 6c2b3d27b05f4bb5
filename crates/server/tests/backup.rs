//! The restore drill: payments are written without a pause, a backup is taken meanwhile, everything
//! is lost, and what comes back is compared with what had been acknowledged. And backups that must
//! not be believed.

#[allow(dead_code, reason = "the contract tests use all of it")]
#[path = "../../store/tests/contract/desk.rs"]
mod desk;

use app::{Commit, Store};
use desk::{Desk, put};
use kernel::Timestamp;
use serde_json::Value;
use server::clock;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{PostgresStore, PostgresUrl, SqliteStore};
use testkit::postgres::{PostgresServer, give_away};

/// An installation in a folder that goes when it is dropped.
struct House {
    folder: PathBuf,
    program: PathBuf,
}

impl Drop for House {
    fn drop(&mut self) {
        // It lies in the place for temporary files.
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl House {
    fn new() -> House {
        let name = format!("feiqian-backup-{}", seal::random_nonce());
        let folder = std::env::temp_dir().join(name);
        // The user that PostgreSQL runs as must get through it.
        std::fs::create_dir(&folder).unwrap();
        let house = House { program: env!("CARGO_BIN_EXE_feiqian").into(), folder };
        let home = house.at("home");
        house.good(&["init", &home]);
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        output
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        let json: Value = serde_json::from_slice(&self.good(&arguments).stdout).unwrap();
        assert_eq!(json["ok"], true);
        json
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], words: &str) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} is not refused");
        assert!(said.contains(words) && !said.contains("panicked"), "{arguments:?}: {said}");
    }

    fn backup(&self, name: &str, more: &[&str]) -> Value {
        let (home, to) = (self.at("home"), self.at(name));
        self.json(&[&["backup", "--data", &home, "--to", &to], more].concat())
    }
}

/// A payment as its merchant knows it: when it was asked for, and when it was acknowledged.
#[derive(Clone, Debug)]
struct Known {
    order_no: String,
    asked: Timestamp,
    acknowledged: Timestamp,
}

/// Merchants that pay without a pause until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    known: Arc<Mutex<Vec<Known>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start<S: Store + Send + Sync + 'static>(store: Arc<S>) -> Load {
        let (stop, known) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Known>>>::default());
        let mut clients = Vec::new();
        for client in 0_u16..4 {
            let desk = Desk::new(&format!("190000100{client}"), client);
            let card = Commit { merchants: vec![put(desk.card(), 0)], ..Commit::default() };
            store.commit(card).await.unwrap();
            let (store, stop, known) = (store.clone(), stop.clone(), known.clone());
            clients.push(tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let order_no = format!("DRILL{client}{number:08}");
                    let order = desk.order(&order_no, 100 + number);
                    let asked = clock::wall();
                    store.commit(desk.pay(&order, 0)).await.unwrap();
                    let acknowledged = clock::wall();
                    known.lock().unwrap().push(Known { order_no, asked, acknowledged });
                }
            }));
        }
        Load { stop, known, clients }
    }

    /// Waits for this many payments more.
    async fn more(&self, count: usize) {
        let now = || self.known.lock().unwrap().len();
        let until = now() + count;
        while now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) -> Vec<Known> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.known.lock().unwrap().clone()
    }
}

/// The order numbers of a store whose books are right.
async fn audited(store: &impl Store) -> BTreeSet<String> {
    let report = app::audit(store, |_| {}).await.unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    let (mut orders, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.payments_after(after, 500).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.merchant.clone(), last.serial));
        orders.extend(page.into_iter().map(|it| it.terms.order_no));
    }
    assert_eq!(report.payments, u64::try_from(orders.len()).unwrap());
    orders
}

/// Nothing acknowledged before `from` is missing, nothing asked for after `until` is there.
#[track_caller]
fn compare(known: &[Known], restored: &BTreeSet<String>, from: Timestamp, until: Timestamp) {
    let before = known.iter().filter(|it| it.acknowledged < from);
    let missing: Vec<_> = before.clone().filter(|it| !restored.contains(&it.order_no)).collect();
    assert!(missing.is_empty(), "acknowledged before {from:?} and missing: {missing:?}");
    let after = known.iter().filter(|it| it.asked > until);
    let early: Vec<_> = after.clone().filter(|it| restored.contains(&it.order_no)).collect();
    assert!(early.is_empty(), "asked for after {until:?} and there: {early:?}");
    let (before, after) = (before.count(), after.count());
    assert!(
        before > 0 && after > 0,
        "the moment lies amid the load: {before} before, {after} after"
    );
    println!("{before} payments acknowledged before are there, {after} asked for after are not");
}

fn ms(json: &Value, key: &str) -> Timestamp {
    Timestamp::from_ms(json["manifest"][key].as_i64().unwrap())
}

/// What a disk that is lost now would cost: the time since what comes back was acknowledged.
fn print_objectives(engine: &str, known: &[Known], restored: &BTreeSet<String>, rto: Duration) {
    let last = |kept: bool| {
        let those = known.iter().filter(|it| restored.contains(&it.order_no) == kept);
        those.map(|it| it.acknowledged).max()
    };
    let lost = known.iter().filter(|it| !restored.contains(&it.order_no)).count();
    let rpo = last(false).zip(last(true)).map_or(0, |(lost, kept)| lost.ms_since(kept).max(0));
    println!("{engine}: RPO {rpo} ms ({lost} payments of {}), RTO {rto:?}", known.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_comes_back_as_of_the_backup_taken_under_load() {
    let house = House::new();
    let store = Arc::new(SqliteStore::open(&house.path("home/feiqian.db")).unwrap());
    let load = Load::start(store).await;
    load.more(150).await;
    let backup = house.backup("one", &["--with-keys"]);
    load.more(150).await;
    let known = load.end().await;
    std::fs::rename(house.path("home/feiqian.db"), house.path("lost")).unwrap();

    let start = Instant::now();
    let (home, one, to) = (house.at("home"), house.at("one"), house.at("restored"));
    let from = ["restore", "--data", &home, "--from", &one, "--to"];
    let done = house.json(&[from.as_slice(), &[&to]].concat());
    assert!(done["next"].to_string().contains("ledger check"));
    let store = SqliteStore::open(&house.path("restored/feiqian.db")).unwrap();
    let restored = audited(&store).await;
    let rto = start.elapsed();
    compare(&known, &restored, ms(&backup, "began_ms"), ms(&backup, "ended_ms"));
    print_objectives("SQLite", &known, &restored, rto);
    let verified = house.json(&["verify", &one, "--data", &home]);
    assert_eq!(verified["ledger"]["payments"], restored.len());

    // The keys came with it, but for the one that opens it.
    for file in ["feiqian.toml", "keys/vault.key", "keys/platform_private_key.pem"] {
        let read = |folder: &str| std::fs::read(house.path(folder).join(file)).unwrap();
        assert_eq!(read("home"), read("restored/config"), "{file}");
    }
    assert!(!house.path("restored/config/keys/backup.key").exists());
    assert!(backup["manifest"]["not_included"].to_string().contains("backup.key"));

    // Nothing is overwritten; what is forced away is kept.
    house.refused(&[from.as_slice(), &[&to]].concat(), "nothing was changed");
    let forced = house.json(&[from.as_slice(), &[&to, "--force"]].concat());
    let aside = PathBuf::from(forced["set_aside"].as_str().unwrap());
    assert!(aside.join("feiqian.db").exists() && house.path("restored/feiqian.db").exists());
    let at = ["--at", "2030-01-01T00:00:00Z"];
    let other = house.at("other");
    house.refused(&[from.as_slice(), &[&other], &at].concat(), "holds one moment");
    assert!(!house.path("other").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_that_must_not_be_believed_are_refused_by_name() {
    let house = House::new();
    let (home, one, bad) = (house.at("home"), house.at("one"), house.at("bad"));
    let backup = house.backup("one", &[]);
    house.json(&["verify", &one, "--data", &home]);
    assert!(backup["manifest"]["not_included"].to_string().contains("vault.key"));
    house.refused(&["backup", "--data", &home, "--to", &one], "never replaces a file");

    let whole = std::fs::read(&one).unwrap();
    assert!(!whole.windows(6).any(|it| it == b"SQLite"), "it is encrypted");
    let to = house.at("restored");
    let check = |bytes: &[u8], words: &str| {
        std::fs::write(&bad, bytes).unwrap();
        house.refused(&["verify", &bad, "--data", &home], words);
        house.refused(&["restore", "--from", &bad, "--to", &to, "--data", &home], words);
        assert!(!Path::new(&to).exists(), "nothing is left of a backup that is refused");
    };
    for at in [60, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        check(&flipped, "does not open");
    }
    check(&whole[..whole.len() - 7], "cut off");
    check(b"", "does not begin like");
    let key = house.at("other.key");
    std::fs::write(&key, "0f".repeat(32)).unwrap();
    house.refused(&["verify", &one, "--key", &key], "is sealed under the key");
    std::fs::write(&key, "0f").unwrap();
    house.refused(&["verify", &one, "--key", &key], "64 hexadecimal digits");
    let left = std::fs::read_dir(&house.folder).unwrap().flatten();
    let left: Vec<_> = left.map(|it| it.file_name()).collect();
    assert_eq!(left.len(), 4, "drafts are removed: {left:?}");
}

/// `kill -9` at any moment leaves nothing that passes for a backup, and nothing that is in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backup_is_no_backup() {
    let house = House::new();
    let store = Arc::new(SqliteStore::open(&house.path("home/feiqian.db")).unwrap());
    let load = Load::start(store).await;
    load.more(300).await;
    load.end().await;
    let home = house.at("home");
    let mut caught = 0;
    for number in 0..30 {
        let name = format!("{number}");
        let (to, partial) = (house.at(&name), house.path(&format!("{number}.partial")));
        let mut command = house.command(&["backup", "--data", &home, "--to", &to]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let wanted = number * 600;
        let grown = || std::fs::metadata(&partial).is_ok_and(|it| it.len() >= wanted);
        while !grown() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if house.path(&name).exists() {
            // It was quicker: then it is whole.
            house.json(&["verify", &to, "--data", &home]);
        } else if partial.exists() {
            caught += 1;
            let partial = partial.display().to_string();
            house.refused(&["verify", &partial, "--data", &home], "never finished");
            house.refused(&["backup", "--data", &home, "--to", &to], "remove it");
        }
        if caught == 4 {
            break;
        }
    }
    assert!(caught > 0, "no backup was killed halfway");
    house.backup("last", &[]);
    house.json(&["verify", &house.at("last"), "--data", &home]);
    assert!(!house.path("home/feiqian.db.backup-copy").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_comes_back_as_of_any_moment() {
    let mut house = House::new();
    // Where the user that PostgreSQL runs as can start it.
    let program = house.path("feiqian");
    std::fs::copy(&house.program, &program).unwrap();
    house.program = program;
    let (key, archive) = (house.at("key"), house.at("archive"));
    std::fs::copy(house.path("home/keys/backup.key"), &key).unwrap();
    std::fs::create_dir(&archive).unwrap();
    give_away(Path::new(&key));
    give_away(Path::new(&archive));

    let server = PostgresServer::start("-c archive_mode=on -c max_connections=120");
    let url = server.create("books");
    let config = house.path("home/feiqian.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let with_url = format!("url = \"{url}\"\n[keys]\n");
    std::fs::write(&config, text.replacen("[keys]\n", &with_url, 1)).unwrap();
    let push = format!("{} wal push %p --key {key} --archive {archive}", house.at("feiqian"));
    server.psql("postgres", &format!("ALTER SYSTEM SET archive_command = '{push}'"));
    server.psql("postgres", "SELECT pg_reload_conf()");

    let store = Arc::new(PostgresStore::open(&PostgresUrl::parse(&url).unwrap()).await.unwrap());
    let load = Load::start(store).await;
    load.more(100).await;
    let backup = house.backup("base", &[]);
    load.more(100).await;
    let moment = clock::wall();
    load.more(100).await;
    let known = load.end().await;
    // The end of the log reaches the archive; otherwise archive_timeout sees to that.
    let last = server.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
    let waited = Instant::now();
    while !Path::new(&archive).join(&last).exists() {
        let log = || std::fs::read_to_string(server.data().join("log")).unwrap_or_default();
        assert!(waited.elapsed() < Duration::from_secs(60), "{last} is not archived: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(server);

    let base = house.at("base");
    house.json(&["verify", &base, "--key", &key]);
    let restore = |to: &str, more: &[&str]| {
        let keys = ["--key", &key, "--archive", &archive, "--from", &base, "--to", to];
        house.json(&[&["restore"], keys.as_slice(), more].concat())
    };
    let brought = async |to: &str, more: &[&str]| {
        let start = Instant::now();
        restore(&house.at(to), more);
        let server = PostgresServer::on(&house.path(to).join("postgres"), "-c max_connections=50");
        let url = PostgresUrl::parse(&server.url("books")).unwrap();
        let store = PostgresStore::open(&url).await.unwrap();
        (audited(&store).await, start.elapsed())
    };
    let text = with_ms(moment);
    let (restored, rto) = brought("then", &["--at", &text]).await;
    compare(&known, &restored, moment, moment);
    print_objectives("PostgreSQL, to a moment", &known, &restored, rto);
    let (restored, rto) = brought("all", &[]).await;
    print_objectives("PostgreSQL, whole log", &known, &restored, rto);
    assert_eq!(restored.len(), known.len(), "all that was acknowledged is there");

    // A moment that the backup cannot reach, a hole in the log, a changed segment.
    let early = with_ms(ms(&backup, "ended_ms").plus_s(-5));
    let to = house.at("never");
    let whole = ["restore", "--key", &key, "--archive", &archive, "--from", &base, "--to", &to];
    house.refused(&[whole.as_slice(), &["--at", &early]].concat(), "choose an older backup");
    let segment = Path::new(&archive).join(&last);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let target = house.at("segment");
    let pull = ["wal", "pull", &last, &target, "--key", &key, "--archive", &archive];
    house.refused(&pull, &last);
    assert_eq!(
        house.run(&pull).status.code(),
        Some(126),
        "PostgreSQL must not take it for the end"
    );
    let later = Path::new(&archive).join(format!("{}FF", &last[..22]));
    std::fs::rename(&segment, later).unwrap();
    house.refused(&whole, "the log has a hole");
    house.refused(&pull, &last);
    assert!(!Path::new(&to).exists());
}

/// RFC 3339 with milliseconds.
fn with_ms(at: Timestamp) -> String {
    let text = wechatpay::beijing::rfc3339(at);
    format!("{}.{:03}{}", &text[..19], at.ms() % 1000, &text[19..])
}
