//! One run: a seed, a storm of actions and faults, then quiet, then the auditors.

use super::accounts::{candidates, simulator};
use super::auditors;
use super::clients::{Ask, Order};
use super::dice::Dice;
use super::pause::{Shared, lock};
use super::ports::{WildCourier, WildProvider, WildPublisher, WildStore};
use super::sabotage::Sabotage;
use super::world::{Patience, World};
use crate::wechat::WechatSim;
use app::{
    Commit, Intent, IntentKind, Merchant, NewsError, Observer, PayError, PlaceError, Placed,
    Platform, Policy, Put, RefundError, Store,
};
use kernel::{BasisPoints, MerchantId, Serial, SerialGenerator, Timestamp, Zone};
use payments::{LatePolicy, Mode, Payment, Refund, RefundState};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use store::MemoryStore;

pub(super) type Wild = Platform<WildStore, WildProvider, WildCourier>;

/// What an operation ended with. One that a crash cut off never ends.
pub(super) enum Ended {
    Placed {
        order: usize,
        result: Box<Result<Placed, PlaceError>>,
    },
    /// Placed again under its number, with another amount.
    Twisted {
        result: Box<Result<Placed, PlaceError>>,
    },
    Prepared {
        result: Box<Result<channel::Prepay, PayError>>,
    },
    Closed {
        order: usize,
        result: Box<Result<(), app::CloseError>>,
    },
    Refunded {
        ask: usize,
        result: Box<Result<(Payment, Refund), RefundError>>,
    },
    /// Asked again under its number, with another amount.
    TwistedRefund {
        result: Box<Result<(Payment, Refund), RefundError>>,
    },
    Attended {
        intent: Intent,
        result: Result<(), NewsError>,
    },
    CalledBack {
        id: Option<u64>,
        status: u16,
    },
    Operated(String),
}

pub(super) struct Task {
    pub(super) label: String,
    pub(super) work: Pin<Box<dyn Future<Output = Ended>>>,
    /// The callback that waits for an answer.
    pub(super) callback: Option<u64>,
}

type Key = (IntentKind, Serial);

pub(super) struct Run {
    pub(super) world: Shared,
    pub(super) store: MemoryStore,
    pub(super) platform: Arc<Wild>,
    pub(super) tasks: Vec<Task>,
    busy: BTreeSet<Key>,
    /// When work on each subject was done lately.
    attended: BTreeMap<Key, Vec<Timestamp>>,
    pub(super) merchants: Vec<Merchant>,
    pub(super) orders: Vec<Order>,
    pub(super) asks: Vec<Ask>,
}

/// What a run amounted to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    pub orders: usize,
    pub refunds: usize,
    pub payments: usize,
    pub crashes: usize,
    pub commits: u64,
    /// How often the run met what it is there for.
    pub met: BTreeMap<&'static str, usize>,
    /// What the auditors found, in words; empty if all is well.
    pub findings: Vec<String>,
    /// The steps of the run, oldest first.
    pub trace: Vec<String>,
}

struct Nobody;

impl Observer for Nobody {
    fn committed(&self, _: Option<(&MerchantId, Serial)>, _: Option<Timestamp>) {}
}

/// 2026-11-21, noon in Beijing.
const BEGIN: Timestamp = Timestamp::from_ms(1_795_233_600_000);
const ACTIONS: usize = 110;
/// Rounds of the quiet phase. Reaching it means that something never comes to rest.
const ROUNDS: usize = 4_000;

/// Whoever works on one thing so often within a second has forgotten to wait.
const RESTLESS: usize = 12;

/// Ends a future that never waits.
///
/// - Panics: if it does wait. Nothing pauses in the quiet phase, nor in the real store.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(it) => it,
        Poll::Pending => panic!("nothing waits here"),
    }
}

/// Runs one seed to its end.
pub fn run(seed: u64, sabotage: Sabotage) -> Outcome {
    let mut run = Run::new(seed, sabotage);
    let crashes = run.storm();
    run.settle_down();
    let mut findings = std::mem::take(&mut lock(&run.world).findings);
    let examined = auditors::examine(&run);
    findings.extend(examined.findings);
    let world = lock(&run.world);
    Outcome {
        seed,
        orders: run.orders.len(),
        refunds: run.asks.len(),
        payments: world.paid.len(),
        crashes,
        commits: world.watch.commits,
        met: examined.met,
        findings,
        trace: world.trace.clone(),
    }
}

