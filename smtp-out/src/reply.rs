//! Reads replies out of what a host sends (RFC 5321 §4.2.1).
//!
//! Lenient about text and line ends (a lone LF will do), strict about codes: every line has three digits and
//! then a space, a hyphen or nothing, and all lines of a reply have the same code. Anything else is garbage, and
//! the session ends there: whoever guesses which reply answers which command delivers mail twice.
//! Bound: a line is cut after [`LINE_MAX`] octets, a reply has at most [`LINES_MAX`] lines.

use memchr::memchr;
use message::{EnhancedCode, Reply};

/// Octets of a line that are looked at. RFC 5321 §4.5.3.1.5 allows 512; some texts are longer.
const LINE_MAX: usize = 2048;

/// Lines of one reply; EHLO is answered with some ten.
const LINES_MAX: u16 = 128;

/// Takes octets in any pieces, gives lines of replies.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// A line whose end has not come.
    partial: Vec<u8>,
    /// `partial` is a whole line that was given out, and goes at the next call.
    is_given: bool,
    /// The reply whose first lines have come.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    reply: Reply,
    lines: u16,
}

pub(crate) enum Part<'a> {
    /// The text of a line that is not its reply's last.
    Continued { code: u16, is_first: bool, text: &'a [u8] },
    /// The last line: the reply is whole.
    Answer(Answer<'a>),
    /// Not a reply, or one without an end.
    Garbage(&'static str),
}

/// A whole reply that is made into a [`Reply`] only if somebody wants it: most are `250` to MAIL or RCPT.
pub(crate) struct Answer<'a> {
    pub(crate) code: u16,
    begun: Option<Reply>,
    /// Of the last line.
    pub(crate) text: &'a [u8],
}

impl Answer<'_> {
    pub(crate) fn is_multi_line(&self) -> bool {
        self.begun.is_some()
    }

    pub(crate) fn class(&self) -> u16 {
        self.code / 100
    }

    pub(crate) fn into_reply(self) -> Reply {
        match self.begun {
            Some(mut reply) => {
                push_line(&mut reply, self.text);
                reply
            }
            None => first_line(self.code, self.text),
        }
    }
}

fn first_line(code: u16, text: &[u8]) -> Reply {
    match EnhancedCode::parse_prefix(text) {
        Some((enhanced, text)) => Reply::new(code, Some(enhanced), text),
        None => Reply::new(code, None, text),
    }
}

/// Each line repeats the enhanced code (RFC 2034 §3); the text keeps it out.
fn push_line(reply: &mut Reply, text: &[u8]) {
    match EnhancedCode::parse_prefix(text) {
        Some((_, text)) if reply.enhanced.is_some() => reply.push_line(text),
        _ => reply.push_line(text),
    }
}

impl Reader {
    /// The next line in `bytes`, which moves past it; none if its end has not come.
    /// A reply of one line in one piece costs no copy and no allocation.
    pub(crate) fn next_part<'r, 'b: 'r>(&'r mut self, bytes: &mut &'b [u8]) -> Option<Part<'r>> {
        let Reader { partial, is_given, begun } = self;
        let line = next_line(partial, is_given, bytes)?;
        let Some((code, is_last, text)) = split_line(line) else {
            return Some(Part::Garbage("no reply code"));
        };
        let is_first = begun.is_none();
        if begun.as_ref().is_some_and(|begun| begun.reply.code != code) {
            return Some(Part::Garbage("two codes in one reply"));
        }
        if is_last {
            let begun = begun.take().map(|begun| begun.reply);
            return Some(Part::Answer(Answer { code, begun, text }));
        }
        Some(match begin_or_continue(begun, code, text) {
            Ok(()) => Part::Continued { code, is_first, text },
            Err(why) => Part::Garbage(why),
        })
    }

    /// Octets held back; tests look at it.
    #[cfg(test)]
    fn partial_len(&self) -> usize {
        self.partial.len()
    }
}

