//! Reading rows back. Plain functions of a connection.

use crate::rows::{self, MerchantRow, NotificationRow, StoredPayment, StoredRefund, Word};
use app::{
    Intent, JournalRow, Merchant, Notification, NotificationState, StoreError, Try, Versioned,
};
use kernel::{MerchantId, Money, Serial, Timestamp};
use ledger::{Account, Balance, Event, Posting};
use payments::{Payment, Refund};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

type Reply<T> = Result<T, StoreError>;

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError(error.to_string())
}

fn bad(what: impl std::fmt::Display) -> StoreError {
    StoreError(format!("a row cannot be read: {what}"))
}

/// At most one row.
fn one<T>(
    connection: &Connection,
    sql: &str,
    key: impl Params,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Reply<Option<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row(key, |row| read(row)).optional().map_err(failed)
}

/// All rows, each turned into a domain value.
fn many<T, U>(
    connection: &Connection,
    sql: &str,
    key: impl Params,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    turn: impl Fn(T) -> Reply<U>,
) -> Reply<Vec<U>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map(key, |row| read(row)).map_err(failed)?;
    rows.map(|it| turn(it.map_err(failed)?)).collect()
}

pub(crate) fn merchant(
    connection: &Connection,
    id: &MerchantId,
) -> Reply<Option<Versioned<Merchant>>> {
    let sql = "SELECT version, body FROM merchant WHERE id = ?1";
    let read = |row: &Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?));
    let found = one(connection, sql, [id.as_str()], read)?;
    let turn = |(version, body): (u32, String)| {
        Ok(Versioned { value: MerchantRow::read(id.as_str(), &body)?, version })
    };
    found.map(turn).transpose()
}

pub(crate) fn merchants(connection: &Connection) -> Reply<Vec<Merchant>> {
    let sql = "SELECT id, body FROM merchant ORDER BY id";
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    many(connection, sql, [], read, |(id, body)| MerchantRow::read(&id, &body))
}

const PAYMENT: &str = "SELECT merchant, serial, order_no, state, amount_minor, currency, \
                       created_ms, body, version FROM payment WHERE merchant = ?1";

fn payment_row(row: &Row<'_>) -> rusqlite::Result<(StoredPayment, u32)> {
    let stored = StoredPayment {
        merchant: row.get(0)?,
        serial: row.get(1)?,
        order_no: row.get(2)?,
        state: row.get(3)?,
        amount_minor: row.get(4)?,
        currency: row.get(5)?,
        created_ms: row.get(6)?,
        body: row.get(7)?,
    };
    Ok((stored, row.get(8)?))
}

fn turn_payment((stored, version): (StoredPayment, u32)) -> Reply<Versioned<Payment>> {
    Ok(Versioned { value: stored.read()?, version })
}

pub(crate) fn payment(
    connection: &Connection,
    merchant: &MerchantId,
    serial: Serial,
) -> Reply<Option<Versioned<Payment>>> {
    let sql = format!("{PAYMENT} AND serial = ?2");
    let found = one(connection, &sql, [merchant.as_str(), serial.as_str()], payment_row)?;
    found.map(turn_payment).transpose()
}

pub(crate) fn payment_by_order(
    connection: &Connection,
    merchant: &MerchantId,
    order_no: &str,
) -> Reply<Option<Versioned<Payment>>> {
    let sql = format!("{PAYMENT} AND order_no = ?2");
    let found = one(connection, &sql, [merchant.as_str(), order_no], payment_row)?;
    found.map(turn_payment).transpose()
}

pub(crate) fn payments_after(
    connection: &Connection,
    after: Option<(MerchantId, Serial)>,
    limit: u32,
) -> Reply<Vec<Payment>> {
    let (merchant, serial) = match &after {
        Some((merchant, serial)) => (merchant.as_str(), serial.as_str()),
        None => ("", ""),
    };
    let sql = format!(
        "{} ORDER BY merchant, serial LIMIT ?3",
        PAYMENT.replace("merchant = ?1", "(merchant, serial) > (?1, ?2)")
    );
    let turn = |it| Ok(turn_payment(it)?.value);
    many(connection, &sql, params![merchant, serial, limit], payment_row, turn)
}

pub(crate) fn paid_between(
    connection: &Connection,
    merchant: &MerchantId,
    from: Timestamp,
    until: Timestamp,
) -> Reply<Vec<Payment>> {
    let sql = format!("{PAYMENT} AND paid_ms >= ?2 AND paid_ms < ?3 ORDER BY paid_ms, serial");
    let key = params![merchant.as_str(), from.ms(), until.ms()];
    many(connection, &sql, key, payment_row, |it| Ok(turn_payment(it)?.value))
}

