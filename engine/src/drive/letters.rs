//! Messages in memory: a bounded cache of what was just accepted, and reads of what is no longer there.
//!
//! Bounds: `cache_max` bytes of messages; one load per site at a time, of a window of names and one content.

use crate::clock::Clock;
use crate::core::{Core, Kind, token_of};
use crate::domains::SiteKey;
use bytes::Bytes;
use queue::fanout::{Letter, OpenRange, WINDOW_LEN};
use queue::log::record::{HEAD_LEN, Head, Meta, checksum};
use queue::store::Queued;
use queue::{MessageKey, Range};
use ring::Ring;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Enough of the meta part to hold reverse-path and VERP.
const META_HEAD_LEN: u32 = 1024;

#[expect(clippy::cast_possible_truncation, reason = "64 bytes")]
const HEAD_SPAN: u32 = HEAD_LEN as u32;

#[derive(Debug)]
struct Cached {
    letter: Arc<Letter>,
    /// The whole meta part, if it fits into a window.
    meta: Option<Bytes>,
}

impl Cached {
    fn len(&self) -> usize {
        self.letter.len() + self.meta.as_ref().map_or(0, Bytes::len)
    }
}

/// A range whose message or names are being read.
#[derive(Debug)]
struct Load {
    site: SiteKey,
    range: Range,
    /// The record from its head on: head, meta part or its beginning.
    head: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    names: Option<Vec<u8>>,
    /// From the cache, if only names were missing.
    letter: Option<Arc<Letter>>,
    pending: u8,
    failed: Option<io::Error>,
}

/// Which part a read was for: the low two bits of the place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Head,
    Content,
    Names,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Letters {
    cached: HashMap<MessageKey, Cached>,
    /// Oldest first; may name messages that have ended.
    order: VecDeque<(MessageKey, message::MessageId)>,
    len: usize,
    max: usize,
    loads: Slab<Load>,
}

impl Letters {
    pub(crate) fn new(max: usize) -> Letters {
        Letters { cached: HashMap::new(), order: VecDeque::new(), len: 0, max, loads: Slab::new() }
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.shrink();
    }

    /// `meta` is the whole meta part; one longer than a window is not kept.
    pub(crate) fn insert(&mut self, key: MessageKey, letter: Arc<Letter>, meta: Option<Bytes>) {
        let meta = meta.filter(|meta| meta.len() <= WINDOW_LEN as usize);
        self.order.push_back((key, letter.id));
        let cached = Cached { letter, meta };
        self.len += cached.len();
        if let Some(before) = self.cached.insert(key, cached) {
            self.len -= before.len().min(self.len);
        }
        self.shrink();
    }

    pub(crate) fn remove(&mut self, key: MessageKey) {
        if let Some(cached) = self.cached.remove(&key) {
            self.len -= cached.len().min(self.len);
        }
        // Names of ended messages must not pile up in the order.
        while self
            .order
            .front()
            .is_some_and(|(key, id)| self.cached.get(key).is_none_or(|cached| cached.letter.id != *id))
        {
            self.order.pop_front();
        }
    }

    fn shrink(&mut self) {
        while self.len > self.max || self.order.len() > 2 * self.cached.len() + 1024 {
            let Some((key, id)) = self.order.pop_front() else { return };
            if self.cached.get(&key).is_some_and(|cached| cached.letter.id == id)
                && let Some(cached) = self.cached.remove(&key)
            {
                self.len -= cached.len().min(self.len);
            }
        }
    }

    /// Ranges on their way in.
    pub(crate) fn loading(&self) -> impl Iterator<Item = &Range> {
        self.loads.iter().map(|(_, load)| &load.range)
    }

