//! One command line, read.
//!
//! A keyword is known in any case. Numbers are digits alone and below 2^64; a message's number that is none, or that no
//! maildrop can have, is junk like any other. Blanks behind an argument are forgiven, but not behind USER and PASS, whose
//! argument is the rest of the line as it is.

use message::Secret;

/// What the client wants.
#[derive(Debug)]
pub(crate) enum Command {
    Apop {
        user: String,
        digest: [u8; 16],
    },
    /// `None`: another mechanism than PLAIN.
    Auth(Option<Response>),
    Capa,
    Dele(Number),
    Last,
    List(Option<Number>),
    Noop,
    Pass(Secret),
    Quit,
    Retr(Number),
    Rset,
    Stat,
    Stls,
    Top(Number, u64),
    Uidl(Option<Number>),
    User(String),
}

/// Of PLAIN, in base64.
#[derive(Debug)]
pub(crate) enum Response {
    Given(Secret),
    /// It comes in the next line.
    Next,
}

/// A message's number as the client counts: from 1.
pub(crate) type Number = u64;

/// Why a line is no command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wrong {
    Unknown,
    /// Too few arguments, too many, or junk.
    Arguments,
    /// A name that nobody can have.
    Name,
}

/// Octets of a user's name.
const USER_MAX: usize = 255;

pub(crate) fn parse(line: &[u8]) -> Result<Command, Wrong> {
    let (keyword, rest) = split(line);
    let keyword = keyword.to_ascii_uppercase();
    // Their argument is a secret or may have blanks.
    match keyword.as_slice() {
        b"PASS" => return Ok(Command::Pass(Secret::new(rest.to_vec()))),
        b"USER" => return user_of(rest).map(Command::User).ok_or(Wrong::Name),
        _ => {}
    }
    let arguments: Vec<&[u8]> =
        rest.split(|octet| *octet == b' ').filter(|word| !word.is_empty()).take(ARGUMENTS_MAX + 1).collect();
    match (keyword.as_slice(), arguments.as_slice()) {
        (b"APOP", [user, digest]) => {
            let user = user_of(user).ok_or(Wrong::Name)?;
            Ok(Command::Apop { user, digest: digest_of(digest).ok_or(Wrong::Arguments)? })
        }
        (b"AUTH", [mechanism, response @ ..]) => auth(mechanism, response),
        (b"CAPA", []) => Ok(Command::Capa),
        (b"DELE", [number]) => Ok(Command::Dele(number_of(number)?)),
        (b"LAST", []) => Ok(Command::Last),
        (b"LIST", []) => Ok(Command::List(None)),
        (b"LIST", [number]) => Ok(Command::List(Some(number_of(number)?))),
        (b"NOOP", []) => Ok(Command::Noop),
        (b"QUIT", []) => Ok(Command::Quit),
        (b"RETR", [number]) => Ok(Command::Retr(number_of(number)?)),
        (b"RSET", []) => Ok(Command::Rset),
        (b"STAT", []) => Ok(Command::Stat),
        (b"STLS", []) => Ok(Command::Stls),
        (b"TOP", [number, lines]) => Ok(Command::Top(number_of(number)?, number_of(lines)?)),
        (b"UIDL", []) => Ok(Command::Uidl(None)),
        (b"UIDL", [number]) => Ok(Command::Uidl(Some(number_of(number)?))),
        (known, _) if KEYWORDS.contains(&known) => Err(Wrong::Arguments),
        _ => Err(Wrong::Unknown),
    }
}

/// No command has more.
const ARGUMENTS_MAX: usize = 2;

const KEYWORDS: [&[u8]; 14] = [
    b"APOP", b"AUTH", b"CAPA", b"DELE", b"LAST", b"LIST", b"NOOP", b"QUIT", b"RETR", b"RSET", b"STAT",
    b"STLS", b"TOP", b"UIDL",
];

/// Whether the line may be as long as a name and a password are: looked up before it is read.
pub(crate) fn is_login(line: &[u8]) -> bool {
    let (keyword, _) = split(line);
    [b"USER", b"PASS", b"APOP", b"AUTH"].iter().any(|login| keyword.eq_ignore_ascii_case(*login))
}

/// The keyword, and what stands behind the blank.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', line) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, b""),
    }
}

