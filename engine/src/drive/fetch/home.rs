//! The core that has the client: what it asks, what the session is answered, and the connection once it goes the other way.

use super::{Handed, Reversed};
use crate::access::Domains;
use crate::clock::Clock;
use crate::core::{Core, Kind, Place, Stop, token};
use crate::crossing::Chunk;
use crate::demands;
use crate::domains::{Host, SiteKey, WayKey};
use crate::drive::outbound::Connection;
use crate::drive::share::is_borrowed;
use crate::fetch::{FetchId, FetchMail, Wanted};
use crate::look::trace::Direction;
use crate::settings::Settings;
use crate::steer::order::Order;
use queue::Range;
use queue::site_table::Lease;
use ring::Ring;
use smtp_in::Tunnel;
use smtp_in::door::{Answer, Client, Origin};
use smtp_out::{Habits, Link, Session, TlsPolicy};
use std::net::SocketAddr;
use std::sync::Arc;

/// What is fetched by a client of this core's.
#[derive(Debug)]
pub(super) struct Fetch {
    generation: u32,
    /// The session that asked, until its connection is reversed.
    client: Place,
    order: Arc<Order>,
    way: WayKey,
    site: SiteKey,
    /// Cores that have not said what they have.
    unheard: usize,
    found: u64,
    /// Some core could not look.
    is_cut_short: bool,
    /// By core.
    lenders: Vec<Lender>,
    /// Over which it goes.
    connection: Option<Place>,
}

/// What another core has for the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lender {
    Unheard,
    HasMore,
    /// It is lending some.
    Lends,
    HasNothing,
}

impl Fetch {
    pub(super) fn is_it(&self, id: FetchId) -> bool {
        self.generation == id.generation
    }

    pub(super) fn is_for(&self, domain: &str) -> bool {
        self.order.fetch.as_ref().is_some_and(|wanted| wanted.domains.contains(domain))
    }

    pub(super) fn site(&self) -> SiteKey {
        self.site
    }

    /// Those that have more, which lend from here on.
    fn ask_lenders(&mut self) -> Vec<usize> {
        let mut asked = Vec::new();
        for (core, lender) in self.lenders.iter_mut().enumerate() {
            if *lender == Lender::HasMore {
                *lender = Lender::Lends;
                asked.push(core);
            }
        }
        asked
    }

