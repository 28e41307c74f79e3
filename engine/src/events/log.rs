//! The event log as everybody in the process shares it: which file is written to, how much is in it, how far consumers are.
//!
//! Cores append to one file, each with one write a turn; the kernel keeps the writes apart, and what order it gives them is
//! the log's. A new number makes every core go on in a new file at its next turn; when the last one has left the old file, that
//! one is complete. Locks are taken by the control thread and the keeper alone; cores load one number a turn.
//! Bounds: a file of `file_len` octets and what comes until the keeper sees it; [`crate::config::Events::disk_max`] for all.

use super::cursor::Position;
use super::folder::{self, Extent};
use super::{Event, Stamp};
use crate::observe::Counters;
use message::UnixMillis;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// An event's name: its file, who wrote it, and how many that one wrote there before. Greater for later files.
pub fn event_id(file: u32, writer: usize, serial: u64) -> u64 {
    // 64 cores and the control thread; no file has 2^30 lines.
    u64::from(file) << 37 | (writer as u64 & 0x7f) << 30 | serial & 0x3fff_ffff
}

/// See the module.
pub struct EventLog {
    folder: PathBuf,
    /// The file that is written to.
    current: AtomicU32,
    /// By core: the file that it has open.
    writing: Vec<AtomicU32>,
    counters: Vec<Arc<Counters>>,
    side: Mutex<Side>,
    /// Complete files; of those that this life made, the sum.
    files: Mutex<Files>,
    /// `None` until a start has found out who they are.
    consumers: Mutex<Option<Vec<Arc<Standing>>>>,
    /// Files that were removed before everybody had read them.
    pub files_lost: AtomicU64,
}

/// The control thread's hand.
#[derive(Default)]
struct Side {
    file: Option<(u32, File)>,
    serial: u64,
    extent: Extent,
}

#[derive(Default)]
struct Files {
    complete: BTreeMap<u32, Extent>,
    of_this_life: Extent,
}

