//! Outgoing connections: sockets to `smtp_out::Session`, deliveries to its transactions.
//!
//! Bounds: the site table's leases bound the connections, a session's window what is in flight on each.

use crate::clock::Clock;
use crate::core::{Core, Kind, Place, Stop, token};
use crate::domains::{Host, SiteKey};
use crate::drive::copies::{Copy, Desk};
use crate::drive::fetch::Reversed;
use crate::drive::secure::Sealing;
use crate::drive::signing;
use crate::drive::suppress::{ASIDE_MAX, Picked, pick};
use crate::drive::ways::{MAILBOXES, PICKED_MAX};
use crate::egress::Preface;
use crate::hosts::ConnectFailure;
use crate::look::trace::Direction;
use crate::observe::Via;
use crate::settings::Settings;
use bytes::Bytes;
use message::dsn::Action;
use message::{Flow, Lane, MailboxRef, RecipientAsked, RecipientIndex, Reply, ReversePath, Scope, Verdict};
use queue::fanout::{Letter, Name, OpenRange};
use queue::range::DomainKey;
use queue::{Attempts, MessageKey, Range};
use ring::{Outgoing, Piece, Received, Ring, Socket};
use slab::Slab;
use smallvec::SmallVec;
use smtp_out::{Asked, Custody, Flight, FlightPiece, Offered, Output, Session, TlsPolicy, Transaction};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Idle connections that are looked through for one whose room another site may have.
const IDLE_LOOKS: usize = 256;

/// A transaction in flight: what is needed when its verdicts come.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) letter: Arc<Letter>,
    pub(crate) message: MessageKey,
    pub(crate) domain: DomainKey,
    pub(crate) attempts: Attempts,
    reason: u16,
    begun: Instant,
    pub(crate) names: SmallVec<[Name; 1]>,
    /// Names that have no verdict yet, by bit.
    open: u128,
    pub(super) window: Bytes,
    /// What its one recipient is sent, if that is not what all are sent.
    copy: Option<Copy>,
}

impl Delivery {
    /// The range of one of its names.
    fn range(&self, name: &Name) -> Range {
        let Delivery { message, domain, attempts, reason, .. } = *self;
        Range { message, domain, first: name.index, count: 1, name_offset: name.offset, attempts, reason }
    }

    fn content_len(&self) -> u64 {
        self.copy.as_ref().map_or_else(|| self.letter.sent_len(), |copy| copy.content.len() as u64)
    }

    /// What goes before the content that all get; a copy has it already.
    fn prefix(&self) -> Bytes {
        if self.copy.is_some() { Bytes::new() } else { Bytes::clone(self.letter.prefix()) }
    }

    /// What is sent; `stuffed`: as DATA needs it.
    fn content(&self, stuffed: bool) -> Bytes {
        match &self.copy {
            Some(copy) if stuffed => Bytes::from(message::content::dot_stuff(&copy.content)),
            Some(copy) => Bytes::clone(&copy.content),
            None if stuffed => Bytes::clone(self.letter.stuffed()),
            None => Bytes::clone(&self.letter.content),
        }
    }

    pub(crate) fn local_part(&self, name: &Name) -> &str {
        name.text(&self.window)
    }

    fn open_ranges(&self) -> impl Iterator<Item = Range> {
        self.names
            .iter()
            .enumerate()
            .filter(|(at, _)| self.open >> at & 1 == 1)
            .map(|(_, name)| self.range(name))
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    generation: u32,
    pub(crate) socket: Socket,
    pub(crate) site: SiteKey,
    pub(crate) host: Arc<str>,
    /// What is said before the session, to a server between us and the peer.
    pub(crate) preface: Option<Box<Preface>>,
    /// Where it really leads: the peer, or a server between us and it.
    pub(crate) server: SocketAddr,
    /// What the host demanded when it was connected to.
    pub(crate) policy: Arc<TlsPolicy>,
    /// The domain whose mail it was opened for, if somebody reports on it.
    pub(crate) opened_for: Option<Arc<str>>,
    pub(crate) peer: SocketAddr,
    /// `None` while the connection is being made.
    pub(crate) session: Option<Session>,
    pub(crate) deadline: Instant,
    deliveries: Slab<Delivery>,
    pub(crate) outgoing: Option<Outgoing>,
    /// What of the flight is not sealed yet; there once the connection is encrypted.
    pub(crate) sealing: Option<Box<Sealing>>,
    idle_since: Option<Instant>,
    /// The version of TLS; empty in plain text.
    pub(crate) tls: &'static str,
    /// The session came as far as EHLO's answer.
    was_ready: bool,
    /// Its site opens no other connection for the mail that this one is to take.
    pub(crate) is_awaited: bool,
    /// When it is no longer awaited, because the host takes too long.
    pub(crate) hurry_at: Instant,
    /// The last verdict that spoke of the host rather than of the mail.
    trouble: Option<Reply>,
    /// It took a recipient, or refused one for its own sake.
    has_worked: bool,
    /// A client made it, to fetch its mail.
    pub(crate) reversed: Option<Box<Reversed>>,
}

/// All outgoing connections of a core.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    connections: Slab<Connection>,
    /// Of these, to this machine's mailboxes.
    open_here: usize,
    generation: u32,
    flight: Flight,
    sender: Vec<u8>,
    pub(super) desk: Desk,
    /// Connections in the order in which they became idle; some have work again, or are gone.
    idle: VecDeque<Place>,
}

