//! What is read, and small changes that are no commit: portable statements with their values, and
//! how a row becomes a domain value. Engines only run them.

use crate::rows::{self, MerchantRow, NotificationRow, StoredPayment, StoredRefund, Word};
use app::{
    Backlog, Intent, IntentKind, JournalRow, Merchant, Node, Notification, NotificationState,
    StoreError, Try, Versioned,
};
use kernel::{MerchantId, Money, Serial, Timestamp};
use ledger::{Account, Balance, Event, Owner, Posting};
use payments::{Payment, Refund};

type Reply<T> = Result<T, StoreError>;

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Int(i64),
    NoText,
}

/// One row of an answer, by position.
pub(crate) trait Columns {
    fn text(&self, index: usize) -> Reply<String>;
    fn maybe_text(&self, index: usize) -> Reply<Option<String>>;
    fn int(&self, index: usize) -> Reply<i64>;
    fn maybe_int(&self, index: usize) -> Reply<Option<i64>>;
}

/// A statement in the portable dialect: `?1` for values, `{now_ms}` for the store's own clock,
/// `{skip_locked}` where rows that another process works on are passed over.
pub struct Query<T> {
    pub(crate) sql: &'static str,
    pub(crate) values: Vec<Value>,
    pub(crate) read: fn(&dyn Columns) -> Reply<T>,
    /// May return very many rows: not to be run where short reads wait.
    pub(crate) long: bool,
}

fn query<T>(
    sql: &'static str,
    values: impl Into<Vec<Value>>,
    read: fn(&dyn Columns) -> Reply<T>,
) -> Query<T> {
    Query { sql, values: values.into(), read, long: false }
}

impl<T> Query<T> {
    fn long(self) -> Query<T> {
        Query { long: true, ..self }
    }
}

fn text(it: &str) -> Value {
    Value::Text(it.into())
}

fn maybe(it: Option<&str>) -> Value {
    it.map_or(Value::NoText, text)
}

fn at(it: Timestamp) -> Value {
    Value::Int(it.ms())
}

fn most(limit: u32) -> Value {
    Value::Int(limit.into())
}

fn bad(what: impl std::fmt::Display) -> StoreError {
    StoreError(format!("a row cannot be read: {what}"))
}

/// A number that a row keeps as an integer.
fn small<T: TryFrom<i64>>(it: i64) -> Reply<T> {
    T::try_from(it).map_err(|_| bad(format!("{it} is out of range")))
}

pub(crate) fn merchant(id: &MerchantId) -> Query<Versioned<Merchant>> {
    query("SELECT id, version, body FROM merchant WHERE id = ?1", [text(id.as_str())], |row| {
        let value = MerchantRow::read(&row.text(0)?, &row.text(2)?)?;
        Ok(Versioned { value, version: small(row.int(1)?)? })
    })
}

pub(crate) fn merchants() -> Query<Merchant> {
    query("SELECT id, body FROM merchant ORDER BY id", [], |row| {
        MerchantRow::read(&row.text(0)?, &row.text(1)?)
    })
}

macro_rules! payments {
    ($rest:literal) => {
        concat!(
            "SELECT merchant, serial, order_no, state, amount_minor, currency, created_ms, body, \
             version FROM payment WHERE ",
            $rest
        )
    };
}

fn read_payment(row: &dyn Columns) -> Reply<Versioned<Payment>> {
    let stored = StoredPayment {
        merchant: row.text(0)?,
        serial: row.text(1)?,
        order_no: row.text(2)?,
        state: row.text(3)?,
        amount_minor: row.int(4)?,
        currency: row.text(5)?,
        created_ms: row.int(6)?,
        body: row.text(7)?,
    };
    Ok(Versioned { value: stored.read()?, version: small(row.int(8)?)? })
}

fn read_payment_only(row: &dyn Columns) -> Reply<Payment> {
    Ok(read_payment(row)?.value)
}

pub(crate) fn payment(merchant: &MerchantId, serial: Serial) -> Query<Versioned<Payment>> {
    let key = [text(merchant.as_str()), text(serial.as_str())];
    query(payments!("merchant = ?1 AND serial = ?2"), key, read_payment)
}

pub(crate) fn payment_by_order(merchant: &MerchantId, order: &str) -> Query<Versioned<Payment>> {
    let key = [text(merchant.as_str()), text(order)];
    query(payments!("merchant = ?1 AND order_no = ?2"), key, read_payment)
}

