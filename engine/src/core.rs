//! One thread's life: wait, feed the machines, drain what they want into submissions, wait again.
//!
//! The loop fits on one screen ([`Core::turn`]); what each kind of event means stands in `drive/`, one file per box.
//! Runs on the real ring and clock or on the simulator's. Never blocks outside [`Ring::wait`], except to put marks
//! into the page cache. Everything it holds has a bound, stated where it is held.

use crate::clock::Clock;
use crate::crossing::{Crossing, Mail};
use crate::domains::Domains;
use crate::drive::aside::Aside;
use crate::drive::campaigns::Gates;
use crate::drive::compact::Compaction;
use crate::drive::delivery_log::DeliveryLog;
use crate::drive::events::EventDrive;
use crate::drive::expiry::Expiry;
use crate::drive::fetch::Fetches;
use crate::drive::inject::Requests;
use crate::drive::intake::Intake;
use crate::drive::journal::JournalDrive;
use crate::drive::letters::Letters;
use crate::drive::log::Logs;
use crate::drive::look::Looks;
use crate::drive::notices::Failing;
use crate::drive::outbound::Outbound;
use crate::drive::returns::ReturnsDrive;
use crate::drive::secure::TlsClients;
use crate::drive::share::Shares;
use crate::drive::sites::Sites;
use crate::drive::spent::Ledger;
use crate::drive::steer::Steering;
use crate::drive::suppress::Suppressing;
use crate::drive::ways::Ways;
use crate::observe::{Counters, LineBudget};
use crate::recovery::{Journals, RecoverError};
use crate::rhythm::{Rhythm, TURN_LINGER};
use crate::settings::Settings;
use crate::sources::Day;
use crate::timers::Timers;
use message::UnixMillis;
use queue::bounce::{BounceConfig, Bounces};
use queue::schedule::Schedule;
use queue::store::Store;
use ring::{Event, Ring, Token};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait of an idle core: how late it may notice that the disk has room again, or that mail is past its time.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What an operation was for. Packed into a [`Token`]: kind, generation of the place, place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Kind {
    Listener,
    Intake,
    Outbound,
    LogWrite,
    LogPrepare,
    JournalOpen,
    JournalAllocate,
    JournalFolder,
    JournalSync,
    Load,
    Copy,
    Aside,
    DeliveryLog,
    EventLog,
    Ignored,
}

const KINDS: [Kind; 15] = [
    Kind::Listener,
    Kind::Intake,
    Kind::Outbound,
    Kind::LogWrite,
    Kind::LogPrepare,
    Kind::JournalOpen,
    Kind::JournalAllocate,
    Kind::JournalFolder,
    Kind::JournalSync,
    Kind::Load,
    Kind::Copy,
    Kind::Aside,
    Kind::DeliveryLog,
    Kind::EventLog,
    Kind::Ignored,
];

/// A place in one of the core's tables. The generation tells one tenant of the place from the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

pub(crate) fn token(kind: Kind, place: Place) -> Token {
    Token((kind as u64) << 56 | u64::from(place.generation & 0xff_ffff) << 32 | u64::from(place.index))
}

/// A token for something that there is one of, or that is told apart by a number alone.
pub(crate) fn token_of(kind: Kind, index: u32) -> Token {
    token(kind, Place { index, generation: 0 })
}

#[expect(clippy::cast_possible_truncation, reason = "the fields are cut out of 64 bits")]
pub(crate) fn untoken(token: Token) -> (Kind, Place) {
    let kind = KINDS.get((token.0 >> 56) as usize).copied().unwrap_or(Kind::Ignored);
    (kind, Place { index: token.0 as u32, generation: (token.0 >> 32) as u32 & 0xff_ffff })
}

/// What a core starts with.
#[derive(Debug)]
pub struct CoreConfig {
    pub index: usize,
    pub settings: Arc<Settings>,
    pub crossing: Arc<Crossing>,
    pub journals: Arc<Journals>,
}

/// Why a core could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{path}: {source}", path = .path.display())]
    File { path: std::path::PathBuf, source: std::io::Error },
}

