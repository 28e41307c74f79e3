//! Memory that the kernel reads and writes: receive buffers it picks from, aligned buffers for the disk.
//!
//! *Receive buffers* are one pool for all sockets (an idle connection holds none). A buffer is the kernel's, or lent to
//! the caller, or rests here: `whose` keeps these apart, whatever the caller does with a [`Received`]. The kernel fills
//! its buffers by turns, so it is given as few as bursts need: those stay in the processor's cache, and memory that was
//! never needed is never touched.
//!
//! *Write buffers* are one aligned block in equal pieces, registered with the kernel if it lets us (saves mapping the
//! pages at each write), else used as they are. Past them, [`AlignedBuffer`]s from the heap.
//!
//! Bound: both pools have a fixed size; past it a receive waits and a write allocates.

use crate::api::{BLOCK, Received};
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering::Release};

/// Anonymous memory, zeroed, aligned to a page; touched pages alone cost anything.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(address) if start != libc::MAP_FAILED => Ok(Self { start: address, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where `len` bytes at `offset` begin; panics if they are not all inside.
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "a buffer lies inside its mapping");
        // SAFETY: `offset` is inside the mapping, checked above.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Never unmaps it.
    fn leak(&mut self) {
        self.len = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: `start` and `len` are what `mmap` gave us, and nobody else unmaps them. That the kernel does
        // not use the memory any more is kept by `Uring`: see its `Drop`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The provided-buffer ring: the kernel takes a buffer when bytes have come, we put it back once they are read.
#[derive(Debug)]
pub(crate) struct ReceiveBuffers {
    entries: Mapping,
    pool: Mapping,
    size: u32,
    /// By buffer. Its length is a power of two.
    whose: Vec<Whose>,
    tail: u16,
    /// Buffers that the kernel can still pick from, as far as the completions seen so far tell.
    free: usize,
    /// How many it is to have. Only grows.
    wanted: usize,
    /// Those that nobody has. The last one that was used is the first to go.
    resting: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Kernels,
    /// Until it is given back.
    Callers,
    Resting,
}

/// Buffers that the kernel has at first: enough where few connections speak in the same moment.
const WANTED_AT_FIRST: usize = 64;

/// The one buffer group of a ring.
pub(crate) const RECEIVE_GROUP: u16 = 0;

impl ReceiveBuffers {
    pub(crate) const COUNT_MAX: u16 = 1 << 15;

    /// `count` is a power of two, at most [`Self::COUNT_MAX`].
    pub(crate) fn register(ring: &IoUring, count: u16, size: u32) -> io::Result<Self> {
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let pool = Mapping::new(usize::from(count) * size as usize)?;
        let address = entries.start.as_ptr() as u64;
        // SAFETY: `entries` has room for `count` entries, is page-aligned and lives as long as the ring, which
        // `Uring` drops first.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, RECEIVE_GROUP, 0)? };
        let (whose, resting) = (vec![Whose::Resting; usize::from(count)], (0..count).rev().collect());
        let wanted = WANTED_AT_FIRST.min(usize::from(count));
        let mut buffers = Self { entries, pool, size, whose, tail: 0, free: 0, wanted, resting };
        buffers.supply();
        Ok(buffers)
    }

    /// Gives the kernel what it lacks, as far as there are some.
    fn supply(&mut self) {
        while self.free < self.wanted {
            let Some(buffer) = self.resting.pop() else { return };
            self.offer(buffer);
        }
    }

    /// The kernel had none left, or soon has none: from now on it has twice as many.
    pub(crate) fn want_more(&mut self) {
        self.wanted = (self.wanted * 2).min(self.whose.len());
        self.supply();
    }

    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// The kernel filled this buffer: it is ours until it is given back.
    pub(crate) fn lend(&mut self, buffer: u16) {
        self.whose[usize::from(buffer)] = Whose::Callers;
        self.free = self.free.saturating_sub(1);
        if self.free * 4 < self.wanted {
            self.want_more();
        }
    }

    /// No copy.
    pub(crate) fn bytes(&self, data: &Received) -> &[u8] {
        let whose = self.whose[usize::from(data.buffer)];
        assert!(whose == Whose::Callers, "a buffer is read before it is given back");
        assert!(data.len <= self.size, "a receive fits its buffer");
        let start = self.pool.at(usize::from(data.buffer) * self.size as usize, data.len as usize);
        // SAFETY: inside the pool (checked by `at`), which starts zeroed and is never uninitialised. The buffer is
        // lent, so the kernel does not write to it; `give_back` needs `&mut self` and so waits for this borrow.
        unsafe { std::slice::from_raw_parts(start, data.len as usize) }
    }

    /// Two stores.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        assert!(self.whose[usize::from(buffer)] == Whose::Callers, "a buffer is given back once");
        if self.free < self.wanted {
            return self.offer(buffer);
        }
        self.whose[usize::from(buffer)] = Whose::Resting;
        self.resting.push(buffer);
    }

    /// A buffer that the kernel does not have is its own from here on.
    fn offer(&mut self, buffer: u16) {
        let place = usize::from(buffer);
        self.whose[place] = Whose::Kernels;
        let address = self.pool.at(place * self.size as usize, self.size as usize) as u64;
        let index = usize::from(self.tail) & (self.whose.len() - 1);
        let base = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `index` is below the count, so the entry is inside `entries`; the kernel reads it only once the
        // tail has passed it, and at most `count` buffers are out, so it is not one that the kernel still reads.
        let entry = unsafe { &mut *base.add(index) };
        entry.set_addr(address);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.publish();
        self.free += 1;
    }

    fn publish(&mut self) {
        self.tail = self.tail.wrapping_add(1);
        let base = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is the first entry of the registered ring; the tail lies in it, aligned for a u16, and
        // is written by this thread alone.
        let tail = unsafe { &*BufRingEntry::tail(base).cast::<AtomicU16>() };
        tail.store(self.tail, Release);
    }

    /// Gives the memory up for good, because the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.entries.leak();
        self.pool.leak();
    }
}

