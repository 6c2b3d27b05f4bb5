//! Whether an order may be paid. Pure; every verdict carries its reasons.
//!
//! The interface is the final one. The policy is a stub: it refuses only what a configured
//! single-payment limit forbids, and allows all else.

use kernel::{MerchantId, Money};

/// What is known of the order and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    pub merchant: &'a MerchantId,
    pub amount: Money,
    pub payer: Option<&'a str>,
    pub payer_ip: Option<&'a str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The largest single payment in minor units, in any currency; `None` allows all.
    pub most_minor: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    /// A person must look before the order may be paid.
    Review,
    Deny,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The stable code for machines.
    pub code: &'static str,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub action: Action,
    pub reasons: Vec<Reason>,
}

pub fn assess(facts: &Facts<'_>, policy: &Policy) -> Verdict {
    match policy.most_minor {
        Some(most) if facts.amount.minor() > most => {
            let text = format!("{} is above the limit of {most} minor units", facts.amount);
            let reasons = vec![Reason { code: "single_limit", text }];
            Verdict { action: Action::Deny, reasons }
        }
        Some(_) | None => Verdict { action: Action::Allow, reasons: vec![] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Currency::Cny;

    #[test]
    fn only_the_limit_refuses() {
        let merchant = MerchantId::parse("1").unwrap();
        let check = |minor, most_minor, want| {
            let amount = Money::new(minor, Cny);
            let facts = Facts { merchant: &merchant, amount, payer: None, payer_ip: None };
            assert_eq!(assess(&facts, &Policy { most_minor }).action, want);
        };
        check(100, None, Action::Allow);
        check(100, Some(100), Action::Allow);
        check(101, Some(100), Action::Deny);
    }
}
