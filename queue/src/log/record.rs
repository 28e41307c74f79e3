//! One message as it lies in a segment: a fixed head, the meta part (envelope), the content.
//!
//! Recipients are grouped by domain, so that a domain is stored once, and each group can be walked or skipped
//! without the others. What its sender asked to be told (RFC 3461) stands with each name, in records that say so. A head
//! names its own place and its segment's generation and salt, so that neither the earlier life of a file nor a content
//! made to look like a record is taken for one. Trusts nothing that it reads: every length is checked, every part has its
//! CRC32C. Bound: a record is at most [`RECORD_MAX`] bytes.

mod names;

use message::{
    BodyKind, CampaignNumber, Class, ContentFacts, Envelope, EnvelopeId, Flow, Lane, MailAsked, MessageId,
    PoolTag, Ret, ReversePath, UnixMillis, Verp,
};

use std::num::NonZeroU16;

pub use names::{NameAt, asked_of, name_len, name_len_max, next_name};

use names::encode_groups;

/// Bytes of a record's head.
pub const HEAD_LEN: usize = 64;

/// Longest record. Its place in a segment and its lengths are 32-bit.
pub const RECORD_MAX: u64 = 1 << 30;

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"RPM1");
const VERSION: u8 = 5;
const FLAG_SMTPUTF8: u8 = 1;
const FLAG_VERP: u8 = 2;
/// Two bits from here on hold the lane.
const LANE_SHIFT: u32 = 2;
const FLAG_REQUIRETLS: u8 = 16;
const FLAG_ASKED: u8 = 32;
const FLAG_CAMPAIGN: u8 = 64;
const FLAG_TABLE: u8 = 128;

/// Times have 48 bits on disk, which last until the year 10889.
const ARRIVED_MAX: u64 = (1 << 48) - 1;

/// Places in a segment have 24.
const COMMIT_UNIT_MAX: u32 = (1 << 24) - 1;

/// Where a record lies: in which life of a segment file, and where in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Location {
    pub generation: u32,
    /// In units of [`MessageId::PLACE_UNIT`] bytes.
    unit: u32,
}

impl Location {
    /// `offset` is a multiple of [`MessageId::PLACE_UNIT`] below 4 GiB × that.
    pub fn new(generation: u32, offset: u64) -> Location {
        let unit = u32::try_from(offset / MessageId::PLACE_UNIT).expect("a segment has at most 1 GiB");
        Location { generation, unit }
    }

    /// Byte offset in the segment.
    pub fn offset(self) -> u64 {
        u64::from(self.unit) * MessageId::PLACE_UNIT
    }
}

/// What a record is bound to besides its own bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bound {
    pub location: Location,
    /// Where the commit begins that the record is part of, in units of [`MessageId::PLACE_UNIT`] bytes.
    commit_unit: u32,
    /// The segment's salt.
    pub salt: u32,
}

impl Bound {
    /// `commit_at`: byte offset in the segment.
    pub fn new(location: Location, commit_at: u64, salt: u32) -> Bound {
        Bound { location, commit_unit: Location::new(0, commit_at).unit, salt }
    }

    /// Byte offset in the segment where the record's commit begins.
    pub fn commit_at(&self) -> u64 {
        u64::from(self.commit_unit) * MessageId::PLACE_UNIT
    }
}

/// A message about to be written.
#[derive(Debug)]
pub struct NewMessage<'a> {
    /// The envelope as [`meta_of`] makes it.
    pub meta: &'a [u8],
    pub recipients: u32,
    pub layout: Layout,
    pub body: BodyKind,
    pub smtputf8: bool,
    pub requires_tls: bool,
    pub lane: Lane,
    pub class: Class,
    /// As it goes out: our `Received` field, then what came in.
    pub content: &'a [u8],
    pub facts: ContentFacts,
    pub arrived: UnixMillis,
    /// The message that this is another copy of, which keeps its id.
    pub moved: Option<MessageId>,
}

/// What stands in a meta part that not every one has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Layout {
    /// The delimiters mean something.
    pub verp: bool,
    /// RET and ENVID before the groups, and what was asked about it behind each name (RFC 3461).
    pub asked: bool,
    /// Names of columns before the groups, and their values behind each name.
    pub table: bool,
}

impl Layout {
    pub fn of(envelope: &Envelope) -> Layout {
        let table = envelope.recipients.columns().is_some();
        Layout { verp: envelope.verp.is_some(), asked: envelope.has_asked(), table }
    }
}

