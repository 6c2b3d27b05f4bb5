//! `[limits]`: how much of the platform one merchant, one address and everybody may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What protects the platform from abuse and overload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Requests a second of one merchant, counted once the signature held; 0 does not limit.
    #[schemars(range(min = 0, max = 1_000_000), extend("x-live" = true))]
    pub per_merchant_per_s: u32,
    /// How many a merchant may send at once before the rate counts.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-live" = true))]
    pub merchant_burst: u32,
    /// Requests a second of one address (IPv6: of one /64), counted before anything is checked;
    /// 0 does not limit.
    #[schemars(range(min = 0, max = 1_000_000), extend("x-live" = true))]
    pub per_ip_per_s: u32,
    /// How many an address may send at once before the rate counts.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-live" = true))]
    pub ip_burst: u32,
    /// Connections that are open at once.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-live" = true))]
    pub max_connections: usize,
    /// The same of one address (IPv6: of one /64); not counted behind a proxy.
    #[schemars(range(min = 1, max = 1_000_000), extend("x-live" = true))]
    pub max_connections_per_ip: usize,
    /// Requests that are worked on at once. As many again may wait.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: usize,
    /// How long a request may wait for a core or a place. When the queue has not been empty for as
    /// long, a quarter of it counts, so that a queue cannot stand.
    #[schemars(range(min = 1, max = 10_000), extend("x-live" = true))]
    pub queue_wait_ms: u64,
    /// The largest head of a request.
    #[schemars(range(min = 1_024, max = 262_144))]
    pub header_bytes: usize,
    /// The largest body of a merchant's request.
    #[schemars(range(min = 1_024, max = 16_777_216), extend("x-live" = true))]
    pub body_bytes: usize,
    /// A head that is not whole by then is cut off.
    #[schemars(range(min = 1, max = 300), extend("x-live" = true))]
    pub header_timeout_s: u64,
    /// The same for a body; with `body_bytes` it is the lowest rate at which one may arrive.
    #[schemars(range(min = 1, max = 300), extend("x-live" = true))]
    pub body_timeout_s: u64,
    /// A connection without a request, or whose other end does not read, is closed by then.
    #[schemars(range(min = 1, max = 3_600), extend("x-live" = true))]
    pub idle_timeout_s: u64,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            // A fifth of what two cores sign.
            per_merchant_per_s: 1_000,
            merchant_burst: 2_000,
            // Several merchants may stand behind one address.
            per_ip_per_s: 2_000,
            ip_burst: 4_000,
            max_connections: 20_000,
            max_connections_per_ip: 5_000,
            // An eager order waits for its channel, most of the time doing nothing.
            max_in_flight: 1_024,
            queue_wait_ms: 200,
            header_bytes: 16_384,
            body_bytes: 65_536,
            header_timeout_s: 10,
            body_timeout_s: 10,
            idle_timeout_s: 75,
        }
    }
}

impl LimitsConfig {
    /// Rates are not limited: for benchmarks and the demo, whose load comes from one address.
    pub fn without_rates(self) -> LimitsConfig {
        LimitsConfig { per_merchant_per_s: 0, per_ip_per_s: 0, ..self }
    }

    pub fn queue_wait(&self) -> Duration {
        Duration::from_millis(self.queue_wait_ms)
    }

    pub fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_timeout_s)
    }

    pub fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_s)
    }

    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s)
    }
}
