//! The message logs: commits to the ring, committed messages to the state and to their submitters.
//!
//! A core writes to the log of its own partition. Partitions of cores that no longer exist are adopted: read, served
//! and emptied, never written to.

use super::intake::Submitter;
use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, Kind, token_of};
use crate::recovery::{
    Journals, RecoverError, SegmentFile, io_error, numbered, partition_folder, what_is_left,
};
use bytes::Bytes;
use message::{ContentFacts, Envelope, MessageId, ReversePath, UnixMillis, Verp};
use queue::fanout::Letter;
use queue::journal::{HELD, Span, Waiting};
use queue::log::record::{Head, Meta, NewMessage};
use queue::log::writer::{AppendError, FoundSegment};
use queue::log::{AppendToken, Log, LogConfig, LogOutput, SegmentNumber, scan_segment};
use queue::{MessageKey, Range};
use ring::{Access, File, Ring};
use slab::Slab;
use smtp_in::Stored;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of messages that may wait for a commit.
const PENDING_MAX: usize = 64 << 20;

/// Bytes of zeros written at a time through a new segment.
const ZERO_LEN: usize = 1 << 20;

/// One partition's log and files.
#[derive(Debug)]
struct Partition {
    log: Log,
    folder: PathBuf,
    files: BTreeMap<SegmentNumber, File>,
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
    pub(crate) facts: ContentFacts,
    pub(crate) content: Bytes,
    pub(crate) meta: Bytes,
}

/// Whom to tell.
#[derive(Debug)]
pub(crate) enum Origin {
    Session(Submitter),
    /// A bounce: these failures are settled once it is durable.
    Bounce(Vec<usize>),
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

    pub(crate) fn end_message(&mut self, id: MessageId) {
        if let Some(partition) = self.partitions.get_mut(&id.partition()) {
            partition.log.end_message(id);
        }
    }

