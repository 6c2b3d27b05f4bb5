//! Bills: what happened on a day, and the files that say so.

use super::sim::WechatSim;
use kernel::{BusinessDay, Money, Timestamp};
use wechatpay::beijing;
use wechatpay::bill::{
    BillError, BillLink, DOWNLOAD_PATH, Direction, FundBill, FundBillRequest, FundRow, RefundCells,
    RowState, TradeBill, TradeBillKind, TradeBillRequest, TradeRow,
};
use wechatpay::error::ApiError;
use wechatpay::query::Query;
use wechatpay::refund::RefundStatus;

/// A link lives this long.
const LINK_LIFE_S: i64 = 300;
const MONTHS_BACK_DAYS: i32 = 92;
/// Links that have ended are swept when there are more than this.
const MANY_FILES: usize = 256;

pub(super) struct BillFile {
    mchid: String,
    text: String,
    ends: Timestamp,
}

impl WechatSim {
    pub(super) fn trade_bill(
        &mut self,
        mchid: &str,
        query: &Query,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        let request = TradeBillRequest::parse(query)?;
        self.check_day(request.day, now)?;
        let mut rows = Vec::new();
        for (index, order) in self.orders.iter().enumerate() {
            if order.request.mchid != mchid {
                continue;
            }
            let Some(paid) = &order.paid else { continue };
            if beijing::day(paid.at) == request.day && request.kind != TradeBillKind::Refund {
                rows.push(self.payment_row(index));
            }
            if request.kind == TradeBillKind::Success {
                continue;
            }
            for &refund in &order.refunds {
                if beijing::day(self.refunds[refund].created) == request.day {
                    rows.push(self.refund_row(index, refund, request.kind));
                }
            }
        }
        rows.sort_by_key(|it| it.time);
        if rows.is_empty() {
            return Err(ApiError::no_statement_exist());
        }
        let bill = TradeBill::new(request.kind, rows).map_err(too_large)?;
        Ok(self.link(mchid, bill.render(), request.gzip, now))
    }

    pub(super) fn fund_bill(
        &mut self,
        mchid: &str,
        query: &Query,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        let request = FundBillRequest::parse(query)?;
        self.check_day(request.day, now)?;
        if request.account != "BASIC" {
            return Err(ApiError::no_statement_exist());
        }
        let rows = self.fund_rows(mchid);
        let rows = rows.into_iter().filter(|it| beijing::day(it.time) == request.day);
        let rows: Vec<FundRow> = rows.collect();
        if rows.is_empty() {
            return Err(ApiError::no_statement_exist());
        }
        let bill = FundBill::new(rows).map_err(too_large)?;
        Ok(self.link(mchid, bill.render(), request.gzip, now))
    }

    fn check_day(&self, day: BusinessDay, now: Timestamp) -> Result<(), ApiError> {
        let today = beijing::day(now);
        if day >= today {
            return Err(ApiError::invalid_request(
                "账单日期不能是当天或未来日期",
                format!("the bill of {day} does not exist yet; ask from the next day on"),
            ));
        }
        if day < today.plus_days(-MONTHS_BACK_DAYS) {
            return Err(ApiError::invalid_request(
                "只能下载三个月以内的账单",
                format!("{day} is more than three months ago"),
            ));
        }
        let ready = beijing::start(today).plus_s(self.settings.bills_ready_hour * 3_600);
        if day == today.plus_days(-1) && now < ready {
            return Err(ApiError::statement_creating());
        }
        Ok(())
    }

    fn fee(&self, index: usize) -> Money {
        let order = &self.orders[index];
        let paid = order.paid.as_ref().expect("bills list paid orders only");
        kernel::fee(paid.amount, self.merchant(&order.request.mchid).fee)
    }

    fn payment_row(&self, index: usize) -> TradeRow {
        let order = &self.orders[index];
        let request = &order.request;
        let paid = order.paid.as_ref().expect("bills list paid orders only");
        let trade_type = wechatpay::TradeType::from(request.product).word();
        let scene = request.scene_info.as_ref();
        TradeRow {
            time: paid.at,
            appid: request.appid.clone(),
            mchid: request.mchid.clone(),
            sub_mchid: "0".to_owned(),
            device: scene.and_then(|it| it.device_id.clone()).unwrap_or_default(),
            transaction_id: paid.transaction_id.clone(),
            out_trade_no: request.out_trade_no.clone(),
            openid: paid.openid.clone(),
            trade_type: trade_type.to_owned(),
            state: RowState::Success,
            bank: "OTHERS".to_owned(),
            currency: paid.amount.currency().code().to_owned(),
            settlement_minor: paid.amount.minor(),
            coupon_minor: 0,
            refund: None,
            goods: request.description.clone(),
            attach: request.attach.clone().unwrap_or_default(),
            fee_milli: self.fee(index).minor().saturating_mul(1_000),
            rate: self.merchant(&request.mchid).fee.to_string(),
            order_minor: paid.amount.minor(),
            rate_note: String::new(),
        }
    }

