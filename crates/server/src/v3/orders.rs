//! Create, query and close.

use super::{Answer, Call, Reply, bad_param, system_error, wire};
use crate::links;
use app::{CloseError, PlaceError, Placed, Store};
use kernel::MerchantId;
use payments::{Payment, Terms, TradeProduct};
use routing::Refusal;
use serde_json::{Value, json};
use wechatpay::create::{CreateTransaction, parse_close};
use wechatpay::error::reason;
use wechatpay::{ApiError, Product};

pub(super) async fn create(call: &Call<'_>, product: Product) -> Answer {
    let request = CreateTransaction::parse(product, &call.body)?;
    let (placed, _) = place(call, request, None).await?;
    let Placed { payment, prepay } = placed;
    let Some(prepay) = prepay else {
        let link = links::cashier(call.gateway, &payment);
        let name = if product == Product::H5 { "h5_url" } else { "code_url" };
        return Ok(Reply::Json(json!({ name: link }).to_string()));
    };
    let mut body = serde_json::Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            body.insert(name.into(), value.into());
        }
    };
    put("code_url", prepay.code_url);
    put("h5_url", prepay.h5_url);
    put("prepay_id", prepay.prepay_id);
    if !prepay.pay_params.is_empty() {
        let list = prepay.pay_params.into_iter().map(|(name, value)| (name, Value::from(value)));
        body.insert("pay_params".into(), Value::Object(list.collect()));
    }
    Ok(Reply::Json(Value::Object(body).to_string()))
}

/// A hosted cashier: the fields of a native order, and where the payer returns to.
pub(super) async fn create_cashier(call: &Call<'_>) -> Answer {
    let request = CreateTransaction::parse(Product::Native, &call.body)?;
    let extra: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let return_url = match extra.get("return_url") {
        None | Some(Value::Null) => None,
        Some(Value::String(url)) if is_return_url(url) => Some(url.clone()),
        Some(other) => {
            let (zh, en) = (
                "返回地址须为不超过512个字符的 http 或 https 链接",
                "return_url must be an http or https link of at most 512 characters",
            );
            return Err(bad_param("/return_url", Some(other.clone()), zh, en));
        }
    };
    let (placed, expires) = place(call, request, Some(return_url)).await?;
    let link = links::cashier(call.gateway, &placed.payment);
    let body = json!({
        "cashier_url": link,
        "expire_time": wechatpay::beijing::rfc3339(expires),
    });
    Ok(Reply::Json(body.to_string()))
}

fn is_return_url(url: &str) -> bool {
    let web = url.starts_with("https://") || url.starts_with("http://");
    web && url.len() <= 512 && !url.chars().any(|it| it.is_control() || it.is_whitespace())
}

/// - Input: `cashier` with the return URL if the order is a cashier's.
async fn place(
    call: &Call<'_>,
    request: CreateTransaction,
    cashier: Option<Option<String>>,
) -> Result<(Placed, kernel::Timestamp), ApiError> {
    let merchant = &call.caller.known.merchant;
    let now = call.gateway.clock.now();
    request.check_mchid(merchant.id.as_str())?;
    request.check_time(now)?;
    if !merchant.appids.contains(&request.appid) {
        return Err(ApiError::appid_mchid_not_match());
    }
    let mut terms: Terms = wire::terms(request);
    if let Some(return_url) = cashier {
        terms.product = TradeProduct::Cashier;
        terms.return_url = return_url;
    }
    let placed = call
        .gateway
        .platform
        .place_order(merchant, terms, call.caller.wants.clone(), now)
        .await
        .map_err(refused)?;
    tracing::Span::current().record("payment", placed.payment.serial.as_str());
    let expires = placed.payment.expires;
    Ok((placed, expires))
}

fn refused(error: PlaceError) -> ApiError {
    match &error {
        PlaceError::Risk(_) => ApiError::request_blocked(),
        PlaceError::NoChannel(decision) => no_channel(decision),
        PlaceError::Different(_) => ApiError::other_parameters(),
        PlaceError::Paid(_) => ApiError::out_trade_no_used(),
        PlaceError::Closed(_) => ApiError::order_closed(),
        PlaceError::Expired => ApiError::invalid_request(
            "订单已过支付截止时间，请使用新的商户订单号重新下单",
            "The order has expired; place a new one under a new out_trade_no",
        )
        .because(reason::ORDER_EXPIRED),
        PlaceError::Declined(it) if !it.temporary => ApiError::invalid_request(
            format!("支付渠道拒绝了该订单：{} {}", it.code, it.message),
            format!("The channel refuses the order: {} {}", it.code, it.message),
        ),
        PlaceError::Declined(_) | PlaceError::InDoubt => {
            tracing::warn!(%error, "an order's channel did not answer");
            ApiError::system_error()
        }
        PlaceError::Store(_) | PlaceError::Commit(_) => system_error(&error),
    }
}

