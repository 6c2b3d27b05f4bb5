//! What operators read: figures after real orders over real connections, health, who may look.

use crate::client::{Client, House, pay};
use axum::Router;
use axum::routing::post;
use http::StatusCode;
use payments::Mode;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::wechat::{Call, Chance, Fault, Outcome};

const NATIVE: &str = "/v3/pay/transactions/native";

/// A merchant's server that hears everything.
async fn patient_merchant() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/notify", listener.local_addr().unwrap());
    let router = Router::new().route("/notify", post(|| async { StatusCode::NO_CONTENT }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn metrics(client: &Client) -> String {
    let url = format!("{}/metrics", client.base_url);
    let got = client.http.get(url).send().await.unwrap();
    assert_eq!(got.status(), 200);
    assert_eq!(got.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    got.text().await.unwrap()
}

/// The value of one time series.
fn value(text: &str, series: &str) -> Option<f64> {
    let rest = text.lines().find_map(|it| it.strip_prefix(series)?.strip_prefix(' '))?;
    Some(rest.parse().unwrap())
}

/// Reads until every series has come to its value: what is counted last may come a moment after
/// what one waits for. Gives what was read last.
async fn until(client: &Client, wanted: &[(&str, f64)]) -> String {
    let mut text = String::new();
    for _ in 0..400 {
        text = metrics(client).await;
        if wanted.iter().all(|(series, want)| value(&text, series) == Some(*want)) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let odd = wanted.iter().filter(|(series, want)| value(&text, series) != Some(*want));
    panic!("never seen: {:#?} in\n{text}", odd.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_follow_an_order_from_its_request_to_its_refund() {
    let house = House::start().await;
    let client = house.merchant("1900000821", Mode::Eager).await;
    let notify_url = patient_merchant().await;
    let order = |number: &str| {
        let mut order = client.order(number, 1234);
        order["notify_url"] = json!(notify_url);
        order
    };
    let code = client.post(NATIVE, &order("METRIC0001")).await.json();
    pay(&house, code["code_url"].as_str().unwrap(), Outcome::Success);
    client.until("METRIC0001", "SUCCESS").await;
    let text = until(
        &client,
        &[
            (r#"feiqian_notifications_total{outcome="accepted"}"#, 1.0),
            (r#"feiqian_orders_created_total{product="native"}"#, 1.0),
            // The demo's own order to look at.
            (r#"feiqian_orders_created_total{product="cashier"}"#, 1.0),
            (r#"feiqian_payments_succeeded_total{channel="wechat"}"#, 1.0),
            (r#"feiqian_paid_minor_total{currency="CNY"}"#, 1234.0),
            (
                r#"feiqian_channel_requests_total{channel="wechat",operation="create",outcome="ok"}"#,
                1.0,
            ),
            (
                r#"feiqian_channel_request_duration_seconds_count{channel="wechat",operation="create"}"#,
                1.0,
            ),
            (
                r#"feiqian_http_requests_total{route="create_native",method="POST",status="200"}"#,
                1.0,
            ),
            (r#"feiqian_http_requests_total{route="callback",method="POST",status="200"}"#, 1.0),
            (r#"feiqian_http_request_duration_seconds_count{route="create_native"}"#, 1.0),
            (r#"feiqian_http_request_duration_seconds_bucket{route="create_native",le="30"}"#, 1.0),
            ("feiqian_notification_duration_seconds_count", 1.0),
            (r#"feiqian_notifications_total{outcome="unreachable"}"#, 0.0),
            (r#"feiqian_store_commits_total{outcome="unknown"}"#, 0.0),
            ("feiqian_store_up", 1.0),
            ("feiqian_ledger_check_ok", 1.0),
        ],
    )
    .await;
    // Order, prepared, paid, and the demo's own order; that the merchant heard is written next.
    assert!(value(&text, r#"feiqian_store_commits_total{outcome="ok"}"#) >= Some(4.0), "{text}");
    let end = house.demo.gateway.certificate().not_after().ms() as f64 / 1000.0;
    let series = r#"feiqian_certificate_expiry_timestamp_seconds{name="platform"}"#;
    assert_eq!(value(&text, series), Some(end));

    let refund = json!({ "out_trade_no": "METRIC0001", "out_refund_no": "R1",
        "amount": { "refund": 234, "total": 1234, "currency": "CNY" } });
    assert_eq!(client.post("/v3/refund/domestic/refunds", &refund).await.status, 200);
    until(
        &client,
        &[
            (r#"feiqian_refunds_total{state="success"}"#, 1.0),
            (r#"feiqian_refunds_total{state="accepted"}"#, 1.0),
            (r#"feiqian_refunds_total{state="closed"}"#, 0.0),
            (r#"feiqian_refunded_minor_total{currency="CNY"}"#, 234.0),
        ],
    )
    .await;

    client.post(NATIVE, &order("METRIC0002")).await;
    let close = "/v3/pay/transactions/out-trade-no/METRIC0002/close";
    assert_eq!(client.post(close, &json!({ "mchid": client.mchid })).await.status, 204);
    // The same again closes nothing.
    assert_eq!(client.post(close, &json!({ "mchid": client.mchid })).await.status, 204);
    let text = until(
        &client,
        &[
            ("feiqian_orders_closed_total", 1.0),
            (r#"feiqian_payments_failed_total{channel="wechat"}"#, 1.0),
            (r#"feiqian_http_requests_total{route="close",method="POST",status="204"}"#, 2.0),
        ],
    )
    .await;
    // Numbers of orders never become names of time series.
    assert!(!text.contains("METRIC000"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_channel_and_odd_requests_are_counted_under_fixed_names() {
    let house = House::start().await;
    let client = house.merchant("1900000822", Mode::Eager).await;
    house.demo.simulator.with(|sim| {
        sim.risk_fault(Chance { fault: Fault::DropAfter, on: Some(Call::Create), per_mille: 1000 });
    });
    assert_eq!(client.post(NATIVE, &client.order("DOUBT00001", 100)).await.status, 500);
    client.get("/v3/no/such/path").await;
    client.http.get(format!("{}/nothing-here", client.base_url)).send().await.unwrap();
    let in_doubt =
        r#"feiqian_channel_requests_total{channel="wechat",operation="create",outcome="in_doubt"}"#;
    let text = until(
        &client,
        &[
            (in_doubt, 1.0),
            (r#"feiqian_http_requests_total{route="v3_unknown",method="GET",status="404"}"#, 1.0),
            (r#"feiqian_http_requests_total{route="unknown",method="GET",status="404"}"#, 1.0),
            // The one that asks.
            ("feiqian_http_requests_in_flight", 1.0),
        ],
    )
    .await;
    assert!(!text.contains("nothing-here"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_callers_on_this_machine_or_on_a_listener_of_their_own() {
    let house = House::start().await;
    let client = house.merchant("1900000823", Mode::Lazy).await;
    let ask = async |base_url: &str, path: &str, forwarded: bool| {
        let mut request = client.http.get(format!("{base_url}{path}"));
        if forwarded {
            request = request.header("X-Forwarded-For", "127.0.0.1");
        }
        let got = request.send().await.unwrap();
        (got.status().as_u16(), got.text().await.unwrap())
    };
    let base_url = house.demo.base_url.clone();
    assert_eq!(ask(&base_url, "/metrics", false).await.0, 200);
    // Whoever comes through a proxy comes from outside, whatever it says.
    assert_eq!(ask(&base_url, "/metrics", true).await.0, 404);
    let (status, build) = ask(&base_url, "/buildz", true).await;
    let build: Value = serde_json::from_str(&build).unwrap();
    assert_eq!((status, build["role"].as_str()), (200, Some("all")));
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    assert!(build["rust"].as_str().unwrap().starts_with("rustc 1."), "{build}");
    assert!(!build["commit"].as_str().unwrap().is_empty() && build["started"].is_string());

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = r#"# admin_listen = "127.0.0.1:9464""#;
    let house = house.restart(line, &format!("admin_listen = \"{free}\"")).await;
    let (base_url, admin) = (house.demo.base_url.clone(), format!("http://{free}"));
    assert_eq!(ask(&base_url, "/metrics", false).await.0, 404);
    assert_eq!(ask(&base_url, "/buildz", false).await.0, 404);
    // Balancers ask where they send requests to.
    assert_eq!(ask(&base_url, "/healthz", false).await, (200, "ok\n".into()));
    for path in ["/metrics", "/buildz", "/healthz", "/readyz"] {
        assert_eq!(ask(&admin, path, true).await.0, 200, "{path}");
    }
    assert_eq!(ask(&admin, NATIVE, false).await.0, 404, "no merchant API for operators");
    house.demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn books_that_someone_changed_by_hand_are_noticed() {
    let house = House::start().await;
    let client = house.merchant("1900000824", Mode::Eager).await;
    let code = client.post(NATIVE, &client.order("TAMPER0001", 100)).await.json();
    pay(&house, code["code_url"].as_str().unwrap(), Outcome::Success);
    client.until("TAMPER0001", "SUCCESS").await;
    until(&client, &[("feiqian_ledger_check_ok", 1.0)]).await;
    let config = &house.demo.gateway.config;
    let books = rusqlite::Connection::open(config.path(&config.store.path)).unwrap();
    books.busy_timeout(Duration::from_secs(10)).unwrap();
    let changed = books.execute("UPDATE balance SET credit_minor = credit_minor + 1", []).unwrap();
    assert!(changed > 0);
    drop(books);
    // The worker looks when it starts, and then from time to time.
    let often = ("ledger_check_every_s = 3600", "ledger_check_every_s = 1");
    let house = house.restart(often.0, often.1).await;
    let client = Client { base_url: house.demo.base_url.clone(), ..client };
    until(&client, &[("feiqian_ledger_check_ok", 0.0)]).await;
}
