//! A constant database (cdb) in memory, for lists too long to be text: qmail's `morercpthosts.cdb`, tables of aliases.
//!
//! 256 pairs of (place, slots) come first, then records (two lengths, key, data), then a table of (hash, place) for
//! each pair; all numbers are 32 bits, little-endian. The file is not trusted: every place and length in it is held
//! against its end, and a look-up ends after as many slots as its table has. It needs a few octets of the file, however
//! long that is: who has no use for all of it reads those alone ([`Octets`]). Bound: what is written has at most [`LEN_MAX`]
//! octets.

use std::borrow::Cow;
use std::iter;
use std::ops::Range;

/// Octets of the 256 pairs.
const HEADER_LEN: usize = 2048;

/// Longest database that is written. The format ends at 4 GiB; ours are made in memory.
pub const LEN_MAX: usize = 1 << 30;

/// The database would pass [`LEN_MAX`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the database would be longer than {LEN_MAX} octets")]
pub struct TooLong;

/// Where a database's octets are: in memory, or in a file that is read at the places that a look-up needs.
pub trait Octets {
    type Error;

    /// `len` octets from there on; an error if it has not as many.
    fn read(&self, at: usize, len: usize) -> Result<Cow<'_, [u8]>, Self::Error>;
}

/// A place that is not inside of the database: it is damaged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the database ends before what it points to")]
pub struct Outside;

impl Octets for Vec<u8> {
    type Error = Outside;

    fn read(&self, at: usize, len: usize) -> Result<Cow<'_, [u8]>, Outside> {
        self.get(at..at.checked_add(len).ok_or(Outside)?).map(Cow::Borrowed).ok_or(Outside)
    }
}

/// Where the data of the first record with that key lie. As many slots are looked at as keys collide.
pub fn seek<O: Octets>(octets: &O, key: &[u8]) -> Result<Option<Range<usize>>, O::Error> {
    let hash = hash(key);
    let (table, slots) = pair(octets, (hash & 255) as usize * 8)?;
    let first = (hash >> 8) as usize;
    for step in 0..slots {
        let slot = first.wrapping_add(step) % slots;
        let (found, place) = pair(octets, table.saturating_add(slot * 8))?;
        if place == 0 {
            return Ok(None);
        }
        if found == hash as usize
            && let Some(data) = record(octets, place, key)?
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Where the data of the record at that place lie, if it has that key.
fn record<O: Octets>(octets: &O, place: usize, key: &[u8]) -> Result<Option<Range<usize>>, O::Error> {
    let (key_len, data_len) = pair(octets, place)?;
    if key_len != key.len() {
        return Ok(None);
    }
    let start = place.saturating_add(8);
    let is_it = *octets.read(start, key_len)? == *key;
    let data = start.saturating_add(key_len);
    Ok(is_it.then_some(data..data.saturating_add(data_len)))
}

fn pair<O: Octets>(octets: &O, at: usize) -> Result<(usize, usize), O::Error> {
    let octets = octets.read(at, 8)?;
    let (words, _) = octets.as_chunks::<4>();
    Ok((u32::from_le_bytes(words[0]) as usize, u32::from_le_bytes(words[1]) as usize))
}

/// The database, whole.
#[derive(Clone, Eq, PartialEq)]
pub struct Cdb(Vec<u8>);

impl std::fmt::Debug for Cdb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cdb({} octets)", self.0.len())
    }
}

impl Cdb {
    /// `None` if the tables do not lie inside of the file.
    pub fn new(octets: Vec<u8>) -> Option<Cdb> {
        let cdb = Cdb(octets);
        let is_whole = (0..256).all(|table| {
            cdb.pair(table * 8).is_some_and(|(place, slots)| {
                place >= HEADER_LEN && place.saturating_add(slots.saturating_mul(8)) <= cdb.0.len()
            })
        });
        (cdb.0.len() >= HEADER_LEN && is_whole).then_some(cdb)
    }

    /// Records in it.
    pub fn count(&self) -> usize {
        // Tables are twice as long as they have records.
        (0..256).filter_map(|table| self.pair(table * 8)).map(|(_, slots)| slots / 2).sum()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Data of the first record with that key. No allocation; see [`seek`].
    pub fn find(&self, key: &[u8]) -> Option<&[u8]> {
        seek(&self.0, key).ok().flatten().and_then(|data| self.0.get(data))
    }

    /// Keys and data in the order in which they were added, up to the first that does not lie before the tables.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let end =
            (0..256).filter_map(|table| self.pair(table * 8)).map(|(place, _)| place).min().unwrap_or(0);
        let records = self.0.get(..end).unwrap_or_default();
        let mut at = HEADER_LEN;
        iter::from_fn(move || {
            let (key_len, data_len) = self.pair(at)?;
            let key = at.checked_add(8)?;
            let data = key.checked_add(key_len)?;
            let next = data.checked_add(data_len)?;
            let found = (records.get(key..data)?, records.get(data..next)?);
            at = next;
            Some(found)
        })
    }

    fn pair(&self, at: usize) -> Option<(usize, usize)> {
        pair(&self.0, at).ok()
    }
}

fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, octet| hash.wrapping_shl(5).wrapping_add(hash) ^ u32::from(*octet))
}

