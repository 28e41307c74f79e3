//! One thread's records on their way to a file: the audit, or the connections.
//!
//! Records gather in a buffer that goes out when it holds a mebibyte and ten times a second: whole lines, one
//! `write` at the file's end, so that several threads may share a file. A file that cannot be written
//! ends the audit with an error in the report, and the sink goes on.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use crate::records::Received;

const BUFFERED_MAX: usize = 1 << 20;

pub(crate) struct Log {
    file: Option<Arc<File>>,
    lines: Vec<u8>,
    shared: Vec<u8>,
    error: Option<io::Error>,
}

impl Log {
    pub(crate) fn new(file: Option<Arc<File>>) -> Log {
        Log { file, lines: Vec::new(), shared: Vec::new(), error: None }
    }

    /// One line per forward-path; `paths` are separated by line feeds. No allocation in steady state.
    pub(crate) fn record(&mut self, shared: &Received<'_>, paths: &[u8]) {
        if self.file.is_none() {
            return;
        }
        self.shared.clear();
        shared.write_shared(&mut self.shared);
        for path in paths.split_inclusive(|&byte| byte == b'\n') {
            self.lines.extend_from_slice(&self.shared);
            self.lines.extend_from_slice(path);
            if self.lines.len() >= BUFFERED_MAX {
                self.flush();
            }
        }
    }

    /// Whatever `write` appends, which is whole lines.
    pub(crate) fn line(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.file.is_none() {
            return;
        }
        write(&mut self.lines);
        if self.lines.len() >= BUFFERED_MAX {
            self.flush();
        }
    }

    pub(crate) fn flush(&mut self) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.as_ref().write_all(&self.lines) {
            (self.file, self.error) = (None, Some(error));
        }
        self.lines.clear();
    }

    pub(crate) fn close(mut self) -> io::Result<()> {
        self.flush();
        self.error.map_or(Ok(()), Err)
    }
}
