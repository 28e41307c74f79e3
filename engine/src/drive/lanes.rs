//! What is ready for one site, in lanes: urgent mail goes before normal, normal before bulk, and none waits for ever.
//!
//! Each lane has ranges of its own, names at hand of its own and a read of its own, so that nothing of a bulk list, not
//! even the disk reading its next window, stands before an urgent message. Within a lane the windows of its ranges
//! take turns. Pure. Bound: as many ranges as are owed; a lane reads 16 small messages at a time, or one large.

use message::Lane;
use queue::Range;
use queue::fanout::OpenRange;
use std::collections::VecDeque;

/// Every so many picks one goes to the next lower lane that has work, and every so many of those one goes lower
/// still. At 8 a flood of urgent mail costs it an eighth of the connections at most, and the lane below it still moves
/// at a seventh of its speed, so that no message comes near its lifetime for want of a turn.
const STEP_DOWN: u32 = 8;

/// The work of one lane.
#[derive(Debug, Default)]
pub(crate) struct LaneQueue {
    pub(crate) ranges: VecDeque<Range>,
    /// Ranges whose names are at hand; the first is handed out.
    pub(crate) open: VecDeque<OpenRange>,
    /// Ranges whose names and contents are being read, and the octets of these contents, until all have come.
    loads: u32,
    loads_len: u64,
}

/// Reads under way for a lane: enough to keep the disk busy while connections wait for a backlog of single messages.
const LOADS_MAX: u32 = 16;

/// While this many octets of contents are being read for a lane, no further read begins.
const LOADS_LEN_MAX: u64 = 256 << 10;

impl LaneQueue {
    fn has_work(&self) -> bool {
        !self.open.is_empty() || !self.ranges.is_empty()
    }

    /// True if a delivery can be had from it, or a read begun.
    fn is_takeable(&self) -> bool {
        !self.open.is_empty() || (self.may_load() && !self.ranges.is_empty())
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

    /// Takes out what `is_due` says of `most` ranges from place `from` on. Returns how many it looked at. The others
    /// keep their order.
    pub(crate) fn take_out(
        &mut self,
        from: usize,
        most: usize,
        is_due: impl Fn(&Range) -> bool,
        out: &mut Vec<Range>,
    ) -> usize {
        let end = self.ranges.len().min(from.saturating_add(most));
        if !self.ranges.range(from..end).any(&is_due) {
            return end - from;
        }
        self.ranges.rotate_left(from);
        let (due, kept): (Vec<Range>, Vec<Range>) = self.ranges.drain(..end - from).partition(&is_due);
        for range in kept.into_iter().rev() {
            self.ranges.push_front(range);
        }
        self.ranges.rotate_right(from);
        out.extend(due);
        end - from
    }

    /// As [`LaneQueue::take_out`], of those whose names are at hand.
    pub(crate) fn take_out_open(&mut self, is_due: impl Fn(&Range) -> bool, out: &mut Vec<Range>) {
        self.open.retain(|open| {
            let goes = is_due(&open.range());
            out.extend(goes.then_some(open.range()));
            !goes
        });
    }

    fn iter(&self) -> impl Iterator<Item = Range> {
        self.open.iter().map(OpenRange::range).chain(self.ranges.iter().copied())
    }
}

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

