//! Dialogues as they happen: lines from the cores to one operator who watches a domain.
//!
//! A core never waits for an operator: a line that finds no room is lost, and the next one that is shown says how many
//! were. Bounds: [`LINES_MAX`] lines on their way, [`TRACES_MAX`] operators who watch, [`TEXT_MAX`] octets a line.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Lines between the cores and one operator.
pub const LINES_MAX: usize = 4096;

/// Operators who watch at a time.
pub const TRACES_MAX: usize = 4;

/// Octets of a line's text; the rest is cut off.
pub const TEXT_MAX: usize = 1000;

/// Whose words a line has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// We said it.
    Sent,
    /// The host said it.
    Received,
    /// What became of the connection or of a recipient.
    Note,
}

impl From<smtp_out::Direction> for Direction {
    fn from(direction: smtp_out::Direction) -> Direction {
        match direction {
            smtp_out::Direction::Sent => Direction::Sent,
            smtp_out::Direction::Received => Direction::Received,
            smtp_out::Direction::Note => Direction::Note,
        }
    }
}

impl Direction {
    pub fn arrow(self) -> &'static str {
        match self {
            Direction::Sent => "->",
            Direction::Received => "<-",
            Direction::Note => "--",
        }
    }
}

/// One line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TraceLine {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    pub core: usize,
    /// Tells the connections of a core apart.
    pub connection: u32,
    /// Name, address and port.
    pub host: String,
    pub direction: Direction,
    pub text: String,
}

/// What one operator watches. Shared with the cores.
#[derive(Debug)]
pub struct Tracer {
    /// In lower case.
    pub domain: String,
    lines: mpsc::Sender<TraceLine>,
    lost: AtomicU64,
    is_over: AtomicBool,
}

impl Tracer {
    /// A tracer, and where its lines come out.
    pub fn new(domain: String) -> (Arc<Tracer>, mpsc::Receiver<TraceLine>) {
        let (lines, heard) = mpsc::channel(LINES_MAX);
        let (lost, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        (Arc::new(Tracer { domain, lines, lost, is_over }), heard)
    }

    /// Never waits.
    pub fn tell(&self, line: TraceLine) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines lost since this was last asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// The operator went away.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Text on one line, no longer than a line may be: a peer's octets must not steer a terminal.
pub fn one_line(mut text: String) -> String {
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> TraceLine {
        let (host, direction) = ("mx.test".to_owned(), Direction::Note);
        TraceLine { at_ms: 0, core: 0, connection: 1, host, direction, text: text.into() }
    }

    #[test]
    fn lines_without_room_are_counted_and_nobody_waits() {
        let (tracer, mut heard) = Tracer::new("a.test".into());
        (0..LINES_MAX + 7).for_each(|number| tracer.tell(line(&number.to_string())));
        assert_eq!((tracer.take_lost(), tracer.take_lost()), (7, 0));
        assert_eq!(heard.try_recv().unwrap().text, "0", "the first ones are kept");
        tracer.tell(line("again"));
        assert_eq!(tracer.take_lost(), 0);
        drop(heard);
        tracer.tell(line("nobody"));
        assert_eq!(tracer.take_lost(), 1);
    }

    #[test]
    fn text_is_one_line_without_orders_to_a_terminal() {
        assert_eq!(one_line("250 \x1b[2J\r\nok".into()), "250  [2J  ok");
        assert_eq!(one_line("é".repeat(600)).len(), TEXT_MAX);
    }
}