impl Run {
    fn new(seed: u64, sabotage: Sabotage) -> Run {
        let sim = WechatSim::new(simulator(seed)).expect("settings written for this");
        let mut world = World::new(Dice::new(seed), sim, BEGIN, sabotage);
        let store = MemoryStore::in_memory().expect("SQLite in memory");
        let merchants = merchants(&mut world);
        let puts = merchants.iter().map(|it| Put { value: it.clone(), expected: 0 });
        let commit = Commit { merchants: puts.collect(), ..Commit::default() };
        at_once(store.commit(commit)).expect("merchants are new");
        let world: Shared = Arc::new(Mutex::new(world));
        let platform = start(&world, &store);
        Run {
            world,
            store,
            platform,
            tasks: Vec::new(),
            busy: BTreeSet::new(),
            attended: BTreeMap::new(),
            merchants,
            orders: Vec::new(),
            asks: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        lock(&self.world).now
    }

    pub(super) fn roll(&self, end: usize) -> usize {
        lock(&self.world).dice.below(end)
    }

    /// The phase with faults. Answers how often the platform crashed.
    fn storm(&mut self) -> usize {
        let mut crashes = 0;
        for _ in 0..ACTIONS {
            for _ in 0..self.roll(6) + self.tasks.len() / 8 {
                self.step();
            }
            if lock(&self.world).strikes(|it| it.crash) {
                self.crash();
                crashes += 1;
            }
            let weights = [14, 20, 16, 14, 4, 14, 3, 2, 12, 1, 4];
            let action = lock(&self.world).dice.weighed(&weights);
            match action {
                0 => self.merchant_orders(),
                1 => self.merchant_repeats(),
                2 => self.payer_opens_cashier(),
                3 => self.payer_acts(),
                4 => self.merchant_closes(),
                5 => self.merchant_refunds(),
                6 => self.operator_acts(),
                7 => self.time_passes(true),
                8 => self.time_passes(false),
                9 => self.payer_is_late(),
                _ => self.nothing_else_happens(),
            }
            self.take_callbacks();
            self.take_due();
        }
        crashes
    }

    /// The process dies and comes up again; what is durable stays.
    fn crash(&mut self) {
        let under_way: Vec<u64> = self.tasks.iter().filter_map(|it| it.callback).collect();
        {
            let mut world = lock(&self.world);
            let cut: Vec<String> = self.tasks.iter().map(|it| it.label.clone()).collect();
            world.note(|_| format!("-- crash, cutting off [{}]", cut.join(", ")));
        }
        self.tasks.clear();
        self.busy.clear();
        self.platform = start(&self.world, &self.store);
        let mut world = lock(&self.world);
        for id in under_way {
            let now = world.now;
            world.sim.callback_answered(id, None, now);
        }
        let down_ms = world.dice.between(1, 20_000);
        world.advance(down_ms);
    }

    /// Moves one operation a step on.
    fn step(&mut self) {
        if self.tasks.is_empty() {
            return;
        }
        let index = self.roll(self.tasks.len());
        let task = &mut self.tasks[index];
        let polled = task.work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(ended) = polled {
            let label = self.tasks.swap_remove(index).label;
            self.ended(&label, ended);
        }
    }

    pub(super) fn begin(&mut self, label: String, work: impl Future<Output = Ended> + 'static) {
        lock(&self.world).note(|_| format!("-> {label}"));
        self.tasks.push(Task { label, work: Box::pin(work), callback: None });
    }

    fn ended(&mut self, label: &str, ended: Ended) {
        if let Ended::Attended { intent, result } = &ended {
            self.busy.remove(&(intent.kind, intent.subject));
            let mut world = lock(&self.world);
            match result {
                Err(error) if world.calmed => {
                    world.find(format!("{label} failed without a fault: {error:?}"));
                }
                Err(_) => {}
                Ok(()) => {
                    let now = world.now;
                    let times = self.attended.entry((intent.kind, intent.subject)).or_default();
                    times.retain(|it| now.ms_since(*it) < 1_000);
                    times.push(now);
                    if times.len() == RESTLESS {
                        world.find(format!("{label}: {RESTLESS} times within a second"));
                    }
                }
            }
            return;
        }
        if let Ended::CalledBack { id: Some(id), status } = &ended {
            let mut world = lock(&self.world);
            world.note(|_| format!("<- {label}: {status}"));
            let now = world.now;
            world.sim.callback_answered(*id, Some(*status), now);
            return;
        }
        self.answered(label, ended);
    }

    /// Work that has fallen due is begun, in no particular order and not all of it.
    fn take_due(&mut self) {
        let now = self.now();
        let Ok(due) = at_once(self.store.due(now, 64)) else { return };
        for intent in due {
            let key = (intent.kind, intent.subject);
            let (skip, twice) = {
                let mut world = lock(&self.world);
                (world.dice.chance(300), world.strikes(|it| it.doubled_work))
            };
            // Each refund is one worker's: two at once could hear "no" and "yes".
            let twice = twice && intent.kind != IntentKind::Refund;
            if skip || (self.busy.contains(&key) && !twice) {
                continue;
            }
            self.busy.insert(key);
            self.attend(intent, now);
        }
    }

    /// The worker alone, as long as it finds something due.
    fn nothing_else_happens(&mut self) {
        for _ in 0..20 {
            // Some wait for the clock, and never end here.
            for _ in 0..self.tasks.len() * 40 {
                self.step();
            }
            let now = self.now();
            let due = at_once(self.store.due(now, 8)).unwrap_or_default();
            if due.is_empty() {
                break;
            }
            for intent in due {
                if self.busy.insert((intent.kind, intent.subject)) {
                    self.attend(intent, now);
                }
            }
        }
    }

    fn attend(&mut self, intent: Intent, now: Timestamp) {
        let platform = self.platform.clone();
        let label =
            format!("attend {:?} {}", intent.kind, super::world::short(intent.subject.as_str()));
        self.begin(label, async move {
            let result = platform.attend(&intent, now).await;
            Ended::Attended { intent, result }
        });
    }

    fn time_passes(&mut self, far: bool) {
        let next = at_once(self.store.next_due()).ok().flatten();
        let mut world = lock(&self.world);
        let now = world.now;
        let ms = match next {
            Some(next) if !far && world.dice.chance(500) => next.ms_since(now).max(1),
            _ if far => world.dice.between(60_000, 3_600_000),
            _ => world.dice.between(1, 20_000),
        };
        world.advance(ms.min(3_600_000));
    }

    /// No more faults: everything under way ends, everybody repeats what was left open, and the
    /// clock runs until nothing is left to do.
    fn settle_down(&mut self) {
        lock(&self.world).calm();
        if self.roll(2) == 0 {
            self.crash();
        }
        self.drain();
        // What was under way when the faults ended may still have met one.
        lock(&self.world).calmed = true;
        lock(&self.world).advance(300_000);
        self.everybody_decides();
        self.drain();
        for _ in 0..3 {
            self.everybody_repeats();
            self.drain();
        }
        for _ in 0..ROUNDS {
            self.take_callbacks();
            self.drain();
            let now = self.now();
            let due = at_once(self.store.due(now, 1_000)).unwrap_or_default();
            let idle = due.is_empty();
            for intent in due {
                self.attend(intent, now);
                self.drain();
            }
            if !idle {
                continue;
            }
            match self.next_event() {
                None => return,
                Some(next) => {
                    let mut world = lock(&self.world);
                    let ms = next.ms_since(world.now).max(1);
                    world.advance(ms);
                }
            }
        }
        lock(&self.world).find("it never comes to rest".into());
    }

    pub(super) fn drain(&mut self) {
        while !self.tasks.is_empty() {
            self.step();
        }
    }

    /// When something happens by itself again; refunds that a person must free are asked about for
    /// ever, and do not count.
    fn next_event(&self) -> Option<Timestamp> {
        let end = Timestamp::from_ms(i64::MAX);
        let intents = at_once(self.store.due(end, 10_000)).unwrap_or_default();
        let stuck = |it: &Intent| {
            let refund = at_once(self.store.refund(&it.merchant, it.subject)).ok().flatten();
            refund.is_some_and(|it| it.value.state == RefundState::Abnormal)
        };
        let work = intents.iter().find(|it| it.kind != IntentKind::Refund || !stuck(it));
        let log = lock(&self.world).sim.callback_log();
        let callback = log.iter().filter_map(|it| it.next).min();
        [work.map(|it| it.due), callback].into_iter().flatten().min()
    }
}

fn start(world: &Shared, store: &MemoryStore) -> Arc<Wild> {
    let policy = Policy {
        candidates: candidates(),
        risk: risk::Policy::default(),
        notify_ladder_s: wechatpay::notification::NOTIFY_LADDER_S.to_vec(),
        default_expiry_s: 3_600,
        publish: true,
    };
    let platform = Platform::new(
        WildStore { inner: store.clone(), world: world.clone() },
        WildProvider::new(world.clone()),
        WildCourier { world: world.clone() },
        policy,
        SerialGenerator::new(0, Zone::shanghai()),
        Box::new(Nobody),
    );
    Arc::new(platform.heard_by(Box::new(WildPublisher { world: world.clone() })))
}

fn merchants(world: &mut World) -> Vec<Merchant> {
    let mut merchants = Vec::new();
    for number in ["1900000109", "1900000117", "1900000125"] {
        let id = MerchantId::parse(number).expect("digits");
        let dice = &mut world.dice;
        let patience = match dice.below(6) {
            0 => Patience::Never,
            1..3 => Patience::After(u32::try_from(dice.below(8)).unwrap_or(0)),
            _ => Patience::After(0),
        };
        let merchant = Merchant {
            id: id.clone(),
            name: number.into(),
            appids: vec!["wx2421b1c4370ec43b".into()],
            fee_rate: BasisPoints::new([0, 38, 60, 600][dice.below(4)]).expect("at most 100 %"),
            mode: [Mode::Eager, Mode::Lazy][dice.below(2)],
            late: [LatePolicy::Reopen, LatePolicy::Refund][dice.below(2)],
            certificate_pem: String::new(),
            certificate_serial: String::new(),
            sealed_apiv3_key: String::new(),
            active: true,
        };
        world.patience.insert(id, patience);
        let (mode, late) = (merchant.mode, merchant.late);
        world.note(|_| format!("merchant {number} {mode:?} {late:?} {patience:?}"));
        merchants.push(merchant);
    }
    merchants
}
