//! Tag lists: `v=1; d=example.org` (RFC 6376 §3.2).

/// Name and value of each tag, without the white space around them. What is no tag is passed over.
pub(super) fn tags(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|octet| *octet == b';').filter_map(|tag| {
        let equals = memchr::memchr(b'=', tag)?;
        Some((tag[..equals].trim_ascii(), tag[equals + 1..].trim_ascii()))
    })
}

/// The value of the first tag of that name.
pub(super) fn tag<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    tags(text).find(|(of, _)| *of == name.as_bytes()).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_between_whatever_white_space() {
        let text = b" v=1; a=rsa-sha256;\r\n\td = example.org ; x;b=a=b;";
        assert_eq!(tag(text, "d"), Some(&b"example.org"[..]));
        assert_eq!(tag(text, "b"), Some(&b"a=b"[..]));
        assert_eq!((tag(text, "x"), tag(text, "s"), tag(b"", "v")), (None, None, None));
    }
}
