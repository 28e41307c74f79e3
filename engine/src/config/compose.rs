//! `[compose]`: how `sendmail` and `inject` complete what this machine's users write.
//!
//! They run as the submitting user: it counts if that user may read the file.

use message::compose::{Hosts, HostsError, Masquerade, MasqueradeError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// See the module. What is left out is `host_name`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compose {
    /// For addresses without a host.
    pub default_host: Option<String>,
    /// For hosts without a dot.
    pub default_domain: Option<String>,
    /// For hosts that end in `+`.
    pub plus_domain: Option<String>,
    /// The right side of Message-IDs.
    pub id_host: Option<String>,
    /// Senders that go out under another address: `ann` or `ann@host` = address, `@host` or `@.domain` = host.
    pub masquerade: BTreeMap<String, String>,
}

impl Compose {
    pub fn hosts(&self, host_name: &str) -> Result<Hosts, HostsError> {
        let or_ours = |name: &Option<String>| name.clone().unwrap_or_else(|| host_name.to_owned());
        Hosts::of(host_name)?
            .with_default_host(&or_ours(&self.default_host))?
            .with_default_domain(&or_ours(&self.default_domain))?
            .with_plus_domain(&or_ours(&self.plus_domain))?
            .with_id_host(&or_ours(&self.id_host))
    }

    pub fn masquerade(&self) -> Result<Masquerade, MasqueradeError> {
        let mut map = Masquerade::new();
        self.masquerade.iter().try_for_each(|(from, to)| map.add(from, to))?;
        Ok(map)
    }

    pub(super) fn check(&self, host_name: &str) -> Result<(), String> {
        self.hosts(host_name).map_err(|error| format!("compose: {error}"))?;
        self.masquerade().map(drop).map_err(|error| format!("compose: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_hosts_own_name() {
        let compose = Compose { default_domain: Some("example.org".into()), ..Compose::default() };
        let hosts = compose.hosts("mx.example.net").unwrap();
        assert_eq!(&*hosts.complete(None), b"mx.example.net");
        assert_eq!(&*hosts.complete(Some(b"pc")), b"pc.example.org");
        assert_eq!(hosts.id_host(), "mx.example.net");
    }

    #[test]
    fn what_means_nothing_is_said_at_the_check() {
        let compose = Compose { plus_domain: Some("a b".into()), ..Compose::default() };
        assert!(compose.check("mx.example.net").unwrap_err().starts_with("compose: plus domain"));
        let masquerade = [("ann".to_owned(), "nobody".to_owned())].into();
        let compose = Compose { masquerade, ..Compose::default() };
        assert!(compose.check("mx.example.net").unwrap_err().contains("masquerade \"ann\""));
    }
}
