//! The state of the simulated platform, its clocks and its agenda.
//!
//! What each endpoint does stands in `orders`, `refunds`, `bills`; who may call in `api`.

use super::bills::BillFile;
use super::callbacks::Callbacks;
use super::dice::{Dice, HEX, LETTERS};
use super::faults::{Chance, Faults, Planned};
use super::orders::Order;
use super::refunds::RefundRecord;
use super::settings::{Merchant, Platform, SettingsError, WechatSimSettings};
use kernel::Timestamp;
use std::collections::{BTreeSet, HashMap};
use wechatpay::beijing;

/// Something that happens by itself when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// An order nobody paid for seven days.
    CloseOrder(usize),
    FinishRefund(usize),
}

/// The simulator's core. Deterministic: the same seed, requests and times give the same answers.
pub struct WechatSim {
    pub(super) settings: WechatSimSettings,
    pub(super) platform: Platform,
    pub(super) merchants: Vec<Merchant>,
    pub(super) advanced_ms: i64,
    pub(super) dice: Dice,
    pub(super) counter: u64,
    pub(super) orders: Vec<Order>,
    /// By merchant and the merchant's number.
    pub(super) by_number: HashMap<(String, String), usize>,
    pub(super) by_transaction: HashMap<String, usize>,
    /// Codes that open the wallet page; a re-created order's old code is gone from here.
    pub(super) by_code: HashMap<String, usize>,
    pub(super) refunds: Vec<RefundRecord>,
    pub(super) refund_by_number: HashMap<(String, String), usize>,
    pub(super) files: HashMap<String, BillFile>,
    pub(super) callbacks: Callbacks,
    pub(super) faults: Faults,
    agenda: BTreeSet<(Timestamp, Event)>,
}

impl WechatSim {
    pub fn new(settings: WechatSimSettings) -> Result<WechatSim, SettingsError> {
        let platform = Platform::read(&settings.platform)?;
        let mut merchants: Vec<Merchant> = Vec::with_capacity(settings.merchants.len());
        for it in &settings.merchants {
            if merchants.iter().any(|known| known.facts.mchid == it.mchid) {
                return Err(SettingsError::Twice(it.mchid.clone()));
            }
            merchants.push(Merchant::read(it)?);
        }
        Ok(WechatSim {
            dice: Dice::new(settings.seed),
            settings,
            platform,
            merchants,
            advanced_ms: 0,
            counter: 0,
            orders: Vec::new(),
            by_number: HashMap::new(),
            by_transaction: HashMap::new(),
            by_code: HashMap::new(),
            refunds: Vec::new(),
            refund_by_number: HashMap::new(),
            files: HashMap::new(),
            callbacks: Callbacks::default(),
            faults: Faults::default(),
            agenda: BTreeSet::new(),
        })
    }

    /// Moves the business clock forward; it never goes back.
    pub fn advance(&mut self, seconds: u32) {
        self.advanced_ms = self.advanced_ms.saturating_add(i64::from(seconds) * 1_000);
    }

    /// The business clock.
    pub fn business_now(&self, wall_now: Timestamp) -> Timestamp {
        wall_now.plus_ms(self.advanced_ms)
    }

    /// Whom payers and merchants find the simulator under.
    pub fn set_base_url(&mut self, base_url: &str) {
        self.settings.base_url = base_url.trim_end_matches('/').to_owned();
    }

    pub fn plan_fault(&mut self, planned: Planned) {
        self.faults.plan(planned);
    }

