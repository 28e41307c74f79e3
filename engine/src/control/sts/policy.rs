//! The text forms of MTA-STS: the TXT record that says which policy holds (RFC 8461 §3.1) and the policy (§3.2).
//!
//! Pure. Trusts nothing: what does not keep to the form is no record and no policy. Bounds: [`PATTERNS_MAX`] patterns,
//! [`LINES_MAX`] octets of lines; the caller bounds the length.

use crate::demands::StsDemand;
use serde::{Deserialize, Serialize};

/// More MX patterns than this are no policy of ours to keep.
const PATTERNS_MAX: usize = 64;

/// Octets of its lines that are kept for reports; whole lines.
const LINES_MAX: usize = 4096;

/// A year, which is the most that §3.2 allows.
const AGE_MAX_SECS: u64 = 31_557_600;

/// Octets of an id.
const ID_MAX: usize = 32;

/// What a host that does not fit means.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// No mail for it.
    Enforce,
    /// A line in a report.
    Testing,
    /// Nothing: there is no policy any more.
    None,
}

/// A domain's policy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Policy {
    pub mode: Mode,
    /// In lower case.
    pub mx: Vec<String>,
    pub max_age_secs: u64,
    /// As it came, for reports (RFC 8460 §4.4); what is longer than anybody's is cut.
    pub lines: Vec<String>,
}

impl Policy {
    /// Reads what the policy's host sent. The error says which part is wrong.
    pub fn parse(text: &[u8]) -> Result<Policy, &'static str> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8")?;
        let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
        let mut fields = Fields::default();
        for line in lines.iter().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line.split_once(':').ok_or("a line is no field")?;
            fields.take(key.trim(), value.trim_matches([' ', '\t']))?;
        }
        fields.policy(kept(lines.into_iter().filter(|line| !line.trim().is_empty())))
    }

    /// What it demands of hosts. `None` if nothing.
    pub(crate) fn demand(&self) -> Option<StsDemand<'_>> {
        let enforced = self.mode == Mode::Enforce;
        (self.mode != Mode::None).then_some(StsDemand { enforced, lines: &self.lines, patterns: &self.mx })
    }
}

/// Fields as they come: the first of each key counts (§3.2), but all of `mx`.
#[derive(Default)]
struct Fields<'a> {
    version: Option<&'a str>,
    mode: Option<&'a str>,
    max_age: Option<&'a str>,
    mx: Vec<String>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, key: &str, value: &'a str) -> Result<(), &'static str> {
        match key {
            "version" => _ = self.version.get_or_insert(value),
            "mode" => _ = self.mode.get_or_insert(value),
            "max_age" => _ = self.max_age.get_or_insert(value),
            "mx" if self.mx.len() == PATTERNS_MAX => return Err("it names too many hosts"),
            "mx" => self.mx.push(pattern(value).ok_or("a host that it names is no name")?),
            // Extensions may come.
            _ => {}
        }
        Ok(())
    }

    fn policy(self, lines: Vec<String>) -> Result<Policy, &'static str> {
        if self.version != Some("STSv1") {
            return Err("its version is not STSv1");
        }
        let mode = match self.mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err("its mode is none of enforce, testing, none"),
        };
        let max_age = self.max_age.filter(|age| (1..=10).contains(&age.len()) && is_digits(age));
        let max_age_secs: u64 = max_age.and_then(|age| age.parse().ok()).ok_or("it has no max_age")?;
        if self.mx.is_empty() && mode != Mode::None {
            return Err("it names no host");
        }
        Ok(Policy { mode, mx: self.mx, max_age_secs: max_age_secs.min(AGE_MAX_SECS), lines })
    }
}

fn kept<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut left = LINES_MAX;
    let fits = lines.take_while(|line| {
        let fits = line.len() <= left;
        left = left.saturating_sub(line.len());
        fits
    });
    fits.map(str::to_owned).collect()
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_digit())
}

/// A host's name, or `*.` and the name above it, in lower case.
fn pattern(text: &str) -> Option<String> {
    let text = text.trim_end_matches('.').to_lowercase();
    let name = text.strip_prefix("*.").unwrap_or(&text);
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| !label.is_empty() && label.len() <= 63)
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_'));
    is_name.then(|| text.clone())
}

/// The id in a domain's TXT records. Exactly one of them may be of MTA-STS (§3.1).
pub fn id_of(records: &[Vec<u8>]) -> Option<String> {
    let mut found =
        records.iter().filter_map(|record| std::str::from_utf8(record).ok()).filter(|text| is_sts(text));
    let (first, second) = (found.next()?, found.next());
    if second.is_some() {
        return None;
    }
    let mut fields = first.split(';').skip(1).filter_map(|field| field.split_once('='));
    let (_, id) = fields.find(|(key, _)| key.trim() == "id")?;
    let id = id.trim();
    let is_id = (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric());
    is_id.then(|| id.to_owned())
}

