//! `[events]`: the event log, and who is told of what is in it.

use super::{ConfigError, Secret};
use crate::events::Kind;
use hyper::Uri;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Webhooks and files together.
const CONSUMERS_MAX: usize = 64;

/// See the module. The log itself is there or not from a start on; a reload changes all but its folder.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Where its files are. Default: `events` in the queue's folder.
    pub folder: Option<PathBuf>,
    /// A file is ended, and the next one begun, at this many bytes or this age.
    pub file_len: u64,
    pub file_secs: u64,
    /// Files that everybody has read are kept for this long, as long as all of them take no more room than this.
    pub keep_days: u64,
    pub keep_bytes: u64,
    /// Past this much room even files go that somebody has not read.
    pub disk_max: u64,
    /// An event for each message that is taken in, too.
    pub accepted: bool,
    pub webhooks: BTreeMap<String, Webhook>,
    pub files: BTreeMap<String, EventFile>,
}

impl Default for Events {
    fn default() -> Events {
        Events {
            folder: None,
            file_len: 64 << 20,
            file_secs: 3600,
            keep_days: 30,
            keep_bytes: 10 << 30,
            disk_max: 20 << 30,
            accepted: false,
            webhooks: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }
}

/// `[events.webhooks.NAME]`: an address that batches of events are posted to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    /// What stands in it, without its line end, signs each post.
    pub secret_file: PathBuf,
    #[serde(skip)]
    pub secret: Option<Secret>,
    /// Only these kinds. Default: all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Events in a post at most, and how long the first one waits for others.
    #[serde(default = "batch_max")]
    pub batch_max: usize,
    #[serde(default = "batch_wait_ms")]
    pub batch_wait_ms: u64,
    /// A post has failed that is not answered within this time.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: u64,
    /// Posts under way at a time. With more than one, a post may come before those that go before it.
    #[serde(default = "max_in_flight")]
    pub max_in_flight: usize,
    /// Plain http to another host than this one is allowed.
    #[serde(default)]
    pub plain: bool,
}

fn batch_max() -> usize {
    500
}

fn batch_wait_ms() -> u64 {
    1000
}

fn timeout_secs() -> u64 {
    30
}

fn max_in_flight() -> usize {
    1
}

/// `[events.files.NAME]`: a file that events are copied to, for programs that read one file and no folder.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventFile {
    pub path: PathBuf,
    #[serde(default)]
    pub kinds: Vec<String>,
}

/// A shorter secret can be tried out.
const SECRET_MIN: usize = 16;

impl Events {
    /// From the files that hold them.
    pub(super) fn read_secrets(&mut self) -> Result<(), ConfigError> {
        for webhook in self.webhooks.values_mut() {
            let secret = Secret::read(&webhook.secret_file)?;
            if secret.0.len() < SECRET_MIN {
                let file = webhook.secret_file.display().to_string();
                let what =
                    "a webhook's secret has at least 16 octets; `openssl rand -hex 32` makes one".to_owned();
                return Err(ConfigError::Value { file, what });
            }
            webhook.secret = Some(secret);
        }
        Ok(())
    }

    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rules = [
            ((1 << 10..=1 << 30).contains(&self.file_len), "events.file_len must be between 1 KiB and 1 GiB"),
            (self.file_secs > 0, "events.file_secs must be at least 1"),
            (self.keep_bytes <= self.disk_max, "events.keep_bytes must be at most events.disk_max"),
            (self.webhooks.len() + self.files.len() <= CONSUMERS_MAX, "events has more than 64 consumers"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))?;
        for (name, webhook) in &self.webhooks {
            if self.files.contains_key(name) {
                return Err(format!(
                    "events: {name:?} is a webhook and a file; each needs a name of its own"
                ));
            }
            check_name(name)?;
            webhook.check().map_err(|what| format!("events.webhooks.{name}.{what}"))?;
        }
        for (name, file) in &self.files {
            check_name(name)?;
            check_kinds(&file.kinds).map_err(|what| format!("events.files.{name}.{what}"))?;
        }
        Ok(())
    }
}

