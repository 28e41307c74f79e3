//! A constant database (cdb) in memory, for lists too long to be text: qmail's `morercpthosts.cdb`, tables of aliases.
//!
//! 256 pairs of (place, slots) come first, then records (two lengths, key, data), then a table of (hash, place) for
//! each pair; all numbers are 32 bits, little-endian. The file is not trusted: every place and length in it is held
//! against its end, and a look-up ends after as many slots as its table has. Bound: what is written has at most
//! [`LEN_MAX`] octets.

/// Octets of the 256 pairs.
const HEADER_LEN: usize = 2048;

/// Longest database that is written. The format ends at 4 GiB; ours are made in memory.
pub const LEN_MAX: usize = 1 << 30;

/// The database would pass [`LEN_MAX`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the database would be longer than {LEN_MAX} octets")]
pub struct TooLong;

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

    /// Data of the first record with that key. No allocation; as many slots are looked at as keys collide.
    pub fn find(&self, key: &[u8]) -> Option<&[u8]> {
        let hash = hash(key);
        let (table, slots) = self.pair((hash & 255) as usize * 8)?;
        let first = (hash >> 8) as usize;
        for step in 0..slots {
            let slot = first.wrapping_add(step) % slots;
            let (found, place) = self.pair(table + slot * 8)?;
            if place == 0 {
                return None;
            }
            if found == hash as usize
                && let Some(data) = self.record(place, key)
            {
                return Some(data);
            }
        }
        None
    }

    /// The data of the record at that place, if it has that key.
    fn record(&self, place: usize, key: &[u8]) -> Option<&[u8]> {
        let (key_len, data_len) = self.pair(place)?;
        let start = place.checked_add(8)?;
        let end = start.checked_add(key_len)?;
        let found = self.0.get(start..end)?;
        if found == key { self.0.get(end..end.checked_add(data_len)?) } else { None }
    }

    fn pair(&self, at: usize) -> Option<(usize, usize)> {
        let octets = self.0.get(at..at.checked_add(8)?)?;
        let (words, _) = octets.as_chunks::<4>();
        Some((u32::from_le_bytes(words[0]) as usize, u32::from_le_bytes(words[1]) as usize))
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