const REFUND: &str = "SELECT merchant, serial, refund_no, payment, state, created_ms, body, \
                      version FROM refund WHERE merchant = ?1";

fn refund_row(row: &Row<'_>) -> rusqlite::Result<(StoredRefund, u32)> {
    let stored = StoredRefund {
        merchant: row.get(0)?,
        serial: row.get(1)?,
        refund_no: row.get(2)?,
        payment: row.get(3)?,
        state: row.get(4)?,
        created_ms: row.get(5)?,
        body: row.get(6)?,
    };
    Ok((stored, row.get(7)?))
}

fn turn_refund((stored, version): (StoredRefund, u32)) -> Reply<Versioned<Refund>> {
    Ok(Versioned { value: stored.read()?, version })
}

pub(crate) fn refund(
    connection: &Connection,
    merchant: &MerchantId,
    serial: Serial,
) -> Reply<Option<Versioned<Refund>>> {
    let sql = format!("{REFUND} AND serial = ?2");
    let found = one(connection, &sql, [merchant.as_str(), serial.as_str()], refund_row)?;
    found.map(turn_refund).transpose()
}

pub(crate) fn refund_by_no(
    connection: &Connection,
    merchant: &MerchantId,
    refund_no: &str,
) -> Reply<Option<Versioned<Refund>>> {
    let sql = format!("{REFUND} AND refund_no = ?2");
    let found = one(connection, &sql, [merchant.as_str(), refund_no], refund_row)?;
    found.map(turn_refund).transpose()
}

pub(crate) fn refunds_of(
    connection: &Connection,
    merchant: &MerchantId,
    payment: Serial,
) -> Reply<Vec<Refund>> {
    let sql = format!("{REFUND} AND payment = ?2 ORDER BY serial");
    let key = [merchant.as_str(), payment.as_str()];
    many(connection, &sql, key, refund_row, |it| Ok(turn_refund(it)?.value))
}

pub(crate) fn refunds_between(
    connection: &Connection,
    merchant: &MerchantId,
    from: Timestamp,
    until: Timestamp,
) -> Reply<Vec<Refund>> {
    let sql = format!("{REFUND} AND created_ms >= ?2 AND created_ms < ?3 ORDER BY serial");
    let key = params![merchant.as_str(), from.ms(), until.ms()];
    many(connection, &sql, key, refund_row, |it| Ok(turn_refund(it)?.value))
}

const NOTIFICATION: &str =
    "SELECT merchant, id, payment, state, body, version FROM notification WHERE merchant = ?1";

type NotificationColumns = ([String; 5], u32);

fn notification_row(row: &Row<'_>) -> rusqlite::Result<NotificationColumns> {
    let text = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
    Ok((text, row.get(5)?))
}

fn turn_notification((text, version): NotificationColumns) -> Reply<Versioned<Notification>> {
    let [merchant, id, payment, state, body] = &text;
    Ok(Versioned { value: NotificationRow::read(merchant, id, payment, state, body)?, version })
}

pub(crate) fn notification(
    connection: &Connection,
    merchant: &MerchantId,
    id: Serial,
) -> Reply<Option<Versioned<Notification>>> {
    let sql = format!("{NOTIFICATION} AND id = ?2");
    let found = one(connection, &sql, [merchant.as_str(), id.as_str()], notification_row)?;
    found.map(turn_notification).transpose()
}

pub(crate) fn notifications(
    connection: &Connection,
    merchant: &MerchantId,
    payment: Option<Serial>,
    state: Option<NotificationState>,
    limit: u32,
) -> Reply<Vec<Notification>> {
    let sql = format!(
        "{NOTIFICATION} AND (?2 IS NULL OR payment = ?2) AND (?3 IS NULL OR state = ?3) \
         ORDER BY id DESC LIMIT ?4"
    );
    let payment = payment.as_ref().map(Serial::as_str);
    let key = params![merchant.as_str(), payment, state.map(Word::word), limit];
    many(connection, &sql, key, notification_row, |it| Ok(turn_notification(it)?.value))
}

pub(crate) fn tries_of(
    connection: &Connection,
    merchant: &MerchantId,
    notification: Serial,
) -> Reply<Vec<Try>> {
    let sql = "SELECT number, at_ms, status, duration_ms, body_head, error FROM notification_try \
               WHERE merchant = ?1 AND notification = ?2 ORDER BY number";
    let read = |row: &Row<'_>| {
        Ok(Try {
            merchant: merchant.clone(),
            notification,
            number: row.get(0)?,
            at: Timestamp::from_ms(row.get(1)?),
            status: row.get(2)?,
            duration_ms: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
            body_head: row.get(4)?,
            error: row.get(5)?,
        })
    };
    many(connection, sql, [merchant.as_str(), notification.as_str()], read, Ok)
}

