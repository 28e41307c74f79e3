//! A flipped bit anywhere in a stopped queue: `queue verify` finds it, a start survives it, and what could not be read
//! lies in the quarantine as it was.

use super::{MESSAGES, RUN_MAX, files, quarantine, sealed, stopped_queue};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tests::process::daemon::Stopped;
use tests::process::wait::{self, PATIENCE, finish};
use tests::process::{Setup, Sink, vacant};
use tests::sim::Rng;

const BLOCK: u64 = 4096;
const HEAD_LEN: u64 = 64;
const FOOT_LEN: u64 = 64;

/// A record in a segment, as far as this test looks into it.
#[derive(Clone, Debug)]
struct Record {
    at: u64,
    meta: Range<u64>,
    content: Range<u64>,
}

impl Record {
    fn whole(&self) -> Range<u64> {
        self.at..self.content.end
    }
}

/// Where everything stands in a queue of one core: a segment with its index, and the one after it.
#[derive(Debug)]
struct Layout {
    segment: PathBuf,
    records: Vec<Record>,
    entries: Range<u64>,
    foot: Range<u64>,
    journal: PathBuf,
    /// All but the last frame, which a crash could have torn.
    frames: Range<u64>,
}

fn word(bytes: &[u8], at: u64) -> u64 {
    let at = usize::try_from(at).expect("a small file");
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four octets")))
}

fn places(bytes: &[u8], mark: &[u8]) -> Vec<u64> {
    let found = bytes.windows(mark.len()).enumerate().filter(|(_, window)| *window == mark);
    found.map(|(at, _)| at as u64).collect()
}

impl Layout {
    fn of(queue: &Path) -> Layout {
        let mut segments = files(queue, "data-");
        segments.sort();
        let segment = segments.into_iter().find(|path| has_foot(path)).expect("one segment is sealed");
        let bytes = std::fs::read(&segment).expect("ours");
        let foot_at = bytes.len() as u64 - FOOT_LEN;
        let entries_len = word(&bytes, foot_at + 24);
        let entries_at = foot_at + FOOT_LEN - (entries_len + FOOT_LEN).next_multiple_of(BLOCK);
        let heads = places(&bytes, b"RPM1").into_iter().filter(|at| *at < entries_at);
        let record = |at: u64| {
            let meta_end = at + HEAD_LEN + word(&bytes, at + 32);
            Record { at, meta: at + HEAD_LEN..meta_end, content: meta_end..meta_end + word(&bytes, at + 40) }
        };
        let records = heads.map(record).collect();
        // That of the start before may still be there.
        let frames_of = |path: &PathBuf| places(&std::fs::read(path).expect("ours"), b"RPJF");
        let journals = files(queue, "journal-");
        let journal = journals.into_iter().max_by_key(|path| frames_of(path).len()).expect("a journal");
        let frames = frames_of(&journal);
        assert!(frames.len() > 1, "marks were made");
        let last = frames.last().expect("a frame") - 8;
        let entries = entries_at..entries_at + entries_len;
        Layout { segment, records, entries, foot: foot_at..foot_at + FOOT_LEN, journal, frames: 32..last }
    }
}

fn has_foot(path: &Path) -> bool {
    let bytes = std::fs::read(path).expect("ours");
    let foot = bytes.len() - usize::try_from(FOOT_LEN).expect("small");
    bytes[foot..].starts_with(b"RPIDX")
}

/// [`MESSAGES`] messages in a sealed segment, and one in the next, so that nothing in the first could have been torn.
fn queue_of_two_segments(relay: SocketAddr) -> (Stopped, Layout) {
    let stopped = sealed(stopped_queue(relay));
    let sink = Sink::start_on(&relay.to_string(), &["--fault", "rcpt=450:1"]);
    let daemon = stopped.restart();
    daemon.client().deliver("ann@here.test", &["next@there.test"]);
    // Marks, so that there is something in the journal.
    daemon.wait_for_at_least("deferred", MESSAGES as u64 + 1, RUN_MAX);
    let stopped = daemon.terminate();
    sink.end();
    let layout = Layout::of(&stopped.setup.queue());
    assert_eq!(layout.records.len(), MESSAGES);
    (stopped, layout)
}

