//! Finished spans on their way to the collector, in OTLP over HTTP. Nobody who makes a span waits:
//! the queue is bounded, and what does not fit, or is not taken by the collector, is dropped and
//! counted.

use crate::config::ObserveConfig;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Notify, oneshot};

/// Spans that may wait; about one KiB each.
const QUEUE: usize = 8_192;
/// Spans in one request.
const BATCH: usize = 512;
/// How long a batch that is not full waits for more.
const GATHER: Duration = Duration::from_millis(200);
/// One request to the collector.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last spans.
const FLUSH: Duration = Duration::from_secs(5);
/// A collector that is down is complained about so often.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Of the whole process, as the subscriber is.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Spans that never reached a collector since the process began.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn drop_spans(count: usize) {
    DROPPED.fetch_add(count.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the HTTP client towards the collector cannot start")]
    Client(#[from] reqwest::Error),
    #[error("observe.otlp_endpoint cannot be used")]
    Endpoint(#[from] ExporterBuildError),
}

#[derive(Debug)]
enum Item {
    Span(Box<SpanData>),
    /// Everything before it has been sent or dropped.
    Mark(oneshot::Sender<()>),
}

/// The way to the collector; cheap to clone.
#[derive(Clone, Debug)]
pub struct Export {
    queue: mpsc::Sender<Item>,
    hurry: Arc<Notify>,
}

impl Export {
    /// Begins to export, and gives what makes the spans.
    pub fn start(
        endpoint: &str,
        config: &ObserveConfig,
        role: &str,
    ) -> Result<(Export, SdkTracer), ExportError> {
        let mut client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
        if endpoint.starts_with("http://") {
            // Plain: works on a machine without root certificates.
            client = client.tls_certs_only([]);
        }
        let resource = Resource::builder_empty()
            .with_service_name(format!("{}-{role}", config.service_name))
            .with_attribute(KeyValue::new("service.version", super::VERSION))
            .build();
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client.build()?)
            .with_endpoint(endpoint)
            .with_timeout(TIMEOUT)
            .build()?;
        exporter.set_resource(&resource);
        let (export, waiting) = Export::new(QUEUE);
        tokio::spawn(send(waiting, exporter, export.hurry.clone()));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(super::trace::sampler(config.trace_share))
            .with_span_processor(export.clone())
            .build();
        Ok((export, provider.tracer("feiqian")))
    }

    fn new(room: usize) -> (Export, mpsc::Receiver<Item>) {
        let (queue, waiting) = mpsc::channel(room);
        (Export { queue, hurry: Arc::default() }, waiting)
    }

    /// Waits until what was queued so far has been sent or dropped, but not for ever.
    pub async fn flush(&self) {
        let (mark, reached) = oneshot::channel();
        let all = async {
            if self.queue.send(Item::Mark(mark)).await.is_ok() {
                self.hurry.notify_one();
                reached.await.ok();
            }
        };
        tokio::time::timeout(FLUSH, all).await.ok();
    }
}

impl SpanProcessor for Export {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        match self.queue.try_send(Item::Span(Box::new(span))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => drop_spans(1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.hurry.notify_one();
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

async fn send(mut waiting: mpsc::Receiver<Item>, exporter: impl SpanExporter, hurry: Arc<Notify>) {
    let mut items = Vec::with_capacity(BATCH);
    let mut complained: Option<Instant> = None;
    while waiting.recv_many(&mut items, BATCH).await > 0 {
        let (mut batch, mut marks) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items.drain(..) {
            match item {
                Item::Span(span) => batch.push(*span),
                Item::Mark(mark) => marks.push(mark),
            }
        }
        let count = batch.len();
        if count > 0
            && let Err(error) = exporter.export(batch).await
        {
            drop_spans(count);
            if complained.is_none_or(|it| it.elapsed() > COMPLAIN) {
                complained = Some(Instant::now());
                let dropped = dropped();
                tracing::warn!(%error, dropped, "the collector does not take trace spans");
            }
        }
        // Whoever waited may have gone away.
        marks.into_iter().for_each(|it| it.send(()).unwrap_or_default());
        if count < BATCH {
            tokio::time::timeout(GATHER, hurry.notified()).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{Span as _, Tracer};
    use opentelemetry_sdk::error::OTelSdkError;

    /// A collector that is down.
    #[derive(Debug)]
    struct Down;

    impl SpanExporter for Down {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            Err(OTelSdkError::InternalFailure("down".into()))
        }
    }

    /// One test, because the count belongs to the process.
    #[tokio::test]
    async fn spans_that_do_not_fit_or_are_not_taken_are_dropped_and_counted() {
        let (export, waiting) = Export::new(4);
        let provider = SdkTracerProvider::builder().with_span_processor(export.clone()).build();
        let tracer = provider.tracer("test");
        // Nobody takes them yet: making a span never waits.
        (0..10).for_each(|_| tracer.start("span").end());
        assert_eq!(dropped(), 6);
        tokio::spawn(send(waiting, Down, export.hurry.clone()));
        export.flush().await;
        assert_eq!(dropped(), 10);
        // What comes later is tried again.
        tracer.start("span").end();
        export.flush().await;
        assert_eq!(dropped(), 11);
    }
}
