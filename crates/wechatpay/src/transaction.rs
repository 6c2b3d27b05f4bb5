//! The state of an order, as a query answers it and a payment notification carries it.
//!
//! Both ways: a server writes it, a client reads it. Which state an order is in is decided
//! elsewhere.

use crate::beijing;
use crate::create::object;
use crate::wire_error::{WireError, currency, read, time};
use kernel::{Currency, Money, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// `trade_state`. A word outside this list is a [`WireError::UnknownWord`]: in doubt, not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TradeState {
    Success,
    Refund,
    NotPay,
    Closed,
    Revoked,
    UserPaying,
    PayError,
    Accept,
}

const STATES: [(TradeState, &str, &str); 8] = [
    (TradeState::Success, "SUCCESS", "支付成功"),
    (TradeState::Refund, "REFUND", "订单发生过退款，退款详情请查询退款单"),
    (TradeState::NotPay, "NOTPAY", "订单未支付"),
    (TradeState::Closed, "CLOSED", "订单已关闭"),
    (TradeState::Revoked, "REVOKED", "订单已撤销"),
    (TradeState::UserPaying, "USERPAYING", "用户支付中，需要输入密码"),
    (TradeState::PayError, "PAYERROR", "支付失败，请重新下单支付"),
    (TradeState::Accept, "ACCEPT", "已接收，等待扣款"),
];

impl TradeState {
    pub const ALL: [TradeState; 8] = [
        TradeState::Success,
        TradeState::Refund,
        TradeState::NotPay,
        TradeState::Closed,
        TradeState::Revoked,
        TradeState::UserPaying,
        TradeState::PayError,
        TradeState::Accept,
    ];

    fn row(self) -> &'static (TradeState, &'static str, &'static str) {
        STATES.iter().find(|it| it.0 == self).expect("every state stands in STATES")
    }

    pub fn word(self) -> &'static str {
        self.row().1
    }

    /// `trade_state_desc`.
    pub fn description(self) -> &'static str {
        self.row().2
    }

    pub fn parse(word: &str) -> Result<TradeState, WireError> {
        let found = STATES.iter().find(|it| it.1 == word);
        found.map(|it| it.0).ok_or_else(|| WireError::unknown("trade_state", word))
    }
}

/// `trade_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TradeType {
    Jsapi,
    Native,
    App,
    Micropay,
    /// H5.
    Mweb,
    Facepay,
}

const TYPES: [(TradeType, &str); 6] = [
    (TradeType::Jsapi, "JSAPI"),
    (TradeType::Native, "NATIVE"),
    (TradeType::App, "APP"),
    (TradeType::Micropay, "MICROPAY"),
    (TradeType::Mweb, "MWEB"),
    (TradeType::Facepay, "FACEPAY"),
];

impl TradeType {
    pub fn word(self) -> &'static str {
        TYPES.iter().find(|it| it.0 == self).expect("every type stands in TYPES").1
    }

    pub fn parse(word: &str) -> Result<TradeType, WireError> {
        let found = TYPES.iter().find(|it| it.1 == word);
        found.map(|it| it.0).ok_or_else(|| WireError::unknown("trade_type", word))
    }
}

impl From<crate::create::Product> for TradeType {
    fn from(product: crate::create::Product) -> TradeType {
        use crate::create::Product;
        match product {
            Product::Native => TradeType::Native,
            Product::Jsapi => TradeType::Jsapi,
            Product::App => TradeType::App,
            Product::H5 => TradeType::Mweb,
        }
    }
}

/// An order as the platform sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub appid: String,
    pub mchid: String,
    pub out_trade_no: String,
    pub transaction_id: Option<String>,
    pub trade_type: Option<TradeType>,
    pub trade_state: TradeState,
    pub trade_state_desc: String,
    pub bank_type: Option<String>,
    pub attach: Option<String>,
    pub success_time: Option<Timestamp>,
    pub openid: Option<String>,
    pub amount: Option<TransactionAmount>,
    pub device_id: Option<String>,
    pub promotions: Vec<Promotion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionAmount {
    pub total: Money,
    /// What the payer gave in cash, in the payer's currency; after payment.
    pub payer_total: Option<Money>,
}

/// A coupon that paid a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promotion {
    pub coupon_id: String,
    pub name: Option<String>,
    pub scope: Option<String>,
    pub kind: Option<String>,
    pub amount: i64,
    pub stock_id: Option<String>,
    pub wechatpay_contribute: Option<i64>,
    pub merchant_contribute: Option<i64>,
    pub other_contribute: Option<i64>,
    pub currency: Option<String>,
    pub goods: Vec<PromotionGoods>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromotionGoods {
    pub goods_id: String,
    pub quantity: i64,
    pub unit_price: i64,
    pub discount_amount: i64,
    pub goods_remark: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    appid: Option<String>,
    mchid: String,
    out_trade_no: String,
    transaction_id: Option<String>,
    trade_type: Option<String>,
    trade_state: String,
    trade_state_desc: Option<String>,
    bank_type: Option<String>,
    attach: Option<String>,
    success_time: Option<String>,
    payer: Option<RawPayer>,
    amount: Option<RawAmount>,
    scene_info: Option<RawScene>,
    promotion_detail: Option<Vec<RawPromotion>>,
}

#[derive(Deserialize)]
struct RawPayer {
    openid: Option<String>,
}

#[derive(Deserialize)]
struct RawAmount {
    total: i64,
    payer_total: Option<i64>,
    currency: Option<String>,
    payer_currency: Option<String>,
}

#[derive(Deserialize)]
struct RawScene {
    device_id: Option<String>,
}

