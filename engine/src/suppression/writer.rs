//! The list in a running daemon: one thread that writes it, a few that read for cores, and what everybody else calls.
//!
//! What arrives while a sync is under way shares the next one. The threads end with the process: what was answered is
//! durable, and what was not is asked for again.

use super::book::{Asked, Book, Store};
use super::entry::{Entry, Listed, Reason, Who};
use super::screen::Screen;
use crate::clock;
use crate::crossing::{Crossing, Mail};
use crate::keyset::{Found, Key, KeySetError, Stat};
use crossbeam::channel::{self, TrySendError};
use message::MailboxRef;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Orders on their way to the writer.
pub const ORDERS_MAX: usize = 4096;

/// Entries of one order.
pub const ORDER_LEN_MAX: usize = 10_000;

/// Entries that share a write and a sync.
const BATCH_MAX: usize = 50_000;

/// Keys that cores want read at a time; past them they wait and ask again.
const READS_MAX: usize = 4096;

/// Threads that read them: a disk does several reads at a time.
const READ_THREADS: usize = 4;

/// Exports at a time: each reads the whole list.
pub(super) const EXPORTS_MAX: usize = 2;

/// A core's full mailbox empties within a turn.
const AGAIN: Duration = Duration::from_millis(2);

/// Why a change was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    #[error("an order has more than 10000 entries")]
    TooLong,
    #[error("{0}")]
    Set(Arc<KeySetError>),
    #[error("the daemon is stopping")]
    Stopping,
    #[error("too many exports at a time; try again when one has ended")]
    Busy,
}

/// A recipient that a core's host does not know.
#[derive(Debug)]
pub struct Feed {
    pub core: usize,
    /// The core's number for it.
    pub ticket: u32,
    pub entry: Entry,
}

/// A key that a core wants read.
#[derive(Debug)]
struct Read {
    core: usize,
    ticket: u32,
    key: Key,
}

#[derive(Debug)]
struct Order {
    asked: Vec<Asked>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Core { core: usize, ticket: u32 },
    Caller(oneshot::Sender<Result<Vec<bool>, Refused>>),
}

/// See the module. One per daemon; all threads have it.
#[derive(Debug)]
pub struct Suppression {
    book: Book,
    /// Beside their hashes, for the export.
    pub keeps_addresses: bool,
    orders: mpsc::Sender<Order>,
    reads: channel::Sender<Read>,
    /// Orders that had to wait for room.
    waits: AtomicU64,
    pub(super) exports: Arc<Semaphore>,
}

impl Suppression {
    /// Starts the threads. What they have to say to cores goes by `crossing`.
    pub fn start(store: Store, crossing: &Arc<Crossing>) -> io::Result<Arc<Suppression>> {
        let keeps_addresses = store.keeps_addresses;
        let (orders, to_carry_out) = mpsc::channel(ORDERS_MAX);
        let (reads, to_read) = channel::bounded(READS_MAX);
        let book = store.book();
        let crossing = Arc::downgrade(crossing);
        let writer = Writer { store, orders: to_carry_out, crossing: Weak::clone(&crossing), is_full: false };
        std::thread::Builder::new().name("suppression".into()).spawn(move || writer.run())?;
        for number in 0..READ_THREADS {
            let (book, to_read, crossing) = (book.clone(), to_read.clone(), Weak::clone(&crossing));
            let name = format!("suppression {number}");
            std::thread::Builder::new()
                .name(name)
                .spawn(move || read_for_cores(&book, &to_read, &crossing))?;
        }
        let (waits, exports) = (AtomicU64::new(0), Arc::new(Semaphore::new(EXPORTS_MAX)));
        Ok(Arc::new(Suppression { book, keeps_addresses, orders, reads, waits, exports }))
    }

    /// Puts entries on the list. Whether each is new; durable when it returns. Waits while the writer has its hands full.
    pub async fn add(&self, entries: Vec<Entry>) -> Result<Vec<bool>, Refused> {
        self.ask(entries.into_iter().map(Asked::Add).collect()).await
    }

    /// Takes entries off the list. Whether each was there; durable when it returns.
    pub async fn remove(&self, who: Vec<Who>) -> Result<Vec<bool>, Refused> {
        let now = clock::wall();
        self.ask(who.into_iter().map(|who| Asked::Remove(who, now)).collect()).await
    }

