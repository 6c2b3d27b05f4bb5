//! Rows: how domain values are written down and read back. The only place that knows.
//!
//! Commits are turned into rows by the caller, so that the writer thread only binds them.

use app::{
    Commit, IntentChange, IntentKind, Merchant, Notification, NotificationEvent, NotificationState,
    Put, StoreError, Try,
};
use kernel::{BasisPoints, Currency, MerchantId, Money, Serial, Timestamp};
use ledger::{Account, Journal, Owner};
use payments::{
    Attempt, AttemptState, LatePolicy, Mode, Origin, Payment, PaymentState, Prepay, Receipt,
    Refund, RefundState, RefundTerms, Terms, TradeProduct, Unexpected, UnexpectedCause,
    UnexpectedState,
};
use serde::{Deserialize, Serialize};

/// A value with one fixed word for storage.
pub(crate) trait Word: Sized + Copy + 'static {
    const WORDS: &'static [(Self, &'static str)];
    fn word(self) -> &'static str;
    fn read(word: &str) -> Result<Self, StoreError> {
        let found = Self::WORDS.iter().find(|it| it.1 == word);
        found.map(|it| it.0).ok_or_else(|| StoreError(format!("a row says {word:?}")))
    }
}

macro_rules! words {
    ($kind:ident: $($variant:ident = $word:literal),+ $(,)?) => {
        impl Word for $kind {
            const WORDS: &'static [($kind, &'static str)] = &[$(($kind::$variant, $word)),+];
            fn word(self) -> &'static str {
                match self { $($kind::$variant => $word),+ }
            }
        }
    };
}

words!(TradeProduct: Native = "native", Jsapi = "jsapi", App = "app", H5 = "h5", Cashier = "cashier");
words!(Mode: Eager = "eager", Lazy = "lazy");
words!(LatePolicy: Reopen = "reopen", Refund = "refund");
words!(PaymentState: NotPay = "notpay", UserPaying = "userpaying", Success = "success",
    Closed = "closed", Revoked = "revoked", PayError = "payerror");
words!(AttemptState: Sent = "sent", InDoubt = "in_doubt", Waiting = "waiting", Paying = "paying",
    Succeeded = "succeeded", Failed = "failed", Closed = "closed");
words!(UnexpectedCause: SecondSuccess = "second_success", LateSuccess = "late_success",
    WrongAmount = "wrong_amount", WrongCurrency = "wrong_currency");
words!(UnexpectedState: Held = "held", Refunding = "refunding");
words!(RefundState: Processing = "processing", Success = "success", Closed = "closed",
    Abnormal = "abnormal");
words!(Origin: Merchant = "merchant", Automatic = "automatic");
words!(NotificationEvent: PaymentSucceeded = "payment_succeeded",
    RefundSucceeded = "refund_succeeded", RefundClosed = "refund_closed",
    RefundAbnormal = "refund_abnormal");
words!(NotificationState: Pending = "pending", Delivered = "delivered", GivenUp = "given_up");
words!(IntentKind: Heal = "heal", Refund = "refund", Notify = "notify",
    Publish = "publish");

fn bad(what: impl std::fmt::Display) -> StoreError {
    StoreError(format!("a row cannot be read: {what}"))
}

pub(crate) fn serial(text: &str) -> Result<Serial, StoreError> {
    Serial::parse(text).map_err(bad)
}

pub(crate) fn merchant_id(text: &str) -> Result<MerchantId, StoreError> {
    MerchantId::parse(text).map_err(bad)
}

fn rate(bps: u16) -> Result<BasisPoints, StoreError> {
    BasisPoints::new(bps).map_err(bad)
}

/// An amount as `[1230, "CNY"]`.
#[derive(Serialize, Deserialize)]
struct MoneyRow(i64, String);

impl MoneyRow {
    fn of(money: Money) -> MoneyRow {
        MoneyRow(money.minor(), money.currency().code().into())
    }

    fn read(&self) -> Result<Money, StoreError> {
        let currency = Currency::parse(&self.1).ok_or_else(|| bad(format!("{:?}", self.1)))?;
        Ok(Money::new(self.0, currency))
    }
}