/// A record's head, decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Names the place where the message was written first; [`Head::bound`] says where this record is.
    pub id: MessageId,
    pub bound: Bound,
    pub arrived: UnixMillis,
    pub facts: ContentFacts,
    pub body: BodyKind,
    pub smtputf8: bool,
    pub layout: Layout,
    pub requires_tls: bool,
    pub lane: Lane,
    pub class: Class,
    pub meta_len: u32,
    pub meta_crc: u32,
    pub content_len: u32,
    pub content_crc: u32,
    pub recipients: u32,
}

impl Head {
    /// Bytes from the head's start to the next record's, padding included.
    pub fn record_len(&self) -> u64 {
        padded(HEAD_LEN as u64 + u64::from(self.meta_len) + u64::from(self.content_len))
    }

    /// Where the meta part begins in its segment.
    pub fn meta_offset(&self) -> u64 {
        self.bound.location.offset() + HEAD_LEN as u64
    }

    pub fn content_offset(&self) -> u64 {
        self.meta_offset() + u64::from(self.meta_len)
    }

    /// The head as it lies on disk.
    pub fn encode(&self) -> [u8; HEAD_LEN] {
        let mut out = [0; HEAD_LEN];
        let body = match self.body {
            BodyKind::SevenBit => 0,
            BodyKind::EightBitMime => 1,
            BodyKind::BinaryMime => 2,
        };
        let flags = (u8::from(self.smtputf8) * FLAG_SMTPUTF8)
            | (u8::from(self.layout.verp) * FLAG_VERP)
            | (self.lane.to_bits() << LANE_SHIFT)
            | (u8::from(self.requires_tls) * FLAG_REQUIRETLS)
            | (u8::from(self.layout.asked) * FLAG_ASKED)
            | (u8::from(self.class.campaign.is_some()) * FLAG_CAMPAIGN)
            | (u8::from(self.layout.table) * FLAG_TABLE);
        let pool_or_campaign = self.class.campaign.map_or(self.class.pool.0, |campaign| campaign.0.get());
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&self.bound.location.generation.to_le_bytes());
        out[12..16].copy_from_slice(&[VERSION, self.facts.bits(), flags, body]);
        out[16..24].copy_from_slice(&self.id.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.arrived.0.min(ARRIVED_MAX).to_le_bytes());
        out[30..32].copy_from_slice(&pool_or_campaign.to_le_bytes());
        out[32..36].copy_from_slice(&self.meta_len.to_le_bytes());
        out[36..40].copy_from_slice(&self.meta_crc.to_le_bytes());
        out[40..44].copy_from_slice(&self.content_len.to_le_bytes());
        out[44..48].copy_from_slice(&self.content_crc.to_le_bytes());
        out[48..52].copy_from_slice(&self.recipients.to_le_bytes());
        // A segment has 2^24 such units: the highest octet is free.
        out[52..56].copy_from_slice(&self.bound.commit_unit.to_le_bytes());
        out[55] = self.class.flow.0;
        out[56..60].copy_from_slice(&self.bound.location.unit.to_le_bytes());
        out[60..64].copy_from_slice(&self.bound.salt.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` if these bytes are not the head of a record that was written whole, in this version or an older one.
    pub fn decode(bytes: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD_LEN] = bytes.get(..HEAD_LEN)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | (u64::from(u32_at(at + 4)) << 32);
        if u32_at(0) != MAGIC || u32_at(4) != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        let id = MessageId(u64_at(16));
        let bound = match bytes[12] {
            // Version 1 had no place but the id's, and did not know its commit: that begins with it, as far as it says.
            1 => Bound::new(Location::new(u32_at(8), id.place()), id.place(), 0),
            2..=VERSION => Bound {
                location: Location { generation: u32_at(8), unit: u32_at(56) },
                commit_unit: u32_at(52) & COMMIT_UNIT_MAX,
                salt: u32_at(60),
            },
            _ => return None,
        };
        Some(Head {
            id,
            bound,
            arrived: UnixMillis(u64_at(24) & ARRIVED_MAX),
            facts: ContentFacts::from_bits(bytes[13]),
            body: match bytes[15] {
                0 => BodyKind::SevenBit,
                1 => BodyKind::EightBitMime,
                _ => BodyKind::BinaryMime,
            },
            smtputf8: bytes[14] & FLAG_SMTPUTF8 != 0,
            layout: Layout {
                verp: bytes[14] & FLAG_VERP != 0,
                // Older programs wrote zero, here and below.
                asked: bytes[14] & FLAG_ASKED != 0,
                table: bytes[14] & FLAG_TABLE != 0,
            },
            requires_tls: bytes[14] & FLAG_REQUIRETLS != 0,
            lane: Lane::from_bits(bytes[14] >> LANE_SHIFT),
            class: class_of(bytes[14], u16::from_le_bytes([bytes[30], bytes[31]]), bytes[55]),
            meta_len: u32_at(32),
            meta_crc: u32_at(36),
            content_len: u32_at(40),
            content_crc: u32_at(44),
            recipients: u32_at(48),
        })
    }
}

/// Zero in older versions: the default pool, and one stream of all their mail.
fn class_of(flags: u8, pool_or_campaign: u16, flow: u8) -> Class {
    let number = NonZeroU16::new(pool_or_campaign).filter(|_| flags & FLAG_CAMPAIGN != 0);
    let pool = if number.is_some() { PoolTag::DEFAULT } else { PoolTag(pool_or_campaign) };
    Class { pool, flow: Flow(flow), campaign: number.map(CampaignNumber) }
}

fn padded(len: u64) -> u64 {
    len.next_multiple_of(MessageId::PLACE_UNIT)
}

/// Bytes that the record will take, padding included.
pub fn record_len(message: &NewMessage<'_>) -> u64 {
    padded(HEAD_LEN as u64 + message.meta.len() as u64 + message.content.len() as u64)
}

/// Appends the record to `out`, padding included. Cost: one copy and one CRC of meta part and content.
pub fn encode(message: &NewMessage<'_>, id: MessageId, bound: Bound, out: &mut Vec<u8>) -> Head {
    let fits = "record_len() was checked against RECORD_MAX";
    let head = Head {
        id,
        bound,
        arrived: message.arrived,
        facts: message.facts,
        body: message.body,
        smtputf8: message.smtputf8,
        layout: message.layout,
        requires_tls: message.requires_tls,
        lane: message.lane,
        class: message.class,
        meta_len: u32::try_from(message.meta.len()).expect(fits),
        meta_crc: crc32c::crc32c(message.meta),
        content_len: u32::try_from(message.content.len()).expect(fits),
        content_crc: crc32c::crc32c(message.content),
        recipients: message.recipients,
    };
    let end = out.len() + usize::try_from(head.record_len()).expect(fits);
    out.reserve(end - out.len());
    out.extend_from_slice(&head.encode());
    out.extend_from_slice(message.meta);
    out.extend_from_slice(message.content);
    out.resize(end, 0);
    head
}

/// The envelope as the meta part has it: `reverse-path length u16, reverse-path, VERP 2 octets, groups`; before the groups
/// `RET u8, ENVID length u8, ENVID` if [`Envelope::has_asked`], then `columns' length u16, columns` if it has a table.
/// Cost: a sort of the recipients by domain when there is more than one.
pub fn meta_of(envelope: &Envelope) -> Vec<u8> {
    let reverse_path = envelope.reverse_path.as_str();
    // Each recipient's domain is replaced by one octet, except the first of its group.
    let mut out = Vec::with_capacity(reverse_path.len() + 16 + envelope.recipients.len_bytes().min(1 << 16));
    let len = u16::try_from(reverse_path.len()).expect("local part and domain have at most 255 octets each");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(reverse_path.as_bytes());
    out.extend_from_slice(&envelope.verp.map_or([0, 0], Verp::to_bytes));
    let (list, columns) = (&envelope.recipients, envelope.recipients.columns());
    if envelope.has_asked() {
        encode_mail_asked(&envelope.asked, &mut out);
    }
    if let Some(columns) = columns {
        let len = u16::try_from(columns.len()).expect("a table has at most COLUMNS_MAX octets of them");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(columns);
    }
    match (envelope.has_asked(), columns.is_some()) {
        (false, false) => encode_groups(list.iter().map(|mailbox| (mailbox, ())), &mut out),
        (true, false) => encode_groups(list.iter_asked(), &mut out),
        (false, true) => encode_groups(list.iter_rows().map(|(mailbox, _, row)| (mailbox, row)), &mut out),
        (true, true) => {
            encode_groups(list.iter_rows().map(|(mailbox, said, row)| (mailbox, (said, row))), &mut out);
        }
    }
    out
}

fn encode_mail_asked(asked: &MailAsked, out: &mut Vec<u8>) {
    out.push(match asked.ret {
        None => 0,
        Some(Ret::Full) => 1,
        Some(Ret::Headers) => 2,
    });
    let envelope_id = asked.envelope_id.as_ref().map_or("", EnvelopeId::as_str);
    out.push(u8::try_from(envelope_id.len()).expect("parsed: at most ENVELOPE_ID_MAX octets"));
    out.extend_from_slice(envelope_id.as_bytes());
}

/// The meta part, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    bytes: &'a [u8],
    groups_at: usize,
    pub reverse_path: &'a str,
    pub verp: Option<Verp>,
    /// RET and ENVID as they stand there.
    asked: Option<(u8, &'a str)>,
    /// Names of the table's columns.
    pub columns: Option<&'a [u8]>,
}

/// Recipients at one domain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Group<'a> {
    pub domain: &'a str,
    pub first: u32,
    pub count: u32,
    /// Where the first name stands in the meta part.
    pub name_offset: u32,
}

impl<'a> Meta<'a> {
    /// `bytes` may be only the beginning of the meta part if the groups are not walked.
    pub fn parse(bytes: &'a [u8], layout: Layout) -> Option<Meta<'a>> {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len));
        let reverse_path = std::str::from_utf8(rest.get(..len)?).ok()?;
        let verp: [u8; 2] = rest.get(len..len + 2)?.try_into().ok()?;
        let verp = layout.verp.then(|| Verp::from_bytes(verp));
        let (asked, asked_len) = match layout.asked {
            false => (None, 0),
            true => {
                let (&[ret, id_len], rest) = rest.get(len + 2..)?.split_first_chunk::<2>()?;
                let id = std::str::from_utf8(rest.get(..usize::from(id_len))?).ok()?;
                (Some((ret, id)), 2 + id.len())
            }
        };
        let columns_at = len + 4 + asked_len;
        let columns = if layout.table { Some(columns_of(bytes.get(columns_at..)?)?) } else { None };
        let groups_at = columns_at + columns.map_or(0, |columns| 2 + columns.len());
        Some(Meta { bytes, groups_at, reverse_path, verp, asked, columns })
    }

