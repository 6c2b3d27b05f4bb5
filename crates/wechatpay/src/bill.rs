//! Bills: the trade bill (ALL, SUCCESS, REFUND) and the fund-flow bill, text to rows and back.
//!
//! The layout and nothing more: which orders a bill lists and whether it agrees with the books is
//! decided elsewhere. Amounts are minor units with two decimals, as bills print them; service fees
//! have five decimals there and are thousandths of a fen here.

use crate::beijing;
use crate::error::{ApiError, Location, Text};
use crate::query::Query;
use crate::wire_error::{WireError, read};
use kernel::{BusinessDay, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write;

pub const TRADE_PATH: &str = "/v3/bill/tradebill";
pub const FUND_FLOW_PATH: &str = "/v3/bill/fundflowbill";
/// Clients recognise this path and do not verify what it answers.
pub const DOWNLOAD_PATH: &str = "/v3/billdownload/file";

const BOM: char = '\u{FEFF}';

/// Which rows a trade bill lists, and in which columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TradeBillKind {
    #[default]
    All,
    Success,
    Refund,
}

impl TradeBillKind {
    pub fn word(self) -> &'static str {
        match self {
            TradeBillKind::All => "ALL",
            TradeBillKind::Success => "SUCCESS",
            TradeBillKind::Refund => "REFUND",
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            TradeBillKind::All => &ALL,
            TradeBillKind::Success => &SUCCESS,
            TradeBillKind::Refund => &REFUND,
        }
    }

    fn sums(self) -> &'static [Sum] {
        match self {
            TradeBillKind::All | TradeBillKind::Refund => &SUMS,
            TradeBillKind::Success => &SUCCESS_SUMS,
        }
    }
}

/// A payment or a refund. A payment has no [`RefundCells`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradeRow {
    pub time: Timestamp,
    pub appid: String,
    pub mchid: String,
    /// `0` for a direct merchant.
    pub sub_mchid: String,
    pub device: String,
    pub transaction_id: String,
    pub out_trade_no: String,
    pub openid: String,
    /// As bills spell it: `FACE` where the API says `FACEPAY`.
    pub trade_type: String,
    pub state: RowState,
    pub bank: String,
    pub currency: String,
    /// 应结订单金额.
    pub settlement_minor: i64,
    /// 代金券金额.
    pub coupon_minor: i64,
    pub refund: Option<RefundCells>,
    /// 商品名称.
    pub goods: String,
    /// 商户数据包.
    pub attach: String,
    /// Thousandths of a minor unit; negative on refunds.
    pub fee_milli: i64,
    /// `0.60%`
    pub rate: String,
    /// 订单金额.
    pub order_minor: i64,
    pub rate_note: String,
}

/// 交易状态.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    Success,
    Refund,
    Revoked,
}