type Text = Option<String>;

#[derive(Serialize, Deserialize)]
struct PaymentBody {
    appid: String,
    product: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    attach: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    notify_url: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    time_expire_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    payer: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    payer_ip: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    h5_type: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    device_id: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    return_url: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    extras: Text,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    verifies_with: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    trace: Text,
    fee_bps: u16,
    late: String,
    expires_ms: i64,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    attempts: Vec<AttemptRow>,
    /// The attempt whose receipt pays the order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    paid_by: Text,
    #[serde(skip_serializing_if = "is_zero", default)]
    refunded_minor: i64,
    #[serde(skip_serializing_if = "is_zero", default)]
    fee_returned_minor: i64,
    #[serde(skip_serializing_if = "is_zero", default)]
    cost_returned_minor: i64,
    #[serde(default)]
    refunds: u16,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    unexpected: Vec<UnexpectedRow>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    contradictions: Vec<String>,
}

fn is_zero(it: &i64) -> bool {
    *it == 0
}

#[derive(Serialize, Deserialize)]
struct AttemptRow {
    serial: String,
    channel: String,
    product: String,
    amount: MoneyRow,
    cost_bps: u16,
    state: String,
    started_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    prepay: Option<PrepayRow>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    receipt: Option<ReceiptRow>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Text,
}

#[derive(Serialize, Deserialize)]
struct PrepayRow {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    code_url: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    h5_url: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    prepay_id: Text,
}

#[derive(Serialize, Deserialize)]
struct ReceiptRow {
    amount: MoneyRow,
    transaction: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    payer: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    bank: Text,
    at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct UnexpectedRow {
    attempt: String,
    cause: String,
    state: String,
    amount: MoneyRow,
    at_ms: i64,
}

fn json<T: Serialize>(body: &T) -> String {
    serde_json::to_string(body).expect("rows hold nothing that JSON cannot")
}

fn parse<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(bad)
}

/// A payment's columns; `paid_ms` is when the money came, `doubt_ms` since when a channel is silent.
pub(crate) struct PaymentRow {
    pub merchant: String,
    pub serial: String,
    pub order_no: String,
    pub state: &'static str,
    pub amount_minor: i64,
    pub currency: &'static str,
    pub created_ms: i64,
    pub paid_ms: Option<i64>,
    pub doubt_ms: Option<i64>,
    pub body: String,
    pub expected: u32,
}

impl PaymentRow {
    fn of(put: &Put<Payment>) -> PaymentRow {
        let (it, terms) = (&put.value, &put.value.terms);
        let body = PaymentBody {
            appid: terms.appid.clone(),
            product: terms.product.word().into(),
            description: terms.description.clone(),
            attach: terms.attach.clone(),
            notify_url: terms.notify_url.clone(),
            time_expire_ms: terms.time_expire.map(Timestamp::ms),
            payer: terms.payer.clone(),
            payer_ip: terms.payer_ip.clone(),
            h5_type: terms.h5_type.clone(),
            device_id: terms.device_id.clone(),
            return_url: terms.return_url.clone(),
            extras: terms.extras.clone(),
            mode: it.mode.word().into(),
            verifies_with: it.verifies_with.clone(),
            trace: it.trace.clone(),
            fee_bps: it.fee_rate.get(),
            late: it.late.word().into(),
            expires_ms: it.expires.ms(),
            attempts: it.attempts.iter().map(attempt_row).collect(),
            paid_by: it.receipt.as_ref().map(|it| it.attempt.to_string()),
            refunded_minor: it.refunded.minor(),
            fee_returned_minor: it.fee_returned.minor(),
            cost_returned_minor: it.cost_returned.minor(),
            refunds: it.refunds,
            unexpected: it.unexpected.iter().map(unexpected_row).collect(),
            contradictions: it.contradictions.clone(),
        };
        let in_doubt = it.attempts.iter().filter(|it| it.state == AttemptState::InDoubt);
        PaymentRow {
            merchant: it.merchant.as_str().into(),
            serial: it.serial.to_string(),
            order_no: terms.order_no.clone(),
            state: it.state.word(),
            amount_minor: terms.amount.minor(),
            currency: terms.amount.currency().code(),
            created_ms: it.created.ms(),
            paid_ms: it.receipt.as_ref().map(|it| it.at.ms()),
            doubt_ms: in_doubt.map(|it| it.started.ms()).min(),
            body: json(&body),
            expected: put.expected,
        }
    }
}