    fn refund_row(&self, index: usize, refund: usize, kind: TradeBillKind) -> TradeRow {
        let record = &self.refunds[refund];
        let minor = record.request.refund.minor();
        let dated = kind == TradeBillKind::Refund;
        TradeRow {
            time: record.created,
            state: RowState::Refund,
            settlement_minor: 0,
            order_minor: 0,
            fee_milli: -record.fee.minor().saturating_mul(1_000),
            refund: Some(RefundCells {
                refund_id: record.refund_id.clone(),
                out_refund_no: record.request.out_refund_no.clone(),
                refund_minor: minor,
                coupon_refund_minor: 0,
                kind: "ORIGINAL".to_owned(),
                // Written when the refund was accepted, and never updated.
                status: "PROCESSING".to_owned(),
                asked_minor: minor,
                accepted_at: dated.then_some(record.created),
                succeeded_at: record
                    .ended
                    .filter(|_| dated && record.status == RefundStatus::Success),
            }),
            ..self.payment_row(index)
        }
    }

    /// All movements of a merchant's account, in order, with the balance after each.
    fn fund_rows(&self, mchid: &str) -> Vec<FundRow> {
        let mut rows = Vec::new();
        for (index, order) in self.orders.iter().enumerate() {
            let Some(paid) = order.paid.as_ref().filter(|_| order.request.mchid == mchid) else {
                continue;
            };
            let mut push = |time, voucher: &str, name: &str, direction, amount: Money| {
                if amount.is_positive() {
                    rows.push(FundRow {
                        time,
                        business_id: paid.transaction_id.clone(),
                        flow_id: String::new(),
                        name: name.to_owned(),
                        kind: name.to_owned(),
                        direction,
                        amount_minor: amount.minor(),
                        balance_minor: 0,
                        applicant: "system".to_owned(),
                        note: String::new(),
                        voucher: voucher.to_owned(),
                    });
                }
            };
            let number = &order.request.out_trade_no;
            push(paid.at, number, "交易", Direction::In, paid.amount);
            push(paid.at, number, "扣除交易手续费", Direction::Out, self.fee(index));
            for &refund in &order.refunds {
                let record = &self.refunds[refund];
                let (at, number) = (record.created, &record.request.out_refund_no);
                push(at, number, "退款", Direction::Out, record.request.refund);
                push(at, number, "退回交易手续费", Direction::In, record.fee);
            }
        }
        rows.sort_by_key(|it| it.time);
        let mut balance = 0_i64;
        for (index, row) in rows.iter_mut().enumerate() {
            balance = match row.direction {
                Direction::In => balance.saturating_add(row.amount_minor),
                Direction::Out => balance.saturating_sub(row.amount_minor),
            };
            row.balance_minor = balance;
            row.flow_id = format!("{mchid}{}{index:08}", beijing::day(row.time).compact());
        }
        rows
    }

    fn link(&mut self, mchid: &str, text: String, gzip: bool, now: Timestamp) -> String {
        if self.files.len() > MANY_FILES {
            self.files.retain(|_, it| it.ends >= now);
        }
        let token = self.new_nonce();
        let tail = if gzip { "&tartype=gzip" } else { "" };
        let link = BillLink {
            hash_type: "SHA1".to_owned(),
            hash_value: seal::digest::sha1_hex(text.as_bytes()),
            download_url: format!("{}{DOWNLOAD_PATH}?token={token}{tail}", self.settings.base_url),
        };
        let ends = now.plus_s(LINK_LIFE_S);
        self.files.insert(token, BillFile { mchid: mchid.to_owned(), text, ends });
        link.to_json()
    }

    /// The bytes of a file, compressed if its link says so.
    pub(super) fn download(
        &self,
        mchid: &str,
        query: &Query,
        now: Timestamp,
    ) -> Result<Vec<u8>, ApiError> {
        let file = query.get("token").and_then(|it| self.files.get(it));
        let file = file.filter(|it| it.mchid == mchid && now <= it.ends);
        let file = file.ok_or_else(|| {
            ApiError::invalid_request(
                "下载链接无效或已过期，请重新申请账单",
                "The link is unknown, another merchant's, or older than 5 minutes; ask for the bill again",
            )
        })?;
        let plain = file.text.as_bytes();
        if query.get("tartype").is_some_and(|it| it.eq_ignore_ascii_case("gzip")) {
            Ok(gzipped(plain))
        } else {
            Ok(plain.to_vec())
        }
    }
}

fn too_large(error: BillError) -> ApiError {
    ApiError::invalid_request("账单金额超出范围", error.to_string())
}

fn gzipped(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(plain).and_then(|()| out.finish()).expect("writing to memory cannot fail")
}