/// Any octets can be asked for any key.
pub fn fuzz_cdb(bytes: &[u8]) {
    let (key, octets) = bytes.split_at(bytes.len().min(8));
    // So that the tables are reached: a header whose pairs are the first of these octets, within the file.
    for octets in [octets.to_vec(), plausible(octets)] {
        if let Some(cdb) = Cdb::new(octets) {
            let found = cdb.find(key).map(<[u8]>::len);
            assert!(found.is_none_or(|len| len <= bytes.len() + HEADER_LEN));
            assert!(cdb.records().count() <= bytes.len());
        }
    }
}

fn plausible(octets: &[u8]) -> Vec<u8> {
    let slots = u32::try_from(octets.len() / 8).unwrap_or(0);
    let pair = [2048_u32.to_le_bytes(), slots.to_le_bytes()].concat();
    [pair.repeat(256), octets.to_vec()].concat()
}

/// Makes a database as cdbmake does. Keys may repeat: the first is found.
#[derive(Debug)]
pub struct CdbWriter {
    out: Vec<u8>,
    /// Hash and place of each record, by table.
    tables: Vec<Vec<(u32, u32)>>,
}

impl Default for CdbWriter {
    fn default() -> CdbWriter {
        CdbWriter { out: vec![0; HEADER_LEN], tables: vec![Vec::new(); 256] }
    }
}

impl CdbWriter {
    pub fn add(&mut self, key: &[u8], data: &[u8]) -> Result<(), TooLong> {
        let place = number(self.out.len())?;
        let lens = [number(key.len())?, number(data.len())?];
        let hash = hash(key);
        self.tables[(hash & 255) as usize].push((hash, place));
        self.out.extend(lens.map(u32::to_le_bytes).as_flattened());
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(data);
        number(self.out.len()).map(drop)
    }

    /// The database whole.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLong> {
        for (index, table) in self.tables.iter().enumerate() {
            let (place, slots) = (number(self.out.len())?, number(table.len() * 2)?);
            for slot in slots_of(table) {
                self.out.extend([slot.0, slot.1].map(u32::to_le_bytes).as_flattened());
            }
            let pair = [place, slots].map(u32::to_le_bytes);
            self.out[index * 8..index * 8 + 8].copy_from_slice(pair.as_flattened());
        }
        number(self.out.len())?;
        Ok(self.out)
    }
}

/// A table twice as long as it has records, each at its hash's slot or the next free one.
fn slots_of(table: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut slots = vec![(0, 0); table.len() * 2];
    for record in table {
        let mut at = (record.0 >> 8) as usize % slots.len();
        // No record lies at 0: the header does.
        while slots[at].1 != 0 {
            at = (at + 1) % slots.len();
        }
        slots[at] = *record;
    }
    slots
}

fn number(len: usize) -> Result<u32, TooLong> {
    u32::try_from(len).ok().filter(|_| len <= LEN_MAX).ok_or(TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(records: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut writer = CdbWriter::default();
        for (key, data) in records {
            writer.add(key, data).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn first_of_equal_keys_is_found() {
        let cdb = Cdb::new(write(&[(b"a.test", b"1"), (b".b.test", b""), (b"a.test", b"2")])).unwrap();
        assert_eq!(cdb.find(b"a.test"), Some(&b"1"[..]));
        assert_eq!(cdb.find(b".b.test"), Some(&b""[..]));
        assert!(!cdb.contains(b"b.test") && !cdb.contains(b""));
        assert_eq!(cdb.count(), 3);
        let keys: Vec<&[u8]> = cdb.records().map(|(key, _)| key).collect();
        assert_eq!(keys, [&b"a.test"[..], b".b.test", b"a.test"]);
    }

    #[test]
    fn a_look_up_says_so_where_a_database_is_cut_off() {
        let whole = write(&[(b"a.test", b"1")]);
        assert_eq!(seek(&whole, b"a.test").map(|found| found.map(|data| &whole[data])), Ok(Some(&b"1"[..])));
        assert_eq!(seek(&whole, b"b.test"), Ok(None));
        assert_eq!(seek(&whole[..2060].to_vec(), b"a.test"), Err(Outside));
        assert_eq!(seek(&Vec::new(), b"a.test"), Err(Outside));
    }

    #[test]
    fn hash_is_the_formats_own() {
        // From the format's description: the hash begins at 5381, and each octet is XORed into 33 times what there was.
        assert_eq!(hash(b""), 5381);
        assert_eq!(hash(b"a"), (5381 * 33) ^ 97);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = write(&[(b"a.test", b"")]);
        for len in [0, 2047, whole.len() - 1] {
            assert!(Cdb::new(whole[..len].to_vec()).is_none(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_found_and_nothing_else(keys in proptest::collection::hash_set("[a-z.]{0,6}", 0..80)) {
            let records: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (key.as_bytes(), &b"x"[..])).collect();
            let cdb = Cdb::new(write(&records)).unwrap();
            prop_assert_eq!(cdb.count(), keys.len());
            for key in &keys {
                prop_assert_eq!(cdb.find(key.as_bytes()), Some(&b"x"[..]));
                let other = format!("{key}!");
                prop_assert!(!cdb.contains(other.as_bytes()));
            }
        }

        #[test]
        fn damaged_files_are_asked_without_harm(
            at in 0_usize..3000,
            octet in any::<u8>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut octets = write(&[(b"a.test", b"1"), (b"b.test", b"2"), (b"c.test", b"3")]);
            let at = at % octets.len();
            octets[at] = octet;
            if let Some(cdb) = Cdb::new(octets) {
                for key in [&b"a.test"[..], b"b.test", b"d.test"] {
                    let _ = cdb.find(key);
                }
            }
            fuzz_cdb(&bytes);
        }
    }
}
