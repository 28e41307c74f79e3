//! Recipients by number: recipient `i` of a run is `u{i:06}@` in domain number `i % domain_count + 1`.
//!
//! Source and audit both work from the number, so a million recipients are never listed anywhere.
//! Reading an address back accepts it only if the domain is the one its number belongs to.

use std::fmt;
use std::str::FromStr;

use crate::text::{decimal, push_decimal};

const LOCAL_DIGITS: usize = 6;

/// How a domain is made from its number: `d{:03}.test` gives `d007.test`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DomainPattern {
    before: String,
    width: Option<usize>,
    after: String,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{0}: a domain pattern has at most one {{}} or {{:03}} and is otherwise letters, digits, dots and hyphens"
)]
pub struct PatternError(String);

impl DomainPattern {
    /// Whether domains with different numbers differ.
    pub fn is_numbered(&self) -> bool {
        self.width.is_some()
    }

    fn write_to(&self, out: &mut Vec<u8>, number: u64) {
        out.extend_from_slice(self.before.as_bytes());
        if let Some(width) = self.width {
            push_decimal(out, number, width);
        }
        out.extend_from_slice(self.after.as_bytes());
    }
}

impl Default for DomainPattern {
    fn default() -> Self {
        DomainPattern { before: "d".into(), width: Some(3), after: ".test".into() }
    }
}

impl FromStr for DomainPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (before, rest) = text.split_once('{').map_or((text, None), |(before, rest)| (before, Some(rest)));
        let (inside, after) = rest
            .map_or(Some((None, "")), |rest| {
                rest.split_once('}').map(|(inside, after)| (Some(inside), after))
            })
            .ok_or_else(|| PatternError(text.into()))?;
        let width =
            inside.map(|inside| width_of(inside).ok_or_else(|| PatternError(text.into()))).transpose()?;
        let is_plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if text.is_empty() || !is_plain(before) || !is_plain(after) {
            return Err(PatternError(text.into()));
        }
        Ok(DomainPattern { before: before.into(), width, after: after.into() })
    }
}

fn width_of(inside: &str) -> Option<usize> {
    match inside.strip_prefix(":0") {
        None if inside.is_empty() => Some(1),
        None => None,
        Some(digits) => digits.parse().ok().filter(|width| (1..=9).contains(width)),
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.width {
            None => write!(f, "{}{}", self.before, self.after),
            Some(width) => write!(f, "{}{{:0{width}}}{}", self.before, self.after),
        }
    }
}

/// Every recipient of a run, by number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipients {
    pub domain_count: u64,
    pub pattern: DomainPattern,
}

impl Recipients {
    /// Appends the address of recipient `number`. No allocation beyond `out`.
    pub fn write_to(&self, out: &mut Vec<u8>, number: u64) {
        out.push(b'u');
        push_decimal(out, number, LOCAL_DIGITS);
        out.push(b'@');
        self.pattern.write_to(out, number % self.domain_count.max(1) + 1);
    }

    /// The number of the recipient whose address this is, if it is one of ours. `scratch` is overwritten.
    pub fn number_of(&self, address: &[u8], scratch: &mut Vec<u8>) -> Option<u64> {
        let at = memchr::memrchr(b'@', address)?;
        let number = decimal(address[..at].strip_prefix(b"u").or(address[..at].strip_prefix(b"U"))?)?;
        scratch.clear();
        self.write_to(scratch, number);
        scratch.eq_ignore_ascii_case(address).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str, domain_count: u64) -> Recipients {
        Recipients { domain_count, pattern: pattern.parse().unwrap() }
    }

    fn address(recipients: &Recipients, number: u64) -> String {
        let mut out = Vec::new();
        recipients.write_to(&mut out, number);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_number_goes_round_the_domains() {
        let recipients = of("d{:03}.test", 100);
        assert_eq!(address(&recipients, 0), "u000000@d001.test");
        assert_eq!(address(&recipients, 106), "u000106@d007.test");
        assert_eq!(address(&recipients, 1_234_567), "u1234567@d068.test");
    }

    #[test]
    fn an_address_gives_its_number_back_only_in_its_own_domain() {
        let (recipients, mut scratch) = (of("d{}.test", 7), Vec::new());
        for number in [0, 6, 7, 999_999, 1_000_000] {
            let text = address(&recipients, number);
            assert_eq!(recipients.number_of(text.as_bytes(), &mut scratch), Some(number));
        }
        for wrong in ["u000000@d2.test", "u0@d1.test", "x000000@d1.test", "u000000", ""] {
            assert_eq!(recipients.number_of(wrong.as_bytes(), &mut scratch), None, "{wrong}");
        }
    }

    #[test]
    fn patterns_survive_printing() {
        for text in ["d{:03}.test", "only.test", "x-{:01}.example"] {
            let pattern: DomainPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
        for wrong in ["", "d{", "d{x}", "d{}{}", "d d"] {
            assert!(wrong.parse::<DomainPattern>().is_err(), "{wrong}");
        }
    }
}
