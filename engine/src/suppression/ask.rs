//! What is asked of the list over the control socket, and told: one JSON object a line, whose key `suppress` says what.
//!
//! Trusts nothing that comes in: addresses, lists and reasons are checked when they are made entries. Bound: [`ORDER_LEN_MAX`]
//! entries a line.

use super::book::Filter;
use super::csv::seconds_text;
use super::entry::{Entry, Listed, Reason, Who};
use super::writer::ORDER_LEN_MAX;
use crate::keyset::Stat;
use message::{UnixMillis, list_id};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Entries of one line of an export.
pub const ROWS_MAX: usize = 500;

/// See the module.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "suppress", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    Add {
        entries: Vec<EntryRow>,
    },
    Remove {
        who: Vec<WhoRow>,
    },
    /// Whether mail of that list goes to them.
    Check {
        who: Vec<WhoRow>,
    },
    /// No list: all entries. An empty one: those that hold for all lists.
    Export {
        list: Option<String>,
        reason: Option<Reason>,
    },
    Stat,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WhoRow {
    pub address: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub list: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRow {
    pub address: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub list: String,
    pub reason: Reason,
    /// Seconds since 1970. None: now.
    pub at: Option<u64>,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// Whether each changed something, in their order.
    Changed(Vec<bool>),
    /// Reason and seconds since 1970 of each who is on the list.
    Found(Vec<Option<(Reason, u64)>>),
    /// More of them may follow.
    Rows(Vec<EntryRow>),
    Exported {
        entries: u64,
        damaged: u64,
    },
    Stat(StatRow),
}

/// How large the list is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct StatRow {
    pub entries: u64,
    pub reasons: Vec<(Reason, u64)>,
    pub disk: u64,
    pub memory: u64,
    pub files: usize,
    pub keeps_addresses: bool,
}

impl StatRow {
    pub fn new(stat: &Stat, keeps_addresses: bool) -> StatRow {
        let count = |reason: Reason| (reason, stat.counts.0[usize::from(reason.kind())]);
        StatRow {
            entries: stat.counts.sum(),
            reasons: Reason::ALL.into_iter().map(count).collect(),
            disk: stat.disk,
            memory: stat.memory,
            files: stat.files,
            keeps_addresses,
        }
    }
}

impl WhoRow {
    pub fn new(who: &Who) -> WhoRow {
        WhoRow { address: who.address.as_str().to_owned(), list: who.list.to_string() }
    }

    pub fn check(&self) -> Result<Who, String> {
        Who::parse(&self.list, &self.address)
    }
}

impl EntryRow {
    pub fn new(entry: &Entry) -> EntryRow {
        let WhoRow { address, list } = WhoRow::new(&entry.who);
        EntryRow { address, list, reason: entry.reason, at: Some(entry.at.seconds()) }
    }

    pub fn check(&self, now: UnixMillis) -> Result<Entry, String> {
        let at = self.at.map_or(now, |secs| UnixMillis(secs.saturating_mul(1000)));
        Ok(Entry { who: Who::parse(&self.list, &self.address)?, reason: self.reason, at })
    }
}

impl Ask {
    /// Reads one line. `None`: it asks nothing of the list.
    pub fn parse(line: &[u8]) -> Option<Result<Ask, String>> {
        #[derive(Deserialize)]
        struct Key {
            suppress: Option<IgnoredAny>,
        }
        serde_json::from_slice::<Key>(line).ok()?.suppress?;
        let ask = serde_json::from_slice::<Ask>(line).map_err(|error| format!("nothing to ask: {error}"));
        Some(ask.and_then(Ask::check))
    }

    fn check(self) -> Result<Ask, String> {
        let len = match &self {
            Ask::Add { entries } => entries.len(),
            Ask::Remove { who } | Ask::Check { who } => who.len(),
            Ask::Export { .. } | Ask::Stat => 0,
        };
        if len > ORDER_LEN_MAX { Err(format!("more than {ORDER_LEN_MAX} entries")) } else { Ok(self) }
    }
}

/// The filter of an export.
pub fn filter_of(list: Option<&str>, reason: Option<Reason>) -> Result<Filter, String> {
    let list = list.map(|list| list_id(list).ok_or_else(|| format!("{list:?} is no id of a list")));
    Ok(Filter { list: list.transpose()?, reason })
}

/// `complaint since 2026-11-22T23:50:57Z`.
impl std::fmt::Display for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} since {}", self.reason.name(), seconds_text(self.at))
    }
}

/// For the fuzzer: any octets as a line.
pub fn fuzz_suppression_ask(bytes: &[u8]) {
    if let Some(Ok(ask)) = Ask::parse(bytes) {
        let line = serde_json::to_vec(&ask).unwrap_or_default();
        assert_eq!(Ask::parse(&line), Some(Ok(ask)), "what is said of a question must be that question");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn line_with_the_key_is_for_the_list_and_others_are_not() {
        let parse = |line: &str| Ask::parse(line.as_bytes());
        assert_eq!(parse(r#"{"suppress":"stat"}"#), Some(Ok(Ask::Stat)));
        let add = r#"{"entries":[{"address":"ann@a.test","reason":"hard-bounce"}],"suppress":"add"}"#;
        let row = EntryRow {
            address: "ann@a.test".into(),
            list: String::new(),
            reason: Reason::HardBounce,
            at: None,
        };
        assert_eq!(parse(add), Some(Ok(Ask::Add { entries: vec![row] })));
        for other in [r#"{"action":"stat"}"#, r#"{"look":"sites"}"#, "hello", ""] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let error = |line: &str| Ask::parse(line.as_bytes()).unwrap().unwrap_err();
        assert!(error(r#"{"suppress":"away"}"#).starts_with("nothing to ask: unknown variant `away`"));
        let who = vec![WhoRow { address: String::new(), list: String::new() }; ORDER_LEN_MAX + 1];
        let line = serde_json::to_string(&Ask::Remove { who }).unwrap();
        assert_eq!(error(&line), "more than 10000 entries");
        let row = EntryRow { address: "ann".into(), list: String::new(), reason: Reason::Manual, at: None };
        assert!(row.check(UnixMillis(0)).unwrap_err().contains("no @"));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), address in "\\PC{0,20}", at in any::<Option<u64>>()) {
            fuzz_suppression_ask(&bytes);
            let entries = vec![EntryRow { address, list: String::new(), reason: Reason::Manual, at }];
            let _ = entries[0].check(UnixMillis(0));
            fuzz_suppression_ask(&serde_json::to_vec(&Ask::Add { entries }).unwrap());
        }
    }
}