pub(crate) fn due(connection: &Connection, now: Timestamp, limit: u32) -> Reply<Vec<Intent>> {
    let sql = "SELECT merchant, kind, subject, due_ms, tries FROM intent WHERE due_ms <= ?1 \
               ORDER BY due_ms LIMIT ?2";
    let read = |row: &Row<'_>| {
        let text: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
        Ok((text, row.get::<_, i64>(3)?, row.get::<_, u32>(4)?))
    };
    many(
        connection,
        sql,
        params![now.ms(), limit],
        read,
        |([merchant, kind, subject], due, tries)| {
            rows::read_intent(&merchant, &kind, &subject, due, tries)
        },
    )
}

pub(crate) fn next_due(connection: &Connection) -> Reply<Option<Timestamp>> {
    let sql = "SELECT MIN(due_ms) FROM intent";
    let found = one(connection, sql, [], |row| row.get::<_, Option<i64>>(0))?;
    Ok(found.flatten().map(Timestamp::from_ms))
}

pub(crate) fn balance(connection: &Connection, account: &Account) -> Reply<Balance> {
    let sql = "SELECT debit_minor, credit_minor FROM balance WHERE account = ?1";
    let read = |row: &Row<'_>| Ok(Balance { debit_minor: row.get(0)?, credit_minor: row.get(1)? });
    Ok(one(connection, sql, [account.to_string()], read)?.unwrap_or_default())
}

type Sums = (String, i64, i64);

fn sums_row(row: &Row<'_>) -> rusqlite::Result<Sums> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn turn_sums((name, debit_minor, credit_minor): Sums) -> Reply<(Account, Balance)> {
    Ok((Account::parse(&name).map_err(bad)?, Balance { debit_minor, credit_minor }))
}

pub(crate) fn balances(connection: &Connection) -> Reply<Vec<(Account, Balance)>> {
    let sql = "SELECT account, debit_minor, credit_minor FROM balance ORDER BY account";
    many(connection, sql, [], sums_row, turn_sums)
}

pub(crate) fn recomputed_balances(connection: &Connection) -> Reply<Vec<(Account, Balance)>> {
    let sql = "SELECT account, SUM(debit), SUM(credit) FROM ( \
               SELECT debit AS account, amount_minor AS debit, 0 AS credit FROM posting \
               UNION ALL SELECT credit, 0, amount_minor FROM posting) \
               GROUP BY account ORDER BY account";
    many(connection, sql, [], sums_row, turn_sums)
}

const POSTING: &str = "SELECT payment, subject, event, journal, at_ms, debit, credit, \
                       amount_minor FROM posting WHERE merchant = ?1";

type PostingColumns = ([String; 6], i64, i64);

fn posting_row(row: &Row<'_>) -> rusqlite::Result<PostingColumns> {
    let text = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(5)?, row.get(6)?];
    Ok((text, row.get(4)?, row.get(7)?))
}

fn turn_posting(merchant: &MerchantId, (text, at, minor): PostingColumns) -> Reply<JournalRow> {
    let [payment, subject, event, journal, debit, credit] = &text;
    let debit = Account::parse(debit).map_err(bad)?;
    let credit = Account::parse(credit).map_err(bad)?;
    let amount = Money::new(minor, debit.currency);
    Ok(JournalRow {
        serial: rows::serial(journal)?,
        merchant: merchant.clone(),
        payment: rows::serial(payment)?,
        subject: rows::serial(subject)?,
        event: Event::parse(event).ok_or_else(|| bad(event))?,
        at: Timestamp::from_ms(at),
        posting: Posting { debit, credit, amount },
    })
}

pub(crate) fn postings_of(
    connection: &Connection,
    merchant: &MerchantId,
    payment: Serial,
) -> Reply<Vec<JournalRow>> {
    let sql = format!("{POSTING} AND payment = ?2 ORDER BY journal, line");
    let key = [merchant.as_str(), payment.as_str()];
    many(connection, &sql, key, posting_row, |it| turn_posting(merchant, it))
}

pub(crate) fn postings_between(
    connection: &Connection,
    merchant: &MerchantId,
    from: Timestamp,
    until: Timestamp,
) -> Reply<Vec<JournalRow>> {
    let sql = format!("{POSTING} AND at_ms >= ?2 AND at_ms < ?3 ORDER BY journal, line");
    let key = params![merchant.as_str(), from.ms(), until.ms()];
    many(connection, &sql, key, posting_row, |it| turn_posting(merchant, it))
}
