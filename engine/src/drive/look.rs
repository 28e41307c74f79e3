//! Looks, answered on one core: what it has of sites, hosts and a domain; and the dialogues that an operator watches.
//!
//! A look over all sites goes [`SLICE`] of them a turn, so a delivery waits for a slice and never for the whole table; at
//! its end the rows that are shown are put together in one turn. Nothing is changed but what is forgotten.
//! Bounds: a look for each client of the control socket; [`ROWS_MAX`](crate::look::ask::ROWS_MAX) rows; [`RANGES_LOOKED_AT`] ranges of a site, the
//! others count one recipient each; [`TRACES_MAX`] tracers.

use crate::clock::Clock;
use crate::core::{Core, Place};
use crate::domains::{Domain, Routed, SiteKey};
use crate::drive::sites::LocalSite;
use crate::look::ask::{Meant, names_site};
use crate::look::call::{Call, DomainPart, Part, What, Which};
use crate::look::trace::{Direction, TRACES_MAX, TraceLine, Tracer, one_line};
use crate::look::view::{CoreView, HostRow, Limits, RouteView, RoutedView, SiteRow, SiteState};
use crate::routes::{RelayHost, To};
use message::Verdict;
use queue::range::DomainKey;
use queue::site_table::{Rate, SiteLimits, SiteSnapshot, Why};
use ring::Ring;
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sites looked at in one turn.
const SLICE: u32 = 1024;

/// Ranges of a site, or of what waits for a domain, whose recipients are counted one range at a time.
const RANGES_LOOKED_AT: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    under_way: VecDeque<Scan>,
    tracers: Vec<Arc<Tracer>>,
}

/// A look over all sites.
#[derive(Debug)]
struct Scan {
    call: Arc<Call>,
    /// The next site's number.
    place: u32,
    sites: Vec<Busy>,
    hosts: Vec<HostRow>,
    has_more: bool,
    forgotten: u64,
}

/// How busy a site is, the busiest the least.
type Busy = Reverse<(u32, u64, SiteKey)>;

impl Scan {
    /// Keeps so many sites. Linear.
    fn keep_busiest(&mut self, limit: usize) {
        if self.sites.len() > limit {
            self.sites.select_nth_unstable(limit);
            self.sites.truncate(limit);
            self.has_more = true;
        }
    }
}

impl Looks {
    fn is_watched(&self) -> bool {
        !self.tracers.is_empty()
    }

