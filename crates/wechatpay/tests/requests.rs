//! Create and refund requests: what is refused and in which words, and that parsing undoes
//! rendering.

use expect_test::expect_file;
use kernel::{Currency, Money, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use wechatpay::create::{GoodsLine, H5Info, OrderDetail, SceneInfo, StoreInfo};
use wechatpay::error::Detail;
use wechatpay::refund::{FundsFrom, RefundAmount, RefundGoods, RefundPromotion};
use wechatpay::transaction::{Promotion, PromotionGoods, TransactionAmount};
use wechatpay::{
    ApiError, CreateRefund, CreateTransaction, Language, Prepay, Product, Reading, Refund,
    RefundNotice, RefundStatus, TradeState, TradeType, Transaction, WireError,
};

fn order() -> Value {
    json!({
        "appid": "wx2421b1c4370ec43b",
        "mchid": "1900000109",
        "description": "测试商品",
        "out_trade_no": "T20231114001",
        "notify_url": "https://example.com/notify",
        "amount": { "total": 100, "currency": "CNY" },
        "payer": { "openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o" },
        "scene_info": {
            "payer_client_ip": "14.23.150.211",
            "h5_info": { "type": "Wap" },
        },
    })
}

fn refund() -> Value {
    json!({
        "out_trade_no": "T20231114001",
        "out_refund_no": "R1",
        "amount": { "refund": 60, "total": 100, "currency": "CNY" },
    })
}

/// The body with one member changed; a pointer to a new member adds it, `null` removes it.
fn with(mut body: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let members = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => members.remove(name),
        value => members.insert(name.into(), value),
    };
    body
}

fn parse_order(product: Product, body: &Value) -> Result<CreateTransaction, ApiError> {
    CreateTransaction::parse(product, body.to_string().as_bytes())
}

#[track_caller]
fn refused(result: Result<(), ApiError>, field: &str) -> ApiError {
    let error = result.expect_err("should be refused");
    assert_eq!((error.status, error.code.as_ref()), (400, "PARAM_ERROR"));
    match error.detail.as_deref() {
        Some(Detail::Field { field: found, .. }) => assert_eq!(found, field, "{error}"),
        other => panic!("no field in {other:?}"),
    }
    error
}

/// Every refusal of a create request, as a merchant sees it in both languages.
#[test]
fn bad_orders_are_refused_by_field() {
    let long = |len: usize| Value::from("长".repeat(len));
    let rows: Vec<(Product, &str, Value)> = vec![
        (Product::Native, "/appid", Value::Null),
        (Product::Native, "/appid", json!("")),
        (Product::Native, "/appid", json!(7)),
        (Product::Native, "/mchid", long(33)),
        (Product::Native, "/description", long(128)),
        (Product::Native, "/out_trade_no", json!("short")),
        (Product::Native, "/out_trade_no", json!("T2023111400100000000000000000000000")),
        (Product::Native, "/out_trade_no", json!("T2023 114001")),
        (Product::Native, "/out_trade_no", json!("订单20231114")),
        (Product::Native, "/time_expire", json!("tomorrow")),
        (Product::Native, "/time_expire", json!("2018-06-08T10:34:56")),
        (Product::Native, "/attach", long(129)),
        (Product::Native, "/notify_url", Value::Null),
        (Product::Native, "/notify_url", json!("ftp://example.com")),
        (Product::Native, "/notify_url", json!("https://example.com/?a=1")),
        (Product::Native, "/notify_url", json!("https:///notify")),
        (Product::Native, "/notify_url", json!("https://user@example.com/")),
        (Product::Native, "/notify_url", json!("https://example.com/a b")),
        (Product::Native, "/support_fapiao", json!("true")),
        (Product::Native, "/amount", Value::Null),
        (Product::Native, "/amount", json!(100)),
        (Product::Native, "/amount/total", Value::Null),
        (Product::Native, "/amount/total", json!(0)),
        (Product::Native, "/amount/total", json!(-1)),
        (Product::Native, "/amount/total", json!(12.5)),
        (Product::Native, "/amount/total", json!(100.0)),
        (Product::Native, "/amount/total", json!("100")),
        (Product::Native, "/amount/total", json!(true)),
        (Product::Native, "/amount/total", json!(9_223_372_036_854_775_808_u64)),
        (Product::Native, "/amount/total", json!(1e30)),
        (Product::Native, "/amount/total", json!(-1e30)),
        (Product::Native, "/amount/currency", json!("XYZ")),
        (Product::Native, "/amount/currency", json!("cny")),
        (Product::Jsapi, "/payer", Value::Null),
        (Product::Jsapi, "/payer/openid", Value::Null),
        (Product::Native, "/detail", json!({ "cost_price": 1, "pad": "x".repeat(6_200) })),
        (Product::Native, "/detail", json!([])),
        (Product::H5, "/scene_info", Value::Null),
        (Product::H5, "/scene_info/payer_client_ip", json!("localhost")),
        (Product::H5, "/scene_info/h5_info", Value::Null),
        (Product::H5, "/scene_info/h5_info/type", json!("Fridge")),
        (Product::Native, "/limit_pay", json!([])),
        (Product::Native, "/limit_pay", json!(["no_cash"])),
        (Product::Native, "/scene_info/store_info", json!("1")),
    ];
    let mut seen = String::new();
    for (product, pointer, value) in rows {
        let body = with(order(), pointer, value);
        let error = refused(parse_order(product, &body).map(drop), pointer);
        seen += &format!("{}\n{}\n\n", error.body(Language::Zh), error.message.en);
    }
    expect_file!["golden/bad_orders.txt"].assert_eq(&seen);
}

