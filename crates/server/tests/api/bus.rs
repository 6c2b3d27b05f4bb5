//! Events over a real NATS server: each once, none lost, webhooks signed; and processes that hear
//! of each other.

use crate::client::{Client, House, pay};
use app::{Commit, Intent, IntentKind, Put, Store};
use async_nats::jetstream::{self, consumer::pull, stream};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use kernel::{MerchantId, Serial};
use payments::Mode;
use serde_json::{Value, json};
use server::clock::Clock;
use server::config::Config;
use server::gateway::{Gateway, Liberties};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::nats::NatsServer;
use testkit::wechat::Outcome;

const NATIVE: &str = "/v3/pay/transactions/native";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Whatever is waited for is there long before.
const PATIENCE: Duration = Duration::from_secs(60);

fn bus(nats: &NatsServer) -> String {
    format!("\n[bus]\nurl = \"{}\"\n", nats.url())
}

fn webhook(url: &str, events: &[&str]) -> String {
    format!("\n[[webhook]]\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nevents = {events:?}\n")
}

async fn create(client: &Client, order_no: &str) -> String {
    let made = client.post(NATIVE, &client.order(order_no, 100)).await.json();
    made["code_url"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

/// Pays an order; gives the payment's serial.
async fn paid(house: &House, client: &Client, order_no: &str) -> String {
    let code = create(client, order_no).await;
    pay(house, &code, Outcome::Success);
    let order = client.until(order_no, "SUCCESS").await;
    order["transaction_id"].as_str().unwrap().to_owned()
}

async fn refunded(client: &Client, order_no: &str) -> String {
    let body = json!({ "out_trade_no": order_no, "out_refund_no": format!("R{order_no}"),
        "amount": { "refund": 30, "total": 100, "currency": "CNY" } });
    let refund = client.post("/v3/refund/domestic/refunds", &body).await.json();
    refund["refund_id"].as_str().unwrap_or_else(|| panic!("{refund}")).to_owned()
}

/// Lets the business clock run until `done`, so that no retry has to be waited for.
async fn hurry(house: &House, done: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < PATIENCE, "it never came");
        house.demo.gateway.clock.advance_s(5);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Told {
    id: String,
    subject: String,
    body: Value,
}

/// Everything that the stream holds.
async fn told(nats: &NatsServer) -> Vec<Told> {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = jetstream::new(client);
    let Ok(mut stream) = jetstream.get_stream("FEIQIAN").await else { return Vec::new() };
    let count = stream.info().await.unwrap().state.messages;
    let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
    let count = usize::try_from(count).unwrap();
    if count == 0 {
        return Vec::new();
    }
    let mut messages = consumer.fetch().max_messages(count).messages().await.unwrap();
    let mut all = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message.unwrap();
        let headers = message.headers.as_ref().unwrap();
        all.push(Told {
            id: headers.get("Nats-Msg-Id").unwrap().to_string(),
            subject: message.subject.to_string(),
            body: serde_json::from_slice(&message.payload).unwrap(),
        });
    }
    all
}

async fn ids(nats: &NatsServer) -> Vec<String> {
    told(nats).await.into_iter().map(|it| it.id).collect()
}

/// A `publish` that was done and not settled is done again: here by hand, as after a crash.
async fn publish_again(house: &House, merchant: &str, subject: &str) {
    let gateway = &house.demo.gateway;
    let now = gateway.clock.now();
    let intent = Intent {
        merchant: MerchantId::parse(merchant).unwrap(),
        kind: IntentKind::Publish,
        subject: Serial::parse(subject).unwrap(),
        due: now,
        tries: 0,
        holder: Some("a process that is gone".into()),
    };
    gateway.platform.attend(&intent, now).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_twice_is_in_the_stream_once() {
    let nats = NatsServer::start();
    let house = House::start_with(&bus(&nats)).await;
    let client = house.merchant("1900000861", Mode::Eager).await;
    let payment = paid(&house, &client, "ONCE000001").await;
    let refund = refunded(&client, "ONCE000001").await;
    create(&client, "CLOSE00001").await;
    let path = "/v3/pay/transactions/out-trade-no/CLOSE00001/close";
    assert_eq!(client.post(path, &json!({ "mchid": client.mchid })).await.status, 204);

    let wanted = [format!("{payment}-succeeded"), format!("{refund}-succeeded")];
    hurry(&house, async || {
        let ids = ids(&nats).await;
        wanted.iter().all(|it| ids.contains(it)) && ids.iter().any(|it| it.ends_with("-closed"))
    })
    .await;
    publish_again(&house, "1900000861", &payment).await;
    publish_again(&house, "1900000861", &refund).await;

    let all = told(&nats).await;
    let distinct: BTreeSet<&str> = all.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(distinct.len(), all.len(), "{distinct:?}");
    let of = |id: &str| all.iter().find(|it| it.id == id).unwrap();
    let first = of(&wanted[0]);
    assert_eq!(first.subject, "feiqian.event.payment.succeeded.1900000861");
    assert_eq!(first.body["id"], wanted[0].as_str());
    assert_eq!(first.body["type"], "payment.succeeded");
    let data = &first.body["data"];
    assert_eq!(
        (&data["merchant"], &data["order_no"]),
        (&json!("1900000861"), &json!("ONCE000001"))
    );
    assert_eq!((&data["amount_minor"], &data["currency"]), (&json!(100), &json!("CNY")));
    let second = of(&wanted[1]);
    assert_eq!(second.subject, "feiqian.event.refund.succeeded.1900000861");
    let data = &second.body["data"];
    assert_eq!((&data["payment"], &data["refund"]), (&json!(payment), &json!(refund)));
    assert_eq!((&data["amount_minor"], &data["refund_no"]), (&json!(30), &json!("RONCE000001")));
    // Nothing about the payer.
    for it in &all {
        let text = it.body.to_string();
        assert!(!text.contains("openid") && !text.contains("payer"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_bus_that_is_away() {
    // Nobody answers there yet: the platform starts, and takes money, all the same.
    let mut nats = NatsServer::prepare();
    let house = House::start_with(&bus(&nats)).await;
    let client = house.merchant("1900000862", Mode::Eager).await;
    let mut wanted = BTreeSet::new();
    wanted.insert(format!("{}-succeeded", paid(&house, &client, "AWAY000001").await));
    nats.run();
    let there = async |wanted: &BTreeSet<String>| {
        let ids = ids(&nats).await;
        assert!(ids.len() <= wanted.len(), "{ids:?}");
        wanted.iter().all(|it| ids.contains(it))
    };
    hurry(&house, async || there(&wanted).await).await;

    nats.crash();
    for number in 2..5 {
        let payment = paid(&house, &client, &format!("AWAY00000{number}")).await;
        wanted.insert(format!("{payment}-succeeded"));
    }
    let waiting = async || {
        let pulse = house.demo.gateway.store().pulse(house.demo.gateway.clock.now()).await.unwrap();
        let publish = pulse.backlog.iter().find(|it| it.0 == IntentKind::Publish);
        publish.map_or(0, |it| it.1.open)
    };
    assert_eq!(waiting().await, 3);
    nats.run();
    let there = async || {
        let ids = ids(&nats).await;
        wanted.iter().all(|it| ids.contains(it)) && ids.len() == wanted.len()
    };
    hurry(&house, there).await;
    hurry(&house, async || waiting().await == 0).await;
    let metrics = house.demo.gateway.observe.metrics.render();
    let failed = metrics
        .lines()
        .find_map(|it| it.strip_prefix("feiqian_events_published_total{outcome=\"failed\"} "));
    assert!(failed.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
}

/// A listener that refuses each event a number of times before it takes it.
#[derive(Clone, Default)]
struct Listener {
    refusals: usize,
    heard: Arc<Mutex<BTreeMap<String, (usize, Value)>>>,
}

impl Listener {
    async fn start(refusals: usize) -> (Listener, String) {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", socket.local_addr().unwrap());
        let listener = Listener { refusals, ..Listener::default() };
        let router =
            Router::new().route("/events", post(Listener::hear)).with_state(listener.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        (listener, url)
    }

    async fn hear(State(this): State<Listener>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
        let signed = [format!("{id}.{timestamp}.").as_bytes(), &body].concat();
        let wanted = STANDARD.encode(seal::digest::hmac_sha256(&key, &signed));
        assert_eq!(header("webhook-signature"), format!("v1,{wanted}"));
        let mut heard = this.heard.lock().unwrap();
        let it = heard.entry(id).or_default();
        *it = (it.0 + 1, serde_json::from_slice(&body).unwrap());
        match it.0 > this.refusals {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How often events of this name were heard.
    fn times(&self, name: &str) -> Vec<usize> {
        let heard = self.heard.lock().unwrap();
        heard.values().filter(|it| it.1["type"] == name).map(|it| it.0).collect()
    }
}

async fn webhooks_hear(bus: &str) {
    let (patient, patient_url) = Listener::start(1).await;
    let (refunds, refunds_url) = Listener::start(0).await;
    let hooks = webhook(&patient_url, &[]) + &webhook(&refunds_url, &["refund.succeeded"]);
    let house = House::start_with(&format!("{bus}{hooks}")).await;
    let client = house.merchant("1900000863", Mode::Eager).await;
    paid(&house, &client, "HOOK000001").await;
    refunded(&client, "HOOK000001").await;
    hurry(&house, async || {
        let twice = |name| patient.times(name) == [2];
        twice("payment.succeeded")
            && twice("refund.succeeded")
            && !refunds.times("refund.succeeded").is_empty()
    })
    .await;
    assert_eq!(refunds.times("payment.succeeded"), Vec::<usize>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_hear_over_the_bus_and_again_after_a_refusal() {
    let nats = NatsServer::start();
    webhooks_hear(&bus(&nats)).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stream: stream::Stream = jetstream::new(client).get_stream("FEIQIAN").await.unwrap();
    let consumers: Vec<_> = stream.consumers().map(|it| it.unwrap()).collect().await;
    assert_eq!(consumers.len(), 2);
    assert!(consumers.iter().all(|it| it.config.durable_name.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_hear_without_a_bus() {
    webhooks_hear("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_and_nothing_is_scheduled() {
    let house = House::start().await;
    let client = house.merchant("1900000864", Mode::Eager).await;
    paid(&house, &client, "QUIET00001").await;
    let pulse = house.demo.gateway.store().pulse(house.demo.gateway.clock.now()).await.unwrap();
    assert!(pulse.backlog.iter().all(|it| it.0 != IntentKind::Publish), "{pulse:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_hear_of_each_other() {
    let nats = NatsServer::start();
    let house = House::start_with(&bus(&nats)).await;
    let client = house.merchant("1900000865", Mode::Eager).await;
    let here = &house.demo.gateway;
    let mut config = Config::load(&here.config.folder.join("feiqian.toml")).unwrap();
    config.server.node = Some(77);
    let liberties = Liberties { plain_http_channels: true };
    let there = Gateway::open(config, Clock::default(), &liberties).await.unwrap();
    let connected = || here.bus.iter().chain(&there.bus).all(|it| it.is_connected());
    hurry(&house, async || connected()).await;
    // A round trip: what was subscribed before is known to the server then.
    let id = MerchantId::parse("1900000865").unwrap();
    let now = there.clock.now();
    assert_eq!(there.merchants.name(&id, now).await, "Merchant 1900000865");
    let started = Instant::now();
    let mut number = 0;
    loop {
        // A name that changes again and again: the subscription may be a moment late.
        number += 1;
        let stored = here.store().merchant(&id).await.unwrap().unwrap();
        let name = format!("Renamed {number}");
        let renamed = app::Merchant { name: name.clone(), ..stored.value };
        let put = Put { value: renamed, expected: stored.version };
        let commit = Commit { merchants: vec![put], ..Commit::default() };
        here.store().commit(commit).await.unwrap();
        here.merchant_changed(&id);
        tokio::time::sleep(Duration::from_millis(50)).await;
        // By this clock what is kept never grows old: only the hint can make it new.
        if there.merchants.name(&id, now).await == name {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the merchant stayed what it was");
    }

    let mut changes = there.live.changes();
    let payment = paid(&house, &client, "HEARD00001").await;
    let heard = async {
        while changes.recv().await.unwrap().as_str() != payment {}
        there.live.woken().await;
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the other process never heard of it");
}
