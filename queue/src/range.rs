//! The unit of owing: some neighbouring recipients of one message, all at one domain.

use crate::store::MessageKey;

/// A domain's number in its core's table of domains.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct DomainKey(pub u32);

/// Recipients `first .. first + count` of a message, owed at one domain. A whole list at one domain is one
/// range; a single deferred recipient is one too. 24 bytes, which is all the memory that an owed recipient costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    pub message: MessageKey,
    pub domain: DomainKey,
    /// Index of the first recipient.
    pub first: u32,
    pub count: u32,
    /// Where in the message's meta part the first recipient's name stands.
    pub name_offset: u32,
    /// Attempts that were made for all of them.
    pub attempts: Attempts,
    /// Why they wait: a key into their core's table of reasons, 0 if that is not known. Not on disk.
    pub reason: u16,
}

const _: () = assert!(size_of::<Range>() <= 24);

/// How often somebody was tried, and whether the sender has been told of the delay: one number on disk.
///
/// The order is that of the number: who has been told comes after everybody who has not, whatever the counts. A
/// recipient's count only rises and the bit is never taken back, so the later of its marks is always the greater.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attempts(u16);

/// The sender was told of the delay, or there is nobody to tell.
const WARNED: u16 = 1 << 15;

impl Attempts {
    pub const NONE: Attempts = Attempts(0);

    /// That many, of which nobody was told. Counts stop at 32,767: more than any schedule asks for.
    pub const fn new(count: u16) -> Attempts {
        Attempts(if count < WARNED { count } else { WARNED - 1 })
    }

    pub const fn count(self) -> u16 {
        self.0 & !WARNED
    }

    /// After one more.
    #[must_use]
    pub const fn plus_one(self) -> Attempts {
        Attempts(self.0 & WARNED | Attempts::new(self.count() + 1).0)
    }

    pub const fn is_warned(self) -> bool {
        self.0 & WARNED != 0
    }

    /// The same count, and the sender knows.
    #[must_use]
    pub const fn warned(self) -> Attempts {
        Attempts(self.0 | WARNED)
    }

    /// As on disk.
    pub const fn from_bits(bits: u16) -> Attempts {
        Attempts(bits)
    }

    pub const fn to_bits(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_is_told_once_and_no_count_shows_it() {
        let warned = Attempts::new(4).warned();
        assert_eq!((warned.count(), warned.is_warned()), (4, true));
        assert_eq!((warned.plus_one().count(), warned.plus_one().is_warned()), (5, true));
        assert_eq!(Attempts::from_bits(warned.to_bits()), warned);
        assert!(!Attempts::new(u16::MAX).is_warned());
    }

    #[test]
    fn each_step_of_a_recipient_comes_after_the_one_before() {
        let steps = [Attempts::NONE, Attempts::new(1), Attempts::new(7), Attempts::new(7).warned()];
        assert!(steps.is_sorted_by(|a, b| a < b));
        assert!(Attempts::new(7).warned() < Attempts::new(7).warned().plus_one());
    }

    #[test]
    fn count_stops_before_it_could_be_taken_for_a_warning() {
        let most = Attempts::new(32_767);
        assert_eq!((most.plus_one(), most.plus_one().is_warned()), (most, false));
        assert_eq!(most.warned().plus_one(), most.warned());
    }
}
