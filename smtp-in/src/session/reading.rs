//! Octets in: from the wire, opened where they are sealed, to lines, content and chunks.

use super::securing::Securing;
use super::{Ending, Reading, Session};
use crate::command;
use crate::door::Door;
use crate::line::Line;
use crate::output::Stage;
use crate::replies;
use crate::tls::Opened;
use zeroize::Zeroizing;

impl Session {
    /// How many octets it used. Each turn of the loop uses some.
    pub(super) fn read_wire(&mut self, door: &mut dyn Door, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let more = match self.securing {
                Securing::Plain => self.read_plain(door, rest),
                Securing::Agreed => rest.len(),
                Securing::Shaking | Securing::Sealed => self.read_sealed(door, rest),
            };
            used += more;
            if more == 0 || used == bytes.len() {
                return used;
            }
        }
    }

    fn read_plain(&mut self, door: &mut dyn Door, bytes: &[u8]) -> usize {
        if self.is_early() && !bytes.is_empty() {
            self.on_early();
        }
        let mut used = 0;
        while used < bytes.len() && self.may_read() && self.securing == Securing::Plain {
            used += self.read(door, &bytes[used..]);
        }
        used
    }

    /// Opens no more than it can read on, so that what is inside stays small.
    fn read_sealed(&mut self, door: &mut dyn Door, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        loop {
            self.read_opened(door);
            let may_open = self.ending == Ending::Open && (!self.is_blocked() || self.is_early());
            if rest.is_empty() || !may_open || self.has_plain {
                return bytes.len() - rest.len();
            }
            self.open(&mut rest);
        }
    }

    fn open(&mut self, bytes: &mut &[u8]) {
        let Some(tunnel) = &mut self.tunnel else { unreachable!("octets are sealed in a tunnel") };
        match tunnel.open(bytes) {
            Ok(Opened::More | Opened::Ended) => {}
            Err(error) => return self.fail_handshake(&error),
        }
        if self.securing == Securing::Shaking && !tunnel.is_handshaking() {
            self.end_handshake();
        }
    }

    /// Reads what the tunnel has until there is no more or we cannot read on.
    fn read_opened(&mut self, door: &mut dyn Door) {
        let Some(mut tunnel) = self.tunnel.take() else { return };
        let mut plain = tunnel.plain();
        if self.is_early() && !plain.is_empty() {
            self.on_early();
        }
        while !plain.is_empty() && self.may_read() {
            let used = self.read(door, plain);
            tunnel.consume(used);
            plain = tunnel.plain();
        }
        self.has_plain = !plain.is_empty();
        let has_ended = !self.has_plain && tunnel.has_ended();
        self.tunnel = Some(tunnel);
        if has_ended && self.ending == Ending::Open {
            self.stop_reading(Ending::Leaving);
            self.close_if_drained();
        }
    }

    fn may_read(&self) -> bool {
        self.ending == Ending::Open && !self.is_blocked()
    }

    /// Uses at least one octet.
    fn read(&mut self, door: &mut dyn Door, bytes: &[u8]) -> usize {
        match self.reading {
            Reading::Header(_) => self.read_header(bytes),
            Reading::Commands | Reading::Response => self.read_line(door, bytes),
            Reading::Data(_) => self.read_data(bytes),
            Reading::Chunk(_) => self.read_chunk(bytes),
        }
    }

    fn read_line(&mut self, door: &mut dyn Door, bytes: &[u8]) -> usize {
        let (used, line) = self.lines.take(bytes, self.line_len_max());
        let (is_whole, was_in_chunks) = (line.is_some(), self.is_in_chunks());
        match line {
            Some(Line::InPlace(line)) => self.on_line(door, line),
            // It may have been a password.
            Some(Line::Joined(line)) => self.on_line(door, &Zeroizing::new(line)),
            Some(Line::TooLong) => self.on_long_line(),
            None => {}
        }
        // Content wins its time by its octets, in however many chunks it comes.
        self.progressed |= is_whole && !(was_in_chunks && self.is_in_chunks());
        used
    }

    fn on_line(&mut self, door: &mut dyn Door, line: &[u8]) {
        let is_long = line.len() + 2 > self.policy.limits.command_line_max;
        match self.reading {
            Reading::Response => self.on_response(line),
            _ if is_long && !command::is_auth(line) => self.on_long_line(),
            _ => self.on_command_line(door, line),
        }
    }

    fn on_long_line(&mut self) {
        match self.reading {
            Reading::Response => self.on_long_response(),
            _ => {
                self.stage = Stage::Command;
                self.refuse(replies::LINE_TOO_LONG);
            }
        }
    }
}
