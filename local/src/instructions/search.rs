//! Which file holds the instructions for an address, and whether it may be trusted (qmail-local).
//!
//! For dash `-` and extension `a-b` it is the first of `.qmail-a-b`, `.qmail-a-default`, `.qmail-default` that is a
//! file. In a file's name the extension is in lower case with colons for its dots, so no extension leads up out of a
//! folder. What was matched by `default` becomes `DEFAULT`, as it stood in the address.
//!
//! Mail waits while the home or the file can be written by others than its user, and while the home is sticky, which
//! is how a user says that they are editing. Decisions are pure, over [`Home`]; [`FolderHome`] is a real one.

use super::FILE_MAX;
use crate::failure::{Failure, reason};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Mode bits of a folder that say: do not deliver now.
const STICKY: u32 = 0o1000;

/// The user may execute the file: only addresses may stand in it.
const USER_EXECUTES: u32 = 0o100;

const DEFAULT: &str = "default";

/// Whose write permission makes a home or a file of instructions untrustworthy (qmail's `conf-patrn`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Distrust {
    /// Everybody's, as qmail is shipped: many systems give each user a group of their own.
    #[default]
    World,
    /// Everybody's and the group's.
    GroupAndWorld,
}

impl Distrust {
    fn mask(self) -> u32 {
        match self {
            Distrust::World => 0o002,
            Distrust::GroupAndWorld => 0o022,
        }
    }
}

/// A file of instructions as it was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    pub mode: u32,
    pub is_file: bool,
    /// At most one octet more than [`FILE_MAX`].
    pub content: Vec<u8>,
}

/// A user's home, as far as instructions go. Names have no folder before them.
pub trait Home {
    /// Permission bits, the sticky one included.
    fn mode(&self) -> io::Result<u32>;

    /// Silent if there is nothing of that name, or nothing that this user can reach.
    fn open(&self, name: &str) -> io::Result<Option<Found>>;

    /// True if there is something of that name.
    fn has(&self, name: &str) -> io::Result<bool>;
}

/// A name that a file of instructions may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    pub name: String,
    /// What `default` stands for, if the name ends in it.
    pub default: Option<String>,
}

/// An extension as it stands in a file's name.
fn safe(extension: &str) -> String {
    extension.to_ascii_lowercase().replace('.', ":")
}

/// Names to look for, the first that is a file wins. One more than the extension has dashes, or two.
pub fn candidates(dash: &str, extension: &str) -> Vec<Candidate> {
    let safe = safe(extension);
    let own = safe.strip_suffix(DEFAULT).map(|before| extension[before.len()..].to_owned());
    let mut found = vec![Candidate { name: format!(".qmail{dash}{safe}"), default: own }];
    let ends = (0..=safe.len()).rev().filter(|at| *at == 0 || safe.as_bytes()[at - 1] == b'-');
    found.extend(ends.map(|at| Candidate {
        name: format!(".qmail{dash}{}{DEFAULT}", &safe[..at]),
        default: Some(extension[at..].to_owned()),
    }));
    found
}

/// Names of the files beside a list's that say who hears of its failures.
pub fn owner_files(dash: &str, extension: &str) -> [String; 2] {
    let name = format!(".qmail{dash}{}-owner", safe(extension));
    let default = format!("{name}-{DEFAULT}");
    [name, default]
}

/// Instructions that may be followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chosen {
    pub candidate: Candidate,
    pub content: Vec<u8>,
    /// The user may execute the file: nothing but addresses may stand in it.
    pub is_forward_only: bool,
}

/// Whether anything may be delivered in this home now.
pub fn check_home(mode: u32, distrust: Distrust) -> Result<(), Failure> {
    if mode & distrust.mask() != 0 {
        return Err(Failure::soft("Uh-oh: home directory is writable. (#4.7.0)"));
    }
    if mode & STICKY != 0 {
        let words = "Home directory is sticky: user is editing his .qmail file. (#4.2.1)";
        return Err(Failure::soft(words));
    }
    Ok(())
}

/// The file for an address; `None` if there is none.
pub fn find(
    home: &dyn Home,
    distrust: Distrust,
    dash: &str,
    extension: &str,
) -> Result<Option<Chosen>, Failure> {
    for candidate in candidates(dash, extension) {
        let found = home.open(&candidate.name).map_err(|error| unable_to_open(&candidate.name, &error))?;
        let Some(Found { mode, content, .. }) = found.filter(|found| found.is_file) else { continue };
        if mode & distrust.mask() != 0 {
            return Err(Failure::soft("Uh-oh: .qmail file is writable. (#4.7.0)"));
        }
        return Ok(Some(Chosen { candidate, content, is_forward_only: mode & USER_EXECUTES != 0 }));
    }
    Ok(None)
}

