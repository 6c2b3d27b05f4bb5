//! Hears of every commit: counts it, and passes the news on to pages and workers.

use super::metrics::Metrics;
use super::trace;
use crate::live::Live;
use app::{Change, CommitError, Observer};
use kernel::{MerchantId, Serial, Timestamp};
use std::sync::Arc;
use std::time::Duration;

pub struct Witness {
    pub live: Live,
    pub metrics: Arc<Metrics>,
}

impl Observer for Witness {
    fn committed(&self, payment: Option<(&MerchantId, Serial)>, due: Option<Timestamp>) {
        self.live.committed(payment, due);
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