impl Outbound {
    pub(crate) fn open(&self) -> usize {
        self.connections.len()
    }

    /// Without those to this machine's mailboxes, which have a limit of their own.
    pub(crate) fn open_to_others(&self) -> usize {
        self.connections.len() - self.open_here
    }

    pub(crate) fn get(&mut self, place: Place) -> Option<&mut Connection> {
        self.connections
            .get_mut(place.index as usize)
            .filter(|connection| connection.generation == place.generation)
    }

    /// Its site, its host and that one's address.
    pub(crate) fn whereabouts(&self, place: Place) -> Option<(SiteKey, &Arc<str>, SocketAddr)> {
        let connection = self.connections.get(place.index as usize)?;
        let is_it = connection.generation == place.generation;
        is_it.then_some((connection.site, &connection.host, connection.peer))
    }

    /// Connections that are not up yet, by site. One pass over all.
    pub(crate) fn connecting(&self) -> HashMap<SiteKey, u32> {
        let mut connecting = HashMap::new();
        for (_, connection) in self.connections.iter().filter(|(_, connection)| connection.session.is_none())
        {
            *connecting.entry(connection.site).or_default() += 1;
        }
        connecting
    }

    /// The connection that has been idle longest of those whose site is meant. A look at some of them.
    pub(crate) fn idle_one_of(&self, is_meant: impl Fn(&SiteKey) -> bool) -> Option<Place> {
        let is_it = |place: &&Place| {
            let known = self.connections.get(place.index as usize);
            let known = known.filter(|known| known.generation == place.generation);
            known.is_some_and(|known| known.idle_since.is_some() && is_meant(&known.site))
        };
        self.idle.iter().take(IDLE_LOOKS).find(is_it).copied()
    }

    /// One of the site's connections that are up.
    pub(crate) fn ready_one_of(&self, site: SiteKey) -> Option<Place> {
        let is_ready = |connection: &Connection| connection.site == site && connection.was_ready;
        let found = self.connections.iter().find(|(_, connection)| is_ready(connection));
        found.map(|(index, connection)| place_of(index, connection.generation))
    }

    /// Where the next connection will stand.
    pub(crate) fn next_place(&mut self) -> Place {
        self.generation = (self.generation + 1) & 0xff_ffff;
        place_of(self.connections.vacant_key(), self.generation)
    }

    /// At the place that [`Outbound::next_place`] gave last.
    pub(crate) fn insert(&mut self, connection: Connection) {
        self.open_here += usize::from(connection.is_here());
        self.connections.insert(connection);
    }

    /// Every range in flight.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.connections
            .iter()
            .flat_map(|(_, connection)| &connection.deliveries)
            .flat_map(|(_, delivery)| delivery.open_ranges())
    }

    fn note_idle(&mut self, place: Place) {
        if self.idle.len() > 2 * self.connections.len() {
            let Outbound { idle, connections, .. } = self;
            idle.retain(|place| {
                let known = connections.get(place.index as usize);
                known.is_some_and(|known| known.generation == place.generation && known.idle_since.is_some())
            });
        }
        self.idle.push_back(place);
    }

    fn places(&self) -> Vec<Place> {
        let place = |(index, connection): (usize, &Connection)| place_of(index, connection.generation);
        self.connections.iter().map(place).collect()
    }
}

fn place_of(index: usize, generation: u32) -> Place {
    Place { index: u32::try_from(index).expect("leases bound the connections"), generation }
}

