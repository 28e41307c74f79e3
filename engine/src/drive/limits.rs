//! What holds for one source at one site: the operator's limits, the provider's, the source's warm-up.

use crate::clock::Clock;
use crate::config::{self, LimitsInForce};
use crate::core::Core;
use crate::domains::WayKey;
use crate::sources::{Day, SourceKey};
use queue::site_table::{LatencyLimits, MESSAGE_RATES_MAX, Rate, SiteLimits};
use ring::Ring;
use smtp_out::Protocol;
use std::sync::Arc;

/// The place of a warm-up's limit among an entry's rates of messages; the configured ones stand before it.
pub(crate) const WARM_UP: usize = MESSAGE_RATES_MAX - 1;

const _: () = assert!(config::RATES_MAX <= WARM_UP);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct SourceLimits {
    pub(crate) site: SiteLimits,
    /// The name of the provider's entry, and what it allows a source over all of its sites.
    pub(crate) provider: Option<(String, SiteLimits)>,
    pub(crate) sessions: Arc<smtp_out::Config>,
    pub(crate) recipients_max: usize,
    pub(crate) is_warming_up: bool,
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Asked once for each site and source, and at a reload.
    pub(crate) fn limits_of(&self, way: WayKey, source: SourceKey) -> SourceLimits {
        let (config, way) = (&self.settings.config, self.ways.get(way));
        let theirs = self.settings.providers.limits(way.provider);
        let in_force = config.shaping.in_force(way.host_names(), theirs, &config.delivery);
        let is_own = config.shaping.site_limits(way.host_names()).is_some();
        let provider = self.settings.providers.name(way.provider).filter(|_| !is_own);
        let mut site = SiteLimits { connections_max: in_force.connections_max, ..self.settings.site_limits };
        let mut of_provider = SiteLimits {
            connections_max: theirs.connections_max.unwrap_or(u32::MAX),
            slots_initial: theirs.connections_max.unwrap_or(u32::MAX),
            ..self.settings.site_limits
        };
        let counting = if provider.is_some() { &mut of_provider } else { &mut site };
        set_rates(counting, &in_force);
        // To a client that made the connection nothing goes from a source.
        let is_fetched = way.fetch.is_some();
        let warm_up = self.warm_up(source).filter(|_| !is_fetched);
        let per_connection = if is_fetched { 0 } else { in_force.messages_per_connection };
        counting.message_rates[WARM_UP] = warm_up;
        let here = config.local.as_ref().filter(|_| way.terms.protocol == Protocol::Mailboxes);
        if let Some(local) = here {
            return limits_here(local, self.settings.site_limits, self.settings.deliveries(local));
        }
        SourceLimits {
            site,
            provider: provider.map(|name| (format!("provider {name}"), of_provider)),
            sessions: self.settings.sessions(source, per_connection),
            recipients_max: in_force.recipients_per_transaction,
            is_warming_up: warm_up.is_some(),
        }
    }

    /// What the source may send to one provider in any 24 hours while it is new.
    fn warm_up(&self, source: SourceKey) -> Option<Rate> {
        let source = self.settings.sources.source(source)?;
        source.warm_up.as_ref()?.limit_on(Day::of(self.wall)).map(Rate::per_day)
    }

    /// A new day is a new step of every warm-up.
    pub(crate) fn run_warm_up(&mut self) {
        let today = Day::of(self.wall);
        if std::mem::replace(&mut self.today, today) == today || !self.settings.has_warm_up() {
            return;
        }
        self.limit_sites_anew();
    }
}

/// Of this machine's mailboxes: as many at a time as may be delivered, whichever core has them and however long they take, and
/// one recipient in each transaction: one may take an hour of a program, and nobody shall wait for his.
fn limits_here(local: &config::Local, site: SiteLimits, sessions: Arc<smtp_out::Config>) -> SourceLimits {
    let most = u32::try_from(local.sessions_max).unwrap_or(u32::MAX);
    let latency = LatencyLimits { max: None, factor: 0, ..LatencyLimits::default() };
    SourceLimits {
        site: SiteLimits { connections_max: most, slots_initial: most, latency, is_uneven: true, ..site },
        provider: None,
        sessions,
        recipients_max: 1,
        is_warming_up: false,
    }
}

fn set_rates(limits: &mut SiteLimits, in_force: &LimitsInForce) {
    let rate = |rate: &config::Rate| Rate { count: rate.count(), window: rate.window() };
    limits.connection_rate = in_force.connection_rate.as_ref().map(rate);
    for (place, configured) in limits.message_rates.iter_mut().zip(&in_force.message_rate) {
        *place = Some(rate(configured));
    }
}
