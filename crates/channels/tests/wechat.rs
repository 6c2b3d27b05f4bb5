//! The WeChat channel against answers signed here, as WeChat signs them.

use channel::{
    Answer, Callback, CallbackError, Channel, ChannelId, ChannelState, CreateOrder, CreateRefund,
    Decline, EncodeError, HttpMessage, HttpRequest, Moment, Operation, Product, RefundChannelState,
};
use channels::wechat::{
    TrustedKey, Wechat, WechatSettings, WechatSettingsError, direct_merchant_abilities,
};
use kernel::{
    BusinessDay, Currency, Money, Secret, Serial, SerialGenerator, SerialKind, Timestamp, Zone,
};
use proptest::prelude::*;
use seal::{Certificate, Signer};
use std::sync::LazyLock;
use wechatpay::certificates::{self, PlatformCertificate};
use wechatpay::headers::SignatureHeaders;
use wechatpay::notification::{Envelope, EventType};
use wechatpay::{Apiv3Key, Authorization, signing};

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
const NONCE: &str = "593BEC0C930BF1AFEB40B4A08C8FB242";
const MCHID: &str = "1900000109";
const APPID: &str = "wx2421b1c4370ec43b";
const APIV3: &str = "0123456789abcdef0123456789ABCDEF";
const PUBLIC_KEY: &str = "PUB_KEY_ID_0119000001092024";

static MERCHANT: LazyLock<Signer> = LazyLock::new(|| key(seal::generate_rsa()));
static PLATFORM: LazyLock<Signer> = LazyLock::new(|| key(seal::generate_rsa()));
/// A second platform key with its certificate, which the merchant does not know at first.
static NEXT: LazyLock<(Signer, Certificate)> = LazyLock::new(|| {
    let pair = seal::generate_rsa();
    let (from, until) = (NOW.plus_s(-86_400), NOW.plus_s(86_400));
    let pem = seal::self_signed(&pair.private_pem, "next", [0x5a; 20], from, until).unwrap();
    (key(pair), Certificate::from_pem(&pem).unwrap())
});

fn key(pair: seal::KeyPairPem) -> Signer {
    Signer::from_pem(&pair.private_pem).unwrap()
}

fn settings() -> WechatSettings {
    let verifier = PLATFORM.verifier();
    WechatSettings {
        id: ChannelId::new("wechat"),
        abilities: direct_merchant_abilities(),
        base_url: "https://api.mch.weixin.qq.com/".into(),
        mchid: MCHID.into(),
        appid: APPID.into(),
        merchant_serial: "5157F09EFDC096DE15EBE81A47057A7232F1B8E1".into(),
        signer: MERCHANT.clone(),
        apiv3_key: Secret::new(APIV3),
        notify_url: "https://pay.example/callback/wechat".into(),
        refund_notify_url: "https://pay.example/callback/wechat-refund/".into(),
        trust: vec![TrustedKey { serial: PUBLIC_KEY.into(), verifier }],
    }
}

fn wechat() -> Wechat {
    Wechat::new(settings()).unwrap()
}

fn moment() -> Moment {
    Moment { now: NOW, nonce: NONCE.into() }
}

fn serial(kind: SerialKind) -> Serial {
    SerialGenerator::new(1, Zone::shanghai()).next(NOW, kind)
}

fn cny(minor: i64) -> Money {
    Money::new(minor, Currency::Cny)
}

fn order(product: Product) -> CreateOrder {
    CreateOrder {
        attempt: serial(SerialKind::Attempt),
        callback_path: "1900000001/20270115".into(),
        product,
        amount: cny(100),
        description: "测试商品😀".into(),
        expires: NOW.plus_s(600),
        payer: Some("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".into()),
        payer_ip: Some("203.0.113.7".into()),
        h5_type: Some("Wap".into()),
    }
}

fn create(product: Product) -> Operation {
    Operation::Create(order(product))
}

fn query() -> Operation {
    Operation::Query { attempt: serial(SerialKind::Attempt) }
}