    /// The range with its names, if everything is at hand.
    fn open(&self, range: Range) -> Option<OpenRange> {
        let cached = self.cached.get(&range.message)?;
        let meta = cached.meta.as_ref()?;
        Some(OpenRange::new(range, Arc::clone(&cached.letter), meta.clone(), 0))
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// The range ready for delivery, if nothing need be read.
    pub(crate) fn open_now(&self, range: Range) -> Option<OpenRange> {
        self.shares.open(range).or_else(|| self.letters.open(range))
    }

    /// The range ready for delivery, or `None` and a load on its way that ends in [`Core::on_read`].
    pub(crate) fn open_or_load(&mut self, site: SiteKey, range: Range) -> Option<OpenRange> {
        if let Some(open) = self.open_now(range) {
            return Some(open);
        }
        let queued = *self.store.get(range.message)?;
        let letter = self.letters.cached.get(&range.message).map(|cached| Arc::clone(&cached.letter));
        self.load(site, range, &queued, letter);
        None
    }

    fn load(&mut self, site: SiteKey, range: Range, queued: &Queued, letter: Option<Arc<Letter>>) {
        let has_letter = letter.is_some();
        let load =
            Load { site, range, head: None, content: None, names: None, letter, pending: 0, failed: None };
        let index = self.letters.loads.insert(load);
        let (meta_at, meta_len) = (queued.meta_offset(), queued.meta_len);
        let is_small = meta_len <= WINDOW_LEN;
        if !has_letter || is_small {
            let len = HEAD_SPAN + if is_small { meta_len } else { META_HEAD_LEN };
            self.read_part(index, Part::Head, queued, queued.id.place(), len);
        }
        if !has_letter {
            self.read_part(index, Part::Content, queued, queued.content_offset(), queued.content_len);
        }
        if !is_small {
            let len = WINDOW_LEN.min(meta_len.saturating_sub(range.name_offset));
            self.read_part(index, Part::Names, queued, meta_at + u64::from(range.name_offset), len);
        }
    }

    fn read_part(&mut self, index: usize, part: Part, queued: &Queued, offset: u64, len: u32) {
        let load = &mut self.letters.loads[index];
        load.pending += 1;
        let place = u32::try_from(index).expect("one load per site") << 2 | part as u32;
        match self.logs.file_of(queued.id) {
            Some(file) => self.ring.read(token_of(Kind::Load, place), file, offset, len as usize),
            None => {
                let missing = io::Error::new(io::ErrorKind::NotFound, "no segment holds the message");
                self.on_read(crate::core::Place { index: place, generation: 0 }, Err(missing));
            }
        }
    }

    pub(crate) fn on_read(&mut self, place: crate::core::Place, result: io::Result<Vec<u8>>) {
        let index = (place.index >> 2) as usize;
        let Some(load) = self.letters.loads.get_mut(index) else { return };
        load.pending -= 1;
        match (result, place.index & 3) {
            (Ok(bytes), 0) => load.head = Some(bytes),
            (Ok(bytes), 1) => load.content = Some(bytes),
            (Ok(bytes), _) => load.names = Some(bytes),
            (Err(error), _) => load.failed = Some(error),
        }
        if load.pending == 0 {
            let load = self.letters.loads.remove(index);
            self.finish_load(load);
        }
    }

    fn finish_load(&mut self, mut load: Load) {
        let (site, range) = (load.site, load.range);
        self.sites.get_mut(site).loading = false;
        self.sites.touch(site);
        let Some(queued) = self.store.get(range.message).copied() else { return };
        let failed = load.failed.take();
        if let Some(open) = self.assemble(&queued, load) {
            return self.sites.get_mut(site).open.push_back(open);
        }
        // The disk may answer better later; the message stays queued, and the log says where it lies.
        tracing::error!(msg = %queued.id, error = ?failed, "the message cannot be read back; it is tried again in an hour");
        self.counters.damaged.add(1);
        self.schedule.push(range, self.wall.plus_secs(3600));
    }

    /// Checks what was read and puts it together.
    fn assemble(&mut self, queued: &Queued, load: Load) -> Option<OpenRange> {
        let is_small = queued.meta_len <= WINDOW_LEN;
        let head = load.head.map(Bytes::from);
        let meta = head.as_ref().map(|bytes| bytes.slice(HEAD_LEN.min(bytes.len())..));
        let letter = match load.letter {
            Some(letter) => letter,
            None => Arc::new(letter_of(queued, head.as_ref()?, meta.as_ref()?, load.content?)?),
        };
        let (window, offset) =
            if is_small { (meta?, 0) } else { (Bytes::from(load.names?), load.range.name_offset) };
        let open = OpenRange::new(load.range, Arc::clone(&letter), window.clone(), offset);
        // A window without the name it was read for is no window.
        open.clone().next_name()?;
        self.letters.insert(load.range.message, letter, is_small.then_some(window));
        Some(open)
    }
}

fn letter_of(queued: &Queued, head: &[u8], meta: &[u8], content: Vec<u8>) -> Option<Letter> {
    let head =
        Head::decode(head).filter(|head| head.id == queued.id && head.content_len == queued.content_len)?;
    if content.len() != head.content_len as usize || checksum(&content) != head.content_crc {
        return None;
    }
    let parsed = Meta::parse(meta, queued.verp)?;
    let sender = (parsed.reverse_path()?, parsed.verp);
    Some(Letter::new(
        (queued.id, queued.arrived),
        sender,
        (Bytes::from(content), queued.facts),
        queued.smtputf8,
    ))
}
