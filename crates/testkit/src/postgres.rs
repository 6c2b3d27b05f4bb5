//! A real PostgreSQL server of a test's own: private folder, private port, gone afterwards.
//!
//! Needs the Debian package `postgresql-15` (or any installation on PATH). PostgreSQL refuses to
//! run as root; a root process starts it as the user `postgres`.

use crate::ports::free_port;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static SERVERS: AtomicU32 = AtomicU32::new(0);

/// Keeps the server only as long as our end of its standard input is open: it ends with us, however
/// we end.
const GUARD: &str = r#"
set -u
"$BIN/postgres" -D "$DATA" -p "$PORT" -k "$DATA" -c listen_addresses=127.0.0.1 \
  $OPTIONS >>"$DATA/log" 2>&1 </dev/null &
pid=$!
read -r how || how=
case $how in
  crash) kill -KILL $pid $(head -n 1 "$DATA/postmaster.pid"); pkill -KILL -P $pid ;;
  keep) kill -INT $pid ;;
  *) kill -INT $pid; wait $pid; rm -rf "$DATA" ;;
esac
wait $pid
"#;

/// Options of a server that flushes.
pub const DURABLE: &str = "-c max_connections=300 -c max_wal_size=4GB -c shared_buffers=256MB";

pub struct PostgresServer {
    data: PathBuf,
    port: u16,
    options: String,
    bin: PathBuf,
    guard: Option<(Child, ChildStdin)>,
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|it| it.stdout.starts_with(b"0\n"))
}

fn command(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Hands a folder to the user that PostgreSQL runs as.
pub fn give_away(path: &Path) {
    if is_root() {
        let owned = Command::new("chown").args(["-R", "postgres"]).arg(path).status();
        assert!(owned.is_ok_and(|it| it.success()), "the folder can be given away");
    }
}

/// The folder with PostgreSQL's programs: the newest of Debian's, or that of PATH.
pub fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|list| list.flatten().map(|it| it.path().join("bin")).collect())
        .unwrap_or_default();
    found.retain(|it| it.join("initdb").exists());
    found.sort();
    found
        .pop()
        .or_else(on_path)
        .expect("PostgreSQL is not installed; scripts/ensure.sh test installs it")
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|it| it.join("initdb").exists())
}

impl PostgresServer {
    /// A server for tests of behaviour: quick, and not safe against a power cut.
    pub fn quick() -> PostgresServer {
        PostgresServer::start("-c fsync=off -c full_page_writes=off -c max_connections=300")
    }

    /// A server that flushes: for crashes and measurements.
    pub fn durable() -> PostgresServer {
        PostgresServer::start(DURABLE)
    }

    /// - Input: `options` as on the command line of `postgres`.
    pub fn start(options: &str) -> PostgresServer {
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("feiqian-postgres-{}-{number}", std::process::id());
        PostgresServer::start_in(&std::env::temp_dir().join(name), options)
    }

    pub fn start_in(data: &Path, options: &str) -> PostgresServer {
        let bin = programs();
        std::fs::remove_dir_all(data).ok();
        std::fs::create_dir_all(data).expect("a folder for PostgreSQL can be made");
        give_away(data);
        let made = command(&bin.join("initdb"))
            .args([
                "--no-sync",
                "-A",
                "trust",
                "-U",
                "feiqian",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(data)
            .current_dir("/")
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        PostgresServer::on(data, options)
    }

    /// A server on a data folder that exists, such as a restored one. The folder goes with it.
    pub fn on(data: &Path, options: &str) -> PostgresServer {
        give_away(data);
        let bin = programs();
        let port = free_port();
        let mut server =
            PostgresServer { data: data.into(), port, options: options.into(), bin, guard: None };
        server.run();
        server
    }

    /// Starts it, after [`PostgresServer::crash`] or [`PostgresServer::stop`], with its data.
    pub fn run(&mut self) {
        let mut guard = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let mut guard = guard
            .args(["-c", GUARD])
            .env("BIN", &self.bin)
            .env("DATA", &self.data)
            .env("PORT", self.port.to_string())
            .env("OPTIONS", &self.options)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        let stdin = guard.stdin.take().expect("it was piped");
        self.guard = Some((guard, stdin));
        self.await_ready();
    }

    fn await_ready(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let ready = Command::new(self.bin.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status();
            if ready.is_ok_and(|it| it.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.data.join("log")).unwrap_or_default();
        panic!("PostgreSQL did not start: {log}");
    }

    fn end(&mut self, how: &str) {
        if let Some((mut guard, mut stdin)) = self.guard.take() {
            stdin.write_all(how.as_bytes()).ok();
            drop(stdin);
            guard.wait().ok();
        }
    }

    /// Kills it without warning; the data stay.
    pub fn crash(&mut self) {
        self.end("crash\n");
    }

    /// Stops it in order; the data stay.
    pub fn stop(&mut self) {
        self.end("keep\n");
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://feiqian@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements as the owner of everything; returns what `psql` prints.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        let run = Command::new(self.bin.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "feiqian", "-X", "-A", "-t", "-q"])
            .args(["-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql])
            .output()
            .expect("psql runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).trim().into()
    }

    /// A new, empty database; returns its address.
    pub fn create(&self, database: &str) -> String {
        self.psql("postgres", &format!("CREATE DATABASE \"{database}\""));
        self.url(database)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.end("gone\n");
        std::fs::remove_dir_all(&self.data).ok();
    }
}
