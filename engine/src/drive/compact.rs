//! Compaction: what is left in old, mostly empty segments is copied forward, so that their space is free.
//!
//! Looks once a second whether the files have outgrown what they hold; a segment is emptied only if it was the emptiest
//! for two looks in a row, so that one whose mail is just going out empties by itself. A copy is a commit like any
//! other: the old record is given up when the new one is durable. If the disk has no room, nothing happens.
//! Bounds: [`SLOTS_PER_TURN`] places of the table of messages are looked at in a turn, [`COPIES_MAX`] records and
//! [`COPY_LEN_MAX`] bytes (or one longer record) are on their way.

use crate::clock::Clock;
use crate::core::{Core, Kind, Place, token_of};
use crate::drive::log::{Incoming, Moved, Origin, Record};
use bytes::Bytes;
use message::{Envelope, MailAsked, MessageId, Recipients, ReversePath};
use queue::MessageKey;
use queue::log::record::{HEAD_LEN, Head, checksum};
use queue::store::Queued;
use ring::Ring;
use slab::Slab;
use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

/// Places of the table of messages that are looked at in a turn: some 30 µs.
const SLOTS_PER_TURN: usize = 8192;

/// Records on their way at a time.
const COPIES_MAX: usize = 32;

/// Bytes on their way at a time.
const COPY_LEN_MAX: u64 = 4 << 20;

/// Between looks at the files.
const INTERVAL: Duration = Duration::from_secs(1);

/// A record that is being read.
#[derive(Clone, Copy, Debug)]
struct Copying {
    key: MessageKey,
    id: MessageId,
    generation: u32,
    len: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    looked: Option<Instant>,
    /// The generation of the emptiest segment at the last look.
    candidate: Option<u32>,
    /// The generation of the segment that is being emptied, and the next place of the table to look at.
    victim: Option<(u32, Option<usize>)>,
    /// Segments in which a record could not be copied: they are left alone until the next start.
    excluded: HashSet<u32>,
    copies: Slab<Copying>,
    copies_len: u64,
    /// Copies that are in the log but not yet durable.
    appended: usize,
}

impl Compaction {
    pub(crate) fn is_idle(&self) -> bool {
        self.victim.is_none()
    }

