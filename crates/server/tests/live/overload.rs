//! Every limit refuses with the right status, code and headers, and nobody but the one who exceeds
//! it is hurt.

use crate::house::{House, Merchant, refusal};
use kernel::MerchantId;
use reqwest::header::HeaderMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const UNLIMITED: &str = "per_merchant_per_s = 0\nper_ip_per_s = 0\n";
const NATIVE: &str = "/v3/pay/transactions/native";

fn number(headers: &HeaderMap, name: &str) -> u64 {
    let value = headers.get(name).unwrap_or_else(|| panic!("no {name} in {headers:?}"));
    value.to_str().unwrap().parse().unwrap()
}

#[track_caller]
fn check_rate_headers(headers: &HeaderMap, limit: u64) {
    assert!(number(headers, "retry-after") >= 1);
    for prefix in ["", "x-"] {
        assert_eq!(number(headers, &format!("{prefix}ratelimit-limit")), limit);
        assert_eq!(number(headers, &format!("{prefix}ratelimit-remaining")), 0);
        assert!(number(headers, &format!("{prefix}ratelimit-reset")) >= 1);
    }
    assert!(!headers.contains_key("wechatpay-signature"), "a refusal costs no signature");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_at_its_limit_hurts_no_other_and_nobody_uses_up_anothers() {
    let limits = "per_merchant_per_s = 1\nmerchant_burst = 3\nper_ip_per_s = 0\n";
    let house = House::start(&["1900000101", "1900000102"], limits).await;
    let [greedy, modest] = [&house.merchants[0], &house.merchants[1]];

    // Requests that only name the other merchant do not count for it.
    for _ in 0..20 {
        let mut forged: Merchant = greedy.clone();
        forged.mchid = modest.mchid.clone();
        assert_eq!(forged.create("FORGED", 100).await.status(), 401);
    }
    let mut refused = None;
    for count in 0..20 {
        let response = greedy.create(&format!("GREEDY{count}"), 100).await;
        if response.status() == 429 {
            assert!(count >= 3, "the burst passes");
            refused = Some(response);
            break;
        }
        assert_eq!(response.status(), 200);
    }
    let refused = refused.expect("20 requests at once exceed a burst of 3");
    check_rate_headers(refused.headers(), 3);
    assert_eq!(refusal(refused).await, (429, "FREQUENCY_LIMITED".into()));
    for count in 0..3 {
        assert_eq!(modest.create(&format!("MODEST{count}"), 100).await.status(), 200);
    }
    // A moment later there is room again.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(greedy.create("LATER1", 100).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_counted_before_anything_is_checked() {
    let limits = "per_merchant_per_s = 0\nper_ip_per_s = 1\nip_burst = 5\n";
    let house = House::start(&["1900000101"], limits).await;
    house.edit("behind_proxy = false", "behind_proxy = true");
    house.hang_up("configuration and keys were read again").await;
    let http = &house.merchants[0].http;
    let base = &house.merchants[0].base_url;
    let from = |address: &str| {
        let request = http.post(format!("{base}{NATIVE}")).header("x-forwarded-for", address);
        request.header("accept-language", "en")
    };
    let statuses = async |address: &str| {
        let mut list = Vec::new();
        for _ in 0..12 {
            list.push(from(address).send().await.unwrap().status().as_u16());
        }
        list
    };
    // Without a signature 401, until the rate is used up.
    let seen = statuses("192.0.2.1").await;
    assert_eq!(&seen[..5], [401; 5]);
    assert!(seen.contains(&429), "{seen:?}");
    let refused = from("192.0.2.1").send().await.unwrap();
    check_rate_headers(refused.headers(), 5);
    let body = refused.text().await.unwrap();
    assert!(body.contains("FREQUENCY_LIMITED") && body.contains("slow down"), "{body}");

    // Another address is another's; in IPv6 a whole /64 is one.
    assert_eq!(from("192.0.2.2").send().await.unwrap().status(), 401);
    assert!(statuses("2001:db8::1").await.contains(&429));
    assert_eq!(from("2001:db8::2:1").send().await.unwrap().status(), 429);
    assert_eq!(from("2001:db8:0:1::1").send().await.unwrap().status(), 401);

    // Health checks and channels are not counted.
    for _ in 0..20 {
        let health = http.get(format!("{base}/healthz")).header("x-forwarded-for", "192.0.2.1");
        assert_eq!(health.send().await.unwrap().status(), 200);
        let callback = http.post(format!("{base}/callback/wechat/1/1"));
        let callback = callback.header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
        assert_eq!(callback.status(), 404);
    }

    // Lifted while it runs.
    house.edit("per_ip_per_s = 1", "per_ip_per_s = 0");
    house.hang_up("configuration and keys were read again").await;
    assert_eq!(statuses("192.0.2.1").await, [401; 12]);
}

async fn connect(house: &House) -> TcpStream {
    TcpStream::connect(("127.0.0.1", house.port)).await.unwrap()
}

/// All that the server says until it closes. A server that does not close fails by its own time.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    // A reset is an end as well.
    read.expect("the connection was never closed").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_large_and_idle_clients_are_cut_off_and_others_served() {
    let limits = format!(
        "{UNLIMITED}header_timeout_s = 1\nbody_timeout_s = 1\nidle_timeout_s = 2\n\
         body_bytes = 4096\nheader_bytes = 4096\n"
    );
    let house = House::start(&["1900000101"], &limits).await;
    let merchant = &house.merchants[0];

    // A head that trickles: each byte in time, the whole never.
    let mut trickling = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&house).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        trickling.push(tokio::spawn(async move {
            let (mut reader, mut writer) = stream.into_split();
            let writing = tokio::spawn(async move {
                while writer.write_all(b"X-A: b\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            let mut bytes = Vec::new();
            let read = reader.read_to_end(&mut bytes);
            let cut = tokio::time::timeout(Duration::from_secs(60), read).await.is_ok();
            writing.abort();
            cut
        }));
    }
    // A body that does not come.
    let mut half = connect(&house).await;
    let head = format!("POST {NATIVE} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
    half.write_all(head.as_bytes()).await.unwrap();
    // Nothing at all.
    let mut idle = connect(&house).await;

    for count in 0..10 {
        assert_eq!(merchant.create(&format!("MEANWHILE{count}"), 100).await.status(), 200);
    }
    for task in trickling {
        assert!(task.await.unwrap(), "a trickling head was never cut off");
    }
    let said = until_closed(&mut half).await;
    assert!(
        said.starts_with("HTTP/1.1 408") && said.contains("in time") || said.contains("时间"),
        "{said}"
    );
    assert_eq!(until_closed(&mut idle).await, "");

    // A connection between two requests is idle too, and its answers are whole.
    let mut polite = connect(&house).await;
    polite.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let said = until_closed(&mut polite).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("ok\n"), "{said}");

    let large = merchant.send("POST", NATIVE, "x".repeat(5_000), |it| it).await;
    assert_eq!(refusal(large).await, (413, "PARAM_ERROR".into()));
    let mut stream = connect(&house).await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(5_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = until_closed(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_bounded_and_freed() {
    let limits = format!("{UNLIMITED}max_connections_per_ip = 3\n");
    let house = House::start(&["1900000101"], &limits).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&house).await;
        // Answered, so it is counted by now.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 512]).await.unwrap(), 0);
        open.push(stream);
    }
    let said = until_closed(&mut connect(&house).await).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("\r\nRetry-After: 1\r\n"), "{said}");
    assert!(said.contains("SERVICE_UNAVAILABLE"), "{said}");
    open.pop();
    // The slot is free as soon as the server has seen the end.
    for _ in 0..600 {
        let mut stream = connect(&house).await;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .ok();
        if until_closed(&mut stream).await.starts_with("HTTP/1.1 200") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the slot was never freed");
}

/// Idle connections cost little, so that many can be kept alive.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_a_bounded_amount_of_memory() {
    let house = House::start(&["1900000101"], UNLIMITED).await;
    // Each takes a file here and one there.
    let files = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = files.lines().find_map(|it| it.strip_prefix("Max open files")).unwrap();
    let most: u64 = files.split_whitespace().next().unwrap().parse().unwrap();
    let count = (most - 250).min(2_000);
    let mut streams = Vec::new();
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 512]).await.unwrap(), 0);
    };
    for _ in 0..50 {
        let mut stream = connect(&house).await;
        ask(&mut stream).await;
        streams.push(stream);
    }
    let before = house.resident();
    for _ in 0..count {
        let mut stream = connect(&house).await;
        ask(&mut stream).await;
        streams.push(stream);
    }
    let each = house.resident().saturating_sub(before) / count;
    println!("{each} bytes for an idle connection");
    assert!(each < 40_000, "{each} bytes for an idle connection");
}