/// It begins with `v=STSv1` and a semicolon.
fn is_sts(text: &str) -> bool {
    let version = text.split_once(';').map(|(version, _)| version);
    version
        .and_then(|version| version.split_once('='))
        .is_some_and(|(key, value)| key.trim_end() == "v" && value.trim() == "STSv1")
}

/// Any bytes, as a policy and as a record.
pub fn fuzz_sts_policy(bytes: &[u8]) {
    if let Ok(policy) = Policy::parse(bytes) {
        assert!(policy.mode == Mode::None || !policy.mx.is_empty());
        assert!(policy.mx.len() <= PATTERNS_MAX && policy.max_age_secs <= AGE_MAX_SECS);
        if bytes.len() <= LINES_MAX {
            let again = Policy::parse(policy.lines.join("\n").as_bytes());
            assert_eq!(again.as_ref(), Ok(&policy));
        }
        assert!(policy.lines.iter().map(String::len).sum::<usize>() <= LINES_MAX);
    }
    let records: Vec<Vec<u8>> = bytes.split(|octet| *octet == 0).map(<[u8]>::to_vec).collect();
    assert!(id_of(&records).is_none_or(|id| id.len() <= ID_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: mail.example.net\r\nmx: *.Example.org\r\nmax_age: 604800\r\n";

    fn parse(text: &str) -> Result<Policy, &'static str> {
        Policy::parse(text.as_bytes())
    }

    #[test]
    fn a_policy_is_read_with_either_end_of_line() {
        let policy = parse(USUAL).unwrap();
        assert_eq!((policy.mode, policy.max_age_secs), (Mode::Enforce, 604_800));
        assert_eq!(policy.mx, ["mail.example.net", "*.example.org"]);
        assert_eq!(parse(&USUAL.replace('\r', "")), Ok(policy));
    }

    #[test]
    fn the_first_of_a_key_counts_and_unknown_keys_do_not() {
        let policy = parse(&format!("{USUAL}mode: none\nmax_age: 1\nversion: STSv2\nfuture: x:y\n")).unwrap();
        assert_eq!((policy.mode, policy.max_age_secs), (Mode::Enforce, 604_800));
    }

    #[test]
    fn none_needs_no_hosts_and_the_others_do() {
        let without = |mode| parse(&format!("version: STSv1\nmode: {mode}\nmax_age: 9"));
        assert!(without("none").unwrap().demand().is_none());
        assert_eq!(without("testing").unwrap_err(), "it names no host");
        assert_eq!(without("strict").unwrap_err(), "its mode is none of enforce, testing, none");
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for (text, said) in [
            ("", "its version is not STSv1"),
            ("<html>", "a line is no field"),
            ("mode: enforce\nmx: a.test\nmax_age: 1", "its version is not STSv1"),
            ("version: STSv1\nmode: enforce\nmx: a.test", "it has no max_age"),
            ("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -1", "it has no max_age"),
            ("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 99999999999", "it has no max_age"),
            ("version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1", "a host that it names is no name"),
            ("version: STSv1\nmode: enforce\nmx: *.*.test\nmax_age: 1", "a host that it names is no name"),
        ] {
            assert_eq!(parse(text), Err(said), "{text}");
        }
        assert_eq!(parse(&USUAL.replace("604800", "9999999999")).unwrap().max_age_secs, AGE_MAX_SECS);
    }

    #[test]
    fn a_policy_of_extensions_keeps_what_it_says_and_no_more_lines_than_fit() {
        let policy = parse(&format!("{USUAL}{}", "x: y\n".repeat(10_000))).unwrap();
        assert_eq!((policy.mx.len(), policy.mode), (2, Mode::Enforce));
        assert!(policy.lines.len() < 1_100);
        assert!(parse(&format!("{USUAL}{}", "mx: a.test\n".repeat(63))).is_err());
    }

    #[test]
    fn exactly_one_record_is_a_record() {
        let of = |records: &[&str]| {
            id_of(&records.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["v=spf1 -all", "v=STSv1; id=20260101T000000;"]), Some("20260101T000000".into()));
        assert_eq!(of(&["v = STSv1 ;x=y;id=a1"]), Some("a1".into()));
        for records in [
            &["v=STSv1; id=a", "v=STSv1; id=a"][..],
            &["v=STSv1"],
            &["v=STSv1;"],
            &["v=STSv2; id=a"],
            &["v=STSv1; id=a b"],
            &["id=a; v=STSv1"],
            &["v=STSv1; id=123456789012345678901234567890123"],
        ] {
            assert_eq!(of(records), None, "{records:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            fuzz_sts_policy(&bytes);
        }

        #[test]
        fn anything_like_a_policy_is_read_without_a_panic(
            text in "((version|mode|mx|max_age|x): ?(STSv1|enforce|testing|none|[0-9]{0,12}|\\*?[a-zA-Z.]{0,9})[ \t]?\r?\n?){0,9}"
        ) {
            fuzz_sts_policy(text.as_bytes());
        }
    }
}
