//! Bills for merchants: made from the books when asked for, so that the file of a past day is
//! always the same.

use super::{Answer, Call, Reply, system_error};
use crate::clock;
use crate::links::{self, BillTicket};
use app::{JournalRow, Store, StoreError};
use flate2::{Compression, write::GzEncoder};
use kernel::{BusinessDay, MerchantId, Serial, Timestamp, Zone};
use ledger::{Account, AccountKind, Event, Owner};
use payments::{Origin, Payment, Refund, RefundState};
use std::collections::HashMap;
use std::io::Write;
use store::AnyStore;
use wechatpay::bill::{
    BillLink, Direction, FundBill, FundBillRequest, FundRow, RefundCells, RowState, TradeBill,
    TradeBillKind, TradeBillRequest, TradeRow,
};
use wechatpay::{ApiError, TradeType};

/// Bills go back three months.
const OLDEST_DAYS: i32 = 92;
/// When yesterday's bill is ready, in hours after midnight.
const READY_HOUR: i64 = 10;
const LINK_LIFE_S: i64 = 300;

pub(super) async fn trade(call: &Call<'_>) -> Answer {
    let asked = TradeBillRequest::parse(&call.query)?;
    check_day(call, asked.day)?;
    let ticket = BillTicket {
        merchant: call.caller.known.merchant.id.clone(),
        day: asked.day,
        what: asked.kind.word().into(),
        gzip: asked.gzip,
        until: clock::wall().plus_s(LINK_LIFE_S),
    };
    link(call, ticket).await
}

pub(super) async fn fund_flow(call: &Call<'_>) -> Answer {
    let asked = FundBillRequest::parse(&call.query)?;
    check_day(call, asked.day)?;
    // Everything a merchant owns with us is one account; the other two never move.
    if asked.account != "BASIC" {
        return Err(ApiError::no_statement_exist());
    }
    let ticket = BillTicket {
        merchant: call.caller.known.merchant.id.clone(),
        day: asked.day,
        what: "FUNDS".into(),
        gzip: asked.gzip,
        until: clock::wall().plus_s(LINK_LIFE_S),
    };
    link(call, ticket).await
}

fn check_day(call: &Call<'_>, day: BusinessDay) -> Result<(), ApiError> {
    let zone = Zone::shanghai();
    let now = call.gateway.clock.now();
    let today = zone.day(now);
    let ready = zone.start(day.plus_days(1)).plus_s(READY_HOUR * 3600);
    if day > today || day < today.plus_days(-OLDEST_DAYS) {
        return Err(ApiError::invalid_request(
            "账单日期须为近三个月内且早于今天的日期",
            "bill_date must be a day of the last three months before today",
        ));
    }
    if now < ready { Err(ApiError::statement_creating()) } else { Ok(()) }
}

async fn link(call: &Call<'_>, ticket: BillTicket) -> Answer {
    let file = file(call.gateway.store(), &ticket).await?;
    let link = BillLink {
        hash_type: "SHA1".into(),
        hash_value: seal::digest::sha1_hex(file.as_bytes()),
        download_url: links::bill(call.gateway, &ticket),
    };
    Ok(Reply::Json(link.to_json()))
}

pub(super) async fn download(call: &Call<'_>) -> Answer {
    let refused = || {
        ApiError::invalid_request(
            "下载链接无效或已过期，请重新申请账单",
            "The download link is invalid or has expired; ask for the bill again",
        )
    };
    let token = call.query.get("token").ok_or_else(refused)?;
    let ticket = links::read_bill(call.gateway, token).ok_or_else(refused)?;
    if ticket.merchant != call.caller.known.merchant.id {
        return Err(ApiError::no_auth());
    }
    if clock::wall() > ticket.until {
        return Err(refused());
    }
    let text = file(call.gateway.store(), &ticket).await?;
    if !ticket.gzip {
        return Ok(Reply::File { kind: "text/plain; charset=utf-8", bytes: text.into_bytes() });
    }
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    let packed = packer.write_all(text.as_bytes()).and_then(|()| packer.finish());
    let bytes = packed.map_err(|it| system_error(&it))?;
    Ok(Reply::File { kind: "application/gzip", bytes })
}

async fn file(store: &AnyStore, ticket: &BillTicket) -> Result<String, ApiError> {
    let kinds = [TradeBillKind::All, TradeBillKind::Success, TradeBillKind::Refund];
    let kind = kinds.into_iter().find(|it| it.word() == ticket.what);
    let (day, merchant) = (ticket.day, &ticket.merchant);
    let text = match kind {
        Some(kind) => {
            let rows =
                trade_rows(store, merchant, day, kind).await.map_err(|it| system_error(&it))?;
            if rows.is_empty() {
                return Err(ApiError::no_statement_exist());
            }
            TradeBill::new(kind, rows).map(|it| it.render())
        }
        None => {
            let rows = fund_rows(store, merchant, day).await.map_err(|it| system_error(&it))?;
            if rows.is_empty() {
                return Err(ApiError::no_statement_exist());
            }
            FundBill::new(rows).map(|it| it.render())
        }
    };
    text.map_err(|it| system_error(&it))
}

fn span(day: BusinessDay) -> (Timestamp, Timestamp) {
    let zone = Zone::shanghai();
    (zone.start(day), zone.start(day.plus_days(1)))
}