/// Several times what it can take, with room for few: whoever is refused is told so, every order
/// that was accepted is there, and afterwards all is as before.
#[tokio::test(flavor = "multi_thread")]
async fn under_overload_every_accepted_order_is_durable_and_service_comes_back() {
    const CLIENTS: usize = 120;
    const EACH: usize = 10;
    let limits = format!("{UNLIMITED}max_in_flight = 2\nqueue_wait_ms = 1\n");
    let house = House::start(&["1900000101"], &limits).await;
    let merchant = house.merchants[0].clone();
    let requests: Vec<Vec<(String, Vec<u8>)>> = (0..CLIENTS)
        .map(|client| {
            let one = |count| {
                let order_no = format!("LOAD{client:03}{count:03}");
                let bytes = merchant.create_bytes(&order_no);
                (order_no, bytes)
            };
            (0..EACH).map(one).collect()
        })
        .collect();
    let clients = requests.into_iter().map(|list| {
        let port = house.port;
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut accepted, mut refused) = (Vec::new(), 0);
            for (order_no, bytes) in list {
                stream.write_all(&bytes).await.unwrap();
                let answer = whole_answer(&mut stream).await;
                match answer.get(9..12) {
                    Some("200") => accepted.push(order_no),
                    Some("503") => {
                        assert!(answer.contains("SERVICE_UNAVAILABLE"), "{answer}");
                        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
                        assert!(!answer.contains("Wechatpay-Signature"), "{answer}");
                        refused += 1;
                    }
                    _ => panic!("{answer}"),
                }
            }
            (accepted, refused)
        })
    });
    let clients: Vec<_> = clients.collect();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for client in clients {
        let (more, count) = client.await.unwrap();
        accepted.extend(more);
        refused += count;
    }
    assert_eq!(accepted.len() + refused, CLIENTS * EACH, "everybody was answered");
    assert!(refused > 0 && !accepted.is_empty(), "{refused} refused, {} not", accepted.len());

    let id = MerchantId::parse(&merchant.mchid).unwrap();
    let store = house.store();
    for order_no in &accepted {
        let found = app::Store::payment_by_order(&store, &id, order_no).await.unwrap();
        assert!(found.is_some(), "{order_no} was accepted and is not there");
    }
    for count in 0..20 {
        assert_eq!(merchant.create(&format!("AFTER{count}"), 100).await.status(), 200);
    }
}

async fn whole_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "closed without an answer");
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|it| it.strip_prefix("Content-Length: "));
        if length.is_some_and(|it| body.len() >= it.parse::<usize>().unwrap()) {
            return text.into_owned();
        }
    }
}
