//! `[shaping]`: how fast mail goes to whom.
//!
//! What `[shaping.sites]` says of a site holds. Where it says nothing, the stricter of `[delivery]` and the provider
//! rules ([`crate::providers`]) does: a provider's number is how much it takes, not how much an operator wants.
//! Pure, but for [`Shaping::load_providers`].

use super::{ConfigError, Delivery, Rate};
use crate::providers::Providers;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Rates that one site may be held to.
pub const RATES_MAX: usize = 3;

/// See the module.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shaping {
    /// The operator's provider rules, which come before those in the program.
    pub providers: Option<PathBuf>,
    /// Limits of single sites, by a pattern of the names of their MX hosts: `[shaping.sites."*.example.net"]`.
    pub sites: BTreeMap<HostPattern, Limits>,
}

impl Shaping {
    /// Limits of the site with these MX hosts, most preferred first. The first host decides, and the longest pattern
    /// that it matches.
    pub fn site_limits<'a>(&self, mut hosts: impl Iterator<Item = &'a str>) -> Option<&Limits> {
        let host = hosts.next()?;
        let matching = self.sites.iter().filter(|(pattern, _)| pattern.matches(host));
        matching.max_by_key(|(pattern, _)| pattern.as_str().len()).map(|(_, limits)| limits)
    }

    /// What holds for the site with these MX hosts, given its provider's limits. Asked once for each site.
    pub fn in_force<'a>(
        &self,
        hosts: impl Iterator<Item = &'a str>,
        provider: &Limits,
        delivery: &Delivery,
    ) -> LimitsInForce {
        let own = self.site_limits(hosts).cloned().unwrap_or_default();
        let limit = |own: Option<u32>, theirs: Option<u32>, usual: u32| {
            own.unwrap_or_else(|| theirs.map_or(usual, |limit| limit.min(usual)))
        };
        let recipients = provider.recipients_per_transaction.unwrap_or(usize::MAX);
        let rates = own.over(provider);
        LimitsInForce {
            connections_max: limit(own.connections_max, provider.connections_max, delivery.connections_max),
            connection_rate: rates.connection_rate,
            message_rate: rates.message_rate,
            messages_per_connection: limit(
                own.messages_per_connection,
                provider.messages_per_connection,
                delivery.messages_per_connection,
            ),
            recipients_per_transaction: own
                .recipients_per_transaction
                .unwrap_or(recipients.min(delivery.recipients_per_transaction)),
        }
    }

    /// The provider rules in force. Reads the operator's file, if there is one.
    pub fn load_providers(&self) -> Result<Providers, ConfigError> {
        let Some(path) = &self.providers else { return Ok(Providers::shipped()) };
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { file: file.clone(), source })?;
        Providers::load(Some((&file, &text)))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = |pattern: &HostPattern, what| format!("shaping.sites.{:?}.{what}", pattern.as_str());
        let mut sites = self.sites.iter();
        sites.try_for_each(|(pattern, limits)| limits.check().map_err(|what| wrong(pattern, what)))
    }
}

/// What holds for one site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LimitsInForce {
    pub connections_max: u32,
    pub connection_rate: Option<Rate>,
    /// All of them hold; empty: no limit.
    pub message_rate: Vec<Rate>,
    pub messages_per_connection: u32,
    pub recipients_per_transaction: usize,
}

/// What a site allows. None and empty: the next layer decides.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// At a time, over all cores.
    pub connections_max: Option<u32>,
    /// How fast connections are opened.
    pub connection_rate: Option<Rate>,
    /// All of them hold.
    pub message_rate: Vec<Rate>,
    pub messages_per_connection: Option<u32>,
    pub recipients_per_transaction: Option<usize>,
}

