//! How urgent a message is: its priority as asked for (RFC 6710, RFC 6758), and the lane that it gets.
//!
//! A lane is all that the queue looks at. Which one a message gets is decided once, when it comes, by [`Wish::lane`].

/// What goes first when a site has work of more than one kind. Ordered: `Urgent` is the least.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Somebody waits for it: a password, a receipt.
    Urgent,
    #[default]
    Normal,
    /// Lists and newsletters.
    Bulk,
}

impl Lane {
    /// The most urgent first, each at its [`Lane::index`].
    pub const ALL: [Lane; 3] = [Lane::Urgent, Lane::Normal, Lane::Bulk];

    /// Its place in a table of lanes.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Two bits for the disk. Normal is 0, which is what records say that were written before there were lanes.
    pub const fn to_bits(self) -> u8 {
        match self {
            Lane::Normal => 0,
            Lane::Urgent => 1,
            Lane::Bulk => 2,
        }
    }

    /// The inverse; 3, which nobody writes, is normal. Only the two lowest bits count.
    pub const fn from_bits(bits: u8) -> Lane {
        match bits & 3 {
            1 => Lane::Urgent,
            2 => Lane::Bulk,
            _ => Lane::Normal,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Lane::Urgent => "urgent",
            Lane::Normal => "normal",
            Lane::Bulk => "bulk",
        }
    }
}

/// A priority of RFC 6710, -9 to 9; 0 is what mail has that asks for nothing.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Priority(i8);

impl Priority {
    pub const NORMAL: Priority = Priority(0);

    /// RFC 6710 §7: a digit, with a minus in front unless it is 0.
    pub fn parse(text: &str) -> Option<Priority> {
        match *text.as_bytes() {
            [digit @ b'0'..=b'9'] => Some(Priority((digit - b'0').cast_signed())),
            [b'-', digit @ b'1'..=b'9'] => Some(Priority(-(digit - b'0').cast_signed())),
            _ => None,
        }
    }

    /// What a client without rights gets: RFC 6710 §5.1 forbids that it raises its mail above others', and allows that
    /// it steps back.
    #[must_use]
    pub fn unprivileged(self) -> Priority {
        self.min(Priority::NORMAL)
    }
}

/// What is known of how urgent a message is when it comes.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// From MAIL or else from the header. `None`: nothing was said.
    pub priority: Option<Priority>,
    pub verp: bool,
    pub recipients: u32,
    /// A message for more recipients than this is bulk unless it says otherwise.
    pub bulk_recipients: u32,
}

impl Wish {
    /// The rule. Priority 0 says no more than silence, since clients send it that mean nothing by it.
    pub fn lane(self) -> Lane {
        match self.priority.unwrap_or_default().0 {
            1.. => Lane::Urgent,
            ..0 => Lane::Bulk,
            0 if self.verp || self.recipients > self.bulk_recipients => Lane::Bulk,
            0 => Lane::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(priority: Option<&str>, verp: bool, recipients: u32) -> Lane {
        let priority = priority.map(|text| Priority::parse(text).unwrap());
        Wish { priority, verp, recipients, bulk_recipients: 100 }.lane()
    }

    #[test]
    fn what_is_said_counts_before_what_it_looks_like() {
        assert_eq!(lane(Some("1"), true, 1_000_000), Lane::Urgent);
        assert_eq!(lane(Some("9"), false, 1), Lane::Urgent);
        assert_eq!(lane(Some("-1"), false, 1), Lane::Bulk);
    }

    #[test]
    fn silence_and_zero_leave_it_to_verp_and_size() {
        for silent in [None, Some("0")] {
            assert_eq!(lane(silent, false, 100), Lane::Normal);
            assert_eq!(lane(silent, false, 101), Lane::Bulk);
            assert_eq!(lane(silent, true, 1), Lane::Bulk);
        }
    }

    #[test]
    fn priority_is_one_digit_with_a_sign_only_below_zero() {
        for bad in ["", "-", "-0", "+1", "10", "-10", "00", "a", " 1", "1 ", "٣"] {
            assert_eq!(Priority::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Priority::parse("-9"), Some(Priority(-9)));
        assert_eq!(Priority::parse("9"), Some(Priority(9)));
    }

    #[test]
    fn client_without_rights_can_only_step_back() {
        let got = |text| Priority::parse(text).unwrap().unprivileged();
        assert_eq!((got("9"), got("0"), got("-3")), (Priority::NORMAL, Priority::NORMAL, Priority(-3)));
    }

    #[test]
    fn lanes_come_back_from_their_bits() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_bits(lane.to_bits()), lane);
            assert_eq!(Lane::ALL[lane.index()], lane);
        }
        assert_eq!((Lane::from_bits(0), Lane::from_bits(3)), (Lane::Normal, Lane::Normal));
        assert!(Lane::Urgent < Lane::Normal && Lane::Normal < Lane::Bulk);
    }
}
