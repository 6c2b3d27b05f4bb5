//! What is counted and measured, for Prometheus. One list of families; handles of what lies on the
//! way of an order are made once. Label values come from fixed sets or from the configuration,
//! never from a request. Decides nothing and knows no HTTP.

use app::{Change, CommitError, Delivery};
use channel::{Answer, Operation};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use payments::{RefundState, TradeProduct};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric: what `docs/observability.md` says about it in more words.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, help }
}

const HTTP_REQUESTS: &str = "feiqian_http_requests_total";
const HTTP_SECONDS: &str = "feiqian_http_request_duration_seconds";
const HTTP_IN_FLIGHT: &str = "feiqian_http_requests_in_flight";
const HTTP_REJECTED: &str = "feiqian_http_rejected_total";
const ORDERS_CREATED: &str = "feiqian_orders_created_total";
const ORDERS_CLOSED: &str = "feiqian_orders_closed_total";
const PAYMENTS_SUCCEEDED: &str = "feiqian_payments_succeeded_total";
const PAYMENTS_FAILED: &str = "feiqian_payments_failed_total";
const REFUNDS: &str = "feiqian_refunds_total";
const PAID_MINOR: &str = "feiqian_paid_minor_total";
const REFUNDED_MINOR: &str = "feiqian_refunded_minor_total";
const CHANNEL_REQUESTS: &str = "feiqian_channel_requests_total";
const CHANNEL_SECONDS: &str = "feiqian_channel_request_duration_seconds";
const NOTIFICATIONS: &str = "feiqian_notifications_total";
const NOTIFICATION_SECONDS: &str = "feiqian_notification_duration_seconds";
const QUEUE_INTENTS: &str = "feiqian_queue_intents";
const QUEUE_DUE: &str = "feiqian_queue_due_intents";
const QUEUE_OLDEST: &str = "feiqian_queue_oldest_due_age_seconds";
const IN_DOUBT: &str = "feiqian_payments_in_doubt";
const IN_DOUBT_OLDEST: &str = "feiqian_payments_in_doubt_oldest_age_seconds";
const COMMITS: &str = "feiqian_store_commits_total";
const COMMIT_SECONDS: &str = "feiqian_store_commit_duration_seconds";
const STORE_UP: &str = "feiqian_store_up";
const LEDGER_OK: &str = "feiqian_ledger_check_ok";
const LEDGER_AT: &str = "feiqian_ledger_check_timestamp_seconds";
const CERTIFICATE_EXPIRY: &str = "feiqian_certificate_expiry_timestamp_seconds";
const EVENTS_PUBLISHED: &str = "feiqian_events_published_total";
const LEASE: &str = "feiqian_worker_lease_seconds";
const SPANS_DROPPED: &str = "feiqian_trace_spans_dropped_total";
const BUILD: &str = "feiqian_build_info";
const STARTED: &str = "feiqian_start_time_seconds";

/// Every metric that can appear on `/metrics`.
pub const FAMILIES: &[Family] = &[
    gauge(BUILD, "Always 1; the labels say what runs."),
    gauge(STARTED, "When this process started, in Unix time."),
    counter(HTTP_REQUESTS, "Requests answered."),
    histogram(HTTP_SECONDS, "Time from the head of a request to the head of its answer."),
    gauge(HTTP_IN_FLIGHT, "Requests being answered."),
    counter(HTTP_REJECTED, "Requests or connections refused by a limit."),
    counter(ORDERS_CREATED, "Orders created by merchants."),
    counter(ORDERS_CLOSED, "Orders closed unpaid."),
    counter(PAYMENTS_SUCCEEDED, "Orders that became paid."),
    counter(PAYMENTS_FAILED, "Attempts that ended without money."),
    counter(REFUNDS, "Refunds that came into a state."),
    counter(PAID_MINOR, "Money of paid orders in minor units."),
    counter(REFUNDED_MINOR, "Money of refunds that succeeded in minor units."),
    counter(CHANNEL_REQUESTS, "Questions to channels, repeats within one question not counted."),
    histogram(CHANNEL_SECONDS, "Time until a channel's answer, repeats included."),
    counter(NOTIFICATIONS, "Notifications posted to merchants, each try."),
    histogram(NOTIFICATION_SECONDS, "Time until a merchant's answer to a notification."),
    gauge(QUEUE_INTENTS, "Work to be done, now or later."),
    gauge(QUEUE_DUE, "Work whose time has come."),
    gauge(QUEUE_OLDEST, "How long the longest overdue work has been due; 0 if none is."),
    gauge(IN_DOUBT, "Payments with an attempt whose channel has not said what became of it."),
    gauge(IN_DOUBT_OLDEST, "How long the oldest of them has been in doubt; 0 if there is none."),
    counter(COMMITS, "Commits by what the store answered."),
    histogram(COMMIT_SECONDS, "Time until a commit was durable or refused."),
    gauge(STORE_UP, "1 if the last read worked, else 0."),
    gauge(LEDGER_OK, "1 if the last check of the books found nothing, else 0."),
    gauge(LEDGER_AT, "When the last check of the books was completed, in Unix time."),
    gauge(CERTIFICATE_EXPIRY, "When a certificate ends, in Unix time."),
    counter(EVENTS_PUBLISHED, "Events handed to the message broker."),
    gauge(LEASE, "How long this worker's lease still holds."),
    counter(SPANS_DROPPED, "Trace spans that never reached the collector."),
];

