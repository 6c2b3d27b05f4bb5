//! Simulators of the channels, fakes and generators, for tests and for `feiqian demo`.
//!
//! Nothing here decides about real money, and nothing here may be reached from a production
//! configuration.

pub mod nats;
pub mod ports;
pub mod postgres;
pub mod simulation;
pub mod wechat;
