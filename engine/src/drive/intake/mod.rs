//! Incoming sessions: sockets to `smtp_in::Session`, its submissions to the log.
//!
//! Bounds: `sessions_max` sessions (421 past it), `memory_max` bytes of messages under way (452 past it), and
//! [`HELD_MAX`] bytes that a session has not taken yet, past which its socket is paused.

mod listening;
mod storing;

use crate::clock::Clock;
use crate::core::{Core, Kind, Place, token};
use ring::{Outgoing, Piece, Received, Ring, Socket};
use slab::Slab;
use smtp_in::{Output, Session, TransactionKey};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes received that wait for the session.
const HELD_MAX: usize = 256 << 10;

#[derive(Debug)]
struct Client {
    generation: u32,
    socket: Socket,
    peer: SocketAddr,
    session: Session,
    held: Vec<u8>,
    outgoing: Option<Outgoing>,
    /// What the session held at the last look, for the sum over all sessions.
    buffered: usize,
    receiving: Receiving,
    is_closing: bool,
    /// The peer sends no more.
    has_ended: bool,
    /// Messages of its that are on their way to the disk.
    stores: u32,
    /// Since when a send has been under way.
    sending_since: Option<Instant>,
}

/// Whether the ring receives for a client.
#[derive(Clone, Copy, Debug)]
enum Receiving {
    Armed,
    Stopping,
    Paused,
}

/// All incoming sessions of a core.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    listeners: Vec<Socket>,
    clients: Slab<Client>,
    /// Connections that only get a refusal.
    refused: Slab<(u32, Socket)>,
    generation: u32,
    buffered: usize,
}

/// Refusals stand in the upper half of the places.
const REFUSED: u32 = 1 << 31;

/// Whose store it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submitter {
    place: Place,
    transaction: TransactionKey,
}

impl Intake {
    pub(crate) fn open(&self) -> usize {
        self.clients.len()
    }

    fn get(&mut self, place: Place) -> Option<&mut Client> {
        self.clients.get_mut(place.index as usize).filter(|client| client.generation == place.generation)
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & 0xff_ffff;
        self.generation
    }
}

fn place_of(index: usize, generation: u32) -> Place {
    Place { index: u32::try_from(index).expect("sessions_max is far below 2^31"), generation }
}

impl<R: Ring, C: Clock> Core<R, C> {
    pub(crate) fn on_intake_received(&mut self, place: Place, data: Received) {
        let gate = self.gate();
        let Some(client) = self.intake.get(place) else { return self.ring.give_back(data) };
        let bytes = self.ring.received(&data);
        let used =
            if client.held.is_empty() { client.session.handle_bytes(self.now, gate, bytes) } else { 0 };
        client.held.extend_from_slice(&bytes[used..]);
        self.ring.give_back(data);
        self.drain_client(place);
    }

    pub(crate) fn on_intake_ended(&mut self, place: Place, result: &io::Result<()>) {
        let Some(client) = self.intake.get(place) else { return };
        let was_paused = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
        if was_paused {
            client.receiving = Receiving::Paused;
            return self.pause_if_ahead(place);
        }
        client.has_ended = true;
        self.drain_client(place);
    }

    pub(crate) fn on_intake_sent(&mut self, place: Place, result: io::Result<()>, outgoing: Outgoing) {
        if place.index & REFUSED != 0 {
            let refused = self.intake.refused.try_remove((place.index & !REFUSED) as usize);
            if let Some((_, socket)) = refused {
                self.ring.close(socket);
            }
            return;
        }
        let Some(client) = self.intake.get(place) else { return };
        (client.outgoing, client.sending_since) = (Some(outgoing), None);
        if result.is_err() {
            return self.close_client(place);
        }
        self.drain_client(place);
    }

    pub(crate) fn on_intake_timer(&mut self, place: Place) {
        let (now, patience) = (self.now, self.patience());
        let Some(client) = self.intake.get(place) else { return };
        if client.sending_since.is_some_and(|since| since + patience <= now) {
            // It does not read what it is told.
            return self.close_client(place);
        }
        if client.session.poll_timeout().is_some_and(|deadline| deadline <= now) {
            client.session.handle_timeout(now);
            self.drain_client(place);
        }
        self.watch_client(place);
    }

