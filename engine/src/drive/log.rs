//! The message logs: commits to the ring, committed messages to the state and to their submitters.
//!
//! A core writes to the log of its own partition. Partitions of cores that no longer exist are adopted: read, served
//! and emptied, never written to.

use super::inject::RequestKey;
use super::intake::Submitter;
use crate::campaigns::Campaigns;
use crate::campaigns::books::BooksError;
use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, Kind, token_of};
use crate::domains::Domains;
use crate::drive::aside::Stretch;
use crate::drive::steer::Steering;
use crate::recovery::{
    Journals, RecoverError, RingFile, Unknown, io_error, numbered, partition_folder, read_meta, visit_left,
};
use bytes::Bytes;
use message::{CampaignNumber, Class, ContentFacts, Envelope, MessageId, ReversePath, UnixMillis, Verp};
use queue::fanout::{Letter, WINDOW_LEN};
use queue::journal::{HELD, Span, Waiting};
use queue::log::record::{Head, Layout, Location, Meta, NewMessage};
use queue::log::writer::{AppendError, FoundSegment};
use queue::log::{
    AppendToken, Depth, Groups, Life, Log, LogConfig, LogOutput, ScanError, SegmentNumber, read_life,
    scan_segment,
};
use queue::range::DomainKey;
use queue::schedule::Schedule;
use queue::store::{Queued, Store};
use queue::{Attempts, MessageKey, Range};
use ring::{Access, File, Ring};
use slab::Slab;
use smallvec::SmallVec;
use smtp_in::Stored;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of messages that may wait for a commit.
const PENDING_MAX: usize = 64 << 20;

/// Past a segment that cannot be read, whose generation is therefore not known: no file has so many lives before the
/// journal's head says so.
const GENERATIONS_SKIPPED: u32 = 1 << 16;

/// Segments of a partition that may have been written to last, with one to spare.
const WRITTEN_LAST: usize = 3;

/// Bytes of zeros written at a time through a new segment.
const ZERO_LEN: usize = 1 << 20;

/// One partition's log and files.
#[derive(Debug)]
struct Partition {
    log: Log,
    folder: PathBuf,
    files: BTreeMap<SegmentNumber, File>,
    /// Some of it could not be read: there are messages that nobody here knows.
    has_unread: bool,
}

/// Steps of a segment's preparation.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Allocate,
    /// Writing zeros from this offset.
    Zero(u64),
    Sync,
    /// Making its name durable.
    Name,
}

#[derive(Clone, Copy, Debug)]
struct Preparing {
    len: u64,
    zero: bool,
    step: Step,
    file: Option<File>,
}

/// A message on its way into the log.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) envelope: Envelope,
    pub(crate) class: Class,
    pub(crate) recipients: u32,
    pub(crate) facts: ContentFacts,
    pub(crate) content: Bytes,
    pub(crate) meta: Bytes,
    /// It is another copy of this message, and keeps what it says.
    pub(crate) moved: Option<Moved>,
}

/// What a copy keeps besides its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) id: MessageId,
    pub(crate) arrived: UnixMillis,
    pub(crate) layout: Layout,
}

/// Whom to tell.
#[derive(Debug)]
pub(crate) enum Origin {
    Session(Submitter),
    /// A request over HTTP.
    Request(RequestKey),
    /// A bounce: these failures are settled once it is durable.
    Bounce(Vec<usize>),
    /// Another copy of a message whose segment is being emptied.
    Copy(MessageKey),
}

/// A message in a commit.
#[derive(Debug)]
struct Appended {
    origin: Origin,
    reverse_path: ReversePath,
    verp: Option<Verp>,
    content: Bytes,
    meta: Bytes,
}

