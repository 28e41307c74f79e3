//! What one call of a session works with: the policy, the books, the replies.

use std::io::Write;

use super::super::faults::{Break, FaultAction, Stage};
use super::super::replies::Reply;
use super::{Books, Flow, Policy};

const GARBAGE: &[u8] = b"\xff\xfe\x00garbage\r\nneither a reply nor TLS\r\n";
/// RFC 8446 §5.1 and §6: alert, legacy version, two octets, fatal, `handshake_failure`.
const HANDSHAKE_FAILURE: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

pub(super) struct Turn<'a> {
    pub(super) policy: &'a Policy,
    pub(super) books: &'a mut Books,
    pub(super) out: &'a mut Vec<u8>,
    /// The words asked for in place of the next reply that grants something.
    instead: Option<Reply<'a>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(policy: &'a Policy, books: &'a mut Books, out: &'a mut Vec<u8>) -> Turn<'a> {
        Turn { policy, books, out, instead: None }
    }

    pub(super) fn say(&mut self, usual: Reply<'_>) -> Flow {
        let Reply(code, text) = match self.instead.take() {
            Some(asked) if usual.0 < 400 => asked,
            _ => usual,
        };
        self.out.extend_from_slice(text.as_bytes());
        self.books.tally.count_reply(code);
        Flow::Continue
    }

    pub(super) fn finish(&mut self, reply: Reply<'_>) -> Flow {
        self.say(reply);
        Flow::Finish
    }

    pub(super) fn break_off(&mut self, how: Break) -> Flow {
        self.books.tally.dropped += 1;
        Flow::Break(how)
    }

    /// What a fault does to the reply and the connection; none if it only changes the words of what is granted.
    pub(super) fn suffer(&mut self, action: &'a FaultAction, stage: Stage) -> Option<Flow> {
        Some(match action {
            FaultAction::Say(code, lines) if *code < 400 => {
                self.instead = Some(Reply(*code, lines));
                return None;
            }
            FaultAction::Reply(_) | FaultAction::Say(..) => self.say_refusal(action, stage),
            FaultAction::Break(how) | FaultAction::BreakAfterAccept(how) => self.break_off(*how),
            FaultAction::Garbage => self.end_with(GARBAGE),
            FaultAction::Alert => self.end_with(HANDSHAKE_FAILURE),
        })
    }

    /// A refusal that had to wait for octets to pass.
    pub(super) fn say_refusal(&mut self, action: &FaultAction, stage: Stage) -> Flow {
        match action {
            FaultAction::Say(code, lines) => {
                self.say(Reply(*code, lines));
                if *code == 421 { Flow::Finish } else { Flow::Continue }
            }
            FaultAction::Reply(code) => self.say_fault(*code, stage),
            _ => Flow::Continue,
        }
    }

    fn end_with(&mut self, octets: &[u8]) -> Flow {
        self.out.extend_from_slice(octets);
        self.books.tally.dropped += 1;
        Flow::Finish
    }

    fn say_fault(&mut self, code: u16, stage: Stage) -> Flow {
        let class = code / 100;
        let _infallible = write!(self.out, "{code} {class}.7.1 Asked to fault at {}\r\n", stage.name());
        self.books.tally.count_reply(code);
        if code == 421 { Flow::Finish } else { Flow::Continue }
    }
}
