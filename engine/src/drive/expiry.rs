//! The end of mail's life, wherever it waits for something else than its time; and word to the sender of mail that
//! waits long at a site that fails.
//!
//! | a range past its lifetime | what becomes of it |
//! |---|---|
//! | in the schedule | is due at the end of its lifetime, for its last attempt: see `RetryPolicy::next` |
//! | at a site whose hosts fail | the failed connection was its last attempt: it fails with that reply |
//! | at a site that is full, or serves others first | has [`Core::grace_secs`] more for its last attempt, then fails with 4.4.7 |
//! | at a site that is held | waits on. A hold is the operator's wish, and the mail's age is no answer to it: qmail and Postfix do not expire held mail either. Released, it has its last attempt |
//! | for its turn on a connection by which it is fetched | has its last attempt there |
//! | for a name server's answer | has the same grace, then fails with 4.4.7; the question is asked again |
//! | lent to another core | the borrower looks at it as at its own; a chunk that no core has time for is taken once a minute |
//! | being read, or unreadable | `letters.rs`: with its envelope it fails, without it stays and the log says so |
//! | in flight | the session's time-outs end it, and its verdict is the last |
//! | failed, without a durable bounce | stays owed until there is one |
//!
//! Cost: one comparison a turn, and once a second a look at no more than [`LOOKS_MAX`] ranges, sites and domains
//! (some 0.1 ms), going on where the last look ended. A core with a million ranges ready goes round in four minutes,
//! so that is how late an end may be seen; what was found takes its place out of the queue at a cost that grows with
//! the shorter side of it.

use crate::clock::Clock;
use crate::core::{Core, Stop};
use crate::domains::{Routed, SiteKey};
use crate::drive::share::Shares;
use message::{Reply, UnixMillis, Verdict, Wanted};
use queue::Range;
use queue::range::DomainKey;
use queue::store::Store;
use ring::Ring;
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What a look costs at most.
const LOOKS_MAX: usize = 4096;

/// A chunk on offer is taken after this long, by a core that has other work.
const CHUNK_EVERY: Duration = Duration::from_secs(60);

/// Least time past its lifetime in which mail may still have its last attempt.
const GRACE_MIN_SECS: u64 = 3600;

/// Where the next look begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cursor {
    /// A site's number, and a place in its queue.
    Site(u32, usize),
    Domain(u32),
}

const START: Cursor = Cursor::Site(0, 0);

/// See the module.
#[derive(Debug)]
pub(crate) struct Expiry {
    begun: Instant,
    next: Instant,
    next_chunk: Instant,
    at: Cursor,
}

impl Expiry {
    pub(crate) fn new(now: Instant) -> Expiry {
        Expiry { begun: now, next: now + EVERY, next_chunk: now + CHUNK_EVERY, at: START }
    }
}

/// When the range's message came, whoever owns it.
fn born(store: &Store, shares: &Shares, range: &Range) -> Option<UnixMillis> {
    let own = store.get(range.message).map(|queued| queued.arrived());
    own.or_else(|| shares.letter(range.message).map(|letter| letter.arrived))
}

/// Whether somebody of the range may want to be told of a delay, as far as that can be known without its names.
pub(crate) fn delay_wanted(store: &Store, shares: &Shares, range: &Range) -> Wanted {
    let own = store.get(range.message).map(|queued| queued.layout().asked);
    let borrowed = || shares.letter(range.message).map(|letter| letter.asked.is_some());
    if own.or_else(borrowed).unwrap_or(false) { Wanted::Yes } else { Wanted::Unsaid }
}

impl<R: Ring, C: Clock> Core<R, C> {
    pub(crate) fn run_expiry(&mut self) {
        if self.now < self.expiry.next || self.halted || self.stop != Stop::Running {
            return;
        }
        self.expiry.next = self.now + EVERY;
        if self.now >= self.expiry.next_chunk {
            self.expiry.next_chunk = self.now + CHUNK_EVERY;
            self.take_waiting_chunk();
        }
        let mut looks = LOOKS_MAX;
        while looks > 0 {
            let (next, looked) = match self.expiry.at {
                Cursor::Site(site, from) => self.look_at_site(SiteKey(site), from, looks),
                Cursor::Domain(domain) => self.look_at_domain(DomainKey(domain), looks),
            };
            self.expiry.at = next;
            if next == START {
                return;
            }
            looks = looks.saturating_sub(looked.max(1));
        }
    }

