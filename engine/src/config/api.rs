//! `[api]` and `[unsubscribe]`: HTTP for programs, and the page for recipients.

use message::unsubscribe::Links;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `[api]`: injection, campaigns and the suppression list over HTTP. An address that is not loopback is refused unless
/// there are tokens, and TLS or a word that none is needed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// None: no API.
    pub listen: Vec<SocketAddr>,
    /// Lines `name:SHA256[:scope,...]`; `ringpost token` writes them. None: this machine's programs need no token.
    /// Read again by a reload.
    pub tokens_file: Option<PathBuf>,
    /// PEM files: certificate with its chain, and its key. Read again by a reload.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Tokens may travel in plain text beyond this machine: the network is ours, or a proxy in front does TLS.
    pub tokens_without_tls: bool,
    /// Octets of a request that is read whole; lists of recipients have no bound.
    pub body_max: usize,
    /// Octets that all requests under way hold.
    pub memory_max: usize,
    pub connections_max: u32,
    pub connections_per_address: u32,
    /// A client that sends or takes nothing for so long is gone.
    pub idle_timeout_secs: u64,
}

impl Default for Api {
    fn default() -> Api {
        Api {
            listen: Vec::new(),
            tokens_file: None,
            certificate: None,
            key: None,
            tokens_without_tls: false,
            body_max: 64 << 20,
            memory_max: 256 << 20,
            connections_max: 256,
            connections_per_address: 256,
            idle_timeout_secs: 60,
        }
    }
}

/// `[unsubscribe]`: what List-Unsubscribe fields lead to (RFC 8058).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Unsubscribe {
    /// Addresses of the page, which is all that is served there. None: nobody can unsubscribe by HTTP.
    pub listen: Vec<SocketAddr>,
    /// How the world reaches it: `https://lists.example.org`, perhaps with a path that a proxy in front takes away.
    pub base_url: Option<String>,
    /// Mail to it unsubscribes as well: what comes to it by our listeners is read here.
    pub mailto: Option<String>,
    /// PEM files; without them a proxy in front does TLS, which RFC 8058 demands of the URL.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub connections_max: u32,
    /// Behind a proxy everybody has its address: as many as `connections_max` then.
    pub connections_per_address: u32,
}

impl Default for Unsubscribe {
    fn default() -> Unsubscribe {
        Unsubscribe {
            listen: Vec::new(),
            base_url: None,
            mailto: None,
            certificate: None,
            key: None,
            connections_max: 1024,
            connections_per_address: 32,
        }
    }
}

