//! The journal: marks into the page cache at the end of each turn, a sync soon after, a new file when one has grown.
//!
//! Bound: `journal_len` bytes before it is turned over, or four times the state if that is more. Turning over writes the
//! whole state in one turn, 31 bytes per owed range into the page cache, a frame at a time.

use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, Kind, StartError, token_of};
use crate::drive::log::Record;
use crate::recovery::{Journals, partition_folder};
use crate::steer::reason::{PAUSED, RETURNED};
use message::{MessageId, UnixMillis};
use queue::journal::{HELD, Journal, JournalNumber, Mark, Position, Span, Waiting, Writer};
use queue::{Attempts, Range};
use ring::{Access, File, Ring};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A turn-over that failed is tried again after this long.
const TURN_AGAIN: Duration = Duration::from_secs(10);

/// How far the next journal file is on its way.
#[derive(Debug)]
enum Next {
    None,
    Opening(PathBuf),
    Allocating(PathBuf, File),
    /// Its name is being made durable.
    Naming(PathBuf, File),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct JournalDrive {
    pub(crate) journal: Journal,
    file: File,
    path: PathBuf,
    folder_path: PathBuf,
    folder: File,
    /// The first file's name is not yet known to be durable: nothing in it is, whatever its syncs say.
    is_named: bool,
    /// Of the first file: reserved, named.
    first_steps: u8,
    next: Next,
    syncing: Option<Position>,
    /// When the unsynced marks have waited long enough.
    sync_due: Option<Instant>,
    sync_after: Duration,
    turn_len: u64,
    turn_failed: Option<Instant>,
    /// Bytes of the state at the file's beginning.
    state_len: u64,
    /// Files to remove once the state that replaces them is durable: this core's own, then all of earlier starts.
    replaced: Vec<PathBuf>,
    replaced_at: Option<Position>,
    /// Of earlier starts, over all partitions; removed by core 0 when all cores have their state durable.
    old: Vec<PathBuf>,
    has_told: bool,
    /// Records that are needed no more, and the mark that says so.
    ending: VecDeque<(Position, Record)>,
}

impl JournalDrive {
    /// Begins a new file; the state of the partition follows as its first marks.
    pub(crate) fn start<R: Ring>(
        ring: &mut R,
        index: usize,
        config: &Config,
        journals: &Journals,
    ) -> Result<JournalDrive, StartError> {
        let partition = u8::try_from(index).expect("at most 64 cores");
        let folder_path = partition_folder(&config.queue, partition);
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::File { path, source }
        };
        ring.list(&folder_path).map_err(wrap(&folder_path))?;
        let folder = ring.open_folder(&folder_path).map_err(wrap(&folder_path))?;
        let path = journal_path(&folder_path, JournalNumber(journals.next_number));
        let file = ring.open_now(&path, Access::Cached).map_err(wrap(&path))?;
        let writer = Writer { partition, epoch: journals.epoch };
        let turn_len = config.storage.journal_len;
        ring.allocate(token_of(Kind::JournalAllocate, 0), file, turn_len);
        ring.sync(token_of(Kind::JournalFolder, 0), folder, true);
        Ok(JournalDrive {
            journal: Journal::new(writer, JournalNumber(journals.next_number), journals.next_generation),
            file,
            path,
            folder_path,
            folder,
            is_named: false,
            first_steps: 0,
            next: Next::None,
            syncing: None,
            sync_due: None,
            sync_after: Duration::from_millis(config.storage.journal_sync_ms),
            turn_len,
            turn_failed: None,
            state_len: 0,
            replaced: Vec::new(),
            replaced_at: None,
            old: if index == 0 { journals.old.clone() } else { Vec::new() },
            has_told: false,
            ending: VecDeque::new(),
        })
    }

