//! What a user wants done with a message: the lines of a `.qmail` file (dot-qmail).
//!
//! `#` begins a comment, `|` a program, `.` or `/` a file (an mbox, or a Maildir if it ends in `/`), `&`, a letter or
//! a digit an address; `+list` says that only addresses follow. Blanks at a line's end do not count. A blank line
//! counts for nothing, but the first: that is how a file looks that is just being written, so mail waits. A file of no
//! octets asks for the default delivery; one with nothing but a comment throws the message away.
//!
//! Which file it is, and whether it may be trusted, is decided in [`search`]. Pure. Bounds: [`FILE_MAX`] octets,
//! [`LINES_MAX`] lines.

pub mod search;

use crate::failure::Failure;

/// Octets of a file of instructions. A list of a million addresses has some 30 million.
pub const FILE_MAX: usize = 64 << 20;

/// Lines of a file of instructions.
pub const LINES_MAX: usize = 2 << 20;

/// One line that says something. Octets are as they stand in the file, which is its user's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Line {
    Comment,
    /// For `/bin/sh -c`.
    Program(Vec<u8>),
    /// An address, as it stands.
    Forward(Vec<u8>),
    Mbox(Vec<u8>),
    /// With the `/` at its end.
    Maildir(Vec<u8>),
    /// `+list`: only addresses may follow.
    List,
    /// `+` and a word that nobody knows.
    Unknown(Vec<u8>),
}

/// Why a file cannot be followed. Mail waits until it is mended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InstructionsError {
    #[error("Uh-oh: first line of .qmail file is blank. (#4.2.1)")]
    FirstLineBlank,
    #[error(".qmail has more than {FILE_MAX} octets. (#4.3.0)")]
    TooLong,
    #[error(".qmail has more than {LINES_MAX} lines. (#4.3.0)")]
    TooMany,
}

impl From<InstructionsError> for Failure {
    fn from(error: InstructionsError) -> Failure {
        Failure::soft(error.to_string())
    }
}

/// The lines of a file, in order, without blank ones.
pub fn parse(text: &[u8]) -> Result<Vec<Line>, InstructionsError> {
    if text.len() > FILE_MAX {
        return Err(InstructionsError::TooLong);
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut lines = Vec::new();
    for (index, line) in text.split(|octet| *octet == b'\n').enumerate() {
        if index == LINES_MAX {
            return Err(InstructionsError::TooMany);
        }
        match parse_line(line) {
            Some(line) => lines.push(line),
            None if index == 0 => return Err(InstructionsError::FirstLineBlank),
            None => {}
        }
    }
    Ok(lines)
}

/// `None` if it is blank.
fn parse_line(line: &[u8]) -> Option<Line> {
    // No program, file or address holds a NUL: what follows one is not there.
    let line = &line[..memchr::memchr(0, line).unwrap_or(line.len())];
    let len = line.iter().rposition(|octet| !matches!(octet, b' ' | b'\t')).map_or(0, |last| last + 1);
    let line = &line[..len];
    Some(match line {
        [] => return None,
        [b'#', ..] => Line::Comment,
        [b'|', program @ ..] => Line::Program(program.into()),
        [b'.' | b'/', .., b'/'] | b"/" => Line::Maildir(line.into()),
        [b'.' | b'/', ..] => Line::Mbox(line.into()),
        b"+list" => Line::List,
        [b'+', word @ ..] => Line::Unknown(word.into()),
        [b'&', address @ ..] => Line::Forward(address.into()),
        address => Line::Forward(address.into()),
    })
}

/// A file that says the same.
pub fn print(lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        let (mark, text): (&[u8], &[u8]) = match line {
            Line::Comment => (b"#", b""),
            Line::Program(text) => (b"|", text),
            Line::Forward(text) => (b"&", text),
            Line::Mbox(text) | Line::Maildir(text) => (b"", text),
            Line::List => (b"+list", b""),
            Line::Unknown(text) => (b"+", text),
        };
        out.extend_from_slice(mark);
        out.extend_from_slice(text);
        out.push(b'\n');
    }
    out
}

/// For the fuzzer: what is read prints and reads the same.
pub fn fuzz_instructions(bytes: &[u8]) {
    let Ok(lines) = parse(bytes) else { return };
    assert_eq!(parse(&print(&lines)).expect("what is printed can be read"), lines);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(line: &str) -> Line {
        let lines = parse(line.as_bytes()).unwrap();
        assert_eq!(lines.len(), 1, "{line:?}");
        lines.into_iter().next().unwrap()
    }

    #[test]
    fn the_first_octet_tells_the_kind() {
        assert_eq!(one("# a comment\n"), Line::Comment);
        assert_eq!(one("|vacation ann \t\n"), Line::Program(b"vacation ann".into()));
        assert_eq!(one("&ann@example.net"), Line::Forward(b"ann@example.net".into()));
        assert_eq!(one("bob@example.net  "), Line::Forward(b"bob@example.net".into()));
        assert_eq!(one("1@example.net"), Line::Forward(b"1@example.net".into()));
        assert_eq!(one("./Mailbox"), Line::Mbox(b"./Mailbox".into()));
        assert_eq!(one("./Maildir/ "), Line::Maildir(b"./Maildir/".into()));
        assert_eq!(one("/var/mail/ann"), Line::Mbox(b"/var/mail/ann".into()));
        assert_eq!(one("/"), Line::Maildir(b"/".into()));
        assert_eq!(one("+list"), Line::List);
        assert_eq!(one("+other"), Line::Unknown(b"other".into()));
    }

    #[test]
    fn a_blank_line_is_wrong_where_it_is_the_first() {
        for blank in ["", "\n", " \t\n./Mailbox\n", "\n./Mailbox\n"] {
            assert_eq!(parse(blank.as_bytes()), Err(InstructionsError::FirstLineBlank), "{blank:?}");
        }
        assert_eq!(
            parse(b"#\n\n \n./Mailbox\n\n").unwrap(),
            [Line::Comment, Line::Mbox(b"./Mailbox".into())]
        );
    }

    #[test]
    fn what_follows_a_nul_is_not_there() {
        assert_eq!(one("|a\0b"), Line::Program(b"a".into()));
        assert_eq!(parse(b"\0./Mailbox"), Err(InstructionsError::FirstLineBlank));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([#|&+./ a-z]{0,5}\n?){0,6}") {
            fuzz_instructions(&bytes);
            fuzz_instructions(text.as_bytes());
        }
    }
}
