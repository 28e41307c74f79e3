//! A write in flight: one or more parts, then a sync if it is to be durable.
//!
//! The common case, one part and durable, is a write linked to its sync: one submission, two completions. Where a
//! link cannot say what we need (several parts, a short write, a submission that the kernel took in part) the
//! sync is sent by itself once every part is down: `Written` never comes before a sync that followed the bytes.

use super::{Progress, chunk_len, sync_entry};
use crate::api::{File, Token};
use crate::buffers::{AlignedBuffer, WriteBuffers};
use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use smallvec::SmallVec;
use std::io;
use std::os::fd::RawFd;

/// The part number of the sync.
pub(crate) const SYNC: u32 = u32::MAX;

/// Where a part's bytes lie while the kernel reads them.
#[derive(Debug)]
pub(crate) enum PartBuffer {
    /// A piece of the ring's write buffers.
    Pool(u16),
    Aligned(AlignedBuffer),
    /// The caller's own `bytes`: files written through the page cache need no alignment.
    Caller,
}

#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) buffer: PartBuffer,
    /// Where the part begins in the whole write.
    start: usize,
    len: usize,
    done: usize,
    /// The filesystem refused it past the page cache once.
    refused: bool,
}

impl Part {
    pub(crate) fn new(buffer: PartBuffer, start: usize, len: usize) -> Self {
        Self { buffer, start, len, done: 0, refused: false }
    }

    fn is_unfinished(&self) -> bool {
        self.done < self.len
    }
}

/// What a write does when none of its operations is in flight.
#[derive(Debug)]
pub(crate) enum Next {
    Sync,
    End(io::Result<()>),
}

#[derive(Debug)]
pub(crate) struct WriteOp {
    pub(crate) token: Token,
    pub(crate) file: File,
    pub(crate) fd: RawFd,
    /// `None` appends.
    pub(crate) offset: Option<u64>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) parts: SmallVec<[Part; 1]>,
    /// Written past the page cache, at first.
    pub(crate) direct: bool,
    pub(crate) durable: bool,
    /// Completions to come.
    pub(crate) in_flight: u32,
    /// A sync has succeeded that the kernel ran after all bytes were down.
    synced: bool,
    /// The sync under way was sent by itself, not linked.
    sync_alone: bool,
    /// The linked sync may have run before all bytes were down.
    pub(crate) link_doubtful: bool,
    error: Option<io::Error>,
}

impl Default for WriteOp {
    fn default() -> Self {
        Self {
            token: Token(0),
            file: File(0),
            fd: -1,
            offset: None,
            bytes: Vec::new(),
            parts: SmallVec::new(),
            direct: false,
            durable: false,
            in_flight: 0,
            synced: false,
            sync_alone: false,
            link_doubtful: false,
            error: None,
        }
    }
}

impl WriteOp {
    /// Makes a kept operation a new one, still without parts.
    pub(crate) fn begin(&mut self, token: Token, file: File, fd: RawFd, bytes: Vec<u8>) {
        *self = Self { token, file, fd, bytes, ..Self::default() };
    }

    pub(crate) fn begin_sync(&mut self) {
        self.sync_alone = true;
    }

    pub(super) fn entry(&self, part: u32, write_buffers: &WriteBuffers) -> squeue::Entry {
        if part == SYNC {
            return sync_entry(self.fd, false);
        }
        let part = &self.parts[part as usize];
        let len = chunk_len(part.len - part.done);
        // An offset of -1 is the file's own position, which O_APPEND puts at the end.
        let offset = self.offset.map_or(u64::MAX, |offset| offset + (part.start + part.done) as u64);
        match &part.buffer {
            PartBuffer::Pool(index) if write_buffers.is_registered() => {
                let address = write_buffers.address(*index).wrapping_add(part.done);
                opcode::WriteFixed::new(Fd(self.fd), address, len, *index).offset(offset).build()
            }
            PartBuffer::Pool(index) => {
                let address = write_buffers.address(*index).wrapping_add(part.done);
                opcode::Write::new(Fd(self.fd), address, len).offset(offset).build()
            }
            PartBuffer::Aligned(buffer) => {
                opcode::Write::new(Fd(self.fd), buffer.at(part.done), len).offset(offset).build()
            }
            PartBuffer::Caller => {
                let rest = self.bytes[part.start + part.done..].as_ptr();
                opcode::Write::new(Fd(self.fd), rest, len).offset(offset).build()
            }
        }
    }

    /// A part was refused: whether it is worth another try through the page cache, which there is once.
    pub(crate) fn may_fall_back(&mut self, index: u32) -> bool {
        let part = &mut self.parts[index as usize];
        let first = self.direct && !std::mem::replace(&mut part.refused, true);
        self.link_doubtful |= first;
        first
    }

    /// A part's operation has ended. True if the part has to be sent again for its rest.
    pub(crate) fn on_part(&mut self, index: u32, result: i32) -> bool {
        let part = &mut self.parts[index as usize];
        match Progress::of(result) {
            Progress::Moved(0) => self.fail(io::ErrorKind::WriteZero.into()),
            Progress::Moved(moved) => part.done += moved,
            Progress::Again => {}
            Progress::Failed(code) => self.fail(io::Error::from_raw_os_error(code)),
        }
        let again = self.error.is_none() && self.parts[index as usize].is_unfinished();
        // A linked sync covers only what the first operation wrote.
        self.link_doubtful |= again;
        again
    }

    pub(crate) fn on_sync(&mut self, result: i32) {
        match result {
            // The link was broken by a short or failed write, which says itself what is wrong.
            _ if result == -libc::ECANCELED && !self.sync_alone => {}
            0.. => self.synced = true,
            _ => self.fail(io::Error::from_raw_os_error(-result)),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.error.get_or_insert(error);
    }

    /// Asked when nothing is in flight.
    pub(crate) fn next(&mut self) -> Next {
        if let Some(error) = self.error.take() {
            return Next::End(Err(error));
        }
        let doubtful = self.link_doubtful && !self.sync_alone;
        if self.durable && (!self.synced || doubtful) { Next::Sync } else { Next::End(Ok(())) }
    }
}
