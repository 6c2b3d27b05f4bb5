//! The contract with a payment provider: what we ask, what it may answer, what it can do.
//!
//! A channel is bytes in, bytes out. `encode` turns an operation into a signed HTTP request,
//! `decode` turns the response into an [`Answer`], `callback` does the same for what the provider
//! sends by itself. No I/O, no clock and no randomness here or in an implementation: the driver
//! in `channels` does the sending, and hands in the time and a nonce.

use kernel::{Currency, Money, Serial, Timestamp};
use std::fmt;
use std::sync::Arc;

/// The configured name of a channel: `wechat`, `wechat-2`, `alipay`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(Arc<str>);

impl ChannelId {
    pub fn new(name: &str) -> ChannelId {
        ChannelId(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the payer meets the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// A QR code that the payer scans.
    Native,
    /// Inside the wallet's own browser or mini program.
    Jsapi,
    /// From the merchant's own application.
    App,
    /// From a phone browser outside the wallet.
    H5,
}

impl Product {
    pub const ALL: [Product; 4] = [Product::Native, Product::Jsapi, Product::App, Product::H5];

    pub fn name(self) -> &'static str {
        match self {
            Product::Native => "native",
            Product::Jsapi => "jsapi",
            Product::App => "app",
            Product::H5 => "h5",
        }
    }

    pub fn parse(name: &str) -> Option<Product> {
        Product::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// What a channel can do: a value, so that routing can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub products: Vec<Product>,
    pub currencies: Vec<Currency>,
    /// The smallest and largest single payment in minor units.
    pub amount_minor: (i64, i64),
    pub refund_days: u16,
    pub refunds_per_payment: u16,
}

/// One thing asked of a channel. Every one of them may be repeated without a second effect:
/// our serial is the provider's idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Create(CreateOrder),
    Query {
        attempt: Serial,
    },
    Close {
        attempt: Serial,
    },
    Refund(CreateRefund),
    QueryRefund {
        refund: Serial,
    },
    Bill {
        day: kernel::BusinessDay,
    },
    /// Fetches a file named by an earlier answer; `url` is absolute.
    Download {
        url: String,
    },
    /// Asks for the keys that sign the provider's answers.
    Keys,
}

impl Operation {
    /// Whether repeating it at once is harmless *and* useful: reads only. A write that got no
    /// answer is in doubt; it is asked about, or repeated later by its intent.
    pub fn is_read(&self) -> bool {
        match self {
            Operation::Query { .. }
            | Operation::QueryRefund { .. }
            | Operation::Bill { .. }
            | Operation::Download { .. }
            | Operation::Keys => true,
            Operation::Create(_) | Operation::Close { .. } | Operation::Refund(_) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOrder {
    pub attempt: Serial,
    /// Appended to the channel's callback address (`…/callback/wechat/` + this), so that a
    /// callback finds its payment without a table of all attempts. A hint only: what counts is
    /// what the provider signed.
    pub callback_path: String,
    pub product: Product,
    pub amount: Money,
    pub description: String,
    pub expires: Timestamp,
    /// The payer in the channel's own terms; required for [`Product::Jsapi`].
    pub payer: Option<String>,
    pub payer_ip: Option<String>,
    /// `iOS`, `Android` or `Wap`; only for [`Product::H5`].
    pub h5_type: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRefund {
    pub refund: Serial,
    pub attempt: Serial,
    /// As in [`CreateOrder`].
    pub callback_path: String,
    pub amount: Money,
    /// What the attempt was paid with: providers want it repeated.
    pub total: Money,
    pub reason: Option<String>,
}

/// What to send. Header names are written in title case by the driver.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: &'static str,
    /// Absolute: scheme, host, path and query.
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// Headers carry signatures and bodies carry payers: neither belongs in a log.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, self.url, self.body.len())
    }
}

/// What came back, or what a provider sent by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMessage {
    /// The status of a response; 0 for a callback.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpMessage {
    /// - Input: `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }
}

/// A channel's word on one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The order exists at the channel; here is what the payer needs.
    Prepared(Prepay),
    Payment(PaymentFacts),
    Refund(RefundFacts),
    Closed,
    /// The channel does not know the order or refund.
    NotFound,
    /// Refused for certain, with no effect.
    Declined(Decline),
    File(FileLink),
    Bytes(Vec<u8>),
    Keys(Vec<ProviderKey>),
    /// Signed by a key we do not know yet: fetch keys, then ask again.
    UnknownKey {
        serial: String,
    },
    /// No answer, an unreadable one or one that fails verification: the effect may have happened.
    InDoubt {
        why: String,
    },
}

/// What a payer's device needs to go on. At least one member is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepay {
    pub code_url: Option<String>,
    pub h5_url: Option<String>,
    pub prepay_id: Option<String>,
    /// Ready client-side parameters, signed with the key the provider knows, in the provider's
    /// own names and order (WeChat: `appId`, `timeStamp`, …).
    pub pay_params: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decline {
    pub code: String,
    pub message: String,
    /// Whether the same request may succeed later (no funds yet, rate limit).
    pub temporary: bool,
}

/// What a channel says about a payment, by answer or by callback. Not yet believed: the caller
/// compares order, merchant, amount and currency with its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentFacts {
    /// The order number that we gave: the attempt's serial, as the provider returned it.
    pub attempt: String,
    pub state: ChannelState,
    /// Present when paid.
    pub paid: Option<PaidFacts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    Waiting,
    Paying,
    Paid,
    Closed,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidFacts {
    /// The account at the provider that received the money.
    pub payee: String,
    pub amount: Money,
    /// The provider's own number of the payment.
    pub transaction: String,
    pub payer: Option<String>,
    pub bank: Option<String>,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundFacts {
    /// The number that we gave: the refund's serial, as the provider returned it.
    pub refund: String,
    pub state: RefundChannelState,
    /// The provider's own number of the refund.
    pub channel_refund: String,
    pub amount: Money,
    /// Where the money went, in words.
    pub account: Option<String>,
    pub at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundChannelState {
    Processing,
    Success,
    Closed,
    Abnormal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLink {
    pub url: String,
    /// SHA-1 of the plain file in hex, as the provider states it.
    pub sha1: String,
}

/// A key that signs a provider's answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderKey {
    pub serial: String,
    pub certificate_pem: String,
}

/// What a callback says, once its signature held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callback {
    Payment(PaymentFacts),
    Refund(RefundFacts),
    /// Authentic, but of a kind that we do not act on.
    Other {
        kind: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    #[error("callback lacks header {0}")]
    MissingHeader(&'static str),
    #[error("callback is signed by unknown key {0}")]
    UnknownKey(String),
    #[error("callback signature does not hold")]
    BadSignature,
    #[error("callback was signed {seconds} s away from now; at most 300 s are allowed")]
    Clock { seconds: i64 },
    #[error("callback cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("channel {channel} cannot {what}")]
    Unsupported { channel: ChannelId, what: String },
    #[error("channel {channel} needs {what}")]
    Missing { channel: ChannelId, what: &'static str },
}

/// What an encoder may not find out by itself.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The real time, for signatures.
    pub now: Timestamp,
    /// 32 fresh random letters or digits.
    pub nonce: String,
}

/// A provider's protocol. Implementations hold keys and settings, and no connection.
pub trait Channel: Send + Sync {
    fn id(&self) -> &ChannelId;

    fn abilities(&self) -> &Abilities;

    /// The account at the provider that our payers pay into; callbacks must name it.
    fn payee(&self) -> &str;

    fn encode(&self, operation: &Operation, moment: &Moment) -> Result<HttpRequest, EncodeError>;

    /// Total: whatever came back becomes an [`Answer`]; what cannot be understood or verified
    /// becomes [`Answer::InDoubt`]. `moment` is the one to judge freshness by and to sign
    /// client-side parameters with.
    fn decode(&self, operation: &Operation, message: &HttpMessage, moment: &Moment) -> Answer;

    fn callback(&self, message: &HttpMessage, now: Timestamp) -> Result<Callback, CallbackError>;

    /// Takes in keys that an earlier [`Answer::Keys`] brought. Known ones stay valid.
    fn learn(&self, keys: &[ProviderKey]);

    /// When the last of the learnt keys ends. `None`: none was learnt, or they have no end.
    fn keys_end(&self) -> Option<Timestamp> {
        None
    }
}
