//! Looks after the event log's files, on a thread of its own: begins new ones, completes, packs and removes old ones.
//!
//! A file stays as long as a consumer has not passed it, and then as long as `keep_days` and `keep_bytes` let it. Past
//! `disk_max` the oldest one goes all the same, and what was lost by it is counted and said: a webhook that nobody looks
//! after must not fill the disk that mail is on. What is written is synced each second: the machine's death costs that much
//! of it, the process's nothing.
//! Bound: one file is packed at a time, in memory of about a MiB; a look at the files every [`TICK`].

use super::folder::{self, Extent, Form};
use super::log::EventLog;
use crate::config::Events;
use message::UnixMillis;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Between two looks. A file grows beyond its length by what is written in this time.
const TICK: Duration = Duration::from_millis(100);

/// Between two looks at what may go, and between two syncs.
const REMOVE_EVERY: Duration = Duration::from_secs(10);
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(10);

/// The keeper's share of a CPU, where cores want it as well (setpriority(2)).
const NICE: i32 = 10;

/// See the module.
pub struct Keeper {
    log: Arc<EventLog>,
    rules: Arc<Mutex<Events>>,
    /// The file that is written to: open for syncs, and since when.
    current: Option<(u32, File)>,
    begun: Instant,
    /// Files that cores still write to, though there is a newer one.
    ending: Vec<u32>,
    /// Complete, to be packed. With whether this life wrote them.
    unpacked: Vec<(u32, bool)>,
    next_remove: Instant,
    next_sync: Instant,
    rests_until: Instant,
}

impl Keeper {
    /// `rules`: a reload changes them.
    pub fn new(log: Arc<EventLog>, rules: Arc<Mutex<Events>>, now: Instant) -> Keeper {
        Keeper {
            log,
            rules,
            current: None,
            begun: now,
            ending: Vec::new(),
            unpacked: Vec::new(),
            next_remove: now,
            next_sync: now,
            rests_until: now,
        }
    }

    /// Until somebody says `stop`, or nobody can any more.
    pub fn run(mut self, stop: &Receiver<()>) {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        if let Err(error) = self.take_stock() {
            self.complain(&error);
        }
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(TICK) {
            self.tick(crate::clock::now(), crate::clock::wall());
        }
    }

    /// What earlier lives left: how much it is, and what of it is to be packed.
    pub fn take_stock(&mut self) -> io::Result<()> {
        let current = self.log.current();
        for (number, form) in folder::list(self.log.folder())? {
            if number >= current {
                continue;
            }
            match folder::extent(self.log.folder(), number, form) {
                Ok(extent) => self.log.note_complete(number, extent, false),
                Err(error) => tracing::error!(file = number, %error, "an event file cannot be read"),
            }
            if form == Form::Plain {
                self.unpacked.push((number, false));
            }
        }
        Ok(())
    }

    pub fn tick(&mut self, now: Instant, wall: UnixMillis) {
        if now < self.rests_until {
            return;
        }
        // One that fails must not keep the others back: on a full disk the last one makes room.
        let steps =
            [self.rotate(now), self.complete_left(), self.pack_one(), self.sync(now), self.remove(now, wall)];
        for error in steps.into_iter().filter_map(Result::err) {
            self.complain(&error);
            self.rests_until = now + AGAIN;
        }
    }

    fn complain(&self, error: &io::Error) {
        let folder = self.log.folder().display().to_string();
        tracing::error!(folder, %error, "the event log's files cannot be looked after; events are still written");
    }

    /// Begins a new file if this one is long or old.
    fn rotate(&mut self, now: Instant) -> io::Result<()> {
        let number = self.log.current();
        if self.current.as_ref().is_none_or(|(at, _)| *at != number) {
            let path = folder::path_of(self.log.folder(), number, Form::Plain);
            self.current = Some((number, File::open(path)?));
        }
        let Some((_, file)) = &self.current else { return Ok(()) };
        let len = file.metadata()?.len();
        let (len_max, age_max) = {
            let rules = self.rules.lock();
            (rules.file_len, Duration::from_secs(rules.file_secs))
        };
        if len == 0 {
            self.begun = now;
        }
        if len < len_max && (len == 0 || now < self.begun + age_max) {
            return Ok(());
        }
        folder::begin(self.log.folder(), number + 1)?;
        self.log.go_on_in(number + 1);
        self.ending.push(number);
        (self.current, self.begun) = (None, now);
        Ok(())
    }

