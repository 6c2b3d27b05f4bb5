//! The real binary under load, killed with SIGKILL again and again. Afterwards every acknowledged
//! order and refund exists once, the books are right, the channel's book agrees, and the merchant
//! heard of everything, under one id each.
//!
//! `FEIQIAN_CRASHES` sets how often (22), `FEIQIAN_SEED` when.

use kernel::{BasisPoints, MerchantId};
use payments::{LatePolicy, Mode};
use seal::{Signer, Verifier};
use serde_json::{Value, json};
use server::config::Config;
use server::gateway::open_store;
use server::install::{NewMerchant, add_merchant};
use server::{clock, demo};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::wechat::{Call, Chance, Fault, OrderView, Outcome, Reference, WechatSimServer};
use wechatpay::headers::{self, SignatureHeaders};
use wechatpay::notification::Envelope;
use wechatpay::signing::{SCHEME_RSA, request_message};
use wechatpay::{Apiv3Key, Authorization};

const MERCHANT: &str = "1900000900";
const CLIENTS: usize = 6;
const AMOUNT: i64 = 1_000;
/// Ladders begin with seconds and grow; what is healed at all is healed by then.
const PATIENCE: Duration = Duration::from_secs(150);

/// A generator good enough to choose moments.
struct Dice(AtomicU64);