pub(crate) fn payments_after(after: Option<(MerchantId, Serial)>, limit: u32) -> Query<Payment> {
    let (merchant, serial) = match &after {
        Some((merchant, serial)) => (merchant.as_str(), serial.as_str()),
        None => ("", ""),
    };
    let sql = payments!("(merchant, serial) > (?1, ?2) ORDER BY merchant, serial LIMIT ?3");
    query(sql, [text(merchant), text(serial), most(limit)], read_payment_only).long()
}

pub(crate) fn paid_between(
    merchant: &MerchantId,
    from: Timestamp,
    until: Timestamp,
) -> Query<Payment> {
    let sql =
        payments!("merchant = ?1 AND paid_ms >= ?2 AND paid_ms < ?3 ORDER BY paid_ms, serial");
    query(sql, [text(merchant.as_str()), at(from), at(until)], read_payment_only).long()
}

macro_rules! refunds {
    ($rest:literal) => {
        concat!(
            "SELECT merchant, serial, refund_no, payment, state, created_ms, body, version \
             FROM refund WHERE ",
            $rest
        )
    };
}

fn read_refund(row: &dyn Columns) -> Reply<Versioned<Refund>> {
    let stored = StoredRefund {
        merchant: row.text(0)?,
        serial: row.text(1)?,
        refund_no: row.text(2)?,
        payment: row.text(3)?,
        state: row.text(4)?,
        created_ms: row.int(5)?,
        body: row.text(6)?,
    };
    Ok(Versioned { value: stored.read()?, version: small(row.int(7)?)? })
}

fn read_refund_only(row: &dyn Columns) -> Reply<Refund> {
    Ok(read_refund(row)?.value)
}

pub(crate) fn refund(merchant: &MerchantId, serial: Serial) -> Query<Versioned<Refund>> {
    let key = [text(merchant.as_str()), text(serial.as_str())];
    query(refunds!("merchant = ?1 AND serial = ?2"), key, read_refund)
}

pub(crate) fn refund_by_no(merchant: &MerchantId, refund_no: &str) -> Query<Versioned<Refund>> {
    let key = [text(merchant.as_str()), text(refund_no)];
    query(refunds!("merchant = ?1 AND refund_no = ?2"), key, read_refund)
}

pub(crate) fn refunds_of(merchant: &MerchantId, payment: Serial) -> Query<Refund> {
    let key = [text(merchant.as_str()), text(payment.as_str())];
    query(refunds!("merchant = ?1 AND payment = ?2 ORDER BY serial"), key, read_refund_only)
}

pub(crate) fn refunds_between(
    merchant: &MerchantId,
    from: Timestamp,
    until: Timestamp,
) -> Query<Refund> {
    let sql = refunds!("merchant = ?1 AND created_ms >= ?2 AND created_ms < ?3 ORDER BY serial");
    query(sql, [text(merchant.as_str()), at(from), at(until)], read_refund_only).long()
}

macro_rules! notifications {
    ($rest:literal) => {
        concat!(
            "SELECT merchant, id, payment, state, body, version FROM notification WHERE ",
            $rest
        )
    };
}

fn read_notification(row: &dyn Columns) -> Reply<Versioned<Notification>> {
    let columns = [row.text(0)?, row.text(1)?, row.text(2)?, row.text(3)?, row.text(4)?];
    let [merchant, id, payment, state, body] = &columns;
    let value = NotificationRow::read(merchant, id, payment, state, body)?;
    Ok(Versioned { value, version: small(row.int(5)?)? })
}

pub(crate) fn notification(merchant: &MerchantId, id: Serial) -> Query<Versioned<Notification>> {
    let key = [text(merchant.as_str()), text(id.as_str())];
    query(notifications!("merchant = ?1 AND id = ?2"), key, read_notification)
}

pub(crate) fn notifications(
    merchant: &MerchantId,
    payment: Option<Serial>,
    state: Option<NotificationState>,
    limit: u32,
) -> Query<Notification> {
    let sql = notifications!(
        "merchant = ?1 AND (CAST(?2 AS TEXT) IS NULL OR payment = ?2) \
         AND (CAST(?3 AS TEXT) IS NULL OR state = ?3) ORDER BY id DESC LIMIT ?4"
    );
    let payment = payment.as_ref().map(Serial::as_str);
    let key = [text(merchant.as_str()), maybe(payment), maybe(state.map(Word::word)), most(limit)];
    query(sql, key, |row| Ok(read_notification(row)?.value))
}

