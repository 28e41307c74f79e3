use super::*;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn maildrop(maildir: &Maildir) -> ::pop3::maildrop::Maildrop {
    ::pop3::maildrop::Maildrop::new(maildir.sized().unwrap())
}

struct Place {
    folder: TempDir,
    path: MailboxPath,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        for name in ["new", "cur", "tmp"] {
            std::fs::create_dir_all(folder.path().join("ann/Maildir").join(name)).unwrap();
        }
        let path = MailboxPath { base: folder.path().into(), below: "ann/Maildir".into() };
        Place { folder, path }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("ann/Maildir").join(name)
    }

    fn put(&self, name: &str, content: &str) {
        std::fs::write(self.at(name), content).unwrap();
    }

    fn open(&self) -> Maildir {
        Maildir::open(&self.path).unwrap()
    }

    /// A session's STAT.
    fn stat(&self) -> String {
        let now = crate::clock::now();
        let policy = ::pop3::Policy {
            limits: ::pop3::Limits::default(),
            tls_use: ::pop3::TlsUse::None,
            plain_logins: true,
            idle_secs: 600,
        };
        let arrival = ::pop3::Arrival { is_local: true, is_encrypted: false, stamp: None };
        let mut session = ::pop3::Session::new(now, policy.into(), arrival);
        session.handle_bytes(now, b"USER a\r\nPASS b\r\n");
        session.poll_output();
        session.handle_login(now, ::pop3::Login::Right);
        session.poll_output();
        session.handle_maildrop(now, Ok(maildrop(&self.open())));
        let mut said = Vec::new();
        session.take_replies(&mut said);
        let said = String::from_utf8(said).unwrap();
        said.lines().last().unwrap().to_owned()
    }
}

fn entry(folder: Folder, name: &str) -> Entry {
    Entry { folder, name: name.as_bytes().into() }
}

fn names(maildrop: &::pop3::maildrop::Maildrop) -> Vec<String> {
    (0..)
        .map_while(|index| maildrop.entry(index))
        .map(|entry| entry.name.escape_ascii().to_string())
        .collect()
}

