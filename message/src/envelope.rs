//! An envelope: whom a message is from, whom it is for, what its sender asked for (RFC 5321 §2.3.1).

use crate::address::{Mailbox, MailboxRef};
use crate::lane::Lane;
use crate::notify::{MailAsked, Notify, OriginalRecipient, RecipientAsked};
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
    /// SMTPUTF8 was asked for in MAIL (RFC 6531); in the queue: for the sake of the header. Addresses speak for themselves,
    /// so one recipient who needs it costs the others nothing.
    pub smtputf8: bool,
    /// The message may only go over connections whose peer is known and which are encrypted (RFC 8689).
    pub requires_tls: bool,
    pub lane: Lane,
    /// What the sender wants to be told (RFC 3461).
    pub asked: MailAsked,
    pub recipients: Recipients,
}

impl Envelope {
    /// Anything at all was said of notifications, in MAIL or in a RCPT.
    pub fn has_asked(&self) -> bool {
        !self.asked.is_nothing() || self.recipients.has_asked()
    }
}

/// A list of recipients in one allocation: two octets and the address each.
///
/// What their senders asked for (RFC 3461) stands beside it, and takes memory only for those of whom something was said.
/// A list for mail merge is a table: its columns have names, and with each recipient stand the values of them.
/// Kept in the order in which they came. Bound: the caller's `recipients_max`, and [`COLUMNS_MAX`] and [`VALUES_MAX`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recipients {
    /// Per recipient: length of the local part, length of the domain, local part, domain in lower case.
    bytes: Vec<u8>,
    count: u32,
    asked: Option<Box<Asked>>,
    table: Option<Box<Table>>,
}

/// Octets of the names of a table's columns.
pub const COLUMNS_MAX: usize = 4096;

/// Octets of one recipient's values: a window of names on disk has room for some of them.
pub const VALUES_MAX: usize = 16 << 10;

/// What a template's fields are, as octets that only the merge itself reads.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Table {
    columns: Vec<u8>,
    /// Per recipient, in their order: length of the values in two octets, values.
    rows: Vec<u8>,
}

/// What was said of some recipients, in their order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Asked {
    entries: Vec<AskedEntry>,
    /// Every ORCPT, one behind the other.
    originals: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct AskedEntry {
    recipient: RecipientIndex,
    notify: Notify,
    /// 0: there is none.
    original_len: u16,
}

impl Recipients {
    pub const fn new() -> Recipients {
        Recipients { bytes: Vec::new(), count: 0, asked: None, table: None }
    }

