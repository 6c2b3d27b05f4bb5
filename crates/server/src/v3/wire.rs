//! Our payments and refunds in WeChat Pay's words, and back.

use kernel::Serial;
use payments::{Payment, PaymentState, Refund, RefundState, Terms, TradeProduct};
use wechatpay::create::CreateTransaction;
use wechatpay::refund::RefundAmount;
use wechatpay::transaction::TransactionAmount;
use wechatpay::{Product, RefundNotice, RefundStatus, TradeState, TradeType, Transaction};

/// The order as it stands.
pub fn transaction(payment: &Payment) -> Transaction {
    let state = match payment.state {
        PaymentState::NotPay => TradeState::NotPay,
        PaymentState::UserPaying => TradeState::UserPaying,
        PaymentState::Success if payment.refunds > 0 => TradeState::Refund,
        PaymentState::Success => TradeState::Success,
        PaymentState::Closed => TradeState::Closed,
        PaymentState::Revoked => TradeState::Revoked,
        PaymentState::PayError => TradeState::PayError,
    };
    in_state(payment, state)
}

/// The order as it was when it was paid: what a notification tells, however late it is posted.
pub fn paid_transaction(payment: &Payment) -> Transaction {
    in_state(payment, TradeState::Success)
}

fn in_state(payment: &Payment, state: TradeState) -> Transaction {
    let terms = &payment.terms;
    let receipt = payment.receipt.as_ref();
    Transaction {
        appid: terms.appid.clone(),
        mchid: payment.merchant.to_string(),
        out_trade_no: terms.order_no.clone(),
        transaction_id: receipt.map(|_| payment.serial.to_string()),
        trade_type: payment.paid_attempt().and_then(|it| trade_type(it.product)),
        trade_state: state,
        trade_state_desc: state.description().into(),
        bank_type: receipt.map(|it| it.bank.clone().unwrap_or_else(|| "OTHERS".into())),
        attach: receipt.and(terms.attach.clone()),
        success_time: receipt.map(|it| it.at),
        openid: receipt.and_then(|it| it.payer.clone()),
        amount: Some(TransactionAmount {
            total: terms.amount,
            payer_total: receipt.map(|it| it.amount),
        }),
        device_id: terms.device_id.clone(),
        promotions: vec![],
    }
}

pub fn trade_type(product: TradeProduct) -> Option<TradeType> {
    match product {
        TradeProduct::Native => Some(TradeType::Native),
        TradeProduct::Jsapi => Some(TradeType::Jsapi),
        TradeProduct::App => Some(TradeType::App),
        TradeProduct::H5 => Some(TradeType::Mweb),
        TradeProduct::Cashier => None,
    }
}

/// The terms of an order. What we only keep and compare goes into `extras`, whole.
pub fn terms(request: CreateTransaction) -> Terms {
    let scene = request.scene_info.as_ref();
    let h5 = scene.and_then(|it| it.h5_info.as_ref());
    let more = request.goods_tag.is_some()
        || request.support_fapiao.is_some()
        || request.identity.is_some()
        || request.detail.is_some()
        || request.profit_sharing.is_some()
        || !request.limit_pay.is_empty()
        || scene.is_some_and(|it| it.store_info.is_some())
        || h5.is_some_and(|it| it.app_name.is_some() || it.app_url.is_some())
        || h5.is_some_and(|it| it.bundle_id.is_some() || it.package_name.is_some());
    Terms {
        extras: more.then(|| request.to_json()),
        product: match request.product {
            Product::Native => TradeProduct::Native,
            Product::Jsapi => TradeProduct::Jsapi,
            Product::App => TradeProduct::App,
            Product::H5 => TradeProduct::H5,
        },
        payer_ip: scene.map(|it| it.payer_client_ip.clone()),
        h5_type: h5.map(|it| it.kind.clone()),
        device_id: scene.and_then(|it| it.device_id.clone()),
        order_no: request.out_trade_no,
        appid: request.appid,
        amount: request.amount,
        description: request.description,
        attach: request.attach,
        notify_url: Some(request.notify_url),
        time_expire: request.time_expire,
        payer: request.openid,
        return_url: None,
    }
}

fn status(state: RefundState) -> RefundStatus {
    match state {
        RefundState::Processing => RefundStatus::Processing,
        RefundState::Success => RefundStatus::Success,
        RefundState::Closed => RefundStatus::Closed,
        RefundState::Abnormal => RefundStatus::Abnormal,
    }
}

fn success_time(refund: &Refund) -> Option<kernel::Timestamp> {
    refund.done.filter(|_| refund.state == RefundState::Success)
}

/// A refund as create and query answer it.
pub fn refund(payment: &Payment, refund: &Refund) -> wechatpay::Refund {
    let from_balance = refund.from_available_minor > 0;
    wechatpay::Refund {
        refund_id: refund.serial.to_string(),
        out_refund_no: refund.terms.refund_no.clone(),
        transaction_id: payment.serial.to_string(),
        out_trade_no: payment.terms.order_no.clone(),
        channel: Some("ORIGINAL".into()),
        user_received_account: Some(account(refund)),
        success_time: success_time(refund),
        create_time: refund.created,
        status: status(refund.state),
        funds_account: Some(if from_balance { "AVAILABLE" } else { "UNSETTLED" }.into()),
        amount: RefundAmount {
            refund_fee: Some(refund.fee_back.minor()),
            ..RefundAmount::cash(refund.terms.amount, payment.terms.amount)
        },
        promotions: vec![],
    }
}

fn account(refund: &Refund) -> String {
    refund.account.clone().unwrap_or_else(|| "原支付账户".into())
}

pub fn refund_notice(payment: &Payment, refund: &Refund) -> RefundNotice {
    let (total, amount) = (payment.terms.amount.minor(), refund.terms.amount.minor());
    RefundNotice {
        mchid: payment.merchant.to_string(),
        out_trade_no: payment.terms.order_no.clone(),
        transaction_id: payment.serial.to_string(),
        out_refund_no: refund.terms.refund_no.clone(),
        refund_id: refund.serial.to_string(),
        refund_status: status(refund.state),
        success_time: success_time(refund),
        user_received_account: account(refund),
        total,
        refund: amount,
        payer_total: total,
        payer_refund: amount,
    }
}

/// Reads a `transaction_id` or `refund_id` of ours.
pub fn serial(text: &str) -> Option<Serial> {
    Serial::parse(text).ok()
}
