//! When a message is made and what tells it from all others: Date and Message-ID (RFC 5322 §3.6.1, §3.6.4).

use crate::time::UnixMillis;

/// How a date is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Zone {
    /// `-0000`: universal time, and nothing is said about where we are (RFC 5322 §3.3).
    #[default]
    Universal,
    /// The local time, minutes east of universal time; at most 24 hours either way.
    Local(i16),
}

/// The moment and how it is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stamp {
    pub at: UnixMillis,
    pub zone: Zone,
}

/// What makes a Message-ID unlike any other of this host in this second.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unique {
    pub process: u32,
    /// Random, or counted within the process.
    pub serial: u64,
}

impl Stamp {
    /// RFC 5322 §3.3 date-time: `Sun, 22 Nov 2026 23:50:57 -0000`.
    pub fn date(self) -> String {
        let minutes = match self.zone {
            Zone::Universal => return self.written_for(0, "-0000"),
            Zone::Local(minutes) => i64::from(minutes).clamp(-24 * 60, 24 * 60),
        };
        let sign = if minutes < 0 { '-' } else { '+' };
        let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
        self.written_for(minutes, &format!("{sign}{hours:02}{rest:02}"))
    }

    fn written_for(self, minutes: i64, offset: &str) -> String {
        let local = UnixMillis(self.at.0.saturating_add_signed(minutes * 60_000)).rfc5322();
        // What `rfc5322` wrote ends in the offset that is true for universal time.
        format!("{} {offset}", local.strip_suffix(" +0000").unwrap_or(&local))
    }

    /// The message's name without brackets: `20261122235057.4711.1f@id.example`.
    pub fn message_id(self, unique: Unique, id_host: &str) -> String {
        // `2026-11-22T23:50:57.123Z`: the digits of the date and the second.
        let digits: String = self.at.rfc3339().chars().take(19).filter(char::is_ascii_digit).collect();
        format!("{digits}.{}.{:x}@{id_host}", unique.process, unique.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMillis = UnixMillis(1_795_391_457_123);

    #[test]
    fn dates_are_written_for_their_zone() {
        let date = |zone| Stamp { at: AT, zone }.date();
        assert_eq!(date(Zone::Universal), "Sun, 22 Nov 2026 23:50:57 -0000");
        assert_eq!(date(Zone::Local(60)), "Mon, 23 Nov 2026 00:50:57 +0100");
        assert_eq!(date(Zone::Local(-210)), "Sun, 22 Nov 2026 20:20:57 -0330");
        assert_eq!(date(Zone::Local(0)), "Sun, 22 Nov 2026 23:50:57 +0000");
    }

    #[test]
    fn message_id_names_second_process_and_serial() {
        let unique = Unique { process: 4711, serial: 31 };
        let stamp = Stamp { at: AT, zone: Zone::Local(600) };
        assert_eq!(stamp.message_id(unique, "id.example"), "20261122235057.4711.1f@id.example");
    }
}