/// Who hears of failures of what is forwarded: `sender`, or the owner of the list that these instructions are.
pub fn new_sender(
    home: &dyn Home,
    (dash, extension): (&str, &str),
    (local, host): (&str, &str),
    sender: &str,
) -> Result<String, Failure> {
    let [owner, each] = owner_files(dash, extension);
    let has = |name: &str| home.has(name).map_err(|error| unable_to_open(name, &error));
    // A bounce stays one: what fails of it must not go round.
    if sender.is_empty() || sender == "#@[]" || !has(&owner)? {
        return Ok(sender.to_owned());
    }
    // With -owner-default each recipient gets a sender of its own: the queue makes it (VERP).
    Ok(if has(&each)? { format!("{local}-owner-@{host}-@[]") } else { format!("{local}-owner@{host}") })
}

fn unable_to_open(name: &str, error: &io::Error) -> Failure {
    Failure::soft(format!("Unable to open {name}: {}. (#4.3.0)", reason(error)))
}

/// A home on disk. Trusts nothing in it: what is no file is not waited for.
#[derive(Clone, Debug)]
pub struct FolderHome(pub PathBuf);

impl FolderHome {
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(Path::new(name))
    }
}

impl Home for FolderHome {
    fn mode(&self) -> io::Result<u32> {
        Ok(std::fs::metadata(&self.0)?.mode() & 0o7777)
    }

    fn open(&self, name: &str) -> io::Result<Option<Found>> {
        // A FIFO without a writer must not hold mail up.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = std::fs::OpenOptions::new().read(true).custom_flags(nonblock).open(self.at(name));
        let Some(file) = unless_missing(opened)? else { return Ok(None) };
        let about = file.metadata()?;
        let mut content = Vec::new();
        if about.is_file() {
            file.take(FILE_MAX as u64 + 1).read_to_end(&mut content)?;
        }
        Ok(Some(Found { mode: about.mode() & 0o7777, is_file: about.is_file(), content }))
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        // qmail asks with stat, and takes what it may not see for not there.
        match unless_missing(std::fs::metadata(self.at(name))) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            found => Ok(found?.is_some()),
        }
    }
}

