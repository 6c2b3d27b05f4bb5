//! News inside one process: pages learn that a payment changed, the worker that something is due.

use app::Observer;
use kernel::{MerchantId, Serial, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, broadcast};

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Live {
    changed: broadcast::Sender<Serial>,
    due: Arc<Notify>,
    draining: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
}

impl Default for Live {
    fn default() -> Live {
        // A page that falls further behind looks for itself.
        let (changed, _) = broadcast::channel(1024);
        Live { changed, due: Arc::default(), draining: Arc::default(), ending: Arc::default() }
    }
}

impl Live {
    /// Payments that changed from now on.
    pub fn changes(&self) -> broadcast::Receiver<Serial> {
        self.changed.subscribe()
    }

    pub async fn woken(&self) {
        self.due.notified().await;
    }

    /// The process is to stop: it still answers, and asks to be left alone.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The process ends: streams of news must, too.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// A payment changed.
    pub fn change(&self, serial: Serial) {
        // Nobody listening is fine.
        self.changed.send(serial).ok();
    }

    pub fn wake(&self) {
        self.due.notify_one();
    }
}

impl Observer for Live {
    fn committed(&self, payment: Option<(&MerchantId, Serial)>, due: Option<Timestamp>) {
        if let Some((_, serial)) = payment {
            self.change(serial);
        }
        if due.is_some() {
            self.wake();
        }
    }
}
