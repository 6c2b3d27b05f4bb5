//! Does what falls due, many things side by side. Work is claimed before it is done, so that of
//! several workers one does it; a claim holds as long as this process renews its lease.

use crate::bus::webhooks;
use crate::gateway::Gateway;
use crate::observe::trace;
use app::{Intent, IntentKind, Store, StoreError};
use kernel::{MerchantId, Serial};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Intents worked on at once; each may wait for a slow channel or merchant.
const AT_ONCE: usize = 128;
/// How long the worker sleeps at most: another process may have scheduled something.
const NAP: Duration = Duration::from_millis(500);
/// How often it looks for what it holds and does not work on: after an error, or when the answer to
/// a claim was lost.
const SWEEP: Duration = Duration::from_secs(2);

type Key = (MerchantId, IntentKind, Serial);

struct Worker {
    gateway: Arc<Gateway>,
    busy: Arc<Mutex<HashSet<Key>>>,
    room: Arc<Semaphore>,
    swept: Option<Instant>,
}

/// Runs until `stop` turns true, then waits for what is under way.
pub async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let webhooks = tokio::spawn(webhooks::run(gateway.clone(), stop.clone()));
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut worker = Worker { gateway, busy: Arc::default(), room, swept: None };
    while !*stop.borrow() {
        let taken = worker.take_due().await.unwrap_or_else(|error| {
            tracing::error!(%error, "due work cannot be claimed");
            0
        });
        if taken == 0 {
            tokio::select! {
                () = worker.gateway.live.woken() => {}
                () = tokio::time::sleep(NAP) => {}
                _ = stop.changed() => {}
            }
        }
    }
    // All permits back means that nothing is under way any more.
    let all = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
    if worker.room.acquire_many(all).await.is_err() {
        tracing::warn!("the worker stopped with work under way");
    }
    if let Err(error) = webhooks.await {
        tracing::error!(%error, "webhooks ended badly");
    }
}

impl Worker {
    async fn take_due(&mut self) -> Result<usize, StoreError> {
        let gateway = &self.gateway;
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        // Without a lease nothing is ours.
        if free == 0 || !gateway.membership.holds() {
            return Ok(0);
        }
        let (node, now) = (gateway.membership.node(), gateway.clock.now());
        let mut due = gateway.store().claim(&node, now, free).await?;
        if self.swept.is_none_or(|it| it.elapsed() >= SWEEP) {
            self.swept = Some(Instant::now());
            due.extend(gateway.store().claimed(&node, now).await?);
        }
        let mut taken = 0;
        for intent in due {
            let key = (intent.merchant.clone(), intent.kind, intent.subject);
            if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
                continue;
            }
            let Ok(permit) = self.room.clone().acquire_owned().await else { break };
            taken += 1;
            self.start(intent, key, permit);
        }
        Ok(taken)
    }

    fn start(&self, intent: Intent, key: Key, permit: OwnedSemaphorePermit) {
        let (gateway, busy) = (self.gateway.clone(), self.busy.clone());
        tokio::spawn(async move {
            // It may have waited for its turn.
            if gateway.membership.holds() {
                trace::attending(&gateway, &intent, attend(&gateway, &intent)).await;
            }
            busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            drop(permit);
            gateway.live.wake();
        });
    }
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
