//! What passes between cores, and between the cores and the control thread.
//!
//! Nothing here is on the way of a single delivery: a message to another core carries hundreds of recipients, an
//! answer about a domain serves all its mail. Bounds: [`MAIL_MAX`] entries per core; the queue of questions is the
//! control thread's; chunks on offer are bounded by what each core may have lent.

use crate::access::{Counts, Rates};
use crate::auth::Authenticator;
use crate::campaigns::Campaigns;
use crate::clients;
use crate::domains::Resolution;
use crate::drive::inject::Injected;
use crate::drive::spent::Unrestored;
use crate::events::{Event, EventLog, Stamp};
use crate::fetch::FetchMail;
use crate::hosts::Hosts;
use crate::look::call::Call;
use crate::observe::Counters;
use crate::settings::Settings;
use crate::steer::order::Order;
use crate::suppression::Suppression;
use crate::tlsrpt::TlsNote;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::deque::{Injector, Steal};
use message::{CampaignNumber, Mailbox, MessageId};
use queue::fanout::OpenRange;
use queue::journal::Waiting;
use queue::range::DomainKey;
use queue::site_table::SiteTable;
use ring::Waker;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Entries of a core's mailbox. Its writers wait for answers to what they sent, which keeps it far below this.
pub const MAIL_MAX: usize = 1 << 16;

/// Notes about TLS on their way to the control thread, which looks every second; more are dropped, and counted.
pub const TLS_NOTES_MAX: usize = 1 << 14;

/// A share of a fan-out that any idle core may take.
#[derive(Debug)]
pub struct Chunk {
    pub owner: usize,
    /// The owner's number for it.
    pub lent: u32,
    pub domain: Arc<str>,
    pub open: OpenRange,
}

/// What became of a chunk, durably in the borrower's journal.
#[derive(Debug)]
pub struct ChunkReport {
    pub lent: u32,
    pub borrower: usize,
    /// The borrower's number for it.
    pub borrowed: u32,
    pub id: MessageId,
    /// (first index, count) of recipients delivered or failed.
    pub settled: Vec<(u32, u32)>,
    pub waiting: Vec<Waiting>,
}

/// A letter to a core.
#[derive(Debug)]
pub enum Mail {
    /// Where a domain's mail goes.
    Answer {
        domain: DomainKey,
        name: Arc<str>,
        /// What was asked.
        target: Box<Target>,
        resolution: Resolution,
    },
    /// About a client of the receiver's.
    Client(clients::Answer),
    /// For the receiver alone: it has a connection to the chunk's site, and the owner can have none.
    Chunk(Chunk),
    ChunkDone(ChunkReport),
    /// The owner has a chunk's report in its own journal, durably.
    ChunkNoted {
        borrowed: u32,
    },
    /// A recipient that failed is on the suppression list, durably; or could not be put there.
    Suppressed {
        ticket: u32,
        is_done: bool,
    },
    /// What the suppression list says of a recipient was read, or cannot be.
    Screened {
        ticket: u32,
        is_known: bool,
    },
    /// A message of our own, to be queued.
    Compose(Box<Composed>),
    /// The books know all recipients of that message of a campaign: it may go out.
    Confirm(MessageId),
    /// A campaign was resumed or cancelled.
    CampaignOrder(CampaignNumber),
    /// A line for the delivery log.
    Line(Box<[u8]>),
    /// A message that came over HTTP, and who waits for it.
    Inject(Box<Injected>),
    /// From an operator. One at a time: the next one waits for all cores' reports.
    Order(Arc<Order>),
    /// What an operator wants to see.
    Look(Arc<Call>),
    /// From another core's client, by ETRN. Nobody waits for a report.
    Flush(Arc<Order>),
    /// About mail that a client fetches (ATRN).
    Fetch(Box<FetchMail>),
    Reload(Arc<Settings>),
    Shutdown,
}

/// A message of our own to one recipient.
#[derive(Debug)]
pub struct Composed {
    pub from: Mailbox,
    pub to: Mailbox,
    /// Lines end in CRLF.
    pub content: Vec<u8>,
}

/// A question to the control thread.
#[derive(Debug)]
pub struct Question {
    pub core: usize,
    pub domain: DomainKey,
    pub name: Arc<str>,
    pub target: Target,
}