    fn complete_left(&mut self) -> io::Result<()> {
        while let Some(number) = self.ending.first().copied().filter(|number| self.log.is_left(*number)) {
            folder::complete(self.log.folder(), number)?;
            let extent = folder::extent(self.log.folder(), number, Form::Plain)?;
            self.log.note_complete(number, extent, true);
            self.ending.remove(0);
            self.unpacked.push((number, true));
        }
        Ok(())
    }

    fn pack_one(&mut self) -> io::Result<()> {
        let Some((number, _)) = self.unpacked.first().copied() else { return Ok(()) };
        match folder::pack(self.log.folder(), number) {
            Ok(_) => {}
            // Somebody removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.unpacked.remove(0);
        Ok(())
    }

    fn sync(&mut self, now: Instant) -> io::Result<()> {
        if now < self.next_sync {
            return Ok(());
        }
        self.next_sync = now + SYNC_EVERY;
        self.current.as_ref().map_or(Ok(()), |(_, file)| file.sync_data())
    }

    // ---- what goes ----

    fn remove(&mut self, now: Instant, wall: UnixMillis) -> io::Result<()> {
        if now < self.next_remove || !self.log.has_consumers_set() {
            return Ok(());
        }
        self.next_remove = now + REMOVE_EVERY;
        let rules = self.rules.lock().clone();
        let files = self.files(wall)?;
        let mut room: u64 = files.iter().map(|file| file.len).sum();
        let read = self.log.consumers().iter().map(|consumer| consumer.place().file).min();
        // Written to, or about to be complete.
        let first_open = self.ending.first().copied().unwrap_or_else(|| self.log.current());
        for file in files.iter().filter(|file| file.number < first_open) {
            let is_read = read.is_none_or(|read| file.number < read);
            let is_over = file.age_days >= rules.keep_days || room > rules.keep_bytes;
            let must_go = room > rules.disk_max;
            if !(must_go || is_read && is_over) {
                // Those behind it are younger, and as little read.
                break;
            }
            self.remove_file(file, !is_read)?;
            room -= file.len;
        }
        Ok(())
    }

    fn files(&self, wall: UnixMillis) -> io::Result<Vec<KeptFile>> {
        let mut files = Vec::new();
        for (number, form) in folder::list(self.log.folder())? {
            let path = folder::path_of(self.log.folder(), number, form);
            // Packed just now: the next look has it.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let written = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let age_days = wall.seconds().saturating_sub(written) / 86_400;
            files.push(KeptFile { number, form, len: metadata.len(), age_days });
        }
        Ok(files)
    }

    fn remove_file(&mut self, file: &KeptFile, is_unread: bool) -> io::Result<()> {
        fs::remove_file(folder::path_of(self.log.folder(), file.number, file.form))?;
        self.unpacked.retain(|(number, _)| *number != file.number);
        let extent = self.log.note_gone(file.number);
        if is_unread {
            self.count_lost(file.number, extent);
        }
        Ok(())
    }

    fn count_lost(&self, number: u32, extent: Extent) {
        for consumer in self.log.consumers() {
            let place = consumer.place();
            let lost = match place.file.cmp(&number) {
                std::cmp::Ordering::Less => extent.events,
                std::cmp::Ordering::Equal => extent.events.saturating_sub(place.events),
                std::cmp::Ordering::Greater => continue,
            };
            consumer.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::error!(
                consumer = consumer.name,
                file = number,
                lost,
                "events are LOST to a consumer that is too far behind: events.disk_max is reached"
            );
        }
        self.log.files_lost.fetch_add(1, Ordering::Relaxed);
    }
}

struct KeptFile {
    number: u32,
    form: Form,
    len: u64,
    age_days: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::cursor::Position;
    use crate::events::log::Standing;
    use crate::events::reader::{AtEnd, Batch, BatchMax, Kinds, Reader};
    use crate::events::{Event, Kind};

    struct Bench {
        folder: tempfile::TempDir,
        log: Arc<EventLog>,
        keeper: Keeper,
        now: Instant,
        rules: Arc<Mutex<Events>>,
    }

    const WALL: UnixMillis = UnixMillis(0);

    impl Bench {
        fn new(rules: Events) -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let first = folder::prepare(folder.path(), 0).unwrap();
            let log = Arc::new(EventLog::new(folder.path().to_owned(), first, vec![Arc::default()]));
            let (rules, now) = (Arc::new(Mutex::new(rules)), crate::clock::now());
            let keeper = Keeper::new(log.clone(), rules.clone(), now);
            Bench { folder, log, keeper, now, rules }
        }

        fn log_some(&self, count: usize) {
            (0..count).for_each(|_| self.log.append(&Event::new(Kind::Complaint), WALL).unwrap());
        }

