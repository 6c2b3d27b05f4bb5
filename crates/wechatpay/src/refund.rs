//! Refunds: the request, the refund as the API answers it, and the refund notice.
//!
//! Reads and checks what stands in the request alone. Whether the order is paid and enough is left
//! of it is business, and decided elsewhere.

use crate::beijing;
use crate::create::object;
use crate::error::ApiError;
use crate::fields::{Fields, Length, Reading};
use crate::wire_error::{WireError, currency, read, time};
use kernel::{Currency, Money, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where refunds are created.
pub const PATH: &str = "/v3/refund/domestic/refunds";

/// A request to refund. `==` is the protocol's "same parameters".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRefund {
    /// Partner mode only.
    pub sub_mchid: Option<String>,
    /// At least one of this and `out_trade_no`; if both are sent, this one names the order.
    pub transaction_id: Option<String>,
    pub out_trade_no: Option<String>,
    /// The idempotency key.
    pub out_refund_no: String,
    pub reason: Option<String>,
    pub notify_url: Option<String>,
    pub funds_account: Option<String>,
    /// Positive, at most `total`, in its currency.
    pub refund: Money,
    /// What the order says it was paid with.
    pub total: Money,
    pub from: Vec<FundsFrom>,
    pub goods_detail: Vec<RefundGoods>,
}

/// An account that pays a part of the refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundsFrom {
    pub account: String,
    pub amount: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundGoods {
    pub merchant_goods_id: String,
    pub wechatpay_goods_id: Option<String>,
    pub goods_name: Option<String>,
    pub unit_price: i64,
    pub refund_amount: i64,
    pub refund_quantity: i64,
}

const fn up_to(max: usize) -> Length {
    Length::Chars(1, max)
}

impl CreateRefund {
    /// Reads and checks a request body. Members we do not know are ignored, `null` is absent.
    pub fn parse(body: &[u8]) -> Result<CreateRefund, ApiError> {
        CreateRefund::parse_with(body, Reading::default())
    }

    pub fn parse_with(body: &[u8], reading: Reading) -> Result<CreateRefund, ApiError> {
        let value: Value =
            serde_json::from_slice(body).map_err(|it| ApiError::body_not_json(&it.to_string()))?;
        let root = Fields::root(&value, reading)?;
        let transaction_id = root.text("transaction_id", "微信支付订单号", up_to(32))?;
        let out_trade_no = root.text("out_trade_no", "商户订单号", up_to(32))?;
        if transaction_id.is_none() && out_trade_no.is_none() {
            let zh = "必填性规则校验失败，transaction_id 与 out_trade_no 必须二选一";
            let en = "is required, unless out_trade_no is given";
            return Err(root.refuse("transaction_id", "微信支付订单号", zh, en));
        }
        let label = "商户退款单号";
        let out_refund_no = root.number_name("out_refund_no", label, up_to(64), "_-|*@")?;
        let amount = root.object("amount", "金额信息")?;
        let amount = root.required("amount", "金额信息", amount)?;
        let refund = amount.required_integer("refund", "退款金额", 1)?;
        let total = amount.required_integer("total", "原订单金额", 1)?;
        let unit = amount.currency("currency", "退款币种")?;
        let unit = amount.required("currency", "退款币种", unit)?;
        if refund > total {
            let zh = format!("数值规则校验失败，退款金额 {refund} 大于原订单金额 {total}");
            let en = format!("is {refund}, more than the order's total of {total}");
            return Err(amount.refuse("refund", "退款金额", &zh, &en));
        }
        let funds = ["AVAILABLE", "UNSETTLED"];
        Ok(CreateRefund {
            sub_mchid: root.text("sub_mchid", "子商户号", up_to(32))?,
            transaction_id,
            out_trade_no,
            out_refund_no: root.required("out_refund_no", label, out_refund_no)?,
            reason: root.text("reason", "退款原因", Length::Bytes(1, 80))?,
            notify_url: root.notify_url("notify_url", "退款结果回调url", 256)?,
            funds_account: root.word("funds_account", "退款资金来源", &funds)?,
            refund: Money::new(refund, unit),
            total: Money::new(total, unit),
            from: read_from(&amount, refund)?,
            goods_detail: read_goods(&root)?,
        })
    }

