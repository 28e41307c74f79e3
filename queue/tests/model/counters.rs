//! What happened in a run: a test in which nothing is sealed or copied proves nothing.

use queue::log::index::{FOOT_LEN, Foot};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) committed: u64,
    pub(crate) copied: u64,
    /// First commits of another life of a segment.
    pub(crate) recycled: u64,
    pub(crate) sealed: u64,
    pub(crate) removed: u64,
    pub(crate) read_by_index: u64,
    pub(crate) indexes_made_up: u64,
    pub(crate) turned_over: u64,
    pub(crate) lent: u64,
    pub(crate) noted: u64,
    pub(crate) restarts: u64,
    /// Restarts with another number of cores.
    pub(crate) resized: u64,
    pub(crate) recipients_found: u64,
    /// Recipients that the loss of power brought back as they were before.
    pub(crate) undone: u64,
    /// Torn writes that a later start takes for damage: an error in the log, and nothing is lost.
    pub(crate) false_alarms: u64,
}

impl Counters {
    /// `bytes` go into the segment at `offset`, over what it holds.
    pub(crate) fn look_at_write(&mut self, segment: &[u8], (offset, bytes): (u64, &[u8])) {
        self.recycled += u64::from(offset == 0 && segment[..8] != [0; 8]);
        let foot = bytes.len().checked_sub(FOOT_LEN).and_then(|at| Foot::decode(&bytes[at..]));
        self.sealed += u64::from(foot.is_some());
    }

    pub(crate) fn assert_all_happened(&self) {
        let Counters {
            committed,
            copied,
            recycled,
            sealed,
            removed,
            read_by_index,
            indexes_made_up,
            turned_over,
            lent,
            noted,
            restarts,
            resized,
            recipients_found,
            undone,
            false_alarms: _,
        } = *self;
        let all = [
            committed,
            copied,
            recycled,
            sealed,
            removed,
            read_by_index,
            indexes_made_up,
            turned_over,
            lent,
            noted,
            restarts,
            resized,
            recipients_found,
            undone,
        ];
        assert!(all.iter().all(|count| *count >= 10), "something hardly ever happened: {self:?}");
    }
}
