//! Bills: golden files of each kind, what is refused, and that parsing undoes rendering.

use expect_test::expect_file;
use kernel::Timestamp;
use proptest::prelude::*;
use wechatpay::bill::{
    BillError, BillLink, Direction, FundBill, FundBillRequest, FundRow, RefundCells, RowState,
    TradeBill, TradeBillKind, TradeBillRequest, TradeRow,
};
use wechatpay::query::Query;

fn noon() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-21T12:00:00+08:00").unwrap()
}

fn payment() -> TradeRow {
    TradeRow {
        time: noon(),
        appid: "wx2421b1c4370ec43b".into(),
        mchid: "1900000109".into(),
        sub_mchid: "0".into(),
        device: String::new(),
        transaction_id: "4200000000202611210000000001".into(),
        out_trade_no: "T20261121001".into(),
        openid: "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".into(),
        trade_type: "NATIVE".into(),
        state: RowState::Success,
        bank: "OTHERS".into(),
        currency: "CNY".into(),
        settlement_minor: 1_000,
        coupon_minor: 0,
        refund: None,
        goods: "苹果, \"红\" 'A' `5` \\ 斤\n".into(),
        attach: "a=1\t,b=2".into(),
        fee_milli: 6_000,
        rate: "0.60%".into(),
        order_minor: 1_000,
        rate_note: String::new(),
    }
}

fn refund(dated: bool) -> TradeRow {
    TradeRow {
        time: noon().plus_s(60),
        state: RowState::Refund,
        settlement_minor: 0,
        order_minor: 0,
        fee_milli: -1_800,
        refund: Some(RefundCells {
            refund_id: "50300000002026112100000000001".into(),
            out_refund_no: "R20261121001".into(),
            refund_minor: 300,
            coupon_refund_minor: 0,
            kind: "ORIGINAL".into(),
            status: "PROCESSING".into(),
            asked_minor: 300,
            accepted_at: dated.then(|| noon().plus_s(60)),
            succeeded_at: None,
        }),
        ..payment()
    }
}

fn flow(direction: Direction, amount_minor: i64, balance_minor: i64) -> FundRow {
    FundRow {
        time: noon(),
        business_id: "4200000000202611210000000001".into(),
        flow_id: "1900000109202611210001".into(),
        name: "交易".into(),
        kind: "交易".into(),
        direction,
        amount_minor,
        balance_minor,
        applicant: "system".into(),
        note: "第一行\n第二行, 完".into(),
        voucher: "V1".into(),
    }
}

/// The file with its invisible characters made visible.
fn shown(file: &str) -> String {
    file.replace('\u{FEFF}', "<BOM>").replace("\r\n", "<CR>\n")
}

#[test]
fn each_kind_of_bill() {
    let all = TradeBill::new(TradeBillKind::All, vec![payment(), refund(false)]).unwrap();
    expect_file!["golden/trade_all.txt"].assert_eq(&shown(&all.render()));
    let success = TradeBill::new(TradeBillKind::Success, vec![payment()]).unwrap();
    expect_file!["golden/trade_success.txt"].assert_eq(&shown(&success.render()));
    let refunds = TradeBill::new(TradeBillKind::Refund, vec![refund(true)]).unwrap();
    expect_file!["golden/trade_refund.txt"].assert_eq(&shown(&refunds.render()));
    for bill in [all, success, refunds] {
        assert_eq!(TradeBill::parse(bill.render().as_bytes()), Ok(bill));
    }
    let rows = vec![flow(Direction::In, 1_000, 1_000), flow(Direction::Out, 6, 994)];
    let funds = FundBill::new(rows).unwrap();
    expect_file!["golden/fund_flow.txt"].assert_eq(&shown(&funds.render()));
    assert_eq!(FundBill::parse(funds.render().as_bytes()), Ok(funds));
}