fn begin_or_continue(begun: &mut Option<Begun>, code: u16, text: &[u8]) -> Result<(), &'static str> {
    match begun {
        Some(begun) if begun.lines >= LINES_MAX => return Err("a reply without an end"),
        Some(begun) => {
            begun.lines += 1;
            push_line(&mut begun.reply, text);
        }
        None => *begun = Some(Begun { reply: first_line(code, text), lines: 1 }),
    }
    Ok(())
}

/// One whole line without its end, from `bytes` itself where it is whole there.
fn next_line<'r, 'b: 'r>(
    partial: &'r mut Vec<u8>,
    is_given: &mut bool,
    bytes: &mut &'b [u8],
) -> Option<&'r [u8]> {
    if std::mem::take(is_given) {
        partial.clear();
    }
    let Some(end) = memchr(b'\n', bytes) else {
        push_cut(partial, bytes);
        *bytes = &[];
        return None;
    };
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    *bytes = rest;
    if partial.is_empty() {
        return Some(without_cr(&line[..line.len().min(LINE_MAX)]));
    }
    push_cut(partial, line);
    *is_given = true;
    Some(without_cr(partial))
}

fn push_cut(partial: &mut Vec<u8>, bytes: &[u8]) {
    let room = LINE_MAX.saturating_sub(partial.len());
    partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Code, whether the line is its reply's last, text.
fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_first_chunk::<3>()?;
    if !matches!(digits[0], b'1'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// For the fuzzer: any octets, in pieces whose lengths are taken from them; the pieces must not matter.
pub fn fuzz_reply(bytes: &[u8]) {
    let whole = read_all(&mut std::iter::once(bytes));
    let step = bytes.first().map_or(1, |octet| usize::from(octet % 7) + 1);
    let pieces = read_all(&mut bytes.chunks(step));
    assert_eq!(whole, pieces, "how a reply is cut into segments changes it");
}

/// Replies as text until the first garbage.
fn read_all(pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<String> {
    let (mut reader, mut replies) = (Reader::default(), Vec::new());
    for mut piece in pieces {
        while let Some(part) = reader.next_part(&mut piece) {
            match part {
                Part::Continued { .. } => {}
                Part::Answer(answer) => replies.push(answer.into_reply().to_string()),
                Part::Garbage(why) => {
                    replies.push(why.to_owned());
                    return replies;
                }
            }
        }
    }
    replies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        read_all(&mut std::iter::once(text.as_bytes()))
    }

    #[test]
    fn reply_of_many_lines_is_one_reply() {
        let replies = read("550-5.1.1 No such\r\n550-5.1.1 user\r\n550 5.1.1 here\r\n250 ok\r\n");
        assert_eq!(replies, ["550 5.1.1 No such user here", "250 ok"]);
    }

    #[test]
    fn lone_lf_and_missing_text_will_do() {
        assert_eq!(read("250\r\n250 \n354-\n354\n"), ["250", "250", "354  "].map(str::to_owned));
    }

    #[test]
    fn garbage_is_told_apart_from_replies() {
        for text in
            ["\r\n", "25\r\n", "2500 x\r\n", "650 x\r\n", "050 x\r\n", "HTTP/1.1 400\r\n", "25x a\r\n"]
        {
            assert_eq!(read(text), ["no reply code"], "{text:?}");
        }
        assert_eq!(read("250-a\r\n251 b\r\n"), ["two codes in one reply"]);
    }

    #[test]
    fn endless_reply_is_refused_and_endless_line_is_cut() {
        assert_eq!(read(&"250-x\r\n".repeat(200)), ["a reply without an end"]);
        let mut reader = Reader::default();
        for _ in 0..1000 {
            assert!(reader.next_part(&mut &[b'2'; 100][..]).is_none());
        }
        assert_eq!(reader.partial_len(), LINE_MAX);
    }

    proptest::proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fuzz_reply(&bytes);
        }

        #[test]
        fn fuzz_smoke_of_what_looks_like_replies(text in "(([2-5][0-9]{2}[- ]?[ -~]{0,9}\r?\n){0,9}[0-9\r\n-]{0,9}){0,4}") {
            fuzz_reply(text.as_bytes());
        }
    }
}
