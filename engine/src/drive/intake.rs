//! Incoming sessions: sockets to `smtp_in::Session`, its submissions to the log.
//!
//! Bounds: `sessions_max` sessions (421 past it), `memory_max` bytes of messages under way (452 past it), and
//! [`HELD_MAX`] bytes that a session has not taken yet, past which its socket is paused.

use crate::clock::Clock;
use crate::config::Network;
use crate::core::{Core, Kind, Place, Stop, token, token_of, untoken};
use crate::settings::Settings;
use bytes::Bytes;
use message::received::{Peer as TracePeer, Received as Trace};
use message::{Class, Envelope, Marks, MessageId, Traits};
use queue::log::record;
use ring::{Outgoing, Peer, Piece, Received, Ring, Socket, Token};
use slab::Slab;
use smtp_in::{Gate, Output, Session, Stored, Submission, TransactionKey};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Bytes received that wait for the session.
const HELD_MAX: usize = 256 << 10;

/// After running out of descriptors, accepting rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);

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

/// Which pool a message goes out from, and whose turn it takes: decided here, once. One pass over the header.
fn class_of(settings: &Settings, envelope: &Envelope, content: &[u8]) -> Class {
    let marks = Marks::of(content, &settings.config.lanes.tenant_field);
    let traits = Traits {
        sender: envelope.reverse_path.as_str(),
        campaign: marks.campaign.as_deref(),
        tenant: marks.tenant.as_deref(),
    };
    Class { pool: settings.sources.select(&traits), flow: traits.flow(settings.log_salt) }
}

impl<R: Ring, C: Clock> Core<R, C> {
    pub(crate) fn listen_on(&mut self, address: SocketAddr) -> Result<SocketAddr, crate::core::StartError> {
        let wrap = |source| crate::core::StartError::Listen { address, source };
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

    /// Whether new mail is taken.
    pub(crate) fn gate(&self) -> Gate {
        if self.halted || self.logs.primary().is_poisoned() {
            Gate::Broken
        } else if self.logs.is_full() || self.is_over_a_mark() {
            Gate::Full
        } else {
            Gate::Open
        }
    }

    /// More messages under way, or more mail in the queue, than the operator allows.
    fn is_over_a_mark(&self) -> bool {
        let marks = &self.settings.config.intake;
        self.intake.buffered > marks.memory_max || self.crossing.backlog() > marks.backlog_max
    }

    /// Puts our trace field on top and hands the message to the log.
    fn store(&mut self, place: Place, submission: Submission) {
        let Some(client) = self.intake.get(place) else { return };
        let peer = client.peer;
        client.stores += 1;
        let mut content = Vec::with_capacity(submission.content.len() + 256);
        let by = &self.settings.config.host_name;
        let (helo, with, at) = (&submission.helo, submission.with, self.wall);
        let from = TracePeer::Net { address: peer.ip().to_canonical(), name: None, ident: None };
        Trace { helo, from, tls: None, by, with, at }.render(&mut content);
        content.extend_from_slice(&submission.content);
        let Submission { transaction, envelope, facts, .. } = submission;
        let class = class_of(&self.settings, &envelope, &submission.content);
        let meta = record::meta_of(&envelope);
        let recipients = envelope.recipients.count();
        let (content, meta) = (Bytes::from(content), Bytes::from(meta));
        let new = super::log::Incoming { envelope, class, recipients, facts, content, meta, moved: None };
        let submitter = Submitter { place, transaction };
        if let Err(outcome) = self.append(new, super::log::Origin::Session(submitter)) {
            self.answer(submitter, outcome);
        }
    }

    /// Tells a session what became of its message.
    pub(crate) fn answer(&mut self, submitter: Submitter, outcome: Stored) {
        let Some(client) = self.intake.get(submitter.place) else { return };
        client.stores -= 1;
        client.session.handle_stored(self.now, submitter.transaction, outcome);
    }

    /// As [`Core::answer`], then lets the session speak. Only now may it say 250: the sync came first.
    pub(crate) fn answer_stored(&mut self, submitter: Submitter, id: MessageId) {
        self.answer(submitter, Stored::Accepted(id));
        self.drain_client(submitter.place);
    }

    pub(crate) fn answer_refused(&mut self, submitter: Submitter, outcome: Stored) {
        self.answer(submitter, outcome);
        self.drain_client(submitter.place);
    }
}
