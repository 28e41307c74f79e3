//! Sites as one core sees them: what is ready for each, which of its hosts answer, whether to open a connection.
//!
//! A range of recipients becomes ready here, in its lane and flow (`lanes`), has its names read, and is handed out by `outbound`.
//! Bound: as many ranges as are owed (24 bytes each), one window of names at a time per site, lane and flow.

use crate::clock::Clock;
use crate::core::{Core, Place, Stop};
use crate::domains::{Host, SiteKey, WayKey};
use crate::drive::lanes::Lanes;
use crate::drive::pace::{Begin, Pace};
use crate::drive::share::is_borrowed;
use crate::hosts::Trial;
use crate::sources::SourceKey;
use message::{Flow, Lane, Reply};
use queue::site_table::{Health, Lease, Why};
use queue::{MessageKey, Range};
use ring::Ring;
use slab::Slab;
use smtp_out::Habits;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A host that failed is left alone for this long while another one answers.
pub(crate) const HOST_REST: Duration = Duration::from_secs(60);

/// Between rounds of failures that do not yet make the site wait, and before asking again for a lease when all
/// connections are another core's.
const PAUSE: Duration = Duration::from_secs(1);

/// Busy sites that are looked through for one that shares its limits.
const SIBLINGS_MAX: usize = 256;

/// What a host broke on is tried again after this long.
const HABITS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// TLS sooner: mail goes in plain text meanwhile.
const TLS_BROKEN_KEPT: Duration = Duration::from_secs(3600);

/// From this on a wait for the next message is one in which another source should send it.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// A source that may send nothing until its limits change is looked at again after this long.
const NEW_LIMITS_MAX: Duration = Duration::from_secs(3600);

/// Ranges that become ready in one turn: a million may be due at the same second.
const DUE_PER_TURN: u32 = 4096;

/// Flows of a lane, as a sweep counts them.
const FLOWS: usize = 256;

/// A host, and what is remembered of it.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) host: Host,
    habits: Habits,
    /// When they were last learnt.
    learnt_at: Instant,
    /// The kernel said that it copies what is sent there: no more wishes for zero copy.
    pub(crate) copies: bool,
    /// What it said when it was connected makes it rest; addresses that cannot be connected to rest for all.
    pub(crate) rests_until: Option<Instant>,
}

impl HostState {
    fn new(host: &Host, now: Instant) -> HostState {
        let (host, habits) = (host.clone(), Habits::default());
        HostState { host, habits, learnt_at: now, copies: false, rests_until: None }
    }

    /// What is remembered of it and not out of date.
    pub(crate) fn habits(&self, now: Instant) -> Habits {
        let age = now.saturating_duration_since(self.learnt_at);
        let Habits { window, .. } = self.habits;
        let kept = if age < HABITS_KEPT { self.habits } else { Habits { window, ..Habits::default() } };
        Habits { tls_broken: kept.tls_broken && age < TLS_BROKEN_KEPT, ..kept }
    }

    /// A session has ended: `habits` is what it was told, and what it learnt.
    pub(crate) fn learn(&mut self, habits: Habits, now: Instant) {
        let before = Habits { window: habits.window, ..self.habits(now) };
        if habits != before {
            self.learnt_at = now;
        }
        self.habits = habits;
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LocalSite {
    pub(crate) way: WayKey,
    pub(crate) source: SourceKey,
    pub(crate) pace: Pace,
    /// What sessions from this source are told.
    pub(crate) sessions: Arc<smtp_out::Config>,
    /// Recipients of one transaction.
    pub(crate) recipients_max: usize,
    /// What the source sends here counts against its warm-up.
    pub(crate) is_warming_up: bool,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) lanes: Lanes,
    /// Connections that are ready and have nothing to do, the most recent last.
    pub(crate) idle: Vec<Place>,
    pub(crate) connections: u32,
    pub(crate) connecting: u32,
    /// Successes not yet reported, and how long those took that were timed: reported a round at a time.
    works: u32,
    timed: (u32, Duration),
    pub(crate) not_before: Option<Instant>,
    /// The source lets nothing go there.
    closed_until: Option<Instant>,
    /// When it is looked at again though nothing happened.
    wake_at: Option<Instant>,
    /// Why the last connection failed, until one works.
    pub(crate) trouble: Option<Reply>,
    is_dirty: bool,
    /// It waits for one of the core's other connections to end.
    pub(crate) wants_room: bool,
}

impl LocalSite {
    /// The operator wants nothing to go there.
    pub(crate) fn is_held(&self) -> bool {
        self.pace.site().is_held()
    }

