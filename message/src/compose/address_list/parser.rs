//! Reads an address list, token by token, with no memory of more than the element at hand.

use super::{AddrSpec, AddressList, Element, Entry, Group, Phrase};
use crate::compose::quoting;
use crate::compose::token::{Kind, SyntaxError, Token, Tokens};
use std::borrow::Cow;

pub(super) fn parse(text: &[u8]) -> Result<AddressList<'_>, SyntaxError> {
    let mut parser = Parser { text, ..Parser::default() };
    let mut tokens = Tokens::of(text);
    while let Some(token) = tokens.next().transpose()? {
        match token.kind {
            Kind::Comma => parser.on_comma()?,
            Kind::Semicolon => parser.on_semicolon(token.at)?,
            Kind::Colon => parser.on_colon(token.at)?,
            Kind::Open => parser.on_angle(&mut tokens)?,
            Kind::Close => return wrong(token.at, "a < before this >"),
            Kind::Comment => parser.on_comment(token),
            Kind::Atom | Kind::Quoted | Kind::Literal | Kind::Dot | Kind::At => parser.on_word(token),
        }
    }
    parser.finish()
}

fn wrong<T>(at: usize, expected: &'static str) -> Result<T, SyntaxError> {
    Err(SyntaxError { at, expected })
}

#[derive(Default)]
struct Parser<'a> {
    text: &'a [u8],
    list: AddressList<'a>,
    /// The group that is open.
    group: Option<Group<'a>>,
    /// Tokens since the last separator, group or address in angles.
    pending: Vec<Token<'a>>,
    /// There is more than comments in `pending`.
    has_words: bool,
    /// The last element ended, and no comma has come since.
    wants_comma: bool,
    /// A comma came last, or nothing has come yet: another one parts nothing.
    after_comma: bool,
}

impl<'a> Parser<'a> {
    fn on_comma(&mut self) -> Result<(), SyntaxError> {
        // Empty elements go (RFC 5322 §4.4).
        self.list.altered |= !self.wants_comma && !self.has_words;
        self.end_words()?;
        self.wants_comma = false;
        self.after_comma = true;
        Ok(())
    }

    fn on_semicolon(&mut self, at: usize) -> Result<(), SyntaxError> {
        if self.group.is_none() {
            return wrong(at, "a comma: this ; ends a group, and none is open");
        }
        self.list.altered |= self.after_comma;
        self.end_words()?;
        self.end_group();
        Ok(())
    }

    fn on_colon(&mut self, at: usize) -> Result<(), SyntaxError> {
        if self.group.is_some() {
            return wrong(at, "a comma or the ; that ends the group: groups do not nest");
        }
        if !self.has_words {
            return wrong(at, "a name before this colon");
        }
        self.must_be_name(None)?;
        let name = self.phrase();
        self.group = Some(Group { name, members: Vec::new(), inner: Vec::new(), after: Vec::new() });
        self.wants_comma = false;
        self.after_comma = false;
        Ok(())
    }

    fn on_comment(&mut self, comment: Token<'a>) {
        if self.wants_comma && self.pending.is_empty() {
            self.last_comments().push(comment);
        } else {
            self.pending.push(comment);
        }
    }

    fn on_word(&mut self, token: Token<'a>) {
        self.begin_element();
        self.has_words = true;
        self.pending.push(token);
    }

    /// Something begins. If nothing parts it from what came before, a comma must be put between.
    fn begin_element(&mut self) {
        self.list.altered |= self.wants_comma;
        self.wants_comma = false;
        self.after_comma = false;
    }

    /// Behind `<`: takes tokens up to and including `>`.
    fn on_angle(&mut self, tokens: &mut Tokens<'a>) -> Result<(), SyntaxError> {
        self.begin_element();
        let (inside, end) = inside_angles(tokens)?;
        let inside = self.without_route(&inside)?;
        let mut after = Vec::new();
        let address = if inside.iter().all(is_comment) {
            after.extend(inside);
            None
        } else {
            let mut cut = Cut { text: self.text, tokens: inside, next: 0, end };
            let spec = cut.addr_spec(&mut after)?;
            cut.must_be_over()?;
            self.list.altered |= cut.is_loose();
            Some(spec)
        };
        self.list.altered |= !after.is_empty();
        self.must_be_name(address.as_ref())?;
        let before = self.phrase();
        self.push(Entry { before, address, in_angles: true, after });
        Ok(())
    }

