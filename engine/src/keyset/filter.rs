//! A blocked Bloom filter: whether a key may be in a file, from one cache line.
//!
//! A key has one bit in each of the eight words of one block. With [`BITS_PER_KEY`] bits for a key some five of a thousand
//! keys that are not there seem to be; none that is there is missed. Bound: 75 MB for 50,000,000 keys.

use super::Key;

/// See the module.
const BITS_PER_KEY: u64 = 12;

/// Octets of a block, on disk and in memory.
pub(super) const BLOCK_LEN: usize = 64;

/// One cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Block([u64; 8]);

const _: () = assert!(size_of::<Block>() == BLOCK_LEN);

/// See the module.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Box<[Block]>,
}

impl Filter {
    /// An empty one with room for so many keys.
    pub(super) fn for_keys(count: u64) -> Filter {
        Filter::of_blocks(blocks_for(count))
    }

    fn of_blocks(count: u32) -> Filter {
        Filter { blocks: vec![Block::default(); count as usize].into() }
    }

    pub(super) fn blocks(&self) -> u32 {
        u32::try_from(self.blocks.len()).expect("made from a u32")
    }

    pub(super) fn insert(&mut self, key: Key) {
        let block = self.place(key);
        for (word, bit) in self.blocks[block].0.iter_mut().zip(bits(key)) {
            *word |= bit;
        }
    }

    /// False: it is certainly not there.
    #[inline]
    pub(super) fn may_have(&self, key: Key) -> bool {
        let block = &self.blocks[self.place(key)].0;
        // No branch for each word: they are all in one cache line.
        block.iter().zip(bits(key)).fold(true, |all, (word, bit)| all & (word & bit != 0))
    }

    /// By the lower half of the first word, which the order of pages hardly depends on.
    #[inline]
    fn place(&self, key: Key) -> usize {
        let part = key.high() & 0xffff_ffff;
        usize::try_from((part * self.blocks.len() as u64) >> 32).unwrap_or_default()
    }

    /// As it stands in a file, piece by piece.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Vec<u8>> {
        self.blocks.chunks(1024).map(|blocks| {
            blocks.iter().flat_map(|block| block.0).flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
        })
    }

    /// From the pieces that a file has, in their order.
    pub(super) fn read<E>(count: u32, mut read: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Filter, E> {
        let mut filter = Filter::of_blocks(count);
        let mut bytes = vec![0; 1024 * BLOCK_LEN];
        for blocks in filter.blocks.chunks_mut(1024) {
            let bytes = &mut bytes[..blocks.len() * BLOCK_LEN];
            read(bytes)?;
            let (words, _) = bytes.as_chunks::<8>();
            let own = blocks.iter_mut().flat_map(|block| &mut block.0);
            own.zip(words).for_each(|(own, word)| *own = u64::from_le_bytes(*word));
        }
        Ok(filter)
    }
}

/// Blocks of a filter for so many keys.
pub(super) fn blocks_for(keys: u64) -> u32 {
    u32::try_from((keys * BITS_PER_KEY).div_ceil(8 * BLOCK_LEN as u64).max(1)).unwrap_or(u32::MAX)
}

/// The key's bit in each word of its block: six bits of the second word for each.
#[inline]
fn bits(key: Key) -> [u64; 8] {
    std::array::from_fn(|word| 1 << (key.low() >> (6 * word) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::tests::key;

    #[test]
    fn none_is_missed_and_few_seem_to_be_there() {
        let mut filter = Filter::for_keys(20_000);
        (0..20_000).for_each(|number| filter.insert(key(number)));
        assert!((0..20_000).all(|number| filter.may_have(key(number))));
        let false_ones = (20_000..120_000).filter(|number| filter.may_have(key(*number))).count();
        assert!((200..900).contains(&false_ones), "{false_ones} of 100,000");
    }

    #[test]
    fn a_filter_is_the_same_after_it_was_written_and_read() {
        let mut filter = Filter::for_keys(100_000);
        (0..100_000).for_each(|number| filter.insert(key(number)));
        let bytes: Vec<u8> = filter.pieces().flatten().collect();
        assert_eq!(bytes.len(), filter.blocks() as usize * BLOCK_LEN);
        let mut rest = bytes.as_slice();
        let read = Filter::read(filter.blocks(), |piece| {
            let (own, tail) = rest.split_at(piece.len());
            piece.copy_from_slice(own);
            rest = tail;
            Ok::<(), ()>(())
        });
        assert!(read.unwrap().blocks.iter().zip(&filter.blocks).all(|(a, b)| a.0 == b.0));
    }

    #[test]
    fn filter_for_nothing_has_a_block() {
        assert!(!Filter::for_keys(0).may_have(key(1)));
    }
}