/// All logs of a core.
#[derive(Debug)]
pub(crate) struct Logs {
    /// By partition; the core's own is always there after recovery.
    partitions: BTreeMap<u8, Partition>,
    own: u8,
    queue: PathBuf,
    appended: Slab<Appended>,
    preparing: BTreeMap<SegmentNumber, Preparing>,
    folder: Option<File>,
    segment_len: u64,
    spares: usize,
    /// The filesystem has less than `free_min` left.
    is_short_of_space: bool,
    space_checked: Option<std::time::Instant>,
}

impl Logs {
    pub(crate) fn new(index: usize, config: &Config) -> Logs {
        Logs {
            partitions: BTreeMap::new(),
            own: u8::try_from(index).expect("at most 64 cores"),
            queue: config.queue.clone(),
            appended: Slab::new(),
            preparing: BTreeMap::new(),
            folder: None,
            segment_len: config.storage.segment_len,
            spares: config.storage.spare_segments,
            is_short_of_space: false,
            space_checked: None,
        }
    }

    pub(crate) fn primary(&self) -> &Log {
        &self.partitions[&self.own].log
    }

    fn primary_mut(&mut self) -> &mut Partition {
        self.partitions.get_mut(&self.own).expect("start() made it")
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_short_of_space || self.primary().is_full() || self.primary().has_no_space()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.partitions.values().all(|partition| partition.log.is_idle())
    }

    pub(crate) fn end_record(&mut self, record: &Record) {
        if let Some(partition) = self.partitions.get_mut(&record.partition) {
            partition.log.end_record(record.location, record.len);
        }
    }

    pub(crate) fn end_damage(&mut self, partition: u8, segment: SegmentNumber) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.log.end_damage(segment);
        }
    }

    /// The file that holds a message's record, and its number.
    pub(crate) fn file_of(&self, queued: &Queued) -> Option<(SegmentNumber, File)> {
        // Copies stay in their partition.
        let partition = self.partitions.get(&queued.id.partition())?;
        let segment = partition.log.segment_of(queued.location.generation)?;
        Some((segment, *partition.files.get(&segment)?))
    }

    /// Bytes of all segment files, and of the records in them that are needed.
    pub(crate) fn disk_len(&self) -> (u64, u64) {
        let logs = self.partitions.values().map(|partition| &partition.log);
        logs.fold((0, 0), |(disk, live), log| (disk + log.disk_len(), live + log.live_len()))
    }

    /// True if a part of that partition could not be read at the start.
    pub(crate) fn has_unread_of(&self, partition: u8) -> bool {
        self.partitions.get(&partition).is_some_and(|partition| partition.has_unread)
    }

    pub(crate) fn has_unread(&self) -> bool {
        self.partitions.values().any(|partition| partition.has_unread)
    }

    pub(crate) fn partitions(&self) -> Vec<u8> {
        self.partitions.keys().copied().collect()
    }

    pub(crate) fn next_generation(&self) -> u32 {
        self.primary().next_generation()
    }
}

fn segment_path(folder: &Path, segment: SegmentNumber) -> PathBuf {
    folder.join(format!("data-{:08}", segment.0))
}

impl Opened {
    /// Above every generation that was used here, as far as that can be known.
    fn next_generation(&self) -> u32 {
        self.life.as_ref().map_or(0, |life| life.generation + 1)
    }
}

