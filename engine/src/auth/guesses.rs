//! How many wrong passwords a client may try, and how many may be tried for a user.
//!
//! Each attempt is counted before it is checked, and the count is taken back if it was right: so many guesses at once
//! are no more than one after another. A count fades away over its window. Who logged in right from an address before
//! is not held up by what others try on that user elsewhere.
//!
//! Bounds: counts stand in a table of fixed size, each name's in one place of two rows, and the lower one counts. Names
//! that share both places (one in 4 billion pairs) share their guesses; once very many guess, some innocent must wait.
//! [`FRIENDS_MAX`] friends; then none is added until old ones have gone.

use crate::config::Rate;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Places of a row.
const PLACES: usize = 1 << 16;

const ROWS: usize = 2;

/// Pairs of user and address that were right.
const FRIENDS_MAX: usize = 10_000;

/// For how long such a pair is remembered.
const FRIEND_FOR: Duration = Duration::from_secs(24 * 3600);

/// Keys of a user and an address together, as they come in an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Guesser {
    user: u64,
    address: Option<u64>,
}

/// An attempt that is counted. Dropped without [`Guesses::take_back`] it stays counted.
#[derive(Debug)]
pub(super) struct Counted {
    guesser: Guesser,
    limits: Limits,
}

impl Counted {
    /// One that was counted by an earlier step of the same login.
    pub(super) fn again(guesser: Guesser, limits: Limits) -> Counted {
        Counted { guesser, limits }
    }
}

/// What is allowed now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) per_address: Rate,
    pub(super) per_user: Rate,
}

/// See the module.
pub(super) struct Guesses {
    start: Instant,
    keys: RandomState,
    /// Microseconds from `start` at which all of a place's guesses have faded.
    addresses: Box<[AtomicU64]>,
    users: Box<[AtomicU64]>,
    friends: Mutex<HashMap<(u64, u64), Instant>>,
}

impl Guesses {
    pub(super) fn new(start: Instant) -> Guesses {
        let table = || (0..PLACES * ROWS).map(|_| AtomicU64::new(0)).collect();
        let (keys, friends) = (RandomState::new(), Mutex::default());
        Guesses { start, keys, addresses: table(), users: table(), friends }
    }

    pub(super) fn guesser(&self, user: &str, address: Option<IpAddr>) -> Guesser {
        let address = address.map(|address| self.keys.hash_one(net_of(address)));
        Guesser { user: self.keys.hash_one(user), address }
    }

    /// Counts one guess. `None`: there were too many.
    pub(super) fn count(&self, now: Instant, guesser: Guesser, limits: Limits) -> Option<Counted> {
        let at = self.micros(now);
        let is_friend = self.is_friend(now, guesser);
        let users = (!is_friend).then_some(guesser.user);
        if guesser.address.is_some_and(|key| is_full(&self.addresses, key, limits.per_address, at))
            || users.is_some_and(|key| is_full(&self.users, key, limits.per_user, at))
        {
            return None;
        }
        add(&self.addresses, guesser.address, limits.per_address, at);
        add(&self.users, Some(guesser.user), limits.per_user, at);
        Some(Counted { guesser, limits })
    }

    /// Counts a wrong secret that is no user's, such as a token. False: there were too many before it.
    pub(super) fn count_address(&self, now: Instant, address: IpAddr, per_address: Rate) -> bool {
        let (key, at) = (self.keys.hash_one(net_of(address)), self.micros(now));
        let is_allowed = !is_full(&self.addresses, key, per_address, at);
        if is_allowed {
            add(&self.addresses, Some(key), per_address, at);
        }
        is_allowed
    }

    /// It was no wrong guess. `was_right`: the pair is a friend from now on.
    pub(super) fn take_back(&self, now: Instant, counted: &Counted, was_right: bool) {
        let Counted { guesser, limits } = counted;
        take(&self.addresses, guesser.address, limits.per_address);
        take(&self.users, Some(guesser.user), limits.per_user);
        if was_right {
            self.befriend(now, *guesser);
        }
    }

    fn is_friend(&self, now: Instant, guesser: Guesser) -> bool {
        let Some(address) = guesser.address else { return false };
        self.friends.lock().get(&(guesser.user, address)).is_some_and(|until| now < *until)
    }

