use super::*;
use bytes::Bytes;
use message::{Class, ContentFacts, MessageId, PoolTag, ReversePath, UnixMillis};
use queue::MessageKey;
use queue::fanout::{Handling, Letter};
use queue::range::DomainKey;
use std::collections::BTreeMap;
use std::sync::Arc;

fn range(message: u32, count: u32) -> Range {
    let (message, domain) = (MessageKey(message), DomainKey(0));
    Range { message, domain, first: 0, count, name_offset: 0, attempts: queue::Attempts::NONE, reason: 0 }
}

fn with_work(lanes: &[Lane]) -> Lanes {
    let mut all = Lanes::default();
    lanes.iter().for_each(|lane| all.push_back((*lane, Flow(0)), range(0, 1)));
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
        lanes.push_back((Lane::Urgent, Flow(0)), range(1, 1));
        let first = lanes.next();
        lanes.note_pick();
        assert!(first == Some(Lane::Urgent) || lanes.next() == Some(Lane::Urgent));
        lanes.get_mut(Lane::Urgent).take_out_all(|_| true, &mut Vec::new());
    }
}

#[test]
fn read_of_one_lane_holds_up_no_other() {
    let mut lanes = with_work(&Lane::ALL);
    lanes.get_mut(Lane::Urgent).load_begins(1 << 20);
    assert_eq!(lanes.next(), Some(Lane::Normal));
    (0..flows::LOADS_MAX).for_each(|_| lanes.get_mut(Lane::Normal).load_begins(1));
    assert_eq!(lanes.next(), Some(Lane::Bulk));
    lanes.get_mut(Lane::Bulk).load_begins(1);
    assert_eq!(lanes.next(), Some(Lane::Bulk), "small messages are read some at a time");
    lanes.get_mut(Lane::Bulk).load_begins(1 << 20);
    assert_eq!((lanes.next(), lanes.has_work()), (None, true));
}

#[test]
fn what_is_taken_out_is_taken_from_where_it_stands() {
    let mut lanes = with_work(&[]);
    for range in [range(1, 5), range(2, 7), range(1, 9)] {
        lanes.push_back((Lane::Bulk, Flow(0)), range);
    }
    lanes.push_back((Lane::Urgent, Flow(0)), range(3, 1));
    let is_out = |range: &Range| range.message == MessageKey(1);
    assert_eq!(lanes.take_out(0, 9, is_out), (1, vec![]), "a lane at a time");
    assert_eq!(lanes.take_out(2, 9, is_out), (2, vec![range(1, 9)]));
    assert_eq!(lanes.take_out(1, 1, is_out), (1, vec![range(1, 5)]));
    lanes.get_mut(Lane::Urgent).take_out_all(|_| true, &mut Vec::new());
    assert_eq!(lanes.ranges().collect::<Vec<_>>(), [range(2, 7)]);
    assert!(lanes.has_more_than(6) && !lanes.has_more_than(7));
}

// ---- flows ----

/// The range with its names, all of one octet.
fn open(flow: Flow, range: Range) -> OpenRange {
    let class = Class { pool: PoolTag::DEFAULT, flow, campaign: None };
    let letter = Letter::new(
        (MessageId(1), UnixMillis(0)),
        (ReversePath::Null, None),
        (Bytes::new(), ContentFacts::default()),
        Handling { class, ..Handling::default() },
    );
    let names = b"\x01x".repeat(range.count as usize);
    OpenRange::new(range, Arc::new(letter), Bytes::from(names), range.name_offset)
}

/// Hands out one transaction of up to `most` recipients as a connection would, everything being in memory. A message's
/// number names its flow in the upper octets.
fn hand_out(lane: &mut LaneQueue, most: usize) -> Option<(u32, usize)> {
    while let Some(range) = lane.take_unread() {
        lane.push_open(open(flow_of(range), range));
    }
    let open = lane.open_front()?;
    let message = open.range().message.0;
    let count = (0..most).map_while(|_| open.next_name()).count();
    let is_over = open.is_done();
    lane.note_handed_out(count, is_over);
    Some((message, count))
}

fn flow_of(range: Range) -> Flow {
    Flow(u8::try_from(range.message.0 >> 24).unwrap())
}

fn with_messages(messages: &[(u8, u32, u32)]) -> LaneQueue {
    let mut lane = LaneQueue::default();
    for (flow, messages, recipients) in messages {
        for message in 0..*messages {
            lane.push_back(Flow(*flow), range(u32::from(*flow) << 24 | message, *recipients));
        }
    }
    lane
}

/// Recipients handed out of each flow, of `count` transactions.
fn shares_of(lane: &mut LaneQueue, count: usize, most: usize) -> BTreeMap<u32, usize> {
    let mut got = BTreeMap::new();
    for _ in 0..count {
        let Some((message, recipients)) = hand_out(lane, most) else { break };
        *got.entry(message >> 24).or_default() += recipients;
    }
    got
}

#[test]
fn campaigns_share_a_lane_whatever_they_have_waiting() {
    let mut lane = with_messages(&[(1, 50_000, 1), (2, 1_000, 1)]);
    assert_eq!(shares_of(&mut lane, 1_600, 50), BTreeMap::from([(1, 800), (2, 800)]));
    // The rest of the small one comes to its end in step with as much of the large one.
    assert_eq!(shares_of(&mut lane, 416, 50), BTreeMap::from([(1, 216), (2, 200)]));
}