#[test]
fn spellings_that_production_was_seen_with_are_read() {
    let bill = TradeBill::new(TradeBillKind::All, vec![payment(), refund(false)]).unwrap();
    let file = bill.render();
    let check = |file: String| assert_eq!(TradeBill::parse(file.as_bytes()), Ok(bill.clone()));
    check(file.replace("\r\n", "\n"));
    check(file.replace('\u{FEFF}', ""));
    check(file.replace("`0.06000,", "`0.06,"));
    check(file.trim_end().to_owned());
    let funds = FundBill::new(vec![flow(Direction::In, 1, 1)]).unwrap();
    let wide = funds.render().replace("(元)", "（元）");
    assert_eq!(FundBill::parse(wide.as_bytes()), Ok(funds));
}

#[test]
fn broken_bills_are_refused_by_what_is_wrong() {
    let file = TradeBill::new(TradeBillKind::All, vec![payment(), refund(false)]).unwrap().render();
    let check = |file: &[u8], want: BillError| assert_eq!(TradeBill::parse(file), Err(want));
    check(b"", BillError::Empty);
    check(&[0x1f, 0x8b, 0xff], BillError::NotText);
    check("交易时间\n".as_bytes(), BillError::NoSummary);
    let lines: Vec<&str> = file.lines().collect();
    check(lines[..3].join("\n").as_bytes(), BillError::NoSummary);
    let one_less = [lines[0], lines[1], lines[3], lines[4]].join("\n");
    check(one_less.as_bytes(), BillError::Count { stated: 2, found: 1 });
    let short = file.replacen(",`0.60%", "", 1);
    check(short.as_bytes(), BillError::Cells { line: 2, found: 26, want: 27 });
    check(file.replace("费率,", "率,").as_bytes(), BillError::MissingColumn("费率"));
    let cell = |from: &str, to: &str, line, column, value: &str, want| {
        let value = value.into();
        let want = BillError::Cell { line, column, value, want };
        check(file.replacen(from, to, 1).as_bytes(), want);
    };
    let amount = "an amount with two decimals";
    cell("`10.00", "`10.001", 2, "应结订单金额", "10.001", amount);
    cell("`10.00", "`1e1", 2, "应结订单金额", "1e1", amount);
    cell("`10.00", "`", 2, "应结订单金额", "", amount);
    cell("`SUCCESS", "`PENDING", 2, "交易状态", "PENDING", "SUCCESS, REFUND or REVOKED");
    let time = "a time such as 2018-06-08 10:34:56";
    cell("`2026-11-21 12:01:00", "`soon", 3, "交易时间", "soon", time);
}

#[test]
fn requests_for_bills_read_back_and_bad_ones_are_refused() {
    let trade = |query: &str| TradeBillRequest::parse(&Query::parse(query));
    let it = trade("bill_date=2026-11-20&bill_type=REFUND&tar_type=GZIP").unwrap();
    assert_eq!(TradeBillRequest::parse(&Query::of_target(&it.path_and_query())), Ok(it));
    assert_eq!(trade("bill_date=2026-11-20").unwrap().kind, TradeBillKind::All);
    for bad in [
        "",
        "bill_date=20261120",
        "bill_date=2026-11-20&bill_type=X",
        "bill_date=2026-11-20&tar_type=ZIP",
    ] {
        assert_eq!(trade(bad).unwrap_err().code, "PARAM_ERROR", "{bad}");
    }
    let fund = |query: &str| FundBillRequest::parse(&Query::parse(query));
    let it = fund("bill_date=2026-11-20&account_type=FEES").unwrap();
    assert_eq!(FundBillRequest::parse(&Query::of_target(&it.path_and_query())), Ok(it));
    assert!(fund("bill_date=2026-11-20&account_type=MINE").is_err());
}

