//! How often someone may ask: GCRA, a burst and then a steady rate. What is remembered of a key is
//! forgotten as soon as it is as good as new, so memory follows the keys that are busy.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Old keys are looked for once in so many requests: they are the most that memory holds beside
/// the busy ones.
const SWEEP_EVERY: usize = 10_000;

pub struct Rate<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    burst: u32,
    counted: AtomicUsize,
}

/// A key's rate is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// What may be sent at once.
    pub limit: u32,
    pub retry_after: Duration,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    /// `None`: not limited.
    pub fn new(per_s: u32, burst: u32) -> Option<Arc<Rate<K>>> {
        let (per_s, burst) = (NonZeroU32::new(per_s)?, NonZeroU32::new(burst)?);
        Some(Arc::new(Rate {
            limiter: RateLimiter::keyed(Quota::per_second(per_s).allow_burst(burst)),
            clock: DefaultClock::default(),
            burst: burst.get(),
            counted: AtomicUsize::new(0),
        }))
    }

    pub fn count(&self, key: &K) -> Result<(), Exceeded> {
        if self.counted.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.check_key(key).map_err(|until| Exceeded {
            limit: self.burst,
            retry_after: until.wait_time_from(self.clock.now()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_waits_for_its_turn() {
        let rate = Rate::new(2, 3).unwrap();
        assert!((0..3).all(|_| rate.count(&"a").is_ok()));
        let exceeded = rate.count(&"a").unwrap_err();
        assert_eq!(exceeded.limit, 3);
        assert!(exceeded.retry_after <= Duration::from_millis(500), "{exceeded:?}");
        assert_eq!(rate.count(&"b"), Ok(()));
        assert!(Rate::<&str>::new(0, 3).is_none());
    }

    /// A flood from ever new addresses leaves nothing behind but the latest.
    #[test]
    fn memory_does_not_grow_with_the_number_of_keys() {
        let rate = Rate::new(1_000_000, 1_000).unwrap();
        for key in 0..10 * SWEEP_EVERY {
            assert!(rate.count(&key).is_ok());
        }
        assert!(rate.limiter.len() <= SWEEP_EVERY, "{}", rate.limiter.len());
    }
}
