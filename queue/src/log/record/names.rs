//! The names of a meta part: groups by domain, and behind a name what was asked about the recipient (RFC 3461) and the
//! values that its copy of the message is made with.
//!
//! A name can be read from its offset on, without what is before it. Bound: [`name_len_max`] octets a name.

use super::Layout;
use message::envelope::VALUES_MAX;
use message::{MailboxRef, Notify, OriginalRecipient, RecipientAsked};

/// Octets of the longest name in a meta part: length, local part, NOTIFY, and ORCPT with its length.
const NAME_LEN_MAX: u32 = 1 + 255 + 1 + 2 + 500;

/// Octets of the longest name of such a meta part.
#[expect(clippy::cast_possible_truncation, reason = "16 KiB")]
pub const fn name_len_max(layout: Layout) -> u32 {
    match (layout.asked, layout.table) {
        (false, false) => 256,
        (true, false) => NAME_LEN_MAX,
        (_, true) => NAME_LEN_MAX + 2 + VALUES_MAX as u32,
    }
}

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

/// `values' length u16, values`.
impl Behind for &[u8] {
    fn len(&self) -> usize {
        2 + <[u8]>::len(self)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let len = u16::try_from(<[u8]>::len(self)).expect("a row has at most VALUES_MAX octets");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(self);
    }
}

impl<A: Behind, B: Behind> Behind for (A, B) {
    fn len(&self) -> usize {
        self.0.len() + self.1.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
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

/// A name of a meta part, with what belongs to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NameAt<'a> {
    pub name: &'a str,
    /// What was asked about it, for [`asked_of`]; empty unless [`Layout::asked`].
    pub asked: &'a [u8],
    /// Its values; empty unless [`Layout::table`].
    pub values: &'a [u8],
    /// The next name on.
    pub rest: &'a [u8],
}

/// The name at the start of `names`.
pub fn next_name(names: &[u8], layout: Layout) -> Option<NameAt<'_>> {
    let (name, asked, values, rest) = split(names, layout)?;
    Some(NameAt { name: std::str::from_utf8(name).ok()?, asked, values, rest })
}

/// Octets of the name at the start of `names`, with all that belongs to it. The octets themselves are not looked at.
pub fn name_len(names: &[u8], layout: Layout) -> Option<u32> {
    let (.., rest) = split(names, layout)?;
    u32::try_from(names.len() - rest.len()).ok()
}

type Split<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [u8]);

fn split(names: &[u8], layout: Layout) -> Option<Split<'_>> {
    let (len, rest) = names.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    let (asked, rest) = rest.split_at_checked(if layout.asked { asked_len(rest)? } else { 0 })?;
    if !layout.table {
        return Some((name, asked, &[], rest));
    }
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (values, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some((name, asked, values, rest))
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
