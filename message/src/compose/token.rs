//! Words and specials of a structured header field (RFC 5322 §3.2, with the obsolete forms of §4).
//!
//! A token keeps its octets as they stood, delimiters and backslashes included, and whether white space came before
//! it; so printing tokens and cutting the text again gives the same tokens. Octets above 127 and control characters
//! count as letters of an atom, and a backslash may stand in one: real mail has both.
//!
//! Cost: one pass. Nested comments are counted, not descended into. A token holds no memory of its own.

use std::borrow::Cow;

/// Where a field goes wrong, and what should have been there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("octet {at}: expected {expected}")]
pub struct SyntaxError {
    /// Counted from 0 at the start of the text that was read.
    pub at: usize,
    pub expected: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Atom,
    /// `"…"`
    Quoted,
    /// `[…]`
    Literal,
    /// `(…)`, with all that is nested in it
    Comment,
    Dot,
    Comma,
    At,
    Colon,
    Semicolon,
    /// `<`
    Open,
    /// `>`
    Close,
}

/// One token, in the memory of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token<'a> {
    pub kind: Kind,
    /// As it stands, with its delimiters.
    pub text: &'a [u8],
    /// Offset of its first octet.
    pub at: usize,
    /// White space came before it.
    pub space: bool,
}

impl Token<'_> {
    pub fn is_word(&self) -> bool {
        matches!(self.kind, Kind::Atom | Kind::Quoted)
    }

    /// Offset behind its last octet.
    pub fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

/// The tokens of an unfolded text, one after the other. After an error there is nothing more.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub fn of(text: &'a [u8]) -> Tokens<'a> {
        Tokens { text, at: 0 }
    }

    /// Offset of what comes next; the text's length at its end.
    pub fn at(&self) -> usize {
        self.at
    }

    fn read(&mut self) -> Result<Option<Token<'a>>, SyntaxError> {
        let rest = &self.text[self.at..];
        let blank = rest.iter().position(|octet| !is_blank(*octet)).unwrap_or(rest.len());
        let (rest, at) = (&rest[blank..], self.at + blank);
        let Some(first) = rest.first() else {
            self.at = at;
            return Ok(None);
        };
        let (kind, len) = scan(*first, rest)
            .map_err(|wrong| SyntaxError { at: at + wrong.at, expected: wrong.expected })?;
        self.at = at + len;
        Ok(Some(Token { kind, text: &rest[..len], at, space: blank > 0 }))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Token<'a>, SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            self.at = self.text.len();
        }
        read.transpose()
    }
}

/// Kind and length of the token that `rest` begins with.
fn scan(first: u8, rest: &[u8]) -> Result<(Kind, usize), SyntaxError> {
    let wrong = |expected| Err(SyntaxError { at: 0, expected });
    match first {
        b'(' => Ok((Kind::Comment, comment_len(rest)?)),
        b'"' => Ok((Kind::Quoted, closed_len(rest, b'"', "a quotation mark that ends the text begun here")?)),
        b'[' => Ok((Kind::Literal, closed_len(rest, b']', "a ] that ends the literal begun here")?)),
        b'.' => Ok((Kind::Dot, 1)),
        b',' => Ok((Kind::Comma, 1)),
        b'@' => Ok((Kind::At, 1)),
        b':' => Ok((Kind::Colon, 1)),
        b';' => Ok((Kind::Semicolon, 1)),
        b'<' => Ok((Kind::Open, 1)),
        b'>' => Ok((Kind::Close, 1)),
        b')' => wrong("a ( before this )"),
        b']' => wrong("a [ before this ]"),
        _ => Ok((Kind::Atom, atom_len(rest)?)),
    }
}

fn comment_len(rest: &[u8]) -> Result<usize, SyntaxError> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(octet) = rest.get(at) {
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1, // the first octet opened
            b'\\' => at += 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Ok(at);
        }
    }
    Err(SyntaxError { at: 0, expected: "a ) that ends the comment begun here" })
}