    /// A table without rows; each recipient comes by [`Recipients::push_row`]. `None` past [`COLUMNS_MAX`].
    pub fn with_columns(columns: Vec<u8>) -> Option<Recipients> {
        let fits = columns.len() <= COLUMNS_MAX;
        let table = Some(Box::new(Table { columns, rows: Vec::new() }));
        fits.then(|| Recipients { table, ..Recipients::new() })
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

    /// As [`Recipients::push`], with what was said of it.
    pub fn push_asked(&mut self, mailbox: MailboxRef<'_>, said: RecipientAsked<'_>) {
        let recipient = RecipientIndex(self.count);
        self.push(mailbox);
        if said.is_nothing() || self.count == recipient.0 {
            return;
        }
        let asked = self.asked.get_or_insert_default();
        let original = said.original.map_or("", OriginalRecipient::as_str);
        asked.originals.push_str(original);
        let original_len = u16::try_from(original.len()).expect("parsed: at most ORIGINAL_MAX octets");
        asked.entries.push(AskedEntry { recipient, notify: said.notify, original_len });
    }

    /// As [`Recipients::push_asked`], with the recipient's values. False, and nothing is added, if they are longer than
    /// [`VALUES_MAX`] or this is no table.
    pub fn push_row(&mut self, mailbox: MailboxRef<'_>, said: RecipientAsked<'_>, values: &[u8]) -> bool {
        let (before, len) = (self.count, u16::try_from(values.len()).ok());
        let Some(len) = len.filter(|_| values.len() <= VALUES_MAX && self.table.is_some()) else {
            return false;
        };
        self.push_asked(mailbox, said);
        let Some(table) = self.table.as_mut().filter(|_| self.count > before) else { return false };
        table.rows.extend_from_slice(&len.to_le_bytes());
        table.rows.extend_from_slice(values);
        true
    }

    /// The names of the columns, if this is a table.
    pub fn columns(&self) -> Option<&[u8]> {
        self.table.as_deref().map(|table| &table.columns[..])
    }

    /// Something was said of one of them.
    pub fn has_asked(&self) -> bool {
        self.asked.is_some()
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Memory held, in bytes.
    pub fn len_bytes(&self) -> usize {
        let asked = |asked: &Asked| asked.originals.len() + asked.entries.len() * size_of::<AskedEntry>();
        let table = self.table.as_deref().map_or(0, |table| table.columns.len() + table.rows.len());
        self.bytes.len() + self.asked.as_deref().map_or(0, asked) + table
    }

    /// Gives another address to each for whom `change` has one that fits; what was said of it and its values stay. True
    /// if there was one.
    pub fn readdress(&mut self, change: impl Fn(MailboxRef<'_>) -> Option<Mailbox>) -> bool {
        let (mut list, mut is_changed) = (Recipients::new(), false);
        for recipient in self.iter() {
            let before = list.count;
            if let Some(other) = change(recipient) {
                list.push(other.as_ref());
            }
            if list.count == before {
                list.push(recipient);
            } else {
                is_changed = true;
            }
        }
        self.bytes = list.bytes;
        is_changed
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

    /// Each with what was said of it.
    pub fn iter_asked(&self) -> impl Iterator<Item = (MailboxRef<'_>, RecipientAsked<'_>)> {
        let asked = self.asked.as_deref();
        let mut entries = asked.map_or(&[][..], |asked| &asked.entries[..]);
        let mut originals = asked.map_or("", |asked| &asked.originals[..]);
        self.iter().zip(0..).map(move |(mailbox, index)| {
            let Some((entry, later)) = entries.split_first() else { return (mailbox, Default::default()) };
            if entry.recipient.0 != index {
                return (mailbox, Default::default());
            }
            let (original, rest) = originals.split_at(usize::from(entry.original_len));
            (entries, originals) = (later, rest);
            // "" has no type: nothing was said.
            let original = OriginalRecipient::parse(original);
            (mailbox, RecipientAsked { notify: entry.notify, original })
        })
    }
}

impl Recipients {
    /// Each with what was said of it and its values, which are empty if this is no table.
    pub fn iter_rows(&self) -> impl Iterator<Item = (MailboxRef<'_>, RecipientAsked<'_>, &[u8])> {
        let mut rows = self.table.as_deref().map_or(&[][..], |table| &table.rows[..]);
        self.iter_asked().map(move |(mailbox, said)| {
            let Some((len, rest)) = rows.split_first_chunk::<2>() else { return (mailbox, said, &[][..]) };
            let (values, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)));
            rows = rest;
            (mailbox, said, values)
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

    #[test]
    fn values_stay_with_their_recipient_and_have_a_bound() {
        let mut table = Recipients::with_columns(b"name".to_vec()).unwrap();
        let ann = MailboxRef { local_part: "ann", domain: "example.net" };
        let said = RecipientAsked { notify: Notify::NEVER, original: None };
        assert!(table.push_row(ann, RecipientAsked::default(), b"Ann"));
        assert!(!table.push_row(ann, said, &[0; VALUES_MAX + 1]));
        assert!(table.push_row(MailboxRef { local_part: "bob", ..ann }, said, b""));
        let rows: Vec<_> =
            table.iter_rows().map(|(mailbox, said, values)| (mailbox.local_part, said, values)).collect();
        assert_eq!(rows, [("ann", RecipientAsked::default(), &b"Ann"[..]), ("bob", said, b"")]);
        assert_eq!(table.columns(), Some(&b"name"[..]));
        assert!(!table.readdress(|_| None));
        assert!(table.readdress(|to| (to.local_part == "bob").then(|| to.with_other_way())));
        let other = MailboxRef { local_part: "bob", domain: "example.net." };
        let rows: Vec<_> = table.iter_rows().collect();
        assert_eq!(rows, [(ann, RecipientAsked::default(), &b"Ann"[..]), (other, said, b"")]);
        assert!(
            !Recipients::new().push_row(ann, said, b"x") && Recipients::with_columns(vec![0; 5000]).is_none()
        );
    }

    #[test]
    fn what_was_said_of_a_recipient_stays_with_it() {
        let asked = |notify, original| RecipientAsked {
            notify: Notify::parse(notify).unwrap_or_default(),
            original: OriginalRecipient::parse(original),
        };
        let said =
            [asked("", ""), asked("NEVER", ""), asked("", "rfc822;cy@a.test"), asked("DELAY", "x;+20")];
        let (mut list, mut plain) = (Recipients::new(), Recipients::new());
        for (name, said) in ["ann", "bob", "cy", "dan"].into_iter().zip(said) {
            let mailbox = MailboxRef { local_part: name, domain: "example.net" };
            list.push_asked(mailbox, said);
            plain.push_asked(mailbox, RecipientAsked::default());
        }
        assert!(list.iter().eq(plain.iter()));
        assert!(list.iter_asked().map(|(_, said)| said).eq(said));
        assert!(list.has_asked() && list.len_bytes() > plain.len_bytes());
        assert!(!plain.has_asked() && plain.iter_asked().all(|(_, said)| said.is_nothing()));
    }
}
