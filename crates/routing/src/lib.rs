//! Which channel takes an order. Pure: no clock, no store, no log.
//!
//! Every refusal keeps its reason, so the decision explains itself in the console and in tests.
//! The policy is still the simplest one: the cheapest willing channel, ties by name.

use channel::{Abilities, ChannelId, Product};
use kernel::{BasisPoints, Money};

/// What is known of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFacts {
    pub amount: Money,
    /// `None`: the payer's device decides later.
    pub product: Option<Product>,
}

/// What is known of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: ChannelId,
    pub abilities: Abilities,
    pub cost: BasisPoints,
    /// False while operators have switched it off.
    pub enabled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Disabled,
    Product(Product),
    Currency(Money),
    TooSmall { least_minor: i64 },
    TooLarge { most_minor: i64 },
}

/// The stable word for machines.
impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Disabled => "disabled",
            Refusal::Product(_) => "product_not_offered",
            Refusal::Currency(_) => "currency_not_offered",
            Refusal::TooSmall { .. } => "amount_too_small",
            Refusal::TooLarge { .. } => "amount_too_large",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub chosen: Option<ChannelId>,
    pub refused: Vec<(ChannelId, Refusal)>,
}

impl Candidate {
    pub fn refusal(&self, order: &OrderFacts) -> Option<Refusal> {
        let (least_minor, most_minor) = self.abilities.amount_minor;
        let minor = order.amount.minor();
        if !self.enabled {
            return Some(Refusal::Disabled);
        }
        if !self.abilities.currencies.contains(&order.amount.currency()) {
            return Some(Refusal::Currency(order.amount));
        }
        if let Some(product) = order.product
            && !self.abilities.products.contains(&product)
        {
            return Some(Refusal::Product(product));
        }
        if minor < least_minor {
            return Some(Refusal::TooSmall { least_minor });
        }
        (minor > most_minor).then_some(Refusal::TooLarge { most_minor })
    }
}

/// Chooses the cheapest willing channel.
pub fn choose(order: &OrderFacts, candidates: &[Candidate]) -> Decision {
    let mut refused = Vec::new();
    let mut willing = Vec::new();
    for candidate in candidates {
        match candidate.refusal(order) {
            Some(reason) => refused.push((candidate.id.clone(), reason)),
            None => willing.push(candidate),
        }
    }
    let cheapest = willing.iter().min_by_key(|it| (it.cost, &it.id));
    Decision { chosen: cheapest.map(|it| it.id.clone()), refused }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Currency::{Cny, Usd};

    fn candidate(name: &str, cost: u16) -> Candidate {
        let abilities = Abilities {
            products: vec![Product::Native, Product::H5],
            currencies: vec![Cny],
            amount_minor: (10, 1_000),
            refund_days: 365,
            refunds_per_payment: 50,
        };
        let cost = BasisPoints::new(cost).unwrap();
        Candidate { id: ChannelId::new(name), abilities, cost, enabled: true }
    }

    #[track_caller]
    fn check(money: Money, product: Option<Product>, off: &str, want: &str) {
        let mut list = [candidate("b", 30), candidate("a", 30), candidate("c", 25)];
        list.iter_mut().for_each(|it| it.enabled = !off.contains(it.id.as_str()));
        let decision = choose(&OrderFacts { amount: money, product }, &list);
        let mut told = vec![decision.chosen.map_or("none".into(), |it| it.to_string())];
        told.extend(decision.refused.iter().map(|(id, it)| format!("{id}:{}", it.code())));
        assert_eq!(told.join(" "), want);
    }

    #[test]
    fn the_cheapest_willing_channel_is_chosen_and_refusals_are_kept() {
        let yuan = |minor| Money::new(minor, Cny);
        check(yuan(100), Some(Product::Native), "", "c");
        check(yuan(100), None, "c", "a c:disabled");
        check(
            yuan(100),
            Some(Product::App),
            "bc",
            "none b:disabled a:product_not_offered c:disabled",
        );
        check(yuan(9), None, "bc", "none b:disabled a:amount_too_small c:disabled");
        check(yuan(1_001), None, "bc", "none b:disabled a:amount_too_large c:disabled");
        check(
            Money::new(100, Usd),
            None,
            "bc",
            "none b:disabled a:currency_not_offered c:disabled",
        );
    }
}
