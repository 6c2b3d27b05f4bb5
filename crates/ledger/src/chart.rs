//! What each event posts. Every function returns balanced postings; those of nothing are left out.

use crate::{Account, AccountKind as Kind, Posting, Side};
use kernel::{MerchantId, Money};
use std::collections::BTreeMap;

/// A payment that fulfils its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid<'a> {
    pub merchant: &'a MerchantId,
    pub channel: &'a str,
    pub gross: Money,
    /// What we keep from the merchant.
    pub fee: Money,
    /// What the channel keeps from us.
    pub cost: Money,
}

pub fn paid(it: &Paid<'_>) -> Vec<Posting> {
    let currency = it.gross.currency();
    let receivable = Account::channel(it.channel, Kind::ChannelReceivable, currency);
    let pending = Account::merchant(it.merchant, Kind::MerchantPending, currency);
    let income = Account::platform(Kind::FeeIncome, currency);
    let cost = Account::channel(it.channel, Kind::ChannelCost, currency);
    moves([
        (&receivable, &pending, it.gross),
        (&pending, &income, it.fee),
        (&cost, &receivable, it.cost),
    ])
}

/// Money that arrived but that the order cannot use: paid twice, too late or wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected<'a> {
    pub merchant: &'a MerchantId,
    pub channel: &'a str,
    pub amount: Money,
    pub cost: Money,
}

pub fn unexpected(it: &Unexpected<'_>) -> Vec<Posting> {
    let currency = it.amount.currency();
    let receivable = Account::channel(it.channel, Kind::ChannelReceivable, currency);
    let suspense = Account::merchant(it.merchant, Kind::Suspense, currency);
    let cost = Account::channel(it.channel, Kind::ChannelCost, currency);
    moves([(&receivable, &suspense, it.amount), (&cost, &receivable, it.cost)])
}

/// Where refunded money is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The merchant's balance: available first, the rest from pending.
    Merchant { from_available_minor: i64 },
    /// Money that never became the merchant's.
    Suspense,
}

/// The sums of one refund; `fee_back` and `cost_back` are its shares of fee and cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundMoney<'a> {
    pub merchant: &'a MerchantId,
    pub channel: &'a str,
    pub amount: Money,
    pub fee_back: Money,
    pub cost_back: Money,
    pub source: Source,
}

struct RefundAccounts {
    income: Account,
    pending: Account,
    available: Account,
    suspense: Account,
    payable: Account,
    from_available: Money,
    rest: Money,
}

fn refund_accounts(it: &RefundMoney<'_>) -> RefundAccounts {
    let currency = it.amount.currency();
    let own = |kind| Account::merchant(it.merchant, kind, currency);
    let from_available = match it.source {
        Source::Merchant { from_available_minor } => from_available_minor.min(it.amount.minor()),
        Source::Suspense => 0,
    };
    RefundAccounts {
        income: Account::platform(Kind::FeeIncome, currency),
        pending: own(Kind::MerchantPending),
        available: own(Kind::MerchantAvailable),
        suspense: own(Kind::Suspense),
        payable: own(Kind::RefundPayable),
        from_available: Money::new(from_available, currency),
        rest: Money::new(it.amount.minor() - from_available, currency),
    }
}

/// The fee's share comes back first, so a lone payment can be refunded in full.
pub fn refund_accepted(it: &RefundMoney<'_>) -> Vec<Posting> {
    let to = refund_accounts(it);
    let rest_from = match it.source {
        Source::Merchant { .. } => &to.pending,
        Source::Suspense => &to.suspense,
    };
    moves([
        (&to.income, &to.pending, it.fee_back),
        (&to.available, &to.payable, to.from_available),
        (rest_from, &to.payable, to.rest),
    ])
}

/// The payer has the money; the channel takes it from what it owes us and returns its cost.
pub fn refund_done(it: &RefundMoney<'_>) -> Vec<Posting> {
    let currency = it.amount.currency();
    let payable = refund_accounts(it).payable;
    let receivable = Account::channel(it.channel, Kind::ChannelReceivable, currency);
    let cost = Account::channel(it.channel, Kind::ChannelCost, currency);
    moves([(&payable, &receivable, it.amount), (&receivable, &cost, it.cost_back)])
}

