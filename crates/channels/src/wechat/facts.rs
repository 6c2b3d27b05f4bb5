//! What WeChat says about a payment or a refund, in the words of the contract. Compares nothing
//! with our own books.

use channel::{ChannelState, PaidFacts, PaymentFacts, RefundChannelState, RefundFacts};
use kernel::{Currency, Money};
use wechatpay::{Refund, RefundNotice, RefundStatus, TradeState, Transaction};

/// - Errors: the member that a paid order lacks. Such an order is in doubt, not unpaid.
pub(super) fn payment(transaction: Transaction) -> Result<PaymentFacts, &'static str> {
    let state = match transaction.trade_state {
        // A refund does not undo that it was paid; refunds are asked about by themselves.
        TradeState::Success | TradeState::Refund => ChannelState::Paid,
        TradeState::NotPay | TradeState::Accept => ChannelState::Waiting,
        TradeState::UserPaying => ChannelState::Paying,
        TradeState::Closed | TradeState::Revoked => ChannelState::Closed,
        TradeState::PayError => ChannelState::Failed,
    };
    let attempt = transaction.out_trade_no;
    if state != ChannelState::Paid {
        return Ok(PaymentFacts { attempt, state, paid: None });
    }
    let paid = PaidFacts {
        payee: transaction.mchid,
        // The price, not what the payer gave in cash: coupons are settled by the provider.
        amount: transaction.amount.ok_or("amount")?.total,
        transaction: transaction.transaction_id.ok_or("transaction_id")?,
        payer: transaction.openid,
        bank: transaction.bank_type,
        at: transaction.success_time.ok_or("success_time")?,
    };
    Ok(PaymentFacts { attempt, state, paid: Some(paid) })
}

pub(super) fn refund(refund: Refund) -> RefundFacts {
    RefundFacts {
        refund: refund.out_refund_no,
        state: refund_state(refund.status),
        channel_refund: refund.refund_id,
        amount: Money::new(refund.amount.refund, refund.amount.currency),
        account: refund.user_received_account.filter(|it| !it.is_empty()),
        at: refund.success_time,
    }
}

/// A notice names no currency: mainland refunds are in CNY.
pub(super) fn refund_notice(notice: RefundNotice) -> RefundFacts {
    RefundFacts {
        refund: notice.out_refund_no,
        state: refund_state(notice.refund_status),
        channel_refund: notice.refund_id,
        amount: Money::new(notice.refund, Currency::Cny),
        account: Some(notice.user_received_account).filter(|it| !it.is_empty()),
        at: notice.success_time,
    }
}

fn refund_state(status: RefundStatus) -> RefundChannelState {
    match status {
        RefundStatus::Processing => RefundChannelState::Processing,
        RefundStatus::Success => RefundChannelState::Success,
        RefundStatus::Closed => RefundChannelState::Closed,
        RefundStatus::Abnormal => RefundChannelState::Abnormal,
    }
}
