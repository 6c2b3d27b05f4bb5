//! The merchant API: the ordered checks, orders, refunds, bills, certificates.

use crate::world::{
    APPID, MCHID, PUBLIC_KEY_ID, SERIAL, World, apiv3_key, code_of, holds, order_body, refund_body,
    signed,
};
use serde_json::{Value, json};
use testkit::wechat::{ConfirmError, Outcome, Reference, SimRequest};
use wechatpay::bill::{BillLink, FundBill, TradeBill};

const NATIVE: &str = "/v3/pay/transactions/native";
const REFUNDS: &str = "/v3/refund/domestic/refunds";

#[test]
fn an_order_is_placed_paid_queried_and_refunded() {
    let mut world = World::new();
    let code = world.order("T00001");
    let open = world.query("T00001");
    assert_eq!((open.trade_state.word(), open.transaction_id), ("NOTPAY", None));
    let number = world.sim.confirm(Reference::Code(&code), Outcome::Success, None, world.now);
    assert_eq!(number.as_deref(), Ok("T00001"));
    let paid = world.query("T00001");
    assert_eq!(paid.trade_state.word(), "SUCCESS");
    assert_eq!(paid.success_time, Some(world.now));
    assert_eq!(paid.amount.unwrap().payer_total.unwrap().minor(), 1_000);
    assert_eq!(paid.attach.as_deref(), Some("a=1"));
    let id = paid.transaction_id.clone().unwrap();
    assert!(id.len() == 28 && id.starts_with("4200"), "{id}");
    let by_id = world.call("GET", &format!("/v3/pay/transactions/id/{id}?mchid={MCHID}"), "", 200);
    assert_eq!(by_id["out_trade_no"], "T00001");

    let refund = world.refund("T00001", "R1", 400);
    assert_eq!(
        (&refund["status"], &refund["amount"]["payer_refund"]),
        (&json!("PROCESSING"), &json!(400))
    );
    world.state("T00001", "REFUND");
    world.now = world.now.plus_s(3);
    let refund = world.call("GET", &format!("{REFUNDS}/R1"), "", 200);
    assert_eq!(refund["status"], "SUCCESS");
    assert!(refund["success_time"].is_string());
}

#[test]
fn each_product_answers_in_its_own_way() {
    let mut world = World::new();
    let mut body = order_body("T00001");
    body["payer"] = json!({ "openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o" });
    body["scene_info"] = json!({ "payer_client_ip": "::1", "h5_info": { "type": "Wap" } });
    let check = |world: &mut World, product: &str, member: &str, begins: &str| {
        body["out_trade_no"] = json!(format!("T-000-{product}"));
        let path = format!("/v3/pay/transactions/{product}");
        let answer = world.call("POST", &path, &body.to_string(), 200);
        let text = answer[member].as_str().unwrap_or("").to_owned();
        assert!(text.starts_with(begins), "{product}: {answer}");
        text
    };
    let mut check = check;
    let prepay = check(&mut world, "jsapi", "prepay_id", "wx20261121120000");
    assert_eq!(prepay.len(), 36);
    check(&mut world, "app", "prepay_id", "wx");
    check(&mut world, "native", "code_url", "http://sim.test/wallet/pay?pr=");
    let h5 = check(&mut world, "h5", "h5_url", "http://sim.test/wallet/pay?prepay_id=wx");
    world.sim.confirm(Reference::Code(&h5), Outcome::Success, None, world.now).unwrap();
    assert_eq!(world.query("T-000-h5").trade_type.unwrap().word(), "MWEB");
    // A JSAPI order belongs to its payer.
    let other =
        world.sim.confirm(Reference::Code(&prepay), Outcome::Success, Some("oX"), world.now);
    assert_eq!(other, Err(ConfirmError::OtherPayer("T-000-jsapi".into())));
}

