//! The set against a map that forgets nothing, with crashes and damage at any octet.

use super::log::HEAD_LEN;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;

/// The key of that number: spread as a hash's are.
pub(super) fn key(number: u64) -> Key {
    let hash = blake3::hash(&number.to_le_bytes());
    Key::from_bytes(*hash.as_bytes().first_chunk().unwrap())
}

fn options(delta_max: usize) -> Options {
    // Room for some files' pages, and not for all.
    Options { delta_max, keep_notes: true, memory_max: 20 << 10, ..Options::new(7, 1_000_000) }
}

fn open(folder: &Path, delta_max: usize) -> KeySet {
    KeySet::open(folder, options(delta_max)).unwrap()
}

fn value(kind: u8, at_secs: u32) -> Value {
    Value { kind, at_secs }
}

fn add(number: u64) -> Change<'static> {
    Change::Add { key: key(number), value: value(1, 100), note: b"" }
}

fn remove(number: u64) -> Change<'static> {
    Change::Remove { key: key(number), at_secs: 200 }
}

fn has(set: &KeySet, number: u64) -> bool {
    let reader = set.reader();
    let found = reader.get(key(number)).unwrap();
    // What has just been read is in memory; a disk under load may have let it go.
    let look = reader.look(key(number));
    assert!(look == Found::Unread || look == found.map_or(Found::No, Found::Yes), "{look:?}");
    found.is_some()
}

fn files(folder: &Path, start: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = merge::names(folder)
        .unwrap()
        .into_iter()
        .filter(|name| name.starts_with(start))
        .map(|name| folder.join(name))
        .collect();
    paths.sort();
    paths
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in files(from, "") {
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn flip(path: &Path, at: u64, mask: u8) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    file.write_all_at(&[octet[0] ^ mask], at).unwrap();
}

#[test]
fn only_what_is_new_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 1000);
    let keys = [key(1), key(2), key(1)];
    assert_eq!(set.insert_batch(&keys, value(1, 5)).unwrap(), [true, true, false]);
    assert_eq!(set.insert_batch(&keys[1..], value(2, 9)).unwrap(), [false, false]);
    assert_eq!(set.reader().look(key(2)), Found::Yes(value(1, 5)), "the first entry stays");
    assert_eq!(set.apply(&[remove(2), remove(2), add(2), remove(3)]).unwrap(), [true, false, true, false]);
    assert_eq!(set.reader().len(), 2);
}

#[test]
fn nothing_is_written_before_there_is_something() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("set");
    let mut set = open(&place, 10);
    assert!(set.reader().is_empty() && set.apply(&[remove(1)]).unwrap() == [false]);
    assert!(!place.exists() && set.handle().notes().unwrap().octets() == 0);
    set.apply(&[add(1)]).unwrap();
    assert!(place.exists());
}

#[test]
fn everything_is_there_after_files_were_merged_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 100);
    for start in (0..5000).step_by(50) {
        let batch: Vec<_> =
            (start..start + 50).map(add).chain((start / 2..start / 2 + 5).map(remove)).collect();
        set.apply(&batch).unwrap();
    }
    set.wait().unwrap();
    let there: Vec<bool> = (0..5001).map(|number| has(&set, number)).collect();
    let (counts, len) = (set.handle().stat().counts, set.reader().len());
    assert_eq!(len, there.iter().filter(|there| **there).count() as u64);
    assert!(set.handle().stat().files <= 7, "{:?}", set.handle().stat());
    drop(set);
    let set = open(folder.path(), 100);
    assert_eq!((0..5001).map(|number| has(&set, number)).collect::<Vec<_>>(), there);
    assert!(set.handle().stat().counts == counts && set.damaged().is_empty());
}

#[test]
fn full_set_takes_no_more_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = KeySet::open(folder.path(), Options::new(7, 3)).unwrap();
    set.apply(&[add(1), add(2), add(3)]).unwrap();
    assert!(matches!(set.apply(&[add(4)]), Err(KeySetError::Full { max: 3 })));
    assert_eq!(set.apply(&[add(3), remove(1), add(4)]).unwrap(), [false, true, true]);
}