fn auth(mechanism: &[u8], response: &[&[u8]]) -> Result<Command, Wrong> {
    if !mechanism.eq_ignore_ascii_case(b"PLAIN") {
        return Ok(Command::Auth(None));
    }
    match response {
        [] => Ok(Command::Auth(Some(Response::Next))),
        // RFC 5034 §4: an equals sign is an empty response.
        [b"="] => Ok(Command::Auth(Some(Response::Given(Secret::new(Vec::new()))))),
        [response] => Ok(Command::Auth(Some(Response::Given(Secret::new(response.to_vec()))))),
        _ => Err(Wrong::Arguments),
    }
}

/// A name that may stand in a log and in a look-up: UTF-8 without control characters, neither empty nor long.
pub(crate) fn user_of(octets: &[u8]) -> Option<String> {
    let user = std::str::from_utf8(octets).ok()?;
    let is_legal = (1..=USER_MAX).contains(&user.len()) && !user.contains(char::is_control);
    is_legal.then(|| user.to_owned())
}

fn number_of(digits: &[u8]) -> Result<u64, Wrong> {
    let text = std::str::from_utf8(digits).map_err(|_| Wrong::Arguments)?;
    if !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Wrong::Arguments);
    }
    text.parse().map_err(|_| Wrong::Arguments)
}

/// RFC 1939 §7: 32 hexadecimal digits. Upper case is not in it, and does no harm.
fn digest_of(digits: &[u8]) -> Option<[u8; 16]> {
    let mut octets = [0; 16];
    let (pairs, rest) = digits.as_chunks::<2>();
    for (octet, pair) in octets.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *octet = u8::try_from(high? << 4 | low?).ok()?;
    }
    (pairs.len() == octets.len() && rest.is_empty()).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_below_2_to_the_64() {
        assert!(matches!(parse(b"RETR 18446744073709551615"), Ok(Command::Retr(u64::MAX))));
        for junk in [
            "18446744073709551616",
            "99999999999999999999999",
            "+1",
            "-1",
            "1x",
            "0x1",
            "1.0",
            "",
            "1 2",
            "\u{661}",
        ] {
            let found = parse(format!("RETR {junk}").as_bytes());
            assert!(matches!(found, Err(Wrong::Arguments)), "{junk}: {found:?}");
        }
        assert!(matches!(parse(b"TOP 1 18446744073709551616"), Err(Wrong::Arguments)));
        assert!(matches!(parse(b"top 1 0 "), Ok(Command::Top(1, 0))));
    }

    #[test]
    fn passwords_are_the_rest_of_the_line_and_never_shown() {
        let Ok(Command::Pass(secret)) = parse(b"pass  a b \xff ") else { panic!() };
        assert_eq!(secret.octets(), b" a b \xff ");
        for line in ["PASS s3cret", "AUTH PLAIN s3cret"] {
            assert!(!format!("{:?}", parse(line.as_bytes())).contains("s3cret"));
        }
    }

    #[test]
    fn digests_are_32_digits() {
        let digest = |text: &str| digest_of(text.as_bytes());
        assert_eq!(digest("c4c9334bac560ecc979e58001b3e22fb").unwrap()[..2], [0xc4, 0xc9]);
        for wrong in [
            "",
            "c4",
            "c4c9334bac560ecc979e58001b3e22f",
            "c4c9334bac560ecc979e58001b3e22fbc4",
            "+4c9334bac560ecc979e58001b3e22fb",
        ] {
            assert!(digest(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_command_is_told_from_what_has_wrong_arguments() {
        assert_eq!(parse(b"XTND").unwrap_err(), Wrong::Unknown);
        assert_eq!(parse(b"").unwrap_err(), Wrong::Unknown);
        for line in
            ["STAT 1", "DELE", "TOP 1", "UIDL 1 2", "AUTH", "APOP ann", "LIST 1 2 3 4 5", "AUTH PLAIN a b"]
        {
            assert_eq!(parse(line.as_bytes()).unwrap_err(), Wrong::Arguments, "{line}");
        }
        assert_eq!(parse(b"USER ").unwrap_err(), Wrong::Name);
        assert_eq!(parse(b"USER a\x07").unwrap_err(), Wrong::Name);
    }
}
