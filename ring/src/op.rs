//! Operations in flight. The rule of the crate lives here: an operation owns all memory that the kernel may touch
//! for it, outside the slab (which moves when it grows), until its last completion; only then is it taken out.
//!
//! A completion finds its operation by the slab's key. A key is not used again before the last completion, and
//! entries reach the kernel in the order in which they were pushed: so a cancel that names a key meets that
//! operation or none.
//!
//! Bound: none of its own; operations are as many as their callers start.

mod read;
mod send;
mod write;

pub(crate) use read::{ReadOp, Span};
pub(crate) use send::SendOp;
pub(crate) use write::{Next, Part, PartBuffer, SYNC, WriteOp};

use crate::api::{Access, File, Socket, Token};
use crate::buffers::{AlignedBuffer, RECEIVE_GROUP, WriteBuffers};
use io_uring::types::{CancelBuilder, Fd, FsyncFlags};
use io_uring::{opcode, squeue};
use slab::Slab;
use std::ffi::CString;
use std::os::fd::RawFd;

/// An operation's key in the slab.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OpId(u32);

/// What an entry carries through the kernel: the operation, and which part of it (writes have several).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UserData(pub(crate) u64);

impl UserData {
    /// Of closes and cancels: nobody asks what came of them.
    pub(crate) const NOBODY: Self = Self(u64::MAX);

    pub(crate) fn new(id: OpId, part: u32) -> Self {
        Self(u64::from(id.0) << 32 | u64::from(part))
    }

    pub(crate) fn id(self) -> OpId {
        OpId(u32::try_from(self.0 >> 32).expect("32 bits remain"))
    }

    pub(crate) fn part(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).expect("32 bits remain")
    }
}

/// Where a receive stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Receiving {
    /// The kernel has it.
    Armed,
    /// The kernel has it, and a cancel for it.
    Pausing,
    /// The kernel ended it for want of buffers; it is armed again when some are back.
    Starved,
}

#[derive(Debug)]
pub(crate) struct ReceiveOp {
    pub(crate) token: Token,
    pub(crate) socket: Socket,
    pub(crate) fd: RawFd,
    pub(crate) state: Receiving,
}

#[derive(Debug)]
pub(crate) struct ConnectOp {
    pub(crate) token: Token,
    pub(crate) socket: Socket,
    pub(crate) fd: RawFd,
    pub(crate) peer: socket2::SockAddr,
}

#[derive(Debug)]
pub(crate) struct OpenOp {
    pub(crate) token: Token,
    pub(crate) path: CString,
    pub(crate) access: Access,
    /// Ask for `O_DIRECT`; cleared when the filesystem refuses.
    pub(crate) direct: bool,
}

#[derive(Debug)]
pub(crate) enum Op {
    Accept {
        token: Token,
        listener: Socket,
        fd: RawFd,
    },
    Connect(Box<ConnectOp>),
    Receive(ReceiveOp),
    Send(Box<SendOp>),
    Write(Box<WriteOp>),
    Read(Box<ReadOp>),
    Sync {
        token: Token,
        file: File,
        fd: RawFd,
        metadata: bool,
    },
    Allocate {
        token: Token,
        file: File,
        fd: RawFd,
        len: u64,
    },
    Open(Box<OpenOp>),
    Remove {
        token: Token,
        path: CString,
    },
    /// The waker's read of its eventfd.
    Wake {
        fd: RawFd,
        counter: AlignedBuffer,
    },
}

impl Op {
    /// The submission entry of a part. It points only into memory that the operation owns on the heap, or into a
    /// write buffer that it holds.
    pub(crate) fn entry(&mut self, part: u32, write_buffers: &WriteBuffers) -> squeue::Entry {
        match self {
            Op::Accept { fd, .. } => opcode::AcceptMulti::new(Fd(*fd)).flags(libc::SOCK_CLOEXEC).build(),
            Op::Connect(op) => {
                opcode::Connect::new(Fd(op.fd), op.peer.as_ptr().cast(), op.peer.len()).build()
            }
            Op::Receive(op) => opcode::RecvMulti::new(Fd(op.fd), RECEIVE_GROUP).build(),
            Op::Send(op) => op.entry(),
            Op::Write(op) => op.entry(part, write_buffers),
            Op::Read(op) => op.entry(),
            Op::Sync { fd, metadata, .. } => sync_entry(*fd, *metadata),
            Op::Allocate { fd, len, .. } => opcode::Fallocate::new(Fd(*fd), *len).build(),
            Op::Open(op) => op.entry(),
            Op::Remove { path, .. } => opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build(),
            Op::Wake { fd, counter } => opcode::Read::new(Fd(*fd), counter.at(0), 8).build(),
        }
    }
}

impl OpenOp {
    fn entry(&self) -> squeue::Entry {
        opcode::OpenAt::new(Fd(libc::AT_FDCWD), self.path.as_ptr())
            .flags(crate::file::open_flags(self.access, self.direct).bits().cast_signed())
            .mode(crate::file::FILE_MODE.bits())
            .build()
    }
}