impl RowState {
    pub fn word(self) -> &'static str {
        match self {
            RowState::Success => "SUCCESS",
            RowState::Refund => "REFUND",
            RowState::Revoked => "REVOKED",
        }
    }

    fn parse(word: &str) -> Option<RowState> {
        [RowState::Success, RowState::Refund, RowState::Revoked]
            .into_iter()
            .find(|it| it.word() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundCells {
    pub refund_id: String,
    pub out_refund_no: String,
    pub refund_minor: i64,
    pub coupon_refund_minor: i64,
    /// `ORIGINAL`, `BALANCE`, …
    pub kind: String,
    /// `SUCCESS`, `PROCESSING`, `FAIL`, `CHANGE`: as it was when the row was written.
    pub status: String,
    /// 申请退款金额.
    pub asked_minor: i64,
    /// Only the REFUND bill shows this.
    pub accepted_at: Option<Timestamp>,
    /// Only the REFUND bill shows this.
    pub succeeded_at: Option<Timestamp>,
}

/// The last line of a trade bill. The SUCCESS bill shows no refunds: they are 0 there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TradeSummary {
    pub count: i64,
    pub settlement_minor: i64,
    pub refund_minor: i64,
    pub coupon_refund_minor: i64,
    pub fee_milli: i64,
    pub order_minor: i64,
    pub asked_minor: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradeBill {
    pub kind: TradeBillKind,
    pub rows: Vec<TradeRow>,
    pub summary: TradeSummary,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BillError {
    #[error("bill is not UTF-8; is it still compressed?")]
    NotText,
    #[error("bill has no header line")]
    Empty,
    #[error("bill lacks column {0}")]
    MissingColumn(&'static str),
    #[error("line {line} of the bill has {found} cells where its header has {want}")]
    Cells { line: usize, found: usize, want: usize },
    #[error("line {line} of the bill, column {column}: {value:?} is not {want}")]
    Cell { line: usize, column: &'static str, value: String, want: &'static str },
    #[error("bill ends without its summary of two lines; it was probably cut off")]
    NoSummary,
    #[error("bill says {stated} rows but has {found}; fetch it again")]
    Count { stated: i64, found: usize },
    #[error("sum of {0} does not fit 64 bits")]
    Overflow(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Time,
    Appid,
    Mchid,
    SubMchid,
    Device,
    TransactionId,
    OutTradeNo,
    Openid,
    TradeType,
    State,
    Bank,
    Currency,
    Settlement,
    Coupon,
    AcceptedAt,
    SucceededAt,
    RefundId,
    OutRefundNo,
    Refund,
    CouponRefund,
    RefundKind,
    RefundStatus,
    Goods,
    Attach,
    Fee,
    Rate,
    Order,
    Asked,
    RateNote,
}

use Column as C;

const ALL: [Column; 27] = [
    C::Time,
    C::Appid,
    C::Mchid,
    C::SubMchid,
    C::Device,
    C::TransactionId,
    C::OutTradeNo,
    C::Openid,
    C::TradeType,
    C::State,
    C::Bank,
    C::Currency,
    C::Settlement,
    C::Coupon,
    C::RefundId,
    C::OutRefundNo,
    C::Refund,
    C::CouponRefund,
    C::RefundKind,
    C::RefundStatus,
    C::Goods,
    C::Attach,
    C::Fee,
    C::Rate,
    C::Order,
    C::Asked,
    C::RateNote,
];

const SUCCESS: [Column; 20] = [
    C::Time,
    C::Appid,
    C::Mchid,
    C::SubMchid,
    C::Device,
    C::TransactionId,
    C::OutTradeNo,
    C::Openid,
    C::TradeType,
    C::State,
    C::Bank,
    C::Currency,
    C::Settlement,
    C::Coupon,
    C::Goods,
    C::Attach,
    C::Fee,
    C::Rate,
    C::Order,
    C::RateNote,
];

const REFUND: [Column; 29] = [
    C::Time,
    C::Appid,
    C::Mchid,
    C::SubMchid,
    C::Device,
    C::TransactionId,
    C::OutTradeNo,
    C::Openid,
    C::TradeType,
    C::State,
    C::Bank,
    C::Currency,
    C::Settlement,
    C::Coupon,
    C::AcceptedAt,
    C::SucceededAt,
    C::RefundId,
    C::OutRefundNo,
    C::Refund,
    C::CouponRefund,
    C::RefundKind,
    C::RefundStatus,
    C::Goods,
    C::Attach,
    C::Fee,
    C::Rate,
    C::Order,
    C::Asked,
    C::RateNote,
];

impl Column {
    fn title(self) -> &'static str {
        match self {
            C::Time => "交易时间",
            C::Appid => "公众账号ID",
            C::Mchid => "商户号",
            C::SubMchid => "特约商户号",
            C::Device => "设备号",
            C::TransactionId => "微信订单号",
            C::OutTradeNo => "商户订单号",
            C::Openid => "用户标识",
            C::TradeType => "交易类型",
            C::State => "交易状态",
            C::Bank => "付款银行",
            C::Currency => "货币种类",
            C::Settlement => "应结订单金额",
            C::Coupon => "代金券金额",
            C::AcceptedAt => "退款申请时间",
            C::SucceededAt => "退款成功时间",
            C::RefundId => "微信退款单号",
            C::OutRefundNo => "商户退款单号",
            C::Refund => "退款金额",
            C::CouponRefund => "充值券退款金额",
            C::RefundKind => "退款类型",
            C::RefundStatus => "退款状态",
            C::Goods => "商品名称",
            C::Attach => "商户数据包",
            C::Fee => "手续费",
            C::Rate => "费率",
            C::Order => "订单金额",
            C::Asked => "申请退款金额",
            C::RateNote => "费率备注",
        }
    }

    /// The cell of this column without its backtick.
    fn write(self, row: &TradeRow) -> String {
        let refund = row.refund.as_ref();
        let refund_row = row.state == RowState::Refund;
        let time = |at: Option<Timestamp>| at.map(beijing::plain).unwrap_or_default();
        let number = |it: Option<&String>| plain(it.map_or("0", String::as_str));
        match self {
            C::Time => beijing::plain(row.time),
            C::Appid => plain(&row.appid),
            C::Mchid => plain(&row.mchid),
            C::SubMchid => plain(&row.sub_mchid),
            C::Device => escape(&row.device, refund_row),
            C::TransactionId => plain(&row.transaction_id),
            C::OutTradeNo => plain(&row.out_trade_no),
            C::Openid => plain(&row.openid),
            C::TradeType => plain(&row.trade_type),
            C::State => row.state.word().to_owned(),
            C::Bank => plain(&row.bank),
            C::Currency => plain(&row.currency),
            C::Settlement => yuan(row.settlement_minor),
            C::Coupon => yuan(row.coupon_minor),
            C::AcceptedAt => time(refund.and_then(|it| it.accepted_at)),
            C::SucceededAt => time(refund.and_then(|it| it.succeeded_at)),
            C::RefundId => number(refund.map(|it| &it.refund_id)),
            C::OutRefundNo => number(refund.map(|it| &it.out_refund_no)),
            C::Refund => yuan(refund.map_or(0, |it| it.refund_minor)),
            C::CouponRefund => yuan(refund.map_or(0, |it| it.coupon_refund_minor)),
            C::RefundKind => plain(refund.map_or("", |it| &it.kind)),
            C::RefundStatus => plain(refund.map_or("", |it| &it.status)),
            C::Goods => escape(&row.goods, refund_row),
            C::Attach => escape(&row.attach, refund_row),
            C::Fee => yuan_of_milli(row.fee_milli),
            C::Rate => plain(&row.rate),
            C::Order => yuan(row.order_minor),
            C::Asked => yuan(refund.map_or(0, |it| it.asked_minor)),
            C::RateNote => plain(&row.rate_note),
        }
    }
}

#[derive(Clone, Copy)]
enum Sum {
    Count,
    Settlement,
    Refund,
    CouponRefund,
    Fee,
    Order,
    Asked,
}

const SUMS: [Sum; 7] =
    [Sum::Count, Sum::Settlement, Sum::Refund, Sum::CouponRefund, Sum::Fee, Sum::Order, Sum::Asked];
const SUCCESS_SUMS: [Sum; 4] = [Sum::Count, Sum::Settlement, Sum::Fee, Sum::Order];

impl Sum {
    fn title(self) -> &'static str {
        match self {
            Sum::Count => "总交易单数",
            Sum::Settlement => "应结订单总金额",
            Sum::Refund => "退款总金额",
            Sum::CouponRefund => "充值券退款总金额",
            Sum::Fee => "手续费总金额",
            Sum::Order => "订单总金额",
            Sum::Asked => "申请退款总金额",
        }
    }

    fn write(self, summary: &TradeSummary) -> String {
        match self {
            Sum::Count => summary.count.to_string(),
            Sum::Settlement => yuan(summary.settlement_minor),
            Sum::Refund => yuan(summary.refund_minor),
            Sum::CouponRefund => yuan(summary.coupon_refund_minor),
            Sum::Fee => yuan_of_milli(summary.fee_milli),
            Sum::Order => yuan(summary.order_minor),
            Sum::Asked => yuan(summary.asked_minor),
        }
    }
}

impl TradeSummary {
    /// Adds rows up.
    pub fn of(rows: &[TradeRow]) -> Result<TradeSummary, BillError> {
        let mut sum = TradeSummary::default();
        for row in rows {
            let refund = row.refund.as_ref();
            let parts: [(&mut i64, i64, Sum); 7] = [
                (&mut sum.count, 1, Sum::Count),
                (&mut sum.settlement_minor, row.settlement_minor, Sum::Settlement),
                (&mut sum.refund_minor, refund.map_or(0, |it| it.refund_minor), Sum::Refund),
                (
                    &mut sum.coupon_refund_minor,
                    refund.map_or(0, |it| it.coupon_refund_minor),
                    Sum::CouponRefund,
                ),
                (&mut sum.fee_milli, row.fee_milli, Sum::Fee),
                (&mut sum.order_minor, row.order_minor, Sum::Order),
                (&mut sum.asked_minor, refund.map_or(0, |it| it.asked_minor), Sum::Asked),
            ];
            for (total, part, what) in parts {
                *total = total.checked_add(part).ok_or(BillError::Overflow(what.title()))?;
            }
        }
        Ok(sum)
    }
}

impl TradeBill {
    /// A bill of these rows with its summary.
    pub fn new(kind: TradeBillKind, rows: Vec<TradeRow>) -> Result<TradeBill, BillError> {
        let summary = TradeSummary::of(&rows)?;
        Ok(TradeBill { kind, rows, summary })
    }

    /// The file: BOM, header, rows, summary; every line ends with CR LF.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(64 + self.rows.len() * 400);
        out.push(BOM);
        let columns = self.kind.columns();
        push_titles(&mut out, columns.iter().map(|it| it.title()));
        for row in &self.rows {
            push_cells(&mut out, columns.iter().map(|it| it.write(row)));
        }
        let sums = self.kind.sums();
        push_titles(&mut out, sums.iter().map(|it| it.title()));
        push_cells(&mut out, sums.iter().map(|it| it.write(&self.summary)));
        out
    }

    /// Reads a file. Columns are found by title, so that a new or moved one does no harm; lines
    /// may end with LF; the BOM may be missing. The number of rows is compared with the summary,
    /// the sums are not: that is reconciliation.
    pub fn parse(file: &[u8]) -> Result<TradeBill, BillError> {
        let table = Table::read(file)?;
        let kind = if table.has(C::AcceptedAt.title()) {
            TradeBillKind::Refund
        } else if table.has(C::RefundId.title()) {
            TradeBillKind::All
        } else {
            TradeBillKind::Success
        };
        let mut at = [usize::MAX; 29];
        for &column in kind.columns() {
            at[column as usize] = table.position(column.title())?;
        }
        let mut rows = Vec::with_capacity(table.rows.len());
        for (line, cells) in &table.rows {
            rows.push(read_row(&Cells { line: *line, cells, at: &at })?);
        }
        let stated = |title, want| table.summary_cell(title, want);
        let money = |title| table.summary_amount(title);
        let count = stated("总交易单数", "a number")?;
        let count =
            count.parse().map_err(|_| table.bad_summary("总交易单数", count, "a number"))?;
        let refunds = kind != TradeBillKind::Success;
        let or_zero = |title| if refunds { money(title) } else { Ok(0) };
        let fee = stated("手续费总金额", "an amount")?;
        let fee = milli(fee).ok_or_else(|| table.bad_summary("手续费总金额", fee, "an amount"))?;
        let summary = TradeSummary {
            count,
            settlement_minor: money("应结订单总金额")?,
            refund_minor: or_zero("退款总金额")?,
            coupon_refund_minor: or_zero("充值券退款总金额")?,
            fee_milli: fee,
            order_minor: money("订单总金额")?,
            asked_minor: or_zero("申请退款总金额")?,
        };
        if usize::try_from(count) != Ok(rows.len()) {
            return Err(BillError::Count { stated: count, found: rows.len() });
        }
        Ok(TradeBill { kind, rows, summary })
    }
}

/// The cells of one row, found by column.
struct Cells<'a> {
    line: usize,
    cells: &'a [&'a str],
    at: &'a [usize; 29],
}

