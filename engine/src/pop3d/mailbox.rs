//! A mailbox in its owner's process: what a session asks of it, and that process.
//!
//! The session's process has no right to any mailbox. It asks the launcher for a process of the owner's, which lists,
//! opens and removes messages and hands over descriptors; octets of mail are read from those. Neither side trusts the
//! other: the owner could have their process say anything, which is about their own mail. Bounds: [`LIST_MAX`] octets of
//! a list, [`PATIENCE`] for an answer.

use super::maildir::Maildir;
use crate::config::MailboxPath;
use crate::confine;
use crate::mailboxes::front::connect;
use crate::mailboxes::wire::{self, Packet};
use crate::mailboxes::worker::Answer;
use ::pop3::maildrop::{Entry, Folder, Maildrop};
use local::failure::{Failure, Severity};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Octets of the names and sizes of a mailbox's messages.
const LIST_MAX: u64 = 64 << 20;

/// Counting a large mailbox for the first time reads all of it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a session's messages are.
pub(super) enum Mailbox {
    /// In this process, which has the right to all of them.
    Here(Maildir),
    There(Remote),
}

impl Mailbox {
    pub(super) fn maildrop(&self) -> io::Result<Maildrop> {
        match self {
            Mailbox::Here(maildir) => Ok(Maildrop::new(maildir.sized()?)),
            Mailbox::There(remote) => remote.maildrop(),
        }
    }

    /// `None`: it is gone.
    pub(super) fn open_message(&self, entry: &Entry) -> io::Result<Option<File>> {
        match self {
            Mailbox::Here(maildir) => maildir.open_message(entry),
            Mailbox::There(remote) => remote.open_message(entry),
        }
    }

    /// Returns how many could not be removed for good.
    pub(super) fn remove(&self, entries: &[&Entry]) -> usize {
        match self {
            Mailbox::Here(maildir) => maildir.remove(entries),
            Mailbox::There(remote) => remote.remove(entries).unwrap_or_else(|error| {
                tracing::error!(%error, "the owner's process did not remove");
                entries.len()
            }),
        }
    }
}

/// The owner's process, from the session's side.
pub(super) struct Remote {
    socket: OwnedFd,
}

impl Remote {
    /// Has the launcher start it. [`ErrorKind::NotFound`]: there is no such mailbox.
    pub(super) fn open(launcher: &Path, login: &str) -> io::Result<Remote> {
        let (socket, theirs) = wire::pair()?;
        let launcher = connect(launcher)?;
        wire::send(&launcher, &[b"mailbox", login.as_bytes()], Some(theirs.as_fd()))?;
        drop(theirs);
        let packet = wire::receive(&launcher)?.ok_or(ErrorKind::UnexpectedEof)?;
        match Answer::read(&packet).ok_or(ErrorKind::InvalidData)? {
            Answer::Done(_) => {}
            Answer::Failed(Failure { severity: Severity::Hard, .. }) => {
                return Err(ErrorKind::NotFound.into());
            }
            Answer::Failed(Failure { words, .. }) => return Err(io::Error::other(words)),
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Remote { socket })
    }

    fn ask(&self, fields: &[&[u8]], list: Option<&File>) -> io::Result<Packet> {
        wire::send(&self.socket, fields, list.map(|list| list.as_fd()))?;
        let packet = wire::receive(&self.socket)?.ok_or(ErrorKind::UnexpectedEof)?;
        match packet.texts::<2>() {
            Some(["failed", why]) => Err(io::Error::other(why.to_owned())),
            _ => Ok(packet),
        }
    }

    fn maildrop(&self) -> io::Result<Maildrop> {
        let packet = self.ask(&[b"list"], None)?;
        let list = packet.descriptor.ok_or(ErrorKind::InvalidData)?;
        Ok(Maildrop::new(read_list(File::from(list))?))
    }

    fn open_message(&self, entry: &Entry) -> io::Result<Option<File>> {
        let packet = self.ask(&[b"open", entry.folder.name().as_bytes(), &entry.name], None)?;
        let Some(file) = packet.descriptor.map(File::from) else { return Ok(None) };
        if file.metadata()?.is_file() { Ok(Some(file)) } else { Err(ErrorKind::InvalidData.into()) }
    }

    fn remove(&self, entries: &[&Entry]) -> io::Result<usize> {
        let list = list_of(entries.iter().map(|entry| (*entry, 0)))?;
        let packet = self.ask(&[b"remove"], Some(&list))?;
        let [_, left] = packet.texts().ok_or(ErrorKind::InvalidData)?;
        left.parse().map(|left: usize| left.min(entries.len())).map_err(|_| ErrorKind::InvalidData.into())
    }
}

/// Each entry: its folder, its size, the length of its name, its name.
fn list_of<'a>(entries: impl Iterator<Item = (&'a Entry, u64)>) -> io::Result<File> {
    let mut octets = Vec::new();
    for (entry, size) in entries {
        octets.push(u8::from(entry.folder == Folder::Cur));
        octets.extend_from_slice(&size.to_le_bytes());
        let len = u32::try_from(entry.name.len()).map_err(|_| ErrorKind::InvalidData)?;
        octets.extend_from_slice(&len.to_le_bytes());
        octets.extend_from_slice(&entry.name);
    }
    let mut file = File::from(memfd_create("list", MemfdFlags::CLOEXEC)?);
    file.write_all(&octets)?;
    file.rewind()?;
    Ok(file)
}