impl Dice {
    fn below(&self, limit: u64) -> u64 {
        let mut it = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        it = (it ^ (it >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (it ^ (it >> 31)) % limit
    }
}

/// What the merchant's server heard, by order or refund.
#[derive(Default)]
struct Heard(Mutex<BTreeMap<String, Told>>);

#[derive(Default)]
struct Told {
    /// The ids of notifications; another id would be another event.
    ids: BTreeSet<String>,
    /// The server once said no. It does so once at most: the ladder's later rungs take minutes.
    refused: bool,
    /// The server once said that it heard.
    accepted: bool,
}

/// What was acknowledged to the merchant.
#[derive(Default)]
struct Acknowledged {
    orders: Mutex<BTreeSet<String>>,
    /// Refund number to order number.
    refunds: Mutex<BTreeMap<String, String>>,
}

struct World {
    folder: PathBuf,
    config: PathBuf,
    base_url: String,
    signer: Signer,
    serial: String,
    platform: Verifier,
    simulator: WechatSimServer,
    heard: Arc<Heard>,
    done: Acknowledged,
    dice: Arc<Dice>,
    merchant_server: SocketAddr,
    over: AtomicBool,
}

impl World {
    async fn new(seed: u64) -> World {
        let folder = std::env::temp_dir().join(format!("feiqian-crash-{}", seal::random_nonce()));
        let port = testkit::ports::free_port();
        let base_url = format!("http://127.0.0.1:{port}");
        demo::prepare(&folder, &base_url).unwrap();
        let simulator = demo::start_simulator(&folder).await.unwrap();
        let config = folder.join("feiqian.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text
            .replace("listen = \"127.0.0.1:8080\"", &format!("listen = \"127.0.0.1:{port}\""))
            .replace("http://127.0.0.1:9\"", &format!("{}\"", simulator.base_url()));
        std::fs::write(&config, text).unwrap();
        let loaded = Config::load(&config).unwrap();
        let store = open_store(&loaded).await.unwrap();
        let new = NewMerchant {
            id: MerchantId::parse(MERCHANT).unwrap(),
            name: "Crash".into(),
            appid: "wx2421b1c4370ec43b".into(),
            fee_rate: BasisPoints::new(60).unwrap(),
            mode: Mode::Eager,
            late: LatePolicy::Refund,
        };
        let files = add_merchant(&loaded, &store, &new).await.unwrap();
        drop(store);
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let platform = Verifier::from_certificate_pem(&read(&files.platform_certificate)).unwrap();
        let apiv3_key = Apiv3Key::parse(&read(&files.apiv3_key)).unwrap();
        let (heard, dice) = (Arc::<Heard>::default(), Arc::new(Dice(seed.into())));
        let merchant_server =
            listen(heard.clone(), dice.clone(), platform.clone(), apiv3_key).await;
        World {
            config,
            base_url,
            signer: Signer::from_pem(&read(&files.private_key)).unwrap(),
            serial: files.serial,
            platform,
            simulator,
            heard,
            done: Acknowledged::default(),
            dice,
            merchant_server,
            over: AtomicBool::new(false),
            folder,
        }
    }

    fn spawn(&self) -> Child {
        let log = self.folder.join("serve.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        Command::new(env!("CARGO_BIN_EXE_feiqian"))
            .args(["serve", "--plain-http-channels", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs")
    }

    /// A signed call; `None` if there was no answer that could be believed.
    async fn call(
        &self,
        http: &reqwest::Client,
        method: &str,
        path: &str,
        body: &str,
    ) -> Option<(u16, Value)> {
        let (timestamp, nonce) = (clock::wall().seconds(), seal::random_nonce());
        let message = request_message(method, path, timestamp, &nonce, body.as_bytes());
        let authorization = Authorization {
            scheme: SCHEME_RSA.into(),
            mchid: MERCHANT.into(),
            nonce,
            timestamp,
            serial: self.serial.clone(),
            signature: self.signer.sign_base64(&message),
        };
        let request = http
            .request(method.parse().unwrap(), format!("{}{path}", self.base_url))
            .header(headers::AUTHORIZATION, authorization.render())
            .header(headers::ACCEPT, "application/json")
            .header(headers::USER_AGENT, "crash-test")
            .body(body.to_owned());
        let response = request.send().await.ok()?;
        let (status, list) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.ok()?;
        if status == 200 {
            let get = |name: &str| list.get(name).and_then(|it| it.to_str().ok());
            let signed = SignatureHeaders::read(get).expect("an acknowledgement is signed");
            assert!(signed.holds(&self.platform, &body), "a signature that does not hold");
        }
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Repeats a call with the same numbers until it is answered for good, as the guide says.
    async fn insist(
        &self,
        http: &reqwest::Client,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let body = body.to_string();
        while !self.over.load(Ordering::Relaxed) {
            match self.call(http, method, path, &body).await {
                Some((status, answer)) if status < 500 => return Some((status, answer)),
                Some(_) | None => tokio::time::sleep(Duration::from_millis(40)).await,
            }
        }
        None
    }

    async fn client(&self, client: usize) {
        let http = client_of_http();
        for number in 0.. {
            let order_no = format!("CRASH{client:02}{number:06}");
            let order = json!({
                "appid": "wx2421b1c4370ec43b",
                "mchid": MERCHANT,
                // The channel sees the description, so its book can be compared by it.
                "description": order_no,
                "out_trade_no": order_no,
                "notify_url": format!("http://{}/notify", self.merchant_server),
                "amount": { "total": AMOUNT, "currency": "CNY" },
            });
            let path = "/v3/pay/transactions/native";
            let Some((status, answer)) = self.insist(&http, "POST", path, &order).await else {
                return;
            };
            assert_eq!(status, 200, "{answer}");
            let code = answer["code_url"].as_str().expect("a code").to_owned();
            let now = clock::wall();
            let paid = self
                .simulator
                .with(|sim| sim.confirm(Reference::Code(&code), Outcome::Success, None, now));
            paid.expect("the payer can pay an acknowledged order");
            self.done.orders.lock().unwrap().insert(order_no.clone());
            if self.dice.below(3) > 0 {
                continue;
            }
            // A refund is refused until the platform knows of the payment; then it must hold.
            let refund_no = format!("R{order_no}");
            let refund = json!({ "out_trade_no": order_no, "out_refund_no": refund_no,
                "amount": { "refund": 400, "total": AMOUNT, "currency": "CNY" } });
            loop {
                let path = "/v3/refund/domestic/refunds";
                match self.insist(&http, "POST", path, &refund).await {
                    None => return,
                    Some((200, _)) => break,
                    Some((404, _)) => tokio::time::sleep(Duration::from_millis(50)).await,
                    Some((status, answer)) => panic!("refund answered {status}: {answer}"),
                }
            }
            self.done.refunds.lock().unwrap().insert(refund_no, order_no);
        }
    }

    /// Empty when everything acknowledged has come to its end.
    async fn open_ends(&self, http: &reqwest::Client) -> Vec<String> {
        let mut open = Vec::new();
        let orders = self.done.orders.lock().unwrap().clone();
        let refunds = self.done.refunds.lock().unwrap().clone();
        for order_no in &orders {
            let path = format!("/v3/pay/transactions/out-trade-no/{order_no}?mchid={MERCHANT}");
            match self.call(http, "GET", &path, "").await {
                Some((200, it)) if it["trade_state"] == "SUCCESS" => {}
                Some((200, it)) if it["trade_state"] == "REFUND" => {}
                other => open.push(format!("order {order_no}: {other:?}")),
            }
        }
        for refund_no in refunds.keys() {
            let path = format!("/v3/refund/domestic/refunds/{refund_no}");
            match self.call(http, "GET", &path, "").await {
                Some((200, it)) if it["status"] == "SUCCESS" => {}
                other => open.push(format!("refund {refund_no}: {other:?}")),
            }
        }
        let heard = self.heard.0.lock().unwrap();
        for number in orders.iter().chain(refunds.keys()) {
            if !heard.get(number).is_some_and(|it| it.accepted) {
                open.push(format!("no notification of {number} was accepted"));
            }
        }
        open
    }

    /// The channel's book: what was paid and refunded there, by our order number.
    fn compare_with_channel(&self) {
        let refunds = self.done.refunds.lock().unwrap();
        let orders = self.done.orders.lock().unwrap();
        let book = self.simulator.with(|sim| sim.orders(clock::wall()));
        for order_no in orders.iter() {
            let mine = || book.iter().filter(|it| it.description == *order_no);
            let paid = mine().filter(|it| it.paid_minor.is_some()).count();
            assert_eq!(paid, 1, "{order_no} was paid {paid} times at the channel");
            let back: i64 = mine().flat_map(|it| &it.refunds).map(|it| it.amount_minor).sum();
            let wanted = if refunds.values().any(|it| it == order_no) { 400 } else { 0 };
            assert_eq!(back, wanted, "{order_no}: refunded at the channel");
        }
    }

    /// Everything that the channel took and gave back is what our books say it owes us.
    fn compare_sums(&self) {
        let book = self.simulator.with(|sim| sim.orders(clock::wall()));
        let back = |it: &OrderView| -> i64 {
            let done = it.refunds.iter().filter(|it| it.status == "SUCCESS");
            done.map(|it| it.amount_minor).sum()
        };
        let there: i64 = book.iter().map(|it| it.paid_minor.unwrap_or(0) - back(it)).sum();
        let balances = Command::new(env!("CARGO_BIN_EXE_feiqian"))
            .args(["ledger", "balances", "--json", "--config"])
            .arg(&self.config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&balances.stdout);
        let lines = said.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
        // The channel's own fee is taken from what it owes us, and stands beside it.
        let channel = |it: &Value| it["account"].as_str().unwrap().starts_with("channel/");
        let here: i64 = lines.filter(channel).map(|it| it["minor"].as_i64().unwrap()).sum();
        assert_eq!(here, there, "{said}");
    }
}

/// What an account at the channel may do to us while we are killed.
fn channel_faults() -> Vec<Chance> {
    let fault = |fault, on, per_mille| Chance { fault, on, per_mille };
    vec![
        fault(Fault::DropAfter, Some(Call::Create), 20),
        fault(Fault::DropAfter, Some(Call::Refund), 60),
        fault(Fault::ErrorAfter { status: 500 }, Some(Call::Refund), 60),
        fault(Fault::BadSignature, None, 20),
        fault(Fault::CallbackLost, None, 60),
        fault(Fault::CallbackDuplicate, None, 100),
    ]
}

fn client_of_http() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    builder.timeout(Duration::from_secs(5)).build().unwrap()
}

/// The merchant's server: verifies, decrypts, and says no to every fifth at first.
async fn listen(
    heard: Arc<Heard>,
    dice: Arc<Dice>,
    platform: Verifier,
    apiv3_key: Apiv3Key,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let take = move |list: http::HeaderMap, body: axum::body::Bytes| async move {
        let get = |name: &str| list.get(name).and_then(|it| it.to_str().ok());
        let signed = SignatureHeaders::read(get).expect("a notification is signed");
        assert!(signed.holds(&platform, &body));
        let envelope = Envelope::parse(&body).unwrap();
        let said: Value = serde_json::from_slice(&envelope.open(&apiv3_key).unwrap()).unwrap();
        let number = said["out_refund_no"].as_str().or(said["out_trade_no"].as_str()).unwrap();
        let mut heard = heard.0.lock().unwrap();
        let told = heard.entry(number.to_owned()).or_default();
        told.ids.insert(envelope.id);
        if !told.refused && dice.below(5) == 0 {
            told.refused = true;
            return http::StatusCode::INTERNAL_SERVER_ERROR;
        }
        told.accepted = true;
        http::StatusCode::NO_CONTENT
    };
    let router = axum::Router::new().route("/notify", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let crashes = number("FEIQIAN_CRASHES", 22);
    let seed = number("FEIQIAN_SEED", clock::wall().ms().unsigned_abs());
    println!("seed {seed}, {crashes} crashes");
    let world = Arc::new(World::new(seed).await);
    world.simulator.with(|sim| channel_faults().into_iter().for_each(|it| sim.risk_fault(it)));
    let mut child = world.spawn();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|it| {
            let world = world.clone();
            tokio::spawn(async move { world.client(it).await })
        })
        .collect();
    for _ in 0..crashes {
        tokio::time::sleep(Duration::from_millis(150 + world.dice.below(900))).await;
        // SIGKILL: nothing is flushed, nothing is said.
        child.kill().unwrap();
        child.wait().unwrap();
        child = world.spawn();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    world.simulator.with(testkit::wechat::WechatSim::clear_faults);
    let (http, began) = (client_of_http(), Instant::now());
    loop {
        let open = world.open_ends(&http).await;
        if open.is_empty() {
            break;
        }
        let count = open.len();
        assert!(
            began.elapsed() < PATIENCE,
            "{count} open ends, seed {seed}: {:#?}",
            &open[..count.min(5)]
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for (number, Told { ids, .. }) in world.heard.0.lock().unwrap().iter() {
        assert_eq!(ids.len(), 1, "{number} was announced under {ids:?}");
    }
    world.compare_with_channel();
    let orders = world.done.orders.lock().unwrap().len();
    let refunds = world.done.refunds.lock().unwrap().len();
    println!("{orders} orders and {refunds} refunds survived {crashes} crashes");
    assert!(orders > 20 && refunds > 3, "too little happened to prove anything");

    child.kill().unwrap();
    child.wait().unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_feiqian"))
        .args(["ledger", "check", "--json", "--config"])
        .arg(&world.config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["payments"].as_u64().unwrap() >= orders as u64, "{said}");
    world.compare_sums();
    std::fs::remove_dir_all(&world.folder).ok();
}
