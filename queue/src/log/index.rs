//! What a sealed segment ends in: a list of its messages, so that a start reads lists, not bodies.
//!
//! An entry is the record's head and the groups of its recipients, if they are few; those of a long list stay in its
//! meta part, where they are read when they are needed. The list and its foot stand at the very end of the segment,
//! written in one piece after the segment's last commit. Trusts nothing that it reads: foot and list have their CRC32C,
//! and name the segment's generation. Bound: [`GROUPS_MAX`] groups an entry; a writer keeps the list in memory, some
//! 100 bytes a message, until its segment is full.

use crate::log::record::{Group, HEAD_LEN, Head, Meta, RECORD_MAX};
use crate::log::writer::{BLOCK, BLOCK_LEN};

/// An entry has at most this many groups; a message with more has none in its entry.
pub const GROUPS_MAX: usize = 64;

/// Bytes of the foot: the last ones of the segment.
pub const FOOT_LEN: usize = 64;

/// No entry is longer: head, count of groups, groups with domains of 255 octets.
pub const ENTRY_LEN_MAX: usize = HEAD_LEN + 2 + GROUPS_MAX * (1 + 255 + 8);

const MAGIC: &[u8; 8] = b"RPIDX\x00\x01\n";
const GROUPS_ELSEWHERE: u16 = u16::MAX;

/// Collects the entries of the segment that is being written.
#[derive(Debug, Default)]
pub struct IndexWriter {
    entries: Vec<u8>,
    count: u32,
}

impl IndexWriter {
    /// Adds a message. `groups` as its meta part has them.
    pub fn push<'a>(&mut self, head: &[u8; HEAD_LEN], groups: impl Iterator<Item = Group<'a>>) {
        self.entries.extend_from_slice(head);
        let at = self.entries.len();
        self.entries.extend_from_slice(&[0, 0]);
        let count = self.push_groups(at, groups);
        self.entries[at..at + 2].copy_from_slice(&count.to_le_bytes());
        self.count += 1;
    }

    fn push_groups<'a>(&mut self, at: usize, groups: impl Iterator<Item = Group<'a>>) -> u16 {
        let mut count = 0;
        for group in groups {
            if usize::from(count) == GROUPS_MAX {
                self.entries.truncate(at + 2);
                return GROUPS_ELSEWHERE;
            }
            self.entries.push(u8::try_from(group.domain.len()).expect("its length is one octet on disk"));
            self.entries.extend_from_slice(group.domain.as_bytes());
            self.entries.extend_from_slice(&group.count.to_le_bytes());
            self.entries.extend_from_slice(&group.name_offset.to_le_bytes());
            count += 1;
        }
        count
    }

    /// Bytes that the index will take in its segment, with one more entry of at most `more` bytes.
    pub fn len_with(&self, more: usize) -> u64 {
        ((self.entries.len() + more + FOOT_LEN) as u64).next_multiple_of(BLOCK)
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// List and foot, a multiple of [`BLOCK`], to be written so that it ends with the segment.
    pub fn finish(self, generation: u32, salt: u32) -> Vec<u8> {
        let IndexWriter { mut entries, count } = self;
        let (len, crc) = (entries.len() as u64, crc32c::crc32c(&entries));
        let whole = (entries.len() + FOOT_LEN).next_multiple_of(BLOCK_LEN);
        entries.resize(whole - FOOT_LEN, 0);
        let mut foot = [0; FOOT_LEN];
        foot[..8].copy_from_slice(MAGIC);
        foot[12..16].copy_from_slice(&generation.to_le_bytes());
        foot[16..20].copy_from_slice(&count.to_le_bytes());
        foot[20..24].copy_from_slice(&crc.to_le_bytes());
        foot[24..32].copy_from_slice(&len.to_le_bytes());
        foot[32..36].copy_from_slice(&salt.to_le_bytes());
        let crc = crc32c::crc32c(&foot[12..]);
        foot[8..12].copy_from_slice(&crc.to_le_bytes());
        entries.extend_from_slice(&foot);
        entries
    }
}

/// A foot, decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Foot {
    pub generation: u32,
    pub salt: u32,
    pub count: u32,
    /// Bytes of the entries.
    pub len: u64,
    crc: u32,
}

