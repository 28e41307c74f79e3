use super::*;
use crate::disk::StdDisk;
use crate::disk::sim::{SimDisk, State, Trouble};
use proptest::prelude::*;

const TOP: &[u8] = b"From a@x.test Thu Jan 01 00:00:00 1970\nReturn-Path: <a@x.test>\n";
const CONTENT: &[u8] = b"Subject: hi\n\nFrom me\n";
const OLD: &[u8] = b"From b@x.test Thu Jan 01 00:00:00 1970\n\nold\n\n";

fn message() -> Vec<u8> {
    [TOP, b"Subject: hi\n\n>From me\n\n"].concat()
}

fn disk() -> SimDisk {
    let mut disk = SimDisk::with_folders(&["h"]);
    disk.put("h/box", OLD);
    disk
}

fn run(disk: &mut SimDisk) -> Result<(), MboxError> {
    deliver(disk, Path::new("h/box"), TOP, &mut &CONTENT[..])
}

/// Messages of a file: each begins with a `From ` line behind an empty one or at its start.
fn messages(file: &[u8]) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut is_behind_empty = true;
    for line in file.split_inclusive(|octet| *octet == b'\n') {
        if found.is_empty() || is_behind_empty && line.starts_with(FROM) {
            found.push(Vec::new());
        }
        found.last_mut().unwrap().extend_from_slice(line);
        is_behind_empty = line == b"\n";
    }
    found
}

#[test]
fn a_message_stands_behind_the_others_with_its_from_lines_quoted() {
    let mut disk = disk();
    run(&mut disk).unwrap();
    assert_eq!(disk.seen.content("h/box").unwrap(), [OLD, &message()].concat());
}

#[test]
fn lines_are_quoted_reversibly() {
    for (content, want) in [
        ("From x\n", ">From x\n\n"),
        (">From x\n>>From x\n", ">>From x\n>>>From x\n\n"),
        ("From\nFro", "From\nFro\n\n"),
        ("from x\n From x\n>Fr\n", "from x\n From x\n>Fr\n\n"),
        ("a\nFrom ", "a\n>From \n\n"),
        ("", "\n"),
        ("no end", "no end\n\n"),
        (">", ">\n\n"),
    ] {
        assert_eq!(String::from_utf8(quoted(content.as_bytes())).unwrap(), want, "{content:?}");
    }
}

fn check_crash(step: usize, disk: &SimDisk, reported: bool, state: State) {
    let found = state.content("h/box").expect("the file was there long before");
    assert!(found.starts_with(OLD), "step {step}: an old message is touched");
    let tail = &found[OLD.len()..];
    assert!(!reported || tail == message(), "step {step}: reported, and not whole");
    // Whatever the crash left: the next message is one of its own, and so is each that was reported.
    let mut next = disk.restarted_with(state);
    run(&mut next).unwrap();
    let after = messages(&next.seen.content("h/box").unwrap());
    assert_eq!(after.last(), Some(&message()), "step {step}");
    // Only a hole, where a later write came to the disk and an earlier one did not, is not told from the lines before
    // it.
    assert!(after[0] == OLD || after[0].starts_with(OLD) && tail.starts_with(b"\0"), "step {step}");
    assert!(!reported || after == [OLD.to_vec(), message(), message()], "step {step}");
}

#[test]
fn power_loss_at_any_step_loses_nothing_that_was_reported() {
    let mut step = 0;
    loop {
        let mut disk = disk();
        disk.trouble = Trouble::Dies(step);
        let reported = run(&mut disk).is_ok();
        for state in disk.crashes() {
            check_crash(step, &disk, reported, state);
        }
        if reported {
            break;
        }
        step += 1;
    }
    assert!(step > 6, "{step}");
}

#[test]
fn power_loss_takes_no_new_mailbox_whose_first_message_was_reported() {
    let mut step = 0;
    loop {
        let mut disk = SimDisk::with_folders(&["h"]);
        disk.trouble = Trouble::Dies(step);
        let reported = run(&mut disk).is_ok();
        for state in disk.crashes() {
            let found = state.content("h/box");
            assert!(!reported || found.as_deref() == Some(&message()[..]), "step {step}: {found:?}");
        }
        if reported {
            break;
        }
        step += 1;
    }
    assert!(step > 6, "{step}");
}

#[test]
fn a_step_that_fails_takes_back_what_was_written() {
    for step in 0.. {
        let mut disk = disk();
        disk.trouble = Trouble::Fails(step);
        let done = run(&mut disk);
        let found = disk.seen.content("h/box").unwrap();
        let want = if done.is_ok() { [OLD, &message()].concat() } else { OLD.to_vec() };
        assert_eq!(found, want, "step {step}: {done:?}");
        if disk.steps <= step {
            break;
        }
    }
}

#[test]
fn what_a_crash_left_is_closed_by_an_empty_line() {
    for (left, gap) in
        [("From x\nhalf", "\n\n"), ("From x\n\nline\n", "\n"), ("From x\n\nline\n\n", ""), ("\n", "")]
    {
        let mut disk = SimDisk::with_folders(&["h"]);
        disk.put("h/box", left.as_bytes());
        run(&mut disk).unwrap();
        let want = [left.as_bytes(), gap.as_bytes(), &message()].concat();
        assert_eq!(disk.seen.content("h/box").unwrap(), want, "{left:?}");
    }
}

#[test]
fn a_real_file_is_made_and_locked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box");
    for _ in 0..2 {
        deliver(&mut StdDisk, &path, TOP, &mut &CONTENT[..]).unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), message().repeat(2));
    let error = deliver(&mut StdDisk, folder.path(), TOP, &mut &CONTENT[..]).unwrap_err();
    let words = format!("Unable to open {}: is a directory. (#4.2.1)", folder.path().display());
    assert_eq!(Failure::from(error), Failure::soft(words));
}

proptest! {
    #[test]
    fn fuzz_smoke(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        cut in 1_u8..9,
        text in "(>{0,3}(From |From|Fro|x)?.{0,3}\n?){0,6}",
    ) {
        fuzz_mbox(&bytes);
        fuzz_mbox(&[&[cut], text.as_bytes()].concat());
    }
}