    /// For what it said, or for its silence, the host is left alone until then.
    pub(crate) fn host_rests(&mut self, address: SocketAddr, until: Instant) {
        if let Some(host) = self.hosts.iter_mut().find(|host| host.host.address == address) {
            host.rests_until = host.rests_until.max(Some(until));
        }
    }

    /// Until when the source may not send here, if it may not.
    pub(crate) fn closed_at(&self, now: Instant) -> Option<Instant> {
        self.closed_until.filter(|until| *until > now)
    }

    /// Hosts that stay keep what is remembered of them.
    pub(crate) fn take_hosts(&mut self, hosts: &[Host], now: Instant) {
        let mut before = std::mem::take(&mut self.hosts);
        let state = |host: &Host| match before.iter().position(|known| known.host == *host) {
            Some(at) => before.swap_remove(at),
            None => HostState::new(host, now),
        };
        self.hosts = hosts.iter().map(state).collect();
    }

    /// Nothing waits here, nothing is being read or in flight.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lanes.is_empty() && self.connections as usize == self.idle.len()
    }

    /// Nothing is under way here, and nothing waits.
    fn is_empty(&self) -> bool {
        self.connections == 0 && !self.wants_room && self.lanes.is_empty()
    }
}

/// All sites of a core.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    sites: Slab<LocalSite>,
    dirty: VecDeque<SiteKey>,
    wakes: BTreeSet<(Instant, SiteKey)>,
    /// Those that want a connection when there is room for one more.
    roomless: VecDeque<SiteKey>,
    /// Those without a connection that want one of a site with which they share limits.
    starving: BTreeSet<SiteKey>,
    /// Those with work that do not wait for anything but a connection, as of their last turn.
    busy: BTreeSet<SiteKey>,
}

impl Sites {
    pub(crate) fn get(&self, key: SiteKey) -> &LocalSite {
        &self.sites[key.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, key: SiteKey) -> &mut LocalSite {
        &mut self.sites[key.0 as usize]
    }

    /// `None` if the site was forgotten meanwhile. Another may have its number: compare its way.
    pub(crate) fn try_get(&self, key: SiteKey) -> Option<&LocalSite> {
        self.sites.get(key.0 as usize)
    }

    /// Sites have numbers below this.
    pub(crate) fn places(&self) -> u32 {
        u32::try_from(self.sites.capacity()).unwrap_or(u32::MAX)
    }

    /// A range becomes ready.
    pub(crate) fn push_back(&mut self, key: SiteKey, turn: (Lane, Flow), range: Range) {
        self.get_mut(key).lanes.push_back(turn, range);
        self.touch(key);
    }

    fn remove(&mut self, key: SiteKey) -> LocalSite {
        let site = self.sites.remove(key.0 as usize);
        if let Some(at) = site.wake_at {
            self.wakes.remove(&(at, key));
        }
        self.busy.remove(&key);
        self.starving.remove(&key);
        site
    }

    fn note_busy(&mut self, key: SiteKey, is_busy: bool) {
        if is_busy {
            self.busy.insert(key);
        } else {
            self.busy.remove(&key);
        }
    }

    /// Up to `most` busy sites from that one on, and round the table.
    pub(crate) fn busy_from(&self, from: SiteKey, most: usize) -> Vec<SiteKey> {
        let (before, after) = (self.busy.range(..from), self.busy.range(from..));
        after.chain(before).take(most).copied().collect()
    }

    /// Takes everything that is ready there, names at hand or not.
    pub(crate) fn take_all(&mut self, key: SiteKey) -> Vec<Range> {
        let mut all = Vec::new();
        for lane in self.get_mut(key).lanes.each_mut() {
            lane.take_out_all(|_| true, &mut all);
        }
        all
    }

    /// A connection has ended: the site that has waited longest may have its room.
    pub(crate) fn room_was_made(&mut self) {
        if let Some(key) = self.starving.pop_first() {
            self.touch(key);
        }
        self.give_room();
    }

    /// The site that has waited longest for room has its turn.
    fn give_room(&mut self) {
        if let Some(key) = self.roomless.pop_front() {
            self.get_mut(key).wants_room = false;
            self.touch(key);
        }
    }

    pub(crate) fn keys(&self) -> Vec<SiteKey> {
        self.sites.iter().map(|(key, _)| SiteKey(u32::try_from(key).unwrap_or(u32::MAX))).collect()
    }

    /// The site is to be looked at before the turn ends.
    pub(crate) fn touch(&mut self, key: SiteKey) {
        let Some(site) = self.sites.get_mut(key.0 as usize) else { return };
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
            self.get(key).pace.provider().lift_back_off();
            self.lift_back_off(key);
        }
    }

