//! `[access]`: who may come in, what each may do, and to whom mail may go.
//!
//! Rules are tried in their order, those of `rules_file` behind those written here; the first that matches wins. Files are
//! read with the configuration, so a reload reads them anew. Bounds: [`RULES_MAX`], [`LISTS_MAX`], [`LINES_MAX`] entries of
//! a list, [`FILE_MAX`] octets of a file.

mod files;
mod rule;
mod tcprules;

pub use files::AccessFiles;
pub use rule::{CertificateIs, NameIs, Networks, Rule, RuleSource, Suffix, UserIs, Words};
pub use tcprules::fuzz_tcprules;

use super::{Listener, Network, Rate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// A database with those keys.
#[cfg(test)]
pub(crate) fn write_cdb(keys: &[&[u8]]) -> Vec<u8> {
    let mut writer = message::cdb::CdbWriter::default();
    for key in keys {
        writer.add(key, b"").expect("a test's list is short");
    }
    writer.finish().expect("a test's list is short")
}

/// Their numbers have 16 bits in `Rights::rule`.
pub const RULES_MAX: usize = 60_000;

/// DNS lists: a client is held against all of its listener's at once.
pub const LISTS_MAX: usize = 32;

/// Entries of a list, with those of its file.
pub const LINES_MAX: usize = 1 << 20;

/// Octets of a file. All of it is held in memory.
pub const FILE_MAX: u64 = 256 << 20;

const WEIGHT_MAX: u32 = 1000;

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    pub rules: Vec<Rule>,
    /// More rules, as tcprules reads them: about clients by the network, not about processes of this machine.
    pub rules_file: Option<PathBuf>,
    /// Domains to which anybody may send: `example.net`, `.example.net` for all below it, `*` for all there are.
    pub relay_to: Vec<String>,
    /// More of them, one a line (qmail's `rcpthosts`), or as a constant database whose name ends in `.cdb`.
    pub relay_to_file: Option<PathBuf>,
    /// `ann@example.net`, `@example.net`, `@.example.net` for all below it; in any case of letters.
    pub bad_senders: Vec<String>,
    pub bad_senders_file: Option<PathBuf>,
    /// As `bad_senders`.
    pub bad_recipients: Vec<String>,
    pub bad_recipients_file: Option<PathBuf>,
    /// Domains where `user%domain@here` means `user@domain`.
    pub percent_hack: Vec<String>,
    /// `a!b!user@here` means `b!user@a.uucp` where `here` is one of `local.locals`; where `a` has dots, `b!user@a`.
    pub bang_paths: bool,
    /// The host that `box@[192.0.2.1]` is at, for addresses of this machine.
    pub local_addresses_become: Option<String>,
    /// Sessions at a time over all cores. Default: `intake.sessions_max` of each core is all there is.
    pub sessions_max: Option<u32>,
    pub per_address: Pace,
    /// /24 of IPv4, /64 of IPv6. No rates.
    pub per_network: Pace,
    /// By the name that they logged in by. No sessions.
    pub per_login: Pace,
    /// By their reverse-path. No sessions.
    pub per_sender: Pace,
    pub lists: BTreeMap<String, DnsList>,
    /// Questions to the name servers about clients at a time, besides `delivery.questions_max`.
    pub questions_max: usize,
    #[serde(skip)]
    pub files: AccessFiles,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            rules: Vec::new(),
            rules_file: None,
            relay_to: Vec::new(),
            relay_to_file: None,
            bad_senders: Vec::new(),
            bad_senders_file: None,
            bad_recipients: Vec::new(),
            bad_recipients_file: None,
            percent_hack: Vec::new(),
            bang_paths: false,
            local_addresses_become: None,
            sessions_max: None,
            per_address: Pace::default(),
            per_network: Pace::default(),
            per_login: Pace::default(),
            per_sender: Pace::default(),
            lists: BTreeMap::new(),
            questions_max: 256,
            files: AccessFiles::default(),
        }
    }
}

/// How much one client may do. A rate lets its whole count go at once, and then as much as time brings back.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pace {
    /// At a time, over all cores.
    pub sessions_max: Option<u32>,
    pub message_rate: Option<Rate>,
    pub recipient_rate: Option<Rate>,
}

