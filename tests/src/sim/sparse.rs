//! A file's content in pages, shared between what the page cache shows and what the disk holds.

use std::collections::BTreeMap;
use std::rc::Rc;

const PAGE: usize = 4096;
const PAGE_U64: u64 = PAGE as u64;

/// What a disk writes at once or not at all.
pub(super) const SECTOR: usize = 512;

/// Octets that were never written are 0, and cost nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    pages: BTreeMap<u64, Rc<[u8; PAGE]>>,
    pub(super) len: u64,
}

impl Sparse {
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len() as u64);
        for (at, within, piece) in pieces(offset, bytes) {
            let page = self.pages.entry(at).or_insert_with(|| Rc::new([0; PAGE]));
            Rc::make_mut(page)[within..within + piece.len()].copy_from_slice(piece);
        }
    }

    /// Fills `bytes` from `offset`; returns how many there were.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> usize {
        let there = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = there.min(bytes.len());
        let (mut done, mut at) = (0, offset);
        while done < count {
            let within = place_in_page(at);
            let len = (PAGE - within).min(count - done);
            match self.pages.get(&(at / PAGE_U64)) {
                Some(page) => bytes[done..done + len].copy_from_slice(&page[within..within + len]),
                None => bytes[done..done + len].fill(0),
            }
            done += len;
            at += len as u64;
        }
        count
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("a simulated file fits in memory")];
        self.read(0, &mut bytes);
        bytes
    }
}

fn place_in_page(at: u64) -> usize {
    usize::try_from(at % PAGE_U64).expect("below a page's length")
}

/// Cuts a write at page borders: page, place in it, octets.
fn pieces(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let (mut at, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        let within = place_in_page(at);
        let (piece, tail) = rest.split_at(rest.len().min(PAGE - within));
        let page = at / PAGE_U64;
        (at, rest) = (at + piece.len() as u64, tail);
        (!piece.is_empty()).then_some((page, within, piece))
    })
}

/// Cuts a write at sector borders: offset, octets.
pub(super) fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut at, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        let to_border = SECTOR - place_in_page(at) % SECTOR;
        let (sector, tail) = rest.split_at(rest.len().min(to_border));
        let start = at;
        (at, rest) = (at + sector.len() as u64, tail);
        (!sector.is_empty()).then_some((start, sector))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_across_pages_and_zeros_between() {
        let mut file = Sparse::default();
        file.write(4090, b"0123456789");
        file.write(20_000, b"x");
        let mut bytes = [9; 12];
        assert_eq!(file.read(4089, &mut bytes), 12);
        assert_eq!(&bytes, b"\x000123456789\0");
        assert_eq!(file.read(19_999, &mut bytes), 2);
        assert_eq!(file.to_vec().len(), 20_001);
    }

    #[test]
    fn sectors_end_at_their_borders() {
        let cut: Vec<(u64, usize)> = sectors(500, &[0; 600]).map(|(at, sector)| (at, sector.len())).collect();
        assert_eq!(cut, [(500, 12), (512, 512), (1024, 76)]);
    }
}
