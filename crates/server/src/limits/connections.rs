//! How many connections are open, in all and from one address.

use super::Refused;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
pub struct Connections(Mutex<Open>);

#[derive(Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// One open connection.
pub struct Slot {
    connections: Arc<Connections>,
    ip: IpAddr,
}

impl Connections {
    pub fn open(
        self: &Arc<Connections>,
        ip: IpAddr,
        most: usize,
        most_per_ip: Option<usize>,
    ) -> Result<Slot, Refused> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if open.total >= most || most_per_ip.is_some_and(|it| of_ip >= it) {
            return Err(Refused::Connections);
        }
        open.total += 1;
        open.by_ip.insert(ip, of_ip + 1);
        Ok(Slot { connections: self.clone(), ip })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        match open.by_ip.get_mut(&self.ip) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                open.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back() {
        let connections = Arc::new(Connections::default());
        let [one, two] = [1, 2].map(|it| IpAddr::from([192, 0, 2, it]));
        let open = |ip| connections.open(ip, 3, Some(2));
        let first = open(one).unwrap();
        let _second = open(one).unwrap();
        assert!(open(one).is_err(), "two of one address");
        let third = open(two).unwrap();
        assert!(open(two).is_err(), "three in all");
        drop((first, third));
        assert!(open(one).is_ok());
        assert_eq!(connections.0.lock().unwrap().by_ip.len(), 1, "nothing is kept of who is gone");
    }
}