#[test]
fn another_secrets_set_is_refused_and_so_is_a_newer_format() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), 100).apply(&[add(1)]));
    let other = |owner| KeySet::open(folder.path(), Options { owner, ..options(100) }).map(|_| ());
    assert!(matches!(other(8), Err(KeySetError::OtherOwner { .. })));
    let mut set = open(folder.path(), 1);
    set.apply(&[add(2)]).unwrap();
    set.wait().unwrap();
    drop(set);
    assert!(matches!(other(8), Err(KeySetError::OtherOwner { .. })) && other(7).is_ok());
    for start in ["run-", "log-"] {
        let newer = tempfile::tempdir().unwrap();
        copy(folder.path(), newer.path());
        flip(files(newer.path(), start).last().unwrap(), 6, 2);
        let refused = KeySet::open(newer.path(), options(100)).map(|_| ());
        assert!(matches!(refused, Err(KeySetError::TooNew { found: 3, .. })), "{refused:?}");
    }
}

fn notes_of(set: &KeySet) -> Vec<String> {
    let mut notes = Vec::new();
    let each = set.handle().notes().unwrap().each(|note, _| {
        notes.push(String::from_utf8(note.note.to_vec()).unwrap());
        Ok::<(), KeySetError>(())
    });
    assert_eq!(each.unwrap(), 0);
    notes.sort();
    notes
}

#[test]
fn notes_are_those_of_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 4);
    let texts: Vec<String> = (0..20).map(|number| format!("note {number:02}")).collect();
    let noted = |number: u64| {
        let note = texts[usize::try_from(number).unwrap()].as_bytes();
        Change::Add { key: key(number), value: value(2, 50), note }
    };
    set.apply(&(0..20).map(noted).collect::<Vec<_>>()).unwrap();
    // In and out again within the second.
    for _ in 0..3 {
        set.apply(&[remove(3), remove(4)]).unwrap();
        set.apply(&[noted(3)]).unwrap();
    }
    let mut expected = texts.clone();
    expected.remove(4);
    assert_eq!(notes_of(&set), expected);
    set.wait().unwrap();
    drop(set);
    assert_eq!(notes_of(&open(folder.path(), 4)), expected);
    let without = KeySet::open(folder.path(), Options { keep_notes: false, ..options(4) }).unwrap();
    assert!(notes_of(&without).is_empty() && without.reader().len() == 19);
    drop(without);
    let all: Vec<u8> =
        files(folder.path(), "").iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!all.windows(5).any(|five| five == b"note "), "addresses are gone from the disk");
}

#[test]
fn notes_that_count_no_longer_are_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 20_000);
    for round in 0..4 {
        let texts: Vec<String> = (0..30_000).map(|number| format!("{round} {number}")).collect();
        let adds: Vec<_> = (0..30_000u64)
            .zip(&texts)
            .map(|(number, text)| Change::Add {
                key: key(number),
                value: value(1, round),
                note: text.as_bytes(),
            })
            .collect();
        set.apply(&adds).unwrap();
        let removes: Vec<_> =
            (0..29_990).map(|number| Change::Remove { key: key(number), at_secs: round }).collect();
        set.apply(&removes).unwrap();
        set.wait().unwrap();
    }
    let kept = files(folder.path(), "notes-");
    assert_eq!(kept.len(), 1, "{:?}", files(folder.path(), ""));
    let octets = std::fs::metadata(&kept[0]).unwrap().len();
    assert!(octets < 2_000_000, "{octets}");
    assert_eq!(notes_of(&set), (29_990..30_000).map(|number| format!("0 {number}")).collect::<Vec<_>>());
}

#[test]
fn readers_go_on_while_files_are_written_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 200);
    set.apply(&(0..1000).map(add).collect::<Vec<_>>()).unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let mut reader = set.reader();
    std::thread::scope(|scope| {
        let is_done = &is_done;
        scope.spawn(move || {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                reader.refresh();
                for number in 0..1000 {
                    assert!(reader.get(key(number)).unwrap().is_some(), "{number}");
                    assert!(reader.get(key(1_000_000 + number)).unwrap().is_none());
                }
            }
        });
        for start in (1000..20_000).step_by(100) {
            set.apply(&(start..start + 100).map(add).collect::<Vec<_>>()).unwrap();
        }
        set.wait().unwrap();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn damaged_tables_are_made_anew_and_a_damaged_page_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 3000);
    set.apply(&(0..3000).map(add).collect::<Vec<_>>()).unwrap();
    set.wait().unwrap();
    drop(set);
    let run = files(folder.path(), "run-").remove(0);
    let len = std::fs::metadata(&run).unwrap().len();
    flip(&run, len - 1, 1);
    let set = open(folder.path(), 3000);
    assert!((0..3000).all(|number| has(&set, number)));
    drop(set);
    flip(&run, 1024 + 100, 1);
    let damaged = KeySet::open(folder.path(), options(3000)).map(|_| ());
    assert!(damaged.unwrap_err().to_string().contains("page at octet 1024"), "tables cannot be made of it");
    flip(&run, len - 1, 1);
    let set = open(folder.path(), 3000);
    let reader = set.reader();
    let unread = (0..3000).filter(|number| reader.get(key(*number)).is_err()).count();
    assert!((30..=48).contains(&unread), "{unread} keys of one page");
    let gone = (0..3000).find(|number| reader.get(key(*number)).is_err()).unwrap();
    let mut set = set;
    assert_eq!(set.apply(&[remove(gone), add(gone), remove(gone)]).unwrap(), [true, true, true]);
    assert!(!has(&set, gone), "what was said of it since is known");
    let unseen = (0..3000).filter(|number| reader.look(key(*number)) == Found::Unread).count();
    assert!(unseen >= unread - 1);
}