    async fn ask(&self, asked: Vec<Asked>) -> Result<Vec<bool>, Refused> {
        if asked.len() > ORDER_LEN_MAX {
            return Err(Refused::TooLong);
        }
        let (answer, heard) = oneshot::channel();
        let order = Order { asked, answer: Answer::Caller(answer) };
        match self.orders.try_send(order) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Refused::Stopping),
            Err(mpsc::error::TrySendError::Full(order)) => {
                self.waits.fetch_add(1, Ordering::Relaxed);
                self.orders.send(order).await.map_err(|_| Refused::Stopping)?;
            }
        }
        heard.await.map_err(|_| Refused::Stopping)?
    }

    /// Why nothing is sent to that address from that list, if nothing is. May wait for the disk: not on a core.
    pub fn contains(&self, who: &Who) -> io::Result<Option<Listed>> {
        self.book.find_for(who)
    }

    /// As far as that is known without waiting, for whoever takes mail in: what is not known then is checked before it
    /// is sent. `list` as [`message::list_id`] gives it, empty for none.
    pub fn is_suppressed(&self, list: &str, address: MailboxRef<'_>) -> bool {
        let reader = self.book.set.reader();
        let is_on = |list: &str| matches!(reader.look(self.book.keys.key(list, address)), Found::Yes(_));
        !reader.is_empty() && (is_on("") || !list.is_empty() && is_on(list))
    }

    pub fn stat(&self) -> Stat {
        self.book.stat()
    }

    pub fn len(&self) -> u64 {
        self.book.set.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Orders that had to wait for room.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    pub(crate) fn book(&self) -> &Book {
        &self.book
    }

    // ---- for cores: nothing waits ----

    pub(crate) fn screen(self: &Arc<Suppression>) -> Screen {
        Screen::new(self)
    }

    /// The core hears of it by [`Mail::Suppressed`]. Gives it back if the writer has its hands full: to be tried again.
    pub(crate) fn feed(&self, feed: Feed) -> Result<(), Feed> {
        let Feed { core, ticket, entry } = feed;
        let order = Order { asked: vec![Asked::Add(entry)], answer: Answer::Core { core, ticket } };
        let Err(refused) = self.orders.try_send(order) else { return Ok(()) };
        self.waits.fetch_add(1, Ordering::Relaxed);
        match refused.into_inner().asked.pop() {
            Some(Asked::Add(entry)) => Err(Feed { core, ticket, entry }),
            _ => Ok(()),
        }
    }

    /// The core hears of it by [`Mail::Screened`]. False if too many are being read: to be asked again.
    pub(crate) fn read_for(&self, core: usize, ticket: u32, key: Key) -> bool {
        match self.reads.try_send(Read { core, ticket, key }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Until the daemon ends.
fn read_for_cores(book: &Book, to_read: &channel::Receiver<Read>, crossing: &Weak<Crossing>) {
    while let Ok(Read { core, ticket, key }) = to_read.recv() {
        let found = book.set.reader().get(key);
        if let Err(error) = &found {
            tracing::error!(%error, "the suppression list cannot be read: mail to who may be on it waits");
        }
        tell(crossing, core, Mail::Screened { ticket, is_known: found.is_ok() });
    }
}

fn tell(crossing: &Weak<Crossing>, core: usize, mut mail: Mail) {
    while let Some(crossing) = crossing.upgrade() {
        match crossing.send(core, mail) {
            Ok(()) => return,
            Err(back) => mail = back,
        }
        drop(crossing);
        std::thread::sleep(AGAIN);
    }
}

struct Writer {
    store: Store,
    orders: mpsc::Receiver<Order>,
    crossing: Weak<Crossing>,
    /// It was said.
    is_full: bool,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.orders.blocking_recv() {
            let mut len = first.asked.len();
            let mut orders = vec![first];
            while len < BATCH_MAX
                && let Ok(order) = self.orders.try_recv()
            {
                len += order.asked.len();
                orders.push(order);
            }
            self.carry_out(orders);
        }
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        for mut order in orders {
            answers.push((order.asked.len(), order.answer));
            asked.append(&mut order.asked);
        }
        match self.store.change(&asked) {
            Ok(changed) => self.answer(answers, changed),
            Err(error) if answers.len() == 1 => self.refuse(answers, &Arc::new(error)),
            // One that cannot be carried out must not spoil the others.
            Err(_) => {
                let mut rest = asked;
                for (len, answer) in answers {
                    let tail = rest.split_off(len);
                    self.carry_out(vec![Order { asked: rest, answer }]);
                    rest = tail;
                }
            }
        }
    }

    fn answer(&mut self, answers: Vec<(usize, Answer)>, mut changed: Vec<bool>) {
        self.is_full = false;
        for (len, answer) in answers {
            let rest = changed.split_off(len);
            match answer {
                Answer::Core { core, ticket } => self.tell(core, ticket, true),
                // Nobody may be left to hear it.
                Answer::Caller(caller) => drop(caller.send(Ok(changed))),
            }
            changed = rest;
        }
    }

    fn refuse(&mut self, answers: Vec<(usize, Answer)>, error: &Arc<KeySetError>) {
        let is_full = matches!(**error, KeySetError::Full { .. });
        if !std::mem::replace(&mut self.is_full, is_full) || !is_full {
            tracing::error!(%error, "an entry is not put on the suppression list");
        }
        for (_, answer) in answers {
            match answer {
                // Who waited for room in a full list would wait for ever.
                Answer::Core { core, ticket } => self.tell(core, ticket, is_full),
                Answer::Caller(caller) => drop(caller.send(Err(Refused::Set(Arc::clone(error))))),
            }
        }
    }

    fn tell(&self, core: usize, ticket: u32, is_done: bool) {
        tell(&self.crossing, core, Mail::Suppressed { ticket, is_done });
    }
}

impl Crossing {
    /// Puts somebody on the list: an unsubscription, a complaint. `list`: its id, empty for all lists. Durable when it
    /// returns; true if it is new. Not on a core.
    pub async fn suppress(&self, list: &str, address: &str, reason: Reason) -> Result<bool, SuppressError> {
        let who = Who::parse(list, address).map_err(SuppressError::Address)?;
        let suppression = self.suppression.get().ok_or(SuppressError::Refused(Refused::Stopping))?;
        let entry = Entry { who, reason, at: clock::wall() };
        let new = suppression.add(vec![entry]).await.map_err(SuppressError::Refused)?;
        Ok(new == [true])
    }
}

/// Why somebody was not put on the list.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SuppressError {
    #[error("{0}")]
    Address(String),
    #[error(transparent)]
    Refused(Refused),
}