/// Undoes [`refund_accepted`].
pub fn refund_failed(it: &RefundMoney<'_>) -> Vec<Posting> {
    refund_accepted(it)
        .into_iter()
        .rev()
        .map(|it| Posting { debit: it.credit, credit: it.debit, amount: it.amount })
        .collect()
}

fn moves<const N: usize>(list: [(&Account, &Account, Money); N]) -> Vec<Posting> {
    let some = list.into_iter().filter(|it| it.2.minor() != 0);
    some.map(|(debit, credit, amount)| Posting {
        debit: debit.clone(),
        credit: credit.clone(),
        amount,
    })
    .collect()
}

/// The net effect of postings on each account, debits positive, zeros left out: two sets of
/// postings say the same if this is equal.
pub fn expected_net<'a>(
    postings: impl IntoIterator<Item = &'a Posting>,
) -> BTreeMap<Account, i128> {
    let mut net = BTreeMap::new();
    for posting in postings {
        for (account, side) in posting.legs() {
            let signed = match side {
                Side::Debit => i128::from(posting.amount.minor()),
                Side::Credit => -i128::from(posting.amount.minor()),
            };
            *net.entry(account.clone()).or_insert(0) += signed;
        }
    }
    net.retain(|_, it| *it != 0);
    net
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Balance;
    use kernel::Currency::Cny;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn post_all(books: &mut HashMap<Account, Balance>, postings: &[Posting]) {
        for posting in postings {
            for (account, side) in posting.legs() {
                let before = books.get(account).copied().unwrap_or_default();
                books.insert(account.clone(), before.post(account, side, posting.amount).unwrap());
            }
        }
    }

    fn refund<'a>(
        merchant: &'a MerchantId,
        amount: i64,
        fee: i64,
        source: Source,
    ) -> RefundMoney<'a> {
        RefundMoney {
            merchant,
            channel: "wechat",
            amount: Money::new(amount, Cny),
            fee_back: Money::new(fee, Cny),
            cost_back: Money::new(fee / 2, Cny),
            source,
        }
    }

    #[test]
    fn a_lone_payment_can_be_refunded_in_full() {
        let merchant = MerchantId::parse("1").unwrap();
        let mut books = HashMap::new();
        let [gross, fee, cost] = [10_000, 60, 30].map(|it| Money::new(it, Cny));
        post_all(
            &mut books,
            &paid(&Paid { merchant: &merchant, channel: "wechat", gross, fee, cost }),
        );
        let all = refund(&merchant, 10_000, 60, Source::Merchant { from_available_minor: 0 });
        post_all(&mut books, &refund_accepted(&all));
        post_all(&mut books, &refund_done(&all));
        assert!(books.iter().all(|(account, it)| it.held(account.kind.side()) == 0), "{books:?}");
    }

    #[test]
    fn the_same_money_cannot_be_refunded_twice() {
        let merchant = MerchantId::parse("1").unwrap();
        let mut books = HashMap::new();
        let [gross, fee, cost] = [100, 0, 0].map(|it| Money::new(it, Cny));
        post_all(
            &mut books,
            &paid(&Paid { merchant: &merchant, channel: "wechat", gross, fee, cost }),
        );
        let all = refund(&merchant, 100, 0, Source::Merchant { from_available_minor: 0 });
        post_all(&mut books, &refund_accepted(&all));
        let again = &refund_accepted(&all)[0];
        let held = books[&again.debit];
        assert!(held.post(&again.debit, Side::Debit, again.amount).is_err());
    }

    proptest! {
        /// A refund that fails leaves no trace in any balance.
        #[test]
        fn failing_undoes_accepting(
            amount in 1i64..1_000_000, fee in 0i64..1_000, available in 0i64..1_000_000, suspense: bool,
        ) {
            let merchant = MerchantId::parse("1").unwrap();
            let source = if suspense { Source::Suspense }
                else { Source::Merchant { from_available_minor: available } };
            let it = refund(&merchant, amount, fee, source);
            let mut both = refund_accepted(&it);
            both.extend(refund_failed(&it));
            prop_assert_eq!(expected_net(&both), BTreeMap::new());
        }
    }
}
