//! A disk in memory: what is in the files, and what of it survives the loss of power.
//!
//! Unsynced bytes are kept or lost by sectors of 512; a file whose name was not made durable may be gone, one that was
//! removed may be there again. What was synced stays. The choice is the seed's, so that a run can be repeated.

use queue::journal::JournalNumber;
use queue::log::SegmentNumber;
use std::collections::BTreeMap;

const SECTOR: usize = 512;

/// A file of a partition.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Name {
    Segment(u8, SegmentNumber),
    Journal(u8, JournalNumber),
}

#[derive(Debug, Default)]
struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    is_named: bool,
    is_removed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Disk(BTreeMap<Name, File>);

impl Disk {
    /// An empty file, or one of zeros, in the place of whatever had that name.
    pub(crate) fn create(&mut self, name: Name, len: usize) {
        let file = File { cached: vec![0; len], durable: vec![0; len], ..File::default() };
        self.0.insert(name, file);
    }

    pub(crate) fn make_name_durable(&mut self, name: Name) {
        self.file(name).is_named = true;
    }

    /// Into the cache; the file grows if it must.
    pub(crate) fn put(&mut self, name: Name, offset: u64, bytes: &[u8]) {
        let (file, at) = (self.file(name), usize::try_from(offset).expect("files are small"));
        let len = file.cached.len().max(at + bytes.len());
        file.cached.resize(len, 0);
        file.durable.resize(len, 0);
        file.cached[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The first `len` bytes are durable: what was put behind them since the sync began may not be.
    pub(crate) fn sync(&mut self, name: Name, len: u64) {
        let file = self.file(name);
        let len = usize::try_from(len).expect("files are small").min(file.cached.len());
        file.durable[..len].copy_from_slice(&file.cached[..len]);
    }

    pub(crate) fn sync_segments(&mut self) {
        let segments = self.0.iter_mut().filter(|(name, _)| matches!(name, Name::Segment(..)));
        segments.for_each(|(_, file)| file.durable.copy_from_slice(&file.cached));
    }

    pub(crate) fn remove(&mut self, name: Name) {
        self.file(name).is_removed = true;
    }

    pub(crate) fn read(&self, name: Name) -> &[u8] {
        &self.0[&name].cached
    }

    pub(crate) fn names(&self) -> Vec<Name> {
        self.0.iter().filter(|(_, file)| !file.is_removed).map(|(name, _)| *name).collect()
    }

    /// The machine went on: what was removed is gone for good.
    pub(crate) fn forget_removed(&mut self) {
        self.0.retain(|_, file| !file.is_removed);
    }

    pub(crate) fn lose_power(&mut self, chance: &mut Chance) {
        self.0.retain(|_, file| {
            let is_gone = file.is_removed && chance.once_in(2) || !file.is_named && chance.once_in(2);
            !is_gone
        });
        for file in self.0.values_mut() {
            (file.is_removed, file.is_named) = (false, true);
            file.lose_unsynced(chance);
        }
    }

    fn file(&mut self, name: Name) -> &mut File {
        self.0.get_mut(&name).expect("it was created")
    }
}

impl File {
    fn lose_unsynced(&mut self, chance: &mut Chance) {
        // All, nothing, or a sector here and there.
        let kept_of_8 = [0, 8, 1, 4, 7][chance.below(5)];
        for (cached, durable) in self.cached.chunks_mut(SECTOR).zip(self.durable.chunks_mut(SECTOR)) {
            if cached != durable && chance.below(8) < kept_of_8 {
                durable.copy_from_slice(cached);
            } else {
                cached.copy_from_slice(durable);
            }
        }
    }
}

/// Numbers that look like chance and are always the same for a seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) >> 33).expect("31 bits") % end
    }

    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