/// `[access.lists.NAME]`: a list that is asked by DNS (RFC 5782).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DnsList {
    /// `zen.example.org`.
    pub zone: String,
    #[serde(default)]
    pub kind: ListKind,
    #[serde(default)]
    pub on: ListOn,
    /// Answers that mean: listed. Default: 127.0.0.0/8 without 127.255.255.0/24, where lists say that they do not answer us.
    #[serde(default)]
    pub answers: Vec<Network>,
    #[serde(default = "one")]
    pub weight: u32,
    /// What clients are told. Default: the list's own TXT record.
    pub text: Option<Words>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListKind {
    #[default]
    Block,
    /// Its weight counts against block lists'.
    Allow,
}

/// What is looked up in a list.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListOn {
    #[default]
    Address,
    SenderDomain,
    Helo,
}

fn one() -> u32 {
    1
}

impl DnsList {
    /// What its weight adds to the sum.
    pub fn signed_weight(&self) -> i64 {
        match self.kind {
            ListKind::Block => i64::from(self.weight),
            ListKind::Allow => -i64::from(self.weight),
        }
    }

    /// True if that answer means that what was asked is listed.
    pub fn means_listed(&self, answer: Ipv4Addr) -> bool {
        if self.answers.is_empty() {
            return answer.octets()[0] == 127 && !matches!(answer.octets(), [127, 255, 255, _]);
        }
        self.answers.iter().any(|network| network.contains(IpAddr::V4(answer)))
    }

    fn check(&self) -> Result<(), &'static str> {
        let rules = [
            // 74 octets are the most that go before it: an IPv6 address by nibbles, with dots (RFC 5782 §2.4).
            (self.zone.len() <= 180 && message::Domain::parse(&self.zone).is_ok(), ".zone is no domain"),
            ((1..=WEIGHT_MAX).contains(&self.weight), ".weight must be 1 to 1000"),
            (!self.answers.iter().any(|network| network.is_v6()), ".answers are IPv4 addresses (RFC 5782)"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }
}

impl Access {
    /// What must hold, and what is said if it does not.
    pub(super) fn check(&self, listeners: &BTreeMap<String, Listener>) -> Result<(), String> {
        let is_name = |name: &String| message::Domain::parse(name).is_ok();
        if !(1..=10_000).contains(&self.questions_max) {
            return Err("access.questions_max must be 1 to 10000".into());
        }
        let is_host = |name: &String| is_name(name) && !name.starts_with('[');
        if !self.local_addresses_become.as_ref().is_none_or(is_host) {
            return Err("access.local_addresses_become is no host name".into());
        }
        if let Some(domain) = self.percent_hack.iter().find(|domain| !is_name(domain)) {
            return Err(format!("access.percent_hack: {domain:?} is no domain"));
        }
        self.check_pace()?;
        files::check_domains(&self.relay_to).map_err(|what| format!("access.relay_to: {what}"))?;
        files::check_mailboxes(&self.bad_senders).map_err(|what| format!("access.bad_senders: {what}"))?;
        files::check_mailboxes(&self.bad_recipients)
            .map_err(|what| format!("access.bad_recipients: {what}"))?;
        self.check_lists()?;
        self.check_rules(listeners)
    }

    fn check_pace(&self) -> Result<(), String> {
        let has_rate = |pace: Pace| pace.message_rate.is_some() || pace.recipient_rate.is_some();
        let rules = [
            (self.sessions_max != Some(0), "access.sessions_max must be at least 1"),
            (self.per_address.sessions_max != Some(0), "access.per_address.sessions_max must be at least 1"),
            (self.per_network.sessions_max != Some(0), "access.per_network.sessions_max must be at least 1"),
            (!has_rate(self.per_network), "access.per_network has no rates: write them into per_address"),
            (
                self.per_login.sessions_max.or(self.per_sender.sessions_max).is_none(),
                "access.per_login and per_sender have no sessions_max: sessions are an address's",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }

    fn check_lists(&self) -> Result<(), String> {
        if self.lists.len() > LISTS_MAX {
            return Err(format!("access.lists: more than {LISTS_MAX}"));
        }
        self.lists.iter().try_for_each(|(name, list)| {
            super::sources::check_name("access.lists", name)?;
            list.check().map_err(|what| format!("access.lists.{name}{what}"))
        })
    }

    fn check_rules(&self, listeners: &BTreeMap<String, Listener>) -> Result<(), String> {
        if self.rules.len() > RULES_MAX {
            return Err(format!("[[access.rules]]: more than {RULES_MAX}"));
        }
        self.rules.iter().zip(1..).try_for_each(|(rule, number): (&Rule, u32)| {
            rule.check(listeners).map_err(|what| format!("[[access.rules]] number {number}: {what}"))
        })
    }

    /// All rules in the order in which they are tried, with those of the file.
    pub fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(&self.files.rules)
    }
}
