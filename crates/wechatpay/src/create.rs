//! Placing an order: `POST /v3/pay/transactions/{native,jsapi,app,h5}`, and its answer; closing it.
//!
//! Reads and checks what stands in the request alone. Whether the appid is bound, the number free
//! and the product allowed is business, and decided elsewhere.

use crate::beijing;
use crate::error::ApiError;
use crate::fields::{Fields, Length, Reading};
use crate::wire_error::{WireError, read};
use kernel::{Currency, Money, Timestamp};
use serde_json::{Map, Value, json};

/// How the payer meets the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    Native,
    Jsapi,
    App,
    H5,
}

impl Product {
    pub const ALL: [Product; 4] = [Product::Native, Product::Jsapi, Product::App, Product::H5];

    /// The last segment of the path.
    pub fn name(self) -> &'static str {
        match self {
            Product::Native => "native",
            Product::Jsapi => "jsapi",
            Product::App => "app",
            Product::H5 => "h5",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Product::Native => "/v3/pay/transactions/native",
            Product::Jsapi => "/v3/pay/transactions/jsapi",
            Product::App => "/v3/pay/transactions/app",
            Product::H5 => "/v3/pay/transactions/h5",
        }
    }

    pub fn of_path(path: &str) -> Option<Product> {
        Product::ALL.into_iter().find(|it| it.path() == path)
    }
}

/// A request to place an order. `==` is the protocol's "same parameters".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTransaction {
    pub product: Product,
    pub appid: String,
    pub mchid: String,
    pub description: String,
    pub out_trade_no: String,
    pub time_expire: Option<Timestamp>,
    pub attach: Option<String>,
    pub notify_url: String,
    pub goods_tag: Option<String>,
    pub support_fapiao: Option<bool>,
    /// Positive.
    pub amount: Money,
    /// Required for [`Product::Jsapi`].
    pub openid: Option<String>,
    pub identity: Option<Identity>,
    pub detail: Option<OrderDetail>,
    /// Required for [`Product::H5`].
    pub scene_info: Option<SceneInfo>,
    pub profit_sharing: Option<bool>,
    pub limit_pay: Vec<String>,
}