fn refund() -> Operation {
    Operation::Refund(CreateRefund {
        refund: serial(SerialKind::Refund),
        attempt: serial(SerialKind::Attempt),
        callback_path: "1900000001/20270116".into(),
        amount: cny(30),
        total: cny(100),
        reason: Some("不想要了".into()),
    })
}

fn all_operations() -> Vec<Operation> {
    let mut all: Vec<Operation> = Product::ALL.into_iter().map(create).collect();
    all.extend([
        query(),
        Operation::Close { attempt: serial(SerialKind::Attempt) },
        refund(),
        Operation::QueryRefund { refund: serial(SerialKind::Refund) },
        Operation::Bill { day: BusinessDay::parse("2027-01-14").unwrap() },
        Operation::Download {
            url: "https://api.mch.weixin.qq.com/v3/billdownload/file?token=t".into(),
        },
        Operation::Keys,
    ]);
    all
}

/// A message signed by `signer` under `serial`, `away_s` seconds from now.
fn signed_by(signer: &Signer, serial: &str, away_s: i64, status: u16, body: &str) -> HttpMessage {
    let at = NOW.seconds() + away_s;
    let pairs = SignatureHeaders::sign(signer, serial, at, "n", body.as_bytes()).pairs();
    let headers = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    HttpMessage { status, headers, body: body.into() }
}

fn signed(status: u16, body: &str) -> HttpMessage {
    signed_by(&PLATFORM, PUBLIC_KEY, 0, status, body)
}

fn decode(operation: &Operation, message: &HttpMessage) -> Answer {
    wechat().decode(operation, message, &moment())
}

#[track_caller]
fn in_doubt(answer: Answer, want: &str) {
    let Answer::InDoubt { why } = answer else { panic!("{answer:?} is not in doubt") };
    assert!(why.contains(want), "{why:?} lacks {want:?}");
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
}

fn transaction(state: &str) -> String {
    format!(
        r#"{{"appid":"{APPID}","mchid":"{MCHID}","out_trade_no":"{}","transaction_id":"4200000001","trade_type":"NATIVE","trade_state":"{state}","trade_state_desc":"…","bank_type":"CMC","success_time":"2027-01-15T16:00:00+08:00","payer":{{"openid":"o1"}},"amount":{{"total":100,"payer_total":90,"currency":"CNY","payer_currency":"CNY"}}}}"#,
        serial(SerialKind::Attempt)
    )
}

fn refund_body(status: &str) -> String {
    format!(
        r#"{{"refund_id":"503001","out_refund_no":"{}","transaction_id":"4200000001","out_trade_no":"{}","channel":"ORIGINAL","user_received_account":"支付用户零钱","success_time":"2027-01-15T16:00:00+08:00","create_time":"2027-01-15T15:59:00+08:00","status":"{status}","amount":{{"total":100,"refund":30,"payer_total":90,"payer_refund":30,"settlement_refund":30,"settlement_total":100,"discount_refund":0,"currency":"CNY"}}}}"#,
        serial(SerialKind::Refund),
        serial(SerialKind::Attempt)
    )
}

// Encode.

#[test]
fn every_request_is_signed_over_what_is_sent() {
    for operation in all_operations() {
        let request = wechat().encode(&operation, &moment()).unwrap();
        let it = Authorization::parse(header(&request, "authorization").unwrap()).unwrap();
        let target = request.url.strip_prefix("https://api.mch.weixin.qq.com").unwrap();
        let message = signing::request_message(
            request.method,
            target,
            it.timestamp,
            &it.nonce,
            &request.body,
        );
        assert!(MERCHANT.verifier().verify_base64(&message, &it.signature), "{operation:?}");
        assert_eq!(
            (it.timestamp, it.nonce.as_str(), it.mchid.as_str()),
            (NOW.seconds(), NONCE, MCHID)
        );
        assert_eq!(it.scheme, "WECHATPAY2-SHA256-RSA2048");
        assert_eq!(header(&request, "wechatpay-serial"), Some(PUBLIC_KEY));
        assert_eq!(header(&request, "content-type").is_some(), !request.body.is_empty());
        assert_eq!(request.method == "GET", request.body.is_empty(), "{operation:?}");
    }
}

