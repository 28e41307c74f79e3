//! What a site may get now, in connections and messages: the one table that all cores share.
//!
//! A site is where mail for some domains goes: a normalised set of MX hosts, or a configured relay. Each source that
//! mail comes from has an entry of its own for it. It starts with `slots_initial` connections, gains one for each full
//! round of successes, loses one for each round while deliveries are slow, and halves after a host failure. One
//! step per delivery would overshoot: we would double twice before the first failure is back. Failures in a row
//! without a success make it wait, twice as long each time: a dead site is tried by one connection after each wait.
//!
//! A core takes a *lease* on connections and a batch of *tokens* for messages, and touches a site's lock per lease or
//! batch, not per delivery; each core may lease its share of the site, so that none starves. Rates are exact: never
//! one more in any window, over all cores. Pure: the caller passes `now`. Trusts nothing that a peer sent.
//!
//! Bound: `sites_max` entries and those that cores hold or that remember something; past it, sites without
//! connections, back-off, suspension or used rates go. About 250 bytes for an entry without rates, 540 with one that is
//! little used, at most 3.5 KB more for each that is much used.

mod limits;
mod pace;
mod site;
mod snapshot;
mod state;
mod window;

pub use limits::{LatencyLimits, MESSAGE_RATES_MAX, Rate, SiteLimits, WINDOW_MAX};
pub use site::Site;
pub use snapshot::{Hold, Latency, RateSnapshot, SiteSnapshot, Slower, Why};
pub use state::{Health, Lease, Tokens};

use crate::sync::{AtomicUsize, Mutex, Ordering};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

/// Most cores that can share the table.
pub const CORES_MAX: usize = 64;

/// Most shards: cores rarely meet on one of them.
const SHARDS_MAX: usize = 64;

/// A shard for as many sites, in a small table.
const SHARD_LEN: usize = 1024;

/// Entries that a new one looks at for one to forget, when the table is full.
const FORGET_PER_SITE: usize = 32;

/// All sites. Cores keep the `Arc` of a site that they deliver to, so the table's own locks are rarely taken.
#[derive(Debug)]
pub struct SiteTable {
    /// As many as a power of two.
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    len: AtomicUsize,
    sites_max: usize,
}

/// Sites whose names have a hash in common.
#[derive(Debug, Default)]
struct Shard {
    sites: HashTable<Arc<Site>>,
    /// The place of the next entry to look at for forgetting.
    hand: usize,
}

impl SiteTable {
    pub fn new(sites_max: usize) -> SiteTable {
        let shards = (sites_max / SHARD_LEN).next_power_of_two().min(SHARDS_MAX);
        SiteTable {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            sites_max,
        }
    }

    /// The entry for this site and source. A new one has these limits; one that is there keeps its own until
    /// [`Site::set_limits`].
    pub fn site(&self, name: &str, source: &str, limits: SiteLimits, now: Instant) -> Arc<Site> {
        let hash = self.hash(name, source);
        let mut shard = self.shard(hash).lock();
        let is_it = |site: &Arc<Site>| site.name() == name && site.source() == source;
        if let Some(site) = shard.sites.find(hash, is_it) {
            return Arc::clone(site);
        }
        if self.len.load(Ordering::SeqCst) >= self.sites_max {
            let forgotten = shard.forget(now);
            self.len.fetch_sub(forgotten, Ordering::SeqCst);
        }
        let site = Arc::new(Site::new(name, source, &limits, now));
        shard.sites.insert_unique(hash, Arc::clone(&site), |site| self.hash(site.name(), site.source()));
        self.len.fetch_add(1, Ordering::SeqCst);
        site
    }

    fn hash(&self, name: &str, source: &str) -> u64 {
        self.hasher.hash_one((name, source))
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The low bits choose a place in the shard's own table, the highest ones its tag.
        let at = (hash >> 32) as usize & (self.shards.len() - 1);
        &self.shards[at]
    }

    pub fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every site, shard by shard: to be looked at, in no order.
    pub fn all(&self) -> Vec<Arc<Site>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.lock().sites.iter().cloned());
        }
        all
    }
}

impl Shard {
    /// Forgets some that nobody holds and that remember nothing; how many.
    fn forget(&mut self, now: Instant) -> usize {
        let before = self.sites.len();
        for _ in 0..FORGET_PER_SITE.min(self.sites.num_buckets()) {
            let place = self.hand % self.sites.num_buckets();
            self.hand = place + 1;
            // Nobody can come to hold it meanwhile: they would need our lock.
            let is_idle = |site: &Arc<Site>| Arc::strong_count(site) == 1 && !site.remembers(now);
            if self.sites.get_bucket(place).is_some_and(is_idle)
                && let Ok(entry) = self.sites.get_bucket_entry(place)
            {
                entry.remove();
            }
        }
        before - self.sites.len()
    }
}