fn closed_len(rest: &[u8], close: u8, expected: &'static str) -> Result<usize, SyntaxError> {
    let mut at = 1;
    while let Some(octet) = rest.get(at) {
        match octet {
            b'\\' => at += 2,
            octet if *octet == close => return Ok(at + 1),
            _ => at += 1,
        }
    }
    Err(SyntaxError { at: 0, expected })
}

fn atom_len(rest: &[u8]) -> Result<usize, SyntaxError> {
    let mut at = 0;
    while let Some(octet) = rest.get(at) {
        match octet {
            b'\\' if at + 1 == rest.len() => {
                return Err(SyntaxError { at, expected: "an octet behind the backslash" });
            }
            b'\\' => at += 2,
            octet if is_special(*octet) || is_blank(*octet) => break,
            _ => at += 1,
        }
    }
    Ok(at)
}

/// A CR alone parts words as well: it has no place in a header, and none in a word.
fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_special(octet: u8) -> bool {
    b"()<>[]:;@,.\"".contains(&octet)
}

/// True if `octet` may stand in an atom that needs no quotes (RFC 5322 §3.2.3, RFC 6532 §3.2).
pub(crate) fn is_atext(octet: u8) -> bool {
    octet > b' ' && octet != 127 && octet != b'\\' && !is_special(octet)
}

/// Appends the tokens as a text that gives them back.
pub fn print<'a>(tokens: impl IntoIterator<Item = Token<'a>>, out: &mut Vec<u8>) {
    let mut after_atom = false;
    for token in tokens {
        let is_atom = token.kind == Kind::Atom;
        if token.space || after_atom && is_atom {
            out.push(b' ');
        }
        out.extend_from_slice(token.text);
        after_atom = is_atom;
    }
}

/// The text without its line ends, LF or CR LF (RFC 5322 §2.2.3). A copy only if there are any.
pub fn unfold(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\n', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut whole = Vec::with_capacity(text.len());
    for line in lines(text) {
        whole.extend_from_slice(line);
    }
    Cow::Owned(whole)
}

/// Where in `folded` the octet stands that is `at` in the unfolded text.
pub fn folded_offset(folded: &[u8], at: usize) -> usize {
    let mut left = at;
    for line in folded.split_inclusive(|octet| *octet == b'\n') {
        let len = without_line_end(line).len();
        if left < len {
            return line.as_ptr().addr() - folded.as_ptr().addr() + left;
        }
        left -= len;
    }
    folded.len()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|octet| *octet == b'\n').map(without_line_end)
}

