//! Messages in memory: a bounded cache of what was just accepted, and reads of what is no longer there.
//!
//! Bounds: `cache_max` bytes of messages; 16 loads per site and lane at a time, of 256 KiB of contents and one more content; one
//! load for each fetch of another core's client.

use crate::clock::Clock;
use crate::core::{Core, Kind, token_of};
use crate::domains::SiteKey;
use crate::fetch::FetchId;
use crate::steer::reason::RETURNED;
use bytes::Bytes;
use message::envelope::COLUMNS_MAX;
use message::{Lane, Reply, UnixMillis, Verdict};
use queue::fanout::{Letter, OpenRange, WINDOW_LEN};
use queue::log::record::{HEAD_LEN, Head, Location, Meta, checksum, name_len_max};
use queue::store::Queued;
use queue::{MessageKey, Range};
use ring::Ring;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Enough of the meta part to hold reverse-path, VERP, RET and ENVID, and of a table's its columns.
const META_HEAD_LEN: u32 = 1024;
#[expect(clippy::cast_possible_truncation, reason = "4 KiB")]
const TABLE_HEAD_LEN: u32 = META_HEAD_LEN + 2 + COLUMNS_MAX as u32;

#[expect(clippy::cast_possible_truncation, reason = "64 bytes")]
const HEAD_SPAN: u32 = HEAD_LEN as u32;

#[derive(Debug)]
struct Cached {
    letter: Arc<Letter>,
    /// The whole meta part, if it fits into a window.
    meta: Option<Bytes>,
    /// What it counted for when it came or was signed. (A dot-stuffed copy made later is not counted.)
    len: usize,
}

/// What names are read for.
#[derive(Debug)]
enum Purpose {
    Deliver(SiteKey, Lane),
    /// Another core's client fetches it.
    Lend(FetchId),
    /// Each of them gets this verdict: there is nobody to deliver to.
    Conclude(Verdict),
    /// Some may be return paths of ours: see `drive/returns`.
    Return,
}

/// A range whose message or names are being read.
#[derive(Debug)]
struct Load {
    purpose: Purpose,
    range: Range,
    parts: Parts,
    pending: u8,
    failed: Option<io::Error>,
    /// Where the record was when reading began: it may be copied elsewhere meanwhile.
    location: Location,
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Parts {
    /// The record from its head on: head, meta part or its beginning.
    head: Option<Bytes>,
    content: Option<Bytes>,
    names: Option<Bytes>,
    /// From the cache, if only names were missing.
    letter: Option<Arc<Letter>>,
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
    /// Ranges whose names are needed only to give each its verdict.
    to_conclude: VecDeque<(Range, Verdict)>,
    is_concluding: bool,
}

impl Letters {
    pub(crate) fn new(max: usize) -> Letters {
        Letters {
            cached: HashMap::new(),
            order: VecDeque::new(),
            len: 0,
            max,
            loads: Slab::new(),
            to_conclude: VecDeque::new(),
            is_concluding: false,
        }
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.shrink();
    }

    /// `meta` is the whole meta part; one longer than a window is not kept.
    pub(crate) fn insert(&mut self, key: MessageKey, letter: Arc<Letter>, meta: Option<Bytes>) {
        let meta = meta.filter(|meta| meta.len() <= WINDOW_LEN as usize);
        self.order.push_back((key, letter.id));
        let len = letter.len() + meta.as_ref().map_or(0, Bytes::len);
        self.len += len;
        if let Some(before) = self.cached.insert(key, Cached { letter, meta, len }) {
            self.len -= before.len;
        }
        self.shrink();
    }

    pub(crate) fn remove(&mut self, key: MessageKey) {
        if let Some(cached) = self.cached.remove(&key) {
            self.len -= cached.len;
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
                self.len -= cached.len;
            }
        }
    }

    /// Ranges on their way in.
    pub(crate) fn loading(&self) -> impl Iterator<Item = &Range> {
        let loads = self.loads.iter().map(|(_, load)| &load.range);
        loads.chain(self.to_conclude.iter().map(|(range, _)| range))
    }

