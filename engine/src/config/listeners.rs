//! `[listeners.NAME]` and `[[certificates]]`: where clients connect, and what each place offers and asks for.
//!
//! `listen = [...]` is the short form of a listener called `default`. [`settle`] writes down what is in force where the file
//! says nothing, so that nobody decides it again. Bounds: [`LISTENERS_MAX`], [`ADDRESSES_MAX`] of each,
//! [`CERTIFICATES_MAX`], [`GREETING_DELAY_MAX_SECS`].

use super::{Config, DEFAULT, Network};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Each is asked about each message.
const LISTENERS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 64;
const CERTIFICATES_MAX: usize = 10_000;

/// RFC 5321 §4.5.3.2.1: clients wait five minutes for a greeting; many wait less.
const GREETING_DELAY_MAX_SECS: u64 = 60;

/// `[listeners.NAME]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    pub addresses: Vec<SocketAddr>,
    pub purpose: Purpose,
    /// Always there after [`settle`]. Default: `offer` if there are certificates, else `none`.
    pub tls: Option<ListenerTls>,
    /// Always there after [`settle`]. Default: none for `mx`, PLAIN LOGIN SCRAM-SHA-256 for `submission`, CRAM-MD5 as well for
    /// `odmr`.
    pub auth: Option<Vec<Mechanism>>,
    /// Passwords are taken without TLS, from others than loopback too.
    pub auth_without_tls: bool,
    /// Networks whose connections begin with a PROXY header (v1 or v2).
    pub proxy_from: Vec<Network>,
    /// Networks whose clients may say on whose behalf they come (XCLIENT).
    pub xclient_from: Vec<Network>,
    /// Who speaks before this has passed, and so before the greeting, is turned away.
    pub greeting_delay_secs: u64,
    /// Instead of `access.per_address.sessions_max` and `access.per_network.sessions_max`.
    pub sessions_per_address: Option<u32>,
    pub sessions_per_network: Option<u32>,
    /// Names of `[access.lists]`.
    pub block_lists: Vec<String>,
    /// What sum of the weights of those lists gets 554 to each recipient, 450 to each recipient, or a field in the message's
    /// header that names the lists; the first that is reached. Default, where none is written: 1 rejects.
    pub lists_reject_at: Option<u32>,
    pub lists_defer_at: Option<u32>,
    pub lists_tag_at: Option<u32>,
    /// Ask the client's ident service (RFC 1413).
    pub ident: bool,
    /// Look up the client's name.
    pub reverse_names: bool,
    /// Our name in the greeting and in EHLO's reply. Default: `host_name`.
    pub host_name: Option<String>,
    /// PEM file of authorities: clients are asked for a certificate of theirs, and may have none.
    pub client_ca: Option<PathBuf>,
    /// Check SPF, DKIM and DMARC, and say what came out (RFC 8601).
    pub verify: bool,
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Other hosts, with mail for us.
    #[default]
    Mx,
    /// Our users (RFC 6409): no mail from whoever has not logged in or has no other right to relay.
    Submission,
    /// Customers who fetch their mail by ATRN (RFC 2645), which has port 366; no mail is taken. Whose mail is whose is said by
    /// `atrn` of `[[access.rules]]`; where such a rule may match, other listeners with logins offer ATRN as well.
    Odmr,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTls {
    None,
    /// STARTTLS, if the client wants it (RFC 3207).
    Offer,
    /// STARTTLS before anything else.
    Require,
    /// From the first octet on (RFC 8314).
    Implicit,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "LOGIN")]
    Login,
    #[serde(rename = "CRAM-MD5")]
    CramMd5,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
}

/// What a sum of weights does. In force: not all of them `None`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Thresholds {
    pub reject_at: Option<u32>,
    pub defer_at: Option<u32>,
    pub tag_at: Option<u32>,
}

