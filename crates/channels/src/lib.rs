//! Everything that leaves the house: one folder a provider, the one HTTP client towards them, and
//! the client that carries notifications to merchants.
//!
//! No business rule is decided here, and nothing is stored.

mod breaker;
mod driver;
mod notify_address;
mod notify_client;
mod roster;
mod transport;
pub mod wechat;

pub use breaker::{Breaker, BreakerLimits, Outcome};
pub use driver::{DriverSettings, HttpDriver};
pub use notify_address::{UrlRefusal, check_notify_url, is_public};
pub use notify_client::{NotifyClient, NotifySettings};
pub use roster::Roster;
pub use transport::{TransportError, TrustRoots};
