//! How many sessions there are: in all, from one address and from one network (/24, /64), over all cores.
//!
//! A session holds a [`Seat`] for as long as it lasts. Taking one costs two short locks, of shards that sessions from other
//! addresses seldom want at the same time; nothing is asked for a message. Bound: two entries a session, and
//! [`SESSIONS_MAX`] sessions.

use crate::config::bits_of;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whatever is configured.
const SESSIONS_MAX: u32 = 1 << 20;

const SHARDS: usize = 64;

/// The bits that count, in octets, since a number of this length would be padded; and how many, which tells the family too.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    bits: [u8; 16],
    prefix_len: u8,
}

impl Key {
    fn of(address: IpAddr, prefix_len: u8) -> Key {
        Key { bits: bits_of(address, prefix_len).to_ne_bytes(), prefix_len }
    }
}

/// Sessions at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SessionLimits {
    pub total: u32,
    pub per_address: u32,
    pub per_network: u32,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits { total: SESSIONS_MAX, per_address: u32::MAX, per_network: u32::MAX }
    }
}

/// What there are too many of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Full {
    Total,
    Address,
    Network,
}

/// See the module. One per process.
#[derive(Debug)]
pub struct Counts {
    total: AtomicU32,
    shards: Vec<Mutex<HashMap<Key, u32>>>,
    chance: RandomState,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            total: AtomicU32::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            chance: RandomState::new(),
        }
    }
}

/// One session's place, given up when it is dropped.
#[derive(Debug)]
pub struct Seat {
    counts: Arc<Counts>,
    /// Under which it is counted besides.
    address: Option<IpAddr>,
}

impl Counts {
    /// `address`: canonical; `None` for a process of this machine, which counts in the total alone.
    pub fn enter(self: &Arc<Counts>, address: Option<IpAddr>, limits: &SessionLimits) -> Result<Seat, Full> {
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        // From here on the seat takes back what was counted.
        let mut seat = Seat { counts: Arc::clone(self), address: None };
        if total >= limits.total.min(SESSIONS_MAX) {
            return Err(Full::Total);
        }
        let Some(address) = address else { return Ok(seat) };
        let [own, network] = keys(address);
        if !self.add(own, limits.per_address) {
            return Err(Full::Address);
        }
        if !self.add(network, limits.per_network) {
            self.take_back(own);
            return Err(Full::Network);
        }
        seat.address = Some(address);
        Ok(seat)
    }

    pub fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Sessions from that address, and from its network.
    pub fn of(&self, address: IpAddr) -> [u32; 2] {
        keys(address).map(|key| self.shard(key).lock().get(&key).copied().unwrap_or(0))
    }

    fn shard(&self, key: Key) -> &Mutex<HashMap<Key, u32>> {
        let hash = self.chance.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("below 64")]
    }

    /// False if there are so many already.
    fn add(&self, key: Key, most: u32) -> bool {
        let mut shard = self.shard(key).lock();
        let count = shard.get(&key).copied().unwrap_or(0);
        if count >= most {
            return false;
        }
        shard.insert(key, count + 1);
        true
    }

    fn take_back(&self, key: Key) {
        let mut shard = self.shard(key).lock();
        match shard.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                shard.remove(&key);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counts.total.fetch_sub(1, Ordering::Relaxed);
        for key in self.address.into_iter().flat_map(keys) {
            self.counts.take_back(key);
        }
    }
}

fn keys(address: IpAddr) -> [Key; 2] {
    let (whole, network) = if address.is_ipv4() { (32, 24) } else { (128, 64) };
    [Key::of(address, whole), Key::of(address, network)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_limit_is_its_own_and_a_refusal_counts_nothing() {
        let counts = Arc::new(Counts::default());
        let limits = SessionLimits { total: 4, per_address: 2, per_network: 3 };
        let mut seats: Vec<Seat> = Vec::new();
        seats.push(counts.enter(ip("192.0.2.1"), &limits).unwrap());
        seats.push(counts.enter(ip("192.0.2.1"), &limits).unwrap());
        assert_eq!(counts.enter(ip("192.0.2.1"), &limits).unwrap_err(), Full::Address);
        seats.push(counts.enter(ip("192.0.2.2"), &limits).unwrap());
        assert_eq!(counts.enter(ip("192.0.2.3"), &limits).unwrap_err(), Full::Network);
        seats.push(counts.enter(ip("198.51.100.1"), &limits).unwrap());
        assert_eq!(counts.enter(None, &limits).unwrap_err(), Full::Total);
        assert_eq!((counts.total(), counts.of(ip("192.0.2.1").unwrap())), (4, [2, 3]));
        drop(seats);
        assert_eq!((counts.total(), counts.of(ip("192.0.2.1").unwrap())), (0, [0, 0]));
        assert!(counts.shards.iter().all(|shard| shard.lock().is_empty()), "nothing stays behind");
    }

    #[test]
    fn a_network_of_ipv6_is_64_bits() {
        let counts = Arc::new(Counts::default());
        let _seats = ["2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:1::1"]
            .map(|address| counts.enter(ip(address), &SessionLimits::default()).unwrap());
        assert_eq!(counts.of(ip("2001:db8::1").unwrap()), [1, 2]);
        assert_eq!(counts.of(ip("2001:db8:0:1::1").unwrap()), [1, 1]);
    }

    #[test]
    fn cores_that_come_and_go_at_once_leave_nothing_behind() {
        let counts = Arc::new(Counts::default());
        let limits = SessionLimits { total: 1000, per_address: 3, per_network: 5 };
        std::thread::scope(|scope| {
            for core in 0..4_u8 {
                let (counts, limits) = (&counts, &limits);
                scope.spawn(move || {
                    for round in 0..2000_u16 {
                        let address = IpAddr::from([192, 0, 2, (round % 3) as u8 + core % 2]);
                        if let Ok(seat) = counts.enter(Some(address), limits) {
                            let [own, network] = counts.of(address);
                            assert!(own <= 3 && network <= 5);
                            drop(seat);
                        }
                    }
                });
            }
        });
        assert_eq!(counts.total(), 0);
        assert!(counts.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    proptest! {
        #[test]
        fn never_more_than_the_limits(events in proptest::collection::vec((0_u8..8, any::<bool>()), 1..200)) {
            let counts = Arc::new(Counts::default());
            let limits = SessionLimits { total: 10, per_address: 3, per_network: 7 };
            let mut seats: Vec<(IpAddr, Seat)> = Vec::new();
            for (host, is_new) in events {
                let address = IpAddr::from([192, 0, host / 4, host]);
                if is_new {
                    if let Ok(seat) = counts.enter(Some(address), &limits) {
                        seats.push((address, seat));
                    }
                } else if let Some(at) = seats.iter().position(|(other, _)| *other == address) {
                    seats.swap_remove(at);
                }
                let own = seats.iter().filter(|(other, _)| *other == address).count();
                prop_assert_eq!(counts.total() as usize, seats.len());
                prop_assert_eq!(counts.of(address)[0] as usize, own);
                prop_assert!(seats.len() <= 10 && own <= 3 && counts.of(address)[1] <= 7);
            }
        }
    }
}