/// Flips a bit; flipped again, all is as before.
fn flip(path: &Path, at: u64, bit: u32) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("ours");
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).expect("in the file");
    file.write_all_at(&[octet[0] ^ 1 << bit], at).expect("written");
}

/// Exit code of `queue verify`, and what it found.
fn verify(setup: &Setup) -> (Option<i32>, Value) {
    setup.write_config();
    let output = finish(&mut setup.command(&["queue", "verify", "--json"]), PATIENCE);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}")))
}

/// True if `found` names the file, and a place from which the flip is not far.
fn names_place(found: &Value, path: &Path, at: u64) -> bool {
    let journals = found["damaged_journals"].as_array().expect("a list");
    let is_journal =
        |line: &Value| line.as_str().is_some_and(|line| line.starts_with(path.to_str().expect("plain")));
    let is_place = |damage: &Value| {
        let (start, len) =
            (damage["offset"].as_u64().expect("a place"), damage["len"].as_u64().expect("a length"));
        // An index is said to be damaged at the segment's end.
        damage["file"] == path.to_str().expect("plain") && (len == 0 || (start..start + len).contains(&at))
    };
    journals.iter().any(is_journal) || found["damaged"].as_array().expect("a list").iter().any(is_place)
}

fn assert_found(setup: &Setup, path: &Path, at: u64) {
    let (code, found) = verify(setup);
    assert_eq!(code, Some(65), "{} at {at}: {found}", path.display());
    assert!(names_place(&found, path, at), "{} at {at}: {found}", path.display());
}

#[test]
fn a_flipped_bit_anywhere_in_the_live_areas_is_found_by_verify() {
    let (stopped, layout) = queue_of_two_segments(vacant());
    let setup = &stopped.setup;
    let (code, found) = verify(setup);
    assert_eq!((code, &found["messages"]), (Some(0), &(MESSAGES as u64 + 1).into()), "{found}");
    let mut rng = Rng::new(24);
    let mut areas: Vec<(&Path, Range<u64>)> =
        layout.records.iter().map(|record| (&*layout.segment, record.whole())).collect();
    // Byte 6 is the version: a newer one is refused, see `formats`.
    areas.extend([
        (&*layout.segment, 7..BLOCK),
        (&*layout.segment, layout.entries.clone()),
        (&*layout.segment, layout.foot.clone()),
    ]);
    areas.extend([(&*layout.journal, 7..32), (&*layout.journal, layout.frames.clone())]);
    let secret = setup.queue().join("verp-secret");
    areas.push((&secret, 0..36));
    for (path, area) in areas.iter().cycle().take(3 * areas.len()) {
        let (at, bit) = (rng.range(area), u32::try_from(rng.below(8)).expect("small"));
        flip(path, at, bit);
        assert_found(setup, path, at);
        flip(path, at, bit);
    }
    assert_eq!(verify(setup).0, Some(0));
}

/// A start on a damaged queue: all are served but `lost`, and everything is whole or in the quarantine afterwards.
fn survives(stopped: Stopped, relay: SocketAddr, lost: Option<usize>) -> Stopped {
    let sink = Sink::start_on(&relay.to_string(), &[]);
    let daemon = stopped.restart();
    daemon.wait_until_empty(RUN_MAX);
    assert!(lost.is_none() || daemon.metric("set_aside") >= 1);
    daemon.assert_healthy();
    let name = |number: usize| format!("u{number:03}@there.test");
    let mut wanted: BTreeSet<String> =
        (0..MESSAGES).filter(|number| Some(*number) != lost).map(name).collect();
    wanted.insert("next@there.test".to_owned());
    assert_eq!(sink.end().forward_paths(), wanted);
    // What has ended is let go soon, and looked at no more.
    wait::until("what is damaged is let go", PATIENCE, || verify(&daemon.setup).0 == Some(0));
    let stopped = daemon.terminate();
    let (code, said) = verify(&stopped.setup);
    assert_eq!(code, Some(0), "{said}");
    stopped
}

