//! The one HTTP client towards providers: encode, send, decode. It knows no provider's format and
//! remembers nothing about orders; what to ask and when to ask again is decided by its caller.

use crate::breaker::{Breaker, BreakerLimits, Outcome};
use crate::transport::{TransportError, TrustRoots, builder, chain, read_body};
use channel::{Answer, Channel, ChannelId, Decline, HttpMessage, HttpRequest, Moment, Operation};
use kernel::Timestamp;
use reqwest::{Client, Method, Request, Url};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct DriverSettings {
    pub connect_timeout_ms: u64,
    /// One request with its answer.
    pub timeout_ms: u64,
    /// The same for files, which are larger.
    pub file_timeout_ms: u64,
    /// Where requests may go: `api.mch.weixin.qq.com`, or with a port `127.0.0.1:8081`. A host
    /// without a port means the usual one of the scheme. Nothing else is ever called.
    pub allowed_hosts: Vec<String>,
    /// Whether http without TLS is allowed: for simulators only.
    pub allow_plain_http: bool,
    pub roots: TrustRoots,
    pub answer_limit_bytes: usize,
    pub file_limit_bytes: usize,
    pub breaker: BreakerLimits,
    /// Some providers refuse requests without one.
    pub user_agent: String,
}

impl Default for DriverSettings {
    fn default() -> DriverSettings {
        DriverSettings {
            connect_timeout_ms: 3_000,
            timeout_ms: 8_000,
            file_timeout_ms: 120_000,
            allowed_hosts: Vec::new(),
            allow_plain_http: false,
            roots: TrustRoots::System,
            // The largest answer is a certificate list of some 10 KB.
            answer_limit_bytes: 1 << 20,
            // A trade bill has about 500 bytes a payment.
            file_limit_bytes: 512 << 20,
            breaker: BreakerLimits { failures: 5, rest_ms: 10_000, trial_ms: 30_000 },
            user_agent: "Feiqian".into(),
        }
    }
}

/// Sends at most so often for a read: the first time and two repeats.
const READ_TRIES: u32 = 3;
/// Keys are fetched at most so often from one channel, however many unknown ones turn up:
/// a callback's key serial can be written by anybody.
const KEYS_PAUSE: Duration = Duration::from_secs(10);

pub struct HttpDriver {
    client: Client,
    settings: DriverSettings,
    lanes: Mutex<HashMap<ChannelId, Arc<Lane>>>,
}

/// What is remembered of one channel.
#[derive(Default)]
struct Lane {
    breaker: Mutex<Breaker>,
    /// When keys were last asked for. Held while asking: whoever waits finds them learnt.
    keys_asked: tokio::sync::Mutex<Option<Instant>>,
}

/// The caller's time, moved on by what has passed since.
struct Clock {
    now: Timestamp,
    started: Instant,
}

impl Clock {
    fn now(&self) -> Timestamp {
        self.now.plus_ms(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now(), nonce: seal::random_nonce() }
    }
}

/// What became of one request.
enum Exchange {
    Answered(HttpMessage),
    /// No byte left the house, and none would the next time.
    Unsendable {
        code: &'static str,
        why: String,
    },
    /// No byte left the house: the circuit is open.
    Resting(String),
    /// No byte left the house: there was no connection.
    Unconnected(String),
    /// It may have arrived.
    Silent(String),
}

/// Whether a read should be tried again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Stop,
    Again,
    Rest,
}

impl HttpDriver {
    pub fn new(settings: DriverSettings) -> Result<HttpDriver, TransportError> {
        let client = builder(&settings.roots, settings.connect_timeout_ms)?
            .user_agent(settings.user_agent.clone())
            // WeChat closes idle connections after 8 s; one that closes while a write is on its
            // way leaves the write in doubt.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .map_err(TransportError::Start)?;
        Ok(HttpDriver { client, settings, lanes: Mutex::default() })
    }

    /// Asks `channel` one thing.
    ///
    /// - Total: every failure to get an answer that can be believed is [`Answer::InDoubt`]. A
    ///   write that certainly was not sent is [`Answer::Declined`] and `temporary`.
    /// - Reads are repeated, at most three sends in all. Writes are sent once.
    /// - Never answers [`Answer::UnknownKey`]: keys are fetched and the answer read again.
    pub async fn ask(
        &self,
        channel: &dyn Channel,
        operation: &Operation,
        now: Timestamp,
    ) -> Answer {
        let clock = Clock { now, started: Instant::now() };
        let tries = if operation.is_read() { READ_TRIES } else { 1 };
        let mut before = None;
        for attempt in 1..=tries {
            if attempt > 1 {
                tokio::time::sleep(pause(attempt - 1)).await;
            }
            let (answer, next) = self.ask_once(channel, operation, &clock).await;
            if let Answer::InDoubt { why } = &answer {
                tracing::warn!(channel = %channel.id(), operation = name(operation), attempt, why);
            }
            match next {
                Next::Stop => return answer,
                // What was heard before the circuit opened says more than that it opened.
                Next::Rest => return before.unwrap_or(answer),
                Next::Again => before = Some(answer),
            }
        }
        before.unwrap_or(Answer::InDoubt { why: "nothing was sent".into() })
    }

