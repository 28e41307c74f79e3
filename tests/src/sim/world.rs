//! The world: virtual time, what will happen in it, and everything that lives there.
//!
//! One thread, one [`Rng`], one [`Timeline`]: a seed decides every order and every fault, so the same seed is the
//! same run, to the last event ([`World::trace_hash`]). Time moves only in [`World::advance`], to the next thing
//! that is due; a core that works pays some microseconds per turn, so one that spins does not stop the clock.

use super::actor::{Actor, Io};
use super::audit::Audit;
use super::clock::{MICRO, SimClock, nanos};
use super::disk::Disk;
use super::ledger::Ledger;
use super::letter::Intake;
use super::net::Net;
use super::ring::{RingState, SimRing};
use super::rng::Rng;
use super::timeline::{Timeline, Trace};
use super::weather::Weather;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// A handle to the world; clones are the same world.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
    clock: SimClock,
}

/// What can happen. Everything names its object by number, so what is gone by then is found missing.
pub(super) enum Due {
    Timer { actor: usize, timer: u64 },
    Syn { conn: u32 },
    Established { conn: u32 },
    Refused { conn: u32, code: i32 },
    Segment { conn: u32, dir: usize, len: usize },
    Fin { conn: u32, dir: usize },
    Broken { conn: u32, end: usize, code: i32 },
    Vanish { conn: u32 },
    Readable { conn: u32, end: usize },
    SendDone { ring: usize, socket: u32, conn: u32 },
    PauseDone { ring: usize, socket: u32, conn: u32 },
    Starved { ring: usize },
    Disk { op: u64 },
    Call(Box<dyn FnOnce()>),
}

pub(super) struct State {
    pub(super) clock: SimClock,
    pub(super) rng: Rng,
    pub(super) weather: Weather,
    pub(super) timeline: Timeline<Due>,
    pub(super) trace: Trace,
    pub(super) net: Net,
    pub(super) disk: Disk,
    pub(super) rings: Vec<RingState>,
    /// Rings before this one belong to a process that is gone.
    first_ring: usize,
    pub(super) actors: Vec<Option<Box<dyn Actor>>>,
    pub(super) ledger: Ledger,
    pub(super) routes: BTreeMap<String, Vec<SocketAddr>>,
    turns: u64,
}

impl World {
    pub fn new(seed: u64, weather: Weather) -> World {
        let clock = SimClock::new();
        let state = State {
            clock: clock.clone(),
            rng: Rng::new(seed),
            weather,
            timeline: Timeline::new(),
            trace: Trace::new(),
            net: Net::new(),
            disk: Disk::new(),
            rings: Vec::new(),
            first_ring: 0,
            actors: Vec::new(),
            ledger: Ledger::new(),
            routes: BTreeMap::new(),
            turns: 0,
        };
        World { state: Rc::new(RefCell::new(state)), clock }
    }

    // ---- who lives here ----

    pub fn clock(&self) -> SimClock {
        self.clock.clone()
    }

    /// A ring for the next core: the first call after `new` or a crash makes core 0, the next core 1.
    pub fn ring(&self) -> SimRing {
        let mut state = self.state.borrow_mut();
        let id = state.rings.len();
        let ring = RingState::new(state.clock.nanos(), &state.weather);
        let waker = ring.woken.clone();
        state.rings.push(ring);
        SimRing::new(id, state.weather.buffers_max, self.state.clone(), waker)
    }

    pub fn spawn(&self, actor: impl Actor + 'static) {
        let mut state = self.state.borrow_mut();
        state.actors.push(Some(Box::new(actor)));
        let actor = state.actors.len() - 1;
        state.with_actor(actor, |actor, io| actor.start(io));
    }

    /// Says where mail for `domain` goes; for the scenario's own resolver, see [`World::route`].
    pub fn set_route(&self, domain: &str, hosts: Vec<SocketAddr>) {
        self.state.borrow_mut().routes.insert(domain.to_owned(), hosts);
    }

    pub fn route(&self, domain: &str) -> Vec<SocketAddr> {
        self.state.borrow().routes.get(domain).cloned().unwrap_or_default()
    }

    // ---- running it ----

    /// Lets happen whatever is due now. Time stands still.
    pub fn step(&self) {
        loop {
            let due = self.state.borrow_mut().pop_due();
            match due {
                None => return,
                // A call may use the world, so the world is not borrowed meanwhile.
                Some(Due::Call(call)) => call(),
                Some(due) => self.state.borrow_mut().happen(due),
            }
        }
    }

