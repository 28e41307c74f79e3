//! Who signs a message: the keys of its author's domain.

use super::sign::FIELD_LEN;
use super::tags::tag;
use super::{BodyHash, DomainSigners, SignError, split};
use crate::address::Domain;
use crate::compose::address_list::AddressList;
use crate::compose::header::RawFields;
use crate::compose::token::unfold;
use crate::time::UnixMillis;
use std::collections::HashMap;
use std::sync::Arc;

/// Octets of a `From` field; nobody is the author by a longer one.
const AUTHOR_MAX: usize = 16 << 10;

/// All that we sign for. To be shared by all threads, and replaced whole.
#[derive(Debug, Default)]
pub struct Signers {
    tag: u32,
    sign_again: bool,
    by_domain: HashMap<Box<str>, Arc<DomainSigners>>,
}

/// A message's signatures.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signed {
    pub fields: Vec<u8>,
    /// Later it had better go out with new ones.
    pub until: UnixMillis,
}

impl Signers {
    /// `tag` tells these from those before a reload. `sign_again`: a message that has a signature of its domain's gets ours
    /// all the same.
    pub fn new(tag: u32, sign_again: bool) -> Signers {
        Signers { tag, sign_again, by_domain: HashMap::new() }
    }

    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// `name`: the domain as authors write it, in lower case; one in other letters has a second name in A-labels.
    pub fn insert(&mut self, name: &str, signers: Arc<DomainSigners>) {
        self.by_domain.insert(name.into(), signers);
    }

    pub fn is_empty(&self) -> bool {
        self.by_domain.is_empty()
    }

    /// Those who sign this message, by the domain of the first mailbox of its first `From` field. `None`: nobody does, or it
    /// is signed already. `content` may be the header alone. Allocates no more than the field takes.
    pub fn signers_for(&self, content: &[u8]) -> Option<&DomainSigners> {
        if self.is_empty() {
            return None;
        }
        let signers = self.of_domain(author_domain(content)?.as_str())?;
        let is_signed = !self.sign_again && is_signed_by(content, &signers.domain);
        (!is_signed).then_some(signers)
    }

    /// The signature fields that go on top of the message. `None`: it goes out as it is. One pass over the body.
    pub fn fields_for(&self, content: &[u8], now: UnixMillis) -> Result<Option<Signed>, SignError> {
        let Some(signers) = self.signers_for(content) else { return Ok(None) };
        let (header, body) = split(content)?;
        let mut fields = Vec::with_capacity(FIELD_LEN * signers.keys.len());
        signers.sign(header, &BodyHash::of(body), now, &mut fields)?;
        Ok(Some(Signed { fields, until: signers.good_until(now) }))
    }

    /// The domain's own, or of the nearest domain above it that signs for those below.
    fn of_domain(&self, domain: &str) -> Option<&DomainSigners> {
        if let Some(signers) = self.by_domain.get(domain) {
            return Some(signers);
        }
        let above = domain.match_indices('.').filter_map(|(dot, _)| self.by_domain.get(&domain[dot + 1..]));
        above.map(|signers| &**signers).find(|signers| signers.subdomains)
    }
}

/// `None` if there is no author, or none that can be read.
fn author_domain(content: &[u8]) -> Option<Domain> {
    let from = RawFields::of(content).find(|field| field.name.eq_ignore_ascii_case(b"from"))?;
    if from.value.len() > AUTHOR_MAX {
        return None;
    }
    let text = unfold(from.value);
    let authors = AddressList::parse(&text).ok()?;
    let host = authors.entries().find_map(|entry| entry.address.as_ref()?.host.as_deref())?;
    Domain::parse(std::str::from_utf8(host).ok()?).ok()
}

fn is_signed_by(content: &[u8], domain: &str) -> bool {
    RawFields::of(content)
        .filter(|field| field.name.eq_ignore_ascii_case(b"dkim-signature"))
        .any(|field| tag(field.value, "d").is_some_and(|of| of.eq_ignore_ascii_case(domain.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dkim::Terms;

    fn signers(sign_again: bool) -> Signers {
        let mut signers = Signers::new(1, sign_again);
        for (name, domain, subdomains) in [
            ("a.test", "a.test", false),
            ("b.test", "b.test", true),
            ("deep.b.test", "deep.b.test", false),
            ("παράδειγμα.test", "xn--hxajbheg2az3al.test", false),
        ] {
            let terms = Arc::new(Terms::new(["From"], []));
            let of =
                DomainSigners { domain: domain.into(), identity: None, subdomains, terms, keys: Vec::new() };
            signers.insert(name, Arc::new(of));
        }
        signers
    }

    fn found(header: &str) -> Option<String> {
        signers(false).signers_for(header.as_bytes()).map(|signers| signers.domain.clone().into())
    }

    #[test]
    fn the_authors_domain_signs() {
        for (from, domain) in [
            ("ann@a.test", "a.test"),
            ("\"Doe, Ann\" (x@b.test)\r\n <ann@A.Test> (y), bob@b.test", "a.test"),
            ("Team: ann@a.test, bob@b.test;", "a.test"),
            ("\"a@b.test\"@a.test", "a.test"),
            ("ann@b.test", "b.test"),
            ("ann@x.y.b.test", "b.test"),
            ("ann@deep.b.test", "deep.b.test"),
            ("ann@x.deep.b.test", "b.test"),
            ("ann@παράδειγμα.test", "xn--hxajbheg2az3al.test"),
        ] {
            assert_eq!(
                found(&format!("Subject: x\r\nFrom: {from}\r\n\r\n")).as_deref(),
                Some(domain),
                "{from}"
            );
        }
    }

    #[test]
    fn mail_of_others_goes_out_as_it_is() {
        for from in ["ann@x.a.test", "ann@test", "ann@xb.test", "ann", "", "<>", "a b c@"] {
            assert_eq!(found(&format!("From: {from}\r\n\r\n")), None, "{from}");
        }
        let long = format!("From: ann@a.test{}\r\n", ",bob@a.test".repeat(AUTHOR_MAX / 11));
        for header in
            ["", long.as_str(), "\r\nFrom: ann@a.test\r\n", "Subject: x\r\n\r\nFrom: ann@a.test\r\n"]
        {
            assert_eq!(found(header), None, "{header}");
        }
        assert_eq!(Signers::default().fields_for(b"From: ann@a.test\r\n", UnixMillis(0)), Ok(None));
    }

    #[test]
    fn what_is_signed_is_signed_again_only_if_that_is_wanted() {
        let header = |domain: &str| {
            format!(
                "dkim-signature : v=1; a=rsa-sha256;\r\n d={domain} ; s=x; b=\r\nFrom: ann@a.test\r\n\r\n"
            )
        };
        assert_eq!(found(&header("A.test")), None);
        assert_eq!(found(&header("other.test")).as_deref(), Some("a.test"));
        assert!(signers(true).signers_for(header("a.test").as_bytes()).is_some());
    }
}
