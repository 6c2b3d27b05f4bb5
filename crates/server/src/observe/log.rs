//! Log lines: for people on a terminal, JSON elsewhere. A line written inside a span says which
//! trace, merchant and payment it is about. Sets up tracing for the whole process.

use super::export::{Export, ExportError};
use super::trace::TARGET;
use crate::config::ObserveConfig;
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use std::fmt;
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Begins to log at `level`, unless `RUST_LOG` says otherwise, and to trace if the configuration
/// names a collector.
///
/// - Output: the way to the collector, to be flushed before the process ends.
pub fn install(
    level: &str,
    config: &ObserveConfig,
    role: &str,
) -> Result<Option<Export>, ExportError> {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let (mut export, mut spans) = (None, None);
    if let Some(endpoint) = config.traces_url() {
        let (way, tracer) = Export::start(&endpoint, config, role)?;
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        (export, spans) = (Some(way), Some(layer));
        let all: Directive = LevelFilter::TRACE.into();
        filter = filter.add_directive(format!("{TARGET}=trace").parse().unwrap_or(all));
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.boxed()
    } else {
        lines.fmt_fields(JsonFields::new()).event_format(JsonLines).boxed()
    };
    // If someone else has set it up: fine.
    tracing_subscriber::registry().with(filter).with(spans).with(lines).try_init().ok();
    Ok(export)
}

/// What of a span is said on each line written inside it.
const CARRIED: [&str; 5] = ["merchant", "payment", "channel", "operation", "notification"];

struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let about = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".into(), time.into());
        line.insert("level".into(), about.level().as_str().into());
        event.record(&mut Members(&mut line));
        line.insert("target".into(), about.target().into());
        if let Some(span) = context.parent_span() {
            if let Some(trace) = trace_id(&span.id()) {
                line.insert("trace_id".into(), trace.into());
            }
            for span in span.scope() {
                let extensions = span.extensions();
                let said = extensions.get::<FormattedFields<N>>();
                let said = said.and_then(|it| serde_json::from_str::<Value>(&it.fields).ok());
                for name in CARRIED {
                    if let Some(value) = said.as_ref().and_then(|it| it.get(name)) {
                        // The line itself, and the nearer span, know better.
                        line.entry(name).or_insert_with(|| value.clone());
                    }
                }
            }
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

fn trace_id(span: &tracing::span::Id) -> Option<String> {
    let find = |it: &tracing::Dispatch| tracing_opentelemetry::get_otel_context(span, it);
    let context = tracing::dispatcher::get_default(find)?;
    let known = context.span().span_context().clone();
    known.is_valid().then(|| known.trace_id().to_string())
}

/// The fields of an event as members of a JSON object.
struct Members<'a>(&'a mut Map<String, Value>);

impl Members<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Members<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