pub(crate) fn tries_of(merchant: &MerchantId, notification: Serial) -> Query<Try> {
    let sql = "SELECT merchant, notification, number, at_ms, status, duration_ms, body_head, error \
               FROM notification_try WHERE merchant = ?1 AND notification = ?2 ORDER BY number";
    query(sql, [text(merchant.as_str()), text(notification.as_str())], |row| {
        Ok(Try {
            merchant: rows::merchant_id(&row.text(0)?)?,
            notification: rows::serial(&row.text(1)?)?,
            number: small(row.int(2)?)?,
            at: Timestamp::from_ms(row.int(3)?),
            status: row.maybe_int(4)?.map(small).transpose()?,
            duration_ms: small(row.int(5)?)?,
            body_head: row.text(6)?,
            error: row.maybe_text(7)?,
        })
    })
}

fn read_intent(row: &dyn Columns) -> Reply<Intent> {
    Ok(Intent {
        merchant: rows::merchant_id(&row.text(0)?)?,
        kind: IntentKind::read(&row.text(1)?)?,
        subject: rows::serial(&row.text(2)?)?,
        due: Timestamp::from_ms(row.int(3)?),
        tries: small(row.int(4)?)?,
        holder: row.maybe_text(5)?,
    })
}

pub(crate) fn due(now: Timestamp, limit: u32) -> Query<Intent> {
    let sql = "SELECT merchant, kind, subject, due_ms, tries, holder FROM intent \
               WHERE due_ms <= ?1 ORDER BY due_ms LIMIT ?2";
    query(sql, [at(now), most(limit)], read_intent)
}

/// Rows that the node holds already are left alone: each poll would write them again.
pub(crate) fn claim(node: &Node, now: Timestamp, limit: u32) -> Query<Intent> {
    let sql = "UPDATE intent SET holder = ?1 WHERE (merchant, kind, subject) IN ( \
               SELECT merchant, kind, subject FROM intent AS it WHERE due_ms <= ?2 \
               AND (holder IS NULL OR (holder <> ?1 AND NOT EXISTS (SELECT 1 FROM node \
               WHERE node.holder = it.holder AND node.alive_ms > {now_ms}))) \
               ORDER BY due_ms LIMIT ?3{skip_locked}) \
               RETURNING merchant, kind, subject, due_ms, tries, holder";
    query(sql, [text(&node.holder), at(now), most(limit)], read_intent)
}

pub(crate) fn claimed(node: &Node, now: Timestamp) -> Query<Intent> {
    let sql = "SELECT merchant, kind, subject, due_ms, tries, holder FROM intent \
               WHERE due_ms <= ?2 AND holder = ?1 ORDER BY due_ms";
    query(sql, [text(&node.holder), at(now)], read_intent)
}

pub(crate) fn next_due() -> Query<Option<Timestamp>> {
    query("SELECT MIN(due_ms) FROM intent", [], |row| Ok(row.maybe_int(0)?.map(Timestamp::from_ms)))
}

/// Takes a number, if nobody living has it.
pub(crate) fn enroll(number: u16, holder: &str, lease_ms: i64) -> Query<u16> {
    let sql = "INSERT INTO node (number, holder, alive_ms) VALUES (?1, ?2, {now_ms} + ?3) \
               ON CONFLICT (number) DO UPDATE SET holder = ?2, alive_ms = {now_ms} + ?3 \
               WHERE node.alive_ms <= {now_ms} RETURNING number";
    let key = [Value::Int(number.into()), text(holder), Value::Int(lease_ms)];
    query(sql, key, |row| small(row.int(0)?))
}

/// The smallest number that nobody living has.
pub(crate) fn free_number() -> Query<u16> {
    let sql = "SELECT number FROM (SELECT 0 AS number UNION ALL SELECT number + 1 FROM node) \
               AS candidate WHERE number NOT IN (SELECT number FROM node \
               WHERE alive_ms > {now_ms}) ORDER BY number LIMIT 1";
    query(sql, [], |row| small(row.int(0)?))
}

pub(crate) fn renew(node: &Node, lease_ms: i64) -> Query<u16> {
    let sql = "UPDATE node SET alive_ms = {now_ms} + ?3 WHERE number = ?1 AND holder = ?2 \
               RETURNING number";
    let key = [Value::Int(node.number.into()), text(&node.holder), Value::Int(lease_ms)];
    query(sql, key, |row| small(row.int(0)?))
}

pub(crate) fn retire(node: &Node) -> Query<u16> {
    let sql = "DELETE FROM node WHERE number = ?1 AND holder = ?2 RETURNING number";
    query(sql, [Value::Int(node.number.into()), text(&node.holder)], |row| small(row.int(0)?))
}

