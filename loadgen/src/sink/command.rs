//! One command line, parsed once. Borrows from the line; no allocation.
//!
//! Lenient where providers are (a space after the colon, any parameters), strict where a mistake of ours
//! would hide: a path without brackets is a syntax error. Trusts nothing: control characters have no
//! place in a path, so a path can never forge a field or a line of the audit file.

use crate::text::decimal;

/// RFC 5321 §4.5.3.1.3 asks for 256 octets; SMTPUTF8 and VERP make longer ones.
const PATH_MAX: usize = 1024;
/// RFC 5321 §4.5.3.1.2.
const NAME_MAX: usize = 255;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Command<'a> {
    Ehlo {
        name: &'a [u8],
    },
    Helo {
        name: &'a [u8],
    },
    /// RFC 2033 §4.1.
    Lhlo {
        name: &'a [u8],
    },
    StartTls,
    /// RFC 4954 §4.
    Auth {
        mechanism: &'a [u8],
        initial: Option<&'a [u8]>,
    },
    Mail {
        path: &'a [u8],
        size_bytes: u64,
        /// RFC 8689 §2.
        requires_tls: bool,
    },
    Rcpt {
        path: &'a [u8],
    },
    Data,
    Bdat {
        len: u64,
        is_last: bool,
    },
    Rset,
    Noop,
    Vrfy,
    Quit,
    /// A verb that we know with arguments that we do not.
    Malformed,
    Unknown,
}

impl<'a> Command<'a> {
    /// `line` comes without its line end.
    pub(crate) fn parse(line: &'a [u8]) -> Command<'a> {
        let (verb, rest) = line.split_at(line.len().min(4));
        let mut upper = [0; 4];
        upper[..verb.len()].copy_from_slice(verb);
        upper.make_ascii_uppercase();
        match (&upper, rest.first()) {
            (b"MAIL", Some(b' ')) => mail(rest),
            (b"RCPT", Some(b' ')) => rcpt(rest),
            (b"BDAT", Some(b' ')) => bdat(rest),
            (b"EHLO", Some(b' ')) => Command::Ehlo { name: name(rest) },
            (b"HELO", Some(b' ')) => Command::Helo { name: name(rest) },
            (b"LHLO", Some(b' ')) => Command::Lhlo { name: name(rest) },
            (b"AUTH", Some(b' ')) => auth(rest),
            (b"STAR", _) if line.eq_ignore_ascii_case(b"STARTTLS") => Command::StartTls,
            (b"DATA", None) => Command::Data,
            (b"RSET", None) => Command::Rset,
            (b"QUIT", None) => Command::Quit,
            (b"NOOP", None | Some(b' ')) => Command::Noop,
            (b"VRFY", Some(b' ')) => Command::Vrfy,
            (b"MAIL" | b"RCPT" | b"BDAT" | b"EHLO" | b"HELO" | b"LHLO" | b"AUTH" | b"VRFY", _) => {
                Command::Malformed
            }
            (b"DATA" | b"RSET" | b"QUIT", Some(b' ')) => Command::Malformed,
            _ => Command::Unknown,
        }
    }
}

fn mail(rest: &[u8]) -> Command<'_> {
    let Some((path, parameters)) = path(rest, b" FROM:") else { return Command::Malformed };
    let (size_bytes, requires_tls) = parameters_of_mail(parameters);
    Command::Mail { path, size_bytes, requires_tls }
}

fn rcpt(rest: &[u8]) -> Command<'_> {
    match path(rest, b" TO:") {
        Some((path, _)) if !path.is_empty() => Command::Rcpt { path },
        _ => Command::Malformed,
    }
}

/// The path between its brackets, and what follows.
fn path<'a>(rest: &'a [u8], keyword: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (head, rest) = rest.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then_some(())?;
    let inside = rest.trim_ascii_start().strip_prefix(b"<")?;
    let end = closing_bracket(inside)?;
    let path = &inside[..end];
    let parameters = &inside[end + 1..];
    let is_separate = parameters.first().is_none_or(|&byte| byte == b' ');
    let is_plain = path.len() <= PATH_MAX && !path.iter().any(u8::is_ascii_control);
    (is_separate && is_plain).then_some((path, parameters))
}