impl Foot {
    /// `None` if these bytes are no foot, or no whole one.
    pub fn decode(bytes: &[u8]) -> Option<Foot> {
        let bytes: &[u8; FOOT_LEN] = bytes.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let is_foot = &bytes[..8] == MAGIC && word(8) == crc32c::crc32c(&bytes[12..]);
        let foot = is_foot.then(|| Foot {
            generation: word(12),
            count: word(16),
            crc: word(20),
            len: u64::from(word(24)) | u64::from(word(28)) << 32,
            salt: word(32),
        });
        // No segment is longer than the longest record's; nothing that is computed from it overflows.
        foot.filter(|foot| foot.len <= RECORD_MAX)
    }

    /// Bytes of list and foot in the segment.
    pub fn index_len(&self) -> u64 {
        (self.len + FOOT_LEN as u64).next_multiple_of(BLOCK)
    }

    /// True if these are the entries that the foot speaks of.
    pub fn matches(&self, entries: &[u8]) -> bool {
        entries.len() as u64 == self.len && crc32c::crc32c(entries) == self.crc
    }
}

/// Whom a message is for, as far as it is at hand.
#[derive(Clone, Copy, Debug)]
pub enum Groups<'a> {
    /// From the record itself: the whole meta part.
    Meta(&'a [u8], Meta<'a>),
    /// From an index.
    Listed(&'a [u8], u16),
    /// In the meta part, which is to be read.
    Elsewhere,
}

impl<'a> Groups<'a> {
    /// In order; stops early where the bytes make no sense.
    pub fn iter(&self) -> impl Iterator<Item = Group<'a>> + use<'a> {
        let (meta, listed, count) = match *self {
            Groups::Meta(_, meta) => (Some(meta), &[][..], 0),
            Groups::Listed(bytes, count) => (None, bytes, count),
            Groups::Elsewhere => (None, &[][..], 0),
        };
        meta.into_iter().flat_map(|meta| meta.groups()).chain(listed_groups(listed, count))
    }

    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Groups::Elsewhere)
    }

    /// The meta part, if it was read.
    pub fn meta(&self) -> Option<&'a [u8]> {
        match *self {
            Groups::Meta(bytes, _) => Some(bytes),
            Groups::Listed(..) | Groups::Elsewhere => None,
        }
    }
}

fn listed_groups(mut bytes: &[u8], count: u16) -> impl Iterator<Item = Group<'_>> {
    let mut first = 0u32;
    (0..count).map_while(move |_| {
        let (len, rest) = bytes.split_first()?;
        let (domain, rest) = rest.split_at_checked(usize::from(*len))?;
        let (count, rest) = rest.split_first_chunk()?;
        let (name_offset, rest) = rest.split_first_chunk()?;
        bytes = rest;
        let (count, name_offset) = (u32::from_le_bytes(*count), u32::from_le_bytes(*name_offset));
        let group = Group { domain: std::str::from_utf8(domain).ok()?, first, count, name_offset };
        first = first.checked_add(count)?;
        Some(group)
    })
}

/// Takes one entry off the front of `entries`.
pub fn next_entry<'a>(entries: &mut &'a [u8]) -> Option<(Head, Groups<'a>)> {
    let (head, rest) = entries.split_at_checked(HEAD_LEN)?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let (head, count) = (Head::decode(head)?, u16::from_le_bytes(*count));
    if count == GROUPS_ELSEWHERE {
        *entries = rest;
        return Some((head, Groups::Elsewhere));
    }
    let (all, mut recipients) = (rest, 0u64);
    for _ in 0..count {
        let domain_len = usize::from(*rest.first()?);
        let (group, behind) = rest.split_at_checked(domain_len + 9)?;
        recipients += u64::from(u32::from_le_bytes(*group[1 + domain_len..].first_chunk()?));
        rest = behind;
    }
    // Each name takes an octet of the meta part at least: more of them are nonsense, and would take memory.
    if recipients > u64::from(head.meta_len) {
        return None;
    }
    *entries = rest;
    Some((head, Groups::Listed(&all[..all.len() - rest.len()], count)))
}

