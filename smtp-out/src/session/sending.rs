//! What goes into the next flight.

use super::{BLOCK_LEN, Expected, Form, KEPT_LEN, Phase, Session, UnderWay};
use crate::flight::Flight;
use crate::transaction::{InFlight, Progress};
use memchr::memchr;
use std::time::Instant;

impl Session {
    /// Fills `flight` with what to send next; false if there is nothing, or if the last one is still under way.
    /// Offer what `capacity()` asks for first: what is offered later misses this flight.
    /// Copies the commands once; no allocation once `flight` has grown.
    pub fn take_flight(&mut self, now: Instant, flight: &mut Flight) -> bool {
        if self.under_way.is_some() {
            return false;
        }
        flight.clear();
        self.under_way = Some(UnderWay { ends_whole: false, blocks: 1 });
        match self.phase {
            Phase::HelloDue | Phase::StartTlsDue | Phase::LoginDue | Phase::Ready if self.is_done() => {
                self.say_quit(flight);
            }
            Phase::HelloDue => self.say_hello(flight),
            Phase::StartTlsDue => self.say_starttls(flight),
            Phase::LoginDue => self.say_login(flight),
            Phase::Ready => self.send_transactions(flight),
            Phase::Greeting | Phase::Hello | Phase::StartTls | Phase::HandshakeDue | Phase::Handshake => {}
            Phase::Login | Phase::Quit | Phase::Farewell | Phase::Closed => {}
        }
        if self.link.is_traced {
            self.trace_flight(flight);
        }
        // Handshake, key updates and goodbye go by themselves only where nothing is sealed that would take them along.
        if flight.pieces.is_empty()
            && self.phase != Phase::Closed
            && let Some(channel) = &mut self.channel
        {
            flight.fill_raw(|out| channel.write_output(out));
        }
        if flight.pieces.is_empty() {
            self.under_way = None;
            return false;
        }
        self.restart_deadline(now);
        true
    }

    fn is_done(&self) -> bool {
        let is_empty = self.transactions.is_empty() && self.expected.is_empty();
        is_empty && (self.is_quitting || self.transactions_left() == 0)
    }

    fn say_quit(&mut self, flight: &mut Flight) {
        self.phase = Phase::Quit;
        self.say(flight, b"QUIT\r\n", Expected::Quit);
    }

    fn say_hello(&mut self, flight: &mut Flight) {
        let (verb, expected): (&[u8], _) = match (self.says_helo, self.link.protocol.is_lmtp()) {
            (_, true) => (b"LHLO ", Expected::Ehlo),
            (true, false) => (b"HELO ", Expected::Helo),
            (false, false) => (b"EHLO ", Expected::Ehlo),
        };
        self.phase = Phase::Hello;
        flight.push_own(verb);
        flight.push_own(self.config.helo.as_bytes());
        self.say(flight, b"\r\n", expected);
    }

    pub(super) fn say(&mut self, flight: &mut Flight, line: &[u8], expected: Expected) {
        flight.push_own(line);
        self.expected.push_back(expected);
    }

    fn send_transactions(&mut self, flight: &mut Flight) {
        match self.form {
            Form::Windowed => self.fill_window(flight),
            Form::Paired => self.send_pair(flight),
            Form::LockStep => self.step(flight),
        }
    }

    /// Whole transactions, as many as the window lets.
    fn fill_window(&mut self, flight: &mut Flight) {
        while self.waiting() > 0 && self.begun < usize::from(self.window) {
            // If the one before is refused at RCPT or BDAT, its reverse-path stands; a MAIL that is then refused
            // as nested would leave our RCPT and BDAT to go out under that path. RSET rules this out.
            if self.is_reset_due || self.begun > 0 {
                self.say_reset(flight);
            }
            let index = self.begin_next(flight);
            self.send_chunk(flight, index);
        }
    }

    /// The content that is due and the envelope of the transaction behind it.
    fn send_pair(&mut self, flight: &mut Flight) {
        if let Some(index) = self.begun.checked_sub(1)
            && self.transactions[index].progress == Progress::ContentDue
        {
            self.send_content(flight, index);
        }
        // One 354 at a time: DATA ends a group of commands.
        let is_data_open = self.begun > 0 && self.transactions[self.begun - 1].progress != Progress::Whole;
        if self.waiting() > 0 && !is_data_open {
            // The dot before it ends that transaction whatever the reply (RFC 5321 §4.1.1.4), so no RSET behind it.
            if self.is_reset_due {
                self.say_reset(flight);
            }
            self.begin_next(flight);
            self.say(flight, b"DATA\r\n", Expected::Data);
            self.note_end_of_flight(false);
        }
    }

