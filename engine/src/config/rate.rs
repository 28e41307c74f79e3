//! Times and rates as an operator writes them: `"90s"`, `"2h"`; `"100/min"`, `"30/10s"`.
//!
//! Units are `s`, `min`, `h` and `d`. `m` is none: half of the world takes it for a month. Bound: a time is at most
//! [`SPAN_MAX`], a count fits in 32 bits.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Nothing that is configured lasts longer.
pub const SPAN_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Largest first: a time is shown in the largest unit that divides it.
const UNITS: [(&str, u64); 4] = [("d", 24 * 3600), ("h", 3600), ("min", 60), ("s", 1)];

/// How long something lasts; at least a second.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// At most 31, at least one.
    pub(super) const fn of_days(days: u64) -> Span {
        Span(Duration::from_secs(days * 24 * 3600))
    }

    pub fn duration(self) -> Duration {
        self.0
    }

    /// `30min`; with `bare_unit`, `min` stands for `1min`.
    fn parse(text: &str, bare_unit: bool) -> Option<Span> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let count: u64 = if count.is_empty() && bare_unit { 1 } else { count.parse().ok()? };
        let (_, secs) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let span = Duration::from_secs(count.checked_mul(*secs)?);
        (!span.is_zero() && span <= SPAN_MAX).then_some(Span(span))
    }

    /// The largest unit that divides it, and how often.
    fn in_units(self) -> (u64, &'static str) {
        let secs = self.0.as_secs();
        let (unit, len) = UNITS.iter().find(|(_, len)| secs.is_multiple_of(*len)).unwrap_or(&UNITS[3]);
        (secs / len, unit)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = self.in_units();
        write!(f, "{count}{unit}")
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        Span::parse(&text, false)
            .ok_or_else(|| format!("{text:?} is no time; write 90s, 15min, 2h or 1d, at most 31d"))
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

/// At most so many in any window of that length.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    count: u32,
    window: Span,
}

impl Rate {
    /// At least 1.
    pub fn count(self) -> u32 {
        self.count
    }

    pub fn window(self) -> Duration {
        self.window.0
    }

    fn parse(text: &str) -> Option<Rate> {
        let (count, window) = text.split_once('/')?;
        // `+5` is a number to the standard library.
        let is_digits = count.bytes().all(|octet| octet.is_ascii_digit());
        let count = count.parse().ok().filter(|count| is_digits && *count > 0)?;
        Some(Rate { count, window: Span::parse(window, true)? })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.window.in_units() {
            (1, unit) => write!(f, "{}/{unit}", self.count),
            _ => write!(f, "{}/{}", self.count, self.window),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Rate, String> {
        Rate::parse(&text).ok_or_else(|| {
            format!("{text:?} is no rate; write 100/s, 100/min, 5000/h, 200000/d or 30/10s, at least 1")
        })
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

/// Whatever is read is shown so that it reads the same.
pub fn fuzz_rate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(rate) = Rate::parse(text) {
        assert_eq!(Rate::parse(&rate.to_string()), Some(rate));
    }
    if let Some(span) = Span::parse(text, false) {
        assert_eq!(Span::parse(&span.to_string(), false), Some(span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_counts_in_windows() {
        for (text, count, secs) in [
            ("100/s", 100, 1),
            ("100/min", 100, 60),
            ("5000/h", 5000, 3600),
            ("200000/d", 200_000, 86_400),
            ("30/10s", 30, 10),
            ("1/2h", 1, 7200),
        ] {
            let rate = Rate::try_from(text.to_owned()).unwrap();
            assert_eq!((rate.count(), rate.window().as_secs()), (count, secs), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!(Rate::try_from("5/60min".to_owned()).unwrap().to_string(), "5/h");
    }

    #[test]
    fn what_is_no_rate_is_refused_with_what_to_write() {
        for text in ["", "5", "0/s", "5/m", "5/month", "-5/s", "+5/s", "5/0s", "5/ s", "5/s ", "5/32d", "x/s"]
        {
            let error = Rate::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains("write 100/s"), "{text:?}: {error}");
        }
        assert!(Rate::try_from("4294967296/s".to_owned()).is_err());
    }

    #[test]
    fn times_have_a_number_and_a_unit() {
        assert_eq!(Span::try_from("90s".to_owned()).unwrap().duration(), Duration::from_secs(90));
        assert_eq!(Span::try_from("7200s".to_owned()).unwrap().to_string(), "2h");
        for text in ["h", "0h", "2", "2m", "2 h", "32d", "99999999999999999999s", "1h30min"] {
            assert!(Span::try_from(text.to_owned()).unwrap_err().contains("write 90s"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_rate_or_refused(text in "[0-9]{0,12}/?[0-9]{0,4}(s|min|h|d|m)?") {
            fuzz_rate(text.as_bytes());
        }
    }
}