impl<R: Ring, C: Clock> Core<R, C> {
    pub(crate) fn on_outbound_received(&mut self, place: Place, data: Received) {
        let Some(connection) = self.outbound.get(place) else { return self.ring.give_back(data) };
        if connection.preface.is_some() {
            return self.on_preface_received(place, data);
        }
        if let Some(session) = &mut connection.session {
            session.handle_bytes(self.now, self.ring.received(&data));
        }
        self.ring.give_back(data);
        self.drain_connection(place);
    }

    /// Octets of the peer's that came with others.
    pub(crate) fn hear(&mut self, place: Place, bytes: &[u8]) {
        let now = self.now;
        let session = self.outbound.get(place).and_then(|connection| connection.session.as_mut());
        if let Some(session) = session.filter(|_| !bytes.is_empty()) {
            session.handle_bytes(now, bytes);
            self.drain_connection(place);
        }
    }

    pub(crate) fn on_outbound_ended(&mut self, place: Place, result: &io::Result<()>) {
        let why = result
            .as_ref()
            .err()
            .map_or_else(|| "the peer closed the connection".to_owned(), ToString::to_string);
        self.connection_lost(place, &why);
    }

    fn connection_lost(&mut self, place: Place, why: &str) {
        let Some(connection) = self.outbound.get(place) else { return };
        let key = connection.site;
        let Some(session) = &mut connection.session else {
            // The server between us and the peer hung up.
            self.close_connection(place);
            let text = format!("connecting: {why}");
            return self.egress_failed(key, Reply::ours(451, (4, 4, 1), &text));
        };
        session.handle_closed(self.now, why);
        self.drain_connection(place);
    }

    pub(crate) fn on_outbound_sent(
        &mut self,
        place: Place,
        result: io::Result<()>,
        outgoing: Outgoing,
        copied: Option<bool>,
    ) {
        let Some(connection) = self.outbound.get(place) else { return };
        connection.outgoing = Some(outgoing);
        let (site, peer) = (connection.site, connection.peer);
        if copied == Some(true)
            && let Some(host) =
                self.sites.get_mut(site).hosts.iter_mut().find(|host| host.host.address == peer)
        {
            host.copies = true;
        }
        if let Err(error) = result {
            return self.connection_lost(place, &error.to_string());
        }
        if connection_of(&mut self.outbound, place).preface.is_some() {
            return self.on_preface_sent(place);
        }
        if self.send_sealed(place) {
            return;
        }
        let now = self.now;
        if let Some(session) = connection_of(&mut self.outbound, place).session.as_mut() {
            session.handle_sent(now);
        }
        self.drain_connection(place);
    }

    pub(crate) fn on_outbound_timer(&mut self, place: Place) {
        let (now, idle) = (self.now, self.settings.idle());
        let Some(connection) = self.outbound.get(place) else { return };
        let (key, peer) = (connection.site, connection.peer);
        let Some(session) = &mut connection.session else {
            if now >= connection.deadline {
                self.trace_line(place, Direction::Note, format_args!("not connected: no answer in time"));
                self.close_connection(place);
                return self.connect_failed(key, peer, ConnectFailure::TimedOut, "no answer in time");
            }
            if connection.is_awaited && now >= connection.hurry_at {
                self.hurry(place);
            }
            return self.watch_connection(place);
        };
        if session.poll_timeout().is_some_and(|deadline| deadline <= now) {
            session.handle_timeout(now);
        } else if connection.idle_since.is_some_and(|since| since + idle <= now) && !self.is_fed_soon(place) {
            self.end_connection(place);
            return self.watch_connection(place);
        }
        self.drain_connection(place);
        self.watch_connection(place);
    }

    /// It has nothing to do, and something is on its way to it.
    fn is_fed_soon(&mut self, place: Place) -> bool {
        let Core { outbound, fetches, .. } = self;
        let connection = outbound.get(place);
        let reversed = connection.and_then(|connection| connection.reversed.as_ref());
        reversed.is_some_and(|reversed| fetches.is_lent_to(reversed))
    }

    pub(crate) fn watch_connection(&mut self, place: Place) {
        let (now, idle) = (self.now, self.settings.idle());
        let Some(connection) = self.outbound.get(place) else { return };
        let deadline = match &connection.session {
            None if connection.is_awaited && now < connection.hurry_at => Some(connection.hurry_at),
            None => Some(connection.deadline),
            Some(session) => session.poll_timeout(),
        };
        let idle_end = connection.idle_since.map(|since| since + idle);
        let next = [deadline, idle_end].into_iter().flatten().min().unwrap_or(now + crate::timers::RECHECK);
        self.timers.insert(now, next, token(Kind::Outbound, place));
    }

