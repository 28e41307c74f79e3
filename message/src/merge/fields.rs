//! A recipient's values as the queue keeps them behind his name: for each value its length as a little-endian u16, then
//! its octets. The order is that of the columns.
//!
//! Bound: a record has at most [`RECORD_MAX`] octets, so that its own length fits a u16.

/// Octets of a record.
pub const RECORD_MAX: usize = 0xffff;

/// The values are too long for a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the values take {len} octets; {RECORD_MAX} can be kept")]
pub struct TooLong {
    pub len: usize,
}

/// The record does not say what a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the record of values is damaged at octet {at}")]
pub struct Damaged {
    pub at: usize,
}

/// Appends the record of `values`, or nothing.
pub fn encode(values: &[&str], out: &mut Vec<u8>) -> Result<(), TooLong> {
    let len = values.iter().map(|value| value.len() + 2).sum();
    if len > RECORD_MAX {
        return Err(TooLong { len });
    }
    for value in values {
        let len = u16::try_from(value.len()).map_err(|_| TooLong { len })?;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    Ok(())
}

/// The values of a record, in its memory. After damage there is nothing more.
pub fn decode(record: &[u8]) -> impl Iterator<Item = Result<&str, Damaged>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = record.get(at..).filter(|rest| !rest.is_empty())?;
        let Some((value, len)) = first(rest) else {
            let damaged = Damaged { at };
            at = record.len();
            return Some(Err(damaged));
        };
        at += len;
        Some(Ok(value))
    })
}

fn first(rest: &[u8]) -> Option<(&str, usize)> {
    let (len, tail) = rest.split_first_chunk()?;
    let value = tail.get(..usize::from(u16::from_le_bytes(*len)))?;
    Some((std::str::from_utf8(value).ok()?, 2 + value.len()))
}

/// For the fuzzer: what can be read is written the same.
pub fn fuzz_merge_fields(bytes: &[u8]) {
    let Ok(values) = decode(bytes).collect::<Result<Vec<_>, _>>() else { return };
    let mut out = Vec::new();
    match encode(&values, &mut out) {
        Ok(()) => assert_eq!(out, bytes),
        Err(TooLong { len }) => assert!(len > RECORD_MAX && len == bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_is_as_long_as_a_u16_can_say() {
        let (mut out, value) = (Vec::new(), "v".repeat(RECORD_MAX - 2));
        encode(&[&value], &mut out).unwrap();
        assert_eq!(out.len(), RECORD_MAX);
        assert_eq!(encode(&[&value, ""], &mut Vec::new()), Err(TooLong { len: RECORD_MAX + 2 }));
    }

    #[test]
    fn damage_ends_the_record() {
        assert_eq!(decode(b"\x01\0a\x02\0b").collect::<Vec<_>>(), [Ok("a"), Err(Damaged { at: 3 })]);
        assert_eq!(decode(b"\x01\0\xff").collect::<Vec<_>>(), [Err(Damaged { at: 0 })]);
        assert_eq!(decode(b"\x01").collect::<Vec<_>>(), [Err(Damaged { at: 0 })]);
        assert_eq!(decode(b"").count(), 0);
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding(values in proptest::collection::vec("\\PC{0,20}", 0..10)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let mut out = Vec::new();
            encode(&values, &mut out).unwrap();
            prop_assert_eq!(decode(&out).collect::<Result<Vec<_>, _>>(), Ok(values));
        }

        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            fuzz_merge_fields(&bytes);
        }
    }
}