    /// The same for one site. What its provider has suspended stays: that is not one domain's to lift.
    pub(crate) fn lift_back_off(&mut self, key: SiteKey) {
        let site = self.get_mut(key);
        site.pace.site().lift_back_off();
        (site.not_before, site.closed_until) = (None, None);
        site.hosts.iter_mut().for_each(|host| host.rests_until = None);
        self.touch(key);
    }

    /// True if something is ready that a connection could take now.
    pub(crate) fn have_work(&self) -> bool {
        !self.busy.is_empty() || !self.dirty.is_empty()
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// In which lane, and whose turn in it: of a message of our own or borrowed. Asked once a range, not once a delivery.
    pub(crate) fn turn_of(&self, message: MessageKey) -> (Lane, Flow) {
        let borrowed = self.shares.letter(message).map(|letter| (letter.lane, letter.class.flow));
        let own = || self.store.get(message).map(|queued| (queued.lane(), queued.flow()));
        borrowed.or_else(own).unwrap_or_default()
    }

    /// A site of the way, with nothing to do yet.
    pub(crate) fn new_site(&mut self, way: WayKey, source: SourceKey) -> SiteKey {
        let limits = self.limits_of(way, source);
        let name = self.settings.source_name(source);
        let table = &self.crossing.sites;
        let way_of = self.ways.get(way);
        let shared = table.site(&way_of.site, name, limits.site, self.now);
        let provider =
            limits.provider.map(|(provider, limits)| table.site(&provider, name, limits, self.now));
        let mut site = LocalSite {
            way,
            source,
            pace: Pace::new(shared, provider),
            sessions: limits.sessions,
            recipients_max: limits.recipients_max,
            is_warming_up: limits.is_warming_up,
            hosts: Vec::new(),
            lanes: Lanes::default(),
            idle: Vec::new(),
            connections: 0,
            connecting: 0,
            works: 0,
            timed: (0, Duration::ZERO),
            not_before: None,
            closed_until: None,
            wake_at: None,
            trouble: None,
            is_dirty: false,
            wants_room: false,
        };
        site.take_hosts(&way_of.hosts, self.now);
        if site.is_warming_up {
            self.crossing.unrestored.restore(site.pace.provider(), self.now, self.wall);
        }
        SiteKey(u32::try_from(self.sites.sites.insert(site)).expect("as many as domains and sources at most"))
    }

    /// New limits for sites that exist, and routes looked up anew.
    pub(crate) fn reload_sites(&mut self) {
        self.limit_sites_anew();
        self.reroute_all();
        for key in self.sites.keys() {
            let is_gone = self.settings.sources.source(self.sites.get(key).source).is_none();
            if is_gone {
                // Nothing more goes out from it.
                self.sites.take_all(key).into_iter().for_each(|range| self.offer_range(range));
            }
        }
    }

    pub(crate) fn limit_sites_anew(&mut self) {
        for key in self.sites.keys() {
            let LocalSite { way, source, .. } = *self.sites.get(key);
            let limits = self.limits_of(way, source);
            let now = self.now;
            let site = self.sites.get_mut(key);
            site.pace.set_limits(limits.site, limits.provider.map(|(_, limits)| limits), now);
            (site.sessions, site.recipients_max) = (limits.sessions, limits.recipients_max);
            site.is_warming_up = limits.is_warming_up;
            (site.not_before, site.closed_until) = (None, None);
            self.sites.touch(key);
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
        if self.outbound.open_to_others() < self.settings.connections_share(self.crossing.cores()) {
            // Not every site that was given room could use it.
            self.sites.give_room();
        }
    }

    fn run_site(&mut self, key: SiteKey) {
        if self.halted || self.stop != Stop::Running {
            return;
        }
        let way = self.sites.get(key).way;
        if self.ways.is_unused(way) {
            // Its domains have another answer now: what is ready goes where they lead.
            self.sites.take_all(key).into_iter().for_each(|range| self.offer_range(range));
            return self.rest_site(key);
        }
        if let Some(fetch) = self.ways.get(way).fetch {
            return self.run_fetch(fetch, key);
        }
        if self.site_waits(key) || self.ways.get(way).is_held() {
            self.return_borrowed(key);
            return self.rest_site(key);
        }
        self.feed_idle(key);
        self.connect_more(key);
        self.rest_site(key);
    }

    /// Connections that stand ready take what has come.
    pub(crate) fn feed_idle(&mut self, key: SiteKey) {
        while self.sites.get(key).lanes.has_work() {
            let Some(place) = self.sites.get_mut(key).idle.pop() else { break };
            if !self.feed(place) {
                self.sites.get_mut(key).idle.push(place);
                break;
            }
        }
    }

    /// May one more transaction begin? If not, the site has its turn when one may.
    pub(crate) fn may_begin(&mut self, key: SiteKey) -> bool {
        let now = self.now;
        if self.sites.get(key).closed_at(now).is_some() {
            return false;
        }
        match self.sites.get_mut(key).pace.may_begin(now) {
            Begin::Now => true,
            Begin::Later(until) => {
                let until = until.unwrap_or(now + NEW_LIMITS_MAX);
                let is_long = until.saturating_duration_since(now) >= LONG_WAIT;
                match self.sites.get(key).pace.holds(now) {
                    Some(Why::Held | Why::Suspended | Why::Dead) => self.site_must_wait(key, until),
                    Some(Why::Blocked) => self.close_site(key, until),
                    // Others may give back what they have taken of it.
                    None if is_long => self.close_site(key, until.min(now + NEW_LIMITS_MAX)),
                    None => self.wake_site(key, until),
                }
                false
            }
        }
    }

    /// Nothing goes from this source for long: what waits may go from another.
    pub(crate) fn close_site(&mut self, key: SiteKey, until: Instant) {
        self.sites.get_mut(key).closed_until = Some(until);
        self.site_must_wait(key, until);
        self.go_to_other_sources(key);
    }

    /// Every site that anything happened to ends its turn here.
    pub(crate) fn rest_site(&mut self, key: SiteKey) {
        let site = self.sites.get_mut(key);
        let has_work = site.lanes.has_work();
        let (way, waits) = (site.way, site.not_before.is_some());
        // Others may need what no connection of this site can use yet.
        if !has_work || site.connections == site.connecting {
            site.pace.give_back_tokens();
        }
        if !has_work {
            self.hold_route_again(way);
        }
        let is_busy = has_work && !waits && !self.ways.get(way).is_held();
        self.sites.note_busy(key, is_busy);
        self.forget_if_unused(key);
    }

    /// No domain leads there any more, and nothing is left of what came that way.
    fn forget_if_unused(&mut self, key: SiteKey) {
        let site = self.sites.get(key);
        let way = site.way;
        if site.is_empty() && !site.is_dirty && self.ways.is_unused(way) {
            self.sites.remove(key);
            self.ways.forget_site(way, key);
        }
    }

    pub(crate) fn site_waits(&mut self, key: SiteKey) -> bool {
        let now = self.now;
        let site = self.sites.get_mut(key);
        match site.not_before {
            Some(until) if now < until => {
                // An earlier wake than this may have brought us here, and was the only one.
                self.wake_site(key, until);
                true
            }
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
            if !self.may_begin(key) || !self.has_room(key) {
                return;
            }
            let site = self.sites.get(key);
            match site.pace.lease(self.index, self.crossing.cores(), self.now) {
                Lease::Granted => {
                    if !self.connect(key) {
                        return;
                    }
                }
                Lease::Full if site.connections == 0 => {
                    self.hand_over_urgent(key);
                    self.ask_for_room(key);
                    return self.wake_site(key, self.now + PAUSE);
                }
                Lease::Full => return,
                Lease::Later { until } => return self.wake_site(key, until.unwrap_or(self.now + PAUSE)),
                Lease::Wait { until } => {
                    let (now, until) = (self.now, until.unwrap_or(self.now + PAUSE));
                    return match self.sites.get(key).pace.holds(now) {
                        Some(Why::Blocked) => self.close_site(key, until),
                        _ => self.site_must_wait(key, until),
                    };
                }
            }
        }
    }

    /// Sites that share limits (domains of one MX set with other demands, a provider's sites) may have all connections
    /// between them, for as long as their lists last: one that has none gets the next that ends, and one ends soon.
    fn ask_for_room(&mut self, key: SiteKey) {
        let pace = &self.sites.get(key).pace;
        let shares = |other: &SiteKey| *other != key && self.sites.get(*other).pace.shares_with(pace);
        let busy = || {
            let mut siblings = self.sites.busy_from(key, SIBLINGS_MAX).into_iter().filter(shares);
            siblings.find_map(|sibling| self.outbound.ready_one_of(sibling))
        };
        if let Some(place) = self.outbound.idle_one_of(shares).or_else(busy) {
            self.sites.starving.insert(key);
            self.end_connection(place);
        }
    }

    /// True if this core may have one more connection. If not, the site has its turn when one has ended, and one that
    /// has nothing to do ends now.
    fn has_room(&mut self, key: SiteKey) -> bool {
        let is_open =
            || self.outbound.open_to_others() < self.settings.connections_share(self.crossing.cores());
        if self.delivers_here(key) || is_open() {
            return true;
        }
        if !std::mem::replace(&mut self.sites.get_mut(key).wants_room, true) {
            self.sites.roomless.push_back(key);
            self.end_an_idle_connection();
        }
        false
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

    pub(crate) fn site_must_wait(&mut self, key: SiteKey, until: Instant) {
        self.sites.get_mut(key).not_before = Some(until);
        self.wake_site(key, until);
    }

    /// The host to try now: the first in order that does not rest; if all do, the one whose rest ends first.
    pub(crate) fn next_host(&self, key: SiteKey) -> (usize, Trial) {
        let patience = self.settings.connect_timeout();
        let is_direct = self.is_direct(key);
        let mut first = (0, None);
        for (at, host) in self.sites.get(key).hosts.iter().enumerate() {
            let own = host.rests_until.filter(|until| self.now < *until);
            let until = match own {
                Some(until) => until,
                None if !is_direct => return (at, Trial::Fine),
                None => match self.crossing.hosts.try_out(host.host.address, self.now, patience) {
                    Trial::Resting { until } => until,
                    free @ (Trial::Fine | Trial::Probe) => return (at, free),
                },
            };
            if first.1.is_none_or(|earliest| until < earliest) {
                first = (at, Some(until));
            }
        }
        (first.0, Trial::Resting { until: first.1.unwrap_or(self.now) })
    }

    /// True if some host does not rest. Tries nothing out.
    pub(crate) fn has_host(&self, key: SiteKey) -> bool {
        let is_direct = self.is_direct(key);
        let rests = |host: &HostState| {
            host.rests_until.is_some_and(|until| self.now < until)
                || is_direct && self.crossing.hosts.rests_until(host.host.address, self.now).is_some()
        };
        !self.sites.get(key).hosts.iter().all(rests)
    }

    /// A delivery or a recipient's refusal: the host works. Reported a round at a time.
    pub(crate) fn site_works(&mut self, key: SiteKey, took: Option<Duration>) {
        let now = self.now;
        let site = self.sites.get_mut(key);
        site.trouble = None;
        site.works += 1;
        if let Some(took) = took {
            site.timed = (site.timed.0 + 1, site.timed.1 + took);
        }
        if site.works < site.connections {
            return;
        }
        let count = std::mem::take(&mut site.works);
        let (timed, took) = std::mem::take(&mut site.timed);
        let latency = (timed > 0).then(|| took / timed);
        site.pace.report(now, Health::Works { count, latency });
        if site.lanes.has_work() {
            self.sites.touch(key);
        }
    }

    /// A host refused us or fell silent once it was connected.
    pub(crate) fn host_failed(&mut self, key: SiteKey, address: SocketAddr, reply: Reply) {
        self.sites.get_mut(key).host_rests(address, self.now + HOST_REST);
        self.go_to_next_host(key, reply);
    }

    /// Another host is tried at once; the site waits when none is left.
    pub(crate) fn go_to_next_host(&mut self, key: SiteKey, reply: Reply) {
        let now = self.now;
        self.sites.get_mut(key).trouble = Some(reply);
        self.sites.touch(key);
        if self.has_host(key) {
            return;
        }
        let site = self.sites.get_mut(key);
        let until = site.pace.report(now, Health::HostFailed).unwrap_or(now + PAUSE);
        let (name, wait) = (site.pace.site().name(), until.saturating_duration_since(now).as_secs());
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
        self.sites.get(key).pace.report(self.now, Health::Throttled);
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