/// A `>` inside a quoted local part closes nothing.
fn closing_bracket(inside: &[u8]) -> Option<usize> {
    if !inside.starts_with(b"\"") {
        return memchr::memchr(b'>', inside);
    }
    let (mut quoted, mut escaped) = (false, false);
    inside.iter().position(|&byte| {
        let closes = byte == b'>' && !quoted;
        quoted ^= byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// The declared size, and whether REQUIRETLS is among them; others are let pass.
fn parameters_of_mail(parameters: &[u8]) -> (u64, bool) {
    let (mut size_bytes, mut requires_tls) = (0, false);
    for word in parameters.split(|&byte| byte == b' ') {
        match word.split_at_checked(5) {
            Some((b"SIZE=", number)) => size_bytes = decimal(number).unwrap_or(0),
            _ => requires_tls |= word.eq_ignore_ascii_case(b"REQUIRETLS"),
        }
    }
    (size_bytes, requires_tls)
}

/// As far as a record can hold it: one word of printable octets.
fn name(rest: &[u8]) -> &[u8] {
    let name = rest.trim_ascii();
    let end = name.iter().position(|byte| !byte.is_ascii_graphic()).unwrap_or(name.len());
    &name[..end.min(NAME_MAX)]
}

fn auth(rest: &[u8]) -> Command<'_> {
    let mut words = rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => Command::Auth { mechanism, initial },
        _ => Command::Malformed,
    }
}

fn bdat(rest: &[u8]) -> Command<'_> {
    let mut words = rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let len = words.next().and_then(decimal);
    let last = words.next().map(|word| word.eq_ignore_ascii_case(b"LAST"));
    match (len, last, words.next()) {
        (Some(len), None, None) => Command::Bdat { len, is_last: false },
        (Some(len), Some(true), None) => Command::Bdat { len, is_last: true },
        _ => Command::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_between_their_brackets() {
        let mail = |line: &'static [u8]| Command::parse(line);
        assert_eq!(
            mail(b"mail from:<a@b>"),
            Command::Mail { path: b"a@b", size_bytes: 0, requires_tls: false }
        );
        let all = mail(b"MAIL FROM: <> requiretls SIZE=77 XVERP");
        assert_eq!(all, Command::Mail { path: b"", size_bytes: 77, requires_tls: true });
        assert_eq!(mail(b"RCPT TO:<\"a> b\\\"\"@c> X=y"), Command::Rcpt { path: b"\"a> b\\\"\"@c" });
        for wrong in
            [&b"MAIL FROM:a@b"[..], b"MAIL FROM:<a", b"RCPT TO:<>", b"RCPT TO:<a\tb@c>", b"RCPT TO:<a>b"]
        {
            assert_eq!(Command::parse(wrong), Command::Malformed, "{wrong:?}");
        }
    }

    #[test]
    fn chunks_name_their_length() {
        assert_eq!(Command::parse(b"BDAT 10"), Command::Bdat { len: 10, is_last: false });
        assert_eq!(Command::parse(b"bdat 0 last"), Command::Bdat { len: 0, is_last: true });
        for wrong in [&b"BDAT"[..], b"BDAT x", b"BDAT 1 FIRST", b"BDAT 1 LAST 2", b"BDAT -1"] {
            assert_eq!(Command::parse(wrong), Command::Malformed, "{wrong:?}");
        }
    }

    #[test]
    fn verbs_are_whole_words() {
        assert_eq!(Command::parse(b"DATAX"), Command::Unknown);
        assert_eq!(Command::parse(b"QUIT"), Command::Quit);
        assert_eq!(Command::parse(b"starttls"), Command::StartTls);
        assert_eq!(Command::parse(b"STARTTLSX"), Command::Unknown);
        assert_eq!(Command::parse(b"EHLO a.test\t[x]"), Command::Ehlo { name: b"a.test" });
        assert_eq!(
            Command::parse(b"AUTH PLAIN AGE="),
            Command::Auth { mechanism: b"PLAIN", initial: Some(b"AGE=") }
        );
        assert_eq!(Command::parse(b"NOOP x"), Command::Noop);
        assert_eq!(Command::parse(b""), Command::Unknown);
    }
}
