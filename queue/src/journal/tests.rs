//! Marks put and read back, damage between them, and what they amount to.

#![expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]

use super::mark::decode;
use super::*;
use crate::range::Attempts;
use message::UnixMillis;
use proptest::prelude::*;

const ID: MessageId = MessageId(1 << 24);

fn span(first: u32, count: u32) -> Span {
    Span { id: ID, first, count }
}

fn waiting(first: u32, count: u32, attempts: u16) -> Waiting {
    // In these tests each name takes 10 bytes.
    Waiting {
        span: span(first, count),
        name_offset: first * 10,
        attempts: Attempts::new(attempts),
        due: UnixMillis(u64::from(attempts) * 1000),
    }
}

const WRITER: Writer = Writer { partition: 0, epoch: 1 };

type JournalFile = (Origin, Vec<Mark>);

fn file(writer: u8, epoch: u32, number: u32, marks: &[Mark]) -> JournalFile {
    (Origin { writer, epoch, number }, marks.to_vec())
}

fn fold(mut files: Vec<JournalFile>) -> Fold {
    files.sort_by_key(|(origin, _)| *origin);
    let mut builder = FoldBuilder::default();
    for (origin, marks) in &files {
        builder.look_at(*origin, &mut marks.iter().copied());
    }
    for (origin, marks) in &files {
        builder.take(*origin, &mut marks.iter().copied());
    }
    builder.finish()
}

/// With names of 9 octets.
fn left_of(fold: &Fold, groups: &[Waiting]) -> Vec<Waiting> {
    let mut left = Vec::new();
    fold.left(ID, groups, &mut |offset| Some(offset + 10), &mut left);
    left
}

fn left(journals: &[Vec<Mark>]) -> Vec<Waiting> {
    let files = journals.iter().enumerate().map(|(number, marks)| file(0, 1, number as u32, marks));
    left_of(&fold(files.collect()), &[waiting(0, 6, 0), waiting(6, 4, 0)])
}

