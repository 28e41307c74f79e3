//! Sites as one core sees them: what is ready for each, which of its hosts answer, whether to open a connection.
//!
//! A range of recipients becomes ready here, in its lane and flow (`lanes`), has its names read, and is handed out by `outbound`.
//! Bound: as many ranges as are owed (24 bytes each), one window of names at a time per site, lane and flow.

use crate::clock::Clock;
use crate::core::{Core, Place, Stop};
use crate::crossing::{Question, Target};
use crate::domains::{Host, Resolution, Routed, SiteKey};
use crate::drive::lanes::Lanes;
use crate::drive::share::is_borrowed;
use crate::routes::{Relay, RelayHost, Route};
use message::{Flow, Lane, Reply, Verdict};
use queue::range::DomainKey;
use queue::site_table::{Health, Lease, Site};
use queue::{MessageKey, Range};
use ring::Ring;
use slab::Slab;
use smtp_out::Habits;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A host that failed is left alone for this long while another one answers.
const HOST_REST: Duration = Duration::from_secs(60);

/// Between rounds of failures that do not yet make the site wait, and before asking again for a lease when all
/// connections are another core's.
const PAUSE: Duration = Duration::from_secs(1);

/// Ranges that become ready in one turn: a million may be due at the same second.
const DUE_PER_TURN: u32 = 4096;

/// A domain without an answer is asked for again after this long.
const ASK_AGAIN_SECS: u64 = 300;

/// Flows of a lane, as a sweep counts them.
const FLOWS: usize = 256;

/// A host, and what is remembered of it.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) host: Host,
    pub(crate) habits: Habits,
    /// The kernel said that it copies what is sent there: no more wishes for zero copy.
    pub(crate) copies: bool,
    rests_until: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LocalSite {
    pub(crate) shared: Arc<Site>,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) lanes: Lanes,
    /// Connections that are ready and have nothing to do, the most recent last.
    pub(crate) idle: Vec<Place>,
    pub(crate) connections: u32,
    pub(crate) connecting: u32,
    /// Successes not yet reported: reported a round at a time.
    works: u32,
    not_before: Option<Instant>,
    /// When it is looked at again though nothing happened.
    wake_at: Option<Instant>,
    /// Why the last connection failed, until one works.
    pub(crate) trouble: Option<Reply>,
    is_dirty: bool,
}

impl LocalSite {
    /// The operator wants nothing to go there.
    pub(crate) fn is_held(&self) -> bool {
        self.shared.snapshot().slots == 0
    }
}

/// All sites of a core.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    sites: Slab<LocalSite>,
    by_name: HashMap<Arc<str>, SiteKey>,
    dirty: VecDeque<SiteKey>,
    wakes: BTreeSet<(Instant, SiteKey)>,
}

impl Sites {
    pub(crate) fn get(&self, key: SiteKey) -> &LocalSite {
        &self.sites[key.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, key: SiteKey) -> &mut LocalSite {
        &mut self.sites[key.0 as usize]
    }

    /// Sites are numbered up to this; none is ever forgotten.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.sites.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn keys(&self) -> Vec<SiteKey> {
        self.sites.iter().map(|(key, _)| SiteKey(u32::try_from(key).unwrap_or(u32::MAX))).collect()
    }

    /// The site is to be looked at before the turn ends.
    pub(crate) fn touch(&mut self, key: SiteKey) {
        let site = &mut self.sites[key.0 as usize];
        if !std::mem::replace(&mut site.is_dirty, true) {
            self.dirty.push_back(key);
        }
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Every range that is ready.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.sites.iter().flat_map(|(_, site)| site.lanes.ranges())
    }

    /// Takes what is ready of one flow in a lane of a site, for a sweep over all of them; `place` counts flows and lanes
    /// through the table, and the next place to look at comes with them. `None` behind the last. Ranges whose names were read already stay, unless `even_open`: those that come back are
    /// read again.
    pub(crate) fn take_ready_at(
        &mut self,
        place: usize,
        even_open: bool,
    ) -> Option<(SiteKey, Lane, VecDeque<Range>, usize)> {
        let (row, flow) = (place / FLOWS, u8::try_from(place % FLOWS).expect("below 256"));
        let (index, lane) = (row / Lane::ALL.len(), Lane::ALL[row % Lane::ALL.len()]);
        if index >= self.sites.capacity() {
            return None;
        }
        let key = SiteKey(u32::try_from(index).unwrap_or(u32::MAX));
        let taken =
            self.sites.get_mut(index).and_then(|site| site.lanes.get_mut(lane).take_flow(flow, even_open));
        Some(match taken {
            Some((found, ready)) => (key, lane, ready, row * FLOWS + usize::from(found.0) + 1),
            None => (key, lane, VecDeque::new(), (row + 1) * FLOWS),
        })
    }

