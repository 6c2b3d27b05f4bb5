//! Accounts and their names: `merchant/1900000109/pending/CNY`.

use kernel::{Currency, MerchantId};
use std::fmt;

/// Which side makes an account grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Debit,
    Credit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccountKind {
    /// The channel owes us.
    ChannelReceivable,
    /// Central custody of client funds (备付金).
    ReserveBank,
    PayoutInTransit,
    /// Paid, not cleared.
    MerchantPending,
    MerchantAvailable,
    /// Held for splits, refunds, disputes, risk.
    MerchantFrozen,
    ReceiverAvailable,
    RefundPayable,
    FeeIncome,
    ChannelCost,
    /// Our own money advanced for D+0.
    Prefund,
    FxPosition,
    MarketingCost,
    /// Money under investigation (长款, 短款).
    Suspense,
}

use AccountKind as Kind;

/// Kind, its word in account names, its side, and whether it holds customers' money, which may
/// never go below zero.
const CHART: [(Kind, &str, Side, bool); 14] = [
    (Kind::ChannelReceivable, "channel_receivable", Side::Debit, false),
    (Kind::ReserveBank, "reserve_bank", Side::Debit, false),
    (Kind::PayoutInTransit, "payout_in_transit", Side::Credit, true),
    (Kind::MerchantPending, "merchant_pending", Side::Credit, true),
    (Kind::MerchantAvailable, "merchant_available", Side::Credit, true),
    (Kind::MerchantFrozen, "merchant_frozen", Side::Credit, true),
    (Kind::ReceiverAvailable, "receiver_available", Side::Credit, true),
    (Kind::RefundPayable, "refund_payable", Side::Credit, true),
    (Kind::FeeIncome, "fee_income", Side::Credit, false),
    (Kind::ChannelCost, "channel_cost", Side::Debit, false),
    (Kind::Prefund, "prefund", Side::Debit, false),
    (Kind::FxPosition, "fx_position", Side::Debit, false),
    (Kind::MarketingCost, "marketing_cost", Side::Debit, false),
    (Kind::Suspense, "suspense", Side::Credit, true),
];

impl AccountKind {
    fn row(self) -> &'static (Kind, &'static str, Side, bool) {
        CHART.iter().find(|it| it.0 == self).expect("every kind stands in CHART")
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    pub fn side(self) -> Side {
        self.row().2
    }

    /// Whether the account may never go below zero.
    pub fn is_guarded(self) -> bool {
        self.row().3
    }

    pub fn parse(name: &str) -> Option<AccountKind> {
        CHART.iter().find(|it| it.1 == name).map(|it| it.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    Platform,
    Merchant(MerchantId),
    /// The configured name of a channel.
    Channel(String),
}

/// One account: an owner's, of one kind, in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    pub owner: Owner,
    pub kind: AccountKind,
    pub currency: Currency,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no account name such as merchant/1900000109/merchant_pending/CNY")]
pub struct AccountError(pub String);

impl Account {
    pub fn platform(kind: AccountKind, currency: Currency) -> Account {
        Account { owner: Owner::Platform, kind, currency }
    }

    pub fn merchant(merchant: &MerchantId, kind: AccountKind, currency: Currency) -> Account {
        Account { owner: Owner::Merchant(merchant.clone()), kind, currency }
    }

    pub fn channel(channel: &str, kind: AccountKind, currency: Currency) -> Account {
        Account { owner: Owner::Channel(channel.into()), kind, currency }
    }

    pub fn parse(name: &str) -> Result<Account, AccountError> {
        let bad = || AccountError(name.chars().take(120).collect());
        let parts: Vec<&str> = name.split('/').collect();
        let (owner, kind, currency) = match parts.as_slice() {
            ["platform", kind, currency] => (Owner::Platform, kind, currency),
            ["merchant", id, kind, currency] => {
                (Owner::Merchant(MerchantId::parse(id).map_err(|_| bad())?), kind, currency)
            }
            ["channel", id, kind, currency] => (Owner::Channel((*id).into()), kind, currency),
            [..] => return Err(bad()),
        };
        let kind = AccountKind::parse(kind).ok_or_else(bad)?;
        let currency = Currency::parse(currency).ok_or_else(bad)?;
        Ok(Account { owner, kind, currency })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::Platform => write!(f, "platform")?,
            Owner::Merchant(id) => write!(f, "merchant/{id}")?,
            Owner::Channel(id) => write!(f, "channel/{id}")?,
        }
        write!(f, "/{}/{}", self.kind.name(), self.currency.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let merchant = MerchantId::parse("1900000109").unwrap();
        for (kind, ..) in CHART {
            for account in [
                Account::platform(kind, Currency::Cny),
                Account::merchant(&merchant, kind, Currency::Usd),
                Account::channel("wechat", kind, Currency::Cny),
            ] {
                assert_eq!(Account::parse(&account.to_string()), Ok(account));
            }
        }
        for name in ["", "platform", "merchant/1/x/CNY", "merchant//suspense/CNY", "a/b/c/d/e"] {
            assert!(Account::parse(name).is_err(), "{name}");
        }
    }
}