/// Who must pay; number and name are encrypted for the platform and not looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub kind: String,
    pub number: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderDetail {
    pub cost_price: Option<i64>,
    pub invoice_id: Option<String>,
    pub goods_detail: Vec<GoodsLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodsLine {
    pub merchant_goods_id: String,
    pub wechatpay_goods_id: Option<String>,
    pub goods_name: Option<String>,
    pub quantity: i64,
    /// In fen.
    pub unit_price: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SceneInfo {
    pub payer_client_ip: String,
    pub device_id: Option<String>,
    pub store_info: Option<StoreInfo>,
    pub h5_info: Option<H5Info>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    pub id: String,
    pub name: Option<String>,
    pub area_code: Option<String>,
    pub address: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct H5Info {
    /// `iOS`, `Android` or `Wap`.
    pub kind: String,
    pub app_name: Option<String>,
    pub app_url: Option<String>,
    pub bundle_id: Option<String>,
    pub package_name: Option<String>,
}

const H5_KINDS: [&str; 3] = ["iOS", "Android", "Wap"];
const LIMITS: [&str; 4] = ["no_balance", "no_credit", "no_debit", "balance_only"];
const IDENTITIES: [&str; 7] = [
    "IDCARD",
    "HONGKONG_MACAO",
    "HONGKONG_MACAO_RESIDENT",
    "TAIWAN_RESIDENT",
    "FOREIGN_RESIDENT",
    "OVERSEA_PASSPORT",
    "PHONE_NUMBER",
];
/// Bytes of compact JSON.
const DETAIL_MAX: usize = 6_144;
/// An order that names no end can be paid for seven days.
pub const DEFAULT_EXPIRY_S: i64 = 7 * 86_400;
const EXPIRY_MIN_S: i64 = 60;
const EXPIRY_MAX_S: i64 = 15 * 86_400;

const fn up_to(max: usize) -> Length {
    Length::Chars(1, max)
}

impl CreateTransaction {
    /// Reads and checks a request body. Members we do not know are ignored, `null` is absent.
    pub fn parse(product: Product, body: &[u8]) -> Result<CreateTransaction, ApiError> {
        CreateTransaction::parse_with(product, body, Reading::default())
    }

    pub fn parse_with(
        product: Product,
        body: &[u8],
        reading: Reading,
    ) -> Result<CreateTransaction, ApiError> {
        let value: Value =
            serde_json::from_slice(body).map_err(|it| ApiError::body_not_json(&it.to_string()))?;
        let root = Fields::root(&value, reading)?;
        let appid = root.required_text("appid", "公众账号ID", up_to(32))?;
        let mchid = root.required_text("mchid", "直连商户号", up_to(32))?;
        let description = root.required_text("description", "商品描述", up_to(127))?;
        let label = "商户订单号";
        let out_trade_no = root.number_name("out_trade_no", label, Length::Chars(6, 32), "_-|*")?;
        let out_trade_no = root.required("out_trade_no", label, out_trade_no)?;
        let notify_url = root.notify_url("notify_url", "通知地址", 255)?;
        let amount = root.object("amount", "订单金额")?;
        let amount = root.required("amount", "订单金额", amount)?;
        let total = amount.required_integer("total", "总金额", 1)?;
        let currency = amount.currency("currency", "货币类型")?.unwrap_or(Currency::Cny);
        let (openid, identity) = read_payer(&root, product)?;
        let settle = root.object("settle_info", "结算信息")?;
        Ok(CreateTransaction {
            product,
            appid,
            mchid,
            description,
            out_trade_no,
            time_expire: root.time("time_expire", "交易结束时间")?,
            attach: root.text("attach", "附加数据", up_to(128))?,
            notify_url: root.required("notify_url", "通知地址", notify_url)?,
            goods_tag: root.text("goods_tag", "订单优惠标记", up_to(32))?,
            support_fapiao: root.boolean("support_fapiao", "电子发票入口开放标识")?,
            amount: Money::new(total, currency),
            openid,
            identity,
            detail: read_detail(&root)?,
            scene_info: read_scene(&root, product)?,
            profit_sharing: match settle {
                Some(it) => it.boolean("profit_sharing", "是否指定分账")?,
                None => None,
            },
            limit_pay: root.words("limit_pay", "指定支付方式", &LIMITS)?,
        })
    }

    /// Check 9 of the server: the signer is the payee.
    pub fn check_mchid(&self, in_header: &str) -> Result<(), ApiError> {
        if self.mchid == in_header {
            Ok(())
        } else {
            Err(ApiError::mchid_mismatch(in_header, &self.mchid))
        }
    }

    /// The part of check 10 that needs a clock: `time_expire` is 1 minute to 15 days ahead.
    pub fn check_time(&self, now: Timestamp) -> Result<(), ApiError> {
        let Some(expires) = self.time_expire else { return Ok(()) };
        let ahead_ms = expires.ms_since(now);
        let (zh, en) = if ahead_ms < EXPIRY_MIN_S * 1_000 {
            ("规则校验失败，交易结束时间须至少晚于当前时间1分钟", "must be at least 1 minute ahead")
        } else if ahead_ms > EXPIRY_MAX_S * 1_000 {
            ("规则校验失败，交易结束时间不得晚于15天后", "must be at most 15 days ahead")
        } else {
            return Ok(());
        };
        let value = json!({ "time_expire": beijing::rfc3339(expires) });
        let root = Fields::root(&value, Reading::default())?;
        Err(root.refuse("time_expire", "交易结束时间", zh, en))
    }

    /// The last moment for paying an order placed at `now`.
    pub fn expires(&self, now: Timestamp) -> Timestamp {
        self.time_expire.unwrap_or_else(|| now.plus_s(DEFAULT_EXPIRY_S))
    }

    /// The request body, for a client. Members stand in the order of the documentation.
    pub fn to_json(&self) -> String {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                out.insert(name.into(), value);
            }
        };
        put("appid", self.appid.as_str().into());
        put("mchid", self.mchid.as_str().into());
        put("description", self.description.as_str().into());
        put("out_trade_no", self.out_trade_no.as_str().into());
        put("time_expire", self.time_expire.map(beijing::rfc3339).into());
        put("attach", self.attach.as_deref().into());
        put("notify_url", self.notify_url.as_str().into());
        put("goods_tag", self.goods_tag.as_deref().into());
        put("support_fapiao", self.support_fapiao.into());
        let (total, currency) = (self.amount.minor(), self.amount.currency().code());
        put("amount", json!({ "total": total, "currency": currency }));
        if self.openid.is_some() || self.identity.is_some() {
            let identity = self
                .identity
                .as_ref()
                .map(|it| json!({ "type": it.kind, "number": it.number, "name": it.name }));
            let payer = [("openid", json!(self.openid)), ("identity", json!(identity))];
            put("payer", object(payer));
        }
        put("detail", self.detail.as_ref().map(OrderDetail::json).into());
        put("scene_info", self.scene_info.as_ref().map(SceneInfo::json).into());
        if let Some(flag) = self.profit_sharing {
            put("settle_info", json!({ "profit_sharing": flag }));
        }
        if !self.limit_pay.is_empty() {
            put("limit_pay", json!(self.limit_pay));
        }
        Value::Object(out).to_string()
    }
}

/// An object without its null members.
pub(crate) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let present = members.into_iter().filter(|it| !it.1.is_null());
    Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn read_payer(
    root: &Fields<'_>,
    product: Product,
) -> Result<(Option<String>, Option<Identity>), ApiError> {
    let payer = root.object("payer", "支付者")?;
    if product != Product::Jsapi {
        // Production has no payer here but a real name; an openid sent by mistake is ignored.
        let Some(payer) = payer else { return Ok((None, None)) };
        return Ok((None, read_identity(&payer)?));
    }
    let payer = root.required("payer", "支付者", payer)?;
    let openid = payer.required_text("openid", "用户标识", up_to(128))?;
    Ok((Some(openid), read_identity(&payer)?))
}

fn read_identity(payer: &Fields<'_>) -> Result<Option<Identity>, ApiError> {
    let Some(it) = payer.object("identity", "实名信息")? else { return Ok(None) };
    let kind = it.word("type", "证件类型", &IDENTITIES)?;
    Ok(Some(Identity {
        kind: it.required("type", "证件类型", kind)?,
        number: it.required_text("number", "证件号", up_to(1_024))?,
        name: it.required_text("name", "证件姓名", up_to(1_024))?,
    }))
}

fn read_detail(root: &Fields<'_>) -> Result<Option<OrderDetail>, ApiError> {
    let Some(detail) = root.object("detail", "优惠功能")? else { return Ok(None) };
    let len = root.compact_len("detail");
    if len > DETAIL_MAX {
        let zh = format!("字符串规则校验失败，字节数 {len}，大于最大值 {DETAIL_MAX}");
        let en = format!("has {len} bytes of compact JSON; at most {DETAIL_MAX} are allowed");
        return Err(root.refuse("detail", "优惠功能", &zh, &en));
    }
    let mut goods_detail = Vec::new();
    for it in detail.objects("goods_detail", "单品列表")? {
        goods_detail.push(GoodsLine {
            merchant_goods_id: it.required_text(
                "merchant_goods_id",
                "商户侧商品编码",
                up_to(32),
            )?,
            wechatpay_goods_id: it.text("wechatpay_goods_id", "微信支付商品编码", up_to(32))?,
            goods_name: it.text("goods_name", "商品名称", up_to(256))?,
            quantity: it.required_integer("quantity", "商品数量", 1)?,
            unit_price: it.required_integer("unit_price", "商品单价", 0)?,
        });
    }
    Ok(Some(OrderDetail {
        cost_price: detail.integer("cost_price", "订单原价", 0)?,
        invoice_id: detail.text("invoice_id", "商品小票ID", up_to(32))?,
        goods_detail,
    }))
}

fn read_scene(root: &Fields<'_>, product: Product) -> Result<Option<SceneInfo>, ApiError> {
    let scene = root.object("scene_info", "场景信息")?;
    let Some(scene) = scene else {
        return if product == Product::H5 {
            root.required("scene_info", "场景信息", None)
        } else {
            Ok(None)
        };
    };
    let payer_client_ip = scene.required_text("payer_client_ip", "用户终端IP", up_to(45))?;
    if payer_client_ip.parse::<std::net::IpAddr>().is_err() {
        let zh = "格式校验失败，不是合法的IPv4或IPv6地址";
        let en = "must be an IPv4 or IPv6 address";
        return Err(scene.refuse("payer_client_ip", "用户终端IP", zh, en));
    }
    let store_info = match scene.object("store_info", "商户门店信息")? {
        None => None,
        Some(it) => Some(StoreInfo {
            id: it.required_text("id", "门店编号", up_to(32))?,
            name: it.text("name", "门店名称", up_to(256))?,
            area_code: it.text("area_code", "地区编码", up_to(32))?,
            address: it.text("address", "详细地址", up_to(512))?,
        }),
    };
    let h5_info = match scene.object("h5_info", "H5场景信息")? {
        None if product == Product::H5 => scene.required("h5_info", "H5场景信息", None)?,
        None => None,
        Some(it) => {
            let kind = it.word("type", "场景类型", &H5_KINDS)?;
            Some(H5Info {
                kind: it.required("type", "场景类型", kind)?,
                app_name: it.text("app_name", "应用名称", up_to(64))?,
                app_url: it.text("app_url", "网站URL", up_to(128))?,
                bundle_id: it.text("bundle_id", "iOS平台BundleID", up_to(128))?,
                package_name: it.text("package_name", "Android平台PackageName", up_to(128))?,
            })
        }
    };
    let device_id = scene.text("device_id", "商户端设备号", up_to(32))?;
    Ok(Some(SceneInfo { payer_client_ip, device_id, store_info, h5_info }))
}

impl OrderDetail {
    fn json(&self) -> Value {
        let goods = self.goods_detail.iter().map(|it| {
            object([
                ("merchant_goods_id", json!(it.merchant_goods_id)),
                ("wechatpay_goods_id", json!(it.wechatpay_goods_id)),
                ("goods_name", json!(it.goods_name)),
                ("quantity", json!(it.quantity)),
                ("unit_price", json!(it.unit_price)),
            ])
        });
        let goods: Vec<Value> = goods.collect();
        object([
            ("cost_price", json!(self.cost_price)),
            ("invoice_id", json!(self.invoice_id)),
            ("goods_detail", if goods.is_empty() { Value::Null } else { json!(goods) }),
        ])
    }
}

impl SceneInfo {
    fn json(&self) -> Value {
        let store = self.store_info.as_ref().map(|it| {
            object([
                ("id", json!(it.id)),
                ("name", json!(it.name)),
                ("area_code", json!(it.area_code)),
                ("address", json!(it.address)),
            ])
        });
        let h5 = self.h5_info.as_ref().map(|it| {
            object([
                ("type", json!(it.kind)),
                ("app_name", json!(it.app_name)),
                ("app_url", json!(it.app_url)),
                ("bundle_id", json!(it.bundle_id)),
                ("package_name", json!(it.package_name)),
            ])
        });
        object([
            ("payer_client_ip", json!(self.payer_client_ip)),
            ("device_id", json!(self.device_id)),
            ("store_info", json!(store)),
            ("h5_info", json!(h5)),
        ])
    }
}

/// The answer to a create request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepay {
    /// JSAPI and App.
    PrepayId(String),
    /// Native.
    CodeUrl(String),
    /// H5.
    H5Url(String),
}

