//! Header fields of a message as it came (RFC 5322 §2.2): found, not interpreted.

use crate::class::HEADER_MAX;
use crate::lane::Priority;
use memchr::memchr;

/// One field: name without the colon, and the whole field with its folded lines and last line end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub whole: &'a [u8],
}

/// The fields of `content`, up to the empty line or the first line that is no field.
pub fn fields(content: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let colon = memchr(b':', &rest[..line_len(rest)])?;
        let name = &rest[..colon];
        if name.is_empty() || !name.iter().all(|octet| (33..127).contains(octet)) {
            return None;
        }
        let mut end = line_len(rest);
        while matches!(rest.get(end), Some(b' ' | b'\t')) {
            end += line_len(&rest[end..]);
        }
        let (whole, tail) = rest.split_at(end);
        rest = tail;
        Some(Field { name, whole })
    })
}

/// Octets up to and including the next LF, or all.
fn line_len(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(bytes.len(), |lf| lf + 1)
}

/// Length of the header section, with the empty line that ends it.
pub fn header_len(content: &[u8]) -> usize {
    let mut at = 0;
    while at < content.len() {
        let len = line_len(&content[at..]);
        let line = &content[at..at + len];
        at += len;
        if line == b"\r\n" || line == b"\n" {
            break;
        }
    }
    at
}

/// True if the header is not ASCII: only a peer that offers SMTPUTF8 can take it (RFC 6532 §3).
pub fn needs_smtputf8(content: &[u8]) -> bool {
    !content[..header_len(content)].is_ascii()
}

/// Hosts that this message passed: its `Received` and `Delivered-To` fields (RFC 5321 §6.3).
pub fn hop_count(content: &[u8]) -> usize {
    fields(content)
        .filter(|field| {
            field.name.eq_ignore_ascii_case(b"received") || field.name.eq_ignore_ascii_case(b"delivered-to")
        })
        .count()
}

/// What `MT-Priority` says (RFC 6758 §3): `CFWS priority CFWS`. Silent if it is there twice or says nothing legal
/// (RFC 6710 §5.1). No allocation.
pub fn priority(content: &[u8]) -> Option<Priority> {
    let mut found = fields(content).filter(|field| field.name.eq_ignore_ascii_case(b"mt-priority"));
    let (field, None) = (found.next()?, found.next()) else { return None };
    let value = skip_comments(&field.whole[field.name.len() + 1..]);
    let len = value.iter().position(|octet| b" \t\r\n(".contains(octet)).unwrap_or(value.len());
    let (value, rest) = value.split_at(len);
    if !skip_comments(rest).is_empty() {
        return None;
    }
    Priority::parse(std::str::from_utf8(value).ok()?)
}

/// True if it says `TLS-Required: No` (RFC 8689 §3): its sender would rather have it delivered without TLS than not at all. Not if
/// it is there twice (§3 forbids that) or says anything else. No allocation.
pub fn needs_no_tls(content: &[u8]) -> bool {
    let header = &content[..content.len().min(HEADER_MAX)];
    let mut found = fields(header).filter(|field| field.name.eq_ignore_ascii_case(b"tls-required"));
    let (Some(field), None) = (found.next(), found.next()) else { return false };
    field.whole[field.name.len() + 1..].trim_ascii().eq_ignore_ascii_case(b"no")
}

/// What follows folding white space and comments (RFC 5322 §3.2.2). A comment without its end is none.
pub(crate) fn skip_comments(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes.trim_ascii_start();
    while let Some(len) = comment_len(rest) {
        rest = rest[len..].trim_ascii_start();
    }
    rest
}

/// Comments nest, and a backslash takes its meaning from what follows.
pub(crate) fn comment_len(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        match bytes.get(at)? {
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            b'\\' if depth > 0 => at += 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return (bytes[0] == b'(').then_some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_fields_stay_whole() {
        let content = b"Received: a\r\n b\r\nSubject: x\r\n\r\nReceived: no\r\n";
        let found: Vec<_> = fields(content).map(|field| field.whole).collect();
        assert_eq!(found, [&b"Received: a\r\n b\r\n"[..], b"Subject: x\r\n"]);
        assert_eq!(hop_count(content), 1);
        assert_eq!(&content[header_len(content)..], b"Received: no\r\n");
    }

    #[test]
    fn priority_is_read_past_folds_and_comments() {
        let said =
            |fields: &str| priority(format!("Subject: x\r\n{fields}\r\nMT-Priority: 9\r\n").as_bytes());
        assert_eq!(said("mt-priority: 3\r\n"), Priority::parse("3"));
        assert_eq!(said("MT-Priority:\r\n (a (b) \\) c) -4 (d)\r\n"), Priority::parse("-4"));
        for wrong in ["", "3 4", "10", "(3", "3)", ")3", "x", "3(a", "3(a))"] {
            assert_eq!(said(&format!("MT-Priority: {wrong}\r\n")), None, "{wrong}");
        }
    }

    #[test]
    fn two_priorities_are_none() {
        assert_eq!(priority(b"MT-Priority: 3\r\nMT-Priority: 3\r\n\r\n"), None);
    }

    #[test]
    fn tls_is_not_needed_if_one_field_says_no() {
        for said in
            ["TLS-Required: No\r\n", "tls-required:\r\n  no \r\n", "Subject: x\r\nTLS-Required:NO\r\n"]
        {
            assert!(needs_no_tls(format!("{said}\r\nhello").as_bytes()), "{said}");
        }
        for other in [
            "",
            "TLS-Required: Yes\r\n",
            "TLS-Required:\r\n",
            "TLS-Required: No, thanks\r\n",
            "TLS-Required: No\r\nTLS-Required: No\r\n",
            "\r\nTLS-Required: No\r\n",
        ] {
            assert!(!needs_no_tls(format!("{other}\r\nhello").as_bytes()), "{other}");
        }
    }

    #[test]
    fn body_without_header_has_no_fields() {
        assert_eq!(fields(b"hello world: no\r\n").count(), 0);
        assert_eq!(fields(b"").count(), 0);
    }
}
