//! `bench order`: signed V3 native creates over loopback, durable before the answer. Slices of it
//! alternate with slices of its limit: the RSA that one order costs, on all cores.

use super::disk::Workplace;
use super::engine::Engine;
use super::report::{BenchReport, Latencies, Tally, cpu_cores, rounded};
use super::wire::{Connection, RsaLimit, Signed, Signing};
use super::{BenchArgs, Progress};
use crate::cli::Fault;
use crate::clock::Clock;
use crate::config::{Config, LimitsConfig};
use crate::gateway::{Gateway, Liberties};
use crate::install::{self, NewMerchant};
use crate::{demo, serve};
use app::Store;
use kernel::{BasisPoints, MerchantId};
use payments::{LatePolicy, Mode};
use serde_json::{Map, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

const MERCHANT: &str = "1900000002";
const SLICE: Duration = Duration::from_secs(2);
/// Requests signed for the first slice; later ones follow the rate that was seen.
const FIRST: usize = 2_000;
/// One answer of so many is kept and verified afterwards.
const SAMPLE: usize = 50;

pub async fn run(
    args: &BenchArgs,
    place: &Workplace,
    engine: &Engine,
) -> Result<BenchReport, Fault> {
    let clients = args.clients.unwrap_or(64);
    // What is measured is the way of an order, not its protection.
    let limits = LimitsConfig {
        max_connections_per_ip: 20_000,
        max_in_flight: 20_000,
        queue_wait_ms: 10_000,
        ..LimitsConfig::default().without_rates()
    };
    let house = House::start(place, engine, "order", limits).await?;
    let target = Duration::from_secs(args.seconds);
    let progress = Progress::new("order", args.seconds);
    let (mut ours, mut limit) = (Tally::default(), RsaLimit::default());
    let mut latencies = Latencies::default();
    let (mut next, mut wanted, mut verified, mut warm) = (0, FIRST, 0, false);
    while ours.took < target {
        // Signing the requests is half of the limit's measurement.
        let requests = tokio::task::block_in_place(|| house.signing.sign(next, wanted, &mut limit));
        next += wanted;
        let slice = house.slice(clients, requests).await?;
        verified += house.verify(&slice.sample).await?;
        let rate = slice.latencies.count() as f64 / slice.took.as_secs_f64();
        // A little more than the slice can use, and never without bound.
        wanted = ((rate * SLICE.as_secs_f64() * 1.3) as usize).clamp(FIRST, 100_000);
        if warm {
            latencies.add(&slice.latencies);
            ours.add(slice.took, slice.latencies.count());
            progress.show(ours.took, ours.rate(), limit.per_s(1, 1));
        }
        warm = true;
    }
    progress.end();
    house.stop.send(true).ok();

    let mut more = Map::new();
    let mut put = |name: &str, value: f64| more.insert(name.into(), json!(rounded(value, 1)));
    put("rsa_sign_per_s", limit.sign.rate());
    put("rsa_verify_per_s", limit.verify.rate());
    more.insert("answers_verified".into(), json!(verified));
    Ok(BenchReport {
        scenario: "order",
        store: engine.name(),
        seconds: ours.took.as_secs_f64(),
        clients,
        throughput_per_s: ours.rate(),
        latencies,
        limit_name: format!("RSA-2048 verify + sign on {} cores and nothing else", cpu_cores()),
        limit_per_s: limit.per_s(1, 1),
        notes: vec![
            "One order: HTTP request, RSA verify, risk and routing called, durable commit of order and intent, RSA-signed answer. The channel's own order is created when the payer opens the cashier.".into(),
            "Requests are signed before the clock starts, a sample of the answers is verified after it stops; clients and server share the cores.".into(),
            format!("avx512ifma {}: without it RSA signing is 2.6 times slower.", if has_ifma() { "present" } else { "absent" }),
        ],
        more,
    })
}

fn has_ifma() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|it| it.contains("avx512ifma"))
}

/// A gateway with one lazy merchant, served over loopback.
pub(super) struct House {
    pub gateway: Arc<Gateway>,
    pub signing: Signing,
    pub address: SocketAddr,
    pub stop: watch::Sender<bool>,
}

struct Slice {
    latencies: Latencies,
    took: Duration,
    /// Order numbers with their answers.
    sample: Vec<(String, Vec<u8>)>,
}

impl House {
    /// - Input: `name` of a folder for its data.
    pub async fn start(
        place: &Workplace,
        engine: &Engine,
        name: &str,
        limits: LimitsConfig,
    ) -> Result<House, Fault> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let folder = place.folder().join(name);
        demo::prepare(&folder, &format!("http://{address}"))?;
        engine.put_under(&folder, name)?;
        let mut config = Config::load(&folder.join(crate::config::FILE_NAME))?;
        config.limits = limits;
        let liberties = Liberties { plain_http_channels: true };
        let gateway = Arc::new(Gateway::open(config, Clock::default(), &liberties).await?);
        let new = NewMerchant {
            id: MerchantId::parse(MERCHANT)?,
            name: "Bench".into(),
            appid: demo::APPID.into(),
            fee_rate: BasisPoints::new(60)?,
            mode: Mode::Lazy,
            late: LatePolicy::Refund,
        };
        let files = install::add_merchant(&gateway.config, gateway.store(), &new).await?;
        let signing = Signing::new(MERCHANT, &files, gateway.certificate().verifier())?;
        let (stop, stopped) = watch::channel(false);
        let router = serve::router(gateway.clone());
        tokio::spawn(serve::serve(listener, router, gateway.clone(), stopped));
        Ok(House { gateway, signing, address, stop })
    }

    /// Sends what was signed until it is used up or the slice is over.
    async fn slice(&self, clients: usize, requests: Vec<Signed>) -> Result<Slice, Fault> {
        let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
        let mut connections = Vec::with_capacity(clients);
        for _ in 0..clients {
            connections.push(Connection::open(self.address).await?);
        }
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in connections {
            let (requests, next) = (requests.clone(), next.clone());
            tasks.spawn(async move {
                let (mut latencies, mut sample) = (Latencies::default(), Vec::new());
                while start.elapsed() < SLICE {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(index) else { break };
                    let begun = Instant::now();
                    let status = connection.ask(&request.bytes).await?;
                    latencies.record(begun.elapsed());
                    if status != 200 {
                        let said = String::from_utf8_lossy(connection.answer()).into_owned();
                        return Err(format!("an order was answered {status}: {said}").into());
                    }
                    if index.is_multiple_of(SAMPLE) {
                        sample.push((request.order_no.clone(), connection.answer().to_vec()));
                    }
                }
                Ok::<_, Fault>((latencies, sample))
            });
        }
        let (mut latencies, mut sample) = (Latencies::default(), Vec::new());
        while let Some(client) = tasks.join_next().await {
            let (more, kept) = client??;
            latencies.add(&more);
            sample.extend(kept);
        }
        Ok(Slice { latencies, took: start.elapsed(), sample })
    }

    /// Checks that answers are signed by the platform and their orders are in the store.
    pub async fn verify(&self, sample: &[(String, Vec<u8>)]) -> Result<usize, Fault> {
        let merchant = MerchantId::parse(MERCHANT)?;
        for (order_no, answer) in sample {
            if !self.signing.is_authentic(answer) {
                let said = String::from_utf8_lossy(answer);
                return Err(format!("an answer's signature does not hold: {said}").into());
            }
            if self.gateway.store().payment_by_order(&merchant, order_no).await?.is_none() {
                return Err(format!("order {order_no} was answered and is not in the store").into());
            }
        }
        Ok(sample.len())
    }
}