#[test]
fn a_list_and_single_messages_share_by_recipients() {
    let mut lane = with_messages(&[(1, 1, 1_000_000), (2, 100_000, 1)]);
    let got = shares_of(&mut lane, 20_000, 50);
    assert!(got[&1].abs_diff(got[&2]) <= 64, "{got:?}");
}

#[test]
fn one_tenants_flood_starves_nobody() {
    let mut lane = with_messages(&[(0, 100_000, 1)]);
    shares_of(&mut lane, 1_000, 1);
    for flow in 1..=255 {
        lane.push_back(Flow(flow), range(u32::from(flow) << 24, 1));
    }
    // Each of the others has one message, and the flood one turn at most before each.
    let got = shares_of(&mut lane, 255 + 2 * 16, 1);
    assert_eq!(got.len(), 256, "{got:?}");
}

#[test]
fn one_flow_keeps_its_order() {
    let mut lane = with_messages(&[(7, 500, 1)]);
    let order: Vec<u32> =
        std::iter::from_fn(|| hand_out(&mut lane, 50)).map(|(message, _)| message & 0xff_ffff).collect();
    assert!(order.iter().copied().eq(0..500));
    assert!(!lane.has_work());
}

#[test]
fn message_that_comes_back_goes_first_in_its_flow() {
    let mut lane = with_messages(&[(1, 3, 1)]);
    lane.push_front(Flow(1), range(1 << 24 | 99, 1));
    assert_eq!(hand_out(&mut lane, 1), Some((1 << 24 | 99, 1)));
}

#[test]
fn reads_are_begun_in_turns() {
    let mut lane = with_messages(&[(1, 100, 1), (2, 100, 1), (3, 1, 1)]);
    let mut begun = Vec::new();
    while let Some(range) = lane.take_unread() {
        lane.load_begins(1);
        begun.push(range.message.0 >> 24);
    }
    assert_eq!(begun.len(), flows::LOADS_MAX as usize);
    assert_eq!(begun[..7], [1, 2, 3, 1, 2, 1, 2]);
}

#[test]
fn flow_that_is_being_read_holds_up_no_other() {
    let mut lane = with_messages(&[(1, 1, 1)]);
    let unread = lane.take_unread().unwrap();
    lane.load_begins(1);
    lane.push_back(Flow(2), range(2 << 24, 1));
    assert_eq!(hand_out(&mut lane, 1), Some((2 << 24, 1)));
    assert!(!lane.has_work());
    lane.push_open(open(Flow(1), unread));
    lane.load_is_over();
    assert_eq!(hand_out(&mut lane, 1), Some((1 << 24, 1)));
}

#[test]
fn sweep_takes_each_flow_once_and_everything_comes_back() {
    let mut lane = with_messages(&[(9, 3, 1), (4, 2, 5), (200, 1, 1)]);
    hand_out(&mut lane, 1);
    let (mut from, mut seen) = (0u8, Vec::new());
    while let Some((flow, ranges)) = lane.take_flow(from, true) {
        seen.push((flow.0, ranges.len()));
        // A newcomer may take the place of a flow whose ranges are all out.
        lane.push_back(Flow(0), range(0, 1));
        ranges.into_iter().for_each(|range| lane.push_back(flow, range));
        from = flow.0 + 1;
    }
    assert_eq!(seen, [(4, 2), (9, 2), (200, 1)]);
    let mut flows: Vec<u8> = lane.ranges().map(|range| flow_of(range).0).collect();
    flows.sort_unstable();
    assert_eq!(flows, [0, 0, 0, 4, 4, 9, 9, 200]);
    assert_eq!(shares_of(&mut lane, 100, 1).values().sum::<usize>(), 3 + 10 + 2 + 1);
}

proptest::proptest! {
    /// Whatever comes and goes, nothing is lost or handed out twice, and the lane knows when it has work.
    #[test]
    fn nothing_is_lost_between_flows(steps in proptest::collection::vec((0u8..6, 0u8..5, 1u32..40), 1..300)) {
        let (mut lane, mut owed) = (LaneQueue::default(), 0usize);
        for (number, (step, flow, count)) in (0u32..).zip(steps) {
            let new = range(u32::from(flow) << 24 | number, count);
            match step {
                0 => { lane.push_back(Flow(flow), new); owed += count as usize; }
                1 => { lane.push_front(Flow(flow), new); owed += count as usize; }
                2 => {
                    let mut out = Vec::new();
                    lane.take_out_all(|range| flow_of(*range).0 == flow, &mut out);
                    owed -= out.iter().map(|range| range.count as usize).sum::<usize>();
                }
                3 => {
                    let mut out = Vec::new();
                    lane.take_out(0, 3, |range| range.message.0 % 2 == 0, &mut out);
                    owed -= out.iter().map(|range| range.count as usize).sum::<usize>();
                }
                4 => if let Some((flow, ranges)) = lane.take_flow(flow, number % 2 == 0) {
                    ranges.into_iter().for_each(|range| lane.push_back(flow, range));
                },
                _ => owed -= hand_out(&mut lane, count as usize).map_or(0, |(_, count)| count),
            }
            proptest::prop_assert_eq!(lane.has_work(), owed > 0);
            proptest::prop_assert_eq!(lane.ranges().map(|range| range.count as usize).sum::<usize>(), owed);
        }
        while let Some((_, count)) = hand_out(&mut lane, 7) { owed -= count; }
        proptest::prop_assert_eq!(owed, 0);
    }
}