impl<'a> Cells<'a> {
    fn raw(&self, column: Column) -> &'a str {
        self.cells.get(self.at[column as usize]).copied().unwrap_or("")
    }

    fn text(&self, column: Column) -> String {
        self.raw(column).to_owned()
    }

    fn bad(&self, column: Column, want: &'static str) -> BillError {
        let value = self.raw(column).chars().take(64).collect();
        BillError::Cell { line: self.line, column: column.title(), value, want }
    }

    fn amount(&self, column: Column) -> Result<i64, BillError> {
        minor(self.raw(column)).ok_or_else(|| self.bad(column, "an amount with two decimals"))
    }

    fn time(&self, column: Column) -> Result<Option<Timestamp>, BillError> {
        let text = self.raw(column);
        if text.is_empty() {
            return Ok(None);
        }
        let found = beijing::parse_plain(text);
        found.map(Some).ok_or_else(|| self.bad(column, "a time such as 2018-06-08 10:34:56"))
    }
}

fn read_row(cells: &Cells<'_>) -> Result<TradeRow, BillError> {
    let state = RowState::parse(cells.raw(C::State));
    let state = state.ok_or_else(|| cells.bad(C::State, "SUCCESS, REFUND or REVOKED"))?;
    let time = cells.time(C::Time)?;
    let number = cells.raw(C::OutRefundNo);
    let refund = if number.is_empty() || number == "0" {
        None
    } else {
        Some(RefundCells {
            refund_id: cells.text(C::RefundId),
            out_refund_no: cells.text(C::OutRefundNo),
            refund_minor: cells.amount(C::Refund)?,
            coupon_refund_minor: cells.amount(C::CouponRefund)?,
            kind: cells.text(C::RefundKind),
            status: cells.text(C::RefundStatus),
            asked_minor: cells.amount(C::Asked)?,
            accepted_at: cells.time(C::AcceptedAt)?,
            succeeded_at: cells.time(C::SucceededAt)?,
        })
    };
    let fee = milli(cells.raw(C::Fee));
    Ok(TradeRow {
        time: time.ok_or_else(|| cells.bad(C::Time, "a time such as 2018-06-08 10:34:56"))?,
        appid: cells.text(C::Appid),
        mchid: cells.text(C::Mchid),
        sub_mchid: cells.text(C::SubMchid),
        device: unescape(cells.raw(C::Device)),
        transaction_id: cells.text(C::TransactionId),
        out_trade_no: cells.text(C::OutTradeNo),
        openid: cells.text(C::Openid),
        trade_type: cells.text(C::TradeType),
        state,
        bank: cells.text(C::Bank),
        currency: cells.text(C::Currency),
        settlement_minor: cells.amount(C::Settlement)?,
        coupon_minor: cells.amount(C::Coupon)?,
        refund,
        goods: unescape(cells.raw(C::Goods)),
        attach: unescape(cells.raw(C::Attach)),
        fee_milli: fee.ok_or_else(|| cells.bad(C::Fee, "an amount"))?,
        rate: cells.text(C::Rate),
        order_minor: cells.amount(C::Order)?,
        rate_note: cells.text(C::RateNote),
    })
}