#[test]
fn only_ordinary_files_are_messages() {
    let place = Place::new();
    place.put("new/3.a", "x\n");
    place.put("cur/1.a:2,S", "x\n");
    place.put("new/.2.a", "hidden\n");
    place.put("secret", "not theirs\n");
    std::fs::create_dir(place.at("cur/4.a")).unwrap();
    symlink(place.at("secret"), place.at("new/5.a")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, place.at("new/6.a"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let maildir = place.open();
    assert_eq!(names(&maildrop(&maildir)), ["1.a:2,S", "3.a"]);
    for name in ["5.a", "6.a"] {
        assert!(maildir.open_message(&entry(Folder::New, name)).is_err(), "{name}");
    }
}

#[test]
fn links_below_the_operators_path_are_not_followed() {
    let place = Place::new();
    std::fs::create_dir(place.folder.path().join("bob")).unwrap();
    symlink(place.at(""), place.folder.path().join("bob/Maildir")).unwrap();
    symlink(place.folder.path().join("ann"), place.folder.path().join("eve")).unwrap();
    for below in ["bob/Maildir", "eve/Maildir", "ann/../ann/../../x"] {
        let path = MailboxPath { base: place.folder.path().into(), below: below.into() };
        assert!(Maildir::open(&path).is_err(), "{below}");
    }
    let none = MailboxPath { base: place.folder.path().into(), below: "carl/Maildir".into() };
    assert_eq!(Maildir::open(&none).err().unwrap().kind(), io::ErrorKind::NotFound);
    std::fs::remove_dir(place.at("cur")).unwrap();
    symlink(place.at("new"), place.at("cur")).unwrap();
    assert!(Maildir::open(&place.path).is_err());
}

#[test]
fn sizes_are_counted_once_and_a_wrong_file_of_them_is_rebuilt() {
    let place = Place::new();
    place.put("new/1.a", "a\nb");
    place.put("cur/2.a,S=4,W=6:2,S", "a\nb\n");
    assert_eq!(place.stat(), "+OK 2 messages, 12 octets");
    let kept = std::fs::read(place.at(sizes::FILE_NAME)).unwrap();
    let mut writer = sizes::Writer::default();
    writer.add(b"1.a", 3, 1000);
    std::fs::write(place.at(sizes::FILE_NAME), writer.into_file()).unwrap();
    assert_eq!(place.stat(), "+OK 2 messages, 1006 octets", "what is kept is believed");
    for wrong in [&kept[..kept.len() - 1], b"", b"junk"] {
        std::fs::write(place.at(sizes::FILE_NAME), wrong).unwrap();
        assert_eq!(place.stat(), "+OK 2 messages, 12 octets");
        assert_eq!(std::fs::read(place.at(sizes::FILE_NAME)).unwrap(), kept);
    }
    place.put("new/1.a", "a\nb\nc\n");
    assert_eq!(place.stat(), "+OK 2 messages, 15 octets", "the file is another");
    assert_eq!(std::fs::read_dir(place.at("tmp")).unwrap().count(), 0);
    std::fs::remove_dir(place.at("tmp")).unwrap();
    std::fs::remove_file(place.at(sizes::FILE_NAME)).unwrap();
    assert_eq!(place.stat(), "+OK 2 messages, 15 octets", "it works without");
}

#[test]
fn what_moved_is_found_and_what_vanished_is_no_error() {
    let place = Place::new();
    for name in ["new/1.a", "new/2.a", "cur/3.a:2,"] {
        place.put(name, "x\n");
    }
    let maildir = place.open();
    let listed = [entry(Folder::New, "1.a"), entry(Folder::New, "2.a"), entry(Folder::Cur, "3.a:2,")];
    std::fs::rename(place.at("new/1.a"), place.at("cur/1.a:2,S")).unwrap();
    std::fs::remove_file(place.at("new/2.a")).unwrap();
    std::fs::rename(place.at("cur/3.a:2,"), place.at("cur/3.a:2,RS")).unwrap();
    assert!(maildir.open_message(&listed[0]).unwrap().is_some());
    assert!(maildir.open_message(&listed[1]).unwrap().is_none());
    place.put("cur/4.a:2,", "it stays\n");
    assert_eq!(maildir.remove(&listed.each_ref()), 0);
    assert_eq!(names(&maildrop(&place.open())), ["4.a:2,"]);
}

#[test]
fn what_cannot_be_removed_is_counted() {
    let place = Place::new();
    place.put("new/1.a", "x\n");
    std::fs::create_dir(place.at("new/2.a")).unwrap();
    let (first, second) = (entry(Folder::New, "1.a"), entry(Folder::New, "2.a"));
    assert_eq!(place.open().remove(&[&second, &first]), 1);
    assert!(!place.at("new/1.a").exists() && place.at("new/2.a").exists());
}

fn open_time(place: &Place) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        assert_eq!(names(&maildrop(&place.open())).len(), 10_000);
        start.elapsed()
    };
    (0..5).map(timed).min().unwrap()
}

/// The best of five: others may want the machine. A tenth of a second is what is promised, and what `bench/local.py`
/// measures of an optimised program; here it is a look into each file that must not come back.
#[test]
fn ten_thousand_messages_open_at_once() {
    let place = Place::new();
    for number in 0..10_000 {
        place.put(&format!("cur/17000{number:05}.M{number}P7.mx.example.org:2,S"), "A: b\n\nc\n");
    }
    let by_file = open_time(&place);
    for number in 0..10_000 {
        let name = format!("cur/17000{number:05}.M{number}P7.mx.example.org");
        std::fs::rename(place.at(&format!("{name}:2,S")), place.at(&format!("{name},S=8,W=11:2,S"))).unwrap();
    }
    let by_name = open_time(&place);
    println!("sizes from the file: {by_file:?}; from names: {by_name:?}");
    let most = Duration::from_secs(1);
    assert!(by_file < most && by_name < most);
}
