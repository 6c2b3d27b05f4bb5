//! A real NATS server of a test's own: private folder, private port, gone afterwards.
//!
//! Looks for `nats-server` where `FEIQIAN_NATS_SERVER` says, then on PATH, then where
//! `scripts/ensure.sh test` puts it.

use crate::ports::free_port;
use std::ffi::OsString;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Keeps the server only as long as our end of its standard input is open: it ends with us, however
/// we end.
const GUARD: &str = r#"
"$SERVER" --addr 127.0.0.1 --port "$PORT" --jetstream --store_dir "$DATA" \
  >>"$DATA/log" 2>&1 </dev/null &
pid=$!
read -r how || rm -rf "$DATA"
kill -KILL $pid
wait $pid
"#;

pub struct NatsServer {
    data: PathBuf,
    port: u16,
    guard: Option<(Child, ChildStdin)>,
}

fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("FEIQIAN_NATS_SERVER") {
        return named.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|it| it.join("nats-server"));
    let installed = python_folders().into_iter().map(|it| it.join("bin/nats-server"));
    let mut found = on_path.chain(installed).filter(|it| it.is_file());
    found.next().expect("nats-server is not installed; scripts/ensure.sh test installs it")
}

/// The environments that `scripts/places.sh` names.
fn python_folders() -> Vec<PathBuf> {
    let named = |name: &str, below: &str| -> Option<PathBuf> {
        let folder: OsString = std::env::var_os(name)?;
        Some(PathBuf::from(folder).join(below))
    };
    let cache = named("FEIQIAN_CACHE", "")
        .or_else(|| named("XDG_CACHE_HOME", "feiqian"))
        .or_else(|| named("HOME", ".cache/feiqian"))
        .unwrap_or_default();
    let list = std::fs::read_dir(cache).map(|it| it.flatten().map(|it| it.path()).collect());
    let mut list: Vec<PathBuf> = list.unwrap_or_default();
    let is_python =
        |it: &PathBuf| it.file_name().is_some_and(|it| it.to_string_lossy().starts_with("python-"));
    list.retain(is_python);
    list
}

impl NatsServer {
    /// A port and a folder; nobody answers before [`NatsServer::run`].
    pub fn prepare() -> NatsServer {
        let port = free_port();
        let data = std::env::temp_dir().join(format!("feiqian-nats-{}", seal::random_nonce()));
        std::fs::create_dir_all(&data).expect("a folder for NATS can be made");
        NatsServer { data, port, guard: None }
    }

    pub fn start() -> NatsServer {
        let mut server = NatsServer::prepare();
        server.run();
        server
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it with the data that it has.
    pub fn run(&mut self) {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD])
            .env("SERVER", program())
            .env("DATA", &self.data)
            .env("PORT", self.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        let stdin = guard.stdin.take().expect("it was piped");
        self.guard = Some((guard, stdin));
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.data.join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(60), "NATS did not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it without warning; the data stay.
    pub fn crash(&mut self) {
        if let Some((mut guard, mut stdin)) = self.guard.take() {
            stdin.write_all(b"keep\n").ok();
            drop(stdin);
            guard.wait().ok();
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.crash();
        std::fs::remove_dir_all(&self.data).ok();
    }
}