/// A file cut into cells, still text.
struct Table<'a> {
    titles: Vec<&'a str>,
    /// With the number of the line in the file.
    rows: Vec<(usize, Vec<&'a str>)>,
    summary_titles: Vec<&'a str>,
    summary: (usize, Vec<&'a str>),
}

impl<'a> Table<'a> {
    fn read(file: &'a [u8]) -> Result<Table<'a>, BillError> {
        let text = std::str::from_utf8(file).map_err(|_| BillError::NotText)?;
        let text = text.strip_prefix(BOM).unwrap_or(text);
        let lines: Vec<(usize, &str)> = text
            .split('\n')
            .map(|it| it.strip_suffix('\r').unwrap_or(it))
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|it| !it.1.is_empty())
            .collect();
        let Some((&(_, head), body)) = lines.split_first() else { return Err(BillError::Empty) };
        let Some((&(line, sums), body)) = body.split_last() else {
            return Err(BillError::NoSummary);
        };
        let Some((&(_, sum_titles), body)) = body.split_last() else {
            return Err(BillError::NoSummary);
        };
        if sum_titles.starts_with('`') || !sums.starts_with('`') {
            return Err(BillError::NoSummary);
        }
        let titles: Vec<&str> = head.split(',').map(str::trim).collect();
        let mut rows = Vec::with_capacity(body.len());
        for &(line, text) in body {
            let cells = cells(text);
            if cells.len() != titles.len() {
                let (found, want) = (cells.len(), titles.len());
                return Err(BillError::Cells { line, found, want });
            }
            rows.push((line, cells));
        }
        let summary_titles = sum_titles.split(',').map(str::trim).collect();
        Ok(Table { titles, rows, summary_titles, summary: (line, cells(sums)) })
    }

    fn has(&self, title: &str) -> bool {
        self.titles.contains(&title)
    }

    fn position(&self, title: &'static str) -> Result<usize, BillError> {
        let found = self.titles.iter().position(|&it| it == title);
        found.ok_or(BillError::MissingColumn(title))
    }

    fn summary_cell(&self, title: &'static str, want: &'static str) -> Result<&'a str, BillError> {
        let at = self.summary_titles.iter().position(|&it| it == title);
        let at = at.ok_or(BillError::MissingColumn(title))?;
        let found = self.summary.1.get(at).copied();
        found.ok_or_else(|| self.bad_summary(title, "", want))
    }

    fn summary_amount(&self, title: &'static str) -> Result<i64, BillError> {
        let want = "an amount with two decimals";
        let text = self.summary_cell(title, want)?;
        minor(text).ok_or_else(|| self.bad_summary(title, text, want))
    }

    fn bad_summary(&self, column: &'static str, value: &str, want: &'static str) -> BillError {
        let value = value.chars().take(64).collect();
        BillError::Cell { line: self.summary.0, column, value, want }
    }
}

