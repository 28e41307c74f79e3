//! A Maildir on disk: what is in it, how long each message is, one message's file, and its removal.
//!
//! Several sessions and programs may be at work in it. A message may move from `new` to `cur` and change its flags at any
//! time: one that is not where it was is looked for once more by the part of its name that stays. One that is gone is
//! gone, which is no error.
//!
//! Trusts the mailbox's owner with nothing but that mailbox: below the operator's part of the path no link is followed, and
//! what is no ordinary file is no message. Bounds: [`maildrop::MESSAGES_MAX`], [`sizes::FILE_MAX`].

use crate::config::MailboxPath;
use ::pop3::maildrop::{self, Entry, Folder, Found};
use ::pop3::{Count, sizes};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fsync, open, openat, openat2, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Octets read at once to count a message.
const PIECE_LEN: usize = 64 << 10;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Not to hang on a FIFO.
const MESSAGE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// See the module.
pub(super) struct Maildir {
    root: OwnedFd,
    new: OwnedFd,
    cur: OwnedFd,
}

impl Maildir {
    pub(super) fn open(path: &MailboxPath) -> io::Result<Maildir> {
        let base = open(&path.base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let root = openat2(&base, &path.below, FOLDER, Mode::empty(), resolve)?;
        let folder = |folder: Folder| openat(&root, folder.name(), FOLDER, Mode::empty());
        let (new, cur) = (folder(Folder::New)?, folder(Folder::Cur)?);
        Ok(Maildir { root, new, cur })
    }

    /// All messages that are there now, with their sizes.
    pub(super) fn sized(&self) -> io::Result<Vec<(Entry, u64)>> {
        let mut found = Found::default();
        self.each_name(|folder, name| found.add(folder, name))?;
        Ok(Sizing::new(self).sized(found.into_entries()))
    }

    /// `None`: it is gone.
    pub(super) fn open_message(&self, entry: &Entry) -> io::Result<Option<File>> {
        if let Some(file) = self.open_file(entry)? {
            return Ok(Some(file));
        }
        match self.find(&HashSet::from([entry.unique()]))?.pop() {
            Some(moved) => self.open_file(&moved),
            None => Ok(None),
        }
    }

    /// Returns how many could not be removed for good. Those that are gone already are.
    pub(super) fn remove(&self, entries: &[&Entry]) -> usize {
        let mut removal = Removal::default();
        let mut moved = HashSet::new();
        for entry in entries {
            if !removal.remove(self, entry) {
                moved.insert(entry.unique());
            }
        }
        if !moved.is_empty() {
            match self.find(&moved) {
                Ok(found) => found.iter().for_each(|entry| {
                    removal.remove(self, entry);
                }),
                Err(error) => removal.fail(moved.len(), &error),
            }
        }
        removal.sync(self)
    }

    /// Where the messages of those names are now.
    fn find(&self, uniques: &HashSet<&[u8]>) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        self.each_name(|folder, name| {
            if uniques.contains(maildrop::unique(name)) {
                found.push(Entry { folder, name: name.into() });
            }
        })?;
        Ok(found)
    }

    /// `new` before `cur`, so that a message that moves meanwhile is met once at least.
    fn each_name(&self, mut visit: impl FnMut(Folder, &[u8])) -> io::Result<()> {
        for folder in Folder::ALL {
            for file in Dir::read_from(self.folder(folder))? {
                let file = file?;
                if matches!(file.file_type(), FileType::RegularFile | FileType::Unknown) {
                    visit(folder, file.file_name().to_bytes());
                }
            }
        }
        Ok(())
    }

    fn folder(&self, folder: Folder) -> &OwnedFd {
        match folder {
            Folder::New => &self.new,
            Folder::Cur => &self.cur,
        }
    }

    fn open_file(&self, entry: &Entry) -> io::Result<Option<File>> {
        let opened =
            openat(self.folder(entry.folder), OsStr::from_bytes(&entry.name), MESSAGE, Mode::empty());
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.is_file() {
            Ok(Some(file))
        } else {
            Err(io::Error::other("it is no ordinary file"))
        }
    }

