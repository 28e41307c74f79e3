//! Connections as they come: taken, or refused with one sentence.
//!
//! Listeners are those of the start; a reload changes what they offer to connections that come afterwards.
//!
//! Bound: `sessions_max` sessions (421 past it). What is refused costs a send and a close.

use super::{Client, Listening, REFUSED, place_of, whole};
use crate::access::SOCKET;
use crate::clock::Clock;
use crate::core::{Core, Kind, Place, StartError, Stop, token, token_of, untoken};
use crate::settings::Settings;
use ring::{Peer, Ring, Socket, Token};
use smtp_in::Session;
use smtp_in::door::{Arrival, Origin};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// After running out of descriptors, accepting rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);

impl<R: Ring, C: Clock> Core<R, C> {
    /// `number`: the listener's ([`crate::access::Access::listener`]). `handed`: one that listens there already.
    pub(crate) fn listen_on(
        &mut self,
        number: usize,
        address: SocketAddr,
        handed: Option<OwnedFd>,
    ) -> Result<SocketAddr, StartError> {
        let wrap = |source| StartError::Listen { address, source };
        let socket = match handed {
            Some(handed) => self.ring.adopt_listener(handed),
            None => self.ring.listen(address),
        };
        let socket = socket.map_err(wrap)?;
        let got = self.ring.local_address(socket).map_err(wrap)?;
        let name = self.settings.access.name_of(number).map(Box::from);
        self.take_from(Listening { socket, name, number, address: Some(got) });
        Ok(got)
    }

    /// The Unix socket by which this machine's users submit.
    pub(crate) fn listen_locally(&mut self, listener: OwnedFd) -> io::Result<()> {
        let socket = self.ring.adopt_listener(listener)?;
        self.take_from(Listening { socket, name: None, number: SOCKET, address: None });
        Ok(())
    }

    fn take_from(&mut self, listening: Listening) {
        let index = u32::try_from(self.intake.listeners.len()).expect("a few listeners");
        self.ring.accept(token_of(Kind::Listener, index), listening.socket);
        self.intake.listeners.push(listening);
    }

    /// Before new settings are in force: a listener that they do not have any more is like one without a name.
    pub(crate) fn number_listeners(&mut self, settings: &Settings) {
        for listening in &mut self.intake.listeners {
            let number = listening.name.as_ref().and_then(|name| settings.access.listener(name));
            listening.number = number.unwrap_or(SOCKET);
        }
    }

    /// Sessions that are open keep their number.
    pub(crate) fn close_listeners(&mut self) {
        for listening in &self.intake.listeners {
            self.ring.close(listening.socket);
        }
        self.intake.is_closed = true;
    }

    pub(crate) fn on_accept_ended(&mut self, token: Token, error: &io::Error) {
        tracing::warn!(%error, "accepting stopped for now");
        self.timers.insert(self.now, self.now + ACCEPT_REST, token);
    }

    pub(crate) fn accept_again(&mut self, place: Place) {
        let listening = self.intake.listeners.get(place.index as usize);
        if let Some(listening) = listening.filter(|_| !self.intake.is_closed) {
            self.ring.accept(token_of(Kind::Listener, place.index), listening.socket);
        }
    }

    pub(crate) fn on_accepted(&mut self, listener: Token, socket: Socket, peer: Peer) {
        self.counters.connections_in.add(1);
        let generation = self.intake.next_generation();
        let is_full = self.intake.clients.len() >= self.settings.config.intake.sessions_max;
        let index = untoken(listener).1.index as usize;
        if is_full || self.stop != Stop::Running || index >= self.intake.listeners.len() {
            return self.refuse(socket, generation);
        }
        let arrival = self.arrival(index, peer);
        let (number, origin) = (self.intake.listeners[index].number, arrival.origin.clone());
        let session = Session::new(self.now, Arc::clone(self.settings.ingress.policy(number)), arrival);
        let index =
            self.intake.clients.insert(Box::new(Client::new(generation, socket, index, origin, session)));
        let place = place_of(index, generation);
        self.ring.receive(token(Kind::Intake, place), socket);
        self.watch_client(place);
        self.drain_client(place);
    }

    fn arrival(&mut self, index: usize, peer: Peer) -> Arrival {
        let listening = &self.intake.listeners[index];
        let (origin, is_proxied) = match peer {
            Peer::Local { uid } => (Origin::Local { uid }, false),
            Peer::Net(peer) => {
                let (address, port) = (peer.ip().to_canonical(), peer.port());
                (Origin::Net { address, port }, self.settings.access.is_proxied(listening.number, address))
            }
        };
        Arrival { origin, local: listening.address, is_proxied, nonce: self.intake.nonces.next() }
    }

    /// One sentence, then the door.
    fn refuse(&mut self, socket: Socket, generation: u32) {
        let outgoing = whole(smtp_in::refusal_too_busy(&self.settings.config.host_name));
        let index = self.intake.refused.insert((generation, socket));
        let mut place = place_of(index, generation);
        place.index |= REFUSED;
        self.ring.send(token(Kind::Intake, place), socket, outgoing);
    }
}
