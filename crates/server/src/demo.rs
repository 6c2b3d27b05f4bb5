//! `feiqian demo`: platform, WeChat simulator and a sample merchant in one process, on real
//! connections. Everything is kept in one folder, which other commands can open afterwards.

mod page;
mod sample_merchant;

use crate::cli::{Fault, stop_signal};
use crate::clock::{self, Clock};
use crate::config::{Config, FILE_NAME};
use crate::gateway::{Gateway, Liberties};
use crate::install::{self, MerchantFiles, NewMerchant};
use crate::observe::{self, Process, log};
use crate::simulator::{self, CHANNEL_APPID, CHANNEL_MCHID, SIM_KEY_ID};
use crate::{links, membership, serve, worker};
use app::Store;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use kernel::{BasisPoints, Currency, MerchantId, Money};
use payments::{LatePolicy, Mode, Terms, TradeProduct};
use sample_merchant::SampleMerchant;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use testkit::wechat::WechatSimServer;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "./demo-data")]
    pub data: PathBuf,
    /// 0 takes any free port
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Place, pay, notify and book one order, print each step, exit
    #[arg(long)]
    pub once: bool,
}

pub(crate) const MERCHANT: &str = "1900000001";
pub(crate) const APPID: &str = "wx2421b1c4370ec43b";
const PROCESS: Process = Process { role: "all", keeps_books: true };
/// Whoever tries the demo does so from one address.
const UNLIMITED: &str = "\n[limits]\nper_merchant_per_s = 0\nper_ip_per_s = 0\n";
const HELD_TOGETHER: Duration = Duration::from_secs(20);

/// Everything that runs.
pub struct Demo {
    pub gateway: Arc<Gateway>,
    pub simulator: WechatSimServer,
    pub base_url: String,
    pub cashier_url: String,
    sample: Arc<SampleMerchant>,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Ends the lease when all else has ended.
    done: watch::Sender<bool>,
    lease: tokio::task::JoinHandle<()>,
}

pub async fn run(args: DemoArgs) -> Result<(), Fault> {
    // A configuration that is there already may name a collector.
    let known = Config::load(&args.data.join(FILE_NAME)).map(|it| it.observe);
    let export = log::install("warn", &known.unwrap_or_default(), PROCESS.role)?;
    let demo = Demo::start(&args.data, args.port).await?;
    let done = if args.once {
        demo.once().await
    } else {
        demo.tell();
        // An error means that nobody can tell any more: then it ends, too.
        stop_signal().wait_for(|it| *it).await.ok();
        Ok(())
    };
    demo.end().await;
    if let Some(export) = export {
        export.flush().await;
    }
    done
}

