//! Header fields of a message as it came (RFC 5322 §2.2): found, not interpreted.

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

/// Hosts that this message passed: its `Received` and `Delivered-To` fields (RFC 5321 §6.3).
pub fn hop_count(content: &[u8]) -> usize {
    fields(content)
        .filter(|field| {
            field.name.eq_ignore_ascii_case(b"received") || field.name.eq_ignore_ascii_case(b"delivered-to")
        })
        .count()
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
    fn body_without_header_has_no_fields() {
        assert_eq!(fields(b"hello world: no\r\n").count(), 0);
        assert_eq!(fields(b"").count(), 0);
    }
}
