//! A file as recovery reads it: a window that moves forward.
//!
//! Bound: one buffer of the window's length, or of the longest piece that was asked for.

use std::io;

/// Where a file's bytes come from.
pub trait Source {
    /// Fills `bytes` from `offset`; returns how many there were.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;
}

/// See the module.
pub struct Window<'a> {
    source: &'a mut dyn Source,
    buffer: Vec<u8>,
    start: u64,
    /// Bytes that are read at a time.
    piece: usize,
}

/// Reading failed.
#[derive(Debug, thiserror::Error)]
#[error("reading at byte {offset}: {source}")]
pub struct ReadError {
    pub offset: u64,
    pub source: io::Error,
}

impl<'a> Window<'a> {
    pub fn new(source: &'a mut dyn Source, piece: usize) -> Window<'a> {
        Window { source, buffer: Vec::new(), start: 0, piece }
    }

    /// Up to `len` bytes at `offset`: fewer only at the file's end.
    pub fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], ReadError> {
        let end = offset.saturating_add(len as u64);
        let inside = offset >= self.start && end <= self.start + self.buffer.len() as u64;
        if !inside {
            self.fill(offset, len.max(self.piece))?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(&self.buffer[from..from.saturating_add(len).min(self.buffer.len())])
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<(), ReadError> {
        self.start = offset;
        let mut have = 0;
        while have < len {
            // By pieces: a length that is nonsense takes no more memory than the file has bytes.
            let end = len.min(have + self.piece.max(GROWTH));
            if self.buffer.len() < end {
                self.buffer.resize(end, 0);
            }
            let place = offset + have as u64;
            let got = self
                .source
                .read(place, &mut self.buffer[have..end])
                .map_err(|source| ReadError { offset: place, source })?;
            if got == 0 {
                break;
            }
            have += got;
        }
        self.buffer.truncate(have);
        Ok(())
    }
}

/// The buffer grows by this much, or a piece if that is more, beyond what was read.
const GROWTH: usize = 1 << 20;

impl std::fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("start", &self.start).finish_non_exhaustive()
    }
}

/// Bytes in memory, for tests and tools.
impl Source for &[u8] {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(from..).unwrap_or(&[]);
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_beyond_the_file_takes_no_memory_for_it() {
        let mut file: &[u8] = &[7; 3000];
        let mut window = Window::new(&mut file, 512);
        assert_eq!(window.bytes(1000, usize::MAX).unwrap(), [7; 2000]);
        assert!(window.buffer.capacity() <= 2 * GROWTH);
        assert_eq!(window.bytes(2999, 10).unwrap(), [7]);
        assert_eq!(window.bytes(u64::MAX, 10).unwrap(), []);
    }
}