    /// The request body, for a client.
    pub fn to_json(&self) -> String {
        let from: Vec<Value> = self.from.iter().map(FundsFrom::json).collect();
        let goods: Vec<Value> = self.goods_detail.iter().map(RefundGoods::json).collect();
        let amount = object([
            ("refund", json!(self.refund.minor())),
            ("from", list(from)),
            ("total", json!(self.total.minor())),
            ("currency", json!(self.total.currency().code())),
        ]);
        object([
            ("sub_mchid", json!(self.sub_mchid)),
            ("transaction_id", json!(self.transaction_id)),
            ("out_trade_no", json!(self.out_trade_no)),
            ("out_refund_no", json!(self.out_refund_no)),
            ("reason", json!(self.reason)),
            ("notify_url", json!(self.notify_url)),
            ("funds_account", json!(self.funds_account)),
            ("amount", amount),
            ("goods_detail", list(goods)),
        ])
        .to_string()
    }
}

fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn read_from(amount: &Fields<'_>, refund: i64) -> Result<Vec<FundsFrom>, ApiError> {
    let label = "退款出资账户及金额";
    let mut out: Vec<FundsFrom> = Vec::new();
    for it in amount.objects("from", label)? {
        let account = it.word("account", "出资账户类型", &["AVAILABLE", "UNAVAILABLE"])?;
        out.push(FundsFrom {
            account: it.required("account", "出资账户类型", account)?,
            amount: it.required_integer("amount", "出资金额", 1)?,
        });
    }
    let sum: i128 = out.iter().map(|it| i128::from(it.amount)).sum();
    let twice =
        out.iter().enumerate().any(|(at, it)| out[..at].iter().any(|b| b.account == it.account));
    if twice {
        let zh = "规则校验失败，出资账户类型不允许重复";
        return Err(amount.refuse("from", label, zh, "names an account twice"));
    }
    if !out.is_empty() && sum != i128::from(refund) {
        let zh = format!("规则校验失败，出资金额合计 {sum} 不等于退款金额 {refund}");
        let en = format!("adds up to {sum}, not to the refund of {refund}");
        return Err(amount.refuse("from", label, &zh, &en));
    }
    Ok(out)
}

fn read_goods(root: &Fields<'_>) -> Result<Vec<RefundGoods>, ApiError> {
    let mut out = Vec::new();
    for it in root.objects("goods_detail", "退款商品")? {
        out.push(RefundGoods {
            merchant_goods_id: it.required_text(
                "merchant_goods_id",
                "商户侧商品编码",
                up_to(32),
            )?,
            wechatpay_goods_id: it.text("wechatpay_goods_id", "微信支付商品编码", up_to(32))?,
            goods_name: it.text("goods_name", "商品名称", up_to(256))?,
            unit_price: it.required_integer("unit_price", "商品单价", 0)?,
            refund_amount: it.required_integer("refund_amount", "商品退款金额", 0)?,
            refund_quantity: it.required_integer("refund_quantity", "商品退货数量", 0)?,
        });
    }
    Ok(out)
}

impl FundsFrom {
    fn json(&self) -> Value {
        json!({ "account": self.account, "amount": self.amount })
    }
}

impl RefundGoods {
    fn json(&self) -> Value {
        object([
            ("merchant_goods_id", json!(self.merchant_goods_id)),
            ("wechatpay_goods_id", json!(self.wechatpay_goods_id)),
            ("goods_name", json!(self.goods_name)),
            ("unit_price", json!(self.unit_price)),
            ("refund_amount", json!(self.refund_amount)),
            ("refund_quantity", json!(self.refund_quantity)),
        ])
    }
}

/// `status` of a refund, `refund_status` of a notice. Another word is in doubt, not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefundStatus {
    Processing,
    Success,
    Closed,
    Abnormal,
}

const STATUSES: [(RefundStatus, &str); 4] = [
    (RefundStatus::Processing, "PROCESSING"),
    (RefundStatus::Success, "SUCCESS"),
    (RefundStatus::Closed, "CLOSED"),
    (RefundStatus::Abnormal, "ABNORMAL"),
];

impl RefundStatus {
    pub fn word(self) -> &'static str {
        STATUSES.iter().find(|it| it.0 == self).expect("every status stands in STATUSES").1
    }

    pub fn parse(member: &'static str, word: &str) -> Result<RefundStatus, WireError> {
        let found = STATUSES.iter().find(|it| it.1 == word);
        found.map(|it| it.0).ok_or_else(|| WireError::unknown(member, word))
    }
}

/// A refund, as create and query answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    pub refund_id: String,
    pub out_refund_no: String,
    pub transaction_id: String,
    pub out_trade_no: String,
    /// `ORIGINAL`, `BALANCE`, `OTHER_BALANCE`, `OTHER_BANKCARD`.
    pub channel: Option<String>,
    pub user_received_account: Option<String>,
    pub success_time: Option<Timestamp>,
    pub create_time: Timestamp,
    pub status: RefundStatus,
    pub funds_account: Option<String>,
    pub amount: RefundAmount,
    pub promotions: Vec<RefundPromotion>,
}