    /// Carries out what the session says, then gives it more to do.
    pub(crate) fn drain_connection(&mut self, place: Place) {
        while let Some(output) = self
            .outbound
            .get(place)
            .and_then(|connection| connection.session.as_mut())
            .and_then(Session::poll_output)
        {
            match output {
                Output::Protection(protection) => self.on_protection(place, &protection),
                Output::Trace { direction, text } => {
                    self.trace_line(place, direction.into(), format_args!("{text}"));
                }
                Output::Ready => self.on_ready(place),
                Output::Verdict { key, recipient, verdict, scope } => {
                    self.on_verdict(place, key as usize, recipient, verdict, scope);
                }
                Output::Finished { key, ambiguous } => {
                    self.counters.ambiguous.add(u64::from(ambiguous));
                    self.drop_delivery(place, key as usize);
                }
                Output::Returned { key } => self.return_delivery(place, key as usize),
                Output::Closed { verdict } => return self.on_closed(place, verdict),
            }
        }
        self.feed(place);
    }

    fn on_ready(&mut self, place: Place) {
        let Some(connection) = self.outbound.get(place) else { return };
        connection.was_ready = true;
        let site = connection.site;
        self.no_longer_awaited(place);
        self.sites.get_mut(site).trouble = None;
    }

    fn on_verdict(&mut self, place: Place, key: usize, recipient: u16, verdict: Verdict, scope: Scope) {
        let (verdict, scope) = self.judge(place, verdict, scope);
        let now = self.now;
        let Some(connection) = self.outbound.get(place) else { return };
        let (site, host) = (connection.site, Arc::clone(&connection.host));
        let Some(delivery) = connection.deliveries.get_mut(key) else { return };
        let Some(name) = delivery.names.get(usize::from(recipient)).copied() else { return };
        delivery.open &= !(1 << recipient);
        let (begun, tls, is_reversed) = (delivery.begun, connection.tls, connection.reversed.is_some());
        let range = delivery.range(&name);
        let (letter, to) = (Arc::clone(&delivery.letter), name.addressee(&delivery.window));
        let success = connection.session.as_ref().and_then(|session| success_of(session.custody()));
        match (&verdict, scope) {
            (Verdict::Deferred(_), Scope::Site) => self.site_throttles(site),
            // Its connection's end says it once, for all that were in flight; one that stays open is slowed down.
            (Verdict::Deferred(reply), Scope::Host) => {
                connection.trouble = Some(reply.clone());
                self.site_throttles(site);
            }
            (Verdict::Delivered(_) | Verdict::Failed(_) | Verdict::Deferred(_), _) => {
                connection.has_worked = true;
                let took = matches!(verdict, Verdict::Delivered(_)).then(|| now - begun);
                self.site_works(site, took);
            }
        }
        self.trace_verdict(place, to.local_part(), range.domain, &verdict);
        let settings = Arc::clone(&self.settings);
        let source = if is_reversed { "" } else { settings.source_name(self.sites.get(site).source) };
        let is_hard = matches!(&verdict, Verdict::Failed(reply) if scope == Scope::Recipient
            && settings.suppression.learns_from(letter.lane) && settings.suppression.is_hard(reply));
        let via = Via { host: &host, source, tls, success, scope: Some(scope), is_hard };
        if is_reversed && matches!(scope, Scope::Host | Scope::Site) {
            return self.wait_on(&letter, range, &to, via, verdict);
        }
        self.conclude(&letter, range, &to, via, verdict);
    }

    fn drop_delivery(&mut self, place: Place, key: usize) {
        let Some(connection) = self.outbound.get(place) else { return };
        if let Some(delivery) = connection.deliveries.try_remove(key) {
            assert_eq!(delivery.open, 0, "a transaction finishes after the last of its verdicts");
        }
    }

    /// No attempt was made: back to the front of its flow.
    fn return_delivery(&mut self, place: Place, key: usize) {
        let Some(connection) = self.outbound.get(place) else { return };
        let site = connection.site;
        let Some(delivery) = connection.deliveries.try_remove(key) else { return };
        for range in delivery.open_ranges() {
            self.give_back_range(site, turn_of(&delivery.letter), range);
        }
        self.sites.touch(site);
    }

