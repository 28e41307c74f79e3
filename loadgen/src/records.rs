//! The two audit files, written and read: what was sent, what was received. FORMAT.md is their description.
//!
//! Lines of tab-separated fields, so that a doubt can be settled with grep. A reader takes one line at a time
//! and borrows from it. Trusts a file as far as it parses; a line that does not is an error with its number.

use std::io::{self, BufRead, Write};

use crate::content::write_token;
use crate::recipient::Recipients;
use crate::text::{decimal, hex, push_decimal, push_hex};

const SENT_MAGIC: &str = "loadgen-sent";
const SENT_FORMAT: u64 = 1;

/// What became of a message, as far as its source can know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// 250 after the content: the peer owes a delivery to each recipient it took.
    Accepted,
    /// Refused or never completed: the peer owes nothing.
    Refused,
    /// The connection ended between the content and its reply: a delivery is possible, and not owed.
    Unknown,
}

impl Fate {
    fn letter(self) -> u8 {
        match self {
            Fate::Accepted => b'A',
            Fate::Refused => b'R',
            Fate::Unknown => b'U',
        }
    }

    fn of(letter: &[u8]) -> Option<Fate> {
        match letter {
            b"A" => Some(Fate::Accepted),
            b"R" => Some(Fate::Refused),
            b"U" => Some(Fate::Unknown),
            _ => None,
        }
    }
}

/// The first line of a sent file: everything by which a recipient's number becomes an address.
#[derive(Debug)]
pub(crate) struct SentHeader {
    pub(crate) run: String,
    pub(crate) recipients: Recipients,
}

impl SentHeader {
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Recipients { domain_count, pattern } = &self.recipients;
        writeln!(out, "{SENT_MAGIC}\t{SENT_FORMAT}\t{}\t{domain_count}\t{pattern}", self.run)
    }

    pub(crate) fn parse(line: &[u8]) -> Option<SentHeader> {
        let mut fields = std::str::from_utf8(line).ok()?.split('\t');
        let (magic, format) = (fields.next()?, decimal(fields.next()?.as_bytes())?);
        let run = fields.next()?.to_owned();
        let domain_count = decimal(fields.next()?.as_bytes())?;
        let pattern = fields.next()?.parse().ok()?;
        let is_ours = magic == SENT_MAGIC && format == SENT_FORMAT && fields.next().is_none();
        is_ours.then_some(SentHeader { run, recipients: Recipients { domain_count, pattern } })
    }
}

/// One message of a sent file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sent {
    pub(crate) fate: Fate,
    /// When the last reply came.
    pub(crate) time_ns: u64,
    pub(crate) number: u64,
    pub(crate) size_bytes: u64,
    pub(crate) digest: u64,
    pub(crate) first_recipient: u64,
    pub(crate) recipient_count: u64,
}

impl Sent {
    /// `refused` are the recipients refused at RCPT, as ranges of numbers, both ends included.
    pub(crate) fn write(&self, out: &mut Vec<u8>, run: &str, refused: &[(u64, u64)]) {
        out.push(self.fate.letter());
        for number in [self.time_ns, self.size_bytes, self.first_recipient, self.recipient_count] {
            out.push(b'\t');
            push_decimal(out, number, 1);
        }
        out.push(b'\t');
        push_hex(out, self.digest);
        out.push(b'\t');
        write_token(out, run, self.number);
        out.push(b'\t');
        write_ranges(out, refused);
        out.push(b'\n');
    }

    pub(crate) fn parse(line: &[u8]) -> Option<(Sent, RefusedRanges<'_>)> {
        let mut fields = Fields(line);
        let sent = Sent {
            fate: Fate::of(fields.next()?)?,
            time_ns: decimal(fields.next()?)?,
            size_bytes: decimal(fields.next()?)?,
            first_recipient: decimal(fields.next()?)?,
            recipient_count: decimal(fields.next()?)?,
            digest: hex(fields.next()?)?,
            number: token_parts(fields.next()?)?.1,
        };
        Some((sent, RefusedRanges(fields.next()?)))
    }
}

fn write_ranges(out: &mut Vec<u8>, ranges: &[(u64, u64)]) {
    if ranges.is_empty() {
        out.push(b'-');
    }
    for (index, &(first, last)) in ranges.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_decimal(out, first, 1);
        out.push(b'-');
        push_decimal(out, last, 1);
    }
}

