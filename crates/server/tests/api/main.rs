//! The merchant API over real connections: what a signed request may and may not do.
//!
//! The published SDKs are run against the binary elsewhere; here stand the refusals, and what
//! SDKs do not show: headers, nonces, foreign orders, notifications, the hosted cashier.

mod bad_input;
mod bus;
mod client;
mod flows;
mod metrics;
mod traces;