/// From 5 ms to 30 s: what merchants, channels and payers can tell apart.
const BUCKETS_S: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// A commit is one flush of a disk.
const COMMIT_BUCKETS_S: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Why a request or connection was refused before anyone looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    RateLimitMerchant,
    RateLimitIp,
    Overload,
    BodyTooLarge,
    Slow,
    Connections,
}

impl Rejected {
    pub const ALL: [Rejected; 6] = [
        Rejected::RateLimitMerchant,
        Rejected::RateLimitIp,
        Rejected::Overload,
        Rejected::BodyTooLarge,
        Rejected::Slow,
        Rejected::Connections,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Rejected::RateLimitMerchant => "rate_limit_merchant",
            Rejected::RateLimitIp => "rate_limit_ip",
            Rejected::Overload => "overload",
            Rejected::BodyTooLarge => "body_too_large",
            Rejected::Slow => "slow",
            Rejected::Connections => "connections",
        }
    }
}

/// One kind of waiting work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Queue {
    /// `heal`, `refund`, `notify` or `publish`.
    pub kind: &'static str,
    pub intents: u64,
    pub due: u64,
    /// 0 when nothing is due.
    pub oldest_due_age_s: f64,
}

/// How the whole stands at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulse {
    pub queues: Vec<Queue>,
    pub in_doubt: u64,
    pub in_doubt_oldest_age_s: f64,
    /// How long this process's lease still holds; `None` if it needs none.
    pub lease_s: Option<f64>,
}

type Route = (&'static str, &'static str, u16);

