//! A durable set of keys of 128 bits, each with a kind and a time: a hundred million in a bounded part of memory.
//!
//! What is changed goes into a log, synced before it is answered, and into a table in memory ([`delta`]). A table that
//! has grown is written as a sorted file ([`run`]); files are merged as they come to be of like size, so there are few.
//! All of that goes on beside whoever reads: a [`Reader`] looks at a snapshot that is replaced whole, takes no lock and
//! never waits unless it says that it will. A start reads tables and the last log. [`set`] is the writer, `FORMAT.md` every octet.
//!
//! A key is made by whoever uses the set, with a secret, so that the files do not tell what it was made of. Trusts no
//! octet that it reads. Bounds: `entries_max` keys; 1.6 octets of memory a key and `memory_max` for
//! entries, twice that while files are merged, and [`DELTA_MAX`] changes in each of two tables.

mod delta;
mod filter;
mod frames;
mod log;
mod merge;
mod notes;
mod reader;
mod run;
mod set;

#[cfg(test)]
mod tests;

pub use frames::fuzz_keyset_frames;
pub use notes::{Note, Notes};
pub use reader::{Found, Handle, Reader, Stat};
pub use set::{Change, KeySet, Options};

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Changes of one write.
const BATCH_MAX: usize = 1 << 16;

/// Changes in a table before it is written as a file: with one batch more it is as full as its 25 MB let it be.
const DELTA_MAX: usize = (1 << 19) - BATCH_MAX;

/// Kinds are below this; 0 stands for a key that was taken out.
pub const KINDS: usize = 16;

/// 128 bits that nobody without the secret can tell from chance.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key(pub u128);

impl Key {
    /// The first 16 octets of a keyed hash.
    pub fn from_bytes(bytes: [u8; 16]) -> Key {
        Key(u128::from_be_bytes(bytes))
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    fn of(high: u64, low: u64) -> Key {
        Key(u128::from(high) << 64 | u128::from(low))
    }

    fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn low(self) -> u64 {
        self.0 as u64
    }
}

/// What is kept with a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Value {
    /// 1 to 15: what that means is the user's. 0 only within the set: it was taken out.
    pub kind: u8,
    /// Seconds since 1970.
    pub at_secs: u32,
}

impl Value {
    fn is_there(self) -> bool {
        self.kind != 0
    }
}

/// Keys by their kinds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts(pub [u64; KINDS]);

impl Counts {
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add(&mut self, value: Value) {
        self.0[usize::from(value.kind) % KINDS] += 1;
    }

    fn remove(&mut self, value: Value) {
        let count = &mut self.0[usize::from(value.kind) % KINDS];
        *count = count.saturating_sub(1);
    }
}

/// Numbers of logs, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct SpanOfLogs {
    first: u32,
    last: u32,
}

impl SpanOfLogs {
    fn contains(self, other: SpanOfLogs) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// What an operator must look at.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {what}; bring the folder back from a copy", path = .path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{path}: format {found} is newer than this program reads", path = .path.display())]
    TooNew { path: PathBuf, found: u8 },
    #[error("{path}: was made with another secret, and nothing can be found in it; bring the secret back, or remove the folder", path = .path.display())]
    OtherOwner { path: PathBuf },
    #[error("{folder}: what logs {first} to {last} say is in no file; bring the folder back from a copy", folder = .folder.display())]
    Missing { folder: PathBuf, first: u32, last: u32 },
    #[error("the set is full: {max} entries")]
    Full { max: u64 },
    #[error("an earlier sync failed: nothing is taken up until a restart")]
    Poisoned,
    #[error("a file of keys could not be written: {0}")]
    Background(String),
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeySetError + use<> {
    let path = path.to_owned();
    move |source| KeySetError::Io { path: path.clone(), source }
}

/// Makes the names in the path's folder durable.
fn sync_folder(path: &Path) -> Result<(), KeySetError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder))
}