impl EventLog {
    /// A log whose first file is there, or is made by whoever opens it first.
    pub fn new(folder: PathBuf, first: u32, counters: Vec<Arc<Counters>>) -> EventLog {
        EventLog {
            folder,
            current: AtomicU32::new(first),
            writing: counters.iter().map(|_| AtomicU32::new(first)).collect(),
            counters,
            side: Mutex::default(),
            files: Mutex::default(),
            consumers: Mutex::default(),
            files_lost: AtomicU64::new(0),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn current(&self) -> u32 {
        self.current.load(Ordering::Acquire)
    }

    /// All go on in that file, which is there.
    pub fn go_on_in(&self, number: u32) {
        self.current.store(number, Ordering::Release);
    }

    /// The core has put its last line into files before that one.
    pub fn has_gone_on(&self, core: usize, number: u32) {
        self.writing[core].store(number, Ordering::Release);
    }

    /// Nobody will write to the file any more.
    pub(super) fn is_left(&self, number: u32) -> bool {
        let have_cores = self.writing.iter().all(|at| at.load(Ordering::Acquire) > number);
        if !have_cores || self.current() <= number {
            return false;
        }
        // Under the lock: who has it writes to the current file.
        let mut side = self.side.lock();
        if side.file.as_ref().is_some_and(|(at, _)| *at <= number) {
            side.file = None;
        }
        true
    }

    /// Logs an event that no core knows of. It survives the process when this returns.
    pub fn append(&self, event: &Event<'_>, at: UnixMillis) -> io::Result<()> {
        let mut side = self.side.lock();
        let number = self.current();
        if side.file.as_ref().is_none_or(|(at, _)| *at != number) {
            side.file = Some((number, folder::open_to_append(&self.folder, number)?));
            side.serial = 0;
        }
        let id = event_id(number, self.writing.len(), side.serial);
        side.serial += 1;
        let mut line = Vec::new();
        event.render(Stamp { id: Some(id), at }, &mut line);
        let Some((_, file)) = &mut side.file else { return Ok(()) };
        // In one piece, or it counts as not written: a reader passes over the torn one.
        let written = file.write(&line)?;
        if written < line.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        side.extent.events += 1;
        side.extent.octets += line.len() as u64;
        Ok(())
    }

    // ---- how much there is ----

    pub(super) fn note_complete(&self, number: u32, extent: Extent, is_of_this_life: bool) {
        let mut files = self.files.lock();
        files.complete.insert(number, extent);
        if is_of_this_life {
            files.of_this_life.events += extent.events;
            files.of_this_life.octets += extent.octets;
        }
    }

    pub(super) fn note_gone(&self, number: u32) -> Extent {
        self.files.lock().complete.remove(&number).unwrap_or_default()
    }

    /// Events and octets behind a place.
    pub fn behind(&self, place: Position) -> Extent {
        let files = self.files.lock();
        let side = self.side.lock().extent;
        let logged: u64 = self.counters.iter().map(|counters| counters.events_logged.get()).sum();
        let octets: u64 = self.counters.iter().map(|counters| counters.event_octets.get()).sum();
        let later = files.complete.range(place.file..).map(|(_, extent)| extent);
        let (events, held) =
            later.fold((0, 0), |(events, octets), extent| (events + extent.events, octets + extent.octets));
        let events = events + (logged + side.events).saturating_sub(files.of_this_life.events);
        let octets = held + (octets + side.octets).saturating_sub(files.of_this_life.octets);
        Extent { events: events.saturating_sub(place.events), octets: octets.saturating_sub(place.offset) }
    }

    /// Changes whenever something was written.
    pub fn written(&self) -> u64 {
        let cores: u64 = self.counters.iter().map(|counters| counters.event_octets.get()).sum();
        cores + self.side.lock().extent.octets
    }

    // ---- who reads it ----

    pub fn consumers(&self) -> Vec<Arc<Standing>> {
        self.consumers.lock().clone().unwrap_or_default()
    }

    /// Before, nobody can say what has been read.
    pub fn has_consumers_set(&self) -> bool {
        self.consumers.lock().is_some()
    }

    pub fn set_consumers(&self, consumers: Vec<Arc<Standing>>) {
        *self.consumers.lock() = Some(consumers);
    }
}

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLog").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// How a consumer stands: it writes, the keeper and the metrics read.
#[derive(Debug, Default)]
pub struct Standing {
    pub name: String,
    place: Mutex<Position>,
    /// When the oldest event was logged that is on its way; 0 if none is.
    pub oldest_at_ms: AtomicU64,
    /// Batches that were tried, and tries that failed.
    pub attempts: AtomicU64,
    pub failures: AtomicU64,
    /// Events that arrived.
    pub events: AtomicU64,
    /// Events that were removed before it had them.
    pub lost: AtomicU64,
    /// Lines that were damaged.
    pub damaged: AtomicU64,
    /// It refuses what it is sent, and somebody must see to it.
    pub is_refusing: AtomicBool,
}

impl Standing {
    pub fn new(name: &str, place: Position) -> Standing {
        Standing { name: name.to_owned(), place: Mutex::new(place), ..Standing::default() }
    }

    pub fn place(&self) -> Position {
        *self.place.lock()
    }

    pub fn set_place(&self, place: Position) {
        *self.place.lock() = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Kind;
    use crate::events::folder::{Form, complete, extent, path_of, prepare};

    fn log(cores: usize) -> (tempfile::TempDir, EventLog) {
        let folder = tempfile::tempdir().unwrap();
        let first = prepare(folder.path(), 0).unwrap();
        let counters = (0..cores).map(|_| Arc::default()).collect();
        let log = EventLog::new(folder.path().to_owned(), first, counters);
        (folder, log)
    }

    #[test]
    fn file_is_left_when_the_last_writer_has_gone_on() {
        let (folder, log) = log(2);
        log.append(&Event::new(Kind::Unsubscribed), UnixMillis(5)).unwrap();
        assert!(!log.is_left(1));
        log.go_on_in(2);
        log.has_gone_on(0, 2);
        assert!(!log.is_left(1));
        log.has_gone_on(1, 2);
        assert!(log.is_left(1) && !log.is_left(2));
        log.append(&Event::new(Kind::Unsubscribed), UnixMillis(5)).unwrap();
        let octets = |number| std::fs::metadata(path_of(folder.path(), number, Form::Plain)).unwrap().len();
        assert!(octets(1) > 0 && octets(1) == octets(2));
    }

    #[test]
    fn what_is_behind_a_place_is_counted_over_all_files() {
        let (folder, log) = log(1);
        let note = || log.append(&Event::new(Kind::Complaint), UnixMillis(5)).unwrap();
        (0..3).for_each(|_| note());
        log.go_on_in(2);
        log.has_gone_on(0, 2);
        assert!(log.is_left(1));
        complete(folder.path(), 1).unwrap();
        let first = extent(folder.path(), 1, Form::Plain).unwrap();
        assert_eq!(first.events, 3);
        log.note_complete(1, first, true);
        (0..2).for_each(|_| note());
        let one = first.octets / 3;
        let place = Position { file: 1, offset: one, events: 1 };
        assert_eq!(log.behind(place), Extent { events: 4, octets: 4 * one });
        let place = Position { file: 2, offset: 2 * one, events: 2 };
        assert_eq!(log.behind(place), Extent::default());
    }

    #[test]
    fn ids_differ_and_later_files_have_greater_ones() {
        let ids =
            [event_id(1, 0, 0), event_id(1, 0, 1), event_id(1, 1, 0), event_id(1, 64, 9), event_id(2, 0, 0)];
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
