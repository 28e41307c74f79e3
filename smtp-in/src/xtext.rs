//! xtext (RFC 3461 §4): printable ASCII, with `+` and two upper-case hexadecimal digits for all else.

/// `None` for what is no xtext. Lower-case digits are taken: Postfix and nginx are not strict about them either.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (mut octets, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&first, tail)) = rest.split_first() {
        match first {
            b'+' => {
                let (digits, tail) = tail.split_first_chunk::<2>()?;
                octets.push(hex(digits[0])? << 4 | hex(digits[1])?);
                rest = tail;
            }
            b'!'..=b'~' if first != b'=' => {
                octets.push(first);
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(octets)
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pluses_stand_for_octets() {
        assert_eq!(decode(b"e+3Dmc2@example.com+00+2b").as_deref(), Some(&b"e=mc2@example.com\0+"[..]));
        for bad in ["a=b", "a+", "a+4", "a+4g", "a b", "\u{e9}", "a\x7f"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