/// `[[certificates]]`: which one a client gets by the name that it asks for (SNI). The first one without, or for another name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// `mx.example.net`, `*.example.net`. Empty: whatever names the certificate is for.
    #[serde(default)]
    pub names: Vec<String>,
    /// PEM file: the certificate first, then those that lead to its authority.
    pub chain: PathBuf,
    /// PEM file.
    pub key: PathBuf,
}

impl Listener {
    pub fn tls(&self) -> ListenerTls {
        self.tls.unwrap_or(ListenerTls::None)
    }

    pub fn mechanisms(&self) -> &[Mechanism] {
        self.auth.as_deref().unwrap_or_default()
    }

    pub fn thresholds(&self) -> Thresholds {
        let Listener { lists_reject_at, lists_defer_at, lists_tag_at, .. } = *self;
        let is_silent = lists_reject_at.or(lists_defer_at).or(lists_tag_at).is_none();
        let reject_at = if is_silent { Some(1) } else { lists_reject_at };
        Thresholds { reject_at, defer_at: lists_defer_at, tag_at: lists_tag_at }
    }

    /// What is in force goes where nothing is written.
    fn settle(&mut self, has_certificates: bool) {
        let tls = if has_certificates { ListenerTls::Offer } else { ListenerTls::None };
        self.tls.get_or_insert(tls);
        if !self.block_lists.is_empty() {
            self.lists_reject_at = self.thresholds().reject_at;
        }
        let purpose = self.purpose;
        self.auth.get_or_insert_with(|| match purpose {
            Purpose::Mx => Vec::new(),
            Purpose::Submission => vec![Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256],
            // RFC 2645 §5.1.2 has it that clients know CRAM-MD5.
            Purpose::Odmr => {
                vec![Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5, Mechanism::ScramSha256]
            }
        });
    }
}

impl Config {
    /// All listeners, `default` among them if there is one; in the order by which [`crate::access`] numbers them.
    pub fn listeners(&self) -> BTreeMap<String, Listener> {
        let mut listeners = self.listeners.clone();
        if !self.listen.is_empty() {
            let mut short = Listener { addresses: self.listen.clone(), ..Listener::default() };
            short.settle(!self.certificates.is_empty());
            listeners.insert(DEFAULT.to_owned(), short);
        }
        listeners
    }

    /// Addresses of all listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners().values().flat_map(|listener| listener.addresses.clone()).collect()
    }
}

/// Writes down what is in force where the file's `text` says nothing.
pub(super) fn settle(config: &mut Config, text: &str) {
    #[derive(Deserialize)]
    struct Written {
        listen: Option<IgnoredAny>,
    }
    let has_listen = toml::from_str::<Written>(text).is_ok_and(|written| written.listen.is_some());
    if !config.listeners.is_empty() && !has_listen {
        config.listen.clear();
    }
    let has_certificates = !config.certificates.is_empty();
    config.listeners.values_mut().for_each(|listener| listener.settle(has_certificates));
}

/// What must hold, and what is said if it does not.
pub(super) fn check(config: &Config) -> Result<(), String> {
    if config.listeners.len() >= LISTENERS_MAX {
        return Err(format!("listeners: more than {LISTENERS_MAX}, the one named default among them"));
    }
    if config.certificates.len() > CERTIFICATES_MAX {
        return Err(format!("[[certificates]]: more than {CERTIFICATES_MAX}"));
    }
    if config.listeners.contains_key(DEFAULT) && !config.listen.is_empty() {
        return Err("listen is the default listener's addresses: write them into listeners.default".into());
    }
    let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (name, listener) in &config.listeners() {
        super::sources::check_name("listeners", name)?;
        check_one(config, listener).map_err(|what| format!("listeners.{name}{what}"))?;
        for address in &listener.addresses {
            // Port 0 is any: only tests want it.
            let other = taken.insert(*address, name.clone()).filter(|_| address.port() != 0);
            if let Some(other) = other {
                return Err(format!("listeners.{name}.addresses: listeners.{other} has {address} already"));
            }
        }
    }
    config.certificates.iter().zip(1..).try_for_each(|(files, number)| {
        let wrong = files.names.iter().find(|name| !is_name(name));
        wrong.map_or(Ok(()), |name| {
            Err(format!("[[certificates]] number {number}: {name:?} is no host name or *.domain"))
        })
    })
}