#[test]
fn bad_refunds_are_refused_by_field() {
    let rows: Vec<(&str, &str, Value)> = vec![
        ("/transaction_id", "/out_trade_no", Value::Null),
        ("/out_refund_no", "/out_refund_no", Value::Null),
        ("/out_refund_no", "/out_refund_no", json!("R 1")),
        ("/out_refund_no", "/out_refund_no", json!("R".repeat(65))),
        ("/reason", "/reason", json!("退".repeat(27))),
        ("/notify_url", "/notify_url", json!("example.com")),
        ("/funds_account", "/funds_account", json!("MINE")),
        ("/amount/refund", "/amount/refund", json!(0)),
        ("/amount/refund", "/amount/refund", json!(101)),
        ("/amount/total", "/amount/total", Value::Null),
        ("/amount/currency", "/amount/currency", Value::Null),
        ("/amount/from", "/amount/from", json!([{ "account": "AVAILABLE", "amount": 59 }])),
        (
            "/amount/from",
            "/amount/from",
            json!([{ "account": "AVAILABLE", "amount": 30 }, { "account": "AVAILABLE", "amount": 30 }]),
        ),
        ("/amount/from/0/account", "/amount/from", json!([{ "account": "MINE", "amount": 60 }])),
        ("/goods_detail/0/unit_price", "/goods_detail", json!([{ "merchant_goods_id": "1" }])),
    ];
    let mut seen = String::new();
    for (field, pointer, value) in rows {
        let body = with(refund(), pointer, value).to_string();
        let error = refused(CreateRefund::parse(body.as_bytes()).map(drop), field);
        seen += &format!("{}\n{}\n\n", error.body(Language::Zh), error.message.en);
    }
    expect_file!["golden/bad_refunds.txt"].assert_eq(&seen);
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in ["", "{", "[]", "null", "1", "\u{0}", "{\"a\":1}x"] {
        assert_eq!(CreateRefund::parse(body.as_bytes()).unwrap_err().code, "PARAM_ERROR", "{body}");
        let error = CreateTransaction::parse(Product::App, body.as_bytes()).unwrap_err();
        assert_eq!(error.code, "PARAM_ERROR", "{body}");
    }
}

#[test]
fn null_and_emoji_pass_unless_production_is_mimicked() {
    let strict = Reading { refuse_null: true, refuse_four_bytes: true };
    let check = |pointer: &str, body: Value| {
        let text = body.to_string();
        assert!(parse_order(Product::Native, &body).is_ok());
        let result = CreateTransaction::parse_with(Product::Native, text.as_bytes(), strict);
        refused(result.map(drop), pointer);
    };
    let mut null = order();
    null["attach"] = Value::Null;
    check("/attach", null);
    check("/description", with(order(), "/description", json!("🍎")));
    // Lengths count characters, not bytes.
    let longest = with(order(), "/description", json!("长".repeat(127)));
    assert!(parse_order(Product::Native, &longest).is_ok());
}

#[test]
fn same_parameters_are_equal_whatever_the_spelling() {
    let one = parse_order(Product::Native, &order()).unwrap();
    let unknown = with(order(), "/sub_mchid", json!("9"));
    assert_eq!(parse_order(Product::Native, &unknown), Ok(one.clone()));
    let zoned = |text: &str| {
        parse_order(Product::Native, &with(order(), "/time_expire", json!(text))).unwrap()
    };
    assert_eq!(zoned("2018-06-08T10:34:56+08:00"), zoned("2018-06-08T02:34:56Z"));
    let dearer = with(order(), "/amount/total", json!(101));
    assert_ne!(parse_order(Product::Native, &dearer), Ok(one.clone()));
    assert_ne!(parse_order(Product::App, &order()), Ok(one));
}