impl Limits {
    /// These limits, and those of `base` where these say nothing.
    pub fn over(&self, base: &Limits) -> Limits {
        Limits {
            connections_max: self.connections_max.or(base.connections_max),
            connection_rate: self.connection_rate.or(base.connection_rate),
            message_rate: match self.message_rate.is_empty() {
                true => base.message_rate.clone(),
                false => self.message_rate.clone(),
            },
            messages_per_connection: self.messages_per_connection.or(base.messages_per_connection),
            recipients_per_transaction: self.recipients_per_transaction.or(base.recipients_per_transaction),
        }
    }

    /// The key that is wrong and what to do about it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.connections_max != Some(0), "connections_max must be at least 1"),
            (self.messages_per_connection != Some(0), "messages_per_connection must be at least 1"),
            (
                self.recipients_per_transaction.is_none_or(|count| (1..=100).contains(&count)),
                "recipients_per_transaction must be 1 to 100",
            ),
            (self.message_rate.len() <= RATES_MAX, "message_rate: at most 3 rates"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }
}

/// A pattern of host names: `*` stands for any octets, dots too. In lower case, without a dot at the end.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

/// A host name's bound (RFC 1035 §2.3.4).
const PATTERN_LEN_MAX: usize = 255;

impl HostPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whatever the case of `host`, with or without a dot at its end. No allocation; at most |pattern| × |host| steps.
    pub fn matches(&self, host: &str) -> bool {
        glob(self.0.as_bytes(), host.strip_suffix('.').unwrap_or(host).as_bytes())
    }
}