#[test]
fn a_server_reads_the_order_that_was_meant() {
    for product in Product::ALL {
        let request = wechat().encode(&create(product), &moment()).unwrap();
        let served =
            wechatpay::Product::of_path(&request.url["https://api.mch.weixin.qq.com".len()..]);
        let read = wechatpay::CreateTransaction::parse(served.unwrap(), &request.body).unwrap();
        assert_eq!(served.unwrap().name(), product.name());
        assert_eq!(read.out_trade_no, serial(SerialKind::Attempt).as_str());
        assert_eq!((read.mchid.as_str(), read.appid.as_str()), (MCHID, APPID));
        assert_eq!((read.amount, read.time_expire), (cny(100), Some(NOW.plus_s(600))));
        assert_eq!(read.description, "测试商品");
        assert_eq!(read.notify_url, "https://pay.example/callback/wechat/1900000001/20270115");
        assert_eq!(read.openid.is_some(), product == Product::Jsapi);
        let scene = read.scene_info.unwrap();
        assert_eq!(scene.payer_client_ip, "203.0.113.7");
        assert_eq!(scene.h5_info.map(|it| it.kind), (product == Product::H5).then(|| "Wap".into()));
    }
}

#[test]
fn a_server_reads_the_refund_that_was_meant() {
    let request = wechat().encode(&refund(), &moment()).unwrap();
    assert_eq!(request.url, "https://api.mch.weixin.qq.com/v3/refund/domestic/refunds");
    let read = wechatpay::CreateRefund::parse(&request.body).unwrap();
    assert_eq!(read.out_trade_no.as_deref(), Some(serial(SerialKind::Attempt).as_str()));
    assert_eq!(read.out_refund_no, serial(SerialKind::Refund).as_str());
    assert_eq!((read.refund, read.total), (cny(30), cny(100)));
    let url = "https://pay.example/callback/wechat-refund/1900000001/20270116";
    assert_eq!(read.notify_url.as_deref(), Some(url));
}

#[test]
fn other_requests_go_where_the_protocol_says() {
    let attempt = serial(SerialKind::Attempt);
    let check = |operation: Operation, method: &str, target: &str, body: &str| {
        let request = wechat().encode(&operation, &moment()).unwrap();
        assert_eq!(request.method, method);
        assert_eq!(request.url, format!("https://api.mch.weixin.qq.com{target}"));
        assert_eq!(String::from_utf8(request.body).unwrap(), body);
    };
    let path = format!("/v3/pay/transactions/out-trade-no/{attempt}");
    check(query(), "GET", &format!("{path}?mchid={MCHID}"), "");
    let close = r#"{"mchid":"1900000109"}"#;
    check(Operation::Close { attempt }, "POST", &format!("{path}/close"), close);
    let refund = serial(SerialKind::Refund);
    let target = format!("/v3/refund/domestic/refunds/{refund}");
    check(Operation::QueryRefund { refund }, "GET", &target, "");
    let day = BusinessDay::parse("2027-01-14").unwrap();
    let target = "/v3/bill/tradebill?bill_date=2027-01-14&bill_type=ALL";
    check(Operation::Bill { day }, "GET", target, "");
    check(Operation::Keys, "GET", "/v3/certificates", "");
}

