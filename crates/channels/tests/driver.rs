//! The HTTP client against a server on this machine that misbehaves on demand.

use app::Provider;
use channel::{
    Abilities, Answer, Callback, CallbackError, Channel, ChannelId, Decline, EncodeError,
    HttpMessage, HttpRequest, Moment, Operation, ProviderKey,
};
use channels::{BreakerLimits, DriverSettings, HttpDriver, Roster, TrustRoots};
use kernel::{Serial, SerialGenerator, SerialKind, Timestamp, Zone};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// A channel whose language is: 200 `ok` is closed, 200 `signed` needs a key that must be learnt,
/// 4xx is a refusal, the rest is in doubt.
struct Plain {
    id: ChannelId,
    origin: String,
    abilities: Abilities,
    knows: AtomicBool,
}

impl Plain {
    fn at(origin: &str) -> Plain {
        Plain {
            id: ChannelId::new("plain"),
            origin: origin.into(),
            abilities: channels::wechat::direct_merchant_abilities(),
            knows: AtomicBool::new(false),
        }
    }
}

impl Channel for Plain {
    fn id(&self) -> &ChannelId {
        &self.id
    }

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn payee(&self) -> &str {
        "payee"
    }

    fn encode(&self, operation: &Operation, _: &Moment) -> Result<HttpRequest, EncodeError> {
        let (method, path) = match operation {
            Operation::Close { .. } => ("POST", "/close"),
            Operation::Query { .. } => ("GET", "/query"),
            Operation::Keys => ("GET", "/keys"),
            _ => {
                let what = "do that".into();
                return Err(EncodeError::Unsupported { channel: self.id.clone(), what });
            }
        };
        let url = format!("{}{path}", self.origin);
        let body = if method == "POST" { b"{}".to_vec() } else { Vec::new() };
        Ok(HttpRequest { method, url, headers: vec![("x-nonce", "n".into())], body })
    }

    fn decode(&self, operation: &Operation, message: &HttpMessage, _: &Moment) -> Answer {
        match (message.status, message.body.as_slice()) {
            (200, b"keys") if *operation == Operation::Keys => Answer::Keys(vec![]),
            (200, b"ok") => Answer::Closed,
            (200, b"signed") if self.knows.load(Ordering::SeqCst) => Answer::Closed,
            (200, b"signed") => Answer::UnknownKey { serial: "4A".into() },
            (400..500, _) => declined("NO", false),
            (status, _) => Answer::InDoubt { why: format!("status {status}") },
        }
    }

    fn callback(&self, _: &HttpMessage, _: Timestamp) -> Result<Callback, CallbackError> {
        if self.knows.load(Ordering::SeqCst) {
            Ok(Callback::Other { kind: "known".into() })
        } else {
            Err(CallbackError::UnknownKey("4A".into()))
        }
    }

    fn learn(&self, _: &[ProviderKey]) {
        self.knows.store(true, Ordering::SeqCst);
    }
}

fn declined(code: &str, temporary: bool) -> Answer {
    Answer::Declined(Decline { code: code.into(), message: String::new(), temporary })
}

/// A server that gives its answers in turn, the last one for ever. `""` closes the connection
/// without an answer, `hang` never answers.
struct Server {
    origin: String,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

async fn server(answers: &[&str]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let answers: Arc<Vec<String>> = Arc::new(answers.iter().map(|it| (*it).to_owned()).collect());
    let (seen, count) = (requests.clone(), connections.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (seen, answers) = (seen.clone(), answers.clone());
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                let size = stream.read(&mut bytes).await.unwrap_or(0);
                if size == 0 {
                    return;
                }
                let turn = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(String::from_utf8_lossy(&bytes[..size]).into_owned());
                    seen.len() - 1
                };
                let answer = &answers[turn.min(answers.len() - 1)];
                match answer.as_str() {
                    "hang" => tokio::time::sleep(std::time::Duration::from_secs(5)).await,
                    text => stream.write_all(text.as_bytes()).await.unwrap_or(()),
                }
            });
        }
    });
    Server { origin, requests, connections }
}