    fn has_room(&self) -> bool {
        self.copies.len() + self.appended < COPIES_MAX && self.copies_len < COPY_LEN_MAX
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// True if the next turn has something to do for it at once.
    pub(crate) fn compaction_wants_turn(&self) -> bool {
        let has_more = self.compaction.victim.is_some_and(|(_, next)| next.is_some());
        has_more && self.compaction.has_room() && !self.logs.primary().is_full() && !self.halted
    }

    pub(crate) fn run_compaction(&mut self) {
        if self.halted || self.logs.primary().is_poisoned() {
            self.compaction.victim = None;
            return;
        }
        self.look_for_victim();
        let Some((victim, Some(from))) = self.compaction.victim else { return self.end_compaction() };
        if !self.compaction.has_room() || self.logs.primary().is_full() {
            return;
        }
        let (found, next) = self.to_copy(victim, from);
        self.compaction.victim = Some((victim, next));
        for (key, queued) in found {
            self.read_for_copy(key, &queued);
        }
    }

    /// Messages in a slice of the table that are in the victim, no more than may be under way, and where to go on.
    fn to_copy(&self, victim: u32, from: usize) -> (Vec<(MessageKey, Queued)>, Option<usize>) {
        let room = COPIES_MAX - self.compaction.copies.len() - self.compaction.appended;
        let own = u8::try_from(self.index).expect("at most 64 cores");
        let (mut found, mut len) = (Vec::new(), self.compaction.copies_len);
        let (slots, end) = self.store.slice(from, SLOTS_PER_TURN);
        for (key, queued) in slots {
            if queued.location.generation != victim || queued.id.partition() != own {
                continue;
            }
            if found.len() == room || len > 0 && len + queued.record_len() > COPY_LEN_MAX {
                return (found, Some(key.0 as usize));
            }
            len += queued.record_len();
            found.push((key, *queued));
        }
        (found, end)
    }

    fn look_for_victim(&mut self) {
        if self.compaction.looked.is_some_and(|looked| self.now < looked + INTERVAL) {
            return;
        }
        self.compaction.looked = Some(self.now);
        let (log, excluded) = (self.logs.primary(), &self.compaction.excluded);
        let candidate =
            log.victim(&|generation| excluded.contains(&generation)).filter(|_| !log.has_no_space());
        if self.compaction.victim.is_none()
            && let Some(generation) = candidate
            && self.compaction.candidate == candidate
        {
            self.compaction.victim = Some((generation, Some(0)));
        }
        self.compaction.candidate = candidate;
    }

    /// Everything was looked at and is copied: the next look may find another one.
    fn end_compaction(&mut self) {
        if self.compaction.copies.is_empty() && self.compaction.appended == 0 {
            self.compaction.victim = None;
        }
    }

    fn read_for_copy(&mut self, key: MessageKey, queued: &Queued) {
        let Some((_, file)) = self.logs.file_of(queued) else { return };
        let len = queued.record_len();
        let copying = Copying { key, id: queued.id, generation: queued.location.generation, len };
        let place = u32::try_from(self.compaction.copies.insert(copying)).expect("few copies");
        self.compaction.copies_len += len;
        let len = usize::try_from(len).expect("a record is at most 1 GiB");
        self.ring.read(token_of(Kind::Copy, place), file, queued.location.offset(), len);
    }

    /// The record was read: into the log with it, if it is whole and still needed.
    pub(crate) fn on_copy_read(&mut self, place: Place, result: io::Result<Vec<u8>>) {
        let Some(Copying { key, id, generation, len }) =
            self.compaction.copies.try_remove(place.index as usize)
        else {
            return;
        };
        self.compaction.copies_len -= len;
        if self.store.get(key).is_none_or(|queued| queued.id != id) {
            return;
        }
        let Some(incoming) = result.ok().and_then(|bytes| copy_of(id, bytes)) else {
            // One that is not whole stays; who delivers it will find out and set it aside.
            self.compaction.excluded.insert(generation);
            return;
        };
        match self.append(incoming, Origin::Copy(key)) {
            Ok(()) => self.compaction.appended += 1,
            // No room: another look will find the segment again.
            Err(_) => self.compaction.victim = None,
        }
    }

    /// The copy is durable: the old record is given up; the new one too, if the message ended meanwhile.
    pub(crate) fn on_copied(&mut self, key: MessageKey, head: &Head) {
        self.on_copy_refused();
        self.counters.copied.add(1);
        let (partition, len) = (head.id.partition(), head.record_len());
        match self.store.relocate(key, head.id, head.bound.location) {
            Some(location) => self.logs.end_record(&Record { partition, location, len }),
            None => self.journal.end_record(Record { partition, location: head.bound.location, len }),
        }
    }

    pub(crate) fn on_copy_refused(&mut self) {
        self.compaction.appended = self.compaction.appended.saturating_sub(1);
    }
}

/// The record as a message to be written once more; `None` if it is not whole.
fn copy_of(id: MessageId, bytes: Vec<u8>) -> Option<Incoming> {
    let bytes = Bytes::from(bytes);
    let head = Head::decode(&bytes).filter(|head| head.id == id)?;
    let content_at = HEAD_LEN + head.meta_len as usize;
    let meta = bytes.get(HEAD_LEN..content_at)?;
    let content = bytes.get(content_at..content_at + head.content_len as usize)?;
    if checksum(meta) != head.meta_crc || checksum(content) != head.content_crc {
        return None;
    }
    let parsed = queue::log::Meta::parse(meta, head.layout)?;
    Some(Incoming {
        envelope: Envelope {
            reverse_path: ReversePath::Null,
            verp: parsed.verp,
            body: head.body,
            smtputf8: head.smtputf8,
            requires_tls: head.requires_tls,
            lane: head.lane,
            asked: MailAsked::default(),
            // The meta part has them.
            recipients: Recipients::new(),
        },
        class: head.class,
        recipients: head.recipients,
        facts: head.facts,
        content: bytes.slice(content_at..content_at + head.content_len as usize),
        meta: bytes.slice(HEAD_LEN..content_at),
        moved: Some(Moved { id, arrived: head.arrived, layout: head.layout }),
    })
}