        /// A look, and another one when the core has gone on.
        fn tick(&mut self, after: Duration) {
            for _ in 0..2 {
                self.now += after;
                self.keeper.tick(self.now, WALL);
                self.log.has_gone_on(0, self.log.current());
            }
        }

        fn files(&self) -> Vec<(u32, Form)> {
            folder::list(self.folder.path()).unwrap()
        }
    }

    #[test]
    fn file_that_is_long_or_old_is_ended_and_packed() {
        let mut bench = Bench::new(Events { file_len: 1000, file_secs: 60, ..Events::default() });
        bench.log_some(1);
        bench.tick(TICK);
        assert_eq!(bench.files(), [(1, Form::Plain)]);
        bench.log_some(30);
        bench.tick(TICK);
        assert_eq!(bench.files(), [(1, Form::Packed), (2, Form::Plain)]);
        bench.tick(Duration::from_secs(60));
        assert_eq!(bench.files().len(), 2, "an empty file stays, however old");
        bench.log_some(1);
        bench.tick(Duration::from_secs(60));
        assert_eq!(bench.files(), [(1, Form::Packed), (2, Form::Packed), (3, Form::Plain)]);
        assert_eq!(bench.log.behind(Position::start_of(1)).events, 32);
    }

    #[test]
    fn next_life_counts_and_packs_what_this_one_left() {
        let mut bench = Bench::new(Events { file_len: 1000, ..Events::default() });
        bench.log_some(30);
        bench.tick(TICK);
        bench.log_some(5);
        let first = folder::prepare(bench.folder.path(), 0).unwrap();
        let log = Arc::new(EventLog::new(bench.folder.path().to_owned(), first, vec![Arc::default()]));
        let mut keeper = Keeper::new(log.clone(), bench.rules.clone(), bench.now);
        keeper.take_stock().unwrap();
        assert_eq!(log.behind(Position::start_of(1)).events, 35);
        keeper.tick(bench.now, WALL);
        assert_eq!(bench.files(), [(1, Form::Packed), (2, Form::Packed), (3, Form::Plain)]);
        let mut batch = Batch::default();
        let mut reader = Reader::new(bench.folder.path().to_owned(), Position::start_of(1), AtEnd::Wait);
        reader.read(&mut batch, Kinds::ALL, BatchMax { events: 99, octets: 1 << 20 }).unwrap();
        assert_eq!((batch.events, batch.to.file), (35, 3));
    }

    #[test]
    fn files_stay_until_all_consumers_have_passed_them() {
        let rules = Events { file_len: 1000, keep_bytes: 0, disk_max: 1 << 30, ..Events::default() };
        let mut bench = Bench::new(rules);
        let consumer = Arc::new(Standing::new("slow", Position::start_of(1)));
        bench.log.set_consumers(vec![consumer.clone()]);
        for _ in 0..3 {
            bench.log_some(30);
            bench.tick(TICK);
        }
        bench.tick(REMOVE_EVERY);
        assert_eq!(bench.files().len(), 4);
        consumer.set_place(Position::start_of(3));
        bench.tick(REMOVE_EVERY);
        assert_eq!(bench.files(), [(3, Form::Packed), (4, Form::Plain)]);
        assert_eq!(consumer.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nothing_goes_before_a_start_knows_who_reads() {
        let mut bench = Bench::new(Events { file_len: 1000, keep_bytes: 0, ..Events::default() });
        for _ in 0..3 {
            bench.log_some(30);
            bench.tick(TICK);
        }
        bench.tick(REMOVE_EVERY);
        assert_eq!(bench.files().len(), 4);
        bench.log.set_consumers(Vec::new());
        bench.tick(REMOVE_EVERY);
        assert_eq!(bench.files(), [(4, Form::Plain)]);
    }

    #[test]
    fn full_disk_costs_the_oldest_events_and_says_so() {
        let rules = Events { file_len: 1000, keep_bytes: 0, disk_max: 1, ..Events::default() };
        let mut bench = Bench::new(rules);
        let place = Position { file: 1, offset: 0, events: 4 };
        let consumer = Arc::new(Standing::new("dead", place));
        bench.log.set_consumers(vec![consumer.clone()]);
        bench.log_some(30);
        bench.tick(TICK);
        bench.tick(REMOVE_EVERY);
        assert_eq!(bench.files(), [(2, Form::Plain)], "what is written to stays");
        assert_eq!(
            (consumer.lost.load(Ordering::Relaxed), bench.log.files_lost.load(Ordering::Relaxed)),
            (26, 1)
        );
    }
}