fn read_list(file: File) -> io::Result<Vec<(Entry, u64)>> {
    let mut octets = Vec::new();
    file.take(LIST_MAX + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > LIST_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    parse_list(&octets).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// `None`: that is no list.
fn parse_list(mut octets: &[u8]) -> Option<Vec<(Entry, u64)>> {
    let mut entries = Vec::new();
    while let Some((folder, rest)) = octets.split_first() {
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        let folder = match folder {
            0 => Folder::New,
            1 => Folder::Cur,
            _ => return None,
        };
        // A name is a name, and no path.
        if name.is_empty() || name.iter().any(|octet| matches!(octet, b'/' | 0)) {
            return None;
        }
        entries.push((Entry { folder, name: name.into() }, u64::from_le_bytes(*size)));
        octets = rest;
    }
    Some(entries)
}

/// For the fuzzer: any octets as a list.
pub fn fuzz_mailbox_list(bytes: &[u8]) {
    let Some(entries) = parse_list(bytes) else { return };
    let mut again = Vec::new();
    let mut file = list_of(entries.iter().map(|(entry, size)| (entry, *size))).expect("a list that was read");
    file.read_to_end(&mut again).expect("it is in memory");
    assert_eq!(again, bytes);
}

/// The owner's process, until the session's has gone. Standard input is its socket.
pub(crate) fn run(base: &Path, below: &Path) -> io::Result<()> {
    let path = MailboxPath { base: base.to_owned(), below: below.to_owned() };
    // What is made anew is as closed as the rest.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let maildir = Maildir::open(&path);
    confine::confine_to_maildir(&base.join(below)).map_err(io::Error::other)?;
    let socket = io::stdin();
    while let Some(packet) = wire::receive(&socket)? {
        let answer = maildir.as_ref().map_err(|error| error.kind().into());
        match answer.and_then(|maildir| answer_of(maildir, packet)) {
            Ok((fields, file)) => {
                let fields: Vec<&[u8]> = fields.iter().map(String::as_bytes).collect();
                wire::send(&socket, &fields, file.as_ref().map(|file| file.as_fd()))?;
            }
            Err(error) => wire::send(&socket, &[b"failed", error.to_string().as_bytes()], None)?,
        }
    }
    Ok(())
}

fn answer_of(maildir: &Maildir, packet: Packet) -> io::Result<(Vec<String>, Option<File>)> {
    let words: Vec<&[u8]> = packet.fields.iter().map(Vec::as_slice).collect();
    match words[..] {
        [b"list"] => {
            let sized = maildir.sized()?;
            let list = list_of(sized.iter().map(|(entry, size)| (entry, *size)))?;
            Ok((vec!["list".to_owned()], Some(list)))
        }
        [b"open", folder, name] => {
            let folder = if folder == Folder::New.name().as_bytes() { Folder::New } else { Folder::Cur };
            let is_name = !name.iter().any(|octet| matches!(octet, b'/' | 0));
            let entry = Some(Entry { folder, name: name.into() }).filter(|_| is_name);
            let file = maildir.open_message(&entry.ok_or(ErrorKind::InvalidData)?)?;
            Ok((vec![if file.is_some() { "open" } else { "gone" }.to_owned()], file))
        }
        [b"remove"] => {
            let list = read_list(File::from(packet.descriptor.ok_or(ErrorKind::InvalidData)?))?;
            let entries: Vec<&Entry> = list.iter().map(|(entry, _)| entry).collect();
            let left = maildir.remove(&entries);
            Ok((vec!["removed".to_owned(), left.to_string()], None))
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_reads_as_it_was_written() {
        let entry = |folder, name: &str| Entry { folder, name: name.as_bytes().into() };
        let entries = [(entry(Folder::New, "1.a"), 7), (entry(Folder::Cur, "2.b:2,S"), u64::MAX)];
        let list = list_of(entries.iter().map(|(entry, size)| (entry, *size))).unwrap();
        let read = read_list(list).unwrap();
        assert_eq!(read.len(), 2);
        assert!(read.iter().zip(&entries).all(|(read, (entry, size))| {
            (read.0.folder, &read.0.name, read.1) == (entry.folder, &entry.name, *size)
        }));
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        let one = |name: &[u8]| [&[0; 9][..], &[u8::try_from(name.len()).unwrap(), 0, 0, 0], name].concat();
        assert!(parse_list(&one(b"x")).is_some());
        assert!(["", "../x", "a\0"].iter().all(|name| parse_list(&one(name.as_bytes())).is_none()));
        assert!(parse_list(&[2; 14]).is_none() && parse_list(&[0; 5]).is_none());
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(0u8..3, 0..60)) {
            fuzz_mailbox_list(&bytes);
        }
    }
}