    fn on_closed(&mut self, place: Place, verdict: Option<(Verdict, Scope)>) {
        let Some(connection) = self.outbound.get(place) else { return };
        let (site, peer) = (connection.site, connection.peer);
        let (was_ready, is_reversed) = (connection.was_ready, connection.reversed.is_some());
        let habits = connection.session.as_ref().map(Session::habits);
        // A host that served some and then hung up is no dead host.
        let trouble = connection.trouble.take().filter(|_| !connection.has_worked);
        let hosts = &mut self.sites.get_mut(site).hosts;
        if let (Some(habits), Some(host)) = (habits, hosts.iter_mut().find(|host| host.host.address == peer))
        {
            host.learn(habits, self.now);
        }
        // A connection's end is the host's, whatever a rule makes of its words.
        let verdict = verdict.map(|(verdict, scope)| (self.judge(place, verdict, scope).0, scope));
        self.trace_end(place, verdict.as_ref().map(|(verdict, _)| verdict));
        self.close_connection(place);
        if is_reversed {
            // A client's line is no host's trouble.
        } else if let Some((Verdict::Deferred(reply) | Verdict::Failed(reply), Scope::Host | Scope::Site)) =
            verdict
        {
            if !was_ready {
                self.counters.connect_failures.add(1);
            }
            self.host_failed(site, peer, reply);
        } else if let Some(reply) = trouble {
            self.host_failed(site, peer, reply);
        }
    }

    pub(crate) fn close_connection(&mut self, place: Place) {
        if self.outbound.get(place).is_none() {
            return;
        }
        self.no_longer_awaited(place);
        let connection = self.outbound.connections.remove(place.index as usize);
        self.outbound.open_here -= usize::from(connection.is_here());
        self.ring.close(connection.socket);
        let site = self.sites.get_mut(connection.site);
        site.connections = site.connections.saturating_sub(1);
        site.idle.retain(|other| *other != place);
        site.pace.give_back(self.index);
        // Those that wait for it before those that had it.
        self.sites.room_was_made();
        self.sites.touch(connection.site);
        for (_, delivery) in &connection.deliveries {
            let turn = turn_of(&delivery.letter);
            delivery.open_ranges().for_each(|range| self.give_back_range(connection.site, turn, range));
        }
        if let Some(reversed) = connection.reversed {
            self.end_fetch(reversed.fetch());
        }
    }

    /// The connection that has been idle longest ends, so that a site without one has its room.
    pub(crate) fn end_an_idle_connection(&mut self) {
        while let Some(place) = self.outbound.idle.pop_front() {
            if self.outbound.get(place).is_some_and(|connection| connection.idle_since.is_some()) {
                return self.end_connection(place);
            }
        }
    }

    /// It takes no more, and ends when what it has is done.
    pub(crate) fn end_connection(&mut self, place: Place) {
        let now = self.now;
        let Some(connection) = self.outbound.get(place) else { return };
        let site = connection.site;
        connection.quit(now);
        self.sites.get_mut(site).idle.retain(|other| *other != place);
        self.drain_connection(place);
    }

    /// No attempt was made: to the front of its flow, or to another source if this one may not send any more.
    fn give_back_range(&mut self, key: SiteKey, turn: (Lane, Flow), range: Range) {
        let site = self.sites.get_mut(key);
        match site.closed_at(self.now) {
            None => site.lanes.push_front(turn, range),
            Some(_) => {
                let way = site.way;
                self.send_along(way, range);
            }
        }
    }

    pub(crate) fn drain_outbound_all(&mut self) {
        for place in self.outbound.places() {
            let now = self.now;
            match self.outbound.get(place) {
                Some(connection) if connection.session.is_some() => {
                    connection.quit(now);
                    self.drain_connection(place);
                }
                Some(_) => self.close_connection(place),
                None => {}
            }
        }
    }

    // ---- giving it work ----

    /// Offers deliveries while the session takes them, then sends. False if there was nothing for it.
    pub(crate) fn feed(&mut self, place: Place) -> bool {
        let mut was_fed = false;
        if self.stop == Stop::Running && !self.halted {
            while self.has_capacity(place) && self.offer_next(place) {
                was_fed = true;
            }
        }
        self.fly(place);
        self.note_idle(place);
        was_fed
    }

    fn has_capacity(&mut self, place: Place) -> bool {
        self.outbound
            .get(place)
            .and_then(|connection| connection.session.as_ref())
            .is_some_and(|session| session.capacity() > 0)
    }

