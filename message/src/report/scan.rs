//! Words for people, searched: where the original begins, which lines name a recipient, which of them says why.

use super::{FailureClass, Fate, Outcome, RECIPIENTS_MAX};
use crate::address::MailboxRef;
use crate::reply::{EnhancedCode, Reply};

/// What stands in the line behind which the original follows, in lower case.
const BEFORE_ORIGINAL: [&str; 18] = [
    "below this line is",
    "original message follows",
    "unsent message follows",
    "message header follows",
    "headers follow",
    "header follows",
    "this is a copy of the message",
    "this is a copy of your message",
    "original message headers:",
    "original message header:",
    "- original message",
    "- the original message",
    "- returned message",
    "- message header",
    "- start of message",
    "- message text follows",
    "the header of the original message is following",
    "----- your original message",
];

/// Lines of one reason that are put together.
const REASON_LINES_MAX: usize = 4;

/// What people are told, and the original behind it.
pub(super) fn cut(text: &str) -> (&str, &str) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let lower = line.to_lowercase();
        if BEFORE_ORIGINAL.iter().any(|words| lower.contains(words)) {
            return (&text[..at], text[at + line.len()..].trim_start());
        }
        at += line.len();
    }
    (text, "")
}

/// A recipient, and the lines behind it up to the next one.
#[derive(Debug)]
struct Block<'a> {
    recipient: &'a str,
    why: Vec<&'a str>,
}

/// How a line names a recipient: the address, and what follows it on the line.
pub(super) type Naming = fn(&str) -> Option<(&str, &str)>;

/// The recipients that lines name, each once, with what is said of each. Of whom nothing is said, what is said next is said
/// of; and if that tells nothing, what was said before the first.
pub(super) fn fates(text: &str, outcome: Outcome, naming: Naming) -> Vec<Fate> {
    let (before, blocks) = blocks(text, naming);
    let lead = fate(outcome, None, &before);
    let mut fates: Vec<Fate> = Vec::with_capacity(blocks.len());
    for block in blocks.iter().rev() {
        let said = match fates.last() {
            _ if !is_blank(&block.why) => fate(outcome, None, &block.why),
            Some(next) => next.clone(),
            None => lead.clone(),
        };
        let said = if worth(&lead) > worth(&said) { lead.clone() } else { said };
        fates.push(Fate { recipient: Some(block.recipient.into()), ..said });
    }
    fates.reverse();
    each_once(fates)
}

/// Of what is said twice of one recipient, what tells more.
fn each_once(fates: Vec<Fate>) -> Vec<Fate> {
    let mut once: Vec<Fate> = Vec::with_capacity(fates.len());
    for fate in fates {
        match once.iter_mut().find(|known| known.recipient == fate.recipient) {
            Some(known) if worth(&fate) > worth(known) => *known = fate,
            Some(_) => {}
            None => once.push(fate),
        }
    }
    once
}

/// How much a fate tells.
pub(super) fn worth(fate: &Fate) -> u8 {
    let has_code = fate.reply.code > 0 || fate.reply.enhanced.is_some();
    u8::from(fate.class != FailureClass::Unknown) + 2 * u8::from(has_code)
}

