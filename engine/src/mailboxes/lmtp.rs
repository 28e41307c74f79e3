//! The server side of LMTP (RFC 2033) as far as our own daemon speaks it: a machine without I/O.
//!
//! Contents come by BDAT alone, so nothing in them is looked for. The caller feeds octets, carries out each [`Wish`] in
//! its turn, and says what became of every recipient. Trusts the daemon's messages with nothing. Bounds: [`LINE_MAX`]
//! octets of a line, [`RECIPIENTS_MAX`] recipients, `message_max` octets of a content.

use message::path::{ForwardPath, parse_forward_path, parse_reverse_path};
use message::{Reply, ReversePath};
use std::collections::VecDeque;

/// A path of 256 octets and what DSN says of a recipient.
const LINE_MAX: usize = 2048;

/// RFC 5321 §4.5.3.1.8. The daemon sends fewer.
const RECIPIENTS_MAX: usize = 100;

/// What the caller does next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    /// Room for a content of about so many octets, which will come.
    Room(u64),
    /// Octets of the content.
    Content(Vec<u8>),
    /// It is whole: deliver it, then [`Session::handle_delivered`].
    Deliver(Envelope),
    /// What there is of the content is not needed.
    Forget,
    Close,
}

/// Addresses without angle brackets; a quoted local part is still quoted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Envelope {
    /// Empty for bounces.
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
}

#[derive(Debug)]
enum State {
    Command,
    /// In a chunk with so many octets to come.
    Chunk {
        left: u64,
        is_last: bool,
    },
    /// As `Chunk`, of a content that nobody gets.
    Waste {
        left: u64,
    },
    /// The caller delivers.
    Waiting {
        recipients: usize,
    },
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    line: Vec<u8>,
    envelope: Option<Envelope>,
    content_len: u64,
    message_max: u64,
    replies: Vec<u8>,
    wishes: VecDeque<Wish>,
}

impl Session {
    pub(super) fn new(host_name: &str, message_max: u64) -> Session {
        let mut session = Session {
            state: State::Command,
            line: Vec::new(),
            envelope: None,
            content_len: 0,
            message_max,
            replies: Vec::new(),
            wishes: VecDeque::new(),
        };
        session.say(&format!("220 {host_name} LMTP"));
        session
    }