impl Webhook {
    fn check(&self) -> Result<(), String> {
        self.place()?;
        check_kinds(&self.kinds)?;
        let rules = [
            ((1..=10_000).contains(&self.batch_max), "batch_max must be 1 to 10000"),
            (self.batch_wait_ms <= 60_000, "batch_wait_ms must be at most 60000"),
            ((1..=600).contains(&self.timeout_secs), "timeout_secs must be 1 to 600"),
            ((1..=32).contains(&self.max_in_flight), "max_in_flight must be 1 to 32"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }

    /// Where the URL leads.
    pub fn place(&self) -> Result<Place, String> {
        let wrong = |what: &str| format!("url: {:?} {what}", self.url);
        let uri: Uri = self.url.parse().map_err(|_| wrong("is no URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("must begin with https:// or http://, and name a host"));
        };
        let is_plain = match scheme {
            "https" => false,
            "http" => true,
            _ => return Err(wrong("must begin with https:// or http://")),
        };
        if authority.as_str().contains('@') {
            return Err(wrong(
                "has a password in it, which would stand in logs; the signature says who posts",
            ));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if is_plain && !self.plain && !is_this_machine(&host) {
            return Err(wrong(
                "is not encrypted; use https, or say plain = true if the way there is trusted",
            ));
        }
        let port = authority.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Place { is_plain, host, authority: authority.as_str().to_owned(), port, path })
    }
}

/// Where a webhook's posts go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub is_plain: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// As it stands in the `Host` field.
    pub authority: String,
    pub port: u16,
    pub path: String,
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Names are those of the files that keep the consumers' places.
fn check_name(name: &str) -> Result<(), String> {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("events: {name:?} is no name of a consumer; letters, digits, - and _ make one"))
}

fn check_kinds(kinds: &[String]) -> Result<(), String> {
    let Some(wrong) = kinds.iter().find(|kind| Kind::of_name(kind).is_none()) else { return Ok(()) };
    let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    Err(format!("kinds: there is no {wrong:?}; there are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Result<(), String> {
        toml::from_str::<Events>(text).unwrap().check()
    }

    fn webhook(keys: &str) -> Result<(), String> {
        events(&format!("[webhooks.a]\nsecret_file = \"s\"\n{keys}"))
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        assert!(events("file_len = 10").unwrap_err().contains("between 1 KiB and 1 GiB"));
        assert!(events("keep_bytes = 2\ndisk_max = 1").unwrap_err().contains("at most events.disk_max"));
        assert!(events("[files.\"a/b\"]\npath = \"p\"").unwrap_err().contains("no name of a consumer"));
        assert!(webhook("url = \"ftp://a.test/\"").unwrap_err().contains("must begin with https"));
        assert!(webhook("url = \"http://a.test/\"").unwrap_err().contains("plain = true"));
        assert!(webhook("url = \"https://u:p@a.test/\"").unwrap_err().contains("has a password"));
        let kinds = webhook("url = \"https://a.test\"\nkinds = [\"bounce\"]").unwrap_err();
        assert!(kinds.contains("events.webhooks.a.kinds: there is no \"bounce\"; there are"), "{kinds}");
        assert!(webhook("url = \"https://a.test\"\nbatch_max = 0").unwrap_err().contains("1 to 10000"));
        assert!(
            toml::from_str::<Events>("[webhooks.a]\nurl = \"https://a.test\"").is_err(),
            "posts are signed"
        );
    }

    #[test]
    fn url_says_where_posts_go() {
        let place = |url: &str| {
            let webhook: Webhook =
                toml::from_str(&format!("secret_file = \"s\"\nplain = true\nurl = \"{url}\"")).unwrap();
            let Place { is_plain, host, port, path, .. } = webhook.place().unwrap();
            (is_plain, host, port, path)
        };
        assert_eq!(place("https://a.test"), (false, "a.test".into(), 443, "/".into()));
        assert_eq!(place("http://[::1]:8080/x?y=z"), (true, "::1".into(), 8080, "/x?y=z".into()));
        assert!(
            webhook("url = \"http://127.0.0.1:1/\"").is_ok()
                && webhook("url = \"http://localhost/\"").is_ok()
        );
    }
}