    /// Source routes are dropped (RFC 5322 §4.4): `@a,@b:ann@example.net`.
    fn without_route<'t>(&mut self, inside: &'t [Token<'a>]) -> Result<&'t [Token<'a>], SyntaxError> {
        let Some(first) = inside.iter().find(|token| !is_comment(token)) else { return Ok(inside) };
        if !matches!(first.kind, Kind::At | Kind::Comma) {
            return Ok(inside);
        }
        self.list.altered = true;
        match inside.iter().position(|token| token.kind == Kind::Colon) {
            Some(colon) if inside[colon..].iter().skip(1).all(is_comment) => {
                wrong(inside[colon].end(), "an address behind the route")
            }
            Some(colon) => Ok(&inside[colon + 1..]),
            None => wrong(first.at, "a local part, or a : that ends the route begun here"),
        }
    }

    /// What is pending was not in angles: one address, or several without commas between them.
    fn end_words(&mut self) -> Result<(), SyntaxError> {
        if !std::mem::take(&mut self.has_words) {
            self.place_comments();
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let end = pending.last().map_or(0, Token::end);
        let words = pending.iter().position(|token| !is_comment(token)).unwrap_or(pending.len());
        let mut before = pending[..words].to_vec();
        let mut cut = Cut { text: self.text, tokens: &pending[words..], next: 0, end };
        let mut first = true;
        while cut.peek().is_some() {
            cut.must_not_go_on()?;
            let (start, mut after) = (cut.next, Vec::new());
            let address = Some(cut.addr_spec(&mut after)?);
            self.list.altered |= cut.was_loose(start) || !first;
            first = false;
            let before = Phrase { tokens: std::mem::take(&mut before), quoted: None };
            self.push(Entry { before, address, in_angles: false, after });
        }
        Ok(())
    }

    /// Comments alone are no element: they go with the one before, else with the one behind.
    fn place_comments(&mut self) {
        let is_first = match &self.group {
            Some(group) => group.members.is_empty(),
            None => self.list.elements.is_empty(),
        };
        if !self.pending.is_empty() && !is_first {
            let comments = std::mem::take(&mut self.pending);
            self.list.altered = true;
            self.last_comments().extend(comments);
        }
    }

    /// Where comments behind the last element go. Asked only when there is one.
    fn last_comments(&mut self) -> &mut Vec<Token<'a>> {
        match (&mut self.group, self.list.elements.last_mut()) {
            (Some(group), _) => group.members.last_mut().map_or(&mut group.inner, |entry| &mut entry.after),
            (None, Some(Element::Mailbox(entry))) => &mut entry.after,
            (None, Some(Element::Group(group))) => &mut group.after,
            (None, None) => &mut self.list.comments,
        }
    }

    fn push(&mut self, entry: Entry<'a>) {
        match &mut self.group {
            Some(group) => group.members.push(entry),
            None => self.list.elements.push(Element::Mailbox(entry)),
        }
        self.wants_comma = true;
    }

    fn end_group(&mut self) {
        let Some(mut group) = self.group.take() else { return };
        group.inner.append(&mut self.pending);
        self.list.elements.push(Element::Group(group));
        self.wants_comma = true;
        self.after_comma = false;
    }

    fn finish(mut self) -> Result<AddressList<'a>, SyntaxError> {
        self.list.altered |= self.after_comma || self.group.is_some();
        self.end_words()?;
        self.end_group();
        self.list.comments.append(&mut self.pending);
        Ok(self.list)
    }

    /// What is pending must be a name and no addresses: nobody may be lost in one. `ann@example.net <ann@example.net>`
    /// is common and names nobody else; anything more with an @ could be an old-style list.
    fn must_be_name(&self, address: Option<&AddrSpec<'a>>) -> Result<(), SyntaxError> {
        let Some(sign) = self.pending.iter().find(|token| token.kind == Kind::At) else { return Ok(()) };
        let end = self.pending.last().map_or(0, Token::end);
        let mut cut = Cut { text: self.text, tokens: &self.pending, next: 0, end };
        while cut.peek().is_some() {
            match cut.addr_spec(&mut Vec::new()) {
                Ok(word) if word.host.is_none() => {}
                Ok(last)
                    if cut.peek().is_none() && address.is_some_and(|address| is_same(&last, address)) =>
                {
                    return Ok(());
                }
                _ => break,
            }
        }
        wrong(sign.at, "quotes around a name with this @, or a comma between two addresses")
    }

