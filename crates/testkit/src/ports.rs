//! Ports for servers that a test starts and restarts by number.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the system gives to outgoing connections: one of these would keep a server that
/// comes back from its port.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on; no other call in this process returns it soon.
pub fn free_port() -> u16 {
    // Processes begin at different places.
    let process = u16::try_from(std::process::id() % 997).unwrap_or(0).wrapping_mul(20);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + process.wrapping_add(step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
