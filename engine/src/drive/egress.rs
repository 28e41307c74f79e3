//! Connections that do not leave directly: what is said to the server between us and the peer before the session.
//!
//! Such a connection says nothing about the peer's address until the session has begun, so the table of addresses that
//! cannot be connected to is not asked and not told. The time to connect is for both.

use crate::clock::Clock;
use crate::core::{Core, Kind, Place, token};
use crate::domains::SiteKey;
use crate::drive::ways::MAILBOXES;
use crate::egress::{Preface, PrefaceError, Progress};
use crate::sources::Egress;
use message::Reply;
use ring::{Piece, Received, Ring};

impl<R: Ring, C: Clock> Core<R, C> {
    /// How connections of the site leave.
    pub(crate) fn egress(&self, key: SiteKey) -> &Egress {
        let site = self.sites.get(key);
        if site.hosts.iter().any(|at| at.host.address == MAILBOXES) {
            return &Egress::Direct;
        }
        let source = self.settings.sources.source(site.source);
        source.map_or(&Egress::Direct, |source| &source.egress)
    }

    pub(crate) fn is_direct(&self, key: SiteKey) -> bool {
        *self.egress(key) == Egress::Direct
    }

    /// The connection is up: what its server must hear first, if it has one. False: the session may begin.
    pub(crate) fn begin_preface(&mut self, place: Place) -> bool {
        let Some(connection) = self.outbound.get(place) else { return true };
        let (site, peer, connection_server) = (connection.site, connection.peer, connection.server);
        let bind = self.settings.bind_to(self.sites.get(site).source, peer.ip());
        if connection_server != self.egress(site).server_for(peer) {
            // The source leaves in another way since a reload: what is meant for one server must not reach another.
            self.close_connection(place);
            return true;
        }
        let Some(preface) = Preface::new(self.egress(site), bind, peer) else { return false };
        if let Some(connection) = self.outbound.get(place) {
            connection.preface = Some(Box::new(preface));
        }
        self.send_preface(place);
        true
    }

    fn send_preface(&mut self, place: Place) {
        let Some(connection) = self.outbound.get(place) else { return };
        let Some(bytes) = connection.preface.as_mut().map(|preface| preface.take_bytes()) else { return };
        if bytes.is_empty() {
            return;
        }
        // The server has answered what was sent before, so that is out.
        let Some(mut outgoing) = connection.outgoing.take() else { return };
        outgoing.clear();
        outgoing.own.extend_from_slice(&bytes);
        let len = u32::try_from(bytes.len()).expect("some hundred octets");
        outgoing.pieces.push(Piece::Own(0..len));
        let socket = connection.socket;
        self.ring.send(token(Kind::Outbound, place), socket, outgoing);
    }

    /// It is with the kernel. A PROXY server says nothing: the session begins.
    pub(crate) fn on_preface_sent(&mut self, place: Place) {
        let Some(connection) = self.outbound.get(place) else { return };
        if connection.preface.as_ref().is_some_and(|preface| preface.is_done()) {
            connection.preface = None;
            self.begin_session(place);
        }
    }

    /// What the server said; octets behind its last reply are the peer's.
    pub(crate) fn on_preface_received(&mut self, place: Place, data: Received) {
        let bytes = self.ring.received(&data).to_vec();
        self.ring.give_back(data);
        let Some(connection) = self.outbound.get(place) else { return };
        let Some(preface) = &mut connection.preface else { return };
        match preface.handle_bytes(&bytes) {
            Ok(Progress::More) => self.send_preface(place),
            Ok(Progress::Done { used }) => {
                connection.preface = None;
                self.begin_session(place);
                self.hear(place, &bytes[used..]);
            }
            Err(error) => self.preface_failed(place, error),
        }
    }

    fn preface_failed(&mut self, place: Place, error: PrefaceError) {
        let Some(connection) = self.outbound.get(place) else { return };
        let (site, peer) = (connection.site, connection.peer);
        self.close_connection(place);
        self.counters.connect_failures.add(1);
        let reply = Reply::ours(451, (4, 4, 1), &format!("connecting to {peer}: {error}"));
        match error.is_about_peer() {
            true => self.host_failed(site, peer, reply),
            false => self.egress_failed(site, reply),
        }
    }

    /// The server is to blame, or how it is configured: no other peer would do better.
    pub(crate) fn egress_failed(&mut self, site: SiteKey, reply: Reply) {
        let wait = std::time::Duration::from_secs(self.settings.config.delivery.backoff_secs);
        tracing::warn!(site = self.sites.get(site).pace.site().name(), reason = %reply, "a source cannot get out");
        self.sites.get_mut(site).trouble = Some(reply);
        self.close_site(site, self.now + wait);
    }
}