    /// What is pending as a display name or a group's name: all since the last comma.
    fn phrase(&mut self) -> Phrase<'a> {
        let tokens = std::mem::take(&mut self.pending);
        self.has_words = false;
        let is_legal = |token: &Token<'_>| match token.kind {
            Kind::Atom => !token.text.contains(&b'\\'),
            Kind::Quoted | Kind::Dot | Kind::Comment => true,
            _ => false,
        };
        // A dot alone is let pass: John Q. Public is in every address book (RFC 5322 §4.1).
        if tokens.iter().all(is_legal) {
            return Phrase { tokens, quoted: None };
        }
        self.list.altered = true;
        let words = quoting::meanings(tokens.iter().filter(|token| !is_comment(token)));
        let comments = tokens.into_iter().filter(is_comment).collect();
        Phrase { tokens: comments, quoted: Some(quoting::quoted(&words)) }
    }
}

fn is_same(one: &AddrSpec<'_>, other: &AddrSpec<'_>) -> bool {
    let host = |address: &AddrSpec<'_>| address.host.as_deref().map(<[u8]>::to_ascii_lowercase);
    one.local.eq_ignore_ascii_case(&other.local) && host(one) == host(other)
}

fn is_comment(token: &Token<'_>) -> bool {
    token.kind == Kind::Comment
}

/// The tokens up to `>`, and where that stands.
fn inside_angles<'a>(tokens: &mut Tokens<'a>) -> Result<(Vec<Token<'a>>, usize), SyntaxError> {
    let open = tokens.at() - 1;
    let mut inside = Vec::new();
    while let Some(token) = tokens.next().transpose()? {
        match token.kind {
            Kind::Close => return Ok((inside, token.at)),
            Kind::Open => return wrong(token.at, "a > before the next <"),
            _ => inside.push(token),
        }
    }
    wrong(open, "a > that ends the address begun here")
}

/// Takes addresses off a run of tokens.
struct Cut<'t, 'a> {
    text: &'a [u8],
    tokens: &'t [Token<'a>],
    next: usize,
    /// Offset behind the run.
    end: usize,
}