/// What is to be looked up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// The domain's MX hosts and their addresses.
    Mx,
    /// One configured relay's addresses.
    Host { name: String, port: u16 },
}

/// One per process.
pub struct Crossing {
    boxes: Vec<(Sender<Mail>, Receiver<Mail>)>,
    /// Nobody empties that core's box any more.
    closed: Vec<AtomicBool>,
    wakers: Vec<OnceLock<Waker>>,
    chunks: Injector<Chunk>,
    /// A bit per core that has nothing to do.
    idle: AtomicU64,
    questions: (Sender<Question>, Receiver<Question>),
    question_waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    client_questions: (Sender<clients::Question>, Receiver<clients::Question>),
    client_waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    tls_notes: (Sender<TlsNote>, Receiver<TlsNote>),
    wants_tls_notes: AtomicBool,
    tls_notes_dropped: AtomicU64,
    pub sites: SiteTable,
    pub hosts: Hosts,
    /// Sessions and rates of all clients.
    pub counts: Arc<Counts>,
    pub rates: Rates,
    /// Whose passwords are right; not there in a simulation.
    pub authenticator: OnceLock<Authenticator>,
    /// Where events go; not there if nobody wants them.
    pub events: OnceLock<Arc<EventLog>>,
    /// Who gets no mail; not there in a simulation.
    pub suppression: OnceLock<Arc<Suppression>>,
    pub unrestored: Unrestored,
    pub campaigns: Campaigns,
    pub counters: Vec<Arc<Counters>>,
    /// Cores whose first journal holds the whole state, durably: when all do, what came before may go.
    states_durable: AtomicUsize,
}

impl Crossing {
    pub fn new(cores: usize) -> Crossing {
        Crossing {
            boxes: (0..cores).map(|_| bounded(MAIL_MAX)).collect(),
            closed: (0..cores).map(|_| AtomicBool::new(false)).collect(),
            wakers: (0..cores).map(|_| OnceLock::new()).collect(),
            chunks: Injector::new(),
            idle: AtomicU64::new(0),
            questions: bounded(MAIL_MAX),
            question_waker: OnceLock::new(),
            tls_notes: bounded(TLS_NOTES_MAX),
            wants_tls_notes: AtomicBool::new(false),
            tls_notes_dropped: AtomicU64::new(0),
            sites: SiteTable::new(100_000),
            hosts: Hosts::default(),
            counts: Arc::default(),
            rates: Rates::default(),
            authenticator: OnceLock::new(),
            events: OnceLock::new(),
            suppression: OnceLock::new(),
            client_questions: bounded(clients::QUESTIONS_MAX),
            client_waker: OnceLock::new(),
            unrestored: Unrestored::default(),
            campaigns: Campaigns::default(),
            counters: (0..cores).map(|_| Arc::new(Counters::default())).collect(),
            states_durable: AtomicUsize::new(0),
        }
    }

    pub fn cores(&self) -> usize {
        self.boxes.len()
    }

    /// Recipients in the queue, over all cores, as of each one's last turn.
    pub fn backlog(&self) -> u64 {
        self.counters.iter().map(|counters| counters.queued_recipients.get()).sum()
    }

    /// Said once by each core when its ring is up.
    pub fn set_waker(&self, core: usize, waker: Waker) {
        let _ = self.wakers[core].set(waker);
    }

    /// Returns the letter if the box is full: keep it and try again.
    #[expect(clippy::result_large_err, reason = "the letter itself comes back, and is sent again")]
    pub fn send(&self, core: usize, mail: Mail) -> Result<(), Mail> {
        match self.boxes[core].0.try_send(mail) {
            Ok(()) => {
                if self.closed[core].load(Ordering::SeqCst) {
                    self.drop_mail(core);
                } else {
                    self.wake(core);
                }
                Ok(())
            }
            Err(TrySendError::Full(mail) | TrySendError::Disconnected(mail)) => Err(mail),
        }
    }

    /// The core has ended: what it is sent from now on is dropped, so that nobody waits for an answer.
    pub fn close(&self, core: usize) {
        self.closed[core].store(true, Ordering::SeqCst);
        self.drop_mail(core);
    }

    fn drop_mail(&self, core: usize) {
        while self.boxes[core].1.try_recv().is_ok() {}
    }

