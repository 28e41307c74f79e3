//! Delivery into a Maildir: no lock, no message that is there in part, none that is lost once it was reported.
//!
//! A message is written to `tmp/` under a name that no other has, synced, linked into `new/`, and taken out of `tmp/`;
//! then `new/` is synced, and only then it is delivered. Where links are not to be had (some file systems, some
//! servers) it is renamed. A crash leaves at most a file in `tmp/`, which mail readers clean up after a day and a
//! half, or a message that was not reported and comes once more.
//!
//! Names are `seconds.M…P…Q….host,S=…,W=…`: readers find the size of the file (S) and with CR LF (W) without reading
//! it. Bounds: [`NAMES_MAX`] names are tried; the message is copied in pieces of [`PIECE_LEN`]. A quota is optional
//! ([`quota`]).

pub mod quota;

use crate::disk::{Disk, PRIVATE};
use crate::failure::Failure;
use quota::Quota;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names that are tried for a message.
pub const NAMES_MAX: u32 = 5;

/// Octets of a message in memory.
pub const PIECE_LEN: usize = 64 << 10;

/// Octets of a host's name in a message's.
const HOST_MAX: usize = 64;

/// Makes names that no other process of any host makes.
#[derive(Clone, Debug)]
pub struct Namer {
    /// Since 1970.
    now: Duration,
    process: u32,
    counter: u64,
    host: String,
}

impl Namer {
    /// `counter` is that of deliveries of this process.
    pub fn new(now: Duration, process: u32, counter: u64, host: &str) -> Namer {
        let host = &host[..host.floor_char_boundary(HOST_MAX)];
        // Neither would be a name's: one divides folders, the other begins the flags of a message that was seen.
        let host = host.replace('/', "\\057").replace(':', "\\072").replace(',', "\\054");
        Namer { now, process, counter, host }
    }

    fn name(&mut self) -> String {
        let Namer { now, process, counter, host } = self;
        let name = format!("{}.M{}P{process}Q{counter}.{host}", now.as_secs(), now.subsec_micros());
        *counter += 1;
        name
    }
}

/// Why a message is not in a Maildir.
#[derive(Debug, thiserror::Error)]
pub enum MaildirError {
    #[error("Unable to chdir to maildir. (#4.2.1)")]
    NoMaildir(#[source] io::Error),
    #[error("Unable to read message. (#4.3.0)")]
    Read(#[source] io::Error),
    #[error("Temporary error on maildir delivery. (#4.3.0)")]
    Disk(#[source] io::Error),
    #[error("Mailbox is full. (#5.2.2)")]
    Full,
}

impl From<MaildirError> for Failure {
    fn from(error: MaildirError) -> Failure {
        match error {
            MaildirError::Full => Failure::hard(error.to_string()),
            _ => Failure::soft(error.to_string()),
        }
    }
}

/// Where a message is now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivered {
    pub path: PathBuf,
    /// Octets of the file.
    pub len: u64,
}

/// Delivers `top` and then `content`, whose lines end in LF. With `quota` only if the Maildir has room for it.
pub fn deliver<D: Disk>(
    disk: &mut D,
    maildir: &Path,
    namer: &mut Namer,
    top: &[u8],
    content: &mut dyn Read,
    quota: Option<Quota>,
) -> Result<Delivered, MaildirError> {
    let (temporary, file) = create(disk, &maildir.join("tmp"), namer)?;
    let mut draft = Draft { disk, path: temporary, file, sizes: Sizes::default() };
    let done = draft.fill(top, content).and_then(|()| draft.show(maildir, namer, quota));
    if done.is_err() {
        // It was not delivered; what is left of it is of no use to anybody.
        let _ = draft.disk.remove(&draft.path);
    }
    done
}

fn create<D: Disk>(disk: &mut D, tmp: &Path, namer: &mut Namer) -> Result<(PathBuf, D::File), MaildirError> {
    let mut last = ErrorKind::AlreadyExists.into();
    for _ in 0..NAMES_MAX {
        let path = tmp.join(namer.name());
        match disk.create(&path, PRIVATE) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(MaildirError::NoMaildir(error));
            }
            Err(error) => return Err(MaildirError::Disk(error)),
        }
    }
    Err(MaildirError::Disk(last))
}

/// Counted while it is written.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    len: u64,
    /// Line ends that are LF alone.
    bare: u64,
    ends_in_cr: bool,
}

impl Sizes {
    fn count(&mut self, piece: &[u8]) {
        for at in memchr::memchr_iter(b'\n', piece) {
            let is_bare = if at == 0 { !self.ends_in_cr } else { piece[at - 1] != b'\r' };
            self.bare += u64::from(is_bare);
        }
        self.len += piece.len() as u64;
        self.ends_in_cr = piece.last().map_or(self.ends_in_cr, |last| *last == b'\r');
    }
}

/// A message in `tmp/`.
struct Draft<'a, D: Disk> {
    disk: &'a mut D,
    path: PathBuf,
    file: D::File,
    sizes: Sizes,
}

impl<D: Disk> Draft<'_, D> {
    fn fill(&mut self, top: &[u8], content: &mut dyn Read) -> Result<(), MaildirError> {
        self.append(top)?;
        let mut piece = vec![0; PIECE_LEN];
        loop {
            let len = match content.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(MaildirError::Read(error)),
            };
            self.append(&piece[..len])?;
        }
        self.disk.sync(&mut self.file).map_err(MaildirError::Disk)
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), MaildirError> {
        self.sizes.count(piece);
        self.disk.append(&mut self.file, piece).map_err(MaildirError::Disk)
    }

    /// Lets readers see it, and comes back when no crash can take it away any more.
    fn show(
        &mut self,
        maildir: &Path,
        namer: &mut Namer,
        quota: Option<Quota>,
    ) -> Result<Delivered, MaildirError> {
        let len = self.sizes.len;
        if let Some(quota) = quota {
            quota::check(self.disk, maildir, quota, len)?;
        }
        let new = maildir.join("new");
        let path = self.link_into(&new, namer).map_err(MaildirError::Disk)?;
        self.disk.sync_folder(&new).map_err(MaildirError::Disk)?;
        if quota.is_some() {
            quota::note(self.disk, maildir, len);
        }
        Ok(Delivered { path, len })
    }

    fn link_into(&mut self, new: &Path, namer: &mut Namer) -> io::Result<PathBuf> {
        let mut name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Sizes { len, bare, .. } = self.sizes;
        let mut last = ErrorKind::AlreadyExists.into();
        for _ in 0..NAMES_MAX {
            let path = new.join(format!("{name},S={len},W={}", len + bare));
            match self.move_to(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
            name = namer.name();
        }
        Err(last)
    }

    fn move_to(&mut self, path: &Path) -> io::Result<()> {
        match self.disk.link(&self.path, path) {
            Ok(()) => {
                // It is delivered; that it has a second name is for a reader to clean up.
                let _ = self.disk.remove(&self.path);
                Ok(())
            }
            Err(error) if lacks_links(&error) => self.disk.rename(&self.path, path),
            Err(error) => Err(error),
        }
    }
}

/// The file system has no links, or none here.
fn lacks_links(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP, Errno::MLINK, Errno::XDEV];
    codes.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests;
