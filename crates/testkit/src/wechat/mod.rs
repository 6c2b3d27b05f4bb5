//! A simulator of WeChat Pay APIv3, faithful to its public documentation.
//!
//! [`WechatSim`] is a pure core: requests in, answers out, the time as an argument, every number
//! drawn from a seed. [`WechatSimServer`] puts HTTP around it: the merchant API, a wallet page for
//! people, and a JSON control API for scripts:
//!
//! | call | does |
//! | --- | --- |
//! | `GET /_sim/orders` | all orders with state, code and refunds; `?out_trade_no=` for one |
//! | `POST /_sim/confirm {"out_trade_no"\|"code", "outcome", "mchid"?, "payer"?, "amount_minor"?}` | what a payer does; outcomes: [`Outcome`] |
//! | `POST /_sim/faults {"clear"?, "next": […], "chance": […]}` | [`faults`] |
//! | `POST /_sim/clock {"advance_s"}` | moves the business clock forward |
//! | `GET /_sim/callbacks` | every notification with each try and its answer |
//!
//! Two clocks: signatures are judged and made by the wall clock; expiry, refunds, bills and the
//! retry ladder follow the business clock, which is the wall clock plus what was advanced.
//!
//! Not simulated: combine orders, partner mode, profit sharing, transfers, coupons, V2.

mod answer;
mod api;
mod bills;
mod callbacks;
mod control;
mod dice;
pub mod faults;
mod orders;
mod refunds;
mod server;
mod settings;
mod sim;
mod wallet;

pub use answer::{SimAnswer, SimRequest};
pub use callbacks::{CallbackLog, OutgoingCallback, Try};
pub use faults::{Call, Chance, Fault, Faults, Planned};
pub use orders::{ConfirmError, Outcome, Payer, Reference};
pub use server::WechatSimServer;
pub use settings::{PlatformKeys, SettingsError, SimMerchant, WechatSimSettings};
pub use sim::{OrderView, RefundView, WechatSim};
