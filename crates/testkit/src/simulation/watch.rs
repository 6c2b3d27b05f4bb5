//! Looks at every commit as it becomes durable: what has ended stays ended.

use app::Commit;
use kernel::Serial;
use payments::{LatePolicy, Payment, PaymentState, Refund, RefundState};
use std::collections::BTreeMap;

/// The newest committed version of everything.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) payments: BTreeMap<Serial, Payment>,
    pub(super) refunds: BTreeMap<Serial, Refund>,
    pub(super) commits: u64,
}

impl Watch {
    /// Whether the payer could still pay this attempt, as far as we have written down.
    pub(super) fn is_open(&self, attempt: &str) -> bool {
        let attempts = self.payments.values().flat_map(|it| &it.attempts);
        attempts.filter(|it| it.serial.as_str() == attempt).any(|it| it.state.is_open())
    }

    /// Takes in what was written; answers what is wrong with it.
    pub(super) fn committed(&mut self, commit: &Commit) -> Vec<String> {
        self.commits += 1;
        let mut wrong = Vec::new();
        for put in &commit.payments {
            let after = &put.value;
            if let Some(before) = self.payments.get(&after.serial) {
                wrong.extend(payment_change(before, after));
            }
            self.payments.insert(after.serial, after.clone());
        }
        for put in &commit.refunds {
            let after = &put.value;
            if let Some(before) = self.refunds.get(&after.serial) {
                wrong.extend(refund_change(before, after));
            }
            self.refunds.insert(after.serial, after.clone());
        }
        wrong
    }
}

fn payment_change(before: &Payment, after: &Payment) -> Vec<String> {
    let serial = after.serial;
    let mut wrong = Vec::new();
    let may = match (before.state, after.state) {
        (PaymentState::NotPay | PaymentState::UserPaying, _) => true,
        (PaymentState::Closed, PaymentState::Success) => after.late == LatePolicy::Reopen,
        (was, is) => was == is,
    };
    if !may {
        wrong.push(format!("payment {serial} went from {:?} to {:?}", before.state, after.state));
    }
    if before.receipt.is_some() && before.receipt != after.receipt {
        wrong.push(format!("payment {serial} changed its receipt"));
    }
    if !after.unexpected.iter().map(|it| it.attempt).eq(kept(before, after)) {
        wrong.push(format!("payment {serial} forgot unexpected money"));
    }
    if before.terms != after.terms {
        wrong.push(format!("payment {serial} changed its terms"));
    }
    if after.refunded.minor() < 0 || after.refunded.minor() > after.terms.amount.minor() {
        let (refunded, amount) = (after.refunded, after.terms.amount);
        wrong.push(format!("payment {serial} of {amount} has {refunded} refunded"));
    }
    for known in before.attempts.iter().filter(|it| it.receipt.is_some()) {
        if after.attempt(known.serial).is_none_or(|it| it.receipt != known.receipt) {
            wrong.push(format!("attempt {} changed its receipt", known.serial));
        }
    }
    wrong
}

/// The attempts of `after`'s unexpected money, with `before`'s first: equal to `after`'s own if
/// nothing was lost or reordered.
fn kept<'a>(before: &'a Payment, after: &'a Payment) -> impl Iterator<Item = Serial> + 'a {
    let old = before.unexpected.iter().map(|it| it.attempt);
    old.chain(after.unexpected.iter().skip(before.unexpected.len()).map(|it| it.attempt))
}

fn refund_change(before: &Refund, after: &Refund) -> Vec<String> {
    let serial = after.serial;
    let mut wrong = Vec::new();
    let may = match (before.state, after.state) {
        (RefundState::Processing, _) => true,
        (RefundState::Abnormal, RefundState::Processing) => false,
        (RefundState::Abnormal, _) => true,
        (was, is) => was == is,
    };
    if !may {
        wrong.push(format!("refund {serial} went from {:?} to {:?}", before.state, after.state));
    }
    let fixed = |it: &Refund| (it.terms.clone(), it.attempt, it.fee_back, it.cost_back);
    if fixed(before) != fixed(after) {
        wrong.push(format!("refund {serial} changed its terms"));
    }
    wrong
}