/// The metrics of one process. Counting never blocks and never fails.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    requests: RwLock<HashMap<Route, Counter>>,
    request_seconds: RwLock<HashMap<&'static str, Histogram>>,
    in_flight: Gauge,
    /// By `outcome_of`.
    commits: [(&'static str, Counter); 6],
    commit_seconds: Histogram,
    store_up: Gauge,
    spans_dropped: Counter,
}

const METADATA: Metadata<'static> = Metadata::new("feiqian", Level::INFO, None);

/// How a request is over: answered, or its client has gone away.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let builder = PrometheusBuilder::new();
        let commits = Matcher::Full(COMMIT_SECONDS.into());
        let others = Matcher::Suffix("_duration_seconds".into());
        let builder = builder
            .set_buckets_for_metric(commits, &COMMIT_BUCKETS_S)
            .and_then(|it| it.set_buckets_for_metric(others, &BUCKETS_S))
            .expect("the lists of buckets are not empty");
        let recorder = Arc::new(builder.build_recorder());
        for family in FAMILIES {
            let (name, help) = (family.name.into(), family.help.into());
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let count = |name, label, value| {
            recorder.register_counter(&key(name, &[(label, value)]), &METADATA)
        };
        let metrics = Metrics {
            handle: recorder.handle(),
            requests: RwLock::default(),
            request_seconds: RwLock::default(),
            in_flight: recorder.register_gauge(&key(HTTP_IN_FLIGHT, &[]), &METADATA),
            commits: COMMIT_OUTCOMES.map(|it| (it, count(COMMITS, "outcome", it))),
            commit_seconds: recorder.register_histogram(&key(COMMIT_SECONDS, &[]), &METADATA),
            store_up: recorder.register_gauge(&key(STORE_UP, &[]), &METADATA),
            spans_dropped: recorder.register_counter(&key(SPANS_DROPPED, &[]), &METADATA),
            recorder,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// What has not happened yet is 0 and not absent, or its first time would be no increase.
    fn begin_at_zero(&self) {
        for it in Rejected::ALL {
            self.counter(HTTP_REJECTED, &[("reason", it.word())]).absolute(0);
        }
        for it in ["accepted", "success", "closed", "abnormal"] {
            self.counter(REFUNDS, &[("state", it)]).absolute(0);
        }
        for it in ["accepted", "refused", "unreachable"] {
            self.counter(NOTIFICATIONS, &[("outcome", it)]).absolute(0);
        }
        for it in ["ok", "failed"] {
            self.counter(EVENTS_PUBLISHED, &[("outcome", it)]).absolute(0);
        }
        for it in PRODUCTS {
            self.counter(ORDERS_CREATED, &[("product", product(it))]).absolute(0);
        }
        self.counter(ORDERS_CLOSED, &[]).absolute(0);
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// Where crates that know only the crate `metrics` count.
    pub fn recorder(&self) -> Arc<PrometheusRecorder> {
        self.recorder.clone()
    }

    /// All of it, as Prometheus reads it.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds measured times into their histograms: to be done every few seconds, or they pile up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    pub(super) fn begins(&self, version: &str, commit: &str, role: &str, at_s: f64) {
        let labels = [("version", version), ("commit", commit), ("role", role)];
        self.gauge(BUILD, &labels).set(1.0);
        self.gauge(STARTED, &[]).set(at_s);
    }

    pub(super) fn in_flight(&self) -> InFlight {
        self.in_flight.increment(1.0);
        InFlight(self.in_flight.clone())
    }

    pub(super) fn answered(
        &self,
        route: &'static str,
        method: &'static str,
        status: u16,
        took: Duration,
    ) {
        let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(&(route, method, status)) {
            Some(counter) => counter.increment(1),
            None => {
                drop(known);
                let number = status.to_string();
                let labels = [("route", route), ("method", method), ("status", &number)];
                let counter = self.counter(HTTP_REQUESTS, &labels);
                counter.increment(1);
                let mut known = self.requests.write().unwrap_or_else(PoisonError::into_inner);
                known.insert((route, method, status), counter);
            }
        }
        let known = self.request_seconds.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(route) {
            Some(histogram) => histogram.record(took.as_secs_f64()),
            None => {
                drop(known);
                let histogram = self.histogram(HTTP_SECONDS, &[("route", route)]);
                histogram.record(took.as_secs_f64());
                let mut known =
                    self.request_seconds.write().unwrap_or_else(PoisonError::into_inner);
                known.insert(route, histogram);
            }
        }
    }

    pub fn rejected(&self, why: Rejected) {
        self.counter(HTTP_REJECTED, &[("reason", why.word())]).increment(1);
    }

    pub(super) fn committed(&self, result: &Result<(), CommitError>, took: Duration) {
        let outcome = outcome_of(result);
        if let Some((_, counter)) = self.commits.iter().find(|it| it.0 == outcome) {
            counter.increment(1);
        }
        self.commit_seconds.record(took.as_secs_f64());
    }

    pub(super) fn changed(&self, change: &Change) {
        match change {
            Change::OrderCreated(it) => {
                self.counter(ORDERS_CREATED, &[("product", product(*it))]).increment(1);
            }
            Change::Paid { channel, amount } => {
                self.counter(PAYMENTS_SUCCEEDED, &[("channel", channel)]).increment(1);
                let labels = [("currency", amount.currency().code())];
                self.counter(PAID_MINOR, &labels).increment(amount.minor().unsigned_abs());
            }
            Change::AttemptEnded { channel } => {
                self.counter(PAYMENTS_FAILED, &[("channel", channel)]).increment(1);
            }
            Change::OrderClosed => self.counter(ORDERS_CLOSED, &[]).increment(1),
            Change::Refund(state, amount) => {
                let word = match state {
                    RefundState::Processing => "accepted",
                    RefundState::Success => "success",
                    RefundState::Closed => "closed",
                    RefundState::Abnormal => "abnormal",
                };
                self.counter(REFUNDS, &[("state", word)]).increment(1);
                if *state == RefundState::Success {
                    let labels = [("currency", amount.currency().code())];
                    self.counter(REFUNDED_MINOR, &labels).increment(amount.minor().unsigned_abs());
                }
            }
        }
    }

    pub(super) fn asked(
        &self,
        channel: &str,
        operation: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        let labels = [("channel", channel), ("operation", operation), ("outcome", outcome)];
        self.counter(CHANNEL_REQUESTS, &labels).increment(1);
        self.histogram(CHANNEL_SECONDS, &labels[..2]).record(took.as_secs_f64());
    }

    pub(super) fn notified(&self, outcome: &'static str, took: Duration) {
        self.counter(NOTIFICATIONS, &[("outcome", outcome)]).increment(1);
        self.histogram(NOTIFICATION_SECONDS, &[]).record(took.as_secs_f64());
    }

    pub fn store_up(&self, up: bool) {
        self.store_up.set(f64::from(u8::from(up)));
    }

    pub(super) fn ledger_checked(&self, ok: bool, at_s: f64) {
        self.gauge(LEDGER_OK, &[]).set(f64::from(u8::from(ok)));
        self.gauge(LEDGER_AT, &[]).set(at_s);
    }

    pub(super) fn certificate(&self, name: &str, ends_s: f64) {
        self.gauge(CERTIFICATE_EXPIRY, &[("name", name)]).set(ends_s);
    }

    /// Sets what only a look at the whole store, or the worker, can tell.
    pub fn pulse(&self, pulse: &Pulse) {
        for it in &pulse.queues {
            let labels = [("kind", it.kind)];
            self.gauge(QUEUE_INTENTS, &labels).set(it.intents as f64);
            self.gauge(QUEUE_DUE, &labels).set(it.due as f64);
            self.gauge(QUEUE_OLDEST, &labels).set(it.oldest_due_age_s);
        }
        self.gauge(IN_DOUBT, &[]).set(pulse.in_doubt as f64);
        self.gauge(IN_DOUBT_OLDEST, &[]).set(pulse.in_doubt_oldest_age_s);
        if let Some(lease_s) = pulse.lease_s {
            self.gauge(LEASE, &[]).set(lease_s);
        }
    }

    pub fn published(&self, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.counter(EVENTS_PUBLISHED, &[("outcome", outcome)]).increment(1);
    }

    /// How many spans were lost since the process began; only ever grows.
    pub(super) fn spans_dropped(&self, total: u64) {
        self.spans_dropped.absolute(total);
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

const COMMIT_OUTCOMES: [&str; 6] = ["ok", "exists", "stale", "books", "refused", "unknown"];

fn outcome_of(result: &Result<(), CommitError>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(CommitError::Exists(_)) => "exists",
        Err(CommitError::Stale(_)) => "stale",
        Err(CommitError::Books(_)) => "books",
        Err(CommitError::Refused(_)) => "refused",
        Err(CommitError::Unknown(_)) => "unknown",
    }
}

const PRODUCTS: [TradeProduct; 5] = [
    TradeProduct::Native,
    TradeProduct::Jsapi,
    TradeProduct::App,
    TradeProduct::H5,
    TradeProduct::Cashier,
];

fn product(it: TradeProduct) -> &'static str {
    match it {
        TradeProduct::Native => "native",
        TradeProduct::Jsapi => "jsapi",
        TradeProduct::App => "app",
        TradeProduct::H5 => "h5",
        TradeProduct::Cashier => "cashier",
    }
}

pub(super) fn operation_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Create(_) => "create",
        Operation::Query { .. } => "query",
        Operation::Close { .. } => "close",
        Operation::Refund(_) => "refund",
        Operation::QueryRefund { .. } => "query_refund",
        Operation::Bill { .. } => "bill",
        Operation::Download { .. } => "download",
        Operation::Keys => "keys",
    }
}

