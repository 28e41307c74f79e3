//! A flight: what goes out in one send, as a list of our own octets and of contents that the caller holds.
//!
//! Contents are named, not copied: many recipients share one, and it may be larger than a buffer.

use crate::transaction::write_number;
use smallvec::SmallVec;
use std::ops::Range;

/// Made by `take_flight`, which clears it first; reuse one per core.
#[derive(Clone, Debug, Default)]
pub struct Flight {
    /// The octets that are ours: commands.
    pub own: Vec<u8>,
    /// What to send, in order.
    pub pieces: SmallVec<[FlightPiece; 16]>,
    /// Ciphertext (a handshake's, an alert): goes out as it is. Else, while `Session::is_sealing()`, what goes out is
    /// what `Session::seal` makes of it.
    pub is_raw: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FlightPiece {
    /// A part of [`Flight::own`].
    Own(Range<u32>),
    /// The content of transaction `key`, with what the caller puts before it. `stuffed`: as `message::content::dot_stuff` makes it; else as it is.
    Content { key: u32, stuffed: bool },
}

impl Flight {
    pub fn clear(&mut self) {
        self.own.clear();
        self.pieces.clear();
        self.is_raw = false;
    }

    /// Adds octets of ours; they share a piece with those before unless content lies between.
    pub(crate) fn push_own(&mut self, bytes: &[u8]) {
        let start = self.own_len();
        self.own.extend_from_slice(bytes);
        self.cover(start);
    }

    /// Makes this a raw flight of what `write` appends, if that is anything.
    pub(crate) fn fill_raw(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.own_len();
        write(&mut self.own);
        if self.own_len() > start {
            self.is_raw = true;
            self.cover(start);
        }
    }

    pub(crate) fn push_number(&mut self, before: &[u8], number: u64) {
        let start = self.own_len();
        write_number(&mut self.own, before, number);
        self.cover(start);
    }

    /// Puts what was written from `start` on into a piece.
    fn cover(&mut self, start: u32) {
        let end = self.own_len();
        match self.pieces.last_mut() {
            Some(FlightPiece::Own(range)) => range.end = end,
            Some(FlightPiece::Content { .. }) | None => self.pieces.push(FlightPiece::Own(start..end)),
        }
    }

    pub(crate) fn push_content(&mut self, key: u32, stuffed: bool) {
        self.pieces.push(FlightPiece::Content { key, stuffed });
    }

    fn own_len(&self) -> u32 {
        u32::try_from(self.own.len()).expect("a window of envelopes is far below 4 GiB")
    }
}
