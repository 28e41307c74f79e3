//! References in fields that have display names, addresses and message ids (RFC 5322 §3.4, §3.6.4).
//!
//! `"{{name}}" <{{email}}>, list+{{id}}@example.org`: what stands in front of `<` or `:` is a display name and becomes a text
//! if there is a reference in it; an address is kept as it is, with exact values in it. Comments in a display name with
//! references mean nothing and go.

use super::compiler::Compiler;
use super::error::Problem;
use super::syntax::{self, Wrong};
use super::{Exact, Item, ReferenceIndex, Segment};
use crate::header::comment_len;
use std::borrow::Cow;

/// A word of the field, and where it stands.
struct Token<'a> {
    at: usize,
    /// As it stands, unfolded.
    raw: Cow<'a, str>,
    kind: Kind,
}

enum Kind {
    Blank,
    Comment,
    Atom,
    /// One of `<>,:;@.`
    Special(u8),
    /// A quoted string or encoded words: what they say.
    Text(Vec<Segment>),
    Reference(ReferenceIndex),
}

impl Token<'_> {
    fn is(&self, specials: &[u8]) -> bool {
        matches!(self.kind, Kind::Special(special) if specials.contains(&special))
    }

    fn has_reference(&self) -> bool {
        match &self.kind {
            Kind::Reference(_) => true,
            Kind::Text(segments) => segments.iter().any(|segment| matches!(segment, Segment::Reference(_))),
            _ => false,
        }
    }

    /// May stand in a display name.
    fn is_of_phrase(&self) -> bool {
        !matches!(self.kind, Kind::Special(special) if special != b'.')
    }

    fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Blank | Kind::Comment)
    }
}

