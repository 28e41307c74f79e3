//! What was changed since the last file of keys: a table in memory that one thread writes and any may read, without a
//! lock.
//!
//! Open addressing over words that are read and written whole. A slot's key is written before its value, and never
//! changes once the value is there; a removal is a value that says so. A table never has more than half of its slots
//! taken: it grows by being copied ([`Delta::grown`]), and whoever has the old one misses nothing but the newest.

use super::{Key, Value};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Slots of a set that nobody has put anything into.
const SLOTS_MIN: usize = 64;

/// Set in each value that is there.
const TAKEN: u64 = 1 << 63;

/// All zero is free.
#[derive(Debug, Default)]
struct Slot {
    high: AtomicU64,
    low: AtomicU64,
    value: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Delta {
    slots: Box<[Slot]>,
    len: AtomicUsize,
}

impl Default for Delta {
    fn default() -> Delta {
        Delta::with_slots(SLOTS_MIN)
    }
}

impl Delta {
    fn with_slots(count: usize) -> Delta {
        Delta { slots: (0..count).map(|_| Slot::default()).collect(), len: AtomicUsize::new(0) }
    }

    /// Keys that it speaks of, removed ones included.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Octets of memory.
    pub(super) fn memory(&self) -> u64 {
        size_of_val(&*self.slots) as u64
    }

    /// True if nothing more may be put into it.
    pub(super) fn is_full(&self) -> bool {
        self.len() * 2 >= self.slots.len()
    }

    /// The same in four times the room.
    pub(super) fn grown(&self) -> Delta {
        let more = Delta::with_slots(self.slots.len() * 4);
        self.each(|key, value| more.put(key, value));
        more
    }

    /// What it says of the key, if it says anything. One or two cache lines.
    pub(super) fn get(&self, key: Key) -> Option<Value> {
        let (_, word) = self.find(key);
        (word != 0).then(|| value_of(word))
    }

    /// By one thread alone, and only while the table is not full.
    pub(super) fn put(&self, key: Key, value: Value) {
        let (slot, before) = self.find(key);
        if before == 0 {
            slot.high.store(key.high(), Ordering::Relaxed);
            slot.low.store(key.low(), Ordering::Relaxed);
            self.len.store(self.len() + 1, Ordering::Relaxed);
        }
        slot.value.store(word_of(value), Ordering::Release);
    }

    /// The key's slot, or the one where it belongs.
    fn find(&self, key: Key) -> (&Slot, u64) {
        let mask = self.slots.len() - 1;
        let mut at = usize::try_from(key.low() >> 24).unwrap_or_default() & mask;
        loop {
            let slot = &self.slots[at];
            let word = slot.value.load(Ordering::Acquire);
            let is_it = || {
                slot.low.load(Ordering::Relaxed) == key.low()
                    && slot.high.load(Ordering::Relaxed) == key.high()
            };
            if word == 0 || is_it() {
                return (slot, word);
            }
            at = (at + 1) & mask;
        }
    }

    fn each(&self, mut visit: impl FnMut(Key, Value)) {
        for slot in &self.slots {
            let word = slot.value.load(Ordering::Acquire);
            if word != 0 {
                let key = Key::of(slot.high.load(Ordering::Relaxed), slot.low.load(Ordering::Relaxed));
                visit(key, value_of(word));
            }
        }
    }

    /// Everything in it, in the order of the keys.
    pub(super) fn sorted(&self) -> Vec<(Key, Value)> {
        let mut all = Vec::with_capacity(self.len());
        self.each(|key, value| all.push((key, value)));
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

fn word_of(value: Value) -> u64 {
    TAKEN | u64::from(value.kind) << 32 | u64::from(value.at_secs)
}

fn value_of(word: u64) -> Value {
    let [a, b, c, d, kind, ..] = word.to_le_bytes();
    Value { kind, at_secs: u32::from_le_bytes([a, b, c, d]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::key;

    fn value(kind: u8, at_secs: u32) -> Value {
        Value { kind, at_secs }
    }

    #[test]
    fn last_word_on_a_key_counts_and_growing_loses_none() {
        let mut delta = Delta::default();
        for number in 0..1000 {
            if delta.is_full() {
                delta = delta.grown();
            }
            delta.put(key(number), value(1, u32::MAX));
            delta.put(key(number), value(u8::try_from(number % 3).unwrap(), 7));
        }
        assert_eq!(delta.len(), 1000);
        for number in 0..1000 {
            assert_eq!(delta.get(key(number)), Some(value(u8::try_from(number % 3).unwrap(), 7)));
        }
        assert_eq!(delta.get(key(1000)), None);
        let sorted = delta.sorted();
        assert!(sorted.len() == 1000 && sorted.is_sorted_by_key(|(key, _)| *key));
    }

    #[test]
    fn readers_see_whole_entries_while_one_writes() {
        let delta = Delta::with_slots(1 << 14);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while delta.len() < 5000 {
                        for number in 0..5000 {
                            let found = delta.get(key(number));
                            let own = value(9, u32::try_from(number).unwrap());
                            assert!(found.is_none() || found == Some(own), "{number}: {found:?}");
                        }
                    }
                });
            }
            scope.spawn(|| {
                for number in 0..5000 {
                    delta.put(key(number), value(9, u32::try_from(number).unwrap()));
                }
            });
        });
    }
}
