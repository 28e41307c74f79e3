//! The one who writes a set: takes changes, keeps them, and answers when they are durable.
//!
//! One thread has it. A batch is one write and one sync, whatever its size up to [`BATCH_MAX`]. Files are written on
//! a thread beside it, one at a time; when changes come faster than that one writes, they wait for it.

use super::frames::{Found, Framer, Frames, Record};
use super::log::{self, HEAD_LEN, Head, Log};
use super::merge::Work;
use super::reader::{Handle, Reader, Shared};
use super::run::{Run, span_of};
use super::{
    BATCH_MAX, Counts, DELTA_MAX, Key, KeySetError, SpanOfLogs, Value, io_error, merge, notes, sync_folder,
};
use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// What a set is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stands for the secret that keys are made with: a set that another one made is refused.
    pub owner: u64,
    /// Keys; past them nothing more is taken.
    pub entries_max: u64,
    /// Notes stay for [`KeySet::notes`]. Without, those that are there already are removed.
    pub keep_notes: bool,
    /// Octets of memory for entries, which are then found without a read; twice that while files are merged. A file's entries
    /// are there all or not at all, the oldest file's first, which is the largest.
    pub memory_max: u64,
    /// Changes in a table before it is written as a file.
    pub delta_max: usize,
}

impl Options {
    pub fn new(owner: u64, entries_max: u64) -> Options {
        Options { owner, entries_max, keep_notes: false, memory_max: 0, delta_max: DELTA_MAX }
    }
}

/// See [`KeySet::apply`].
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A key that is there already stays as it is. A note has at most 4,096 octets.
    Add {
        key: Key,
        value: Value,
        note: &'a [u8],
    },
    Remove {
        key: Key,
        at_secs: u32,
    },
}

