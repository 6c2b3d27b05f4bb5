//! Refunds: create, query, and their end.

use super::faults::Fault;
use super::sim::{Event, WechatSim};
use kernel::{Money, Timestamp, share_so_far};
use wechatpay::error::ApiError;
use wechatpay::notification::EventType;
use wechatpay::refund::{CreateRefund, Refund, RefundAmount, RefundNotice, RefundStatus};
use wechatpay::transaction::TradeState;

const WINDOW_S: i64 = 365 * 86_400;
const MOST: usize = 50;

pub(super) struct RefundRecord {
    pub(super) request: CreateRefund,
    pub(super) order: usize,
    pub(super) refund_id: String,
    pub(super) created: Timestamp,
    pub(super) status: RefundStatus,
    pub(super) ended: Option<Timestamp>,
    /// The service fee that comes back with it, positive.
    pub(super) fee: Money,
    will_end: RefundStatus,
}

impl WechatSim {
    pub(super) fn create_refund(
        &mut self,
        mchid: &str,
        request: CreateRefund,
        now: Timestamp,
        faults: &[Fault],
    ) -> Result<String, ApiError> {
        let by_transaction = |it: &str| self.find_transaction(mchid, it);
        let by_number = |it: &str| self.find_number(mchid, it);
        let order = match (&request.transaction_id, &request.out_trade_no) {
            (Some(it), _) => by_transaction(it),
            (None, Some(it)) => by_number(it),
            (None, None) => None,
        };
        let order = order.filter(|&it| self.orders[it].paid.is_some());
        let order = order.ok_or_else(|| {
            let mut error = ApiError::resource_not_exists();
            error.message = wechatpay::error::Text::new(
                "订单不存在或未支付",
                "The order does not exist or is not paid",
            );
            error
        })?;
        let key = (mchid.to_owned(), request.out_refund_no.clone());
        if let Some(&known) = self.refund_by_number.get(&key) {
            // The same order may be named by either of its numbers.
            let before = &self.refunds[known];
            let names = CreateRefund {
                transaction_id: request.transaction_id.clone(),
                out_trade_no: request.out_trade_no.clone(),
                ..before.request.clone()
            };
            return if before.order == order && names == request {
                Ok(self.refund(known).to_json())
            } else {
                Err(ApiError::other_parameters())
            };
        }
        self.check_refund(order, &request, now)?;
        let refund_id = self.new_refund_id(now);
        let fee = self.fee_back(order, request.refund);
        let will_end = if faults.contains(&Fault::RefundAbnormal) {
            RefundStatus::Abnormal
        } else if faults.contains(&Fault::RefundClosed) {
            RefundStatus::Closed
        } else {
            RefundStatus::Success
        };
        let index = self.refunds.len();
        self.refunds.push(RefundRecord {
            request,
            order,
            refund_id,
            created: now,
            status: RefundStatus::Processing,
            ended: None,
            fee,
            will_end,
        });
        self.refund_by_number.insert(key, index);
        self.orders[order].refunds.push(index);
        self.orders[order].state = TradeState::Refund;
        let answer = self.refund(index).to_json();
        if faults.contains(&Fault::CallbackFirst) {
            self.finish_refund(index, now);
        } else {
            let due = now.plus_s(self.settings.refund_delay_s);
            self.schedule(due, Event::FinishRefund(index));
        }
        Ok(answer)
    }

    /// Refunds that count against what was paid: all but those that were closed.
    fn refunded(&self, order: usize) -> (usize, i64) {
        let live = self.orders[order].refunds.iter().map(|&it| &self.refunds[it]);
        let live = live.filter(|it| it.status != RefundStatus::Closed);
        live.fold((0, 0), |(count, sum), it| (count + 1, sum + it.request.refund.minor()))
    }

