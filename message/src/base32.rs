//! Base 32 (RFC 4648 §6) in lower case and without padding: for tokens that must survive a change of case.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Letters that `len` octets take.
pub(crate) const fn letters(len: usize) -> usize {
    (len * 8).div_ceil(5)
}

/// The letter at `place`.
pub(crate) fn letter(plain: &[u8], place: usize) -> u8 {
    let bit = place * 5;
    let octet = |at: usize| u16::from(plain.get(at).copied().unwrap_or(0));
    let pair = octet(bit / 8) << 8 | octet(bit / 8 + 1);
    ALPHABET[usize::from(pair >> (11 - bit % 8) & 31)]
}

/// True for a letter of the alphabet in either case.
pub(crate) fn is_letter(octet: u8) -> bool {
    ALPHABET.contains(&octet.to_ascii_lowercase())
}

/// Fills `plain` with what `text` says; silent if it has other letters, or more or fewer than that takes.
pub(crate) fn decode(text: &[u8], plain: &mut [u8]) -> Option<()> {
    if text.len() != letters(plain.len()) {
        return None;
    }
    plain.fill(0);
    for (place, octet) in text.iter().enumerate() {
        let value = ALPHABET.iter().position(|letter| *letter == octet.to_ascii_lowercase())?;
        for bit in (0..5).filter(|bit| value >> (4 - bit) & 1 == 1) {
            let at = place * 5 + bit;
            // Bits beyond the last octet must be 0: else two texts would say the same.
            *plain.get_mut(at / 8)? |= 1 << (7 - at % 8);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(plain: &[u8]) -> String {
        (0..letters(plain.len())).map(|place| char::from(letter(plain, place))).collect()
    }

    #[test]
    fn letters_are_those_of_the_standard() {
        assert_eq!(encode(b"foobar"), "mzxw6ytboi");
        let mut plain = [0; 4];
        assert_eq!(decode(b"MZXW6Yq", &mut plain), Some(()));
        assert_eq!(&plain, b"foob");
        for wrong in ["mzxw6yr", "mzxw6y", "mzxw6y1", "mzxw6yqa"] {
            assert_eq!(decode(wrong.as_bytes(), &mut plain), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn decoding_inverts_encoding(plain in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..50)) {
            let mut back = vec![0; plain.len()];
            proptest::prop_assert_eq!(decode(encode(&plain).as_bytes(), &mut back), Some(()));
            proptest::prop_assert_eq!(back, plain);
        }
    }
}
