//! One core as the engine drives it: log, journal and store, without sites and sessions.
//!
//! What waits is one flat list of ranges, wherever the engine would keep it. Every name is read from the record and
//! compared before anything is said of its recipient.

use crate::Verdict;
use crate::counters::Counters;
use crate::disk::{Disk, Name};
use crate::state::{Anchor, Fate, Model, Recipient};
use bytes::Bytes;
use message::{
    BodyKind, Class, ContentFacts, Envelope, Flow, Lane, MailAsked, Mailbox, MailboxRef, MessageId, Notify,
    OriginalRecipient, PoolTag, RecipientAsked, Recipients, Ret, ReversePath, UnixMillis, Verp,
};
use queue::MessageKey;
use queue::fanout::{Handling, Letter, OpenRange};
use queue::journal::{HELD, Journal, JournalNumber, Mark, Position, Span, Waiting};
use queue::log::record::{HEAD_LEN, Head, Layout, Location, Meta, NewMessage, checksum, meta_of};
use queue::log::{AppendToken, Log, LogOutput, SegmentNumber};
use queue::range::{Attempts, DomainKey, Range};
use queue::store::{Queued, Store};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Whose a range is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Whose {
    Own,
    /// A chunk of another core's.
    Borrowed(usize),
}

/// A range that waits, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    pub(crate) whose: Whose,
    pub(crate) range: Range,
    pub(crate) due: UnixMillis,
}

/// A record that is to be given up.
#[derive(Clone, Copy, Debug)]
struct Record {
    partition: u8,
    location: Location,
    len: u64,
}

/// What a message in a commit is.
#[derive(Debug)]
enum Appended {
    New,
    Copy(MessageKey),
}

#[derive(Debug)]
struct Borrowed {
    owner: u8,
    lent: usize,
    open: OpenRange,
    left: u32,
    settled: Vec<(u32, u32)>,
    waiting: Vec<Waiting>,
    has_reported: bool,
}

/// What passes between cores.
#[derive(Debug)]
pub(crate) enum Letters {
    Chunk { owner: u8, lent: usize, open: OpenRange },
    Done { borrower: u8, borrowed: usize, lent: usize, settled: Vec<(u32, u32)>, waiting: Vec<Waiting> },
    Noted { borrowed: usize },
}

/// What a core's step touches besides itself.
pub(crate) struct Around<'a> {
    pub(crate) disk: &'a mut Disk,
    pub(crate) model: &'a mut Model,
    pub(crate) counters: &'a mut Counters,
    /// Letters to other cores.
    pub(crate) outbox: &'a mut Vec<(u8, Letters)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) index: u8,
    pub(crate) logs: BTreeMap<u8, Log>,
    pub(crate) store: Store,
    pub(crate) ranges: Vec<Owed>,
    pub(crate) domains: Vec<String>,
    pub(crate) journal: Journal,
    pub(crate) has_told: bool,
    appended: Slab<Appended>,
    write: Option<(SegmentNumber, u64, Vec<u8>)>,
    preparing: Vec<(SegmentNumber, u64)>,
    /// What others have of ours, and until when it waited.
    lent: Slab<(Range, UnixMillis)>,
    borrowed: Slab<Borrowed>,
    done: VecDeque<(Position, usize)>,
    noted: VecDeque<(Position, u8, usize)>,
    ending: VecDeque<(Position, Record)>,
    is_named: bool,
    /// A sync under way: what it will have made durable, in marks and in bytes of the file.
    syncing: Option<(Position, u64)>,
    replaced: Vec<JournalNumber>,
    replaced_at: Option<Position>,
}

