//! Fields that claim to be ours: who adds a field to incoming mail that says where it is from must first take out those that a
//! stranger put there. Those are fields that nobody but us writes, and `Authentication-Results` under our name (RFC 8601 §5).
//!
//! Lenient where a reader might be: a field counts as one though a line before it is none, though its lines end in LF
//! alone, though white space stands before its colon. One whose name cannot be read goes as well.
//! Bound: reads the header section once.

use crate::header::{header_len, skip_comments};
use memchr::memchr;
use std::borrow::Cow;

const NAME: &[u8] = b"authentication-results";

/// What is taken for ours. The default: nothing.
#[derive(Clone, Debug, Default)]
pub struct Ours<'a> {
    /// Our names in `Authentication-Results`.
    pub ids: Vec<&'a str>,
    /// Names of fields that are ours whatever they say.
    pub fields: Vec<&'a str>,
}

/// The content without fields that claim to be ours, in any case of letters. Borrowed if there are none.
pub fn strip_forged<'a>(content: &'a [u8], ours: &Ours<'_>) -> Cow<'a, [u8]> {
    if ours.ids.is_empty() && ours.fields.is_empty() {
        return Cow::Borrowed(content);
    }
    let (header, body) = content.split_at(header_len(content));
    let mut kept: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < header.len() {
        let len = field_len(&header[at..]);
        let field = &header[at..at + len];
        if ours.is_claimed_by(field) {
            kept.get_or_insert_with(|| Vec::from(&header[..at]));
        } else if let Some(kept) = &mut kept {
            kept.extend_from_slice(field);
        }
        at += len;
    }
    match kept {
        None => Cow::Borrowed(content),
        Some(mut kept) => {
            kept.extend_from_slice(body);
            Cow::Owned(kept)
        }
    }
}

/// A line and those that are folded into it.
fn field_len(rest: &[u8]) -> usize {
    let line = |at: usize| memchr(b'\n', &rest[at..]).map_or(rest.len(), |lf| at + lf + 1);
    let mut end = line(0);
    while matches!(rest.get(end), Some(b' ' | b'\t')) {
        end = line(end);
    }
    end
}

impl Ours<'_> {
    fn is_claimed_by(&self, field: &[u8]) -> bool {
        let Some(colon) = memchr(b':', field) else { return false };
        let name = field[..colon].trim_ascii();
        let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        self.fields.iter().any(is) || name.eq_ignore_ascii_case(NAME) && self.is_id(&field[colon + 1..])
    }

    fn is_id(&self, value: &[u8]) -> bool {
        if self.ids.is_empty() {
            return false;
        }
        let Some(claimed) = authserv_id(value) else { return true };
        let claimed = claimed.strip_suffix(b".").unwrap_or(&claimed);
        self.ids.iter().any(|id| id.as_bytes().eq_ignore_ascii_case(claimed))
    }
}

/// `[CFWS] value [CFWS version] [CFWS] ";"` (RFC 8601 §2.2), where a value is a token or a quoted string.
fn authserv_id(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let rest = skip_comments(value);
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        return unquoted(quoted).map(Cow::Owned);
    }
    let len = rest.iter().position(|octet| b" \t\r\n;(".contains(octet)).unwrap_or(rest.len());
    let is_readable =
        len > 0 && rest[..len].iter().all(|octet| *octet >= 33 && *octet != b'"' && *octet != 127);
    is_readable.then_some(Cow::Borrowed(&rest[..len]))
}

/// Up to the closing quote; folds and backslashes are none of it. `None` without one.
fn unquoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut octets = quoted.iter();
    loop {
        match octets.next()? {
            b'"' => return Some(out.trim_ascii().to_vec()),
            b'\\' => out.push(*octets.next()?),
            b'\r' | b'\n' => {}
            octet => out.push(*octet),
        }
    }
}