    /// Ranges that wait for their names, to be given a verdict.
    pub(crate) fn concluding(&self) -> usize {
        self.to_conclude.len() + usize::from(self.is_concluding)
    }

    /// The message, if it is in memory.
    pub(crate) fn get(&self, key: MessageKey) -> Option<Arc<Letter>> {
        self.cached.get(&key).map(|cached| Arc::clone(&cached.letter))
    }

    /// The message is to be known by this letter, if it is in memory; or the one that it is known by has grown.
    pub(crate) fn renew(&mut self, key: MessageKey, letter: &Arc<Letter>) {
        let Some(cached) = self.cached.get_mut(&key).filter(|cached| cached.letter.id == letter.id) else {
            return;
        };
        cached.letter = Arc::clone(letter);
        let len = letter.len() + cached.meta.as_ref().map_or(0, Bytes::len);
        self.len = self.len - std::mem::replace(&mut cached.len, len) + len;
        self.shrink();
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

    /// Reads the range's message and names; ends in [`Core::on_read`].
    pub(crate) fn load_for(&mut self, site: SiteKey, lane: Lane, range: Range) {
        self.load(Purpose::Deliver(site, lane), range);
    }

    /// Reads the range's message and names; ends in [`Core::take_returns`].
    pub(crate) fn load_return(&mut self, range: Range) {
        self.load(Purpose::Return, range);
    }

    /// Reads the range's message and names, to lend them to the home of the fetch.
    pub(crate) fn load_to_lend(&mut self, fetch: FetchId, range: Range) {
        self.load(Purpose::Lend(fetch), range);
    }

    /// Reads the range's names, then gives each of its recipients the verdict. One such read is under way at a time.
    pub(crate) fn load_to_conclude(&mut self, range: Range, verdict: Verdict) {
        if self.letters.is_concluding {
            self.letters.to_conclude.push_back((range, verdict));
            return;
        }
        self.letters.is_concluding = true;
        self.load(Purpose::Conclude(verdict), range);
    }

    fn load(&mut self, purpose: Purpose, range: Range) {
        let Some(queued) = self.store.get(range.message).copied() else {
            return self.load_failed(purpose, range, None);
        };
        let Some((_, file)) = self.logs.file_of(&queued) else {
            let missing = io::Error::new(io::ErrorKind::NotFound, "no segment holds the message");
            return self.load_failed(purpose, range, Some(missing));
        };
        let letter = self.letters.cached.get(&range.message).map(|cached| Arc::clone(&cached.letter));
        let has_letter = letter.is_some();
        let content = (queued.content_len == 0).then(Bytes::new);
        let parts = Parts { letter, content, ..Parts::default() };
        let load = Load { purpose, range, parts, pending: 0, failed: None, location: queued.location };
        let index = self.letters.loads.insert(load);
        let (meta_at, meta_len) = (queued.meta_offset(), queued.meta_len);
        let is_small = meta_len <= WINDOW_LEN;
        let head_len = if queued.layout().table { TABLE_HEAD_LEN } else { META_HEAD_LEN };
        let mut read = |part: Part, offset: u64, len: u32| {
            self.letters.loads[index].pending += 1;
            let place = u32::try_from(index).expect("few loads per site and lane") << 2 | part as u32;
            self.ring.read(token_of(Kind::Load, place), file, offset, len as usize);
        };
        if !has_letter || is_small {
            read(
                Part::Head,
                queued.location.offset(),
                HEAD_SPAN + if is_small { meta_len } else { head_len },
            );
        }
        if !has_letter && queued.content_len > 0 {
            read(Part::Content, queued.content_offset(), queued.content_len);
        }
        if !is_small {
            // No more than the range's names can be long.
            let names = range.count.saturating_mul(name_len_max(queued.layout())).min(WINDOW_LEN);
            read(
                Part::Names,
                meta_at + u64::from(range.name_offset),
                names.min(meta_len.saturating_sub(range.name_offset)),
            );
        }
    }

    pub(crate) fn on_read(&mut self, place: crate::core::Place, result: io::Result<Vec<u8>>) {
        let index = (place.index >> 2) as usize;
        let Some(load) = self.letters.loads.get_mut(index) else { return };
        load.pending -= 1;
        match (result.map(Bytes::from), place.index & 3) {
            (Ok(bytes), 0) => load.parts.head = Some(bytes),
            (Ok(bytes), 1) => load.parts.content = Some(bytes),
            (Ok(bytes), _) => load.parts.names = Some(bytes),
            (Err(error), _) => load.failed = Some(error),
        }
        if load.pending == 0 {
            let load = self.letters.loads.remove(index);
            self.finish_load(load);
        }
    }

    fn finish_load(&mut self, load: Load) {
        let Load { purpose, range, parts, failed, location, .. } = load;
        let queued = self.store.get(range.message).copied();
        if queued.is_some_and(|queued| queued.location != location) {
            // Copied elsewhere while it was read; its segment may be in another life already.
            return self.load(purpose, range);
        }
        match (queued.and_then(|queued| self.assemble(&queued, range, &parts)), purpose) {
            (Some(open), Purpose::Deliver(site, lane)) => {
                let open = self.first_part(site, open);
                self.sites.get_mut(site).lanes.get_mut(lane).push_open(open);
                self.load_is_over(&Purpose::Deliver(site, lane));
            }
            (Some(open), Purpose::Lend(fetch)) => {
                self.lend_read(fetch, open);
                self.load_is_over(&Purpose::Lend(fetch));
            }
            (Some(open), Purpose::Conclude(verdict)) => {
                self.load_is_over(&Purpose::Conclude(verdict.clone()));
                self.conclude_open(open, &verdict);
            }
            (Some(open), Purpose::Return) => {
                self.load_is_over(&Purpose::Return);
                self.take_returns(open);
            }
            (None, purpose) => {
                match queued.and_then(|queued| self.envelope_of_expired(&queued, range, &parts)) {
                    Some(open) => {
                        self.load_is_over(&purpose);
                        self.give_up_unread(open, failed);
                    }
                    None => self.load_failed(purpose, range, failed),
                }
            }
        }
    }

    /// Past its lifetime a message whose content cannot be read fails, if its envelope says whom to tell.
    fn give_up_unread(&mut self, open: OpenRange, error: Option<io::Error>) {
        tracing::error!(msg = %open.letter().id, ?error, "the message cannot be read back; its time is over, its sender is told");
        self.counters.damaged.add(1);
        let text = "delivery time expired, and the message can no longer be read";
        self.conclude_open(open, &Verdict::Failed(Reply::ours(554, (5, 4, 7), text)));
    }

    /// What was read is not what was written: it is set aside. What could not be read the disk may yield later: the
    /// message stays queued. That holds past its lifetime too if not even the envelope can be read: nobody knows whom
    /// to tell, so nothing but the operator ends it.
    fn load_failed(&mut self, purpose: Purpose, range: Range, error: Option<io::Error>) {
        self.load_is_over(&purpose);
        let Some(queued) = self.store.get(range.message).copied() else { return };
        let Some(error) = error else { return self.set_aside(&queued, range) };
        let (id, arrived) = (queued.id, queued.arrived());
        tracing::error!(msg = %id, %error, "the message cannot be read; it is tried again in an hour, or at the end of its lifetime");
        self.counters.damaged.add(1);
        let (again, expiry) = (self.wall.plus_secs(3600), self.settings.retry.expiry(arrived));
        self.wait_or_hold(range, if expiry > self.wall { again.min(expiry) } else { again });
    }

    /// Waits until `due`, without a mark; what an operator returned never goes out again, and is held.
    pub(crate) fn wait_or_hold(&mut self, range: Range, due: UnixMillis) {
        if range.reason == RETURNED { self.steering.hold(range) } else { self.schedule.push(range, due) }
    }

    fn load_is_over(&mut self, purpose: &Purpose) {
        match purpose {
            Purpose::Deliver(site, lane) => {
                self.sites.get_mut(*site).lanes.get_mut(*lane).load_is_over();
                self.sites.touch(*site);
            }
            Purpose::Return => self.returns.reading -= 1,
            Purpose::Lend(fetch) => self.go_on_lending(*fetch),
            Purpose::Conclude(_) => {
                self.letters.is_concluding = false;
                // Those whose names are at hand need no read.
                while !self.letters.is_concluding
                    && let Some((range, verdict)) = self.letters.to_conclude.pop_front()
                {
                    self.conclude_range(range, verdict);
                }
            }
        }
    }

    /// Checks what was read and puts it together.
    fn assemble(&mut self, queued: &Queued, range: Range, parts: &Parts) -> Option<OpenRange> {
        let letter = match &parts.letter {
            Some(letter) => Arc::clone(letter),
            None => Arc::new(self.letter_of(queued, parts, parts.content.clone()?)?),
        };
        let open = open_of(queued, range, letter, parts)?;
        let window = (queued.meta_len <= WINDOW_LEN).then(|| open.window().clone());
        self.letters.insert(range.message, Arc::clone(open.letter()), window);
        Some(open)
    }

    fn letter_of(&mut self, queued: &Queued, parts: &Parts, content: Bytes) -> Option<Letter> {
        let head = parts.head_of(queued)?;
        if content.len() != head.content_len as usize || checksum(&content) != head.content_crc {
            return None;
        }
        let number = queued
            .campaign()
            .filter(|number| self.campaign(*number).is_some_and(|one| one.may_own(queued.arrived())));
        let pattern = self.pattern_of_campaign(number.filter(|_| content.is_empty()));
        let content = self.content_of_campaign(number, content);
        // Nobody is sent nothing: its campaign's folder is gone.
        let letter = envelope_of(queued, parts, content).filter(|letter| !letter.is_empty())?;
        let list = self.list_of_campaign(number);
        Some(letter.with_pattern(pattern).with_list(list.as_deref()))
    }

    /// What a bounce needs of a message past its lifetime: all but the content. Not kept: nothing may deliver it.
    fn envelope_of_expired(&self, queued: &Queued, range: Range, parts: &Parts) -> Option<OpenRange> {
        if !self.settings.retry.is_over(queued.arrived(), self.wall) {
            return None;
        }
        open_of(queued, range, Arc::new(envelope_of(queued, parts, Bytes::new())?), parts)
    }
}

impl Parts {
    /// The meta part, or its beginning if it is longer than a window.
    fn meta(&self) -> Option<Bytes> {
        self.head.as_ref().map(|bytes| bytes.slice(HEAD_LEN.min(bytes.len())..))
    }