impl Api {
    pub(super) fn check(&self) -> Result<(), String> {
        check_pair("api", self.certificate.as_ref(), self.key.as_ref())?;
        if let Some(open) = self.listen.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
            if self.tokens_file.is_none() {
                return Err(format!(
                    "api.listen: {open} can be reached from outside: api.tokens_file must name who may use it \
                     (`ringpost token` makes one)"
                ));
            }
            if self.certificate.is_none() && !self.tokens_without_tls {
                return Err(format!(
                    "api.listen: tokens would reach {open} in plain text: name api.certificate and api.key, or say \
                     tokens_without_tls = true if the network is yours alone or a proxy does TLS"
                ));
            }
        }
        let rules = [
            ((1 << 10..=1 << 30).contains(&self.body_max), "api.body_max must be between 1 KiB and 1 GiB"),
            (
                self.memory_max >= 16 << 20 && self.memory_max / 3 >= self.body_max,
                "api.memory_max must be at least 16 MiB and three times api.body_max: so much is held of a body until \
                 it is a message",
            ),
            (self.connections_max > 0, "api.connections_max must be at least 1"),
            (self.connections_per_address > 0, "api.connections_per_address must be at least 1"),
            ((1..=3600).contains(&self.idle_timeout_secs), "api.idle_timeout_secs must be 1 to 3600"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }
}

impl Unsubscribe {
    /// What a token is appended to.
    pub(crate) fn url(&self) -> Option<String> {
        Some(format!("{}/u/", self.base_url.as_deref()?.trim_end_matches('/')))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        check_pair("unsubscribe", self.certificate.as_ref(), self.key.as_ref())?;
        if !self.listen.is_empty() && self.base_url.is_none() {
            return Err("unsubscribe.base_url must say how the world reaches unsubscribe.listen".to_owned());
        }
        let mailto = match self.mailto.as_deref().map(message::Mailbox::parse) {
            Some(Err(error)) => return Err(format!("unsubscribe.mailto: {error}")),
            Some(Ok(mailto)) => Some(mailto),
            None => None,
        };
        if mailto.is_some() && self.base_url.is_none() {
            return Err("unsubscribe.mailto alone is offered nowhere: unsubscribe.base_url must say where the page is \
                        (RFC 8058)"
                .to_owned());
        }
        if let Some(url) = self.url()
            && let Err(error) = Links::new(&url, mailto.as_ref())
        {
            return Err(format!("unsubscribe.base_url, unsubscribe.mailto: {error}"));
        }
        let rules = [
            (self.connections_max > 0, "unsubscribe.connections_max must be at least 1"),
            (self.connections_per_address > 0, "unsubscribe.connections_per_address must be at least 1"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }
}

fn check_pair(section: &str, certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Result<(), String> {
    if certificate.is_some() == key.is_some() {
        Ok(())
    } else {
        Err(format!("{section}.certificate and {section}.key go together"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(keys: &str) -> Result<(), String> {
        toml::from_str::<Api>(keys).unwrap().check()
    }

    fn page(keys: &str) -> Result<(), String> {
        toml::from_str::<Unsubscribe>(keys).unwrap().check()
    }

    #[test]
    fn only_loopback_is_open_without_tokens() {
        assert!(api("").is_ok() && api("listen = [\"127.0.0.1:1\", \"[::1]:1\"]").is_ok());
        let open = "listen = [\"127.0.0.1:1\", \"0.0.0.0:1\"]";
        assert!(api(open).unwrap_err().contains("0.0.0.0:1 can be reached from outside"));
        let tokens = format!("{open}\ntokens_file = \"t\"");
        assert!(api(&tokens).unwrap_err().contains("plain text"));
        assert!(api(&format!("{tokens}\ntokens_without_tls = true")).is_ok());
        assert!(api(&format!("{tokens}\ncertificate = \"c\"\nkey = \"k\"")).is_ok());
        assert!(api("certificate = \"c\"").unwrap_err().contains("go together"));
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        assert!(api("body_max = 10").unwrap_err().contains("1 KiB"));
        assert!(api("memory_max = 16777216").unwrap_err().contains("three times"));
        assert!(api("connections_max = 0").is_err() && api("connections_per_address = 0").is_err());
        assert!(api("idle_timeout_secs = 0").unwrap_err().contains("1 to 3600"));
        assert!(page("listen = [\"127.0.0.1:1\"]").unwrap_err().contains("base_url must say"));
        assert!(page("mailto = \"x\"").unwrap_err().contains("unsubscribe.mailto: the address has no @"));
        assert!(page("connections_max = 0").is_err() && page("connections_per_address = 0").is_err());
    }

    #[test]
    fn a_base_url_stands_in_a_header_as_it_is() {
        for good in ["https://lists.example.org", "https://a.test:8443/u-page/"] {
            assert!(page(&format!("base_url = \"{good}\"")).is_ok(), "{good}");
        }
        for bad in
            ["http://a.test", "a.test", "https://", "https://a.test/>", "https://a.test/#a", "ftp://a.test"]
        {
            assert!(page(&format!("base_url = \"{bad}\"")).is_err(), "{bad}");
        }
        let url = toml::from_str::<Unsubscribe>("base_url = \"https://a.test/x/\"").unwrap().url();
        assert_eq!(url.as_deref(), Some("https://a.test/x/u/"));
    }
}