    /// How long a client may take to read a reply.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.config.intake.idle_timeout_secs)
    }

    fn watch_client(&mut self, place: Place) {
        let (now, patience) = (self.now, self.patience());
        let Some(client) = self.intake.get(place) else { return };
        let unread = client.sending_since.map(|since| since + patience);
        let deadline = [client.session.poll_timeout(), unread].into_iter().flatten().min();
        self.timers.insert(now, deadline.unwrap_or(now + crate::timers::RECHECK), token(Kind::Intake, place));
    }

    /// Carries out what the session wants until it wants no more.
    fn drain_client(&mut self, place: Place) {
        let gate = self.gate();
        loop {
            let Some(client) = self.intake.get(place) else { return };
            match client.session.poll_output() {
                Some(Output::Store(submission)) => {
                    self.store(place, *submission);
                    continue;
                }
                Some(Output::Flush(flush)) => {
                    self.flush_for_client(&flush);
                    continue;
                }
                Some(Output::Close) => client.is_closing = true,
                None => {}
            }
            if client.held.is_empty() || client.is_closing {
                break;
            }
            let used = client.session.handle_bytes(self.now, gate, &client.held);
            client.held.drain(..used);
            if used == 0 {
                break;
            }
        }
        self.account(place);
        self.flush_client(place);
    }

    /// Keeps the sum of what all sessions hold.
    fn account(&mut self, place: Place) {
        let Some(client) = self.intake.get(place) else { return };
        let (before, after) = (client.buffered, client.session.buffered_len() + client.held.len());
        client.buffered = after;
        self.intake.buffered = self.intake.buffered + after - before;
    }

    /// Sends what may be said, holds back a peer that is ahead, closes what has ended.
    fn flush_client(&mut self, place: Place) {
        let Some(client) = self.intake.get(place) else { return };
        let Some(mut outgoing) = client.outgoing.take() else { return };
        outgoing.clear();
        let socket = client.socket;
        if client.session.take_replies(&mut outgoing.own) {
            let len = u32::try_from(outgoing.own.len()).expect("replies_max bounds it");
            outgoing.pieces.push(Piece::Own(0..len));
            client.sending_since = Some(self.now);
            self.ring.send(token(Kind::Intake, place), socket, outgoing);
            self.pause_if_ahead(place);
            return;
        }
        client.outgoing = Some(outgoing);
        // What was said last may have been the goodbye.
        client.is_closing |= matches!(client.session.poll_output(), Some(Output::Close));
        if client.is_closing || client.has_ended && client.stores == 0 {
            return self.close_client(place);
        }
        self.pause_if_ahead(place);
    }

    fn pause_if_ahead(&mut self, place: Place) {
        let Some(client) = self.intake.get(place) else { return };
        let socket = client.socket;
        match client.receiving {
            Receiving::Armed if client.held.len() > HELD_MAX && !client.has_ended => {
                client.receiving = Receiving::Stopping;
                self.ring.pause(socket);
            }
            Receiving::Paused if client.held.is_empty() => {
                client.receiving = Receiving::Armed;
                self.ring.receive(token(Kind::Intake, place), socket);
            }
            // While it is stopping its end is still to come.
            Receiving::Armed | Receiving::Stopping | Receiving::Paused => {}
        }
    }

    fn close_client(&mut self, place: Place) {
        if self.intake.get(place).is_none() {
            return;
        }
        let client = self.intake.clients.remove(place.index as usize);
        self.intake.buffered -= client.buffered;
        self.ring.close(client.socket);
    }

    pub(crate) fn shut_intake(&mut self) {
        let places: Vec<Place> =
            self.intake.clients.iter().map(|(index, client)| place_of(index, client.generation)).collect();
        for place in places {
            if let Some(client) = self.intake.get(place) {
                client.session.handle_shutdown(self.now);
            }
            self.drain_client(place);
        }
    }
}
