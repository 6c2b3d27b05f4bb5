//! Faults on demand: for the next calls, or by chance from the seed.
//!
//! As JSON (`POST /_sim/faults`):
//!
//! ```json
//! {"clear": true,
//!  "next": [{"fault": "drop_after", "on": "create", "times": 1}, {"fault": "delay", "ms": 700}],
//!  "chance": [{"fault": "callback_duplicate", "per_mille": 200}]}
//! ```
//!
//! `on` is `create`, `query`, `close`, `refund`, `query_refund`, `certificates`, `bill` or
//! `download`; without it any call is meant. Faults whose names begin with `callback_` meet the
//! next notification instead of a call.

use super::dice::Dice;
use serde::Deserialize;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Create,
    Query,
    Close,
    Refund,
    QueryRefund,
    Certificates,
    Bill,
    Download,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Cut the line before anything happens.
    DropBefore,
    /// Do what is asked, then cut the line.
    DropAfter,
    /// Do what is asked and leave the caller waiting.
    NeverAnswer,
    Delay {
        ms: u64,
    },
    /// A signature probe: the answer is right, its signature is not.
    BadSignature,
    /// Answer this status (500, 502, 503) and do nothing.
    ErrorBefore {
        status: u16,
    },
    /// Do what is asked, then answer this status.
    ErrorAfter {
        status: u16,
    },
    /// Refuse with this code of the protocol: `NOT_ENOUGH`, `FREQUENCY_LIMITED`, `NO_AUTH`, …
    Refuse {
        code: String,
    },
    /// The state in the answer is a word that nobody knows.
    UnknownState,
    /// The notification goes out before the answer: an order is paid at once, a refund is done
    /// at once, and the answer waits a second.
    CallbackFirst,
    /// The refund will end ABNORMAL.
    RefundAbnormal,
    /// The refund will end CLOSED.
    RefundClosed,
    CallbackDuplicate,
    /// Hold the notification back, so that later ones overtake it.
    CallbackLate {
        ms: u64,
    },
    CallbackBadSignature,
    /// The notification says one fen more than was paid.
    CallbackWrongAmount,
    CallbackUnknownState,
    /// It is never sent: only a query finds out.
    CallbackLost,
}

impl Fault {
    /// Whether it meets notifications rather than calls.
    pub fn is_callback(&self) -> bool {
        match self {
            Fault::CallbackDuplicate
            | Fault::CallbackLate { .. }
            | Fault::CallbackBadSignature
            | Fault::CallbackWrongAmount
            | Fault::CallbackUnknownState
            | Fault::CallbackLost => true,
            Fault::DropBefore
            | Fault::DropAfter
            | Fault::NeverAnswer
            | Fault::Delay { .. }
            | Fault::BadSignature
            | Fault::ErrorBefore { .. }
            | Fault::ErrorAfter { .. }
            | Fault::Refuse { .. }
            | Fault::UnknownState
            | Fault::CallbackFirst
            | Fault::RefundAbnormal
            | Fault::RefundClosed => false,
        }
    }
}

/// A fault for the next `times` calls of that kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Planned {
    #[serde(flatten)]
    pub fault: Fault,
    pub on: Option<Call>,
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

/// A fault that meets each call of that kind with this chance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Chance {
    #[serde(flatten)]
    pub fault: Fault,
    pub on: Option<Call>,
    pub per_mille: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    planned: Vec<Planned>,
    chances: Vec<Chance>,
}

impl Faults {
    pub fn clear(&mut self) {
        *self = Faults::default();
    }

    pub fn plan(&mut self, planned: Planned) {
        self.planned.push(planned);
    }

    pub fn risk(&mut self, chance: Chance) {
        self.chances.push(chance);
    }

    /// The faults that meet this call.
    pub(super) fn of_call(&mut self, call: Call, dice: &mut Dice) -> Vec<Fault> {
        self.take(dice, |fault, on| !fault.is_callback() && on.is_none_or(|it| it == call))
    }

    /// The faults that meet this notification.
    pub(super) fn of_callback(&mut self, dice: &mut Dice) -> Vec<Fault> {
        self.take(dice, |fault, _| fault.is_callback())
    }

    fn take(
        &mut self,
        dice: &mut Dice,
        meets: impl Fn(&Fault, Option<Call>) -> bool,
    ) -> Vec<Fault> {
        let mut met = Vec::new();
        for it in &mut self.planned {
            if it.times > 0 && meets(&it.fault, it.on) {
                it.times -= 1;
                met.push(it.fault.clone());
            }
        }
        self.planned.retain(|it| it.times > 0);
        for it in &self.chances {
            if meets(&it.fault, it.on) && dice.chance(it.per_mille) {
                met.push(it.fault.clone());
            }
        }
        met
    }
}