impl Demo {
    pub async fn start(data: &Path, port: u16) -> Result<Demo, Fault> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| {
            format!(
                "port {port} cannot be used ({error}); choose another with --port, or 0 for any"
            )
        })?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let file = data.join(FILE_NAME);
        if !file.exists() {
            prepare(data, &base_url)?;
        }
        let simulator = start_simulator(data).await?;
        let mut config = Config::load(&file)?;
        // The addresses of this run; the file keeps those of the first.
        config.server.public_url = base_url.clone();
        for channel in &mut config.channels {
            channel.base_url = simulator.base_url().to_owned();
        }
        let liberties = Liberties { plain_http_channels: true };
        let gateway = Arc::new(Gateway::open(config, Clock::default(), &liberties).await?);
        let files = merchant_files(&gateway).await?;
        let sample = Arc::new(SampleMerchant::new(&base_url, &gateway, &files)?);

        let (stop, stopped) = watch::channel(false);
        let (done, ended) = watch::channel(false);
        let lease = tokio::spawn(membership::keep(gateway.clone(), ended));
        let router = serve::router(gateway.clone()).merge(demo_routes(gateway.clone(), &sample));
        let mut tasks = observe::start(&gateway, PROCESS, &stopped).await?;
        tasks.extend([
            tokio::spawn(worker::run(gateway.clone(), stopped.clone())),
            tokio::spawn(serve::serve(listener, router, gateway.clone(), stopped)),
        ]);
        let cashier_url = sample_order(&gateway, &base_url).await?;
        let demo =
            Demo { gateway, simulator, base_url, cashier_url, sample, stop, tasks, done, lease };
        demo.write_facts(data, &files)?;
        Ok(demo)
    }

    /// `demo.json`: what scripts need, written whole or not at all.
    fn write_facts(&self, data: &Path, files: &MerchantFiles) -> Result<(), Fault> {
        let absolute = |path: &Path| {
            let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
            full.display().to_string()
        };
        let sim = |name: &str| absolute(&data.join("simulator").join(name));
        let facts = json!({
            "base_url": self.base_url,
            "cashier_url": self.cashier_url,
            "console_url": Value::Null,
            "shop_url": Value::Null,
            "mchid": MERCHANT,
            "appid": APPID,
            "merchant_serial": files.serial,
            "merchant_private_key": absolute(&files.private_key),
            "merchant_certificate": absolute(&files.certificate),
            "apiv3_key": absolute(&files.apiv3_key),
            "apiv2_key": absolute(&files.apiv2_key),
            "platform_public_key": absolute(&files.platform_public_key),
            "platform_public_key_id": self.gateway.config.keys.platform_public_key_id,
            "platform_certificate": absolute(&files.platform_certificate),
            "platform_serial": self.gateway.certificate().serial(),
            "simulators": { "wechat": {
                "base_url": self.simulator.base_url(),
                "control_url": self.simulator.base_url(),
                "mchid": CHANNEL_MCHID,
                "appid": CHANNEL_APPID,
                "merchant_serial": self.gateway.config.channels[0].merchant_serial,
                "merchant_private_key": sim("merchant_private_key.pem"),
                "merchant_certificate": sim("merchant_certificate.pem"),
                "apiv3_key": sim("apiv3_key"),
                "platform_public_key": sim("platform_public_key.pem"),
                "platform_public_key_id": SIM_KEY_ID,
                "platform_certificate": sim("platform_certificate.pem"),
                "platform_serial": simulator::certificate_serial(data)?,
            } },
        });
        let (new, file) = (data.join("demo.json.new"), data.join("demo.json"));
        fs::write(&new, format!("{facts:#}\n"))?;
        Ok(fs::rename(new, file)?)
    }

    fn tell(&self) {
        let folder = self.gateway.config.folder.display();
        println!();
        println!("  Feiqian runs. Open in a browser:");
        println!();
        println!("    {}/            overview", self.base_url);
        println!("    {}", self.cashier_url);
        println!("      a cashier page: scan or open its code, pay in the simulated wallet");
        println!("    {}/wallet/     the simulated WeChat wallet", self.simulator.base_url());
        println!();
        println!("  Point a WeChat Pay V3 SDK at {} with", self.base_url);
        println!("    mchid {MERCHANT}, appid {APPID}, serial {}", self.sample.serial());
        println!("    keys and all else: {folder}/merchants/{MERCHANT}/ and {folder}/demo.json");
        println!();
        println!("  Ctrl-C ends it.");
    }

    pub async fn end(self) {
        self.stop.send(true).ok();
        for task in self.tasks {
            task.await.ok();
        }
        self.done.send(true).ok();
        self.lease.await.ok();
    }

    /// One order from the merchant's request to the books, over HTTP, each step printed.
    async fn once(&self) -> Result<(), Fault> {
        let order_no = format!("DEMO{}", clock::wall().ms());
        println!(
            "1. Merchant {MERCHANT} places order {order_no} over 12.30 CNY (signed V3 request)"
        );
        let answer = self.sample.create(&order_no, 1230).await?;
        let code = answer["code_url"].as_str().ok_or("no code_url in the answer")?;
        println!("   Feiqian answers, signed: code_url {code}");

        println!("2. The payer scans the code and confirms in the simulated wallet");
        self.sample.confirm(self.simulator.base_url(), code).await?;

        let paid = self.until("the order is paid", async || {
            let order = self.sample.query(&order_no).await?;
            Ok((order["trade_state"] == "SUCCESS").then_some(order))
        });
        let paid = paid.await?;
        println!(
            "3. WeChat calls back; the order is SUCCESS, transaction_id {}",
            paid["transaction_id"]
        );

        let heard =
            self.until("the merchant is notified", async || Ok(self.sample.heard(&order_no)));
        let heard = heard.await?;
        println!("4. The merchant's server verified and decrypted the notification: {heard}");

        println!("5. The books");
        for (account, it) in self.gateway.store().balances().await? {
            let held = Money::new(it.held(account.kind.side()), account.currency);
            println!("   {:<52}{:>14}", account.to_string(), held.major());
        }
        let report = app::audit(self.gateway.store(), |_| {}).await?;
        if !report.findings.is_empty() {
            return Err(format!("the books are wrong: {}", report.findings.join("; ")).into());
        }
        println!("   debits = credits, every payment matches its postings");
        println!("Done.");
        Ok(())
    }

    async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        let started = std::time::Instant::now();
        while started.elapsed() < HELD_TOGETHER {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("waited {} s in vain until {what}", HELD_TOGETHER.as_secs()).into())
    }
}

