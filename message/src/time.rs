//! Wall time as it is kept on disk and printed. In memory, durations are measured with `Instant`.

/// Milliseconds since 1970-01-01T00:00:00Z. 48 bits last until the year 10889.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    pub const fn plus_secs(self, secs: u64) -> UnixMillis {
        UnixMillis(self.0.saturating_add(secs.saturating_mul(1000)))
    }

    pub const fn plus_millis(self, millis: u64) -> UnixMillis {
        UnixMillis(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to here, 0 if the clock was set back.
    pub const fn since(self, earlier: UnixMillis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// RFC 5322 §3.3 date-time in UTC: `Sun, 22 Nov 2026 23:50:57 +0000`.
    pub fn rfc5322(self) -> String {
        self.timestamp().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
    }

    /// As it stands in a mailbox file's `From ` line, in UTC: `Sun Nov 22 23:50:57 2026`. Days have two digits, as
    /// qmail's.
    pub fn asctime(self) -> String {
        self.timestamp().strftime("%a %b %d %H:%M:%S %Y").to_string()
    }

    /// RFC 3339 in UTC with milliseconds: `2026-11-22T23:50:57.123Z`.
    pub fn rfc3339(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    /// A time of RFC 3339, of any zone.
    pub fn parse_rfc3339(text: &str) -> Option<UnixMillis> {
        let time: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(time.as_millisecond()).ok().map(UnixMillis)
    }

    /// A time beyond what the calendar holds prints as the epoch.
    fn timestamp(self) -> jiff::Timestamp {
        i64::try_from(self.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_the_standards_want() {
        assert_eq!(UnixMillis(0).rfc5322(), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(UnixMillis(0).asctime(), "Thu Jan 01 00:00:00 1970");
        assert_eq!(UnixMillis(951_782_400_007).rfc3339(), "2000-02-29T00:00:00.007Z");
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for time in [UnixMillis(0), UnixMillis(951_782_400_007)] {
            assert_eq!(UnixMillis::parse_rfc3339(&time.rfc3339()), Some(time));
        }
        assert_eq!(UnixMillis::parse_rfc3339("1970-01-01T01:00:00+01:00"), Some(UnixMillis(0)));
        for text in ["", "1970", "1969-12-31T23:59:59Z", "yesterday"] {
            assert_eq!(UnixMillis::parse_rfc3339(text), None, "{text:?}");
        }
    }

    #[test]
    fn clock_set_back_is_no_time_at_all() {
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), 0);
    }
}