/// The record lies in the quarantine, octet for octet, damage included.
fn assert_set_aside(queue: &Path, record: &Record, octets: &[u8]) {
    let at = format!("-at-{}", record.at);
    let kept = quarantine(queue);
    let found = kept.iter().find(|(name, _)| name.ends_with(&at)).unwrap_or_else(|| panic!("{at}: {kept:?}"));
    assert!(found.1.starts_with(octets), "{}", found.0);
}

/// Flips a bit somewhere in the seventh record, by `place`.
fn with_a_damaged_record(place: impl Fn(&Record) -> u64) {
    let relay = vacant();
    let (stopped, layout) = queue_of_two_segments(relay);
    let record = &layout.records[7];
    flip(&layout.segment, place(record), 3);
    assert_found(&stopped.setup, &layout.segment, place(record));
    let bytes = std::fs::read(&layout.segment).expect("ours");
    let whole = record.whole();
    let octets =
        &bytes[usize::try_from(whole.start).expect("small")..usize::try_from(whole.end).expect("small")];
    let stopped = survives(stopped, relay, Some(7));
    assert_set_aside(&stopped.setup.queue(), record, octets);
}

#[test]
fn a_damaged_head_in_a_sealed_segment_costs_its_message_alone() {
    with_a_damaged_record(|record| record.at + 33);
}

#[test]
fn a_damaged_envelope_in_a_sealed_segment_costs_its_message_alone() {
    with_a_damaged_record(|record| record.meta.start + 5);
}

#[test]
fn a_damaged_content_in_a_sealed_segment_costs_its_message_alone() {
    with_a_damaged_record(|record| record.content.end - 5);
}

/// Flips a bit outside of records: nobody is lost.
fn with_damage_beside_the_records(place: impl Fn(&Layout) -> (PathBuf, u64)) {
    let relay = vacant();
    let (stopped, layout) = queue_of_two_segments(relay);
    let (path, at) = place(&layout);
    flip(&path, at, 3);
    assert_found(&stopped.setup, &path, at);
    survives(stopped, relay, None);
}

#[test]
fn a_damaged_index_loses_nobody() {
    with_damage_beside_the_records(|layout| (layout.segment.clone(), layout.entries.start + 100));
}

#[test]
fn a_damaged_foot_loses_nobody() {
    with_damage_beside_the_records(|layout| (layout.segment.clone(), layout.foot.start + 21));
}

#[test]
fn a_damaged_first_block_loses_nobody() {
    with_damage_beside_the_records(|layout| (layout.segment.clone(), 13));
}

#[test]
fn a_damaged_frame_of_a_journal_loses_nobody() {
    with_damage_beside_the_records(|layout| (layout.journal.clone(), layout.frames.start + 14));
}

#[test]
fn a_damaged_head_of_a_journal_loses_nobody() {
    with_damage_beside_the_records(|layout| (layout.journal.clone(), 25));
}

#[test]
fn a_damaged_secret_refuses_the_start_until_it_is_removed_and_loses_nobody() {
    let relay = vacant();
    let (stopped, _) = queue_of_two_segments(relay);
    let secret = stopped.setup.queue().join("verp-secret");
    flip(&secret, 17, 3);
    assert_found(&stopped.setup, &secret, 17);
    let refusal = stopped.setup.refusal();
    assert_eq!(refusal.code, 78, "{refusal:?}");
    assert!(refusal.sentence().contains("verp-secret: does not match its checksum"), "{refusal:?}");
    std::fs::remove_file(&secret).expect("ours");
    survives(stopped, relay, None);
}