    /// Logs what the control thread came to know. Core threads use their own `log_event`. The event survives the process
    /// from here on if there is an event log.
    pub fn event(&self, event: &Event<'_>) {
        let (mut line, at) = (Vec::new(), crate::clock::wall());
        if let Some(log) = self.events.get()
            && let Err(error) = log.append(event, at)
        {
            tracing::error!(kind = event.kind.name(), %error, "the event log lacks an event");
        }
        event.render(Stamp { id: None, at }, &mut line);
        if self.send(0, Mail::Line(line.into())).is_err() {
            tracing::warn!(
                kind = event.kind.name(),
                "the core's mailbox is full: the delivery log lacks an event"
            );
        }
    }

    fn wake(&self, core: usize) {
        if let Some(waker) = self.wakers[core].get() {
            waker.wake();
        }
    }

    pub fn receive(&self, core: usize) -> Option<Mail> {
        self.boxes[core].1.try_recv().ok()
    }

    /// False if too many questions wait already.
    pub fn ask(&self, question: Question) -> bool {
        let asked = self.questions.0.try_send(question).is_ok();
        if let Some(wake) = self.question_waker.get() {
            wake();
        }
        asked
    }

    pub fn next_question(&self) -> Option<Question> {
        self.questions.1.try_recv().ok()
    }

    pub fn set_question_waker(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.question_waker.set(wake);
    }

    /// False if too many questions about clients wait already.
    pub fn ask_about_client(&self, question: clients::Question) -> bool {
        let asked = self.client_questions.0.try_send(question).is_ok();
        if let Some(wake) = self.client_waker.get() {
            wake();
        }
        asked
    }

    pub fn next_client_question(&self) -> Option<clients::Question> {
        self.client_questions.1.try_recv().ok()
    }

    pub fn set_client_waker(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.client_waker.set(wake);
    }

    /// A note is made at all: somebody reports. Asked before one is put together.
    pub fn wants_tls_notes(&self) -> bool {
        self.wants_tls_notes.load(Ordering::Relaxed)
    }

    pub fn want_tls_notes(&self, wanted: bool) {
        self.wants_tls_notes.store(wanted, Ordering::Relaxed);
    }

    /// One session's, for the reports of RFC 8460. Dropped if nobody reports or too many wait.
    pub fn note_tls(&self, note: TlsNote) {
        if self.wants_tls_notes() && self.tls_notes.0.try_send(note).is_err() {
            self.drop_tls_note();
        }
    }

    pub fn next_tls_note(&self) -> Option<TlsNote> {
        self.tls_notes.1.try_recv().ok()
    }

    /// There was no room for one.
    pub fn drop_tls_note(&self) {
        self.tls_notes_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub fn tls_notes_dropped(&self) -> u64 {
        self.tls_notes_dropped.load(Ordering::Relaxed)
    }

    /// True if some other core has nothing to do.
    pub fn has_idle_core(&self, but: usize) -> bool {
        self.idle.load(Ordering::Relaxed) & !(1 << but) != 0
    }

    /// Offers a chunk and wakes a core that is idle.
    pub fn offer_chunk(&self, chunk: Chunk) {
        let but = chunk.owner;
        self.chunks.push(chunk);
        let idle = self.idle.load(Ordering::SeqCst) & !(1 << but);
        if idle != 0 {
            self.wake(idle.trailing_zeros() as usize);
        }
    }

    /// Takes a chunk that somebody offered.
    pub fn take_chunk(&self) -> Option<Chunk> {
        loop {
            match self.chunks.steal() {
                Steal::Success(chunk) => return Some(chunk),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    pub fn chunks_on_offer(&self) -> usize {
        self.chunks.len()
    }

    pub fn set_idle(&self, core: usize, idle: bool) {
        if idle {
            self.idle.fetch_or(1 << core, Ordering::SeqCst);
        } else {
            self.idle.fetch_and(!(1 << core), Ordering::SeqCst);
        }
    }

    pub fn state_is_durable(&self) {
        self.states_durable.fetch_add(1, Ordering::SeqCst);
    }

    pub fn all_states_are_durable(&self) -> bool {
        self.states_durable.load(Ordering::SeqCst) >= self.cores()
    }
}

impl std::fmt::Debug for Crossing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crossing").field("cores", &self.cores()).finish_non_exhaustive()
    }
}