fn sync_entry(fd: RawFd, metadata: bool) -> squeue::Entry {
    let flags = if metadata { FsyncFlags::empty() } else { FsyncFlags::DATASYNC };
    opcode::Fsync::new(Fd(fd)).flags(flags).build()
}

/// Cancels one operation. A success is silent; that there was nothing to cancel is told to nobody.
pub(crate) fn cancel_entry(id: OpId) -> squeue::Entry {
    let entry = opcode::AsyncCancel::new(UserData::new(id, 0).0).build();
    entry.user_data(UserData::NOBODY.0).flags(squeue::Flags::SKIP_SUCCESS)
}

/// Cancels whatever the ring has in flight on a descriptor.
pub(crate) fn cancel_all_entry(fd: RawFd) -> squeue::Entry {
    let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build();
    entry.user_data(UserData::NOBODY.0).flags(squeue::Flags::SKIP_SUCCESS)
}

/// Cancels whatever the ring has in flight.
pub(crate) fn cancel_any_entry() -> squeue::Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(UserData::NOBODY.0)
}

pub(crate) fn close_entry(fd: RawFd) -> squeue::Entry {
    let entry = opcode::Close::new(Fd(fd)).build();
    entry.user_data(UserData::NOBODY.0).flags(squeue::Flags::SKIP_SUCCESS)
}

/// As much of `len` as one operation carries; the rest follows as after any short one.
pub(crate) fn chunk_len(len: usize) -> u32 {
    const CHUNK_MAX: u32 = 1 << 30;
    u32::try_from(len).map_or(CHUNK_MAX, |len| len.min(CHUNK_MAX))
}

/// What a completion says of the bytes of a transfer, the same for sends, reads and writes.
pub(crate) enum Progress {
    Moved(usize),
    /// A signal came first: ask again.
    Again,
    Failed(i32),
}

impl Progress {
    pub(crate) fn of(result: i32) -> Self {
        match usize::try_from(result) {
            Ok(moved) => Self::Moved(moved),
            Err(_) if result == -libc::EINTR => Self::Again,
            Err(_) => Self::Failed(-result),
        }
    }
}

/// The slab, with kept boxes so that the steady state does not allocate.
#[allow(clippy::vec_box)] // The boxes are the point: the kernel is told addresses inside them.
pub(crate) struct InFlight {
    ops: Slab<Op>,
    spare_sends: Vec<Box<SendOp>>,
    spare_writes: Vec<Box<WriteOp>>,
}

/// Boxes kept for reuse: some hundred bytes each.
const SPARES_MAX: usize = 4096;

impl InFlight {
    pub(crate) fn new() -> Self {
        Self { ops: Slab::with_capacity(1024), spare_sends: Vec::new(), spare_writes: Vec::new() }
    }

    pub(crate) fn insert(&mut self, op: Op) -> OpId {
        let key = self.ops.insert(op);
        OpId(u32::try_from(key).expect("fewer than 2^32 operations are in flight"))
    }

    /// Only after the last completion, or if the kernel never saw it.
    pub(crate) fn remove(&mut self, id: OpId) -> Op {
        self.ops.remove(id.0 as usize)
    }

    pub(crate) fn op(&mut self, id: OpId) -> &mut Op {
        &mut self.ops[id.0 as usize]
    }

    pub(crate) fn receive(&mut self, id: OpId) -> &mut ReceiveOp {
        let Op::Receive(op) = self.op(id) else { unreachable!("a socket's receive is a receive") };
        op
    }

    pub(crate) fn send(&mut self, id: OpId) -> &mut SendOp {
        let Op::Send(op) = self.op(id) else { unreachable!("dispatched as a send") };
        op
    }

    pub(crate) fn write(&mut self, id: OpId) -> &mut WriteOp {
        let Op::Write(op) = self.op(id) else { unreachable!("dispatched as a write") };
        op
    }

    pub(crate) fn read(&mut self, id: OpId) -> &mut ReadOp {
        let Op::Read(op) = self.op(id) else { unreachable!("dispatched as a read") };
        op
    }

    pub(crate) fn open(&mut self, id: OpId) -> &mut OpenOp {
        let Op::Open(op) = self.op(id) else { unreachable!("dispatched as an open") };
        op
    }

    pub(crate) fn writes_mut(&mut self) -> impl Iterator<Item = &mut WriteOp> {
        self.ops.iter_mut().filter_map(|(_, op)| match op {
            Op::Write(write) => Some(&mut **write),
            _ => None,
        })
    }

    pub(crate) fn spare_send(&mut self) -> Box<SendOp> {
        self.spare_sends.pop().unwrap_or_default()
    }

    pub(crate) fn keep_send(&mut self, op: Box<SendOp>) {
        if self.spare_sends.len() < SPARES_MAX {
            self.spare_sends.push(op);
        }
    }

    pub(crate) fn spare_write(&mut self) -> Box<WriteOp> {
        self.spare_writes.pop().unwrap_or_default()
    }

    pub(crate) fn keep_write(&mut self, op: Box<WriteOp>) {
        if self.spare_writes.len() < SPARES_MAX {
            self.spare_writes.push(op);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Gives all memory of the operations up for good, because the kernel may still use it.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.ops));
    }
}