    /// True once the folder's names are durable: the journal's own, and those of the segments that were found.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        self.journal.has_unsynced() || self.syncing.is_some()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.sync_due.filter(|_| self.syncing.is_none())
    }

    /// Bytes at which the file is turned over: beyond the configured length, as often again as its state is long, so
    /// that writing states costs a bounded share of writing marks.
    fn turn_at(&self) -> u64 {
        self.turn_len.max(4 * self.state_len)
    }

    /// The message's last mark was just made: its place on disk is free once that is durable.
    pub(crate) fn end_record(&mut self, record: Record) {
        self.ending.push_back((self.journal.position(), record));
    }

    pub(crate) fn is_durable(&self, position: Position) -> bool {
        self.is_named && self.journal.is_durable(position)
    }

    /// The whole state was just put at the file's beginning.
    pub(crate) fn note_state(&mut self) {
        self.state_len = self.journal.len();
    }

    /// Puts the frame under way into the page cache, if there is one.
    fn put<R: Ring>(&mut self, ring: &mut R, now: Instant) -> io::Result<()> {
        let Some((offset, bytes)) = self.journal.frame() else { return Ok(()) };
        let result = ring.put(self.file, offset, bytes);
        self.journal.frame_put();
        self.sync_due.get_or_insert(now + self.sync_after);
        result
    }
}