/// Cuts a data line before each backtick that follows a comma: a cell may hold a comma, and some
/// do though they should not.
fn cells(line: &str) -> Vec<&str> {
    line.strip_prefix('`').unwrap_or(line).split(",`").collect()
}

fn push_titles<'a>(out: &mut String, titles: impl Iterator<Item = &'a str>) {
    for (index, title) in titles.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(title);
    }
    out.push_str("\r\n");
}

fn push_cells(out: &mut String, cells: impl Iterator<Item = String>) {
    for (index, cell) in cells.enumerate() {
        out.push_str(if index > 0 { ",`" } else { "`" });
        out.push_str(&cell);
    }
    out.push_str("\r\n");
}

/// A cell that has no escapes of its own: what would break the table becomes a blank.
fn plain(text: &str) -> String {
    text.replace(['\r', '\n'], " ").replace(",`", ", ")
}

/// Escapes of goods, attached data and device.
fn escape(text: &str, refund_row: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '\\' => out.push_str("\\\\"),
            '\'' if !refund_row => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '`' if refund_row => out.push_str("\\140"),
            '`' => out.push_str("\\`"),
            ',' | '\u{E000}' => out.push_str("\\ "),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{1A}' => out.push_str("\\SUB"),
            other => out.push(other),
        }
    }
    out
}

