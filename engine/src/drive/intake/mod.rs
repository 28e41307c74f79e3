//! Incoming sessions: sockets to `smtp_in::Session`, its submissions to the log.
//!
//! Bounds: `sessions_max` sessions (421 past it), `memory_max` bytes of messages under way (452 past it), and
//! [`HELD_MAX`] bytes that a session has not taken yet, past which its socket is paused.

mod asking;
mod complaints;
mod listening;
mod nonces;
mod storing;

use asking::Parked;
use complaints::Complaints;
use nonces::Nonces;

use crate::access::{AccessDoor, Found, Seat, Shared};
use crate::clock::Clock;
use crate::control::dns::is_local;
use crate::core::{Core, Kind, Place, token};
use ring::{Outgoing, Piece, Received, Ring, Socket};
use slab::Slab;
use smtp_in::door::{Answer, Origin};
use smtp_in::{Output, Session, TransactionKey};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes received that wait for the session.
const HELD_MAX: usize = 256 << 10;

#[derive(Debug)]
struct Client {
    generation: u32,
    socket: Socket,
    /// Where it came in: its place among the listeners.
    listening: u32,
    /// Who the kernel says it is: its session may know better who stands behind that.
    origin: Origin,
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
    /// What is known of it besides what its session knows: nothing for most.
    known: Option<Box<Known>>,
    /// Its place among all sessions of the daemon.
    seat: Option<Seat>,
}

/// What was found out about a client.
#[derive(Debug, Default)]
struct Known {
    found: Found,
    /// Goes on top of each of its messages.
    field: Option<Arc<str>>,
}

impl Client {
    fn new(generation: u32, socket: Socket, listening: usize, origin: Origin, session: Session) -> Client {
        Client {
            generation,
            socket,
            listening: u32::try_from(listening).expect("a few listeners"),
            origin,
            session,
            held: Vec::new(),
            outgoing: Some(Outgoing::default()),
            buffered: 0,
            receiving: Receiving::Armed,
            is_closing: false,
            has_ended: false,
            stores: 0,
            sending_since: None,
            known: None,
            seat: None,
        }
    }
}

/// Whether the ring receives for a client.
#[derive(Clone, Copy, Debug)]
enum Receiving {
    Armed,
    Stopping,
    Paused,
}

/// A socket that takes connections.
#[derive(Debug)]
struct Listening {
    socket: Socket,
    /// Of its listener; none for the Unix socket.
    name: Option<Box<str>>,
    /// Its listener's number in the settings in force.
    number: usize,
    address: Option<SocketAddr>,
}

/// All incoming sessions of a core.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    listeners: Vec<Listening>,
    /// No more connections are taken.
    is_closed: bool,
    /// Each in a box of its own: a table that grows would else hold room for twice as many.
    clients: Slab<Box<Client>>,
    /// Connections that only get a refusal.
    refused: Slab<(u32, Socket)>,
    generation: u32,
    buffered: usize,
    nonces: Nonces,
    /// Messages that wait for what is found out about them.
    parked: Slab<Parked>,
    complaints: Complaints,
}

/// Refusals stand in the upper half of the places.
const REFUSED: u32 = 1 << 31;

/// Whose store it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submitter {
    place: Place,
    transaction: TransactionKey,
    /// Octets that we put on top of its content.
    fields_len: u32,
}

impl Intake {
    pub(crate) fn open(&self) -> usize {
        self.clients.len()
    }

    fn get(&mut self, place: Place) -> Option<&mut Client> {
        let client = self.clients.get_mut(place.index as usize)?;
        (client.generation == place.generation).then_some(client)
    }

    /// With its listener's number.
    fn get_with_number(&mut self, place: Place) -> Option<(&mut Client, usize)> {
        let client = self.clients.get_mut(place.index as usize)?;
        let is_it = client.generation == place.generation;
        let number = self.listeners.get(client.listening as usize)?.number;
        is_it.then_some((client, number))
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
        let Core { ring, intake, settings, crossing, now, suppressing, .. } = self;
        let Some(client) = intake.get_with_number(place) else { return ring.give_back(data) };
        let (client, listener) = client;
        let bytes = ring.received(&data);
        let used = if client.held.is_empty() {
            let suppressed = suppressing.at_rcpt(&settings.suppression);
            let shared = Shared { rates: &crossing.rates, now: *now, gate, listener, is_local, suppressed };
            client.session.handle_bytes(*now, &mut AccessDoor::new(&settings.access, shared), bytes)
        } else {
            0
        };
        client.held.extend_from_slice(&bytes[used..]);
        ring.give_back(data);
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
        loop {
            while self.carry_out(place) {}
            if !self.read_on(place) {
                break;
            }
        }
        self.account(place);
        self.flush_client(place);
    }

    /// The next thing that the session wants; false if that is nothing.
    fn carry_out(&mut self, place: Place) -> bool {
        let Some(client) = self.intake.get(place) else { return false };
        let Some(output) = client.session.poll_output() else { return false };
        match output {
            Output::Store(submission) => self.take_submission(place, *submission),
            Output::Flush(flush) => self.flush_for_client(&flush),
            Output::Ask(question) => self.ask_for_session(place, question),
            Output::Rejected(rejection) => self.complain(place, &rejection),
            // Not offered: no listener's policy has it.
            Output::Turn(_) => client.session.handle_answer(self.now, Answer::TurnDenied),
            Output::Close | Output::HandOver => client.is_closing = true,
        }
        true
    }

    /// Gives the session what it has not taken yet; false if it takes none of it.
    fn read_on(&mut self, place: Place) -> bool {
        let gate = self.gate();
        let Core { intake, settings, crossing, now, suppressing, .. } = self;
        let Some((client, listener)) = intake.get_with_number(place) else { return false };
        let has_some = !client.held.is_empty() || client.session.wants_turn();
        if !has_some || client.is_closing {
            return false;
        }
        let suppressed = suppressing.at_rcpt(&settings.suppression);
        let shared = Shared { rates: &crossing.rates, now: *now, gate, listener, is_local, suppressed };
        let mut door = AccessDoor::new(&settings.access, shared);
        let wanted_turn = client.session.wants_turn();
        let used = client.session.handle_bytes(*now, &mut door, &client.held);
        client.held.drain(..used);
        used > 0 || wanted_turn
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
        if client.session.is_idle() {
            // What EHLO was answered is not said again soon.
            outgoing.own = Vec::new();
        }
        client.outgoing = Some(outgoing);
        // What was said last may have been the goodbye.
        let last = client.session.poll_output();
        client.is_closing |= matches!(last, Some(Output::Close | Output::HandOver));
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