fn attempt_row(it: &Attempt) -> AttemptRow {
    AttemptRow {
        serial: it.serial.to_string(),
        channel: it.channel.clone(),
        product: it.product.word().into(),
        amount: MoneyRow::of(it.amount),
        cost_bps: it.cost_rate.get(),
        state: it.state.word().into(),
        started_ms: it.started.ms(),
        prepay: it.prepay.as_ref().map(|it| PrepayRow {
            code_url: it.code_url.clone(),
            h5_url: it.h5_url.clone(),
            prepay_id: it.prepay_id.clone(),
        }),
        receipt: it.receipt.as_ref().map(|it| ReceiptRow {
            amount: MoneyRow::of(it.amount),
            transaction: it.transaction.clone(),
            payer: it.payer.clone(),
            bank: it.bank.clone(),
            at_ms: it.at.ms(),
        }),
        note: it.note.clone(),
    }
}

fn unexpected_row(it: &Unexpected) -> UnexpectedRow {
    UnexpectedRow {
        attempt: it.attempt.to_string(),
        cause: it.cause.word().into(),
        state: it.state.word().into(),
        amount: MoneyRow::of(it.amount),
        at_ms: it.at.ms(),
    }
}

/// What a SELECT of a payment brings.
pub(crate) struct StoredPayment {
    pub merchant: String,
    pub serial: String,
    pub order_no: String,
    pub state: String,
    pub amount_minor: i64,
    pub currency: String,
    pub created_ms: i64,
    pub body: String,
}

impl StoredPayment {
    pub(crate) fn read(self) -> Result<Payment, StoreError> {
        let body: PaymentBody = parse(&self.body)?;
        let amount = MoneyRow(self.amount_minor, self.currency).read()?;
        let same = |minor| Money::new(minor, amount.currency());
        let attempts: Vec<Attempt> =
            body.attempts.into_iter().map(read_attempt).collect::<Result<_, _>>()?;
        let receipt = match &body.paid_by {
            None => None,
            Some(by) => {
                let paid = attempts.iter().find(|it| it.serial.as_str() == by);
                Some(paid.and_then(|it| it.receipt.clone()).ok_or_else(|| bad("no receipt"))?)
            }
        };
        Ok(Payment {
            serial: serial(&self.serial)?,
            merchant: merchant_id(&self.merchant)?,
            terms: Terms {
                order_no: self.order_no,
                appid: body.appid,
                product: TradeProduct::read(&body.product)?,
                amount,
                description: body.description,
                attach: body.attach,
                notify_url: body.notify_url,
                time_expire: body.time_expire_ms.map(Timestamp::from_ms),
                payer: body.payer,
                payer_ip: body.payer_ip,
                h5_type: body.h5_type,
                device_id: body.device_id,
                return_url: body.return_url,
                extras: body.extras,
            },
            mode: Mode::read(&body.mode)?,
            verifies_with: body.verifies_with,
            trace: body.trace,
            fee_rate: rate(body.fee_bps)?,
            late: LatePolicy::read(&body.late)?,
            state: PaymentState::read(&self.state)?,
            created: Timestamp::from_ms(self.created_ms),
            expires: Timestamp::from_ms(body.expires_ms),
            attempts,
            receipt,
            refunded: same(body.refunded_minor),
            fee_returned: same(body.fee_returned_minor),
            cost_returned: same(body.cost_returned_minor),
            refunds: body.refunds,
            unexpected: body
                .unexpected
                .into_iter()
                .map(|it| {
                    Ok(Unexpected {
                        attempt: serial(&it.attempt)?,
                        cause: UnexpectedCause::read(&it.cause)?,
                        state: UnexpectedState::read(&it.state)?,
                        amount: it.amount.read()?,
                        at: Timestamp::from_ms(it.at_ms),
                    })
                })
                .collect::<Result<_, StoreError>>()?,
            contradictions: body.contradictions,
        })
    }
}