    /// More is on its way.
    pub(super) fn is_lent_to(&self) -> bool {
        self.lenders.contains(&Lender::Lends)
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// A client has asked for the mail of `domains`; it is answered when all cores have looked. Its fetch's number; `None`:
    /// not now.
    pub(crate) fn begin_fetch(&mut self, place: Place, client: &Client, domains: &[String]) -> Option<u32> {
        let cores = self.crossing.cores();
        let has_room = self.outbound.open_to_others() < self.settings.connections_share(cores);
        if self.stop != Stop::Running || self.halted || !has_room || !self.steering.has_room_for_clients() {
            return None;
        }
        let index = u32::try_from(self.fetches.at_home.vacant_key()).expect("sessions_max bounds them");
        let (way, site) = self.new_way_to_client(index, client, domains)?;
        self.fetches.generation = self.fetches.generation.wrapping_add(1);
        let generation = self.fetches.generation;
        let id = FetchId { home: self.index, index, generation };
        let (domains, is_encrypted) = (Domains::new(domains.iter(), None), client.is_encrypted);
        let order = Order::fetching(Wanted { id, domains, is_encrypted });
        self.fetches.at_home.insert(Fetch {
            generation,
            client: place,
            order: Arc::clone(&order),
            way,
            site,
            unheard: cores,
            found: 0,
            is_cut_short: false,
            lenders: vec![Lender::Unheard; cores],
            connection: None,
        });
        for core in 0..cores {
            self.tell_of_fetch(core, FetchMail::Ask(Arc::clone(&order)));
        }
        Some(index)
    }

    /// With the lease on its connection.
    fn new_way_to_client(
        &mut self,
        index: u32,
        client: &Client,
        domains: &[String],
    ) -> Option<(WayKey, SiteKey)> {
        let (Some(login), Origin::Net { address, port }) = (&client.login, &client.origin) else {
            return None;
        };
        let tls = Arc::new(policy_of(&self.settings, domains));
        let host = Host { name: address.to_string().into(), address: SocketAddr::new(*address, *port), tls };
        let (source, _) = self.settings.sources.iter().next()?;
        let way = self.add_way_to_client(&format!("atrn {login}"), host, index);
        let site = self.site_of(way, source);
        let pace = &self.sites.get(site).pace;
        // A line that broke was the client's, who is here again.
        pace.site().lift_back_off();
        if pace.lease(self.index, self.crossing.cores(), self.now) != Lease::Granted {
            self.close_way_to_client(way);
            return None;
        }
        Some((way, site))
    }

    /// A core has looked.
    pub(super) fn on_found(&mut self, id: FetchId, core: usize, recipients: Option<u64>) {
        let own = self.index;
        let Some((index, fetch)) = self.fetches.home(id) else { return };
        fetch.unheard -= 1;
        fetch.is_cut_short |= recipients.is_none();
        fetch.found += recipients.unwrap_or(0);
        let has_more = core != own && recipients.is_some_and(|recipients| recipients > 0);
        fetch.lenders[core] = if has_more { Lender::HasMore } else { Lender::HasNothing };
        if fetch.unheard == 0 {
            self.answer_fetch(index);
        }
    }

    /// RFC 2645 §5.2.1.
    fn answer_fetch(&mut self, index: u32) {
        let Some(fetch) = self.fetches.at_home.get(index as usize) else { return };
        let (client, recipients) = (fetch.client, fetch.found);
        let answer = match (recipients, fetch.is_cut_short) {
            (0, true) => Answer::Unavailable,
            (0, false) => Answer::NothingWaits,
            (1.., _) => Answer::Turning,
        };
        let site = self.ways.get(fetch.way).site.as_ref();
        tracing::info!(site, recipients, "a client asks for its mail");
        if recipients == 0 {
            self.end_fetch(index);
        }
        self.answer_atrn(client, answer);
    }

    /// A range of this core's own.
    pub(super) fn make_ready_to_fetch(&mut self, id: FetchId, range: Range) {
        match self.fetches.home(id).map(|(_, fetch)| fetch.site) {
            Some(site) => self.sites.push_back(site, self.turn_of(range.message), range),
            None => self.put_back_to_wait(range),
        }
    }

    pub(super) fn on_lent(&mut self, id: FetchId, chunk: Chunk) {
        let range = self.take_in(chunk);
        self.make_ready_to_fetch(id, range);
    }

    pub(super) fn on_paused(&mut self, id: FetchId, core: usize, has_more: bool) {
        let Some((_, fetch)) = self.fetches.home(id) else { return };
        fetch.lenders[core] = if has_more { Lender::HasMore } else { Lender::HasNothing };
        let site = fetch.site;
        self.sites.touch(site);
    }

    /// Where nobody fetches it: a borrowed range goes back to its owner, any other to its domain's site.
    pub(crate) fn put_back_to_wait(&mut self, range: Range) {
        if is_borrowed(range.message) { self.defer(range, self.wall) } else { self.offer_range(range) }
    }

    // ---- the connection ----

    /// The session is over, and its client waits for us to speak when it has.
    pub(crate) fn reverse(&mut self, index: u32, handed: Handed) {
        let Handed { socket, tunnel, held, seat } = handed;
        let place = self.outbound.next_place();
        let Some(fetch) = self.fetches.at_home.get_mut(index as usize) else {
            return self.ring.close(socket);
        };
        fetch.connection = Some(place);
        let (key, now) = (fetch.site, self.now);
        let site = self.sites.get_mut(key);
        site.connections += 1;
        let (host, sessions) = (site.hosts[0].host.clone(), Arc::clone(&site.sessions));
        let link = Link {
            host: Arc::clone(&host.name),
            tls: self.tls_clients.get(&host.tls, &self.settings),
            is_traced: self.wants_trace(key),
            ..Link::default()
        };
        let sealed = tunnel.map(Tunnel::into_connection);
        let session = Session::reversed(now, sessions, Habits::default(), link, sealed);
        let reversed = Reversed { fetch: index, _seat: seat };
        self.outbound.insert(Connection::reversed(place, (socket, key, host), (session, reversed), now));
        self.counters.connections_reversed.add(1);
        self.ring.receive(token(Kind::Outbound, place), socket);
        self.trace_line(place, Direction::Note, format_args!("reversed, as the client asked (ATRN)"));
        self.sites.touch(key);
        self.drain_connection(place);
        self.hear(place, &held);
        self.watch_connection(place);
    }

    /// The client's site has its turn: what is ready goes out, and where nothing is, lenders are asked; without any, that was
    /// all.
    pub(crate) fn run_fetch(&mut self, index: u32, key: SiteKey) {
        if self.site_waits(key) {
            return self.rest_site(key);
        }
        self.feed_idle(key);
        let is_dry = !self.sites.get(key).lanes.has_work();
        let Some(fetch) = self.fetches.at_home.get_mut(index as usize) else { return };
        if let Some(place) = fetch.connection.filter(|_| is_dry) {
            let generation = fetch.generation;
            let id = FetchId { home: self.index, index, generation };
            let asked = fetch.ask_lenders();
            let is_lent_to = fetch.is_lent_to();
            asked.into_iter().for_each(|core| self.tell_of_fetch(core, FetchMail::More(id)));
            if !is_lent_to && self.sites.get(key).is_at_rest() {
                self.end_connection(place);
            }
        }
        self.rest_site(key);
    }

    /// A connection has nothing to do: if a client made it, there may be more elsewhere, or this was all.
    pub(crate) fn note_dry(&mut self, way: WayKey, site: SiteKey) {
        if self.ways.get(way).fetch.is_some() {
            self.sites.touch(site);
        }
    }

    /// Nobody fetches any more: the client went, or has it all.
    pub(crate) fn end_fetch(&mut self, index: u32) {
        let Some(fetch) = self.fetches.at_home.try_remove(index as usize) else { return };
        let Fetch { generation, order, way, site, lenders, connection, .. } = fetch;
        order.progress.cancel();
        let id = FetchId { home: self.index, index, generation };
        for (core, lender) in lenders.into_iter().enumerate() {
            if core != self.index && lender != Lender::HasNothing {
                self.tell_of_fetch(core, FetchMail::Over(id));
            }
        }
        if connection.is_none() {
            self.sites.get(site).pace.give_back(self.index);
        }
        self.sites.take_all(site).into_iter().for_each(|range| self.put_back_to_wait(range));
        self.close_way_to_client(way);
    }
}

/// The operator's demands on the domains' hosts hold for a connection that a client made in plain text: where one of them must
/// be encrypted, so must this. Who it leads to is proven by the login; what domains publish is about their MX hosts.
fn policy_of(settings: &Settings, wanted: &[String]) -> TlsPolicy {
    let config = &settings.config;
    let of_domain = |domain: &String| {
        let of_route = config.routes.route(domain).terms.tls.map(demands::of_mode);
        let by_name = of_route.or_else(|| demands::configured(&config.tls, domain));
        by_name.unwrap_or_else(|| demands::of_mode(config.tls.mode))
    };
    let policies: Vec<TlsPolicy> = wanted.iter().map(of_domain).collect();
    if policies.iter().any(|policy| !policy.allows_plain()) {
        TlsPolicy::Encrypt
    } else if policies.iter().all(|policy| *policy == TlsPolicy::Never) {
        TlsPolicy::Never
    } else {
        TlsPolicy::May
    }
}