    /// A connection without work stands ready for its site's next recipient.
    fn note_idle(&mut self, place: Place) {
        let now = self.now;
        let Some(connection) = self.outbound.get(place) else { return };
        let is_idle =
            connection.session.as_ref().is_some_and(|session| session.is_idle() && session.capacity() > 0);
        let was_idle = connection.idle_since.is_some();
        if is_idle == was_idle {
            return;
        }
        connection.idle_since = is_idle.then_some(now);
        let key = connection_of(&mut self.outbound, place).site;
        let site = self.sites.get_mut(key);
        let way = site.way;
        site.idle.retain(|other| *other != place);
        if is_idle {
            site.idle.push(place);
            self.hold_route_again(way);
            self.outbound.note_idle(place);
            self.note_dry(way, key);
        }
    }

    /// The next recipients of the site into one transaction. No allocation in the steady state.
    fn offer_next(&mut self, place: Place) -> bool {
        loop {
            let Some(connection) = self.outbound.get(place) else { return false };
            let site = connection.site;
            let peer_max = connection.session.as_ref().and_then(Session::recipients_max);
            let Some((delivery, name_of_domain)) = self.next_delivery(site, peer_max) else { return false };
            match self.offer(place, delivery, &name_of_domain) {
                Offered::Taken => return true,
                // Concluded; the next one may be takeable.
                Offered::Refused(..) => {}
            }
        }
    }