fn read_attempt(it: AttemptRow) -> Result<Attempt, StoreError> {
    let number = serial(&it.serial)?;
    let receipt = match it.receipt {
        None => None,
        Some(row) => Some(Receipt {
            attempt: number,
            amount: row.amount.read()?,
            transaction: row.transaction,
            payer: row.payer,
            bank: row.bank,
            at: Timestamp::from_ms(row.at_ms),
        }),
    };
    Ok(Attempt {
        serial: number,
        channel: it.channel,
        product: TradeProduct::read(&it.product)?,
        amount: it.amount.read()?,
        cost_rate: rate(it.cost_bps)?,
        state: AttemptState::read(&it.state)?,
        started: Timestamp::from_ms(it.started_ms),
        prepay: it.prepay.map(|it| Prepay {
            code_url: it.code_url,
            h5_url: it.h5_url,
            prepay_id: it.prepay_id,
        }),
        receipt,
        note: it.note,
    })
}

#[derive(Serialize, Deserialize)]
struct RefundBody {
    attempt: String,
    amount: MoneyRow,
    total: MoneyRow,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reason: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    notify_url: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    extras: Text,
    origin: String,
    fee_back_minor: i64,
    cost_back_minor: i64,
    from_available_minor: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    done_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    account: Text,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Text,
}

pub(crate) struct RefundRow {
    pub merchant: String,
    pub serial: String,
    pub refund_no: String,
    pub payment: String,
    pub state: &'static str,
    pub amount_minor: i64,
    pub created_ms: i64,
    pub body: String,
    pub expected: u32,
}

impl RefundRow {
    fn of(put: &Put<Refund>) -> RefundRow {
        let it = &put.value;
        let body = RefundBody {
            attempt: it.attempt.to_string(),
            amount: MoneyRow::of(it.terms.amount),
            total: MoneyRow::of(it.terms.total),
            reason: it.terms.reason.clone(),
            notify_url: it.terms.notify_url.clone(),
            extras: it.terms.extras.clone(),
            origin: it.origin.word().into(),
            fee_back_minor: it.fee_back.minor(),
            cost_back_minor: it.cost_back.minor(),
            from_available_minor: it.from_available_minor,
            done_ms: it.done.map(Timestamp::ms),
            account: it.account.clone(),
            note: it.note.clone(),
        };
        RefundRow {
            merchant: it.merchant.as_str().into(),
            serial: it.serial.to_string(),
            refund_no: it.terms.refund_no.clone(),
            payment: it.payment.to_string(),
            state: it.state.word(),
            amount_minor: it.terms.amount.minor(),
            created_ms: it.created.ms(),
            body: json(&body),
            expected: put.expected,
        }
    }
}

pub(crate) struct StoredRefund {
    pub merchant: String,
    pub serial: String,
    pub refund_no: String,
    pub payment: String,
    pub state: String,
    pub created_ms: i64,
    pub body: String,
}

