//! A client that submits letters to a core, and remembers which the core has promised to deliver.
//!
//! It tries again on its own what was deferred and what broke; where a connection broke after the end of a letter
//! was sent and before the reply, the ledger says *ambiguous*: the core may have it, and may get it again.

mod session;

use super::actor::{Actor, Ending, Io};
use super::letter::{Intake, Letter, LetterPlan};
use super::net::Link;
use session::Session;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Replies that take longer than this are not waited for (RFC 5321 §4.5.3.2.6 asks for 10 minutes at the end of DATA).
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct InjectorPlan {
    pub target: SocketAddr,
    pub letters: usize,
    pub connections: u32,
    /// A letter is given up after this many transactions without success.
    pub attempts_max: u32,
    /// Letters start to be submitted within this time.
    pub spread: Duration,
    pub letter: LetterPlan,
}

pub struct Injector {
    plan: InjectorPlan,
    /// Letters to be submitted, by index in the ledger, with attempts so far.
    queue: VecDeque<(usize, u32)>,
    sessions: BTreeMap<Link, Session>,
    timers: BTreeMap<u64, Wake>,
    next_timer: u64,
}

#[derive(Clone, Copy, Debug)]
enum Wake {
    Connect,
    Requeue {
        letter: usize,
        attempts: u32,
    },
    /// A pause of the injector's own is over.
    GoOn(Link),
    /// Is the session further than it was?
    Check(Link, u64),
}

impl Injector {
    pub fn new(plan: InjectorPlan) -> Injector {
        Injector {
            plan,
            queue: VecDeque::new(),
            sessions: BTreeMap::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
        }
    }

    fn wake_in(&mut self, io: &mut Io<'_>, delay: Duration, wake: Wake) {
        self.next_timer += 1;
        self.timers.insert(self.next_timer, wake);
        io.timer(delay, self.next_timer);
    }

    fn connect(&mut self, io: &mut Io<'_>) {
        if !self.queue.is_empty() && self.sessions.len() < self.plan.connections as usize {
            let link = io.connect(self.plan.target);
            self.sessions.insert(link, Session::new(link, io.rng()));
            self.wake_in(io, PATIENCE, Wake::Check(link, 0));
        }
    }

    /// Submits the rest of a letter some time later, if there is a rest and patience.
    fn come_back(&mut self, io: &mut Io<'_>, letter: usize, attempts: u32) {
        let owed = io.ledger().owed(letter);
        if attempts < self.plan.attempts_max {
            if !owed.is_empty() {
                let delay = Duration::from_millis(100 + io.rng().below(60_000));
                self.wake_in(io, delay, Wake::Requeue { letter, attempts });
            }
            return;
        }
        for recipient in owed {
            io.ledger().intake((letter, recipient), Intake::GivenUp);
        }
    }

    fn work(&mut self, io: &mut Io<'_>, link: Link) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.work(io, &mut self.queue);
        let pause = session.poll_pause();
        let returned = session.take_returned();
        let ended = session.has_ended();
        for (letter, attempts) in returned {
            self.come_back(io, letter, attempts);
        }
        if let Some(pause) = pause {
            self.wake_in(io, pause, Wake::GoOn(link));
        }
        if ended {
            self.sessions.remove(&link);
            self.connect_later(io);
        }
    }

    fn connect_later(&mut self, io: &mut Io<'_>) {
        let delay = Duration::from_millis(1 + io.rng().below(5_000));
        self.wake_in(io, delay, Wake::Connect);
    }

    fn check(&mut self, io: &mut Io<'_>, link: Link, replies: u64) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        if session.replies() > replies || session.is_pausing() {
            let replies = session.replies();
            return self.wake_in(io, PATIENCE, Wake::Check(link, replies));
        }
        session.give_up(io);
        self.work(io, link);
    }
}

impl Actor for Injector {
    fn start(&mut self, io: &mut Io<'_>) {
        let spread = u64::try_from(self.plan.spread.as_micros()).unwrap_or(u64::MAX);
        for _ in 0..self.plan.letters {
            let token = io.ledger().letters.len();
            let letter = Letter::make(token, &self.plan.letter, io.rng());
            io.ledger().add(letter);
            let delay = Duration::from_micros(io.rng().below(spread));
            self.wake_in(io, delay, Wake::Requeue { letter: token, attempts: 0 });
        }
        for _ in 0..self.plan.connections {
            self.wake_in(io, Duration::ZERO, Wake::Connect);
        }
    }

    fn handle_timer(&mut self, io: &mut Io<'_>, timer: u64) {
        match self.timers.remove(&timer) {
            Some(Wake::Connect) => self.connect(io),
            Some(Wake::Requeue { letter, attempts }) => {
                self.queue.push_back((letter, attempts));
                self.connect(io);
            }
            Some(Wake::GoOn(link)) => {
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.handle_pause_over();
                    self.work(io, link);
                }
            }
            Some(Wake::Check(link, replies)) => self.check(io, link, replies),
            None => {}
        }
    }

    fn handle_opened(&mut self, _: &mut Io<'_>, _: Link) {}

    fn handle_bytes(&mut self, io: &mut Io<'_>, link: Link, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(&link) {
            session.handle_bytes(io, bytes);
            self.work(io, link);
        }
    }

    fn handle_ended(&mut self, io: &mut Io<'_>, link: Link, _: Ending) {
        if let Some(session) = self.sessions.get_mut(&link) {
            session.handle_ended(io);
            self.work(io, link);
        }
    }
}
