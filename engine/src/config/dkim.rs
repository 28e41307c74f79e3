//! `[dkim]`: whose mail is signed, by which keys, and what a signature covers and says.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const DOMAINS_MAX: usize = 10_000;

/// Signatures of one message. Verifiers look at a few.
const SELECTORS_MAX: usize = 4;

/// Names of fields, of both kinds.
const FIELDS_MAX: usize = 100;

/// A signature that ends sooner may end before a slow host takes the message.
const EXPIRY_MIN_SECS: u64 = 86_400;

/// Hosts on the way add these, or other signatures.
const NEVER_SIGNED: [&str; 4] = ["DKIM-Signature", "Received", "Return-Path", "Authentication-Results"];

/// See the module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dkim {
    /// Fields that are signed, there or not, and of which nobody may add another.
    pub oversign: Vec<String>,
    /// Further fields that are signed where they are there.
    pub headers: Vec<String>,
    /// Signatures say when they were made (`t=`).
    pub timestamp: bool,
    /// Signatures end so many seconds after they were made (`x=`). 0: they do not.
    pub expiry_secs: u64,
    /// A message that comes with a signature of its author's domain is signed all the same.
    pub sign_again: bool,
    /// By the domain in the first address of `From`.
    pub domains: BTreeMap<String, DkimDomain>,
}

/// `[dkim.domains."example.org"]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DkimDomain {
    /// Each signs; the first one's signature stands on top.
    pub selectors: Vec<DkimSelector>,
    /// It signs for the domains below it too that have none of their own here.
    #[serde(default)]
    pub subdomains: bool,
    /// `i=`: an address or `@domain`, in this domain or below it.
    pub identity: Option<String>,
}

/// A key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DkimSelector {
    /// Its record stands at SELECTOR._domainkey.DOMAIN.
    pub selector: String,
    /// PEM file of a private key, RSA or Ed25519; read at the start and at SIGHUP.
    pub key: PathBuf,
}

impl Default for Dkim {
    fn default() -> Dkim {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Dkim {
            oversign: names(&[
                "From",
                "To",
                "Cc",
                "Subject",
                "Date",
                "Message-ID",
                "Reply-To",
                "MIME-Version",
                "Content-Type",
                "Content-Transfer-Encoding",
                "List-Unsubscribe",
                "List-Unsubscribe-Post",
            ]),
            // RFC 6376 §5.4.1; the one that providers count complaints by; the two of a TLS report (RFC 8460 §5.3).
            headers: names(&[
                "Sender",
                "In-Reply-To",
                "References",
                "Resent-Date",
                "Resent-From",
                "Resent-To",
                "Resent-Cc",
                "List-Id",
                "List-Help",
                "List-Subscribe",
                "List-Post",
                "List-Owner",
                "List-Archive",
                "Feedback-ID",
                "TLS-Report-Domain",
                "TLS-Report-Submitter",
            ]),
            timestamp: true,
            expiry_secs: 0,
            sign_again: false,
            domains: BTreeMap::new(),
        }
    }
}

impl Dkim {
    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let names = || self.oversign.iter().chain(&self.headers);
        let is = |name: &String, other: &str| name.eq_ignore_ascii_case(other);
        if let Some(wrong) = names().find(|name| !super::is_field_name(name)) {
            return Err(format!("dkim.oversign, dkim.headers: {wrong:?} is no name of a header field"));
        }
        if let Some(wrong) = names().find(|name| NEVER_SIGNED.iter().any(|never| is(name, never))) {
            return Err(format!("dkim.oversign, dkim.headers: hosts on the way add {wrong}; do not sign it"));
        }
        let rules = [
            (
                names().any(|name| is(name, "from")),
                "dkim.oversign must have \"From\": no signature is valid without it (RFC 6376 5.4)",
            ),
            (names().count() <= FIELDS_MAX, "dkim.oversign and dkim.headers have more than 100 names"),
            (
                self.expiry_secs == 0 || self.expiry_secs >= EXPIRY_MIN_SECS,
                "dkim.expiry_secs must be 0 for never, or at least 86400: a day for slow hosts",
            ),
            (self.domains.len() <= DOMAINS_MAX, "dkim.domains has more than 10000 domains"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))?;
        self.domains.iter().try_for_each(|(name, domain)| domain.check(name))
    }
}