impl Change<'_> {
    fn key(&self) -> Key {
        match *self {
            Change::Add { key, .. } | Change::Remove { key, .. } => key,
        }
    }

    /// What becomes of a key of which that was the last word; `None` if nothing does. Two entries of a key never have one
    /// time: by it a note is told from the notes before it.
    fn after(&self, before: &io::Result<Option<Value>>) -> Option<Value> {
        let last = before.as_ref().ok().copied().flatten();
        let is_there = last.map_or(before.is_err(), Value::is_there);
        let least = last.map_or(0, |value| value.at_secs);
        match *self {
            Change::Add { value, .. } => {
                let at_secs = value.at_secs.max(least.saturating_add(u32::from(last.is_some())));
                (!last.is_some_and(Value::is_there)).then_some(Value { at_secs, ..value })
            }
            Change::Remove { at_secs, .. } => {
                is_there.then_some(Value { kind: 0, at_secs: at_secs.max(least) })
            }
        }
    }

    fn note(&self) -> &[u8] {
        match self {
            Change::Add { note, .. } => note,
            Change::Remove { .. } => &[],
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct KeySet {
    folder: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    /// None until there is a first change.
    log: Option<Log>,
    /// The first log whose changes are in no table but the one that is written to.
    first_log: u32,
    background: Option<JoinHandle<Result<(), KeySetError>>>,
    is_poisoned: bool,
    damaged: Vec<String>,
}

impl KeySet {
    /// Makes the folder when there is a first change. Takes up what a crash left.
    pub fn open(folder: &Path, options: Options) -> Result<KeySet, KeySetError> {
        let mut set = KeySet {
            folder: folder.to_owned(),
            options,
            shared: Arc::new(Shared::new(folder)),
            log: None,
            first_log: 1,
            background: None,
            is_poisoned: false,
            damaged: Vec::new(),
        };
        if folder.is_dir() {
            set.recover()?;
        }
        Ok(set)
    }

    /// For whoever looks often: another thread, or this one.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.shared)
    }

    pub fn handle(&self) -> Handle {
        Handle::new(&self.shared)
    }

    /// Places of the files that could not be read at the start, in words.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Puts keys in. Says of each whether it is new; durable when it returns.
    pub fn insert_batch(&mut self, keys: &[Key], value: Value) -> Result<Vec<bool>, KeySetError> {
        let add = |key: &Key| Change::Add { key: *key, value, note: &[] };
        self.apply(&keys.iter().map(add).collect::<Vec<_>>())
    }

    /// Carries changes out in their order. Says of each whether it changed something; durable when it returns. After an error
    /// some may have been carried out: the same changes again do no harm. A key of which nobody can tell, because its page is
    /// damaged, counts as new when it is put in and as there when it is taken out; from then on it is known again.
    pub fn apply(&mut self, changes: &[Change<'_>]) -> Result<Vec<bool>, KeySetError> {
        let mut changed = Vec::with_capacity(changes.len());
        for batch in changes.chunks(BATCH_MAX) {
            self.apply_batch(batch, &mut changed)?;
        }
        Ok(changed)
    }

    fn apply_batch(&mut self, batch: &[Change<'_>], changed: &mut Vec<bool>) -> Result<(), KeySetError> {
        if self.is_poisoned {
            return Err(KeySetError::Poisoned);
        }
        self.make_room()?;
        let plan = self.plan(batch, changed)?;
        if plan.is_empty() {
            return Ok(());
        }
        self.write(batch, &plan)?;
        for step in &plan {
            self.put(batch[step.place].key(), step.before, step.after);
        }
        if let Err(error) = self.turn_over_if_full() {
            // The batch is durable: the next one hears of it if it lasts.
            tracing::error!(folder = %self.folder.display(), %error, "the set's table is not written as a file");
        }
        Ok(())
    }

    /// What each change comes to. One look-up for each.
    fn plan(&self, batch: &[Change<'_>], changed: &mut Vec<bool>) -> Result<Vec<Step>, KeySetError> {
        let snapshot = self.shared.snapshot();
        let mut within: HashMap<Key, Value> = HashMap::new();
        let (mut plan, mut len) = (Vec::new(), self.shared.len.load(Ordering::Relaxed));
        for (place, change) in batch.iter().enumerate() {
            let key = change.key();
            let known = match within.get(&key) {
                Some(value) => Ok(Some(*value)),
                None => snapshot.try_get(key),
            };
            if let Err(error) = &known {
                tracing::error!(%error, "what the set says of a key cannot be read");
            }
            let after = change.after(&known);
            let before = known.ok().flatten();
            changed.push(after.is_some());
            let Some(after) = after else { continue };
            len = if after.is_there() { len + 1 } else { len.saturating_sub(1) };
            if len > self.options.entries_max {
                return Err(KeySetError::Full { max: self.options.entries_max });
            }
            within.insert(key, after);
            plan.push(Step { place, before, after });
        }
        Ok(plan)
    }

    fn write(&mut self, batch: &[Change<'_>], plan: &[Step]) -> Result<(), KeySetError> {
        if self.log.is_none() {
            make_folder(&self.folder)?;
            self.log = Some(Log::create(&self.folder, self.first_log, self.options.owner)?);
        }
        let Some(log) = &mut self.log else { return Err(KeySetError::Poisoned) };
        let mut framer: Framer = log.framer();
        for step in plan {
            let change = &batch[step.place];
            let note = if self.options.keep_notes { change.note() } else { &[] };
            framer.push(&Record { key: change.key(), value: step.after, note });
        }
        let result = log.append(&mut framer);
        self.is_poisoned = matches!(result, Err(KeySetError::Poisoned));
        result
    }

    /// Into the table; whoever reads sees it from now on.
    fn put(&self, key: Key, before: Option<Value>, after: Value) {
        let mut active = Arc::clone(&self.shared.snapshot().active);
        if active.is_full() {
            active = Arc::new(active.grown());
            self.shared.replace(|snapshot| snapshot.active = Arc::clone(&active));
        }
        active.put(key, after);
        let mut counts = self.shared.counts.lock();
        if let Some(before) = before.filter(|value| value.is_there()) {
            counts.remove(before);
        }
        if after.is_there() {
            counts.add(after);
        }
        self.shared.len.store(counts.sum(), Ordering::Relaxed);
    }

    // ---- files ----

    /// Waits for the thread beside us if the table must not grow any further.
    fn make_room(&mut self) -> Result<(), KeySetError> {
        let is_over = |set: &KeySet| set.shared.snapshot().active.len() >= 2 * set.options.delta_max;
        if is_over(self) {
            self.turn_over_if_full()?;
        }
        Ok(())
    }

    fn turn_over_if_full(&mut self) -> Result<(), KeySetError> {
        let is_full = self.shared.snapshot().active.len() >= self.options.delta_max
            || self.log.as_ref().is_some_and(Log::is_full);
        if is_full { self.turn_over() } else { Ok(()) }
    }

    /// The table is written as a file, and another one begins with another log.
    fn turn_over(&mut self) -> Result<(), KeySetError> {
        self.wait()?;
        let Some(log) = &mut self.log else { return Ok(()) };
        let next = log.number + 1;
        let new = Log::create(&self.folder, next, self.options.owner)?;
        log.seal();
        let logs = SpanOfLogs { first: self.first_log, last: log.number };
        (self.log, self.first_log) = (Some(new), next);
        self.shared.replace(|snapshot| snapshot.frozen = Some(std::mem::take(&mut snapshot.active)));
        let counts = *self.shared.counts.lock();
        *self.shared.pending.lock() = Some((logs, counts));
        let work = self.work(logs, counts);
        let spawned = std::thread::Builder::new().name("key files".into()).spawn(move || work.run());
        self.background = Some(spawned.map_err(io_error(&self.folder))?);
        Ok(())
    }

    fn work(&self, logs: SpanOfLogs, counts: Counts) -> Work {
        let Options { owner, keep_notes, memory_max, .. } = self.options;
        Work { shared: Arc::clone(&self.shared), owner, keep_notes, memory_max, logs, counts }
    }

    /// Waits until the thread beside us has written what it has to. What it could not write is tried once more.
    pub fn wait(&mut self) -> Result<(), KeySetError> {
        if let Some(thread) = self.background.take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "writing a file of keys"),
                Err(_) => tracing::error!("the thread that writes files of keys has died"),
            }
        }
        if self.shared.snapshot().frozen.is_none() {
            return Ok(());
        }
        let Some(pending) = *self.shared.pending.lock() else { return Ok(()) };
        let (logs, counts) = pending;
        self.work(logs, counts).run().map_err(|error| KeySetError::Background(error.to_string()))
    }
}

/// A change that changes something.
#[derive(Debug)]
struct Step {
    /// In its batch.
    place: usize,
    before: Option<Value>,
    after: Value,
}

/// The thread beside us must not write into a folder that somebody else opens next.
impl Drop for KeySet {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        if let Some(thread) = self.background.take() {
            let _ = thread.join();
        }
    }
}

fn make_folder(folder: &Path) -> Result<(), KeySetError> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error(folder))?;
    sync_folder(folder)
}

