//! How much a Maildir may hold: `maildirsize` of Maildir++.
//!
//! The file's first line is the quota, `1000000S,1000C` for octets and messages; each further line a size and a count
//! to add up, negative where a reader removed something. A file that is missing, says another quota, or has grown past
//! [`FILE_MAX`] octets is made anew from what is in the folders, all but Trash. It is a memory and no record: a crash
//! may make it wrong until it is made anew. Bound: [`crate::disk::LIST_MAX`] files of a folder, [`FOLDERS_MAX`]
//! folders.

use super::MaildirError;
use crate::disk::{Disk, PRIVATE, replace_file};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Octets of `maildirsize`, as Maildir++ has it.
pub const FILE_MAX: u64 = 5120;

/// Folders of a Maildir that are counted.
pub const FOLDERS_MAX: usize = 10_000;

/// What a Maildir may hold. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quota {
    pub octets: u64,
    pub messages: u64,
}

impl Quota {
    /// `1000000S,1000C`, either part alone, or a lone number of octets.
    pub fn parse(text: &str) -> Option<Quota> {
        let mut quota = Quota::default();
        for part in text.split(',') {
            match part.strip_suffix('C') {
                Some(count) => quota.messages = count.parse().ok()?,
                None => quota.octets = part.strip_suffix('S').unwrap_or(part).parse().ok()?,
            }
        }
        Some(quota)
    }

    fn allows(self, held: Held, len: u64) -> bool {
        let fits =
            |limit: u64, sum: i64| limit == 0 || i64::try_from(limit).map_or(true, |limit| sum <= limit);
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        fits(self.octets, held.octets.saturating_add(len))
            && fits(self.messages, held.messages.saturating_add(1))
    }
}

impl std::fmt::Display for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.octets, self.messages) {
            (octets, 0) => write!(f, "{octets}S"),
            (0, messages) => write!(f, "{messages}C"),
            (octets, messages) => write!(f, "{octets}S,{messages}C"),
        }
    }
}

/// What is in a Maildir.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Held {
    octets: i64,
    messages: i64,
}

impl Held {
    fn plus(self, octets: i64, messages: i64) -> Held {
        Held { octets: self.octets.saturating_add(octets), messages: self.messages.saturating_add(messages) }
    }
}

/// Refuses a message that there is no room for.
pub(super) fn check<D: Disk>(
    disk: &mut D,
    maildir: &Path,
    quota: Quota,
    len: u64,
) -> Result<(), MaildirError> {
    let path = maildir.join("maildirsize");
    let known = match disk.read(&path, FILE_MAX + 1) {
        Ok(bytes) => parse(&bytes, quota),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(MaildirError::Disk(error)),
    };
    if known.is_some_and(|held| quota.allows(held, len)) {
        return Ok(());
    }
    // Before anybody is told that it is full, it is looked at.
    let held = count(disk, maildir).map_err(MaildirError::Disk)?;
    let content = format!("{quota}\n{} {}\n", held.octets, held.messages);
    let temporary = maildir.join("tmp/maildirsize");
    replace_file(disk, &path, &temporary, content.as_bytes(), PRIVATE).map_err(MaildirError::Disk)?;
    if quota.allows(held, len) { Ok(()) } else { Err(MaildirError::Full) }
}

/// Adds a message that was delivered. Whatever goes wrong: the next count puts it right.
pub(super) fn note<D: Disk>(disk: &mut D, maildir: &Path, len: u64) {
    let line = format!("{len} 1\n");
    let _ =
        disk.open(&maildir.join("maildirsize")).and_then(|mut file| disk.append(&mut file, line.as_bytes()));
}

/// `None` if it must be made anew.
fn parse(bytes: &[u8], quota: Quota) -> Option<Held> {
    if bytes.len() as u64 > FILE_MAX {
        return None;
    }
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if Quota::parse(lines.next()?)? != quota {
        return None;
    }
    lines.try_fold(Held::default(), |held, line| {
        let mut numbers = line.split_ascii_whitespace();
        let (octets, messages) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        numbers.next().is_none().then(|| held.plus(octets, messages))
    })
}

