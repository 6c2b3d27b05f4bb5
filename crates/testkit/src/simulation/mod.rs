//! The whole system in one thread, under a clock, a network and a storage that fail as a seed
//! says: real use cases, real store, real connector bytes, the simulated channel.
//!
//! [`run`] plays one seed: merchants order, repeat, close and refund; payers pay, pay twice, pay
//! late or wrongly; the line loses, delays, doubles and garbles; the store refuses or does not
//! answer; the process dies between any two steps. Then all faults end, the clock runs until
//! nothing is left to do, and the auditors compare what the platform says with what the channel,
//! the merchants and the payers saw. The same seed gives the same run.
//!
//! Not simulated: HTTP itself, the server's parsing, threads, the group commit of several commits.

mod accounts;
mod auditors;
mod callbacks;
mod clients;
mod dice;
mod pause;
mod ports;
mod profile;
mod run;
mod sabotage;
mod watch;
mod world;

pub use run::{Outcome, run};
pub use sabotage::Sabotage;
