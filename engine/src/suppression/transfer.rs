//! The whole list in and out of a running daemon, a piece at a time.
//!
//! For whoever has a stream: HTTP, the control socket. Bounds: one order's entries on the way in, [`PIECES_MAX`] pieces of
//! [`PIECE_LEN`] octets on the way out; who does not read holds his own export up.

use super::book::{Exported, Filter};
use super::csv::{HEADER, Import, push_line};
use super::entry::Entry;
use super::writer::{ORDER_LEN_MAX, Refused, Suppression};
use crate::keyset::KeySetError;
use std::sync::Arc;
use tokio::sync::mpsc;

const PIECE_LEN: usize = 64 << 10;
const PIECES_MAX: usize = 4;

/// What came of lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Imported {
    pub new: u64,
    /// They were on the list before.
    pub known: u64,
}

impl Imported {
    pub fn of(changed: &[bool]) -> Imported {
        let new = changed.iter().filter(|new| **new).count() as u64;
        Imported { new, known: changed.len() as u64 - new }
    }
}

/// A piece of an export.
#[derive(Debug)]
pub enum Piece {
    /// Whole lines.
    Lines(Vec<u8>),
    Entries(Vec<Entry>),
    /// The last.
    End(Exported),
    Failed(String),
}

impl Suppression {
    /// Takes up the next octets of lines, and puts what they say on the list. [`Import::said`] has what was wrong. The last
    /// call has `None`. Whatever was taken up before an error stays.
    pub async fn import_lines(&self, import: &mut Import, bytes: Option<&[u8]>) -> Result<Imported, Refused> {
        let mut entries = Vec::new();
        match bytes {
            Some(bytes) => import.feed(bytes, &mut entries),
            None => import.finish(&mut entries),
        }
        let mut all = Imported::default();
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(ORDER_LEN_MAX));
            let done = Imported::of(&self.add(entries).await?);
            (all.new, all.known) = (all.new + done.new, all.known + done.known);
            entries = rest;
        }
        Ok(all)
    }

    /// The list as lines of CSV, from a thread of its own. It ends when nobody listens.
    pub fn export(&self, filter: Filter) -> Result<mpsc::Receiver<Piece>, Refused> {
        let mut lines = HEADER.as_bytes().to_vec();
        self.export_by(filter, move |entry| {
            let is_last = entry.is_none();
            if let Some(entry) = entry {
                push_line(&entry, &mut lines);
            }
            let is_due = is_last || lines.len() >= PIECE_LEN;
            (is_due && !lines.is_empty()).then(|| Piece::Lines(std::mem::take(&mut lines)))
        })
    }

    /// The same as entries.
    pub fn export_entries(&self, filter: Filter, most: usize) -> Result<mpsc::Receiver<Piece>, Refused> {
        let mut entries = Vec::new();
        self.export_by(filter, move |entry| {
            let is_last = entry.is_none();
            entries.extend(entry);
            let is_due = is_last || entries.len() >= most;
            (is_due && !entries.is_empty()).then(|| Piece::Entries(std::mem::take(&mut entries)))
        })
    }

    /// `gather` takes up each entry, and `None` at the end.
    fn export_by(
        &self,
        filter: Filter,
        mut gather: impl FnMut(Option<Entry>) -> Option<Piece> + Send + 'static,
    ) -> Result<mpsc::Receiver<Piece>, Refused> {
        let place = Arc::clone(&self.exports).try_acquire_owned().map_err(|_| Refused::Busy)?;
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let book = self.book().clone();
        let body = move || {
            let send = |piece: Option<Piece>| match piece.map(|piece| sender.blocking_send(piece)) {
                Some(Err(_)) => Err(Ended::Unheard),
                _ => Ok(()),
            };
            let exported = book.each(&filter, |entry, _| send(gather(Some(entry))));
            let end = match exported.and_then(|exported| send(gather(None)).map(|()| exported)) {
                Ok(exported) => Piece::End(exported),
                Err(Ended::Failed(error)) => Piece::Failed(error.to_string()),
                Err(Ended::Unheard) => return drop(place),
            };
            let _ = sender.blocking_send(end);
            drop(place);
        };
        let spawned = std::thread::Builder::new().name("export".into()).spawn(body);
        spawned.map(|_| pieces).map_err(|_| Refused::Busy)
    }
}

/// Why an export ended early.
enum Ended {
    Unheard,
    Failed(KeySetError),
}

impl From<KeySetError> for Ended {
    fn from(error: KeySetError) -> Ended {
        Ended::Failed(error)
    }
}
