//! A log of changes: appended to by one thread, each batch synced before it is answered.
//!
//! A write that fails is taken back; a sync that fails is not tried again, because the kernel may have dropped what it was for.

use super::frames::{FRAME_HEAD, Framer};
use super::{KeySetError, io_error, sync_folder};
use queue::log::record::checksum;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Octets before the first frame.
const HEAD_OCTETS: usize = 32;
pub(super) const HEAD_LEN: u64 = HEAD_OCTETS as u64;

/// Magic and version.
const MAGIC: [u8; 8] = *b"RPKLOG\x01\n";

/// Octets of a log before the next one begins.
pub(super) const LOG_MAX: u64 = 64 << 20;

/// The log that is written to.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
    pub(super) number: u32,
    len: u64,
    records: u32,
}

/// What a log's head says of it.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Head {
    Ours,
    OtherOwner,
    TooNew(u8),
    Damaged,
}

impl Log {
    pub(super) fn create(folder: &Path, number: u32, owner: u64) -> Result<Log, KeySetError> {
        let path = folder.join(name_of(number));
        let open = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
        let file = open.map_err(io_error(&path))?;
        file.write_all_at(&head(owner), 0).and_then(|()| file.sync_all()).map_err(io_error(&path))?;
        sync_folder(&path)?;
        Ok(Log { file, path, number, len: HEAD_LEN, records: 0 })
    }

    /// Goes on behind what was read of it; what a crash tore is cut off.
    pub(super) fn resume(folder: &Path, number: u32, (len, records): (u64, u32)) -> Result<Log, KeySetError> {
        let path = folder.join(name_of(number));
        let file = OpenOptions::new().write(true).open(&path).map_err(io_error(&path))?;
        file.set_len(len).and_then(|()| file.sync_all()).map_err(io_error(&path))?;
        Ok(Log { file, path, number, len, records })
    }

    /// A framer for what comes next.
    pub(super) fn framer(&self) -> Framer {
        Framer::new(self.records)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= LOG_MAX
    }

    /// Durable when it returns. After [`KeySetError::Poisoned`] nobody knows what is.
    pub(super) fn append(&mut self, framer: &mut Framer) -> Result<(), KeySetError> {
        let (bytes, records) = framer.take();
        if let Err(error) = self.file.write_all_at(&bytes, self.len) {
            tracing::error!(path = %self.path.display(), %error, "the log cannot be written");
            self.file.set_len(self.len).map_err(|_| KeySetError::Poisoned)?;
            return Err(io_error(&self.path)(error));
        }
        if let Err(error) = self.file.sync_data() {
            tracing::error!(path = %self.path.display(), %error, "syncing the log failed");
            return Err(KeySetError::Poisoned);
        }
        (self.len, self.records) = (self.len + bytes.len() as u64, records);
        Ok(())
    }

    /// Nothing more comes: its last frame says how many records it has. A crash may leave it without; then it is read.
    pub(super) fn seal(&mut self) {
        let mut framer = self.framer();
        framer.seal();
        let (bytes, _) = framer.take();
        debug_assert_eq!(bytes.len(), FRAME_HEAD);
        if let Err(error) = self.file.write_all_at(&bytes, self.len) {
            tracing::warn!(path = %self.path.display(), %error, "the log is left without its seal");
        }
    }
}

/// The head of a log or of a file of notes.
pub(super) fn head(owner: u64) -> [u8; HEAD_OCTETS] {
    let mut head = [0; HEAD_OCTETS];
    head[..8].copy_from_slice(&MAGIC);
    head[16..24].copy_from_slice(&owner.to_le_bytes());
    let sum = checksum(&head[12..]);
    head[8..12].copy_from_slice(&sum.to_le_bytes());
    head
}

pub(super) fn read_head(bytes: &[u8], owner: u64) -> Head {
    if bytes.len() < HEAD_OCTETS {
        return Head::Damaged;
    }
    if bytes[..6] == MAGIC[..6] && bytes[6] > MAGIC[6] {
        return Head::TooNew(bytes[6]);
    }
    let (sum, rest) = (&bytes[8..12], &bytes[12..HEAD_OCTETS]);
    match bytes[..8] == MAGIC && checksum(rest).to_le_bytes() == *sum {
        true if bytes[16..24] == owner.to_le_bytes() => Head::Ours,
        true => Head::OtherOwner,
        false => Head::Damaged,
    }
}

/// `log-NNNNNNNN`.
pub(super) fn name_of(number: u32) -> String {
    format!("log-{number:08}")
}

/// The number behind `start`, if the name is such a one.
pub(super) fn numbered(name: &str, start: &str) -> Option<u32> {
    let number = name.strip_prefix(start)?;
    if number.len() == 8 { number.parse().ok() } else { None }
}