    /// Returns how many were taken: all, unless the caller must first do something.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.wishes.is_empty() {
            let rest = &bytes[at..];
            at += match self.state {
                State::Command => self.take_line(rest),
                State::Chunk { left, is_last } => self.take_chunk(rest, left, is_last),
                State::Waste { left } => self.waste(rest, left),
                State::Waiting { .. } => return at,
                State::Over => rest.len(),
            };
        }
        at
    }

    pub(super) fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    pub(super) fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    /// What became of each recipient, in their order.
    pub(super) fn handle_delivered(&mut self, replies: &[Reply]) {
        let State::Waiting { recipients } = self.state else { return };
        assert_eq!(replies.len(), recipients, "one reply for each");
        for reply in replies {
            self.reply(reply);
        }
        self.state = State::Command;
    }

    fn say(&mut self, line: &str) {
        self.replies.extend_from_slice(line.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }

    /// Its text is one line.
    fn reply(&mut self, reply: &Reply) {
        let enhanced = reply.enhanced.map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
        self.say(&format!("{} {enhanced}{}", reply.code, reply.text()));
    }

    fn take_line(&mut self, bytes: &[u8]) -> usize {
        let end = bytes.iter().position(|octet| *octet == b'\n');
        let len = end.map_or(bytes.len(), |end| end + 1);
        if self.line.len() + len > LINE_MAX {
            self.say("500 5.5.2 Line too long");
            self.close();
            return len;
        }
        self.line.extend_from_slice(&bytes[..len]);
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..line.len() - 1]);
            match std::str::from_utf8(line) {
                Ok(line) => self.command(line),
                Err(_) => self.say("500 5.5.2 Not text in UTF-8"),
            }
        }
        len
    }

    fn command(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "LHLO" => {
                self.reset();
                let extensions = ["ringpost", "PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8"];
                extensions.iter().for_each(|word| self.say(&format!("250-{word}")));
                self.say(&format!("250-SIZE {}", self.message_max));
                self.say("250 CHUNKING");
            }
            "MAIL" => self.mail(rest),
            "RCPT" => self.rcpt(rest),
            "BDAT" => self.bdat(rest),
            "RSET" => {
                self.reset();
                self.say("250 2.0.0 Ok");
            }
            "NOOP" => self.say("250 2.0.0 Ok"),
            "QUIT" => {
                self.say("221 2.0.0 Bye");
                self.close();
            }
            // Nobody's mail is to fail for good because of how it came.
            "DATA" => self.say("451 4.5.1 Contents come by BDAT here"),
            _ => self.say("500 5.5.2 What?"),
        }
    }

    fn mail(&mut self, rest: &str) {
        let path = rest.get(..5).filter(|word| word.eq_ignore_ascii_case("FROM:")).map(|_| &rest[5..]);
        match path.map(parse_reverse_path) {
            Some(Ok((sender, _, parameters))) => {
                let size = parameters.split_ascii_whitespace().find_map(|word| word.strip_prefix("SIZE="));
                let size = size.and_then(|size| size.parse().ok()).unwrap_or(0);
                let sender = match &sender {
                    ReversePath::Null => String::new(),
                    sender => sender.as_str().to_owned(),
                };
                self.reset();
                self.envelope = Some(Envelope { sender, recipients: Vec::new() });
                self.wishes.push_back(Wish::Room(size));
                self.say("250 2.1.0 Ok");
            }
            _ => self.say("501 5.1.7 That is no MAIL FROM:<...>"),
        }
    }

    fn rcpt(&mut self, rest: &str) {
        let path = rest.get(..3).filter(|word| word.eq_ignore_ascii_case("TO:")).map(|_| &rest[3..]);
        let parsed = path.map(parse_forward_path);
        match (&mut self.envelope, parsed) {
            (None, _) => self.say("503 5.5.1 MAIL first"),
            (Some(envelope), _) if envelope.recipients.len() == RECIPIENTS_MAX => {
                self.say("452 4.5.3 Too many recipients");
            }
            (Some(envelope), Some(Ok((ForwardPath::Mailbox(mailbox), _)))) => {
                envelope.recipients.push(mailbox.to_string());
                self.say("250 2.1.5 Ok");
            }
            _ => self.say("501 5.1.3 That is no RCPT TO:<...>"),
        }
    }

    fn bdat(&mut self, rest: &str) {
        let mut words = rest.split_ascii_whitespace();
        let len = words.next().and_then(|word| word.parse::<u64>().ok());
        let is_last = match words.next() {
            None => Some(false),
            Some(word) => word.eq_ignore_ascii_case("LAST").then_some(true),
        };
        let (Some(len), Some(is_last), None) = (len, is_last, words.next()) else {
            // How many octets follow is not known.
            self.say("501 5.5.4 That is no BDAT size [LAST]");
            return self.close();
        };
        let has_recipients = self.envelope.as_ref().is_some_and(|envelope| !envelope.recipients.is_empty());
        if !has_recipients {
            self.say("503 5.5.1 No recipient");
        } else if self.content_len.saturating_add(len) > self.message_max {
            self.say("552 5.3.4 The message is too long");
            self.reset();
        } else {
            self.content_len += len;
            self.state = State::Chunk { left: len, is_last };
            return self.end_chunk();
        }
        self.state = State::Waste { left: len };
        self.waste(&[], len);
    }

    fn take_chunk(&mut self, bytes: &[u8], left: u64, is_last: bool) -> usize {
        let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.wishes.push_back(Wish::Content(bytes[..len].to_vec()));
        self.state = State::Chunk { left: left - len as u64, is_last };
        self.end_chunk();
        len
    }

    /// If it is one.
    fn end_chunk(&mut self) {
        let State::Chunk { left: 0, is_last } = self.state else { return };
        match self.envelope.take_if(|_| is_last) {
            Some(envelope) => {
                self.state = State::Waiting { recipients: envelope.recipients.len() };
                self.content_len = 0;
                self.wishes.push_back(Wish::Deliver(envelope));
            }
            None => {
                self.state = State::Command;
                self.say("250 2.0.0 Ok");
            }
        }
    }

    fn waste(&mut self, bytes: &[u8], left: u64) -> usize {
        let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - len as u64;
        self.state = if left == 0 { State::Command } else { State::Waste { left } };
        len
    }

    fn reset(&mut self) {
        (self.envelope, self.content_len) = (None, 0);
        self.wishes.push_back(Wish::Forget);
    }

    fn close(&mut self) {
        self.state = State::Over;
        self.wishes.push_back(Wish::Close);
    }
}

