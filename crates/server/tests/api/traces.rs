//! One payment, one trace: over the merchant's request, two processes, the channel, the books and
//! the notification, as a collector receives it. And: a collector that hangs hinders nobody.

use crate::client::{APPID, Client};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use kernel::{BasisPoints, MerchantId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use payments::{LatePolicy, Mode};
use prost::Message;
use serde_json::{Value, json};
use server::config::Config;
use server::gateway::open_store;
use server::install::{NewMerchant, add_merchant};
use server::{clock, demo};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::ports::free_port;
use testkit::wechat::{Outcome, Reference, WechatSimServer};

const MERCHANT: &str = "1900000831";
const NATIVE: &str = "/v3/pay/transactions/native";

#[derive(Clone, Debug)]
struct Span {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    has_links: bool,
    attributes: BTreeMap<String, String>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

fn hex(bytes: &[u8]) -> String {
    seal::digest::hex_lower(bytes)
}

fn members(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |it: &KeyValue| {
        let value = it.value.as_ref().and_then(|it| it.value.clone());
        let value = match value {
            Some(Any::StringValue(text)) => text,
            Some(Any::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (it.key.clone(), value)
    };
    list.iter().map(text).collect()
}

fn read(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in &request.resource_spans {
        let about = resource.resource.as_ref().map(|it| members(&it.attributes));
        let service = about.unwrap_or_default().remove("service.name").unwrap_or_default();
        for span in resource.scope_spans.iter().flat_map(|it| &it.spans) {
            spans.push(Span {
                service: service.clone(),
                name: span.name.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                has_links: !span.links.is_empty(),
                attributes: members(&span.attributes),
            });
        }
    }
    spans
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Takes in spans as any collector does.
async fn collector() -> (String, Spans) {
    let spans = Spans::default();
    let kept = spans.clone();
    let take = move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let request = ExportTraceServiceRequest::decode(body).expect("OTLP protobuf");
        kept.lock().unwrap().extend(read(&request));
        StatusCode::OK
    };
    (serve(Router::new().route("/v1/traces", post(take))).await, spans)
}

/// Takes the line and never says a word.
async fn hanging_collector() -> String {
    let hang = || async { std::future::pending::<StatusCode>().await };
    serve(Router::new().route("/v1/traces", post(hang))).await
}

type Headers = Arc<Mutex<Vec<HeaderMap>>>;

async fn merchant_server() -> (String, Headers) {
    let heard = Headers::default();
    let kept = heard.clone();
    let take = move |headers: HeaderMap| async move {
        kept.lock().unwrap().push(headers);
        StatusCode::NO_CONTENT
    };
    let url = serve(Router::new().route("/notify", post(take))).await;
    (format!("{url}/notify"), heard)
}

/// One installation, served by a gateway and a worker of its own.
struct Installation {
    folder: PathBuf,
    simulator: WechatSimServer,
    client: Client,
    processes: Vec<Child>,
}

impl Drop for Installation {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.kill().ok();
            process.wait().ok();
        }
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

impl Installation {
    async fn start(endpoint: &str) -> Installation {
        let folder = std::env::temp_dir().join(format!("feiqian-trace-{}", seal::random_nonce()));
        let (port, other) = (free_port(), free_port());
        let base_url = format!("http://127.0.0.1:{port}");
        demo::prepare(&folder, &base_url).unwrap();
        let simulator = demo::start_simulator(&folder).await.unwrap();
        let file = folder.join("feiqian.toml");
        let text = std::fs::read_to_string(&file)
            .unwrap()
            .replace("http://127.0.0.1:9\"", &format!("{}\"", simulator.base_url()))
            .replace(
                "# otlp_endpoint = \"http://127.0.0.1:4318\"",
                &format!("otlp_endpoint = \"{endpoint}\""),
            );
        assert!(text.contains(endpoint), "{text}");
        let listen = |port: u16| format!("listen = \"127.0.0.1:{port}\"");
        let worker = text.replace(&listen(8080), &listen(other)).replace("node = 0", "node = 1");
        std::fs::write(&file, text.replace(&listen(8080), &listen(port))).unwrap();
        std::fs::write(folder.join("worker.toml"), worker).unwrap();
        let config = Config::load(&file).unwrap();
        let store = open_store(&config).await.unwrap();
        let new = NewMerchant {
            id: MerchantId::parse(MERCHANT).unwrap(),
            name: "A name that no trace tells".into(),
            appid: APPID.into(),
            fee_rate: BasisPoints::new(60).unwrap(),
            mode: Mode::Eager,
            late: LatePolicy::Refund,
        };
        let files = add_merchant(&config, &store, &new).await.unwrap();
        drop(store);
        let client = Client::new(MERCHANT, &base_url, &files);
        let processes = vec![
            spawn(&folder, "feiqian.toml", "gateway"),
            spawn(&folder, "worker.toml", "worker"),
        ];
        let house = Installation { folder, simulator, client, processes };
        house.ready(&base_url).await;
        house
    }

    async fn ready(&self, base_url: &str) {
        for _ in 0..400 {
            let answer = self.client.http.get(format!("{base_url}/readyz")).send().await;
            if answer.is_ok_and(|it| it.status() == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the gateway never answered: {}", self.log("gateway"));
    }

    fn log(&self, role: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("{role}.log"))).unwrap()
    }

    /// A line of a process's log, as JSON, that holds all of `words`.
    async fn line(&self, role: &str, words: &[&str]) -> Value {
        for _ in 0..400 {
            let log = self.log(role);
            let found = log.lines().find(|line| words.iter().all(|it| line.contains(it)));
            if let Some(line) = found {
                return serde_json::from_str(line).expect("a line is JSON");
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no line with {words:?} in\n{}", self.log(role));
    }

    fn pay(&self, code: &Value) {
        let code = Reference::Code(code["code_url"].as_str().unwrap());
        let now = clock::wall();
        let paid = self.simulator.with(|sim| sim.confirm(code, Outcome::Success, None, now));
        paid.unwrap();
    }
}

fn spawn(folder: &Path, config: &str, role: &str) -> Child {
    let log = std::fs::File::create(folder.join(format!("{role}.log"))).unwrap();
    Command::new(env!("CARGO_BIN_EXE_feiqian"))
        .args(["serve", "--plain-http-channels", "--role", role, "--config"])
        .arg(folder.join(config))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary runs")
}

/// Waits until `found` sees in the spans what it looks for.
async fn until<T>(spans: &Spans, found: impl Fn(&[Span]) -> Option<T>) -> T {
    for _ in 0..800 {
        if let Some(it) = found(&spans.lock().unwrap()) {
            return it;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let list = spans.lock().unwrap();
    let list: Vec<String> = list.iter().map(|it| format!("{it:?}")).collect();
    panic!("the spans never came; there are\n{}", list.join("\n"));
}

fn find<'a>(spans: &'a [Span], name: &str, more: &[(&str, &str)]) -> Option<&'a Span> {
    let fits = |it: &&Span| {
        let has =
            |(key, value): &(&str, &str)| it.attributes.get(*key).is_some_and(|it| it == value);
        it.name == name && more.iter().all(has)
    };
    spans.iter().find(fits)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_has_one_trace_over_processes_from_request_to_notification() {
    let (endpoint, spans) = collector().await;
    let house = Installation::start(&endpoint).await;
    let (notify_url, heard) = merchant_server().await;
    let trace = hex(&seal::random_bytes::<16>());
    let outer = hex(&seal::random_bytes::<8>());
    let traceparent = Some(format!("00-{trace}-{outer}-00"));
    let client = Client { traceparent, ..house.client.clone() };
    let mut order = client.order("TRACED0001", 100);
    order["notify_url"] = json!(notify_url);
    let placed = client.post(NATIVE, &order).await;
    assert_eq!(placed.status, 200, "{}", placed.json());
    let request_id = placed.headers["request-id"].to_str().unwrap().to_owned();
    house.pay(&placed.json());
    house.client.until("TRACED0001", "SUCCESS").await;
    let refund = json!({ "out_trade_no": "TRACED0001", "out_refund_no": "R1",
        "amount": { "refund": 30, "total": 100, "currency": "CNY" } });
    assert_eq!(house.client.post("/v3/refund/domestic/refunds", &refund).await.status, 200);

    let mine = until(&spans, |all| {
        let mine: Vec<Span> = all.iter().filter(|it| it.trace == trace).cloned().collect();
        // A span comes when it ends, so the outer ones come last.
        let done = find(&mine, "notify", &[]).is_some()
            && find(&mine, "channel", &[("operation", "refund")]).is_some()
            && find(&mine, "callback", &[]).is_some()
            && find(&mine, "create_native", &[]).is_some();
        done.then_some(mine)
    })
    .await;
    let gateway = |it: &Span| it.service == "feiqian-gateway";
    let worker = |it: &Span| it.service == "feiqian-worker";
    // The merchant's own span is the parent, and what it answered is found by its Request-ID.
    let request = find(&mine, "create_native", &[("request_id", &request_id)]).unwrap();
    assert_eq!(request.parent, outer);
    assert!(gateway(request), "{request:?}");
    assert_eq!(request.attributes["merchant"], MERCHANT);
    assert_eq!(request.attributes["http.response.status_code"], "200");
    let payment = request.attributes["payment"].clone();
    let placing = find(&mine, "place_order", &[]).unwrap();
    assert_eq!(placing.parent, request.id);
    let create = find(&mine, "channel", &[("operation", "create"), ("outcome", "ok")]).unwrap();
    assert_eq!(
        (create.parent.as_str(), create.service.as_str()),
        (&*placing.id, "feiqian-gateway")
    );
    // The callback came over a request of its own and is linked to it.
    let callback = find(&mine, "callback", &[("payment", &payment)]).unwrap();
    assert!(gateway(callback) && callback.has_links, "{callback:?}");
    let booked = mine.iter().any(|it| it.name == "commit" && it.parent == callback.id);
    assert!(booked, "the callback's commit is in {mine:#?}");
    // What another process does later.
    let notify = find(&mine, "notify", &[("payment", &payment)]).unwrap();
    let told = find(&mine, "notification", &[("http.response.status_code", "204")]).unwrap();
    assert!(worker(notify) && worker(told), "{notify:?} {told:?}");
    assert_eq!(told.parent, notify.id);
    let back = find(&mine, "channel", &[("operation", "refund")]).unwrap();
    assert!(worker(back), "{back:?}");

    // From the log to the trace, in both processes.
    let line = house.line("gateway", &[&request_id]).await;
    assert_eq!(line["trace_id"], trace.as_str(), "{line}");
    assert_eq!((&line["merchant"], &line["payment"]), (&json!(MERCHANT), &json!(payment)));
    let line = house.line("worker", &["notified", &payment]).await;
    assert_eq!(line["trace_id"], trace.as_str(), "{line}");

    // Nothing of it leaves the house but to the collector.
    for headers in heard.lock().unwrap().iter() {
        let ours: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
        assert!(!ours.iter().any(|it| it.contains("trace") || *it == "baggage"), "{ours:?}");
    }
    // Nor does a person, a text or a key go there.
    let all = format!("{:?}{}{}", spans.lock().unwrap(), house.log("gateway"), house.log("worker"));
    let key = std::fs::read_to_string(house.folder.join("simulator/apiv3_key")).unwrap();
    for secret in ["A name that no trace tells", "测试商品", key.trim(), "Wechatpay-Signature"]
    {
        assert!(!all.contains(secret), "{secret} is in\n{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_hinders_no_payment_and_losses_are_counted() {
    let house = Installation::start(&hanging_collector().await).await;
    let (notify_url, heard) = merchant_server().await;
    let mut order = house.client.order("HANGING001", 100);
    order["notify_url"] = json!(notify_url);
    let placed = house.client.post(NATIVE, &order).await;
    assert_eq!(placed.status, 200, "{}", placed.json());
    house.pay(&placed.json());
    house.client.until("HANGING001", "SUCCESS").await;
    // The collector has not said a word, and never will.
    let line = house.line("worker", &["notified"]).await;
    assert_eq!((&line["status"], heard.lock().unwrap().len()), (&json!(204), 1), "{line}");
    for _ in 0..800 {
        let url = format!("{}/metrics", house.client.base_url);
        let text = house.client.http.get(url).send().await.unwrap().text().await.unwrap();
        let name = "feiqian_trace_spans_dropped_total ";
        let dropped = text.lines().find_map(|it| it.strip_prefix(name)).expect("it is shown");
        if dropped != "0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("no span was counted as dropped");
}