/// Takes up what is owed in one segment. One that cannot be read is left in its place and never written to.
fn recover_segment<R: Ring>(
    opened: &Opened,
    partition: u8,
    ring: &RefCell<&mut R>,
    take_up: &mut TakeUp<'_>,
) -> Result<FoundSegment, RecoverError> {
    let Opened { number, path, file, len, life } = opened;
    (take_up.live, take_up.live_len) = (0, 0);
    let had_unread = std::mem::take(&mut take_up.has_unread);
    let generation = life.as_ref().map_or(0, |life| life.generation);
    // A file whose messages have all ended may be a spare, whose end nobody needed to keep.
    let may_owe = take_up.journals.fold.may_owe(partition, generation);
    let has_successor = take_up.has_successor && may_owe;
    let (mut source, mut names) = (RingFile { ring, file: *file }, RingFile { ring, file: *file });
    let scan = match life {
        Err(error) => Err(error.to_string()),
        Ok(life) => {
            let mut on_message = |head: &Head, groups: Groups<'_>| take_up.take(head, groups, &mut names);
            let scan = scan_segment(&mut source, (life, *len), Depth::Index, has_successor, &mut on_message);
            scan.map_err(|error| error.to_string())
        }
    };
    let scan = scan.and_then(|scan| {
        if take_up.has_unread { Err("an envelope cannot be read".to_owned()) } else { Ok(scan) }
    });
    take_up.has_unread = had_unread || scan.is_err();
    let (live, live_len) = (take_up.live, take_up.live_len);
    match scan {
        Ok(scan) => {
            if may_owe || live > 0 {
                take_up.damaged.extend(scan.damaged);
            }
            if scan.lacks_index && live > 0 {
                tracing::error!(file = %path.display(), "the index is damaged; the records were read instead and a new one is written");
                take_up.indexes_damaged += 1;
            }
            Ok(FoundSegment { number: *number, generation, len: *len, live, live_len, index: scan.index })
        }
        Err(error) => {
            tracing::error!(file = %path.display(), error, "a segment cannot be read; the file stays as it is, the messages that were not read wait for a start that can read them");
            // Never used again: one of `live` stands for what could not be read.
            Ok(FoundSegment { number: *number, generation, len: *len, live: live + 1, live_len, index: None })
        }
    }
}

/// A record that is to be given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) partition: u8,
    pub(crate) location: Location,
    pub(crate) len: u64,
}

impl Record {
    pub(crate) fn of(queued: &Queued) -> Record {
        Record { partition: queued.id.partition(), location: queued.location, len: queued.record_len() }
    }
}

/// A segment file of a partition that is being recovered.
struct Opened {
    number: SegmentNumber,
    path: PathBuf,
    file: File,
    len: u64,
    /// `Err`: it cannot be read.
    life: Result<Life, ScanError>,
}

/// What recovery takes up, segment by segment.
struct TakeUp<'a> {
    journals: &'a Journals,
    store: &'a mut Store,
    domains: &'a mut Domains,
    schedule: &'a mut Schedule,
    steering: &'a mut Steering,
    wall: UnixMillis,
    /// Messages of which a later copy was found: the earlier one is not needed.
    copied: HashSet<MessageId>,
    /// Any record at all was found in a later segment.
    has_successor: bool,
    /// Of the segment under way: what is due, records that are needed and their bytes, records that are not whole.
    ready: Vec<Range>,
    live: u32,
    live_len: u64,
    damaged: Vec<std::ops::Range<u64>>,
    indexes_damaged: u64,
    /// Messages taken up that the journals' states name.
    named: usize,
    /// Something could not be read, of this segment or of one before it.
    has_unread: bool,
    campaigns: &'a Campaigns,
    /// Why recipients of a campaign could not be put into its books.
    unbooked: Option<BooksError>,
}

