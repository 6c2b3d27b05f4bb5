//! Bad input: the right code and message, and nothing changed.

use crate::client::{Client, House, rfc3339};
use app::Store;
use payments::Mode;
use serde_json::{Value, json};

/// Replaces the member at `pointer`, or removes it.
fn with(mut body: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(name.into(), value),
        None => parent.remove(name),
    };
    body
}

async fn stored(house: &House) -> usize {
    house.demo.gateway.store().payments_after(None, 10_000).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_wrong_is_named_and_nothing_is_stored() {
    let house = House::start().await;
    let client = house.merchant("1900000801", Mode::Lazy).await;
    let before = stored(&house).await;
    let soon = server::clock::wall();
    let rows: Vec<(&str, Option<Value>, &str)> = vec![
        ("/amount/total", Some(json!(0)), "/amount/total"),
        ("/amount/total", Some(json!(-1)), "/amount/total"),
        ("/amount/total", Some(json!(1.5)), "/amount/total"),
        ("/amount/total", Some(json!("100")), "/amount/total"),
        ("/amount/total", Some(json!(1e30)), "/amount/total"),
        ("/amount/total", Some(json!(u64::MAX)), "/amount/total"),
        ("/amount/total", Some(json!(100_000_001)), "/amount/total"),
        ("/amount/total", None, "/amount/total"),
        ("/amount/currency", Some(json!("USD")), "/amount/currency"),
        ("/amount/currency", Some(json!("cny")), "/amount/currency"),
        ("/amount/currency", Some(json!(1)), "/amount/currency"),
        ("/amount", Some(json!([])), "/amount"),
        ("/amount", None, "/amount"),
        ("/out_trade_no", Some(json!("short")), "/out_trade_no"),
        ("/out_trade_no", Some(json!("x".repeat(33))), "/out_trade_no"),
        ("/out_trade_no", Some(json!("with blank")), "/out_trade_no"),
        ("/out_trade_no", Some(json!(123456)), "/out_trade_no"),
        ("/out_trade_no", None, "/out_trade_no"),
        ("/description", Some(json!("字".repeat(128))), "/description"),
        ("/description", Some(json!("")), "/description"),
        ("/description", None, "/description"),
        ("/attach", Some(json!("字".repeat(129))), "/attach"),
        ("/attach", Some(json!({})), "/attach"),
        ("/notify_url", Some(json!("ftp://example.com/n")), "/notify_url"),
        ("/notify_url", Some(json!("https://example.com/n?a=1")), "/notify_url"),
        ("/notify_url", None, "/notify_url"),
        ("/time_expire", Some(json!("tomorrow")), "/time_expire"),
        ("/time_expire", Some(json!(rfc3339(soon.plus_s(10)))), "/time_expire"),
        ("/time_expire", Some(json!(rfc3339(soon.plus_s(16 * 86_400)))), "/time_expire"),
        ("/appid", Some(json!("x".repeat(33))), "/appid"),
        ("/mchid", None, "/mchid"),
    ];
    for (number, (pointer, value, field)) in rows.into_iter().enumerate() {
        let order = client.order(&format!("BAD{number:04}"), 100);
        let body = with(order, pointer, value);
        let got = client.post("/v3/pay/transactions/native", &body).await;
        let said = got.json();
        assert_eq!(
            (got.status.as_u16(), got.code().as_str()),
            (400, "PARAM_ERROR"),
            "{body}: {said}"
        );
        assert_eq!(said["detail"]["field"], field, "{body}: {said}");
        assert!(said["message"].as_str().is_some_and(|it| !it.is_empty()), "{body}");
        assert!(got.is_signed, "{body}");
    }
    assert_eq!(stored(&house).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_request_is_refused() {
    let house = House::start().await;
    let client = house.merchant("1900000802", Mode::Lazy).await;
    let before = stored(&house).await;
    let path = "/v3/pay/transactions/native";
    let bodies: [&[u8]; 7] =
        [b"", b"{", b"[]", b"null", b"{\"appid\":\"\xff\"}", b"\xef\xbb\xbf{}", b"{\"amount\":{}}"];
    for body in bodies {
        let got = client.send("POST", path, body.to_vec()).await;
        assert_eq!((got.status.as_u16(), got.code().as_str()), (400, "PARAM_ERROR"), "{body:?}");
    }
    let deep = [b"[".repeat(5_000), b"]".repeat(5_000)].concat();
    assert_eq!(client.send("POST", path, deep).await.status, 400);
    let large = client.send("POST", path, vec![b' '; 70_000]).await;
    assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "PARAM_ERROR"));
    assert!(!large.is_signed, "nobody was authenticated yet");
    assert_eq!(stored(&house).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_is_checked_in_the_order_of_production() {
    let house = House::start().await;
    let client = house.merchant("1900000803", Mode::Lazy).await;
    let other = house.merchant("1900000804", Mode::Lazy).await;
    let path = "/v3/pay/transactions/native";
    let order = client.order("AUTH000001", 100);
    let now = server::clock::wall().seconds();

    #[track_caller]
    fn check(got: &crate::client::Got, status: u16, code: &str) {
        let said = String::from_utf8_lossy(&got.body).into_owned();
        assert_eq!((got.status.as_u16(), got.code().as_str()), (status, code), "{said}");
        assert!(!got.is_signed || status == 400, "{said}");
    }

    let unknown = client.post("/v3/pay/transactions/cash", &order).await;
    check(&unknown, 404, "");
    assert!(unknown.body.is_empty());
    check(&client.get(path).await, 405, "");
    let bare = client.send_as("POST", path, b"{}".to_vec(), None).await;
    check(&bare, 401, "SIGN_ERROR");
    let odd = client.send_as("POST", path, b"{}".to_vec(), Some("Basic abc".into())).await;
    check(&odd, 401, "SIGN_ERROR");
    for skew in [-301, 301] {
        let late = Client { timestamp: Some(now + skew), ..client.clone() };
        let got = late.post(path, &order).await;
        check(&got, 401, "SIGN_ERROR");
        assert!(got.json()["message"].as_str().unwrap().contains("timestamp"), "{}", got.json());
    }
    let stranger = Client { mchid: "1999999999".into(), ..client.clone() };
    check(&stranger.post(path, &order).await, 401, "SIGN_ERROR");
    let borrowed = Client { serial: other.serial.clone(), ..client.clone() };
    check(&borrowed.post(path, &order).await, 401, "SIGN_ERROR");
    let forged = Client { signer: other.signer.clone(), ..client.clone() };
    let got = forged.post(path, &order).await;
    check(&got, 401, "SIGN_ERROR");
    assert_eq!(got.json()["detail"]["issue"], "sign not match");
    // Signed rightly, but for somebody else.
    let foreign = other.order("AUTH000002", 100);
    check(&client.post(path, &foreign).await, 400, "PARAM_ERROR");
    let unbound = with(client.order("AUTH000003", 100), "/appid", Some(json!("wx0")));
    check(&client.post(path, &unbound).await, 400, "APPID_MCHID_NOT_MATCH");
    // Spelling of the serial does not matter.
    let lower = Client { serial: format!("00{}", client.serial.to_lowercase()), ..client.clone() };
    assert_eq!(lower.post(path, &order).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_others_do_not_exist() {
    let house = House::start().await;
    let owner = house.merchant("1900000805", Mode::Lazy).await;
    let other = house.merchant("1900000806", Mode::Lazy).await;
    let path = "/v3/pay/transactions/native";
    assert_eq!(owner.post(path, &owner.order("OWNED00001", 100)).await.status, 200);
    assert_eq!(other.query("OWNED00001").await.code(), "ORDER_NOT_EXIST");
    let close = "/v3/pay/transactions/out-trade-no/OWNED00001/close";
    let got = other.post(close, &json!({ "mchid": other.mchid })).await;
    assert_eq!((got.status.as_u16(), got.code().as_str()), (404, "ORDER_NOT_EXIST"));
    let refund = json!({ "out_trade_no": "OWNED00001", "out_refund_no": "R1",
        "amount": { "refund": 1, "total": 100, "currency": "CNY" } });
    let got = other.post("/v3/refund/domestic/refunds", &refund).await;
    assert_eq!((got.status.as_u16(), got.code().as_str()), (404, "RESOURCE_NOT_EXISTS"));
    assert_eq!(owner.query("OWNED00001").await.json()["trade_state"], "NOTPAY");
    // The same number is another order with another merchant.
    assert_eq!(other.post(path, &other.order("OWNED00001", 5)).await.status, 200);
    assert_eq!(owner.query("OWNED00001").await.json()["amount"]["total"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_may_be_used_twice_as_with_wechat_unless_configured_otherwise() {
    let house = House::start().await;
    let client = house.merchant("1900000807", Mode::Lazy).await;
    let same = Client { nonce: Some("0".repeat(32)), ..client };
    // One order, however often it is sent.
    let path = "/v3/pay/transactions/native";
    let order = same.order("NONCE00001", 100);
    let first = same.post(path, &order).await.json();
    assert_eq!(same.post(path, &order).await.json(), first);

    // The same house with the switch set: it also finds everything again.
    let house = house.restart("refuse_replayed_nonces = false", "refuse_replayed_nonces = true");
    let house = house.await;
    let same = Client { base_url: house.demo.base_url.clone(), ..same };
    assert_eq!(same.query("NONCE00001").await.json()["trade_state"], "NOTPAY");
    let again = same.query("NONCE00001").await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (401, "SIGN_ERROR"));
}