impl Core {
    pub(crate) fn new(index: u8, journal: Journal, disk: &mut Disk) -> Core {
        disk.create(Name::Journal(index, journal.number()), 0);
        Core {
            index,
            logs: BTreeMap::new(),
            store: Store::default(),
            ranges: Vec::new(),
            domains: Vec::new(),
            journal,
            has_told: false,
            appended: Slab::new(),
            write: None,
            preparing: Vec::new(),
            lent: Slab::new(),
            borrowed: Slab::new(),
            done: VecDeque::new(),
            noted: VecDeque::new(),
            ending: VecDeque::new(),
            is_named: false,
            syncing: None,
            replaced: Vec::new(),
            replaced_at: None,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.logs.get_mut(&self.index).expect("recovery made it")
    }

    pub(crate) fn domain(&mut self, name: &str) -> DomainKey {
        let at = self.domains.iter().position(|domain| domain == name).unwrap_or_else(|| {
            self.domains.push(name.to_owned());
            self.domains.len() - 1
        });
        DomainKey(u32::try_from(at).expect("few domains"))
    }

    // ---- the log ----

    /// A new message goes into the next commit.
    pub(crate) fn submit(&mut self, around: &mut Around<'_>, list: &[String], content: &[u8]) {
        if self.log().is_full() {
            return;
        }
        let (envelope, recipients) = (envelope(list), sorted(list));
        let (meta, layout) = (meta_of(&envelope), Layout::of(&envelope));
        let message = NewMessage { layout, ..new_message(&meta, content, list.len()) };
        let token = AppendToken(self.appended.vacant_key() as u64);
        let id = self.log().append(&message, token).expect("there is room");
        assert!(!around.model.messages.contains_key(&id), "{id} is given a second time");
        self.appended.insert(Appended::New);
        around.model.unsure.push((id, recipients));
    }

    pub(crate) fn start_commit(&mut self, around: &mut Around<'_>) {
        self.log().start_commit();
        self.run_logs(around);
    }

    /// Carries out what the logs want; writes and new files stay under way.
    pub(crate) fn run_logs(&mut self, around: &mut Around<'_>) {
        let partitions: Vec<u8> = self.logs.keys().copied().collect();
        for partition in partitions {
            while let Some(output) = self.logs.get_mut(&partition).and_then(Log::poll_output) {
                self.on_log_output(partition, output, around);
            }
        }
    }

    fn on_log_output(&mut self, partition: u8, output: LogOutput, around: &mut Around<'_>) {
        match output {
            LogOutput::Prepare { segment, len, .. } => self.preparing.push((segment, len)),
            LogOutput::Write { segment, offset, bytes } => self.write = Some((segment, offset, bytes)),
            LogOutput::Committed(messages) => {
                for (token, head) in messages {
                    self.on_committed(token, &head, around);
                }
            }
            LogOutput::Refused(tokens) => panic!("{tokens:?} refused by a disk that has room"),
            LogOutput::Remove { segment } => {
                around.counters.removed += 1;
                around.disk.remove(Name::Segment(partition, segment));
            }
        }
    }

    /// What is under way on the disk ends.
    pub(crate) fn end_writes(&mut self, around: &mut Around<'_>) {
        for (segment, len) in std::mem::take(&mut self.preparing) {
            let name = Name::Segment(self.index, segment);
            around.disk.create(name, usize::try_from(len).expect("segments are small"));
            around.disk.make_name_durable(name);
            self.log().handle_prepared(segment, true);
        }
        if let Some((segment, offset, bytes)) = self.write.take() {
            let name = Name::Segment(self.index, segment);
            around.counters.look_at_write(around.disk.read(name), (offset, &bytes));
            around.disk.put(name, offset, &bytes);
            around.disk.sync(name, u64::MAX);
            self.log().handle_written(true, bytes);
        }
        self.run_logs(around);
    }

    /// The write that was under way when the process died is in the cache, as far as it got there.
    pub(crate) fn abandon_write(&mut self, disk: &mut Disk) {
        if let Some((segment, offset, bytes)) = self.write.take() {
            disk.put(Name::Segment(self.index, segment), offset, &bytes);
        }
    }

    /// Until nothing waits.
    pub(crate) fn commit_all(&mut self, around: &mut Around<'_>) {
        loop {
            self.start_commit(around);
            if self.write.is_none() && self.preparing.is_empty() {
                return;
            }
            self.end_writes(around);
        }
    }

    fn on_committed(&mut self, token: AppendToken, head: &Head, around: &mut Around<'_>) {
        let entry = usize::try_from(token.0).expect("few messages");
        if let Appended::Copy(key) = self.appended.remove(entry) {
            return self.on_copied(key, head, around);
        }
        around.counters.committed += 1;
        around.model.is_committed(head.id);
        let message = self.store.admit(head, head.recipients);
        let meta = self.meta_of(message, around.disk);
        let groups = Meta::parse(&meta, head.layout).expect("it was just written").groups();
        for group in groups {
            let domain = self.domain(group.domain);
            let (first, count, name_offset) = (group.first, group.count, group.name_offset);
            let range =
                Range { message, domain, first, count, name_offset, attempts: Attempts::NONE, reason: 0 };
            self.ranges.push(Owed { whose: Whose::Own, range, due: UnixMillis(0) });
        }
    }

    fn meta_of(&self, key: MessageKey, disk: &Disk) -> Bytes {
        let queued = self.store.get(key).expect("it is owed");
        let record = self.record_of(queued, disk);
        let head = Head::decode(&record).expect("a record begins with its head");
        assert_eq!(head.id, queued.id, "the record of another message");
        let meta = &record[HEAD_LEN..HEAD_LEN + head.meta_len as usize];
        assert_eq!(checksum(meta), head.meta_crc, "{}: the record was overwritten", head.id);
        Bytes::copy_from_slice(meta)
    }

    fn record_of(&self, queued: &Queued, disk: &Disk) -> Vec<u8> {
        let partition = queued.id.partition();
        let segment = self.logs[&partition].segment_of(queued.location.generation);
        let segment = segment.unwrap_or_else(|| panic!("{}: its segment was given up", queued.id));
        let file = disk.read(Name::Segment(partition, segment));
        let at = usize::try_from(queued.location.offset()).expect("segments are small");
        file[at..at + usize::try_from(queued.record_len()).expect("records are small")].to_vec()
    }

    fn end_record(&mut self, record: &Record) {
        let log = self.logs.get_mut(&record.partition).expect("its message was in it");
        log.end_record(record.location, record.len);
    }

    // ---- compaction ----

    /// The emptiest segment is copied forward, if there is one worth it.
    pub(crate) fn compact(&mut self, around: &mut Around<'_>) {
        let own = self.index;
        let Some(victim) = self.log().victim(&|_| false) else { return };
        let is_in = |queued: &Queued| queued.location.generation == victim && queued.id.partition() == own;
        let is_under_way = |key| {
            self.appended.iter().any(|(_, appended)| matches!(appended, Appended::Copy(copy) if *copy == key))
        };
        let found: Vec<(MessageKey, Queued)> = self
            .store
            .iter()
            .filter(|(key, queued)| is_in(queued) && !is_under_way(*key))
            .map(|(key, queued)| (key, *queued))
            .collect();
        for (key, queued) in found {
            let bytes = self.record_of(&queued, around.disk);
            self.copy(key, queued.id, &bytes);
        }
        self.run_logs(around);
    }

    fn copy(&mut self, key: MessageKey, id: MessageId, bytes: &[u8]) {
        let head = Head::decode(bytes).expect("a record begins with its head");
        let content_at = HEAD_LEN + head.meta_len as usize;
        let content = &bytes[content_at..content_at + head.content_len as usize];
        assert_eq!((head.id, checksum(content)), (id, head.content_crc), "{id}: not what was written");
        let message = NewMessage {
            arrived: head.arrived,
            class: head.class,
            layout: head.layout,
            moved: Some(id),
            ..new_message(&bytes[HEAD_LEN..content_at], content, head.recipients as usize)
        };
        let token = AppendToken(self.appended.insert(Appended::Copy(key)) as u64);
        assert_eq!(self.log().append(&message, token), Ok(id), "a copy keeps its id");
    }

    fn on_copied(&mut self, key: MessageKey, head: &Head, around: &mut Around<'_>) {
        around.counters.copied += 1;
        let (partition, len) = (head.id.partition(), head.record_len());
        match self.store.relocate(key, head.id, head.bound.location) {
            Some(location) => self.end_record(&Record { partition, location, len }),
            None => {
                let record = Record { partition, location: head.bound.location, len };
                self.ending.push_back((self.journal.position(), record));
            }
        }
    }

    // ---- recipients ----

    /// The first `count` recipients of a range get a verdict, after a look at their names.
    pub(crate) fn conclude(&mut self, around: &mut Around<'_>, pick: usize, count: u32, verdict: Verdict) {
        if self.ranges.is_empty() {
            return;
        }
        // Every other look is for a chunk of another core's, if there is one: they are few among many.
        let is_borrowed = |owed: &Owed| owed.whose != Whose::Own;
        let borrowed = self.ranges.iter().position(is_borrowed).filter(|_| pick.is_multiple_of(2));
        let owed = self.ranges.swap_remove(borrowed.unwrap_or(pick % self.ranges.len()));
        let mut rest = self.open(&owed, around.disk).expect("its names can be read");
        let part = rest.split(count).expect("the names are at hand");
        if rest.range().count > 0 {
            self.ranges.push(Owed { range: rest.range(), ..owed });
        }
        self.check_names(part.clone(), around.model);
        let owed = Owed { range: part.range(), ..owed };
        match verdict {
            Verdict::Settle => self.settle(around, owed, part),
            Verdict::Defer(secs) => {
                let attempts = owed.range.attempts.plus_one();
                let due = UnixMillis(1000 + u64::from(secs) * 1000);
                self.wait(around, Owed { range: Range { attempts, ..owed.range }, due, ..owed });
            }
            // A borrower's mark always says something new: of two with as many attempts the owner's counts.
            Verdict::Warn if is_borrowed(&owed) && owed.range.attempts.is_warned() => self.ranges.push(owed),
            Verdict::Warn => {
                let attempts = owed.range.attempts.warned();
                self.wait(around, Owed { range: Range { attempts, ..owed.range }, ..owed });
            }
            Verdict::Hold | Verdict::Release if is_borrowed(&owed) => self.ranges.push(owed),
            Verdict::Hold => self.wait(around, Owed { due: HELD, ..owed }),
            Verdict::Release => self.wait(around, Owed { due: UnixMillis(0), ..owed }),
        }
    }

    fn open(&self, owed: &Owed, disk: &Disk) -> Option<OpenRange> {
        match owed.whose {
            Whose::Own => {
                let queued = self.store.get(owed.range.message)?;
                let letter = letter_of(queued.id, queued.layout());
                Some(OpenRange::new(owed.range, letter, self.meta_of(owed.range.message, disk), 0))
            }
            Whose::Borrowed(borrowed) => {
                let open = &self.borrowed[borrowed].open;
                let (window, offset) = open.window_from();
                Some(OpenRange::new(owed.range, Arc::clone(open.letter()), window.clone(), offset))
            }
        }
    }

    fn check_names(&self, mut part: OpenRange, model: &mut Model) {
        let (id, domain) = (part.letter().id, &self.domains[part.range().domain.0 as usize]);
        while let Some(name) = part.next_name() {
            let recipient = model.recipient(id, name.index);
            let text = (name.text(part.window()), domain);
            assert_eq!(text, (&*recipient.local_part, &recipient.domain), "{id}, {}", name.index);
            let asked = if part.letter().asked.is_some() { Notify::NEVER } else { Notify::UNSAID };
            assert_eq!(name.asked(part.window()).notify, asked, "{id}, {}", name.index);
        }
    }

    fn settle(&mut self, around: &mut Around<'_>, owed: Owed, mut part: OpenRange) {
        let id = part.letter().id;
        while let Some(name) = part.next_name() {
            self.journal.settled(id, name.index);
            if let Whose::Borrowed(borrowed) = owed.whose {
                self.borrowed[borrowed].settled.push((name.index, 1));
                self.borrowed[borrowed].left -= 1;
            }
            let anchor = self.anchor();
            around.model.recipient(id, name.index).becomes(Fate::Settled, anchor, owed.whose == Whose::Own);
            if owed.whose == Whose::Own {
                self.settle_own(&owed.range, 1);
            }
        }
    }

    fn settle_own(&mut self, range: &Range, count: u32) {
        if let Some(ended) = self.store.settle(range.message, count) {
            let record =
                Record { partition: ended.id.partition(), location: ended.location, len: ended.record_len() };
            self.ending.push_back((self.journal.position(), record));
        }
    }

    fn wait(&mut self, around: &mut Around<'_>, owed: Owed) {
        let Owed { whose, range, due } = owed;
        let id = match whose {
            Whose::Own => self.store.get(range.message).expect("it is owed").id,
            Whose::Borrowed(borrowed) => self.borrowed[borrowed].open.letter().id,
        };
        let Range { first, count, name_offset, attempts, .. } = range;
        let waiting = Waiting { span: Span { id, first, count }, name_offset, attempts, due };
        self.journal.mark(&Mark::Deferred(waiting));
        let anchor = self.anchor();
        for index in first..first + count {
            let recipient = around.model.recipient(id, index);
            recipient.becomes(Fate::Owed { attempts, due }, anchor, whose == Whose::Own);
        }
        match whose {
            Whose::Own => self.ranges.push(owed),
            Whose::Borrowed(borrowed) => {
                self.borrowed[borrowed].waiting.push(waiting);
                self.borrowed[borrowed].left -= count;
            }
        }
    }

    fn anchor(&self) -> Anchor {
        Anchor { core: self.index, position: self.journal.position() }
    }

    // ---- sharing ----

    /// A part of a range goes to another core.
    pub(crate) fn lend(&mut self, around: &mut Around<'_>, to: u8, pick: usize, count: u32) {
        let own: Vec<usize> =
            (0..self.ranges.len()).filter(|at| self.ranges[*at].whose == Whose::Own).collect();
        if own.is_empty() || to == self.index {
            return;
        }
        let owed = self.ranges.swap_remove(own[pick % own.len()]);
        // What an operator holds back is not on its way anywhere.
        let Some(mut rest) = self.open(&owed, around.disk).filter(|_| owed.due != HELD) else {
            return self.ranges.push(owed);
        };
        let part = rest.split(count).expect("the names are at hand");
        if rest.range().count > 0 {
            self.ranges.push(Owed { range: rest.range(), ..owed });
        }
        around.counters.lent += 1;
        let lent = self.lent.insert((part.range(), owed.due));
        around.outbox.push((to, Letters::Chunk { owner: self.index, lent, open: part }));
    }

    pub(crate) fn receive(&mut self, around: &mut Around<'_>, letters: Letters, domain: Option<String>) {
        match letters {
            Letters::Chunk { owner, lent, open } => {
                self.borrow(owner, lent, open, &domain.expect("a chunk names it"));
            }
            Letters::Done { borrower, borrowed, lent, settled, waiting } => {
                self.note(around, lent, &settled, &waiting);
                self.noted.push_back((self.journal.position(), borrower, borrowed));
            }
            Letters::Noted { borrowed } => drop(self.borrowed.remove(borrowed)),
        }
    }

    fn borrow(&mut self, owner: u8, lent: usize, open: OpenRange, domain: &str) {
        let mut range = open.range();
        range.domain = self.domain(domain);
        let left = range.count;
        let (settled, waiting) = (Vec::new(), Vec::new());
        let borrowed = Borrowed { owner, lent, open, left, settled, waiting, has_reported: false };
        let borrowed = self.borrowed.insert(borrowed);
        self.ranges.push(Owed { whose: Whose::Borrowed(borrowed), range, due: UnixMillis(0) });
    }

    /// A chunk came back: what was done with it goes into the owner's journal too.
    fn note(&mut self, around: &mut Around<'_>, lent: usize, settled: &[(u32, u32)], waiting: &[Waiting]) {
        let (range, _) = self.lent.remove(lent);
        let id = self.store.get(range.message).expect("it is owed").id;
        for (first, count) in settled {
            self.journal.mark(&Mark::Settled(Span { id, first: *first, count: *count }));
            self.is_noted(around.model, id, *first..first + count);
            self.settle_own(&range, *count);
        }
        for waiting in waiting {
            self.journal.mark(&Mark::Deferred(*waiting));
            let Waiting { span: Span { first, count, .. }, name_offset, attempts, due } = *waiting;
            self.is_noted(around.model, id, first..first + count);
            let range = Range { first, count, name_offset, attempts, ..range };
            self.ranges.push(Owed { whose: Whose::Own, range, due });
        }
    }

    fn is_noted(&self, model: &mut Model, id: MessageId, indexes: std::ops::Range<u32>) {
        for index in indexes {
            model.recipient(id, index).is_noted(self.anchor());
        }
    }

    /// Chunks with nothing left are reported when their marks are durable.
    pub(crate) fn run_shares(&mut self, around: &mut Around<'_>) {
        let position = self.journal.position();
        for (borrowed, chunk) in &mut self.borrowed {
            if chunk.left == 0 && !chunk.has_reported {
                chunk.has_reported = true;
                self.done.push_back((position, borrowed));
            }
        }
        while let Some((position, borrowed)) = self.done.front().copied()
            && self.is_durable(position)
        {
            self.done.pop_front();
            let Borrowed { owner, lent, settled, waiting, .. } = &self.borrowed[borrowed];
            let (lent, settled, waiting) = (*lent, settled.clone(), waiting.clone());
            let done = Letters::Done { borrower: self.index, borrowed, lent, settled, waiting };
            around.outbox.push((*owner, done));
        }
        while let Some((position, borrower, borrowed)) = self.noted.front().copied()
            && self.is_durable(position)
        {
            self.noted.pop_front();
            around.outbox.push((borrower, Letters::Noted { borrowed }));
        }
    }

    // ---- the journal ----

    pub(crate) fn is_durable(&self, position: Position) -> bool {
        self.is_named && self.journal.is_durable(position)
    }

    pub(crate) fn put(&mut self, around: &mut Around<'_>) {
        let name = Name::Journal(self.index, self.journal.number());
        if let Some((offset, bytes)) = self.journal.frame() {
            around.disk.put(name, offset, bytes);
            self.journal.frame_put();
        }
    }

    /// The journal's file has a name that lasts.
    pub(crate) fn name(&mut self, around: &mut Around<'_>) {
        around.disk.make_name_durable(Name::Journal(self.index, self.journal.number()));
        self.is_named = true;
        self.on_durable(around);
    }

    pub(crate) fn start_sync(&mut self) {
        if self.syncing.is_none() && self.journal.has_unsynced() {
            self.syncing = Some((self.journal.put_position(), self.journal.len()));
        }
    }

    pub(crate) fn end_sync(&mut self, around: &mut Around<'_>) {
        let Some((position, len)) = self.syncing.take() else { return };
        around.disk.sync(Name::Journal(self.index, self.journal.number()), len);
        self.journal.handle_synced(position);
        self.on_durable(around);
    }

    fn on_durable(&mut self, around: &mut Around<'_>) {
        while let Some((position, record)) = self.ending.front().copied()
            && self.is_durable(position)
        {
            self.ending.pop_front();
            self.end_record(&record);
        }
        self.run_shares(around);
        let is_durable = |anchor: &Anchor| anchor.core == self.index && self.is_durable(anchor.position);
        around.model.each().for_each(|recipient| recipient.forget(&is_durable));
        if self.replaced_at.is_some_and(|position| self.is_durable(position)) {
            (self.replaced_at, self.has_told) = (None, true);
            for number in std::mem::take(&mut self.replaced) {
                around.disk.remove(Name::Journal(self.index, number));
            }
        }
    }

    pub(crate) fn turn_over(&mut self, around: &mut Around<'_>) {
        if self.replaced_at.is_some() || !self.is_named {
            return;
        }
        self.put(around);
        let (before, next) = (self.journal.number(), JournalNumber(self.journal.number().0 + 1));
        let name = Name::Journal(self.index, next);
        around.disk.create(name, 0);
        around.disk.make_name_durable(name);
        self.syncing = None;
        let generation = self.log().next_generation();
        self.journal.turn_over(next, generation);
        self.replaced.push(before);
        around.counters.turned_over += 1;
        self.put_state(around);
    }

    /// Marks everything that is owed.
    pub(crate) fn put_state(&mut self, around: &mut Around<'_>) {
        let mut sum = 0;
        let partitions: Vec<(u8, MessageId)> =
            self.logs.iter().map(|(partition, log)| (*partition, log.committed())).collect();
        for (partition, covers) in &partitions {
            self.journal.mark(&Mark::StateBegins { covers: *covers });
            sum += self.put_owed(*partition);
            self.journal.mark(&Mark::StateEnds);
        }
        assert_eq!(sum, self.store.owed(), "the state must hold each owed recipient once");
        self.mark_borrowed();
        let anchor = self.anchor();
        for (id, recipients) in &mut around.model.messages {
            if partitions.iter().any(|(partition, _)| *partition == id.partition()) {
                recipients.iter_mut().for_each(|recipient| recipient.anchor_known(anchor));
            }
        }
        self.replaced_at = Some(self.journal.position());
        self.put(around);
    }

    fn put_owed(&mut self, partition: u8) -> u64 {
        let own = self.ranges.iter().filter(|owed| owed.whose == Whose::Own);
        let lent = self.lent.iter().map(|(_, lent)| *lent);
        let mut sum = 0;
        for (range, due) in own.map(|owed| (owed.range, owed.due)).chain(lent) {
            let id = self.store.get(range.message).expect("it is owed").id;
            if id.partition() != partition {
                continue;
            }
            sum += u64::from(range.count);
            let Range { first, count, name_offset, attempts, .. } = range;
            let span = Span { id, first, count };
            self.journal.mark(&Mark::Owed(Waiting { span, name_offset, attempts, due }));
        }
        sum
    }

    /// What a new journal must say again of other cores' mail, until they have noted it.
    fn mark_borrowed(&mut self) {
        for (_, Borrowed { open, settled, waiting, .. }) in &self.borrowed {
            let id = open.letter().id;
            for (first, count) in settled {
                self.journal.mark(&Mark::Settled(Span { id, first: *first, count: *count }));
            }
            waiting.iter().for_each(|waiting| self.journal.mark(&Mark::Deferred(*waiting)));
        }
    }
}

fn envelope(list: &[String]) -> Envelope {
    let mut recipients = Recipients::new();
    for recipient in list {
        recipients.push(MailboxRef::parse(recipient).expect("a plain address"));
    }
    let mut asked = MailAsked::default();
    // Some lists have what was asked behind each name (RFC 3461), so that names are not where their lengths alone put them.
    if has_asked(list) {
        asked.ret = Some(Ret::Headers);
        recipients = asked_of(list);
    }
    let reverse_path = ReversePath::Mailbox(Mailbox::parse("list@example.org").expect("a plain address"));
    Envelope {
        reverse_path,
        verp: Some(Verp::DEFAULT),
        body: BodyKind::SevenBit,
        smtputf8: false,
        requires_tls: false,
        lane: Lane::Bulk,
        asked,
        recipients,
    }
}

fn has_asked(list: &[String]) -> bool {
    list.len().is_multiple_of(3)
}

fn asked_of(list: &[String]) -> Recipients {
    let mut recipients = Recipients::new();
    for (number, recipient) in list.iter().enumerate() {
        let original = format!("rfc822;{recipient}");
        let original = OriginalRecipient::parse(&original).filter(|_| number % 2 == 0);
        let mailbox = MailboxRef::parse(recipient).expect("a plain address");
        recipients.push_asked(mailbox, RecipientAsked { notify: Notify::NEVER, original });
    }
    recipients
}

/// The recipients in the order of their indexes: by domain, and in the sender's order within one.
fn sorted(list: &[String]) -> Vec<Recipient> {
    let split = |address: &String| {
        let (local_part, domain) = address.split_once('@').expect("a plain address");
        Recipient::new(local_part, domain)
    };
    let mut recipients: Vec<Recipient> = list.iter().map(split).collect();
    recipients.sort_by(|a, b| a.domain.cmp(&b.domain));
    recipients
}

fn new_message<'a>(meta: &'a [u8], content: &'a [u8], recipients: usize) -> NewMessage<'a> {
    NewMessage {
        meta,
        recipients: u32::try_from(recipients).expect("short lists"),
        layout: Layout { verp: true, asked: false, table: false },
        body: BodyKind::SevenBit,
        smtputf8: false,
        requires_tls: false,
        lane: Lane::Bulk,
        class: Class { pool: PoolTag(7), flow: Flow(9), campaign: None },
        content,
        facts: ContentFacts::of(content),
        arrived: UnixMillis(77),
        moved: None,
    }
}

fn letter_of(id: MessageId, layout: Layout) -> Arc<Letter> {
    let letter = Letter::new(
        (id, UnixMillis(77)),
        (ReversePath::Null, None),
        (Bytes::new(), ContentFacts::default()),
        Handling { lane: Lane::Bulk, ..Handling::default() },
    );
    Arc::new(letter.with_meta(layout, layout.asked.then(MailAsked::default), None))
}