    fn offer(&mut self, place: Place, mut delivery: Delivery, domain: &str) -> Offered {
        match self.copy_for(&delivery, domain) {
            Ok(copy) => delivery.copy = copy,
            Err(reply) => {
                let verdict = Verdict::Failed(reply);
                self.conclude_delivery(place, &delivery, &verdict);
                return Offered::Refused(verdict, Scope::Recipient);
            }
        }
        let mut sender = std::mem::take(&mut self.outbound.sender);
        sender.clear();
        let site = connection_of(&mut self.outbound, place).site;
        self.render_sender(&delivery, domain, site, &mut sender);
        let recipients: SmallVec<[MailboxRef<'_>; 1]> = delivery
            .names
            .iter()
            .map(|name| MailboxRef { local_part: delivery.local_part(name), domain })
            .collect();
        let said: SmallVec<[RecipientAsked<'_>; 1]> = match &delivery.letter.asked {
            None => SmallVec::new(),
            Some(_) => delivery.names.iter().map(|name| name.asked(&delivery.window)).collect(),
        };
        let asked = delivery.letter.asked.as_ref().map(|mail| Asked { mail, recipients: &said });
        let connection = connection_of(&mut self.outbound, place);
        let transaction = Transaction {
            key: u32::try_from(connection.deliveries.vacant_key()).expect("a window is small"),
            reverse_path: std::str::from_utf8(&sender).unwrap_or(""),
            recipients: &recipients,
            content_len: delivery.content_len(),
            facts: delivery.copy.as_ref().map_or(delivery.letter.facts, |copy| copy.facts),
            smtputf8: delivery.letter.smtputf8,
            requires_tls: delivery.letter.requires_tls,
            asked,
        };
        let Some(session) = &mut connection.session else { return Offered::Taken };
        let offered = session.offer(&transaction);
        drop((recipients, said));
        self.outbound.sender = sender;
        match &offered {
            Offered::Taken => drop(connection_of(&mut self.outbound, place).deliveries.insert(delivery)),
            Offered::Refused(verdict, _) => self.conclude_delivery(place, &delivery, verdict),
        }
        offered
    }

    fn conclude_delivery(&mut self, place: Place, delivery: &Delivery, verdict: &Verdict) {
        let Connection { site, tls, ref host, ref reversed, .. } = *connection_of(&mut self.outbound, place);
        let (host, settings, is_reversed) =
            (Arc::clone(host), Arc::clone(&self.settings), reversed.is_some());
        let source = if is_reversed { "" } else { settings.source_name(self.sites.get(site).source) };
        let via = Via { host: &host, source, tls, ..Via::default() };
        for name in &delivery.names {
            let to = name.addressee(&delivery.window);
            self.conclude(&delivery.letter, delivery.range(name), &to, via, verdict.clone());
        }
    }

    /// The reverse-path of this delivery, VERP included. Whoever delivers here is told of a double bounce by its own: what
    /// is forwarded from a mailbox must not come back as another one, and so on for ever.
    fn render_sender(&self, delivery: &Delivery, domain: &str, site: SiteKey, out: &mut Vec<u8>) {
        let letter = &delivery.letter;
        match (&letter.reverse_path, letter.verp, delivery.names.first()) {
            (ReversePath::Mailbox(base), Some(verp), Some(name)) => {
                let recipient = MailboxRef { local_part: delivery.local_part(name), domain };
                let place = (letter.id, RecipientIndex(name.index));
                let Settings { verp_key, returns, .. } = &*self.settings;
                match returns.signs(base.domain()) {
                    true => verp.render_signed(base.as_ref(), recipient, place, verp_key, out),
                    false => verp.render(base.as_ref(), recipient, place, verp_key, out),
                }
            }
            (path, _, _) if self.delivers_here(site) => out.extend_from_slice(path.as_str().as_bytes()),
            (path, _, _) => out.extend_from_slice(path.on_the_wire().as_bytes()),
        }
    }

    /// Names for one transaction from the open range whose turn it is in the lane whose turn it is; opens the next range
    /// when one is used up. No look-up by the message, no allocation in the steady state.
    fn next_delivery(&mut self, key: SiteKey, peer_max: Option<u32>) -> Option<(Delivery, Arc<str>)> {
        let most =
            self.sites.get(key).recipients_max.min(peer_max.map_or(usize::MAX, |max| max as usize)).max(1);
        if !self.may_begin(key) {
            return None;
        }
        let mut looked_aside = 0;
        while looked_aside < ASIDE_MAX {
            let lane = self.sites.get(key).lanes.next()?;
            self.open_unread(key, lane);
            let Some(open) = self.sites.get_mut(key).lanes.get_mut(lane).open_front() else { continue };
            let (campaign, is_for_one) = (open.letter().class.campaign, open.letter().is_for_one_each());
            let most = if is_for_one { 1 } else { most };
            let Some(most) = self.begin_of(key, lane, campaign, most) else { continue };
            let Some(open) = self.sites.get_mut(key).lanes.get_mut(lane).open_front() else { continue };
            if !open.letter().has_own_copies() {
                let signed = signing::sign(open, &mut self.letters, &self.settings.dkim, self.wall);
                self.counters.count_signed(signed);
            }
            let Core { sites, domains, suppressing, settings, .. } = self;
            let Some(open) = sites.get_mut(key).lanes.get_mut(lane).open_front() else { continue };
            let range = open.range();
            let domain = Arc::clone(&domains.get(range.domain).name);
            let look = |open: &OpenRange, name: Name| {
                let to = MailboxRef { local_part: name.text(open.window()), domain: &domain };
                suppressing.look(&settings.suppression, open.letter(), to)
            };
            let Picked { names, aside } = pick(open, most, look);
            let (letter, window, is_done) =
                (Arc::clone(open.letter()), open.window().clone(), open.is_done());
            let is_over = is_done || names.is_empty() && aside.is_empty();
            self.sites.get_mut(key).lanes.get_mut(lane).note_handed_out(names.len(), is_over);
            looked_aside += aside.len();
            for (name, found) in aside {
                self.set_name_aside((&letter, &window), range, name, found);
            }
            if !names.is_empty() {
                self.sites.get_mut(key).lanes.note_pick();
                self.spend(key);
                let open = u128::MAX >> (128 - names.len());
                let delivery = Delivery {
                    letter,
                    message: range.message,
                    domain: range.domain,
                    attempts: range.attempts,
                    reason: range.reason,
                    begun: self.now,
                    names,
                    open,
                    window,
                    copy: None,
                };
                return Some((delivery, domain));
            }
        }
        // Others have their turn; this one goes on in the next.
        self.sites.touch(key);
        None
    }

    /// Where a pool has several sources, each has its part of a list: the rest goes to the one whose turn is next.
    pub(crate) fn first_part(&mut self, key: SiteKey, mut open: OpenRange) -> OpenRange {
        let range = open.range();
        if range.count <= PICKED_MAX || !self.has_other_sources(range.message) {
            return open;
        }
        match open.split(PICKED_MAX) {
            Some(part) => {
                let way = self.sites.get(key).way;
                self.send_along(way, open.range());
                part
            }
            None => open,
        }
    }

    /// Opens what is unread in the lane, or begins to read it; until that has come its flow is passed over.
    fn open_unread(&mut self, key: SiteKey, lane: Lane) {
        while let Some(range) = self.sites.get_mut(key).lanes.get_mut(lane).take_unread() {
            if let Some(open) = self.open_now(range) {
                let open = self.first_part(key, open);
                self.sites.get_mut(key).lanes.get_mut(lane).push_open(open);
                continue;
            }
            // Before it is asked for: a load may fail at once.
            let content_len = self.store.get(range.message).map_or(0, |queued| queued.content_len);
            self.sites.get_mut(key).lanes.get_mut(lane).load_begins(content_len);
            self.load_for(key, lane, range);
        }
    }

    // ---- sending ----

    /// Sends the session's next flight, if it has one.
    fn fly(&mut self, place: Place) {
        let now = self.now;
        let Outbound { connections, flight, .. } = &mut self.outbound;
        let Some(connection) = connections
            .get_mut(place.index as usize)
            .filter(|connection| connection.generation == place.generation)
        else {
            return;
        };
        let Some(session) = &mut connection.session else { return };
        if connection.outgoing.is_none() || !session.take_flight(now, flight) {
            return;
        }
        let mut outgoing = connection.outgoing.take().expect("it was just seen");
        outgoing.clear();
        std::mem::swap(&mut outgoing.own, &mut flight.own);
        let mut largest = 0;
        for piece in &flight.pieces {
            match piece {
                FlightPiece::Own(range) => outgoing.pieces.push(Piece::Own(range.clone())),
                FlightPiece::Content { key, stuffed } => {
                    let delivery = &connection.deliveries[*key as usize];
                    let content = delivery.content(*stuffed);
                    largest = largest.max(content.len());
                    let parts = [delivery.prefix(), content].into_iter().filter(|part| !part.is_empty());
                    outgoing.pieces.extend(parts.map(Piece::Shared));
                }
            }
        }
        if session.is_sealing() && !flight.is_raw {
            let sealing = connection.sealing.get_or_insert_default();
            sealing.take(&mut outgoing);
            sealing.seal_next(session, &mut outgoing);
            return self.ring.send(token(Kind::Outbound, place), connection.socket, outgoing);
        }
        let zero_copy_min = self.settings.config.delivery.zero_copy_min;
        if zero_copy_min > 0 && largest >= zero_copy_min {
            let hosts = &self.sites.get(connection.site).hosts;
            outgoing.zero_copy =
                hosts.iter().any(|host| host.host.address == connection.peer && !host.copies);
        }
        self.ring.send(token(Kind::Outbound, place), connection.socket, outgoing);
    }
}

impl Connection {
    /// To this machine's mailboxes.
    fn is_here(&self) -> bool {
        self.server == MAILBOXES
    }