/// Names too long, with an octet that no name has, or through something that is no folder, are not there.
fn unless_missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | InvalidInput) => {
            Ok(None)
        }
        // What is no file and has no reader or device.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::failure::Severity;
    use proptest::prelude::*;

    /// Files by name, with their modes.
    #[derive(Clone, Debug)]
    pub(crate) struct FakeHome {
        pub(crate) mode: u32,
        pub(crate) files: Vec<(String, u32, String)>,
    }

    impl FakeHome {
        pub(crate) fn with(files: &[(&str, &str)]) -> FakeHome {
            let files =
                files.iter().map(|(name, content)| ((*name).into(), 0o644, (*content).into())).collect();
            FakeHome { mode: 0o755, files }
        }

        pub(crate) fn mode_of(mut self, name: &str, mode: u32) -> FakeHome {
            self.files.iter_mut().find(|file| file.0 == name).unwrap().1 = mode;
            self
        }
    }

    impl Home for FakeHome {
        fn mode(&self) -> io::Result<u32> {
            Ok(self.mode)
        }

        fn open(&self, name: &str) -> io::Result<Option<Found>> {
            let found = self.files.iter().find(|file| file.0 == name);
            if found.is_some_and(|(_, mode, _)| *mode == 0) {
                return Err(io::Error::from_raw_os_error(13));
            }
            Ok(found.map(|(_, mode, content)| Found {
                mode: mode & 0o777,
                is_file: mode & 0o40000 == 0,
                content: content.clone().into_bytes(),
            }))
        }

        fn has(&self, name: &str) -> io::Result<bool> {
            Ok(self.files.iter().any(|file| file.0 == name))
        }
    }

    fn names(dash: &str, extension: &str) -> Vec<(String, Option<String>)> {
        candidates(dash, extension).into_iter().map(|found| (found.name, found.default)).collect()
    }

    fn pair(name: &str, default: Option<&str>) -> (String, Option<String>) {
        (name.into(), default.map(str::to_owned))
    }

    #[test]
    fn the_whole_name_comes_first_then_ever_shorter_defaults() {
        assert_eq!(names("", ""), [pair(".qmail", None), pair(".qmaildefault", Some(""))]);
        assert_eq!(
            names("-", "Foo.x-Bar"),
            [
                pair(".qmail-foo:x-bar", None),
                pair(".qmail-foo:x-default", Some("Bar")),
                pair(".qmail-default", Some("Foo.x-Bar")),
            ]
        );
        assert_eq!(
            names("-/", "a-b-"),
            [
                pair(".qmail-/a-b-", None),
                pair(".qmail-/a-b-default", Some("")),
                pair(".qmail-/a-default", Some("b-")),
                pair(".qmail-/default", Some("a-b-")),
            ]
        );
    }

    #[test]
    fn a_name_that_ends_in_default_is_its_own_default() {
        assert_eq!(names("-", "list-DEFAULT")[0], pair(".qmail-list-default", Some("DEFAULT")));
    }

    #[test]
    fn no_extension_leads_up() {
        for found in candidates("-", "x/../../../etc/passwd") {
            assert!(!found.name.contains(".."), "{}", found.name);
        }
    }

    fn found(home: &FakeHome, extension: &str) -> Result<Option<String>, Failure> {
        Ok(find(home, Distrust::World, "-", extension)?.map(|chosen| chosen.candidate.name))
    }

    #[test]
    fn the_first_file_is_taken_and_folders_are_passed_by() {
        let home = FakeHome::with(&[(".qmail-a-default", "#"), (".qmail-a-b", "#"), (".qmail-default", "#")]);
        assert_eq!(found(&home, "a-b").unwrap().unwrap(), ".qmail-a-b");
        let home = home.mode_of(".qmail-a-b", 0o40755);
        assert_eq!(found(&home, "a-b").unwrap().unwrap(), ".qmail-a-default");
        assert_eq!(found(&home, "zzz").unwrap().unwrap(), ".qmail-default");
        assert_eq!(found(&FakeHome::with(&[]), "a"), Ok(None));
    }

    #[test]
    fn mail_waits_for_files_that_others_can_write_or_that_cannot_be_read() {
        let home = FakeHome::with(&[(".qmail-a", "#")]);
        let refused = |mode| found(&home.clone().mode_of(".qmail-a", mode), "a").unwrap_err();
        assert_eq!(refused(0o646).words, "Uh-oh: .qmail file is writable. (#4.7.0)");
        assert_eq!(refused(0).words, "Unable to open .qmail-a: permission denied. (#4.3.0)");
        let group = home.mode_of(".qmail-a", 0o664);
        assert!(find(&group, Distrust::World, "-", "a").is_ok());
        assert!(find(&group, Distrust::GroupAndWorld, "-", "a").is_err());
    }

    #[test]
    fn mail_waits_for_homes_that_are_writable_or_sticky() {
        assert_eq!(check_home(0o755, Distrust::World), Ok(()));
        assert_eq!(check_home(0o775, Distrust::World), Ok(()));
        for (mode, distrust) in
            [(0o777, Distrust::World), (0o775, Distrust::GroupAndWorld), (0o1755, Distrust::World)]
        {
            assert_eq!(check_home(mode, distrust).unwrap_err().severity, Severity::Soft, "{mode:o}");
        }
    }

    #[test]
    fn an_execute_bit_says_addresses_only() {
        let home = FakeHome::with(&[(".qmail-a", "#")]).mode_of(".qmail-a", 0o744);
        assert!(find(&home, Distrust::World, "-", "a").unwrap().unwrap().is_forward_only);
    }

    #[test]
    fn failures_of_a_list_go_to_its_owner() {
        let sender = |home: &FakeHome, sender: &str| {
            new_sender(home, ("-", "list"), ("ann-list", "example.org"), sender).unwrap()
        };
        let none = FakeHome::with(&[]);
        let owner = FakeHome::with(&[(".qmail-list-owner", "#")]);
        let each = FakeHome::with(&[(".qmail-list-owner", "#"), (".qmail-list-owner-default", "#")]);
        let only_default = FakeHome::with(&[(".qmail-list-owner-default", "#")]);
        assert_eq!(sender(&none, "bob@example.net"), "bob@example.net");
        assert_eq!(sender(&only_default, "bob@example.net"), "bob@example.net");
        assert_eq!(sender(&owner, "bob@example.net"), "ann-list-owner@example.org");
        assert_eq!(sender(&each, "bob@example.net"), "ann-list-owner-@example.org-@[]");
        assert_eq!((sender(&each, ""), sender(&each, "#@[]")), (String::new(), "#@[]".to_owned()));
    }

    #[test]
    fn a_home_on_disk_is_looked_at_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".qmail"), "./Mailbox\n").unwrap();
        std::fs::create_dir(folder.path().join(".qmail-folder")).unwrap();
        let fifo = folder.path().join(".qmail-fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let home = FolderHome(folder.path().to_owned());
        assert_eq!(home.open(".qmail").unwrap().unwrap().content, b"./Mailbox\n");
        assert!(!home.open(".qmail-folder").unwrap().unwrap().is_file);
        assert!(!home.open(".qmail-fifo").unwrap().unwrap().is_file);
        for missing in [".qmail-x".to_owned(), ".qmail/x".to_owned(), "x".repeat(300), "a\0b".to_owned()] {
            assert_eq!(home.open(&missing).unwrap(), None, "{missing:?}");
            assert!(!home.has(&missing).unwrap());
        }
    }

    proptest! {
        #[test]
        fn any_extension_has_names(extension in "\\PC{0,40}", dash in "-|-/|") {
            let found = candidates(&dash, &extension);
            prop_assert!(found.iter().all(|found| found.name.starts_with(".qmail")));
            let own = extension.to_ascii_lowercase().replace('.', ":");
            prop_assert_eq!(&found[0].name, &format!(".qmail{dash}{own}"));
        }
    }
}
