//! A host that takes mail: a plain SMTP server, correct in what it says, that errs only as the weather has it.
//!
//! Each sink offers what the seed decided (EHLO at all, PIPELINING, CHUNKING, limits) and enters into the ledger
//! what it took, what it refused for good, and every way in which its client broke SMTP.

mod session;

use super::actor::{Actor, Ending, Io};
use super::net::Link;
use super::rng::Rng;
use session::Session;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What a host is like, for as long as it lives.
#[derive(Clone, Debug)]
pub struct Offers {
    pub ehlo: bool,
    pub pipelining: bool,
    pub chunking: bool,
    /// Per transaction; more get 452.
    pub recipients_max: usize,
    /// Per connection; then 421.
    pub messages_max: u32,
    /// Replies of several lines now and then.
    pub multiline: bool,
    /// A recipient is asked to come back until it was first heard of so long ago.
    pub defers_for: Duration,
}

impl Offers {
    pub fn draw(rng: &mut Rng) -> Offers {
        Offers {
            ehlo: rng.below(16) != 0,
            pipelining: rng.below(4) != 0,
            chunking: rng.coin(),
            recipients_max: *rng.pick(&[1, 3, 100, 100]),
            messages_max: *rng.pick(&[1, 5, 1_000, 1_000]),
            multiline: rng.coin(),
            defers_for: Duration::ZERO,
        }
    }
}

pub struct Sink {
    address: SocketAddr,
    offers: Offers,
    sessions: BTreeMap<Link, Session>,
    /// Links that wait for the end of a stall, by timer.
    stalled: BTreeMap<u64, Link>,
    next_timer: u64,
}

impl Sink {
    pub fn new(address: SocketAddr, offers: Offers) -> Sink {
        Sink { address, offers, sessions: BTreeMap::new(), stalled: BTreeMap::new(), next_timer: 0 }
    }

    pub(super) fn connections(&self) -> usize {
        self.sessions.len()
    }

    /// Lets the session go on; it may end itself, or stall.
    fn work(&mut self, io: &mut Io<'_>, link: Link) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.work(io, &self.offers);
        if session.has_ended() {
            self.sessions.remove(&link);
        } else if let Some(span) = session.poll_stall() {
            self.next_timer += 1;
            self.stalled.insert(self.next_timer, link);
            io.hold(link, true);
            io.timer(span, self.next_timer);
        }
    }
}

impl Actor for Sink {
    fn start(&mut self, io: &mut Io<'_>) {
        io.listen(self.address);
    }

    fn handle_timer(&mut self, io: &mut Io<'_>, timer: u64) {
        let Some(link) = self.stalled.remove(&timer) else { return };
        if let Some(session) = self.sessions.get_mut(&link) {
            session.handle_stall_over();
            io.hold(link, false);
            self.work(io, link);
        }
    }

    fn handle_opened(&mut self, io: &mut Io<'_>, link: Link) {
        self.sessions.insert(link, Session::new(link));
        self.work(io, link);
    }

    fn handle_bytes(&mut self, io: &mut Io<'_>, link: Link, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(&link) {
            session.handle_bytes(bytes);
            self.work(io, link);
        }
    }

    fn handle_ended(&mut self, io: &mut Io<'_>, link: Link, _: Ending) {
        if let Some(mut session) = self.sessions.remove(&link) {
            session.handle_ended(io);
        }
    }
}