    /// Ranges whose names are not at hand, over all lanes.
    pub(crate) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.ranges.len()).sum()
    }

    pub(crate) fn open_ranges(&self) -> impl Iterator<Item = Range> {
        self.lanes.iter().flat_map(|lane| lane.open.iter().map(OpenRange::range))
    }

    /// Takes out what `is_due` says of `most` ranges from place `from` on, counted through all lanes, and, if that is the
    /// first, of the open ones. Returns how many it looked at: it may be fewer at a lane's end.
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
            if from < lane.ranges.len() {
                return (lane.take_out(from, most, is_due, &mut out), out);
            }
            from -= lane.ranges.len();
        }
        (0, out)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.lanes.iter().any(LaneQueue::has_work)
    }

    /// No work, and no read under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| !lane.has_work() && lane.loads == 0)
    }

    /// Recipients that are ready, and whether that is all: ranges behind the first `most` count one recipient each.
    pub(crate) fn count(&self, most: usize) -> (u64, bool) {
        let ranges: usize = self.lanes.iter().map(|lane| lane.open.len() + lane.ranges.len()).sum();
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
        self.lanes.iter().flat_map(LaneQueue::iter)
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
mod tests {
    use super::*;
    use queue::MessageKey;
    use queue::range::DomainKey;

    fn range(message: u32, count: u32) -> Range {
        let (message, domain) = (MessageKey(message), DomainKey(0));
        Range { message, domain, first: 0, count, name_offset: 0, attempts: queue::Attempts::NONE, reason: 0 }
    }

    fn with_work(lanes: &[Lane]) -> Lanes {
        let mut all = Lanes::default();
        lanes.iter().for_each(|lane| all.get_mut(*lane).ranges.push_back(range(0, 1)));
        all
    }

    /// How often each lane is picked.
    fn picks(lanes: &mut Lanes, count: u32) -> [u32; 3] {
        let mut got = [0; 3];
        for _ in 0..count {
            got[lanes.next().unwrap().index()] += 1;
            lanes.note_pick();
        }
        got
    }

    #[test]
    fn urgent_goes_first_and_lower_lanes_do_not_starve() {
        assert_eq!(picks(&mut with_work(&Lane::ALL), 512), [448, 56, 8]);
        assert_eq!(picks(&mut with_work(&[Lane::Urgent, Lane::Bulk]), 512), [448, 0, 64]);
        assert_eq!(picks(&mut with_work(&[Lane::Normal, Lane::Bulk]), 512), [0, 448, 64]);
    }

    #[test]
    fn lone_lane_has_every_turn() {
        for lane in Lane::ALL {
            assert_eq!(picks(&mut with_work(&[lane]), 100)[lane.index()], 100);
        }
        assert_eq!(Lanes::default().next(), None);
    }

    #[test]
    fn urgent_mail_waits_at_most_one_turn() {
        let mut lanes = with_work(&[Lane::Bulk]);
        for _ in 0..100 {
            lanes.note_pick();
            lanes.get_mut(Lane::Urgent).ranges.push_back(range(1, 1));
            let first = lanes.next();
            lanes.note_pick();
            assert!(first == Some(Lane::Urgent) || lanes.next() == Some(Lane::Urgent));
            lanes.get_mut(Lane::Urgent).ranges.clear();
        }
    }

    #[test]
    fn read_of_one_lane_holds_up_no_other() {
        let mut lanes = with_work(&Lane::ALL);
        lanes.get_mut(Lane::Urgent).load_begins(1 << 20);
        assert_eq!(lanes.next(), Some(Lane::Normal));
        (0..LOADS_MAX).for_each(|_| lanes.get_mut(Lane::Normal).load_begins(1));
        assert_eq!(lanes.next(), Some(Lane::Bulk));
        lanes.get_mut(Lane::Bulk).load_begins(1);
        assert_eq!(lanes.next(), Some(Lane::Bulk), "small messages are read some at a time");
        lanes.get_mut(Lane::Bulk).load_begins(1 << 20);
        assert_eq!((lanes.next(), lanes.has_work()), (None, true));
    }

    #[test]
    fn count_is_exact_for_few_ranges_and_a_least_for_many() {
        let mut lanes = with_work(&[]);
        lanes.get_mut(Lane::Bulk).ranges.extend([range(1, 5), range(2, 7), range(3, 9)]);
        assert_eq!((lanes.count(3), lanes.count(1), lanes.count(0)), ((21, true), (7, false), (3, false)));
    }

    #[test]
    fn what_is_taken_out_is_taken_from_where_it_stands() {
        let mut lanes = with_work(&[]);
        lanes.get_mut(Lane::Bulk).ranges.extend([range(1, 5), range(2, 7), range(1, 9)]);
        lanes.get_mut(Lane::Urgent).ranges.extend([range(3, 1)]);
        let is_out = |range: &Range| range.message == MessageKey(1);
        assert_eq!(lanes.take_out(0, 9, is_out), (1, vec![]), "a lane at a time");
        assert_eq!(lanes.take_out(2, 9, is_out), (2, vec![range(1, 9)]));
        assert_eq!(lanes.take_out(1, 1, is_out), (1, vec![range(1, 5)]));
        lanes.get_mut(Lane::Urgent).ranges.clear();
        assert_eq!(lanes.ranges().collect::<Vec<_>>(), [range(2, 7)]);
        assert!(lanes.has_more_than(6) && !lanes.has_more_than(7));
    }
}
