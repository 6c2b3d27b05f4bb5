//! When to stop asking a channel that does not answer. Pure: the time is an argument, and whoever
//! sends also keeps the state.

use kernel::Timestamp;

/// The circuit to one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Requests flow. Counts the unanswered ones in a row.
    Closed { failures: u32 },
    /// Nothing is sent before `until`.
    Open { until: Timestamp },
    /// One request is out to try. If its sender vanishes, another may go after `until`.
    HalfOpen { until: Timestamp },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Unanswered requests in a row that open the circuit.
    pub failures: u32,
    /// How long an open circuit rests before one request may try.
    pub rest_ms: i64,
    /// How long that one may take: longer than any request's own limit.
    pub trial_ms: i64,
}

/// What became of one request. An error answer is an answer; a 5xx status is not, because
/// gateways send it in the name of a service that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    Unanswered,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a request may be sent now, and the state after that.
    pub fn admit(self, now: Timestamp, limits: &BreakerLimits) -> (Breaker, bool) {
        match self {
            Breaker::Closed { .. } => (self, true),
            Breaker::Open { until } | Breaker::HalfOpen { until } => {
                if now < until {
                    (self, false)
                } else {
                    (Breaker::HalfOpen { until: now.plus_ms(limits.trial_ms) }, true)
                }
            }
        }
    }

    /// Folds the outcome of an admitted request in.
    pub fn record(self, outcome: Outcome, now: Timestamp, limits: &BreakerLimits) -> Breaker {
        use Outcome::{Answered, Unanswered};
        let open = Breaker::Open { until: now.plus_ms(limits.rest_ms) };
        match (self, outcome) {
            (Breaker::Closed { .. } | Breaker::HalfOpen { .. }, Answered) => Breaker::default(),
            (Breaker::Closed { failures }, Unanswered) => {
                let failures = failures.saturating_add(1);
                if failures >= limits.failures { open } else { Breaker::Closed { failures } }
            }
            (Breaker::HalfOpen { .. }, Unanswered) => open,
            // A request from before the circuit opened: its news is old either way.
            (Breaker::Open { .. }, Answered | Unanswered) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: BreakerLimits = BreakerLimits { failures: 3, rest_ms: 10_000, trial_ms: 5_000 };

    /// What happens, at which millisecond.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Sends(i64),
        IsRefused(i64),
        Answers(i64),
        Fails(i64),
    }

    #[track_caller]
    fn check(steps: &[Step], want: Breaker) {
        let at = Timestamp::from_ms;
        let got = steps.iter().fold(Breaker::default(), |state, &step| match step {
            Step::Sends(ms) | Step::IsRefused(ms) => {
                let (state, sent) = state.admit(at(ms), &LIMITS);
                assert_eq!(sent, matches!(step, Step::Sends(_)), "{step:?} of {steps:?}");
                state
            }
            Step::Answers(ms) => state.record(Outcome::Answered, at(ms), &LIMITS),
            Step::Fails(ms) => state.record(Outcome::Unanswered, at(ms), &LIMITS),
        });
        assert_eq!(got, want, "after {steps:?}");
    }

    #[test]
    fn a_silent_channel_is_left_alone_then_tried_once() {
        use Step::{Answers, Fails, IsRefused, Sends};
        let closed = |failures| Breaker::Closed { failures };
        let open = |ms| Breaker::Open { until: Timestamp::from_ms(ms) };
        let half_open = |ms| Breaker::HalfOpen { until: Timestamp::from_ms(ms) };
        check(&[Sends(0), Fails(1), Sends(1), Fails(2)], closed(2));
        check(&[Fails(1), Fails(2), Answers(3), Fails(4)], closed(1));
        check(&[Fails(1), Fails(2), Fails(3)], open(10_003));
        check(&[Fails(1), Fails(2), Fails(3), IsRefused(10_002)], open(10_003));
        // Old news does not move an open circuit.
        check(&[Fails(1), Fails(2), Fails(3), Fails(9), Answers(9)], open(10_003));
        // One tries; the others wait for its result.
        let rested = [Fails(1), Fails(2), Fails(3), Sends(10_003), IsRefused(10_004)];
        check(&rested, half_open(15_003));
        check(&[&rested[..], &[Answers(10_100), Sends(10_101)]].concat(), closed(0));
        check(&[&rested[..], &[Fails(11_000), IsRefused(11_001)]].concat(), open(21_000));
        // One that never reports does not block for ever.
        check(&[&rested[..], &[IsRefused(15_002), Sends(15_003)]].concat(), half_open(20_003));
    }

    proptest! {
        /// Whatever happened, a channel is asked again after a rest, and its answer heals all.
        #[test]
        fn no_channel_is_given_up(outcomes in prop::collection::vec((any::<bool>(), 0i64..30_000), 0..50)) {
            let (mut state, mut now) = (Breaker::default(), Timestamp::from_ms(0));
            for (answered, wait_ms) in outcomes {
                now = now.plus_ms(wait_ms);
                let (next, sent) = state.admit(now, &LIMITS);
                let outcome = if answered { Outcome::Answered } else { Outcome::Unanswered };
                state = if sent { next.record(outcome, now, &LIMITS) } else { next };
            }
            let later = now.plus_ms(LIMITS.rest_ms.max(LIMITS.trial_ms));
            let (state, sent) = state.admit(later, &LIMITS);
            prop_assert!(sent);
            prop_assert_eq!(state.record(Outcome::Answered, later, &LIMITS), Breaker::default());
        }
    }
}
