//! Mail that comes back: which addresses are return paths of ours, and what a message to one means.
//!
//! | address | counts |
//! |---|---|
//! | a signed return path (`message/src/verp.rs`) | always: only who had the message knows it |
//! | one that names a recipient without a signature | if `unsigned = "check"`, if the report is about that recipient, and if it gives back a header with our name in a `Received` field. Whoever once got a message from us can make that up: so it is not the default |
//! | a feedback address, which anybody knows | if the message complained of has a return path of the first kind, or of the second on the same terms |
//! | `unsubscribe.mailto` | if the subject has a token that we made (RFC 2369; `message/src/unsubscribe.rs`) |
//!
//! The recipient is never a report's word alone: it stands in the signed path, or the path's tag knows it. A report about
//! several recipients counts for the one whose path it came to. Delays, successes, automatic answers and challenges are
//! told apart and are no bounces. Pure. Bound: one meaning a message.

use crate::access::{Domains, Mailboxes};
use crate::config::{self, Config, Tokens, Unsigned};
use message::header::fields;
use message::report::{Complaint, Fate, FeedbackType, Kind, Original, Outcome, Report};
use message::unsubscribe::{UnsubscribeKey, Unsubscribed};
use message::verp::{Signed, Whom};
use message::{FailureClass, Labels, Mailbox, MailboxRef, MessageId, RecipientIndex, Reply, VerpKey};
use std::collections::HashMap;
use std::sync::Arc;

/// Addresses of a header's `To` fields that are looked at.
const TO_MAX: usize = 8;

/// Delimiters that stand around a recipient.
const DELIMITERS: [char; 3] = ['-', '+', '='];

/// See the module.
#[derive(Debug)]
pub struct Returns {
    key: Arc<VerpKey>,
    host_name: String,
    /// Hosts of return paths, and those hosts with the hosts of feedback addresses.
    domains: Domains,
    concerned: Domains,
    feedback: Mailboxes,
    leaving: Mailboxes,
    tenant_field: String,
    signs_all: bool,
    takes_unsigned: bool,
    forward_to: Option<Mailbox>,
    unknown_to: Option<Mailbox>,
    /// By the list's address in lower case.
    owners: HashMap<String, Mailbox>,
}

/// An address that mail comes back to. Of a signed one, also its host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReturnAddress<'a> {
    Signed(Signed<'a>, &'a str),
    /// It names a recipient, and anybody could have written it.
    Unsigned(&'a str),
    Feedback,
    /// Recipients leave their lists by mail to it.
    Leaving,
}

/// What a message that came back means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Meaning {
    Event(Box<ReturnEvent>),
    /// The recipient leaves that list.
    Left(Unsubscribed),
    /// Word of a delay or of a success.
    Progress,
    /// Nobody wrote it, or wants to know whether somebody did.
    Automatic,
    /// No proof that the recipient's mail is what it is about: ignored.
    Unproven,
    /// A letter, or words that nobody here knows.
    Unknown,
}

/// A failure after the fact, or a complaint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReturnEvent {
    pub what: Returned,
    /// `None`: known by its place alone.
    pub recipient: Option<Mailbox>,
    /// Of the message that went out.
    pub message: Option<MessageId>,
    pub index: Option<RecipientIndex>,
    /// The reverse-path that the recipient's own was made from, as far as that says it; else empty.
    pub sender: Box<str>,
    /// What a host said, if one did.
    pub reply: Option<Reply>,
    /// As the message names them that came back.
    pub labels: Labels,
    /// The form of the report, or the kind of the complaint.
    pub detail: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Returned {
    Bounced(FailureClass),
    Complained(FeedbackType),
}

