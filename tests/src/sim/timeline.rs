//! What will happen, ordered by time and, at the same time, by who asked first; and a hash of what did happen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
pub(super) struct Timeline<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: u64,
    sequence: u64,
    what: T,
}

impl<T> Timeline<T> {
    pub(super) fn new() -> Timeline<T> {
        Timeline { heap: BinaryHeap::new(), sequence: 0 }
    }

    pub(super) fn push(&mut self, at: u64, what: T) {
        self.sequence += 1;
        self.heap.push(Entry { at, sequence: self.sequence, what });
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next one that is due at `now`.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.what)
    }
}

/// Reversed, since the heap gives its greatest first.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

/// A running hash over everything that happened: equal hashes, equal runs. `SIM_TRACE=1` prints it as well.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    count: u64,
    print: bool,
}

impl Trace {
    pub(super) fn new() -> Trace {
        Trace { hash: 0x6a09_e667_f3bc_c908, count: 0, print: std::env::var_os("SIM_TRACE").is_some() }
    }

    pub(super) fn note(&mut self, now: u64, what: &'static str, who: u64, detail: u64) {
        for word in [now, digest(what.as_bytes()), who, detail] {
            self.hash = mix(self.hash, word);
        }
        self.count += 1;
        if self.print {
            eprintln!("{:>6}.{:09} {what} {who} {detail}", now / 1_000_000_000, now % 1_000_000_000);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A short hash of octets, to compare content by. Nobody here forges collisions.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mut hash = bytes.len() as u64;
    for word in &mut words {
        hash = mix(hash, u64::from_le_bytes(word.try_into().expect("a chunk of 8")));
    }
    let rest = words.remainder().iter().fold(0, |word, octet| word << 8 | u64::from(*octet));
    let hash = mix(hash, rest);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_time_comes_in_the_order_of_asking() {
        let mut line = Timeline::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            line.push(at, what);
        }
        let seen: Vec<char> = std::iter::from_fn(|| line.pop_due(5)).collect();
        assert_eq!(seen, ['a', 'b', 'c', 'd']);
    }

    #[test]
    fn digest_sees_every_octet() {
        assert_ne!(digest(b"12345678a"), digest(b"12345678b"));
        assert_ne!(digest(b"a2345678"), digest(b"b2345678"));
        assert_ne!(digest(b""), digest(b"\0"));
    }
}
