//! The channels of this installation, by name: what the use cases ask through their port. Chooses
//! none of them; that is routing.

use crate::driver::{HttpDriver, not_sent};
use app::Provider;
use channel::{Answer, Callback, CallbackError, Channel, ChannelId, HttpMessage, Operation};
use kernel::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tells the time. The demo moves its clock, so nobody here reads the system's.
pub type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

pub struct Roster {
    driver: HttpDriver,
    channels: BTreeMap<ChannelId, Arc<dyn Channel>>,
    now: Now,
}

impl Roster {
    /// A later channel of the same name replaces an earlier one.
    pub fn new(driver: HttpDriver, channels: Vec<Arc<dyn Channel>>, now: Now) -> Roster {
        let channels = channels.into_iter().map(|it| (it.id().clone(), it)).collect();
        Roster { driver, channels, now }
    }

    pub fn channel(&self, id: &ChannelId) -> Option<&Arc<dyn Channel>> {
        self.channels.get(id)
    }

    pub fn channels(&self) -> impl Iterator<Item = &Arc<dyn Channel>> {
        self.channels.values()
    }

    /// Reads a callback of `channel`, fetching keys first if it is signed by an unknown one.
    ///
    /// `None`: there is no such channel.
    pub async fn callback(
        &self,
        channel: &ChannelId,
        message: &HttpMessage,
    ) -> Option<Result<Callback, CallbackError>> {
        let channel = self.channels.get(channel)?.as_ref();
        let first = channel.callback(message, (self.now)());
        if let Err(CallbackError::UnknownKey(_)) = &first {
            self.driver.refresh_keys(channel, (self.now)()).await;
            return Some(channel.callback(message, (self.now)()));
        }
        Some(first)
    }

    /// Fetches every channel's keys: to be done at least every 12 hours.
    pub async fn refresh_keys(&self) {
        for channel in self.channels.values() {
            self.driver.refresh_keys(channel.as_ref(), (self.now)()).await;
        }
    }
}

impl Provider for Roster {
    async fn ask(&self, channel: &ChannelId, operation: &Operation) -> Answer {
        match self.channels.get(channel) {
            Some(it) => self.driver.ask(it.as_ref(), operation, (self.now)()).await,
            None => {
                let why = format!("channel {channel} is not configured; add it again");
                // An operator may put it back, so nothing is refused for good.
                not_sent(operation, "NO_SUCH_CHANNEL", why, true)
            }
        }
    }

    fn payee(&self, channel: &ChannelId) -> Option<String> {
        self.channels.get(channel).map(|it| it.payee().to_owned())
    }
}
