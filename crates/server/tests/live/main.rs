//! The real binary while it serves: a configuration that changes under requests, and more load than
//! it can take.

mod house;
mod overload;
mod reload;
