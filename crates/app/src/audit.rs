//! `ledger check`: the books recomputed from their postings, and compared with the payments.

use crate::evidence::{channel_of, refund_money};
use crate::{Store, StoreError};
use kernel::{Currency, Money};
use ledger::{Account, Balance, Posting, expected_net};
use payments::{Payment, Refund, RefundState};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    pub payments: u64,
    pub refunds: u64,
    pub accounts: u64,
    /// Sum of debits and of credits by currency, in minor units.
    pub totals: BTreeMap<Currency, (i128, i128)>,
    /// What is wrong, in words; empty if nothing is.
    pub findings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("the audit could not read everything")]
pub struct AuditError(#[from] StoreError);

const PAGE: u32 = 500;

/// Proves per currency: debits = credits, no guarded account below zero, stored balances equal
/// recomputed ones, each payment's postings match its state.
pub async fn audit(store: &impl Store, progress: impl Fn(u64)) -> Result<AuditReport, AuditError> {
    let mut report = AuditReport::default();
    let before: BTreeMap<Account, Balance> = store.balances().await?.into_iter().collect();
    let recomputed: BTreeMap<Account, Balance> =
        store.recomputed_balances().await?.into_iter().collect();
    let stored: BTreeMap<Account, Balance> = store.balances().await?.into_iter().collect();
    report.accounts = stored.len().try_into().unwrap_or(u64::MAX);
    for (account, balance) in &stored {
        let total = report.totals.entry(account.currency).or_default();
        total.0 += i128::from(balance.debit_minor);
        total.1 += i128::from(balance.credit_minor);
        if account.kind.is_guarded() && balance.held(account.kind.side()) < 0 {
            report.findings.push(format!("{account} is below zero: {balance:?}"));
        }
        let least = before.get(account).copied().unwrap_or_default();
        let real = recomputed.get(account).copied().unwrap_or_default();
        if !between(least, real, *balance) {
            report.findings.push(format!("{account} says {balance:?}, its postings {real:?}"));
        }
    }
    for account in recomputed.keys().filter(|it| !stored.contains_key(it)) {
        report.findings.push(format!("{account} has postings and no balance"));
    }
    for (currency, (debits, credits)) in &report.totals {
        if debits != credits {
            report.findings.push(format!("{currency}: debits {debits}, credits {credits}"));
        }
    }
    let mut after = None;
    loop {
        let page = store.payments_after(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.merchant.clone(), last.serial));
        for payment in &page {
            check_payment(store, payment, &mut report).await?;
        }
        report.payments += u64::try_from(page.len()).unwrap_or(0);
        progress(report.payments);
    }
    Ok(report)
}

/// Sums of debits and credits only grow, so those read in the middle lie between the others; if
/// nothing was written meanwhile, all three are equal.
fn between(least: Balance, real: Balance, most: Balance) -> bool {
    (least.debit_minor..=most.debit_minor).contains(&real.debit_minor)
        && (least.credit_minor..=most.credit_minor).contains(&real.credit_minor)
}

/// How often a payment that looks wrong is read again: it may have changed between two reads.
const SECOND_LOOKS: usize = 3;

async fn check_payment(
    store: &impl Store,
    payment: &Payment,
    report: &mut AuditReport,
) -> Result<(), AuditError> {
    let (mut refunds, mut findings) = look_at_payment(store, payment).await?;
    for _ in 0..SECOND_LOOKS {
        if findings.is_empty() {
            break;
        }
        let again = store.payment(&payment.merchant, payment.serial).await?;
        let Some(again) = again else { break };
        (refunds, findings) = look_at_payment(store, &again.value).await?;
    }
    report.refunds += refunds;
    report.findings.extend(findings);
    Ok(())
}

/// How many refunds a payment has, and what is wrong with it.
async fn look_at_payment(
    store: &impl Store,
    payment: &Payment,
) -> Result<(u64, Vec<String>), StoreError> {
    let mut findings = Vec::new();
    let refunds = store.refunds_of(&payment.merchant, payment.serial).await?;
    let rows = store.postings_of(&payment.merchant, payment.serial).await?;
    let want = postings_for(payment, &refunds);
    let have: Vec<Posting> = rows.into_iter().map(|it| it.posting).collect();
    let (want, have) = (expected_net(&want), expected_net(&have));
    if want != have {
        let serial = payment.serial;
        findings.push(format!("payment {serial}: state asks for {want:?}, booked {have:?}"));
    }
    let open =
        |it: &&Refund| it.origin == payments::Origin::Merchant && it.state != RefundState::Closed;
    let sum: i64 = refunds.iter().filter(open).map(|it| it.terms.amount.minor()).sum();
    if sum != payment.refunded.minor() || sum > payment.terms.amount.minor() {
        let (serial, says) = (payment.serial, payment.refunded);
        findings.push(format!("payment {serial} says {says} is refunded; refunds say {sum}"));
    }
    Ok((u64::try_from(refunds.len()).unwrap_or(0), findings))
}

/// The postings that a payment and its refunds, as they stand, must have caused.
fn postings_for(payment: &Payment, refunds: &[Refund]) -> Vec<Posting> {
    let mut postings = Vec::new();
    if let Some(receipt) = &payment.receipt {
        postings.extend(ledger::paid(&ledger::Paid {
            merchant: &payment.merchant,
            channel: &channel_of(payment, receipt.attempt),
            gross: receipt.amount,
            fee: payment.fee(),
            cost: payment.cost(),
        }));
    }
    for it in &payment.unexpected {
        let rate = payment.attempt(it.attempt).map(|it| it.cost_rate);
        let cost =
            rate.map_or(Money::zero(it.amount.currency()), |rate| kernel::fee(it.amount, rate));
        postings.extend(ledger::unexpected(&ledger::Unexpected {
            merchant: &payment.merchant,
            channel: &channel_of(payment, it.attempt),
            amount: it.amount,
            cost,
        }));
    }
    for refund in refunds {
        let channel = channel_of(payment, refund.attempt);
        let money = refund_money(refund, &channel);
        match refund.state {
            RefundState::Processing | RefundState::Abnormal => {
                postings.extend(ledger::refund_accepted(&money));
            }
            RefundState::Success => {
                postings.extend(ledger::refund_accepted(&money));
                postings.extend(ledger::refund_done(&money));
            }
            RefundState::Closed => {}
        }
    }
    postings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_read_between_two_looks_at_a_balance_lie_between_them() {
        let balance = |debit_minor, credit_minor| Balance { debit_minor, credit_minor };
        let check = |least, real, most, want| assert_eq!(between(least, real, most), want);
        let (one, two) = (balance(1, 5), balance(2, 5));
        check(one, one, one, true);
        check(one, one, two, true);
        check(one, two, two, true);
        // Nothing was written: then the postings must say the same.
        check(one, two, one, false);
        check(two, one, two, false);
        check(one, balance(1, 6), two, false);
    }
}