impl Returns {
    pub fn new(config: &Config, key: Arc<VerpKey>) -> Returns {
        let bounces = &config.bounces;
        let config::Bounces { domains, feedback_addresses, .. } = bounces;
        let host_of = |address: &String| address.rsplit_once('@').map(|(_, host)| host.to_owned());
        let leaving = config.unsubscribe.mailto.as_ref();
        let hosts: Vec<String> = feedback_addresses.iter().chain(leaving).filter_map(host_of).collect();
        let parsed = |address: &Option<String>| Mailbox::parse(address.as_ref()?).ok();
        let owners = bounces.owners.iter();
        let owners =
            owners.filter_map(|(list, owner)| Some((list.to_lowercase(), Mailbox::parse(owner).ok()?)));
        Returns {
            key,
            host_name: config.host_name.to_lowercase(),
            domains: Domains::new(domains.iter(), None),
            concerned: Domains::new(domains.iter().chain(&hosts), None),
            feedback: Mailboxes::new(feedback_addresses.iter()),
            leaving: Mailboxes::new(leaving.into_iter()),
            tenant_field: config.lanes.tenant_field.clone(),
            signs_all: bounces.tokens == Tokens::Always,
            takes_unsigned: bounces.unsigned == Unsigned::Check,
            forward_to: parsed(&bounces.forward_to),
            unknown_to: parsed(&bounces.unknown_to),
            owners: owners.collect(),
        }
    }

    /// Returns to senders at that host are read here.
    pub fn reads(&self, domain: &str) -> bool {
        !self.domains.is_empty() && self.domains.contains(domain)
    }

    /// Return paths of senders at that host are all signed.
    pub fn signs(&self, domain: &str) -> bool {
        self.signs_all && self.reads(domain)
    }

    /// Some addresses at that host are read here.
    pub fn concerns(&self, domain: &str) -> bool {
        !self.concerned.is_empty() && self.concerned.contains(domain)
    }

