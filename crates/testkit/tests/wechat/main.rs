//! The WeChat Pay simulator: its core step by step, each fault, the ladder, and HTTP around it.

mod calls;
mod faults;
mod http;
mod notices;
mod world;