/// Undoes [`escape`], but for U+E000: its escape is that of the comma. What is no escape stays.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let escapes = [
            ("\\", '\\'),
            ("'", '\''),
            ("\"", '"'),
            ("`", '`'),
            ("140", '`'),
            ("n", '\n'),
            ("r", '\r'),
            ("t", '\t'),
            ("SUB", '\u{1A}'),
            (" ", ','),
        ];
        match escapes.iter().find(|it| rest.starts_with(it.0)) {
            Some((escape, it)) => {
                out.push(*it);
                rest = &rest[escape.len()..];
            }
            None => out.push('\\'),
        }
    }
    out.push_str(rest);
    out
}

/// `12.30`, `-0.05`
fn yuan(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let size = minor.unsigned_abs();
    format!("{sign}{}.{:02}", size / 100, size % 100)
}

/// `0.01000`, `-0.00600`
fn yuan_of_milli(milli: i64) -> String {
    let sign = if milli < 0 { "-" } else { "" };
    let size = milli.unsigned_abs();
    format!("{sign}{}.{:05}", size / 100_000, size % 100_000)
}

/// Yuan with up to five decimals, in thousandths of a fen.
fn milli(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || whole.len() > 18 || decimals.len() > 5 {
        return None;
    }
    let scaled = format!("{whole}{decimals:0<5}");
    let value: i128 = scaled.parse().ok()?;
    i64::try_from(sign * value).ok()
}

/// Yuan with at most two decimals that count, in fen.
fn minor(text: &str) -> Option<i64> {
    // Two decimals reach further than five do: count in wide numbers, and only then narrow.
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
    let (two, zeros) = decimals.split_at_checked(2).unwrap_or((decimals, ""));
    if !plain(whole) || !plain(decimals) || whole.len() > 20 || zeros.bytes().any(|it| it != b'0') {
        return None;
    }
    let value: i128 = format!("{whole}{two:0<2}").parse().ok()?;
    i64::try_from(sign * value).ok()
}

/// A movement on the merchant's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundRow {
    pub time: Timestamp,
    /// 微信支付业务单号.
    pub business_id: String,
    /// 资金流水单号.
    pub flow_id: String,
    /// 业务名称: `交易`, `退款`, `扣除交易手续费`, …
    pub name: String,
    pub kind: String,
    pub direction: Direction,
    pub amount_minor: i64,
    pub balance_minor: i64,
    pub applicant: String,
    pub note: String,
    /// 业务凭证号.
    pub voucher: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

