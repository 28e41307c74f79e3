//! The dialog in words, for an operator who looks at one connection. Nothing here runs where nobody looks.

use super::{Direction, Output, Phase, Session};
use crate::flight::{Flight, FlightPiece};
use crate::reply::Part;

/// Octets of a line that are told.
const TRACE_MAX: usize = 1000;

impl Session {
    pub(super) fn trace(&mut self, direction: Direction, mut text: String) {
        if text.contains(char::is_control) {
            text = text.replace(char::is_control, " ");
        }
        text.truncate(text.floor_char_boundary(TRACE_MAX));
        self.outputs.push_back(Output::Trace { direction, text });
    }

    pub(super) fn trace_part(&mut self, part: &Part<'_>) {
        let (code, mark, text) = match part {
            Part::Continued { code, text, .. } => (code, '-', text),
            Part::Answer(answer) => (&answer.code, ' ', &answer.text),
            Part::Garbage(why) => return self.trace(Direction::Note, format!("not a reply: {why}")),
        };
        let text = &text[..text.len().min(TRACE_MAX)];
        self.trace(Direction::Received, format!("{code:03}{mark}{}", String::from_utf8_lossy(text)));
    }

    pub(super) fn trace_flight(&mut self, flight: &Flight) {
        // Only AUTH goes out in this phase.
        if self.phase == Phase::Login {
            let shown = self.exchange.as_ref().filter(|_| !flight.pieces.is_empty()).map(|it| it.shown());
            return shown.into_iter().for_each(|shown| self.trace(Direction::Sent, shown));
        }
        for piece in &flight.pieces {
            match piece {
                FlightPiece::Own(range) => {
                    self.trace_commands(&flight.own[range.start as usize..range.end as usize]);
                }
                FlightPiece::Content { key, .. } => {
                    let of_key = self.transactions.iter().find(|transaction| transaction.key == *key);
                    let len = of_key.map_or(0, |transaction| transaction.content_len);
                    self.trace(Direction::Sent, format!("<{len} octets of content>"));
                }
            }
        }
    }

    fn trace_commands(&mut self, lines: &[u8]) {
        for line in lines.split_inclusive(|octet| *octet == b'\n') {
            let line = String::from_utf8_lossy(line);
            self.trace(Direction::Sent, line.trim_end().to_owned());
        }
    }
}