    /// The meta part, if it is as it was written.
    fn whole_meta(&self, queued: &Queued) -> Option<Bytes> {
        let (head, meta) = (self.head_of(queued)?, self.meta()?);
        (meta.len() == head.meta_len as usize && checksum(&meta) == head.meta_crc).then_some(meta)
    }

    fn head_of(&self, queued: &Queued) -> Option<Head> {
        let head = Head::decode(self.head.as_ref()?)?;
        (head.id == queued.id && head.content_len == queued.content_len).then_some(head)
    }
}

fn open_of(queued: &Queued, range: Range, letter: Arc<Letter>, parts: &Parts) -> Option<OpenRange> {
    let is_small = queued.meta_len <= WINDOW_LEN;
    // Of a long list only a window is here; its meta part was checked when the message was taken up.
    let (window, offset) =
        if is_small { (parts.whole_meta(queued)?, 0) } else { (parts.names.clone()?, range.name_offset) };
    let open = OpenRange::new(range, letter, window, offset);
    // A window without the name it was read for is no window.
    open.clone().next_name()?;
    Some(open)
}

/// `content` is not looked at.
fn envelope_of(queued: &Queued, parts: &Parts, content: Bytes) -> Option<Letter> {
    parts.head_of(queued)?;
    let meta = parts.meta()?;
    let parsed = Meta::parse(&meta, queued.layout())?;
    let (sender, content) = ((parsed.reverse_path()?, parsed.verp), (content, queued.facts));
    let letter = Letter::new((queued.id, queued.arrived()), sender, content, queued.handling());
    Some(letter.with_meta(queued.layout(), parsed.asked(), parsed.columns))
}
