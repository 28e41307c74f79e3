//! Who is on the list, why, and since when; and how that stands in a note on disk.

use crate::keyset::Value;
use message::{Mailbox, UnixMillis, list_id};
use serde::{Deserialize, Serialize};

/// Why somebody is on the list. Numbers stand on disk.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    HardBounce = 1,
    Complaint = 2,
    Unsubscribe = 3,
    Manual = 4,
    Import = 5,
}

impl Reason {
    pub const ALL: [Reason; 5] =
        [Reason::HardBounce, Reason::Complaint, Reason::Unsubscribe, Reason::Manual, Reason::Import];

    pub fn name(self) -> &'static str {
        match self {
            Reason::HardBounce => "hard-bounce",
            Reason::Complaint => "complaint",
            Reason::Unsubscribe => "unsubscribe",
            Reason::Manual => "manual",
            Reason::Import => "import",
        }
    }

    /// Its name, or what others call it: `bounce`, `spam`, `unsubscribed`, in any case, with `_` or blanks for `-`.
    pub fn parse(text: &str) -> Option<Reason> {
        let name = text.trim().to_ascii_lowercase().replace(['_', ' '], "-");
        match name.as_str() {
            "bounce" | "bounced" | "hardbounce" => Some(Reason::HardBounce),
            "spam" | "spam-report" | "abuse" => Some(Reason::Complaint),
            "unsubscribed" | "opt-out" | "optout" => Some(Reason::Unsubscribe),
            name => Reason::ALL.into_iter().find(|reason| reason.name() == name),
        }
    }

    pub fn kind(self) -> u8 {
        self as u8
    }

    /// One that a newer version wrote reads as an import.
    pub(super) fn of_kind(kind: u8) -> Reason {
        Reason::ALL.into_iter().find(|reason| reason.kind() == kind).unwrap_or(Reason::Import)
    }
}

/// An address, on one list or on all.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Who {
    /// As [`list_id`] gives it; empty: whatever the list.
    pub list: Box<str>,
    pub address: Mailbox,
}

impl Who {
    pub fn parse(list: &str, address: &str) -> Result<Who, String> {
        let list = list_id(list).ok_or_else(|| format!("{list:?} is no id of a list (RFC 2919)"))?;
        let address = Mailbox::parse(address.trim()).map_err(|error| format!("{address:?}: {error}"))?;
        Ok(Who { list, address })
    }
}

/// One line of the list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub who: Who,
    pub reason: Reason,
    /// Kept in whole seconds.
    pub at: UnixMillis,
}

impl Entry {
    pub(super) fn value(&self) -> Value {
        Value { kind: self.reason.kind(), at_secs: secs(self.at) }
    }

    /// List, a zero octet, address.
    pub(super) fn note(&self) -> Vec<u8> {
        [self.who.list.as_bytes(), &[0], self.who.address.as_str().as_bytes()].concat()
    }

    /// `None`: no note of ours.
    pub(super) fn of_note(note: &[u8], value: Value) -> Option<Entry> {
        let (list, address) = std::str::from_utf8(note).ok()?.split_once('\0')?;
        let who = Who { list: list.into(), address: Mailbox::parse(address).ok()? };
        let Listed { reason, at } = Listed::of(value);
        Some(Entry { who, reason, at })
    }
}

/// The last second that fits is in the year 2106.
pub(super) fn secs(at: UnixMillis) -> u32 {
    u32::try_from(at.seconds()).unwrap_or(u32::MAX)
}

/// What is known of somebody who is on the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listed {
    pub reason: Reason,
    pub at: UnixMillis,
}

impl Listed {
    pub(super) fn of(value: Value) -> Listed {
        Listed { reason: Reason::of_kind(value.kind), at: UnixMillis(u64::from(value.at_secs) * 1000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_known_by_others_names_too() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.name()), Some(reason));
            assert_eq!(Reason::of_kind(reason.kind()), reason);
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("{:?}", reason.name()));
        }
        assert_eq!(Reason::parse("HARD_BOUNCE"), Some(Reason::HardBounce));
        assert_eq!(Reason::parse(" Spam Report "), Some(Reason::Complaint));
        assert_eq!(Reason::parse("whim"), None);
    }

    #[test]
    fn entry_comes_back_from_its_note() {
        for list in ["", "news.example.net"] {
            let who = Who::parse(list, "Ann@example.net").unwrap();
            let entry = Entry { who, reason: Reason::Complaint, at: UnixMillis(9000) };
            assert_eq!(Entry::of_note(&entry.note(), entry.value()), Some(entry));
        }
        let value = Value { kind: 1, at_secs: 0 };
        for note in [&b""[..], b"ann@example.net", b"\0ann", b"\xff\0ann@example.net"] {
            assert_eq!(Entry::of_note(note, value), None);
        }
    }

    #[test]
    fn lists_and_addresses_are_checked() {
        assert!(Who::parse("", "ann").unwrap_err().contains("no @"));
        assert!(Who::parse("a\nb", "ann@example.net").unwrap_err().contains("RFC 2919"));
        assert_eq!(&*Who::parse("News <News.Example>", "a@b.c").unwrap().list, "news.example");
    }
}
