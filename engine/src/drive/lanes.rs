//! What is ready for one site, in lanes: urgent mail goes before normal, normal before bulk, and none waits for ever.
//!
//! Each lane has ranges of its own, names at hand of its own and reads of its own, so that nothing of a bulk list, not
//! even the disk reading its next window, stands before an urgent message. Within a lane campaigns take turns
//! ([`flows`]). Pure. Bound: as many ranges as are owed; a lane reads 16 small messages at a time, or one large.

pub(crate) mod flows;

use flows::LaneQueue;
use message::{Flow, Lane};
use queue::Range;
use queue::fanout::OpenRange;

/// Every so many picks one goes to the next lower lane that has work, and every so many of those one goes lower
/// still. At 8 a flood of urgent mail costs it an eighth of the connections at most, and the lane below it still moves
/// at a seventh of its speed, so that no message comes near its lifetime for want of a turn.
const STEP_DOWN: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: [LaneQueue; Lane::ALL.len()],
    /// Picks so far.
    picks: u32,
}

impl Lanes {
    pub(crate) fn get_mut(&mut self, lane: Lane) -> &mut LaneQueue {
        &mut self.lanes[lane.index()]
    }

    pub(crate) fn each_mut(&mut self) -> impl Iterator<Item = &mut LaneQueue> {
        self.lanes.iter_mut()
    }

    /// Behind what its flow has already.
    pub(crate) fn push_back(&mut self, (lane, flow): (Lane, Flow), range: Range) {
        self.lanes[lane.index()].push_back(flow, range);
    }

    /// No attempt was made of it: before what its flow has already.
    pub(crate) fn push_front(&mut self, (lane, flow): (Lane, Flow), range: Range) {
        self.lanes[lane.index()].push_front(flow, range);
    }

    /// Ranges whose names are not at hand, over all lanes.
    pub(crate) fn waiting(&self) -> usize {
        self.lanes.iter().map(LaneQueue::waiting).sum()
    }

    pub(crate) fn open_ranges(&self) -> impl Iterator<Item = Range> {
        self.lanes.iter().flat_map(|lane| lane.open().map(OpenRange::range))
    }

    /// Takes out what `is_due` says of `most` ranges from place `from` on, counted through all lanes, and, if that is the
    /// first, of the open ones. Returns how many it looked at: it may be fewer at the end of a flow.
    pub(crate) fn take_out(
        &mut self,
        from: usize,
        most: usize,
        is_due: impl Fn(&Range) -> bool,
    ) -> (usize, Vec<Range>) {
        let (mut out, mut from) = (Vec::new(), from);
        if from == 0 {
            self.lanes.iter_mut().for_each(|lane| lane.take_out_open(&is_due, &mut out));
        }
        for lane in &mut self.lanes {
            let waiting = lane.waiting();
            if from < waiting {
                return (lane.take_out(from, most, is_due, &mut out), out);
            }
            from -= waiting;
        }
        (0, out)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.lanes.iter().any(LaneQueue::has_work)
    }

    /// No work, and no read under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_empty())
    }

    /// Recipients that are ready, and whether that is all: ranges behind the first `most` count one recipient each.
    pub(crate) fn count(&self, most: usize) -> (u64, bool) {
        let ranges = self.waiting() + self.open_ranges().count();
        let counted: u64 = self.ranges().take(most).map(|range| u64::from(range.count)).sum();
        (counted + ranges.saturating_sub(most) as u64, ranges <= most)
    }

    /// True if more than `count` recipients are ready. Looks at no more ranges than it must.
    pub(crate) fn has_more_than(&self, count: u32) -> bool {
        let mut sum = 0u32;
        self.ranges().any(|range| {
            sum = sum.saturating_add(range.count);
            sum > count
        })
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> {
        self.lanes.iter().flat_map(LaneQueue::ranges)
    }

    /// The lane whose turn it is, of those that have something. Three look-ups, no allocation.
    pub(crate) fn next(&self) -> Option<Lane> {
        let mut takeable = Lane::ALL.into_iter().filter(|lane| self.lanes[lane.index()].is_takeable());
        let mut found = takeable.next()?;
        let mut turn = self.picks;
        while turn % STEP_DOWN == STEP_DOWN - 1
            && let Some(lower) = takeable.next()
        {
            (found, turn) = (lower, turn / STEP_DOWN);
        }
        Some(found)
    }

    /// The names of one transaction were handed out: the next has its turn.
    pub(crate) fn note_pick(&mut self) {
        self.picks = self.picks.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
