//! Refund create and query.

use super::{Answer, Call, Reply, system_error, wire};
use app::{OrderRef, RefundAsk, RefundError, Store};
use payments::{RefundRefusal, RefundTerms};
use wechatpay::{ApiError, CreateRefund};

pub(super) async fn create(call: &Call<'_>) -> Answer {
    let request = CreateRefund::parse(&call.body)?;
    let merchant = &call.caller.known.merchant;
    let order = match (&request.transaction_id, &request.out_trade_no) {
        (Some(id), _) => {
            OrderRef::Transaction(wire::serial(id).ok_or_else(ApiError::resource_not_exists)?)
        }
        (None, Some(number)) => OrderRef::OrderNo(number.clone()),
        (None, None) => return Err(ApiError::resource_not_exists()),
    };
    let more = request.funds_account.is_some()
        || !request.from.is_empty()
        || !request.goods_detail.is_empty();
    let terms = RefundTerms {
        extras: more.then(|| request.to_json()),
        refund_no: request.out_refund_no,
        amount: request.refund,
        total: request.total,
        reason: request.reason,
        notify_url: request.notify_url,
    };
    let now = call.gateway.clock.now();
    let ask = RefundAsk { order, terms };
    let (payment, refund) =
        call.gateway.platform.refund(merchant, &ask, now).await.map_err(refused)?;
    tracing::Span::current().record("payment", payment.serial.as_str());
    Ok(Reply::Json(wire::refund(&payment, &refund).to_json()))
}

fn refused(error: RefundError) -> ApiError {
    match &error {
        RefundError::NoSuchOrder | RefundError::Refused(RefundRefusal::NotPaid) => {
            ApiError::resource_not_exists()
        }
        RefundError::Different(_) => ApiError::other_parameters(),
        RefundError::Refused(RefundRefusal::ExceedsRest { asked, left }) => {
            ApiError::invalid_request(
                format!(
                    "退款金额 {} 超过可退余额 {}，请核对后使用新的退款单号",
                    asked.major(),
                    left.major()
                ),
                format!("The refund of {asked} exceeds the {left} still refundable"),
            )
        }
        RefundError::Refused(RefundRefusal::WrongTotal { said, total }) => {
            ApiError::invalid_request(
                format!("原订单金额为 {}，与请求中的 {} 不一致", total.major(), said.major()),
                format!("The order's total is {total}, not {said}"),
            )
        }
        RefundError::Refused(RefundRefusal::TooMany) => ApiError::invalid_request(
            "该订单部分退款已达50次上限",
            "The order already has 50 refunds, the most allowed",
        ),
        RefundError::Refused(RefundRefusal::Overdue) => ApiError::trade_overdue(),
        RefundError::NotEnough => ApiError::not_enough(),
        RefundError::Store(_) | RefundError::Commit(_) => system_error(&error),
    }
}

pub(super) async fn query(call: &Call<'_>, number: &str) -> Answer {
    let merchant = &call.caller.known.merchant.id;
    let store = call.gateway.store();
    let found = store.refund_by_no(merchant, number).await.map_err(|it| system_error(&it))?;
    let Some(refund) = found else { return Err(ApiError::resource_not_exists()) };
    let payment = store.payment(merchant, refund.value.payment).await;
    let payment = payment.map_err(|it| system_error(&it))?;
    let payment = payment.ok_or_else(ApiError::resource_not_exists)?;
    Ok(Reply::Json(wire::refund(&payment.value, &refund.value).to_json()))
}