/// For the fuzzer: any octets, in pieces, as a client's.
pub fn fuzz_lmtp(bytes: &[u8]) {
    let mut session = Session::new("h.test", 1000);
    for piece in bytes.chunks(7) {
        let mut rest = piece;
        loop {
            rest = &rest[session.handle_bytes(rest)..];
            let mut is_over = rest.is_empty();
            while let Some(wish) = session.poll_wish() {
                match wish {
                    Wish::Content(octets) => assert!(octets.len() <= bytes.len()),
                    Wish::Deliver(envelope) => {
                        let ok = Reply::ours(250, (2, 0, 0), "ok");
                        session.handle_delivered(&vec![ok; envelope.recipients.len()]);
                    }
                    Wish::Room(_) | Wish::Forget => {}
                    Wish::Close => is_over = true,
                }
            }
            let _ = session.take_replies();
            if is_over {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is said, and what is wished for, by lines; `\n` for what stands at the end of each.
    fn talk(bytes: &[u8]) -> (String, Vec<String>) {
        let mut session = Session::new("h.test", 100);
        let (mut said, mut wished, mut rest) = (session.take_replies(), Vec::new(), bytes);
        loop {
            rest = &rest[session.handle_bytes(rest)..];
            said.extend(session.take_replies());
            let Some(wish) = session.poll_wish() else {
                if rest.is_empty() {
                    return (String::from_utf8(said).unwrap().replace("\r\n", "\n"), wished);
                }
                continue;
            };
            match wish {
                Wish::Content(octets) => wished.push(String::from_utf8(octets).unwrap()),
                Wish::Deliver(envelope) => {
                    wished.push(format!("{} to {}", envelope.sender, envelope.recipients.join(",")));
                    let mut replies = vec![Reply::ours(250, (2, 1, 5), "in"); envelope.recipients.len()];
                    replies[0] = Reply::ours(550, (5, 1, 1), "no mailbox");
                    session.handle_delivered(&replies);
                }
                Wish::Room(0) | Wish::Forget => {}
                Wish::Room(octets) => wished.push(format!("room for {octets}")),
                Wish::Close => wished.push("close".into()),
            }
        }
    }

    #[test]
    fn a_content_gets_a_reply_for_each_recipient() {
        let (said, wished) = talk(
            b"LHLO x\r\nMAIL FROM:<ann@a.test> SIZE=8 BODY=8BITMIME\r\nRCPT TO:<bob@h.test>\r\nRCPT TO:<\"c d\"@h.test>\r\n\
              BDAT 5\r\nab\r\ncBDAT 3 LAST\r\ndefQUIT\r\n",
        );
        assert!(
            said.ends_with(
                "250 CHUNKING\n250 2.1.0 Ok\n250 2.1.5 Ok\n250 2.1.5 Ok\n250 2.0.0 Ok\n550 5.1.1 no mailbox\n\
             250 2.1.5 in\n221 2.0.0 Bye\n"
            ),
            "{said}"
        );
        let whom = "ann@a.test to bob@h.test,\"c d\"@h.test";
        assert_eq!(wished, ["room for 8", "ab\r\nc", "def", whom, "close"]);
    }

    #[test]
    fn an_empty_chunk_can_be_the_last() {
        let (said, wished) = talk(b"MAIL FROM:<>\r\nRCPT TO:<b@h.test>\r\nBDAT 1\r\nxBDAT 0 LAST\r\n");
        assert!(said.ends_with("250 2.0.0 Ok\n550 5.1.1 no mailbox\n"), "{said}");
        assert_eq!(wished, ["x", " to b@h.test"]);
    }

    #[test]
    fn a_content_for_nobody_is_read_past() {
        let (said, wished) = talk(b"MAIL FROM:<>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
        assert_eq!(said, "220 h.test LMTP\n250 2.1.0 Ok\n503 5.5.1 No recipient\n250 2.0.0 Ok\n");
        assert!(wished.is_empty());
    }

    #[test]
    fn what_is_too_long_or_no_command_is_refused() {
        let (said, _) = talk(b"MAIL FROM:<>\r\nRCPT TO:<b@h.test>\r\nBDAT 101 LAST\r\n");
        assert!(said.ends_with("552 5.3.4 The message is too long\n"), "{said}");
        let (said, wished) = talk(&[b'x'; LINE_MAX + 1]);
        assert!(said.ends_with("500 5.5.2 Line too long\n") && wished == ["close"], "{said}");
        for (line, code) in
            [("BDAT x", "501"), ("RCPT TO:<a@b>", "503"), ("MAIL <a>", "501"), ("HELO x", "500")]
        {
            let (said, _) = talk(format!("{line}\r\n").as_bytes());
            assert!(said.lines().nth(1).unwrap().starts_with(code), "{line}: {said}");
        }
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            text in "((MAIL FROM:<a@b>|RCPT TO:<c@d>|BDAT [0-9]{1,2}( LAST)?|RSET|QUIT|x{0,9})\r?\n){0,12}",
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            fuzz_lmtp(text.as_bytes());
            fuzz_lmtp(&bytes);
        }
    }
}