#[test]
fn an_order_ends_in_one_minute_to_fifteen_days() {
    let now = Timestamp::parse_rfc3339("2026-11-21T12:00:00+08:00").unwrap();
    let check = |text: &str, want: bool| {
        let body = with(order(), "/time_expire", json!(text));
        let it = parse_order(Product::Native, &body).unwrap();
        assert_eq!(it.check_time(now).is_ok(), want, "{text}");
    };
    check("2026-11-21T12:00:59+08:00", false);
    check("2026-11-21T12:01:00+08:00", true);
    check("2026-12-06T12:00:00+08:00", true);
    check("2026-12-06T12:00:01+08:00", false);
    check("2020-01-01T00:00:00+08:00", false);
    let open = parse_order(Product::Native, &order()).unwrap();
    assert_eq!(open.expires(now), now.plus_s(7 * 86_400));
    assert_eq!(open.check_mchid("1900000109"), Ok(()));
    refused(open.check_mchid("1900000108"), "/mchid");
}

#[test]
fn answers_to_create_requests_read_back() {
    let check = |product, it: Prepay| {
        assert_eq!(Prepay::parse(product, it.to_json().as_bytes()), Ok(it));
    };
    check(Product::Jsapi, Prepay::PrepayId("wx1".into()));
    check(Product::App, Prepay::PrepayId("wx1".into()));
    check(Product::Native, Prepay::CodeUrl("weixin://wxpay/bizpayurl?pr=1".into()));
    check(Product::H5, Prepay::H5Url("https://example.com/?prepay_id=1".into()));
    assert!(Prepay::parse(Product::H5, br#"{"prepay_id":"1"}"#).is_err());
}

#[test]
fn words_we_do_not_know_are_told_apart_from_failure() {
    let text = r#"{"mchid":"1","out_trade_no":"T","trade_state":"TELEPORTED"}"#;
    let unknown = WireError::UnknownWord { member: "trade_state", word: "TELEPORTED".into() };
    assert_eq!(Transaction::parse(text.as_bytes()), Err(unknown));
    for state in TradeState::ALL {
        assert_eq!(TradeState::parse(state.word()), Ok(state));
        assert!(!state.description().is_empty());
    }
}

/// Every error constructor without arguments, as answered in both languages.
#[test]
fn error_bodies() {
    let all = [
        ApiError::unknown_path(),
        ApiError::method_not_allowed(),
        ApiError::accept_or_user_agent_missing(),
        ApiError::authorization_malformed("/v3/certificates"),
        ApiError::authorization_malformed("/v3/pay/transactions/native"),
        ApiError::scheme_unknown(),
        ApiError::clock(),
        ApiError::serial_wrong(),
        ApiError::certificate_expired(),
        ApiError::certificate_revoked(),
        ApiError::certificate_replaced(),
        ApiError::certificate_none(),
        ApiError::apiv3_key_unset(),
        ApiError::signature_wrong("GET", "/v3/certificates", b"GET\n/v3/certificates\n1\nn\n\n"),
        ApiError::mchid_mismatch("1", "2"),
        ApiError::body_not_json("EOF at line 1 column 0"),
        ApiError::wechatpay_serial_missing(),
        ApiError::wechatpay_serial_unknown(),
        ApiError::other_parameters(),
        ApiError::appid_mchid_not_match(),
        ApiError::mch_not_exists(),
        ApiError::refund_mch_not_exists(),
        ApiError::order_closed(),
        ApiError::no_auth(),
        ApiError::out_trade_no_used(),
        ApiError::rule_limit(),
        ApiError::trade_error(),
        ApiError::request_blocked(),
        ApiError::account_error(),
        ApiError::not_enough(),
        ApiError::user_account_abnormal(),
        ApiError::order_not_exist(),
        ApiError::resource_not_exists(),
        ApiError::no_platform_certificate(),
        ApiError::not_found(),
        ApiError::no_statement_exist(),
        ApiError::statement_creating(),
        ApiError::frequency_limited(),
        ApiError::trade_overdue(),
        ApiError::system_error(),
        ApiError::service_unavailable(),
    ];
    let mut seen = String::new();
    for it in all {
        let signed = if it.is_signed() { "signed" } else { "unsigned" };
        let (zh, en) = (it.body(Language::Zh), it.body(Language::En));
        seen += &format!("{} {signed} -{}\n{zh}\n{en}\n\n", it.status, it.reason);
    }
    expect_file!["golden/errors.txt"].assert_eq(&seen);
}

fn text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 1..=max.min(20)).prop_map(String::from_iter)
}