/// Any octets: what stays has nothing more to take out, and a body is not touched.
pub fn fuzz_strip_forged(content: &[u8]) {
    let ours = Ours { ids: vec!["mx.example"], fields: vec!["X-Ours"] };
    let once = strip_forged(content, &ours);
    assert!(content.ends_with(&content[header_len(content)..]) && once.len() <= content.len());
    assert_eq!(strip_forged(&once, &ours), once);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Ours<'static> {
        Ours { ids: vec!["mx.example", "old.example"], fields: vec!["X-Ours"] }
    }

    fn stripped(field: &str) -> bool {
        let content =
            format!("Subject: a\r\n{field}To: b\r\n\r\nAuthentication-Results: mx.example; none\r\n");
        let kept = strip_forged(content.as_bytes(), &ours());
        let is_gone = *kept == *content.replacen(field, "", 1).as_bytes();
        assert!(is_gone || *kept == *content.as_bytes(), "{field}: something else changed");
        is_gone
    }

    #[test]
    fn fields_that_claim_our_name_are_taken_out() {
        for field in [
            "Authentication-Results: mx.example; spf=pass smtp.mailfrom=a.test\r\n",
            "AUTHENTICATION-RESULTS:mx.EXAMPLE;none\r\n",
            "Authentication-Results:\r\n\tmx.example;\r\n dkim=pass header.d=a.test\r\n",
            "Authentication-Results: (a (b\\)) c) mx.example 1; none\r\n",
            "Authentication-Results: \"mx.ex\\ample\" ; none\r\n",
            "Authentication-Results: mx.example.; none\r\n",
            "Authentication-Results : old.example\r\n",
            "authentication-results: mx.example(x); none\n",
            "Authentication-Results:\r\n",
            "Authentication-Results: \"mx.example; none\r\n",
            "no field at all\r\nAuthentication-Results: mx.example; none\r\n",
        ] {
            let one = field.strip_prefix("no field at all\r\n").unwrap_or(field);
            assert!(stripped(one), "{field}");
        }
        let content = b"no field\r\nAuthentication-Results: mx.example; none\r\n\r\n";
        assert_eq!(*strip_forged(content, &ours()), *b"no field\r\n\r\n");
    }

    #[test]
    fn fields_that_are_ours_whatever_they_say_are_taken_out() {
        for field in ["X-Ours: a\r\n", "x-ours:\r\n\tb;\r\n c\r\n", "X-OURS : d\n"] {
            assert!(stripped(field), "{field}");
        }
        for field in ["X-Ours-Too: a\r\n", "X-Our: a\r\n"] {
            assert!(!stripped(field), "{field}");
        }
        let content = b"X-Ours: a\r\nAuthentication-Results: mx.example; none\r\n\r\n";
        let lists = Ours { ids: Vec::new(), ..ours() };
        assert_eq!(*strip_forged(content, &lists), content[11..], "nothing is verified here");
        assert_eq!(*strip_forged(content, &Ours::default()), content[..]);
    }

    #[test]
    fn other_fields_stay() {
        for field in [
            "Authentication-Results: mx.example.net; none\r\n",
            "Authentication-Results: sub.mx.example; none\r\n",
            "Authentication-Results: other.test; dkim=pass header.d=mx.example\r\n",
            "ARC-Authentication-Results: i=1; mx.example; none\r\n",
            "X-Authentication-Results: mx.example; none\r\n",
            "Subject: Authentication-Results: mx.example; none\r\n",
        ] {
            assert!(!stripped(field), "{field}");
        }
        assert!(matches!(strip_forged(b"a: b\r\n\r\nc", &ours()), Cow::Borrowed(_)));
        assert!(matches!(strip_forged(b"", &ours()), Cow::Borrowed(_)));
    }

    #[test]
    fn several_are_taken_out_and_the_rest_keeps_its_order() {
        let forged = "Authentication-Results: mx.example; none\r\n";
        let content = format!("{forged}A: 1\r\n{forged}{forged}B: 2\r\n 3\r\n{forged}\r\nbody");
        assert_eq!(*strip_forged(content.as_bytes(), &ours()), *b"A: 1\r\nB: 2\r\n 3\r\n\r\nbody");
    }

    proptest::proptest! {
        #[test]
        fn what_stays_has_nothing_more_to_take_out(content in "(Authentication-Results|X-Ours|:|mx\\.example|;|\"|\\(|\\)|\\\\|\r\n|\n| |\t|a){0,40}") {
            fuzz_strip_forged(content.as_bytes());
        }
    }
}
