//! Seeing what the platform does: metrics, traces, log lines, health. Watches only: nothing is
//! decided by what is seen here, and a payment goes on if any of it fails.
//!
//! Never a secret, key, card or person's name in any of them: spans and lines name payments,
//! merchants and channels by number.

pub mod admin;
mod checks;
pub mod export;
pub mod log;
pub mod metrics;
pub mod requests;
pub mod trace;
mod watched;
mod witness;

use crate::clock;
use crate::gateway::Gateway;
use crate::serve;
use kernel::Timestamp;
use metrics::Metrics;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use watched::Watched;
pub use witness::Witness;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const COMMIT: &str = env!("FEIQIAN_COMMIT");
const COMPILER: &str = env!("FEIQIAN_COMPILER");

/// What this process is. A command that only opens the store is nothing.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub role: &'static str,
    /// Whether it looks after the books.
    pub keeps_books: bool,
}

/// What the parts of a process share for being watched.
#[derive(Default)]
pub struct Observe {
    pub metrics: Arc<Metrics>,
    process: OnceLock<(Process, Timestamp)>,
}

impl Observe {
    /// What `/buildz` says.
    fn about(&self) -> Value {
        let (role, started) = match self.process.get() {
            Some((process, started)) => (Some(process.role), Some(rfc3339(*started))),
            None => (None, None),
        };
        json!({ "version": VERSION, "commit": COMMIT, "rust": COMPILER, "role": role,
            "started": started })
    }
}

fn rfc3339(at: Timestamp) -> String {
    wechatpay::beijing::rfc3339(at)
}

/// For processes that answer operators only.
pub fn router(gateway: Arc<Gateway>) -> axum::Router {
    admin::beside_the_api(&gateway).with_state(gateway)
}

/// Begins to watch: what is to be done from time to time, and the listener for operators.
pub async fn start(
    gateway: &Arc<Gateway>,
    process: Process,
    stop: &watch::Receiver<bool>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let recorder = gateway.observe.metrics.recorder();
    // For code that holds no gateway and counts with the crate's macros. In a process with several
    // platforms, as tests are, those count for the first.
    ::metrics::set_global_recorder(recorder).ok();
    let started = clock::wall();
    gateway.observe.process.set((process, started)).ok();
    let metrics = &gateway.observe.metrics;
    metrics.begins(VERSION, COMMIT, process.role, started.ms() as f64 / 1000.0);
    let mut tasks = vec![
        tokio::spawn(checks::upkeep(gateway.clone(), stop.clone())),
        tokio::spawn(checks::certificates(gateway.clone(), stop.clone())),
    ];
    let every = gateway.config.observe.ledger_check_every_s;
    if process.keeps_books && every > 0 {
        let every = Duration::from_secs(every);
        tasks.push(tokio::spawn(checks::books(gateway.clone(), every, stop.clone())));
    }
    if let Some(address) = gateway.config.server.admin_listen {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let what = format!("server.admin_listen {address} cannot be used ({error}); change it");
            std::io::Error::new(error.kind(), what)
        })?;
        tracing::info!(listen = %listener.local_addr()?, "operators are answered");
        let router = admin::alone(gateway.clone());
        let serving = serve::serve(listener, router, gateway.clone(), stop.clone());
        tasks.push(tokio::spawn(serving));
    }
    Ok(tasks)
}
