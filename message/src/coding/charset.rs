//! Text of any charset as UTF-8.

use encoding_rs::Encoding;

/// Why octets are no text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CharsetError {
    #[error("the charset {0} is not known")]
    Unknown(String),
    #[error("the text is not in its charset, {0}")]
    Malformed(String),
}

/// `octets` as the charset `label` has them. US-ASCII that is UTF-8 is taken as such: so are texts without a charset.
pub(crate) fn decode(label: &str, octets: &[u8]) -> Result<String, CharsetError> {
    let malformed = || CharsetError::Malformed(shown(label));
    if is_utf8(label) {
        return std::str::from_utf8(octets).map(str::to_owned).map_err(|_| malformed());
    }
    let encoding =
        Encoding::for_label(label.as_bytes()).ok_or_else(|| CharsetError::Unknown(shown(label)))?;
    let text = encoding.decode_without_bom_handling_and_without_replacement(octets).ok_or_else(malformed)?;
    Ok(text.into_owned())
}

fn is_utf8(label: &str) -> bool {
    ["", "us-ascii", "utf-8", "utf8", "ascii"].iter().any(|known| label.eq_ignore_ascii_case(known))
}

/// The label for a message to people.
fn shown(label: &str) -> String {
    label.chars().filter(|char| !char.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_are_known_by_their_labels() {
        assert_eq!(decode("", b"ann").unwrap(), "ann");
        assert_eq!(decode("US-ASCII", "é".as_bytes()).unwrap(), "é");
        assert_eq!(decode("iso-8859-1", b"\xe9").unwrap(), "é");
        assert_eq!(decode("KOI8-R", b"\xd0\xd2\xc9").unwrap(), "при");
        assert_eq!(decode("iso-2022-jp", b"\x1b$B$\"\x1b(B").unwrap(), "あ");
        assert_eq!(decode("utf-8", b"\xe9"), Err(CharsetError::Malformed("utf-8".into())));
        assert_eq!(decode("x-none\r\n", b"a"), Err(CharsetError::Unknown("x-none".into())));
    }
}