#[test]
fn what_cannot_be_asked_is_refused_by_what_is_missing() {
    let check = |change: fn(&mut CreateOrder), product, want: &str| {
        let mut order = order(product);
        change(&mut order);
        let error = wechat().encode(&Operation::Create(order), &moment()).unwrap_err();
        assert!(error.to_string().contains(want), "{error} lacks {want}");
    };
    check(|it| it.payer = None, Product::Jsapi, "needs the payer's openid");
    check(|it| it.payer_ip = None, Product::H5, "needs the payer's IP address");
    check(|it| it.h5_type = None, Product::H5, "needs h5_type");
    check(|it| it.amount = cny(0), Product::Native, "cannot move 0.00 CNY");
    check(|it| it.amount = Money::new(1, Currency::Usd), Product::Native, "cannot move 0.01 USD");
}

#[test]
fn files_come_from_the_own_host_only() {
    for url in [
        "https://evil.example/v3/billdownload/file?token=t",
        "http://api.mch.weixin.qq.com/v3/billdownload/file?token=t",
        "https://api.mch.weixin.qq.com:8443/v3/billdownload/file",
        "https://api.mch.weixin.qq.com.evil.example/",
        "https://api.mch.weixin.qq.com@evil.example/",
        "https://me@api.mch.weixin.qq.com/",
        "/v3/billdownload/file?token=t",
        "",
    ] {
        let refused = wechat().encode(&Operation::Download { url: url.into() }, &moment());
        assert!(matches!(refused, Err(EncodeError::Unsupported { .. })), "{url}");
    }
}

#[test]
fn settings_are_checked_before_anything_is_sent() {
    let check = |change: fn(&mut WechatSettings), want: &str| {
        let mut settings = settings();
        change(&mut settings);
        let error: WechatSettingsError = Wechat::new(settings).unwrap_err();
        assert!(error.to_string().contains(want), "{error} lacks {want}");
    };
    check(|it| it.base_url = "api.mch.weixin.qq.com".into(), "base_url");
    check(|it| it.base_url = "https://api.mch.weixin.qq.com/v3".into(), "host alone");
    check(|it| it.apiv3_key = Secret::new("short"), "APIv3 key has 5 bytes");
    check(|it| it.notify_url = "https://a/?x=1".into(), "notify_url");
    check(|it| it.refund_notify_url = "mailto:me".into(), "refund_notify_url");
    check(|it| it.signer = key(seal::generate_sm2()), "is SM2");
}

// Decode.

