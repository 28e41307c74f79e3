//! Which octets stand in a URL as they are (RFC 3986 §2).

/// §2.3: they mean nothing but themselves.
pub(crate) fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

/// All that may stand in a URL, the sign of what is encoded included.
pub(crate) fn is_of_url(octet: u8) -> bool {
    is_unreserved(octet) || b":/?#[]@!$&'()*+,;=%".contains(&octet)
}

/// The octets of `text`, each but those that `stay` encoded.
pub(crate) fn percent_encoded(text: &str, stay: fn(u8) -> bool) -> impl Iterator<Item = u8> {
    text.bytes().flat_map(move |octet| {
        let [_, high, low] = super::quoted_printable::hex(octet);
        let (coded, len) = if stay(octet) { ([octet, 0, 0], 1) } else { ([b'%', high, low], 3) };
        coded.into_iter().take(len)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_is_encoded() {
        let coded = |text, stay| String::from_utf8(percent_encoded(text, stay).collect()).unwrap();
        assert_eq!(coded("a b/é~", is_unreserved), "a%20b%2F%C3%A9~");
        assert_eq!(coded("https://a/?b=%20>\r\n", is_of_url), "https://a/?b=%20%3E%0D%0A");
    }
}