#[test]
fn checks_come_in_productions_order() {
    let mut world = World::new();
    #[track_caller]
    fn check(world: &mut World, request: SimRequest, status: u16, code: &str) {
        let answer = world.sim.handle(&request, world.now);
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let found = body["code"].as_str().unwrap_or("");
        assert_eq!((answer.status, found), (status, code), "{body}");
        assert!(!holds(&answer), "answers before authentication are unsigned");
        let id = answer.header("request-id").unwrap();
        assert!(!id.ends_with("-0"), "{id}");
    }
    let good = world.request("GET", "/v3/certificates", "");
    let mut unknown = good.clone();
    unknown.path_and_query = "/v3/teleport".into();
    check(&mut world, unknown, 404, "");
    let mut method = good.clone();
    method.method = "DELETE".into();
    check(&mut world, method, 405, "");
    let without = |name: &str| {
        let mut it = good.clone();
        it.headers.retain(|header| header.0 != name);
        it
    };
    check(&mut world, without("user-agent"), 400, "INVALID_REQUEST");
    check(&mut world, without("authorization"), 401, "SIGN_ERROR");
    let mut scheme = good.clone();
    scheme.headers[3].1 = scheme.headers[3].1.replace("RSA2048", "RSA512");
    check(&mut world, scheme, 401, "SIGN_ERROR");
    let sign = |mchid: &str, serial: &str, late_s: i64| {
        signed(
            "GET",
            "/v3/certificates",
            "",
            mchid,
            serial,
            crate::world::noon().plus_s(late_s),
            "n",
        )
    };
    check(&mut world, sign(MCHID, SERIAL, 301), 401, "SIGN_ERROR");
    check(&mut world, sign(MCHID, "AB", 0), 401, "SIGN_ERROR");
    check(&mut world, sign("1900000999", SERIAL, 0), 401, "SIGN_ERROR");
    let mut tampered = world.request("POST", NATIVE, &order_body("T00001").to_string());
    tampered.body[10] ^= 1;
    check(&mut world, tampered, 401, "SIGN_ERROR");
    // Serials are compared as numbers, and a `|` may be signed raw but sent escaped.
    let odd = sign(MCHID, &format!("00{}", SERIAL.to_lowercase()), 0);
    assert_eq!(world.sim.handle(&odd, world.now).status, 200);
    let target = format!("/v3/pay/transactions/out-trade-no/T|0001?mchid={MCHID}");
    let mut escaped = world.request("GET", &target, "");
    escaped.path_and_query = target.replace('|', "%7C");
    assert_eq!(world.sim.handle(&escaped, world.now).status, 404);
    // Check 9 comes before the fields.
    world.refused("POST", NATIVE, r#"{"mchid":"1900000110"}"#, 400, "PARAM_ERROR");
    world.refused("POST", NATIVE, "{}", 400, "PARAM_ERROR");
    let query = "/v3/pay/transactions/out-trade-no/T00001";
    world.refused("GET", query, "", 400, "PARAM_ERROR");
    world.refused("GET", &format!("{query}?mchid=1900000110"), "", 400, "PARAM_ERROR");
    world.refused("GET", &format!("{query}?mchid={MCHID}"), "", 404, "ORDER_NOT_EXIST");
}

#[test]
fn errors_speak_the_language_asked_for() {
    let mut world = World::new();
    let mut request = world.request("GET", "/v3/refund/domestic/refunds/R1", "");
    request.headers.push(("accept-language".into(), "en".into()));
    let answer = world.sim.handle(&request, world.now);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["message"].as_str().unwrap().is_ascii(), "{body}");
    assert_eq!(answer.header("content-language"), Some("en"));
}

#[test]
fn a_repeated_order_gives_a_new_code_and_the_old_one_stops_working() {
    let mut world = World::new();
    let old = world.order("T00001");
    let new = world.order("T00001");
    assert_ne!(old, new);
    let by = |world: &mut World, code: &str| {
        world.sim.confirm(Reference::Code(code), Outcome::Success, None, world.now)
    };
    assert_eq!(by(&mut world, &old), Err(ConfirmError::Unknown(old)));
    let mut dearer = order_body("T00001");
    dearer["amount"]["total"] = json!(1_001);
    world.refused("POST", NATIVE, &dearer.to_string(), 400, "INVALID_REQUEST");
    assert_eq!(by(&mut world, &new).as_deref(), Ok("T00001"));
    world.refused("POST", NATIVE, &order_body("T00001").to_string(), 403, "OUT_TRADE_NO_USED");
}

#[test]
fn business_rules_of_creating() {
    let mut world = World::new();
    let mut body = order_body("T00001");
    body["appid"] = json!("wx0000000000000000");
    world.refused("POST", NATIVE, &body.to_string(), 400, "APPID_MCHID_NOT_MATCH");
    body["appid"] = json!(APPID);
    body["time_expire"] = json!("2026-11-21T12:00:30+08:00");
    world.refused("POST", NATIVE, &body.to_string(), 400, "PARAM_ERROR");
    body["time_expire"] = json!("2026-11-21T12:05:00+08:00");
    world.call("POST", NATIVE, &body.to_string(), 200);
    // Past its end an order cannot be paid, but is not closed either.
    world.sim.advance(301);
    assert_eq!(
        world.confirm("T00001", Outcome::Success),
        Err(ConfirmError::Expired("T00001".into()))
    );
    world.state("T00001", "NOTPAY");
    world.sim.advance(7 * 86_400);
    world.state("T00001", "CLOSED");
    // A payment that was under way arrives all the same.
    world.confirm("T00001", Outcome::LateSuccess).unwrap();
    world.state("T00001", "SUCCESS");
}

