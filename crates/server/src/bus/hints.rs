//! What processes whisper to each other: look again. A hint names things by number and proves
//! nothing; whoever hears one looks into the store. A lost hint costs a moment, never a payment.

use super::Bus;
use crate::live::Live;
use crate::merchants::Merchants;
use async_nats::{Client, Message};
use futures::StreamExt;
use kernel::{MerchantId, Serial};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const CHANGED: &str = "feiqian.hint.changed";
const DUE: &str = "feiqian.hint.due";
const MERCHANT: &str = "feiqian.hint.merchant";
const ALL: &str = "feiqian.hint.*";
/// More at once are not worth keeping.
const QUEUE: usize = 4_096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A payment changed: pages that show it should look.
    Changed(Serial),
    /// Something is to be done: workers should look.
    Due,
    /// A merchant changed: what is kept of it is old.
    Merchant(MerchantId),
}

impl Hint {
    fn encode(&self) -> (&'static str, String) {
        match self {
            Hint::Changed(serial) => (CHANGED, serial.to_string()),
            Hint::Due => (DUE, String::new()),
            Hint::Merchant(id) => (MERCHANT, id.to_string()),
        }
    }

    fn decode(message: &Message) -> Option<Hint> {
        let text = std::str::from_utf8(&message.payload).ok()?;
        match message.subject.as_str() {
            CHANGED => Serial::parse(text).ok().map(Hint::Changed),
            DUE => Some(Hint::Due),
            MERCHANT => MerchantId::parse(text).ok().map(Hint::Merchant),
            _ => None,
        }
    }
}

/// Sends hints without ever waiting; heard ones are passed on until it is dropped.
pub struct Hints {
    queue: mpsc::Sender<Hint>,
    _tasks: JoinSet<()>,
}

impl Hints {
    pub fn start(bus: &Arc<Bus>, live: Live, merchants: Arc<Merchants>) -> Hints {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(send(bus.clone(), waiting));
        tasks.spawn(listen(bus.client.clone(), live, merchants));
        Hints { queue, _tasks: tasks }
    }

    pub fn give(&self, hint: Hint) {
        self.queue.try_send(hint).ok();
    }
}

async fn send(bus: Arc<Bus>, mut waiting: mpsc::Receiver<Hint>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, QUEUE).await > 0 {
        let mut said_due = false;
        for hint in batch.drain(..) {
            // Once for all that is due, and nothing into a buffer for later.
            let again = hint == Hint::Due && std::mem::replace(&mut said_due, true);
            if !again && bus.is_connected() {
                let (subject, text) = hint.encode();
                bus.client.publish(subject, text.into()).await.ok();
            }
        }
    }
}

async fn listen(client: Client, live: Live, merchants: Arc<Merchants>) {
    // The client subscribes anew whenever it is connected again.
    let mut heard = match client.subscribe(ALL).await {
        Ok(heard) => heard,
        Err(error) => {
            tracing::warn!(%error, "hints of other processes are not heard");
            return;
        }
    };
    while let Some(message) = heard.next().await {
        match Hint::decode(&message) {
            Some(Hint::Changed(serial)) => live.change(serial),
            Some(Hint::Due) => live.wake(),
            Some(Hint::Merchant(id)) => merchants.forget(&id),
            None => tracing::debug!(subject = %message.subject, "a hint that nobody understands"),
        }
    }
}