/// On a mismatch the last `*` takes one octet more: earlier ones need not be tried again.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at).is_some_and(|octet| octet.eq_ignore_ascii_case(&text[from])) {
            (at, from) = (at + 1, from + 1);
        } else if let Some((star_at, taken)) = star {
            star = Some((star_at, taken + 1));
            (at, from) = (star_at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|octet| *octet == b'*')
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(text: String) -> Result<HostPattern, String> {
        let pattern = text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase();
        let is_known = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.*".contains(&octet);
        let fits = !pattern.is_empty() && pattern.len() <= PATTERN_LEN_MAX && pattern.bytes().all(is_known);
        match fits && !pattern.contains("**") {
            true => Ok(HostPattern(pattern)),
            false => {
                Err(format!("{text:?} is no pattern of host names; write *.example.net or mx.example.net"))
            }
        }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::try_from(text.to_owned()).unwrap()
    }

    fn shaping(text: &str) -> Shaping {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn patterns_are_of_whole_names() {
        for (glob, host, matches) in [
            ("*.google.com", "aspmx.l.google.com", true),
            ("*.google.com", "ASPMX.L.GOOGLE.COM.", true),
            ("*.google.com", "google.com", false),
            ("*.google.com", "google.com.evil.test", false),
            ("*.google.com", "agoogle.com", false),
            ("mx.example.net", "mx.example.net", true),
            ("mx.example.net", "mx2.example.net", false),
            ("mx*-a.*.test", "mx12-a.b.c.test", true),
            ("mx*-a.*.test", "mx12-b.b.c.test", false),
            ("*a*a*", "banana", true),
            ("*", "anything", true),
        ] {
            assert_eq!(pattern(glob).matches(host), matches, "{glob} {host}");
        }
        for text in ["", ".", "a b", "**.test", "ä.test"] {
            assert!(HostPattern::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_longest_pattern_of_the_first_host_decides() {
        let shaping = shaping(
            "sites.\"*.test\".connections_max = 1\nsites.\"*.mx.test\".connections_max = 2\n\
             sites.\"*\".connections_max = 3",
        );
        let of = |hosts: &[&str]| {
            shaping.site_limits(hosts.iter().copied()).and_then(|limits| limits.connections_max)
        };
        assert_eq!(of(&["a.mx.test", "b.test"]), Some(2));
        assert_eq!(of(&["b.test", "a.mx.test"]), Some(1));
        assert_eq!(of(&["b.example"]), Some(3));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_a_layer_does_not_say_comes_from_the_next() {
        let text = "connections_max = 3\nmessage_rate = [\"100/min\", \"5000/h\"]";
        let base: Limits = toml::from_str(text).unwrap();
        let own: Limits = toml::from_str("connections_max = 9\nconnection_rate = \"10/s\"").unwrap();
        let both = own.over(&base);
        assert_eq!((both.connections_max, both.message_rate.len()), (Some(9), 2));
        assert_eq!(both.connection_rate, own.connection_rate);
        assert_eq!(Limits::default().over(&both), both);
    }

    #[test]
    fn the_stricter_limit_holds_unless_the_operator_speaks_of_the_site() {
        let provider: Limits =
            toml::from_str("connections_max = 500\nmessages_per_connection = 7\nmessage_rate = [\"9/s\"]")
                .unwrap();
        let delivery = Delivery { connections_max: 20, messages_per_connection: 1000, ..Delivery::default() };
        let shaping = shaping("sites.\"*.test\".messages_per_connection = 30");
        let usual = shaping.in_force(std::iter::once("mx.example"), &provider, &delivery);
        assert_eq!((usual.connections_max, usual.messages_per_connection), (20, 7));
        assert_eq!(usual.recipients_per_transaction, delivery.recipients_per_transaction);
        assert_eq!(usual.message_rate, provider.message_rate);
        let own = shaping.in_force(std::iter::once("mx.test"), &provider, &delivery);
        assert_eq!((own.connections_max, own.messages_per_connection), (20, 30));
    }

    #[test]
    fn an_operators_file_of_rules_is_named_in_its_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let shaping = Shaping { providers: Some(path.clone()), ..Shaping::default() };
        let error = || shaping.load_providers().unwrap_err().to_string();
        assert!(error().starts_with(&path.display().to_string()), "{}", error());
        std::fs::write(&path, "[[provider]]\nname = \"a\"\nmx = [\"*.a.test\"]\nrules = []\n").unwrap();
        assert!(
            error().ends_with("own.toml:4: unknown key \"rules\"; did you mean \"rule\"?"),
            "{}",
            error()
        );
        std::fs::write(&path, "[[provider]]\nname = \"a\"\nmx = [\"*.a.test\"]\n").unwrap();
        let providers = shaping.load_providers().unwrap();
        assert_eq!(providers.name(providers.of_hosts(std::iter::once("mx.a.test"))), Some("a"));
    }

    #[test]
    fn limits_that_are_shown_can_be_read() {
        let text = "[sites.\"*.example.net\"]\nconnections_max = 4\nconnection_rate = \"10/s\"\n\
                    message_rate = [\"100/min\", \"5000/h\"]\nmessages_per_connection = 20\n\
                    recipients_per_transaction = 5\n";
        assert_eq!(toml::to_string(&shaping(text)).unwrap(), text);
    }

    #[test]
    fn wrong_limits_are_named_with_their_site() {
        for (keys, said) in [
            ("connections_max = 0", "shaping.sites.\"a.test\".connections_max must be at least 1"),
            ("messages_per_connection = 0", "messages_per_connection must be at least 1"),
            ("recipients_per_transaction = 101", "recipients_per_transaction must be 1 to 100"),
        ] {
            let error = shaping(&format!("[sites.\"a.test\"]\n{keys}")).check().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let error = toml::from_str::<Shaping>("sites.\"a b\".connections_max = 1").unwrap_err();
        assert!(error.message().contains("no pattern of host names"), "{error}");
    }

    proptest! {
        /// Against the definition: a `*` takes any number of octets.
        #[test]
        fn glob_is_what_its_definition_says(glob_text in "[ab*]{0,8}", text in "[ab]{0,10}") {
            fn defined(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|taken| defined(rest, &text[taken..])),
                    Some((octet, rest)) => text.first() == Some(octet) && defined(rest, &text[1..]),
                }
            }
            let expected = defined(glob_text.as_bytes(), text.as_bytes());
            prop_assert_eq!(glob(glob_text.as_bytes(), text.as_bytes()), expected);
        }
    }
}