// ---- the start ----

impl KeySet {
    fn recover(&mut self) -> Result<(), KeySetError> {
        let names = merge::names(&self.folder)?;
        for half in names.iter().filter(|name| name.ends_with(".new")) {
            let _ = std::fs::remove_file(self.folder.join(half));
        }
        self.recover_runs(&names)?;
        let mut logs: Vec<u32> = names.iter().filter_map(|name| log::numbered(name, "log-")).collect();
        logs.sort_unstable();
        logs.retain(|number| *number >= self.first_log);
        let has_notes = self.recover_logs(&logs)?;
        if !self.options.keep_notes {
            if has_notes {
                self.turn_over()?;
                self.wait()?;
            }
            notes::remove(&self.shared, self.first_log - 1)?;
        }
        Ok(())
    }

    /// Of two files one of which has what the other has, the larger counts; together they have all logs up to some.
    fn recover_runs(&mut self, names: &[String]) -> Result<(), KeySetError> {
        let mut spans: Vec<SpanOfLogs> = names.iter().filter_map(|name| span_of(name)).collect();
        spans.sort_unstable_by_key(|span| (span.first, std::cmp::Reverse(span.last)));
        let mut runs: Vec<Arc<Run>> = Vec::new();
        for span in spans {
            let path = self.folder.join(super::run::name_of(span));
            if runs.last().is_some_and(|run| run.about.logs.contains(span)) {
                std::fs::remove_file(&path).map_err(io_error(&path))?;
                continue;
            }
            if span.first != self.first_log {
                return Err(self.missing(self.first_log, span.first - 1));
            }
            let run = Run::open(&path, self.options.memory_max.saturating_sub(merge::held_len(&runs)))?;
            if run.about.owner != self.options.owner {
                return Err(KeySetError::OtherOwner { path });
            }
            if run.about.logs != span {
                return Err(KeySetError::Damaged { path, what: "it is not what its name says" });
            }
            self.first_log = span.last + 1;
            runs.push(Arc::new(run));
        }
        runs.reverse();
        let counts = runs.first().map(|run| run.about.counts).unwrap_or_default();
        *self.shared.counts.lock() = counts;
        self.shared.len.store(counts.sum(), Ordering::Relaxed);
        self.shared.replace(|snapshot| snapshot.runs = runs);
        Ok(())
    }

