//! `bench hot`: durable payment commits, all of one merchant and so on the same few balances. Its
//! limit is the same payments spread over several merchants, in alternating slices on one store.

use super::disk::Workplace;
use super::engine::Engine;
use super::ledger::{Desk, MERCHANTS, SLICE, WARM_UP, check_books, slice};
use super::report::{BenchReport, Latencies, Tally};
use super::{BenchArgs, Progress};
use crate::cli::Fault;
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Duration;
use store::AnyStore;

pub async fn run(
    args: &BenchArgs,
    place: &Workplace,
    engine: &Engine,
) -> Result<BenchReport, Fault> {
    let clients = args.clients.unwrap_or(512);
    let store = AnyStore::open(&engine.address("hot")?).await?;
    let (hot, spread) = (Arc::new(Desk::hot()), Arc::new(Desk::new(MERCHANTS)));
    let (mut ours, mut limit) = (Tally::default(), Tally::default());
    let mut latencies = Latencies::default();
    let progress = Progress::new("hot", args.seconds);
    let target = Duration::from_secs(args.seconds);
    let mut warm = false;
    while ours.took < target {
        let length = if warm { SLICE } else { WARM_UP };
        let (timed, took, count) = slice(&store, &hot, clients, length).await?;
        let (_, limit_took, limit_count) = slice(&store, &spread, clients, length).await?;
        if warm {
            latencies.add(&timed);
            ours.add(took, count);
            limit.add(limit_took, limit_count);
            progress.show(ours.took, ours.rate(), limit.rate());
        }
        warm = true;
    }
    progress.end();
    check_books(&store).await?;
    let mut more = Map::new();
    more.insert("filesystem".into(), json!(place.filesystem));
    Ok(BenchReport {
        scenario: "hot",
        store: engine.name(),
        seconds: ours.took.as_secs_f64(),
        clients,
        throughput_per_s: ours.rate(),
        latencies,
        limit_name: format!("the same payments spread over {MERCHANTS} merchants"),
        limit_per_s: limit.rate(),
        notes: vec![
            "Every payment is of one merchant and moves the same four balances.".into(),
            "The books were recomputed from their postings afterwards and agree.".into(),
        ],
        more,
    })
}
