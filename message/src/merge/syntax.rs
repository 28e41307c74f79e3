//! References in a text: what stands between `{{` and `}}`.
//!
//! One pass, no look back. Positions are octets of the text.

use super::NAME_MAX;
use super::error::Problem::{self, self as P};
use std::borrow::Cow;

/// A stretch of text, or a reference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Found<'a> {
    Text(Cow<'a, str>),
    Field(Reference<'a>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Reference<'a> {
    pub name: &'a str,
    pub default: Option<String>,
    /// Not to be escaped.
    pub raw: bool,
}

/// A problem and where it is.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Wrong {
    pub at: usize,
    pub problem: Problem,
}

impl Wrong {
    /// The same in a text that begins `len` octets earlier.
    pub(super) fn behind(self, len: usize) -> Wrong {
        Wrong { at: self.at + len, ..self }
    }
}

/// `text` as it must be written in a template to stand there as it is, whatever follows it.
pub fn escaped(text: &str) -> Cow<'_, str> {
    const BRACE: &str = "{{\"{\"}}";
    let (body, end) = match text.strip_suffix('{') {
        Some(body) => (body, BRACE),
        None => (text, ""),
    };
    if end.is_empty() && !has_marker(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    let (mut pieces, mut from) = (Pieces::of(text), 0);
    while let Some(at) = pieces.marker() {
        out.push_str(&text[from..at]);
        out.push_str(BRACE);
        from = at + 1;
        pieces.at = from;
    }
    out.push_str(&body[from..]);
    out.push_str(end);
    Cow::Owned(out)
}

/// There is something in `text` that a template reads as more than text.
pub fn has_marker(text: &str) -> bool {
    Pieces::of(text).marker().is_some()
}

/// `text` begins with something that is more than text. A comment counts only if it ends soon.
pub(super) fn begins(text: &str) -> bool {
    const COMMENT_MAX: usize = 1_000;
    match text.as_bytes() {
        [b'{', b'{' | b'%', ..] => true,
        [b'{', b'#', ..] => text[..text.floor_char_boundary(COMMENT_MAX)].contains("#}"),
        _ => false,
    }
}

/// The pieces of a text, one after the other. After an error there is nothing more.
pub(super) struct Pieces<'a> {
    text: &'a str,
    at: usize,
    /// Where the last `#}` is. A `{#` that is never closed begins no comment: style sheets have it.
    comment_end: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(text: &'a str) -> Pieces<'a> {
        Pieces { text, at: 0, comment_end: text.rfind("#}").unwrap_or(0) }
    }

    /// Where the next `{{`, `{%` or `{#` is.
    pub(super) fn marker(&self) -> Option<usize> {
        let octets = self.text.as_bytes();
        let braces = memchr::memchr_iter(b'{', &octets[self.at..]).map(|at| self.at + at);
        braces.into_iter().find(|at| match octets.get(at + 1) {
            Some(b'{' | b'%') => true,
            Some(b'#') => at + 2 <= self.comment_end,
            _ => false,
        })
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<(usize, Found<'a>), Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        let (at, rest) = (self.at, &self.text[self.at..]);
        if rest.is_empty() {
            return None;
        }
        let text_len = self.marker().map_or(rest.len(), |marker| marker - at);
        let found = match text_len {
            0 => expression(rest),
            len => Ok((Found::Text(Cow::Borrowed(&rest[..len])), len)),
        };
        self.at = found.as_ref().map_or(self.text.len(), |(_, len)| at + len);
        Some(found.map(|(found, _)| (at, found)).map_err(|wrong| wrong.behind(at)))
    }
}

/// What begins with the marker that `text` begins with, and its length.
pub(super) fn expression(text: &str) -> Result<(Found<'_>, usize), Wrong> {
    match text.as_bytes().get(1) {
        Some(b'%') => return Err(Wrong { at: 0, problem: P::Statement }),
        Some(b'#') => return Err(Wrong { at: 0, problem: P::Comment }),
        _ => {}
    }
    let (open, close) = if text.starts_with("{{{") { ("{{{", "}}}") } else { ("{{", "}}") };
    let mut cursor = Cursor { text, at: open.len() };
    let found = cursor.found(close.len() == 3)?;
    cursor.skip_blanks();
    match cursor.takes(close) {
        true => Ok((found, cursor.at)),
        false if cursor.rest().is_empty() => Err(Wrong { at: 0, problem: P::Unclosed }),
        false => cursor.wrong(P::Expression),
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong<T>(&self, problem: Problem) -> Result<T, Wrong> {
        Err(Wrong { at: self.at, problem })
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn takes(&mut self, what: &str) -> bool {
        let there = self.rest().starts_with(what);
        self.at += if there { what.len() } else { 0 };
        there
    }

    fn found(&mut self, raw: bool) -> Result<Found<'a>, Wrong> {
        if let Some(sign) = self.rest().chars().next().filter(|sign| "#/^>!&-+~*".contains(*sign)) {
            return Err(Wrong { at: 0, problem: P::Block(sign) });
        }
        self.skip_blanks();
        if let Some(text) = self.quoted()? {
            return Ok(Found::Text(Cow::Owned(text)));
        }
        let name = self.name()?;
        let mut reference = Reference { name, default: None, raw };
        self.skip_blanks();
        if self.rest().starts_with("or") && self.rest()[2..].starts_with([' ', '"', '\'', '\t', '\r', '\n']) {
            self.at += 2;
            self.skip_blanks();
            reference.default = Some(self.default_text()?);
            self.skip_blanks();
        }
        while self.takes("|") {
            self.filter(&mut reference)?;
            self.skip_blanks();
        }
        Ok(Found::Field(reference))
    }

    fn name(&mut self) -> Result<&'a str, Wrong> {
        let rest = self.rest();
        if rest.is_empty() {
            return Err(Wrong { at: 0, problem: P::Unclosed });
        }
        let is_in = |char: char| char.is_alphanumeric() || "_-.".contains(char);
        let name = &rest[..rest.find(|char| !is_in(char)).unwrap_or(rest.len())];
        if !name.starts_with(|char: char| char.is_alphabetic() || char == '_') {
            return self.wrong(P::Name);
        }
        if name.len() > NAME_MAX {
            return self.wrong(P::NameTooLong);
        }
        self.at += name.len();
        Ok(name)
    }

    fn filter(&mut self, reference: &mut Reference<'a>) -> Result<(), Wrong> {
        self.skip_blanks();
        let at = self.at;
        match self.name()? {
            "safe" => reference.raw = true,
            "default" if reference.default.is_none() => reference.default = Some(self.default()?),
            "default" => return Err(Wrong { at, problem: P::Default }),
            other => return Err(Wrong { at, problem: P::Filter(other.into()) }),
        }
        Ok(())
    }

    /// `("text")`, `("text", true)`, which is the same here, or `:"text"`.
    fn default(&mut self) -> Result<String, Wrong> {
        self.skip_blanks();
        if self.takes(":") {
            self.skip_blanks();
            return self.default_text();
        }
        if !self.takes("(") {
            return self.wrong(P::Default);
        }
        self.skip_blanks();
        let text = self.default_text()?;
        self.skip_blanks();
        if self.takes(",") {
            self.skip_blanks();
            if !self.takes("true") {
                return self.wrong(P::Default);
            }
            self.skip_blanks();
        }
        if self.takes(")") { Ok(text) } else { self.wrong(P::Default) }
    }

    fn default_text(&mut self) -> Result<String, Wrong> {
        let at = self.at;
        self.quoted()?.ok_or(Wrong { at, problem: P::Default })
    }

    /// A text in quotation marks of either kind, if there is one: a backslash takes its meaning from what follows.
    fn quoted(&mut self) -> Result<Option<String>, Wrong> {
        let Some(mark @ ('"' | '\'')) = self.rest().chars().next() else { return Ok(None) };
        let (mut text, mut chars) = (String::new(), self.rest().char_indices().skip(1));
        while let Some((len, char)) = chars.next() {
            match char {
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, char)) => text.push(char),
                    None => break,
                },
                char if char == mark => {
                    self.at += len + 1;
                    return Ok(Some(text));
                }
                char => text.push(char),
            }
        }
        self.wrong(P::OpenText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        let mut out = String::new();
        for piece in Pieces::of(text) {
            match piece {
                Ok((_, Found::Text(text))) => out.push_str(&text),
                Ok((_, Found::Field(Reference { name, default, raw }))) => {
                    let default = default.map(|text| format!("={text}")).unwrap_or_default();
                    out.push_str(&format!("[{}{name}{default}]", if raw { "!" } else { "" }));
                }
                Err(Wrong { at, problem }) => out.push_str(&format!("<{at}: {problem}>")),
            }
        }
        out
    }

    #[test]
    fn each_form_of_a_reference_is_read() {
        for (text, want) in [
            ("a {{name}}b", "a [name]b"),
            ("{{ first-name }}{{a.b_1}}{{ötzi}}", "[first-name][a.b_1][ötzi]"),
            ("{{name|default(\"you\")}}", "[name=you]"),
            ("{{ name | default( 'you \\'2\\'' , true ) | safe }}", "[!name=you '2']"),
            ("{{name|default:\"you\"}}", "[name=you]"),
            ("{{name or \"you\"}}{{ order }}", "[name=you][order]"),
            ("{{{name}}}{{name|safe}}", "[!name][!name]"),
            ("{{{ name|default('}}') }}}", "[!name=}}]"),
            ("{{\r\n name\r\n }}", "[name]"),
            ("{{ \"{{\" }}x}}", "{{x}}"),
            ("{{'{%'}}", "{%"),
            ("a{b}{ {c }}}", "a{b}{ {c }}}"),
            ("@media print{#a{b:c}}", "@media print{#a{b:c}}"),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_where_it_is() {
        for (text, want) in [
            ("a{{name", "a<1: {{ is not closed by }}; as a text it is written {{ \"{{\" }}>"),
            ("{{", "<0: {{ is not closed by }}; as a text it is written {{ \"{{\" }}>"),
            ("{% if a %}", "<0: {%: loops, conditions and other statements are not supported>"),
            ("{{#if a}}", "<0: {{#: blocks, partials and white space control are not supported>"),
            ("{{- a -}}", "<0: {{-: blocks, partials and white space control are not supported>"),
            ("a {# b #}", "a <2: {# #}: comments are not supported>"),
            ("{{a|upper}}", "<4: the filter upper is not supported; there are default and safe>"),
            ("{{a|default}}", "<11: default needs one text in quotation marks>"),
            ("{{a|default(b)}}", "<12: default needs one text in quotation marks>"),
            ("{{a|default(\"b\", false)}}", "<17: default needs one text in quotation marks>"),
            ("{{a|default('b')|default('c')}}", "<17: default needs one text in quotation marks>"),
            ("{{a|default('b}}", "<12: the text in quotation marks does not end>"),
            ("{{a b}}", "<4: only a field with default and safe may stand here>"),
            ("{{a + 1}}", "<4: only a field with default and safe may stand here>"),
            ("{{{a}}", "<4: only a field with default and safe may stand here>"),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
        assert!(read("{{1a}}").starts_with("<2: the name of a field is expected"));
        assert!(read(&format!("{{{{{}}}}}", "a".repeat(65))).starts_with("<2: the field's name is longer"));
    }

    proptest! {
        #[test]
        fn what_is_escaped_stands_as_it_is(text in "([{%#}\"' ]|\\PC){0,40}") {
            prop_assert_eq!(read(&escaped(&text)), text);
        }

        #[test]
        fn reading_never_panics(text in "([{}|\"'()\\\\]|default|or|\\PC){0,60}") {
            read(&text);
        }
    }
}
