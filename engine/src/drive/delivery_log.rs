//! The delivery log's file: lines gather in memory and are appended in pieces.
//!
//! It is the plain one of two: a line may be lost, and is counted then. What must not be lost is the event log's.

use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, Kind, StartError, token_of};
use crate::events::{Event, Stamp};
use crate::observe::{Counters, LINES_MAX};
use message::UnixMillis;
use ring::{Access, File, Ring};
use std::io;
use std::time::{Duration, Instant};

/// Lines are written when this many bytes have gathered, or after [`LINGER`].
const PIECE_LEN: usize = 64 << 10;
const LINGER: Duration = Duration::from_millis(500);

/// See the module. One append is under way at a time, so lines stay in order.
#[derive(Debug)]
pub(crate) struct DeliveryLog {
    file: Option<File>,
    lines: Vec<u8>,
    spare: Option<Vec<u8>>,
    is_writing: bool,
    due: Option<Instant>,
}

impl DeliveryLog {
    pub(crate) fn open<R: Ring>(ring: &mut R, config: &Config) -> Result<DeliveryLog, StartError> {
        let file = match &config.delivery_log {
            Some(path) => Some(
                ring.open_now(path, Access::Append)
                    .map_err(|source| StartError::File { path: path.clone(), source })?,
            ),
            None => None,
        };
        Ok(DeliveryLog { file, lines: Vec::new(), spare: None, is_writing: false, due: None })
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.file.is_some()
    }

    /// Where the next line goes. `None` if nobody wants it, or there is no room for it, which is counted.
    pub(crate) fn for_line(&mut self, counters: &Counters) -> Option<&mut Vec<u8>> {
        self.file?;
        if self.lines.len() >= LINES_MAX {
            counters.log_lines_dropped.add(1);
            return None;
        }
        Some(&mut self.lines)
    }

    pub(crate) fn log(&mut self, event: &Event<'_>, at: UnixMillis, counters: &Counters) {
        if let Some(lines) = self.for_line(counters) {
            event.render(Stamp { id: None, at }, lines);
        }
    }

    /// Every line has been written.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_writing && (self.file.is_none() || self.lines.is_empty())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_writing)
    }

    pub(crate) fn handle_written(&mut self, result: &io::Result<()>, mut bytes: Vec<u8>) {
        self.is_writing = false;
        if let Err(error) = result {
            tracing::error!(%error, lost = bytes.len(), "writing the delivery log");
        }
        bytes.clear();
        self.spare = Some(bytes);
    }
}

impl<R: Ring, C: Clock> Core<R, C> {
    /// A line from the control thread.
    pub(crate) fn log_line(&mut self, line: &[u8]) {
        if let Some(lines) = self.delivery_log.for_line(&self.counters) {
            lines.extend_from_slice(line);
        }
    }

    pub(crate) fn run_delivery_log(&mut self) {
        let log = &mut self.delivery_log;
        let Some(file) = log.file.filter(|_| !log.is_writing && !log.lines.is_empty()) else { return };
        let due = *log.due.get_or_insert(self.now + LINGER);
        if log.lines.len() < PIECE_LEN && self.now < due && self.stop == crate::core::Stop::Running {
            return;
        }
        log.due = None;
        log.is_writing = true;
        let lines = std::mem::replace(&mut log.lines, log.spare.take().unwrap_or_default());
        self.ring.append(token_of(Kind::DeliveryLog, 0), file, lines);
    }
}