    /// A core that has something to do now: an event, a wake-up, or its time-out is over.
    pub fn runnable(&self) -> Option<usize> {
        self.state.borrow_mut().runnable()
    }

    /// Moves time to the next thing that is due. False if nothing ever will be.
    pub fn advance(&self) -> bool {
        self.state.borrow_mut().advance(u64::MAX)
    }

    /// Steps and advances until a core has something to do; that core must then have one turn. `None` if `until`
    /// (since the beginning) comes first; time then stands at `until`.
    pub fn next_turn(&self, until: Duration) -> Option<usize> {
        loop {
            self.step();
            if self.clock.elapsed() >= until {
                return None;
            }
            if let Some(core) = self.runnable() {
                return Some(core);
            }
            self.state.borrow_mut().advance(nanos(until));
        }
    }

    /// Gives turns to `cores` until `done` says so or `limit` (from now) is over; true if it was `done`.
    pub fn run<C>(
        &self,
        cores: &mut [C],
        limit: Duration,
        mut turn: impl FnMut(&mut C),
        mut done: impl FnMut(&World) -> bool,
    ) -> bool {
        let until = self.clock.elapsed() + limit;
        while !done(self) {
            match self.next_turn(until) {
                Some(core) => turn(&mut cores[core]),
                None => return done(self),
            }
        }
        true
    }

    /// Lets the world alone go on, without any core, for `span`.
    pub fn pass(&self, span: Duration) {
        let until = self.clock.elapsed() + span;
        while self.clock.elapsed() < until {
            self.step();
            self.state.borrow_mut().advance(nanos(until));
        }
        self.step();
    }

    /// Runs `call` after `delay`, between turns: a scripted resolver, an operator's command.
    pub fn after(&self, delay: Duration, call: impl FnOnce() + 'static) {
        self.state.borrow_mut().after(nanos(delay), Due::Call(Box::new(call)));
    }

    // ---- disturbing it ----

    /// Power loss: all rings are void, all their connections broken, and of what was not synced each write is
    /// kept, lost or torn, each new or removed name kept or lost.
    pub fn crash(&self) {
        let mut state = self.state.borrow_mut();
        state.end_process("crash");
        let State { disk, rng, .. } = &mut *state;
        disk.crash(rng);
    }

    /// `kill -9`: all rings are void, but what was written stays; writes in flight happen or not.
    pub fn kill(&self) {
        let mut state = self.state.borrow_mut();
        state.end_process("kill");
        let State { disk, rng, .. } = &mut *state;
        disk.kill(rng);
    }

    /// While held, no sync (and no durable write) completes.
    pub fn hold_syncs(&self, hold: bool) {
        self.state.borrow_mut().hold_syncs(hold);
    }

    /// Syncs of files whose names begin so fail from now on, until the next crash.
    pub fn break_syncs(&self, start: &str) {
        self.state.borrow_mut().disk.break_syncs(start);
    }

    pub fn adjust(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.state.borrow_mut().weather);
    }

    /// No more faults from now on; those that struck have their course.
    pub fn heal(&self) {
        self.adjust(|weather| *weather = weather.healed());
    }

    /// The size of the simulated disk, in bytes.
    pub fn set_disk_len(&self, len: u64) {
        self.state.borrow_mut().disk.capacity = len;
    }

    /// Chance for the scenario itself.
    pub fn random(&self, end: u64) -> u64 {
        self.state.borrow_mut().rng.below(end)
    }

    // ---- asking it ----

    /// True if every injector is through and every accepted recipient is delivered, or failed and bounced.
    pub fn settled(&self) -> bool {
        self.state.borrow_mut().ledger.settled()
    }

    /// How often injectors were answered so, to MAIL and to the end of a letter.
    pub fn replies(&self, code: u16) -> u32 {
        self.state.borrow().ledger.replies.get(&code).copied().unwrap_or(0)
    }

    pub fn audit(&self) -> Audit {
        Audit::of(&self.state.borrow().ledger)
    }

    /// Recipients whose letters got their 250.
    pub fn accepted(&self) -> Vec<String> {
        let state = self.state.borrow();
        let recipients = state.ledger.letters.iter().flat_map(|letter| &letter.recipients);
        let accepted = recipients.filter(|recipient| recipient.intake == Intake::Accepted);
        accepted.map(|recipient| recipient.address.clone()).collect()
    }

    /// Equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.state.borrow().trace.hash()
    }

    /// Things that happened, and turns that cores took.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.borrow();
        (state.trace.count(), state.turns)
    }

    /// Receive buffers of a core that it holds now: 0 for an idle core, else it leaks.
    pub fn buffers_lent(&self, core: usize) -> usize {
        let state = self.state.borrow();
        state.rings[state.first_ring + core].buffers_lent()
    }

    /// Connections that a core has open.
    pub fn sockets_open(&self, core: usize) -> usize {
        let state = self.state.borrow();
        state.rings[state.first_ring + core].sockets_open()
    }

    /// Reads that failed so far.
    pub fn read_errors(&self) -> u64 {
        self.state.borrow().disk.read_errors
    }

    /// Files whose names begin so, with their sizes.
    pub fn files(&self, start: &str) -> Vec<(std::path::PathBuf, u64)> {
        self.state.borrow().disk.files(start)
    }

    /// What a file holds now, for a look from outside.
    pub fn file(&self, path: impl AsRef<std::path::Path>) -> Option<Vec<u8>> {
        self.state.borrow().disk.content(path.as_ref())
    }
}