    /// How long past its lifetime mail may wait for its last attempt where others are served: a seventh of the
    /// lifetime, which is a day of qmail's week.
    fn grace_secs(&self) -> u64 {
        (self.settings.retry.lifetime_secs / 7).max(GRACE_MIN_SECS)
    }

    /// Mail that came before this has had its lifetime and the grace. None has while we have not run for as long:
    /// mail that grew old while we were down has its last attempt too.
    fn too_late_before(&self) -> UnixMillis {
        let grace = self.grace_secs();
        if self.now < self.expiry.begun + Duration::from_secs(grace) {
            return UnixMillis(0);
        }
        let span = grace.saturating_add(self.settings.retry.lifetime_secs);
        UnixMillis(self.wall.0.saturating_sub(span.saturating_mul(1000)))
    }

    /// Looks at up to `most` ranges of a site's queue. Returns where to go on, and how many it looked at.
    fn look_at_site(&mut self, key: SiteKey, from: usize, most: usize) -> (Cursor, usize) {
        if key.0 >= self.sites.places() {
            return (Cursor::Domain(0), 1);
        }
        let next = Cursor::Site(key.0 + 1, 0);
        let Some(site) = self.sites.try_get(key) else { return (next, 1) };
        let way = self.ways.get(site.way);
        if !site.lanes.has_work() || site.is_held() || way.is_held() || way.fetch.is_some() {
            return (next, 1);
        }
        let trouble = site.trouble.clone();
        let (too_late, wall) = (self.too_late_before(), self.wall);
        let (store, shares, retry) = (&self.store, &self.shares, &self.settings.retry);
        let is_due = |range: &Range| {
            let Some(born) = born(store, shares, range) else { return false };
            let wants_warning = || {
                let wanted = delay_wanted(store, shares, range);
                retry.wants_warning(born, range.attempts, wall, wanted)
            };
            let is_told = || retry.is_over(born, wall) || wants_warning();
            born < too_late || trouble.is_some() && is_told()
        };
        let site = self.sites.get_mut(key);
        let before = site.lanes.waiting();
        let (looked, ranges) = site.lanes.take_out(from, most, is_due);
        let after = site.lanes.waiting();
        let place = (from + looked).saturating_sub(before - after);
        let goes_on = place < after;
        let reply = trouble.unwrap_or_else(|| {
            Reply::ours(451, (4, 4, 7), "delivery time expired before a connection to the site was free")
        });
        for range in ranges {
            self.conclude_range(range, Verdict::Deferred(reply.clone()));
        }
        (if goes_on { Cursor::Site(key.0, place) } else { next }, looked)
    }

    /// Looks at up to `most` ranges that wait for an answer about a domain; those behind them have their turn when
    /// these are gone.
    fn look_at_domain(&mut self, key: DomainKey, most: usize) -> (Cursor, usize) {
        if key.0 >= self.domains.places() {
            return (START, 1);
        }
        let next = Cursor::Domain(key.0 + 1);
        let too_late = self.too_late_before();
        let (store, shares) = (&self.store, &self.shares);
        let is_due = |range: &Range| born(store, shares, range).is_some_and(|born| born < too_late);
        let Some(domain) = self.domains.try_get_mut(key) else { return (next, 1) };
        let looked = domain.waiting.len().min(most);
        if !domain.waiting[..looked].iter().any(is_due) {
            return (next, looked);
        }
        let rest = domain.waiting.split_off(looked);
        let (late, kept): (Vec<Range>, Vec<Range>) = domain.waiting.drain(..).partition(is_due);
        domain.waiting = [kept, rest].concat();
        // An answer that took this long was lost.
        (domain.routed, domain.is_asked) = (Routed::Unknown, false);
        if !domain.waiting.is_empty() {
            self.ask(key);
        }
        let text = "delivery time expired while the name servers were asked";
        for range in late {
            self.conclude_range(range, Verdict::Deferred(Reply::ours(451, (4, 4, 7), text)));
        }
        (next, looked)
    }
}