    /// The file that holds a message.
    pub(crate) fn file_of(&self, id: MessageId) -> Option<File> {
        let partition = self.partitions.get(&id.partition())?;
        partition.files.get(&partition.log.segment_of(id)?).copied()
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

/// What recovery found in one partition.
struct Found {
    head: Head,
    left: Vec<(String, Waiting)>,
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

    fn recover_partition(&mut self, partition: u8, journals: &Journals) -> Result<(), RecoverError> {
        let folder = partition_folder(&self.logs.queue, partition);
        let (mut segments, mut files, mut generation) =
            (Vec::new(), BTreeMap::new(), journals.next_generation);
        let mut found = Vec::new();
        for name in self.ring.list(&folder).map_err(io_error(&folder))? {
            let Some(number) = numbered(&name, "data-").map(SegmentNumber) else { continue };
            let path = folder.join(&name);
            let file = self.ring.open_now(&path, Access::Direct).map_err(io_error(&path))?;
            let segment = self.recover_segment(number, file, &path, journals, &mut found)?;
            generation = generation.max(segment.generation + 1);
            segments.push(segment);
            files.insert(number, file);
        }
        let is_own = partition == self.logs.own;
        if is_own {
            self.logs.folder = Some(self.ring.open_folder(&folder).map_err(io_error(&folder))?);
        }
        let config = LogConfig {
            partition,
            segment_len: self.logs.segment_len,
            spares: if is_own { self.logs.spares } else { 0 },
            pending_max: PENDING_MAX,
        };
        let log = Log::new(config, segments, generation);
        self.logs.partitions.insert(partition, Partition { log, folder, files });
        self.take_up(found);
        Ok(())
    }

    fn recover_segment(
        &mut self,
        number: SegmentNumber,
        file: File,
        path: &Path,
        journals: &Journals,
        found: &mut Vec<Found>,
    ) -> Result<FoundSegment, RecoverError> {
        let len = self.ring.file_len(file).map_err(io_error(path))?;
        let mut live = 0;
        let mut on_message = |head: Head, meta: &[u8]| {
            let left = what_is_left(&head, meta, &journals.fold);
            if !left.is_empty() {
                live += 1;
                found.push(Found { head, left });
            }
        };
        let scan = scan_segment(&mut SegmentFile { ring: &mut self.ring, file }, &mut on_message)
            .map_err(|source| RecoverError::Segment { path: path.to_owned(), source })?;
        for offset in &scan.damaged {
            tracing::error!(file = %path.display(), offset, "a record is damaged; it was stepped over and its file is kept");
            self.counters.damaged.add(1);
        }
        // A file with damage is never overwritten: what is in it may be all that is left of a message.
        let live = live + u32::from(!scan.damaged.is_empty());
        Ok(FoundSegment { number, generation: scan.generation, len, live })
    }

    /// Queues what recovery found, in the order of arrival.
    fn take_up(&mut self, mut found: Vec<Found>) {
        found.sort_by_key(|found| found.head.id);
        for Found { head, left } in found {
            let owed = left.iter().map(|(_, waiting)| waiting.span.count).sum();
            let key = self.store.admit(&head, owed);
            for (domain, waiting) in left {
                self.take_up_range(key, &domain, &waiting);
            }
        }
    }

    fn take_up_range(&mut self, message: MessageKey, domain: &str, waiting: &Waiting) {
        let Waiting { span: Span { first, count, .. }, name_offset, attempts, due } = *waiting;
        let domain = self.domains.owe(domain, count);
        let range = Range { message, domain, first, count, name_offset, attempts, reason: 0 };
        if due == HELD {
            self.steering.hold(range);
        } else if due > self.wall {
            self.schedule.push(range, due);
        } else {
            self.offer_range(range);
        }
    }

    /// Takes a message into the next commit.
    pub(crate) fn append(&mut self, new: Incoming, origin: Origin) -> Result<(), Stored> {
        let Incoming { envelope, facts, content, meta } = new;
        let (arrived, arrived_at) = (self.wall, self.now);
        let recipients = envelope.recipients.count();
        let message = NewMessage {
            meta: &meta,
            recipients,
            verp: envelope.verp.is_some(),
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            content: &content,
            facts,
            arrived,
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

    /// Carries out what the logs want.
    pub(crate) fn run_logs(&mut self) {
        self.check_space();
        let waiting = self.logs.primary().waiting();
        if self.logs.primary().may_start_commit() && self.rhythm.may_commit(self.now, waiting) {
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
        let key = self.store.admit(head, head.recipients);
        let letter =
            Letter::new((head.id, head.arrived), (reverse_path, verp), (content, head.facts), head.smtputf8);
        let groups = Meta::parse(&meta, head.verp).into_iter().flat_map(|meta| meta.groups());
        for group in groups {
            let domain = self.domains.owe(group.domain, group.count);
            let range = Range {
                message: key,
                domain,
                first: group.first,
                count: group.count,
                name_offset: group.name_offset,
                attempts: 0,
                reason: 0,
            };
            self.offer_range(range);
        }
        self.letters.insert(key, Arc::new(letter), Some(meta));
        match origin {
            Origin::Session(submitter) => {
                self.counters.accepted_messages.add(1);
                self.counters.accepted_recipients.add(u64::from(head.recipients));
                self.counters.accepted_octets.add(u64::from(head.content_len));
                self.answer_stored(submitter, head.id);
            }
            Origin::Bounce(failing) => self.settle_failing(&failing),
        }
    }

    fn on_refused(&mut self, token: AppendToken) {
        let entry = usize::try_from(token.0).unwrap_or(usize::MAX);
        let Some(appended) = self.logs.appended.try_remove(entry) else { return };
        let outcome = if self.logs.primary().is_poisoned() { Stored::Failed } else { Stored::Full };
        match appended.origin {
            Origin::Session(submitter) => self.answer_refused(submitter, outcome),
            Origin::Bounce(failing) => self.retry_failing(failing),
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

    pub(crate) fn arrived(&self, key: MessageKey) -> UnixMillis {
        self.store.get(key).map_or(self.wall, |queued| queued.arrived)
    }
}