impl Direction {
    pub fn word(self) -> &'static str {
        match self {
            Direction::In => "收入",
            Direction::Out => "支出",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FundSummary {
    pub count: i64,
    pub in_count: i64,
    pub in_minor: i64,
    pub out_count: i64,
    pub out_minor: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundBill {
    pub rows: Vec<FundRow>,
    pub summary: FundSummary,
}

const FUND_TITLES: [&str; 11] = [
    "记账时间",
    "微信支付业务单号",
    "资金流水单号",
    "业务名称",
    "业务类型",
    "收支类型",
    "收支金额(元)",
    "账户结余(元)",
    "资金变更提交申请人",
    "备注",
    "业务凭证号",
];
const FUND_SUMS: [&str; 5] = ["资金流水总笔数", "收入笔数", "收入金额", "支出笔数", "支出金额"];

impl FundBill {
    pub fn new(rows: Vec<FundRow>) -> Result<FundBill, BillError> {
        let mut summary = FundSummary::default();
        for row in &rows {
            summary.count += 1;
            let (count, total, title) = match row.direction {
                Direction::In => (&mut summary.in_count, &mut summary.in_minor, FUND_SUMS[2]),
                Direction::Out => (&mut summary.out_count, &mut summary.out_minor, FUND_SUMS[4]),
            };
            *count += 1;
            *total = total.checked_add(row.amount_minor).ok_or(BillError::Overflow(title))?;
        }
        Ok(FundBill { rows, summary })
    }

    /// The file: BOM, header, rows, summary; every line ends with CR LF.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(64 + self.rows.len() * 250);
        out.push(BOM);
        push_titles(&mut out, FUND_TITLES.into_iter());
        for row in &self.rows {
            let cells = [
                beijing::plain(row.time),
                plain(&row.business_id),
                plain(&row.flow_id),
                plain(&row.name),
                plain(&row.kind),
                row.direction.word().to_owned(),
                yuan(row.amount_minor),
                yuan(row.balance_minor),
                fund_text(&row.applicant),
                fund_text(&row.note),
                plain(&row.voucher),
            ];
            push_cells(&mut out, cells.into_iter());
        }
        push_titles(&mut out, FUND_SUMS.into_iter());
        let sum = &self.summary;
        let cells = [
            sum.count.to_string(),
            sum.in_count.to_string(),
            yuan(sum.in_minor),
            sum.out_count.to_string(),
            yuan(sum.out_minor),
        ];
        push_cells(&mut out, cells.into_iter());
        out
    }

    /// Reads a file; as lenient as [`TradeBill::parse`]. Brackets in titles may be full-width.
    pub fn parse(file: &[u8]) -> Result<FundBill, BillError> {
        let table = Table::read(file)?;
        let mut at = [0; 11];
        for (slot, title) in at.iter_mut().zip(FUND_TITLES) {
            let wide = title.replace('(', "（").replace(')', "）");
            let found = table.titles.iter().position(|&it| it == title || it == wide);
            *slot = found.ok_or(BillError::MissingColumn(title))?;
        }
        let mut rows = Vec::with_capacity(table.rows.len());
        for (line, cells) in &table.rows {
            let cell = |index: usize| cells.get(at[index]).copied().unwrap_or("");
            let bad = |index: usize, want| BillError::Cell {
                line: *line,
                column: FUND_TITLES[index],
                value: cell(index).chars().take(64).collect(),
                want,
            };
            let amount = |index: usize| {
                minor(cell(index)).ok_or_else(|| bad(index, "an amount with two decimals"))
            };
            let time = beijing::parse_plain(cell(0));
            let direction = [Direction::In, Direction::Out].into_iter();
            let direction = direction.into_iter().find(|it| it.word() == cell(5));
            rows.push(FundRow {
                time: time.ok_or_else(|| bad(0, "a time such as 2018-06-08 10:34:56"))?,
                business_id: cell(1).to_owned(),
                flow_id: cell(2).to_owned(),
                name: cell(3).to_owned(),
                kind: cell(4).to_owned(),
                direction: direction.ok_or_else(|| bad(5, "收入 or 支出"))?,
                amount_minor: amount(6)?,
                balance_minor: amount(7)?,
                applicant: fund_text_back(cell(8)),
                note: fund_text_back(cell(9)),
                voucher: cell(10).to_owned(),
            });
        }
        let number = |title| {
            let text = table.summary_cell(title, "a number")?;
            text.parse().map_err(|_| table.bad_summary(title, text, "a number"))
        };
        let summary = FundSummary {
            count: number(FUND_SUMS[0])?,
            in_count: number(FUND_SUMS[1])?,
            in_minor: table.summary_amount(FUND_SUMS[2])?,
            out_count: number(FUND_SUMS[3])?,
            out_minor: table.summary_amount(FUND_SUMS[4])?,
        };
        if usize::try_from(summary.count) != Ok(rows.len()) {
            return Err(BillError::Count { stated: summary.count, found: rows.len() });
        }
        Ok(FundBill { rows, summary })
    }
}

/// Escapes of the fund-flow bill: fewer than the trade bill's, and a backslash is not one.
fn fund_text(text: &str) -> String {
    let text = text.replace('\n', "\\n").replace('\r', "\\r").replace('\u{1}', " ");
    text.replace(",`", ", ")
}

fn fund_text_back(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\r", "\r")
}

/// The answer to a request for a bill: where to fetch it, and its hash when uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillLink {
    /// `SHA1`
    pub hash_type: String,
    /// Lower-case hex.
    pub hash_value: String,
    pub download_url: String,
}

#[derive(Deserialize)]
struct RawLink {
    hash_type: String,
    hash_value: String,
    download_url: String,
}

impl BillLink {
    pub fn to_json(&self) -> String {
        json!({
            "hash_type": self.hash_type,
            "hash_value": self.hash_value,
            "download_url": self.download_url,
        })
        .to_string()
    }