impl Server {
    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn says(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn driver_to(origins: &[&str]) -> HttpDriver {
    let hosts = origins.iter().map(|it| it.trim_start_matches("http://").to_owned()).collect();
    HttpDriver::new(DriverSettings {
        connect_timeout_ms: 500,
        timeout_ms: 300,
        allowed_hosts: hosts,
        allow_plain_http: true,
        roots: TrustRoots::Only(Vec::new()),
        answer_limit_bytes: 100,
        breaker: BreakerLimits { failures: 3, rest_ms: 10_000, trial_ms: 1_000 },
        ..Default::default()
    })
    .unwrap()
}

fn attempt() -> Serial {
    SerialGenerator::new(1, Zone::shanghai()).next(NOW, SerialKind::Attempt)
}

fn write() -> Operation {
    Operation::Close { attempt: attempt() }
}

fn read() -> Operation {
    Operation::Query { attempt: attempt() }
}

#[track_caller]
fn in_doubt(answer: Answer, want: &str) {
    let Answer::InDoubt { why } = answer else { panic!("{answer:?} is not in doubt") };
    assert!(why.contains(want), "{why:?} lacks {want:?}");
}

#[track_caller]
fn not_sent(answer: Answer, code: &str, temporary: bool) {
    let Answer::Declined(it) = answer else { panic!("{answer:?} is not declined") };
    assert_eq!((it.code.as_str(), it.temporary), (code, temporary), "{}", it.message);
}

/// Asks a fresh channel one thing; answers the answer and how many requests the server saw.
async fn ask(answers: &[&str], operation: Operation) -> (Answer, usize) {
    let server = server(answers).await;
    let answer =
        driver_to(&[&server.origin]).ask(&Plain::at(&server.origin), &operation, NOW).await;
    (answer, server.requests().len())
}

#[tokio::test]
async fn a_write_is_sent_once_and_a_read_up_to_three_times() {
    let (bad, ok, no) = (says(502, "x"), says(200, "ok"), says(404, "x"));
    for answers in [&bad[..], "", "hang"] {
        let (answer, sent) = ask(&[answers, &ok], write()).await;
        assert!(matches!(answer, Answer::InDoubt { .. }), "{answers:?} gave {answer:?}");
        assert_eq!(sent, 1, "{answers:?}");
    }
    assert_eq!(ask(&[&bad, &bad, &ok], read()).await, (Answer::Closed, 3));
    assert_eq!(ask(&["hang", &ok], read()).await, (Answer::Closed, 2));
    let (answer, sent) = ask(&[&bad], read()).await;
    in_doubt(answer, "502");
    assert_eq!(sent, 3);
    // A clear no is no reason to ask again.
    assert_eq!(ask(&[&no], read()).await, (declined("NO", false), 1));
    // Nor is a redirect followed.
    let away = "HTTP/1.1 302 X\r\nLocation: /query\r\nContent-Length: 0\r\n\r\n";
    let (answer, sent) = ask(&[away], read()).await;
    in_doubt(answer, "302");
    assert_eq!(sent, 1);
}

#[tokio::test]
async fn header_names_go_out_in_title_case() {
    let server = server(&[&says(200, "ok")]).await;
    driver_to(&[&server.origin]).ask(&Plain::at(&server.origin), &write(), NOW).await;
    let request = &server.requests()[0];
    assert!(request.starts_with("POST /close HTTP/1.1\r\n"), "{request}");
    for header in ["\r\nX-Nonce: n\r\n", "\r\nUser-Agent: Feiqian\r\n"] {
        assert!(request.contains(header), "{request}");
    }
}

#[tokio::test]
async fn too_long_or_broken_answers_are_in_doubt() {
    let (answer, _) = ask(&[&says(200, &"x".repeat(101))], write()).await;
    in_doubt(answer, "longer than 100 bytes");
    let (answer, _) = ask(&["HTTP/1.1 200 X\r\nContent-Length: 50\r\n\r\nhalf"], write()).await;
    in_doubt(answer, "broke off");
    let (answer, _) = ask(&["nonsense\r\n\r\n"], write()).await;
    in_doubt(answer, "no answer");
}

#[tokio::test]
async fn a_write_that_never_left_is_declined_for_now_and_a_read_in_doubt() {
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (driver, channel) = (driver_to(&[&origin]), Plain::at(&origin));
    not_sent(driver.ask(&channel, &write(), NOW).await, "CHANNEL_UNREACHABLE", true);
    // The circuit opens at the second try of the read; the reason given is still the first one.
    in_doubt(driver.ask(&channel, &read(), NOW).await, "no connection");
}

#[tokio::test]
async fn only_allowed_hosts_are_called() {
    let server = server(&[&says(200, "ok")]).await;
    let channel = Plain::at(&server.origin);
    let elsewhere = driver_to(&["http://127.0.0.1:1"]);
    not_sent(elsewhere.ask(&channel, &write(), NOW).await, "HOST_NOT_ALLOWED", false);
    let host_without_port = driver_to(&["http://127.0.0.1"]);
    not_sent(host_without_port.ask(&channel, &write(), NOW).await, "HOST_NOT_ALLOWED", false);
    let strict = HttpDriver::new(DriverSettings {
        allowed_hosts: vec![server.origin.trim_start_matches("http://").into()],
        roots: TrustRoots::Only(Vec::new()),
        ..Default::default()
    });
    not_sent(strict.unwrap().ask(&channel, &write(), NOW).await, "HOST_NOT_ALLOWED", false);
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_cannot_be_encoded_is_not_sent() {
    let operation = Operation::Download { url: "x".into() };
    let (answer, sent) = ask(&[&says(200, "ok")], operation).await;
    not_sent(answer, "CANNOT_ENCODE", false);
    assert_eq!(sent, 0);
}

#[tokio::test]
async fn an_unknown_key_is_fetched_once_and_the_same_answer_read_again() {
    let (signed, keys) = (says(200, "signed"), says(200, "keys"));
    let server = server(&[&signed, &keys]).await;
    let (driver, channel) = (driver_to(&[&server.origin]), Plain::at(&server.origin));
    // A write: the answer is read again, the request not sent again.
    assert_eq!(driver.ask(&channel, &write(), NOW).await, Answer::Closed);
    let paths: Vec<String> =
        server.requests().iter().map(|it| it.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/close", "/keys"]);
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_leave_doubt_and_are_not_hammered() {
    let (signed, no) = (says(200, "signed"), says(404, "x"));
    let server = server(&[&signed, &no, &signed, &signed]).await;
    let (driver, channel) = (driver_to(&[&server.origin]), Plain::at(&server.origin));
    in_doubt(driver.ask(&channel, &write(), NOW).await, "signed by key 4A");
    in_doubt(driver.ask(&channel, &write(), NOW).await, "signed by key 4A");
    assert!(!driver.refresh_keys(&channel, NOW).await);
    let keys = server.requests().iter().filter(|it| it.starts_with("GET /keys")).count();
    assert_eq!(keys, 1);
}

#[tokio::test]
async fn a_silent_channel_rests_and_is_tried_again() {
    let (bad, ok) = (says(503, "x"), says(200, "ok"));
    let server = server(&[&bad, &bad, &bad, &ok]).await;
    let (driver, channel) = (driver_to(&[&server.origin]), Plain::at(&server.origin));
    for _ in 0..3 {
        in_doubt(driver.ask(&channel, &write(), NOW).await, "503");
    }
    not_sent(driver.ask(&channel, &write(), NOW).await, "CHANNEL_UNREACHABLE", true);
    in_doubt(driver.ask(&channel, &read(), NOW).await, "it rests");
    assert_eq!(server.requests().len(), 3);
    // Another channel is not concerned.
    let other = Plain { id: ChannelId::new("other"), ..Plain::at(&server.origin) };
    assert_eq!(driver.ask(&other, &write(), NOW).await, Answer::Closed);
    assert_eq!(driver.ask(&channel, &write(), NOW.plus_s(11)).await, Answer::Closed);
    assert_eq!(driver.ask(&channel, &write(), NOW.plus_s(11)).await, Answer::Closed);
}

#[tokio::test]
async fn a_roster_asks_by_name_and_fetches_keys_for_callbacks() {
    let server = server(&[&says(200, "keys"), &says(200, "ok")]).await;
    let driver = driver_to(&[&server.origin]);
    let channel: Arc<dyn Channel> = Arc::new(Plain::at(&server.origin));
    let roster = Roster::new(driver, vec![channel], Box::new(|| NOW));
    let (plain, gone) = (ChannelId::new("plain"), ChannelId::new("gone"));
    assert_eq!(roster.payee(&plain).as_deref(), Some("payee"));
    assert_eq!(roster.payee(&gone), None);

    let message = HttpMessage { status: 0, headers: vec![], body: vec![] };
    assert_eq!(roster.callback(&gone, &message).await, None);
    let news = roster.callback(&plain, &message).await;
    assert_eq!(news, Some(Ok(Callback::Other { kind: "known".into() })));

    assert_eq!(roster.ask(&plain, &write()).await, Answer::Closed);
    not_sent(roster.ask(&gone, &write()).await, "NO_SUCH_CHANNEL", true);
    in_doubt(roster.ask(&gone, &read()).await, "not configured");
}
