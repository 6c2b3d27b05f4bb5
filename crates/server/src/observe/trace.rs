//! Traces: spans of what happens to a payment, under one trace id over processes and days. The id
//! travels in the payment as the text of a W3C `traceparent`; to channels and merchants nothing
//! of it is sent. Without a collector in the configuration no span is ever made.

use crate::gateway::Gateway;
use app::{Intent, IntentKind, Store};
use http::HeaderMap;
use kernel::{MerchantId, Serial, SerialKind};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt, TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};
use payments::Payment;
use std::collections::HashMap;
use tracing::field::Empty;
use tracing::{Instrument, Span, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// All spans have this target and the level *trace*, so that logs leave them out and their makers
/// find out with one look at a flag that nobody wants them. `app` writes the same name.
pub const TARGET: &str = "feiqian::trace";

const TRACEPARENT: &str = "traceparent";

/// Which traces are kept. Whoever begins a trace decides by its id; the rest follow.
pub fn sampler(share: f64) -> Sampler {
    Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)))
}

fn read(traceparent: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let said = context.span().span_context().clone();
    said.is_valid().then_some(said)
}

fn sampled(context: &SpanContext, yes: bool) -> Context {
    let flags = TraceFlags::default().with_sampled(yes);
    let (trace, span) = (context.trace_id(), context.span_id());
    let context =
        SpanContext::new(trace, span, flags, true, opentelemetry::trace::TraceState::default());
    Context::new().with_remote_span_context(context)
}

/// A caller may say which trace its request belongs to, but not that we keep it: our share of
/// traces decides, or callers would choose what tracing costs us.
fn from_outside(traceparent: &str, share: f64) -> Option<Context> {
    let said = read(traceparent)?;
    let ratio = Sampler::TraceIdRatioBased(share);
    let decided = ratio.should_sample(None, said.trace_id(), "", &SpanKind::Server, &[], &[]);
    Some(sampled(&said, decided.decision == SamplingDecision::RecordAndSample))
}

/// What was stored is ours and followed. What had to be tried again is kept in any case.
fn from_store(traceparent: &str, troubled: bool) -> Option<Context> {
    let said = read(traceparent)?;
    Some(sampled(&said, troubled || said.is_sampled()))
}

/// The number of the trace that was stored with a payment.
pub fn id_of(traceparent: &str) -> Option<String> {
    read(traceparent).map(|it| it.trace_id().to_string())
}

/// The trace that is under way, to be kept with a new payment. `None` where nothing is traced.
pub(super) fn current() -> Option<String> {
    let span = Span::current();
    if span.is_none() {
        return None;
    }
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}

pub(super) fn is_sampled(span: &Span) -> bool {
    !span.is_none() && span.context().span().span_context().is_sampled()
}

/// The span of a request that came in.
pub(super) fn request(
    route: &'static str,
    method: &'static str,
    headers: &HeaderMap,
    share: f64,
) -> Span {
    let span = trace_span!(
        target: TARGET,
        parent: None,
        "request",
        otel.name = route,
        otel.kind = "server",
        otel.status_code = Empty,
        http.route = route,
        http.request.method = method,
        http.response.status_code = Empty,
        request_id = Empty,
        merchant = Empty,
        payment = Empty,
    );
    if !span.is_none() {
        let said = headers.get(TRACEPARENT).and_then(|it| it.to_str().ok());
        if let Some(context) = said.and_then(|it| from_outside(it, share)) {
            span.set_parent(context).ok();
        }
    }
    span
}

/// Does `work` as a part of the trace of the payment that `intent` is about.
pub async fn attending<T>(gateway: &Gateway, intent: &Intent, work: impl Future<Output = T>) -> T {
    let span = trace_span!(
        target: TARGET,
        parent: None,
        "intent",
        otel.name = kind(intent.kind),
        tries = intent.tries,
        merchant = %intent.merchant,
        payment = Empty,
    );
    // Without tracing nothing is read.
    if !span.is_none()
        && let Some(payment) = payment_of(gateway.store(), intent).await
    {
        belongs_to(&span, &payment, intent.tries > 0);
    }
    work.instrument(span).await
}