    pub fn parse(body: &[u8]) -> Result<BillLink, WireError> {
        let raw: RawLink = read("a link to a bill", body)?;
        if raw.hash_type != "SHA1" {
            return Err(WireError::unknown("hash_type", &raw.hash_type));
        }
        let RawLink { hash_type, hash_value, download_url } = raw;
        Ok(BillLink { hash_type, hash_value, download_url })
    }
}

/// What is asked of `/v3/bill/tradebill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeBillRequest {
    pub day: BusinessDay,
    pub kind: TradeBillKind,
    pub gzip: bool,
}

impl TradeBillRequest {
    pub fn parse(query: &Query) -> Result<TradeBillRequest, ApiError> {
        let day = read_day(query)?;
        let kinds = [TradeBillKind::All, TradeBillKind::Success, TradeBillKind::Refund];
        let word = query.get("bill_type").unwrap_or("ALL");
        let kind = kinds.into_iter().find(|it| it.word() == word);
        let kind = kind.ok_or_else(|| bad_word("bill_type", word, "ALL, SUCCESS, REFUND"))?;
        Ok(TradeBillRequest { day, kind, gzip: read_gzip(query)? })
    }

    pub fn path_and_query(&self) -> String {
        let mut out = format!("{TRADE_PATH}?bill_date={}&bill_type={}", self.day, self.kind.word());
        if self.gzip {
            out.push_str("&tar_type=GZIP");
        }
        out
    }
}

/// What is asked of `/v3/bill/fundflowbill`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundBillRequest {
    pub day: BusinessDay,
    /// `BASIC`, `OPERATION` or `FEES`.
    pub account: String,
    pub gzip: bool,
}

impl FundBillRequest {
    pub fn parse(query: &Query) -> Result<FundBillRequest, ApiError> {
        let day = read_day(query)?;
        let account = query.get("account_type").unwrap_or("BASIC");
        if !["BASIC", "OPERATION", "FEES"].contains(&account) {
            return Err(bad_word("account_type", account, "BASIC, OPERATION, FEES"));
        }
        Ok(FundBillRequest { day, account: account.to_owned(), gzip: read_gzip(query)? })
    }

    pub fn path_and_query(&self) -> String {
        let mut out = String::new();
        write!(out, "{FUND_FLOW_PATH}?bill_date={}&account_type={}", self.day, self.account)
            .expect("writing to a string cannot fail");
        if self.gzip {
            out.push_str("&tar_type=GZIP");
        }
        out
    }
}

fn read_day(query: &Query) -> Result<BusinessDay, ApiError> {
    let refuse = |value: Option<&str>, zh: &'static str, en: &'static str| {
        ApiError::param(Location::Query, "bill_date", value.map(Value::from), Text::new(zh, en))
    };
    let Some(text) = query.get("bill_date") else {
        let zh = "查询参数bill_date为必填项，格式YYYY-MM-DD";
        return Err(refuse(None, zh, "bill_date is required, as YYYY-MM-DD"));
    };
    BusinessDay::parse(text).map_err(|_| {
        let zh = "查询参数bill_date格式错误，应为YYYY-MM-DD";
        refuse(Some(text), zh, "bill_date must be a date, as YYYY-MM-DD")
    })
}

fn read_gzip(query: &Query) -> Result<bool, ApiError> {
    match query.get("tar_type") {
        None => Ok(false),
        Some("GZIP") => Ok(true),
        Some(other) => Err(bad_word("tar_type", other, "GZIP")),
    }
}

fn bad_word(name: &'static str, value: &str, list: &str) -> ApiError {
    let shown: String = value.chars().take(128).collect();
    let issue = Text::new(
        format!("查询参数{name}不在取值范围内：{list}"),
        format!("{name} must be one of: {list}"),
    );
    ApiError::param(Location::Query, name, Some(Value::from(shown)), issue)
}