#[test]
fn merge_that_meets_damage_leaves_everything_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 500);
    set.apply(&(0..500).map(add).collect::<Vec<_>>()).unwrap();
    set.wait().unwrap();
    flip(&files(folder.path(), "run-")[0], 1024 + 100, 1);
    for start in (500..2000).step_by(500) {
        set.apply(&(start..start + 500).map(add).collect::<Vec<_>>()).unwrap();
    }
    set.wait().unwrap();
    assert!((500..2000).all(|number| has(&set, number)));
    assert!(files(folder.path(), "run-").contains(&folder.path().join("run-00000001-00000001")));
    assert!(files(folder.path(), "").iter().all(|path| path.extension().is_none()), "no half file is left");
}

#[test]
fn what_a_merge_replaced_and_a_crash_left_is_not_counted_twice() {
    let (folder, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut set = open(folder.path(), 100);
    set.apply(&(0..100).map(add).collect::<Vec<_>>()).unwrap();
    set.wait().unwrap();
    copy(folder.path(), before.path());
    set.apply(&(100..200).map(add).collect::<Vec<_>>()).unwrap();
    set.apply(&(0..50).map(remove).collect::<Vec<_>>()).unwrap();
    set.wait().unwrap();
    drop(set);
    // The files of before come back, beside the one that they were merged into, and half of another.
    copy(before.path(), folder.path());
    std::fs::write(folder.path().join("run-00000001-00000009.new"), b"half").unwrap();
    let set = open(folder.path(), 100);
    assert_eq!(set.reader().len(), 150);
    assert!((0..200).all(|number| has(&set, number) == (number >= 50)));
    assert!(!folder.path().join("run-00000001-00000009.new").exists());
}

#[test]
fn missing_files_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path(), 100);
    for start in [0, 100, 200] {
        set.apply(&(start..start + 100).map(add).collect::<Vec<_>>()).unwrap();
    }
    set.wait().unwrap();
    drop(set);
    let runs = files(folder.path(), "run-");
    std::fs::remove_file(&runs[0]).unwrap();
    std::fs::remove_file(folder.path().join("log-00000002")).unwrap();
    let missing = KeySet::open(folder.path(), options(100)).map(|_| ());
    assert!(matches!(missing, Err(KeySetError::Missing { .. })), "{missing:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(bool, u64)>),
    Reopen,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = proptest::collection::vec((prop::bool::weighted(0.7), 0u64..60), 1..25);
    let step = prop_oneof![
        8 => batch.prop_map(Step::Apply),
        1 => Just(Step::Reopen),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..25)
}

type Model = BTreeMap<u64, ()>;

fn apply_to_model(model: &mut Model, batch: &[(bool, u64)]) -> Vec<bool> {
    let step = |(is_add, number): &(bool, u64)| {
        if *is_add { model.insert(*number, ()).is_none() } else { model.remove(number).is_some() }
    };
    batch.iter().map(step).collect()
}

fn changes(batch: &[(bool, u64)]) -> Vec<Change<'static>> {
    batch.iter().map(|(is_add, number)| if *is_add { add(*number) } else { remove(*number) }).collect()
}

