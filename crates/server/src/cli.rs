//! Commands. Exit code 0 only on success; `--json` where figures are printed.

use crate::backup::{self, BackupArgs, RestoreArgs, VerifyArgs, WalCommand};
use crate::clock::{self, Clock};
use crate::config::{Config, FILE_NAME, ObserveConfig};
use crate::configuration;
use crate::gateway::{Gateway, Liberties, open_store};
use crate::install::{self, NewMerchant};
use crate::observe::{self, Process, log};
use crate::{bench, demo, membership, reload, serve, simulator, worker};
use app::Store;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kernel::{BasisPoints, MerchantId, Serial};
use payments::{LatePolicy, Mode};
use serde_json::json;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::AnyStore;
use tokio::sync::watch;

/// A line on standard output. A reader that has gone away is an error, not a panic.
macro_rules! say {
    ($($line:tt)*) => { writeln!(std::io::stdout(), $($line)*)? };
}
pub(crate) use say;

#[derive(Debug, Parser)]
#[command(name = "feiqian", version, about = "Feiqian (飞钱): an open payment platform")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run platform, WeChat simulator and a sample merchant in one process
    Demo(demo::DemoArgs),
    /// Run the WeChat Pay simulator alone, as an outside party of a test installation
    Simulator(simulator::SimulatorArgs),
    /// Run the platform
    Serve(ServeArgs),
    /// Make a new installation: configuration, keys, certificates, a first merchant
    Init(InitArgs),
    /// Add and list merchants
    #[command(subcommand)]
    Merchant(MerchantCommand),
    /// Check, show and explain the configuration
    #[command(subcommand)]
    Config(configuration::ConfigCommand),
    /// Bring the database up to date
    Migrate(Place),
    /// Write an encrypted backup while the platform runs
    Backup(BackupArgs),
    /// Bring a backup back, into a new folder
    Restore(RestoreArgs),
    /// Check that a backup is whole and that the books in it are right
    Verify(VerifyArgs),
    /// PostgreSQL's log archive: its archive_command and restore_command
    #[command(subcommand)]
    Wal(WalCommand),
    /// Look into the books
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Look at notifications and send them again
    #[command(subcommand)]
    Notification(NotificationCommand),
    /// Money that no order waited for
    #[command(subcommand)]
    Held(HeldCommand),
    /// Measure, with the machine's own limit measured in the same run
    Bench(bench::BenchArgs),
}

/// Which installation a command works on.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder with a configuration file in it
    #[arg(long, value_name = "DIR", default_value = "./feiqian-data", conflicts_with = "config")]
    data: PathBuf,
}

impl Place {
    pub(crate) fn file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.data.join(FILE_NAME))
    }

    pub(crate) fn config(&self) -> Result<Config, Fault> {
        Ok(Config::load(&self.file())?)
    }

    async fn store(&self) -> Result<AnyStore, Fault> {
        Ok(open_store(&self.config()?).await?)
    }
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    place: Place,
    /// What this process does
    #[arg(long, value_enum, default_value_t = Role::All)]
    role: Role,
    /// Speak plain http to channels: only for simulators
    #[arg(long)]
    plain_http_channels: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Everything in one process
    All,
    /// Answers merchants, payers and channels
    Gateway,
    /// Does what falls due: asks channels, sends refunds and notifications
    Worker,
    /// Looks after the books
    Settlement,
    /// Answers operators: health and metrics
    Console,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Gateway => "gateway",
            Role::Worker => "worker",
            Role::Settlement => "settlement",
            Role::Console => "console",
        }
    }

    fn keeps_books(self) -> bool {
        matches!(self, Role::All | Role::Settlement)
    }

    fn works(self) -> bool {
        matches!(self, Role::All | Role::Worker)
    }
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The folder to make
    dir: PathBuf,
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// As merchants, payers and channels reach the server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    public_url: String,
    /// Number of the first merchant
    #[arg(long, default_value = "1900000001")]
    mchid: String,
    #[arg(long, default_value = "First merchant")]
    name: String,
    #[arg(long, default_value = "wx0000000000000001")]
    appid: String,
}

