//! How fast mail may come: token buckets over all cores, by client address, login and sender.
//!
//! A bucket holds a rate's count and fills in the rate's window, so its count may go at once, and never more than twice as
//! much in one window. It is kept as the one moment at which it would be full again. Buckets are known by a keyed hash of
//! what they are for: nobody outside can make two collide. Pure: the caller passes `now`.
//! Bound: [`BUCKETS_MAX`] buckets; past it those that are full go, then those that will be full first.

use crate::config::Rate;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub const BUCKETS_MAX: usize = SHARDS * SHARD_MAX;

const SHARDS: usize = 64;
const SHARD_MAX: usize = 2048;

/// Whose rate it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Whose<'a> {
    /// Of IPv6 the /64.
    Address(IpAddr),
    Login(&'a str),
    /// A process of this machine, by its user.
    Uid(u32),
    /// In lower case.
    Sender(&'a str),
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum What {
    Messages,
    Recipients,
}

/// See the module. One per process.
#[derive(Debug)]
pub struct Rates {
    /// When each bucket is full again.
    shards: Vec<Mutex<HashMap<u64, Instant>>>,
    chance: RandomState,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), chance: RandomState::new() }
    }
}

impl Rates {
    /// Takes one token. `Err`: how long until there is one. One lock, no allocation but for a new bucket.
    pub fn take(&self, whose: Whose<'_>, what: What, rate: Rate, now: Instant) -> Result<(), Duration> {
        let (step, window) = (rate.window() / rate.count(), rate.window());
        let (key, shard) = self.place(whose, what);
        let mut buckets = shard.lock();
        let full_at = buckets.get(&key).map_or(now, |full_at| (*full_at).max(now)) + step;
        // Rounding may make the steps of a whole bucket a little shorter than the window, never longer.
        let empty_until = full_at.saturating_duration_since(now).saturating_sub(window);
        if !empty_until.is_zero() {
            return Err(empty_until);
        }
        make_room(&mut buckets, key, now);
        buckets.insert(key, full_at);
        Ok(())
    }

    /// The token was not needed after all.
    pub fn give_back(&self, whose: Whose<'_>, what: What, rate: Rate) {
        let (key, shard) = self.place(whose, what);
        if let Some(full_at) = shard.lock().get_mut(&key)
            && let Some(earlier) = full_at.checked_sub(rate.window() / rate.count())
        {
            *full_at = earlier;
        }
    }

    fn place(&self, whose: Whose<'_>, what: What) -> (u64, &Mutex<HashMap<u64, Instant>>) {
        let key = self.chance.hash_one((network_of(whose), what));
        (key, &self.shards[usize::try_from(key % SHARDS as u64).expect("below 64")])
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// Whoever has one address of IPv6 has a /64 of them.
fn network_of(whose: Whose<'_>) -> Whose<'_> {
    match whose {
        Whose::Address(IpAddr::V6(address)) => {
            Whose::Address(IpAddr::V6((u128::from(address) >> 64 << 64).into()))
        }
        Whose::Address(IpAddr::V4(_)) | Whose::Login(_) | Whose::Uid(_) | Whose::Sender(_) => whose,
    }
}

/// A quarter goes at once: so a flood of new names costs each of them little.
fn make_room(buckets: &mut HashMap<u64, Instant>, key: u64, now: Instant) {
    if buckets.len() < SHARD_MAX || buckets.contains_key(&key) {
        return;
    }
    buckets.retain(|_, full_at| *full_at > now);
    if buckets.len() > SHARD_MAX / 4 * 3 {
        let mut times: Vec<Instant> = buckets.values().copied().collect();
        let (_, quarter, _) = times.select_nth_unstable(SHARD_MAX / 4);
        let quarter = *quarter;
        buckets.retain(|_, full_at| *full_at > quarter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> Rate {
        Rate::try_from(text.to_owned()).unwrap()
    }

    fn ann() -> Whose<'static> {
        Whose::Login("ann")
    }

    #[test]
    fn the_count_goes_at_once_and_comes_back_with_time() {
        let (rates, rate, start) = (Rates::default(), rate("3/min"), Instant::now());
        for _ in 0..3 {
            assert_eq!(rates.take(ann(), What::Messages, rate, start), Ok(()));
        }
        assert_eq!(rates.take(ann(), What::Messages, rate, start), Err(Duration::from_secs(20)));
        assert_eq!(rates.take(ann(), What::Recipients, rate, start), Ok(()), "another bucket");
        assert_eq!(rates.take(Whose::Sender("ann"), What::Messages, rate, start), Ok(()), "another bucket");
        let later = start + Duration::from_secs(20);
        assert_eq!(rates.take(ann(), What::Messages, rate, later), Ok(()));
        assert_eq!(rates.take(ann(), What::Messages, rate, later), Err(Duration::from_secs(20)));
        rates.give_back(ann(), What::Messages, rate);
        assert_eq!(rates.take(ann(), What::Messages, rate, later), Ok(()));
    }

    #[test]
    fn a_64_of_ipv6_is_one_client() {
        let (rates, start) = (Rates::default(), Instant::now());
        let take = |address: &str| {
            rates.take(Whose::Address(address.parse().unwrap()), What::Messages, rate("1/h"), start)
        };
        assert!(
            take("2001:db8::1").is_ok() && take("2001:db8::2").is_err() && take("2001:db8:0:1::1").is_ok()
        );
        assert!(take("192.0.2.1").is_ok() && take("192.0.2.2").is_ok());
    }

    #[test]
    fn past_the_bound_those_that_are_full_go_first() {
        let (rates, start) = (Rates::default(), Instant::now());
        let take = |uid: u32, rate: Rate, now: Instant| {
            rates.take(Whose::Uid(uid), What::Messages, rate, now).unwrap();
        };
        let flood = u32::try_from(BUCKETS_MAX * 2).unwrap();
        for uid in 0..flood {
            take(uid, rate("1/s"), start);
        }
        assert!(rates.len() <= BUCKETS_MAX);
        rates.take(ann(), What::Messages, rate("1/d"), start).unwrap();
        let later = start + Duration::from_secs(2);
        for uid in 0..flood {
            take(flood + uid, rate("1/s"), later);
        }
        assert!(rates.len() <= BUCKETS_MAX);
        assert!(
            rates.take(ann(), What::Messages, rate("1/d"), later).is_err(),
            "the slowest bucket is still known"
        );
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_twice_the_count(
            count in 1_u32..20,
            gaps in proptest::collection::vec(0_u64..2000, 1..200),
        ) {
            let (rates, start) = (Rates::default(), Instant::now());
            let rate = rate(&format!("{count}/10s"));
            let (mut now, mut taken) = (start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                match rates.take(ann(), What::Messages, rate, now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert!(wait <= rate.window());
                        prop_assert!(rates.take(ann(), What::Messages, rate, now + wait).is_ok());
                        taken.push(now + wait);
                        now += wait;
                    }
                }
            }
            for first in &taken {
                let within = taken.iter().filter(|at| *at >= first && **at < *first + rate.window()).count();
                prop_assert!(within <= 2 * count as usize);
            }
        }
    }
}