    /// One more watches, unless they went away again; those who did are forgotten.
    fn watch(&mut self, tracer: &Arc<Tracer>) {
        self.tracers.retain(|known| !known.is_over() && !Arc::ptr_eq(known, tracer));
        if !tracer.is_over() && self.tracers.len() < TRACES_MAX {
            self.tracers.push(Arc::clone(tracer));
        }
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// True if a look has something to see that no event will announce.
    pub(crate) fn looks_want_turn(&self) -> bool {
        !self.looks.under_way.is_empty()
    }

    /// From the control thread.
    pub(crate) fn take_look(&mut self, call: Arc<Call>) {
        match &call.what {
            What::Domain(domain) => {
                let (domain, sites) = self.domain_part(domain);
                self.say_part(&call, Part { domain: Some(domain), sites, ..Part::default() });
            }
            What::Trace(tracer) => {
                self.looks.watch(tracer);
                self.say_part(&call, Part::default());
            }
            What::Sites { .. } | What::Hosts { .. } | What::Forget(_) => {
                let (sites, hosts) = (Vec::new(), Vec::new());
                let scan = Scan { call, place: 0, sites, hosts, has_more: false, forgotten: 0 };
                self.looks.under_way.push_back(scan);
            }
        }
    }

    fn say_part(&self, call: &Call, part: Part) {
        // Nobody may be left to hear it.
        let _ = call.parts.send(Part { core: self.index, ..part });
    }

    /// A slice of the look that came first.
    pub(crate) fn run_looks(&mut self) {
        let Some(mut scan) = self.looks.under_way.pop_front() else { return };
        let end = scan.place.saturating_add(SLICE).min(self.sites.places());
        let call = Arc::clone(&scan.call);
        for key in (scan.place..end).map(SiteKey) {
            match &call.what {
                What::Sites { which, limit } => self.note_site(&mut scan, key, which, *limit),
                What::Hosts { limit } => self.note_hosts(&mut scan, key, *limit),
                What::Forget(meant) => scan.forgotten += self.forget_rests(key, meant),
                What::Domain(_) | What::Trace(_) => {}
            }
        }
        scan.place = end;
        if end < self.sites.places() && !call.parts.is_closed() {
            return self.looks.under_way.push_front(scan);
        }
        if let What::Sites { limit, .. } = call.what {
            scan.keep_busiest(limit);
        }
        let keys: Vec<SiteKey> = scan.sites.iter().map(|Reverse((_, _, key))| *key).collect();
        let Scan { hosts, has_more, forgotten, .. } = scan;
        let part = Part { sites: self.rows_of(&keys), hosts, has_more, forgotten, ..Part::default() };
        self.say_part(&call, part);
    }

    // ---- sites ----

    /// Keeps the site's number if it is one of the busiest so far. Looks at a bounded number of its ranges.
    fn note_site(&self, scan: &mut Scan, key: SiteKey, which: &Which, limit: usize) {
        let Some(site) = self.sites.try_get(key) else { return };
        let name = &self.ways.get(site.way).site;
        let is_wanted = match which {
            Which::All => true,
            Which::Like(pattern) => names_site(pattern, name),
            Which::Named(wanted) => **name == **wanted,
        };
        if !is_wanted {
            return;
        }
        scan.sites.push(Reverse((site.connections, site.lanes.count(RANGES_LOOKED_AT).0, key)));
        if scan.sites.len() >= 2 * limit {
            scan.keep_busiest(limit);
        }
    }

    /// One pass over the core's connections, then a look at each site.
    fn rows_of(&self, keys: &[SiteKey]) -> Vec<SiteRow> {
        if keys.is_empty() {
            return Vec::new();
        }
        let connecting = self.outbound.connecting();
        let site = |key: &SiteKey| self.sites.try_get(*key).map(|site| self.row_of(*key, site, &connecting));
        keys.iter().filter_map(site).collect()
    }

    fn row_of(&self, key: SiteKey, site: &LocalSite, connecting: &HashMap<SiteKey, u32>) -> SiteRow {
        let way = self.ways.get(site.way);
        let snapshot = site.pace.site().snapshot(self.now);
        let (ready, is_all) = site.lanes.count(RANGES_LOOKED_AT);
        let connecting = connecting.get(&key).copied().unwrap_or(0);
        let idle = u32::try_from(site.idle.len()).unwrap_or(u32::MAX);
        let (state, until) = self.held_back(site).unwrap_or_else(|| {
            let is_sending = site.connections > connecting + idle;
            let rate = self.rate_until(site).filter(|_| !is_sending && site.lanes.has_work());
            match rate {
                Some(until) => (SiteState::Rate, until),
                None if is_sending => (SiteState::Sending, None),
                None => (waiting_state(site, connecting), None),
            }
        });
        SiteRow {
            site: way.site.to_string(),
            source: if way.fetch.is_some() { "" } else { self.settings.source_name(site.source) }.to_owned(),
            basis: (&*way.basis).into(),
            connections: site.connections,
            connecting,
            idle,
            slots: snapshot.slots,
            limit: snapshot.limits.connections_max,
            ready,
            ready_is_least: !is_all,
            failures: snapshot.failures,
            state,
            until_ms: until.map(|until| self.wall_ms(until)),
            why: site.trouble.as_ref().map(ToString::to_string).unwrap_or_default(),
            cores: 1,
        }
    }

    /// What keeps everything from the site, and until when: its own entry's say, or its provider's.
    fn held_back(&self, site: &LocalSite) -> Option<(SiteState, Option<Instant>)> {
        if self.ways.get(site.way).is_held() {
            return Some((SiteState::Held, None));
        }
        let entries = [site.pace.site(), site.pace.provider()];
        if let Some(hold) = entries.into_iter().find_map(|entry| entry.snapshot(self.now).hold) {
            let state = match hold.why {
                Why::Held => SiteState::Held,
                Why::Suspended | Why::Blocked => SiteState::Suspended,
                Why::Dead => SiteState::Waits,
            };
            return Some((state, hold.until));
        }
        let until = site.not_before.filter(|until| *until > self.now && site.connections == 0)?;
        Some((SiteState::Pauses, Some(until)))
    }

    /// A rate is used up, and until when; `None` inside: until its limits change.
    fn rate_until(&self, site: &LocalSite) -> Option<Option<Instant>> {
        let entries = [site.pace.site(), site.pace.provider()];
        let used_up = entries.into_iter().flat_map(|entry| {
            let SiteSnapshot { connection_rate, message_rates, .. } = entry.snapshot(self.now);
            message_rates.into_iter().chain([connection_rate]).flatten().filter(|rate| rate.left == 0)
        });
        used_up.map(|rate| rate.next_at).max()
    }

    /// A time to come, as the wall clock will show it.
    fn wall_ms(&self, at: Instant) -> u64 {
        let left = at.saturating_duration_since(self.now).as_millis();
        self.wall.0.saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
    }

    // ---- hosts ----

    /// Hosts that would not serve this core, once it was connected.
    fn note_hosts(&self, scan: &mut Scan, key: SiteKey, limit: usize) {
        let Some(site) = self.sites.try_get(key) else { return };
        let resting = site.hosts.iter().filter_map(|host| {
            let until = host.rests_until.filter(|until| *until > self.now)?;
            Some(HostRow {
                address: host.host.address,
                name: host.host.name.to_string(),
                core: Some(self.index),
                rests_until_ms: Some(self.wall_ms(until)),
                is_down: false,
                failures: 0,
                why: site.trouble.as_ref().map(ToString::to_string).unwrap_or_default(),
            })
        });
        for row in resting {
            if scan.hosts.len() < limit {
                scan.hosts.push(row);
            } else {
                scan.has_more = true;
            }
        }
    }

    /// The site's hosts that are meant need not rest any longer; how many that are. No addresses: all.
    fn forget_rests(&mut self, key: SiteKey, meant: &[Meant]) -> u64 {
        if self.sites.try_get(key).is_none() {
            return 0;
        }
        let (now, mut forgotten) = (self.now, 0);
        for host in &mut self.sites.get_mut(key).hosts {
            let address = host.host.address;
            if (meant.is_empty() || meant.iter().any(|meant| meant.is(address)))
                && host.rests_until.take().is_some_and(|until| until > now)
            {
                forgotten += 1;
            }
        }
        if forgotten > 0 {
            self.sites.touch(key);
        }
        forgotten
    }

    // ---- a domain ----

    fn domain_part(&self, name: &str) -> (DomainPart, Vec<SiteRow>) {
        let known = self.domains.find(name).map(|key| self.domains.get(key));
        let routed = match known.map(|domain| domain.routed) {
            None | Some(Routed::Unknown) => RoutedView::Unknown,
            Some(Routed::Asked) => RoutedView::Asked,
            Some(Routed::Way(_)) => RoutedView::Known,
        };
        let ways = known.into_iter().flat_map(Domain::ways);
        let mut sites: Vec<SiteKey> =
            ways.flat_map(|way| &self.ways.get(way).sites).map(|(_, site)| *site).collect();
        sites.extend(self.fetches.sites_for(name));
        let waiting = known.map_or(0, |domain| {
            let counted = domain.waiting.iter().take(RANGES_LOOKED_AT);
            let counted: u64 = counted.map(|range| u64::from(range.count)).sum();
            counted + domain.waiting.len().saturating_sub(RANGES_LOOKED_AT) as u64
        });
        let view = CoreView {
            core: self.index,
            owed: known.map_or(0, |domain| domain.owed()),
            routed,
            waiting,
            expires_ms: known.and_then(|domain| domain.expires).and_then(|at| self.expiry_ms(at)),
        };
        let part = DomainPart {
            route: self.route_of(name),
            target: self.target_of(name),
            at_hand: self.answer_at_hand(name),
            limits: self.limits(&sites),
            view,
        };
        (part, self.rows_of(&sites))
    }

    /// `None` for an answer that never expires.
    fn expiry_ms(&self, at: Instant) -> Option<u64> {
        let forever = Duration::from_secs(10 * 365 * 24 * 3600);
        (at.saturating_duration_since(self.now) < forever).then(|| self.wall_ms(at))
    }

    fn route_of(&self, domain: &str) -> RouteView {
        match self.settings.config.routes.route(domain).to {
            To::Mx if domain.starts_with('[') => RouteView::Literal,
            To::Mx => RouteView::Mx,
            To::Local => RouteView::Local,
            To::Relay(RelayHost::Name(name), port) => RouteView::Relay { to: format!("{name}:{port}") },
            To::Relay(RelayHost::Address(ip), port) => {
                RouteView::Relay { to: std::net::SocketAddr::new(ip, port).to_string() }
            }
        }
    }

    /// As they are in force after the last reload: of the first of these sites, else of one that nothing is known of.
    fn limits(&self, sites: &[SiteKey]) -> Limits {
        let delivery = &self.settings.config.delivery;
        let mut limits = Limits {
            messages_per_connection: delivery.messages_per_connection,
            recipients_per_transaction: delivery.recipients_per_transaction,
            ..limits_in_words(self.settings.site_limits)
        };
        let Some(site) = sites.first().and_then(|key| self.sites.try_get(*key)) else { return limits };
        let in_force = self.limits_of(site.way, site.source);
        limits = Limits {
            messages_per_connection: in_force.sessions.transactions_max,
            recipients_per_transaction: in_force.recipients_max,
            ..limits_in_words(in_force.site)
        };
        if let Some((name, of_provider)) = in_force.provider {
            limits.rates.extend(rates_in_words(&of_provider));
            limits.provider = Some(name);
        }
        limits
    }

    // ---- dialogues ----

    /// Whether the dialogue of a new connection to this site is to be told. One comparison where nobody watches.
    pub(crate) fn wants_trace(&self, site: SiteKey) -> bool {
        self.looks.is_watched() && self.tracers_of(site).next().is_some()
    }

    /// Those who watch a domain whose mail goes to this site now.
    fn tracers_of(&self, site: SiteKey) -> impl Iterator<Item = &Arc<Tracer>> {
        let way = self.sites.try_get(site).map(|site| site.way);
        let fetch = way.and_then(|way| self.ways.get(way).fetch);
        self.looks.tracers.iter().filter(move |tracer| {
            let domain = self.domains.find(&tracer.domain).map(|key| self.domains.get(key));
            let is_led = domain.is_some_and(|domain| domain.ways().any(|leads_to| way == Some(leads_to)));
            let is_fetched = || fetch.is_some_and(|fetch| self.fetches.is_for(fetch, &tracer.domain));
            (is_led || is_fetched()) && !tracer.is_over()
        })
    }

    /// A line of a connection's dialogue, or what became of it, to those who watch. Nothing is formatted where nobody does.
    pub(crate) fn trace_line(&self, place: Place, direction: Direction, text: fmt::Arguments<'_>) {
        let Some((site, host, peer)) = self.outbound.whereabouts(place) else { return };
        if !self.wants_trace(site) {
            return;
        }
        let peer = peer.to_string();
        let line = TraceLine {
            at_ms: self.wall.0,
            core: self.index,
            connection: place.generation,
            host: if **host == peer { peer } else { format!("{host}[{peer}]") },
            direction,
            text: one_line(text.to_string()),
        };
        self.tracers_of(site).for_each(|tracer| tracer.tell(line.clone()));
    }

    /// What became of one recipient.
    pub(crate) fn trace_verdict(&self, place: Place, local_part: &str, domain: DomainKey, verdict: &Verdict) {
        if !self.looks.is_watched() {
            return;
        }
        let (word, reply) = (verdict.name(), verdict.reply());
        let domain = &self.domains.get(domain).name;
        self.trace_line(place, Direction::Note, format_args!("{local_part}@{domain} {word}: {reply}"));
    }

    /// How a connection ended.
    pub(crate) fn trace_end(&self, place: Place, verdict: Option<&Verdict>) {
        match verdict.map(Verdict::reply) {
            None => self.trace_line(place, Direction::Note, format_args!("closed")),
            Some(reply) => self.trace_line(place, Direction::Note, format_args!("closed: {reply}")),
        }
    }
}

fn limits_in_words(limits: SiteLimits) -> Limits {
    Limits {
        connections_max: limits.connections_max,
        connections_initial: limits.slots_initial,
        failures_max: limits.failures_max,
        backoff_secs: limits.backoff_secs,
        backoff_max_secs: limits.backoff_max_secs,
        rates: rates_in_words(&limits).collect(),
        ..Limits::default()
    }
}

fn rates_in_words(limits: &SiteLimits) -> impl Iterator<Item = String> {
    let words = |what: &str, rate: Rate| format!("{} {what} in {} s", rate.count, rate.window.as_secs());
    let messages = limits.message_rates.into_iter().flatten().map(move |rate| words("messages", rate));
    let connections = limits.connection_rate.into_iter().map(move |rate| words("connections", rate));
    messages.chain(connections)
}

/// Of a site that no connection sends to.
fn waiting_state(site: &LocalSite, connecting: u32) -> SiteState {
    if connecting > 0 {
        SiteState::Connecting
    } else if site.wants_room {
        SiteState::NoRoom
    } else if site.lanes.has_work() {
        SiteState::Ready
    } else {
        SiteState::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracer_whose_operator_went_away_is_forgotten_and_a_core_has_only_so_many() {
        let mut looks = Looks::default();
        let tracers: Vec<_> = (0..TRACES_MAX + 1).map(|_| Tracer::new("a.test".into()).0).collect();
        tracers.iter().for_each(|tracer| looks.watch(tracer));
        assert_eq!(looks.tracers.len(), TRACES_MAX);
        tracers.iter().for_each(|tracer| tracer.end());
        looks.watch(&tracers[0]);
        assert!(!looks.is_watched());
    }
}