#[derive(Debug, Subcommand)]
enum MerchantCommand {
    /// Create a merchant with keys and certificate; prints the files
    Add {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        mchid: String,
        #[arg(long)]
        name: String,
        #[arg(long)]
        appid: String,
        /// What the platform keeps of each payment, in basis points: 60 is 0.60 %
        #[arg(long, default_value_t = 60)]
        fee_bps: u16,
        /// When a native or h5 order is created at its channel
        #[arg(long, value_enum, default_value_t = ModeArg::Eager)]
        mode: ModeArg,
        /// What becomes of money that arrives after the order was closed
        #[arg(long, value_enum, default_value_t = LateArg::Refund)]
        late: LateArg,
        #[arg(long)]
        json: bool,
    },
    /// List merchants
    List {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    Eager,
    Lazy,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LateArg {
    Refund,
    Reopen,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Recompute every balance from its postings and compare with the payments
    Check {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
    /// Print all balances
    Balances {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum NotificationCommand {
    /// The newest notifications of a merchant with every try
    List {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        mchid: String,
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Send a notification again, now
    Replay {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        mchid: String,
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum HeldCommand {
    /// List payments with money that waits for a decision
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Send held money back to its payer
    Release {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        mchid: String,
        /// Serial of the payment
        payment: String,
        /// Serial of the attempt that received the money
        attempt: String,
    },
}

pub type Fault = Box<dyn Error + Send + Sync>;

/// Whether whoever read our output has gone away (`feiqian … | head`): nothing to complain about.
pub fn reader_left(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error with its causes, each once.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        let more = it.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = it.source();
    }
    text
}

pub async fn run(cli: Cli) -> Result<(), Fault> {
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Simulator(args) => {
            log::install("warn", &ObserveConfig::default(), "simulator")?;
            simulator::run(args).await
        }
        Command::Serve(args) => serve(args).await,
        Command::Init(args) => init(args).await,
        Command::Merchant(command) => merchant(command).await,
        Command::Config(command) => configuration::run(command),
        Command::Migrate(place) => migrate(&place).await,
        Command::Backup(args) => backup::backup(args).await,
        Command::Restore(args) => backup::restore(args).await,
        Command::Verify(args) => backup::verify(args).await,
        Command::Wal(command) => backup::wal(command),
        Command::Ledger(command) => ledger(command).await,
        Command::Notification(command) => notification(command).await,
        Command::Held(command) => held(command).await,
        Command::Bench(args) => bench::run(args).await,
    }
}

/// Turns true on SIGTERM or Ctrl-C.
pub fn stop_signal() -> watch::Receiver<bool> {
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        let mut term =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        let terminated = async {
            match term.as_mut() {
                Some(it) => it.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated => {}
        }
        tell.send(true).ok();
    });
    stop
}

/// How often platform certificates of channels are fetched; at least every 12 hours is asked.
const KEYS_EVERY: Duration = Duration::from_secs(6 * 3600);

async fn serve(args: ServeArgs) -> Result<(), Fault> {
    let liberties = Liberties { plain_http_channels: args.plain_http_channels };
    let file = args.place.file();
    let config = configuration::checked(&file)?;
    let process = Process { role: args.role.name(), keeps_books: args.role.keeps_books() };
    let export = log::install("info", &config.observe, process.role)?;
    let gateway = Arc::new(Gateway::open(config, Clock::default(), &liberties).await?);
    let stop = stop_signal();
    reload::on_hangup(gateway.clone(), file, stop.clone())?;
    let watching = observe::start(&gateway, process, &stop).await?;
    let roster = gateway.roster.clone();
    tokio::spawn(async move {
        loop {
            roster.refresh_keys().await;
            tokio::time::sleep(KEYS_EVERY).await;
        }
    });
    let (done, ended) = watch::channel(false);
    let lease = tokio::spawn(membership::keep(gateway.clone(), ended));
    let work = args.role.works().then(|| tokio::spawn(worker::run(gateway.clone(), stop.clone())));
    // A worker listens too: for its health, and for callbacks that a balancer sends its way.
    let router = match args.role {
        Role::All | Role::Gateway | Role::Worker => serve::router(gateway.clone()),
        Role::Settlement | Role::Console => observe::router(gateway.clone()),
    };
    let listener = tokio::net::TcpListener::bind(gateway.config.server.listen).await?;
    tracing::info!(listen = %listener.local_addr()?, "feiqian serves");
    serve::serve(listener, router, gateway, stop).await;
    if let Some(work) = work {
        work.await?;
    }
    for task in watching {
        task.await?;
    }
    done.send(true).ok();
    lease.await?;
    tracing::info!("feiqian has stopped");
    if let Some(export) = export {
        export.flush().await;
    }
    Ok(())
}

async fn init(args: InitArgs) -> Result<(), Fault> {
    let file = install::init(&args.dir, &args.listen, &args.public_url, false, "")?;
    let config = Config::load(&file)?;
    let store = open_store(&config).await?;
    let new = NewMerchant {
        id: MerchantId::parse(&args.mchid)?,
        name: args.name,
        appid: args.appid,
        fee_rate: BasisPoints::new(60)?,
        mode: Mode::Eager,
        late: LatePolicy::Refund,
    };
    let files = install::add_merchant(&config, &store, &new).await?;
    say!("Configuration  {}", file.display());
    say!("Merchant {}  {}", new.id, files.folder.display());
    say!("Next: add a [[channel]] to the configuration, then run");
    say!("  feiqian serve --config {}", file.display());
    Ok(())
}

async fn merchant(command: MerchantCommand) -> Result<(), Fault> {
    match command {
        MerchantCommand::Add { place, mchid, name, appid, fee_bps, mode, late, json } => {
            let config = place.config()?;
            let store = open_store(&config).await?;
            let new = NewMerchant {
                id: MerchantId::parse(&mchid)?,
                name,
                appid,
                fee_rate: BasisPoints::new(fee_bps)?,
                mode: match mode {
                    ModeArg::Eager => Mode::Eager,
                    ModeArg::Lazy => Mode::Lazy,
                },
                late: match late {
                    LateArg::Refund => LatePolicy::Refund,
                    LateArg::Reopen => LatePolicy::Reopen,
                },
            };
            let files = install::add_merchant(&config, &store, &new).await?;
            let list = [
                ("private_key", files.private_key.display().to_string()),
                ("certificate", files.certificate.display().to_string()),
                ("serial", files.serial.clone()),
                ("apiv3_key", files.apiv3_key.display().to_string()),
                ("platform_public_key", files.platform_public_key.display().to_string()),
                ("platform_public_key_id", config.keys.platform_public_key_id.clone()),
                ("platform_certificate", files.platform_certificate.display().to_string()),
            ];
            if json {
                let map: serde_json::Map<_, _> =
                    list.into_iter().map(|it| (it.0.to_owned(), it.1.into())).collect();
                say!("{}", serde_json::Value::Object(map));
            } else {
                say!("Merchant {} can use these:", new.id);
                for (name, value) in list {
                    say!("  {name:<24}{value}");
                }
            }
        }
        MerchantCommand::List { place, json } => {
            let all = place.store().await?.merchants().await?;
            for it in all {
                let (id, serial) = (it.id.as_str(), &it.certificate_serial);
                if json {
                    let line = json!({ "mchid": id, "name": it.name, "appids": it.appids,
                        "fee_bps": it.fee_rate.get(), "serial": serial, "active": it.active });
                    say!("{line}");
                } else {
                    say!("{id:<12} {:<8} {serial}  {}", it.fee_rate.to_string(), it.name);
                }
            }
        }
    }
    Ok(())
}

async fn migrate(place: &Place) -> Result<(), Fault> {
    place.store().await?;
    say!("The database is at schema {}.", store::VERSION);
    Ok(())
}

async fn ledger(command: LedgerCommand) -> Result<(), Fault> {
    match command {
        LedgerCommand::Check { place, json } => {
            let store = place.store().await?;
            let shown = std::io::stderr().is_terminal();
            let report = app::audit(&store, |payments| {
                if shown {
                    eprint!("\r{payments} payments checked");
                }
            })
            .await?;
            if shown {
                eprintln!();
            }
            let totals: Vec<_> = report
                .totals
                .iter()
                .map(|(currency, (debits, credits))| {
                    json!({ "currency": currency.code(), "debits": debits.to_string(),
                            "credits": credits.to_string() })
                })
                .collect();
            let ok = report.findings.is_empty();
            if json {
                let body = json!({ "ok": ok, "payments": report.payments,
                    "refunds": report.refunds, "accounts": report.accounts, "totals": totals,
                    "findings": report.findings });
                say!("{body}");
            } else {
                say!(
                    "{} payments, {} refunds, {} accounts",
                    report.payments,
                    report.refunds,
                    report.accounts
                );
                for (currency, (debits, credits)) in &report.totals {
                    say!("{currency}  debits {debits}  credits {credits}");
                }
                for finding in &report.findings {
                    say!("WRONG  {finding}");
                }
                say!("{}", if ok { "The books are right." } else { "The books are wrong." });
            }
            if ok { Ok(()) } else { Err("ledger check found differences".into()) }
        }
        LedgerCommand::Balances { place, json } => {
            for (account, it) in place.store().await?.balances().await? {
                let held = kernel::Money::new(it.held(account.kind.side()), account.currency);
                if json {
                    let line = json!({ "account": account.to_string(), "minor": held.minor(),
                        "currency": account.currency.code() });
                    say!("{line}");
                } else {
                    say!("{:<56}{:>18}", account.to_string(), held.major());
                }
            }
            Ok(())
        }
    }
}

async fn notification(command: NotificationCommand) -> Result<(), Fault> {
    match command {
        NotificationCommand::List { place, mchid, limit } => {
            let (store, merchant) = (place.store().await?, MerchantId::parse(&mchid)?);
            for it in store.notifications(&merchant, None, None, limit).await? {
                let created = wechatpay::beijing::plain(it.created);
                say!("{}  {created}  {:?}  {:?}  {}", it.id, it.event, it.state, it.url);
                for one in store.tries_of(&merchant, it.id).await? {
                    let at = wechatpay::beijing::plain(one.at);
                    let status = one.status.map_or("-".into(), |it| it.to_string());
                    let said = one.error.unwrap_or(one.body_head);
                    say!(
                        "  {:>3}  {at}  {status:>3}  {:>5} ms  {said}",
                        one.number,
                        one.duration_ms
                    );
                }
            }
            Ok(())
        }
        NotificationCommand::Replay { place, mchid, id } => {
            let gateway =
                Gateway::open(place.config()?, Clock::default(), &Liberties::default()).await?;
            let (merchant, id) = (MerchantId::parse(&mchid)?, Serial::parse(&id)?);
            let it = gateway.platform.replay(&merchant, id, clock::wall()).await?;
            membership::leave(&gateway).await;
            say!("{} will be sent again by the running server.", it.id);
            Ok(())
        }
    }
}

async fn held(command: HeldCommand) -> Result<(), Fault> {
    match command {
        HeldCommand::List { place } => {
            let store = place.store().await?;
            let mut after = None;
            loop {
                let page = store.payments_after(after, 500).await?;
                let Some(last) = page.last() else { return Ok(()) };
                after = Some((last.merchant.clone(), last.serial));
                for payment in &page {
                    for it in &payment.unexpected {
                        say!(
                            "{}  payment {}  attempt {}  {}  {:?}  {:?}",
                            payment.merchant,
                            payment.serial,
                            it.attempt,
                            it.amount,
                            it.cause,
                            it.state
                        );
                    }
                }
            }
        }
        HeldCommand::Release { place, mchid, payment, attempt } => {
            let gateway =
                Gateway::open(place.config()?, Clock::default(), &Liberties::default()).await?;
            let merchant = MerchantId::parse(&mchid)?;
            let (payment, attempt) = (Serial::parse(&payment)?, Serial::parse(&attempt)?);
            let now = clock::wall();
            let released = gateway.platform.release_held(&merchant, payment, attempt, now).await;
            membership::leave(&gateway).await;
            match released? {
                Some(_) => say!("The money goes back to its payer."),
                None => return Err("nothing is held there; see `feiqian held list`".into()),
            }
            Ok(())
        }
    }
}