fn maybe(max: usize) -> impl Strategy<Value = Option<String>> {
    prop::option::of(text(max))
}

fn second() -> impl Strategy<Value = Timestamp> {
    (0i64..4_000_000_000).prop_map(|it| Timestamp::from_ms(it * 1_000))
}

prop_compose! {
    fn scene(product: Product)(
        ip in any::<std::net::IpAddr>(), device in maybe(32), store in prop::option::of((text(32), maybe(256))),
        h5 in prop::option::of((0usize..3, maybe(64))),
    ) -> SceneInfo {
        let h5 = h5.or((product == Product::H5).then_some((0, None)));
        SceneInfo {
            payer_client_ip: ip.to_string(),
            device_id: device,
            store_info: store.map(|(id, name)| StoreInfo { id, name, area_code: None, address: None }),
            h5_info: h5.map(|(kind, app_name)| H5Info {
                kind: ["iOS", "Android", "Wap"][kind].into(),
                app_name, app_url: None, bundle_id: None, package_name: None,
            }),
        }
    }
}

fn any_order() -> impl Strategy<Value = CreateTransaction> {
    let product = (0usize..4).prop_map(|it| Product::ALL[it]);
    product.prop_flat_map(|product| {
        let texts = (text(32), text(32), text(127), "[0-9A-Za-z_|*-]{6,32}", maybe(128), maybe(32));
        let goods = (text(32), maybe(32), maybe(256), 1i64..99, 0i64..i64::MAX);
        let detail = prop::option::of((maybe(32), prop::collection::vec(goods, 0..3)));
        let flags = (prop::option::of(any::<bool>()), prop::option::of(any::<bool>()));
        let scene = scene(product);
        (
            texts,
            second(),
            1i64..=i64::MAX,
            text(128),
            detail,
            flags,
            prop::option::of(self::scene(product)),
            scene,
        )
            .prop_map(
                move |(texts, expire, total, openid, detail, flags, scene, h5_scene)| {
                    let (appid, mchid, description, out_trade_no, attach, goods_tag) = texts;
                    CreateTransaction {
                        product,
                        appid,
                        mchid,
                        description,
                        out_trade_no,
                        attach,
                        goods_tag,
                        time_expire: flags.0.map(|_| expire),
                        notify_url: "https://example.com/notify".into(),
                        support_fapiao: flags.0,
                        amount: Money::new(total, Currency::Cny),
                        openid: (product == Product::Jsapi).then_some(openid),
                        identity: None,
                        detail: detail.map(|(invoice_id, goods)| OrderDetail {
                            cost_price: None,
                            invoice_id,
                            goods_detail: goods
                                .into_iter()
                                .map(|it| GoodsLine {
                                    merchant_goods_id: it.0,
                                    wechatpay_goods_id: it.1,
                                    goods_name: it.2,
                                    quantity: it.3,
                                    unit_price: it.4,
                                })
                                .collect(),
                        }),
                        scene_info: if product == Product::H5 { Some(h5_scene) } else { scene },
                        profit_sharing: flags.1,
                        limit_pay: if flags.1 == Some(true) {
                            vec!["no_credit".into()]
                        } else {
                            vec![]
                        },
                    }
                },
            )
    })
}

fn refund_goods() -> impl Strategy<Value = Vec<RefundGoods>> {
    let goods = (text(32), maybe(32), maybe(256), 0i64..i64::MAX, 0i64..99, 0i64..99);
    let goods = goods.prop_map(|it| RefundGoods {
        merchant_goods_id: it.0,
        wechatpay_goods_id: it.1,
        goods_name: it.2,
        unit_price: it.3,
        refund_amount: it.4,
        refund_quantity: it.5,
    });
    prop::collection::vec(goods, 0..3)
}