    /// Ready ranges whose names were read already.
    pub(crate) fn open_ranges(&self) -> impl Iterator<Item = Range> {
        self.sites.iter().flat_map(|(_, site)| site.lanes.open_ranges())
    }

    /// A range that a sweep took goes back to its lane and flow.
    pub(crate) fn put_back(&mut self, key: SiteKey, turn: (Lane, Flow), range: Range) {
        let site = &mut self.sites[key.0 as usize];
        site.lanes.push_back(turn, range);
        // A site that waits has its wake.
        if site.not_before.is_none() {
            self.touch(key);
        }
    }

    /// An operator wants mail tried now: no site and no host waits.
    pub(crate) fn lift_back_offs(&mut self) {
        for key in self.keys() {
            let site = self.get_mut(key);
            site.shared.lift_back_off();
            site.not_before = None;
            site.hosts.iter_mut().for_each(|host| host.rests_until = None);
            self.touch(key);
        }
    }

    /// True if something is ready that a connection could take now.
    pub(crate) fn have_work(&self) -> bool {
        self.sites.iter().any(|(_, site)| site.lanes.has_work() && site.not_before.is_none())
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// In which lane, and whose turn in it: of a message of our own or borrowed. Asked once a range, not once a delivery.
    pub(crate) fn turn_of(&self, message: MessageKey) -> (Lane, Flow) {
        let borrowed = self.shares.letter(message).map(|letter| (letter.lane, letter.class.flow));
        let own = || self.store.get(message).map(|queued| (queued.lane(), queued.flow()));
        borrowed.or_else(own).unwrap_or_default()
    }

    /// A range is owed now: to its domain's site, once that is known.
    pub(crate) fn offer_range(&mut self, range: Range) {
        let domain = self.domains.get(range.domain);
        let is_stale = domain.expires.is_some_and(|expires| expires <= self.now);
        match domain.routed {
            Routed::Site(site) => {
                let turn = self.turn_of(range.message);
                self.sites.get_mut(site).lanes.push_back(turn, range);
                self.sites.touch(site);
                if is_stale {
                    self.ask(range.domain);
                }
            }
            Routed::Asked => self.domains.get_mut(range.domain).waiting.push(range),
            Routed::Unknown => {
                self.domains.get_mut(range.domain).waiting.push(range);
                self.ask(range.domain);
            }
        }
    }

    /// Finds out where a domain's mail goes; at once if the configuration says so.
    pub(crate) fn ask(&mut self, key: DomainKey) {
        let name = Arc::clone(&self.domains.get(key).name);
        let target = match self.settings.config.routes.route(&name) {
            Route::Relay(Relay { host: RelayHost::Address(ip), port }) => {
                return self.on_answer(key, &name, relay_at(SocketAddr::new(ip, port)));
            }
            Route::Relay(Relay { host: RelayHost::Name(host), port }) => Target::Host { name: host, port },
            Route::Mx => match literal(&name) {
                Some(ip) => {
                    let address = SocketAddr::new(ip, self.settings.config.delivery.port);
                    return self.on_answer(key, &name, relay_at(address));
                }
                None => Target::Mx,
            },
        };
        let domain = self.domains.get_mut(key);
        if !matches!(domain.routed, Routed::Site(_)) {
            domain.routed = Routed::Asked;
        }
        // The old answer serves until the new one is here; asking once is enough.
        domain.expires = None;
        let question = Question { core: self.index, domain: key, name: Arc::clone(&name), target };
        if !self.crossing.ask(question) {
            let busy = Reply::ours(451, (4, 4, 3), "too many questions wait for the name servers");
            self.on_answer(key, &name, Resolution::Deferred(busy));
        }
    }

    pub(crate) fn on_answer(&mut self, key: DomainKey, name: &str, resolution: Resolution) {
        let (now, ask_again) = (self.now, self.now + Duration::from_secs(ASK_AGAIN_SECS));
        if self.domains.get_named(key, name).is_none() {
            return;
        }
        match resolution {
            Resolution::Site { site, hosts, ttl_secs, .. } => {
                let site = self.site_named(&site, hosts);
                let domain = self.domains.get_mut(key);
                domain.routed = Routed::Site(site);
                domain.expires = now.checked_add(Duration::from_secs(ttl_secs));
                let waiting = std::mem::take(&mut domain.waiting);
                for range in waiting {
                    let turn = self.turn_of(range.message);
                    self.sites.get_mut(site).lanes.push_back(turn, range);
                }
                self.sites.touch(site);
            }
            Resolution::Deferred(_) if matches!(self.domains.get(key).routed, Routed::Site(_)) => {
                // Serve stale: a name server's trouble is not the site's.
                self.domains.get_mut(key).expires = Some(ask_again);
            }
            Resolution::Deferred(reply) => self.refuse_domain(key, &Verdict::Deferred(reply)),
            Resolution::Failed(reply) => self.refuse_domain(key, &Verdict::Failed(reply)),
        }
    }

    /// Nobody takes this domain's mail: its waiting recipients get that verdict.
    fn refuse_domain(&mut self, key: DomainKey, verdict: &Verdict) {
        let domain = self.domains.get_mut(key);
        domain.routed = Routed::Unknown;
        let waiting = std::mem::take(&mut domain.waiting);
        for range in waiting {
            self.conclude_range(range, verdict.clone());
        }
    }

    fn site_named(&mut self, name: &Arc<str>, hosts: Vec<Host>) -> SiteKey {
        if let Some(key) = self.sites.by_name.get(name) {
            let site = &mut self.sites.sites[key.0 as usize];
            take_hosts(site, hosts);
            return *key;
        }
        let shared = self.crossing.sites.site(name, self.settings.site_limits);
        let site = LocalSite {
            shared,
            hosts: Vec::new(),
            lanes: Lanes::default(),
            idle: Vec::new(),
            connections: 0,
            connecting: 0,
            works: 0,
            not_before: None,
            wake_at: None,
            trouble: None,
            is_dirty: false,
        };
        let key = SiteKey(u32::try_from(self.sites.sites.insert(site)).expect("as many as domains at most"));
        take_hosts(self.sites.get_mut(key), hosts);
        self.sites.by_name.insert(Arc::clone(name), key);
        key
    }

    /// New limits for sites that exist, and routes looked up anew.
    pub(crate) fn reload_sites(&mut self) {
        for key in self.sites.keys() {
            self.sites.get(key).shared.set_limits(self.settings.site_limits);
            self.sites.get_mut(key).not_before = None;
            self.sites.touch(key);
        }
        for key in self.domains.keys() {
            let domain = self.domains.get_mut(key);
            if matches!(domain.routed, Routed::Site(_)) {
                domain.routed = Routed::Unknown;
            }
        }
    }

    /// Ranges whose time has come.
    pub(crate) fn run_schedule(&mut self) {
        // What more is due comes in the next turn, which then begins at once.
        for _ in 0..DUE_PER_TURN {
            let Some(range) = self.schedule.pop_due(self.wall) else { return };
            self.offer_range(range);
        }
    }

    /// Looks at every site where something changed.
    pub(crate) fn run_sites(&mut self) {
        while let Some((at, key)) = self.sites.wakes.first().copied()
            && at <= self.now
        {
            self.sites.wakes.pop_first();
            self.sites.get_mut(key).wake_at = None;
            self.sites.touch(key);
        }
        // Sites touched meanwhile wait for the next turn, so that a turn ends.
        for _ in 0..self.sites.dirty.len() {
            let Some(key) = self.sites.dirty.pop_front() else { break };
            self.sites.get_mut(key).is_dirty = false;
            self.run_site(key);
        }
    }

    fn run_site(&mut self, key: SiteKey) {
        if self.halted || self.stop != Stop::Running {
            return;
        }
        if self.site_waits(key) {
            return self.return_borrowed(key);
        }
        while self.sites.get(key).lanes.has_work() {
            let Some(place) = self.sites.get_mut(key).idle.pop() else { break };
            if !self.feed(place) {
                self.sites.get_mut(key).idle.push(place);
                break;
            }
        }
        self.connect_more(key);
    }

    fn site_waits(&mut self, key: SiteKey) -> bool {
        let now = self.now;
        let site = self.sites.get_mut(key);
        match site.not_before {
            Some(until) if now < until => true,
            Some(_) => {
                site.not_before = None;
                false
            }
            None => false,
        }
    }

    /// Opens connections while there is more ready than there are connections on their way.
    fn connect_more(&mut self, key: SiteKey) {
        loop {
            let site = self.sites.get(key);
            if !site.lanes.has_more_than(site.connecting) {
                return;
            }
            match site.shared.lease(self.index, self.crossing.cores(), self.now) {
                Lease::Granted => {
                    if !self.connect(key) {
                        return;
                    }
                }
                Lease::Full if site.connections == 0 => {
                    self.hand_over_urgent(key);
                    return self.wake_site(key, self.now + PAUSE);
                }
                Lease::Full => return,
                Lease::Wait { until } => {
                    let until = until.unwrap_or(self.now + PAUSE);
                    return self.site_must_wait(key, until);
                }
            }
        }
    }

    /// Every host rests, although another was left when the last one failed (an answer took it away): none rests
    /// any more, after a pause.
    pub(crate) fn no_host_is_left(&mut self, key: SiteKey) {
        for host in &mut self.sites.get_mut(key).hosts {
            host.rests_until = None;
        }
        self.site_must_wait(key, self.now + PAUSE);
    }

    fn wake_site(&mut self, key: SiteKey, at: Instant) {
        // One wake a site, the earliest: it looks for the next one itself.
        let site = self.sites.get_mut(key);
        if site.wake_at.is_some_and(|pending| pending <= at) {
            return;
        }
        if let Some(later) = site.wake_at.replace(at) {
            self.sites.wakes.remove(&(later, key));
        }
        self.sites.wakes.insert((at, key));
    }

    fn site_must_wait(&mut self, key: SiteKey, until: Instant) {
        self.sites.get_mut(key).not_before = Some(until);
        self.wake_site(key, until);
    }

    /// The host to try now: the first in order that is not resting.
    pub(crate) fn next_host(&self, key: SiteKey) -> Option<usize> {
        let resting = |host: &HostState| host.rests_until.is_some_and(|until| self.now < until);
        self.sites.get(key).hosts.iter().position(|host| !resting(host))
    }

    /// A delivery or a recipient's refusal: the host works. Reported a round at a time.
    pub(crate) fn site_works(&mut self, key: SiteKey) {
        let now = self.now;
        let site = self.sites.get_mut(key);
        site.trouble = None;
        site.works += 1;
        if site.works < site.connections {
            return;
        }
        let works = std::mem::take(&mut site.works);
        site.shared.report(now, Health::Works(works));
        if site.lanes.has_work() {
            self.sites.touch(key);
        }
    }

    /// A host refused us or fell silent. Another one is tried at once; the site waits when none is left.
    pub(crate) fn host_failed(&mut self, key: SiteKey, address: SocketAddr, reply: Reply) {
        let now = self.now;
        let site = self.sites.get_mut(key);
        if let Some(host) = site.hosts.iter_mut().find(|host| host.host.address == address) {
            host.rests_until = Some(now + HOST_REST);
        }
        site.trouble = Some(reply);
        self.sites.touch(key);
        if self.next_host(key).is_some() {
            return;
        }
        let site = self.sites.get_mut(key);
        for host in &mut site.hosts {
            host.rests_until = None;
        }
        let until = site.shared.report(now, Health::HostFailed).unwrap_or(now + PAUSE);
        let (name, wait) = (site.shared.name(), until.saturating_duration_since(now).as_secs());
        let reason = site.trouble.as_ref().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(
            site = name,
            reason,
            wait_secs = wait,
            "no host of the site serves us; its mail waits"
        );
        self.site_must_wait(key, until);
    }

    pub(crate) fn site_throttles(&mut self, key: SiteKey) {
        self.sites.get(key).shared.report(self.now, Health::Throttled);
    }

    /// What another core lent us for a site that waits goes back to wait there.
    fn return_borrowed(&mut self, key: SiteKey) {
        if !self.shares.has_borrowed() {
            return;
        }
        let due = self.sites.get(key).not_before.map_or(self.wall, |until| {
            let wait = until.saturating_duration_since(self.now);
            self.wall.plus_secs(wait.as_secs() + 1)
        });
        let mut back = Vec::new();
        for lane in self.sites.get_mut(key).lanes.each_mut() {
            lane.take_out_all(|range| is_borrowed(range.message), &mut back);
        }
        for range in back {
            self.defer(range, due);
        }
    }
}

/// Hosts that stay keep what is remembered of them.
fn take_hosts(site: &mut LocalSite, hosts: Vec<Host>) {
    let mut before = std::mem::take(&mut site.hosts);
    site.hosts = hosts
        .into_iter()
        .map(|host| match before.iter().position(|known| known.host == host) {
            Some(at) => before.swap_remove(at),
            None => HostState { host, habits: Habits::default(), copies: false, rests_until: None },
        })
        .collect();
}

/// A configured relay with a literal address: no look-up, no expiry.
fn relay_at(address: SocketAddr) -> Resolution {
    let name: Arc<str> = address.to_string().into();
    Resolution::Site {
        site: Arc::clone(&name),
        hosts: vec![Host { name, address, tls: Arc::default() }],
        basis: Arc::default(),
        ttl_secs: u64::from(u32::MAX),
    }
}

/// `[192.0.2.1]`, `[ipv6:…]`: the domain is an address (RFC 5321 §4.1.3).
fn literal(domain: &str) -> Option<std::net::IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    inner.strip_prefix("ipv6:").unwrap_or(inner).parse().ok()
}
