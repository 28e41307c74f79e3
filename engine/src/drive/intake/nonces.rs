//! What challenges of logins are made of: nobody can tell the next one, and none comes twice in a process.

use std::hash::{BuildHasher as _, RandomState};

/// Keyed by the system's randomness. Counts, and hashes the count.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    keys: [RandomState; 2],
    count: u64,
}

impl Nonces {
    pub(super) fn next(&mut self) -> [u8; 16] {
        self.count += 1;
        let [a, b] = [0, 1].map(|half: usize| self.keys[half].hash_one((half, self.count)));
        (u128::from(a) << 64 | u128::from(b)).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_comes_twice() {
        let mut nonces = Nonces::default();
        let mut seen: Vec<[u8; 16]> = (0..1000).map(|_| nonces.next()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
        assert_ne!(Nonces::default().next(), Nonces::default().next());
    }
}
