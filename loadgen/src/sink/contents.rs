//! What was accepted, kept octet for octet: a file for each content, as it came, numbered in the order of acceptance.
//!
//! For tests that look at what a relay made of a message; slow, since each file is written before the reply. Under
//! another name first, so that whoever looks on finds whole files.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder that several threads share.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    next: AtomicU64,
}

/// One thread's access to it.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    folder: Option<Arc<Folder>>,
    error: Option<io::Error>,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Arc<Folder> {
        Arc::new(Folder { path, next: AtomicU64::new(1) })
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let half = self.path.join(format!("{number:09}.half"));
        fs::write(&half, content)?;
        fs::rename(half, self.path.join(format!("{number:09}.eml")))
    }
}

impl Contents {
    pub(crate) fn new(folder: Option<Arc<Folder>>) -> Contents {
        Contents { folder, error: None }
    }

    /// The first failure ends the keeping, and is told at the end.
    pub(crate) fn keep(&mut self, content: &[u8]) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = folder.write(content) {
            (self.folder, self.error) = (None, Some(error));
        }
    }

    pub(crate) fn close(self) -> io::Result<()> {
        self.error.map_or(Ok(()), Err)
    }
}
