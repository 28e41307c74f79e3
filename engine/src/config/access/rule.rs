//! `[[access.rules]]`: conditions, all of which must hold, and what then holds for a client.

use crate::config::{DEFAULT, Listener, Network, Rate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Octets of what an operator has clients told.
const WORDS_MAX: usize = 200;

/// Networks of one rule.
const NETWORKS_MAX: usize = 4096;

/// Domains of one login, as rules have them.
const ATRN_MAX: usize = 1000;

/// See the module. What is not written is decided by what would hold without the rule.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    #[serde(skip_serializing_if = "Networks::is_empty")]
    pub from: Networks,
    /// The client's name by reverse look-up that leads back to its address.
    pub name: Option<NameIs>,
    pub certificate: Option<CertificateIs>,
    /// The name that it logged in by.
    pub user: Option<UserIs>,
    /// What its ident service says.
    pub ident: Option<String>,
    /// A process of this machine, by the Unix socket.
    pub uid: Option<u32>,
    pub listener: Option<String>,
    /// Turned away: 554.
    pub deny: Option<Words>,
    /// Turned away for now: 421.
    pub defer: Option<Words>,
    /// Each recipient refused, with 554 or 450.
    pub reject_recipients: Option<Words>,
    pub defer_recipients: Option<Words>,
    /// May send to any domain.
    pub relay: Option<bool>,
    /// May, and this is appended to each recipient (tcprules' RELAYCLIENT).
    pub relay_suffix: Option<Suffix>,
    /// Octets of a message (tcprules' DATABYTES).
    pub size_max: Option<u64>,
    /// May have a domain's mail tried now (RFC 1985).
    pub etrn: Option<bool>,
    /// Whose mail the login of `user` may have over the connection that it asks by (RFC 2645): `example.net` is the domain,
    /// `.example.net` everything below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub atrn: Vec<String>,
    pub xclient: Option<bool>,
    /// Missing Date and Message-ID are added, addresses are qualified.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fix_up: bool,
    /// False: not held against DNS lists.
    pub block_lists: Option<bool>,
    /// Instead of those of `access.per_address`, or `per_login` for who has logged in.
    pub message_rate: Option<Rate>,
    pub recipient_rate: Option<Rate>,
    pub sessions_max: Option<u32>,
    /// Where it stands, if in a file of its own.
    #[serde(skip)]
    pub source: RuleSource,
}

/// `tcp.smtp:12`; empty for a rule of the configuration file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RuleSource(pub Option<(Arc<str>, u32)>);

/// One network or several; none: any.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "OneOrMany", into = "Vec<Network>")]
pub struct Networks(pub Vec<Network>);

impl Networks {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a network such as \"192.0.2.0/24\", or a list of them")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<OneOrMany> for Networks {
    type Error = String;

    fn try_from(written: OneOrMany) -> Result<Networks, String> {
        let texts = match written {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) if texts.is_empty() => {
                return Err("from = [] matches nobody; leave it out to match everybody".into());
            }
            OneOrMany::Many(texts) => texts,
        };
        if texts.len() > NETWORKS_MAX {
            return Err(format!("more than {NETWORKS_MAX} networks in one rule; write several"));
        }
        texts.into_iter().map(Network::try_from).collect::<Result<_, _>>().map(Networks)
    }
}

impl From<Networks> for Vec<Network> {
    fn from(networks: Networks) -> Vec<Network> {
        networks.0
    }
}

/// A condition on a client's name. Names are in lower case.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum NameIs {
    /// `""`: it has none, and the name servers vouch for that.
    Missing,
    /// `"*"`: whatever it is.
    Any,
    Exactly(Box<str>),
    /// `.example.net`, with its dot: all below that.
    Below(Box<str>),
}

impl TryFrom<String> for NameIs {
    type Error = String;

    fn try_from(text: String) -> Result<NameIs, String> {
        let lower = text.to_lowercase();
        match lower.as_str() {
            "" => Ok(NameIs::Missing),
            "*" => Ok(NameIs::Any),
            name if message::Domain::parse(name.strip_prefix('.').unwrap_or(name)).is_err() => {
                Err(format!("{text:?} is no host name, .domain, * (any) or \"\" (none)"))
            }
            name if name.starts_with('.') => Ok(NameIs::Below(name.into())),
            name => Ok(NameIs::Exactly(name.into())),
        }
    }
}

impl From<NameIs> for String {
    fn from(name: NameIs) -> String {
        match name {
            NameIs::Missing => String::new(),
            NameIs::Any => "*".to_owned(),
            NameIs::Exactly(name) | NameIs::Below(name) => name.into(),
        }
    }
}

/// A condition on a client's certificate.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum CertificateIs {
    /// Of an authority of `client_ca`.
    Verified,
    Sha256([u8; 32]),
}

impl TryFrom<String> for CertificateIs {
    type Error = String;

