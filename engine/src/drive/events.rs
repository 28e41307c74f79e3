//! Events on their way from a core to the two logs.
//!
//! *The event log.* Lines gather in memory and are put into the page cache before the frame of the journal that settles
//! their recipients: `kill -9` repeats events, and loses none. One write for each turn that has any; no line allocates.
//!
//! If the file cannot be written (a full disk), mail goes on: who delivers twice because a log was full has done his
//! recipients a wrong, who keeps passwords back because of it as well. Lines wait in memory, are tried again each second, and
//! past [`WAITING_MAX`] octets further ones are dropped, counted (`events_dropped`) and said. It takes a disk that is full
//! although new mail is refused below `storage.free_min`. What waits is lost if the process dies meanwhile.
//!
//! *The delivery log* is the plain file of before: see `delivery_log.rs`.

use crate::clock::Clock;
use crate::core::{Core, Kind, StartError, Stop, token_of};
use crate::events::folder::{Form, path_of};
use crate::events::log::event_id;
use crate::events::{Event, EventLog, Kind as EventKind, Stamp, line};
use crate::observe::Counters;
use message::{FailureClass, MailboxRef, MessageId, Reply, UnixMillis};
use queue::Range;
use queue::fanout::{Addressee, Letter};
use queue::store::Queued;
use ring::{Access, File, Ring};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lines are put before the turn's end if there are so many octets of them.
const PIECE_LEN: usize = 64 << 10;

/// Octets of lines that wait for a file that cannot be written.
const WAITING_MAX: usize = 4 << 20;

/// What failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// How often it is said that events are dropped.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct EventDrive {
    /// None: nobody wants events.
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    log: Arc<EventLog>,
    core: usize,
    file: File,
    number: u32,
    /// Lines since this file was begun.
    serial: u64,
    /// Whole lines that are not in the page cache yet.
    lines: Vec<u8>,
    /// The next file, which is being opened.
    next: Option<u32>,
    /// What waits could not be written, and is tried again then.
    rests_until: Option<Instant>,
    /// The next file could not be opened before this.
    opens_after: Option<Instant>,
    said: Option<Instant>,
}

impl EventDrive {
    pub(crate) fn open<R: Ring>(
        ring: &mut R,
        core: usize,
        log: Option<&Arc<EventLog>>,
    ) -> Result<EventDrive, StartError> {
        let Some(log) = log else { return Ok(EventDrive::default()) };
        let number = log.current();
        let path = path_of(log.folder(), number, Form::Plain);
        let file =
            ring.open_now(&path, Access::Append).map_err(|source| StartError::File { path, source })?;
        log.has_gone_on(core, number);
        let open = Open {
            log: Arc::clone(log),
            core,
            file,
            number,
            serial: 0,
            lines: Vec::new(),
            next: None,
            rests_until: None,
            opens_after: None,
            said: None,
        };
        Ok(EventDrive { open: Some(Box::new(open)) })
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn log(&mut self, event: &Event<'_>, at: UnixMillis, counters: &Counters) {
        let Some(open) = &mut self.open else { return };
        if open.lines.len() >= WAITING_MAX {
            return counters.events_dropped.add(1);
        }
        let id = event_id(open.number, open.core, open.serial);
        open.serial += 1;
        event.render(Stamp { id: Some(id), at }, &mut open.lines);
    }

    /// Puts what waits into the page cache.
    pub(crate) fn put<R: Ring>(&mut self, ring: &mut R, now: Instant, counters: &Counters) {
        let Some(open) = &mut self.open else { return };
        if !open.lines.is_empty() && open.rests_until.is_none_or(|until| until <= now) {
            open.put(ring, now, counters);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.open.as_ref().and_then(|open| open.rests_until)
    }

    /// So much waits that it is not to wait for the turn's end.
    pub(crate) fn has_piece(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.lines.len() >= PIECE_LEN && open.rests_until.is_none())
    }
}

impl Open {
    fn put<R: Ring>(&mut self, ring: &mut R, now: Instant, counters: &Counters) {
        let result = ring.put_at_end(self.file, &self.lines);
        let done = *result.as_ref().unwrap_or(&0);
        // Of a line that was cut short the whole comes again: readers pass over what has no end.
        let whole = if done == self.lines.len() { done } else { whole_lines(&self.lines[..done]) };
        counters.events_logged.add(line::count(&self.lines[..whole]));
        counters.event_octets.add(whole as u64);
        if whole == self.lines.len() {
            self.lines.clear();
            self.lines.shrink_to(2 * PIECE_LEN);
            if self.rests_until.take().is_some() && self.said.take().is_some() {
                tracing::info!(core = self.core, "the event log is written again");
            }
            return;
        }
        self.lines.drain(..whole);
        self.rests_until = Some(now + AGAIN);
        self.complain(result.err(), now, counters);
    }