pub(crate) fn backlog(now: Timestamp) -> Query<(IntentKind, Backlog)> {
    let sql = "SELECT kind, COUNT(*), SUM(CASE WHEN due_ms <= ?1 THEN 1 ELSE 0 END), MIN(due_ms) \
               FROM intent GROUP BY kind ORDER BY kind";
    query(sql, [at(now)], |row| {
        let backlog = Backlog {
            open: small(row.int(1)?)?,
            due: small(row.int(2)?)?,
            oldest: row.maybe_int(3)?.map(Timestamp::from_ms),
        };
        Ok((IntentKind::read(&row.text(0)?)?, backlog))
    })
    .long()
}

pub(crate) fn in_doubt() -> Query<(u64, Option<Timestamp>)> {
    let sql = "SELECT COUNT(*), MIN(doubt_ms) FROM payment WHERE doubt_ms IS NOT NULL";
    query(sql, [], |row| Ok((small(row.int(0)?)?, row.maybe_int(1)?.map(Timestamp::from_ms))))
        .long()
}

fn read_sums(row: &dyn Columns) -> Reply<Balance> {
    Ok(Balance { debit_minor: row.int(0)?, credit_minor: row.int(1)? })
}

/// The parts of an account added up. A merchant's own account has all its parts with that merchant.
pub(crate) fn balance(account: &Account) -> Query<Balance> {
    let name = text(&account.to_string());
    match &account.owner {
        Owner::Merchant(merchant) => {
            let sql = "SELECT CAST(COALESCE(SUM(debit_minor), 0) AS BIGINT), \
                       CAST(COALESCE(SUM(credit_minor), 0) AS BIGINT) FROM balance \
                       WHERE merchant = ?1 AND account = ?2";
            query(sql, [text(merchant.as_str()), name], read_sums)
        }
        Owner::Platform | Owner::Channel(_) => {
            let sql = "SELECT CAST(COALESCE(SUM(debit_minor), 0) AS BIGINT), \
                       CAST(COALESCE(SUM(credit_minor), 0) AS BIGINT) FROM balance \
                       WHERE account = ?1";
            query(sql, [name], read_sums)
        }
    }
}

fn read_account_sums(row: &dyn Columns) -> Reply<(Account, Balance)> {
    let balance = Balance { debit_minor: row.int(1)?, credit_minor: row.int(2)? };
    Ok((Account::parse(&row.text(0)?).map_err(bad)?, balance))
}

pub(crate) fn balances() -> Query<(Account, Balance)> {
    let sql = "SELECT account, CAST(SUM(debit_minor) AS BIGINT), CAST(SUM(credit_minor) AS BIGINT) \
               FROM balance GROUP BY account ORDER BY account";
    query(sql, [], read_account_sums).long()
}

pub(crate) fn recomputed_balances() -> Query<(Account, Balance)> {
    let sql = "SELECT account, CAST(SUM(debit) AS BIGINT), CAST(SUM(credit) AS BIGINT) FROM ( \
               SELECT debit AS account, amount_minor AS debit, 0 AS credit FROM posting \
               UNION ALL SELECT credit, 0, amount_minor FROM posting) AS leg \
               GROUP BY account ORDER BY account";
    query(sql, [], read_account_sums).long()
}

macro_rules! postings {
    ($rest:literal) => {
        concat!(
            "SELECT merchant, payment, subject, event, journal, debit, credit, at_ms, \
             amount_minor FROM posting WHERE ",
            $rest
        )
    };
}

fn read_posting(row: &dyn Columns) -> Reply<JournalRow> {
    let debit = Account::parse(&row.text(5)?).map_err(bad)?;
    let credit = Account::parse(&row.text(6)?).map_err(bad)?;
    let amount = Money::new(row.int(8)?, debit.currency);
    let event = row.text(3)?;
    Ok(JournalRow {
        serial: rows::serial(&row.text(4)?)?,
        merchant: rows::merchant_id(&row.text(0)?)?,
        payment: rows::serial(&row.text(1)?)?,
        subject: rows::serial(&row.text(2)?)?,
        event: Event::parse(&event).ok_or_else(|| bad(event))?,
        at: Timestamp::from_ms(row.int(7)?),
        posting: Posting { debit, credit, amount },
    })
}

pub(crate) fn postings_of(merchant: &MerchantId, payment: Serial) -> Query<JournalRow> {
    let key = [text(merchant.as_str()), text(payment.as_str())];
    let sql = postings!("merchant = ?1 AND payment = ?2 ORDER BY journal, line");
    query(sql, key, read_posting)
}

pub(crate) fn postings_between(
    merchant: &MerchantId,
    from: Timestamp,
    until: Timestamp,
) -> Query<JournalRow> {
    let sql = postings!("merchant = ?1 AND at_ms >= ?2 AND at_ms < ?3 ORDER BY journal, line");
    query(sql, [text(merchant.as_str()), at(from), at(until)], read_posting).long()
}
