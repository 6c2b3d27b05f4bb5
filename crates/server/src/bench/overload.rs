//! `bench overload`: signed creates from half of what the platform can take to three times as much.
//! Capacity is found with clients that wait for their answers; then requests come by the clock,
//! answered or not, and each is timed from when it was due.

use super::disk::Workplace;
use super::engine::Engine;
use super::order::House;
use super::report::{BenchReport, Latencies, rounded};
use super::wire::{Connection, RsaLimit, Signed};
use super::{BenchArgs, Progress};
use crate::cli::Fault;
use crate::config::LimitsConfig;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const STEPS: [f64; 5] = [0.5, 1.0, 1.5, 2.0, 3.0];
/// Connections of those who come by the clock: more than are ever waiting for an answer.
const CONNECTIONS: usize = 768;
/// Requests for finding the capacity.
const FIRST: usize = 12_000;
/// A step is not longer, or its requests would be too old before they are sent.
const MOST: Duration = Duration::from_secs(10);
/// One accepted order of so many is looked up afterwards.
const SAMPLE: usize = 50;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What came of one step.
#[derive(Default)]
struct Step {
    took: Duration,
    accepted: Latencies,
    refused: Latencies,
    /// Accepted ones from when they were really sent: a generator that lags is not the server.
    from_sent: Latencies,
    sample: Vec<(String, Vec<u8>)>,
}

impl Step {
    fn rate(&self, latencies: &Latencies) -> f64 {
        latencies.count() as f64 / self.took.as_secs_f64()
    }
}

pub async fn run(
    args: &BenchArgs,
    place: &Workplace,
    engine: &Engine,
) -> Result<BenchReport, Fault> {
    let clients = args.clients.unwrap_or(64);
    // Protection as it comes, but for the rates: all load is one merchant's from one address.
    let house =
        House::start(place, engine, "overload", LimitsConfig::default().without_rates()).await?;
    let seconds = Duration::from_secs(args.seconds).div_f64(STEPS.len() as f64).min(MOST);
    let progress = Progress::new("overload", args.seconds);
    let mut rsa = RsaLimit::default();
    let mut next = 0;
    let mut sign = |count: usize| {
        let requests = tokio::task::block_in_place(|| house.signing.sign(next, count, &mut rsa));
        next += count;
        requests
    };

    // Twice: the first time caches are cold.
    let mut capacity = 0.0;
    for _ in 0..2 {
        let found = drive(house.address, clients, sign(FIRST), None).await?;
        house.verify(&found.sample).await?;
        capacity = found.rate(&found.accepted);
    }
    let (mut curve, mut verified, mut took) = (Vec::new(), 0, Duration::ZERO);
    let mut last = Step::default();
    for times in STEPS {
        let offered = capacity * times;
        // Never negative, and a count that fits.
        let requests = sign((offered * seconds.as_secs_f64()) as usize);
        let count = requests.len();
        let queue = Watch::start(&house);
        let step = drive(house.address, CONNECTIONS, requests, Some(offered)).await?;
        let queue = queue.end().await?;
        verified += house.verify(&step.sample).await?;
        took += step.took;
        let (accepted, refused) = (step.rate(&step.accepted), step.rate(&step.refused));
        progress.show(took, accepted, capacity);
        curve.push(json!({
            "offered_x": times,
            "offered_per_s": rounded(offered, 0),
            "sent_per_s": rounded(count as f64 / step.took.as_secs_f64(), 0),
            "accepted_per_s": rounded(accepted, 0),
            "refused_per_s": rounded(refused, 0),
            "p50_ms": rounded(step.accepted.quantile_ms(0.5), 2),
            "p99_ms": rounded(step.accepted.quantile_ms(0.99), 2),
            "from_sent_p50_ms": rounded(step.from_sent.quantile_ms(0.5), 2),
            "from_sent_p99_ms": rounded(step.from_sent.quantile_ms(0.99), 2),
            "refused_p99_ms": rounded(step.refused.quantile_ms(0.99), 2),
            "queue_p50_ms": rounded(queue.quantile_ms(0.5), 2),
            "queue_p99_ms": rounded(queue.quantile_ms(0.99), 2),
        }));
        last = step;
    }
    progress.end();
    house.stop.send(true).ok();

    let mut more = Map::new();
    more.insert("curve".into(), Value::Array(curve));
    more.insert("answers_verified".into(), json!(verified));
    Ok(BenchReport {
        scenario: "overload",
        store: engine.name(),
        seconds: took.as_secs_f64(),
        clients,
        throughput_per_s: last.rate(&last.accepted),
        latencies: last.accepted,
        limit_name: format!("capacity: {clients} clients that wait for their answers"),
        limit_per_s: capacity,
        notes: vec![
            "Throughput and latency are those of accepted orders at three times the capacity; the queue is that for signing.".into(),
            format!("Requests come by the clock over {CONNECTIONS} connections and are timed from when they were due; generator and server share the cores."),
        ],
        more,
    })
}

/// How long the head of the signing queue waits, looked at again and again.
struct Watch {
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Latencies>,
}

impl Watch {
    fn start(house: &House) -> Watch {
        let (over, limits) = (Arc::<AtomicBool>::default(), house.gateway.limits.clone());
        let ended = over.clone();
        let task = tokio::spawn(async move {
            let mut seen = Latencies::default();
            while !ended.load(Ordering::Relaxed) {
                seen.record(limits.queue_wait());
                tokio::time::sleep(LOOK_EVERY).await;
            }
            seen
        });
        Watch { over, task }
    }

    async fn end(self) -> Result<Latencies, Fault> {
        self.over.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

/// Sends all requests from a thread of its own, so that the server's threads do not wait for the
/// generator's tasks.
///
/// - Input: `per_s`: by the clock; without it each connection sends once it was answered.
async fn drive(
    address: SocketAddr,
    connections: usize,
    requests: Vec<Signed>,
    per_s: Option<f64>,
) -> Result<Step, Fault> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(send(address, connections, Arc::new(requests), per_s))
    };
    tokio::task::spawn_blocking(work).await?
}

async fn send(
    address: SocketAddr,
    connections: usize,
    requests: Arc<Vec<Signed>>,
    per_s: Option<f64>,
) -> Result<Step, Fault> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let (next, step) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Step::default())));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let (requests, next, step) = (requests.clone(), next.clone(), step.clone());
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(index) else { return Ok(()) };
                let due = match per_s {
                    Some(per_s) => start + Duration::from_secs_f64(index as f64 / per_s),
                    None => Instant::now(),
                };
                tokio::time::sleep_until(due.into()).await;
                let sent = Instant::now();
                let status = connection.ask(&request.bytes).await?;
                let mut step = step.lock().unwrap_or_else(PoisonError::into_inner);
                match status {
                    200 => {
                        step.accepted.record(due.elapsed());
                        step.from_sent.record(sent.elapsed());
                        if index.is_multiple_of(SAMPLE) {
                            let answer = connection.answer().to_vec();
                            step.sample.push((request.order_no.clone(), answer));
                        }
                    }
                    503 => step.refused.record(due.elapsed()),
                    _ => {
                        let said = String::from_utf8_lossy(connection.answer()).into_owned();
                        return Err::<_, Fault>(format!("answered {status}: {said}").into());
                    }
                }
            }
        });
    }
    while let Some(client) = tasks.join_next().await {
        client??;
    }
    let mut step = std::mem::take(&mut *step.lock().unwrap_or_else(PoisonError::into_inner));
    step.took = start.elapsed();
    Ok(step)
}