/// Adds up `new/` and `cur/`, and those of the folders, which begin with a dot.
fn count<D: Disk>(disk: &mut D, maildir: &Path) -> io::Result<Held> {
    let mut held = count_folder(disk, maildir)?;
    for entry in disk.list(maildir)?.into_iter().filter(|entry| entry.is_folder).take(FOLDERS_MAX) {
        let name = entry.name.as_encoded_bytes();
        if name.starts_with(b".") && name != b".Trash" && !name.starts_with(b".Trash.") {
            let inner = count_folder(disk, &maildir.join(&entry.name))?;
            held = held.plus(inner.octets, inner.messages);
        }
    }
    Ok(held)
}

fn count_folder<D: Disk>(disk: &mut D, folder: &Path) -> io::Result<Held> {
    let mut held = Held::default();
    for inner in ["new", "cur"] {
        let entries = match disk.list(&folder.join(inner)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries.iter().filter(|entry| !entry.is_folder) {
            let name = entry.name.as_encoded_bytes();
            if !name.starts_with(b".") && !is_trashed(name) {
                held = held.plus(len_in(name).unwrap_or(i64::try_from(entry.len).unwrap_or(i64::MAX)), 1);
            }
        }
    }
    Ok(held)
}

/// Flag T: it is deleted and only not yet gone.
fn is_trashed(name: &[u8]) -> bool {
    name.rsplit(|octet| *octet == b':')
        .next()
        .is_some_and(|flags| flags.len() < name.len() && flags.starts_with(b"2,") && flags.contains(&b'T'))
}

/// What `,S=` says.
fn len_in(name: &[u8]) -> Option<i64> {
    let name = std::str::from_utf8(name).ok()?;
    let (_, behind) = name.split_once(",S=")?;
    behind[..behind.find([',', ':']).unwrap_or(behind.len())].parse().ok()
}

/// For the fuzzer.
pub fn fuzz_maildirsize(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(quota) = Quota::parse(text.lines().next().unwrap_or_default()) else { return };
    assert_eq!(Quota::parse(&quota.to_string()), Some(quota));
    if let Some(held) = parse(bytes, quota) {
        let _ = quota.allows(held, u64::MAX);
    }
    let _ = (is_trashed(bytes), len_in(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_added_up() {
        let quota = Quota { octets: 1000, messages: 5 };
        assert_eq!(Quota::parse("1000S,5C"), Some(quota));
        assert_eq!(parse(b"1000S,5C\n300 2\n-100 -1\n", quota), Some(Held { octets: 200, messages: 1 }));
        for stale in ["", "999S,5C\n", "1000S,5C\nx\n", "1000S,5C\n1 2 3\n", "1000S,5C\n\n"] {
            assert_eq!(parse(stale.as_bytes(), quota), None, "{stale:?}");
        }
        let held = Held { octets: 990, messages: 4 };
        assert!(quota.allows(held, 10) && !quota.allows(held, 11));
        assert!(!quota.allows(Held { octets: 0, messages: 5 }, 1));
        assert!(Quota { octets: 0, messages: 0 }.allows(held, u64::MAX));
    }

    #[test]
    fn names_tell_sizes_and_what_is_deleted() {
        assert_eq!(len_in(b"1.M2P3.host,S=44,W=50:2,S"), Some(44));
        assert_eq!(len_in(b"1.M2P3.host,S=44:2,S"), Some(44));
        assert_eq!(len_in(b"1.M2P3.host"), None);
        assert!(is_trashed(b"1.M2P3.host:2,ST") && !is_trashed(b"1.M2P3.host:2,S") && !is_trashed(b"2,T"));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in "[0-9]{1,4}S(,[0-9]{1,3}C)?\n([-0-9]{1,3} [-0-9]{1,3}\n){0,4}",
        ) {
            fuzz_maildirsize(&bytes);
            fuzz_maildirsize(text.as_bytes());
        }
    }
}