    /// `None`: it is an address like others. Where nothing is configured, two comparisons.
    pub fn address<'a>(&self, recipient: MailboxRef<'a>) -> Option<ReturnAddress<'a>> {
        if !self.concerns(recipient.domain) {
            return None;
        }
        if self.feedback.contains(recipient.local_part, recipient.domain) {
            return Some(ReturnAddress::Feedback);
        }
        if self.leaving.contains(recipient.local_part, recipient.domain) {
            return Some(ReturnAddress::Leaving);
        }
        if !self.reads(recipient.domain) {
            return None;
        }
        let signed = Signed::read(recipient.local_part, &self.key);
        let signed = signed.map(|signed| ReturnAddress::Signed(signed, recipient.domain));
        let is_plain = || self.takes_unsigned && may_be_plain(recipient.local_part);
        signed.or_else(|| is_plain().then_some(ReturnAddress::Unsigned(recipient.local_part)))
    }

    /// What comes back to it is read as that recipient's, and needs no bounce besides.
    pub fn is_path(&self, sender: MailboxRef<'_>) -> bool {
        matches!(self.address(sender), Some(ReturnAddress::Signed(..) | ReturnAddress::Unsigned(_)))
    }

    /// What a message means that came to that address.
    pub fn judge(&self, address: &ReturnAddress<'_>, report: &Report) -> Meaning {
        match (&report.kind, address) {
            (Kind::Delivery(form, fates), ReturnAddress::Signed(signed, host)) => {
                let named = fates.iter().flat_map(names_of).map(MailboxRef::to_owned);
                let path = Path::of((signed, host), named.chain(to_of(&report.original)), &self.key);
                self.signed(signed, fates).map_or(Meaning::Unknown, |fate| {
                    self.meaning(fate, path, (form.name(), &report.original))
                })
            }
            (Kind::Delivery(form, fates), ReturnAddress::Unsigned(local)) => {
                self.unsigned(local, fates, &report.original).map_or(Meaning::Unproven, |(fate, path)| {
                    self.meaning(fate, path, (form.name(), &report.original))
                })
            }
            (Kind::Complaint(complaint), _) if !complaint.kind.is_complaint() => Meaning::Automatic,
            (Kind::Complaint(complaint), _) => self.complaint(address, complaint, &report.original),
            (Kind::AutoReply | Kind::Challenge, _) => Meaning::Automatic,
            (Kind::Delivery(..), ReturnAddress::Feedback | ReturnAddress::Leaving) | (Kind::Unknown, _) => {
                Meaning::Unknown
            }
        }
    }

    /// The fate that counts of those at a signed path: its recipient's; of one that was forwarded, or whose address was
    /// rewritten, a failure under whatever name.
    fn signed<'a>(&self, signed: &Signed<'_>, fates: &'a [Fate]) -> Option<&'a Fate> {
        let is_about = |fate: &&Fate| names_of(fate).any(|name| signed.is_about(name, &self.key));
        let failed = || fates.iter().find(|fate| fate.outcome == Outcome::Failed);
        fates.iter().find(is_about).or_else(failed).or(fates.first())
    }

    /// The fate of the recipient that the path names, if what came back has passed us.
    fn unsigned<'a>(&self, local: &str, fates: &'a [Fate], original: &Original) -> Option<(&'a Fate, Path)> {
        let is_it = |name: &MailboxRef<'_>| plainly_names(local, *name);
        let (fate, name) = fates.iter().find_map(|fate| Some((fate, names_of(fate).find(is_it)?)))?;
        let path = Path { recipient: Some(name.to_owned()), ..Path::default() };
        self.has_passed(original).then_some((fate, path))
    }

    fn meaning(&self, fate: &Fate, path: Path, (detail, original): (&'static str, &Original)) -> Meaning {
        match fate.outcome {
            Outcome::Failed => {
                let what = Returned::Bounced(fate.class);
                let labels = original.labels(&self.tenant_field);
                let event = path.event(what, Some(fate.reply.clone()), (labels, detail));
                Meaning::Event(Box::new(event))
            }
            Outcome::Delayed | Outcome::Succeeded => Meaning::Progress,
        }
    }

    /// A complaint at any address: what proves it is that address, or the return path of the message complained of.
    fn complaint(&self, address: &ReturnAddress<'_>, complaint: &Complaint, original: &Original) -> Meaning {
        let said = complaint.recipients.iter().filter_map(|name| Mailbox::parse(name).ok());
        let mut named = said.chain(to_of(original));
        let reverse_path = complaint.reverse_path.as_deref().and_then(|path| MailboxRef::parse(path).ok());
        let of_message = reverse_path.and_then(|path| self.address(path));
        let path = match (address, &of_message) {
            (ReturnAddress::Signed(signed, host), _) | (_, Some(ReturnAddress::Signed(signed, host))) => {
                Some(Path::of((signed, host), named, &self.key))
            }
            (ReturnAddress::Unsigned(local), _) | (_, Some(ReturnAddress::Unsigned(local))) => {
                let recipient = named.find(|name| plainly_names(local, name.as_ref()));
                let recipient = recipient.filter(|_| self.has_passed(original));
                recipient.map(|recipient| Path { recipient: Some(recipient), ..Path::default() })
            }
            (ReturnAddress::Feedback | ReturnAddress::Leaving, _) => None,
        };
        let about = (original.labels(&self.tenant_field), complaint.kind.name());
        path.map_or(Meaning::Unproven, |path| {
            Meaning::Event(Box::new(path.event(Returned::Complained(complaint.kind), None, about)))
        })
    }

    /// Our name stands in a `Received` field of what came back.
    fn has_passed(&self, original: &Original) -> bool {
        original.values("received").any(|value| {
            let value = value.to_ascii_lowercase();
            let mut words = value.split([' ', ';']);
            words.any(|word| word == "by") && words.next() == Some(self.host_name.as_str())
        })
    }

    /// Who gets a copy of what came to that address, each once.
    pub fn copies(&self, address: MailboxRef<'_>, meaning: &Meaning) -> Vec<Mailbox> {
        if matches!(meaning, Meaning::Left(_)) {
            return Vec::new();
        }
        let owner = self.owner_of(address).or(self.forward_to.as_ref());
        let unknown = self.unknown_to.as_ref().filter(|_| *meaning == Meaning::Unknown);
        let unknown = unknown.filter(|unknown| Some(*unknown) != owner);
        owner.into_iter().chain(unknown).cloned().collect()
    }

    /// Who is told in place of a sender whose bounces would come back here.
    pub fn owner(&self, sender: MailboxRef<'_>) -> Option<&Mailbox> {
        self.owner_of(sender).or(self.forward_to.as_ref())
    }

    /// Of the list that a return path or a sender begins with; the longest that is known.
    fn owner_of(&self, address: MailboxRef<'_>) -> Option<&Mailbox> {
        if self.owners.is_empty() {
            return None;
        }
        let MailboxRef { local_part, domain } = address;
        let ends = local_part.match_indices(DELIMITERS).flat_map(|(at, _)| [at, at + 1]);
        let mut ends: Vec<usize> = ends.chain([local_part.len()]).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.into_iter().find_map(|end| {
            let list = format!("{}@{domain}", &local_part[..end]);
            self.owners.get(&list.to_lowercase())
        })
    }
}