async fn trade_rows(
    store: &AnyStore,
    merchant: &MerchantId,
    day: BusinessDay,
    kind: TradeBillKind,
) -> Result<Vec<TradeRow>, StoreError> {
    let (from, until) = span(day);
    let mut rows = Vec::new();
    if kind != TradeBillKind::Refund {
        for payment in store.paid_between(merchant, from, until).await? {
            rows.extend(payment_row(&payment));
        }
    }
    if kind != TradeBillKind::Success {
        let mut payments: HashMap<Serial, Payment> = HashMap::new();
        for refund in store.refunds_between(merchant, from, until).await? {
            // Money that never was the merchant's is none of its business.
            if refund.origin == Origin::Automatic {
                continue;
            }
            if !payments.contains_key(&refund.payment)
                && let Some(found) = store.payment(merchant, refund.payment).await?
            {
                payments.insert(refund.payment, found.value);
            }
            let payment = payments.get(&refund.payment);
            rows.extend(payment.and_then(|it| refund_row(it, &refund, until)));
        }
    }
    rows.sort_by(|a, b| (a.time, &a.transaction_id).cmp(&(b.time, &b.transaction_id)));
    Ok(rows)
}

fn payment_row(payment: &Payment) -> Option<TradeRow> {
    let receipt = payment.receipt.as_ref()?;
    let paid = payment.paid_attempt()?;
    let trade_type = super::wire::trade_type(paid.product).map_or("", TradeType::word);
    let terms = &payment.terms;
    Some(TradeRow {
        time: receipt.at,
        appid: terms.appid.clone(),
        mchid: payment.merchant.to_string(),
        sub_mchid: "0".into(),
        device: terms.device_id.clone().unwrap_or_default(),
        transaction_id: payment.serial.to_string(),
        out_trade_no: terms.order_no.clone(),
        openid: receipt.payer.clone().unwrap_or_default(),
        trade_type: trade_type.into(),
        state: RowState::Success,
        bank: receipt.bank.clone().unwrap_or_else(|| "OTHERS".into()),
        currency: terms.amount.currency().code().into(),
        settlement_minor: terms.amount.minor(),
        coupon_minor: 0,
        refund: None,
        goods: terms.description.clone(),
        attach: terms.attach.clone().unwrap_or_default(),
        fee_milli: payment.fee().minor() * 1000,
        rate: payment.fee_rate.to_string(),
        order_minor: terms.amount.minor(),
        rate_note: String::new(),
    })
}

fn refund_row(payment: &Payment, refund: &Refund, until: Timestamp) -> Option<TradeRow> {
    let done = refund.done.filter(|at| refund.state == RefundState::Success && *at < until);
    let cells = RefundCells {
        refund_id: refund.serial.to_string(),
        out_refund_no: refund.terms.refund_no.clone(),
        refund_minor: refund.terms.amount.minor(),
        coupon_refund_minor: 0,
        kind: "ORIGINAL".into(),
        status: if done.is_some() { "SUCCESS" } else { "PROCESSING" }.into(),
        asked_minor: refund.terms.amount.minor(),
        accepted_at: Some(refund.created),
        succeeded_at: done,
    };
    Some(TradeRow {
        time: refund.created,
        state: RowState::Refund,
        refund: Some(cells),
        settlement_minor: 0,
        order_minor: 0,
        fee_milli: -refund.fee_back.minor() * 1000,
        ..payment_row(payment)?
    })
}

async fn fund_rows(
    store: &AnyStore,
    merchant: &MerchantId,
    day: BusinessDay,
) -> Result<Vec<FundRow>, StoreError> {
    let (from, until) = span(day);
    let before = store.postings_between(merchant, Timestamp::from_ms(0), from).await?;
    let mut balance: i64 = before.iter().filter_map(|it| movement(merchant, it)).sum();
    let mut rows = Vec::new();
    for row in store.postings_between(merchant, from, until).await? {
        let Some(change) = movement(merchant, &row) else { continue };
        balance += change;
        let direction = if change > 0 { Direction::In } else { Direction::Out };
        let (name, kind) = words(row.event, direction);
        rows.push(FundRow {
            time: row.at,
            business_id: row.payment.to_string(),
            flow_id: row.serial.to_string(),
            name: name.into(),
            kind: kind.into(),
            direction,
            amount_minor: change.abs(),
            balance_minor: balance,
            applicant: "system".into(),
            note: String::new(),
            voucher: row.subject.to_string(),
        });
    }
    Ok(rows)
}

/// What a posting does to the merchant's own money, pending or available; `None` if nothing.
fn movement(merchant: &MerchantId, row: &JournalRow) -> Option<i64> {
    let own = |it: &Account| {
        it.owner == Owner::Merchant(merchant.clone())
            && matches!(it.kind, AccountKind::MerchantPending | AccountKind::MerchantAvailable)
    };
    let minor = row.posting.amount.minor();
    match (own(&row.posting.debit), own(&row.posting.credit)) {
        (true, false) => Some(-minor),
        (false, true) => Some(minor),
        (true, true) | (false, false) => None,
    }
}

fn words(event: Event, direction: Direction) -> (&'static str, &'static str) {
    match (event, direction) {
        (Event::Paid | Event::Unexpected, Direction::In) => ("交易", "交易"),
        (Event::Paid | Event::Unexpected, Direction::Out) => ("扣除交易手续费", "交易手续费"),
        (Event::RefundAccepted, Direction::In) => ("退款手续费返还", "交易手续费"),
        (Event::RefundAccepted | Event::RefundDone, Direction::Out) => ("退款", "退款"),
        (Event::RefundDone, Direction::In) => ("退款", "退款"),
        (Event::RefundFailed, Direction::In) => ("退款失败退回", "退款"),
        (Event::RefundFailed, Direction::Out) => ("退款失败手续费扣回", "交易手续费"),
    }
}
