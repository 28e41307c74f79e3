//! `[suppression]`: who gets no mail, what is refused for it, and how somebody comes to be on that list.

use crate::providers::EnhancedRange;
use crate::suppression::pattern_builder;
use message::Lane;
use serde::{Deserialize, Serialize};

/// Patterns of senders, codes or texts.
const PATTERNS_MAX: usize = 100;

/// Entries at most: what their filters take of memory (1.6 octets each, twice that while files are merged).
const ENTRIES_MAX: u64 = 1_000_000_000;

/// See the module. Adding, removing, importing and exporting is `ringpost suppress`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Suppression {
    /// What becomes of a recipient who is on the list for all lists: taken, and ended before anything is sent to it; or
    /// refused with 550. A list's own entries are known only when its message is there.
    pub at_rcpt: AtRcpt,
    /// Keep the addresses too, in clear, for the export. Without, only keyed hashes are kept, and addresses that were kept
    /// are removed at the next start.
    pub keep_addresses: bool,
    pub entries_max: u64,
    /// Octets of memory that entries may take, twice that while files are merged: whoever is in them is found without a
    /// read. 21 octets an entry; a start reads that much.
    pub memory_max: u64,
    /// Reverse-paths whose mail goes in any case; `*` stands for anything. Mail from `<>` always does.
    pub exempt_senders: Vec<String>,
    /// Lanes whose mail goes in any case: urgent, normal, bulk.
    #[serde(with = "lanes")]
    pub exempt_lanes: Vec<Lane>,
    /// Hard bounces of mail in these lanes put the recipient on the list, for all lists. None: no bounce does. A report that
    /// comes back later (`[bounces]`) does not say which lane its message was in, and counts as one about bulk mail.
    #[serde(with = "lanes")]
    pub bounce_lanes: Vec<Lane>,
    /// What a hard bounce is: the enhanced code of the refusal, or the status in the report, `5.1.1` or `5.1.*`; a code of
    /// policy (5.7) never is one.
    pub bounce_codes: Vec<String>,
    /// Or its text, by a regular expression in either case.
    pub bounce_patterns: Vec<String>,
}

/// See [`Suppression::at_rcpt`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtRcpt {
    #[default]
    Accept,
    Refuse,
}

impl Default for Suppression {
    fn default() -> Suppression {
        Suppression {
            at_rcpt: AtRcpt::Accept,
            keep_addresses: true,
            entries_max: 100_000_000,
            memory_max: 128 << 20,
            exempt_senders: Vec::new(),
            exempt_lanes: Vec::new(),
            bounce_lanes: vec![Lane::Bulk],
            bounce_codes: ["5.1.1", "5.1.6", "5.1.10"].map(str::to_owned).to_vec(),
            bounce_patterns: Vec::new(),
        }
    }
}

impl Suppression {
    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (codes, patterns) = (&self.bounce_codes, &self.bounce_patterns);
        if let Some(code) = codes.iter().find(|code| !is_code(code)) {
            return Err(format!(
                "suppression.bounce_codes: {code:?} is no code of RFC 3463 that begins with 5 and is not about policy; write 5.1.1 or 5.1.*"
            ));
        }
        if let Err(error) = pattern_builder(patterns).build() {
            return Err(format!("suppression.bounce_patterns: {error}"));
        }
        let rules = [
            (
                self.at_rcpt == AtRcpt::Accept || self.exempt_lanes.is_empty(),
                "suppression.at_rcpt = \"refuse\" does not know yet which lane a message will have: \
                 leave exempt_lanes empty, or say \"accept\"",
            ),
            (
                (1..=ENTRIES_MAX).contains(&self.entries_max),
                "suppression.entries_max must be 1 to 1000000000",
            ),
            (
                [codes, patterns, &self.exempt_senders].into_iter().all(|list| list.len() <= PATTERNS_MAX),
                "suppression: bounce_codes, bounce_patterns and exempt_senders have at most 100 entries each",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }
}

fn is_code(code: &str) -> bool {
    code.starts_with("5.") && !code.starts_with("5.7.") && EnhancedRange::parse(code).is_some()
}

/// Lanes by their names.
mod lanes {
    use message::Lane;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(lanes: &[Lane], serializer: S) -> Result<S::Ok, S::Error> {
        lanes.iter().map(|lane| lane.name()).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Lane>, D::Error> {
        let lane = |name: String| {
            let found = Lane::ALL.into_iter().find(|lane| lane.name() == name);
            found.ok_or_else(|| {
                D::Error::custom(format!("{name:?} is no lane; there are urgent, normal and bulk"))
            })
        };
        Vec::<String>::deserialize(deserializer)?.into_iter().map(lane).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(keys: &str) -> String {
        toml::from_str::<Suppression>(keys).unwrap().check().unwrap_err()
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        assert!(wrong("bounce_codes = [\"5.7.1\"]").contains("not about policy; write 5.1.1"));
        assert!(wrong("bounce_codes = [\"4.1.1\"]").contains("begins with 5"));
        assert!(wrong("bounce_patterns = [\"(\"]").starts_with("suppression.bounce_patterns: "));
        assert!(
            wrong("at_rcpt = \"refuse\"\nexempt_lanes = [\"urgent\"]").contains("leave exempt_lanes empty")
        );
        assert!(wrong("entries_max = 0").contains("1 to 1000000000"));
        assert!(wrong(&format!("exempt_senders = {:?}", ["a"; 101])).contains("at most 100"));
        let lane = toml::from_str::<Suppression>("bounce_lanes = [\"fast\"]").unwrap_err();
        assert!(lane.message().contains("there are urgent, normal and bulk"), "{lane}");
        assert!(Suppression::default().check().is_ok());
    }

    #[test]
    fn what_is_shown_can_be_read() {
        let text = toml::to_string(&Suppression::default()).unwrap();
        assert!(text.contains("bounce_lanes = [\"bulk\"]"), "{text}");
        assert_eq!(toml::to_string(&toml::from_str::<Suppression>(&text).unwrap()).unwrap(), text);
    }
}
