//! Orders: create, query, close, and what a payer does.

use super::faults::Fault;
use super::sim::{Event, WechatSim};
use kernel::{Money, Timestamp};
use wechatpay::create::{CreateTransaction, Prepay, Product};
use wechatpay::error::ApiError;
use wechatpay::notification::EventType;
use wechatpay::query::Query;
use wechatpay::transaction::{TradeState, Transaction, TransactionAmount};

/// A code opens the wallet for two hours, an `h5_url` for five minutes.
const CODE_LIFE_S: i64 = 7_200;
const H5_LIFE_S: i64 = 300;
/// Unpaid orders are closed after this.
const AUTO_CLOSE_S: i64 = 7 * 86_400;
/// Whoever pays without saying who: 28 characters that begin with `o`.
const SOMEBODY: &str = "oSimulatedPayer0000000000001";

pub(super) struct Order {
    pub(super) request: CreateTransaction,
    pub(super) created: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) state: TradeState,
    pub(super) prepay_id: String,
    pub(super) code: String,
    pub(super) code_ends: Timestamp,
    pub(super) paid: Option<Paid>,
    pub(super) refunds: Vec<usize>,
}

pub(super) struct Paid {
    pub(super) transaction_id: String,
    pub(super) at: Timestamp,
    /// What was really paid; differs from the request only in [`Outcome::SuccessWrongAmount`].
    pub(super) amount: Money,
    pub(super) openid: String,
}

/// What comes of a payer's attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// A wrong password or no balance: the order stays unpaid.
    Decline,
    /// The payer is still typing.
    Paying,
    /// The order fails for good.
    PayError,
    /// Paid, but another amount: one fen more unless an amount is given.
    SuccessWrongAmount {
        amount_minor: Option<i64>,
    },
    /// Paid, and no notification ever comes.
    SuccessSilent,
    /// Paid although the order is closed or has expired: the payment was under way.
    LateSuccess,
}

impl Outcome {
    /// The words of the control API.
    pub fn parse(word: &str, amount_minor: Option<i64>) -> Option<Outcome> {
        match word {
            "success" => Some(Outcome::Success),
            "decline" => Some(Outcome::Decline),
            "paying" => Some(Outcome::Paying),
            "payerror" => Some(Outcome::PayError),
            "success_wrong_amount" => Some(Outcome::SuccessWrongAmount { amount_minor }),
            "success_silent" => Some(Outcome::SuccessSilent),
            "late_success" => Some(Outcome::LateSuccess),
            _ => None,
        }
    }

    pub const WORDS: [&'static str; 7] = [
        "success",
        "decline",
        "paying",
        "payerror",
        "success_wrong_amount",
        "success_silent",
        "late_success",
    ];
}

/// Which order a payer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// The newest order of that number, whoever's unless the merchant is given.
    Number { out_trade_no: &'a str, mchid: Option<&'a str> },
    /// A code, a prepay id, or an address with one of them in it.
    Code(&'a str),
}

/// Who pays; absent is the openid of the order, or somebody.
pub type Payer<'a> = Option<&'a str>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    #[error("no order is known as {0}; look at GET /_sim/orders")]
    Unknown(String),
    #[error("order {0} is paid already")]
    Paid(String),
    #[error(
        "order {out_trade_no} is {state} and cannot be paid; use outcome late_success to do it all the same"
    )]
    Ended { out_trade_no: String, state: &'static str },
    #[error("the time to pay order {0} is over; use outcome late_success to pay it all the same")]
    Expired(String),
    #[error("the code of order {0} has ended; ask the merchant for a new one")]
    CodeEnded(String),
    #[error("order {0} is for another payer")]
    OtherPayer(String),
}

/// The code in what somebody typed: `pr=` or `prepay_id=` in an address, or the code itself.
pub(super) fn code_in(text: &str) -> String {
    let text = text.trim();
    let query = Query::parse(text.split_once('?').map_or(text, |it| it.1));
    let found = query.get("pr").or(query.get("prepay_id"));
    found.unwrap_or(text).to_owned()
}

