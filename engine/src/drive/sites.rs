//! Sites as one core sees them: what is ready for each, which of its hosts answer, whether to open a connection.
//!
//! A range of recipients becomes ready here, in its lane (`lanes`), has its names read, and is handed out by `outbound`.
//! Bound: as many ranges as are owed (24 bytes each), one window of names at a time per site and lane.

use crate::clock::Clock;
use crate::core::{Core, Place, Stop};
use crate::domains::{Host, SiteKey, WayKey};
use crate::drive::lanes::Lanes;
use crate::drive::share::is_borrowed;
use crate::drive::ways::Way;
use crate::hosts::Trial;
use message::{Lane, Reply};
use queue::site_table::{Health, Lease, Site};
use queue::{MessageKey, Range};
use ring::Ring;
use slab::Slab;
use smtp_out::Habits;
use std::collections::{BTreeSet, VecDeque};
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

/// A host, and what is remembered of it.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) host: Host,
    pub(crate) habits: Habits,
    /// The kernel said that it copies what is sent there: no more wishes for zero copy.
    pub(crate) copies: bool,
    /// What it said when it was connected makes it rest; addresses that cannot be connected to rest for all.
    pub(crate) rests_until: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LocalSite {
    pub(crate) way: WayKey,
    pub(crate) shared: Arc<Site>,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) lanes: Lanes,
    /// Connections that are ready and have nothing to do, the most recent last.
    pub(crate) idle: Vec<Place>,
    pub(crate) connections: u32,
    pub(crate) connecting: u32,
    /// Successes not yet reported: reported a round at a time.
    works: u32,
    pub(crate) not_before: Option<Instant>,
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
        self.shared.snapshot().slots == 0
    }

    /// Hosts that stay keep what is remembered of them.
    pub(crate) fn take_hosts(&mut self, hosts: &[Host]) {
        let mut before = std::mem::take(&mut self.hosts);
        let state = |host: &Host| match before.iter().position(|known| known.host == *host) {
            Some(at) => before.swap_remove(at),
            None => {
                HostState { host: host.clone(), habits: Habits::default(), copies: false, rests_until: None }
            }
        };
        self.hosts = hosts.iter().map(state).collect();
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
    pub(crate) fn push_back(&mut self, key: SiteKey, lane: Lane, range: Range) {
        self.get_mut(key).lanes.get_mut(lane).ranges.push_back(range);
        self.touch(key);
    }

    fn remove(&mut self, key: SiteKey) -> LocalSite {
        let site = self.sites.remove(key.0 as usize);
        if let Some(at) = site.wake_at {
            self.wakes.remove(&(at, key));
        }
        site
    }

    /// A connection has ended: the site that has waited longest may have its room.
    pub(crate) fn room_was_made(&mut self) {
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

    /// Takes what is ready in one lane of a site, for a sweep over all of them; `place` counts lanes through the table.
    /// `None` behind the last. Ranges whose names were read already stay, unless `even_open`: those that come back are
    /// read again.
    pub(crate) fn take_ready_at(
        &mut self,
        place: usize,
        even_open: bool,
    ) -> Option<(SiteKey, Lane, VecDeque<Range>)> {
        let (index, lane) = (place / Lane::ALL.len(), Lane::ALL[place % Lane::ALL.len()]);
        if index >= self.sites.capacity() {
            return None;
        }
        let key = SiteKey(u32::try_from(index).unwrap_or(u32::MAX));
        let Some(site) = self.sites.get_mut(index) else { return Some((key, lane, VecDeque::new())) };
        let work = site.lanes.get_mut(lane);
        // Room for all to come back: address space only, and no copying as it fills.
        let room = VecDeque::with_capacity(work.ranges.len());
        let mut ready = std::mem::replace(&mut work.ranges, room);
        if even_open {
            work.open.drain(..).rev().for_each(|open| ready.push_front(open.range()));
        }
        Some((key, lane, ready))
    }

    /// Ready ranges whose names were read already.
    pub(crate) fn open_ranges(&self) -> impl Iterator<Item = Range> {
        self.sites.iter().flat_map(|(_, site)| site.lanes.open_ranges())
    }

    /// A range that a sweep took goes back to its lane.
    pub(crate) fn put_back(&mut self, key: SiteKey, lane: Lane, range: Range) {
        let site = &mut self.sites[key.0 as usize];
        site.lanes.get_mut(lane).ranges.push_back(range);
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
    /// Which lane the message goes in, our own or borrowed. Asked once a range, not once a delivery.
    pub(crate) fn lane_of(&self, message: MessageKey) -> Lane {
        let borrowed = self.shares.letter(message).map(|letter| letter.lane);
        borrowed.or_else(|| self.store.get(message).map(|queued| queued.lane)).unwrap_or_default()
    }

    /// A site of the way, with nothing to do yet.
    pub(crate) fn new_site(&mut self, way: WayKey) -> SiteKey {
        let Way { site: name, hosts, .. } = self.ways.get(way);
        let shared = self.crossing.sites.site(name, self.settings.site_limits);
        let mut site = LocalSite {
            way,
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
            wants_room: false,
        };
        site.take_hosts(hosts);
        SiteKey(u32::try_from(self.sites.sites.insert(site)).expect("as many as domains at most"))
    }

    /// New limits for sites that exist, and routes looked up anew.
    pub(crate) fn reload_sites(&mut self) {
        for key in self.sites.keys() {
            self.sites.get(key).shared.set_limits(self.settings.site_limits);
            self.sites.get_mut(key).not_before = None;
            self.sites.touch(key);
        }
        self.reroute_all();
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
            if !self.has_room(key) {
                return;
            }
            let site = self.sites.get(key);
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

    /// True if this core may have one more connection. If not, the site has its turn when one has ended, and one that
    /// has nothing to do ends now.
    fn has_room(&mut self, key: SiteKey) -> bool {
        if self.outbound.open() < self.settings.connections_share(self.crossing.cores()) {
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

    fn site_must_wait(&mut self, key: SiteKey, until: Instant) {
        self.sites.get_mut(key).not_before = Some(until);
        self.wake_site(key, until);
    }

    /// The host to try now: the first in order that does not rest; if all do, the one whose rest ends first.
    pub(crate) fn next_host(&self, key: SiteKey) -> (usize, Trial) {
        let patience = self.settings.connect_timeout();
        let mut first = (0, None);
        for (at, host) in self.sites.get(key).hosts.iter().enumerate() {
            let own = host.rests_until.filter(|until| self.now < *until);
            let until = match own {
                Some(until) => until,
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
    fn has_host(&self, key: SiteKey) -> bool {
        let rests = |host: &HostState| {
            host.rests_until.is_some_and(|until| self.now < until)
                || self.crossing.hosts.rests_until(host.host.address, self.now).is_some()
        };
        !self.sites.get(key).hosts.iter().all(rests)
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

    /// A host refused us or fell silent once it was connected.
    pub(crate) fn host_failed(&mut self, key: SiteKey, address: SocketAddr, reply: Reply) {
        let now = self.now;
        let site = self.sites.get_mut(key);
        if let Some(host) = site.hosts.iter_mut().find(|host| host.host.address == address) {
            host.rests_until = Some(now + HOST_REST);
        }
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
            lane.take_out(0, usize::MAX, |range| is_borrowed(range.message), &mut back);
            lane.take_out_open(|range| is_borrowed(range.message), &mut back);
        }
        for range in back {
            self.defer(range, due);
        }
    }
}
