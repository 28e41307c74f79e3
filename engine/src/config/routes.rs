//! `[routes]` as it is written: a relay's name, or a table that says more of it.
//!
//! A password is read when the configuration is loaded and never printed. Bound: a secret has at most
//! [`SECRET_MAX`] octets.

use super::{ConfigError, TlsMode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use smtp_out::Secret;
use std::fmt;
use std::path::{Path, PathBuf};

/// Access tokens are a few thousand octets long.
const SECRET_MAX: usize = 16 << 10;

/// What is printed in a password's place.
const HIDDEN: &str = "(hidden)";

/// What stands behind a domain.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum RouteEntry {
    /// `host`, `host:port`, `[IPv6]:port`, or nothing: by MX.
    Relay(String),
    Table(RouteTable),
}

/// `{ relay = "smtp.example.net:587", … }`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// As in the short form. Without it: by MX.
    #[serde(default)]
    pub relay: String,
    #[serde(default, skip_serializing_if = "is_smtp")]
    pub protocol: RouteProtocol,
    /// Log in there (RFC 4954), with one of the three below.
    pub user: Option<String>,
    pub password: Option<Password>,
    pub password_file: Option<PathBuf>,
    /// The file of an access token, given by XOAUTH2.
    pub token_file: Option<PathBuf>,
    /// Log in over a connection that is not encrypted, too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_plain_login: bool,
    /// Instead of what `[tls]` says.
    pub tls: Option<TlsMode>,
    /// TLS from the first octet on (RFC 8314 §3); the port is 465 then unless another is named.
    #[serde(default, skip_serializing_if = "is_false")]
    pub implicit_tls: bool,
    /// Keep the mail until `ringpost queue flush DOMAIN` or ETRN.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hold: bool,
    /// What stands in the file.
    #[serde(skip)]
    pub(crate) read: Option<Secret>,
}

/// `protocol`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteProtocol {
    #[default]
    Smtp,
    Lmtp,
}

/// Neither `Debug` nor `Serialize` shows it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_smtp(protocol: &RouteProtocol) -> bool {
    *protocol == RouteProtocol::Smtp
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// By hand, so that an error in a table names its key and its line.
impl<'de> Deserialize<'de> for RouteEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RouteEntry, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = RouteEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a relay or a table such as { relay = \"smtp.example.net:587\" }")
    }

    fn visit_str<E>(self, text: &str) -> Result<RouteEntry, E> {
        Ok(RouteEntry::Relay(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteEntry, A::Error> {
        RouteTable::deserialize(MapAccessDeserializer::new(map)).map(RouteEntry::Table)
    }
}

impl RouteEntry {
    /// The long form of either.
    pub(crate) fn table(&self) -> RouteTable {
        match self {
            RouteEntry::Relay(relay) => RouteTable { relay: relay.clone(), ..RouteTable::default() },
            RouteEntry::Table(table) => table.clone(),
        }
    }
}

impl RouteTable {
    /// The port of a relay that names none. RFC 2033 §5: LMTP must not use 25.
    pub(crate) fn usual_port(&self) -> u16 {
        match self.protocol {
            RouteProtocol::Lmtp => 24,
            RouteProtocol::Smtp if self.implicit_tls => 465,
            RouteProtocol::Smtp => 25,
        }
    }

    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let has_relay = !self.relay.is_empty();
        let secrets = [self.password.is_some(), self.password_file.is_some(), self.token_file.is_some()];
        let secrets = secrets.into_iter().filter(|is_there| *is_there).count();
        let rules = [
            (
                secrets == usize::from(self.user.is_some()),
                "user goes with one of password, password_file and token_file",
            ),
            (
                has_relay || self.user.is_none(),
                "user is for a relay, which a password may be told to: write relay",
            ),
            (
                has_relay || self.protocol == RouteProtocol::Smtp,
                "protocol = \"lmtp\" is for a relay: write relay",
            ),
            (has_relay || !self.implicit_tls, "implicit_tls is for a relay: write relay"),
            (!self.allow_plain_login || self.user.is_some(), "allow_plain_login goes with user"),
            (
                self.tls != Some(TlsMode::Fingerprint),
                "tls: a fingerprint is one host's; write it into tls.domains",
            ),
            (
                !self.implicit_tls || self.tls != Some(TlsMode::Never),
                "implicit_tls is TLS from the first octet on: remove it or tls = \"never\"",
            ),
            (
                self.user.as_ref().is_none_or(|user| is_text(user)),
                "user must be text without control characters",
            ),
            (
                self.password.as_ref().is_none_or(|password| is_text(&password.0)),
                "password must be text without control characters",
            ),
            (
                self.password.as_ref().is_none_or(|password| password.0 != HIDDEN),
                "password is what `ringpost check` prints instead of one: write the password, or password_file",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }

    /// Known at once, or after [`RouteTable::read_secret`].
    pub(crate) fn secret(&self) -> Option<Secret> {
        match &self.password {
            Some(password) => Some(Secret::Password(password.0.clone())),
            None => self.read.clone(),
        }
    }

    /// `domain`: for an error.
    pub(crate) fn read_secret(&mut self, domain: &str) -> Result<(), ConfigError> {
        self.read = match (&self.password_file, &self.token_file) {
            (Some(file), _) => Some(Secret::Password(read(domain, "password_file", file)?)),
            (None, Some(file)) => Some(Secret::Token(read(domain, "token_file", file)?)),
            (None, None) => None,
        };
        Ok(())
    }
}

/// One line of text, without its end.
fn read(domain: &str, key: &str, path: &Path) -> Result<String, ConfigError> {
    let file = format!("{}: routes.{domain:?}.{key}", path.display());
    let text = std::fs::read(path).map_err(|source| ConfigError::Read { file: file.clone(), source })?;
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match std::str::from_utf8(text) {
        Ok(text) if is_text(text) => Ok(text.to_owned()),
        Ok(_) | Err(_) => {
            let what = format!("it must hold one line of text, of 1 to {SECRET_MAX} octets");
            Err(ConfigError::Value { file, what })
        }
    }
}

/// NUL and SOH are the borders of PLAIN's and XOAUTH2's fields.
fn is_text(text: &str) -> bool {
    (1..=SECRET_MAX).contains(&text.len()) && !text.contains(char::is_control)
}