    fn befriend(&self, now: Instant, guesser: Guesser) {
        let Some(address) = guesser.address else { return };
        let mut friends = self.friends.lock();
        let pair = (guesser.user, address);
        if friends.len() >= FRIENDS_MAX && !friends.contains_key(&pair) {
            friends.retain(|_, until| now < *until);
        }
        if friends.len() < FRIENDS_MAX || friends.contains_key(&pair) {
            friends.insert(pair, now + FRIEND_FOR);
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Where a name's guesses stand.
fn places(key: u64) -> [usize; ROWS] {
    let place = |bits: u64| usize::try_from(bits).expect("16 bits") & (PLACES - 1);
    [place(key & 0xffff), PLACES + place(key >> 16 & 0xffff)]
}

/// What one guess adds: after so long it has faded.
fn step(rate: Rate) -> u64 {
    window(rate) / u64::from(rate.count())
}

fn window(rate: Rate) -> u64 {
    u64::try_from(rate.window().as_micros()).unwrap_or(u64::MAX)
}

/// One more would be more than the rate has.
fn is_full(table: &[AtomicU64], key: u64, rate: Rate, at: u64) -> bool {
    let lowest = places(key).map(|place| table[place].load(Ordering::Relaxed)).into_iter().min();
    lowest.unwrap_or(0).saturating_sub(at) + step(rate) > window(rate)
}

fn add(table: &[AtomicU64], key: Option<u64>, rate: Rate, at: u64) {
    for place in key.into_iter().flat_map(places) {
        // Never more than two windows ahead: a place that several share must not stay full for long.
        let more = |until: u64| Some((until.max(at) + step(rate)).min(at + 2 * window(rate)));
        let _ = table[place].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

fn take(table: &[AtomicU64], key: Option<u64>, rate: Rate) {
    for place in key.into_iter().flat_map(places) {
        let less = |until: u64| Some(until.saturating_sub(step(rate)));
        let _ = table[place].fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// A client has a whole /64 to come from.
pub(crate) fn net_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: fn() -> Limits = || Limits {
        per_address: Rate::try_from("3/10min".to_owned()).unwrap(),
        per_user: Rate::try_from("5/10min".to_owned()).unwrap(),
    };

    fn guess(guesses: &Guesses, secs: u64, user: &str, address: &str) -> bool {
        let guesser = guesses.guesser(user, Some(address.parse().unwrap()));
        guesses.count(guesses.start + Duration::from_secs(secs), guesser, LIMITS()).is_some()
    }

    #[test]
    fn an_address_has_its_guesses_and_gets_them_back_one_by_one() {
        let guesses = Guesses::new(crate::clock::now());
        for user in ["a", "b", "c"] {
            assert!(guess(&guesses, 0, user, "192.0.2.1"));
        }
        assert!(!guess(&guesses, 0, "d", "192.0.2.1") && guess(&guesses, 0, "d", "192.0.2.2"));
        assert!(!guess(&guesses, 199, "d", "192.0.2.1") && guess(&guesses, 200, "d", "192.0.2.1"));
        assert!(!guess(&guesses, 201, "d", "192.0.2.1"));
    }

    #[test]
    fn wrong_tokens_and_wrong_passwords_of_an_address_add_up() {
        let guesses = Guesses::new(crate::clock::now());
        let address = "192.0.2.1".parse().unwrap();
        let token = || guesses.count_address(guesses.start, address, LIMITS().per_address);
        assert!(token() && guess(&guesses, 0, "a", "192.0.2.1") && token());
        assert!(!token() && !guess(&guesses, 0, "b", "192.0.2.1"));
        assert!(guess(&guesses, 0, "b", "192.0.2.2"));
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let guesses = Guesses::new(crate::clock::now());
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"] {
            assert!(guess(&guesses, 0, address, address));
        }
        assert!(!guess(&guesses, 0, "u", "2001:db8::9") && guess(&guesses, 0, "u", "2001:db8:0:1::9"));
        assert!(guess(&guesses, 0, "v", "::ffff:192.0.2.1"), "an IPv4 client by another spelling");
    }

    #[test]
    fn guesses_at_a_user_add_up_over_addresses_but_do_not_lock_its_owner_out() {
        let guesses = Guesses::new(crate::clock::now());
        let own = guesses.guesser("ann", Some("198.51.100.1".parse().unwrap()));
        let counted = guesses.count(guesses.start, own, LIMITS()).unwrap();
        guesses.take_back(guesses.start, &counted, true);
        for last in 1..=5 {
            assert!(guess(&guesses, 0, "ann", &format!("192.0.2.{last}")));
        }
        assert!(!guess(&guesses, 0, "ann", "192.0.2.6"), "a sixth address");
        assert!(guess(&guesses, 0, "ann", "198.51.100.1"), "where ann logged in before");
        assert!(!guess(&guesses, 0, "ann", "198.51.100.2"));
        let day = 24 * 3600;
        assert!(guess(&guesses, day, "ann", "192.0.2.6"), "by then all have faded");
    }

    #[test]
    fn right_passwords_are_not_counted() {
        let guesses = Guesses::new(crate::clock::now());
        for _ in 0..100 {
            let guesser = guesses.guesser("ann", Some("192.0.2.1".parse().unwrap()));
            let counted = guesses.count(guesses.start, guesser, LIMITS()).expect("none was wrong");
            guesses.take_back(guesses.start, &counted, false);
        }
    }

    #[test]
    fn friends_have_a_bound() {
        let guesses = Guesses::new(crate::clock::now());
        for number in 0..FRIENDS_MAX as u64 + 5 {
            guesses.befriend(guesses.start, Guesser { user: number, address: Some(1) });
        }
        assert_eq!(guesses.friends.lock().len(), FRIENDS_MAX);
        let later = guesses.start + FRIEND_FOR;
        guesses.befriend(later, Guesser { user: u64::MAX, address: Some(1) });
        assert_eq!(guesses.friends.lock().len(), 1);
    }
}
