//! A read in flight: what was asked for, widened to whole blocks where the file is read past the page cache.

use super::{Progress, chunk_len};
use crate::api::{BLOCK, File, Token};
use crate::buffers::AlignedBuffer;
use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use std::io;
use std::os::fd::RawFd;

#[derive(Debug)]
pub(crate) struct ReadOp {
    pub(crate) token: Token,
    pub(crate) file: File,
    pub(crate) direct: bool,
    fd: RawFd,
    buffer: AlignedBuffer,
    span: Span,
    filled: usize,
}

/// What is read so that `len` bytes after the first `skip` are what was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) skip: usize,
    pub(crate) len: usize,
    pub(crate) whole: usize,
}

impl Span {
    pub(crate) fn new(offset: u64, len: usize, direct: bool) -> Self {
        if !direct {
            return Self { start: offset, skip: 0, len, whole: len };
        }
        let skip = usize::try_from(offset % BLOCK as u64).expect("less than a block");
        Self { start: offset - skip as u64, skip, len, whole: (skip + len).next_multiple_of(BLOCK) }
    }

    /// The part of the first `filled` bytes that was asked for.
    pub(crate) fn asked<'a>(&self, filled: &'a [u8]) -> &'a [u8] {
        let start = self.skip.min(filled.len());
        let end = (self.skip + self.len).min(filled.len());
        &filled[start..end]
    }
}

impl ReadOp {
    pub(crate) fn new(token: Token, file: File, fd: RawFd, span: Span, direct: bool) -> Self {
        Self { token, file, direct, fd, buffer: AlignedBuffer::new(span.whole), span, filled: 0 }
    }

    pub(super) fn entry(&self) -> squeue::Entry {
        let len = chunk_len(self.span.whole - self.filled);
        let offset = self.span.start + self.filled as u64;
        opcode::Read::new(Fd(self.fd), self.buffer.at(self.filled), len).offset(offset).build()
    }

    /// `None` if there is more to read.
    pub(crate) fn on_result(&mut self, result: i32) -> Option<io::Result<Vec<u8>>> {
        match Progress::of(result) {
            Progress::Moved(moved) => {
                self.filled += moved;
                // Past the page cache only the end of the file ends off a block's border.
                let at_end = moved == 0 || (self.direct && !self.filled.is_multiple_of(BLOCK));
                let enough = self.filled >= self.span.skip + self.span.len;
                (at_end || enough).then(|| Ok(self.asked().to_vec()))
            }
            Progress::Again => None,
            Progress::Failed(code) => Some(Err(io::Error::from_raw_os_error(code))),
        }
    }

    fn asked(&self) -> &[u8] {
        // SAFETY: the kernel has written `filled` bytes, in order, and its last read has completed.
        self.span.asked(unsafe { self.buffer.filled(self.filled) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_read_covers_whole_blocks() {
        let span = Span::new(5000, 100, true);
        assert_eq!(span, Span { start: 4096, skip: 904, len: 100, whole: 4096 });
        assert_eq!(Span::new(4090, 10, true), Span { start: 0, skip: 4090, len: 10, whole: 8192 });
        assert_eq!(Span::new(5000, 100, false).whole, 100);
    }

    #[test]
    fn a_read_at_the_end_gives_what_is_there() {
        let span = Span::new(3, 10, true);
        assert_eq!(span.asked(b"abcdef"), b"def");
        assert_eq!(span.asked(b"ab"), b"");
    }
}