#[derive(Deserialize)]
struct RawPromotion {
    coupon_id: String,
    name: Option<String>,
    scope: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    amount: i64,
    stock_id: Option<String>,
    wechatpay_contribute: Option<i64>,
    merchant_contribute: Option<i64>,
    other_contribute: Option<i64>,
    currency: Option<String>,
    goods_detail: Option<Vec<RawGoods>>,
}

#[derive(Deserialize)]
struct RawGoods {
    goods_id: String,
    quantity: i64,
    unit_price: i64,
    discount_amount: i64,
    goods_remark: Option<String>,
}

impl Transaction {
    pub fn parse(body: &[u8]) -> Result<Transaction, WireError> {
        let raw: Raw = read("a transaction", body)?;
        let trade_state = TradeState::parse(&raw.trade_state)?;
        let amount = match raw.amount {
            None => None,
            Some(it) => {
                let unit: Currency = currency("amount.currency", it.currency.as_deref())?;
                let payer_unit = match it.payer_currency.as_deref() {
                    None | Some("") => unit,
                    code => currency("amount.payer_currency", code)?,
                };
                Some(TransactionAmount {
                    total: Money::new(it.total, unit),
                    payer_total: it.payer_total.map(|it| Money::new(it, payer_unit)),
                })
            }
        };
        let filled = |text: Option<String>| text.filter(|it| !it.is_empty());
        let trade_type = filled(raw.trade_type);
        Ok(Transaction {
            appid: raw.appid.unwrap_or_default(),
            mchid: raw.mchid,
            out_trade_no: raw.out_trade_no,
            transaction_id: filled(raw.transaction_id),
            trade_type: trade_type.as_deref().map(TradeType::parse).transpose()?,
            trade_state,
            trade_state_desc: raw.trade_state_desc.unwrap_or_default(),
            bank_type: filled(raw.bank_type),
            attach: filled(raw.attach),
            success_time: time("success_time", raw.success_time.as_deref())?,
            openid: filled(raw.payer.and_then(|it| it.openid)),
            amount,
            device_id: filled(raw.scene_info.and_then(|it| it.device_id)),
            promotions: raw
                .promotion_detail
                .unwrap_or_default()
                .into_iter()
                .map(promotion)
                .collect(),
        })
    }

    pub fn to_json(&self) -> String {
        let amount = self.amount.map(|it| {
            let payer_currency = it.payer_total.map_or(it.total.currency(), Money::currency);
            object([
                ("total", json!(it.total.minor())),
                ("payer_total", json!(it.payer_total.map(Money::minor))),
                ("currency", json!(it.total.currency().code())),
                ("payer_currency", json!(payer_currency.code())),
            ])
        });
        let promotions: Vec<Value> = self.promotions.iter().map(Promotion::json).collect();
        object([
            ("appid", json!(self.appid)),
            ("mchid", json!(self.mchid)),
            ("out_trade_no", json!(self.out_trade_no)),
            ("transaction_id", json!(self.transaction_id)),
            ("trade_type", json!(self.trade_type.map(TradeType::word))),
            ("trade_state", json!(self.trade_state.word())),
            ("trade_state_desc", json!(self.trade_state_desc)),
            ("bank_type", json!(self.bank_type)),
            ("attach", json!(self.attach)),
            ("success_time", json!(self.success_time.map(beijing::rfc3339))),
            ("payer", self.openid.as_ref().map(|it| json!({ "openid": it })).into()),
            ("amount", json!(amount)),
            ("scene_info", self.device_id.as_ref().map(|it| json!({ "device_id": it })).into()),
            (
                "promotion_detail",
                if promotions.is_empty() { Value::Null } else { json!(promotions) },
            ),
        ])
        .to_string()
    }
}

fn promotion(raw: RawPromotion) -> Promotion {
    let goods = raw.goods_detail.unwrap_or_default().into_iter().map(|it| PromotionGoods {
        goods_id: it.goods_id,
        quantity: it.quantity,
        unit_price: it.unit_price,
        discount_amount: it.discount_amount,
        goods_remark: it.goods_remark,
    });
    Promotion {
        coupon_id: raw.coupon_id,
        name: raw.name,
        scope: raw.scope,
        kind: raw.kind,
        amount: raw.amount,
        stock_id: raw.stock_id,
        wechatpay_contribute: raw.wechatpay_contribute,
        merchant_contribute: raw.merchant_contribute,
        other_contribute: raw.other_contribute,
        currency: raw.currency,
        goods: goods.collect(),
    }
}

impl Promotion {
    fn json(&self) -> Value {
        let goods = self.goods.iter().map(|it| {
            object([
                ("goods_id", json!(it.goods_id)),
                ("quantity", json!(it.quantity)),
                ("unit_price", json!(it.unit_price)),
                ("discount_amount", json!(it.discount_amount)),
                ("goods_remark", json!(it.goods_remark)),
            ])
        });
        let goods: Vec<Value> = goods.collect();
        object([
            ("coupon_id", json!(self.coupon_id)),
            ("name", json!(self.name)),
            ("scope", json!(self.scope)),
            ("type", json!(self.kind)),
            ("amount", json!(self.amount)),
            ("stock_id", json!(self.stock_id)),
            ("wechatpay_contribute", json!(self.wechatpay_contribute)),
            ("merchant_contribute", json!(self.merchant_contribute)),
            ("other_contribute", json!(self.other_contribute)),
            ("currency", json!(self.currency)),
            ("goods_detail", if goods.is_empty() { Value::Null } else { json!(goods) }),
        ])
    }
}