impl State {
    pub(super) fn now(&self) -> u64 {
        self.clock.nanos()
    }

    pub(super) fn after(&mut self, delay: u64, due: Due) {
        let at = self.now().saturating_add(delay);
        self.timeline.push(at, due);
    }

    pub(super) fn note(&mut self, what: &'static str, who: u64, detail: u64) {
        self.trace.note(self.clock.nanos(), what, who, detail);
    }

    fn pop_due(&mut self) -> Option<Due> {
        self.timeline.pop_due(self.clock.nanos())
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Timer { actor, timer } => self.with_actor(actor, |actor, io| actor.handle_timer(io, timer)),
            Due::Syn { conn } => self.on_syn(conn),
            Due::Established { conn } => self.on_established(conn),
            Due::Refused { conn, code } => self.on_broken(conn, 0, code),
            Due::Segment { conn, dir, len } => self.on_segment(conn, dir, len),
            Due::Fin { conn, dir } => self.on_fin(conn, dir),
            Due::Broken { conn, end, code } => self.on_broken(conn, end, code),
            Due::Vanish { conn } => self.on_vanish(conn),
            Due::Readable { conn, end } => self.readable(conn, end),
            Due::SendDone { ring, socket, conn } => self.on_send_done(ring, socket, conn),
            Due::PauseDone { ring, socket, conn } => self.on_pause_done(ring, socket, conn),
            Due::Starved { ring } => self.on_starved(ring),
            Due::Disk { op } => self.on_disk(op),
            Due::Call(_) => unreachable!("step() calls it, without a borrow"),
        }
    }

    /// Takes the actor out of its place meanwhile, so that it can be given the world.
    pub(super) fn with_actor(&mut self, index: usize, act: impl FnOnce(&mut dyn Actor, &mut Io<'_>)) {
        let mut actor = self.actors[index].take().expect("no actor is called from within itself");
        act(&mut *actor, &mut Io::new(self, index));
        self.actors[index] = Some(actor);
    }

    fn runnable(&mut self) -> Option<usize> {
        let now = self.now();
        let ready = self.rings[self.first_ring..].iter().enumerate();
        let ready: Vec<usize> = ready
            .filter(|(_, ring)| ring.next_turn().is_some_and(|at| at <= now))
            .map(|(index, _)| index)
            .collect();
        if ready.is_empty() {
            return None;
        }
        self.turns += 1;
        Some(*self.rng.pick(&ready))
    }

    fn advance(&mut self, until: u64) -> bool {
        let turns = self.rings[self.first_ring..].iter().filter_map(RingState::next_turn).min();
        let next = match (self.timeline.next_at(), turns) {
            (Some(event), Some(turn)) => event.min(turn),
            (event, turn) => event.or(turn).unwrap_or(u64::MAX),
        };
        if next == u64::MAX && until == u64::MAX {
            return false;
        }
        self.clock.set(next.min(until).max(self.now()));
        true
    }

    fn end_process(&mut self, why: &'static str) {
        self.note(why, self.first_ring as u64, 0);
        for ring in self.first_ring..self.rings.len() {
            self.end_ring(ring);
        }
        self.first_ring = self.rings.len();
        self.disk.forget_operations();
    }

    /// What one turn costs a core.
    pub(super) fn turn_cost(&mut self) -> u64 {
        MICRO + self.rng.below(10 * MICRO)
    }
}
