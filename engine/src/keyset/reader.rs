//! Looking into a set, from any thread, while it changes.

use super::delta::Delta;
use super::run::{Patience, Run, Silent};
use super::{Counts, Key, KeySetError, Notes, SpanOfLogs, Value, merge};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The set as of some moment; what is put into its newest table since is seen too.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) active: Arc<Delta>,
    /// Being written as a file.
    pub(super) frozen: Option<Arc<Delta>>,
    /// Newest first.
    pub(super) runs: Vec<Arc<Run>>,
}

/// What writer and readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: PathBuf,
    snapshot: Mutex<Arc<Snapshot>>,
    version: AtomicU64,
    pub(super) counts: Mutex<Counts>,
    /// The frozen table that is not in a file yet: its logs, and the counts when it was frozen.
    pub(super) pending: Mutex<Option<(SpanOfLogs, Counts)>>,
    /// Held while names in the folder go, and while files are opened by their names.
    pub(super) files: Mutex<()>,
    /// What goes on beside the writer is to end.
    pub(super) is_closing: AtomicBool,
    /// Keys in the set.
    pub(super) len: AtomicU64,
}

impl Shared {
    /// An empty set.
    pub(super) fn new(folder: &Path) -> Shared {
        Shared {
            folder: folder.to_owned(),
            snapshot: Mutex::default(),
            version: AtomicU64::new(0),
            counts: Mutex::default(),
            len: AtomicU64::new(0),
            pending: Mutex::default(),
            files: Mutex::default(),
            is_closing: AtomicBool::new(false),
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock())
    }

    /// Puts another snapshot in place of the one there is.
    pub(super) fn replace(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut place = self.snapshot.lock();
        let mut snapshot = (**place).clone();
        change(&mut snapshot);
        *place = Arc::new(snapshot);
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// How large a set is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stat {
    pub counts: Counts,
    /// Octets of its files.
    pub disk: u64,
    /// Octets of tables, filters and entries in memory.
    pub memory: u64,
    /// Sorted files.
    pub files: usize,
}

/// What a look without waiting finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    No,
    Yes(Value),
    /// The disk must be asked: [`Reader::get`] does.
    Unread,
}

/// A set, for whoever looks into it now and then: holds no snapshot, and so no memory that the set needs no more.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(shared: &Arc<Shared>) -> Handle {
        Handle { shared: Arc::clone(shared) }
    }

    /// One short lock.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.shared)
    }

    /// Keys in the set, as of now.
    pub fn len(&self) -> u64 {
        self.shared.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that has a note and is still there, if notes are kept: see [`Notes::each`].
    pub fn notes(&self) -> Result<Notes, KeySetError> {
        Notes::open(&self.shared)
    }

    /// Looks at the folder.
    pub fn stat(&self) -> Stat {
        let snapshot = self.shared.snapshot();
        let deltas = snapshot.active.memory() + snapshot.frozen.as_ref().map_or(0, |delta| delta.memory());
        Stat {
            counts: *self.shared.counts.lock(),
            disk: merge::disk_use(&self.shared.folder),
            memory: deltas
                + snapshot.runs.iter().map(|run| run.memory()).sum::<u64>()
                + merge::held_len(&snapshot.runs),
            files: snapshot.runs.len(),
        }
    }
}

/// See the module. Each thread that looks often has its own; it holds a snapshot until it is refreshed or goes.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    version: u64,
}

impl Reader {
    pub(super) fn new(shared: &Arc<Shared>) -> Reader {
        let version = shared.version.load(Ordering::Acquire);
        Reader { shared: Arc::clone(shared), snapshot: shared.snapshot(), version }
    }

    /// Takes up the newest snapshot, and lets the old one's memory go: to be called now and then. One load if there is none.
    #[inline]
    pub fn refresh(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version {
            (self.snapshot, self.version) = (self.shared.snapshot(), version);
        }
    }

    /// Keys in the set, as of now.
    #[inline]
    pub fn len(&self) -> u64 {
        self.shared.len.load(Ordering::Relaxed)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Without waiting: no lock, no allocation, no read from the disk. What cannot be told without one is
    /// [`Found::Unread`], and so is what is damaged.
    #[inline]
    pub fn look(&self, key: Key) -> Found {
        match self.snapshot.get(key, Patience::None) {
            Ok(Some(value)) if value.is_there() => Found::Yes(value),
            Ok(_) => Found::No,
            Err(_) => Found::Unread,
        }
    }

    /// Waits for the disk if it must.
    pub fn get(&self, key: Key) -> io::Result<Option<Value>> {
        self.snapshot.try_get(key).map(|found| found.filter(|value| value.is_there()))
    }
}

impl Snapshot {
    /// The last word on the key, were it that it was taken out.
    #[inline]
    fn get(&self, key: Key, patience: Patience) -> Result<Option<Value>, Silent> {
        let deltas = [Some(&self.active), self.frozen.as_ref()];
        if let Some(value) = deltas.into_iter().flatten().find_map(|delta| delta.get(key)) {
            return Ok(Some(value));
        }
        for run in &self.runs {
            if let Some(value) = run.get(key, patience)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// As [`Snapshot::get`], with all patience.
    pub(super) fn try_get(&self, key: Key) -> io::Result<Option<Value>> {
        self.get(key, Patience::Disk).map_err(|silent| match silent {
            Silent::Failed(error) => error,
            Silent::Unread => io::ErrorKind::WouldBlock.into(),
        })
    }
}