#[test]
fn closing() {
    let mut world = World::new();
    let close = |number: &str| format!("/v3/pay/transactions/out-trade-no/{number}/close");
    let body = format!(r#"{{"mchid":"{MCHID}"}}"#);
    world.refused("POST", &close("T00001"), &body, 404, "ORDER_NOT_EXIST");
    world.order("T00001");
    world.refused("POST", &close("T00001"), r#"{"mchid":"1"}"#, 400, "PARAM_ERROR");
    let answer = world.raw("POST", &close("T00001"), &body);
    assert_eq!((answer.status, answer.body.len(), holds(&answer)), (204, 0, true));
    world.call("POST", &close("T00001"), &body, 204);
    world.state("T00001", "CLOSED");
    let ended = ConfirmError::Ended { out_trade_no: "T00001".into(), state: "CLOSED" };
    assert_eq!(world.confirm("T00001", Outcome::Success), Err(ended));
    world.refused("POST", NATIVE, &order_body("T00001").to_string(), 400, "ORDER_CLOSED");
    world.order("T00002");
    world.pay("T00002");
    world.refused("POST", &close("T00002"), &body, 400, "INVALID_REQUEST");
}

#[test]
fn what_payers_do_moves_the_state() {
    let mut world = World::new();
    world.order("T00001");
    let mut check = |outcome, want: &str| {
        world.confirm("T00001", outcome).unwrap();
        world.state("T00001", want);
    };
    check(Outcome::Paying, "USERPAYING");
    check(Outcome::Decline, "NOTPAY");
    check(Outcome::Paying, "USERPAYING");
    check(Outcome::Success, "SUCCESS");
    assert_eq!(world.confirm("T00001", Outcome::Decline), Err(ConfirmError::Paid("T00001".into())));
    world.order("T00002");
    world.confirm("T00002", Outcome::PayError).unwrap();
    world.state("T00002", "PAYERROR");
    world.order("T00003");
    world.confirm("T00003", Outcome::SuccessWrongAmount { amount_minor: Some(1) }).unwrap();
    assert_eq!(world.query("T00003").amount.unwrap().total.minor(), 1);
}

#[test]
fn refunds_repeat_without_effect_and_never_exceed_what_was_paid() {
    let mut world = World::new();
    let refused =
        |world: &mut World, number: &str, refund: &str, minor: i64, status: u16, code: &str| {
            let body = refund_body(number, refund, minor).to_string();
            world.refused("POST", REFUNDS, &body, status, code);
        };
    refused(&mut world, "T00001", "R1", 1, 404, "RESOURCE_NOT_EXISTS");
    world.order("T00001");
    refused(&mut world, "T00001", "R1", 1, 404, "RESOURCE_NOT_EXISTS");
    world.pay("T00001");
    let first = world.refund("T00001", "R1", 600);
    assert_eq!(world.refund("T00001", "R1", 600), first);
    // The order may be named by its other number: still the same refund.
    let mut by_id = refund_body("T00001", "R1", 600);
    by_id["transaction_id"] = first["transaction_id"].clone();
    let again = world.call("POST", REFUNDS, &by_id.to_string(), 200);
    assert_eq!(again, first);
    refused(&mut world, "T00001", "R1", 601, 400, "INVALID_REQUEST");
    refused(&mut world, "T00001", "R2", 401, 400, "INVALID_REQUEST");
    let mut wrong_total = refund_body("T00001", "R2", 1);
    wrong_total["amount"]["total"] = json!(999);
    world.refused("POST", REFUNDS, &wrong_total.to_string(), 400, "INVALID_REQUEST");
    world.refund("T00001", "R2", 400);
    refused(&mut world, "T00001", "R3", 1, 400, "INVALID_REQUEST");

    world.order("T00002");
    world.pay("T00002");
    for index in 0..50 {
        world.refund("T00002", &format!("S{index}"), 1);
    }
    refused(&mut world, "T00002", "S50", 1, 400, "INVALID_REQUEST");

    world.order("T00003");
    world.pay("T00003");
    world.sim.advance(365 * 86_400 + 1);
    refused(&mut world, "T00003", "U1", 1, 400, "TRADE_OVERDUE");
    world.refused("GET", &format!("{REFUNDS}/U1"), "", 404, "RESOURCE_NOT_EXISTS");
}

#[test]
fn the_request_chooses_the_key_that_signs_the_answer() {
    let mut world = World::new();
    let serial_for = |world: &mut World, asked: Option<&str>| {
        let mut request = world.request("GET", "/v3/certificates", "");
        request.headers.extend(asked.map(|it| ("wechatpay-serial".to_owned(), it.to_owned())));
        let answer = world.sim.handle(&request, world.now);
        assert!(holds(&answer));
        (answer.header("wechatpay-serial").unwrap().to_owned(), answer.body)
    };
    let (serial, body) = serial_for(&mut world, None);
    let listed = wechatpay::certificates::parse(&body, &apiv3_key()).unwrap();
    assert_eq!(listed[0].serial_no, serial);
    assert_eq!(listed[0].pem, seal::Certificate::from_pem(&listed[0].pem).unwrap().pem());
    assert_eq!(serial_for(&mut world, Some(PUBLIC_KEY_ID)).0, PUBLIC_KEY_ID);
    assert_eq!(serial_for(&mut world, Some(&serial.to_lowercase())).0, serial);
}

#[test]
fn bills_tell_what_happened_on_a_day() {
    let mut world = World::new();
    world.order("T00001");
    world.pay("T00001");
    world.order("T00002");
    world.refund("T00001", "R1", 500);
    let day = "bill_date=2026-11-21";
    let trade = format!("/v3/bill/tradebill?{day}");
    world.refused("GET", &trade, "", 400, "INVALID_REQUEST");
    world.sim.advance(13 * 3_600);
    world.refused("GET", &trade, "", 400, "STATEMENT_CREATING");
    world.sim.advance(12 * 3_600);
    world.refused("GET", "/v3/bill/tradebill?bill_date=2026-11-20", "", 400, "NO_STATEMENT_EXIST");
    world.refused("GET", "/v3/bill/tradebill?bill_date=2026-01-01", "", 400, "INVALID_REQUEST");
    world.refused("GET", "/v3/bill/tradebill?bill_date=soon", "", 400, "PARAM_ERROR");

    let fetch = |world: &mut World, target: &str| {
        let link = world.call("GET", target, "", 200);
        let link = BillLink::parse(link.to_string().as_bytes()).unwrap();
        let target = link.download_url.strip_prefix("http://sim.test").unwrap().to_owned();
        let answer = world.raw("GET", &target, "");
        assert_eq!(answer.status, 200);
        assert!(!holds(&answer), "files are unsigned");
        (answer.body, link.hash_value, target)
    };
    let (file, hash, link) = fetch(&mut world, &trade);
    assert_eq!(seal::digest::sha1_hex(&file), hash);
    let bill = TradeBill::parse(&file).unwrap();
    assert_eq!(bill.rows.len(), 2, "unpaid orders are not listed");
    assert_eq!((bill.summary.settlement_minor, bill.summary.refund_minor), (1_000, 500));
    assert_eq!((bill.rows[0].fee_milli, bill.rows[1].fee_milli), (6_000, -3_000));
    let (zipped, same, _) = fetch(&mut world, &format!("{trade}&tar_type=GZIP"));
    assert_eq!(same, hash);
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&zipped[..]), &mut plain).unwrap();
    assert_eq!(plain, file);
    let (refunds, ..) = fetch(&mut world, &format!("{trade}&bill_type=REFUND"));
    assert_eq!(TradeBill::parse(&refunds).unwrap().rows.len(), 1);

    let (funds, ..) = fetch(&mut world, &format!("/v3/bill/fundflowbill?{day}"));
    let funds = FundBill::parse(&funds).unwrap();
    assert_eq!(funds.rows.last().unwrap().balance_minor, 1_000 - 6 - 500 + 3);
    assert_eq!((funds.summary.in_minor, funds.summary.out_minor), (1_003, 506));

    world.sim.advance(301);
    world.refused("GET", &link, "", 400, "INVALID_REQUEST");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::new();
        let code = world.order("T00001");
        world.pay("T00001");
        let notice = &world.deliver(Some(200))[0];
        (code, world.query("T00001"), notice.id.clone())
    };
    assert_eq!(run(), run());
    let mut other = crate::world::settings();
    other.seed = 2;
    let mut world = World::new();
    let code = world.order("T00001");
    world.sim = testkit::wechat::WechatSim::new(other).unwrap();
    assert_ne!(world.order("T00001"), code);
    assert_eq!(code_of(&json!({ "code_url": "x?pr=1" })), "1");
}