#[test]
fn a_link_reads_back() {
    let link = BillLink {
        hash_type: "SHA1".into(),
        hash_value: "79bb0f45fc4c42234a918000b2668d689e2bde04".into(),
        download_url: "https://api.mch.weixin.qq.com/v3/billdownload/file?token=1".into(),
    };
    assert_eq!(BillLink::parse(link.to_json().as_bytes()), Ok(link));
    assert!(BillLink::parse(br#"{"hash_type":"MD5","hash_value":"","download_url":""}"#).is_err());
}

/// Any text but U+E000, whose escape is that of the comma.
fn free_text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        '\\', '\'', '"', '`', ',', '\n', '\r', '\t', '\u{1A}', ' ', '1', '4', '0', 'n', 'S', 'U',
        'B',
    ]);
    let any = any::<char>().prop_filter("U+E000", |it| *it != '\u{E000}');
    prop::collection::vec(prop_oneof![odd, any], 0..30).prop_map(String::from_iter)
}

fn id() -> impl Strategy<Value = String> {
    "[0-9A-Za-z_|*@-]{1,28}"
}

fn amount() -> impl Strategy<Value = i64> {
    -1_000_000_000_000i64..1_000_000_000_000
}

prop_compose! {
    fn any_row(kind: TradeBillKind)(
        times in (0i64..4_000_000_000, 0i64..4_000_000_000),
        ids in (id(), id(), id(), id(), id()),
        texts in (free_text(), free_text(), free_text()),
        amounts in (amount(), amount(), amount(), amount(), amount(), amount()),
        wants_refund in any::<bool>(),
    ) -> TradeRow {
        let at = |s: i64| Timestamp::from_ms(s * 1_000);
        let dated = kind == TradeBillKind::Refund;
        let refund = wants_refund && kind != TradeBillKind::Success;
        TradeRow {
            time: at(times.0),
            transaction_id: ids.0, out_trade_no: ids.1, openid: ids.2,
            device: texts.0, goods: texts.1, attach: texts.2,
            state: if refund { RowState::Refund } else { RowState::Success },
            settlement_minor: amounts.0, coupon_minor: amounts.1, fee_milli: amounts.2, order_minor: amounts.3,
            refund: refund.then(|| RefundCells {
                refund_id: ids.3, out_refund_no: format!("R{}", ids.4), refund_minor: amounts.4,
                coupon_refund_minor: 0, kind: "ORIGINAL".into(), status: "SUCCESS".into(),
                asked_minor: amounts.5,
                accepted_at: dated.then(|| at(times.1)), succeeded_at: None,
            }),
            ..payment()
        }
    }
}

fn any_bill() -> impl Strategy<Value = TradeBill> {
    let kinds = vec![TradeBillKind::All, TradeBillKind::Success, TradeBillKind::Refund];
    prop::sample::select(kinds).prop_flat_map(|kind| {
        prop::collection::vec(any_row(kind), 0..6)
            .prop_map(move |rows| TradeBill::new(kind, rows).unwrap())
    })
}

proptest! {
    #[test]
    fn trade_bills_read_back(bill in any_bill()) {
        prop_assert_eq!(TradeBill::parse(bill.render().as_bytes()), Ok(bill));
    }

    #[test]
    fn fund_bills_read_back(
        rows in prop::collection::vec((any::<bool>(), amount(), amount(), "[^\\\\\u{1}`]{0,20}"), 0..6),
    ) {
        let rows = rows.into_iter().map(|(gain, amount, balance, note)| {
            let direction = if gain { Direction::In } else { Direction::Out };
            FundRow { note, ..flow(direction, amount, balance) }
        });
        let bill = FundBill::new(rows.collect()).unwrap();
        prop_assert_eq!(FundBill::parse(bill.render().as_bytes()), Ok(bill));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(file in any::<Vec<u8>>()) {
        let _ = (TradeBill::parse(&file), FundBill::parse(&file), BillLink::parse(&file));
    }

    /// A good bill with one changed character is read or refused, never a panic.
    #[test]
    fn no_typo_makes_a_parser_panic(bill in any_bill(), at in any::<prop::sample::Index>(), by in any::<char>()) {
        let mut text: Vec<char> = bill.render().chars().collect();
        let at = at.index(text.len());
        text[at] = by;
        let _ = TradeBill::parse(String::from_iter(text).as_bytes());
    }
}
