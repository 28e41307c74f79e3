use super::*;
use crate::disk::StdDisk;
use crate::disk::sim::{SimDisk, Trouble};
use crate::failure::Severity;

const TOP: &[u8] = b"Return-Path: <a@x.test>\nDelivered-To: b@y.test\n";
const CONTENT: &[u8] = b"Subject: hi\n\nbody\n";

fn namer(counter: u64) -> Namer {
    Namer::new(Duration::from_micros(1_700_000_000_000_042), 77, counter, "mx.test")
}

fn disk() -> SimDisk {
    SimDisk::with_folders(&["m", "m/tmp", "m/new", "m/cur"])
}

fn run(disk: &mut SimDisk, quota: Option<Quota>) -> Result<Delivered, MaildirError> {
    deliver(disk, Path::new("m"), &mut namer(0), TOP, &mut &CONTENT[..], quota)
}

#[test]
fn a_message_stands_in_new_with_its_sizes_in_its_name() {
    let mut disk = disk();
    let delivered = run(&mut disk, None).unwrap();
    let whole = [TOP, CONTENT].concat();
    let (len, lines) = (whole.len(), 5);
    let name = format!("m/new/1700000000.M42P77Q0.mx.test,S={len},W={}", len + lines);
    assert_eq!(delivered, Delivered { path: name.clone().into(), len: len as u64 });
    assert_eq!(disk.seen.files_in("m/new"), [(name.into(), whole)]);
    assert!(disk.seen.files_in("m/tmp").is_empty());
}

/// At each step, whatever of the unsynced is lost: new/ has whole messages only, and has it once it was reported.
#[test]
fn power_loss_at_any_step_loses_nothing_that_was_reported_and_shows_nothing_in_part() {
    let whole = [TOP, CONTENT].concat();
    for has_links in [true, false] {
        let mut step = 0;
        loop {
            let mut disk = disk();
            disk.has_links = has_links;
            disk.trouble = Trouble::Dies(step);
            let reported = run(&mut disk, None).is_ok();
            let states = disk.crashes();
            for state in states {
                let new = state.files_in("m/new");
                assert!(new.iter().all(|(_, content)| *content == whole), "step {step}: {new:?}");
                assert!(!reported || new.len() == 1, "step {step}: {new:?}");
            }
            if reported {
                break;
            }
            step += 1;
        }
        assert!(step >= 7, "{step}");
    }
}

#[test]
fn a_step_that_fails_leaves_nothing_in_tmp_and_reports_nothing_that_is_not_there() {
    for step in 0.. {
        let mut disk = disk();
        disk.trouble = Trouble::Fails(step);
        let done = run(&mut disk, None);
        let (new, tmp) = (disk.seen.files_in("m/new").len(), disk.seen.files_in("m/tmp").len());
        match done {
            Ok(_) => assert_eq!(new, 1, "step {step}"),
            Err(error) => {
                let failure = Failure::from(error);
                assert_eq!(failure.severity, Severity::Soft);
                assert_eq!(tmp, 0, "step {step}");
            }
        }
        if disk.steps <= step {
            break;
        }
    }
}

#[test]
fn a_name_that_is_taken_is_passed_by() {
    let mut disk = disk();
    disk.put("m/tmp/1700000000.M42P77Q0.mx.test", b"another's");
    let len = TOP.len() + CONTENT.len();
    let taken = format!("m/new/1700000000.M42P77Q1.mx.test,S={len},W={}", len + 5);
    disk.put(&taken, b"one more");
    let delivered = run(&mut disk, None).unwrap();
    assert!(delivered.path.to_str().unwrap().contains("Q2."), "{delivered:?}");
    assert_eq!(disk.seen.content(&taken).unwrap(), b"one more");
}

#[test]
fn names_hold_nothing_that_divides_names() {
    let name = Namer::new(Duration::from_secs(1), 2, 3, "a/b:c,d").name();
    assert_eq!(name, "1.M0P2Q3.a\\057b\\072c\\054d");
}

#[test]
fn without_a_maildir_mail_waits_in_qmails_words() {
    let mut disk = SimDisk::with_folders(&[]);
    let failure = Failure::from(run(&mut disk, None).unwrap_err());
    assert_eq!(failure, Failure::soft("Unable to chdir to maildir. (#4.2.1)"));
}

#[test]
fn a_message_that_cannot_be_read_is_not_delivered() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let mut disk = disk();
    let done = deliver(&mut disk, Path::new("m"), &mut namer(0), TOP, &mut Broken, None);
    assert!(matches!(done, Err(MaildirError::Read(_))));
    assert!(disk.seen.files_in("m/new").is_empty() && disk.seen.files_in("m/tmp").is_empty());
}

#[test]
fn a_full_maildir_takes_nothing_and_a_new_count_makes_room() {
    let len = (TOP.len() + CONTENT.len()) as u64;
    let quota = Quota { octets: 2 * len, messages: 0 };
    let mut disk = disk();
    for count in 0..2 {
        let done = deliver(&mut disk, Path::new("m"), &mut namer(count), TOP, &mut &CONTENT[..], Some(quota));
        assert!(done.is_ok(), "{done:?}");
    }
    let memory = disk.seen.content("m/maildirsize").unwrap();
    assert_eq!(String::from_utf8(memory).unwrap(), format!("{quota}\n0 0\n{len} 1\n{len} 1\n"));
    let full = Failure::from(run(&mut disk, Some(quota)).unwrap_err());
    assert_eq!(full, Failure::hard("Mailbox is full. (#5.2.2)"));
    assert_eq!(disk.seen.files_in("m/tmp"), []);
    // A reader that does not know of maildirsize removes one: it is counted again before mail is refused.
    let first = disk.seen.files_in("m/new")[0].0.clone();
    disk.remove(&first).unwrap();
    assert!(run(&mut disk, Some(quota)).is_ok());
}

#[test]
fn a_real_disk_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tmp", "new", "cur"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let quota = Some(Quota { octets: 10_000, messages: 0 });
    let content = b"a\r\nb\n".repeat(20_000);
    let over = deliver(&mut StdDisk, folder.path(), &mut namer(0), TOP, &mut &content[..], quota);
    assert!(matches!(over, Err(MaildirError::Full)));
    let delivered =
        deliver(&mut StdDisk, folder.path(), &mut namer(0), TOP, &mut &content[..], None).unwrap();
    let whole = [TOP, &content].concat();
    assert_eq!(std::fs::read(&delivered.path).unwrap(), whole);
    let name = delivered.path.file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with(&format!(",S={},W={}", whole.len(), whole.len() + 2 + 20_000)), "{name}");
    assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    // Made anew, it knows of the message that went past it.
    std::fs::remove_file(folder.path().join("maildirsize")).unwrap();
    let over = deliver(&mut StdDisk, folder.path(), &mut namer(0), TOP, &mut &CONTENT[..], quota);
    assert!(matches!(over, Err(MaildirError::Full)));
}