    /// Octets of the file. `None`: there is no such message.
    fn file_len(&self, entry: &Entry) -> Option<u64> {
        let name = OsStr::from_bytes(&entry.name);
        let facts = statat(self.folder(entry.folder), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile;
        u64::try_from(facts.st_size).ok().filter(|_| is_file)
    }

    /// Octets on the wire, by reading all of it.
    fn count(&self, entry: &Entry, piece: &mut [u8]) -> io::Result<Option<u64>> {
        let Some(mut file) = self.open_message(entry)? else { return Ok(None) };
        let mut count = Count::default();
        loop {
            match file.read(piece) {
                Ok(0) => return Ok(Some(count.len())),
                Ok(len) => count.add(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_sizes(&self) -> sizes::Sizes {
        let read = || -> io::Result<Vec<u8>> {
            let file = File::from(openat(&self.root, sizes::FILE_NAME, MESSAGE, Mode::empty())?);
            let mut octets = Vec::new();
            // One more than is allowed, so that a longer file is not taken for a whole one.
            file.take(sizes::FILE_MAX as u64 + 1).read_to_end(&mut octets)?;
            Ok(octets)
        };
        sizes::Sizes::read(&read().unwrap_or_default())
    }

    /// Beside itself and then into its place. Not synced: a torn one is noticed.
    fn write_sizes(&self, octets: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{}.{number}", sizes::FILE_NAME, std::process::id());
        let tmp = openat(&self.root, "tmp", FOLDER, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&tmp, &*name, flags, Mode::RUSR | Mode::WUSR)?);
        let written =
            file.write_all(octets).and_then(|()| Ok(renameat(&tmp, &*name, &self.root, sizes::FILE_NAME)?));
        if written.is_err() {
            let _ = unlinkat(&tmp, &*name, AtFlags::empty());
        }
        written
    }
}

/// Finds out how long messages are, and keeps what it had to count.
struct Sizing<'a> {
    maildir: &'a Maildir,
    /// Read when a name does not say.
    known: Option<sizes::Sizes>,
    writer: sizes::Writer,
    counted: usize,
    unreadable: usize,
    piece: Vec<u8>,
}

impl<'a> Sizing<'a> {
    fn new(maildir: &'a Maildir) -> Sizing<'a> {
        let (known, writer) = (None, sizes::Writer::default());
        Sizing { maildir, known, writer, counted: 0, unreadable: 0, piece: Vec::new() }
    }

    fn sized(mut self, entries: Vec<Entry>) -> Vec<(Entry, u64)> {
        let sized: Vec<(Entry, u64)> = entries
            .into_iter()
            .filter_map(|entry| {
                let len = self.wire_len(&entry)?;
                Some((entry, len))
            })
            .collect();
        if self.unreadable > 0 {
            tracing::warn!(messages = self.unreadable, "messages that cannot be read are not listed");
        }
        if self.counted > 0
            && let Err(error) = self.maildir.write_sizes(&self.writer.into_file())
        {
            tracing::debug!(%error, "sizes are not kept");
        }
        sized
    }

    /// `None`: it is gone, or cannot be read.
    fn wire_len(&mut self, entry: &Entry) -> Option<u64> {
        if let Some(len) = entry.wire_len() {
            return Some(len);
        }
        let file_len = entry.file_len().or_else(|| self.maildir.file_len(entry))?;
        let known = self.known.get_or_insert_with(|| self.maildir.read_sizes());
        let wire_len = match known.wire_len(entry.unique(), file_len) {
            Some(len) => len,
            None => self.count(entry)?,
        };
        self.writer.add(entry.unique(), file_len, wire_len);
        Some(wire_len)
    }

    fn count(&mut self, entry: &Entry) -> Option<u64> {
        self.counted += 1;
        self.piece.resize(PIECE_LEN, 0);
        self.maildir.count(entry, &mut self.piece).unwrap_or_else(|_| {
            self.unreadable += 1;
            None
        })
    }
}

/// What went, and what did not.
#[derive(Default)]
struct Removal {
    removed: [usize; 2],
    failed: usize,
}

impl Removal {
    /// False if it is not there.
    fn remove(&mut self, maildir: &Maildir, entry: &Entry) -> bool {
        match unlinkat(maildir.folder(entry.folder), OsStr::from_bytes(&entry.name), AtFlags::empty()) {
            Ok(()) => self.removed[entry.folder as usize] += 1,
            Err(Errno::NOENT) => return false,
            Err(error) => self.fail(1, &error.into()),
        }
        true
    }

    fn fail(&mut self, count: usize, error: &io::Error) {
        self.failed += count;
        tracing::error!(%error, messages = count, "cannot be removed");
    }

    /// What is not on disk may be there again after a crash: it counts as left.
    fn sync(mut self, maildir: &Maildir) -> usize {
        for folder in Folder::ALL {
            let count = self.removed[folder as usize];
            if count > 0
                && let Err(error) = fsync(maildir.folder(folder))
            {
                self.fail(count, &error.into());
            }
        }
        self.failed
    }
}

#[cfg(test)]
mod tests;
