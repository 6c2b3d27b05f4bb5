//! Does what falls due, many things side by side, each intent by one task at a time.

use crate::gateway::Gateway;
use crate::observe::trace;
use app::{Intent, IntentKind};
use kernel::{MerchantId, Serial};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Intents worked on at once; each may wait for a slow channel or merchant.
const AT_ONCE: usize = 128;
/// How long the worker sleeps at most: another process may have scheduled something.
const NAP: Duration = Duration::from_millis(500);

type Key = (MerchantId, IntentKind, Serial);

/// Runs until `stop` turns true, then waits for what is under way.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let busy: Arc<Mutex<HashSet<Key>>> = Arc::default();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    while !*stop.borrow() {
        let taken = take_due(&gateway, &busy, &room).await;
        if taken == 0 {
            tokio::select! {
                () = gateway.live.woken() => {}
                () = tokio::time::sleep(NAP) => {}
                _ = stop.changed() => {}
            }
        }
    }
    // All permits back means that nothing is under way any more.
    let all = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
    if room.acquire_many(all).await.is_err() {
        tracing::warn!("the worker stopped with work under way");
    }
}

async fn take_due(
    gateway: &Arc<Gateway>,
    busy: &Arc<Mutex<HashSet<Key>>>,
    room: &Arc<Semaphore>,
) -> usize {
    let limit = u32::try_from(AT_ONCE * 2).unwrap_or(u32::MAX);
    let due = match gateway.platform.due(gateway.clock.now(), limit).await {
        Ok(due) => due,
        Err(error) => {
            tracing::error!(%error, "due work cannot be read");
            return 0;
        }
    };
    let mut taken = 0;
    for intent in due {
        let key = (intent.merchant.clone(), intent.kind, intent.subject);
        if !busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            continue;
        }
        let Ok(permit) = room.clone().acquire_owned().await else { return taken };
        taken += 1;
        let (gateway, busy) = (gateway.clone(), busy.clone());
        tokio::spawn(async move {
            trace::attending(&gateway, &intent, attend(&gateway, &intent)).await;
            busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            drop(permit);
            gateway.live.wake();
        });
    }
    taken
}

async fn attend(gateway: &Gateway, intent: &Intent) {
    let done = gateway.platform.attend(intent, gateway.clock.now()).await;
    if let Err(error) = done {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::error!(subject = %intent.subject, kind = ?intent.kind, %error, source, "will be tried again");
        // Whatever is wrong, it will not be better at once.
        tokio::time::sleep(NAP).await;
    }
}
