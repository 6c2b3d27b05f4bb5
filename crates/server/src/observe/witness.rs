//! Hears of every commit: counts it, and passes the news on to pages and workers.

use super::metrics::Metrics;
use super::trace;
use crate::bus::{Hint, Hints};
use crate::clock::Clock;
use crate::live::Live;
use app::{Change, CommitError, Observer};
use kernel::{MerchantId, Serial, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Work that falls due later than this need not be told to other processes: they look by then.
const SOON_S: i64 = 1;

pub struct Witness {
    pub live: Live,
    pub metrics: Arc<Metrics>,
    /// Towards other processes.
    pub hints: Option<Arc<Hints>>,
    pub clock: Clock,
}

impl Observer for Witness {
    fn committed(&self, payment: Option<(&MerchantId, Serial)>, due: Option<Timestamp>) {
        self.live.committed(payment, due);
        let Some(hints) = &self.hints else { return };
        if let Some((_, serial)) = payment {
            hints.give(Hint::Changed(serial));
        }
        if due.is_some_and(|it| it <= self.clock.now().plus_s(SOON_S)) {
            hints.give(Hint::Due);
        }
    }

    fn answered(&self, result: &Result<(), CommitError>, took: Duration) {
        self.metrics.committed(result, took);
    }

    fn changed(&self, change: &Change) {
        self.metrics.changed(change);
    }

    fn trace(&self) -> Option<String> {
        trace::current()
    }
}
