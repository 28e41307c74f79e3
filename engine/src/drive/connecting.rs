//! From the grant of a lease to the session: which host, from which source, through what.
//!
//! A host that takes its time holds no mail up: after [`HURRY`] the site's next one is tried beside it, and whoever tries
//! out a host that failed before is not waited for at all.

use crate::clock::Clock;
use crate::core::{Core, Kind, Place, token};
use crate::domains::SiteKey;
use crate::drive::outbound::{Connection, connection_of};
use crate::drive::sites::HOST_REST;
use crate::drive::ways::MAILBOXES;
use crate::hosts::{ConnectFailure, Trial};
use crate::look::trace::Direction;
use message::Reply;
use ring::Ring;
use smtp_out::{Link, Session};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A host that has not let us connect for so long is no longer waited for, if there is another.
const HURRY: Duration = Duration::from_secs(1);

impl<R: Ring, C: Clock> Core<R, C> {
    /// Opens a connection for which a lease was granted. False if that is no use for now.
    pub(crate) fn connect(&mut self, key: SiteKey) -> bool {
        let (at, trial) = self.next_host(key);
        let host = self.sites.get(key).hosts[at].host.clone();
        let server = self.egress(key).server_for(host.address);
        // A server between us and the peer chooses, or is told by a PROXY header.
        let bind = self.settings.bind_to(self.sites.get(key).source, server.ip());
        let bind = bind.filter(|_| server == host.address);
        let place = self.outbound.next_place();
        let token_of_it = token(Kind::Outbound, place);
        let socket = match &self.settings.config.local {
            Some(local) if server == MAILBOXES => self.ring.connect_locally(token_of_it, &local.socket()),
            _ => self.ring.connect(token_of_it, server, bind),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                self.sites.get(key).pace.give_back(self.index);
                self.source_failed(key, host.address, &error);
                return false;
            }
        };
        let now = self.now;
        let mut connection = Connection::new(place, socket, key, host, now);
        connection.server = server;
        connection.deadline = now + self.settings.connect_timeout();
        connection.hurry_at = now + HURRY;
        connection.is_awaited = trial != Trial::Probe;
        connection.opened_for = self.domain_for_report(key);
        let (first_look, is_awaited) = (connection.deadline.min(connection.hurry_at), connection.is_awaited);
        self.outbound.insert(connection);
        let site = self.sites.get_mut(key);
        site.connections += 1;
        site.connecting += u32::from(is_awaited);
        self.timers.insert(now, first_look, token(Kind::Outbound, place));
        self.trace_line(place, Direction::Note, format_args!("connecting"));
        true
    }

    /// There is no socket to connect with: we do not have the source's address, or no descriptor is left. Without a rest
    /// the host would be tried again at once, and for ever. Where no host is left to a source, others of its pool go.
    fn source_failed(&mut self, key: SiteKey, address: SocketAddr, error: &io::Error) {
        let until = self.now + HOST_REST;
        let reply = Reply::ours(451, (4, 4, 1), &format!("connecting to {address}: {error}"));
        let is_ours = error.kind() != io::ErrorKind::AddrNotAvailable;
        self.sites.get_mut(key).host_rests(address, until);
        if is_ours || self.has_host(key) {
            return self.go_to_next_host(key, reply);
        }
        let source = self.settings.source_name(self.sites.get(key).source);
        tracing::warn!(source, reason = %reply, "nothing goes out from this source: its address is not ours");
        self.sites.get_mut(key).trouble = Some(reply);
        self.close_site(key, until);
    }

    /// The domain whose mail the connection is for, if somebody reports on TLS.
    fn domain_for_report(&self, key: SiteKey) -> Option<Arc<str>> {
        let first = self.crossing.wants_tls_notes().then(|| self.sites.get(key).lanes.ranges().next());
        first.flatten().map(|range| Arc::clone(&self.domains.get(range.domain).name))
    }

    pub(crate) fn connect_failed(
        &mut self,
        key: SiteKey,
        address: SocketAddr,
        failure: ConnectFailure,
        why: &str,
    ) {
        self.counters.connect_failures.add(1);
        let text = format!("connecting to {address}: {why}");
        let reply = Reply::ours(451, (4, 4, 1), &text);
        if !self.is_direct(key) {
            return self.egress_failed(key, reply);
        }
        self.crossing.hosts.failed(address, self.now, failure, why);
        self.go_to_next_host(key, reply);
    }

    /// The host takes its time: if the site has another, the mail goes there.
    pub(crate) fn hurry(&mut self, place: Place) {
        let Some(connection) = self.outbound.get(place) else { return };
        let (key, peer, deadline) = (connection.site, connection.peer, connection.deadline);
        if self.sites.get(key).hosts.len() > 1 && self.is_direct(key) {
            self.crossing.hosts.is_slow(peer, self.now, deadline.saturating_duration_since(self.now));
            self.no_longer_awaited(place);
            self.sites.touch(key);
        }
    }

    pub(crate) fn no_longer_awaited(&mut self, place: Place) {
        let Some(connection) = self.outbound.get(place) else { return };
        if std::mem::take(&mut connection.is_awaited) {
            let site = connection.site;
            self.sites.get_mut(site).connecting -= 1;
        }
    }

    pub(crate) fn on_connected(&mut self, place: Place, result: io::Result<()>) {
        let Some(connection) = self.outbound.get(place) else { return };
        let (key, peer, socket) = (connection.site, connection.peer, connection.socket);
        if let Err(error) = result {
            self.trace_line(place, Direction::Note, format_args!("not connected: {error}"));
            self.close_connection(place);
            let failure = match error.kind() {
                io::ErrorKind::TimedOut => ConnectFailure::TimedOut,
                _ => ConnectFailure::Refused,
            };
            return self.connect_failed(key, peer, failure, &error.to_string());
        }
        self.trace_line(place, Direction::Note, format_args!("connected"));
        self.counters.connections_out.add(1);
        self.ring.receive(token(Kind::Outbound, place), socket);
        if self.begin_preface(place) {
            return self.watch_connection(place);
        }
        self.crossing.hosts.works(peer);
        self.begin_session(place);
    }

    pub(crate) fn begin_session(&mut self, place: Place) {
        let now = self.now;
        let Some(connection) = self.outbound.get(place) else { return };
        let (key, peer) = (connection.site, connection.peer);
        let (policy, name) = (Arc::clone(&connection.policy), Arc::clone(&connection.host));
        let hosts = &self.sites.get(key).hosts;
        let known = hosts.iter().find(|known| known.host.address == peer && known.host.name == name);
        let habits = known.map(|host| host.habits(now)).unwrap_or_default();
        let tls = self.tls_clients.get(&policy, &self.settings);
        let is_traced = self.wants_trace(key);
        let connection = connection_of(&mut self.outbound, place);
        let terms = &self.ways.get(self.sites.get(key).way).terms;
        let link = Link {
            host: name_of(&connection.host),
            tls,
            is_tls_implicit: terms.is_tls_implicit,
            protocol: terms.protocol,
            login: terms.login.clone(),
            is_traced,
        };
        let sessions = Arc::clone(&self.sites.get(key).sessions);
        connection.session = Some(Session::new(now, sessions, habits, link));
        // With TLS from the first octet on we speak first.
        self.drain_connection(place);
        self.watch_connection(place);
    }
}

/// What a host is called in TLS: of a relay that is configured by address and port, the address.
fn name_of(host: &Arc<str>) -> Arc<str> {
    host.parse::<SocketAddr>().map_or_else(|_| Arc::clone(host), |address| address.ip().to_string().into())
}
