//! A message's name: unique for the life of the queue, never used again.

use std::fmt;

/// Where the message was first written, which is why it cannot repeat: 8 bits partition, 32 bits the
/// generation of its segment (each incarnation of a segment file has a generation of its own), 24 bits the
/// record's place in the segment in units of [`MessageId::PLACE_UNIT`] bytes.
///
/// Prints as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageId(pub u64);

impl MessageId {
    /// Records begin at multiples of this many bytes.
    pub const PLACE_UNIT: u64 = 64;

    /// `None` if the place is beyond 1 GiB or not on a unit.
    pub fn new(partition: u8, generation: u32, place: u64) -> Option<MessageId> {
        let unit = place / Self::PLACE_UNIT;
        (place.is_multiple_of(Self::PLACE_UNIT) && unit < 1 << 24)
            .then(|| MessageId(u64::from(partition) << 56 | u64::from(generation) << 24 | unit))
    }

    pub fn partition(self) -> u8 {
        (self.0 >> 56) as u8
    }

    #[expect(clippy::cast_possible_truncation, reason = "the field is 32 bits wide")]
    pub fn generation(self) -> u32 {
        (self.0 >> 24) as u32
    }

    /// Byte offset in the segment.
    pub fn place(self) -> u64 {
        (self.0 & 0xff_ffff) * Self::PLACE_UNIT
    }

    /// Reads what `Display` printed.
    pub fn parse(text: &str) -> Option<MessageId> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(MessageId)).flatten()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let id = MessageId::new(3, 70_000, 4096).unwrap();
        assert_eq!((id.partition(), id.generation(), id.place()), (3, 70_000, 4096));
        assert_eq!(MessageId::parse(&id.to_string()), Some(id));
        assert_eq!(MessageId::new(0, 1, 63), None);
        assert_eq!(MessageId::new(0, 1, 1 << 30), None);
    }
}
