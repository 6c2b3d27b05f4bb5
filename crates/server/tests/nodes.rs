//! Several real processes on one PostgreSQL: gateways behind a balancer, workers side by side. One
//! is killed, one is told to stop, gateways are restarted one after the other under load.

use kernel::{BasisPoints, MerchantId};
use payments::{LatePolicy, Mode};
use seal::Signer;
use serde_json::{Value, json};
use server::config::Config;
use server::gateway::open_store;
use server::install::{NewMerchant, add_merchant};
use server::{clock, demo};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::ports::free_port;
use testkit::postgres::PostgresServer;
use testkit::wechat::{Outcome, Reference, WechatSimServer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wechatpay::headers;
use wechatpay::notification::Envelope;
use wechatpay::signing::{SCHEME_RSA, request_message};
use wechatpay::{Apiv3Key, Authorization};

const MERCHANT: &str = "1900000900";
const AMOUNT: i64 = 1_000;

/// What arrived somewhere, by id, and whether the same was there twice at a time.
#[derive(Default)]
struct Desk {
    seen: Mutex<BTreeMap<String, usize>>,
    under_way: Mutex<BTreeMap<String, usize>>,
    overlaps: Mutex<Vec<String>>,
}

/// One request while it is answered; goes with it, also if its sender is gone.
struct Visit {
    desk: Arc<Desk>,
    id: String,
}

impl Desk {
    fn enter(self: &Arc<Desk>, id: &str) -> Visit {
        *self.seen.lock().unwrap().entry(id.into()).or_default() += 1;
        let mut under_way = self.under_way.lock().unwrap();
        let count = under_way.entry(id.into()).or_default();
        *count += 1;
        if *count > 1 {
            self.overlaps.lock().unwrap().push(id.into());
        }
        Visit { desk: self.clone(), id: id.into() }
    }

    fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn check(&self) {
        assert_eq!(*self.overlaps.lock().unwrap(), [""; 0], "sent twice at the same time");
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        *self.desk.under_way.lock().unwrap().get_mut(&self.id).unwrap() -= 1;
    }
}

async fn listen(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn http_client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    builder.timeout(Duration::from_secs(20)).build().unwrap()
}

/// The way to the channel: passes everything on, and looks at refunds.
async fn channel_spy(to: String, refunds: Arc<Desk>) -> SocketAddr {
    let http = http_client();
    let pass = move |request: axum::extract::Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let refund = asked["out_refund_no"].as_str().filter(|_| parts.method == "POST");
        let visit = refund.map(|it| refunds.enter(it));
        if visit.is_some() {
            // Long enough to be met.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let path = parts.uri.path_and_query().unwrap().as_str();
        let mut list = parts.headers;
        list.remove(http::header::HOST);
        let request = http.request(parts.method, format!("{to}{path}")).headers(list).body(body);
        let answer = request.send().await.unwrap();
        let (status, mut list) = (answer.status(), answer.headers().clone());
        list.remove(http::header::TRANSFER_ENCODING);
        list.remove(http::header::CONTENT_LENGTH);
        (status, list, answer.bytes().await.unwrap())
    };
    listen(axum::Router::new().fallback(pass)).await
}

/// The merchant's server: slow, and satisfied with everything.
async fn merchant_server(key: Apiv3Key, ids: Arc<Desk>, numbers: Arc<Desk>) -> SocketAddr {
    let take = move |body: axum::body::Bytes| async move {
        let envelope = Envelope::parse(&body).unwrap();
        let said: Value = serde_json::from_slice(&envelope.open(&key).unwrap()).unwrap();
        let number = said["out_refund_no"].as_str().or(said["out_trade_no"].as_str()).unwrap();
        let visit = ids.enter(&envelope.id);
        tokio::time::sleep(Duration::from_millis(250)).await;
        drop(visit);
        // Only who hears to the end has accepted.
        numbers.enter(number);
        http::StatusCode::NO_CONTENT
    };
    listen(axum::Router::new().route("/notify", axum::routing::post(take))).await
}

struct World {
    postgres: PostgresServer,
    folder: PathBuf,
    base_url: String,
    signer: Signer,
    serial: String,
    simulator: WechatSimServer,
    refunds: Arc<Desk>,
    notifications: Arc<Desk>,
    /// Orders and refunds of which the merchant has heard.
    heard: Arc<Desk>,
    merchant_server: SocketAddr,
}

/// A running process; killed if the test ends without it.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    async fn ended(&mut self) {
        while self.0.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl World {
    /// - Input: where merchants and channels reach the gateways.
    async fn new(port: u16) -> World {
        let folder = std::env::temp_dir().join(format!("feiqian-nodes-{}", seal::random_nonce()));
        let base_url = format!("http://127.0.0.1:{port}");
        demo::prepare(&folder, &base_url).unwrap();
        let simulator = demo::start_simulator(&folder).await.unwrap();
        let refunds = Arc::<Desk>::default();
        let spy = channel_spy(simulator.base_url().to_owned(), refunds.clone()).await;
        let postgres = PostgresServer::quick();
        let url = postgres.create("feiqian");
        let config = folder.join("feiqian.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text
            .replace("path = \"feiqian.db\"", &format!("url = \"{url}\""))
            .replace("http://127.0.0.1:9\"", &format!("http://{spy}\""));
        std::fs::write(&config, text).unwrap();
        let loaded = Config::load(&config).unwrap();
        let store = open_store(&loaded).await.unwrap();
        let new = NewMerchant {
            id: MerchantId::parse(MERCHANT).unwrap(),
            name: "Nodes".into(),
            appid: "wx2421b1c4370ec43b".into(),
            fee_rate: BasisPoints::new(60).unwrap(),
            mode: Mode::Eager,
            late: LatePolicy::Refund,
        };
        let files = add_merchant(&loaded, &store, &new).await.unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        let key = Apiv3Key::parse(&read(&files.apiv3_key)).unwrap();
        let (notifications, heard) = (Arc::<Desk>::default(), Arc::<Desk>::default());
        let merchant_server = merchant_server(key, notifications.clone(), heard.clone()).await;
        World {
            postgres,
            base_url,
            signer: Signer::from_pem(&read(&files.private_key)).unwrap(),
            serial: files.serial,
            simulator,
            refunds,
            notifications,
            heard,
            merchant_server,
            folder,
        }
    }

    /// Starts a process with a number and a port of its own, and waits until it is ready.
    async fn start(&self, role: &str, node: u16, port: u16) -> Process {
        let text = std::fs::read_to_string(self.folder.join("feiqian.toml")).unwrap();
        let text = text
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"))
            .replace("# node = 0", &format!("node = {node}"))
            .replace("# drain_s = 0", "drain_s = 2");
        let config = self.folder.join(format!("node-{node}.toml"));
        std::fs::write(&config, text).unwrap();
        let log = self.folder.join(format!("node-{node}.log"));
        let lines = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_feiqian"))
            .args(["serve", "--plain-http-channels", "--role", role, "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(lines)
            .spawn()
            .expect("the binary runs");
        let mut process = Process(child);
        while !is_ready(&http_client(), port).await {
            let ended = process.0.try_wait().unwrap();
            assert!(ended.is_none(), "node {node}: {}", std::fs::read_to_string(&log).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        process
    }

    async fn call(
        &self,
        http: &reqwest::Client,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Value), reqwest::Error> {
        let body = body.to_string();
        let (timestamp, nonce) = (clock::wall().seconds(), seal::random_nonce());
        let message = request_message("POST", path, timestamp, &nonce, body.as_bytes());
        let authorization = Authorization {
            scheme: SCHEME_RSA.into(),
            mchid: MERCHANT.into(),
            nonce,
            timestamp,
            serial: self.serial.clone(),
            signature: self.signer.sign_base64(&message),
        };
        let request = http
            .post(format!("{}{path}", self.base_url))
            .header(headers::AUTHORIZATION, authorization.render())
            .header(headers::ACCEPT, "application/json")
            .header(headers::USER_AGENT, "nodes-test")
            .body(body);
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&response.bytes().await?).unwrap_or_default()))
    }

    async fn create(
        &self,
        http: &reqwest::Client,
        order_no: &str,
    ) -> Result<(u16, Value), reqwest::Error> {
        let order = json!({
            "appid": "wx2421b1c4370ec43b",
            "mchid": MERCHANT,
            "description": order_no,
            "out_trade_no": order_no,
            "notify_url": format!("http://{}/notify", self.merchant_server),
            "amount": { "total": AMOUNT, "currency": "CNY" },
        });
        self.call(http, "/v3/pay/transactions/native", &order).await
    }

    /// An order, its payment and a refund of it.
    async fn trade(&self, http: &reqwest::Client, order_no: &str) {
        let (status, answer) = self.create(http, order_no).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        let code = Reference::Code(answer["code_url"].as_str().unwrap());
        let now = clock::wall();
        self.simulator.with(|sim| sim.confirm(code, Outcome::Success, None, now)).unwrap();
        let refund = json!({ "out_trade_no": order_no, "out_refund_no": format!("R{order_no}"),
            "amount": { "refund": 400, "total": AMOUNT, "currency": "CNY" } });
        loop {
            match self.call(http, "/v3/refund/domestic/refunds", &refund).await.unwrap() {
                (200, _) => return,
                // Until the platform has heard of the payment.
                (404, _) => tokio::time::sleep(Duration::from_millis(50)).await,
                (status, answer) => panic!("refund answered {status}: {answer}"),
            }
        }
    }

    async fn trades(&self, name: &str, count: usize) {
        let http = http_client();
        let trades = (0..count).map(|it| (format!("TRADE{name}{it:04}"), http.clone()));
        let trades = trades.map(|(it, http)| async move { self.trade(&http, &it).await });
        futures::future::join_all(trades).await;
    }

    /// The holder behind a node's number, and how much it holds.
    fn held(&self, node: u16) -> (String, u32) {
        let sql = format!(
            "SELECT holder, (SELECT COUNT(*) FROM intent WHERE intent.holder = node.holder) \
             FROM node WHERE number = {node}"
        );
        let row = self.postgres.psql("feiqian", &sql);
        let Some((holder, count)) = row.split_once('|') else { return (String::new(), 0) };
        (holder.into(), count.parse().unwrap())
    }

    /// Waits until a node is in the middle of something. Returns its holder.
    async fn busy(&self, node: u16) -> String {
        loop {
            let (holder, count) = self.held(node);
            if count > 0 {
                return holder;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn nothing_held_by(&self, holder: &str) {
        let sql = format!("SELECT COUNT(*) FROM intent WHERE holder = '{holder}'");
        while self.postgres.psql("feiqian", &sql) != "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the merchant has heard of every order and refund, and checks that each refund
    /// came to the channel.
    async fn all_told(&self, trades: usize) {
        while self.heard.seen() < 2 * trades {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(self.heard.seen(), 2 * trades);
        assert_eq!(self.refunds.seen(), trades);
        self.refunds.check();
        self.notifications.check();
        assert_eq!(self.notifications.seen(), 2 * trades, "an id for each, and no other");
        let book = self.simulator.with(|sim| sim.orders(clock::wall()));
        let back: i64 = book.iter().flat_map(|it| &it.refunds).map(|it| it.amount_minor).sum();
        assert_eq!(back, 400 * i64::try_from(trades).unwrap(), "refunded at the channel");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

async fn is_ready(http: &reqwest::Client, port: u16) -> bool {
    let answer = http.get(format!("http://127.0.0.1:{port}/readyz")).send().await;
    answer.is_ok_and(|it| it.status().is_success())
}

/// Carries connections to those who say that they are ready, in turn.
struct Balancer {
    ready: Arc<[AtomicBool; 2]>,
    tasks: Vec<JoinHandle<()>>,
}

impl Balancer {
    async fn start(port: u16, ports: [u16; 2]) -> Balancer {
        let ready = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let look = {
            let ready = ready.clone();
            tokio::spawn(async move {
                let http = http_client();
                loop {
                    for (port, ready) in ports.into_iter().zip(ready.iter()) {
                        ready.store(is_ready(&http, port).await, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        };
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let carry = {
            let (ready, turn) = (ready.clone(), AtomicUsize::new(0));
            tokio::spawn(async move {
                while let Ok((mut client, _)) = listener.accept().await {
                    let start = turn.fetch_add(1, Ordering::Relaxed);
                    let mut list = [start % 2, (start + 1) % 2].into_iter();
                    let Some(it) = list.find(|it| ready[*it].load(Ordering::SeqCst)) else {
                        continue;
                    };
                    tokio::spawn(async move {
                        let Ok(mut server) = TcpStream::connect(("127.0.0.1", ports[it])).await
                        else {
                            return;
                        };
                        tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
                    });
                }
            })
        };
        Balancer { ready, tasks: vec![look, carry] }
    }

    async fn sees(&self, index: usize, ready: bool) {
        while self.ready[index].load(Ordering::SeqCst) != ready {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_when_a_worker_is_killed_or_stopped() {
    let (port, ports) = (free_port(), [free_port(), free_port()]);
    let world = World::new(port).await;
    let (_one, _two) =
        (world.start("gateway", 1, ports[0]).await, world.start("gateway", 2, ports[1]).await);
    let balancer = Balancer::start(port, ports).await;
    balancer.sees(0, true).await;
    balancer.sees(1, true).await;
    let mut first = world.start("worker", 3, free_port()).await;
    let mut second = world.start("worker", 4, free_port()).await;

    // Both live.
    world.trades("A", 30).await;
    world.all_told(30).await;

    // One is killed while it holds something.
    let ((), holder) = tokio::join!(world.trades("B", 30), async {
        let holder = world.busy(3).await;
        first.0.kill().unwrap();
        first.0.wait().unwrap();
        holder
    });
    world.nothing_held_by(&holder).await;
    world.all_told(60).await;

    // One is told to stop while it holds something.
    let first = world.start("worker", 3, free_port()).await;
    let ((), holder) = tokio::join!(world.trades("C", 30), async {
        let holder = world.busy(4).await;
        second.signal("-TERM");
        second.ended().await;
        // Its lease is not waited for: it has ended with it.
        assert_eq!(world.held(4), (String::new(), 0));
        holder
    });
    world.nothing_held_by(&holder).await;
    world.all_told(90).await;
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_is_not_noticed() {
    let (port, ports) = (free_port(), [free_port(), free_port()]);
    let world = Arc::new(World::new(port).await);
    let mut gateways =
        [world.start("gateway", 1, ports[0]).await, world.start("gateway", 2, ports[1]).await];
    let balancer = Balancer::start(port, ports).await;
    balancer.sees(0, true).await;
    balancer.sees(1, true).await;
    let (over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (world, over, done) = (world.clone(), over.clone(), done.clone());
            tokio::spawn(async move {
                // One connection, kept as long as the server keeps it.
                let http = http_client();
                for number in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let order_no = format!("ROLL{client}n{number:05}");
                    let (status, answer) = world.create(&http, &order_no).await.unwrap();
                    assert_eq!(status, 200, "{answer}");
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let progress = async || {
        let enough = done.load(Ordering::SeqCst) + 40;
        while done.load(Ordering::SeqCst) < enough {
            assert!(!clients.iter().any(JoinHandle::is_finished), "a client failed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for index in 0..2 {
        progress().await;
        gateways[index].signal("-TERM");
        balancer.sees(index, false).await;
        gateways[index].ended().await;
        let node = u16::try_from(index).unwrap() + 1;
        gateways[index] = world.start("gateway", node, ports[index]).await;
        balancer.sees(index, true).await;
    }
    progress().await;
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
}
