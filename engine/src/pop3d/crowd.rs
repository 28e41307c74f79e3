//! How many sessions there are, of all clients and of each.
//!
//! Bound: as many entries as there are sessions.

use crate::auth::net_of;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Crowd {
    sessions_max: usize,
    per_address_max: usize,
    here: Mutex<Here>,
}

#[derive(Debug, Default)]
struct Here {
    count: usize,
    by_net: HashMap<IpAddr, usize>,
}

/// A session's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    net: IpAddr,
}

impl Crowd {
    pub(super) fn new(sessions_max: usize, per_address_max: usize) -> Crowd {
        Crowd { sessions_max, per_address_max, here: Mutex::default() }
    }

    /// `None`: there are too many.
    pub(super) fn enter(self: &Arc<Crowd>, address: IpAddr) -> Option<Place> {
        let net = net_of(address);
        let mut here = self.here.lock();
        let own = here.by_net.get(&net).copied().unwrap_or(0);
        if here.count >= self.sessions_max || own >= self.per_address_max {
            return None;
        }
        here.count += 1;
        here.by_net.insert(net, own + 1);
        Some(Place { crowd: Arc::clone(self), net })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut here = self.crowd.here.lock();
        here.count -= 1;
        match here.by_net.get_mut(&self.net) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(here.by_net.remove(&self.net)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let crowd = Arc::new(Crowd::new(3, 2));
        let enter = |address: &str| crowd.enter(address.parse().unwrap());
        let (first, second) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none(), "a third of one client");
        let third = enter("2001:db8::1").unwrap();
        assert!(enter("192.0.2.2").is_none(), "a fourth of all");
        drop(third);
        let third = enter("2001:db8::2").unwrap();
        drop((first, second));
        let fourth = enter("2001:db8::3").unwrap();
        assert!(enter("2001:db8::4").is_none(), "the same /64");
        drop((third, fourth));
        assert!(crowd.here.lock().by_net.is_empty());
    }
}