impl DkimDomain {
    fn check(&self, name: &str) -> Result<(), String> {
        let at = format!("dkim.domains.{name:?}");
        if !is_domain(name) {
            return Err(format!(
                "{at}: that is no domain; for those below one, write subdomains = true there"
            ));
        }
        if !(1..=SELECTORS_MAX).contains(&self.selectors.len()) {
            return Err(format!("{at}.selectors must have 1 to 4 keys"));
        }
        let selectors: BTreeSet<String> =
            self.selectors.iter().map(|selector| selector.selector.to_lowercase()).collect();
        if let Some(wrong) = selectors.iter().find(|selector| !selector.is_ascii() || !is_domain(selector)) {
            return Err(format!("{at}.selectors: {wrong:?} is no name in the DNS"));
        }
        if selectors.len() < self.selectors.len() {
            return Err(format!("{at}.selectors: each needs a name of its own"));
        }
        match &self.identity {
            Some(identity) if !is_identity(identity, name) => Err(format!(
                "{at}.identity: {identity:?} is no plain address or @domain in {name} or below it"
            )),
            _ => Ok(()),
        }
    }
}

fn is_domain(text: &str) -> bool {
    message::Domain::parse(text).is_ok() && !text.starts_with('[')
}

/// RFC 6376 §3.5; plain enough to stand there as it is.
fn is_identity(text: &str, domain: &str) -> bool {
    let Some((local_part, host)) = text.rsplit_once('@') else { return false };
    let is_plain = |octet: u8| octet.is_ascii_graphic() && !b"();:<>[]\\,\"=".contains(&octet);
    let (host, domain) = (host.to_lowercase(), domain.to_lowercase());
    let is_below = host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    local_part.bytes().all(is_plain) && is_domain(&host) && host.is_ascii() && is_below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &str) -> Result<(), String> {
        toml::from_str::<Dkim>(keys).unwrap().check()
    }

    const KEYS: &str = "selectors = [{ selector = \"r1\", key = \"k\" }]";

    #[test]
    fn right_settings_pass() {
        assert_eq!(check(""), Ok(()));
        let lines = format!(
            "[domains.\"Example.org\"]\n{KEYS}\nsubdomains = true\nidentity = \"news@a.example.org\""
        );
        assert_eq!(check(&lines), Ok(()));
        assert_eq!(check(&format!("[domains.\"παράδειγμα.test\"]\n{KEYS}")), Ok(()));
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        let wrong = |keys: &str| check(keys).unwrap_err();
        assert!(wrong("oversign = [\"To\"]").contains("RFC 6376 5.4"));
        assert!(wrong("headers = [\"received\"]").contains("do not sign it"));
        assert!(wrong("headers = [\"a b\"]").contains("no name of a header field"));
        assert!(wrong(&format!("headers = {:?}", ["X"; 100])).contains("more than 100"));
        assert!(wrong("expiry_secs = 3600").contains("at least 86400"));
        assert!(wrong("domains.\"a.test\" = { selectors = [] }").contains("1 to 4"));
        assert!(wrong(&format!("[domains.\".a.test\"]\n{KEYS}")).contains("subdomains = true"));
        assert!(
            wrong(&format!("[domains.\"a.test\"]\n{}", KEYS.replace("r1", "r 1")))
                .contains("no name in the DNS")
        );
        let twice = KEYS.replace("}]", "}, { selector = \"R1\", key = \"l\" }]");
        assert!(wrong(&format!("[domains.\"a.test\"]\n{twice}")).contains("a name of its own"));
        for identity in ["ann", "ann@b.test", "ann@xa.test", "a;b@a.test", "@", "@.a.test"] {
            let lines = format!("[domains.\"a.test\"]\n{KEYS}\nidentity = {identity:?}");
            assert!(wrong(&lines).contains("identity"), "{identity}");
        }
    }
}