    /// Fetches the channel's signing keys, unless that was done a moment ago. For the daily
    /// refresh, and for a callback that is signed by an unknown key.
    ///
    /// - Output: whether the channel may know more keys now than when the caller asked.
    pub async fn refresh_keys(&self, channel: &dyn Channel, now: Timestamp) -> bool {
        let clock = Clock { now, started: Instant::now() };
        let lane = self.lane(channel.id());
        let mut asked = lane.keys_asked.lock().await;
        if asked.is_some_and(|it| clock.started.duration_since(it) < KEYS_PAUSE) {
            // Somebody fetched while this caller waited for the lock, or just before.
            return asked.is_some_and(|it| it > clock.started);
        }
        *asked = Some(Instant::now());
        let (answer, _, _) = self.ask_plain(channel, &Operation::Keys, &clock).await;
        match answer {
            Answer::Keys(keys) => {
                tracing::info!(channel = %channel.id(), keys = keys.len(), "keys refreshed");
                channel.learn(&keys);
                true
            }
            other => {
                tracing::warn!(channel = %channel.id(), answer = ?other, "keys not refreshed");
                false
            }
        }
    }

    /// One try, and whether repeating it makes sense.
    async fn ask_once(
        &self,
        channel: &dyn Channel,
        operation: &Operation,
        clock: &Clock,
    ) -> (Answer, Next) {
        let (answer, message, next) = self.ask_plain(channel, operation, clock).await;
        let Some(message) = message else { return (answer, next) };
        let answer = match answer {
            Answer::UnknownKey { serial } => {
                if *operation != Operation::Keys {
                    self.refresh_keys(channel, clock.now()).await;
                }
                // Even if nothing was fetched: another request may have, in the meantime.
                match channel.decode(operation, &message, &clock.moment()) {
                    Answer::UnknownKey { .. } => Answer::InDoubt {
                        why: format!(
                            "the answer is signed by key {serial}, which the provider does not \
                             list; check the channel's key settings"
                        ),
                    },
                    other => other,
                }
            }
            other => other,
        };
        // A failed check of a 2xx answer may be a probe of our diligence; the next answer is
        // right then. A 4xx will not change.
        let doubtful = matches!(answer, Answer::InDoubt { .. });
        let again = message.status >= 500 || doubtful && message.status < 300;
        (answer, if again { Next::Again } else { Next::Stop })
    }

    async fn ask_plain(
        &self,
        channel: &dyn Channel,
        operation: &Operation,
        clock: &Clock,
    ) -> (Answer, Option<HttpMessage>, Next) {
        let unreachable = |why| not_sent(operation, "CHANNEL_UNREACHABLE", why, true);
        match self.exchange(channel, operation, clock).await {
            Exchange::Answered(message) => {
                let answer = channel.decode(operation, &message, &clock.moment());
                (answer, Some(message), Next::Stop)
            }
            Exchange::Unsendable { code, why } => {
                (not_sent(operation, code, why, false), None, Next::Stop)
            }
            Exchange::Resting(why) => (unreachable(why), None, Next::Rest),
            Exchange::Unconnected(why) => (unreachable(why), None, Next::Again),
            Exchange::Silent(why) => (Answer::InDoubt { why }, None, Next::Again),
        }
    }

    async fn exchange(
        &self,
        channel: &dyn Channel,
        operation: &Operation,
        clock: &Clock,
    ) -> Exchange {
        let (request, limit) = match self.prepare(channel, operation, clock) {
            Ok(prepared) => prepared,
            Err(refusal) => return refusal,
        };
        let lane = self.lane(channel.id());
        if !lane.admit(clock.now(), &self.settings.breaker) {
            let why = format!("channel {} did not answer lately; it rests", channel.id());
            return Exchange::Resting(why);
        }
        let exchange = self.send(request, limit).await;
        let outcome = match &exchange {
            Exchange::Answered(message) if message.status < 500 => Outcome::Answered,
            Exchange::Answered(_)
            | Exchange::Unsendable { .. }
            | Exchange::Resting(_)
            | Exchange::Unconnected(_)
            | Exchange::Silent(_) => Outcome::Unanswered,
        };
        lane.record(outcome, clock.now(), &self.settings.breaker);
        exchange
    }

