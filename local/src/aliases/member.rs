//! One member of an alias: whom or what it stands for.

use super::{ADDRESS_MAX, AliasFault, MEMBERS_MAX};
use std::fmt;

/// See the module. Without quotes and backslashes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Member {
    /// `ann`, `ann@example.net`; its local part in quotes where it had to be.
    Address(String),
    /// For a shell.
    Program(String),
    File(String),
    /// A list of addresses in a file.
    Include(String),
}

/// Prints as it may stand in a table.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Address(address) => write!(f, "<{address}>"),
            Member::Program(program) => f.write_str(&quoted(&format!("|{program}"))),
            Member::File(path) => f.write_str(&quoted(path)),
            Member::Include(path) => write!(f, ":include:{}", quoted(path)),
        }
    }
}

/// `text` in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Where the first `stop` stands that no quotes, comment or angle brackets hold. One pass.
pub(super) fn end_of(text: &str, stop: char) -> Result<Option<usize>, AliasFault> {
    let (mut is_quoted, mut depth, mut is_open, mut is_escaped) = (false, 0_usize, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' if depth == 0 => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            char if char == stop && !is_open => return Ok(Some(at)),
            '<' => is_open = true,
            '>' => is_open = false,
            _ => {}
        }
    }
    if is_quoted || depth > 0 || is_open || is_escaped { Err(AliasFault::Unclosed) } else { Ok(None) }
}

/// Members between commas, and addresses between blanks.
pub fn members_of(text: &str) -> Result<Vec<Member>, AliasFault> {
    let mut members = Vec::new();
    let mut rest = text;
    loop {
        let end = match rest.trim_start().strip_prefix('|') {
            // A program without quotes goes on to the next comma, whatever else it has.
            Some(_) => rest.find(','),
            None => end_of(rest, ',')?,
        };
        take_up(rest[..end.unwrap_or(rest.len())].trim(), &mut members)?;
        if members.len() > MEMBERS_MAX {
            return Err(AliasFault::TooMany);
        }
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => return Ok(members),
        }
    }
}

fn take_up(text: &str, members: &mut Vec<Member>) -> Result<(), AliasFault> {
    if let Some(program) = text.strip_prefix('|') {
        members.push(named(Member::Program, program)?);
        return Ok(());
    }
    let text = without_comments(text);
    let text = text.trim();
    if let Some(path) = text.strip_prefix(":include:") {
        members.push(named(Member::Include, &unquoted(path.trim()))?);
        return Ok(());
    }
    if let Some(inner) = in_brackets(text)? {
        members.push(address(inner.trim())?);
        return Ok(());
    }
    for word in words(text) {
        members.push(word_of(word)?);
    }
    Ok(())
}

fn named(kind: fn(String) -> Member, name: &str) -> Result<Member, AliasFault> {
    let name = name.trim();
    if name.is_empty() { Err(AliasFault::Empty) } else { Ok(kind(name.to_owned())) }
}

fn word_of(word: &str) -> Result<Member, AliasFault> {
    // A quoted word with something behind it is an address's local part.
    let is_whole = word.len() > 1 && word.starts_with('"') && end_of_quotes(word) == Some(word.len());
    let said = if is_whole || !word.contains('"') { unquoted(word) } else { String::new() };
    match said.as_bytes().first() {
        Some(b'|') => named(Member::Program, &said[1..]),
        Some(b'/') if is_whole || !said.contains('@') => named(Member::File, &said),
        _ if said.starts_with(":include:") => named(Member::Include, &said[":include:".len()..]),
        _ => address(word),
    }
}

/// An address in the form that the rest of the house reads: no backslash and no quotes that it can do without.
fn address(text: &str) -> Result<Member, AliasFault> {
    // The last @ that no quotes hold.
    let at = last_at(text);
    let (local, host) = at.map_or((text, ""), |at| text.split_at(at));
    let said = unquoted(local.trim());
    let host = host.trim();
    let host_is_one =
        !host.contains(|char: char| char.is_whitespace() || char == '"' || char == '\\' || char == '>');
    if said.is_empty() && host.is_empty() || !host_is_one || said.contains(char::is_control) {
        return Err(AliasFault::Address);
    }
    let whole = crate::delivery::quoted_address(&format!("{said}@x"));
    let local = whole.strip_suffix("@x").unwrap_or(&whole);
    let whole = format!("{local}{host}");
    if whole.len() > ADDRESS_MAX { Err(AliasFault::Address) } else { Ok(Member::Address(whole)) }
}

