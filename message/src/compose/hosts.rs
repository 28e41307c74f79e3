//! What completes an address that is not complete (qmail's defaulthost, defaultdomain, plusdomain, idhost).

use crate::address::{AddressError, Domain};
use std::borrow::Cow;

/// A name that cannot stand behind an `@`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} \"{text}\": {reason}")]
pub struct HostsError {
    /// `default host`, `default domain`, `plus domain`, `id host`.
    pub what: &'static str,
    pub text: String,
    pub reason: AddressError,
}

/// Names that complete addresses. Each was checked: none holds an octet that could end an address or a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hosts {
    default_host: String,
    default_domain: String,
    plus_domain: String,
    id_host: String,
}

impl Hosts {
    /// All four names from one, as a host does that has been told only its own (`me`).
    pub fn of(me: &str) -> Result<Hosts, HostsError> {
        Hosts {
            default_host: String::new(),
            default_domain: String::new(),
            plus_domain: String::new(),
            id_host: String::new(),
        }
        .with_default_host(me)?
        .with_default_domain(me)?
        .with_plus_domain(me)?
        .with_id_host(me)
    }

    /// For addresses without a host. May itself lack dots or end in `+`: it is completed like any other.
    pub fn with_default_host(self, text: &str) -> Result<Hosts, HostsError> {
        Ok(Hosts { default_host: checked("default host", text, text.strip_suffix('+'))?, ..self })
    }

    /// For hosts without dots.
    pub fn with_default_domain(self, text: &str) -> Result<Hosts, HostsError> {
        Ok(Hosts { default_domain: checked("default domain", text, None)?, ..self })
    }

    /// For hosts that end in `+`.
    pub fn with_plus_domain(self, text: &str) -> Result<Hosts, HostsError> {
        Ok(Hosts { plus_domain: checked("plus domain", text, None)?, ..self })
    }

    /// The right side of Message-IDs.
    pub fn with_id_host(self, text: &str) -> Result<Hosts, HostsError> {
        Ok(Hosts { id_host: checked("id host", text, None)?, ..self })
    }

    /// Overrides from `QMAILDEFAULTHOST`, `QMAILDEFAULTDOMAIN`, `QMAILPLUSDOMAIN` and `QMAILIDHOST`, as `variable`
    /// finds them.
    pub fn with_variables(
        mut self,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Hosts, HostsError> {
        if let Some(text) = variable("QMAILDEFAULTHOST") {
            self = self.with_default_host(&text)?;
        }
        if let Some(text) = variable("QMAILDEFAULTDOMAIN") {
            self = self.with_default_domain(&text)?;
        }
        if let Some(text) = variable("QMAILPLUSDOMAIN") {
            self = self.with_plus_domain(&text)?;
        }
        if let Some(text) = variable("QMAILIDHOST") {
            self = self.with_id_host(&text)?;
        }
        Ok(self)
    }

    pub fn id_host(&self) -> &str {
        &self.id_host
    }

    /// The whole name of `host`; `None` is an address without one. A dot at the end says that the name is
    /// whole; it goes, because SMTP has no place for it. Cost: one allocation if the name changes.
    pub fn complete<'a>(&self, host: Option<&'a [u8]>) -> Cow<'a, [u8]> {
        match host {
            None => Cow::Owned(self.complete(Some(self.default_host.as_bytes())).into_owned()),
            Some(whole) if whole.starts_with(b"[") => Cow::Borrowed(whole),
            Some([name @ .., b'.']) => Cow::Borrowed(name),
            Some([name @ .., b'+']) => Cow::Owned(joined(name, &self.plus_domain)),
            Some(name) if !name.contains(&b'.') => Cow::Owned(joined(name, &self.default_domain)),
            Some(whole) => Cow::Borrowed(whole),
        }
    }
}

fn joined(name: &[u8], domain: &str) -> Vec<u8> {
    let mut whole = name.to_vec();
    if !whole.is_empty() && !whole.ends_with(b".") {
        whole.push(b'.');
    }
    whole.extend_from_slice(domain.as_bytes());
    whole
}

/// `bare` is the part of `text` that must be a domain, if that is not all.
fn checked(what: &'static str, text: &str, bare: Option<&str>) -> Result<String, HostsError> {
    match Domain::parse(bare.unwrap_or(text)) {
        Ok(_) => Ok(text.to_owned()),
        Err(reason) => Err(HostsError { what, text: text.to_owned(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::of("mx.example.org")
            .and_then(|hosts| hosts.with_default_host("silverton"))
            .and_then(|hosts| hosts.with_default_domain("cs.example.edu"))
            .and_then(|hosts| hosts.with_plus_domain("example.edu"))
            .unwrap()
    }

    #[test]
    fn hosts_are_completed_by_their_form() {
        let complete =
            |host: &str| String::from_utf8(hosts().complete(Some(host.as_bytes())).into()).unwrap();
        assert_eq!(complete("heaven.af.mil"), "heaven.af.mil");
        assert_eq!(complete("mammoth"), "mammoth.cs.example.edu");
        assert_eq!(complete("mammoth.math+"), "mammoth.math.example.edu");
        assert_eq!(complete("mammoth+"), "mammoth.example.edu");
        assert_eq!(complete("+"), "example.edu");
        assert_eq!(complete("[192.0.2.1]"), "[192.0.2.1]");
        assert_eq!(complete("localhost."), "localhost");
    }

    #[test]
    fn the_default_host_is_completed_like_any_other() {
        assert_eq!(&*hosts().complete(None), b"silverton.cs.example.edu");
        let hosts = hosts().with_default_host("zeus+").unwrap();
        assert_eq!(&*hosts.complete(None), b"zeus.example.edu");
    }

    #[test]
    fn a_name_that_could_end_a_line_is_refused() {
        let error = Hosts::of("a.example\r\nBcc: b@c").unwrap_err();
        assert_eq!((error.what, error.reason), ("default host", AddressError::DomainSyntax));
        assert!(hosts().with_default_domain("a+").is_err());
    }

    #[test]
    fn variables_override() {
        let hosts = hosts().with_variables(|name| (name == "QMAILIDHOST").then(|| "id.example".to_owned()));
        assert_eq!(hosts.unwrap().id_host(), "id.example");
    }
}