/// See the module.
#[derive(Debug)]
pub struct Core<R, C> {
    pub(crate) ring: R,
    clock: C,
    /// Read once a turn.
    pub(crate) now: Instant,
    pub(crate) wall: UnixMillis,
    /// Sources' warm-ups go by it.
    pub(crate) today: Day,
    pub(crate) index: usize,
    pub(crate) settings: Arc<Settings>,
    pub(crate) crossing: Arc<Crossing>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) timers: Timers<Token>,
    pub(crate) rhythm: Rhythm,
    pub(crate) intake: Intake,
    pub(crate) requests: Requests,
    pub(crate) logs: Logs,
    pub(crate) journal: JournalDrive,
    pub(crate) store: Store,
    pub(crate) schedule: Schedule,
    pub(crate) domains: Domains,
    pub(crate) ways: Ways,
    pub(crate) sites: Sites,
    pub(crate) expiry: Expiry,
    pub(crate) letters: Letters,
    pub(crate) outbound: Outbound,
    pub(crate) tls_clients: TlsClients,
    pub(crate) ledger: Ledger,
    pub(crate) shares: Shares,
    pub(crate) fetches: Fetches,
    pub(crate) steering: Steering,
    pub(crate) gates: Gates,
    pub(crate) suppressing: Suppressing,
    pub(crate) looks: Looks,
    pub(crate) failing: slab::Slab<Failing>,
    pub(crate) bounces: Bounces<usize>,
    pub(crate) triple_lines: LineBudget,
    pub(crate) returns: ReturnsDrive,
    pub(crate) delivery_log: DeliveryLog,
    pub(crate) events: EventDrive,
    pub(crate) compaction: Compaction,
    pub(crate) aside: Aside,
    pub(crate) stop: Stop,
    /// A write to the journal failed: what was delivered can no longer be recorded, so nothing more is.
    pub(crate) halted: bool,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    Running,
    /// No new mail and no new transactions; what is under way ends, at the latest then.
    Draining {
        until: Instant,
    },
    Done,
}

/// Transactions under way get this long at shutdown.
const DRAIN: Duration = Duration::from_secs(20);

impl<R: Ring, C: Clock> Core<R, C> {
    /// Recovers the core's partitions and takes up their mail. Listens on nothing yet.
    pub fn start(mut ring: R, clock: C, config: CoreConfig) -> Result<Core<R, C>, StartError> {
        let CoreConfig { index, settings, crossing, journals } = config;
        let (now, wall) = (clock.now(), clock.wall());
        let logs = Logs::new(index, &settings.config);
        let journal = JournalDrive::start(&mut ring, index, &settings.config, &journals)?;
        let delivery_log = DeliveryLog::open(&mut ring, &settings.config)?;
        let events = EventDrive::open(&mut ring, index, crossing.events.get())?;
        crossing.set_waker(index, ring.waker());
        let mut core = Core {
            intake: Intake::default(),
            requests: Requests::default(),
            letters: Letters::new(settings.config.storage.cache_max),
            counters: Arc::clone(&crossing.counters[index]),
            timers: Timers::new(now),
            rhythm: Rhythm::new(now, Duration::from_micros(settings.config.storage.commit_linger_us)),
            store: Store::default(),
            schedule: Schedule::default(),
            domains: Domains::default(),
            ways: Ways::default(),
            sites: Sites::default(),
            expiry: Expiry::new(now),
            outbound: Outbound::default(),
            tls_clients: TlsClients::default(),
            ledger: Ledger::new(index, crossing.cores(), &journals.fold.spent),
            shares: Shares::default(),
            fetches: Fetches::default(),
            steering: Steering::default(),
            gates: Gates::default(),
            suppressing: Suppressing::new(crossing.suppression.get()),
            looks: Looks::default(),
            failing: slab::Slab::new(),
            bounces: Bounces::new(BounceConfig::default()),
            triple_lines: LineBudget::default(),
            returns: ReturnsDrive::default(),
            compaction: Compaction::default(),
            aside: Aside::new(&settings.config.queue),
            stop: Stop::Running,
            halted: false,
            ring,
            clock,
            now,
            wall,
            today: Day::of(wall),
            index,
            settings,
            crossing,
            logs,
            journal,
            delivery_log,
            events,
        };
        core.recover(&journals)?;
        core.put_state();
        core.flush_journal();
        core.journal.note_state();
        // Whoever looks right after the start sees what was found, not zeros.
        core.publish();
        Ok(core)
    }

