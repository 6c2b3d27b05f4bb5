//! What stands on an account.

use crate::{Account, Side};
use kernel::Money;

/// The sums of all debits and credits ever posted to an account, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub debit_minor: i64,
    pub credit_minor: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BalanceError {
    #[error("{account} holds {held} and cannot give {asked}")]
    Insufficient { account: Account, held: Money, asked: Money },
    #[error("{account} would not fit 64 bits")]
    Overflow { account: Account },
    #[error("{amount} was posted to {account}, which keeps another currency, or is not above zero")]
    Nonsense { account: Account, amount: Money },
}

impl Balance {
    /// What the account holds, seen from the side on which it grows.
    pub fn held(self, side: Side) -> i64 {
        match side {
            Side::Debit => self.debit_minor - self.credit_minor,
            Side::Credit => self.credit_minor - self.debit_minor,
        }
    }

    /// Adds one leg of a posting.
    ///
    /// - Errors: a guarded account would go below zero; wrong currency; amount not positive.
    pub fn post(
        self,
        account: &Account,
        side: Side,
        amount: Money,
    ) -> Result<Balance, BalanceError> {
        if amount.currency() != account.currency || !amount.is_positive() {
            return Err(BalanceError::Nonsense { account: account.clone(), amount });
        }
        let overflow = || BalanceError::Overflow { account: account.clone() };
        let mut after = self;
        let column = match side {
            Side::Debit => &mut after.debit_minor,
            Side::Credit => &mut after.credit_minor,
        };
        *column = column.checked_add(amount.minor()).ok_or_else(overflow)?;
        if account.kind.is_guarded() && after.held(account.kind.side()) < 0 {
            let held = Money::new(self.held(account.kind.side()), account.currency);
            return Err(BalanceError::Insufficient {
                account: account.clone(),
                held,
                asked: amount,
            });
        }
        Ok(after)
    }
}
