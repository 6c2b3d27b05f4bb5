//! One order at one channel.

use kernel::{BasisPoints, Money, Serial, Timestamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// Written down; the channel is being asked.
    Sent,
    /// Asked, no answer: the order may exist there.
    InDoubt,
    /// The order exists and waits for the payer.
    Waiting,
    /// The payer is typing a password.
    Paying,
    Succeeded,
    Failed,
    Closed,
}

/// What is known about an attempt from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    Prepared(Prepay),
    Waiting,
    Paying,
    Paid(Receipt),
    Failed {
        why: String,
    },
    Closed,
    /// The channel does not know the order (yet).
    NotFound,
    NoAnswer {
        why: String,
    },
}

/// What a payer's device needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepay {
    pub code_url: Option<String>,
    pub h5_url: Option<String>,
    pub prepay_id: Option<String>,
}

/// Money that a channel says it took, once order, merchant and signature matched ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub attempt: Serial,
    pub amount: Money,
    /// The channel's own number of the payment.
    pub transaction: String,
    pub payer: Option<String>,
    pub bank: Option<String>,
    pub at: Timestamp,
}

/// Evidence that cannot be true together with what was known. It is kept and shown, not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attempt {attempt} is {state:?}, but the channel now says {said}")]
pub struct Contradiction {
    pub attempt: Serial,
    pub state: AttemptState,
    pub said: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub serial: Serial,
    /// The configured name of the channel.
    pub channel: String,
    pub product: crate::TradeProduct,
    pub amount: Money,
    /// What the channel keeps of a payment.
    pub cost_rate: BasisPoints,
    pub state: AttemptState,
    pub started: Timestamp,
    pub prepay: Option<Prepay>,
    pub receipt: Option<Receipt>,
    /// Why it failed, or why the last answer was no answer.
    pub note: Option<String>,
}

impl AttemptState {
    /// Whether the payer may still pay.
    pub fn is_open(self) -> bool {
        match self {
            Self::Sent | Self::InDoubt | Self::Waiting | Self::Paying => true,
            Self::Succeeded | Self::Failed | Self::Closed => false,
        }
    }

    /// Folds one piece of evidence in. Total and without `_`. Money always wins: *paid* after
    /// *closed* is a success, because the payer has paid. Older news after a success changes
    /// nothing; a denial after a success is a contradiction (`None`).
    pub fn next(self, evidence: &Evidence) -> Option<AttemptState> {
        use Evidence as E;
        match (self, evidence) {
            (
                Self::Sent
                | Self::InDoubt
                | Self::Waiting
                | Self::Paying
                | Self::Failed
                | Self::Closed
                | Self::Succeeded,
                E::Paid(_),
            ) => Some(Self::Succeeded),
            (Self::Sent | Self::InDoubt | Self::Waiting, E::Prepared(_) | E::Waiting) => {
                Some(Self::Waiting)
            }
            (Self::Paying, E::Prepared(_)) => Some(Self::Paying),
            // Wrong password, no balance: the payer may try again.
            (Self::Paying, E::Waiting) => Some(Self::Waiting),
            (Self::Sent | Self::InDoubt | Self::Waiting | Self::Paying, E::Paying) => {
                Some(Self::Paying)
            }
            (Self::Sent | Self::InDoubt | Self::Waiting | Self::Paying, E::Failed { .. }) => {
                Some(Self::Failed)
            }
            (Self::Sent | Self::InDoubt | Self::Waiting | Self::Paying, E::Closed) => {
                Some(Self::Closed)
            }
            // The create call may still be under way, so "not found" decides nothing.
            (Self::Sent | Self::InDoubt, E::NoAnswer { .. } | E::NotFound) => Some(Self::InDoubt),
            (Self::Waiting | Self::Paying, E::NoAnswer { .. } | E::NotFound) => Some(self),
            (Self::Succeeded, E::Prepared(_) | E::Waiting | E::Paying | E::NoAnswer { .. }) => {
                Some(Self::Succeeded)
            }
            (Self::Succeeded, E::Failed { .. } | E::Closed | E::NotFound) => None,
            (
                Self::Failed | Self::Closed,
                E::Prepared(_)
                | E::Waiting
                | E::Paying
                | E::Failed { .. }
                | E::Closed
                | E::NotFound
                | E::NoAnswer { .. },
            ) => Some(self),
        }
    }
}

impl Attempt {
    /// The attempt after `evidence`, or the contradiction.
    pub fn after(&self, evidence: &Evidence) -> Result<Attempt, Contradiction> {
        let contradiction =
            |said: String| Contradiction { attempt: self.serial, state: self.state, said };
        let Some(state) = self.state.next(evidence) else {
            return Err(contradiction(evidence.word().into()));
        };
        let mut next = Attempt { state, ..self.clone() };
        match evidence {
            Evidence::Prepared(prepay) => next.prepay = Some(prepay.clone()),
            Evidence::Paid(receipt) => match &self.receipt {
                Some(known) if known.transaction != receipt.transaction => {
                    let said = format!("paid again as {}", receipt.transaction);
                    return Err(contradiction(said));
                }
                Some(known) if known.amount != receipt.amount => {
                    let said = format!("{} of {}", receipt.amount, known.amount);
                    return Err(contradiction(said));
                }
                Some(_) => {}
                None => next.receipt = Some(receipt.clone()),
            },
            Evidence::Failed { why } | Evidence::NoAnswer { why } => next.note = Some(why.clone()),
            Evidence::Waiting | Evidence::Paying | Evidence::Closed | Evidence::NotFound => {}
        }
        Ok(next)
    }
}

impl Evidence {
    pub fn word(&self) -> &'static str {
        match self {
            Evidence::Prepared(_) => "prepared",
            Evidence::Waiting => "waiting",
            Evidence::Paying => "paying",
            Evidence::Paid(_) => "paid",
            Evidence::Failed { .. } => "failed",
            Evidence::Closed => "closed",
            Evidence::NotFound => "not found",
            Evidence::NoAnswer { .. } => "no answer",
        }
    }
}
