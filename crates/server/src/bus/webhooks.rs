//! Events posted to addresses that operators name, signed as the Standard Webhooks scheme says
//! (https://www.standardwebhooks.com). With a bus, each address has a consumer of its own there,
//! so that one that refuses delays no other.

use super::Bus;
use crate::clock;
use crate::config::WebhookConfig;
use crate::gateway::Gateway;
use app::{EventName, Unpublished};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{AckKind, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use channels::NotifyClient;
use futures::TryStreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

const SECRET_PREFIX: &str = "whsec_";
/// Posts to one address at once.
const AT_ONCE: usize = 16;
/// Seconds between the tries of one event; the last repeats as long as the stream keeps it.
const LADDER_S: [u64; 8] = [1, 5, 15, 60, 300, 900, 1_800, 3_600];
/// How long to wait before looking for the bus again.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Webhook {
    url: String,
    key: Vec<u8>,
    events: Vec<EventName>,
}

/// The bytes of a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`: 24 to 64 of them.
pub fn parse_secret(text: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

pub fn event_named(text: &str) -> Option<EventName> {
    EventName::ALL.into_iter().find(|it| it.as_str() == text)
}

/// - Source: Standard Webhooks, "Signature scheme", symmetric.
fn signature(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let message = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    format!("v1,{}", STANDARD.encode(seal::digest::hmac_sha256(key, &message)))
}

impl Webhook {
    /// `None`: its secret is none, which the check of the configuration says better.
    pub fn new(config: &WebhookConfig) -> Option<Webhook> {
        let named: Vec<_> = config.events.iter().filter_map(|it| event_named(it)).collect();
        let events = if named.is_empty() { EventName::ALL.to_vec() } else { named };
        Some(Webhook { url: config.url.clone(), key: parse_secret(&config.secret)?, events })
    }

    pub fn events(&self) -> &[EventName] {
        &self.events
    }

    /// Its name at the bus; another address is another consumer.
    pub fn consumer(&self) -> String {
        format!("webhook-{}", &seal::digest::sha256_hex(self.url.as_bytes())[..16])
    }

    /// Posts once. The error says how it was refused.
    pub async fn post(&self, client: &NotifyClient, id: &str, body: Vec<u8>) -> Result<(), String> {
        let timestamp = clock::wall().seconds();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature(&self.key, id, timestamp, &body)),
        ];
        let delivery = client.post(&self.url, headers, body).await;
        match (delivery.status, delivery.error) {
            (Some(200..=299), _) => Ok(()),
            (Some(status), _) => Err(format!("webhook {} answered {status}", self.url)),
            (None, error) => {
                Err(format!("webhook {}: {}", self.url, error.unwrap_or("no answer".into())))
            }
        }
    }
}

/// Brings events from the bus to webhooks until `stop` turns true. What is under way then is
/// brought again later.
pub async fn run(gateway: Arc<Gateway>, stop: watch::Receiver<bool>) {
    let Some(bus) = &gateway.bus else { return };
    let mut tasks = JoinSet::new();
    for index in 0..gateway.webhooks.len() {
        tasks.spawn(consume(gateway.clone(), bus.clone(), index, stop.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn consume(
    gateway: Arc<Gateway>,
    bus: Arc<Bus>,
    index: usize,
    mut stop: watch::Receiver<bool>,
) {
    let webhook = &gateway.webhooks[index];
    loop {
        tokio::select! {
            heard = hear(&gateway, &bus, webhook) => if let Err(error) = heard {
                tracing::debug!(url = webhook.url, %error, "events cannot be fetched");
            },
            _ = stop.wait_for(|it| *it) => return,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.wait_for(|it| *it) => return,
        }
    }
}

async fn hear(gateway: &Gateway, bus: &Bus, webhook: &Webhook) -> Result<(), Unpublished> {
    let consumer = bus.consumer(webhook).await?;
    let fetching = consumer.stream().max_messages_per_batch(AT_ONCE).messages().await;
    let messages = fetching.map_err(super::refused)?.map_err(super::refused);
    let brought = messages.try_for_each_concurrent(AT_ONCE, async |it| {
        bring(gateway, webhook, it).await;
        Ok(())
    });
    brought.await
}

async fn bring(gateway: &Gateway, webhook: &Webhook, message: Message) {
    let id = message.headers.as_ref().and_then(|it| it.get(NATS_MESSAGE_ID));
    let id = id.map(|it| it.as_str().to_owned());
    let client = gateway.settings().notify.clone();
    let posted = match &id {
        Some(id) => Some(webhook.post(&client, id, message.payload.to_vec()).await),
        None => None,
    };
    let kind = match posted {
        Some(Ok(())) => AckKind::Ack,
        // Somebody else writes into the stream.
        None => AckKind::Term,
        Some(Err(error)) => {
            let tries = message.info().map_or(1, |it| it.delivered).max(1);
            let rung = usize::try_from(tries - 1).unwrap_or(usize::MAX);
            let pause = LADDER_S[rung.min(LADDER_S.len() - 1)];
            tracing::warn!(event = id, tries, pause, error, "a webhook did not take an event");
            AckKind::Nak(Some(Duration::from_secs(pause)))
        }
    };
    if let Err(error) = message.ack_with(kind).await {
        tracing::debug!(event = id, %error, "the bus will bring it again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the scheme's own documents.
    #[test]
    fn signatures_are_those_of_the_scheme() {
        let key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_has_its_prefix_and_enough_bytes() {
        let check = |text: &str, want: Option<usize>| {
            assert_eq!(parse_secret(text).map(|it| it.len()), want, "{text}");
        };
        check("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Some(24));
        check("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None);
        check("whsec_c2hvcnQ=", None);
        check("whsec_?", None);
    }
}
