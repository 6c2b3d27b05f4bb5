//! What is outside the platform: the clock, the channel, the merchants' servers, and the record of
//! what was seen there.

use super::dice::Dice;
use super::profile::Profile;
use super::sabotage::Sabotage;
use super::watch::Watch;
use crate::wechat::{OrderView, SimAnswer, SimRequest, WechatSim};
use kernel::{MerchantId, Serial, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How a merchant's server takes notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Says 500 this often, for each notification, before it says 200.
    After(u32),
    Never,
}

/// What a merchant's server remembers of one notification.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) times: u32,
    /// It once said 200.
    pub(super) accepted: bool,
}

/// A request whose caller has given up, still on its way.
pub(super) struct Late {
    pub(super) due: Timestamp,
    pub(super) request: SimRequest,
    pub(super) creates: Option<Serial>,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    began: Timestamp,
    pub(super) dice: Dice,
    pub(super) profile: Profile,
    /// No more faults.
    pub(super) quiet: bool,
    /// And nothing under way that met one.
    pub(super) calmed: bool,
    pub(super) sabotage: Sabotage,
    pub(super) sim: WechatSim,
    pub(super) late: Vec<Late>,
    /// Attempts that were paid at the channel, with whether our order was still open then.
    pub(super) paid: BTreeMap<String, bool>,
    pub(super) patience: BTreeMap<MerchantId, Patience>,
    pub(super) heard: BTreeMap<Serial, Heard>,
    /// Ids of the events that the bus took.
    pub(super) told: BTreeSet<String>,
    pub(super) watch: Watch,
    pub(super) trace: Vec<String>,
    /// What is wrong, in words.
    pub(super) findings: Vec<String>,
}

impl World {
    pub(super) fn new(mut dice: Dice, sim: WechatSim, now: Timestamp, sabotage: Sabotage) -> World {
        let profile = Profile::draw(&mut dice);
        let mut world = World {
            now,
            began: now,
            dice,
            profile,
            quiet: false,
            calmed: false,
            sabotage,
            sim,
            late: Vec::new(),
            paid: BTreeMap::new(),
            patience: BTreeMap::new(),
            heard: BTreeMap::new(),
            told: BTreeSet::new(),
            watch: Watch::default(),
            trace: Vec::new(),
            findings: Vec::new(),
        };
        world.expose_channel();
        world.note(|it| format!("{:?}", it.profile));
        world
    }

    pub(super) fn note(&mut self, words: impl FnOnce(&World) -> String) {
        let ms = self.now.ms_since(self.began);
        let words = words(self);
        self.trace.push(format!("{:>6}.{:03} {words}", ms / 1000, ms % 1000));
    }

    pub(super) fn find(&mut self, words: String) {
        self.note(|_| format!("!! {words}"));
        self.findings.push(words);
    }

    pub(super) fn wants_pause(&mut self) -> bool {
        !self.quiet && self.dice.chance(self.profile.pause)
    }

    /// Whether money for it comes while somebody still asks about it.
    pub(super) fn is_expected(&self, order: &OrderView) -> bool {
        let ended = matches!(order.trade_state, "CLOSED" | "REVOKED" | "PAYERROR");
        !ended && self.watch.is_open(&order.out_trade_no)
    }

    /// Whether the fault with this chance happens now.
    pub(super) fn strikes(&mut self, chance: impl Fn(&Profile) -> u16) -> bool {
        !self.quiet && self.dice.chance(chance(&self.profile))
    }

    /// Gives the channel its own faults.
    fn expose_channel(&mut self) {
        if !self.quiet {
            self.profile.channel.iter().for_each(|it| self.sim.risk_fault(it.clone()));
        }
    }

    pub(super) fn calm(&mut self) {
        self.quiet = true;
        self.sim.clear_faults();
        self.note(|_| "-- quiet".into());
    }

    /// Money that comes when nobody asks any more must at least be announced: no faults then.
    pub(super) fn sheltered<T>(&mut self, open: bool, act: impl FnOnce(&mut World) -> T) -> T {
        if !open {
            self.sim.clear_faults();
        }
        let result = act(self);
        if !open {
            self.expose_channel();
        }
        self.note_paid(open);
        result
    }

    /// A request reaches the channel.
    pub(super) fn channel_hears(
        &mut self,
        request: &SimRequest,
        creates: Option<Serial>,
    ) -> SimAnswer {
        let open = creates.is_none_or(|it| self.watch.is_open(it.as_str()));
        self.sheltered(open, |it| it.sim.handle(request, it.now))
    }

    /// Writes down who has paid meanwhile.
    fn note_paid(&mut self, open: bool) {
        for order in self.sim.orders(self.now) {
            if order.paid_minor.is_some() && !self.paid.contains_key(&order.out_trade_no) {
                let open = open && self.watch.is_open(&order.out_trade_no);
                self.note(|_| format!("   paid {} open={open}", short(&order.out_trade_no)));
                self.paid.insert(order.out_trade_no, open);
            }
        }
    }

    /// Moves the clock, and lets late requests arrive on the way.
    pub(super) fn advance(&mut self, ms: i64) {
        let end = self.now.plus_ms(ms);
        loop {
            let next = (0..self.late.len()).min_by_key(|&it| self.late[it].due);
            let Some(next) = next.filter(|&it| self.late[it].due <= end) else { break };
            let late = self.late.swap_remove(next);
            self.now = self.now.max(late.due);
            let answer = self.channel_hears(&late.request, late.creates);
            let status = answer.status;
            self.note(|_| {
                let target = short(&late.request.path_and_query);
                format!("   late {} {target}: {status}", late.request.method)
            });
        }
        self.now = self.now.max(end);
    }
}

/// Enough of a serial number or a path to tell it from others of the run.
pub(super) fn short(text: &str) -> &str {
    let all = text.len() <= 40;
    let from = if all && text.len() > 18 { text.len() - 18 } else { 0 };
    text.get(from..).unwrap_or(text)
}