/// Aligned pieces for writes past the page cache.
#[derive(Debug)]
pub(crate) struct WriteBuffers {
    pool: Mapping,
    piece: usize,
    free: Vec<u16>,
    registered: bool,
}

impl WriteBuffers {
    /// `piece` is a multiple of [`BLOCK`]. With a note if the kernel refused to register the memory.
    pub(crate) fn register(ring: &IoUring, total: usize, piece: usize) -> io::Result<(Self, Option<String>)> {
        let count = u16::try_from(total / piece).unwrap_or(u16::MAX).max(1);
        let pool = Mapping::new(usize::from(count) * piece)?;
        let vector = |index: u16| libc::iovec {
            iov_base: pool.at(usize::from(index) * piece, piece).cast(),
            iov_len: piece,
        };
        let vectors: Vec<_> = (0..count).map(vector).collect();
        // SAFETY: the vectors lie inside `pool`, which lives as long as the ring, which `Uring` drops first.
        let result = unsafe { ring.submitter().register_buffers(&vectors) };
        let note = result.as_ref().err().map(|error| {
            format!(
                "write buffers are not registered ({error}; RLIMIT_MEMLOCK allows too little): commits cost more CPU"
            )
        });
        let free = (0..count).rev().collect();
        Ok((Self { pool, piece, free, registered: result.is_ok() }, note))
    }

    pub(crate) fn piece(&self) -> usize {
        self.piece
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.registered
    }

    /// A free piece filled with `bytes` (at most a piece), if there is one.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> Option<u16> {
        assert!(bytes.len() <= self.piece, "a write is cut into pieces first");
        let index = self.free.pop()?;
        let target = self.address(index);
        // SAFETY: the piece is free, so neither the kernel nor anybody else uses it, and `bytes` fits into it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        Some(index)
    }

    pub(crate) fn address(&self, index: u16) -> *mut u8 {
        self.pool.at(usize::from(index) * self.piece, self.piece)
    }

    /// The kernel has ended every operation on the piece.
    pub(crate) fn release(&mut self, index: u16) {
        debug_assert!(!self.free.contains(&index));
        self.free.push(index);
    }

    /// Gives the memory up for good, because the kernel may still read it.
    pub(crate) fn leak(&mut self) {
        self.pool.leak();
    }
}

/// Heap memory at a multiple of [`BLOCK`], not initialised. A raw pointer on purpose: the kernel writes to it
/// while its owner moves about, which a `Box` or `Vec` promises not to happen.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    start: NonNull<u8>,
    layout: Layout,
}

impl AlignedBuffer {
    pub(crate) fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), BLOCK).expect("a buffer is far smaller than memory");
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) });
        Self { start: start.unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }

    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let buffer = Self::new(bytes.len());
        // SAFETY: `buffer` is new and has room for `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.start.as_ptr(), bytes.len()) };
        buffer
    }

    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.layout.size(), "an offset lies inside its buffer");
        // SAFETY: inside the allocation or just past it, checked above.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The first `len` bytes.
    ///
    /// # Safety
    /// They have been written, and the kernel does not write to them any more.
    pub(crate) unsafe fn filled(&self, len: usize) -> &[u8] {
        assert!(len <= self.layout.size(), "what was read fits its buffer");
        // SAFETY: inside the allocation (checked above) and initialised (the caller's promise).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`, freed nowhere else. Its operation has ended: see `op`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