fn no_channel(decision: &routing::Decision) -> ApiError {
    let refusals = || decision.refused.iter().map(|it| &it.1);
    if let Some(money) = refusals().find_map(|it| match it {
        Refusal::Currency(money) => Some(*money),
        Refusal::Disabled
        | Refusal::Product(_)
        | Refusal::TooSmall { .. }
        | Refusal::TooLarge { .. } => None,
    }) {
        let (zh, en) = ("没有支付渠道支持该货币类型", "no channel takes this currency");
        let code = Value::from(money.currency().code());
        return bad_param("/amount/currency", Some(code), zh, en);
    }
    let outside = |it: &Refusal| matches!(it, Refusal::TooSmall { .. } | Refusal::TooLarge { .. });
    if refusals().any(outside) {
        let (zh, en) =
            ("订单金额超出支付渠道的单笔限额", "amount is outside every channel's limits");
        return bad_param("/amount/total", None, zh, en);
    }
    ApiError::no_auth()
}

pub(super) async fn query_by_id(call: &Call<'_>, id: &str) -> Answer {
    let merchant = queried_merchant(call)?;
    let Some(serial) = wire::serial(id) else { return Err(ApiError::order_not_exist()) };
    let found = call.gateway.store().payment(&merchant, serial).await;
    let found = found.map_err(|it| system_error(&it))?.map(|it| it.value);
    // An unpaid order has no transaction_id yet.
    answer_order(found.filter(|it| it.receipt.is_some()))
}

pub(super) async fn query_by_number(call: &Call<'_>, number: &str) -> Answer {
    let merchant = queried_merchant(call)?;
    let found = call.gateway.store().payment_by_order(&merchant, number).await;
    answer_order(found.map_err(|it| system_error(&it))?.map(|it| it.value))
}

fn answer_order(found: Option<Payment>) -> Answer {
    match found {
        Some(payment) => Ok(Reply::Json(wire::transaction(&payment).to_json())),
        None => Err(ApiError::order_not_exist().because(reason::NO_SUCH_ORDER)),
    }
}

/// `?mchid=` must be there and be the caller.
fn queried_merchant(call: &Call<'_>) -> Result<MerchantId, ApiError> {
    let merchant = &call.caller.known.merchant.id;
    match call.query.get("mchid") {
        Some(mchid) if mchid == merchant.as_str() => Ok(merchant.clone()),
        Some(mchid) => Err(ApiError::mchid_mismatch(merchant.as_str(), mchid)),
        None => {
            let location = wechatpay::error::Location::Query;
            let text = wechatpay::error::Text::new(
                "输入源“/query/mchid”映射到字段“直连商户号”必填性规则校验失败，此字段为必填项",
                "mchid is required in the query",
            );
            Err(ApiError::param(location, "mchid", None, text))
        }
    }
}

pub(super) async fn close(call: &Call<'_>, number: &str) -> Answer {
    let merchant = &call.caller.known.merchant;
    let mchid = parse_close(&call.body)?;
    if mchid != merchant.id.as_str() {
        return Err(ApiError::mchid_mismatch(merchant.id.as_str(), &mchid));
    }
    let now = call.gateway.clock.now();
    match call.gateway.platform.close_order(merchant, number, now).await {
        Ok(()) => Ok(Reply::NoContent),
        Err(CloseError::NotFound) => {
            Err(ApiError::order_not_exist().because(reason::NO_SUCH_ORDER))
        }
        Err(CloseError::Paid) => Err(ApiError::invalid_request(
            "订单已支付，不能关闭；如需退还款项请申请退款",
            "The order is already paid; refund it instead",
        )
        .because(reason::ALREADY_PAID)),
        Err(error @ (CloseError::InDoubt | CloseError::Store(_) | CloseError::Commit(_))) => {
            Err(system_error(&error))
        }
    }
}