fn assert_is(set: &KeySet, model: &Model) {
    for number in 0..60 {
        assert_eq!(has(set, number), model.contains_key(&number), "key {number}");
    }
    assert_eq!(set.reader().len(), model.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn set_is_what_a_map_is(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let (mut set, mut model) = (open(folder.path(), 16), Model::new());
        for step in steps {
            match step {
                Step::Apply(batch) => {
                    let changed = set.apply(&changes(&batch)).unwrap();
                    prop_assert_eq!(changed, apply_to_model(&mut model, &batch));
                }
                Step::Reopen => {
                    drop(set);
                    set = open(folder.path(), 16);
                    prop_assert!(set.damaged().is_empty());
                }
                Step::Wait => set.wait().unwrap(),
            }
            assert_is(&set, &model);
        }
    }

    /// A crash in the middle of a write leaves the batch whole or not at all, and all before it.
    #[test]
    fn crash_at_any_octet_of_the_last_write_loses_nothing_that_was_answered(
        steps in steps(),
        last in proptest::collection::vec((any::<bool>(), 0u64..60), 1..25),
        cut in any::<proptest::sample::Index>(),
        garbage in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut set, mut model) = (open(folder.path(), 16), Model::new());
        for step in steps {
            if let Step::Apply(batch) = step {
                set.apply(&changes(&batch)).unwrap();
                apply_to_model(&mut model, &batch);
            }
        }
        // What is written last goes into a log that nothing else is done with.
        drop(set);
        let mut set = open(folder.path(), 1000);
        let log = files(folder.path(), "log-").pop();
        let before = log.as_ref().map_or(0, |log| std::fs::metadata(log).unwrap().len());
        set.apply(&changes(&last)).unwrap();
        drop(set);
        let Some(log) = files(folder.path(), "log-").pop() else { return Ok(()) };
        let after = std::fs::metadata(&log).unwrap().len();
        let before = before.max(HEAD_LEN);
        let len = before + cut.index(usize::try_from(after - before).unwrap() + 1) as u64;
        let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
        file.set_len(len).unwrap();
        file.write_all_at(&garbage, len).unwrap();
        if len == after {
            apply_to_model(&mut model, &last);
        }
        let mut set = open(folder.path(), 16);
        prop_assert!(set.damaged().is_empty(), "a torn end is no damage: {:?}", set.damaged());
        assert_is(&set, &model);
        // And the set goes on.
        let changed = set.apply(&changes(&last)).unwrap();
        prop_assert_eq!(changed, apply_to_model(&mut model, &last));
        drop(set);
        assert_is(&open(folder.path(), 16), &model);
    }

    /// One wrong octet anywhere: everything is right, or somebody is told; and nothing panics.
    #[test]
    fn wrong_octet_is_never_a_wrong_answer_that_nobody_hears_of(
        steps in steps(),
        which in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        mask in 1u8..,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut set, mut model, mut last) = (open(folder.path(), 16), Model::new(), Model::new());
        for step in steps {
            if let Step::Apply(batch) = step {
                let before = model.clone();
                apply_to_model(&mut model, &batch);
                // A batch that changes nothing is not written.
                if set.apply(&changes(&batch)).unwrap().contains(&true) {
                    last = before;
                }
            }
        }
        set.wait().unwrap();
        drop(set);
        let paths = files(folder.path(), "");
        if paths.is_empty() {
            return Ok(());
        }
        let path = which.get(&paths);
        let len = usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap();
        flip(path, at.index(len) as u64, mask);
        let Ok(set) = KeySet::open(folder.path(), options(16)) else { return Ok(()) };
        let reader = set.reader();
        let found: Vec<_> = (0..60).map(|number| reader.get(key(number))).collect();
        let is_told = !set.damaged().is_empty() || found.iter().any(Result::is_err);
        // The last write alone cannot be told from one that a crash tore.
        let is = |model: &Model| {
            (0..60).zip(&found).all(|(number, found)| {
                found.as_ref().is_ok_and(|found| found.is_some() == model.contains_key(&number))
            })
        };
        prop_assert!(is_told || is(&model) || is(&last), "{}", path.display());
    }
}

#[test]
fn entries_stand_in_memory_as_far_as_there_is_room_for_them() {
    let folder = tempfile::tempdir().unwrap();
    for numbers in [0..3000, 3000..3500] {
        let mut set = open(folder.path(), numbers.clone().count());
        set.apply(&numbers.map(add).collect::<Vec<_>>()).unwrap();
        set.wait().unwrap();
    }
    assert_eq!(files(folder.path(), "run-").len(), 2);
    let memory = |memory_max| {
        let set = KeySet::open(folder.path(), Options { memory_max, ..options(10_000) }).unwrap();
        assert!((0..3500).all(|number| has(&set, number)) && !has(&set, 3500));
        set.handle().stat().memory
    };
    let entries = [10_000, 20_000, 70_000, 80_000].map(|room| (memory(room) - memory(0)) / 21);
    assert_eq!(entries, [0, 500, 3000, 3500]);
}
