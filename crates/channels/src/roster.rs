//! The channels of this installation, by name: what the use cases ask through their port. Chooses
//! none of them; that is routing.

use crate::driver::{HttpDriver, not_sent};
use app::Provider;
use arc_swap::ArcSwap;
use channel::{Answer, Callback, CallbackError, Channel, ChannelId, HttpMessage, Operation};
use kernel::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tells the time. The demo moves its clock, so nobody here reads the system's.
pub type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

pub struct Roster {
    lineup: ArcSwap<Lineup>,
    now: Now,
}

/// Replaced whole: whoever asks keeps the line-up with which they began.
struct Lineup {
    driver: HttpDriver,
    channels: BTreeMap<ChannelId, Arc<dyn Channel>>,
}

impl Lineup {
    /// A later channel of the same name replaces an earlier one.
    fn new(driver: HttpDriver, channels: Vec<Arc<dyn Channel>>) -> Lineup {
        let channels = channels.into_iter().map(|it| (it.id().clone(), it)).collect();
        Lineup { driver, channels }
    }
}

impl Roster {
    pub fn new(driver: HttpDriver, channels: Vec<Arc<dyn Channel>>, now: Now) -> Roster {
        Roster { lineup: ArcSwap::from_pointee(Lineup::new(driver, channels)), now }
    }

    /// Puts other channels in place, with a client that may reach them. What was learnt of the old
    /// ones, keys and failures, is forgotten.
    pub fn replace(&self, driver: HttpDriver, channels: Vec<Arc<dyn Channel>>) {
        self.lineup.store(Arc::new(Lineup::new(driver, channels)));
    }

    pub fn channel(&self, id: &ChannelId) -> Option<Arc<dyn Channel>> {
        self.lineup.load().channels.get(id).cloned()
    }

    pub fn channels(&self) -> Vec<Arc<dyn Channel>> {
        self.lineup.load().channels.values().cloned().collect()
    }

    /// Reads a callback of `channel`, fetching keys first if it is signed by an unknown one.
    ///
    /// `None`: there is no such channel.
    pub async fn callback(
        &self,
        channel: &ChannelId,
        message: &HttpMessage,
    ) -> Option<Result<Callback, CallbackError>> {
        let lineup = self.lineup.load_full();
        let channel = lineup.channels.get(channel)?.as_ref();
        let first = channel.callback(message, (self.now)());
        if let Err(CallbackError::UnknownKey(_)) = &first {
            lineup.driver.refresh_keys(channel, (self.now)()).await;
            return Some(channel.callback(message, (self.now)()));
        }
        Some(first)
    }

    /// Fetches every channel's keys: to be done at least every 12 hours.
    pub async fn refresh_keys(&self) {
        let lineup = self.lineup.load_full();
        for channel in lineup.channels.values() {
            lineup.driver.refresh_keys(channel.as_ref(), (self.now)()).await;
        }
    }
}

impl Provider for Roster {
    async fn ask(&self, channel: &ChannelId, operation: &Operation) -> Answer {
        let lineup = self.lineup.load_full();
        match lineup.channels.get(channel) {
            Some(it) => lineup.driver.ask(it.as_ref(), operation, (self.now)()).await,
            None => {
                let why = format!("channel {channel} is not configured; add it again");
                // An operator may put it back, so nothing is refused for good.
                not_sent(operation, "NO_SUCH_CHANNEL", why, true)
            }
        }
    }

    fn payee(&self, channel: &ChannelId) -> Option<String> {
        self.lineup.load().channels.get(channel).map(|it| it.payee().to_owned())
    }
}