    fn complain(&mut self, error: Option<io::Error>, now: Instant, counters: &Counters) {
        if self.said.is_some_and(|said| now < said + SAY_EVERY) {
            return;
        }
        self.said = Some(now);
        let error = error.unwrap_or_else(|| io::ErrorKind::StorageFull.into());
        let (waiting, dropped) = (self.lines.len(), counters.events_dropped.get());
        tracing::error!(file = self.number, %error, waiting, dropped, "the event log cannot be written: events wait in memory, and are dropped when there are too many");
    }
}

fn whole_lines(octets: &[u8]) -> usize {
    memchr::memrchr(b'\n', octets).map_or(0, |at| at + 1)
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Somebody reads what becomes of recipients.
    pub(crate) fn wants_events(&self) -> bool {
        self.events.is_wanted() || self.delivery_log.is_wanted()
    }

    /// Logs what became of somebody: in the page cache before any mark that is made from here on.
    pub(crate) fn log_event(&mut self, event: &Event<'_>) {
        self.events.log(event, self.wall, &self.counters);
        self.delivery_log.log(event, self.wall, &self.counters);
        self.put_full_events();
    }

    /// The same of a stretch of recipients whose names are not at hand: they were deleted, or failed with that reply.
    pub(crate) fn log_unnamed(
        &mut self,
        kind: EventKind,
        id: MessageId,
        range: &Range,
        reply: Option<&Reply>,
    ) {
        if !self.wants_events() {
            return;
        }
        let (domain, anybody) = (Arc::clone(&self.domains.get(range.domain).name), Addressee::ANY);
        let recipient = MailboxRef { local_part: anybody.local_part(), domain: &domain };
        let event = Event::unread(kind, id, range, recipient);
        let Some(reply) = reply else { return self.log_event(&event) };
        let queued = self.store.get(range.message);
        let lane = queued.map(Queued::lane);
        let delay_ms = queued.map(|queued| self.wall.since(queued.arrived()));
        let (attempt, class) = (range.attempts.plus_one().count(), Some(FailureClass::Unknown));
        self.log_event(&Event { lane, attempt, class, reply: Some(reply), delay_ms, ..event });
    }

    /// A message that somebody brought was taken in; for the event log, if it is to know. `fields_len`: octets on top of
    /// the content that are ours.
    pub(crate) fn log_taken(&mut self, fields_len: u32, letter: &Letter, recipients: u32) {
        let config = &self.settings.config;
        if !config.events.as_ref().is_some_and(|events| events.accepted) || !self.events.is_wanted() {
            return;
        }
        let own = letter.content.get(fields_len as usize..).unwrap_or_default();
        let hash = config.keep.hash.then(|| blake3::hash(own).to_hex());
        let event = Event {
            hash: hash.as_ref().map_or("", |hash| hash.as_str()),
            ..Event::accepted(letter, &config.lanes.tenant_field, recipients, own.len() as u64)
        };
        self.events.log(&event, self.wall, &self.counters);
        self.put_full_events();
    }

    /// After an event that was logged while more than this core's logs were borrowed.
    pub(crate) fn put_full_events(&mut self) {
        if self.events.has_piece() {
            self.put_events();
        }
    }

    pub(crate) fn put_events(&mut self) {
        self.events.put(&mut self.ring, self.now, &self.counters);
    }

    /// End of the turn: all is put; goes on in the new file if there is one.
    pub(crate) fn run_events(&mut self) {
        if self.stop != Stop::Running
            && let Some(open) = &mut self.events.open
        {
            // There may be no later.
            open.rests_until = None;
        }
        self.put_events();
        let Some(open) = &mut self.events.open else { return };
        let current = open.log.current();
        let rests = open.opens_after.is_some_and(|after| self.now < after);
        if current != open.number && open.next.is_none() && !rests {
            open.next = Some(current);
            let path = path_of(open.log.folder(), current, Form::Plain);
            self.ring.open(token_of(Kind::EventLog, 0), &path, Access::Append);
        }
    }

    pub(crate) fn on_events_opened(&mut self, result: io::Result<File>) {
        // What this turn logged so far belongs to the file before.
        self.put_events();
        let Some(open) = &mut self.events.open else { return };
        let Some(number) = open.next.take() else { return };
        match result {
            Ok(file) => {
                self.ring.close_file(std::mem::replace(&mut open.file, file));
                (open.number, open.serial) = (number, 0);
                open.log.has_gone_on(open.core, number);
            }
            Err(error) => {
                tracing::error!(file = number, %error, "no new file for events; the old one grows on");
                open.opens_after = Some(self.now + AGAIN);
            }
        }
    }
}