fn last_at(text: &str) -> Option<usize> {
    let (mut found, mut is_quoted, mut is_escaped) = (None, false, false);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'@' if !is_quoted => found = Some(at),
            _ => {}
        }
    }
    found
}

/// Where the quotes end that `word` begins with.
fn end_of_quotes(word: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, octet) in word.bytes().enumerate().skip(1) {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// What the text says, without its quotes and backslashes.
pub(super) fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_escaped = false;
    for char in text.chars() {
        match char {
            _ if is_escaped => {
                is_escaped = false;
                out.push(char);
            }
            '\\' => is_escaped = true,
            '"' => {}
            char => out.push(char),
        }
    }
    out
}

/// A comment is a blank.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut is_quoted, mut depth, mut is_escaped) = (false, 0_usize, false);
    for char in text.chars() {
        let was_inside = depth > 0;
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' if depth == 0 => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (was_inside, depth > 0) {
            (false, false) => out.push(char),
            (true, false) => out.push(' '),
            _ => {}
        }
    }
    out
}

/// What stands in the angle brackets, if there are any.
fn in_brackets(text: &str) -> Result<Option<&str>, AliasFault> {
    let unclosed = |_| AliasFault::Unclosed;
    let Some(open) = position(text, '<') else { return Ok(None) };
    let inner = &text[open + 1..];
    let close = position(inner, '>').ok_or(()).map_err(unclosed)?;
    Ok(Some(&inner[..close]))
}

fn position(text: &str, sought: char) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.char_indices().find_map(|(at, char)| {
        let is_it = char == sought && !is_quoted && !is_escaped;
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        is_it.then_some(at)
    })
}

/// Words between blanks that no quotes hold.
fn words(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            char if char.is_whitespace() && !is_quoted => {
                found.push(&text[start..at]);
                start = at + char.len_utf8();
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found.retain(|word| !word.is_empty());
    found
}

/// For the fuzzer: what is read prints and reads the same.
pub fn fuzz_members(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(members) = members_of(text) else { return };
    let printed: Vec<String> = members.iter().map(Member::to_string).collect();
    assert_eq!(members_of(&printed.join(",")).as_ref(), Ok(&members), "{printed:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Member {
        let members = members_of(text).unwrap();
        assert_eq!(members.len(), 1, "{text:?}: {members:?}");
        members.into_iter().next().unwrap()
    }

    #[test]
    fn kinds_are_told_by_what_the_quotes_hold() {
        assert_eq!(one("\"|prog \\\"a b\\\"\""), Member::Program("prog \"a b\"".into()));
        assert_eq!(one("|prog \"a b\""), Member::Program("prog \"a b\"".into()));
        assert_eq!(one("\"/var/mail/a b\""), Member::File("/var/mail/a b".into()));
        assert_eq!(one("/var/mail/ann"), Member::File("/var/mail/ann".into()));
        assert_eq!(one("\":include:/l/x y\""), Member::Include("/l/x y".into()));
        assert_eq!(one(":include: /l/x"), Member::Include("/l/x".into()));
    }

    #[test]
    fn addresses_lose_what_they_do_not_need() {
        let address = |text: &str| match one(text) {
            Member::Address(address) => address,
            other => panic!("{other:?}"),
        };
        assert_eq!(address("\\ann"), "ann");
        assert_eq!(address("Ann B. <ann@example.net> (x)"), "ann@example.net");
        assert_eq!(address("\"Ann, B.\" <ann@example.net>"), "ann@example.net");
        assert_eq!(address("\"ann\"@example.net"), "ann@example.net");
        assert_eq!(address("\"a b\"@example.net"), "\"a b\"@example.net");
        assert_eq!(address("\"/x=y/\"@gate.test"), "/x=y/@gate.test");
        assert_eq!(address("/x=y/@gate.test"), "/x=y/@gate.test");
        assert_eq!(members_of("a b,c").unwrap().len(), 3);
        assert_eq!(members_of(" , ,").unwrap(), []);
    }

    proptest! {
        #[test]
        fn fuzz_smoke(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in "[a-c@.\"\\\\ <>(),|/:]{0,16}|\\PC{0,20}",
        ) {
            fuzz_members(&bytes);
            fuzz_members(text.as_bytes());
        }
    }
}
