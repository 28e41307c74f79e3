//! Chance, decided by the seed alone: xoshiro256** (Blackman and Vigna), seeded by splitmix64.
//!
//! Our own, so that a seed means the same schedule on every machine and after every update of a dependency.

use std::ops::Range;

/// How likely a fault is: once in so many tries, 0 is never.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OneIn(pub u32);

pub const NEVER: OneIn = OneIn(0);

#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        let mut state = seed;
        Rng(std::array::from_fn(|_| splitmix(&mut state)))
    }

    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let out = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        out
    }

    /// 0 up to but not `end`; 0 if `end` is 0. The bias of the remainder does not matter to a schedule.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    pub fn range(&mut self, range: &Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    pub fn hits(&mut self, chance: OneIn) -> bool {
        chance.0 != 0 && self.below(u64::from(chance.0)) == 0
    }

    pub fn coin(&mut self) -> bool {
        self.draw() >> 63 == 1
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_sequence() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            [rng.draw(), rng.draw(), rng.draw()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn never_is_never_and_one_in_one_is_always() {
        let mut rng = Rng::new(1);
        assert!((0..1000).all(|_| !rng.hits(NEVER) && rng.hits(OneIn(1))));
    }
}
