//! What is sent and on which terms, apart from to whom.

use super::Values;
use bytes::Bytes;
use message::{Lane, Mailbox, ReversePath, Verp};
use serde::Deserialize;
use std::net::IpAddr;

/// Octets of a campaign's or a list's name: of those that unsubscribing tokens have room for.
const NAME_MAX: usize = 64;

const _: () = assert!(NAME_MAX <= message::unsubscribe::LIST_MAX);

/// A campaign's name: letters, digits and `-._~`, so that it stands as it is in an address, a header and a file's name.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct CampaignId(Box<str>);

/// A list's name, of the same letters; in lower case, as ids of lists are compared (RFC 2919 §6).
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct ListName(Box<str>);

/// It is no name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a name has 1 to 64 letters, digits and -._~, and begins with a letter or digit")]
pub struct NotAName;

impl TryFrom<String> for CampaignId {
    type Error = NotAName;

    fn try_from(text: String) -> Result<CampaignId, NotAName> {
        CampaignId::parse(&text).ok_or(NotAName)
    }
}

impl CampaignId {
    pub fn parse(text: &str) -> Option<CampaignId> {
        is_name(text).then(|| CampaignId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ListName {
    type Error = NotAName;

    fn try_from(text: String) -> Result<ListName, NotAName> {
        ListName::parse(&text).ok_or(NotAName)
    }
}

impl ListName {
    pub fn parse(text: &str) -> Option<ListName> {
        is_name(text).then(|| ListName(text.to_ascii_lowercase().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name(text: &str) -> bool {
    let is_fit = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    let begins = text.bytes().next().is_some_and(|octet| octet.is_ascii_alphanumeric());
    begins && text.len() <= NAME_MAX && text.bytes().all(is_fit)
}

/// One of those who are written to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipient {
    pub mailbox: Mailbox,
    /// What is put into his copy. His address is `email` without being named here.
    pub values: Values,
}

/// What everybody gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Letter {
    pub sender: ReversePath,
    /// Header and body; lines end in CRLF.
    pub content: Bytes,
    /// The content names fields (`{{first_name}}`) that are filled in for each recipient; else braces are braces.
    pub is_template: bool,
    /// Values for whoever brings none of his own.
    pub shared: Values,
    pub terms: Terms,
}

/// How it is sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Terms {
    pub campaign: Option<CampaignId>,
    pub list: Option<ListName>,
    /// `None`: by priority, VERP and the number of recipients, as with SMTP.
    pub lane: Option<Lane>,
    pub verp: Option<Verp>,
    /// Each copy gets List-Unsubscribe fields of its own (RFC 8058).
    pub unsubscribe: bool,
    /// The client's address, if it wants a trace field.
    pub trace: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_anywhere_as_they_are() {
        let is_one = |name: &str| CampaignId::parse(name).is_some() && ListName::parse(name).is_some();
        assert!(["a", "spring-24", "News_Letter.2~x", &"x".repeat(64)].into_iter().all(is_one));
        let others = ["", ".", "..", "-x", "a b", "a/b", "\u{e4}", "a\n", "a%", &"x".repeat(65)];
        assert!(!others.into_iter().any(is_one));
        assert!(
            CampaignId::try_from("a b".to_owned()).is_err() && ListName::try_from("a".to_owned()).is_ok()
        );
        assert_eq!(
            ListName::parse("News").as_ref().map(ListName::as_str),
            message::list_id("News").as_deref()
        );
    }
}
