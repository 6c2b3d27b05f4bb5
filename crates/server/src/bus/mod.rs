//! The message bus, NATS: a stream that keeps events for whoever listens, and hints between our own
//! processes. Nothing here is needed for a payment: while the bus is away events wait in the store,
//! and hints are lost, which everybody can bear.

pub mod body;
pub mod hints;
mod publisher;
pub mod webhooks;

pub use hints::{Hint, Hints};
pub use publisher::EventPublisher;
pub use webhooks::Webhook;

use crate::config::Config;
use app::{EventName, Unpublished};
use async_nats::connection::State;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Every event's subject begins with it.
const EVENTS: &str = "feiqian.event";
/// How long the bus may take to answer. A worker's place is taken meanwhile.
const PATIENCE: Duration = Duration::from_secs(3);
/// A repeat within this time is dropped by the bus itself.
const REPEATS: Duration = Duration::from_secs(3_600);
/// How long the stream keeps events, unless its operators say otherwise.
const KEPT: Duration = Duration::from_secs(14 * 86_400);
/// A webhook that was not answered for as long is somebody else's turn.
const ACK_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("{0:?} is no address of a NATS server")]
    Address(String),
    #[error("the credentials of the bus cannot be read")]
    Credentials(#[source] std::io::Error),
    #[error("the bus cannot be connected to")]
    Connect(#[from] async_nats::ConnectError),
}

pub struct Bus {
    client: Client,
    jetstream: jetstream::Context,
    stream: String,
    replicas: usize,
    webhooks: Arc<[Webhook]>,
    /// Whether stream and consumers are known to be there.
    ready: Mutex<bool>,
}

/// The addresses in a setting; a wrong one is told without what may be a password in it.
pub fn addresses(url: &str) -> Result<Vec<ServerAddr>, BusError> {
    let address = |it: &str| {
        let shown = || BusError::Address(it.rsplit('@').next().unwrap_or("").to_owned());
        it.trim().parse::<ServerAddr>().map_err(|_| shown())
    };
    url.split(',').map(address).collect()
}

impl Bus {
    /// Begins to connect, and goes on trying by itself. `None`: none is configured.
    pub async fn open(
        config: &Config,
        webhooks: Arc<[Webhook]>,
    ) -> Result<Option<Arc<Bus>>, BusError> {
        let Some(url) = &config.bus.url else { return Ok(None) };
        let addresses = addresses(url)?;
        // The client reads addresses only; who we are must be said to it apart. Servers of one
        // cluster share their users, so the first address that names one counts.
        let named = addresses.iter().find_map(|it| Some((it.username()?, it.password()?)));
        let options = match &config.bus.credentials {
            None => match named {
                Some((user, password)) => {
                    ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
                }
                None => ConnectOptions::new(),
            },
            Some(path) => ConnectOptions::with_credentials_file(config.path(path))
                .await
                .map_err(BusError::Credentials)?,
        };
        let client = options
            .name("feiqian")
            // Our own hints are for others.
            .no_echo()
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(PATIENCE)
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(|tries| {
                Duration::from_millis(100 * tries.clamp(1, 20) as u64)
            })
            .event_callback(|event| async move { tell(&event) })
            .connect(addresses)
            .await?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(PATIENCE);
        Ok(Some(Arc::new(Bus {
            client,
            jetstream,
            stream: config.bus.stream.clone(),
            replicas: config.bus.replicas.into(),
            webhooks,
            ready: Mutex::new(false),
        })))
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Makes stream and consumers, so that whoever shall hear of an event is known before it is
    /// published.
    async fn prepare(&self) -> Result<(), Unpublished> {
        if !self.is_connected() {
            return Err(Unpublished("the bus is not connected".into()));
        }
        // Whoever waits here has a worker's place.
        let Ok(mut ready) = tokio::time::timeout(PATIENCE, self.ready.lock()).await else {
            return Err(Unpublished("the bus does not answer".into()));
        };
        if *ready {
            return Ok(());
        }
        let found = self.jetstream.get_stream(&self.stream).await;
        // What operators changed beside this stays.
        let known = found.map(|it| it.cached_info().config.clone()).unwrap_or(stream::Config {
            name: self.stream.clone(),
            max_age: KEPT,
            ..stream::Config::default()
        });
        let wanted = stream::Config {
            subjects: vec![format!("{EVENTS}.>")],
            num_replicas: self.replicas,
            duplicate_window: REPEATS,
            ..known
        };
        self.jetstream.create_or_update_stream(wanted).await.map_err(refused)?;
        for webhook in self.webhooks.iter() {
            let consumer = pull::Config {
                durable_name: Some(webhook.consumer()),
                deliver_policy: DeliverPolicy::New,
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                // An endpoint that refuses holds back nothing but its own events.
                max_ack_pending: 10_000,
                filter_subjects: webhook.events().iter().map(|it| all_of(*it)).collect(),
                ..pull::Config::default()
            };
            let made = self.jetstream.create_consumer_on_stream(consumer, &self.stream);
            made.await.map_err(refused)?;
        }
        *ready = true;
        Ok(())
    }

    /// Puts an event into the stream; it is on the disks of the bus when this returns.
    async fn publish(&self, subject: String, id: &str, body: Vec<u8>) -> Result<(), Unpublished> {
        self.prepare().await?;
        let message = PublishMessage::build().message_id(id).payload(body.into());
        let sent = async { self.jetstream.send_publish(subject, message).await?.await };
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) => {
                // Perhaps the stream is gone.
                *self.ready.lock().await = false;
                Err(refused(error))
            }
        }
    }

    async fn consumer(&self, webhook: &Webhook) -> Result<PullConsumer, Unpublished> {
        self.prepare().await?;
        let found = self.jetstream.get_consumer_from_stream(webhook.consumer(), &self.stream).await;
        match found {
            Ok(consumer) => Ok(consumer),
            Err(error) => {
                *self.ready.lock().await = false;
                Err(refused(error))
            }
        }
    }
}

/// The subjects of all events of a name, whoever's they are.
fn all_of(name: EventName) -> String {
    format!("{EVENTS}.{}.*", name.as_str())
}

fn refused(error: impl Display) -> Unpublished {
    Unpublished(format!("the bus: {error}"))
}

fn tell(event: &Event) {
    match event {
        Event::Connected => tracing::info!("the bus is connected"),
        Event::Disconnected | Event::LameDuckMode | Event::Closed | Event::Draining => {
            tracing::warn!("the bus: {event}");
        }
        Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => {
            tracing::warn!("the bus: {event}");
        }
    }
}
