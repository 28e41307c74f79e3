//! One lane of a site: its flows take turns, so that a campaign of ten messages does not wait for one of a hundred
//! thousand, and nobody gets more of a site by sending more at once.
//!
//! Deficit round robin, counted in recipients: the flow at the front is handed out until it has had [`QUANTUM`], then
//! goes behind the others; what one transaction took beyond that is taken off its next turns. A flow is in one of two
//! queues: *ready* if names of it are at hand, *unread* if all its ranges must be read. Reads are begun in turns too,
//! and before anything is handed out, so that a flow whose messages are on disk comes to its turn as those do that are
//! in memory. Within a flow ranges keep the order in which they came, and the windows of long ones take turns. Pure.
//! Bounds: 256 flows; a range takes 24 bytes; an idle flow keeps room for [`IDLE_RANGES_MAX`] of them.

use message::Flow;
use queue::Range;
use queue::fanout::OpenRange;
use std::collections::VecDeque;

/// Recipients that a flow gets in one turn. Few, so that a small campaign comes soon; a transaction with more takes
/// several turns at once and waits for as many.
const QUANTUM: i32 = 16;

/// Reads under way for a lane: enough to keep the disk busy while connections wait for a backlog of single messages.
pub(super) const LOADS_MAX: u32 = 16;

/// While this many octets of contents are being read for a lane, no further read begins.
const LOADS_LEN_MAX: u64 = 256 << 10;

/// Ranges for which a flow without work keeps memory.
const IDLE_RANGES_MAX: usize = 64;

/// What is ready of one flow.
#[derive(Debug, Default)]
struct FlowQueue {
    flow: Flow,
    listed: Listed,
    /// Recipients that may be handed out before others have their turn; below 0 it had more than its part.
    credit: i32,
    ranges: VecDeque<Range>,
    /// Ranges whose names are at hand; the first is handed out.
    open: VecDeque<OpenRange>,
}

/// Where a flow queues for its turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Listed {
    #[default]
    Nowhere,
    Ready,
    Unread,
}