    fn missing(&self, first: u32, last: u32) -> KeySetError {
        KeySetError::Missing { folder: self.folder.clone(), first, last }
    }

    /// Takes up what is in no sorted file. True if there are notes in it.
    fn recover_logs(&mut self, logs: &[u32]) -> Result<bool, KeySetError> {
        let mut has_notes = false;
        for (expected, number) in (self.first_log..).zip(logs.iter().copied()) {
            if number != expected {
                return Err(self.missing(expected, number - 1));
            }
            let is_last = logs.last() == Some(&number);
            let (read, notes) = self.replay(number, is_last)?;
            has_notes |= notes;
            if is_last {
                self.log = Some(Log::resume(&self.folder, number, read)?);
            } else if self.shared.snapshot().active.len() > 0 {
                self.write_now(number)?;
            }
        }
        Ok(has_notes)
    }

    /// The table as a file, without another thread.
    fn write_now(&mut self, last: u32) -> Result<(), KeySetError> {
        let logs = SpanOfLogs { first: self.first_log, last };
        self.shared.replace(|snapshot| snapshot.frozen = Some(std::mem::take(&mut snapshot.active)));
        self.first_log = last + 1;
        let counts = *self.shared.counts.lock();
        self.work(logs, counts).run()
    }

    /// Reads a log into the table. Where to go on writing, and whether there were notes in it.
    fn replay(&mut self, number: u32, is_last: bool) -> Result<((u64, u32), bool), KeySetError> {
        let path = self.folder.join(log::name_of(number));
        let file = File::open(&path).map_err(io_error(&path))?;
        let len = file.metadata().map_err(io_error(&path))?.len();
        if !self.check_head(&file, &path, len, is_last)? {
            // A crash came before anything was in it.
            Log::create(&self.folder, number, self.options.owner)?;
            return Ok(((HEAD_LEN, 0), false));
        }
        let (mut end, mut records_before, mut has_notes) = (HEAD_LEN, 0, false);
        let mut frames = Frames::new(&file, HEAD_LEN, len);
        while let Some(found) = frames.next().map_err(io_error(&path))? {
            match found {
                Found::Frame { records, next } => {
                    has_notes |= records.iter().any(|record| !record.note.is_empty());
                    records.iter().for_each(|record| self.replay_record(record));
                    records_before = next;
                    end = frames.at();
                }
                Found::Nothing { start, end, is_last: is_end } => {
                    if is_end && is_last {
                        tracing::info!(path = %path.display(), octets = end - start, "a write that a crash tore is dropped");
                    } else {
                        self.note_damage(&path, start, end)?;
                    }
                }
            }
        }
        Ok(((end, records_before), has_notes))
    }

    fn replay_record(&self, record: &Record<'_>) {
        // What cannot be read is said when it is asked for; here it would only set a count right.
        let before = self.shared.snapshot().try_get(record.key).ok().flatten();
        self.put(record.key, before, record.value);
    }

    /// False if nothing was ever put into the log.
    fn check_head(&mut self, file: &File, path: &Path, len: u64, is_last: bool) -> Result<bool, KeySetError> {
        let mut bytes = vec![0; usize::try_from(len.min(HEAD_LEN)).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0).map_err(io_error(path))?;
        match log::read_head(&bytes, self.options.owner) {
            Head::Ours => Ok(true),
            Head::OtherOwner => Err(KeySetError::OtherOwner { path: path.to_owned() }),
            Head::TooNew(found) => Err(KeySetError::TooNew { path: path.to_owned(), found }),
            Head::Damaged if is_last && len <= HEAD_LEN => Ok(false),
            Head::Damaged => {
                self.note_damage(path, 0, len.min(HEAD_LEN))?;
                Ok(true)
            }
        }
    }

    /// What is damaged is kept under another name for whoever can make something of it.
    fn note_damage(&mut self, path: &Path, start: u64, end: u64) -> Result<(), KeySetError> {
        let what = format!("{}: octets {start} to {end} are not as they were written", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kept = self.folder.join(format!("damaged-{name}"));
        match std::fs::hard_link(path, &kept) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error(&kept)(error));
            }
            _ => {}
        }
        self.damaged.push(what);
        Ok(())
    }
}
