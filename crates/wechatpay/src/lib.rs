//! The wire format of WeChat Pay: APIv3 in full for the endpoints we speak, V2 for signatures only.
//!
//! Used by three sides: the merchant-facing server (reads merchants' requests, writes answers),
//! the connector to the real WeChat Pay (the other way round) and the simulator. Text in, values
//! out, and back. No I/O, no clock and no randomness: times and nonces are arguments.

pub mod apiv3_key;
pub mod authorization;
pub mod beijing;
pub mod bill;
pub mod certificates;
pub mod create;
pub mod error;
mod fields;
pub mod headers;
pub mod notification;
pub mod query;
pub mod refund;
pub mod signing;
pub mod transaction;
pub mod v2;
mod wire_error;

pub use apiv3_key::{Apiv3Key, Apiv3KeyError};
pub use authorization::{Authorization, AuthorizationError};
pub use create::{CreateTransaction, Prepay, Product};
pub use error::{ApiError, Language};
pub use fields::Reading;
pub use refund::{CreateRefund, Refund, RefundNotice, RefundStatus};
pub use transaction::{TradeState, TradeType, Transaction};
pub use wire_error::WireError;
