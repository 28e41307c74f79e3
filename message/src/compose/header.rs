//! Header and body of a message that a local program wrote (RFC 5322 §2.2, and what programs make of it).
//!
//! Lines end in LF or CR LF; a CR alone is content. A field may be as long as memory holds. The header ends at an empty
//! line, at the first line that is no field, or with the text; a `From ` line of an mbox in front of it is no part
//! of the message. White space before a colon is read (RFC 5322 §4.5) and not written again.
//!
//! Cost: one search per line. Bound: one small entry for each field.

use super::token::without_line_end;
use memchr::memchr;

/// One field as it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RawField<'a> {
    pub name: &'a [u8],
    /// What follows the colon, folds and last line end included.
    pub value: &'a [u8],
    /// Octets from the name to the value.
    pub value_at: usize,
}

/// A message taken apart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parts<'a> {
    pub fields: Vec<RawField<'a>>,
    /// All that follows the fields: empty, or begins with an empty line or with a line that is no field.
    pub rest: &'a [u8],
}

/// The fields that a text begins with, one by one. No allocation.
#[derive(Clone, Copy, Debug)]
pub struct RawFields<'a> {
    rest: &'a [u8],
}

impl<'a> RawFields<'a> {
    pub fn of(text: &'a [u8]) -> RawFields<'a> {
        RawFields { rest: text }
    }

    /// What follows the fields that were given out.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RawFields<'a> {
    type Item = RawField<'a>;

    fn next(&mut self) -> Option<RawField<'a>> {
        let (field, len) = first_field(self.rest)?;
        self.rest = &self.rest[len..];
        Some(field)
    }
}

impl<'a> Parts<'a> {
    pub fn of(text: &'a [u8]) -> Parts<'a> {
        let mut fields = RawFields::of(text);
        Parts { fields: fields.by_ref().collect(), rest: fields.rest() }
    }

    /// What follows the empty line; all the rest where there is none.
    pub fn body(&self) -> &'a [u8] {
        let line = &self.rest[..line_len(self.rest)];
        if without_line_end(line).is_empty() { &self.rest[line.len()..] } else { self.rest }
    }
}

/// The text behind an mbox's `From ` line, if it begins with one. `From : ann` is a field.
pub fn without_mbox_line(text: &[u8]) -> &[u8] {
    let line = &text[..line_len(text)];
    let plain = line.strip_prefix(b">").unwrap_or(line);
    match plain.strip_prefix(b"From ") {
        Some(rest) if !rest.trim_ascii_start().starts_with(b":") => &text[line.len()..],
        _ => text,
    }
}

/// The field that `text` begins with, and its length.
fn first_field(text: &[u8]) -> Option<(RawField<'_>, usize)> {
    let colon = memchr(b':', &text[..line_len(text)])?;
    let name = text[..colon].trim_ascii_end();
    if name.is_empty() || !name.iter().all(|octet| (33..127).contains(octet)) {
        return None;
    }
    let mut len = line_len(text);
    while matches!(text.get(len), Some(b' ' | b'\t')) {
        len += line_len(&text[len..]);
    }
    Some((RawField { name, value: &text[colon + 1..len], value_at: colon + 1 }, len))
}

/// Octets up to and including the next LF, or all.
fn line_len(text: &[u8]) -> usize {
    memchr(b'\n', text).map_or(text.len(), |lf| lf + 1)
}

/// Appends `text` with CR LF for every LF that has no CR before it.
pub fn put_lines(text: &[u8], out: &mut Vec<u8>) {
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        let whole = without_line_end(line);
        out.extend_from_slice(whole);
        if whole.len() < line.len() {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a field that stays as it is, and ends it if its text did not.
pub fn put_field(field: &RawField<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(field.name);
    out.push(b':');
    put_lines(field.value, out);
    if !field.value.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> (Vec<String>, &str) {
        let parts = Parts::of(without_mbox_line(text.as_bytes()));
        let names = parts.fields.iter().map(|field| String::from_utf8_lossy(field.name).into_owned());
        (names.collect(), std::str::from_utf8(parts.body()).unwrap())
    }

    #[test]
    fn header_ends_where_fields_end() {
        for (text, fields, body) in [
            ("A: 1\nB: 2\n\nbody\n", "A B", "body\n"),
            ("A: 1\r\nB : 2\r\n\r\nbody", "A B", "body"),
            ("A: 1\n 2\n\t3\nB:\nno field\n", "A B", "no field\n"),
            ("A: 1\nB: 2", "A B", ""),
            ("\nA: 1\n", "", "A: 1\n"),
            (" A: 1\n", "", " A: 1\n"),
            ("From ann Thu Jan  1 1970\nA: 1\n\nFrom here\n", "A", "From here\n"),
            (">From ann\nA: 1\n\nb", "A", "b"),
            ("From : ann\n\nb", "From", "b"),
            ("A: 1\n \n\nbody", "A", "body"),
            ("Sub ject: 1\n\nbody", "", "Sub ject: 1\n\nbody"),
            (": 1\n", "", ": 1\n"),
            ("", "", ""),
        ] {
            let (found, rest) = names(text);
            assert_eq!((found.join(" ").as_str(), rest), (fields, body), "{text:?}");
        }
    }

    #[test]
    fn line_ends_become_crlf_and_a_lone_cr_stays() {
        let mut out = Vec::new();
        put_lines(b"a\nb\r\nc\rd\r\r\n\n", &mut out);
        assert_eq!(out, b"a\r\nb\r\nc\rd\r\r\n\r\n");
    }

    #[test]
    fn a_field_of_many_megabytes_is_one_field() {
        let text = [b"A: ".as_slice(), &vec![b'x'; 8 << 20], b"\n\nb"].concat();
        let parts = Parts::of(&text);
        assert_eq!((parts.fields.len(), parts.fields[0].value.len()), (1, (8 << 20) + 2));
    }
}