/// Runs a journal as the engine does: every frame is put into `file`.
fn put(journal: &mut Journal, file: &mut Vec<u8>) {
    if let Some((offset, bytes)) = journal.frame() {
        file.resize(file.len().max(offset as usize + bytes.len()), 0);
        file[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        journal.frame_put();
    }
}

fn marks(file: &[u8]) -> Vec<Mark> {
    let mut marks = Vec::new();
    read(&mut &*file, &mut |mark| marks.push(mark)).unwrap();
    marks
}

#[test]
fn neighbours_share_a_mark_and_frames_read_back() {
    let (mut journal, mut file) = (Journal::new(WRITER, JournalNumber(3), 8), Vec::new());
    for index in [4, 5, 6, 9] {
        journal.settled(ID, index);
    }
    put(&mut journal, &mut file);
    journal.mark(&Mark::Deferred(waiting(7, 1, 2)));
    put(&mut journal, &mut file);
    put(&mut journal, &mut file);
    assert_eq!(
        marks(&file),
        [Mark::Settled(span(4, 3)), Mark::Settled(span(9, 1)), Mark::Deferred(waiting(7, 1, 2))]
    );
    assert_eq!(read(&mut &file[..], &mut |_| {}).unwrap().next_generation, 8);
}

#[test]
fn torn_frame_ends_the_journal() {
    let (mut journal, mut file) = (Journal::new(WRITER, JournalNumber(3), 8), Vec::new());
    journal.settled(ID, 1);
    put(&mut journal, &mut file);
    let whole = file.len();
    journal.settled(ID, 2);
    put(&mut journal, &mut file);
    for cut in whole..file.len() {
        assert_eq!(marks(&file[..cut]), [Mark::Settled(span(1, 1))], "{cut}");
    }
    file[whole + 20] ^= 1;
    assert_eq!(marks(&file).len(), 1);
}

#[test]
fn damage_is_stepped_over_and_a_state_around_it_is_no_state() {
    let (mut journal, mut file) = (Journal::new(WRITER, JournalNumber(3), 8), Vec::new());
    let mut places = Vec::new();
    for mark in [
        Mark::StateBegins { covers: ID },
        Mark::Owed(waiting(0, 3, 0)),
        Mark::StateEnds,
        Mark::Settled(span(0, 1)),
    ] {
        places.push(file.len());
        journal.mark(&mark);
        put(&mut journal, &mut file);
    }
    file[places[1] + 20] ^= 1;
    let mut found = Vec::new();
    assert_eq!(
        read(&mut &file[..], &mut |mark| found.push(mark)).unwrap().damaged_at,
        Some(places[1] as u64)
    );
    assert_eq!(
        found,
        [Mark::StateBegins { covers: ID }, Mark::Gap, Mark::StateEnds, Mark::Settled(span(0, 1))]
    );
    assert_eq!(left(&[found]), (vec![waiting(1, 5, 0), waiting(6, 4, 0)]));
}

#[test]
fn position_is_durable_only_after_its_sync() {
    let mut journal = Journal::new(WRITER, JournalNumber(0), 1);
    journal.settled(ID, 1);
    let position = journal.position();
    journal.frame();
    journal.frame_put();
    assert!(!journal.is_durable(position) && journal.has_unsynced());
    journal.handle_synced(journal.put_position());
    assert!(journal.is_durable(position) && !journal.has_unsynced());
}

#[test]
fn position_without_new_marks_is_that_of_the_last_ones() {
    let mut journal = Journal::new(WRITER, JournalNumber(0), 1);
    journal.settled(ID, 1);
    journal.frame();
    journal.frame_put();
    journal.handle_synced(journal.put_position());
    assert!(journal.is_durable(journal.position()));
}

#[test]
fn unmarked_message_is_owed_to_all() {
    assert_eq!(left(&[]), [waiting(0, 6, 0), waiting(6, 4, 0)]);
}

#[test]
fn settled_and_deferred_are_cut_out_of_the_groups() {
    let marks = vec![Mark::Settled(span(0, 2)), Mark::Deferred(waiting(3, 1, 1)), Mark::Settled(span(6, 4))];
    assert_eq!(left(&[marks]), (vec![waiting(2, 1, 0), waiting(3, 1, 1), waiting(4, 2, 0)]));
}

#[test]
fn order_of_marks_does_not_matter() {
    let mut marks = vec![
        Mark::Deferred(waiting(3, 1, 1)),
        Mark::Deferred(waiting(3, 1, 2)),
        Mark::Settled(span(4, 1)),
        Mark::Deferred(waiting(4, 1, 5)),
    ];
    let forward = left(&[marks.clone()]);
    marks.reverse();
    assert_eq!(forward, left(&[marks]));
    assert_eq!(forward, (vec![waiting(0, 3, 0), waiting(3, 1, 2), waiting(5, 1, 0), waiting(6, 4, 0)]));
}

#[test]
fn mark_of_a_warning_beats_the_one_it_repeats() {
    let waits = waiting(3, 1, 2);
    let warned = Waiting { attempts: waits.attempts.warned(), ..waits };
    let marks = vec![Mark::Deferred(warned), Mark::Deferred(waits)];
    let left = left(&[marks]);
    assert!(left.contains(&warned) && !left.contains(&waits));
    let mut bytes = Vec::new();
    encode(&Mark::Deferred(warned), &mut bytes);
    assert_eq!(decode(&mut &bytes[..]), Some(Mark::Deferred(warned)));
}

#[test]
fn whole_state_replaces_what_came_before() {
    let old = vec![Mark::Settled(span(9, 1))];
    let new = vec![
        Mark::StateBegins { covers: ID },
        Mark::Owed(waiting(9, 1, 3)),
        Mark::StateEnds,
        Mark::Deferred(waiting(9, 1, 4)),
    ];
    assert_eq!(left(&[old.clone(), new.clone()]), (vec![waiting(9, 1, 4)]));
    // Cut short by a crash, it is no state.
    assert_eq!(left(&[old, new[..2].to_vec()]), (vec![waiting(0, 6, 0), waiting(6, 3, 0)]));
}

#[test]
fn message_that_a_state_does_not_name_has_ended() {
    assert_eq!(left(&[vec![Mark::StateBegins { covers: ID }, Mark::StateEnds]]), (vec![]));
}

#[test]
fn a_life_whose_damage_is_set_aside_and_whose_messages_have_ended_owes_nothing() {
    // The state covers the life after that of the damage, which stands in its first block.
    let covers = MessageId(3 << 24);
    let damage = Span { id: MessageId(1 << 24), first: 0, count: 0 };
    let message = Span { id: MessageId(1 << 24 | 7), first: 0, count: 2 };
    let owed = |span| Mark::Owed(Waiting { span, ..waiting(0, 0, 0) });
    let mut marks = vec![Mark::StateBegins { covers }, owed(damage), owed(message), Mark::StateEnds];
    let mut may_owe = |mark: Option<Mark>| {
        marks.extend(mark);
        fold(vec![file(0, 1, 0, &marks)]).may_owe(0, 1)
    };
    assert!(may_owe(None));
    assert!(may_owe(Some(Mark::Settled(Span { count: 1, ..message }))));
    assert!(may_owe(Some(Mark::Settled(damage))));
    assert!(!may_owe(Some(Mark::Settled(Span { first: 1, count: 1, ..message }))));
}

#[test]
fn marks_of_another_core_count() {
    let fold = fold(vec![file(1, 1, 0, &[Mark::Settled(span(0, 6))])]);
    assert_eq!(left_of(&fold, &[waiting(0, 6, 0), waiting(6, 4, 0)]), [waiting(6, 4, 0)]);
}

#[test]
fn state_of_a_later_start_voids_older_marks_of_all_cores() {
    let state = [Mark::StateBegins { covers: ID }, Mark::Owed(waiting(0, 3, 0)), Mark::StateEnds];
    let files = vec![
        file(1, 1, 0, &[Mark::Deferred(waiting(0, 1, 4))]),
        file(0, 2, 1, &state),
        file(1, 2, 1, &[Mark::Settled(span(1, 1))]),
    ];
    assert_eq!(
        left_of(&fold(files), &[waiting(0, 6, 0), waiting(6, 4, 0)]),
        (vec![waiting(0, 1, 0), waiting(2, 1, 0)])
    );
}

#[test]
fn later_mark_of_the_states_own_core_wins_among_equal_attempts() {
    let held = Waiting { due: UnixMillis(u64::MAX), ..waiting(0, 3, 2) };
    let state = [Mark::StateBegins { covers: ID }, Mark::Owed(waiting(0, 3, 2)), Mark::StateEnds];
    let mut marks = state.to_vec();
    marks.push(Mark::Deferred(held));
    assert_eq!(left(&[marks.clone()]), [held]);
    marks.push(Mark::Deferred(waiting(0, 3, 2)));
    assert_eq!(left(&[marks]), [waiting(0, 3, 2)]);
}

#[test]
fn another_cores_mark_that_the_state_has_taken_over_does_not_undo_what_came_since() {
    // Core 1 deferred a share; core 0 noted that, and then held it.
    let held = Waiting { due: UnixMillis(u64::MAX), ..waiting(0, 3, 1) };
    let state = [Mark::StateBegins { covers: ID }, Mark::Owed(held), Mark::StateEnds];
    let files = vec![file(0, 1, 3, &state), file(1, 1, 1, &[Mark::Deferred(waiting(0, 3, 1))])];
    assert_eq!(left_of(&fold(files), &[waiting(0, 6, 0), waiting(6, 4, 0)]), [held]);
}

#[test]
fn range_of_more_recipients_than_the_message_has_is_none() {
    let state = [Mark::StateBegins { covers: ID }, Mark::Owed(waiting(4, u32::MAX, 0)), Mark::StateEnds];
    let mut marks = state.to_vec();
    marks.push(Mark::Settled(span(0, u32::MAX)));
    assert_eq!(left(&[marks]), []);
}

#[test]
fn names_are_walked_only_where_a_range_begins_in_the_middle() {
    let state = [
        Mark::StateBegins { covers: ID },
        Mark::Owed(waiting(0, 6, 2)),
        Mark::StateEnds,
        Mark::Deferred(waiting(3, 2, 3)),
    ];
    let fold = fold(vec![file(0, 1, 0, &state)]);
    let (mut left, mut walked) = (Vec::new(), Vec::new());
    fold.left(
        ID,
        &[waiting(0, 6, 0)],
        &mut |offset| {
            walked.push(offset);
            Some(offset + 10)
        },
        &mut left,
    );
    assert_eq!(left, [waiting(0, 3, 2), waiting(3, 2, 3), waiting(5, 1, 2)]);
    assert_eq!(walked, [30, 40], "the deferred range says where it begins");
}

proptest! {
    #[test]
    fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_journal(&bytes);
        fold::fuzz_fold(&bytes);
    }

    #[test]
    fn fold_smoke(marks in proptest::collection::vec((0u8..5, 0u64..4, 0u32..12, prop_oneof![0u32..12, any::<u32>()]), 0..40)) {
        let mut bytes = Vec::new();
        for (kind, id, first, count) in marks {
            let span = Span { id: MessageId((1 << 24) + id), first, count };
            let waits = Waiting { span, ..waiting(first, count, 1) };
            let covers = span.id;
            let all = [Mark::Settled(span), Mark::Deferred(waits), Mark::Owed(waits), Mark::StateBegins { covers }, Mark::StateEnds];
            encode(&all[usize::from(kind)], &mut bytes);
        }
        fold::fuzz_fold(&bytes);
    }
}