impl FlowQueue {
    fn belongs(&self) -> Listed {
        match (self.open.is_empty(), self.ranges.is_empty()) {
            (false, _) => Listed::Ready,
            (true, false) => Listed::Unread,
            (true, true) => Listed::Nowhere,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LaneQueue {
    /// Each in its place for as long as it has work; a place without work is taken by the next new flow.
    flows: Vec<FlowQueue>,
    /// Places in `flows`. The first has its turn.
    ready: VecDeque<u8>,
    unread: VecDeque<u8>,
    /// Ranges whose names and contents are being read, and the octets of these contents, until all have come.
    loads: u32,
    loads_len: u64,
}

impl LaneQueue {
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.unread.is_empty()
    }

    /// No work, and no read under way.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_work() && self.loads == 0
    }

    /// True if a delivery can be had from it, or a read begun.
    pub(super) fn is_takeable(&self) -> bool {
        !self.ready.is_empty() || (self.may_load() && !self.unread.is_empty())
    }

    fn may_load(&self) -> bool {
        self.loads == 0 || (self.loads < LOADS_MAX && self.loads_len < LOADS_LEN_MAX)
    }

    pub(crate) fn load_begins(&mut self, content_len: u32) {
        (self.loads, self.loads_len) = (self.loads + 1, self.loads_len + u64::from(content_len));
    }

    pub(crate) fn load_is_over(&mut self) {
        self.loads -= 1;
        if self.loads == 0 {
            self.loads_len = 0;
        }
    }

    // ---- what comes ----

    pub(crate) fn push_back(&mut self, flow: Flow, range: Range) {
        let place = self.place_of(flow);
        self.flows[place].ranges.push_back(range);
        self.list(place);
    }

    pub(crate) fn push_front(&mut self, flow: Flow, range: Range) {
        let place = self.place_of(flow);
        self.flows[place].ranges.push_front(range);
        self.list(place);
    }

    /// Names of the range are at hand.
    pub(crate) fn push_open(&mut self, open: OpenRange) {
        let place = self.place_of(open.letter().class.flow);
        self.flows[place].open.push_back(open);
        self.list(place);
    }

    /// Cost: a look at each of the lane's flows, mostly one.
    fn place_of(&mut self, flow: Flow) -> usize {
        if let Some(place) = self.flows.iter().position(|known| known.flow == flow) {
            return place;
        }
        if let Some(place) = self.flows.iter().position(|known| known.listed == Listed::Nowhere) {
            self.flows[place].flow = flow;
            self.flows[place].credit = 0;
            return place;
        }
        self.flows.push(FlowQueue { flow, ..FlowQueue::default() });
        self.flows.len() - 1
    }

    /// Lets a flow queue where it belongs now. One that is in the midst of its turn goes on with it.
    fn list(&mut self, place: usize) {
        let flow = &mut self.flows[place];
        let belongs = flow.belongs();
        let was = std::mem::replace(&mut flow.listed, belongs);
        if was == belongs {
            return;
        }
        let is_in_turn = flow.credit > 0;
        let index = u8::try_from(place).expect("there are 256 flows");
        match was {
            Listed::Ready => remove(&mut self.ready, index),
            Listed::Unread => remove(&mut self.unread, index),
            Listed::Nowhere => {}
        }
        match belongs {
            Listed::Ready if is_in_turn => self.ready.push_front(index),
            Listed::Ready => self.ready.push_back(index),
            Listed::Unread if is_in_turn => self.unread.push_front(index),
            Listed::Unread => self.unread.push_back(index),
            Listed::Nowhere => self.rest(place),
        }
    }

    /// A flow without work gives memory back. What is left of its turn stays, for its last message is being read perhaps.
    fn rest(&mut self, place: usize) {
        let flow = &mut self.flows[place];
        flow.ranges.shrink_to(IDLE_RANGES_MAX);
        if !self.has_work() {
            self.flows.truncate(1);
        }
    }

    // ---- what goes ----

    /// The next range that must be read or opened, if that may begin; its flow goes behind the others that wait for
    /// reads.
    pub(crate) fn take_unread(&mut self) -> Option<Range> {
        if !self.may_load() {
            return None;
        }
        let place = usize::from(*self.unread.front()?);
        let range = self.flows[place].ranges.pop_front();
        self.unread.rotate_left(1);
        self.list(place);
        range
    }

    /// The open range whose turn it is. Amortised: one step for each [`QUANTUM`] recipients that were handed out.
    pub(crate) fn open_front(&mut self) -> Option<&mut OpenRange> {
        loop {
            let place = usize::from(*self.ready.front()?);
            let flow = &mut self.flows[place];
            if flow.credit <= 0 && self.ready.len() > 1 {
                flow.credit += QUANTUM;
            } else if flow.credit <= 0 {
                // Nobody else is here who could have had less.
                flow.credit = QUANTUM;
            }
            if flow.credit > 0 {
                return self.flows[place].open.front_mut();
            }
            self.ready.rotate_left(1);
        }
    }

    /// `count` recipients of the range whose turn it is were handed out; `is_over` if no more of its names are at hand: what is
    /// left of it queues up behind the others of its flow.
    pub(crate) fn note_handed_out(&mut self, count: usize, is_over: bool) {
        let Some(place) = self.ready.front().map(|place| usize::from(*place)) else { return };
        let flow = &mut self.flows[place];
        flow.credit -= i32::try_from(count).unwrap_or(i32::MAX / 2);
        if flow.credit <= 0 {
            self.ready.rotate_left(1);
        }
        if is_over
            && let Some(open) = flow.open.pop_front()
            && !open.is_done()
        {
            flow.ranges.push_back(open.range());
        }
        self.list(place);
    }

    /// Takes out what is left of the open range whose turn it is.
    pub(crate) fn take_open_front(&mut self) -> Option<Range> {
        let place = usize::from(*self.ready.front()?);
        let open = self.flows[place].open.pop_front();
        self.list(place);
        open.map(|open| open.range())
    }

    /// The first open range that is fit, by turns of the flows: part of it may be lent to another core.
    pub(crate) fn first_open(&mut self, is_fit: impl Fn(&Range) -> bool) -> Option<&mut OpenRange> {
        let has_fit = |flow: &FlowQueue| flow.open.front().is_some_and(|open| is_fit(&open.range()));
        let place = self.ready.iter().find(|place| has_fit(&self.flows[usize::from(**place)]))?;
        self.flows[usize::from(*place)].open.front_mut()
    }

    /// The first fit range that waits at the front of its flow, unread flows before those that are at work.
    pub(crate) fn first_waiting(&self, is_fit: impl Fn(&Range) -> bool) -> Option<(Flow, Range)> {
        let first = |flow: &FlowQueue| flow.ranges.front().copied().filter(&is_fit);
        self.listed().find_map(|flow| Some((flow.flow, first(flow)?)))
    }

    /// As [`LaneQueue::first_waiting`], at the back of its flow.
    pub(crate) fn last_waiting(&self, is_fit: impl Fn(&Range) -> bool) -> Option<(Flow, Range)> {
        let last = |flow: &FlowQueue| flow.ranges.back().copied().filter(&is_fit);
        self.listed().find_map(|flow| Some((flow.flow, last(flow)?)))
    }

    fn listed(&self) -> impl Iterator<Item = &FlowQueue> {
        self.unread.iter().chain(&self.ready).map(|place| &self.flows[usize::from(*place)])
    }

    /// Replaces the flow's first range, if there is anything left of it.
    pub(crate) fn replace_first(&mut self, flow: Flow, rest: Range) {
        let place = self.place_of(flow);
        self.flows[place].ranges.pop_front();
        if rest.count > 0 {
            self.flows[place].ranges.push_front(rest);
        }
        self.list(place);
    }

    pub(crate) fn replace_last(&mut self, flow: Flow, rest: Range) {
        let place = self.place_of(flow);
        self.flows[place].ranges.pop_back();
        if rest.count > 0 {
            self.flows[place].ranges.push_back(rest);
        }
        self.list(place);
    }

    // ---- sweeps ----

    /// Ranges whose names are not at hand.
    pub(super) fn waiting(&self) -> usize {
        self.flows.iter().map(|flow| flow.ranges.len()).sum()
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &OpenRange> {
        self.flows.iter().flat_map(|flow| &flow.open)
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.flows
            .iter()
            .flat_map(|flow| flow.open.iter().map(OpenRange::range).chain(flow.ranges.iter().copied()))
    }

    /// All that waits of the first flow from number `from` on that has work, and with `even_open` what is open of it, in
    /// front. The flow keeps room for all to come back.
    pub(crate) fn take_flow(&mut self, from: u8, even_open: bool) -> Option<(Flow, VecDeque<Range>)> {
        let has_work = |flow: &FlowQueue| flow.flow.0 >= from && flow.listed != Listed::Nowhere;
        let flows = self.flows.iter().enumerate().filter(|(_, flow)| has_work(flow));
        let (place, number) = flows.map(|(place, flow)| (place, flow.flow)).min_by_key(|(_, flow)| *flow)?;
        let flow = &mut self.flows[place];
        let mut ready = std::mem::take(&mut flow.ranges);
        if even_open {
            flow.open.drain(..).rev().for_each(|open| ready.push_front(open.range()));
        }
        self.list(place);
        if let Some(flow) = self.flows.get_mut(place) {
            // Address space only, and no copying as it fills.
            flow.ranges = VecDeque::with_capacity(ready.len());
        }
        Some((number, ready))
    }

    /// Takes out what `is_due` says of `most` ranges from place `from` on, counted through the flows. Returns how many it
    /// looked at: fewer at the end of a flow. The others keep their order.
    pub(crate) fn take_out(
        &mut self,
        from: usize,
        most: usize,
        is_due: impl Fn(&Range) -> bool,
        out: &mut Vec<Range>,
    ) -> usize {
        let mut from = from;
        for place in 0..self.flows.len() {
            let len = self.flows[place].ranges.len();
            if from < len {
                let looked = take_out_of(&mut self.flows[place].ranges, (from, most), is_due, out);
                self.list(place);
                return looked;
            }
            from -= len;
        }
        0
    }

    /// As [`LaneQueue::take_out`], of all that wait and of those whose names are at hand.
    pub(crate) fn take_out_all(&mut self, is_due: impl Fn(&Range) -> bool, out: &mut Vec<Range>) {
        for place in 0..self.flows.len() {
            take_out_of(&mut self.flows[place].ranges, (0, usize::MAX), &is_due, out);
        }
        self.take_out_open(is_due, out);
    }

    /// As [`LaneQueue::take_out`], of those whose names are at hand.
    pub(crate) fn take_out_open(&mut self, is_due: impl Fn(&Range) -> bool, out: &mut Vec<Range>) {
        for flow in &mut self.flows {
            flow.open.retain(|open| {
                let goes = is_due(&open.range());
                out.extend(goes.then_some(open.range()));
                !goes
            });
        }
        for place in (0..self.flows.len()).rev() {
            self.list_if_there(place);
        }
    }

    /// The lane may forget idle places as it goes.
    fn list_if_there(&mut self, place: usize) {
        if place < self.flows.len() {
            self.list(place);
        }
    }
}

/// From a queue of turns: mostly the first or the last.
fn remove(queue: &mut VecDeque<u8>, place: u8) {
    if queue.front() == Some(&place) {
        queue.pop_front();
    } else if queue.back() == Some(&place) {
        queue.pop_back();
    } else {
        queue.retain(|other| *other != place);
    }
}

fn take_out_of(
    ranges: &mut VecDeque<Range>,
    (from, most): (usize, usize),
    is_due: impl Fn(&Range) -> bool,
    out: &mut Vec<Range>,
) -> usize {
    let end = ranges.len().min(from.saturating_add(most));
    if !ranges.range(from..end).any(&is_due) {
        return end - from;
    }
    ranges.rotate_left(from);
    let (due, kept): (Vec<Range>, Vec<Range>) = ranges.drain(..end - from).partition(&is_due);
    for range in kept.into_iter().rev() {
        ranges.push_front(range);
    }
    ranges.rotate_right(from);
    out.extend(due);
    end - from
}