/// Keys of the simulated WeChat Pay and of our account there, then the installation itself.
pub fn prepare(data: &Path, base_url: &str) -> Result<(), Fault> {
    // The simulator's port is chosen when it starts.
    let mut tail = simulator::prepare(data, "http://127.0.0.1:9")?;
    tail.push_str(UNLIMITED);
    install::init(data, "127.0.0.1:8080", base_url, true, &tail)?;
    Ok(())
}

pub async fn start_simulator(data: &Path) -> Result<WechatSimServer, Fault> {
    simulator::start(data, ([127, 0, 0, 1], 0).into()).await
}

/// Creates the sample merchant the first time; finds its files afterwards.
async fn merchant_files(gateway: &Gateway) -> Result<MerchantFiles, Fault> {
    let new = NewMerchant {
        id: MerchantId::parse(MERCHANT)?,
        name: "山茶花茶铺 Camellia Tea".into(),
        appid: APPID.into(),
        fee_rate: BasisPoints::new(60)?,
        mode: Mode::Eager,
        late: LatePolicy::Refund,
    };
    match gateway.store().merchant(&new.id).await? {
        None => Ok(install::add_merchant(&gateway.config, gateway.store(), &new).await?),
        Some(known) => {
            let serial = known.value.certificate_serial;
            Ok(install::files_of(&gateway.config, &new.id, serial))
        }
    }
}

/// A cashier order to look at.
async fn sample_order(gateway: &Gateway, base_url: &str) -> Result<String, Fault> {
    let id = MerchantId::parse(MERCHANT)?;
    let merchant = gateway.store().merchant(&id).await?.ok_or("the sample merchant is missing")?;
    let now = gateway.clock.now();
    let terms = Terms {
        order_no: format!("SAMPLE{}", clock::wall().ms()),
        appid: APPID.into(),
        product: TradeProduct::Cashier,
        amount: Money::new(8_800, Currency::Cny),
        description: "明前龙井 250 克 · Longjing tea, 250 g".into(),
        attach: None,
        notify_url: Some(format!("{base_url}/demo/notify")),
        time_expire: Some(now.plus_s(2 * 3600)),
        payer: None,
        payer_ip: None,
        h5_type: None,
        device_id: None,
        return_url: Some(format!("{base_url}/")),
        extras: None,
    };
    let placed = gateway.platform.place_order(&merchant.value, terms, None, now).await?;
    Ok(links::cashier(gateway, &placed.payment))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u32,
}

fn demo_routes(gateway: Arc<Gateway>, sample: &Arc<SampleMerchant>) -> Router {
    let notified = {
        let sample = sample.clone();
        post(move |headers: http::HeaderMap, body: axum::body::Bytes| async move {
            sample.notified(&headers, &body)
        })
    };
    Router::new()
        .route("/", get(overview))
        .route("/_sim/clock", post(advance))
        .with_state(gateway)
        .route("/demo/notify", notified)
}

/// Moves the business clock, as the simulator's own control API does.
async fn advance(State(gateway): State<Arc<Gateway>>, Json(asked): Json<Advance>) -> Response {
    let ahead_ms = gateway.clock.advance_s(asked.advance_s);
    gateway.live.wake();
    Json(json!({ "ahead_s": ahead_ms / 1000 })).into_response()
}

async fn overview(State(gateway): State<Arc<Gateway>>) -> Response {
    // A fresh order for every visitor, so that there is always one to pay.
    let base_url = gateway.config.server.public_url.clone();
    let link = sample_order(&gateway, &base_url).await;
    let simulator = gateway.config.channels.first().map(|it| it.base_url.clone());
    match link {
        Ok(link) => page::overview(&base_url, &link, simulator.as_deref()).into_response(),
        Err(error) => (http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
