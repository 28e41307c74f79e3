//! message/delivery-status (RFC 3464): fields about the message, then a group of fields for each recipient.
//!
//! Groups stand between empty lines, their fields in any order. Some systems put one line too many or none at all: a group
//! that names no recipient goes on with the one before it, and a field that was there already begins the next.

use super::mime::Part;
use super::scan::{self, code_in, reason, reply_of, status_in};
use super::{Fate, Outcome, RECIPIENTS_MAX, one_line};
use crate::address::MailboxRef;
use crate::header::fields;
use crate::reply::EnhancedCode;

/// The fields about one recipient, as they stand there.
#[derive(Debug, Default)]
struct Group {
    recipient: Option<Box<str>>,
    original: Option<Box<str>>,
    action: Option<String>,
    status: Option<EnhancedCode>,
    diagnostic: Option<String>,
}

/// What the parts for programs say; `text` is what people are told, asked for a reason where there is none.
pub(super) fn of(parts: &[Part<'_>], text: &str) -> Vec<Fate> {
    const KINDS: [&str; 2] = ["message/delivery-status", "message/global-delivery-status"];
    let mut groups: Vec<Group> = Vec::new();
    for part in parts.iter().filter(|part| KINDS.contains(&&*part.kind)) {
        read(&part.body, &mut groups);
    }
    groups.truncate(RECIPIENTS_MAX);
    groups.into_iter().map(|group| group.into_fate(text)).collect()
}

fn read(body: &[u8], groups: &mut Vec<Group>) {
    let mut rest = body;
    while !rest.is_empty() && groups.len() <= RECIPIENTS_MAX {
        let mut group = Group::default();
        let mut read = 0;
        for field in fields(rest) {
            read += field.whole.len();
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            let value = one_line(&field.whole[field.name.len() + 1..]);
            if group.has(&name) && group.recipient.is_some() {
                push(std::mem::take(&mut group), groups);
            }
            group.take(&name, &value);
        }
        push(group, groups);
        // Behind them stands an empty line, or one that is no field.
        rest = &rest[read..];
        let line = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        rest = &rest[line..];
    }
}

/// What names no recipient goes on with the group before it, if that lacks what is said here.
fn push(group: Group, groups: &mut Vec<Group>) {
    let is_named = group.recipient.is_some() || group.original.is_some();
    match groups.last_mut() {
        Some(before) if !is_named && before.lacks(&group) => before.add(group),
        _ if is_named || group.action.is_some() => groups.push(group),
        _ => {}
    }
}

impl Group {
    /// The field was there before.
    fn has(&self, name: &str) -> bool {
        match name {
            "final-recipient" => self.recipient.is_some(),
            "original-recipient" => self.original.is_some(),
            "action" => self.action.is_some(),
            "status" => self.status.is_some(),
            "diagnostic-code" => self.diagnostic.is_some(),
            _ => false,
        }
    }

    /// Of a field that is there twice the first counts.
    fn take(&mut self, name: &str, value: &str) {
        let bare = || value.split_once(';').map_or(value, |(_, bare)| bare).trim();
        match name {
            "final-recipient" if self.recipient.is_none() => self.recipient = address_of(bare()),
            "original-recipient" if self.original.is_none() => self.original = address_of(bare()),
            "action" if self.action.is_none() => self.action = Some(value.to_ascii_lowercase()),
            "status" if self.status.is_none() => self.status = status_in(value),
            "diagnostic-code" if self.diagnostic.is_none() => self.diagnostic = Some(bare().to_owned()),
            _ => {}
        }
    }

    fn lacks(&self, other: &Group) -> bool {
        let is_free = |own: bool, others: bool| !own || !others;
        is_free(self.action.is_some(), other.action.is_some())
            && is_free(self.status.is_some(), other.status.is_some())
            && is_free(self.diagnostic.is_some(), other.diagnostic.is_some())
    }

    fn add(&mut self, other: Group) {
        self.action = self.action.take().or(other.action);
        self.status = self.status.or(other.status);
        self.diagnostic = self.diagnostic.take().or(other.diagnostic);
    }
}

/// Without brackets where somebody added them.
fn address_of(value: &str) -> Option<Box<str>> {
    let address = value.trim_start_matches('<').split(['>', ' ']).next().unwrap_or_default();
    MailboxRef::parse(address).ok().map(|_| address.into())
}

impl Group {
    fn into_fate(self, text: &str) -> Fate {
        let Group { recipient, original, action, status, diagnostic } = self;
        let said = diagnostic.filter(|said| !said.is_empty()).unwrap_or_else(|| {
            let lines: Vec<&str> = scan::cut(text).0.lines().collect();
            Some(reason(&lines)).filter(|said| code_in(said).is_some()).unwrap_or_default()
        });
        let mut reply = reply_of(&said);
        reply.enhanced = more_exact(status, reply.enhanced);
        let outcome = outcome_of(action.as_deref().unwrap_or_default(), reply.enhanced);
        Fate { recipient, original, ..Fate::new(outcome, reply) }
    }
}

/// `X.0.0` says nothing that a code in the host's own words would not say better.
fn more_exact(status: Option<EnhancedCode>, said: Option<EnhancedCode>) -> Option<EnhancedCode> {
    match (status, said) {
        (Some(EnhancedCode(class, _, 0)), Some(said)) if said.0 == class && said.2 != 0 => Some(said),
        (Some(status), _) => Some(status),
        (None, said) => said,
    }
}

/// RFC 3464 §2.3.3. Without an action, its status tells.
fn outcome_of(action: &str, status: Option<EnhancedCode>) -> Outcome {
    let is = |word: &str| action.starts_with(word);
    if is("failed") {
        Outcome::Failed
    } else if is("delayed") {
        Outcome::Delayed
    } else if is("delivered") || is("relayed") || is("expanded") {
        Outcome::Succeeded
    } else {
        match status {
            Some(EnhancedCode(2, ..)) => Outcome::Succeeded,
            Some(EnhancedCode(4, ..)) => Outcome::Delayed,
            _ => Outcome::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(body: &str) -> Vec<(Option<String>, Outcome, Option<EnhancedCode>)> {
        let mut groups = Vec::new();
        read(body.as_bytes(), &mut groups);
        let fate = |group: Group| group.into_fate("");
        let fates = groups.into_iter().map(fate);
        fates.map(|fate| (fate.recipient.map(Into::into), fate.outcome, fate.reply.enhanced)).collect()
    }

    fn one(
        recipient: &str,
        outcome: Outcome,
        status: (u8, u16, u16),
    ) -> (Option<String>, Outcome, Option<EnhancedCode>) {
        (Some(recipient.into()), outcome, Some(EnhancedCode(status.0, status.1, status.2)))
    }

    #[test]
    fn each_group_is_a_recipient() {
        let body = "Reporting-MTA: dns; mx.test\nStatus: 5.9.9\n\nFINAL-RECIPIENT: RFC822;\n <a@x.test>\naction: Failed (gave up)\n\
                    Status: 5.0.0\nDiagnostic-Code: smtp; 550 5.1.1\n unknown\n\n\
                    Original-Recipient: rfc822;b@x.test\nFinal-Recipient: rfc822; c@y.test\nAction: relayed\nStatus: 2.0.0\n";
        assert_eq!(
            fates(body),
            [one("a@x.test", Outcome::Failed, (5, 1, 1)), one("c@y.test", Outcome::Succeeded, (2, 0, 0))]
        );
    }

    #[test]
    fn empty_lines_may_be_too_many_or_missing() {
        let spread = "Final-Recipient: rfc822; a@x.test\n\nAction: failed\n\n\nStatus: 5.1.1\n";
        assert_eq!(fates(spread), [one("a@x.test", Outcome::Failed, (5, 1, 1))]);
        let dense = "Reporting-MTA: dns; x\nFinal-Recipient: rfc822; a@x.test\nAction: failed\nStatus: 5.1.1\n\
                     Final-Recipient: rfc822; b@x.test\nAction: delayed\nStatus: 4.4.1\n";
        let wanted =
            [one("a@x.test", Outcome::Failed, (5, 1, 1)), one("b@x.test", Outcome::Delayed, (4, 4, 1))];
        assert_eq!(fates(dense), wanted);
    }

    #[test]
    fn fields_stand_in_any_order() {
        let body = "Action: failed\nFinal-Recipient: rfc822; a@x.test\nStatus: 4.4.7\nAction: failed\nStatus: 5.1.1\n\
                    Original-Recipient: rfc822; b@x.test\nFinal-Recipient: rfc822; b@x.test\n";
        let wanted =
            [one("a@x.test", Outcome::Failed, (4, 4, 7)), one("b@x.test", Outcome::Failed, (5, 1, 1))];
        assert_eq!(fates(body), wanted);
    }

    #[test]
    fn status_tells_where_no_action_does() {
        let outcome =
            |status: &str| fates(&format!("Final-Recipient: rfc822; a@x.test\nStatus: {status}\n"))[0].1;
        assert_eq!(outcome("2.1.5"), Outcome::Succeeded);
        assert_eq!(outcome("4.2.2 (full)"), Outcome::Delayed);
        assert_eq!(outcome("5.1.1"), Outcome::Failed);
        assert_eq!(outcome("whatever"), Outcome::Failed);
    }

    #[test]
    fn recipients_are_bounded() {
        let body = "Final-Recipient: rfc822; a@x.test\nAction: failed\n\n".repeat(1000);
        assert!(fates(&body).len() <= RECIPIENTS_MAX + 1);
    }
}