    fn check_refund(
        &self,
        order: usize,
        request: &CreateRefund,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let paid = self.orders[order].paid.as_ref().expect("only paid orders come here");
        if now.ms_since(paid.at) > WINDOW_S * 1_000 {
            return Err(ApiError::trade_overdue());
        }
        if request.total != paid.amount {
            return Err(ApiError::invalid_request(
                "订单金额或退款金额与之前请求不一致，请核实后再试",
                format!("amount.total is {}, but {} was paid", request.total, paid.amount),
            ));
        }
        let (count, sum) = self.refunded(order);
        if request.refund.minor() > paid.amount.minor() - sum {
            let rest = Money::new(paid.amount.minor() - sum, paid.amount.currency());
            return Err(ApiError::invalid_request(
                "申请退款金额大于订单可退金额",
                format!("the refund of {} is more than the {rest} left", request.refund),
            ));
        }
        if count >= MOST {
            return Err(ApiError::invalid_request(
                "部分退款次数超限，一笔订单最多支持50次部分退款",
                format!("an order can be refunded {MOST} times at most"),
            ));
        }
        let last = self.orders[order].refunds.last().map(|&it| self.refunds[it].created);
        let gap_ms = self.settings.refund_gap_s * 1_000;
        if last.is_some_and(|it| now.ms_since(it) < gap_ms) {
            return Err(ApiError::frequency_limited());
        }
        Ok(())
    }

    /// The service fee that comes back with the next `refund` of an order.
    fn fee_back(&self, order: usize, refund: Money) -> Money {
        let paid = self.orders[order].paid.as_ref().expect("only paid orders come here");
        let mchid = &self.orders[order].request.mchid;
        let fee = kernel::fee(paid.amount, self.merchant(mchid).fee);
        let (_, before) = self.refunded(order);
        let unit = refund.currency();
        let back = |sum: i64| share_so_far(fee, Money::new(sum, unit), paid.amount).minor();
        Money::new(back(before + refund.minor()) - back(before), unit)
    }

    pub(super) fn finish_refund(&mut self, index: usize, at: Timestamp) {
        let record = &mut self.refunds[index];
        record.status = record.will_end;
        record.ended = Some(at);
        let Some(event) = EventType::of_refund(record.status) else { return };
        let order = &self.orders[record.order];
        let mchid = order.request.mchid.clone();
        let default = self.merchant(&mchid).facts.refund_notify_url.clone();
        let Some(url) = self.refunds[index].request.notify_url.clone().or(default) else { return };
        let refund = self.refund(index);
        let number = refund.out_trade_no.clone();
        let notice = RefundNotice {
            mchid: mchid.clone(),
            out_trade_no: refund.out_trade_no,
            transaction_id: refund.transaction_id,
            out_refund_no: refund.out_refund_no,
            refund_id: refund.refund_id,
            refund_status: refund.status,
            success_time: refund.success_time,
            user_received_account: refund.user_received_account.unwrap_or_default(),
            total: refund.amount.total,
            refund: refund.amount.refund,
            payer_total: refund.amount.payer_total,
            payer_refund: refund.amount.payer_refund,
        };
        self.announce(&mchid, &number, &url, event, &notice.to_json(), at);
    }

    pub(super) fn query_refund(
        &self,
        mchid: &str,
        out_refund_no: &str,
    ) -> Result<String, ApiError> {
        let key = (mchid.to_owned(), out_refund_no.to_owned());
        let index = self.refund_by_number.get(&key).ok_or_else(ApiError::resource_not_exists)?;
        Ok(self.refund(*index).to_json())
    }

    fn refund(&self, index: usize) -> Refund {
        let record = &self.refunds[index];
        let order = &self.orders[record.order];
        let paid = order.paid.as_ref().expect("only paid orders are refunded");
        let mut amount = RefundAmount::cash(record.request.refund, paid.amount);
        amount.from.clone_from(&record.request.from);
        amount.refund_fee = Some(record.fee.minor());
        Refund {
            refund_id: record.refund_id.clone(),
            out_refund_no: record.request.out_refund_no.clone(),
            transaction_id: paid.transaction_id.clone(),
            out_trade_no: order.request.out_trade_no.clone(),
            channel: Some("ORIGINAL".to_owned()),
            user_received_account: Some("支付用户零钱".to_owned()),
            success_time: record.ended.filter(|_| record.status == RefundStatus::Success),
            create_time: record.created,
            status: record.status,
            funds_account: Some("AVAILABLE".to_owned()),
            amount,
            promotions: Vec::new(),
        }
    }
}