impl TakeUp<'_> {
    fn take(&mut self, head: &Head, groups: Groups<'_>, file: &mut RingFile<'_, '_, impl Ring>) {
        self.has_successor = true;
        if self.copied.contains(&head.id) {
            return;
        }
        let mut left: SmallVec<[(DomainKey, Waiting); 2]> = SmallVec::new();
        let (domains, fold) = (&mut *self.domains, &self.journals.fold);
        let known = visit_left((head, groups), fold, file, &mut |domain, waiting| {
            left.push((domains.owe(domain, waiting.span.count), *waiting));
        });
        if let Err(unknown) = known {
            self.settle_again(&left);
            return self.leave(head, unknown);
        }
        if left.is_empty() {
            return;
        }
        self.named += usize::from(self.journals.fold.names(head.id));
        // Of a long list a delivery reads a window at a time, whose checksum is nowhere: the whole is checked now.
        if head.meta_len > WINDOW_LEN
            && groups.meta().is_none()
            && let Err(unknown) = read_meta(file, head)
        {
            self.settle_again(&left);
            return self.leave(head, unknown);
        }
        if head.id.generation() != head.bound.location.generation {
            self.copied.insert(head.id);
        }
        (self.live, self.live_len) = (self.live + 1, self.live_len + head.record_len());
        let key = self.store.admit(head, left.iter().map(|(_, waiting)| waiting.span.count).sum());
        if let Some(number) = head.class.campaign {
            let owed = left.iter().map(|(_, waiting)| waiting.span.count).sum();
            self.take_into_books(number, owed, (head, groups), file);
        }
        for (domain, waiting) in left {
            self.take_range(key, domain, &waiting);
        }
    }

    /// A campaign's message: if a crash kept its recipients out of the books, they are in them from now on.
    fn take_into_books(
        &mut self,
        number: CampaignNumber,
        owed: u32,
        (head, groups): (&Head, Groups<'_>),
        file: &mut RingFile<'_, '_, impl Ring>,
    ) {
        // Of one that was removed, or of one that had its number before, nothing is owed: this is what a damaged disk says.
        let table = self.campaigns.table();
        let Some(campaign) = table.get(number).filter(|one| one.may_own(head.arrived)) else { return };
        campaign.find(owed);
        let Some(books) = self.campaigns.books.get() else { return };
        let result = books.knows(number, head.id).and_then(|is_known| {
            let mut meta = || groups.meta().map(<[u8]>::to_vec).or_else(|| read_meta(file, head).ok());
            let learnt =
                if is_known { None } else { meta().and_then(|meta| books.learn(number, head, &meta)) };
            learnt.unwrap_or(Ok(()))
        });
        if let Err(error) = result {
            self.unbooked.get_or_insert(error);
        }
    }

    /// What was counted as owed is not after all. No domain leads anywhere yet.
    fn settle_again(&mut self, left: &[(DomainKey, Waiting)]) {
        for (domain, waiting) in left {
            let _ = self.domains.settle(*domain, waiting.span.count);
        }
    }

    /// The record's recipients are not known.
    fn leave(&mut self, head: &Head, unknown: Unknown) {
        let start = head.bound.location.offset();
        match unknown {
            Unknown::Damaged => self.damaged.push(start..start + head.record_len()),
            Unknown::Unread => self.has_unread = true,
        }
    }

    fn take_range(&mut self, message: MessageKey, domain: DomainKey, waiting: &Waiting) {
        let Waiting { span: Span { first, count, .. }, name_offset, attempts, due } = *waiting;
        let range = Range { message, domain, first, count, name_offset, attempts, reason: 0 };
        if due == HELD {
            self.steering.hold(range);
        } else if due > self.wall {
            self.schedule.push(range, due);
        } else {
            self.ready.push(range);
        }
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Reads the segments of the partitions that are this core's and takes up what is owed.
    pub(crate) fn recover(&mut self, journals: &Journals) -> Result<(), RecoverError> {
        let cores = self.crossing.cores();
        let own = self.logs.own;
        let mine = |partition: &u8| usize::from(*partition) % cores == usize::from(own);
        let mut partitions: Vec<u8> = journals.partitions.iter().copied().filter(mine).collect();
        if !partitions.contains(&own) {
            partitions.push(own);
        }
        for partition in partitions {
            self.recover_partition(partition, journals)?;
        }
        Ok(())
    }

    /// Later segments first: a copy is found before what it is a copy of.
    fn recover_partition(&mut self, partition: u8, journals: &Journals) -> Result<(), RecoverError> {
        let folder = partition_folder(&self.logs.queue, partition);
        let is_own = partition == self.logs.own;
        if is_own {
            self.logs.folder = Some(self.ring.open_folder(&folder).map_err(io_error(&folder))?);
        }
        let mut opened = self.open_segments(&folder)?;
        opened
            .sort_by_key(|opened| std::cmp::Reverse(opened.life.as_ref().map_or(0, |life| life.generation)));
        self.sync_latest(&opened)?;
        let mut generation = journals.next_generation;
        let (mut found, mut files, mut ready) = (Vec::new(), BTreeMap::new(), Vec::new());
        let ring = RefCell::new(&mut self.ring);
        let mut take_up = TakeUp {
            journals,
            store: &mut self.store,
            domains: &mut self.domains,
            schedule: &mut self.schedule,
            steering: &mut self.steering,
            wall: self.wall,
            copied: HashSet::new(),
            has_successor: false,
            ready: Vec::new(),
            live: 0,
            live_len: 0,
            damaged: Vec::new(),
            indexes_damaged: 0,
            named: 0,
            has_unread: false,
            campaigns: &self.crossing.campaigns,
            unbooked: None,
        };
        for opened in opened {
            generation = generation.max(opened.next_generation());
            if opened.life.is_err() {
                // It may have had any of the next generations.
                generation += GENERATIONS_SKIPPED;
            }
            let mut segment = recover_segment(&opened, partition, &ring, &mut take_up)?;
            // What an adopted partition holds is only ever emptied.
            segment.index = segment.index.filter(|_| is_own);
            let damaged = std::mem::take(&mut take_up.damaged);
            self.counters.damaged.add(damaged.len() as u64);
            for damage in damaged {
                segment.live += 1;
                self.aside.push_stretch(Stretch::of_segment(
                    partition,
                    (&opened.path, opened.file),
                    &segment,
                    damage,
                ));
            }
            files.insert(opened.number, opened.file);
            found.push(segment);
            ready.push(std::mem::take(&mut take_up.ready));
        }
        if let Some(error) = take_up.unbooked {
            return Err(error.into());
        }
        let missing = journals.fold.named(partition).saturating_sub(take_up.named);
        if missing > 0 {
            // A start may have named what a dying process had written and nobody had synced, before power was lost: of
            // that nobody was told. Anything else is lost to the disk.
            tracing::warn!(partition, missing, "messages that the journals name are in no segment");
        }
        self.counters.damaged.add(take_up.indexes_damaged);
        let config = LogConfig {
            partition,
            segment_len: self.logs.segment_len,
            spares: if is_own { self.logs.spares } else { 0 },
            pending_max: PENDING_MAX,
            salt: self.settings.log_salt,
        };
        let (log, has_unread) = (Log::new(config, found, generation), take_up.has_unread);
        self.logs.partitions.insert(partition, Partition { log, folder, files, has_unread });
        // In the order of arrival.
        ready.into_iter().rev().flatten().for_each(|range| self.offer_range(range));
        Ok(())
    }

    /// What a process that died was just writing can be read and is not durable: before it is believed, it is. At a time
    /// one write is under way, to the last segment or, as its index, to the one before it.
    fn sync_latest(&mut self, opened: &[Opened]) -> Result<(), RecoverError> {
        let written = opened.iter().filter(|opened| opened.next_generation() > 1);
        for opened in written.take(WRITTEN_LAST) {
            self.ring.sync_now(opened.file).map_err(io_error(&opened.path))?;
        }
        Ok(())
    }

    fn open_segments(&mut self, folder: &Path) -> Result<Vec<Opened>, RecoverError> {
        let mut opened = Vec::new();
        for name in self.ring.list(folder).map_err(io_error(folder))? {
            let Some(number) = numbered(&name, "data-").map(SegmentNumber) else { continue };
            let path = folder.join(&name);
            let file = self.ring.open_now(&path, Access::Direct).map_err(io_error(&path))?;
            let len = self.ring.file_len(file).map_err(io_error(&path))?;
            let ring = RefCell::new(&mut self.ring);
            let life = match read_life(&mut RingFile { ring: &ring, file }, len) {
                Err(source @ ScanError::TooNew) => return Err(RecoverError::Segment { path, source }),
                life => life,
            };
            opened.push(Opened { number, path, file, len, life });
        }
        Ok(opened)
    }

    /// Takes a message into the next commit.
    pub(crate) fn append(&mut self, mut new: Incoming, origin: Origin) -> Result<(), Stored> {
        if let Some(local) = &self.settings.config.local {
            new.tell_exceptions(&local.domains);
        }
        let Incoming { envelope, class, recipients, facts, content, meta, moved } = new;
        let (arrived, arrived_at) = (self.wall, self.now);
        let layout = moved.map_or_else(|| Layout::of(&envelope), |moved| moved.layout);
        let message = NewMessage {
            meta: &meta,
            recipients,
            layout,
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            requires_tls: envelope.requires_tls,
            lane: envelope.lane,
            class,
            content: &content,
            facts,
            arrived: moved.map_or(arrived, |moved| moved.arrived),
            moved: moved.map(|moved| moved.id),
        };
        let entry = self.logs.appended.vacant_key();
        let log = &mut self.logs.primary_mut().log;
        log.append(&message, AppendToken(entry as u64)).map_err(|error| match error {
            AppendError::Poisoned => Stored::Failed,
            AppendError::NoSpace | AppendError::TooLong => Stored::Full,
        })?;
        let Envelope { reverse_path, verp, .. } = envelope;
        self.rhythm.handle_message(arrived_at);
        self.logs.appended.insert(Appended { origin, reverse_path, verp, content, meta });
        Ok(())
    }

    /// A segment that was found may have a name that no sync has made durable yet, if the process that made it was
    /// killed: nothing is committed to one before the folder was synced once.
    pub(crate) fn may_start_commit(&self) -> bool {
        self.journal.is_named() && self.logs.primary().may_start_commit()
    }

    /// Names in the folder cannot be made durable: nothing that is written there is safe.
    pub(crate) fn poison_log(&mut self) {
        self.logs.primary_mut().log.handle_unsafe();
    }

    /// Carries out what the logs want.
    pub(crate) fn run_logs(&mut self) {
        self.check_space();
        let waiting = self.logs.primary().waiting();
        if self.may_start_commit() && self.rhythm.may_commit(self.now, waiting) {
            self.rhythm.handle_commit();
            self.logs.primary_mut().log.start_commit();
        }
        for partition in self.logs.partitions() {
            while let Some(output) =
                self.logs.partitions.get_mut(&partition).and_then(|entry| entry.log.poll_output())
            {
                self.on_log_output(partition, output);
            }
        }
    }

    fn on_log_output(&mut self, partition: u8, output: LogOutput) {
        match output {
            LogOutput::Prepare { segment, len, zero } => self.prepare(segment, len, zero),
            LogOutput::Write { segment, offset, bytes } => {
                let file = self.logs.primary_mut().files[&segment];
                self.counters.commits.add(1);
                self.ring.write(token_of(Kind::LogWrite, 0), file, offset, bytes, true);
            }
            LogOutput::Committed(messages) => {
                for (token, head) in messages {
                    self.on_committed(token, &head);
                }
            }
            LogOutput::Refused(tokens) => {
                for token in tokens {
                    self.on_refused(token);
                }
            }
            LogOutput::Remove { segment } => {
                let entry = self.logs.partitions.get_mut(&partition).expect("it just spoke");
                if let Some(file) = entry.files.remove(&segment) {
                    self.ring.close_file(file);
                }
                let path = segment_path(&entry.folder, segment);
                self.ring.remove(token_of(Kind::Ignored, 0), &path);
            }
        }
    }

    pub(crate) fn on_log_written(&mut self, result: io::Result<()>, bytes: Vec<u8>) {
        if let Err(error) = &result {
            tracing::error!(%error, "writing the message log failed; no mail is accepted until a restart");
            self.counters.poisoned.set(1);
        }
        self.logs.primary_mut().log.handle_written(result.is_ok(), bytes);
    }

    /// The message is durable: it is owed from now on, and its submitter may hear so.
    fn on_committed(&mut self, token: AppendToken, head: &Head) {
        let entry = usize::try_from(token.0).unwrap_or(usize::MAX);
        let Some(appended) = self.logs.appended.try_remove(entry) else { return };
        let Appended { origin, reverse_path, verp, content, meta } = appended;
        if let Origin::Copy(key) = origin {
            return self.on_copied(key, head);
        }
        let key = self.store.admit(head, head.recipients);
        // Of what somebody brought: octets on top of it that are ours.
        let fields_len = match &origin {
            Origin::Session(submitter) => Some(submitter.fields_len),
            Origin::Request(key) => Some(self.fields_len_of(*key)),
            Origin::Bounce(_) | Origin::Copy(_) => None,
        };
        let parsed = Meta::parse(&meta, head.layout);
        let pattern = self.pattern_of_campaign(head.class.campaign.filter(|_| content.is_empty()));
        let list = self.list_of_campaign(head.class.campaign);
        let content = self.content_of_campaign(head.class.campaign, content);
        if let Some(fields_len) = fields_len {
            self.note_hash(fields_len, head.id, &content);
        }
        let letter = Letter::new(
            (head.id, head.arrived),
            (reverse_path, verp),
            (content, head.facts),
            self.store.get(key).expect("it was just admitted").handling(),
        )
        .with_meta(head.layout, parsed.and_then(|meta| meta.asked()), parsed.and_then(|meta| meta.columns))
        .with_pattern(pattern)
        .with_list(list.as_deref());
        for group in parsed.into_iter().flat_map(|meta| meta.groups()) {
            let domain = self.domains.owe(group.domain, group.count);
            let range = Range {
                message: key,
                domain,
                first: group.first,
                count: group.count,
                name_offset: group.name_offset,
                attempts: Attempts::NONE,
                reason: 0,
            };
            if head.class.campaign.is_some() {
                self.gates.keep_until_confirmed(head.id, range);
            } else {
                self.offer_range(range);
            }
        }
        if let Some(fields_len) = fields_len {
            self.log_taken(fields_len, &letter, head.recipients);
        }
        self.letters.insert(key, Arc::new(letter), Some(meta));
        match origin {
            Origin::Session(submitter) => {
                self.count_accepted(head);
                self.answer_stored(submitter, head.id);
            }
            Origin::Request(key) => {
                self.count_accepted(head);
                self.answer_request(key, Ok(head.id));
            }
            Origin::Bounce(failing) => self.settle_failing(&failing),
            Origin::Copy(_) => {}
        }
    }

    fn count_accepted(&self, head: &Head) {
        self.counters.accepted_messages.add(1);
        self.counters.accepted_recipients.add(u64::from(head.recipients));
        self.counters.accepted_octets.add(u64::from(head.content_len));
    }

    fn on_refused(&mut self, token: AppendToken) {
        let entry = usize::try_from(token.0).unwrap_or(usize::MAX);
        let Some(appended) = self.logs.appended.try_remove(entry) else { return };
        let outcome = if self.logs.primary().is_poisoned() { Stored::Failed } else { Stored::Full };
        match appended.origin {
            Origin::Session(submitter) => self.answer_refused(submitter, outcome),
            Origin::Request(key) => self.answer_request(key, Err(outcome)),
            Origin::Bounce(failing) => self.retry_failing(failing),
            Origin::Copy(_) => self.on_copy_refused(),
        }
    }

    // ---- new segments ----

    fn prepare(&mut self, segment: SegmentNumber, len: u64, zero: bool) {
        self.logs.preparing.insert(segment, Preparing { len, zero, step: Step::Open, file: None });
        let path = segment_path(&self.logs.primary_mut().folder, segment);
        self.ring.open(token_of(Kind::LogPrepare, segment.0), &path, Access::Direct);
    }

    pub(crate) fn on_segment_opened(&mut self, number: u32, result: io::Result<File>) {
        let Some(preparing) = self.logs.preparing.get_mut(&SegmentNumber(number)) else { return };
        match result {
            Ok(file) => {
                preparing.file = Some(file);
                self.on_segment_step(number, Ok(()));
            }
            Err(error) => self.on_segment_step(number, Err(error)),
        }
    }

    /// One step of the preparation ended: on to the next.
    pub(crate) fn on_segment_step(&mut self, number: u32, result: io::Result<()>) {
        let segment = SegmentNumber(number);
        let Some(preparing) = self.logs.preparing.get_mut(&segment) else { return };
        let Some(file) = preparing.file.filter(|_| result.is_ok()) else {
            return self.preparation_failed(segment, result);
        };
        let len = preparing.len;
        let token = token_of(Kind::LogPrepare, number);
        preparing.step = match preparing.step {
            Step::Open => Step::Allocate,
            Step::Allocate if preparing.zero => Step::Zero(0),
            Step::Zero(at) if at + (ZERO_LEN as u64) < len => Step::Zero(at + ZERO_LEN as u64),
            Step::Allocate | Step::Zero(_) => Step::Sync,
            Step::Sync => Step::Name,
            Step::Name => return self.segment_is_ready(segment, file),
        };
        match preparing.step {
            Step::Open | Step::Allocate => self.ring.allocate(token, file, len),
            Step::Zero(at) => {
                let piece = usize::try_from((len - at).min(ZERO_LEN as u64)).unwrap_or(ZERO_LEN);
                self.ring.write(token, file, at, vec![0; piece], false);
            }
            Step::Sync => self.ring.sync(token, file, true),
            Step::Name => match self.logs.folder {
                Some(folder) => self.ring.sync(token, folder, true),
                None => self.segment_is_ready(segment, file),
            },
        }
    }

    fn segment_is_ready(&mut self, segment: SegmentNumber, file: File) {
        self.logs.preparing.remove(&segment);
        let partition = self.logs.primary_mut();
        partition.files.insert(segment, file);
        partition.log.handle_prepared(segment, true);
    }

    fn preparation_failed(&mut self, segment: SegmentNumber, result: io::Result<()>) {
        let preparing = self.logs.preparing.remove(&segment);
        if let Err(error) = result {
            tracing::error!(%error, segment = segment.0, "no room for another segment of the message log; new mail gets 452");
        }
        if let Some(file) = preparing.and_then(|preparing| preparing.file) {
            self.ring.close_file(file);
        }
        self.logs.primary_mut().log.handle_prepared(segment, false);
    }

    /// Looks once a second whether the filesystem has room.
    fn check_space(&mut self) {
        let interval = std::time::Duration::from_secs(1);
        if self.logs.space_checked.is_some_and(|checked| self.now < checked + interval) {
            return;
        }
        self.logs.space_checked = Some(self.now);
        let (disk_len, live_len) = self.logs.disk_len();
        self.counters.log_octets.set(disk_len);
        self.counters.log_live_octets.set(live_len);
        let Ok(free) = self.ring.free_space(&self.logs.queue) else { return };
        let is_short = free < self.settings.config.storage.free_min;
        if is_short != self.logs.is_short_of_space {
            tracing::warn!(free, is_short, "room on the queue's filesystem");
        }
        self.logs.is_short_of_space = is_short;
        if !is_short {
            self.logs.primary_mut().log.handle_space_freed();
        }
    }

    /// The id of the last message that may be committed so far: what a whole state covers.
    pub(crate) fn covers(&self, partition: u8) -> Option<MessageId> {
        Some(self.logs.partitions.get(&partition)?.log.committed())
    }
}