fn journal_path(folder: &Path, number: JournalNumber) -> PathBuf {
    folder.join(format!("journal-{:08}", number.0))
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// End of the turn: what became of recipients in it is out of our hands before anything else is sent.
    pub(crate) fn flush_journal(&mut self) {
        self.put_frame();
        self.sync_journal();
        self.turn_journal_over();
        self.remove_old_journals();
    }

    /// What became of the recipients that the frame settles is in the event log before it is settled.
    fn put_frame(&mut self) {
        self.put_events();
        let result = self.journal.put(&mut self.ring, self.now);
        self.after_put(result);
    }

    fn after_put(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !self.halted
        {
            tracing::error!(path = %self.journal.path.display(), %error, "the journal cannot be written: deliveries stop until a restart");
            self.halt();
        }
    }

    /// Adds a mark; frames that have grown are put at once.
    pub(crate) fn mark(&mut self, mark: &Mark) {
        self.journal.journal.mark(mark);
        if self.journal.journal.frame_is_full() {
            self.put_frame();
        }
    }

    pub(crate) fn mark_settled(&mut self, id: MessageId, index: u32) {
        self.journal.journal.settled(id, index);
        if self.journal.journal.frame_is_full() {
            self.put_frame();
        }
    }

    fn sync_journal(&mut self) {
        let drive = &mut self.journal;
        let is_due =
            drive.sync_due.is_some_and(|due| due <= self.now) || self.stop != crate::core::Stop::Running;
        if self.halted {
            drive.sync_due = None;
            return;
        }
        if !is_due || drive.syncing.is_some() || !drive.journal.has_unsynced() {
            return;
        }
        (drive.syncing, drive.sync_due) = (Some(drive.journal.put_position()), None);
        self.counters.journal_syncs.add(1);
        self.ring.sync(token_of(Kind::JournalSync, drive.journal.number().0), drive.file, false);
    }

    pub(crate) fn on_journal_synced(&mut self, number: u32, result: io::Result<()>) {
        if number != self.journal.journal.number().0 {
            // A file that was turned over meanwhile: it says nothing about the new one.
            return;
        }
        let Some(position) = self.journal.syncing.take() else { return };
        if let Err(error) = result {
            tracing::error!(path = %self.journal.path.display(), %error, "syncing the journal failed: deliveries stop until a restart");
            return self.halt();
        }
        self.journal.journal.handle_synced(position);
        self.on_journal_durable();
    }

    /// What waited for marks to be durable may go on.
    fn on_journal_durable(&mut self) {
        if !self.journal.is_named {
            return;
        }
        while let Some((position, record)) = self.journal.ending.front().copied() {
            if !self.journal.is_durable(position) {
                break;
            }
            self.journal.ending.pop_front();
            self.logs.end_record(&record);
        }
        self.report_shares();
        if self.journal.replaced_at.is_some_and(|position| self.journal.is_durable(position)) {
            self.journal.replaced_at = None;
            // What the old journals say of messages that were not read is said nowhere else.
            if !self.logs.has_unread() && !std::mem::replace(&mut self.journal.has_told, true) {
                self.crossing.state_is_durable();
            }
            for path in std::mem::take(&mut self.journal.replaced) {
                self.ring.remove(token_of(Kind::Ignored, 0), &path);
            }
        }
    }

    /// Journals of earlier starts may name what any core owes: they stay until every core has said it anew.
    fn remove_old_journals(&mut self) {
        if self.journal.old.is_empty() || !self.crossing.all_states_are_durable() {
            return;
        }
        for path in std::mem::take(&mut self.journal.old) {
            self.ring.remove(token_of(Kind::Ignored, 0), &path);
        }
    }

    // ---- a new file ----

    fn turn_journal_over(&mut self) {
        let drive = &mut self.journal;
        let is_grown = drive.journal.len() >= drive.turn_at();
        // While another core holds marks for us from before, or a chunk of ours, the old file is still needed only
        // until the new state is durable, which names both.
        let has_just_failed = drive.turn_failed.is_some_and(|at| self.now < at + TURN_AGAIN);
        if has_just_failed
            || !is_grown
            || !matches!(drive.next, Next::None)
            || drive.replaced_at.is_some()
            || self.halted
            || self.logs.has_unread()
        {
            return;
        }
        let path = journal_path(&drive.folder_path, JournalNumber(drive.journal.number().0 + 1));
        self.ring.open(token_of(Kind::JournalOpen, 0), &path, Access::Cached);
        drive.next = Next::Opening(path);
    }

    pub(crate) fn on_journal_opened(&mut self, result: io::Result<File>) {
        let Next::Opening(path) = std::mem::replace(&mut self.journal.next, Next::None) else { return };
        match result {
            Ok(file) => {
                self.ring.allocate(token_of(Kind::JournalAllocate, 1), file, self.journal.turn_len);
                self.journal.next = Next::Allocating(path, file);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "no new journal; the old one grows on");
                self.journal.turn_failed = Some(self.now);
            }
        }
    }

    /// A journal file was reserved, or a folder synced.
    pub(crate) fn on_journal_step(&mut self, kind: Kind, result: io::Result<()>) {
        if !self.journal.is_named {
            return self.on_first_journal_step(kind, result);
        }
        match std::mem::replace(&mut self.journal.next, Next::None) {
            Next::Allocating(path, file) if result.is_ok() => {
                self.ring.sync(token_of(Kind::JournalFolder, 1), self.journal.folder, true);
                self.journal.next = Next::Naming(path, file);
            }
            Next::Naming(path, file) if result.is_ok() => self.take_new_journal(path, file),
            Next::Allocating(path, file) | Next::Naming(path, file) => {
                tracing::error!(path = %path.display(), error = ?result.err(), "no room for a new journal; the old one grows on");
                self.ring.close_file(file);
                self.journal.turn_failed = Some(self.now);
            }
            next @ (Next::None | Next::Opening(_)) => self.journal.next = next,
        }
    }

    /// The first file's space is reserved (a full disk is no reason not to start) and its name made durable.
    fn on_first_journal_step(&mut self, kind: Kind, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(path = %self.journal.path.display(), %error, "preparing the journal");
            if kind == Kind::JournalFolder {
                self.halt();
                self.poison_log();
                return;
            }
        }
        self.journal.first_steps += 1;
        if self.journal.first_steps == 2 {
            self.journal.is_named = true;
            self.on_journal_durable();
        }
    }

    /// What is delivered can no longer be recorded: nothing more is, until a restart.
    fn halt(&mut self) {
        self.halted = true;
        self.counters.poisoned.set(1);
    }

    fn take_new_journal(&mut self, path: PathBuf, file: File) {
        self.put_frame();
        let before = self.journal.path.clone();
        let number = JournalNumber(self.journal.journal.number().0 + 1);
        // A sync of the old file that is under way proves nothing about the new one.
        self.journal.syncing = None;
        self.ring.close_file(self.journal.file);
        self.journal.journal.turn_over(number, self.logs.next_generation());
        (self.journal.file, self.journal.path) = (file, path);
        self.journal.replaced.push(before);
        self.put_state();
        self.put_frame();
        self.journal.note_state();
    }

    /// Marks everything that is owed. Every recipient must be in it exactly once, or a restart would lose or
    /// repeat it: the sum is checked, and a broken sum ends the process rather than the promise. Of a partition that
    /// could not be read whole there is no whole state: nothing begins or ends one, and so what older journals say
    /// goes on to count, and this one is not turned over.
    pub(crate) fn put_state(&mut self) {
        let mut sum = 0;
        for partition in self.logs.partitions() {
            let Some(covers) = self.covers(partition) else { continue };
            let is_whole = !self.logs.has_unread_of(partition);
            if is_whole {
                self.mark(&Mark::StateBegins { covers });
            }
            sum += self.put_owed(partition);
            if is_whole {
                self.mark(&Mark::StateEnds);
            }
        }
        assert_eq!(sum, self.store.owed(), "the state that was written must hold each owed recipient once");
        self.mark_borrowed();
        self.mark_spent();
        self.journal.replaced_at = Some(self.journal.journal.position());
    }

    /// Marks every range of the partition that is owed, wherever it waits; no list of them is made. Returns the sum of
    /// recipients.
    fn put_owed(&mut self, partition: u8) -> u64 {
        let Core {
            store,
            schedule,
            domains,
            sites,
            letters,
            outbound,
            failing,
            shares,
            fetches,
            aside,
            steering,
            gates,
            returns,
            suppressing,
            ..
        } = self;
        let (journal, ring, now, mut sum, mut result) =
            (&mut self.journal, &mut self.ring, self.now, 0, Ok(()));
        let mut add = |range: &Range, due: UnixMillis| {
            // Borrowed ranges are another core's to name.
            let Some(queued) = store.get(range.message).filter(|queued| queued.id.partition() == partition)
            else {
                return;
            };
            if range.count == 0 {
                return;
            }
            sum += u64::from(range.count);
            let due = match range.reason {
                RETURNED => HELD,
                // Its campaign says whether it waits, not the disk.
                PAUSED => UnixMillis(0),
                _ => due,
            };
            let span = Span { id: queued.id, first: range.first, count: range.count };
            let Range { name_offset, attempts, .. } = *range;
            journal.journal.mark(&Mark::Owed(Waiting { span, name_offset, attempts, due }));
            if journal.journal.frame_is_full() {
                result = std::mem::replace(&mut result, Ok(())).and(journal.put(ring, now));
            }
        };
        let at_once = UnixMillis(0);
        schedule.iter().for_each(|(due, range)| add(range, due));
        domains.waiting().for_each(|range| add(range, at_once));
        sites.ranges().for_each(|range| add(&range, at_once));
        letters.loading().for_each(|range| add(range, at_once));
        outbound.ranges().for_each(|range| add(&range, at_once));
        failing.iter().for_each(|(_, failing)| add(&failing.range, failing.due()));
        suppressing.ranges().for_each(|range| add(range, at_once));
        shares.lent().for_each(|range| add(range, at_once));
        fetches.ranges().for_each(|range| add(range, at_once));
        aside.ranges().for_each(|range| add(range, at_once));
        returns.ranges().for_each(|range| add(range, at_once));
        steering.ranges().for_each(|(due, range)| add(range, due));
        gates.ranges().for_each(|range| add(range, at_once));
        for id in aside.places().filter(|id| id.partition() == partition) {
            let span = Span { id, first: 0, count: 0 };
            let nobody = Waiting { span, name_offset: 0, attempts: Attempts::NONE, due: at_once };
            journal.journal.mark(&Mark::Owed(nobody));
        }
        self.after_put(result);
        sum
    }
}