/// All in minor units of `currency`. `refund = payer_refund + discount_refund`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundAmount {
    pub currency: Currency,
    pub total: i64,
    pub refund: i64,
    pub from: Vec<FundsFrom>,
    pub payer_total: i64,
    pub payer_refund: i64,
    pub settlement_refund: i64,
    pub settlement_total: i64,
    pub discount_refund: i64,
    /// The service fee that came back.
    pub refund_fee: Option<i64>,
}

impl RefundAmount {
    /// Without coupons everything is cash.
    pub fn cash(refund: Money, total: Money) -> RefundAmount {
        let (refund_minor, total_minor) = (refund.minor(), total.minor());
        RefundAmount {
            currency: total.currency(),
            total: total_minor,
            refund: refund_minor,
            from: Vec::new(),
            payer_total: total_minor,
            payer_refund: refund_minor,
            settlement_refund: refund_minor,
            settlement_total: total_minor,
            discount_refund: 0,
            refund_fee: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundPromotion {
    pub promotion_id: String,
    pub scope: String,
    pub kind: String,
    pub amount: i64,
    pub refund_amount: i64,
    pub goods_detail: Vec<RefundGoods>,
}

#[derive(Deserialize)]
struct RawRefund {
    refund_id: String,
    out_refund_no: String,
    transaction_id: String,
    out_trade_no: String,
    channel: Option<String>,
    user_received_account: Option<String>,
    success_time: Option<String>,
    create_time: String,
    status: String,
    funds_account: Option<String>,
    amount: RawAmount,
    promotion_detail: Option<Vec<RawPromotion>>,
}

#[derive(Deserialize)]
struct RawAmount {
    total: i64,
    refund: i64,
    from: Option<Vec<RawFrom>>,
    payer_total: i64,
    payer_refund: i64,
    settlement_refund: Option<i64>,
    settlement_total: Option<i64>,
    discount_refund: Option<i64>,
    currency: Option<String>,
    refund_fee: Option<i64>,
}

#[derive(Deserialize)]
struct RawFrom {
    account: String,
    amount: i64,
}

#[derive(Deserialize)]
struct RawPromotion {
    promotion_id: String,
    #[serde(default)]
    scope: String,
    #[serde(rename = "type", default)]
    kind: String,
    amount: i64,
    refund_amount: i64,
    goods_detail: Option<Vec<RawGoods>>,
}

#[derive(Deserialize)]
struct RawGoods {
    merchant_goods_id: String,
    wechatpay_goods_id: Option<String>,
    goods_name: Option<String>,
    unit_price: i64,
    refund_amount: i64,
    refund_quantity: i64,
}

impl Refund {
    pub fn parse(body: &[u8]) -> Result<Refund, WireError> {
        let raw: RawRefund = read("a refund", body)?;
        let amount = raw.amount;
        let from = amount.from.unwrap_or_default().into_iter();
        let amount = RefundAmount {
            currency: currency("amount.currency", amount.currency.as_deref())?,
            total: amount.total,
            refund: amount.refund,
            from: from.map(|it| FundsFrom { account: it.account, amount: it.amount }).collect(),
            payer_total: amount.payer_total,
            payer_refund: amount.payer_refund,
            settlement_refund: amount.settlement_refund.unwrap_or(amount.refund),
            settlement_total: amount.settlement_total.unwrap_or(amount.total),
            discount_refund: amount.discount_refund.unwrap_or(0),
            refund_fee: amount.refund_fee,
        };
        let create_time = time("create_time", Some(&raw.create_time))?;
        Ok(Refund {
            refund_id: raw.refund_id,
            out_refund_no: raw.out_refund_no,
            transaction_id: raw.transaction_id,
            out_trade_no: raw.out_trade_no,
            channel: raw.channel,
            user_received_account: raw.user_received_account,
            success_time: time("success_time", raw.success_time.as_deref())?,
            create_time: create_time.ok_or(WireError::BadValue {
                member: "create_time",
                value: raw.create_time,
                want: "an RFC 3339 time",
            })?,
            status: RefundStatus::parse("status", &raw.status)?,
            funds_account: raw.funds_account,
            amount,
            promotions: raw
                .promotion_detail
                .unwrap_or_default()
                .into_iter()
                .map(promotion)
                .collect(),
        })
    }

    pub fn to_json(&self) -> String {
        let promotions: Vec<Value> = self.promotions.iter().map(RefundPromotion::json).collect();
        let amount = &self.amount;
        let from: Vec<Value> = amount.from.iter().map(FundsFrom::json).collect();
        let amount = object([
            ("total", json!(amount.total)),
            ("refund", json!(amount.refund)),
            ("from", list(from)),
            ("payer_total", json!(amount.payer_total)),
            ("payer_refund", json!(amount.payer_refund)),
            ("settlement_refund", json!(amount.settlement_refund)),
            ("settlement_total", json!(amount.settlement_total)),
            ("discount_refund", json!(amount.discount_refund)),
            ("currency", json!(amount.currency.code())),
            ("refund_fee", json!(amount.refund_fee)),
        ]);
        object([
            ("refund_id", json!(self.refund_id)),
            ("out_refund_no", json!(self.out_refund_no)),
            ("transaction_id", json!(self.transaction_id)),
            ("out_trade_no", json!(self.out_trade_no)),
            ("channel", json!(self.channel)),
            ("user_received_account", json!(self.user_received_account)),
            ("success_time", json!(self.success_time.map(beijing::rfc3339))),
            ("create_time", json!(beijing::rfc3339(self.create_time))),
            ("status", json!(self.status.word())),
            ("funds_account", json!(self.funds_account)),
            ("amount", amount),
            ("promotion_detail", list(promotions)),
        ])
        .to_string()
    }
}

fn promotion(raw: RawPromotion) -> RefundPromotion {
    let goods = raw.goods_detail.unwrap_or_default().into_iter().map(|it| RefundGoods {
        merchant_goods_id: it.merchant_goods_id,
        wechatpay_goods_id: it.wechatpay_goods_id,
        goods_name: it.goods_name,
        unit_price: it.unit_price,
        refund_amount: it.refund_amount,
        refund_quantity: it.refund_quantity,
    });
    RefundPromotion {
        promotion_id: raw.promotion_id,
        scope: raw.scope,
        kind: raw.kind,
        amount: raw.amount,
        refund_amount: raw.refund_amount,
        goods_detail: goods.collect(),
    }
}

impl RefundPromotion {
    fn json(&self) -> Value {
        let goods: Vec<Value> = self.goods_detail.iter().map(RefundGoods::json).collect();
        object([
            ("promotion_id", json!(self.promotion_id)),
            ("scope", json!(self.scope)),
            ("type", json!(self.kind)),
            ("amount", json!(self.amount)),
            ("refund_amount", json!(self.refund_amount)),
            ("goods_detail", list(goods)),
        ])
    }
}

/// What a refund notification carries. Amounts in minor units of the order's currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundNotice {
    pub mchid: String,
    pub out_trade_no: String,
    pub transaction_id: String,
    pub out_refund_no: String,
    pub refund_id: String,
    pub refund_status: RefundStatus,
    pub success_time: Option<Timestamp>,
    pub user_received_account: String,
    pub total: i64,
    pub refund: i64,
    pub payer_total: i64,
    pub payer_refund: i64,
}

#[derive(Deserialize)]
struct RawNotice {
    mchid: String,
    out_trade_no: String,
    transaction_id: String,
    out_refund_no: String,
    refund_id: String,
    refund_status: String,
    success_time: Option<String>,
    #[serde(default)]
    user_received_account: String,
    amount: RawNoticeAmount,
}

#[derive(Deserialize)]
struct RawNoticeAmount {
    total: i64,
    refund: i64,
    payer_total: i64,
    payer_refund: i64,
}

impl RefundNotice {
    pub fn parse(plain: &[u8]) -> Result<RefundNotice, WireError> {
        let raw: RawNotice = read("a refund notice", plain)?;
        Ok(RefundNotice {
            mchid: raw.mchid,
            out_trade_no: raw.out_trade_no,
            transaction_id: raw.transaction_id,
            out_refund_no: raw.out_refund_no,
            refund_id: raw.refund_id,
            refund_status: RefundStatus::parse("refund_status", &raw.refund_status)?,
            success_time: time("success_time", raw.success_time.as_deref())?,
            user_received_account: raw.user_received_account,
            total: raw.amount.total,
            refund: raw.amount.refund,
            payer_total: raw.amount.payer_total,
            payer_refund: raw.amount.payer_refund,
        })
    }

    pub fn to_json(&self) -> String {
        let amount = json!({
            "total": self.total,
            "refund": self.refund,
            "payer_total": self.payer_total,
            "payer_refund": self.payer_refund,
        });
        object([
            ("mchid", json!(self.mchid)),
            ("out_trade_no", json!(self.out_trade_no)),
            ("transaction_id", json!(self.transaction_id)),
            ("out_refund_no", json!(self.out_refund_no)),
            ("refund_id", json!(self.refund_id)),
            ("refund_status", json!(self.refund_status.word())),
            ("success_time", json!(self.success_time.map(beijing::rfc3339))),
            ("user_received_account", json!(self.user_received_account)),
            ("amount", amount),
        ])
        .to_string()
    }
}