/// *Refused* is an answer, too; *in doubt* is none.
pub(super) fn answer_outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Prepared(_)
        | Answer::Payment(_)
        | Answer::Refund(_)
        | Answer::Closed
        | Answer::NotFound
        | Answer::File(_)
        | Answer::Bytes(_)
        | Answer::Keys(_) => "ok",
        Answer::Declined(_) => "refused",
        Answer::UnknownKey { .. } | Answer::InDoubt { .. } => "in_doubt",
    }
}

pub(super) fn delivery_outcome(delivery: &Delivery) -> &'static str {
    match (delivery.accepted(), delivery.status) {
        (true, _) => "accepted",
        (false, Some(_)) => "refused",
        (false, None) => "unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that can be counted, once.
    fn everything() -> String {
        let metrics = Metrics::new();
        let took = Duration::from_millis(7);
        metrics.begins("1", "c", "all", 1.0);
        drop(metrics.in_flight());
        metrics.answered("create_native", "POST", 200, took);
        metrics.committed(&Ok(()), took);
        let amount = kernel::Money::new(100, kernel::Currency::Cny);
        let channel = || "wechat".to_owned();
        metrics.changed(&Change::OrderCreated(TradeProduct::Native));
        metrics.changed(&Change::Paid { channel: channel(), amount });
        metrics.changed(&Change::AttemptEnded { channel: channel() });
        metrics.changed(&Change::Refund(RefundState::Success, amount));
        metrics.asked("wechat", "create", "ok", took);
        metrics.notified("accepted", took);
        metrics.store_up(true);
        metrics.ledger_checked(true, 1.0);
        metrics.certificate("platform", 1.0);
        metrics.published(true);
        let queue = Queue { kind: "heal", intents: 3, due: 2, oldest_due_age_s: 1.5 };
        metrics.pulse(&Pulse {
            queues: vec![queue],
            in_doubt: 1,
            in_doubt_oldest_age_s: 2.0,
            lease_s: Some(9.0),
        });
        metrics.spans_dropped(4);
        metrics.render()
    }

    #[test]
    fn each_family_is_described_and_can_appear_and_no_other_does() {
        let text = everything();
        let mut typed: Vec<&str> =
            text.lines().filter_map(|it| it.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut wanted: Vec<&str> = FAMILIES.iter().map(|it| it.name).collect();
        typed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(typed, wanted);
        for family in FAMILIES {
            assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{text}");
        }
    }

    #[test]
    fn values_are_what_was_counted() {
        let text = everything();
        for line in [
            r#"feiqian_http_requests_total{route="create_native",method="POST",status="200"} 1"#,
            r#"feiqian_http_request_duration_seconds_bucket{route="create_native",le="0.005"} 0"#,
            r#"feiqian_http_request_duration_seconds_bucket{route="create_native",le="0.01"} 1"#,
            r#"feiqian_http_request_duration_seconds_bucket{route="create_native",le="30"} 1"#,
            "feiqian_http_requests_in_flight 0",
            r#"feiqian_http_rejected_total{reason="slow"} 0"#,
            r#"feiqian_paid_minor_total{currency="CNY"} 100"#,
            r#"feiqian_refunded_minor_total{currency="CNY"} 100"#,
            r#"feiqian_refunds_total{state="abnormal"} 0"#,
            r#"feiqian_store_commit_duration_seconds_bucket{le="0.0005"} 0"#,
            r#"feiqian_queue_oldest_due_age_seconds{kind="heal"} 1.5"#,
            "feiqian_worker_lease_seconds 9",
            "feiqian_trace_spans_dropped_total 4",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
    }

    /// The documents list each family with its kind, and nothing that does not exist.
    #[test]
    fn the_documents_list_exactly_these_families() {
        for file in ["observability.md", "observability.zh-CN.md"] {
            let path = format!("{}/../../docs/{file}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).expect("the document exists");
            let rows = text.lines().filter_map(|it| it.strip_prefix("| `feiqian_"));
            let mut listed: Vec<(String, String)> = rows
                .map(|row| {
                    let mut cells = row.split('|').map(str::trim);
                    let name = cells.next().unwrap_or("").trim_end_matches('`');
                    let name = name.split('{').next().unwrap_or("");
                    (format!("feiqian_{name}"), cells.next().unwrap_or("").to_owned())
                })
                .collect();
            let kind = |it: &Family| format!("{:?}", it.kind).to_lowercase();
            let mut wanted: Vec<(String, String)> =
                FAMILIES.iter().map(|it| (it.name.to_owned(), kind(it))).collect();
            listed.sort();
            wanted.sort();
            assert_eq!(listed, wanted, "{file}");
        }
    }
}
