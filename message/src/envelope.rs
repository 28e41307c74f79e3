//! An envelope: whom a message is from, whom it is for, what its sender asked for (RFC 5321 §2.3.1).

use crate::address::MailboxRef;
use crate::lane::Lane;
use crate::path::ReversePath;
use crate::verp::Verp;

/// A recipient's place in its envelope, stable for the life of the message.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecipientIndex(pub u32);

/// What the sender declared its content to be (RFC 6152 BODY, RFC 3030 BINARYMIME).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BodyKind {
    #[default]
    SevenBit,
    EightBitMime,
    BinaryMime,
}

/// Everything about a message that is not content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Envelope {
    pub reverse_path: ReversePath,
    /// Each recipient gets a reverse-path of its own, made from `reverse_path`.
    pub verp: Option<Verp>,
    pub body: BodyKind,
    /// SMTPUTF8 was asked for in MAIL (RFC 6531).
    pub smtputf8: bool,
    /// The message may only go over connections whose peer is known and which are encrypted (RFC 8689).
    pub requires_tls: bool,
    pub lane: Lane,
    pub recipients: Recipients,
}

/// A list of recipients in one allocation: two octets and the address each.
///
/// Kept in the order in which they came. Bound: the caller's `recipients_max`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recipients {
    /// Per recipient: length of the local part, length of the domain, local part, domain in lower case.
    bytes: Vec<u8>,
    count: u32,
}

impl Recipients {
    pub const fn new() -> Recipients {
        Recipients { bytes: Vec::new(), count: 0 }
    }

    /// Adds a parsed mailbox; its domain is lower-cased. No allocation beyond the list's own growth.
    pub fn push(&mut self, mailbox: MailboxRef<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(mailbox.local_part.as_bytes());
        let domain = self.bytes.len();
        if mailbox.domain.is_ascii() {
            self.bytes.extend(mailbox.domain.bytes().map(|octet| octet.to_ascii_lowercase()));
        } else {
            self.bytes.extend_from_slice(mailbox.domain.to_lowercase().as_bytes());
        }
        let local_len = u8::try_from(domain - start - 2).expect("a parsed local part has at most 255 octets");
        // Lower-casing can lengthen a U-label by some octets; a domain that outgrows the field is cut by no
        // parser of ours, so refuse it by keeping nothing.
        let Ok(domain_len) = u8::try_from(self.bytes.len() - domain) else {
            self.bytes.truncate(start);
            return;
        };
        self.bytes[start] = local_len;
        self.bytes[start + 1] = domain_len;
        self.count += 1;
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Memory held, in bytes.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the recipients and gives the memory back.
    pub fn clear(&mut self) {
        *self = Recipients::new();
    }

    pub fn iter(&self) -> impl Iterator<Item = MailboxRef<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (&[local_len, domain_len], tail) = rest.split_first_chunk::<2>()?;
            let (local_part, tail) = tail.split_at(usize::from(local_len));
            let (domain, tail) = tail.split_at(usize::from(domain_len));
            rest = tail;
            Some(MailboxRef { local_part: utf8(local_part), domain: utf8(domain) })
        })
    }
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only push() writes here, and it copies from &str")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_come_back_in_order_with_lowered_domains() {
        let mut list = Recipients::new();
        list.push(MailboxRef::parse("Ann@Example.NET").unwrap());
        list.push(MailboxRef::parse("bob@example.org").unwrap());
        let back: Vec<String> = list.iter().map(|mailbox| mailbox.to_string()).collect();
        assert_eq!(back, ["Ann@example.net", "bob@example.org"]);
        assert_eq!(list.count(), 2);
    }
}