/// The refused recipients of a line, read as they are asked for.
pub(crate) struct RefusedRanges<'a>(&'a [u8]);

impl RefusedRanges<'_> {
    pub(crate) fn each(&self, mut range: impl FnMut(u64, u64)) -> Option<()> {
        if self.0 == b"-" {
            return Some(());
        }
        for text in self.0.split(|&byte| byte == b',') {
            let dash = memchr::memchr(b'-', text)?;
            range(decimal(&text[..dash])?, decimal(&text[dash + 1..])?);
        }
        Some(())
    }
}

/// One delivery of a received file: a recipient of an accepted transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received<'a> {
    pub(crate) time_ns: u64,
    pub(crate) digest: u64,
    /// Empty when the content had no token.
    pub(crate) token: &'a [u8],
    /// Empty for the null reverse-path.
    pub(crate) reverse_path: &'a [u8],
    pub(crate) forward_path: &'a [u8],
}

impl<'a> Received<'a> {
    /// What the recipients of a transaction share. No allocation beyond `out`.
    pub(crate) fn write_shared(&self, out: &mut Vec<u8>) {
        push_decimal(out, self.time_ns, 1);
        out.push(b'\t');
        push_hex(out, self.digest);
        out.push(b'\t');
        out.extend_from_slice(if self.token.is_empty() { b"-" } else { self.token });
        out.push(b'\t');
        out.extend_from_slice(if self.reverse_path.is_empty() { b"<>" } else { self.reverse_path });
        out.push(b'\t');
    }

    pub(crate) fn parse(line: &'a [u8]) -> Option<Received<'a>> {
        let mut fields = Fields(line);
        let (time_ns, digest) = (decimal(fields.next()?)?, hex(fields.next()?)?);
        let (token, reverse_path, forward_path) = (fields.next()?, fields.next()?, fields.next()?);
        let token = if token == b"-" { b"" } else { token };
        let reverse_path = if reverse_path == b"<>" { b"" } else { reverse_path };
        Some(Received { time_ns, digest, token, reverse_path, forward_path })
    }
}

/// Splits `<run>-<message number>`.
pub(crate) fn token_parts(token: &[u8]) -> Option<(&[u8], u64)> {
    let dash = memchr::memrchr(b'-', token)?;
    Some((&token[..dash], decimal(&token[dash + 1..])?))
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The last field ends with the line; after it there is one more, empty, and then none is asked for.
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\t', self.0).unwrap_or(self.0.len());
        let field = &self.0[..end];
        self.0 = self.0.get(end + 1..).unwrap_or(b"");
        (!field.is_empty()).then_some(field)
    }
}

/// Reads the next line into `line`, without its end; false at the end of the file.
pub(crate) fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let len = input.read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(len > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sent_record_is_read_back_with_its_refused_ranges() {
        let sent = Sent {
            fate: Fate::Accepted,
            time_ns: 1_700_000_000_000_000_001,
            number: 17,
            size_bytes: 4096,
            digest: 0xabc,
            first_recipient: 170,
            recipient_count: 10,
        };
        let mut line = Vec::new();
        sent.write(&mut line, "5eed", &[(171, 173), (179, 179)]);
        line.pop();
        let (read, refused) = Sent::parse(&line).unwrap();
        assert_eq!(read, sent);
        let mut ranges = Vec::new();
        refused.each(|first, last| ranges.push((first, last))).unwrap();
        assert_eq!(ranges, [(171, 173), (179, 179)]);
    }

    #[test]
    fn a_received_record_is_read_back_with_null_path_and_no_token() {
        let mut line = Vec::new();
        let record = Received {
            time_ns: 5,
            digest: 6,
            token: b"",
            reverse_path: b"",
            forward_path: b"u000001@d002.test",
        };
        record.write_shared(&mut line);
        line.extend_from_slice(record.forward_path);
        assert_eq!(Received::parse(&line), Some(record));
        assert_eq!(Received::parse(b"5\tzz\t-\t<>\tx"), None);
        assert_eq!(Received::parse(b"5\t06\t-\t<>"), None);
    }

    #[test]
    fn a_header_of_another_format_is_refused() {
        assert!(SentHeader::parse(b"loadgen-sent\t1\tab\t3\td{:03}.test").is_some());
        assert!(SentHeader::parse(b"loadgen-sent\t2\tab\t3\td{:03}.test").is_none());
        assert!(SentHeader::parse(b"").is_none());
    }
}