    /// What MAIL said; there if what was asked about it stands with each name.
    pub fn asked(&self) -> Option<MailAsked> {
        let (ret, id) = self.asked?;
        let ret = match ret {
            1 => Some(Ret::Full),
            2 => Some(Ret::Headers),
            _ => None,
        };
        Some(MailAsked { ret, envelope_id: EnvelopeId::parse(id) })
    }

    pub fn reverse_path(&self) -> Option<ReversePath> {
        ReversePath::parse(self.reverse_path).ok()
    }

    /// The groups in order; stops early where the bytes make no sense, so count what you got.
    pub fn groups(&self) -> impl Iterator<Item = Group<'a>> + use<'a> {
        let bytes = self.bytes;
        let (mut at, mut first) = (self.groups_at, 0u32);
        std::iter::from_fn(move || {
            let (group, next) = parse_group(bytes, at, first)?;
            (at, first) = (next, first.checked_add(group.count)?);
            Some(group)
        })
    }
}

fn columns_of(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_le_bytes(*len)))
}

fn parse_group(bytes: &[u8], at: usize, first: u32) -> Option<(Group<'_>, usize)> {
    let domain_end = at + 1 + usize::from(*bytes.get(at)?);
    let domain = std::str::from_utf8(bytes.get(at + 1..domain_end)?).ok()?;
    let count = u32::from_le_bytes(bytes.get(domain_end..domain_end + 4)?.try_into().ok()?);
    let len = u32::from_le_bytes(bytes.get(domain_end + 4..domain_end + 8)?.try_into().ok()?);
    // A name takes an octet at least: more of them are nonsense, and would take memory.
    if count > len {
        return None;
    }
    let names = domain_end + 8;
    let end = names.checked_add(usize::try_from(len).ok()?).filter(|end| *end <= bytes.len())?;
    Some((Group { domain, first, count, name_offset: u32::try_from(names).ok()? }, end))
}