    /// Begins to take mail, at addresses of listeners by their numbers. Returns the addresses that they got.
    pub fn listen(
        &mut self,
        places: Vec<(usize, SocketAddr, Option<OwnedFd>)>,
    ) -> Result<Vec<SocketAddr>, StartError> {
        places.into_iter().map(|(number, address, handed)| self.listen_on(number, address, handed)).collect()
    }

    /// One turn: waits until something is to be done and does it. False when the core has ended.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> std::io::Result<bool> {
        self.ring.wait(self.wait_time(), events)?;
        (self.now, self.wall) = (self.clock.now(), self.clock.wall());
        if self.rhythm.handle_turn(self.now, events.len()) {
            let connections = self.intake.open() + self.outbound.open();
            self.ring.gather(self.rhythm.events_per_turn(connections), TURN_LINGER);
        }
        for event in events.drain(..) {
            self.on_event(event);
        }
        self.read_mail();
        self.run_suppressing();
        self.run_timers();
        self.run_bounces();
        self.run_compaction();
        self.run_aside();
        self.run_logs();
        self.run_warm_up();
        self.run_gates();
        self.run_schedule();
        self.run_returns();
        self.run_expiry();
        self.run_steering();
        self.run_looks();
        self.run_sites();
        self.flush_journal();
        self.run_events();
        self.run_delivery_log();
        self.publish();
        Ok(!self.has_ended())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Accepted { token, socket, peer } => self.on_accepted(token, socket, peer),
            Event::AcceptEnded { token, error } => self.on_accept_ended(token, &error),
            Event::Connected { token, result } => self.on_connected(untoken(token).1, result),
            Event::Received { token, data } => match untoken(token) {
                (Kind::Intake, place) => self.on_intake_received(place, data),
                (Kind::Outbound, place) => self.on_outbound_received(place, data),
                _ => self.ring.give_back(data),
            },
            Event::ReceiveEnded { token, result } => match untoken(token) {
                (Kind::Intake, place) => self.on_intake_ended(place, &result),
                (Kind::Outbound, place) => self.on_outbound_ended(place, &result),
                _ => {}
            },
            Event::Sent { token, result, outgoing, copied } => match untoken(token) {
                (Kind::Intake, place) => self.on_intake_sent(place, result, outgoing),
                (Kind::Outbound, place) => self.on_outbound_sent(place, result, outgoing, copied),
                _ => {}
            },
            Event::Written { token, result, bytes } => match untoken(token) {
                (Kind::DeliveryLog, _) => self.delivery_log.handle_written(&result, bytes),
                (Kind::LogPrepare, place) => self.on_segment_step(place.index, result),
                (Kind::Aside, _) => self.on_aside_step(result),
                _ => self.on_log_written(result, bytes),
            },
            Event::ReadDone { token, result } => match untoken(token) {
                (Kind::Copy, place) => self.on_copy_read(place, result),
                (Kind::Aside, _) => self.on_aside_read(result),
                (_, place) => self.on_read(place, result),
            },
            Event::Opened { token, result } => match untoken(token) {
                (Kind::LogPrepare, place) => self.on_segment_opened(place.index, result),
                (Kind::Aside, _) => self.on_aside_opened(result),
                (Kind::EventLog, _) => self.on_events_opened(result),
                _ => self.on_journal_opened(result),
            },
            Event::Done { token, result } => match untoken(token) {
                (Kind::LogPrepare, place) => self.on_segment_step(place.index, result),
                (Kind::JournalSync, place) => self.on_journal_synced(place.index, result),
                (Kind::Aside, _) => self.on_aside_step(result),
                (kind @ (Kind::JournalAllocate | Kind::JournalFolder), _) => {
                    self.on_journal_step(kind, result)
                }
                _ => {}
            },
            Event::Woken => {}
        }
    }

    /// Letters from other cores and from the control thread.
    fn read_mail(&mut self) {
        while let Some(mail) = self.crossing.receive(self.index) {
            match mail {
                Mail::Answer { domain, name, target, resolution } => {
                    self.on_reply_to_question(domain, &name, &target, resolution)
                }
                Mail::Client(answer) => self.on_client_answer(answer),
                Mail::Chunk(chunk) => self.borrow(chunk),
                Mail::ChunkDone(report) => self.on_chunk_done(report),
                Mail::ChunkNoted { borrowed } => self.shares.forget_borrowed(borrowed),
                Mail::Suppressed { ticket, is_done } => self.on_suppressed(ticket, is_done),
                Mail::Screened { ticket, is_known } => self.on_screened(ticket, is_known),
                Mail::Compose(composed) => self.compose(*composed),
                Mail::Confirm(id) => self.confirm(id),
                Mail::CampaignOrder(number) => self.on_campaign_order(number),
                Mail::Line(line) => self.log_line(&line),
                Mail::Inject(injected) => self.inject(*injected),
                Mail::Flush(order) => self.steering.take_flush(order),
                Mail::Fetch(mail) => self.on_fetch_mail(*mail),
                Mail::Order(order) => self.steering.take_order(order),
                Mail::Look(call) => self.take_look(call),
                Mail::Reload(settings) => self.reload(settings),
                Mail::Shutdown => self.begin_shutdown(),
            }
        }
        self.run_shares();
    }

    fn run_timers(&mut self) {
        for token in self.timers.expired(self.now) {
            match untoken(token) {
                (Kind::Intake, place) => self.on_intake_timer(place),
                (Kind::Outbound, place) => self.on_outbound_timer(place),
                (Kind::Listener, place) => self.accept_again(place),
                _ => {}
            }
        }
    }

    /// How long there is nothing to do unless something happens.
    fn wait_time(&self) -> Option<Duration> {
        let is_busy = self.sites.has_dirty()
            || self.compaction_wants_turn()
            || self.gates.wants_turn()
            || self.steering_wants_turn()
            || self.looks_want_turn()
            || self.returns_want_turn();
        if is_busy || self.stop == Stop::Done {
            return Some(Duration::ZERO);
        }
        let due = self.schedule.next_due().map(|due| self.now + Duration::from_millis(due.since(self.wall)));
        let deadlines = [
            self.timers.next(),
            due,
            self.bounces.poll_timeout(),
            self.journal.poll_timeout(),
            self.sites.next_wake(),
            self.delivery_log.poll_timeout(),
            self.events.poll_timeout(),
            self.rhythm.poll_timeout().filter(|_| self.may_start_commit()),
            Some(self.now + WAIT_MAX),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(self.now))
    }

    fn publish(&mut self) {
        let counters = &self.counters;
        counters.queued_messages.set(self.store.messages() as u64);
        counters.queued_recipients.set(self.store.owed());
        counters.deferred_recipients.set(self.schedule.recipients());
        counters.held_recipients.set(self.steering.held_recipients() + self.gates.paused_recipients());
        counters.sessions_in.set(self.intake.open() as u64);
        counters.sessions_out.set(self.outbound.open() as u64);
    }

    fn reload(&mut self, settings: Arc<Settings>) {
        self.number_listeners(&settings);
        self.settings = settings;
        self.tls_clients.clear();
        self.letters.set_max(self.settings.config.storage.cache_max);
        self.reload_sites();
    }

    fn begin_shutdown(&mut self) {
        if self.stop == Stop::Running {
            self.stop = Stop::Draining { until: self.now + DRAIN };
            self.close_listeners();
            self.shut_intake();
            self.drain_outbound_all();
        }
    }

    /// True once everything under way has ended, or had its time, and the journal is durable.
    fn has_ended(&mut self) -> bool {
        let Stop::Draining { until } = self.stop else { return self.stop == Stop::Done };
        let quiet = self.intake.open() == 0
            && self.outbound.open() == 0
            && self.suppressing.is_idle()
            && self.logs.is_idle()
            && self.delivery_log.is_idle();
        if (quiet || self.now >= until) && (self.halted || !self.journal.has_unsynced()) {
            self.stop = Stop::Done;
        }
        self.stop == Stop::Done
    }

    /// Messages owed to somebody.
    pub fn queued_messages(&self) -> usize {
        self.store.messages()
    }

    /// Recipients neither delivered nor failed.
    pub fn owed(&self) -> u64 {
        self.store.owed()
    }

    /// Nothing is under way on the disk or on the network.
    pub fn is_quiet(&self) -> bool {
        self.logs.is_idle()
            && self.outbound.open() == 0
            && self.failing.is_empty()
            && self.suppressing.is_idle()
            && self.returns.is_idle()
            && self.aside.is_idle()
            && self.compaction.is_idle()
            && !self.journal.has_unsynced()
    }

    pub fn ring(&mut self) -> &mut R {
        &mut self.ring
    }
}
