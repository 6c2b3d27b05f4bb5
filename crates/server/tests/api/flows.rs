//! Whole flows: lazy and eager orders, wrong money, notifications, headers on the wire.

use crate::client::{Client, House, pay};
use app::Store;
use kernel::MerchantId;
use payments::{Mode, UnexpectedState};
use serde_json::json;
use std::time::Duration;
use testkit::wechat::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NATIVE: &str = "/v3/pay/transactions/native";

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_order_reaches_its_channel_when_the_payer_comes() {
    let house = House::start().await;
    let client = house.merchant("1900000811", Mode::Lazy).await;
    let link = client.post(NATIVE, &client.order("LAZY000001", 100)).await.json();
    let link = link["code_url"].as_str().unwrap().to_owned();
    assert!(link.starts_with(&format!("{}/pay/", client.base_url)), "{link}");
    let known = || house.demo.simulator.with(|sim| sim.orders(server::clock::wall()).len());
    assert_eq!(known(), 0, "the channel does not know it yet");

    let page = client.http.get(&link).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(page.contains("data-testid=\"qr\""), "{page}");
    assert_eq!(known(), 1);
    // Looking again makes no second order.
    client.http.get(&link).send().await.unwrap();
    assert_eq!(known(), 1);
    let code = house.demo.simulator.with(|sim| sim.orders(server::clock::wall())[0].code.clone());
    pay(&house, &code, Outcome::Success);
    let order = client.until("LAZY000001", "SUCCESS").await;
    assert_eq!(order["trade_type"], "NATIVE");

    let changed = link.replace("1900000811", "1900000812");
    assert_eq!(client.http.get(changed).send().await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn jsapi_and_app_orders_carry_ready_pay_parameters() {
    let house = House::start().await;
    let client = house.merchant("1900000813", Mode::Lazy).await;
    let mut order = client.order("JSAPI00001", 100);
    order["payer"] = json!({ "openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o" });
    let jsapi = client.post("/v3/pay/transactions/jsapi", &order).await.json();
    let package = format!("prepay_id={}", jsapi["prepay_id"].as_str().unwrap());
    assert_eq!(jsapi["pay_params"]["package"], package.as_str());
    assert_eq!(jsapi["pay_params"]["signType"], "RSA");
    // Signed with the key that WeChat knows: our account's there, not the merchant's.
    let channel = &house.demo.gateway.config.channels[0];
    let pem = std::fs::read_to_string(
        house.demo.gateway.config.folder.join("simulator/merchant_certificate.pem"),
    );
    let verifier = seal::Verifier::from_certificate_pem(&pem.unwrap()).unwrap();
    let text = |name: &str| jsapi["pay_params"][name].as_str().unwrap().to_owned();
    let message = wechatpay::signing::jsapi_message(
        &channel.appid,
        text("timeStamp").parse().unwrap(),
        &text("nonceStr"),
        &package,
    );
    assert!(verifier.verify_base64(&message, &text("paySign")));

    let app =
        client.post("/v3/pay/transactions/app", &client.order("APP0000001", 100)).await.json();
    assert_eq!(app["pay_params"]["prepayid"], app["prepay_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn money_of_a_wrong_amount_is_held_until_a_person_decides() {
    let house = House::start().await;
    let client = house.merchant("1900000814", Mode::Eager).await;
    let code = client.post(NATIVE, &client.order("WRONG00001", 100)).await.json();
    let code = code["code_url"].as_str().unwrap().to_owned();
    pay(&house, &code, Outcome::parse("success_wrong_amount", Some(99)).unwrap());

    let (store, platform) = (house.demo.gateway.store(), &house.demo.gateway.platform);
    let id = MerchantId::parse("1900000814").unwrap();
    let held = loop {
        let found = store.payment_by_order(&id, "WRONG00001").await.unwrap().unwrap().value;
        if let Some(it) = found.unexpected.first() {
            break (found.serial, it.attempt, it.state);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(held.2, UnexpectedState::Held);
    assert_eq!(client.query("WRONG00001").await.json()["trade_state"], "NOTPAY");
    assert_eq!(client.post(NATIVE, &client.order("WRONG00001", 100)).await.code(), "ORDER_CLOSED");

    let now = house.demo.gateway.clock.now();
    assert!(platform.release_held(&id, held.0, held.1, now).await.unwrap().is_some());
    assert!(platform.release_held(&id, held.0, held.1, now).await.unwrap().is_none(), "once");
    for _ in 0..400 {
        let done = house.demo.simulator.with(|sim| {
            let orders = sim.orders(server::clock::wall());
            orders.iter().flat_map(|it| &it.refunds).any(|it| it.status == "SUCCESS")
        });
        let report = app::audit(store, |_| {}).await.unwrap();
        assert_eq!(report.findings, Vec::<String>::new());
        if done {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the held money never went back");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clicks_on_refund_never_refund_more_than_was_paid() {
    let house = House::start().await;
    let client = house.merchant("1900000815", Mode::Eager).await;
    let code = client.post(NATIVE, &client.order("CLICK00001", 100)).await.json();
    pay(&house, code["code_url"].as_str().unwrap(), Outcome::Success);
    client.until("CLICK00001", "SUCCESS").await;

    let refund = |number: String| {
        let client = client.clone();
        async move {
            let body = json!({ "out_trade_no": "CLICK00001", "out_refund_no": number,
                "amount": { "refund": 30, "total": 100, "currency": "CNY" } });
            client.post("/v3/refund/domestic/refunds", &body).await
        }
    };
    let mut clicks = tokio::task::JoinSet::new();
    for number in 0..20 {
        // Ten different refunds, each clicked twice.
        clicks.spawn(refund(format!("R{}", number / 2)));
    }
    let mut accepted = std::collections::BTreeSet::new();
    while let Some(got) = clicks.join_next().await {
        let got = got.unwrap();
        match got.status.as_u16() {
            200 => {
                accepted.insert(got.json()["refund_id"].as_str().unwrap().to_owned());
            }
            status => assert_eq!((status, got.code().as_str()), (400, "INVALID_REQUEST")),
        }
    }
    assert_eq!(accepted.len(), 3, "three times 30 of 100");
    assert_eq!(client.query("CLICK00001").await.json()["trade_state"], "REFUND");
    let report = app::audit(house.demo.gateway.store(), |_| {}).await.unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_shown_with_their_tries_and_replayed() {
    let house = House::start().await;
    let client = house.merchant("1900000816", Mode::Eager).await;
    let code = client.post(NATIVE, &client.order("NOTIFY0001", 100)).await.json();
    pay(&house, code["code_url"].as_str().unwrap(), Outcome::Success);
    client.until("NOTIFY0001", "SUCCESS").await;
    // The demo's merchant server knows another key, so it refuses: that must be visible.
    let first = tries(&client, 1).await;
    assert_eq!(first["state"], "PENDING");
    assert_eq!(first["tries"][0]["status"], 400);
    let id = first["id"].as_str().unwrap();
    let replay = client.post(&format!("/v3/feiqian/notifications/{id}/replay"), &json!({})).await;
    assert_eq!(replay.status, 200, "{}", replay.json());
    let second = tries(&client, 2).await;
    assert_eq!(second["id"], first["id"], "the id is the same on every try");
    let nobody = client.post("/v3/feiqian/notifications/123/replay", &json!({})).await;
    assert_eq!(nobody.status, 404);
}

async fn tries(client: &Client, count: usize) -> serde_json::Value {
    for _ in 0..400 {
        let list = client.get("/v3/feiqian/notifications?out_trade_no=NOTIFY0001").await.json();
        let first = list["data"][0].clone();
        if first["tries"].as_array().is_some_and(|it| it.len() >= count) {
            return first;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never tried {count} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_title_case_headers_and_the_asked_for_signer() {
    let house = House::start().await;
    let client = house.merchant("1900000817", Mode::Lazy).await;
    let key_id = house.demo.gateway.config.keys.platform_public_key_id.clone();
    let asking = Client { wants: Some(key_id.clone()), ..client.clone() };
    let got = asking.post(NATIVE, &asking.order("HEAD000001", 100)).await;
    assert!(got.is_signed);
    assert_eq!(got.headers["wechatpay-serial"].to_str().unwrap(), key_id);
    let got = client.post(NATIVE, &client.order("HEAD000002", 100)).await;
    let certificate = house.demo.gateway.certificate();
    let serial = certificate.serial();
    assert_eq!(got.headers["wechatpay-serial"].to_str().unwrap(), serial);
    assert_eq!(got.headers["content-type"], "application/json; charset=utf-8");

    // Byte for byte, because one SDK looks headers up by exact case.
    let host = client.base_url.trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(host).await.unwrap();
    let request =
        format!("GET /v3/certificates HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    for name in ["\r\nContent-Type: ", "\r\nRequest-Id: ", "\r\nCache-Control: "] {
        assert!(answer.contains(name), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_believed_only_if_it_is_signed_and_about_us() {
    let house = House::start().await;
    let client = house.merchant("1900000818", Mode::Eager).await;
    client.post(NATIVE, &client.order("FORGED0001", 100)).await;
    let id = MerchantId::parse("1900000818").unwrap();
    let store = house.demo.gateway.store();
    let payment = store.payment_by_order(&id, "FORGED0001").await.unwrap().unwrap().value;
    let url = format!("{}/callback/wechat/{id}/{}", client.base_url, payment.serial);
    // Unsigned, and signed by a stranger.
    let got = client.http.post(&url).body("{}").send().await.unwrap();
    assert_eq!(got.status(), 400);
    let time = server::clock::wall().seconds();
    let forged = wechatpay::headers::SignatureHeaders::sign(
        &client.signer,
        &client.serial,
        time,
        &seal::random_nonce(),
        b"{}",
    );
    let mut request = client.http.post(&url).body("{}");
    for (name, value) in forged.pairs() {
        request = request.header(name, value);
    }
    assert_eq!(request.send().await.unwrap().status(), 401);
    assert_eq!(client.query("FORGED0001").await.json()["trade_state"], "NOTPAY");
}