impl WechatSim {
    pub(super) fn create(
        &mut self,
        request: CreateTransaction,
        now: Timestamp,
        faults: &[Fault],
    ) -> Result<String, ApiError> {
        request.check_time(now)?;
        if !self.merchant(&request.mchid).facts.appids.contains(&request.appid) {
            return Err(ApiError::appid_mchid_not_match());
        }
        let key = (request.mchid.clone(), request.out_trade_no.clone());
        let index = match self.by_number.get(&key) {
            Some(&index) => {
                self.recreate(index, &request)?;
                index
            }
            None => {
                let index = self.orders.len();
                let expires = request.expires(now);
                self.orders.push(Order {
                    request,
                    created: now,
                    expires,
                    state: TradeState::NotPay,
                    prepay_id: String::new(),
                    code: String::new(),
                    code_ends: now,
                    paid: None,
                    refunds: Vec::new(),
                });
                self.by_number.insert(key, index);
                self.schedule(expires.max(now.plus_s(AUTO_CLOSE_S)), Event::CloseOrder(index));
                index
            }
        };
        let prepay = self.issue_code(index, now);
        if faults.contains(&Fault::CallbackFirst) {
            self.pay(index, None, None, now, true);
        }
        Ok(prepay.to_json())
    }

    /// Whether an order may be placed again under its number: unpaid, open, and just the same.
    fn recreate(&self, index: usize, request: &CreateTransaction) -> Result<(), ApiError> {
        let order = &self.orders[index];
        match order.state {
            TradeState::Success | TradeState::Refund => Err(ApiError::out_trade_no_used()),
            TradeState::Closed | TradeState::Revoked | TradeState::PayError => {
                Err(ApiError::order_closed())
            }
            TradeState::NotPay | TradeState::UserPaying | TradeState::Accept => {
                if order.request == *request { Ok(()) } else { Err(ApiError::other_parameters()) }
            }
        }
    }

    /// Gives the order a fresh code; the old one stops working.
    fn issue_code(&mut self, index: usize, now: Timestamp) -> Prepay {
        let prepay_id = self.new_prepay_id(now);
        let product = self.orders[index].request.product;
        let native = product == Product::Native;
        let code = if native { self.new_code() } else { prepay_id.clone() };
        let life_s = if product == Product::H5 { H5_LIFE_S } else { CODE_LIFE_S };
        let old = std::mem::replace(&mut self.orders[index].code, code.clone());
        self.by_code.remove(&old);
        self.by_code.insert(code.clone(), index);
        let order = &mut self.orders[index];
        order.code_ends = now.plus_s(life_s);
        order.prepay_id.clone_from(&prepay_id);
        let base = &self.settings.base_url;
        match product {
            Product::Jsapi | Product::App => Prepay::PrepayId(prepay_id),
            Product::Native if self.settings.real_code_urls => {
                Prepay::CodeUrl(format!("weixin://wxpay/bizpayurl?pr={code}"))
            }
            Product::Native => Prepay::CodeUrl(format!("{base}/wallet/pay?pr={code}")),
            Product::H5 => {
                let package = self.dice.roll() % 10_000_000_000;
                Prepay::H5Url(format!(
                    "{base}/wallet/pay?prepay_id={prepay_id}&package={package:010}"
                ))
            }
        }
    }

    pub(super) fn find_number(&self, mchid: &str, out_trade_no: &str) -> Option<usize> {
        self.by_number.get(&(mchid.to_owned(), out_trade_no.to_owned())).copied()
    }

    pub(super) fn find_transaction(&self, mchid: &str, transaction_id: &str) -> Option<usize> {
        let &index = self.by_transaction.get(transaction_id)?;
        (self.orders[index].request.mchid == mchid).then_some(index)
    }

    pub(super) fn close(&mut self, mchid: &str, out_trade_no: &str) -> Result<(), ApiError> {
        let index = self.find_number(mchid, out_trade_no).ok_or_else(ApiError::order_not_exist)?;
        match self.orders[index].state {
            TradeState::Success | TradeState::Refund => Err(ApiError::invalid_request(
                "订单已支付，不能关闭，如需退还请发起退款",
                "The order is paid and cannot be closed; refund it instead",
            )),
            TradeState::UserPaying => Err(ApiError::invalid_request(
                "用户支付中，请稍后再试",
                "The payer is paying; query the order and try again",
            )),
            TradeState::NotPay | TradeState::Accept => {
                self.orders[index].state = TradeState::Closed;
                Ok(())
            }
            // Closing twice is no error.
            TradeState::Closed | TradeState::Revoked | TradeState::PayError => Ok(()),
        }
    }

    pub(super) fn close_unpaid(&mut self, index: usize, _at: Timestamp) {
        let order = &mut self.orders[index];
        if matches!(order.state, TradeState::NotPay | TradeState::UserPaying) {
            order.state = TradeState::Closed;
        }
    }

