//! The names of a meta part: groups by domain, and what was asked about a recipient behind its name (RFC 3461).
//!
//! A name can be read from its offset on, without what is before it. Bound: [`NAME_LEN_MAX`] octets a name.

use message::{MailboxRef, Notify, OriginalRecipient, RecipientAsked};

/// Octets of the longest name in a meta part: length, local part, NOTIFY, and ORCPT with its length.
pub const NAME_LEN_MAX: u32 = 1 + 255 + 1 + 2 + 500;

/// What stands behind a name.
pub(super) trait Behind {
    fn len(&self) -> usize;
    fn encode(&self, out: &mut Vec<u8>);
}

/// Nothing; takes no memory while the list is sorted either.
impl Behind for () {
    fn len(&self) -> usize {
        0
    }

    fn encode(&self, _: &mut Vec<u8>) {}
}

/// `NOTIFY u8, ORCPT's length u16, ORCPT`.
impl Behind for RecipientAsked<'_> {
    fn len(&self) -> usize {
        3 + self.original.map_or(0, |original| original.as_str().len())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let original = self.original.map_or("", OriginalRecipient::as_str);
        out.push(self.notify.bits());
        let len = u16::try_from(original.len()).expect("parsed: at most ORIGINAL_MAX octets");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(original.as_bytes());
    }
}

pub(super) fn encode_groups<'a, B: Behind>(
    list: impl Iterator<Item = (MailboxRef<'a>, B)>,
    out: &mut Vec<u8>,
) {
    let mut sorted: Vec<(MailboxRef<'_>, B)> = list.collect();
    // Stable: within a domain the sender's order is kept.
    sorted.sort_by(|(a, _), (b, _)| a.domain.cmp(b.domain));
    for group in sorted.chunk_by(|(a, _), (b, _)| a.domain == b.domain) {
        encode_group(group, out);
    }
}

/// `domain length u8, domain, count u32, names' length u32, names (length u8, octets, what is behind it each)`.
fn encode_group(group: &[(MailboxRef<'_>, impl Behind)], out: &mut Vec<u8>) {
    let octets = "an address has parts of at most 255 octets";
    let domain = group[0].0.domain;
    out.push(u8::try_from(domain.len()).expect(octets));
    out.extend_from_slice(domain.as_bytes());
    out.extend_from_slice(&u32::try_from(group.len()).expect("recipients are counted in u32").to_le_bytes());
    let len: usize = group.iter().map(|(mailbox, behind)| mailbox.local_part.len() + 1 + behind.len()).sum();
    out.extend_from_slice(&u32::try_from(len).expect("a record is at most 1 GiB").to_le_bytes());
    for (mailbox, behind) in group {
        out.push(u8::try_from(mailbox.local_part.len()).expect(octets));
        out.extend_from_slice(mailbox.local_part.as_bytes());
        behind.encode(out);
    }
}

/// The name at the start of `names`, and what follows it, which is what was asked about it if [`Layout::asked`].
fn split_name(names: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = names.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// The name at the start of `names`, what was asked about it in octets for [`asked_of`], and the next name on.
/// `has_asked`: as [`Layout::asked`] says.
pub fn next_name(names: &[u8], has_asked: bool) -> Option<(&str, &[u8], &[u8])> {
    let (name, rest) = split_name(names)?;
    let (asked, rest) = rest.split_at_checked(if has_asked { asked_len(rest)? } else { 0 })?;
    Some((std::str::from_utf8(name).ok()?, asked, rest))
}

/// Octets of the name at the start of `names`, with all that belongs to it. The octets themselves are not looked at.
pub fn name_len(names: &[u8], has_asked: bool) -> Option<u32> {
    let (name, rest) = split_name(names)?;
    let asked_len = if has_asked { asked_len(rest)? } else { 0 };
    u32::try_from(1 + name.len() + asked_len).ok()
}

fn asked_len(bytes: &[u8]) -> Option<usize> {
    let [_, low, high] = *bytes.first_chunk::<3>()?;
    Some(3 + usize::from(u16::from_le_bytes([low, high])))
}

/// What was asked about a recipient; nothing, if that is what the octets say or if they make no sense.
pub fn asked_of(bytes: &[u8]) -> RecipientAsked<'_> {
    let Some((&[notify, _, _], original)) = bytes.split_first_chunk::<3>() else {
        return RecipientAsked::default();
    };
    let original = std::str::from_utf8(original).ok().and_then(OriginalRecipient::parse);
    RecipientAsked { notify: Notify::from_bits(notify).unwrap_or_default(), original }
}