    /// All that can go wrong before the network: a request, and the most bytes of its answer.
    fn prepare(
        &self,
        channel: &dyn Channel,
        operation: &Operation,
        clock: &Clock,
    ) -> Result<(Request, usize), Exchange> {
        let settings = &self.settings;
        let unsendable = |code, why| Exchange::Unsendable { code, why };
        let request = channel
            .encode(operation, &clock.moment())
            .map_err(|error| unsendable("CANNOT_ENCODE", error.to_string()))?;
        let HttpRequest { method, url, headers, body } = request;
        let url = self.allowed(&url).map_err(|why| unsendable("HOST_NOT_ALLOWED", why))?;
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|error| unsendable("CANNOT_ENCODE", format!("{method:?}: {error}")))?;
        let (timeout_ms, limit) = match operation {
            Operation::Download { .. } => (settings.file_timeout_ms, settings.file_limit_bytes),
            Operation::Create(_)
            | Operation::Query { .. }
            | Operation::Close { .. }
            | Operation::Refund(_)
            | Operation::QueryRefund { .. }
            | Operation::Bill { .. }
            | Operation::Keys => (settings.timeout_ms, settings.answer_limit_bytes),
        };
        let mut outgoing =
            self.client.request(method, url).timeout(Duration::from_millis(timeout_ms));
        for (name, value) in headers {
            outgoing = outgoing.header(name, value);
        }
        if !body.is_empty() {
            outgoing = outgoing.body(body);
        }
        let outgoing =
            outgoing.build().map_err(|error| unsendable("CANNOT_ENCODE", chain(error)))?;
        Ok((outgoing, limit))
    }

    async fn send(&self, request: Request, limit: usize) -> Exchange {
        let mut response = match self.client.execute(request).await {
            Ok(response) => response,
            // The name did not resolve, or TCP or TLS did not come about. The request is written
            // on a finished connection only, so the provider cannot have seen it: a write may be
            // refused for now instead of being left in doubt.
            Err(error) if error.is_connect() => {
                return Exchange::Unconnected(format!("no connection: {}", chain(error)));
            }
            Err(error) => return Exchange::Silent(format!("no answer: {}", chain(error))),
        };
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        match read_body(&mut response, limit).await {
            Ok((body, true)) => Exchange::Answered(HttpMessage { status, headers, body }),
            Ok((_, false)) => Exchange::Silent(format!(
                "the answer (status {status}) is longer than {limit} bytes; raise the limit if \
                 that is right"
            )),
            Err(error) => Exchange::Silent(format!(
                "the answer (status {status}) broke off: {}",
                chain(error)
            )),
        }
    }

    fn allowed(&self, url: &str) -> Result<Url, String> {
        let url = Url::parse(url).map_err(|_| format!("{url:?} is not an absolute URL"))?;
        let host = url.host_str().unwrap_or_default();
        let place = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let sealed = url.scheme() == "https";
        let plain = url.scheme() == "http" && self.settings.allow_plain_http;
        if !sealed && !plain {
            return Err(format!("{}://{place} is not https", url.scheme()));
        }
        if self.settings.allowed_hosts.iter().any(|it| it.eq_ignore_ascii_case(&place)) {
            Ok(url)
        } else {
            Err(format!("{place} is not among the allowed hosts; add it to the configuration"))
        }
    }

    fn lane(&self, id: &ChannelId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        match lanes.get(id) {
            Some(lane) => lane.clone(),
            None => lanes.entry(id.clone()).or_default().clone(),
        }
    }
}

impl Lane {
    fn admit(&self, now: Timestamp, limits: &BreakerLimits) -> bool {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, sent) = breaker.admit(now, limits);
        *breaker = next;
        sent
    }

    fn record(&self, outcome: Outcome, now: Timestamp, limits: &BreakerLimits) {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        *breaker = breaker.record(outcome, now, limits);
    }
}

/// The answer to what never left the house.
///
/// A question about money that was not asked tells nothing about the money: it stays in doubt, so
/// that nobody takes the refusal for the payment's.
pub(crate) fn not_sent(operation: &Operation, code: &str, why: String, temporary: bool) -> Answer {
    match operation {
        Operation::Query { .. } | Operation::QueryRefund { .. } => Answer::InDoubt { why },
        Operation::Create(_)
        | Operation::Close { .. }
        | Operation::Refund(_)
        | Operation::Bill { .. }
        | Operation::Download { .. }
        | Operation::Keys => {
            Answer::Declined(Decline { code: code.into(), message: why, temporary })
        }
    }
}

/// Before repeat `attempt`: 0.2 s, then 0.4 s, each cut by up to a half at random, so that those
/// who failed together do not come back together.
fn pause(attempt: u32) -> Duration {
    let whole_ms = 100_u64 << attempt.min(6);
    let [dice] = seal::random_bytes::<1>();
    Duration::from_millis(whole_ms - whole_ms * u64::from(dice) / 512)
}

fn name(operation: &Operation) -> &'static str {
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
