//! The ordinary start, as the engine does it: all journals, then the segments of each core's partitions, later ones
//! first, so that a copy is found before what it is a copy of.

use crate::core::{Around, Core, Owed, Whose};
use crate::counters::Counters;
use crate::disk::{Disk, Name};
use crate::state::{Fate, Found, Recovered};
use message::{MessageId, UnixMillis};
use queue::journal::{self, Fold, FoldBuilder, Journal, JournalNumber, Origin, Span, Waiting, Writer};
use queue::log::record::{Group, Head, Meta, NameAt, checksum, name_len, next_name};
use queue::log::writer::FoundSegment;
use queue::log::{Depth, Groups, Life, Log, LogConfig, SegmentNumber, read_life, scan_segment};
use queue::range::{Attempts, Range};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Room for the index of a segment takes five blocks of these twelve.
pub(crate) const SEGMENT_LEN: u64 = 12 * 4096;

/// What the journals say.
pub(crate) struct Journals {
    fold: Fold,
    epoch: u32,
    next_number: u32,
    next_generation: u32,
    partitions: BTreeSet<u8>,
    /// To be removed when all cores have their state durable.
    pub(crate) old: Vec<Name>,
}

pub(crate) fn read_journals(disk: &Disk) -> Journals {
    let mut found: Vec<(Origin, Name)> =
        disk.names().into_iter().filter_map(|name| origin_of(disk, name)).collect();
    found.sort();
    let number = |name: &Name| if let Name::Journal(_, number) = name { number.0 } else { 0 };
    let next_number = found.iter().map(|(_, name)| number(name) + 1).max().unwrap_or(0);
    let epoch = found.iter().map(|(origin, _)| origin.epoch + 1).max().unwrap_or(1);
    let (mut builder, mut next_generation) = (FoldBuilder::default(), 1);
    for (origin, name) in &found {
        let mut finder = builder.finder(*origin);
        let read =
            journal::read(&mut disk.read(*name), &mut |mark| finder.look_at(&mark)).expect("it can be read");
        next_generation = next_generation.max(read.next_generation);
    }
    for (origin, name) in &found {
        let mut taker = builder.taker(*origin);
        journal::read(&mut disk.read(*name), &mut |mark| taker.take(&mark)).expect("it can be read");
    }
    let fold = builder.finish();
    next_generation = fold.generation_max.values().map(|max| max + 1).max().unwrap_or(1).max(next_generation);
    let partition = |name: Name| match name {
        Name::Segment(partition, _) | Name::Journal(partition, _) => partition,
    };
    let partitions = disk.names().into_iter().map(partition).collect();
    let old = found.into_iter().map(|(_, name)| name).collect();
    Journals { fold, epoch, next_number, next_generation, partitions, old }
}

fn origin_of(disk: &Disk, name: Name) -> Option<(Origin, Name)> {
    let Name::Journal(writer, _) = name else { return None };
    let read = journal::read_head(&mut disk.read(name)).expect("it can be read");
    Some((Origin { epoch: read.epoch, number: read.number, writer }, name))
}

/// A core with everything that is owed in its partitions.
pub(crate) fn start(index: u8, cores: u8, journals: &Journals, around: &mut Around<'_>) -> (Core, Recovered) {
    let writer = Writer { partition: index, epoch: journals.epoch };
    let number = JournalNumber(journals.next_number);
    let journal = Journal::new(writer, number, journals.next_generation);
    let mut core = Core::new(index, journal, around.disk);
    let mut recovered = Recovered::new();
    let mut partitions: BTreeSet<u8> =
        journals.partitions.iter().copied().filter(|partition| partition % cores == index).collect();
    partitions.insert(index);
    for partition in partitions {
        let log =
            recover_partition(partition, journals, around.disk, around.counters, &mut core, &mut recovered);
        core.logs.insert(partition, log);
    }
    (core, recovered)
}

struct Opened {
    number: SegmentNumber,
    name: Name,
    len: u64,
    life: Life,
}

fn open_segments(partition: u8, disk: &Disk) -> Vec<Opened> {
    let open = |name| {
        let Name::Segment(of, number) = name else { return None };
        let len = disk.read(name).len() as u64;
        let life = || read_life(&mut disk.read(name), len).expect("it can be read");
        (of == partition).then(|| Opened { number, name, len, life: life() })
    };
    let mut opened: Vec<Opened> = disk.names().into_iter().filter_map(open).collect();
    opened.sort_by_key(|opened| std::cmp::Reverse(opened.life.generation));
    opened
}

fn recover_partition(
    partition: u8,
    journals: &Journals,
    disk: &Disk,
    counters: &mut Counters,
    core: &mut Core,
    recovered: &mut Recovered,
) -> Log {
    let (mut found, mut generation) = (Vec::new(), journals.next_generation);
    let is_own = partition == core.index;
    let mut take_up = TakeUp {
        fold: &journals.fold,
        core,
        recovered,
        copied: HashSet::new(),
        has_successor: false,
        live: 0,
        live_len: 0,
        alarms: Vec::new(),
    };
    for opened in open_segments(partition, disk) {
        generation = generation.max(opened.life.generation + 1);
        let mut segment = take_up.segment(&opened, partition, disk.read(opened.name), counters);
        segment.index = segment.index.filter(|_| is_own);
        found.push(segment);
    }
    let live_len: u64 = found.iter().map(|segment| segment.live_len).sum();
    let spares = usize::from(is_own);
    let config = LogConfig { partition, segment_len: SEGMENT_LEN, spares, pending_max: 1 << 20, salt: 9 };
    // A stretch that is taken for damage keeps its segment until it was set aside, which is done at once here.
    let alarms = std::mem::take(&mut take_up.alarms);
    let mut log = Log::new(config, found, generation);
    alarms.into_iter().for_each(|segment| log.end_damage(segment));
    assert_eq!(log.live_len(), live_len, "a segment with somebody owed was given up");
    log
}

