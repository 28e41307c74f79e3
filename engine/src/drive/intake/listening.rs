//! Connections as they come: taken, or refused with one sentence.
//!
//! Bound: `sessions_max` sessions (421 past it). What is refused costs a send and a close.

use super::{Client, REFUSED, Receiving, place_of};
use crate::clock::Clock;
use crate::config::Network;
use crate::core::{Core, Kind, Place, StartError, Stop, token, token_of, untoken};
use ring::{Outgoing, Peer, Piece, Ring, Socket, Token};
use smtp_in::Session;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// After running out of descriptors, accepting rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);

impl<R: Ring, C: Clock> Core<R, C> {
    pub(crate) fn listen_on(&mut self, address: SocketAddr) -> Result<SocketAddr, StartError> {
        let wrap = |source| StartError::Listen { address, source };
        let socket = self.ring.listen(address).map_err(wrap)?;
        let got = self.ring.local_address(socket).map_err(wrap)?;
        let index = u32::try_from(self.intake.listeners.len()).expect("a few listeners");
        self.intake.listeners.push(socket);
        self.ring.accept(token_of(Kind::Listener, index), socket);
        Ok(got)
    }

    /// The Unix socket by which this machine's users submit.
    pub(crate) fn listen_locally(&mut self, listener: OwnedFd) -> io::Result<()> {
        let socket = self.ring.adopt_listener(listener)?;
        let index = u32::try_from(self.intake.listeners.len()).expect("a few listeners");
        self.intake.listeners.push(socket);
        self.ring.accept(token_of(Kind::Listener, index), socket);
        Ok(())
    }

    pub(crate) fn close_listeners(&mut self) {
        for socket in std::mem::take(&mut self.intake.listeners) {
            self.ring.close(socket);
        }
    }

    pub(crate) fn on_accept_ended(&mut self, token: Token, error: &io::Error) {
        tracing::warn!(%error, "accepting stopped for now");
        self.timers.insert(self.now, self.now + ACCEPT_REST, token);
    }

    pub(crate) fn accept_again(&mut self, place: Place) {
        if let Some(socket) = self.intake.listeners.get(place.index as usize) {
            self.ring.accept(token_of(Kind::Listener, place.index), *socket);
        }
    }

    pub(crate) fn on_accepted(&mut self, listener: Token, socket: Socket, peer: Peer) {
        debug_assert_eq!(untoken(listener).0, Kind::Listener);
        self.counters.connections_in.add(1);
        let generation = self.intake.next_generation();
        if self.intake.clients.len() >= self.settings.config.intake.sessions_max || self.stop != Stop::Running
        {
            self.refuse(socket, generation);
            return;
        }
        let (peer, is_local) = match peer {
            Peer::Net(address) => (address, false),
            Peer::Local { .. } => (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), true),
        };
        let config = &self.settings.config.intake;
        let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(peer.ip()));
        let client = smtp_in::Client {
            address: peer.ip().to_canonical(),
            may_relay: is_local || is_in(&config.relay_from),
            may_flush: is_in(config.etrn_from.as_ref().unwrap_or(&config.relay_from)),
        };
        let session = Session::new(self.now, self.settings.intake.clone(), client);
        let index = self.intake.clients.insert(Client {
            generation,
            socket,
            peer,
            session,
            held: Vec::new(),
            outgoing: Some(Outgoing::default()),
            buffered: 0,
            receiving: Receiving::Armed,
            is_closing: false,
            has_ended: false,
            stores: 0,
            sending_since: None,
        });
        let place = place_of(index, generation);
        self.ring.receive(token(Kind::Intake, place), socket);
        self.watch_client(place);
        self.drain_client(place);
    }

    /// One sentence, then the door.
    fn refuse(&mut self, socket: Socket, generation: u32) {
        let own = smtp_in::refusal_too_busy(&self.settings.config.host_name);
        let mut outgoing = Outgoing { own, ..Outgoing::default() };
        outgoing.pieces.push(Piece::Own(0..u32::try_from(outgoing.own.len()).unwrap_or(0)));
        let index = self.intake.refused.insert((generation, socket));
        let mut place = place_of(index, generation);
        place.index |= REFUSED;
        self.ring.send(token(Kind::Intake, place), socket, outgoing);
    }
}
