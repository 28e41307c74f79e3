//! Where mail goes: from a domain over what the name servers or the operator say of it to the core's sites.
//!
//! A *way* is an answer: a site's name, its hosts and what they demand. Domains with the same answer share it. A way
//! is forgotten when no domain leads to it and its sites have nothing left. One leads to a client that fetches its mail
//! (`drive/fetch`): no answer is that way, and no connection is opened on it.
//! Bounds: as many ways as domains; [`ASKED_MAX`] questions of a core at a time, the rest wait here.

use crate::clock::Clock;
use crate::core::Core;
use crate::crossing::{Question, Target};
use crate::demands;
use crate::domains::{Basis, Host, Relaxed, Resolution, Routed, SiteKey, WayKey};
use crate::providers::ProviderKey;
use crate::routes::{RelayHost, Terms, To};
use crate::sources::{Credits, PoolTag, SourceKey};
use crate::steer::condition::TextField;
use crate::steer::order::Order;
use message::address::shown_domain;
use message::{Reply, Verdict};
use queue::range::DomainKey;
use queue::{MessageKey, Range};
use ring::Ring;
use slab::Slab;
use smallvec::SmallVec;
use smtp_out::{Protocol, TlsPolicy};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A domain without an answer is asked for again after this long.
const ASK_AGAIN_SECS: u64 = 300;

/// Questions of one core that have no answer yet. The control thread takes up fewer at a time.
const ASKED_MAX: usize = 1024;

/// Recipients that a source is given at a time where it has others beside it.
pub(crate) const PICKED_MAX: u32 = 256;

/// Stands for whoever delivers to this machine's mailboxes, whose socket has a path and no address.
pub(crate) const MAILBOXES: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 24);

/// See the module.
#[derive(Debug)]
pub(crate) struct Way {
    /// The site's: what its limits are counted under.
    pub(crate) site: Arc<str>,
    pub(crate) basis: Arc<Basis>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) provider: ProviderKey,
    /// What the operator's route says besides where to.
    pub(crate) terms: Arc<Terms>,
    /// A route that is held lets its mail go until none is left.
    is_released: bool,
    /// Leads to a client that made its connection itself: which fetch of this core's it is for.
    pub(crate) fetch: Option<u32>,
    /// Domains that lead here, each once for its mail and once for what is not held to what it publishes; of a way to a client, whether it is still there.
    domains: u32,
    /// One for each source that something went out from.
    pub(crate) sites: SmallVec<[(SourceKey, SiteKey); 1]>,
    credits: Credits,
}

impl Way {
    fn site_from(&self, source: SourceKey) -> Option<SiteKey> {
        self.sites.iter().find(|(known, _)| *known == source).map(|(_, site)| *site)
    }

    /// Nothing goes out until it is asked for.
    pub(crate) fn is_held(&self) -> bool {
        self.terms.is_held && !self.is_released
    }

    pub(crate) fn host_names(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| &*host.name)
    }
}

/// The site's name, the tag of its demands, the tag of the route's terms.
type WayName = [Arc<str>; 3];

/// All ways of a core.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    ways: Slab<Way>,
    by_name: HashMap<WayName, WayKey>,
    /// Domains that are to be asked for when others have been answered.
    unasked: VecDeque<DomainKey>,
    asked: usize,
}

impl Ways {
    pub(crate) fn get(&self, key: WayKey) -> &Way {
        &self.ways[key.0 as usize]
    }

    fn get_mut(&mut self, key: WayKey) -> &mut Way {
        &mut self.ways[key.0 as usize]
    }

    pub(crate) fn is_unused(&self, key: WayKey) -> bool {
        self.get(key).domains == 0
    }

    /// A domain no longer leads there. Its sites, which may have to go now.
    fn leave(&mut self, key: WayKey) -> &[(SourceKey, SiteKey)] {
        let way = self.get_mut(key);
        way.domains -= 1;
        if way.domains == 0 { &way.sites } else { &[] }
    }