    /// The object of queries and notifications.
    pub(super) fn transaction(&self, index: usize) -> Transaction {
        let order = &self.orders[index];
        let request = &order.request;
        let paid = order.paid.as_ref();
        let total = paid.map_or(request.amount, |it| it.amount);
        Transaction {
            appid: request.appid.clone(),
            mchid: request.mchid.clone(),
            out_trade_no: request.out_trade_no.clone(),
            transaction_id: paid.map(|it| it.transaction_id.clone()),
            trade_type: paid.map(|_| request.product.into()),
            trade_state: order.state,
            trade_state_desc: order.state.description().to_owned(),
            bank_type: paid.map(|_| "OTHERS".to_owned()),
            attach: paid.and(request.attach.clone()),
            success_time: paid.map(|it| it.at),
            openid: paid.map(|it| it.openid.clone()),
            amount: Some(TransactionAmount { total, payer_total: paid.map(|it| it.amount) }),
            device_id: request.scene_info.as_ref().and_then(|it| it.device_id.clone()),
            promotions: Vec::new(),
        }
    }

    /// The order behind a code, if the code still works.
    pub(super) fn find_code(&self, text: &str) -> Option<usize> {
        self.by_code.get(&code_in(text)).copied()
    }

    fn find(&self, reference: Reference<'_>) -> Result<usize, ConfirmError> {
        match reference {
            Reference::Code(text) => {
                self.find_code(text).ok_or_else(|| ConfirmError::Unknown(code_in(text)))
            }
            Reference::Number { out_trade_no, mchid } => {
                let fits = |it: &Order| {
                    it.request.out_trade_no == out_trade_no
                        && mchid.is_none_or(|mchid| it.request.mchid == mchid)
                };
                let found = self.orders.iter().rposition(fits);
                found.ok_or_else(|| ConfirmError::Unknown(out_trade_no.to_owned()))
            }
        }
    }

    /// What a payer does with an order. Answers the order's number.
    pub fn confirm(
        &mut self,
        reference: Reference<'_>,
        outcome: Outcome,
        payer: Payer<'_>,
        wall_now: Timestamp,
    ) -> Result<String, ConfirmError> {
        let now = self.tick(wall_now);
        let index = self.find(reference)?;
        let order = &self.orders[index];
        let number = order.request.out_trade_no.clone();
        let late = outcome == Outcome::LateSuccess;
        match order.state {
            TradeState::Success | TradeState::Refund => return Err(ConfirmError::Paid(number)),
            TradeState::NotPay | TradeState::UserPaying | TradeState::Accept => {}
            TradeState::Closed | TradeState::Revoked | TradeState::PayError if late => {}
            TradeState::Closed | TradeState::Revoked | TradeState::PayError => {
                let state = order.state.word();
                return Err(ConfirmError::Ended { out_trade_no: number, state });
            }
        }
        if now > order.expires && !late {
            return Err(ConfirmError::Expired(number));
        }
        if matches!(reference, Reference::Code(_)) && now > order.code_ends && !late {
            return Err(ConfirmError::CodeEnded(number));
        }
        if let (Some(payer), Some(bound)) = (payer, order.request.openid.as_deref())
            && payer != bound
        {
            return Err(ConfirmError::OtherPayer(number));
        }
        let asked = order.request.amount;
        match outcome {
            Outcome::Success | Outcome::LateSuccess => self.pay(index, payer, None, now, true),
            Outcome::SuccessSilent => self.pay(index, payer, None, now, false),
            Outcome::SuccessWrongAmount { amount_minor } => {
                let minor = amount_minor.unwrap_or(asked.minor().saturating_add(1));
                let amount = Money::new(minor, asked.currency());
                self.pay(index, payer, Some(amount), now, true);
            }
            Outcome::Decline => self.orders[index].state = TradeState::NotPay,
            Outcome::Paying => self.orders[index].state = TradeState::UserPaying,
            Outcome::PayError => self.orders[index].state = TradeState::PayError,
        }
        Ok(number)
    }

    fn pay(
        &mut self,
        index: usize,
        payer: Payer<'_>,
        amount: Option<Money>,
        now: Timestamp,
        announce: bool,
    ) {
        if self.orders[index].paid.is_some() {
            return;
        }
        let transaction_id = self.new_transaction_id(now);
        self.by_transaction.insert(transaction_id.clone(), index);
        let order = &mut self.orders[index];
        let openid = payer.or(order.request.openid.as_deref()).unwrap_or(SOMEBODY).to_owned();
        let amount = amount.unwrap_or(order.request.amount);
        order.paid = Some(Paid { transaction_id, at: now, amount, openid });
        order.state = TradeState::Success;
        if announce {
            let (mchid, url) = (order.request.mchid.clone(), order.request.notify_url.clone());
            let number = order.request.out_trade_no.clone();
            let plain = self.transaction(index).to_json();
            self.announce(&mchid, &number, &url, EventType::TransactionSuccess, &plain, now);
        }
    }
}