/// What recovery takes up, segment by segment.
struct TakeUp<'a> {
    fold: &'a Fold,
    core: &'a mut Core,
    recovered: &'a mut Recovered,
    copied: HashSet<MessageId>,
    has_successor: bool,
    live: u32,
    live_len: u64,
    /// Segments in which something was taken for damage, once for each stretch.
    alarms: Vec<SegmentNumber>,
}

impl TakeUp<'_> {
    fn segment(
        &mut self,
        opened: &Opened,
        partition: u8,
        bytes: &[u8],
        counters: &mut Counters,
    ) -> FoundSegment {
        let Opened { number, len, life, .. } = opened;
        (self.live, self.live_len) = (0, 0);
        let may_owe = self.fold.may_owe(partition, life.generation);
        let has_successor = self.has_successor && may_owe;
        let mut on_message = |head: &Head, groups: Groups<'_>| self.take(head, groups, bytes);
        let scan = scan_segment(&mut { bytes }, (life, *len), Depth::Index, has_successor, &mut on_message)
            .expect("it can be read");
        let (live, live_len) = (self.live, self.live_len);
        let alarms = if may_owe || live > 0 { scan.damaged.len() } else { 0 };
        counters.false_alarms += alarms as u64 + u64::from(scan.lacks_index && live > 0);
        self.alarms.extend(std::iter::repeat_n(*number, alarms));
        let live = live + u32::try_from(alarms).expect("few stretches");
        counters.read_by_index += u64::from(life.is_sealed());
        counters.indexes_made_up += u64::from(scan.index.is_some() && live > 0);
        let generation = life.generation;
        FoundSegment { number: *number, generation, len: *len, live, live_len, index: scan.index }
    }

    fn take(&mut self, head: &Head, groups: Groups<'_>, bytes: &[u8]) {
        self.has_successor = true;
        if self.copied.contains(&head.id) {
            return;
        }
        let left = self.left(head, groups, bytes);
        if left.is_empty() {
            return;
        }
        if head.id.generation() != head.bound.location.generation {
            self.copied.insert(head.id);
        }
        (self.live, self.live_len) = (self.live + 1, self.live_len + head.record_len());
        let count = |(_, waiting): &(String, Waiting)| waiting.span.count;
        let message = self.core.store.admit(head, left.iter().map(count).sum());
        for (domain, waiting) in &left {
            self.list(head, domain, waiting, bytes);
            let domain = self.core.domain(domain);
            let Waiting { span: Span { first, count, .. }, name_offset, attempts, due } = *waiting;
            let range = Range { message, domain, first, count, name_offset, attempts, reason: 0 };
            self.core.ranges.push(Owed { whose: Whose::Own, range, due });
        }
    }

    /// What is left of a message, with its domains.
    fn left(&self, head: &Head, groups: Groups<'_>, bytes: &[u8]) -> Vec<(String, Waiting)> {
        if self.fold.has_ended(head.id) {
            return Vec::new();
        }
        let meta = meta_of(head, bytes);
        let parsed = Meta::parse(meta, head.layout).expect("it was written so");
        let groups = if groups.is_elsewhere() { Groups::Meta(meta, parsed) } else { groups };
        let groups: Vec<Group<'_>> = groups.iter().collect();
        let whole: Vec<Waiting> = groups.iter().map(|group| all_of(head, group)).collect();
        let mut next_name = |offset: u32| Some(offset + name_len(meta.get(offset as usize..)?, head.layout)?);
        let mut left = Vec::new();
        self.fold.left(head.id, &whole, &mut next_name, &mut left);
        let domain_of = |waiting: &Waiting| {
            let at = groups.partition_point(|group| group.first <= waiting.span.first);
            groups[at - 1].domain.to_owned()
        };
        left.iter().map(|waiting| (domain_of(waiting), *waiting)).collect()
    }

    /// Names each recipient of a range for the comparison with the model.
    fn list(&mut self, head: &Head, domain: &str, waiting: &Waiting, bytes: &[u8]) {
        let owed: &mut BTreeMap<u32, Found> = self.recovered.entry(head.id).or_default();
        let mut names = &meta_of(head, bytes)[waiting.name_offset as usize..];
        for index in waiting.span.first..waiting.span.first + waiting.span.count {
            let NameAt { name, rest, .. } = next_name(names, head.layout).expect("the names are whole");
            names = rest;
            let fate = Fate::Owed { attempts: waiting.attempts, due: waiting.due };
            let found = Found { local_part: name.to_owned(), domain: domain.to_owned(), fate };
            assert_eq!(owed.insert(index, found), None, "{}: recipient {index} is owed twice", head.id);
        }
    }
}

fn meta_of<'a>(head: &Head, bytes: &'a [u8]) -> &'a [u8] {
    let at = usize::try_from(head.meta_offset()).expect("segments are small");
    let meta = &bytes[at..at + head.meta_len as usize];
    assert_eq!(checksum(meta), head.meta_crc, "{}: the record was overwritten", head.id);
    meta
}

/// All recipients of a group, none tried.
fn all_of(head: &Head, group: &Group<'_>) -> Waiting {
    let span = Span { id: head.id, first: group.first, count: group.count };
    Waiting { span, name_offset: group.name_offset, attempts: Attempts::NONE, due: UnixMillis(0) }
}