    /// One that is being made; `since` now.
    pub(crate) fn new(place: Place, socket: Socket, site: SiteKey, host: Host, since: Instant) -> Connection {
        Connection {
            generation: place.generation,
            socket,
            site,
            host: host.name,
            server: host.address,
            policy: host.tls,
            preface: None,
            opened_for: None,
            peer: host.address,
            session: None,
            deadline: since,
            deliveries: Slab::new(),
            outgoing: Some(Outgoing::default()),
            sealing: None,
            tls: "",
            idle_since: None,
            was_ready: false,
            is_awaited: true,
            hurry_at: since,
            trouble: None,
            has_worked: false,
            reversed: None,
        }
    }

    /// One that a client made, and that goes the other way from now on.
    pub(crate) fn reversed(
        place: Place,
        (socket, site, host): (Socket, SiteKey, Host),
        (session, reversed): (Session, Reversed),
        since: Instant,
    ) -> Connection {
        Connection {
            session: Some(session),
            is_awaited: false,
            reversed: Some(Box::new(reversed)),
            ..Connection::new(place, socket, site, host, since)
        }
    }

    fn quit(&mut self, now: Instant) {
        self.idle_since = None;
        if let Some(session) = &mut self.session {
            session.quit(now);
        }
    }
}

pub(crate) fn connection_of(outbound: &mut Outbound, place: Place) -> &mut Connection {
    outbound.get(place).expect("the caller looked it up in this same event")
}

fn success_of(custody: Custody) -> Option<Action> {
    match custody {
        Custody::Reporting => None,
        Custody::Silent => Some(Action::Relayed),
        Custody::Final => Some(Action::Delivered),
    }
}

fn turn_of(letter: &Letter) -> (Lane, Flow) {
    (letter.lane, letter.class.flow)
}