#[test]
fn a_prepared_order_carries_what_the_payer_needs() {
    let check = |product, body: &str| match decode(&create(product), &signed(200, body)) {
        Answer::Prepared(prepay) => prepay,
        other => panic!("{other:?}"),
    };
    let native = check(Product::Native, r#"{"code_url":"weixin://wxpay/bizpayurl?pr=1"}"#);
    assert_eq!(native.code_url.as_deref(), Some("weixin://wxpay/bizpayurl?pr=1"));
    assert!(native.pay_params.is_empty());
    let h5 = check(Product::H5, r#"{"h5_url":"https://wx.tenpay.com/x"}"#);
    assert_eq!(h5.h5_url.as_deref(), Some("https://wx.tenpay.com/x"));

    let jsapi = check(Product::Jsapi, r#"{"prepay_id":"wx1"}"#);
    let names: Vec<&str> = jsapi.pay_params.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(names, ["appId", "timeStamp", "nonceStr", "package", "signType", "paySign"]);
    let text = format!("{APPID}\n{}\n{NONCE}\nprepay_id=wx1\n", NOW.seconds());
    assert!(MERCHANT.verifier().verify_base64(text.as_bytes(), &jsapi.pay_params[5].1));

    let app = check(Product::App, r#"{"prepay_id":"wx1"}"#);
    assert_eq!(app.pay_params[1], ("partnerid".into(), MCHID.into()));
    let text = format!("{APPID}\n{}\n{NONCE}\nwx1\n", NOW.seconds());
    assert!(MERCHANT.verifier().verify_base64(text.as_bytes(), &app.pay_params[6].1));
}

#[test]
fn trade_states_are_told_apart_and_unknown_ones_are_in_doubt() {
    let check = |word: &str, want| match decode(&query(), &signed(200, &transaction(word))) {
        Answer::Payment(facts) => {
            assert_eq!((facts.state, facts.paid.is_some()), (want, want == ChannelState::Paid));
            assert_eq!(facts.attempt, serial(SerialKind::Attempt).as_str());
        }
        other => panic!("{word}: {other:?}"),
    };
    check("NOTPAY", ChannelState::Waiting);
    check("ACCEPT", ChannelState::Waiting);
    check("USERPAYING", ChannelState::Paying);
    check("SUCCESS", ChannelState::Paid);
    check("REFUND", ChannelState::Paid);
    check("CLOSED", ChannelState::Closed);
    check("REVOKED", ChannelState::Closed);
    check("PAYERROR", ChannelState::Failed);
    for word in ["", "success", "PAID", "FROZEN"] {
        in_doubt(decode(&query(), &signed(200, &transaction(word))), "trade_state");
    }
}

#[test]
fn a_payment_tells_who_was_paid_what_by_whom() {
    let Answer::Payment(facts) = decode(&query(), &signed(200, &transaction("SUCCESS"))) else {
        panic!()
    };
    let paid = facts.paid.unwrap();
    assert_eq!((paid.payee.as_str(), paid.amount), (MCHID, cny(100)));
    assert_eq!((paid.transaction.as_str(), paid.payer.as_deref()), ("4200000001", Some("o1")));
    assert_eq!((paid.bank.as_deref(), paid.at), (Some("CMC"), NOW));
}

#[test]
fn an_answer_to_another_question_is_in_doubt() {
    let ours = transaction("SUCCESS");
    let other_order = ours.replace(serial(SerialKind::Attempt).as_str(), "T20231114001");
    in_doubt(decode(&query(), &signed(200, &other_order)), "answered about T20231114001");
    let other_merchant = ours.replace(MCHID, "1900000999");
    in_doubt(decode(&query(), &signed(200, &other_merchant)), "of 1900000999");
    let other_refund = refund_body("SUCCESS").replace(serial(SerialKind::Refund).as_str(), "R1");
    in_doubt(decode(&refund(), &signed(200, &other_refund)), "answered about R1");
    for (member, name) in [
        (r#""transaction_id":"4200000001","#, "transaction_id"),
        (r#""success_time":"2027-01-15T16:00:00+08:00","#, "success_time"),
    ] {
        let lacking = ours.replace(member, "");
        in_doubt(decode(&query(), &signed(200, &lacking)), &format!("{name} is missing"));
    }
}

#[test]
fn refund_states_are_told_apart_and_unknown_ones_are_in_doubt() {
    let queried = Operation::QueryRefund { refund: serial(SerialKind::Refund) };
    for operation in [refund(), queried] {
        for (word, want) in [
            ("PROCESSING", RefundChannelState::Processing),
            ("SUCCESS", RefundChannelState::Success),
            ("CLOSED", RefundChannelState::Closed),
            ("ABNORMAL", RefundChannelState::Abnormal),
        ] {
            let Answer::Refund(facts) = decode(&operation, &signed(200, &refund_body(word))) else {
                panic!("{word}")
            };
            assert_eq!((facts.state, facts.amount), (want, cny(30)));
            assert_eq!((facts.channel_refund.as_str(), facts.at), ("503001", Some(NOW)));
        }
        in_doubt(decode(&operation, &signed(200, &refund_body("REFUNDCLOSE"))), "status");
    }
}

#[test]
fn nothing_is_believed_without_a_fresh_signature_that_holds() {
    let body = transaction("SUCCESS");
    let check = |change: fn(&mut HttpMessage), want: &str| {
        let mut message = signed(200, &transaction("SUCCESS"));
        change(&mut message);
        in_doubt(decode(&query(), &message), want);
    };
    check(|it| it.headers.clear(), "is missing");
    for name in
        ["wechatpay-timestamp", "wechatpay-nonce", "wechatpay-signature", "wechatpay-serial"]
    {
        let mut message = signed(200, &body);
        message.headers.retain(|it| it.0 != name);
        in_doubt(decode(&query(), &message), &format!("{name} is missing"));
    }
    check(|it| it.body.push(b' '), "does not hold");
    check(|it| it.headers[0].1 = "1800000001".into(), "does not hold");
    check(|it| it.headers[0].1 = "soon".into(), "not Unix seconds");
    check(|it| it.headers[1].1 = "other".into(), "does not hold");
    check(|it| it.headers[2].1.insert_str(0, "WECHATPAY/SIGNTEST/"), "does not hold");
    check(|it| it.headers[4].1 = "WECHATPAY2-SM2-WITH-SM3".into(), "does not hold");

    let stranger = signed_by(&MERCHANT, PUBLIC_KEY, 0, 200, &body);
    in_doubt(decode(&query(), &stranger), "does not hold");
    for (away_s, fresh) in [(-301, false), (-300, true), (300, true), (301, false)] {
        let message = signed_by(&PLATFORM, PUBLIC_KEY, away_s, 200, &body);
        match decode(&query(), &message) {
            Answer::Payment(_) => assert!(fresh, "{away_s}"),
            Answer::InDoubt { why } => assert!(!fresh && why.contains("away"), "{away_s}: {why}"),
            other => panic!("{other:?}"),
        }
    }
    let unknown = signed_by(&PLATFORM, "4A00", 0, 200, &body);
    assert_eq!(decode(&query(), &unknown), Answer::UnknownKey { serial: "4A00".into() });
}

#[test]
fn closing_is_done_by_204_alone_and_signed() {
    let close = Operation::Close { attempt: serial(SerialKind::Attempt) };
    assert_eq!(decode(&close, &signed(204, "")), Answer::Closed);
    let unsigned = HttpMessage { status: 204, headers: Vec::new(), body: Vec::new() };
    in_doubt(decode(&close, &unsigned), "is missing");
    in_doubt(decode(&query(), &signed(204, "")), "status 204");
    in_doubt(decode(&close, &signed(202, "")), "status 202");
}

#[test]
fn errors_are_read_without_a_signature() {
    let answer = |status, body: &str| {
        decode(
            &create(Product::Native),
            &HttpMessage { status, headers: vec![], body: body.into() },
        )
    };
    let declined = answer(403, r#"{"code":"NO_AUTH","message":"商户未开通此产品权限"}"#);
    let want = Decline {
        code: "NO_AUTH".into(),
        message: "商户未开通此产品权限".into(),
        temporary: false,
    };
    assert_eq!(declined, Answer::Declined(want));
    in_doubt(answer(500, r#"{"code":"SYSTEM_ERROR","message":"系统错误"}"#), "500 SYSTEM_ERROR");
    in_doubt(answer(404, ""), "404");
    in_doubt(answer(302, ""), "302");
}

#[test]
fn a_bill_is_a_link_and_a_file_is_its_bytes() {
    let bill = Operation::Bill { day: BusinessDay::parse("2027-01-14").unwrap() };
    let body = r#"{"hash_type":"SHA1","hash_value":"79BB0F45FC","download_url":"https://api.mch.weixin.qq.com/v3/billdownload/file?token=t"}"#;
    let Answer::File(link) = decode(&bill, &signed(200, body)) else { panic!() };
    assert_eq!(link.sha1, "79bb0f45fc");
    let download = Operation::Download { url: link.url };
    assert!(wechat().encode(&download, &moment()).is_ok());
    let file = HttpMessage { status: 200, headers: vec![], body: vec![0xff, 0xfe] };
    assert_eq!(decode(&download, &file), Answer::Bytes(vec![0xff, 0xfe]));
    in_doubt(decode(&bill, &signed(200, &body.replace("SHA1", "MD5"))), "is MD5");
}

// Keys.

fn key_list(pem: &str, serial: &str, apiv3: &str) -> String {
    let listed = PlatformCertificate {
        serial_no: serial.into(),
        effective_time: NOW.plus_s(-86_400),
        expire_time: NOW.plus_s(86_400),
        pem: pem.into(),
    };
    let key = Apiv3Key::parse(apiv3).unwrap();
    certificates::render(&[(listed, "61f9c719728a".into())], &key).unwrap()
}

#[test]
fn unknown_keys_are_learnt_from_the_list_they_sign() {
    let (signer, certificate) = &*NEXT;
    let serial = certificate.serial();
    // A first-time client, which trusts nothing but the APIv3 key.
    let wechat = Wechat::new(WechatSettings { trust: vec![], ..settings() }).unwrap();
    let list = key_list(certificate.pem(), serial, APIV3);
    let message = signed_by(signer, serial, 0, 200, &list);
    let paid = signed_by(signer, &serial.to_lowercase(), 0, 200, &transaction("SUCCESS"));
    let unknown = wechat.decode(&query(), &paid, &moment());
    assert!(matches!(unknown, Answer::UnknownKey { .. }), "{unknown:?}");

    let Answer::Keys(keys) = wechat.decode(&Operation::Keys, &message, &moment()) else { panic!() };
    assert_eq!(keys.len(), 1);
    wechat.learn(&keys);
    assert!(matches!(wechat.decode(&query(), &paid, &moment()), Answer::Payment(_)));
}

#[test]
fn a_forged_key_list_teaches_nothing() {
    let (signer, certificate) = &*NEXT;
    let serial = certificate.serial();
    let list = key_list(certificate.pem(), serial, APIV3);
    let check = |message: HttpMessage, want: &str| {
        in_doubt(decode(&Operation::Keys, &message), want);
    };
    check(signed_by(&MERCHANT, serial, 0, 200, &list), "does not hold");
    check(signed_by(signer, "4A00", 0, 200, &list), "which it lacks");
    check(signed_by(signer, serial, 301, 200, &list), "away");
    let other_key = key_list(certificate.pem(), serial, "1123456789abcdef0123456789ABCDEF");
    check(signed_by(signer, serial, 0, 200, &other_key), "APIv3 key does not fit");
    let misnamed = key_list(certificate.pem(), "4A00", APIV3);
    check(signed_by(signer, serial, 0, 200, &misnamed), "is listed as 4A00");
    check(signed_by(signer, serial, 0, 200, &key_list("no PEM", serial, APIV3)), "no PEM block");
    // A list that a trusted key signs need not carry that key.
    let trusted = signed_by(&PLATFORM, PUBLIC_KEY, 0, 200, &list);
    assert!(matches!(decode(&Operation::Keys, &trusted), Answer::Keys(_)));
    // An expired certificate is no longer a key.
    let later = Moment { now: NOW.plus_s(86_401), nonce: NONCE.into() };
    let message = signed_by(&PLATFORM, PUBLIC_KEY, 86_401, 200, &list);
    assert_eq!(wechat().decode(&Operation::Keys, &message, &later), Answer::Keys(vec![]));
}

// Callbacks.

fn notice(event: EventType, plain: &str) -> String {
    let key = Apiv3Key::parse(APIV3).unwrap();
    let sealed = Envelope::seal("EV-1", NOW, event, plain.as_bytes(), "fdasflkja484", &key);
    sealed.unwrap().to_json()
}

fn refund_notice() -> String {
    format!(
        r#"{{"mchid":"{MCHID}","out_trade_no":"T1","transaction_id":"42","out_refund_no":"R1","refund_id":"503","refund_status":"SUCCESS","success_time":"2027-01-15T16:00:00+08:00","user_received_account":"零钱","amount":{{"total":100,"refund":30,"payer_total":100,"payer_refund":30}}}}"#
    )
}

fn called_back(body: &str) -> Result<Callback, CallbackError> {
    wechat().callback(&signed(0, body), NOW)
}

#[test]
fn callbacks_tell_of_payments_and_refunds() {
    let Ok(Callback::Payment(facts)) =
        called_back(&notice(EventType::TransactionSuccess, &transaction("SUCCESS")))
    else {
        panic!()
    };
    assert_eq!((facts.state, facts.paid.unwrap().amount), (ChannelState::Paid, cny(100)));

    let Ok(Callback::Refund(facts)) =
        called_back(&notice(EventType::RefundSuccess, &refund_notice()))
    else {
        panic!()
    };
    assert_eq!((facts.refund.as_str(), facts.state), ("R1", RefundChannelState::Success));
    assert_eq!((facts.amount, facts.at), (cny(30), Some(NOW)));

    let other = called_back(&notice(EventType::Other("COUPON.USE".into()), "{}"));
    assert_eq!(other, Ok(Callback::Other { kind: "COUPON.USE".into() }));
}

#[test]
fn callbacks_are_not_believed_unless_all_holds() {
    let body = notice(EventType::TransactionSuccess, &transaction("SUCCESS"));
    let check = |message: &HttpMessage, want: CallbackError| {
        assert_eq!(wechat().callback(message, NOW), Err(want));
    };
    for name in
        ["wechatpay-timestamp", "wechatpay-nonce", "wechatpay-signature", "wechatpay-serial"]
    {
        let mut message = signed(0, &body);
        message.headers.retain(|it| it.0 != name);
        check(&message, CallbackError::MissingHeader(name));
    }
    let old = signed_by(&PLATFORM, PUBLIC_KEY, -301, 0, &body);
    check(&old, CallbackError::Clock { seconds: -301 });
    check(&signed_by(&PLATFORM, "4A00", 0, 0, &body), CallbackError::UnknownKey("4A00".into()));
    check(&signed_by(&MERCHANT, PUBLIC_KEY, 0, 0, &body), CallbackError::BadSignature);
    let mut probe = signed(0, &body);
    probe.headers[2].1.insert_str(0, signing::PROBE_PREFIX);
    check(&probe, CallbackError::BadSignature);

    for (body, want) in [
        ("{}".to_owned(), "a notification"),
        (body.replace("fdasflkja484", "fdasflkja485"), "APIv3 key does not open"),
        (notice(EventType::TransactionSuccess, "{}"), "a transaction"),
        (notice(EventType::TransactionSuccess, &transaction("FROZEN")), "FROZEN"),
        (notice(EventType::RefundSuccess, &refund_notice().replace(MCHID, "1")), "of merchant 1"),
    ] {
        let Err(CallbackError::Unreadable(why)) = called_back(&body) else { panic!("{want}") };
        assert!(why.contains(want), "{why} lacks {want}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever comes back, there is an answer; without our key it is never good news.
    #[test]
    fn any_message_is_answered(
        status in prop_oneof![Just(200u16), Just(204), 0u16..600],
        body in prop::collection::vec(any::<u8>(), 0..200),
        headers in prop::collection::vec(("[a-z-]{1,20}", ".*"), 0..5),
        at in any::<prop::sample::Index>(),
    ) {
        let all = all_operations();
        let operation = &all[at.index(all.len())];
        let message = HttpMessage { status, headers, body };
        match decode(operation, &message) {
            Answer::InDoubt { .. } => {}
            Answer::Bytes(_) => {
                let file = matches!(operation, Operation::Download { .. });
                prop_assert!(file, "a file for {:?}", operation);
            }
            other => prop_assert!(false, "{:?} to {:?}", other, operation),
        }
        prop_assert!(wechat().callback(&message, NOW).is_err());
    }

    /// Even rightly signed, any body is answered.
    #[test]
    fn any_signed_body_is_answered(
        body in prop_oneof![".*", "[\\[\\]{}:,\"a-z0-9]{0,60}"],
        at in any::<prop::sample::Index>(),
    ) {
        let all = all_operations();
        let operation = &all[at.index(all.len())];
        let _ = decode(operation, &signed(200, &body));
        let _ = called_back(&body);
        let _ = called_back(&notice(EventType::TransactionSuccess, &body));
    }
}