impl Compiler<'_> {
    /// With `angles_only`, references may stand nowhere else.
    pub(super) fn address_field(&mut self, value: &str, angles_only: bool) -> Result<Vec<Item>, Wrong> {
        let tokens = self.tokens(value)?;
        let (mut items, mut rest) = (Vec::new(), &tokens[..]);
        while !rest.is_empty() {
            let words = rest.iter().take_while(|token| token.is_of_phrase()).count();
            let is_phrase = rest.get(words).is_some_and(|token| token.is(b"<:"));
            let len = match is_phrase {
                true => words,
                false => rest.iter().position(|token| token.is(b",;")).unwrap_or(rest.len()),
            };
            let (element, behind) = rest.split_at(len);
            let reference = element.iter().find(|token| token.has_reference());
            match reference {
                Some(token) if angles_only => {
                    return Err(Wrong { at: token.at, problem: Problem::OutsideAngles });
                }
                Some(_) if is_phrase => self.phrase(element, &mut items),
                Some(_) => self.address(element, &mut items)?,
                None => self.verbatim(element, &mut items),
            }
            rest = self.behind_element(behind, &mut items)?;
        }
        Ok(items)
    }

    /// An address in angles, or a separator. Returns what follows.
    fn behind_element<'t, 'a>(
        &mut self,
        rest: &'t [Token<'a>],
        items: &mut Vec<Item>,
    ) -> Result<&'t [Token<'a>], Wrong> {
        let Some((first, inner)) = rest.split_first() else { return Ok(rest) };
        let span = self.literal(first.raw.as_bytes());
        items.push(Item::Literal(span));
        if !first.is(b"<") {
            items.push(Item::Space);
            return Ok(inner);
        }
        let Some(len) = inner.iter().position(|token| token.is(b">")) else {
            return Err(Wrong { at: first.at, problem: Problem::OpenQuote });
        };
        match inner[..len].iter().any(Token::has_reference) {
            true => self.address(&inner[..len], items)?,
            false => self.verbatim(&inner[..len], items),
        }
        let span = self.literal(b">");
        items.push(Item::Literal(span));
        Ok(&inner[len + 1..])
    }

    fn phrase(&mut self, tokens: &[Token<'_>], items: &mut Vec<Item>) {
        let mut segments = Vec::new();
        for token in tokens {
            match &token.kind {
                Kind::Blank => self.segment_text(" ", &mut segments),
                Kind::Comment => {}
                Kind::Atom | Kind::Special(_) => self.segment_text(&token.raw, &mut segments),
                Kind::Text(text) => segments.extend(text.iter().cloned()),
                Kind::Reference(index) => segments.push(Segment::Reference(*index)),
            }
        }
        items.extend([Item::Space, Item::Phrase(segments.into()), Item::Space]);
    }

    /// An address with references: nothing may part its words.
    fn address(&mut self, tokens: &[Token<'_>], items: &mut Vec<Item>) -> Result<(), Wrong> {
        let begin = tokens.iter().position(|token| !token.is_empty()).unwrap_or(0);
        let end = tokens.iter().rposition(|token| !token.is_empty()).map_or(begin, |last| last + 1);
        let words = &tokens[begin..end];
        if let Some(gap) = words.iter().find(|token| token.is_empty()) {
            return Err(Wrong { at: gap.at, problem: Problem::Address });
        }
        self.verbatim(&tokens[..begin], items);
        for word in words {
            match word.kind {
                Kind::Reference(reference) => {
                    let kind = if words.len() == 1 { Exact::Address } else { Exact::AddressPart };
                    items.push(Item::Exact { reference, kind, after: 0 });
                }
                _ if word.has_reference() => {
                    return Err(Wrong { at: word.at, problem: Problem::InQuotedWord });
                }
                _ => self.verbatim(std::slice::from_ref(word), items),
            }
        }
        self.verbatim(&tokens[end..], items);
        Ok(())
    }

    /// Tokens as they stand. The line may be folded where white space is.
    fn verbatim(&mut self, tokens: &[Token<'_>], items: &mut Vec<Item>) {
        for token in tokens {
            for (at, word) in token.raw.split([' ', '\t']).enumerate() {
                // White space in quotation marks is part of what they say.
                let is_fold = !matches!(&token.kind, Kind::Text(_) if token.raw.starts_with('"'));
                match at {
                    0 => {}
                    _ if is_fold => items.push(Item::Space),
                    _ => {
                        let span = self.literal(b" ");
                        items.push(Item::Literal(span));
                    }
                }
                let span = self.literal(word.as_bytes());
                items.push(Item::Literal(span));
            }
        }
    }

    // ---- words ----

    fn tokens<'a>(&mut self, value: &'a str) -> Result<Vec<Token<'a>>, Wrong> {
        let (mut tokens, mut at) = (Vec::new(), 0);
        while at < value.len() {
            let (kind, len) = self.token(&value[at..], at)?;
            let raw = match kind {
                Kind::Blank => Cow::Borrowed(" "),
                _ => unfolded(&value[at..at + len]),
            };
            tokens.push(Token { at, raw, kind });
            at += len;
        }
        Ok(tokens)
    }

    /// The token that `rest` begins with, and its length.
    fn token(&mut self, rest: &str, at: usize) -> Result<(Kind, usize), Wrong> {
        let first = rest.as_bytes()[0];
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => Ok((Kind::Blank, rest.len() - rest.trim_ascii_start().len())),
            b'<' | b'>' | b',' | b':' | b';' | b'@' | b'.' => Ok((Kind::Special(first), 1)),
            b'(' => comment(rest).map(|len| (Kind::Comment, len)).map_err(|wrong| wrong.behind(at)),
            b'"' => self.quoted_token(rest, at),
            b'{' if syntax::begins(rest) => self.expression_token(rest, at),
            b'=' => {
                let mut segments = Vec::new();
                match self.words(rest, at, &mut segments)? {
                    0 => Ok((Kind::Atom, atom_len(rest))),
                    len => Ok((Kind::Text(segments), len)),
                }
            }
            _ => Ok((Kind::Atom, atom_len(rest))),
        }
    }

    fn expression_token(&mut self, rest: &str, at: usize) -> Result<(Kind, usize), Wrong> {
        let mut segments = Vec::new();
        let len = self.expression(rest, at, &mut segments)?;
        match segments[..] {
            [Segment::Reference(index)] => Ok((Kind::Reference(index), len)),
            _ => Err(Wrong { at, problem: Problem::TextHere }),
        }
    }

    fn quoted_token(&mut self, rest: &str, at: usize) -> Result<(Kind, usize), Wrong> {
        let (mut segments, mut len) = (Vec::new(), 1);
        while let Some(char) = rest[len..].chars().next() {
            match char {
                '"' => return Ok((Kind::Text(segments), len + 1)),
                '{' if syntax::begins(&rest[len..]) => {
                    len += self.quoted_expression(&rest[len..], at + len, &mut segments)?;
                    continue;
                }
                '\r' | '\n' => {}
                '\\' => {
                    len += 1;
                    let escaped = rest[len..].chars().next().unwrap_or('\\');
                    self.segment_text(escaped.encode_utf8(&mut [0; 4]), &mut segments);
                    len += rest[len..].chars().next().map_or(0, char::len_utf8);
                    continue;
                }
                char => self.segment_text(char.encode_utf8(&mut [0; 4]), &mut segments),
            }
            len += char.len_utf8();
        }
        Err(Wrong { at, problem: Problem::OpenQuote })
    }

    /// A reference in a quoted string: as a person writes it, or with its own quotation marks escaped.
    fn quoted_expression(
        &mut self,
        rest: &str,
        at: usize,
        segments: &mut Vec<Segment>,
    ) -> Result<usize, Wrong> {
        let wrong = match syntax::expression(rest) {
            Ok((found, len)) => {
                self.segment(found, at, segments)?;
                return Ok(len);
            }
            Err(wrong) => wrong.behind(at),
        };
        let Some(end) = rest.find("}}").map(|end| end + 2) else { return Err(wrong) };
        let plain = without_backslashes(&rest[..end]);
        match syntax::expression(&plain) {
            Ok((found, len)) if len == plain.len() => {
                self.segment(found, at, segments)?;
                Ok(end)
            }
            _ => Err(wrong),
        }
    }
}

fn comment(rest: &str) -> Result<usize, Wrong> {
    let Some(len) = comment_len(rest.as_bytes()) else {
        return Err(Wrong { at: 0, problem: Problem::OpenQuote });
    };
    match syntax::Pieces::of(&rest[..len]).marker() {
        Some(at) => Err(Wrong { at, problem: Problem::InComment }),
        None => Ok(len),
    }
}

fn atom_len(rest: &str) -> usize {
    let ends = |at: usize, char: char| {
        at > 0 && (" \t\r\n<>,:;@.(\"".contains(char) || char == '{' && syntax::begins(&rest[at..]))
    };
    rest.char_indices().find(|(at, char)| ends(*at, *char)).map_or(rest.len(), |(at, _)| at)
}

fn unfolded(raw: &str) -> Cow<'_, str> {
    if raw.contains(['\r', '\n']) { Cow::Owned(raw.replace(['\r', '\n'], "")) } else { Cow::Borrowed(raw) }
}

fn without_backslashes(text: &str) -> String {
    let (mut plain, mut chars) = (String::with_capacity(text.len()), text.chars());
    while let Some(char) = chars.next() {
        plain.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    plain
}
