//! The simulator over HTTP: title-case headers, cut lines, the wallet, the control API, and
//! notifications that really arrive.

use crate::world::{MCHID, NOTIFY_URL, SERIAL, order_body, platform_verifier, settings, signed};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use testkit::wechat::{SimRequest, WechatSimServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn start() -> WechatSimServer {
    let mut settings = settings();
    settings.base_url = String::new();
    settings.refund_delay_s = 0;
    WechatSimServer::start(SocketAddr::from(([127, 0, 0, 1], 0)), settings).await.unwrap()
}

fn client() -> reqwest::Client {
    let none = reqwest::redirect::Policy::none();
    reqwest::Client::builder().no_proxy().redirect(none).build().unwrap()
}

fn native(notify_url: &str, number: &str) -> SimRequest {
    let mut body = order_body(number);
    body["notify_url"] = json!(notify_url);
    let now = WechatSimServer::wall_now();
    signed("POST", "/v3/pay/transactions/native", &body.to_string(), MCHID, SERIAL, now, "n")
}

async fn send(
    server: &WechatSimServer,
    request: &SimRequest,
) -> reqwest::Result<reqwest::Response> {
    let url = format!("{}{}", server.base_url(), request.path_and_query);
    let method = request.method.parse().unwrap();
    let mut out = client().request(method, url).body(request.body.clone());
    for (name, value) in &request.headers {
        out = out.header(name, value);
    }
    out.send().await
}

async fn json_of(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
}

async fn control(server: &WechatSimServer, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/_sim/{path}", server.base_url());
    json_of(client().post(url).body(body.to_string()).send().await.unwrap()).await
}

async fn look(server: &WechatSimServer, path: &str) -> Value {
    let url = format!("{}/_sim/{path}", server.base_url());
    json_of(client().get(url).send().await.unwrap()).await.1
}

/// Everything that comes over one connection until it is closed.
async fn raw(server: &WechatSimServer, request: &SimRequest) -> String {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n",
        request.method, request.path_and_query
    );
    for (name, value) in &request.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n", request.body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.write_all(&request.body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn header_names_are_in_title_case() {
    let server = start().await;
    let answer = raw(&server, &native(NOTIFY_URL, "T00001")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for name in [
        "Wechatpay-Timestamp",
        "Wechatpay-Nonce",
        "Wechatpay-Signature",
        "Wechatpay-Serial",
        "Wechatpay-Signature-Type",
        "Request-Id",
        "Content-Type",
    ] {
        assert!(answer.contains(&format!("\r\n{name}: ")), "{name} in {answer}");
    }
}

#[tokio::test]
async fn a_cut_line_has_no_answer_but_an_effect() {
    let server = start().await;
    let (status, _) =
        control(&server, "faults", json!({ "next": [{ "fault": "drop_after", "on": "create" }] }))
            .await;
    assert_eq!(status, 200);
    assert_eq!(raw(&server, &native(NOTIFY_URL, "T00001")).await, "");
    assert_eq!(look(&server, "orders").await["orders"][0]["out_trade_no"], "T00001");
    let (status, body) = json_of(send(&server, &native(NOTIFY_URL, "T00001")).await.unwrap()).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn control_refuses_what_it_does_not_understand() {
    let server = start().await;
    let refused = |(status, body): (u16, Value)| assert!((400..500).contains(&status), "{body}");
    refused(control(&server, "faults", json!({ "next": [{ "fault": "meteor" }] })).await);
    refused(
        control(&server, "confirm", json!({ "out_trade_no": "T00001", "outcome": "success" }))
            .await,
    );
    refused(
        control(&server, "confirm", json!({ "out_trade_no": "T00001", "outcome": "maybe" })).await,
    );
    refused(control(&server, "confirm", json!({ "outcome": "success" })).await);
    refused(control(&server, "clock", json!({ "advance_s": -1 })).await);
    refused(control(&server, "nothing", json!({})).await);
    let before = look(&server, "clock").await["business_time"].as_str().unwrap().to_owned();
    control(&server, "clock", json!({ "advance_s": 86_400 })).await;
    assert!(look(&server, "clock").await["business_time"].as_str().unwrap() > before.as_str());
}

/// A payer opens the page, declines, pays, and goes back; the merchant is told.
#[tokio::test]
async fn a_person_pays_in_the_wallet() {
    let server = start().await;
    let merchant = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let notify_url = format!("http://{}/notify", merchant.local_addr().unwrap());
    let (_, body) = json_of(send(&server, &native(&notify_url, "T00001")).await.unwrap()).await;
    let code_url = body["code_url"].as_str().unwrap();
    assert!(code_url.starts_with(server.base_url()), "{code_url}");
    let first =
        client().get(format!("{}/wallet/?lang=en", server.base_url())).send().await.unwrap();
    assert!(first.text().await.unwrap().contains("Paste or type a payment code"));

    let back = "https%3A%2F%2Fshop.test%2Fdone%3Fid%3D1";
    let page =
        client().get(format!("{code_url}&redirect_url={back}&lang=en")).send().await.unwrap();
    let page = page.text().await.unwrap();
    for it in ["飞钱示例店", "一斤苹果", "¥10.00", "Pay now", "https://shop.test/done?id=1"]
    {
        assert!(page.contains(it), "{it} in {page}");
    }
    assert!(!page.contains("<script"));
    let token = page.split_once("name=\"token\" value=\"").unwrap().1.split('"').next().unwrap();
    let code = code_url.split_once("pr=").unwrap().1;
    let press = async |outcome: &str, token: &str| {
        let form = format!("pr={code}&token={token}&outcome={outcome}&lang=en&redirect_url={back}");
        let url = format!("{}/wallet/pay", server.base_url());
        let request =
            client().post(url).header("content-type", "application/x-www-form-urlencoded");
        request.body(form).send().await.unwrap()
    };
    assert_eq!(press("success", "forged").await.status(), 403);
    let declined = press("decline", token).await;
    assert_eq!(declined.status(), 303);
    let to = declined.headers()["location"].to_str().unwrap().to_owned();
    let page = client().get(format!("{}{to}", server.base_url())).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("Payment failed"));
    assert_eq!(press("success", token).await.status(), 303);
    let page = client().get(format!("{code_url}&redirect_url={back}")).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("支付成功") && page.contains("返回商家"), "{page}");

    // The notification arrives, signed, with title-case header names.
    let (mut stream, _) =
        tokio::time::timeout(Duration::from_secs(5), merchant.accept()).await.unwrap().unwrap();
    let mut text = String::new();
    while !text.ends_with("}}") {
        let mut part = [0; 4_096];
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "cut off: {text}");
        text.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let headers: Vec<(String, &str)> = head
        .lines()
        .filter_map(|it| it.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let get = |name: &str| headers.iter().find(|it| it.0 == name).map(|it| it.1);
    let signature = wechatpay::headers::SignatureHeaders::read(get).unwrap();
    assert!(signature.holds(&platform_verifier(), body.as_bytes()));
    assert!(head.contains("Wechatpay-Signature-Type: "), "{head}");
    for _ in 0..100 {
        if look(&server, "callbacks").await["callbacks"][0]["accepted"] == json!(true) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the simulator did not take the 204 as acceptance");
}

#[tokio::test]
async fn odd_wallet_addresses_are_answered() {
    let server = start().await;
    let check = async |path: &str, want: u16| {
        let url = format!("{}{path}", server.base_url());
        let answer = client().get(url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), want, "{path}");
        answer.text().await.unwrap()
    };
    check("/wallet/pay", 404).await;
    check("/wallet/pay?pr=nothing", 404).await;
    check("/wallet/else", 404).await;
    check("/", 303).await;
    let page = check("/wallet/pay?pr=%22%3E%3Cscript%3E", 404).await;
    assert!(!page.contains("<script"));
    json_of(send(&server, &native(NOTIFY_URL, "T00001")).await.unwrap()).await;
    let code = look(&server, "orders").await["orders"][0]["code"].as_str().unwrap().to_owned();
    let evil =
        check(&format!("/wallet/pay?pr={code}&redirect_url=javascript%3Aalert(1)"), 200).await;
    assert!(!evil.contains("javascript:"));
    // What a person pastes may be the whole address.
    check(&format!("/wallet/pay?pr=weixin%3A%2F%2Fwxpay%2Fbizpayurl%3Fpr%3D{code}"), 200).await;
}
