//! Ports with a meter on them: the same answers, counted, timed and traced. What is asked and
//! answered is not changed, and nothing is added to what leaves the house.

use super::metrics::{Metrics, answer_outcome, delivery_outcome, operation_name};
use super::trace::TARGET;
use app::{Courier, Delivery, Merchant, Notification, Provider, Subject};
use channel::{Answer, ChannelId, Operation};
use std::sync::Arc;
use std::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, trace_span};

pub struct Watched<P> {
    inner: P,
    metrics: Arc<Metrics>,
}

impl<P> Watched<P> {
    pub fn new(inner: P, metrics: Arc<Metrics>) -> Watched<P> {
        Watched { inner, metrics }
    }
}

impl<P: Provider> Provider for Watched<P> {
    async fn ask(&self, channel: &ChannelId, operation: &Operation) -> Answer {
        let name = operation_name(operation);
        // A payment may name a channel that is not configured any more.
        let known = self.inner.payee(channel).is_some();
        let label = if known { channel.as_str() } else { "unknown" };
        let span = trace_span!(
            target: TARGET,
            "channel",
            otel.kind = "client",
            otel.status_code = Empty,
            channel = label,
            operation = name,
            outcome = Empty,
        );
        let began = Instant::now();
        let answer = self.inner.ask(channel, operation).instrument(span.clone()).await;
        let outcome = answer_outcome(&answer);
        self.metrics.asked(label, name, outcome, began.elapsed());
        span.record("outcome", outcome);
        if outcome == "in_doubt" {
            span.record("otel.status_code", "ERROR");
        }
        answer
    }

    fn payee(&self, channel: &ChannelId) -> Option<String> {
        self.inner.payee(channel)
    }
}

impl<C: Courier> Courier for Watched<C> {
    async fn deliver(
        &self,
        merchant: &Merchant,
        notification: &Notification,
        subject: &Subject,
    ) -> Delivery {
        let span = trace_span!(
            target: TARGET,
            "notification",
            otel.kind = "client",
            otel.status_code = Empty,
            notification = %notification.id,
            outcome = Empty,
            http.response.status_code = Empty,
        );
        let began = Instant::now();
        let delivery =
            self.inner.deliver(merchant, notification, subject).instrument(span.clone()).await;
        let outcome = delivery_outcome(&delivery);
        self.metrics.notified(outcome, began.elapsed());
        span.record("outcome", outcome);
        if let Some(status) = delivery.status {
            span.record("http.response.status_code", status);
        }
        if outcome != "accepted" {
            span.record("otel.status_code", "ERROR");
        }
        delivery
    }
}
