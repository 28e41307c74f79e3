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
use nonces::Nonces;

use crate::access::{AccessDoor, Found, Seat, Shared};
use crate::clock::Clock;
use crate::control::dns::is_local;
use crate::core::{Core, Kind, Place, token};
use crate::drive::fetch::Handed;
use crate::observe::LineBudget;
use ring::{Outgoing, Piece, Received, Ring, Socket};
use slab::Slab;
use smtp_in::door::Origin;
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
    /// Room for what is sent next, while nothing is.
    room: Vec<u8>,
    /// What the session held at the last look, for the sum over all sessions.
    buffered: usize,
    receiving: Receiving,
    leaving: Leaving,
    /// The peer sends no more.
    has_ended: bool,
    /// It brought a message since its timer last came up: it keeps its room for the next one.
    is_active: bool,
    /// Messages of its that are on their way to the disk.
    stores: u32,
    /// Since when a send has been under way.
    sending_since: Option<Instant>,
    /// What is known of it besides what its session knows: nothing for most.
    known: Option<Box<Known>>,
    /// Its place among all sessions of the daemon.
    seat: Option<Seat>,
    /// What it asked for by ATRN.
    fetch: Option<u32>,
}

// Ten thousand idle connections hold one each, and little besides.
const _: () = assert!(size_of::<Client>() <= 576);

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
            room: Vec::new(),
            buffered: 0,
            receiving: Receiving::Armed,
            leaving: Leaving::No,
            has_ended: false,
            is_active: false,
            stores: 0,
            sending_since: None,
            known: None,
            seat: None,
            fetch: None,
        }
    }

    /// Idle sessions are many: they hold no room for what may never come.
    fn shrink_if_idle(&mut self) {
        if self.session.is_idle() && !self.is_active {
            self.session.shrink();
            self.room = Vec::new();
            self.held.shrink_to_fit();
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

/// How a session ends, once what was said is with the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Leaving {
    No,
    Close,
    /// Its connection goes the other way (ATRN).
    Reverse,
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
    complaints: LineBudget,
}

/// Refusals stand in the upper half of the places.
const REFUSED: u32 = 1 << 31;

/// Whose store it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submitter {
    place: Place,
    transaction: TransactionKey,
    /// Octets that we put on top of its content.
    pub(crate) fields_len: u32,
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

/// All of it as one send.
fn whole(own: Vec<u8>) -> Outgoing {
    let len = u32::try_from(own.len()).expect("replies_max bounds it");
    Outgoing { own, pieces: std::iter::once(Piece::Own(0..len)).collect(), zero_copy: false }
}

impl<R: Ring, C: Clock> Core<R, C> {
    pub(crate) fn on_intake_received(&mut self, place: Place, data: Received) {
        let gate = self.gate();
        let Core { ring, intake, settings, crossing, now, suppressing, .. } = self;
        let Some(client) = intake.get_with_number(place) else { return ring.give_back(data) };
        let (client, listener) = client;
        let bytes = ring.received(&data);
        let used = if client.held.is_empty() {
            let returns = Some(&settings.returns);
            let suppressed = suppressing.at_rcpt(&settings.suppression);
            let rates = &crossing.rates;
            let shared = Shared { rates, now: *now, gate, listener, is_local, returns, suppressed };
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
            return match client.leaving {
                Leaving::Reverse => self.flush_client(place),
                Leaving::No | Leaving::Close => self.pause_if_ahead(place),
            };
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
        (client.room, client.sending_since) = (outgoing.own, None);
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
        } else {
            client.shrink_if_idle();
            client.is_active = false;
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
            Output::Turn(domains) => self.take_atrn(place, &domains),
            Output::Close => client.leaving = Leaving::Close,
            Output::HandOver => client.leaving = Leaving::Reverse,
        }
        true
    }

    /// Gives the session what it has not taken yet; false if it takes none of it.
    fn read_on(&mut self, place: Place) -> bool {
        let gate = self.gate();
        let Core { intake, settings, crossing, now, suppressing, .. } = self;
        let Some((client, listener)) = intake.get_with_number(place) else { return false };
        let has_some = !client.held.is_empty() || client.session.wants_turn();
        if !has_some || client.leaving != Leaving::No {
            return false;
        }
        let returns = Some(&settings.returns);
        let suppressed = suppressing.at_rcpt(&settings.suppression);
        let rates = &crossing.rates;
        let shared = Shared { rates, now: *now, gate, listener, is_local, returns, suppressed };
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
        let Some(client) = self.intake.get(place).filter(|client| client.sending_since.is_none()) else {
            return;
        };
        client.room.clear();
        if client.session.take_replies(&mut client.room) {
            let (socket, outgoing) = (client.socket, whole(std::mem::take(&mut client.room)));
            client.sending_since = Some(self.now);
            self.ring.send(token(Kind::Intake, place), socket, outgoing);
            self.pause_if_ahead(place);
            return;
        }
        client.shrink_if_idle();
        // What was said last may have been the goodbye.
        match client.session.poll_output() {
            Some(Output::Close) => client.leaving = Leaving::Close,
            Some(Output::HandOver) => client.leaving = Leaving::Reverse,
            _ => {}
        }
        match client.leaving {
            _ if client.has_ended && client.stores == 0 => self.close_client(place),
            Leaving::Close => self.close_client(place),
            Leaving::Reverse => self.hand_over(place),
            Leaving::No => self.pause_if_ahead(place),
        }
    }

    /// The connection is given away when nothing more is received under the session's name.
    fn hand_over(&mut self, place: Place) {
        let Some(client) = self.intake.get(place) else { return };
        match client.receiving {
            Receiving::Armed => {
                client.receiving = Receiving::Stopping;
                self.ring.pause(client.socket);
            }
            Receiving::Stopping => {}
            Receiving::Paused => {
                let Client { socket, session, held, seat, fetch, .. } = *self.remove_client(place);
                let handed = Handed { socket, tunnel: session.into_tunnel(), held, seat };
                match fetch {
                    Some(fetch) => self.reverse(fetch, handed),
                    None => self.ring.close(socket),
                }
            }
        }
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
        let client = self.remove_client(place);
        self.ring.close(client.socket);
        if let Some(fetch) = client.fetch {
            self.end_fetch(fetch);
        }
    }

    fn remove_client(&mut self, place: Place) -> Box<Client> {
        let client = self.intake.clients.remove(place.index as usize);
        self.intake.buffered -= client.buffered;
        client
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