fn blocks(text: &str, naming: Naming) -> (Vec<&str>, Vec<Block<'_>>) {
    let (mut before, mut blocks): (Vec<&str>, Vec<Block<'_>>) = Default::default();
    for line in text.lines() {
        let is_full = blocks.len() >= RECIPIENTS_MAX;
        match (naming(line), blocks.last_mut()) {
            // Said twice in a row: a heading and its line.
            (Some((recipient, rest)), Some(last)) if last.recipient == recipient && is_blank(&last.why) => {
                last.why = vec![rest];
            }
            (Some(_), _) if is_full => break,
            (Some((recipient, rest)), _) => blocks.push(Block { recipient, why: vec![rest] }),
            (None, Some(last)) => last.why.push(line),
            (None, None) => before.push(line),
        }
    }
    (before, blocks)
}

fn is_blank(lines: &[&str]) -> bool {
    lines.iter().all(|line| line.trim().is_empty())
}

/// One recipient's fate, by the lines that are about it.
pub(super) fn fate(outcome: Outcome, recipient: Option<&str>, lines: &[&str]) -> Fate {
    let recipient = recipient.map(Into::into);
    let fate = Fate::new(outcome, reply_of(&reason(lines)));
    if fate.class != FailureClass::Unknown {
        return Fate { recipient, ..fate };
    }
    // What it is called may stand before or behind why.
    let Fate { class, .. } =
        Fate::new(outcome, Reply::new(fate.reply.code, None, lines.join(" ").as_bytes()));
    Fate { recipient, class, ..fate }
}

/// A line as a reply: its codes, and the rest of it.
pub(super) fn reply_of(line: &str) -> Reply {
    let (code, status) = (code_in(line).unwrap_or(0), status_in(line));
    let text = line.strip_prefix(&code.to_string()).unwrap_or(line).trim_start_matches([' ', '-', ':']);
    let shown = status.map(|status| status.to_string()).unwrap_or_default();
    let text = text.strip_prefix(&shown).unwrap_or(text).trim_start_matches([' ', ':']);
    Reply::new(code, status, text.as_bytes())
}

/// The first line with a reply code, else with a status, and those that it goes on in; without one, the first lines.
pub(super) fn reason(lines: &[&str]) -> String {
    let has_code = |line: &&str| code_in(line).is_some() || status_in(line).is_some();
    let is_heading = |line: &str| line.ends_with(':') && !line.contains(' ');
    let says = |line: &&str| !line.trim().is_empty() && !is_heading(line.trim());
    let start = lines.iter().position(|line| code_in(line).is_some());
    let start = start.or_else(|| lines.iter().position(has_code)).or_else(|| lines.iter().position(says));
    let Some((first, rest)) = start.and_then(|start| lines[start..].split_first()) else {
        return String::new();
    };
    let goes_on = |line: &&&str| !line.trim().is_empty() && !has_code(line);
    let rest = rest.iter().take_while(goes_on).take(REASON_LINES_MAX - 1);
    let lines: Vec<&str> = std::iter::once(first).chain(rest).map(|line| line.trim()).collect();
    lines.join(" ")
}

/// `<ann@example.net>:` or `<ann@example.net> (expanded from <list@x>): why`.
pub(super) fn bracketed(line: &str) -> Option<(&str, &str)> {
    let (address, rest) = line.trim_start().strip_prefix('<')?.split_once('>')?;
    let rest = rest.trim();
    let why = match rest.strip_prefix('(') {
        Some(comment) => comment.split_once("):").map(|(_, why)| why)?,
        None => rest.strip_prefix(':')?,
    };
    MailboxRef::parse(address).ok()?;
    Some((address, why.trim()))
}

/// An address that begins a line, in brackets, in quotes or bare, whatever follows.
pub(super) fn leading(line: &str) -> Option<(&str, &str)> {
    let line = line.trim().trim_start_matches(['*', '\u{2022}']).trim_start();
    let line = ["smtp:", "SMTP:", "rfc822;", "mailto:"]
        .iter()
        .find_map(|kind| line.strip_prefix(kind))
        .unwrap_or(line);
    let (address, rest) = match line.chars().next()? {
        '<' => line[1..].split_once('>')?,
        quote @ ('"' | '\'') => line[1..].split_once(quote)?,
        _ => line.split_at(line.find([' ', '\t', '<', '(', ',', ';']).unwrap_or(line.len())),
    };
    let address = address.trim_end_matches([':', '.']);
    let mailbox = MailboxRef::parse(address).ok()?;
    mailbox.domain.contains(['.', '[']).then(|| (address, without_comment(rest)))
}

/// An address that begins a line or, in round or pointed brackets behind a name, ends it.
pub(super) fn leading_or_last(line: &str) -> Option<(&str, &str)> {
    leading(line).or_else(|| {
        let line = line.trim().trim_end_matches([':', '>', ')']);
        let (name, address) = line.rsplit_once(['<', '('])?;
        let address = address.strip_prefix("mailto:").unwrap_or(address);
        let is_one = MailboxRef::parse(address).is_ok_and(|mailbox| mailbox.domain.contains('.'));
        (is_one && !name.trim().is_empty() && code_in(name).is_none()).then_some((address, ""))
    })
}

/// A line of a transcript: `550 5.1.1 <ann@example.net>... User unknown`.
pub(super) fn transcribed(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let is_code = line.as_bytes().first_chunk::<3>().is_some_and(|code| code.iter().all(u8::is_ascii_digit));
    let (before, _) = line.split_once("...").filter(|_| is_code)?;
    let address = before.rsplit(' ').next()?.trim_start_matches('<').trim_end_matches('>');
    MailboxRef::parse(address).ok()?;
    Some((address, line))
}

/// What follows an address on its line, without the same address once more, a time, and punctuation.
fn without_comment(rest: &str) -> &str {
    let rest = rest.trim_start_matches(['>', '"', '\'']).trim();
    let rest = match rest.chars().next() {
        Some('(') => rest
            .split_once(')')
            .map_or(rest, |(comment, tail)| if comment.contains('@') { tail } else { rest }),
        Some('<') => rest.split_once('>').map_or(rest, |(_, tail)| tail),
        _ => rest,
    };
    let rest = rest.trim_start_matches([':', ',', ';']).trim();
    let is_time =
        rest.strip_prefix("on ").is_some_and(|when| when.starts_with(|char: char| char.is_ascii_digit()));
    if is_time { "" } else { rest }
}

/// The address in a line between two texts, found in lower case.
pub(super) fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    // As long as the line itself: only ASCII is lowered.
    let lower = line.to_ascii_lowercase();
    let start = lower.find(before)? + before.len();
    let rest = line[start..].trim_start_matches([' ', '<', '\'', '"']);
    let end = rest.find([' ', '>', '\'', '"', ',', ')']).unwrap_or(rest.len());
    let (address, tail) = rest.split_at(end);
    let address = address.trim_end_matches(['.', ':']);
    let is_one = MailboxRef::parse(address).is_ok() && tail.to_ascii_lowercase().contains(after);
    is_one.then_some(address)
}