impl StoredRefund {
    pub(crate) fn read(self) -> Result<Refund, StoreError> {
        let body: RefundBody = parse(&self.body)?;
        let amount = body.amount.read()?;
        let same = |minor| Money::new(minor, amount.currency());
        Ok(Refund {
            serial: serial(&self.serial)?,
            merchant: merchant_id(&self.merchant)?,
            payment: serial(&self.payment)?,
            attempt: serial(&body.attempt)?,
            terms: RefundTerms {
                refund_no: self.refund_no,
                amount,
                total: body.total.read()?,
                reason: body.reason,
                notify_url: body.notify_url,
                extras: body.extras,
            },
            origin: Origin::read(&body.origin)?,
            state: RefundState::read(&self.state)?,
            fee_back: same(body.fee_back_minor),
            cost_back: same(body.cost_back_minor),
            from_available_minor: body.from_available_minor,
            created: Timestamp::from_ms(self.created_ms),
            done: body.done_ms.map(Timestamp::from_ms),
            account: body.account,
            note: body.note,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct MerchantBody {
    name: String,
    appids: Vec<String>,
    fee_bps: u16,
    mode: String,
    late: String,
    certificate_pem: String,
    certificate_serial: String,
    sealed_apiv3_key: String,
    active: bool,
}

pub(crate) struct MerchantRow {
    pub id: String,
    pub body: String,
    pub expected: u32,
}

impl MerchantRow {
    fn of(put: &Put<Merchant>) -> MerchantRow {
        let it = &put.value;
        let body = MerchantBody {
            name: it.name.clone(),
            appids: it.appids.clone(),
            fee_bps: it.fee_rate.get(),
            mode: it.mode.word().into(),
            late: it.late.word().into(),
            certificate_pem: it.certificate_pem.clone(),
            certificate_serial: it.certificate_serial.clone(),
            sealed_apiv3_key: it.sealed_apiv3_key.clone(),
            active: it.active,
        };
        MerchantRow { id: it.id.as_str().into(), body: json(&body), expected: put.expected }
    }

    pub(crate) fn read(id: &str, body: &str) -> Result<Merchant, StoreError> {
        let body: MerchantBody = parse(body)?;
        Ok(Merchant {
            id: merchant_id(id)?,
            name: body.name,
            appids: body.appids,
            fee_rate: rate(body.fee_bps)?,
            mode: Mode::read(&body.mode)?,
            late: LatePolicy::read(&body.late)?,
            certificate_pem: body.certificate_pem,
            certificate_serial: body.certificate_serial,
            sealed_apiv3_key: body.sealed_apiv3_key,
            active: body.active,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct NotificationBody {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    refund: Text,
    event: String,
    url: String,
    created_ms: i64,
    tries: u32,
    ladder_from: u32,
}

pub(crate) struct NotificationRow {
    pub merchant: String,
    pub id: String,
    pub payment: String,
    pub state: &'static str,
    pub body: String,
    pub expected: u32,
}

impl NotificationRow {
    fn of(put: &Put<Notification>) -> NotificationRow {
        let it = &put.value;
        let body = NotificationBody {
            refund: it.refund.map(|it| it.to_string()),
            event: it.event.word().into(),
            url: it.url.clone(),
            created_ms: it.created.ms(),
            tries: it.tries,
            ladder_from: it.ladder_from,
        };
        NotificationRow {
            merchant: it.merchant.as_str().into(),
            id: it.id.to_string(),
            payment: it.payment.to_string(),
            state: it.state.word(),
            body: json(&body),
            expected: put.expected,
        }
    }

    pub(crate) fn read(
        merchant: &str,
        id: &str,
        payment: &str,
        state: &str,
        body: &str,
    ) -> Result<Notification, StoreError> {
        let body: NotificationBody = parse(body)?;
        Ok(Notification {
            id: serial(id)?,
            merchant: merchant_id(merchant)?,
            payment: serial(payment)?,
            refund: body.refund.as_deref().map(serial).transpose()?,
            event: NotificationEvent::read(&body.event)?,
            url: body.url,
            created: Timestamp::from_ms(body.created_ms),
            state: NotificationState::read(state)?,
            tries: body.tries,
            ladder_from: body.ladder_from,
        })
    }
}

pub(crate) struct TryRow {
    pub merchant: MerchantId,
    pub notification: Serial,
    pub number: u32,
    pub at_ms: i64,
    pub status: Option<u16>,
    pub duration_ms: i64,
    pub body_head: String,
    pub error: Option<String>,
}

impl TryRow {
    fn of(it: Try) -> TryRow {
        // A merchant's server may answer anything; no text column holds NUL everywhere.
        let clean = |text: String| match text.contains('\0') {
            true => text.replace('\0', "\u{fffd}"),
            false => text,
        };
        TryRow {
            merchant: it.merchant,
            notification: it.notification,
            number: it.number,
            at_ms: it.at.ms(),
            status: it.status,
            duration_ms: i64::try_from(it.duration_ms).unwrap_or(i64::MAX),
            body_head: clean(it.body_head),
            error: it.error.map(clean),
        }
    }
}

/// An account that a commit posts to, with its name written once.
pub(crate) struct NamedAccount {
    pub account: Account,
    pub name: String,
    /// The merchant with whom this part of the account is kept: its owner, or for accounts of the
    /// house the merchant whose commit it is. So a commit touches rows of its merchant only, and
    /// no row is touched by all.
    pub merchant: MerchantId,
}

/// A journal whose accounts are indices into those of its commit.
pub(crate) struct JournalRows {
    pub serial: Serial,
    pub merchant: MerchantId,
    pub payment: Serial,
    pub subject: Serial,
    pub event: &'static str,
    pub at_ms: i64,
    pub postings: Vec<PostingRow>,
}

pub(crate) struct PostingRow {
    pub debit: usize,
    pub credit: usize,
    pub amount: Money,
}

impl JournalRows {
    /// Adds accounts that are new to `accounts`.
    fn of(journal: Journal, accounts: &mut Vec<NamedAccount>) -> JournalRows {
        let mut index = |account: Account| {
            let merchant = match &account.owner {
                Owner::Merchant(owner) => owner.clone(),
                Owner::Platform | Owner::Channel(_) => journal.merchant.clone(),
            };
            let same = |it: &NamedAccount| it.account == account && it.merchant == merchant;
            accounts.iter().position(same).unwrap_or_else(|| {
                let name = account.to_string();
                accounts.push(NamedAccount { account, name, merchant });
                accounts.len() - 1
            })
        };
        let postings = journal.postings.into_iter().map(|it| PostingRow {
            debit: index(it.debit),
            credit: index(it.credit),
            amount: it.amount,
        });
        JournalRows {
            postings: postings.collect(),
            serial: journal.serial,
            merchant: journal.merchant,
            payment: journal.payment,
            subject: journal.subject,
            event: journal.event.name(),
            at_ms: journal.at.ms(),
        }
    }
}

/// A commit as rows, ready to be bound.
pub struct Prepared {
    pub(crate) merchants: Vec<MerchantRow>,
    pub(crate) payments: Vec<PaymentRow>,
    pub(crate) refunds: Vec<RefundRow>,
    pub(crate) notifications: Vec<NotificationRow>,
    pub(crate) tries: Vec<TryRow>,
    pub(crate) journals: Vec<JournalRows>,
    pub(crate) accounts: Vec<NamedAccount>,
    pub(crate) intents: Vec<IntentChange>,
}

impl Prepared {
    /// Whose commit it is; one that names several is that of the first.
    pub(crate) fn merchant(&self) -> &str {
        let intent = || self.intents.first().map(|it| crate::batch::intent_key(it).0);
        let of = self.payments.first().map(|it| it.merchant.as_str());
        of.or_else(|| self.refunds.first().map(|it| it.merchant.as_str()))
            .or_else(|| self.notifications.first().map(|it| it.merchant.as_str()))
            .or_else(|| self.journals.first().map(|it| it.merchant.as_str()))
            .or_else(|| self.merchants.first().map(|it| it.id.as_str()))
            .or_else(intent)
            .unwrap_or_default()
    }
}

impl From<Commit> for Prepared {
    fn from(commit: Commit) -> Prepared {
        let mut accounts = Vec::new();
        let journals = commit.journals.into_iter().map(|it| JournalRows::of(it, &mut accounts));
        Prepared {
            merchants: commit.merchants.iter().map(MerchantRow::of).collect(),
            payments: commit.payments.iter().map(PaymentRow::of).collect(),
            refunds: commit.refunds.iter().map(RefundRow::of).collect(),
            notifications: commit.notifications.iter().map(NotificationRow::of).collect(),
            tries: commit.tries.into_iter().map(TryRow::of).collect(),
            journals: journals.collect(),
            accounts,
            intents: commit.intents,
        }
    }
}
