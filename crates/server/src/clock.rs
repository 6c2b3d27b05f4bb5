//! Two clocks. The wall clock dates signatures and is never moved. The business clock dates orders,
//! bills and retries; the demo may move it forward.

use kernel::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

/// The real time.
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Clock {
    /// The time that business goes by.
    pub fn now(&self) -> Timestamp {
        wall().plus_ms(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Moves the business clock forward; it never goes back. Returns how far ahead it is.
    pub fn advance_s(&self, seconds: u32) -> i64 {
        let by = i64::from(seconds) * 1000;
        self.ahead_ms.fetch_add(by, Ordering::Relaxed) + by
    }
}
