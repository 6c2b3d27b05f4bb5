//! What protects the platform from abuse and overload: rates of merchants and addresses, admission
//! ahead of the expensive part, bounds on connections and on how slowly they may send.
//!
//! Whoever is refused is told at once, unsigned and cheaply. A request that was admitted is never
//! dropped here.

mod admission;
mod connections;
mod patience;
mod rate;
mod refusal;
mod sign_pool;

pub use admission::Permit;
pub use connections::Slot;
pub use patience::{Answered, Patient, Phase};
pub use refusal::{Refused, refuse, refuse_connection};

use crate::config::LimitsConfig;
use admission::Room;
use arc_swap::ArcSwap;
use connections::Connections;
use kernel::MerchantId;
use rate::Rate;
use sign_pool::{Expected, SignPool};
use std::net::IpAddr;
use std::sync::Arc;

pub struct Limits {
    current: ArcSwap<Current>,
    /// Requests of merchants and payers.
    room: Room,
    /// Callbacks of channels: a flood of either must not keep out the other.
    callbacks: Room,
    signers: SignPool,
    connections: Arc<Connections>,
}

/// Replaced whole by a reload.
struct Current {
    config: LimitsConfig,
    merchants: Option<Arc<Rate<MerchantId>>>,
    addresses: Option<Arc<Rate<IpAddr>>>,
}

impl Limits {
    pub fn new(config: LimitsConfig) -> Limits {
        let room = || Room::new(config.max_in_flight);
        Limits {
            room: room(),
            callbacks: room(),
            signers: SignPool::start(),
            connections: Arc::default(),
            current: ArcSwap::from_pointee(Current {
                merchants: Rate::new(config.per_merchant_per_s, config.merchant_burst),
                addresses: Rate::new(config.per_ip_per_s, config.ip_burst),
                config,
            }),
        }
    }

    /// From now on. A rate that did not change remembers what it has counted.
    pub fn adopt(&self, config: LimitsConfig) {
        let old = self.current.load_full();
        let rates = |it: &LimitsConfig| {
            ((it.per_merchant_per_s, it.merchant_burst), (it.per_ip_per_s, it.ip_burst))
        };
        let ((before_merchants, before_addresses), (merchants, addresses)) =
            (rates(&old.config), rates(&config));
        let merchants = match merchants {
            same if same == before_merchants => old.merchants.clone(),
            (per_s, burst) => Rate::new(per_s, burst),
        };
        let addresses = match addresses {
            same if same == before_addresses => old.addresses.clone(),
            (per_s, burst) => Rate::new(per_s, burst),
        };
        self.current.store(Arc::new(Current { config, merchants, addresses }));
    }

    pub fn config(&self) -> LimitsConfig {
        self.current.load().config.clone()
    }

    /// Counts a request of an address, before anything else is looked at.
    pub fn count_address(&self, ip: IpAddr) -> Result<(), Refused> {
        match &self.current.load().addresses {
            Some(rate) => rate.count(&network(ip)).map_err(Refused::Address),
            None => Ok(()),
        }
    }

    /// Counts a request whose signature held.
    pub fn count_merchant(&self, id: &MerchantId) -> Result<(), Refused> {
        match &self.current.load().merchants {
            Some(rate) => rate.count(id).map_err(Refused::Merchant),
            None => Ok(()),
        }
    }

    /// Whether a new request has a prospect of a core. Cheap; asked before its body is read.
    pub fn knock(&self) -> Result<(), Refused> {
        let (wait, standing) = self.signers.prospect();
        let most = self.current.load().config.queue_wait();
        if admission::admits(wait, standing, most) { Ok(()) } else { Err(Refused::Overload) }
    }

    /// How long the first has waited of those whose answers are to be signed.
    pub fn queue_wait(&self) -> std::time::Duration {
        self.signers.queue().0
    }

    /// A place to work in for a merchant's request, whose answer will be signed.
    pub async fn enter(&self) -> Result<(Permit, Expected), Refused> {
        // Asked again, because many may have knocked at the same moment; counted only now, because
        // a body that does not come must not count.
        self.knock()?;
        let expected = self.signers.expect();
        Ok((self.enter_page().await?, expected))
    }

    /// The same for a payer's page.
    pub async fn enter_page(&self) -> Result<Permit, Refused> {
        let most = self.current.load().config.queue_wait();
        self.room.enter(most).await
    }

    /// The same for a channel's callback.
    pub async fn enter_callback(&self) -> Result<Permit, Refused> {
        let most = self.current.load().config.queue_wait();
        self.callbacks.enter(most).await
    }

    /// Signs on a thread of its own, in turn. `None`: the work panicked.
    pub async fn sign<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.signers.run(work).await
    }

    /// A slot for a connection, until it is dropped.
    ///
    /// - Input: `behind_proxy`: all connections come from the proxy, so addresses are not counted.
    pub fn connect(&self, ip: IpAddr, behind_proxy: bool) -> Result<Slot, Refused> {
        let current = self.current.load();
        let per_ip = (!behind_proxy).then_some(current.config.max_connections_per_ip);
        self.connections.open(network(ip), current.config.max_connections, per_ip)
    }
}

/// What counts as one address: an IPv6 host has a /64 to itself.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(it) => {
            let [a, b, c, d, ..] = it.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_address_or_a_64() {
        let check = |ip: &str, want: &str| {
            assert_eq!(network(ip.parse().unwrap()), want.parse::<IpAddr>().unwrap(), "{ip}");
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("2001:db8:1:2:ffff::1", "2001:db8:1:2::");
        check("2001:db8:1:3::1", "2001:db8:1:3::");
    }

    #[test]
    fn a_reload_forgets_only_the_rates_that_it_changes() {
        let config = LimitsConfig {
            per_merchant_per_s: 1,
            merchant_burst: 1,
            per_ip_per_s: 1,
            ip_burst: 1,
            ..LimitsConfig::default()
        };
        let limits = Limits::new(config.clone());
        let (ip, merchant) = (IpAddr::from([192, 0, 2, 1]), MerchantId::parse("1").unwrap());
        assert!(limits.count_address(ip).is_ok() && limits.count_address(ip).is_err());
        assert!(limits.count_merchant(&merchant).is_ok());
        assert!(limits.count_merchant(&merchant).is_err());
        limits.adopt(LimitsConfig { ip_burst: 2, ..config.clone() });
        assert!(limits.count_address(ip).is_ok() && limits.count_merchant(&merchant).is_err());
        limits.adopt(LimitsConfig { per_merchant_per_s: 0, ..config });
        assert!((0..100).all(|_| limits.count_merchant(&merchant).is_ok()));
    }
}