    /// One of its sites is gone. With the last one of an unused way that goes too.
    pub(crate) fn forget_site(&mut self, key: WayKey, site: SiteKey) {
        let way = self.get_mut(key);
        way.sites.retain(|(_, other)| *other != site);
        if way.domains == 0 && way.sites.is_empty() {
            let way = self.ways.remove(key.0 as usize);
            self.by_name.remove(&[way.site, Arc::clone(&way.basis.tag), Arc::clone(&way.terms.tag)]);
        }
    }

    /// For as long as the client is there. No answer finds it by a name.
    fn add(&mut self, way: Way) -> WayKey {
        WayKey(u32::try_from(self.ways.insert(way)).expect("as many as domains and connections at most"))
    }

    /// Takes an answer up: new hosts for a way that is known, or a new one.
    fn take_up(&mut self, new: Way) -> WayKey {
        let name = [&new.site, &new.basis.tag, &new.terms.tag].map(Arc::clone);
        if let Some(key) = self.by_name.get(&name) {
            let way = &mut self.ways[key.0 as usize];
            (way.hosts, way.basis, way.provider) = (new.hosts, new.basis, new.provider);
            return *key;
        }
        let key = self.add(new);
        self.by_name.insert(name, key);
        key
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// A range is owed now: to us, where mail comes back to, or to its domain's site.
    pub(crate) fn offer_range(&mut self, range: Range) {
        if self.may_come_back(&range) {
            return self.returns.push(range);
        }
        self.route_range(range);
    }

    /// To its domain's site, once that is known.
    pub(crate) fn route_range(&mut self, range: Range) {
        let Some(range) = self.past_gate(range) else { return };
        let domain = self.domains.get(range.domain);
        let is_stale = domain.expires.is_some_and(|expires| expires <= self.now);
        match (self.way_of(&range), domain.routed) {
            (Some(way), _) => {
                self.send_along(way, range);
                if is_stale {
                    self.ask(range.domain);
                }
            }
            (None, Routed::Unknown) => {
                self.domains.get_mut(range.domain).waiting.push(range);
                self.ask(range.domain);
            }
            (None, Routed::Asked | Routed::Way(_)) => self.domains.get_mut(range.domain).waiting.push(range),
        }
    }

    /// Where the range's mail goes, as far as that is known.
    fn way_of(&self, range: &Range) -> Option<WayKey> {
        let domain = self.domains.get(range.domain);
        let relaxed = domain.relaxed.filter(|_| self.is_tls_optional(range.message));
        relaxed.or(match domain.routed {
            Routed::Way(way) => Some(way),
            Routed::Unknown | Routed::Asked => None,
        })
    }

    /// The message is not held to what domains publish about TLS (RFC 8689).
    fn is_tls_optional(&self, message: MessageKey) -> bool {
        let borrowed = self.shares.letter(message).map(|letter| (letter.facts, letter.requires_tls));
        let own = || self.store.get(message).map(|queued| (queued.facts, queued.handling().requires_tls));
        let (facts, requires_tls) = borrowed.or_else(own).unwrap_or_default();
        self.settings.config.tls.obey_tls_required && facts.is_tls_optional() && !requires_tls
    }

    /// To the site of the way that the message's pool has its turn with. A way to a client has one site, whatever the pool, and
    /// so has this machine.
    pub(crate) fn send_along(&mut self, way: WayKey, range: Range) {
        let leads_to = self.ways.get(way);
        let is_one = leads_to.fetch.is_some() || leads_to.terms.protocol == Protocol::Mailboxes;
        let site = match leads_to.sites.first().filter(|_| is_one) {
            Some((_, site)) => *site,
            None => {
                let pool = self.pool_of(range.message);
                let source = self.pick_source(way, pool, range.count);
                self.site_of(way, source)
            }
        };
        self.sites.push_back(site, self.turn_of(range.message), range);
    }

    /// The source whose turn it is. If none lets anything go now, it waits for the one that will first.
    fn pick_source(&mut self, way: WayKey, pool: PoolTag, count: u32) -> SourceKey {
        let Core { ways, sites, settings, now, .. } = self;
        let way = ways.get_mut(way);
        let mut credits = std::mem::take(&mut way.credits);
        let closed = |source| way.site_from(source).and_then(|site| sites.get(site).closed_at(*now));
        let sources = &settings.sources;
        let picked = sources.pick(pool, &mut credits, |source| closed(source).is_none());
        let source = match picked {
            Some((pool, source)) => {
                pool.note(&mut credits, source, count.min(PICKED_MAX));
                Some(source)
            }
            None => sources.pool(pool).sources().min_by_key(|source| closed(*source)),
        };
        way.credits = credits;
        source.expect("a pool has a source")
    }

    /// True if the message's next recipients may have another source than the last ones.
    pub(crate) fn has_other_sources(&mut self, message: MessageKey) -> bool {
        let pool = self.pool_of(message);
        let mut chain = self.settings.sources.chain(pool);
        chain.next().is_some_and(|pool| pool.sources().nth(1).is_some()) || chain.next().is_some()
    }

    /// The pool that a message was put in when it was accepted.
    fn pool_of(&mut self, message: MessageKey) -> PoolTag {
        let borrowed = self.shares.letter(message).map(|letter| letter.class);
        let own = || self.store.get(message).map(|queued| queued.handling().class);
        let class = borrowed.or_else(own).unwrap_or_default();
        let campaign = class.campaign.and_then(|number| self.campaign(number));
        campaign.map_or(class.pool, |campaign| campaign.shared.pool)
    }

    /// The way to a client that fetches its mail, counted under that name.
    pub(crate) fn add_way_to_client(&mut self, site: &str, host: Host, fetch: u32) -> WayKey {
        self.ways.add(Way {
            site: site.into(),
            basis: Arc::default(),
            provider: self.settings.providers.of_hosts(std::iter::once(&*host.name)),
            hosts: vec![host],
            terms: Arc::default(),
            is_released: false,
            fetch: Some(fetch),
            domains: 1,
            sites: SmallVec::new(),
            credits: Credits::default(),
        })
    }

    /// The client is there no longer: what is left on its way goes where its domains lead.
    pub(crate) fn close_way_to_client(&mut self, way: WayKey) {
        self.ways.get_mut(way).fetch = None;
        self.leave(way);
    }

    pub(crate) fn site_of(&mut self, way: WayKey, source: SourceKey) -> SiteKey {
        if let Some(site) = self.ways.get(way).site_from(source) {
            return site;
        }
        let site = self.new_site(way, source);
        self.ways.get_mut(way).sites.push((source, site));
        site
    }

    /// The source lets nothing go there now: what waits goes out from another, if there is one.
    pub(crate) fn go_to_other_sources(&mut self, key: SiteKey) {
        let way = self.sites.get(key).way;
        for range in self.sites.take_all(key) {
            self.send_along(way, range);
        }
    }

    /// Finds out where a domain's mail goes; at once if the configuration says so.
    pub(crate) fn ask(&mut self, key: DomainKey) {
        let name = Arc::clone(&self.domains.get(key).queued);
        if let Some(resolution) = self.answer_at_hand(&name) {
            return self.on_answer(key, &name, resolution);
        }
        let domain = self.domains.get_mut(key);
        if !matches!(domain.routed, Routed::Way(_)) {
            domain.routed = Routed::Asked;
        }
        // The old answer serves until the new one is here; asking once is enough.
        domain.expires = None;
        if !std::mem::replace(&mut domain.is_asked, true) {
            self.ways.unasked.push_back(key);
            self.ask_more();
        }
    }

    fn ask_more(&mut self) {
        while self.ways.asked < ASKED_MAX
            && let Some(key) = self.ways.unasked.pop_front()
        {
            let Some(domain) = self.domains.try_get_mut(key).filter(|domain| domain.is_asked) else {
                continue;
            };
            let name = Arc::clone(&domain.queued);
            let target = self.target_of(&name);
            self.ways.asked += 1;
            let asked = target.clone();
            let question = Question { core: self.index, domain: key, name: Arc::clone(&name), target };
            if !self.crossing.ask(question) {
                let busy = Reply::ours(451, (4, 4, 3), "too many questions wait for the name servers");
                self.on_reply_to_question(key, &name, &asked, Resolution::Deferred(busy));
            }
        }
    }

    /// The control thread answered.
    pub(crate) fn on_reply_to_question(
        &mut self,
        key: DomainKey,
        name: &str,
        target: &Target,
        resolution: Resolution,
    ) {
        self.ways.asked = self.ways.asked.saturating_sub(1);
        let is_known = self.domains.get_named(key, name).is_some();
        if is_known && (*target != self.target_of(name) || self.answer_at_hand(name).is_some()) {
            // The route was changed meanwhile: hosts of one must not be met on the terms of the other.
            self.domains.get_mut(key).is_asked = false;
            self.ask(key);
        } else {
            self.on_answer(key, name, resolution);
        }
        self.ask_more();
    }

    pub(crate) fn target_of(&self, domain: &str) -> Target {
        match self.settings.config.routes.route(domain).to {
            To::Relay(RelayHost::Name(name), port) => Target::Host { name, port },
            To::Relay(RelayHost::Address(_), _) | To::Mx | To::Local => Target::Mx,
        }
    }

    /// What needs no name server: a relay with an address, an address literal.
    pub(crate) fn answer_at_hand(&self, domain: &str) -> Option<Resolution> {
        let address = match self.settings.config.routes.route(domain).to {
            To::Relay(RelayHost::Address(ip), port) => SocketAddr::new(ip, port),
            To::Relay(RelayHost::Name(_), _) => return None,
            To::Mx => SocketAddr::new(literal(shown_domain(domain))?, self.settings.config.delivery.port),
            To::Local => return Some(mailboxes()),
        };
        Some(self.relay_at(shown_domain(domain), address))
    }

    /// A relay by its address: no look-up, no expiry.
    fn relay_at(&self, domain: &str, address: SocketAddr) -> Resolution {
        let name: Arc<str> = address.to_string().into();
        let site = Arc::clone(&name);
        let (tls, basis) = demands::of_relay(&self.settings.config.tls, domain, &address.ip().to_string());
        let hosts = vec![Host { name, address, tls }];
        Resolution::Site { site, hosts, basis, ttl_secs: u64::from(u32::MAX), relaxed: None }
    }

    fn on_answer(&mut self, key: DomainKey, name: &str, resolution: Resolution) {
        let (now, ask_again) = (self.now, self.now + Duration::from_secs(ASK_AGAIN_SECS));
        let Some(domain) = self.domains.get_named(key, name) else { return };
        domain.is_asked = false;
        match resolution {
            Resolution::Site { site, hosts, basis, ttl_secs, relaxed } => {
                let relaxed = relaxed.and_then(|relaxed| self.lead_relaxed_to(name, &site, relaxed));
                let way = self.lead_to(name, &site, hosts, basis);
                let domain = self.domains.get_mut(key);
                let before: SmallVec<[WayKey; 2]> = domain.ways().collect();
                (domain.routed, domain.relaxed) = (Routed::Way(way), relaxed);
                domain.expires = now.checked_add(Duration::from_secs(ttl_secs));
                let waiting = std::mem::take(&mut domain.waiting);
                waiting.into_iter().for_each(|range| self.send_on(range));
                self.take_along(key, &before);
                before.into_iter().for_each(|way| self.leave(way));
            }
            Resolution::Barred { reply, .. } if matches!(domain.routed, Routed::Way(_)) => {
                tracing::debug!(domain = shown_domain(name), %reply, "the answer before serves on");
                domain.expires = Some(ask_again);
            }
            Resolution::Barred { reply, site, relaxed, ttl_secs } => {
                let relaxed = self.lead_relaxed_to(name, &site, relaxed);
                let domain = self.domains.get_mut(key);
                let before = std::mem::replace(&mut domain.relaxed, relaxed);
                domain.expires = now.checked_add(Duration::from_secs(ttl_secs));
                let waiting = std::mem::take(&mut domain.waiting);
                let (through, barred): (Vec<Range>, Vec<Range>) =
                    waiting.into_iter().partition(|range| self.way_of(range).is_some());
                through.into_iter().for_each(|range| self.send_on(range));
                before.into_iter().for_each(|way| self.leave(way));
                self.domains.get_mut(key).routed = Routed::Unknown;
                barred
                    .into_iter()
                    .for_each(|range| self.conclude_range(range, Verdict::Deferred(reply.clone())));
            }
            Resolution::Deferred(_) if matches!(domain.routed, Routed::Way(_)) => {
                // Serve stale: a name server's trouble is not the site's.
                domain.expires = Some(ask_again);
            }
            Resolution::Deferred(reply) => self.refuse_domain(key, &Verdict::Deferred(reply)),
            Resolution::Failed(reply) => self.refuse_domain(key, &Verdict::Failed(reply)),
        }
    }

    /// One more domain leads to these hosts.
    fn lead_to(&mut self, domain: &str, site: &Arc<str>, hosts: Vec<Host>, basis: Arc<Basis>) -> WayKey {
        let way = self.new_way(domain, Arc::clone(site), hosts, basis);
        let way = self.ways.take_up(way);
        self.ways.get_mut(way).domains += 1;
        self.take_new_hosts(way);
        way
    }

    /// `None` where the operator's route says how hosts are protected: that holds for all mail.
    fn lead_relaxed_to(&mut self, domain: &str, site: &Arc<str>, relaxed: Relaxed) -> Option<WayKey> {
        let is_told = self.settings.config.routes.route(domain).terms.tls.is_some();
        (!is_told).then(|| self.lead_to(domain, site, relaxed.hosts, relaxed.basis))
    }

    /// To where it goes, which is known.
    fn send_on(&mut self, range: Range) {
        match self.way_of(&range) {
            Some(way) => self.send_along(way, range),
            None => self.domains.get_mut(range.domain).waiting.push(range),
        }
    }

    /// The way that an answer about the domain is, on the terms of its route.
    fn new_way(&self, domain: &str, site: Arc<str>, mut hosts: Vec<Host>, basis: Arc<Basis>) -> Way {
        let terms = self.settings.config.routes.route(domain).terms;
        if let Some(mode) = terms.tls {
            let tls = Arc::new(demands::of_mode(mode));
            hosts.iter_mut().for_each(|host| host.tls = Arc::clone(&tls));
        }
        if terms.is_tls_implicit {
            // Plain text cannot be spoken there, whatever `[tls]` says of the domain.
            let never = hosts.iter_mut().filter(|host| *host.tls == TlsPolicy::Never);
            never.for_each(|host| host.tls = Arc::new(TlsPolicy::Encrypt));
        }
        Way {
            provider: self.settings.providers.of_hosts(hosts.iter().map(|host| &*host.name)),
            site,
            basis,
            hosts,
            terms,
            is_released: false,
            fetch: None,
            domains: 0,
            sites: SmallVec::new(),
            credits: Credits::default(),
        }
    }

    /// Held routes let go of the mail of those domains until none is left.
    pub(crate) fn release_routes(&mut self, order: &Order) {
        let is_meant =
            |domain: &str| order.terms.iter().all(|term| term.holds_for(TextField::Domain, domain));
        for key in self.domains.keys() {
            let Core { domains, ways, sites, .. } = self;
            let domain = domains.get(key);
            for way in domain.ways().filter(|_| is_meant(&domain.name)) {
                let way = ways.get_mut(way);
                if way.is_held() {
                    way.is_released = true;
                    way.sites.iter().for_each(|(_, site)| sites.touch(*site));
                }
            }
        }
    }

    /// A site of the way has nothing left: what comes now waits again.
    pub(crate) fn hold_route_again(&mut self, way: WayKey) {
        let Core { ways, sites, steering, .. } = self;
        let way = ways.get_mut(way);
        // While it is being flushed more may come.
        if way.is_released
            && !steering.is_flushing()
            && way.sites.iter().all(|(_, site)| sites.get(*site).is_at_rest())
        {
            way.is_released = false;
        }
    }

    /// What is ready for the domain follows it to other ways. (Of a way that no domain leads to, everything does.)
    fn take_along(&mut self, key: DomainKey, before: &[WayKey]) {
        if self.domains.get(key).ways().eq(before.iter().copied()) {
            return;
        }
        let mut ranges = Vec::new();
        let left = before.iter().map(|way| self.ways.get(*way)).filter(|way| way.domains > 1);
        for (_, site) in left.flat_map(|way| &way.sites) {
            for lane in self.sites.get_mut(*site).lanes.each_mut() {
                lane.take_out_all(|range| range.domain == key, &mut ranges);
            }
        }
        ranges.into_iter().for_each(|range| self.send_on(range));
    }

    /// What this core's sites of the way remember of hosts that stay, they keep.
    fn take_new_hosts(&mut self, way: WayKey) {
        let Core { ways, sites, now, .. } = self;
        let way = ways.get(way);
        for (_, key) in &way.sites {
            sites.get_mut(*key).take_hosts(&way.hosts, *now);
            sites.touch(*key);
        }
    }

    /// Nobody takes this domain's mail: its waiting recipients get that verdict.
    fn refuse_domain(&mut self, key: DomainKey, verdict: &Verdict) {
        let waiting = std::mem::take(&mut self.domains.get_mut(key).waiting);
        self.forget_ways_of(key);
        for range in waiting {
            self.conclude_range(range, verdict.clone());
        }
    }

    /// `count` recipients fewer are owed at the domain.
    pub(crate) fn settle_domain(&mut self, key: DomainKey, count: u32) {
        if let Some(domain) = self.domains.settle(key, count) {
            domain.ways().for_each(|way| self.leave(way));
        }
    }

    /// Where the domain's mail goes is asked anew when there is some.
    fn forget_ways_of(&mut self, key: DomainKey) {
        let domain = self.domains.get_mut(key);
        let before: SmallVec<[WayKey; 2]> = domain.ways().collect();
        (domain.routed, domain.relaxed) = (Routed::Unknown, None);
        before.into_iter().for_each(|way| self.leave(way));
    }

    /// A domain no longer leads there.
    fn leave(&mut self, way: WayKey) {
        for (_, site) in self.ways.leave(way) {
            self.sites.touch(*site);
        }
        if self.ways.is_unused(way) && self.ways.get(way).sites.is_empty() {
            self.ways.forget_site(way, SiteKey(u32::MAX));
        }
    }

    /// Routes are looked up anew. Where something is owed, the old answer serves until the new one is here.
    pub(crate) fn reroute_all(&mut self) {
        for key in self.domains.keys() {
            let domain = self.domains.get(key);
            if domain.ways().next().is_none() {
                continue;
            }
            if domain.owed() > 0 {
                self.ask(key);
            } else {
                self.forget_ways_of(key);
            }
        }
    }
}

/// `[192.0.2.1]`, `[ipv6:…]`: the domain is an address (RFC 5321 §4.1.3).
/// The site of all that is delivered here.
fn mailboxes() -> Resolution {
    let hosts = vec![Host { name: "mailboxes".into(), address: MAILBOXES, tls: Arc::new(TlsPolicy::Never) }];
    Resolution::Site {
        site: "mailboxes".into(),
        hosts,
        basis: Arc::default(),
        ttl_secs: u64::from(u32::MAX),
        relaxed: None,
    }
}

fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    inner.strip_prefix("ipv6:").unwrap_or(inner).parse().ok()
}