impl Prepay {
    pub fn to_json(&self) -> String {
        match self {
            Prepay::PrepayId(it) => json!({ "prepay_id": it }),
            Prepay::CodeUrl(it) => json!({ "code_url": it }),
            Prepay::H5Url(it) => json!({ "h5_url": it }),
        }
        .to_string()
    }

    pub fn parse(product: Product, body: &[u8]) -> Result<Prepay, WireError> {
        let what = "the answer to a create request";
        let members: Map<String, Value> = read(what, body)?;
        let get = |name: &'static str| match members.get(name) {
            Some(Value::String(it)) if !it.is_empty() => Ok(it.clone()),
            _ => Err(WireError::Unreadable { what, problem: format!("{name} is missing") }),
        };
        match product {
            Product::Jsapi | Product::App => get("prepay_id").map(Prepay::PrepayId),
            Product::Native => get("code_url").map(Prepay::CodeUrl),
            Product::H5 => get("h5_url").map(Prepay::H5Url),
        }
    }
}

/// The body of a close request: `{"mchid":"…"}`.
pub fn close_body(mchid: &str) -> String {
    json!({ "mchid": mchid }).to_string()
}

/// Reads a close request; answers the `mchid`.
pub fn parse_close(body: &[u8]) -> Result<String, ApiError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|it| ApiError::body_not_json(&it.to_string()))?;
    Fields::root(&value, Reading::default())?.required_text("mchid", "直连商户号", up_to(32))
}