    /// One command, if every earlier one has its reply.
    fn step(&mut self, flight: &mut Flight) {
        if !self.expected.is_empty() {
            return;
        }
        let Some(current) = self.transactions.front() else { return };
        match current.progress {
            Progress::Waiting if self.is_reset_due => self.say_reset(flight),
            Progress::Waiting => self.step_envelope(flight, Expected::Mail),
            Progress::Envelope if current.asked < current.recipients => {
                self.step_envelope(flight, Expected::Rcpt)
            }
            Progress::Envelope if self.can_chunk() => self.send_chunk(flight, 0),
            Progress::Envelope => self.say(flight, b"DATA\r\n", Expected::Data),
            Progress::ContentDue => self.send_content(flight, 0),
            Progress::Whole => {}
        }
    }

    fn step_envelope(&mut self, flight: &mut Flight, expected: Expected) {
        self.begun = 1;
        let current = &mut self.transactions[0];
        current.progress = Progress::Envelope;
        current.asked += u16::from(expected == Expected::Rcpt);
        let rest = &self.envelopes[current.envelope.clone()];
        let line_len = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        flight.push_own(&rest[..line_len]);
        current.envelope.start += line_len;
        self.expected.push_back(expected);
        if current.envelope.is_empty() {
            self.forget_envelopes();
        }
    }

    fn say_reset(&mut self, flight: &mut Flight) {
        self.is_reset_due = false;
        self.say(flight, b"RSET\r\n", Expected::Rset);
    }

    /// MAIL and every RCPT of the first transaction that waits; returns its place.
    fn begin_next(&mut self, flight: &mut Flight) -> usize {
        let index = self.begun;
        let next = &mut self.transactions[index];
        next.progress = Progress::Envelope;
        next.is_behind = index > 0;
        flight.push_own(&self.envelopes[next.envelope.clone()]);
        self.expected.push_back(Expected::Mail);
        self.expected.extend(std::iter::repeat_n(Expected::Rcpt, usize::from(next.recipients)));
        self.begun += 1;
        if self.waiting() == 0 {
            self.forget_envelopes();
        }
        index
    }

    fn forget_envelopes(&mut self) {
        self.envelopes.clear();
        self.envelopes.shrink_to(KEPT_LEN);
    }

    /// BDAT and the content (RFC 3030 §2).
    fn send_chunk(&mut self, flight: &mut Flight, index: usize) {
        let chunk = &mut self.transactions[index];
        chunk.progress = Progress::Whole;
        chunk.stuffed = false;
        flight.push_number(b"BDAT ", chunk.content_len);
        self.say(flight, b" LAST\r\n", Expected::Bdat);
        self.push_content(flight, index);
    }

    /// The content and its dot. With no recipient accepted, the dot alone: the host waits for one (RFC 2920 §3.1).
    fn send_content(&mut self, flight: &mut Flight, index: usize) {
        self.transactions[index].progress = Progress::Whole;
        if self.transactions[index].accepted > 0 {
            self.push_content(flight, index);
        }
        self.say(flight, b".\r\n", Expected::Dot);
        self.note_end_of_flight(true);
    }

    fn push_content(&mut self, flight: &mut Flight, index: usize) {
        let &InFlight { key, stuffed, content_len, .. } = &self.transactions[index];
        if content_len > 0 {
            flight.push_content(key, stuffed);
        }
        let blocks = u32::try_from(content_len.div_ceil(BLOCK_LEN)).unwrap_or(u32::MAX);
        if let Some(under_way) = &mut self.under_way {
            under_way.blocks = under_way.blocks.saturating_add(blocks.saturating_sub(1));
        }
        self.note_end_of_flight(true);
    }

    fn note_end_of_flight(&mut self, ends_whole: bool) {
        if let Some(under_way) = &mut self.under_way {
            under_way.ends_whole = ends_whole;
        }
    }
}