/// For the fuzzer: any octets as a foot and as entries.
pub fn fuzz_index(bytes: &[u8]) {
    if let Some(foot) = bytes.get(..FOOT_LEN).and_then(Foot::decode) {
        let _ = (foot.index_len(), foot.matches(bytes));
    }
    let mut rest = bytes;
    while let Some((_, groups)) = next_entry(&mut rest) {
        let _ = groups.iter().count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::tests::{envelope, message};
    use crate::log::record::{Bound, Location, encode, meta_of};
    use message::MessageId;
    use proptest::prelude::*;

    fn index_of(lists: &[&[&str]]) -> Vec<u8> {
        let mut index = IndexWriter::default();
        for (at, list) in lists.iter().enumerate() {
            let (meta, mut record) = (meta_of(&envelope(list)), Vec::new());
            let place = 4096 + 4096 * at as u64;
            let bound = Bound::new(Location::new(7, place), place, 5);
            encode(&message(&meta, b"x"), MessageId::new(0, 7, place).unwrap(), bound, &mut record);
            let head = record[..HEAD_LEN].try_into().unwrap();
            index.push(head, Meta::parse(&meta, crate::log::record::tests::VERP).unwrap().groups());
        }
        index.finish(7, 5)
    }

    fn foot_and_entries(index: &[u8]) -> (Foot, &[u8]) {
        let foot = Foot::decode(&index[index.len() - FOOT_LEN..]).unwrap();
        (foot, &index[..usize::try_from(foot.len).unwrap()])
    }

    #[test]
    fn messages_and_their_groups_come_back() {
        let index = index_of(&[&["a@x.test"], &["a@x.test", "b@y.test", "c@y.test"]]);
        let (foot, mut entries) = foot_and_entries(&index);
        assert!(foot.matches(entries) && foot.index_len() == index.len() as u64);
        assert_eq!((foot.generation, foot.salt, foot.count), (7, 5, 2));
        let mut found = Vec::new();
        while let Some((head, groups)) = next_entry(&mut entries) {
            let groups: Vec<_> =
                groups.iter().map(|group| (group.domain.to_owned(), group.first, group.count)).collect();
            found.push((head.bound.location.offset(), groups));
        }
        let group = |domain: &str, first, count| (domain.to_owned(), first, count);
        assert_eq!(
            found,
            [(4096, vec![group("x.test", 0, 1)]), (8192, vec![group("x.test", 0, 1), group("y.test", 1, 2)])]
        );
    }

    #[test]
    fn groups_of_a_list_to_many_domains_stay_in_its_meta_part() {
        let names: Vec<String> = (0..=GROUPS_MAX).map(|at| format!("a@d{at}.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let index = index_of(&[&names, &["a@x.test"]]);
        let (_, mut entries) = foot_and_entries(&index);
        assert!(next_entry(&mut entries).unwrap().1.is_elsewhere());
        assert_eq!(next_entry(&mut entries).unwrap().1.iter().count(), 1);
    }

    #[test]
    fn foot_of_a_list_longer_than_any_segment_is_none() {
        let mut foot: [u8; FOOT_LEN] = *index_of(&[&["a@x.test"]]).last_chunk().unwrap();
        for len in [RECORD_MAX, RECORD_MAX + 1, u64::MAX] {
            foot[24..32].copy_from_slice(&len.to_le_bytes());
            let crc = crc32c::crc32c(&foot[12..]);
            foot[8..12].copy_from_slice(&crc.to_le_bytes());
            let decoded = Foot::decode(&foot).map(|foot| foot.index_len());
            assert_eq!(decoded, (len == RECORD_MAX).then_some(RECORD_MAX + BLOCK));
        }
    }

    #[test]
    fn entry_of_more_recipients_than_its_meta_part_can_name_is_none() {
        let index = index_of(&[&["a@x.test"]]);
        let (_, entries) = foot_and_entries(&index);
        let mut bad = entries.to_vec();
        let count_at = HEAD_LEN + 2 + 1 + "x.test".len();
        bad[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(next_entry(&mut &entries[..]).is_some() && next_entry(&mut &bad[..]).is_none());
    }

    #[test]
    fn flipped_bit_is_found() {
        let index = index_of(&[&["a@x.test"]]);
        let (foot, entries) = foot_and_entries(&index);
        for bit in 0..entries.len() * 8 {
            let mut bad = entries.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!foot.matches(&bad), "bit {bit}");
        }
        for bit in 0..FOOT_LEN * 8 {
            let mut bad = index[index.len() - FOOT_LEN..].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Foot::decode(&bad), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_index(&bytes);
        }
    }
}