fn is_name(name: &str) -> bool {
    message::Domain::parse(name.strip_prefix("*.").unwrap_or(name)).is_ok()
}

fn check_one(config: &Config, listener: &Listener) -> Result<(), String> {
    let is_name = |name: &String| message::Domain::parse(name).is_ok();
    let is_clear = listener.tls() == ListenerTls::None;
    let is_count = |count: Option<u32>| count.is_none_or(|count| count > 0);
    let Listener { lists_reject_at, lists_defer_at, lists_tag_at, .. } = *listener;
    let rules = [
        (!listener.addresses.is_empty(), ".addresses is empty: nobody could connect"),
        (listener.addresses.len() <= ADDRESSES_MAX, ".addresses: more than 64"),
        (is_clear || !config.certificates.is_empty(), ".tls needs a certificate: add [[certificates]]"),
        (!is_clear || listener.client_ca.is_none(), ".client_ca: there is no TLS to show a certificate in"),
        (listener.host_name.as_ref().is_none_or(is_name), ".host_name is no host name"),
        (
            listener.greeting_delay_secs <= GREETING_DELAY_MAX_SECS,
            ".greeting_delay_secs must be at most 60: clients would not wait",
        ),
        (
            is_count(listener.sessions_per_address) && is_count(listener.sessions_per_network),
            ".sessions_per_address and .sessions_per_network must be at least 1",
        ),
        (
            is_count(lists_reject_at) && is_count(lists_defer_at) && is_count(lists_tag_at),
            ".lists_reject_at, .lists_defer_at and .lists_tag_at must be at least 1",
        ),
        (
            listener.purpose != Purpose::Odmr || !listener.mechanisms().is_empty(),
            ".auth is empty: who fetches mail logs in first (RFC 2645 5.1)",
        ),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))?;
    for list in &listener.block_lists {
        if !config.access.lists.contains_key(list) {
            return Err(format!(".block_lists: there is no [access.lists.{list}]"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn parsed(text: &str) -> Result<Config, String> {
        let text = format!("host_name = \"h.test\"\nqueue = \"q\"\n{text}");
        parse(&text, "ringpost.toml").map_err(|error| error.to_string())
    }

    const WHOLE: &str = r#"
        [listeners.mx]
        addresses = ["0.0.0.0:25", "[::]:25"]
        block_lists = ["zen"]
        lists_defer_at = 1
        lists_reject_at = 3
        greeting_delay_secs = 5
        reverse_names = true
        verify = true
        [listeners.submission]
        addresses = ["0.0.0.0:587"]
        purpose = "submission"
        tls = "require"
        [listeners.submissions]
        addresses = ["0.0.0.0:465"]
        purpose = "submission"
        tls = "implicit"
        auth = ["PLAIN", "CRAM-MD5"]
        client_ca = "ca.pem"
        host_name = "smtp.example.net"
        proxy_from = ["10.0.0.0/8"]
        xclient_from = ["127.0.0.1"]
        sessions_per_address = 10
        sessions_per_network = 100
        [[certificates]]
        names = ["mx.example.net", "*.example.net"]
        chain = "chain.pem"
        key = "key.pem"
        [access.lists.zen]
        zone = "zen.example.org"
    "#;

    #[test]
    fn what_check_prints_can_be_read_again() {
        let config = parsed(WHOLE).unwrap();
        let shown = toml::to_string(&config).unwrap();
        let again = parse(&shown, "shown").unwrap();
        assert_eq!(toml::to_string(&again).unwrap(), shown);
        assert!(again.listen.is_empty() && again.listeners().len() == 3);
        assert_eq!(again.addresses().len(), 4);
    }

    #[test]
    fn what_is_not_written_depends_on_the_purpose_and_the_certificates() {
        let config = parsed(WHOLE).unwrap();
        let [mx, submission, submissions] =
            ["mx", "submission", "submissions"].map(|name| &config.listeners[name]);
        assert_eq!((mx.tls(), mx.mechanisms()), (ListenerTls::Offer, &[][..]));
        assert_eq!((submission.tls(), submission.mechanisms().len()), (ListenerTls::Require, 3));
        assert_eq!(submissions.mechanisms(), [Mechanism::Plain, Mechanism::CramMd5]);
        assert_eq!(mx.thresholds().reject_at, Some(3));
        assert_eq!(submission.thresholds().reject_at, Some(1));
        let config = parsed("[listeners.odmr]\naddresses = [\"0.0.0.0:366\"]\npurpose = \"odmr\"").unwrap();
        assert!(config.listeners["odmr"].mechanisms().contains(&Mechanism::CramMd5), "RFC 2645 5.1.2");
    }

    #[test]
    fn listen_alone_is_one_plain_listener() {
        let config = parsed("").unwrap();
        let listeners = config.listeners();
        assert_eq!(config.addresses(), ["127.0.0.1:2525".parse().unwrap()]);
        let default = &listeners[DEFAULT];
        assert_eq!(
            (default.purpose, default.tls(), default.mechanisms().len()),
            (Purpose::Mx, ListenerTls::None, 0)
        );
        let both =
            parsed("listen = [\"127.0.0.1:26\"]\n[listeners.a]\naddresses = [\"127.0.0.1:27\"]").unwrap();
        assert_eq!(both.listeners().len(), 2);
    }

    #[test]
    fn wrong_listeners_are_named() {
        let one = "[listeners.a]\naddresses = [\"127.0.0.1:26\"]\n";
        for (text, said) in [
            ("[listeners.a]\n", "ringpost.toml: listeners.a.addresses is empty"),
            (&format!("{one}tls = \"offer\""), "listeners.a.tls needs a certificate: add [[certificates]]"),
            (&format!("{one}tls = \"sure\""), "ringpost.toml:5: tls: unknown variant `sure`"),
            (&format!("{one}auth = [\"GSSAPI\"]"), "ringpost.toml:5: auth: unknown variant `GSSAPI`"),
            (&format!("{one}adresses = []"), "did you mean \"addresses\"?"),
            (&format!("{one}client_ca = \"x\""), "listeners.a.client_ca: there is no TLS"),
            (&format!("{one}block_lists = [\"zen\"]"), "there is no [access.lists.zen]"),
            (&format!("{one}greeting_delay_secs = 61"), "greeting_delay_secs must be at most 60"),
            (&format!("{one}sessions_per_address = 0"), "must be at least 1"),
            (&format!("{one}lists_tag_at = 0"), "must be at least 1"),
            (&format!("{one}purpose = \"odmr\"\nauth = []"), "listeners.a.auth is empty: who fetches mail"),
            (&format!("{one}host_name = \"a b\""), "listeners.a.host_name is no host name"),
            (&one.replace("[listeners.a]", "[listeners.\"a b\"]"), "a name has 1 to 64"),
            (
                "listen = [\"127.0.0.1:26\"]\n[listeners.default]\naddresses = [\"127.0.0.1:27\"]",
                "write them into listeners.default",
            ),
            (
                &format!("listen = [\"127.0.0.1:26\"]\n{one}"),
                "listeners.default.addresses: listeners.a has 127.0.0.1:26 already",
            ),
            (
                &format!("{one}[[certificates]]\nnames = [\"*\"]\nchain = \"c\"\nkey = \"k\""),
                "[[certificates]] number 1: \"*\" is no host name",
            ),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