/// Does `work`, a channel's callback, as a part of the trace of the payment it names.
pub async fn called_back<T>(
    gateway: &Gateway,
    channel: &str,
    merchant: &MerchantId,
    payment: Serial,
    work: impl Future<Output = T>,
) -> T {
    let span = trace_span!(
        target: TARGET,
        parent: None,
        "callback",
        channel,
        merchant = %merchant,
        payment = Empty,
    );
    if !span.is_none()
        && let Ok(Some(known)) = gateway.store().payment(merchant, payment).await
    {
        belongs_to(&span, &known.value, false);
        // The request that brought it has a trace of its own, begun before its body was read.
        span.add_link(Span::current().context().span().span_context().clone());
    }
    work.instrument(span).await
}

fn belongs_to(span: &Span, payment: &Payment, troubled: bool) {
    span.record("payment", payment.serial.as_str());
    let context = payment.trace.as_deref().and_then(|it| from_store(it, troubled));
    if let Some(context) = context {
        span.set_parent(context).ok();
    }
}

fn kind(kind: IntentKind) -> &'static str {
    match kind {
        IntentKind::Heal => "heal",
        IntentKind::Refund => "refund",
        IntentKind::Notify => "notify",
        IntentKind::Publish => "publish",
    }
}

/// The payment that an intent is about. A store that cannot be read costs the trace, not the work.
async fn payment_of(store: &impl Store, intent: &Intent) -> Option<Payment> {
    let (merchant, subject) = (&intent.merchant, intent.subject);
    let payment = match intent.kind {
        IntentKind::Heal => subject,
        IntentKind::Publish if subject.kind() != SerialKind::Refund => subject,
        IntentKind::Refund | IntentKind::Publish => {
            store.refund(merchant, subject).await.ok()??.value.payment
        }
        IntentKind::Notify => store.notification(merchant, subject).await.ok()??.value.payment,
    };
    Some(store.payment(merchant, payment).await.ok()??.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_caller_names_its_trace_and_our_share_decides_whether_it_is_kept() {
        let check = |said, share, want: Option<bool>| {
            let got = from_outside(said, share).map(|it| it.span().span_context().is_sampled());
            assert_eq!(got, want, "{said} at {share}");
        };
        check(SAMPLED, 0.0, Some(false));
        check(UNSAMPLED, 1.0, Some(true));
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", 1.0, None);
        check("00-0af7651916cd43dd8448eb211c80319c", 1.0, None);
        check("", 1.0, None);
        let context = from_outside(SAMPLED, 1.0).unwrap();
        let id = context.span().span_context().trace_id().to_string();
        assert_eq!(id, "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn what_was_stored_is_followed_and_trouble_is_always_kept() {
        let check = |said, troubled, want| {
            let context = from_store(said, troubled).unwrap();
            assert_eq!(context.span().span_context().is_sampled(), want, "{said} {troubled}");
        };
        check(SAMPLED, false, true);
        check(UNSAMPLED, false, false);
        check(UNSAMPLED, true, true);
    }

    /// Where nothing is traced, making a span makes none and looks at none of its fields: all
    /// that an order pays then is a look at a flag.
    #[test]
    fn a_log_without_a_collector_makes_no_spans() {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
            .with_writer(std::io::sink)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let span = request("create_native", "POST", &HeaderMap::new(), 1.0);
            assert!(span.is_none());
            assert_eq!(span.in_scope(current), None);
            let looked_at = || -> u32 { panic!("a field of a span that nobody wants") };
            let span = trace_span!(target: TARGET, "commit", field = looked_at());
            assert!(span.is_none());
        });
    }
}
