//! `bench ledger`: durable payment commits through the store, as many in flight as there are
//! clients. Slices of it alternate with slices of its limit, the bare loop of [`super::bare`].

use super::bare::{Bare, Source};
use super::bare_postgres::BarePostgres;
use super::disk::Workplace;
use super::engine::Engine;
use super::report::{BenchReport, Latencies, Tally, cpu_time, rounded};
use super::{BenchArgs, Progress};
use crate::cli::Fault;
use crate::clock;
use app::{
    Commit, Intent, IntentChange, IntentKind, Notification, NotificationEvent, NotificationState,
    Put, Store,
};
use kernel::{
    BasisPoints, Currency, MerchantId, Money, Serial, SerialGenerator, SerialKind, Timestamp, Zone,
};
use ledger::{Event, Journal, Posting};
use payments::{
    Attempt, AttemptState, Evidence, LatePolicy, Mode, Payment, PaymentState, Receipt, Terms,
    TradeProduct,
};
use serde_json::{Map, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{Address, AnyStore};
use tokio::task::JoinSet;

/// Merchants that the payments belong to: each has a balance of its own.
pub(super) const MERCHANTS: usize = 10;
/// Ours and the limit alternate in slices of this length.
pub(super) const SLICE: Duration = Duration::from_secs(1);
/// Not counted: caches fill, files get their first pages.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

pub async fn run(
    args: &BenchArgs,
    place: &Workplace,
    engine: &Engine,
) -> Result<BenchReport, Fault> {
    let clients = args.clients.unwrap_or(512);
    let (flush_p50, flush_p99) = place.flush_latency()?;
    let address = engine.address("ours")?;
    let store = AnyStore::open(&address).await?;
    let desk = Arc::new(Desk::new(MERCHANTS));
    let mut bare = Limit::new(engine, &address, place).await?;
    let (mut ours, mut limit) = (Tally::default(), Tally::default());
    let mut latencies = Latencies::default();
    let progress = Progress::new("ledger", args.seconds);
    let target = Duration::from_secs(args.seconds);
    let mut batches = 0u64;
    let mut cpu = Duration::ZERO;
    let mut warm = false;
    while ours.took < target {
        let before = (store.figures(), cpu_time());
        let left = if warm { SLICE.min(target - ours.took) } else { WARM_UP };
        let (slice, took, committed) = slice(&store, &desk, clients, left).await?;
        let after = (store.figures(), cpu_time());
        let batch = after.0.batches - before.0.batches;
        let mean = committed.div_ceil(batch.max(1));
        let written = bare.write(usize::try_from(mean)?).await?;
        if written.1 != committed {
            return Err(
                format!("{committed} commits were answered, {} are there", written.1).into()
            );
        }
        if warm {
            latencies.add(&slice);
            ours.add(took, committed);
            limit.add(written.0, written.1);
            batches += batch;
            cpu += after.1.saturating_sub(before.1);
            progress.show(ours.took, ours.rate(), limit.rate());
        }
        warm = true;
    }
    progress.end();
    check_books(&store).await?;

    let mut more = Map::new();
    let mut put = |name: &str, value: f64| more.insert(name.into(), json!(value));
    put("batch_mean", rounded(ours.count as f64 / batches as f64, 1));
    put("cpu_us_per_commit", rounded(cpu.as_secs_f64() * 1e6 / ours.count as f64, 1));
    put("flush_p50_ms", rounded(flush_p50.as_secs_f64() * 1e3, 3));
    put("flush_p99_ms", rounded(flush_p99.as_secs_f64() * 1e3, 3));
    more.insert("filesystem".into(), json!(place.filesystem));
    Ok(BenchReport {
        scenario: "ledger",
        store: engine.name(),
        seconds: ours.took.as_secs_f64(),
        clients,
        throughput_per_s: ours.rate(),
        latencies,
        limit_name: bare.name().into(),
        limit_per_s: limit.rate(),
        notes: notes(&bare)?,
        more,
    })
}

/// The bare loop that ours is compared with.
enum Limit {
    Sqlite(Source, Bare),
    Postgres(Box<BarePostgres>),
}

impl Limit {
    async fn new(engine: &Engine, ours: &Address, place: &Workplace) -> Result<Limit, Fault> {
        match (engine, ours) {
            (Engine::Sqlite(_), Address::File(file)) => {
                let bare = Bare::create(&place.folder().join("bare.db"))?;
                Ok(Limit::Sqlite(Source::new(file), bare))
            }
            (Engine::Postgres(server), _) => {
                let (source, target) = (server.url("ours"), server.create("bare"));
                let bare = BarePostgres::new(&source, &target, store::POSTGRES_WRITERS).await?;
                Ok(Limit::Postgres(Box::new(bare)))
            }
            (Engine::Sqlite(_), Address::Postgres(_)) => Err("a file was expected".into()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Limit::Sqlite(..) => "bare SQLite group-commit loop writing the same rows",
            Limit::Postgres(_) => {
                "bare PostgreSQL loops, batched and pipelined, writing the same rows"
            }
        }
    }

    async fn write(&mut self, batch: usize) -> Result<(Duration, u64), Fault> {
        match self {
            Limit::Sqlite(source, bare) => tokio::task::block_in_place(|| {
                let (commits, balances) = source.fresh()?;
                let (took, _) = bare.write(&commits, &balances, batch)?;
                Ok((took, u64::try_from(commits.len())?))
            }),
            Limit::Postgres(bare) => bare.write(batch).await,
        }
    }
}

fn notes(bare: &Limit) -> Result<Vec<String>, Fault> {
    let mut notes = vec![
        "One commit: order, 4 postings over 4 balances, notification, intent; durable before the answer.".into(),
        "The bare loop writes the very same rows from memory, in batches of the size that ours had in the slice before; both write each balance once a batch. It looks nothing up, decides nothing and answers nobody.".into(),
        "cpu_us_per_commit is of this process, with the clients: they make the payment, fold the evidence in and post it. PostgreSQL's own processes are not in it.".into(),
        "The books were recomputed from their postings afterwards and agree.".into(),
    ];
    match bare {
        Limit::Sqlite(_, bare) if bare.shares_its_cache()? => notes.push("This SQLite was built with one page cache for all connections, which slows the bare loop: build with LIBSQLITE3_FLAGS=-USQLITE_ENABLE_MEMORY_MANAGEMENT.".into()),
        Limit::Sqlite(..) => {}
        Limit::Postgres(_) => notes.push(format!("{} connections write, in ours and in the bare loop; server, loop and clients share the cores.", store::POSTGRES_WRITERS)),
    }
    Ok(notes)
}

/// Keeps `clients` commits in flight for `length`, then waits for the last of them.
pub(super) async fn slice(
    store: &AnyStore,
    desk: &Arc<Desk>,
    clients: usize,
    length: Duration,
) -> Result<(Latencies, Duration, u64), Fault> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (store, desk) = (store.clone(), desk.clone());
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            while start.elapsed() < length {
                let commit = desk.paid_order();
                let begun = Instant::now();
                store.commit(commit).await?;
                latencies.record(begun.elapsed());
            }
            Ok::<_, Fault>(latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(client) = tasks.join_next().await {
        all.add(&client??);
    }
    let count = all.count();
    Ok((all, start.elapsed(), count))
}

/// No figures from books that do not balance.
pub(super) async fn check_books(store: &AnyStore) -> Result<(), Fault> {
    if store.balances().await? != store.recomputed_balances().await? {
        return Err("the balances are not what the postings say".into());
    }
    Ok(())
}

/// Makes orders that are placed and paid at once.
pub(super) struct Desk {
    merchants: Vec<MerchantId>,
    serials: Mutex<SerialGenerator>,
    next: AtomicU64,
}

/// The numbers of one payment.
struct Numbers {
    payment: Serial,
    attempt: Serial,
    journal: Serial,
    notification: Serial,
}

impl Desk {
    /// - Input: `merchants` that the payments are spread over.
    pub fn new(merchants: usize) -> Desk {
        let merchant = |it| MerchantId::parse(&format!("19{it:08}")).expect("ten digits");
        Desk {
            merchants: (0..merchants).map(merchant).collect(),
            serials: Mutex::new(SerialGenerator::new(0, Zone::shanghai())),
            next: AtomicU64::new(0),
        }
    }

    /// One merchant, and one that no other desk has.
    pub fn hot() -> Desk {
        let merchants = vec![MerchantId::parse("2900000000").expect("ten digits")];
        Desk {
            merchants,
            serials: Mutex::new(SerialGenerator::new(1, Zone::shanghai())),
            next: AtomicU64::new(0),
        }
    }

    fn numbers(&self, now: Timestamp) -> Numbers {
        let mut serials = self.serials.lock().unwrap_or_else(PoisonError::into_inner);
        Numbers {
            payment: serials.next(now, SerialKind::Payment),
            attempt: serials.next(now, SerialKind::Attempt),
            journal: serials.next(now, SerialKind::Journal),
            notification: serials.next(now, SerialKind::Notification),
        }
    }

    fn paid_order(&self) -> Commit {
        let now = clock::wall();
        let numbers = self.numbers(now);
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let index = usize::try_from(count).unwrap_or(0) % self.merchants.len();
        let order = new_order(&self.merchants[index], &numbers, count, now);
        let receipt = Receipt {
            attempt: numbers.attempt,
            amount: order.terms.amount,
            transaction: format!("42000{}", numbers.attempt),
            payer: Some("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".into()),
            bank: Some("ICBC_DEBIT".into()),
            at: now,
        };
        let recorded = order.record(numbers.attempt, &Evidence::Paid(receipt));
        let paid = recorded.expect("the order has this attempt").payment;
        let notification = Notification {
            id: numbers.notification,
            merchant: paid.merchant.clone(),
            payment: paid.serial,
            refund: None,
            event: NotificationEvent::PaymentSucceeded,
            url: "https://merchant.example.com/wechatpay/notify".into(),
            created: now,
            state: NotificationState::Pending,
            tries: 0,
            ladder_from: 0,
        };
        let tell = Intent {
            merchant: paid.merchant.clone(),
            kind: IntentKind::Notify,
            subject: numbers.notification,
            due: now,
            tries: 0,
            holder: None,
        };
        let journal = Journal {
            serial: numbers.journal,
            merchant: paid.merchant.clone(),
            payment: paid.serial,
            subject: numbers.attempt,
            event: Event::Paid,
            at: now,
            postings: postings(&paid),
        };
        Commit {
            payments: vec![Put { value: paid, expected: 0 }],
            notifications: vec![Put { value: notification, expected: 0 }],
            journals: vec![journal],
            intents: vec![IntentChange::Schedule(tell)],
            ..Commit::default()
        }
    }
}

/// What the chart of accounts posts for a paid order, the gross in two parts, as when a voucher
/// paid some of it: four postings over four accounts.
fn postings(paid: &Payment) -> Vec<Posting> {
    let [gross, fee, cost] = ledger::paid(&ledger::Paid {
        merchant: &paid.merchant,
        channel: "wechat",
        gross: paid.terms.amount,
        fee: paid.fee(),
        cost: paid.cost(),
    })
    .try_into()
    .expect("none of the three is zero");
    let voucher = Posting { amount: Money::new(100, Currency::Cny), ..gross.clone() };
    let rest = gross.amount.minor() - voucher.amount.minor();
    vec![Posting { amount: Money::new(rest, Currency::Cny), ..gross }, voucher, fee, cost]
}

fn new_order(merchant: &MerchantId, numbers: &Numbers, count: u64, now: Timestamp) -> Payment {
    let amount = Money::new(1_000 + i64::try_from(count % 100_000).unwrap_or(0), Currency::Cny);
    let zero = Money::zero(Currency::Cny);
    let rate = |bps| BasisPoints::new(bps).expect("less than 100 %");
    let attempt = Attempt {
        serial: numbers.attempt,
        channel: "wechat".into(),
        product: TradeProduct::Native,
        amount,
        cost_rate: rate(30),
        state: AttemptState::Waiting,
        started: now,
        prepay: None,
        receipt: None,
        note: None,
    };
    Payment {
        serial: numbers.payment,
        merchant: merchant.clone(),
        terms: Terms {
            order_no: format!("B{count:015}"),
            appid: "wx2421b1c4370ec43b".into(),
            product: TradeProduct::Native,
            amount,
            description: "明前龙井 250 克".into(),
            attach: None,
            notify_url: Some("https://merchant.example.com/wechatpay/notify".into()),
            time_expire: None,
            payer: None,
            payer_ip: None,
            h5_type: None,
            device_id: None,
            return_url: None,
            extras: None,
        },
        mode: Mode::Lazy,
        verifies_with: None,
        trace: None,
        fee_rate: rate(60),
        late: LatePolicy::Refund,
        state: PaymentState::NotPay,
        created: now,
        expires: now.plus_s(7200),
        attempts: vec![attempt],
        receipt: None,
        refunded: zero,
        fee_returned: zero,
        cost_returned: zero,
        refunds: 0,
        unexpected: vec![],
        contradictions: vec![],
    }
}