/// What a message to the address for leaving means. Whoever leaves may write from any address, and anything besides.
pub fn leaving(content: &[u8], key: &UnsubscribeKey) -> Meaning {
    let subjects = fields(content).filter(|field| field.name.eq_ignore_ascii_case(b"subject"));
    let mut texts = subjects.filter_map(|field| std::str::from_utf8(field.whole).ok());
    texts.find_map(|text| key.find(text)).map_or(Meaning::Unknown, Meaning::Left)
}

/// What a proven return path says.
#[derive(Debug, Default)]
struct Path {
    recipient: Option<Mailbox>,
    message: Option<MessageId>,
    index: Option<RecipientIndex>,
    sender: Box<str>,
}

impl Path {
    /// `named`: addresses of which one may be the recipient.
    fn of(
        (signed, host): (&Signed<'_>, &str),
        mut named: impl Iterator<Item = Mailbox>,
        key: &VerpKey,
    ) -> Path {
        let (recipient, index) = match &signed.whom {
            Whom::Recipient(recipient) => (Some(recipient.clone()), None),
            Whom::Index { index, .. } => {
                (named.find(|name| signed.is_about(name.as_ref(), key)), Some(*index))
            }
        };
        // A hyphen is the base's own in qmail's form; what XVERP puts there otherwise is not.
        let base = signed.base.strip_suffix(['+', '=']).unwrap_or(signed.base);
        Path { recipient, message: Some(signed.message), index, sender: format!("{base}@{host}").into() }
    }

    fn event(
        self,
        what: Returned,
        reply: Option<Reply>,
        (labels, detail): (Labels, &'static str),
    ) -> ReturnEvent {
        let Path { recipient, message, index, sender } = self;
        ReturnEvent { what, recipient, message, index, sender, reply, labels, detail }
    }
}

/// The addresses that a report gives a recipient.
fn names_of(fate: &Fate) -> impl Iterator<Item = MailboxRef<'_>> {
    [&fate.original, &fate.recipient].into_iter().flatten().filter_map(|name| MailboxRef::parse(name).ok())
}

/// The addresses in the `To` fields of what came back.
fn to_of(original: &Original) -> impl Iterator<Item = Mailbox> {
    let values = original.values("to").collect::<Vec<_>>().join(",");
    let addresses: Vec<Mailbox> = values
        .split(',')
        .filter_map(|entry| {
            let bare = entry.rsplit_once('<').map_or(entry, |(_, address)| address).trim();
            Mailbox::parse(bare.trim_end_matches('>')).ok()
        })
        .take(TO_MAX)
        .collect();
    addresses.into_iter()
}

/// It looks like a base, a delimiter, a local part, a delimiter and a domain.
pub(crate) fn may_be_plain(local_part: &str) -> bool {
    let divided = local_part.match_indices(DELIMITERS).any(|(at, _)| {
        let (before, domain) = (&local_part[..at], &local_part[at + 1..]);
        let is_domain = domain.contains('.') && message::Domain::parse(domain).is_ok();
        is_domain && before.trim_start_matches(DELIMITERS).contains(DELIMITERS)
    });
    divided && !local_part.starts_with('"')
}

/// The path ends in that recipient, and begins with something else.
fn plainly_names(local_part: &str, recipient: MailboxRef<'_>) -> bool {
    let is_at_end = |delimiter: char| {
        let end = format!("{}{delimiter}{}", recipient.local_part, recipient.domain).to_lowercase();
        let local_part = local_part.to_lowercase();
        local_part.strip_suffix(&end).is_some_and(|base| base.len() > 1 && base.ends_with(DELIMITERS))
    };
    DELIMITERS.into_iter().any(is_at_end)
}

#[cfg(test)]
mod tests;