proptest! {
    #[test]
    fn orders_read_back(it in any_order()) {
        prop_assert_eq!(CreateTransaction::parse(it.product, it.to_json().as_bytes()), Ok(it));
    }

    #[test]
    fn refund_requests_read_back(
        ids in (maybe(32), text(32), "[0-9A-Za-z_|*@-]{1,64}"),
        reason in prop::option::of("[a-z]{1,80}"),
        refund in 1i64..1_000_000, more in 0i64..1_000_000,
        goods_detail in refund_goods(),
        split in any::<bool>(),
    ) {
        let from = [("AVAILABLE", refund / 2), ("UNAVAILABLE", refund - refund / 2)];
        let from = from.into_iter().filter(|it| split && it.1 > 0);
        let it = CreateRefund {
            sub_mchid: None,
            transaction_id: ids.0,
            out_trade_no: Some(ids.1),
            out_refund_no: ids.2,
            reason,
            notify_url: Some("http://example.com/refund".into()),
            funds_account: Some("AVAILABLE".into()),
            refund: Money::new(refund, Currency::Cny),
            total: Money::new(refund + more, Currency::Cny),
            from: from.map(|it| FundsFrom { account: it.0.into(), amount: it.1 }).collect(),
            goods_detail,
        };
        prop_assert_eq!(CreateRefund::parse(it.to_json().as_bytes()), Ok(it));
    }

    #[test]
    fn transactions_read_back(
        words in (text(32), text(32), text(32)), options in (maybe(32), maybe(128), maybe(128), maybe(32)),
        state in 0usize..8, at in prop::option::of(second()), total in 1i64..i64::MAX, coupons in 0usize..3,
    ) {
        let goods = PromotionGoods { goods_id: "g".into(), quantity: 1, unit_price: 2, discount_amount: 1, goods_remark: options.0.clone() };
        let promotion = Promotion { coupon_id: "c".into(), kind: Some("CASH".into()), amount: 1, goods: vec![goods], ..Promotion::default() };
        let total = Money::new(total, Currency::Cny);
        let trade_state = TradeState::ALL[state];
        let it = Transaction {
            appid: words.0, mchid: words.1, out_trade_no: words.2,
            transaction_id: options.0, trade_type: at.map(|_| TradeType::Mweb), trade_state,
            trade_state_desc: trade_state.description().into(), bank_type: at.map(|_| "OTHERS".into()),
            attach: options.1, success_time: at, openid: options.2,
            amount: Some(TransactionAmount { total, payer_total: at.map(|_| total) }),
            device_id: options.3, promotions: vec![promotion; coupons],
        };
        prop_assert_eq!(Transaction::parse(it.to_json().as_bytes()), Ok(it));
    }

    #[test]
    fn refunds_and_notices_read_back(
        ids in (text(32), text(64), text(32), text(32)), account in text(64), status in 0usize..4,
        times in (second(), prop::option::of(second())), refund in 1i64..i64::MAX, goods in refund_goods(),
    ) {
        let money = Money::new(refund, Currency::Cny);
        let statuses = [RefundStatus::Processing, RefundStatus::Success, RefundStatus::Closed, RefundStatus::Abnormal];
        let promotion = RefundPromotion {
            promotion_id: "p".into(), scope: "GLOBAL".into(), kind: "CASH".into(), amount: 2,
            refund_amount: 1, goods_detail: goods,
        };
        let it = Refund {
            refund_id: ids.0.clone(), out_refund_no: ids.1.clone(), transaction_id: ids.2.clone(),
            out_trade_no: ids.3.clone(), channel: Some("ORIGINAL".into()),
            user_received_account: Some(account.clone()), success_time: times.1, create_time: times.0,
            status: statuses[status], funds_account: Some("AVAILABLE".into()),
            amount: RefundAmount::cash(money, money), promotions: vec![promotion],
        };
        prop_assert_eq!(Refund::parse(it.to_json().as_bytes()), Ok(it));
        let notice = RefundNotice {
            mchid: "19".into(), out_trade_no: ids.3, transaction_id: ids.2, out_refund_no: ids.1,
            refund_id: ids.0, refund_status: statuses[status], success_time: times.1,
            user_received_account: account, total: refund, refund, payer_total: refund, payer_refund: refund,
        };
        prop_assert_eq!(RefundNotice::parse(notice.to_json().as_bytes()), Ok(notice));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(body in any::<Vec<u8>>()) {
        let _ = CreateRefund::parse(&body);
        let _ = (Transaction::parse(&body), Refund::parse(&body), RefundNotice::parse(&body));
        for product in Product::ALL {
            let _ = (CreateTransaction::parse(product, &body), Prepay::parse(product, &body));
        }
    }

    /// Any JSON in any place of a request is answered, never a panic.
    #[test]
    fn no_value_makes_a_parser_panic(value in any_json(), at in 0usize..12) {
        let pointer = [
            "/amount", "/amount/total", "/amount/currency", "/payer", "/payer/openid", "/detail",
            "/scene_info", "/scene_info/h5_info", "/time_expire", "/limit_pay", "/settle_info", "/out_trade_no",
        ][at];
        let _ = parse_order(Product::H5, &with(order(), pointer, value));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,8}", inner), 0..4)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}
