//! Sharing a fan-out between cores: a busy core lends chunks of a long list, idle cores take them.
//!
//! A borrowed chunk carries letter and names, so the borrower reads nothing; it marks what it delivers in its own
//! journal, reports the chunk when those marks are durable, and forgets it when the owner has noted the report
//! durably. Urgent mail is also handed to a core that is not idle, if that one has the connections.
//! Bounds: [`BORROWED_MAX`] chunks at work per borrower besides what was handed to it, [`LENT_MAX`] out per owner and
//! as many again handed over, and what clients fetch (`drive/fetch`); `share_len` recipients each.

use crate::clock::Clock;
use crate::core::{Core, Stop};
use crate::crossing::{Chunk, ChunkReport, Mail};
use crate::domains::SiteKey;
use message::{Lane, MessageId, UnixMillis};
use queue::fanout::{Letter, OpenRange};
use queue::journal::{Mark, Position, Span, Waiting};
use queue::{MessageKey, Range};
use ring::Ring;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// Chunks that a core has at work for others.
const BORROWED_MAX: usize = 8;

/// Chunks that a core has out.
const LENT_MAX: usize = 64;

/// Busy sites that are looked at for something to lend, in one turn and lane.
const LEND_LOOKS: usize = 64;

/// Fewer recipients than this are not worth the letters that a crossing takes.
const CHUNK_MIN: u32 = 32;

/// Marks a message's number as that of a borrowed chunk.
const BORROWED: u32 = 1 << 31;

pub(crate) fn is_borrowed(key: MessageKey) -> bool {
    key.0 & BORROWED != 0
}

#[derive(Debug)]
struct Borrowed {
    owner: usize,
    lent: u32,
    id: MessageId,
    open: OpenRange,
    left: u32,
    settled: Vec<(u32, u32)>,
    waiting: Vec<Waiting>,
    has_reported: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    lent: Slab<Range>,
    borrowed: Slab<Borrowed>,
    at_work: usize,
    /// Chunks whose last mark was made, and where it stands.
    done: VecDeque<(Position, usize)>,
    /// Reports taken over into this core's journal; their borrowers may forget them once that is durable.
    noted: VecDeque<(Position, usize, u32)>,
    /// Letters that a full mailbox did not take.
    unsent: VecDeque<(usize, Mail)>,
    is_idle: bool,
    /// Where to look next for something to lend.
    lend_from: SiteKey,
}

impl Shares {
    /// What others have of ours.
    pub(crate) fn lent(&self) -> impl Iterator<Item = &Range> {
        self.lent.iter().map(|(_, range)| range)
    }

    fn get(&self, key: MessageKey) -> Option<&Borrowed> {
        is_borrowed(key).then(|| self.borrowed.get((key.0 & !BORROWED) as usize)).flatten()
    }

    pub(crate) fn letter(&self, key: MessageKey) -> Option<&Arc<Letter>> {
        self.get(key).map(|borrowed| borrowed.open.letter())
    }

    /// A borrowed range with its names.
    pub(crate) fn open(&self, range: Range) -> Option<OpenRange> {
        let open = &self.get(range.message)?.open;
        let (window, offset) = open.window_from();
        Some(OpenRange::new(range, Arc::clone(open.letter()), window.clone(), offset))
    }

    fn borrowed(&mut self, key: MessageKey) -> &mut Borrowed {
        &mut self.borrowed[(key.0 & !BORROWED) as usize]
    }

    /// One recipient of a borrowed chunk is settled; its id, for the mark.
    pub(crate) fn settle(&mut self, range: Range) -> MessageId {
        let borrowed = self.borrowed(range.message);
        match borrowed.settled.last_mut() {
            Some((first, count)) if *first + *count == range.first => *count += 1,
            Some(_) | None => borrowed.settled.push((range.first, 1)),
        }
        borrowed.left -= 1;
        borrowed.id
    }

    /// Recipients of a borrowed chunk go back to wait with their owner.
    pub(crate) fn defer(&mut self, range: Range, due: UnixMillis) -> Waiting {
        let borrowed = self.borrowed(range.message);
        let span = Span { id: borrowed.id, first: range.first, count: range.count };
        let waiting = Waiting { span, name_offset: range.name_offset, attempts: range.attempts, due };
        borrowed.waiting.push(waiting);
        borrowed.left -= range.count;
        waiting
    }

    /// True if chunks of other cores are at work here.
    pub(crate) fn has_borrowed(&self) -> bool {
        self.at_work > 0
    }