/// One line without its LF or CR LF.
pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    match line {
        [whole @ .., b'\r', b'\n'] | [whole @ .., b'\n'] => whole,
        whole => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str) -> Vec<(Kind, &str)> {
        let tokens = Tokens::of(text.as_bytes()).map(Result::unwrap);
        tokens.map(|token| (token.kind, std::str::from_utf8(token.text).unwrap())).collect()
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let want = [
            (Kind::Atom, "Ann"),
            (Kind::Quoted, r#""B. \"b\"""#),
            (Kind::Comment, r"(x (y\) ) z)"),
            (Kind::Open, "<"),
            (Kind::Atom, "é\\ x"),
            (Kind::Dot, "."),
            (Kind::Atom, "c"),
            (Kind::At, "@"),
            (Kind::Literal, "[192.0.2.1]"),
            (Kind::Close, ">"),
            (Kind::Comma, ","),
            (Kind::Colon, ":"),
            (Kind::Semicolon, ";"),
        ];
        assert_eq!(cut("Ann \"B. \\\"b\\\"\"(x (y\\) ) z) <é\\ x.c@[192.0.2.1]>,:;"), want);
    }

    #[test]
    fn errors_say_where_and_what() {
        let error = |text: &str| Tokens::of(text.as_bytes()).find_map(Result::err).unwrap().to_string();
        assert_eq!(error("a (b (c)"), "octet 2: expected a ) that ends the comment begun here");
        assert_eq!(error("a \"b\\\""), "octet 2: expected a quotation mark that ends the text begun here");
        assert_eq!(error("[1.2"), "octet 0: expected a ] that ends the literal begun here");
        assert_eq!(error("ab) c"), "octet 2: expected a ( before this )");
        assert_eq!(error("a]"), "octet 1: expected a [ before this ]");
        assert_eq!(error("a\\"), "octet 1: expected an octet behind the backslash");
    }

    #[test]
    fn deep_comments_take_no_stack() {
        let depth = 1_000_000;
        let text = format!("{}{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(Tokens::of(text.as_bytes()).count(), 1);
    }

    #[test]
    fn unfolding_drops_line_ends_and_offsets_find_back() {
        let folded = b"a\r\n b\n\tc\rd\r\n";
        let text = unfold(folded);
        assert_eq!(&*text, b"a b\tc\rd");
        for (at, octet) in text.iter().enumerate() {
            assert_eq!(folded[folded_offset(folded, at)], *octet);
        }
        assert_eq!(folded_offset(folded, text.len()), folded.len());
    }

    /// Texts of tokens of every kind.
    fn token_text() -> impl Strategy<Value = (Kind, Vec<u8>)> {
        let octets = |class: &str, kind: Kind| {
            proptest::string::bytes_regex(class).unwrap().prop_map(move |text| (kind, text))
        };
        let special = |kind, text: &'static str| Just((kind, text.as_bytes().to_vec()));
        prop_oneof![
            octets(r"(?s-u)([a-z0-9!\x80-\xff\x00]|\\.){1,8}", Kind::Atom),
            octets(r#"(?s-u)"([^"\\\n]|\\[^\n]){0,8}""#, Kind::Quoted),
            octets(r"(?s-u)\[([^\]\\\n]|\\[^\n]){0,8}\]", Kind::Literal),
            octets(r"(?s-u)\(([^()\\\n]|\\[^\n]){0,4}(\(([^()\\\n]|\\[^\n]){0,4}\)){0,2}\)", Kind::Comment),
            special(Kind::Dot, "."),
            special(Kind::Comma, ","),
            special(Kind::At, "@"),
            special(Kind::Colon, ":"),
            special(Kind::Semicolon, ";"),
            special(Kind::Open, "<"),
            special(Kind::Close, ">"),
        ]
    }

    proptest! {
        #[test]
        fn printing_and_cutting_gives_the_same_tokens(
            made in proptest::collection::vec((token_text(), any::<bool>()), 0..20)
        ) {
            let tokens: Vec<Token> = made
                .iter()
                .map(|((kind, text), space)| Token { kind: *kind, text, at: 0, space: *space })
                .collect();
            let mut text = Vec::new();
            print(tokens.iter().copied(), &mut text);
            let back: Vec<Token> = Tokens::of(&text).map(Result::unwrap).collect();
            prop_assert_eq!(back.len(), tokens.len());
            for (back, token) in back.iter().zip(&tokens) {
                prop_assert_eq!((back.kind, back.text), (token.kind, token.text));
                prop_assert!(back.space >= token.space);
            }
        }

        #[test]
        fn what_was_cut_prints_back(text: Vec<u8>) {
            let tokens: Result<Vec<Token>, _> = Tokens::of(&text).collect();
            let Ok(tokens) = tokens else { return Ok(()) };
            let mut printed = Vec::new();
            print(tokens.iter().copied(), &mut printed);
            let again: Vec<Token> = Tokens::of(&printed).map(Result::unwrap).collect();
            prop_assert_eq!(again.len(), tokens.len());
            for (again, token) in again.iter().zip(&tokens) {
                prop_assert_eq!((again.kind, again.text, again.space), (token.kind, token.text, token.space));
            }
        }
    }
}
