//! One site's entry: its state behind its lock, and what can be asked without it.

use super::CORES_MAX;
use super::limits::SiteLimits;
use super::snapshot::SiteSnapshot;
use super::state::{Health, Lease, State, Tokens};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use std::time::Instant;

/// One site from one source.
#[derive(Debug)]
pub struct Site {
    /// The site's name and the source's behind it.
    names: Box<str>,
    name_len: u32,
    /// Read without the lock. The strictest order costs these two nothing, and it is what the model test checks.
    is_rated: AtomicBool,
    /// Cores that were told `Full` and not yet woken, a bit each. Set under the lock.
    refused: AtomicU64,
    state: Mutex<State>,
}

const _: () = assert!(CORES_MAX <= u64::BITS as usize);

impl Site {
    pub(super) fn new(name: &str, source: &str, limits: &SiteLimits, now: Instant) -> Site {
        let state = State::new(limits, now);
        Site {
            names: [name, source].concat().into(),
            name_len: u32::try_from(name.len()).expect("names are short"),
            is_rated: AtomicBool::new(state.is_rated()),
            refused: AtomicU64::new(0),
            state: Mutex::new(state),
        }
    }

    pub fn name(&self) -> &str {
        &self.names[..self.name_len as usize]
    }

    /// The name of the source that its mail comes from.
    pub fn source(&self) -> &str {
        &self.names[self.name_len as usize..]
    }

    /// May `core` of `cores` open one more connection? What is granted must be given back. It counted in
    /// the connection rate: it is opened within a 128th of that rate's window, and a second at most.
    ///
    /// One lock, no allocation but the first of a core beyond the eighth.
    pub fn lease(&self, core: usize, cores: usize, now: Instant) -> Lease {
        let mut state = self.state.lock();
        let lease = state.lease(core, cores, now);
        if lease == Lease::Full {
            self.refused.fetch_or(1 << core, Ordering::SeqCst);
        }
        self.mark(&state);
        lease
    }

    pub fn give_back(&self, core: usize) {
        self.state.lock().give_back(core);
    }

    /// Cores other than `but` that were told `Full` since this was last asked. Ask after [`Site::give_back`] and
    /// after a report that things work: each of them may get a connection now. No lock.
    pub fn refused(&self, but: usize) -> impl Iterator<Item = usize> + use<> {
        // Who was refused before a connection came back is seen here, by the order of the lock.
        let refused = match self.refused.load(Ordering::SeqCst) {
            0 => 0,
            _ => self.refused.swap(0, Ordering::SeqCst) & !(1 << but),
        };
        (0..CORES_MAX).filter(move |core| refused >> core & 1 == 1)
    }

    /// The operator wants nothing to go there: its limit of connections is 0.
    pub fn is_held(&self) -> bool {
        self.state.lock().is_held()
    }

    /// The core with the most connections, other than `but`.
    pub fn holder(&self, but: usize) -> Option<usize> {
        self.state.lock().holder(but)
    }

    /// True if [`Site::take`] must be asked before a message goes: a rate applies, or the site is suspended or held.
    /// No lock.
    pub fn is_rated(&self) -> bool {
        self.is_rated.load(Ordering::SeqCst)
    }

    /// Asks for up to `want` messages (transactions), over all cores' rates.
    ///
    /// One lock; at most four windows of 144 entries are looked at, and mostly the first few of each.
    pub fn take(&self, now: Instant, want: u32) -> Tokens {
        let mut state = self.state.lock();
        let tokens = state.take(now, want);
        self.mark(&state);
        tokens
    }

    /// `count` messages of the grant that was good until `until` were not sent, and never will be.
    pub fn give_back_tokens(&self, count: u32, until: Instant) {
        self.state.lock().give_back_tokens(until, count);
    }

    /// `count` messages went before `at`, in an earlier run: they count in the rate with this index of
    /// [`SiteLimits::message_rates`], if there is one.
    pub fn restore_used(&self, index: usize, count: u32, at: Instant) {
        self.state.lock().restore_used(index, count, at);
    }

    /// Returns until when the site waits, if this report made it wait.
    pub fn report(&self, now: Instant, health: Health) -> Option<Instant> {
        let mut state = self.state.lock();
        let until = state.report(now, health);
        self.mark(&state);
        until
    }

    /// An operator wants it tried now: no wait, no suspension, and the next back-off begins at the first step. Rates
    /// hold.
    pub fn lift_back_off(&self) {
        let mut state = self.state.lock();
        state.lift_waits();
        self.mark(&state);
    }

    /// New limits, from a reload. They hold at once, over what was used before as well, where a rate covers it: one of
    /// the same or a shorter window than a rate before. Connections over a lowered limit end by themselves.
    pub fn set_limits(&self, limits: SiteLimits, now: Instant) {
        let mut state = self.state.lock();
        state.set_limits(&limits, now);
        self.mark(&state);
    }

    pub fn snapshot(&self, now: Instant) -> SiteSnapshot {
        self.state.lock().snapshot(now)
    }

    pub(super) fn remembers(&self, now: Instant) -> bool {
        self.state.lock().remembers(now)
    }

    /// Under the lock, so that the last change is what is seen.
    fn mark(&self, state: &State) {
        let is_rated = state.is_rated();
        if self.is_rated.load(Ordering::SeqCst) != is_rated {
            self.is_rated.store(is_rated, Ordering::SeqCst);
        }
    }
}
