//! Which faults a run meets, and how often. Each seed draws its own mixture: runs with few kinds of
//! fault reach states that a storm of all kinds never lets come about.

use super::dice::Dice;
use crate::wechat::{Call, Chance, Fault};

/// Chances are in a thousand.
#[derive(Clone, Debug, Default)]
pub(super) struct Profile {
    pub(super) pause: u16,
    pub(super) crash: u16,
    pub(super) commit_refused: u16,
    /// Written, but the answer is lost.
    pub(super) commit_unknown: u16,
    pub(super) read_fails: u16,
    pub(super) request_lost: u16,
    /// The caller gives up, and the request arrives later all the same.
    pub(super) request_late: u16,
    pub(super) answer_lost: u16,
    pub(super) answer_corrupted: u16,
    pub(super) callback_delayed: u16,
    pub(super) callback_doubled: u16,
    pub(super) callback_corrupted: u16,
    /// To the path of another payment.
    pub(super) callback_misrouted: u16,
    pub(super) merchant_unreached: u16,
    /// The merchant heard and said 200, but its answer is lost.
    pub(super) merchant_unheard: u16,
    /// The same intent is worked on twice at once, as by two processes.
    pub(super) doubled_work: u16,
    /// What the simulated channel does by itself.
    pub(super) channel: Vec<Chance>,
}

fn level(dice: &mut Dice, levels: &[u16]) -> u16 {
    if dice.chance(500) { 0 } else { dice.pick(levels).copied().unwrap_or(0) }
}

impl Profile {
    pub(super) fn draw(dice: &mut Dice) -> Profile {
        let mut some = |levels: &[u16]| level(dice, levels);
        let mut profile = Profile {
            pause: some(&[100, 400, 900]),
            crash: some(&[5, 20, 60]),
            commit_refused: some(&[10, 50, 150]),
            commit_unknown: some(&[10, 50, 150]),
            read_fails: some(&[5, 30]),
            request_lost: some(&[30, 150, 400]),
            request_late: some(&[30, 150]),
            answer_lost: some(&[30, 150, 400]),
            answer_corrupted: some(&[30, 150]),
            callback_delayed: some(&[200, 600]),
            callback_doubled: some(&[100, 400]),
            callback_corrupted: some(&[50, 300]),
            callback_misrouted: some(&[30, 100]),
            merchant_unreached: some(&[100, 400]),
            merchant_unheard: some(&[100, 400]),
            doubled_work: some(&[20, 100]),
            channel: Vec::new(),
        };
        profile.channel = channel_faults(dice, profile.request_late > 0);
        profile
    }
}

/// A channel that refuses for good what it then carries out late would contradict itself: such
/// runs have one or the other.
fn channel_faults(dice: &mut Dice, late_requests: bool) -> Vec<Chance> {
    let refuse = |code: &str| Fault::Refuse { code: code.to_owned() };
    let anywhere = [
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::BadSignature,
        Fault::ErrorBefore { status: 500 },
        Fault::ErrorBefore { status: 502 },
        Fault::ErrorAfter { status: 500 },
        Fault::ErrorAfter { status: 503 },
        Fault::UnknownState,
        Fault::CallbackDuplicate,
        Fault::CallbackLate { ms: 90_000 },
        Fault::CallbackBadSignature,
        Fault::CallbackWrongAmount,
        Fault::CallbackUnknownState,
        Fault::CallbackLost,
        refuse("FREQUENCY_LIMITED"),
    ];
    let mut chances: Vec<Chance> = anywhere
        .into_iter()
        .map(|fault| Chance { fault, on: None, per_mille: level(dice, &[20, 80, 250]) / 2 })
        .collect();
    let mut only = |fault, on, levels: &[u16]| {
        let per_mille = level(dice, levels);
        chances.push(Chance { fault, on: Some(on), per_mille });
    };
    only(Fault::CallbackFirst, Call::Create, &[30, 100]);
    only(Fault::CallbackFirst, Call::Refund, &[100, 400]);
    only(Fault::RefundAbnormal, Call::Refund, &[100, 300]);
    only(Fault::RefundClosed, Call::Refund, &[100, 300]);
    only(refuse("NOT_ENOUGH"), Call::Refund, &[100, 400]);
    if !late_requests {
        only(refuse("NO_AUTH"), Call::Create, &[30, 100]);
        only(refuse("NO_AUTH"), Call::Refund, &[50, 200]);
        only(refuse("TRADE_ERROR"), Call::Close, &[100, 300]);
    }
    chances.retain(|it| it.per_mille > 0);
    chances
}