/// The checksum that heads carry of their parts.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// For the fuzzer: any octets as head and as meta part.
pub fn fuzz_record(bytes: &[u8]) {
    let _ = Head::decode(bytes);
    for (asked, table) in [(false, false), (true, false), (false, true), (true, true)] {
        let layout = Layout { verp: true, asked, table };
        let Some(meta) = Meta::parse(bytes, layout) else { continue };
        let _ = (meta.reverse_path(), meta.asked());
        for group in meta.groups() {
            let at = usize::try_from(group.name_offset).unwrap_or(usize::MAX);
            let names = bytes.get(at..).unwrap_or_default();
            let found = next_name(names, layout);
            let len = found.map(|found| (names.len() - found.rest.len()) as u64);
            assert!(len.is_none() || name_len(names, layout).map(u64::from) == len);
            let _ = found.map(|found| asked_of(found.asked));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use message::{Mailbox, MailboxRef, Notify, OriginalRecipient, RecipientAsked, Recipients};
    use proptest::prelude::*;

    /// Of [`envelope`].
    pub(crate) const VERP: Layout = Layout { verp: true, asked: false, table: false };

    pub(crate) fn envelope(recipients: &[&str]) -> Envelope {
        let mut list = Recipients::new();
        for recipient in recipients {
            list.push(MailboxRef::parse(recipient).unwrap());
        }
        let reverse_path = ReversePath::Mailbox(Mailbox::parse("list@example.org").unwrap());
        Envelope {
            reverse_path,
            verp: Some(Verp::DEFAULT),
            body: BodyKind::EightBitMime,
            smtputf8: false,
            requires_tls: false,
            lane: Lane::Bulk,
            asked: MailAsked::default(),
            recipients: list,
        }
    }

    pub(crate) fn message<'a>(meta: &'a [u8], content: &'a [u8]) -> NewMessage<'a> {
        let (facts, arrived) = (ContentFacts::of(content), UnixMillis(77));
        NewMessage {
            meta,
            recipients: 3,
            layout: VERP,
            body: BodyKind::EightBitMime,
            smtputf8: false,
            requires_tls: true,
            lane: Lane::Bulk,
            class: Class { pool: PoolTag(0xfedc), flow: Flow(0xba), campaign: None },
            content,
            facts,
            arrived,
            moved: None,
        }
    }

    #[test]
    fn head_comes_back_and_a_flipped_bit_is_found() {
        let (mut out, id) = (Vec::new(), MessageId::new(0, 9, 4096).unwrap());
        let meta = meta_of(&envelope(&["a@x.test", "b@y.test", "c@x.test"]));
        let message = message(&meta, b"hello\r\n");
        let bound = Bound::new(Location::new(9, 8192), 4096, 77);
        let head = encode(&message, id, bound, &mut out);
        assert_eq!(Head::decode(&out), Some(head));
        assert_eq!(out.len() as u64, head.record_len());
        assert_eq!(head.record_len(), record_len(&message));
        assert_eq!((head.class, head.requires_tls, head.arrived), (message.class, true, UnixMillis(77)));
        for bit in 0..HEAD_LEN * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&bad), None, "bit {bit}");
        }
    }

    #[test]
    fn head_of_version_2_has_no_class() {
        let (mut out, id) = (Vec::new(), MessageId::new(0, 9, 4096).unwrap());
        let bound = Bound::new(Location::new(9, 8192), 4096, 77);
        let none = NewMessage { class: Class::default(), requires_tls: false, ..message(b"", b"hello\r\n") };
        let head = encode(&none, id, bound, &mut out);
        out[12] = 2;
        let crc = crc32c::crc32c(&out[8..HEAD_LEN]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Head::decode(&out), Some(head));
    }

    #[test]
    fn recipients_are_grouped_by_domain_in_their_order() {
        let out = meta_of(&envelope(&["a@x.test", "b@y.test", "c@x.test"]));
        let meta = Meta::parse(&out, VERP).unwrap();
        let groups: Vec<_> = meta.groups().map(|group| (group.domain, group.first, group.count)).collect();
        assert_eq!(groups, [("x.test", 0, 2), ("y.test", 2, 1)]);
        let at = meta.groups().next().unwrap().name_offset as usize;
        let first = next_name(&out[at..], VERP).unwrap();
        assert_eq!((first.name, next_name(first.rest, VERP).unwrap().name), ("a", "c"));
        assert_eq!((meta.reverse_path, meta.verp), ("list@example.org", Some(Verp::DEFAULT)));
        assert_eq!(meta.asked(), None);
    }

    fn said(notify: &str, original: &'static str) -> RecipientAsked<'static> {
        RecipientAsked {
            notify: Notify::parse(notify).unwrap_or_default(),
            original: OriginalRecipient::parse(original),
        }
    }

    #[test]
    fn what_was_asked_stands_with_the_envelope_and_with_each_name() {
        let mut envelope = envelope(&["a@x.test"]);
        let long = format!("rfc822;{}", "c".repeat(message::notify::ORIGINAL_MAX - 7));
        let long = RecipientAsked { original: OriginalRecipient::parse(&long), ..said("NEVER", "") };
        let list = [("b@y.test", said("SUCCESS,DELAY", "")), ("c@x.test", long)];
        for (address, asked) in list {
            envelope.recipients.push_asked(MailboxRef::parse(address).unwrap(), asked);
        }
        envelope.asked = MailAsked { ret: Some(Ret::Full), envelope_id: EnvelopeId::parse("id+2B1") };
        let (out, layout) = (meta_of(&envelope), Layout::of(&envelope));
        assert_eq!(layout, Layout { verp: true, asked: true, table: false });
        let meta = Meta::parse(&out, layout).unwrap();
        assert_eq!((meta.asked(), meta.reverse_path), (Some(envelope.asked), "list@example.org"));
        let offsets: Vec<usize> = meta.groups().map(|group| group.name_offset as usize).collect();
        let first = next_name(&out[offsets[0]..], layout).unwrap();
        assert_eq!((first.name, asked_of(first.asked)), ("a", RecipientAsked::default()));
        let third = next_name(first.rest, layout).unwrap();
        assert_eq!((third.name, asked_of(third.asked)), ("c", long));
        assert_eq!(name_len(first.rest, layout), Some(1 + 1 + 3 + 500));
        let second = next_name(&out[offsets[1]..], layout).unwrap();
        assert_eq!((second.name, asked_of(second.asked), second.rest), ("b", list[0].1, &b""[..]));
    }

    #[test]
    fn columns_stand_with_the_envelope_and_their_values_with_each_name() {
        let mut table = Recipients::with_columns(b"columns".to_vec()).unwrap();
        let asked = said("NEVER", "rfc822;b@y.test");
        assert!(table.push_row(MailboxRef::parse("a@x.test").unwrap(), said("", ""), b"Ann"));
        assert!(table.push_row(MailboxRef::parse("c@x.test").unwrap(), said("", ""), b""));
        let plain = Envelope { recipients: table.clone(), ..envelope(&[]) };
        assert!(table.push_row(MailboxRef::parse("b@y.test").unwrap(), asked, b"Bob"));
        for (envelope, names) in
            [(plain, vec!["a", "c"]), (Envelope { recipients: table, ..envelope(&[]) }, vec!["a", "c", "b"])]
        {
            let (out, layout) = (meta_of(&envelope), Layout::of(&envelope));
            let meta = Meta::parse(&out, layout).unwrap();
            assert_eq!(
                (layout.table, layout.asked, meta.columns),
                (true, names.len() == 3, Some(&b"columns"[..]))
            );
            let mut found = Vec::new();
            for group in meta.groups() {
                let mut rest = &out[group.name_offset as usize..];
                for _ in 0..group.count {
                    let name = next_name(rest, layout).unwrap();
                    found.push((name.name, name.values, asked_of(name.asked)));
                    rest = name.rest;
                }
            }
            let all = [("a", &b"Ann"[..], said("", "")), ("c", b"", said("", "")), ("b", b"Bob", asked)];
            assert_eq!(found, all[..names.len()]);
        }
    }

    #[test]
    fn campaign_takes_the_place_of_the_pool() {
        let number = CampaignNumber(NonZeroU16::new(513).unwrap());
        let class = Class { pool: PoolTag::DEFAULT, flow: Flow(3), campaign: Some(number) };
        let (mut out, id) = (Vec::new(), MessageId::new(0, 9, 4096).unwrap());
        let bound = Bound::new(Location::new(9, 8192), 4096, 77);
        let head = encode(&NewMessage { class, ..message(b"", b"hello\r\n") }, id, bound, &mut out);
        assert_eq!((Head::decode(&out), head.class), (Some(head), class));
    }

    #[test]
    fn envelope_of_which_only_mail_said_something_keeps_that() {
        let mut envelope = envelope(&["a@x.test"]);
        envelope.asked.ret = Some(Ret::Headers);
        let out = meta_of(&envelope);
        assert_eq!(Meta::parse(&out, Layout::of(&envelope)).unwrap().asked(), Some(envelope.asked));
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_record(&bytes);
        }
    }
}