impl<'a> Cut<'_, 'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    /// Offset of the next token.
    fn at(&self) -> usize {
        self.peek().map_or(self.end, |token| token.at)
    }

    /// One `local` or `local@host`, with the comments in it and right behind it.
    fn addr_spec(&mut self, comments: &mut Vec<Token<'a>>) -> Result<AddrSpec<'a>, SyntaxError> {
        let start = self.at();
        let words = self.dotted(comments, |token| token.is_word());
        if !words.iter().any(Token::is_word) {
            return wrong(start, "a local part");
        }
        let local = local_part(self.text, &words);
        if self.peek().is_none_or(|token| token.kind != Kind::At) {
            return Ok(AddrSpec { local, host: None });
        }
        self.next += 1;
        Ok(AddrSpec { local, host: Some(self.host(comments)?) })
    }

    fn host(&mut self, comments: &mut Vec<Token<'a>>) -> Result<Cow<'a, [u8]>, SyntaxError> {
        self.skip_comments(comments);
        let start = self.at();
        if let Some(token) = self.peek().filter(|token| token.kind == Kind::Literal) {
            self.next += 1;
            self.skip_comments(comments);
            return Ok(without_blanks(token.text));
        }
        let words = self.dotted(comments, |token| token.kind == Kind::Atom && !token.text.contains(&b'\\'));
        match words.first() {
            Some(first) if first.kind == Kind::Atom => Ok(joined(self.text, &words)),
            _ => wrong(start, "a domain"),
        }
    }

    /// Words with dots between, before and behind them; a word right behind a word is somebody else's.
    fn dotted(
        &mut self,
        comments: &mut Vec<Token<'a>>,
        is_word: impl Fn(&Token<'a>) -> bool,
    ) -> Vec<Token<'a>> {
        let mut words: Vec<Token<'a>> = Vec::new();
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Comment => comments.push(token),
                Kind::Dot => words.push(token),
                _ if is_word(&token) && words.last().is_none_or(|last| last.kind == Kind::Dot) => {
                    words.push(token);
                }
                _ => break,
            }
            self.next += 1;
        }
        words
    }

    fn skip_comments(&mut self, comments: &mut Vec<Token<'a>>) {
        while let Some(token) = self.peek().filter(is_comment) {
            comments.push(token);
            self.next += 1;
        }
    }

    /// Behind a whole address only another one may begin.
    fn must_not_go_on(&self) -> Result<(), SyntaxError> {
        match self.peek() {
            Some(token) if token.kind == Kind::At && self.next > 0 => {
                wrong(token.at, "a comma or the end: the address has its @")
            }
            _ => Ok(()),
        }
    }

    fn must_be_over(&self) -> Result<(), SyntaxError> {
        match self.peek() {
            None => Ok(()),
            Some(token) if token.kind == Kind::At => wrong(token.at, "the end of the address: it has its @"),
            Some(token) => wrong(token.at, "an @ or the > that ends the address"),
        }
    }

    fn is_loose(&self) -> bool {
        self.was_loose(0) || self.tokens.first().is_some_and(|token| token.space)
    }

    /// True if what was taken since `start` had white space or a comment where none may be written, or a
    /// word that had to be written in another way.
    fn was_loose(&self, start: usize) -> bool {
        let taken = &self.tokens[start..self.next];
        let address = taken.iter().rposition(|token| !is_comment(token)).map_or(0, |last| last + 1);
        let address = &taken[..address];
        let backslash = |token: &Token<'_>| token.kind == Kind::Atom && token.text.contains(&b'\\');
        let blanks = |token: &Token<'_>| token.kind == Kind::Literal && has_idle_blanks(token.text);
        address.iter().skip(1).any(|token| token.space)
            || address.iter().any(|token| is_comment(token) || backslash(token) || blanks(token))
            || is_mixed(address)
    }
}

/// True if the local part has a quoted word among others: it is written as one quoted string.
fn is_mixed(address: &[Token<'_>]) -> bool {
    let local = address.iter().position(|token| token.kind == Kind::At).unwrap_or(address.len());
    local > 1 && address[..local].iter().any(|token| token.kind == Kind::Quoted)
}

fn is_blank(octet: &u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r')
}

/// The words without what was between them; no copy if nothing was.
fn joined<'a>(text: &'a [u8], words: &[Token<'a>]) -> Cow<'a, [u8]> {
    match (words.first(), words.last()) {
        (Some(first), Some(last)) if words.windows(2).all(|pair| pair[0].end() == pair[1].at) => {
            Cow::Borrowed(&text[first.at..last.end()])
        }
        _ => Cow::Owned(words.iter().flat_map(|word| word.text).copied().collect()),
    }
}

/// One quoted string takes in the others (RFC 5322 §4.4 has words between dots; §3.4.1 has one or the other).
fn local_part<'a>(text: &'a [u8], words: &[Token<'a>]) -> Cow<'a, [u8]> {
    let plain = |word: &Token<'_>| word.kind != Kind::Quoted && !word.text.contains(&b'\\');
    if words.iter().all(plain) || matches!(words, [word] if word.kind == Kind::Quoted) {
        return joined(text, words);
    }
    let meaning: Vec<u8> = words.iter().flat_map(quoting::meaning).collect();
    Cow::Owned(quoting::quoted(&meaning))
}

/// White space in a literal says nothing (RFC 5322 §3.4.1), unless a backslash could stand before it.
fn has_idle_blanks(literal: &[u8]) -> bool {
    literal.iter().any(is_blank) && !literal.contains(&b'\\')
}

fn without_blanks(literal: &[u8]) -> Cow<'_, [u8]> {
    if has_idle_blanks(literal) {
        Cow::Owned(literal.iter().copied().filter(|octet| !is_blank(octet)).collect())
    } else {
        Cow::Borrowed(literal)
    }
}
