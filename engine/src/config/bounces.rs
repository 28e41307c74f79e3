//! `[bounces]`: how senders are told of what failed, and what is done with what others tell us.
//!
//! A host in `domains` is one whose return paths we read: senders there get signed ones with VERP, and mail that comes
//! back to them is taken from anybody, read and counted.

use crate::returns::may_be_plain;
use message::{Domain, Mailbox};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const DOMAINS_MAX: usize = 1000;
const FEEDBACK_MAX: usize = 64;
const OWNERS_MAX: usize = 10_000;

/// See the module.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounces {
    pub format: BounceFormat,
    /// Who is told of mail from `<>` that failed (qmail's doublebounceto). Default: postmaster at `host_name`; empty:
    /// nobody.
    pub doublebounce_to: Option<String>,
    /// Hosts of VERP senders whose returns are read here.
    pub domains: Vec<String>,
    pub tokens: Tokens,
    pub unsigned: Unsigned,
    /// Addresses that providers send complaints to.
    pub feedback_addresses: Vec<String>,
    /// Gets a copy of everything that came back.
    pub forward_to: Option<String>,
    /// Get one of what came back to their list: `list@host = owner@host`, before `forward_to`.
    pub owners: BTreeMap<String, String>,
    /// Gets what nobody could read. Default: it is only counted.
    pub unknown_to: Option<String>,
}

/// What a bounce looks like. Warnings of a delay and reports of success are always RFC 3464's.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BounceFormat {
    /// multipart/report with message/delivery-status.
    #[default]
    Rfc3464,
    /// qmail-send's bounce message format.
    Qsbmf,
}

/// Which return paths of senders in `domains` are signed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// All.
    #[default]
    Always,
    /// Those of recipients too long to be named: the others look as they do elsewhere, and anybody can make them up.
    Long,
}

/// What is done with mail to a return path that has a recipient in it and no signature.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unsigned {
    /// It is no return path of ours.
    #[default]
    Refuse,
    /// It is taken, and counts if it reports of that very recipient and gives back a header that we passed on.
    Check,
}

impl Bounces {
    /// Where double bounces go, if anywhere.
    pub(crate) fn double_bounces(&self, host_name: &str) -> Option<Mailbox> {
        let address = match &self.doublebounce_to {
            Some(address) => address.clone(),
            None => format!("postmaster@{host_name}"),
        };
        Mailbox::parse(&address).ok()
    }

    /// What must hold, and what is said if it does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let nobody = self.doublebounce_to.as_deref() == Some("");
        let told = self.doublebounce_to.iter().filter(|_| !nobody);
        addresses("doublebounce_to", told, "write one, or \"\" for nobody")?;
        addresses("feedback_addresses", self.feedback_addresses.iter(), "")?;
        addresses("owners", self.owners.keys(), "write list@host = \"owner@host\"")?;
        for (key, address) in self.copies() {
            addresses(key, std::iter::once(address), "")?;
            self.check_copy(key, address)?;
        }
        if let Some(wrong) = self.domains.iter().find(|domain| Domain::parse(domain).is_err()) {
            return Err(format!("bounces.domains: {wrong:?} is no host name"));
        }
        let is_lax = self.unsigned == Unsigned::Check;
        let rules = [
            (self.domains.len() <= DOMAINS_MAX, "bounces.domains has more than 1000 hosts"),
            (self.feedback_addresses.len() <= FEEDBACK_MAX, "bounces.feedback_addresses has more than 64"),
            (self.owners.len() <= OWNERS_MAX, "bounces.owners has more than 10000 lists"),
            (
                self.tokens == Tokens::Always || is_lax,
                "bounces.tokens = \"long\" makes return paths that are not signed: without unsigned = \"check\" nothing \
                 would come back to them",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what.to_owned()))
    }

    /// Keys and addresses of those who get copies.
    fn copies(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let owners = self.owners.values().map(|owner| ("owners", owner));
        let single = [("forward_to", &self.forward_to), ("unknown_to", &self.unknown_to)];
        let single = single.into_iter().filter_map(|(key, address)| Some((key, address.as_ref()?)));
        owners.chain(single)
    }

    /// A copy that came back here would be copied again.
    fn check_copy(&self, key: &str, address: &str) -> Result<(), String> {
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        let is_feedback = self.feedback_addresses.iter().any(|other| other.eq_ignore_ascii_case(address));
        let is_here = self.domains.iter().any(|other| other.eq_ignore_ascii_case(domain));
        if is_feedback || is_here && may_be_plain(local) {
            return Err(format!(
                "bounces.{key}: {address:?} is read here itself: its copies would have no end"
            ));
        }
        Ok(())
    }
}

fn addresses<'a>(key: &str, addresses: impl Iterator<Item = &'a String>, what: &str) -> Result<(), String> {
    let mut wrong = addresses.filter(|address| Mailbox::parse(address).is_err());
    wrong.next().map_or(Ok(()), |address| {
        let end = if what.is_empty() { String::new() } else { format!("; {what}") };
        Err(format!("bounces.{key}: {address:?} is no mail address{end}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounces(keys: &str) -> Bounces {
        toml::from_str(keys).unwrap()
    }

    #[test]
    fn double_bounces_go_to_the_postmaster_unless_somebody_else_is_named() {
        let to = |keys: &str| bounces(keys).double_bounces("mx.example.net").map(|to| to.to_string());
        assert_eq!(to("").as_deref(), Some("postmaster@mx.example.net"));
        assert_eq!(to("doublebounce_to = \"ops@example.net\"").as_deref(), Some("ops@example.net"));
        assert_eq!(to("doublebounce_to = \"\""), None);
    }

    #[test]
    fn everything_may_be_left_out_or_said() {
        let keys = "format = \"qsbmf\"\ndoublebounce_to = \"\"\ndomains = [\"bounces.example.org\"]\ntokens = \"long\"\n\
                    unsigned = \"check\"\nfeedback_addresses = [\"fbl@example.org\"]\nforward_to = \"a@example.org\"\n\
                    unknown_to = \"b@example.org\"\n[owners]\n\"list@bounces.example.org\" = \"c@example.org\"\n";
        assert_eq!(bounces(keys).check(), Ok(()));
        assert_eq!(bounces("").check(), Ok(()));
        assert!(toml::from_str::<Bounces>("format = \"QSBMF \"").is_err());
    }

    #[test]
    fn what_cannot_work_is_said_at_the_check() {
        let error = |keys: &str| bounces(keys).check().unwrap_err();
        assert!(error("doublebounce_to = \"ops\"").contains("or \"\" for nobody"));
        assert!(error("domains = [\"a b\"]").contains("no host name"));
        assert!(error("forward_to = \"\"").starts_with("bounces.forward_to: \"\" is no mail address"));
        assert!(error("tokens = \"long\"").contains("unsigned = \"check\""));
        assert!(error("[owners]\nlist = \"a@b.test\"").contains("write list@host"));
        let rings = "feedback_addresses = [\"fbl@b.test\"]\nforward_to = \"FBL@b.test\"";
        assert!(error(rings).contains("no end"));
        let rings = "domains = [\"b.test\"]\nunknown_to = \"list+ann=c.test@B.test\"";
        assert!(error(rings).contains("no end"));
    }
}
