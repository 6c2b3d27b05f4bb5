//! `bench payment`: create → payer pays at the simulator → callback → posted → merchant notified,
//! all over loopback, with the time of each stage.

use super::disk::Workplace;
use super::engine::Engine;
use super::report::{BenchReport, Latencies, cpu_cores, rounded};
use super::wire::{Connection, RsaLimit, Signing};
use super::{BenchArgs, Progress};
use crate::cli::Fault;
use crate::clock;
use crate::demo::{self, Demo};
use crate::gateway::Gateway;
use crate::install;
use app::Store;
use axum::Router;
use axum::extract::Path;
use axum::routing::post;
use kernel::MerchantId;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use testkit::wechat::{Outcome, Reference, WechatSimServer};
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Longer than any stage takes on a working machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Signatures and verifications of one payment, by merchant, platform and WeChat together:
/// request, its answer, the order at WeChat and its answer, the callback, the notification.
const SIGNS: u32 = 6;
const VERIFIES: u32 = 4;

/// Who waits for an order number to reach a stage.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<HashMap<String, oneshot::Sender<Instant>>>>);

impl Waiting {
    fn wait_for(&self, order_no: &str) -> oneshot::Receiver<Instant> {
        let (tell, told) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(order_no.into(), tell);
        told
    }

    fn reached(&self, order_no: &str) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(order_no);
        if let Some(tell) = waiting {
            // Whoever gave up does not mind.
            tell.send(Instant::now()).ok();
        }
    }
}

#[derive(Default)]
struct Stages {
    create: Latencies,
    posted: Latencies,
    notified: Latencies,
    whole: Latencies,
}

