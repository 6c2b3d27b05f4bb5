//! `feiqian bench`: figures with the machine's own limit measured in the same run.
//!
//! Neighbours make the speed of a machine vary from moment to moment, so every scenario alternates
//! slices of itself with slices of its limit, and the ratio is what counts.

mod bare;
mod bare_postgres;
mod disk;
mod engine;
mod hot;
mod ledger;
mod order;
mod overload;
mod payment;
mod report;
mod wire;

use crate::cli::Fault;
use clap::{Args, ValueEnum};
use disk::Workplace;
use engine::{Engine, StoreKind};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What is measured
    #[arg(value_enum)]
    scenario: Scenario,
    /// Seconds of the scenario itself; its limit takes up to as long again
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Connections, or commits in flight: 64 for order and overload, 16 for payment, 512 for ledger and hot if not said
    #[arg(long, value_parser = clients)]
    clients: Option<usize>,
    #[arg(long, value_enum, default_value_t = StoreKind::Sqlite)]
    store: StoreKind,
    /// A folder on the disk to be measured; left as it was found
    #[arg(long, value_name = "DIR", default_value = "./feiqian-bench")]
    data: PathBuf,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Signed V3 creates, durable before the answer
    Order,
    /// From the merchant's request to the merchant's notification
    Payment,
    /// Signed creates from half to three times what the platform can take
    Overload,
    /// Durable payment commits: order, postings, balances, outbox
    Ledger,
    /// The same, all on one merchant and one fee account
    Hot,
}

fn clients(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|it| (1..=10_000).contains(it));
    number.ok_or_else(|| "1 to 10000 clients".into())
}

pub async fn run(args: BenchArgs) -> Result<(), Fault> {
    let place = Workplace::new(&args.data)?;
    let engine = Engine::start(args.store, &place)?;
    let report = match args.scenario {
        Scenario::Order => order::run(&args, &place, &engine).await?,
        Scenario::Overload => overload::run(&args, &place, &engine).await?,
        Scenario::Payment => payment::run(&args, &place, &engine).await?,
        Scenario::Hot => hot::run(&args, &place, &engine).await?,
        Scenario::Ledger => ledger::run(&args, &place, &engine).await?,
    };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

/// A line on stderr, if people look at it.
struct Progress {
    scenario: &'static str,
    seconds: u64,
    shown: bool,
}

const BAR: usize = 24;

impl Progress {
    fn new(scenario: &'static str, seconds: u64) -> Progress {
        Progress { scenario, seconds, shown: std::io::stderr().is_terminal() }
    }

    fn show(&self, done: Duration, ours_per_s: f64, limit_per_s: f64) {
        if !self.shown {
            return;
        }
        let part = (done.as_secs_f64() / Duration::from_secs(self.seconds).as_secs_f64()).min(1.0);
        // At most BAR, and not negative.
        let full = (part * BAR as f64) as usize;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
        let scenario = self.scenario;
        eprint!("\r{scenario} [{bar}] {ours_per_s:.0} /s of {limit_per_s:.0} /s  ");
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