    pub(crate) fn forget_borrowed(&mut self, borrowed: u32) {
        self.borrowed.try_remove(borrowed as usize);
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// Lends when others are idle, borrows when this core is.
    pub(crate) fn run_shares(&mut self) {
        if self.crossing.cores() == 1 {
            return;
        }
        self.send_unsent();
        self.collect_done();
        if self.stop != Stop::Running || self.halted {
            return;
        }
        self.lend();
        self.borrow_chunks();
    }

    fn send_unsent(&mut self) {
        while let Some((core, mail)) = self.shares.unsent.pop_front() {
            if let Err(mail) = self.crossing.send(core, mail) {
                self.shares.unsent.push_front((core, mail));
                return;
            }
        }
    }

    fn lend(&mut self) {
        let share_len = self.settings.config.delivery.share_len;
        if !self.crossing.has_idle_core(self.index)
            || self.crossing.chunks_on_offer() >= 2 * self.crossing.cores()
        {
            return;
        }
        // Bulk first: it is what makes a core busy, and what is urgent is quicker where it is.
        for lane in Lane::ALL.into_iter().rev() {
            self.lend_of(lane, share_len);
        }
    }

    fn lend_of(&mut self, lane: Lane, share_len: u32) {
        for key in self.sites.busy_from(self.shares.lend_from, LEND_LOOKS) {
            self.shares.lend_from = SiteKey(key.0.wrapping_add(1));
            // Where it would be held, or where this core alone has the connection.
            let way = self.ways.get(self.sites.get(key).way);
            if way.terms.is_held || way.fetch.is_some() {
                continue;
            }
            while self.shares.lent.len() < LENT_MAX
                && self.crossing.chunks_on_offer() < 2 * self.crossing.cores()
            {
                let Some(part) = self.part_to_lend((key, lane), share_len) else { break };
                let chunk = self.chunk_of(part);
                self.crossing.offer_chunk(chunk);
            }
        }
    }

    /// The part is lent from here on.
    pub(crate) fn chunk_of(&mut self, part: OpenRange) -> Chunk {
        let range = part.range();
        let lent = u32::try_from(self.shares.lent.insert(range)).expect("a few for each who borrows");
        let domain = Arc::clone(&self.domains.get(range.domain).queued);
        Chunk { owner: self.index, lent, domain, open: part }
    }

    /// Other cores have all the connections that the site may have, perhaps for as long as a list of theirs lasts:
    /// what is urgent goes to one of them rather than wait for a connection of our own.
    pub(crate) fn hand_over_urgent(&mut self, key: SiteKey) {
        while self.shares.lent.len() < 2 * LENT_MAX
            && let Some(holder) = self.sites.get(key).pace.site().holder(self.index)
            && let Some(part) = self.urgent_part(key)
        {
            let chunk = self.chunk_of(part);
            self.shares.unsent.push_back((holder, Mail::Chunk(chunk)));
        }
        self.send_unsent();
    }

    /// Behind what waits for that core's mailbox already.
    pub(crate) fn send_in_order(&mut self, core: usize, mail: Mail) {
        self.shares.unsent.push_back((core, mail));
        self.send_unsent();
    }

    /// The first urgent range or its beginning, if it is ours and in memory.
    fn urgent_part(&mut self, key: SiteKey) -> Option<OpenRange> {
        let share_len = self.settings.config.delivery.share_len;
        let urgent = self.sites.get_mut(key).lanes.get_mut(Lane::Urgent);
        let (flow, range) = urgent.first_waiting(|range| !is_borrowed(range.message))?;
        let mut open = self.open_now(range)?;
        let part = open.split(share_len)?;
        self.sites.get_mut(key).lanes.get_mut(Lane::Urgent).replace_first(flow, open.range());
        Some(part)
    }

    /// A stretch of one of the lane's open ranges, or a whole one that waits behind them, if it is worth the crossing.
    fn part_to_lend(&mut self, (key, lane): (SiteKey, Lane), share_len: u32) -> Option<OpenRange> {
        let waiting = self.sites.get_mut(key).lanes.get_mut(lane);
        let is_fit = |min| move |range: &Range| !is_borrowed(range.message) && range.count >= min;
        if let Some(open) = waiting.first_open(is_fit(2 * CHUNK_MIN)) {
            return open.split(share_len.min(open.range().count / 2));
        }
        let (flow, range) = waiting.last_waiting(is_fit(CHUNK_MIN))?;
        let mut open = self.open_now(range)?;
        let part = open.split(share_len)?;
        self.sites.get_mut(key).lanes.get_mut(lane).replace_last(flow, open.range());
        Some(part)
    }

    fn borrow_chunks(&mut self) {
        let has_time =
            self.shares.at_work < BORROWED_MAX && (self.shares.at_work > 0 || !self.sites.have_work());
        if has_time != self.shares.is_idle {
            self.shares.is_idle = has_time;
            self.crossing.set_idle(self.index, has_time);
        }
        while has_time && self.shares.at_work < BORROWED_MAX {
            let Some(chunk) = self.crossing.take_chunk() else { return };
            self.borrow(chunk);
        }
    }

    /// A chunk that no core has had time for, so that it does not wait for ever while all are busy.
    pub(crate) fn take_waiting_chunk(&mut self) {
        if self.shares.at_work < BORROWED_MAX
            && let Some(chunk) = self.crossing.take_chunk()
        {
            self.borrow(chunk);
        }
    }

    /// The owner itself takes a chunk back in the same way, if it is first.
    pub(crate) fn borrow(&mut self, chunk: Chunk) {
        let range = self.take_in(chunk);
        self.offer_range(range);
    }

    /// A range that is another core's, for this one to deliver.
    pub(crate) fn take_in(&mut self, chunk: Chunk) -> Range {
        let Chunk { owner, lent, domain, open } = chunk;
        self.counters.chunks_borrowed.add(1);
        let mut range = open.range();
        let id = open.letter().id;
        let borrowed = Borrowed {
            owner,
            lent,
            id,
            open,
            left: range.count,
            settled: Vec::new(),
            waiting: Vec::new(),
            has_reported: false,
        };
        let index = u32::try_from(self.shares.borrowed.insert(borrowed)).expect("few chunks");
        self.shares.at_work += 1;
        range.message = MessageKey(BORROWED | index);
        // A key into the owner's table of reasons says nothing here.
        range.reason = 0;
        range.domain = self.domains.owe(&domain, range.count);
        range
    }

    /// Chunks with nothing left wait for their marks to be durable.
    fn collect_done(&mut self) {
        let position = self.journal.journal.position();
        let mut done = Vec::new();
        for (index, borrowed) in &mut self.shares.borrowed {
            if borrowed.left == 0 && !borrowed.has_reported {
                borrowed.has_reported = true;
                done.push((position, index));
            }
        }
        if done.is_empty() {
            return;
        }
        self.shares.at_work -= done.len();
        self.shares.done.extend(done);
        // Their marks may be durable already.
        self.report_shares();
    }

    /// Marks became durable: report chunks, let borrowers forget theirs.
    pub(crate) fn report_shares(&mut self) {
        while let Some((position, index)) = self.shares.done.front().copied()
            && self.journal.is_durable(position)
        {
            self.shares.done.pop_front();
            let borrowed = &mut self.shares.borrowed[index];
            let report = ChunkReport {
                lent: borrowed.lent,
                borrower: self.index,
                borrowed: u32::try_from(index).expect("few chunks"),
                id: borrowed.id,
                settled: borrowed.settled.clone(),
                waiting: borrowed.waiting.clone(),
            };
            let owner = borrowed.owner;
            self.shares.unsent.push_back((owner, Mail::ChunkDone(report)));
        }
        while let Some((position, borrower, borrowed)) = self.shares.noted.front().copied()
            && self.journal.is_durable(position)
        {
            self.shares.noted.pop_front();
            self.shares.unsent.push_back((borrower, Mail::ChunkNoted { borrowed }));
        }
        self.send_unsent();
    }

    /// A chunk of ours came back: what was done with it goes into our own journal.
    pub(crate) fn on_chunk_done(&mut self, report: ChunkReport) {
        let Some(range) = self.shares.lent.try_remove(report.lent as usize) else { return };
        for (first, count) in report.settled {
            self.mark(&Mark::Settled(Span { id: report.id, first, count }));
            self.settle_domain(range.domain, count);
            self.settle_own(range, count);
        }
        for waiting in report.waiting {
            let Waiting { span, name_offset, attempts, due } = waiting;
            self.mark(&Mark::Deferred(waiting));
            // Why is known to the borrower only.
            let reason = 0;
            let (first, count) = (span.first, span.count);
            self.schedule.push(Range { first, count, name_offset, attempts, reason, ..range }, due);
        }
        self.shares.noted.push_back((self.journal.journal.position(), report.borrower, report.borrowed));
    }

    /// What a new journal must say again of other cores' mail, until they have noted it.
    pub(crate) fn mark_borrowed(&mut self) {
        let marks: Vec<Mark> = self
            .shares
            .borrowed
            .iter()
            .flat_map(|(_, borrowed)| {
                let settled = borrowed.settled.iter().map(|(first, count)| {
                    Mark::Settled(Span { id: borrowed.id, first: *first, count: *count })
                });
                settled
                    .chain(borrowed.waiting.iter().map(|waiting| Mark::Deferred(*waiting)))
                    .collect::<Vec<_>>()
            })
            .collect();
        for mark in &marks {
            self.mark(mark);
        }
    }
}
