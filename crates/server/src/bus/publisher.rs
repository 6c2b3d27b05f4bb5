//! Brings events to the bus; without one, straight to the webhooks.

use super::{Bus, Webhook, body};
use crate::clock;
use crate::observe::metrics::Metrics;
use crate::settings::Current;
use app::{BusinessEvent, Publisher, Publishing, Unpublished};
use futures::future::join_all;
use std::sync::Arc;

pub struct EventPublisher {
    pub bus: Option<Arc<Bus>>,
    pub webhooks: Arc<[Webhook]>,
    pub settings: Arc<Current>,
    pub metrics: Arc<Metrics>,
}

impl EventPublisher {
    async fn bring(&self, event: &BusinessEvent) -> Result<(), Unpublished> {
        let (id, body) = (event.id(), body::json(event, clock::wall()));
        if let Some(bus) = &self.bus {
            return bus.publish(body::subject(event), &id, body).await;
        }
        let client = self.settings.load().notify.clone();
        let wanting = self.webhooks.iter().filter(|it| it.events().contains(&event.name));
        // Those that took it take it again if another refuses; they know it by its id.
        let posted = join_all(wanting.map(|it| it.post(&client, &id, body.clone()))).await;
        posted.into_iter().collect::<Result<(), String>>().map_err(Unpublished)
    }
}

impl Publisher for EventPublisher {
    fn publish<'a>(&'a self, event: &'a BusinessEvent) -> Publishing<'a> {
        Box::pin(async move {
            let brought = self.bring(event).await;
            self.metrics.published(brought.is_ok());
            brought
        })
    }
}