/// A reply code: three digits that begin the line, or stand behind punctuation or a word that announces them.
pub(super) fn code_in(line: &str) -> Option<u16> {
    const ANNOUNCED_BY: [&str; 9] =
        ["said", "error", "returned", "status", "code", "reply", "replied", "response", "with"];
    let octets = line.as_bytes();
    (0..octets.len().saturating_sub(2)).find_map(|at| {
        let is_apart = octets.get(at + 3).is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'.')
            && (at == 0 || !octets[at - 1].is_ascii_alphanumeric() && !b".[@/".contains(&octets[at - 1]));
        let is_code = matches!(octets[at], b'4' | b'5')
            && (b'0'..=b'7').contains(&octets[at + 1])
            && octets[at + 2].is_ascii_digit();
        if !is_apart || !is_code {
            return None;
        }
        let before = line[..at].trim_end();
        let word = before[before.floor_char_boundary(before.len().saturating_sub(8))..].to_ascii_lowercase();
        let is_announced = before.is_empty()
            || before.ends_with([':', ';', '<', '>', '\'', '"', '(', '#', '='])
            || ANNOUNCED_BY.iter().any(|announcing| word.ends_with(announcing));
        if is_announced { line[at..at + 3].parse().ok() } else { None }
    })
}

/// A status code anywhere in a text: not a piece of a number with more dots.
pub(super) fn status_in(text: &str) -> Option<EnhancedCode> {
    let octets = text.as_bytes();
    (0..octets.len()).find_map(|at| {
        let starts = matches!(octets[at], b'2' | b'4' | b'5')
            && (at == 0 || !octets[at - 1].is_ascii_alphanumeric() && octets[at - 1] != b'.');
        if !starts {
            return None;
        }
        let is_part = |octet: &&u8| octet.is_ascii_digit() || **octet == b'.';
        let len = octets[at..].iter().take_while(is_part).count();
        let number = text[at..at + len].trim_end_matches('.');
        let follows = octets.get(at + len).is_none_or(|next| !next.is_ascii_alphanumeric());
        let (code, rest) = EnhancedCode::parse_prefix(number.as_bytes()).filter(|_| follows)?;
        rest.is_empty().then_some(code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_are_found_where_they_are_meant() {
        for (line, code) in [
            ("550 5.1.1 No such user", Some(550)),
            ("host mx.example.net [192.0.2.1] said: 450 busy", Some(450)),
            ("<<< 554-Denied", Some(554)),
            ("Remote Server returned '550 5.1.1 unknown'", Some(550)),
            ("(reason: 552 full)", Some(552)),
            ("failed after 450 seconds", None),
            ("192.0.2.550 x", None),
            ("call 555-1234 now", None),
            ("5501 x", None),
        ] {
            assert_eq!(code_in(line), code, "{line}");
        }
    }

    #[test]
    fn status_is_no_piece_of_an_address() {
        for (text, status) in [
            ("User unknown (#5.1.1)", Some(EnhancedCode(5, 1, 1))),
            ("said 5.2.2. Full", Some(EnhancedCode(5, 2, 2))),
            ("from 192.5.1.1", None),
            ("[5.1.1.1]", None),
            ("Exchange 5.5.2654", None),
            ("v5.1.1", None),
        ] {
            assert_eq!(status_in(text), status, "{text}");
        }
    }

    #[test]
    fn addresses_are_found_at_a_lines_begin() {
        for (line, address, rest) in [
            ("  <ann@example.net>: why", "ann@example.net", "why"),
            ("ann@example.net (ann@example.net)", "ann@example.net", ""),
            ("ann@example.net on 1/2/2020 1:00 PM", "ann@example.net", ""),
            ("ann@example.net<mailto:ann@example.net>", "ann@example.net", ""),
            ("* 'ann@example.net'", "ann@example.net", ""),
            ("SMTP:ann@example.net:", "ann@example.net", ""),
            ("ann@example.net ... unknown host", "ann@example.net", "... unknown host"),
            ("ann@example.net (user unknown)", "ann@example.net", "(user unknown)"),
        ] {
            assert_eq!(leading(line), Some((address, rest)), "{line}");
        }
        for none in ["550 <ann@example.net>... User unknown", "Ann Example", "", "<ann>", "ann@localhost"] {
            assert_eq!(leading(none), None, "{none}");
        }
        assert_eq!(leading_or_last("Ann Example (ann@example.net)"), Some(("ann@example.net", "")));
        assert_eq!(leading_or_last("Ann<mailto:ann@example.net>"), Some(("ann@example.net", "")));
        assert_eq!(leading_or_last("550 5.1.1 no (ann@example.net)"), None);
    }

    #[test]
    fn recipients_without_a_reason_share_the_next() {
        let text = "Failed:\n\n a@x.test\n b@x.test\n  550 5.1.1 gone\n\n c@x.test\n  552 5.2.2 full\n   up to here\n";
        let fates = fates(text, Outcome::Failed, leading);
        let said: Vec<String> = fates.iter().map(|fate| fate.reply.to_string()).collect();
        assert_eq!(said, ["550 5.1.1 gone", "550 5.1.1 gone", "552 5.2.2 full up to here"]);
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(line in "\\PC{0,60}", tail in "[<>()'\": 0-9.@a-zé-]{0,40}") {
            for line in [&line, &tail, &format!("{tail}{line}")] {
                let _ = (bracketed(line), leading(line), leading_or_last(line), transcribed(line));
                let _ = (code_in(line), status_in(line), between(line, "a", ""), cut(line));
            }
        }
    }
}
