//! Scripted ends that live in the world: the peers of the cores.

use super::clock::nanos;
use super::ledger::Ledger;
use super::net::Link;
use super::rng::{OneIn, Rng};
use super::weather::Weather;
use super::world::{Due, State};
use std::net::SocketAddr;
use std::time::Duration;

/// How a link ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The peer closed in good order.
    Closed,
    /// Reset, refused, or nothing heard for too long.
    Broken,
}

/// A peer. Each call may use [`Io`] and returns at once; a link that ended is gone after `handle_ended`.
pub trait Actor {
    fn start(&mut self, io: &mut Io<'_>);
    fn handle_timer(&mut self, io: &mut Io<'_>, timer: u64);
    /// A link that was asked for is there, or one came in at `listen`.
    fn handle_opened(&mut self, io: &mut Io<'_>, link: Link);
    fn handle_bytes(&mut self, io: &mut Io<'_>, link: Link, bytes: &[u8]);
    fn handle_ended(&mut self, io: &mut Io<'_>, link: Link, ending: Ending);
}

/// What an actor can do in the world.
pub struct Io<'a> {
    state: &'a mut State,
    me: usize,
}

impl<'a> Io<'a> {
    pub(super) fn new(state: &'a mut State, me: usize) -> Io<'a> {
        Io { state, me }
    }

    pub fn listen(&mut self, address: SocketAddr) {
        self.state.net.listen_actor(address, self.me);
    }

    pub fn connect(&mut self, peer: SocketAddr) -> Link {
        self.state.actor_connect(self.me, peer)
    }

    /// Queues octets without bound; the link takes them as its window allows. Nothing if the link is gone.
    pub fn send(&mut self, link: Link, bytes: &[u8]) {
        self.state.wire_send(link, bytes);
    }

    /// Sends what is queued, then the end of the stream. `handle_ended` does not come.
    pub fn close(&mut self, link: Link) {
        self.state.wire_close(link);
    }

    pub fn reset(&mut self, link: Link) {
        self.state.wire_reset(link);
    }

    /// Stops or takes up reading, so that the peer's octets fill the window.
    pub fn hold(&mut self, link: Link, hold: bool) {
        self.state.wire_hold(link, hold);
    }

    pub fn timer(&mut self, delay: Duration, timer: u64) {
        let actor = self.me;
        self.state.after(nanos(delay), Due::Timer { actor, timer });
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.state.clock.elapsed()
    }

    /// Octets queued on this link so far, and how many of them the peer has read.
    pub fn written_and_read(&self, link: Link) -> (u64, u64) {
        self.state.net.written_and_read(link)
    }

    pub fn rng(&mut self) -> &mut Rng {
        &mut self.state.rng
    }

    pub fn hits(&mut self, chance: impl FnOnce(&Weather) -> OneIn) -> bool {
        let chance = chance(&self.state.weather);
        self.state.rng.hits(chance)
    }

    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.state.ledger
    }

    pub fn note(&mut self, what: &'static str, detail: u64) {
        let me = self.me as u64;
        self.state.note(what, me, detail);
    }
}
