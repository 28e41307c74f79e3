//! Mending what an authorised client sent by SMTP (Q23): RFC 6409 §8 allows a submission server to add a missing
//! Date and Message-ID and to complete addresses.
//!
//! What is good stays octet for octet. A field whose syntax is wrong stays as well: its reader may know better. In a
//! message that was forwarded (RFC 5322 §3.6.6), only the forwarder's own fields are completed.

use super::address_list::AddressList;
use super::header::{Parts, RawField};
use super::hosts::Hosts;
use super::role::{Known, Role};
use super::stamp::{Stamp, Unique};
use super::token::unfold;

/// What the mending needs to know.
#[derive(Clone, Copy, Debug)]
pub struct FixUp<'a> {
    pub hosts: &'a Hosts,
    pub now: Stamp,
    pub unique: Unique,
}

/// The content as it should have come; `None` if it is good as it is. Cost: one pass over the header.
pub fn fix_up(content: &[u8], how: &FixUp<'_>) -> Option<Vec<u8>> {
    let parts = Parts::of(content);
    let known: Vec<Known> = parts.fields.iter().map(|field| Known::of(field.name)).collect();
    let resent = known.iter().any(|known| known.resent);
    let completed = parts.fields.iter().zip(&known).map(|(field, known)| {
        (known.role.has_addresses() && known.resent == resent).then(|| how.completed(field)).flatten()
    });
    let completed: Vec<Option<Vec<u8>>> = completed.collect();
    let missing = how.missing(&known);
    if missing.is_empty() && completed.iter().all(Option::is_none) {
        return None;
    }
    let mut out = Vec::with_capacity(content.len() + missing.len() + 256);
    put_header(content, &parts, &completed, &mut out);
    out.extend_from_slice(missing.as_bytes());
    let is_separated = parts.rest.starts_with(b"\r\n") || parts.rest.starts_with(b"\n");
    if !is_separated {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(parts.rest);
    Some(out)
}

/// The fields, completed ones in their places; the last one ends its line.
fn put_header(content: &[u8], parts: &Parts<'_>, completed: &[Option<Vec<u8>>], out: &mut Vec<u8>) {
    let mut rest = content;
    for (field, completed) in parts.fields.iter().zip(completed) {
        let (whole, tail) = rest.split_at(field.value_at + field.value.len());
        out.extend_from_slice(completed.as_deref().unwrap_or(whole));
        rest = tail;
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
}

impl FixUp<'_> {
    /// The field with whole addresses, if they were not.
    fn completed(&self, field: &RawField<'_>) -> Option<Vec<u8>> {
        let text = unfold(field.value);
        if text.windows(2).any(|pair| pair == b"{{") {
            // A template's field stands for whole addresses; to complete its name would make it something else.
            return None;
        }
        let mut list = AddressList::parse(&text).ok()?;
        let mut changed = false;
        list.rewrite(|address| {
            let completed = address.complete(self.hosts);
            changed |= completed;
            completed
        });
        changed.then(|| list.print(field.name))
    }

    fn missing(&self, known: &[Known]) -> String {
        let has = |role| known.contains(&Known { role, resent: false });
        let mut fields = String::new();
        if !has(Role::Date) {
            fields.push_str(&format!("Date: {}\r\n", self.now.date()));
        }
        if !has(Role::MessageId) {
            let id = self.now.message_id(self.unique, self.hosts.id_host());
            fields.push_str(&format!("Message-ID: <{id}>\r\n"));
        }
        fields
    }
}