pub async fn run(
    args: &BenchArgs,
    place: &Workplace,
    engine: &Engine,
) -> Result<BenchReport, Fault> {
    let clients = args.clients.unwrap_or(16);
    let folder = place.folder().join("payment");
    // The demo puts its own address in place of this one.
    demo::prepare(&folder, "http://127.0.0.1:9")?;
    engine.put_under(&folder, "payment")?;
    let demo = Demo::start(&folder, 0).await?;
    let merchant = MerchantId::parse(demo::MERCHANT)?;
    let files = install::files_of(
        &demo.gateway.config,
        &merchant,
        known_serial(&demo.gateway, &merchant).await?,
    );
    let signing = Signing::new(demo::MERCHANT, &files, demo.gateway.certificate().verifier())?;
    let signing = Arc::new(signing);
    let mut limit = RsaLimit::default();
    tokio::task::block_in_place(|| signing.sign(0, 2_000, &mut limit));

    let (posted, notified) = (Waiting::default(), Waiting::default());
    let merchant_server = listen_for_notifications(notified.clone()).await?;
    let watcher = tokio::spawn(watch_postings(demo.gateway.clone(), merchant, posted.clone()));
    let address: SocketAddr = demo.base_url.trim_start_matches("http://").parse()?;
    let progress = Progress::new("payment", args.seconds);
    let (start, target) = (Instant::now(), Duration::from_secs(args.seconds));
    let demo = Arc::new(demo);
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (demo, signing) = (demo.clone(), signing.clone());
        let (posted, notified) = (posted.clone(), notified.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut stages = Stages::default();
            for number in 0.. {
                if start.elapsed() >= target {
                    break;
                }
                let order_no = format!("PAY{client:04}{number:010}");
                let url = format!("http://{merchant_server}/n/{order_no}");
                let waits = (posted.wait_for(&order_no), notified.wait_for(&order_no));
                let begun = Instant::now();
                let request = signing.create(&order_no, &url);
                let status = connection.ask(&request.bytes).await?;
                let created = Instant::now();
                let answer: Value = serde_json::from_slice(connection.body())?;
                let Some(code) = answer["code_url"].as_str() else {
                    return Err(format!("an order was answered {status}: {answer}").into());
                };
                confirm(&demo.simulator, code)?;
                let paid = Instant::now();
                let late = |what: &str| format!("{order_no} was never {what}");
                let at =
                    tokio::time::timeout(PATIENCE, waits.0).await.map_err(|_| late("posted"))??;
                let heard = tokio::time::timeout(PATIENCE, waits.1)
                    .await
                    .map_err(|_| late("notified"))??;
                stages.create.record(created - begun);
                stages.posted.record(at.saturating_duration_since(paid));
                stages.notified.record(heard.saturating_duration_since(at));
                stages.whole.record(heard - begun);
            }
            Ok::<_, Fault>(stages)
        });
    }
    let mut all = Stages::default();
    while let Some(client) = tasks.join_next().await {
        let stages = client??;
        all.create.add(&stages.create);
        all.posted.add(&stages.posted);
        all.notified.add(&stages.notified);
        all.whole.add(&stages.whole);
    }
    let took = start.elapsed();
    progress.end();
    watcher.abort();
    let report = app::audit(demo.gateway.store(), |_| {}).await?;
    if let Some(finding) = report.findings.first() {
        return Err(format!("the books are wrong: {finding}").into());
    }
    if let Some(demo) = Arc::into_inner(demo) {
        demo.end().await;
    }

    let throughput_per_s = all.whole.count() as f64 / took.as_secs_f64();
    let mut more = Map::new();
    for (name, stage) in [
        ("create", &all.create),
        ("paid_to_posted", &all.posted),
        ("posted_to_notified", &all.notified),
    ] {
        let figures =
            stage.shown().map(|(name, value)| (name.to_owned(), json!(rounded(value, 2))));
        more.insert(name.into(), Value::Object(figures.into_iter().collect()));
    }
    Ok(BenchReport {
        scenario: "payment",
        store: engine.name(),
        seconds: took.as_secs_f64(),
        clients,
        throughput_per_s,
        latencies: all.whole,
        limit_name: format!(
            "RSA-2048 of merchant, platform and WeChat together ({SIGNS} signatures, {VERIFIES} verifications) on {} cores",
            cpu_cores()
        ),
        limit_per_s: limit.per_s(SIGNS, VERIFIES),
        notes: vec![
            "One payment: signed create (eager, so the simulator is asked at once), payment in the simulator, signed callback, posting, signed and encrypted notification; merchant, platform and simulator share the cores.".into(),
            "The simulator looks for due callbacks every 20 ms; that is part of paid_to_posted.".into(),
            "The books were audited afterwards and are right.".into(),
        ],
        more,
    })
}

async fn known_serial(gateway: &Gateway, merchant: &MerchantId) -> Result<String, Fault> {
    let known =
        gateway.store().merchant(merchant).await?.ok_or("the sample merchant is missing")?;
    Ok(known.value.certificate_serial)
}

fn confirm(simulator: &WechatSimServer, code: &str) -> Result<(), Fault> {
    let now = clock::wall();
    simulator.with(|sim| sim.confirm(Reference::Code(code), Outcome::Success, None, now))?;
    Ok(())
}

/// A merchant's server: the order number stands in the address.
async fn listen_for_notifications(notified: Waiting) -> Result<SocketAddr, Fault> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let heard = post(move |Path(order_no): Path<String>| async move {
        notified.reached(&order_no);
        http::StatusCode::NO_CONTENT
    });
    let router = Router::new().route("/n/{order_no}", heard);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Learns from the platform's own news when a payment was posted.
async fn watch_postings(gateway: Arc<Gateway>, merchant: MerchantId, posted: Waiting) {
    let mut changes = gateway.live.changes();
    loop {
        let serial = match changes.recv().await {
            Ok(serial) => serial,
            // Whoever waits for what was missed says so in the end.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if let Ok(Some(found)) = gateway.store().payment(&merchant, serial).await
            && found.value.receipt.is_some()
        {
            posted.reached(&found.value.terms.order_no);
        }
    }
}