    fn try_from(text: String) -> Result<CertificateIs, String> {
        if text == "verified" {
            return Ok(CertificateIs::Verified);
        }
        let digest = text.strip_prefix("sha256:").and_then(digest);
        digest.map(CertificateIs::Sha256).ok_or_else(|| {
            format!("{text:?} is no certificate; write \"verified\" or \"sha256:\" and 64 hexadecimal digits")
        })
    }
}

/// Colons between the octets, as tools print them, are left out.
fn digest(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = hex.bytes().filter(|octet| *octet != b':').collect();
    let mut digest = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (octet, pair) in digest.iter_mut().zip(digits.chunks(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *octet = u8::try_from(nibble(pair[0])? * 16 + nibble(pair[1])?).ok()?;
    }
    Some(digest)
}

impl From<CertificateIs> for String {
    fn from(certificate: CertificateIs) -> String {
        match certificate {
            CertificateIs::Verified => "verified".to_owned(),
            CertificateIs::Sha256(digest) => {
                digest.iter().fold("sha256:".to_owned(), |text, octet| format!("{text}{octet:02x}"))
            }
        }
    }
}

/// A condition on the name that a client logged in by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "String", into = "String")]
pub enum UserIs {
    /// `"*"`.
    Any,
    Exactly(Box<str>),
}

impl From<String> for UserIs {
    fn from(text: String) -> UserIs {
        if text == "*" { UserIs::Any } else { UserIs::Exactly(text.into()) }
    }
}

impl From<UserIs> for String {
    fn from(user: UserIs) -> String {
        match user {
            UserIs::Any => "*".to_owned(),
            UserIs::Exactly(name) => name.into(),
        }
    }
}

/// What is appended to a recipient: `@gateway.example.net`, `.uucp`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Suffix(pub Box<str>);

impl TryFrom<String> for Suffix {
    type Error = String;

    /// Appended to any address it must leave an address.
    fn try_from(text: String) -> Result<Suffix, String> {
        let domain = text.strip_prefix('@').or_else(|| text.strip_prefix('.'));
        let is_right = domain.is_some_and(|domain| message::Domain::parse(domain).is_ok());
        let wrong = || format!("{text:?} cannot follow an address; write @host or .domain");
        if is_right { Ok(Suffix(text.as_str().into())) } else { Err(wrong()) }
    }
}

impl From<Suffix> for String {
    fn from(suffix: Suffix) -> String {
        suffix.0.into()
    }
}

/// What clients are told: 1 to 200 octets of printable ASCII.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Words(pub Arc<str>);

impl TryFrom<String> for Words {
    type Error = String;

    fn try_from(text: String) -> Result<Words, String> {
        let is_right =
            (1..=WORDS_MAX).contains(&text.len()) && text.bytes().all(|octet| (b' '..=b'~').contains(&octet));
        let wrong = || format!("{text:?} cannot be said: 1 to {WORDS_MAX} octets of printable ASCII can");
        if is_right { Ok(Words(text.as_str().into())) } else { Err(wrong()) }
    }
}

impl From<Words> for String {
    fn from(words: Words) -> String {
        (*words.0).to_owned()
    }
}

impl Rule {
    pub(super) fn check(&self, listeners: &BTreeMap<String, Listener>) -> Result<(), String> {
        let refusals = [&self.deny, &self.defer, &self.reject_recipients, &self.defer_recipients];
        let rules = [
            (
                refusals.into_iter().flatten().count() <= 1,
                "only one of deny, defer, reject_recipients and defer_recipients can be",
            ),
            (
                self.relay != Some(false) || self.relay_suffix.is_none(),
                "relay_suffix is for clients that may relay, and relay is false",
            ),
            (
                self.uid.is_none() || self.from.is_empty() && self.name.is_none() && self.ident.is_none(),
                "a process of this machine (uid) has no address, name or ident",
            ),
            (self.sessions_max != Some(0), "sessions_max must be at least 1; deny turns everybody away"),
            (self.size_max != Some(0), "size_max must be at least 1; leave it out for the listener's own"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))?;
        self.check_atrn()?;
        match &self.listener {
            Some(name) if name != DEFAULT && !listeners.contains_key(name) => {
                Err(format!("there is no [listeners.{name}]"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_atrn(&self) -> Result<(), String> {
        let is_of_one = matches!(&self.user, Some(UserIs::Exactly(_)));
        match self.atrn.iter().find(|entry| !is_domain(entry)) {
            Some(entry) => Err(format!("atrn: {entry:?} is no domain and no .domain")),
            None if self.atrn.len() > ATRN_MAX => Err(format!("atrn: more than {ATRN_MAX} domains")),
            None if !self.atrn.is_empty() && !is_of_one => {
                Err("atrn is one customer's mail: write user, the name that it logs in by".into())
            }
            None => Ok(()),
        }
    }
}

/// `example.net`, or `.example.net` for what is below it.
fn is_domain(entry: &str) -> bool {
    message::Domain::parse(entry.strip_prefix('.').unwrap_or(entry)).is_ok()
}

impl fmt::Display for RuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |(file, line)| write!(f, "{file}:{line}"))
    }
}