    pub fn risk_fault(&mut self, chance: Chance) {
        self.faults.risk(chance);
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Lets everything happen that is due, in the order of its times; answers the business clock.
    pub(super) fn tick(&mut self, wall_now: Timestamp) -> Timestamp {
        let now = self.business_now(wall_now);
        while let Some(&(due, event)) = self.agenda.first() {
            if due > now {
                break;
            }
            self.agenda.pop_first();
            match event {
                Event::CloseOrder(order) => self.close_unpaid(order, due),
                Event::FinishRefund(refund) => self.finish_refund(refund, due),
            }
        }
        now
    }

    pub(super) fn schedule(&mut self, due: Timestamp, event: Event) {
        self.agenda.insert((due, event));
    }

    pub(super) fn merchant(&self, mchid: &str) -> &Merchant {
        let found = self.merchants.iter().find(|it| it.facts.mchid == mchid);
        found.expect("orders belong to merchants that exist, and merchants never go")
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn compact_day(at: Timestamp) -> String {
        beijing::day(at).compact()
    }

    /// 28 digits that begin with 4200.
    pub(super) fn new_transaction_id(&mut self, at: Timestamp) -> String {
        let serial = self.settings.seed % 10_000;
        format!("4200{serial:04}{}{:012}", WechatSim::compact_day(at), self.next_number())
    }

    /// 29 digits that begin with 503.
    pub(super) fn new_refund_id(&mut self, at: Timestamp) -> String {
        let serial = self.settings.seed % 10_000;
        format!("503{serial:04}{}{:014}", WechatSim::compact_day(at), self.next_number())
    }

    /// `wx`, 14 digits of time, 20 hex digits.
    pub(super) fn new_prepay_id(&mut self, at: Timestamp) -> String {
        let time: String = beijing::plain(at).chars().filter(char::is_ascii_digit).collect();
        format!("wx{time}{}", self.dice.text(HEX, 20))
    }

    /// The part of a `code_url` after `pr=`.
    pub(super) fn new_code(&mut self) -> String {
        self.dice.text(LETTERS, 9)
    }

    pub(super) fn new_nonce(&mut self) -> String {
        self.dice.text(LETTERS, 32)
    }

    /// A nonce of AES-GCM. The counter makes it unique, as the cipher needs.
    pub(super) fn new_gcm_nonce(&mut self) -> String {
        let number = self.next_number();
        format!("{}{number:08x}", self.dice.text(LETTERS, 4))
    }

    /// All orders, oldest first.
    pub fn orders(&mut self, wall_now: Timestamp) -> Vec<OrderView> {
        self.tick(wall_now);
        self.orders.iter().map(|it| self.view(it)).collect()
    }

    /// The newest order of that number, whoever's.
    pub fn order(&mut self, out_trade_no: &str, wall_now: Timestamp) -> Option<OrderView> {
        self.tick(wall_now);
        let found = self.orders.iter().rev().find(|it| it.request.out_trade_no == out_trade_no)?;
        Some(self.view(found))
    }

    fn view(&self, order: &Order) -> OrderView {
        let refunds = order.refunds.iter().map(|&it| &self.refunds[it]).map(|it| RefundView {
            out_refund_no: it.request.out_refund_no.clone(),
            refund_id: it.refund_id.clone(),
            status: it.status.word(),
            amount_minor: it.request.refund.minor(),
        });
        OrderView {
            mchid: order.request.mchid.clone(),
            out_trade_no: order.request.out_trade_no.clone(),
            product: order.request.product.name(),
            description: order.request.description.clone(),
            trade_state: order.state.word(),
            amount_minor: order.request.amount.minor(),
            currency: order.request.amount.currency().code(),
            transaction_id: order.paid.as_ref().map(|it| it.transaction_id.clone()),
            paid_minor: order.paid.as_ref().map(|it| it.amount.minor()),
            code: order.code.clone(),
            prepay_id: order.prepay_id.clone(),
            created: order.created,
            expires: order.expires,
            refunds: refunds.collect(),
        }
    }
}

/// An order, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderView {
    pub mchid: String,
    pub out_trade_no: String,
    pub product: &'static str,
    pub description: String,
    pub trade_state: &'static str,
    pub amount_minor: i64,
    pub currency: &'static str,
    pub transaction_id: Option<String>,
    pub paid_minor: Option<i64>,
    /// What opens the wallet page.
    pub code: String,
    pub prepay_id: String,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub refunds: Vec<RefundView>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundView {
    pub out_refund_no: String,
    pub refund_id: String,
    pub status: &'static str,
    pub amount_minor: i64,
}
