//! `[verify]`: what is found out about incoming mail and written on top of it.

use serde::{Deserialize, Serialize};

/// See the module. In force at listeners that say `verify = true`; nothing is ever refused by it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// RFC 7208.
    pub spf: bool,
    /// RFC 6376.
    pub dkim: bool,
    /// RFC 9989; needs one of the two before it.
    pub dmarc: bool,
    /// What is not known by then is `temperror`.
    pub timeout_secs: u64,
    /// Larger messages are verified by SPF alone.
    pub size_max: usize,
    /// Messages under verification at a time; others go on with `temperror`.
    pub messages_max: usize,
    /// Our name in `Authentication-Results`. Default: `host_name`.
    pub authserv_id: Option<String>,
    /// Further names that readers of our mail trust: strangers' fields under them are taken out, as those under ours.
    pub trusted_authserv_ids: Vec<String>,
}

impl Default for Verify {
    fn default() -> Verify {
        Verify {
            spf: true,
            dkim: true,
            dmarc: true,
            timeout_secs: 5,
            size_max: 20 << 20,
            messages_max: 256,
            authserv_id: None,
            trusted_authserv_ids: Vec::new(),
        }
    }
}

impl Verify {
    /// Our name in `Authentication-Results`, on a host of that name.
    pub fn own_id<'a>(&'a self, host_name: &'a str) -> &'a str {
        self.authserv_id.as_deref().unwrap_or(host_name)
    }

    /// All names under which strangers' fields are not believed, ours first.
    pub fn trusted_ids<'a>(&'a self, host_name: &'a str) -> Vec<&'a str> {
        let others = self.trusted_authserv_ids.iter().map(String::as_str);
        std::iter::once(self.own_id(host_name)).chain(others).collect()
    }

    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut ids = self.authserv_id.iter().chain(&self.trusted_authserv_ids);
        let rules = [
            (
                self.spf || self.dkim || !self.dmarc,
                "verify.dmarc judges by SPF and DKIM: turn one of them on, or it off",
            ),
            ((1..=60).contains(&self.timeout_secs), "verify.timeout_secs must be 1 to 60"),
            ((1..=10_000).contains(&self.messages_max), "verify.messages_max must be 1 to 10000"),
            (
                ids.all(|id| message::Domain::parse(id).is_ok() && id.is_ascii()),
                "verify: authserv_id and trusted_authserv_ids are names like hosts' (RFC 8601 2.5)",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(keys: &str) -> String {
        toml::from_str::<Verify>(keys).unwrap().check().unwrap_err()
    }

    #[test]
    fn our_names_are_the_configured_one_or_the_hosts_and_those_that_are_trusted_too() {
        let verify: Verify = toml::from_str("trusted_authserv_ids = [\"old.test\"]").unwrap();
        assert_eq!(verify.trusted_ids("h.test"), ["h.test", "old.test"]);
        let named = Verify { authserv_id: Some("id.test".to_owned()), ..verify };
        assert_eq!((named.own_id("h.test"), named.trusted_ids("h.test").len()), ("id.test", 2));
    }

    #[test]
    fn wrong_settings_say_what_to_do() {
        assert!(wrong("spf = false\ndkim = false").contains("turn one of them on"));
        assert!(wrong("timeout_secs = 0").contains("1 to 60"));
        assert!(wrong("messages_max = 0").contains("1 to 10000"));
        assert!(wrong("authserv_id = \"a b\"").contains("RFC 8601"));
        assert!(wrong("trusted_authserv_ids = [\"mx;\"]").contains("RFC 8601"));
        assert!(Verify::default().check().is_ok());
    }
}
