//! The `feiqian` server: merchant API, payer pages, callbacks, workers, commands. Everything that
//! touches the world is here; what is decided is decided in the crates below.

mod backup;
pub mod bench;
mod callbacks;
mod cashier;
mod cashier_pages;
pub mod cli;
pub mod clock;
pub mod config;
mod configuration;
mod courier;
pub mod demo;
pub mod gateway;
pub mod install;
pub mod limits;
mod links;
pub mod live;
mod membership;
mod merchants;
pub mod observe;
mod reload;
pub mod serve;
pub mod settings;
pub mod simulator;
mod v3;
pub mod worker;
