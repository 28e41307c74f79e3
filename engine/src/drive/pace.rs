//! How fast one source may send to one site: leases on connections, tokens for messages.
//!
//! Two entries of the shared table may have a say: the site's own (connections, back-off, what the operator wrote
//! for it), and its provider's, which counts what goes from this source to all sites of the provider, and its
//! warm-up. Both must agree. Bound: [`TOKENS_WANTED`] tokens of each in hand.

use queue::site_table::{Health, Lease, Site, SiteLimits, Tokens, Why};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;
use std::time::Instant;

/// Transactions that a core may begin before it asks the site table again, where there are rates.
const TOKENS_WANTED: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The site's own entry, and its provider's.
    meters: SmallVec<[Meter; 1]>,
}

#[derive(Debug)]
struct Meter {
    entry: Arc<Site>,
    /// Transactions that may begin, and until when, where there are rates.
    tokens: Option<(u32, Instant)>,
}

impl Meter {
    fn new(entry: Arc<Site>) -> Meter {
        Meter { entry, tokens: None }
    }
}

/// The answer to whether a transaction may begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Begin {
    Now,
    /// Not before then; `None`: until limits change.
    Later(Option<Instant>),
}

impl Pace {
    pub(crate) fn new(site: Arc<Site>, provider: Option<Arc<Site>>) -> Pace {
        let mut meters: SmallVec<[Meter; 1]> = smallvec![Meter::new(site)];
        meters.extend(provider.map(Meter::new));
        Pace { meters }
    }

    /// The site's own entry.
    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.meters[0].entry
    }

    /// The entry that counts what the provider allows a source: the provider's, or the site's if it has none.
    pub(crate) fn provider(&self) -> &Arc<Site> {
        &self.meters[self.meters.len() - 1].entry
    }

    /// True if what one of them has, the other has not.
    pub(crate) fn shares_with(&self, other: &Pace) -> bool {
        self.meters
            .iter()
            .any(|meter| other.meters.iter().any(|theirs| Arc::ptr_eq(&meter.entry, &theirs.entry)))
    }

    /// New limits of both entries. One that was not there before comes with a new site.
    pub(crate) fn set_limits(&self, site: SiteLimits, provider: Option<SiteLimits>, now: Instant) {
        let limits = [Some(site), provider];
        for (meter, limits) in self.meters.iter().zip(limits) {
            if let Some(limits) = limits {
                meter.entry.set_limits(limits, now);
            }
        }
    }

    /// May one more connection be opened? What is granted must be given back.
    pub(crate) fn lease(&self, core: usize, cores: usize, now: Instant) -> Lease {
        for (at, meter) in self.meters.iter().enumerate() {
            let lease = meter.entry.lease(core, cores, now);
            if lease != Lease::Granted {
                self.meters[..at].iter().for_each(|meter| meter.entry.give_back(core));
                return lease;
            }
        }
        Lease::Granted
    }

    pub(crate) fn give_back(&self, core: usize) {
        self.meters.iter().for_each(|meter| meter.entry.give_back(core));
    }

    /// May one more transaction begin? One look at each entry, and a lock once a batch.
    pub(crate) fn may_begin(&mut self, now: Instant) -> Begin {
        for meter in &mut self.meters {
            let has_token = meter.tokens.is_some_and(|(count, until)| count > 0 && now < until);
            if has_token || !meter.entry.is_rated() {
                continue;
            }
            if let Some((count, until)) = meter.tokens.take() {
                meter.entry.give_back_tokens(count, until);
            }
            match meter.entry.take(now, TOKENS_WANTED) {
                Tokens::Unlimited => {}
                Tokens::Granted { count, until } => meter.tokens = Some((count, until)),
                Tokens::Wait { until } => {
                    meter.tokens = None;
                    return Begin::Later(until);
                }
            }
        }
        Begin::Now
    }

    /// A transaction begins.
    pub(crate) fn use_token(&mut self) {
        for meter in &mut self.meters {
            if let Some((count, _)) = &mut meter.tokens {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// What a site without work has left, another may need.
    pub(crate) fn give_back_tokens(&mut self) {
        for meter in &mut self.meters {
            if let Some((count, until)) = meter.tokens.take() {
                meter.entry.give_back_tokens(count, until);
            }
        }
    }

    /// What deliveries show of both. Returns until when the site waits, if this made it wait.
    pub(crate) fn report(&self, now: Instant, health: Health) -> Option<Instant> {
        match health {
            // One site's dead hosts are not its provider's.
            Health::HostFailed => self.site().report(now, health),
            Health::Suspended { .. } | Health::Blocked { .. } | Health::Slower { .. } => {
                self.provider().report(now, health)
            }
            Health::Works { .. } | Health::Throttled => {
                let untils = self.meters.iter().map(|meter| meter.entry.report(now, health));
                untils.fold(None, Option::max)
            }
        }
    }

    /// Why nothing goes there from this source, if that is not a rate. That the source is blocked counts before all else:
    /// others of its pool may go instead.
    pub(crate) fn holds(&self, now: Instant) -> Option<Why> {
        let whys = self.meters.iter().filter_map(|meter| meter.entry.snapshot(now).hold).map(|hold| hold.why);
        whys.max_by_key(|why| *why == Why::Blocked)
    }
}
