//! A send in flight: pieces as one message, the rest again after a short one, notifications of zero copy counted.

use super::{Progress, chunk_len};
use crate::api::{Outgoing, Piece, Socket, Token};
use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use std::io;
use std::os::fd::RawFd;

/// `IORING_SEND_ZC_REPORT_USAGE`: say in the notification whether the kernel copied after all.
const REPORT_USAGE: u16 = 1 << 3;
/// `IORING_NOTIF_USAGE_ZC_COPIED`: it did.
const COPIED: u32 = 1 << 31;
/// The kernel's `UIO_MAXIOV`: pieces past it go with the next operation.
const PIECES_PER_CALL_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct SendOp {
    pub(crate) token: Token,
    pub(crate) socket: Socket,
    pub(crate) outgoing: Outgoing,
    pub(crate) copied: Option<bool>,
    fd: RawFd,
    len: usize,
    done: usize,
    /// Set when there is nothing more to hand to the kernel.
    outcome: Option<io::Result<()>>,
    /// Zero-copy notifications to come: until then the kernel reads our memory.
    notifications: u32,
    /// Point into `outgoing`; rebuilt for each operation.
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Default for SendOp {
    fn default() -> Self {
        Self {
            token: Token(0),
            socket: Socket(0),
            outgoing: Outgoing::default(),
            copied: None,
            fd: -1,
            len: 0,
            done: 0,
            outcome: None,
            notifications: 0,
            vectors: Vec::new(),
            // SAFETY: a `msghdr` is integers and pointers, for which zero is valid.
            header: unsafe { std::mem::zeroed() },
        }
    }
}

impl SendOp {
    /// Makes a kept operation a new one; keeps the allocation of `vectors`.
    pub(crate) fn begin(&mut self, token: Token, socket: Socket, fd: RawFd, outgoing: Outgoing) {
        self.len = outgoing.len();
        (self.token, self.socket, self.fd, self.outgoing) = (token, socket, fd, outgoing);
        (self.done, self.notifications, self.copied, self.outcome) = (0, 0, None, None);
    }

    pub(super) fn entry(&mut self) -> squeue::Entry {
        self.point_at_rest();
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        if !self.outgoing.zero_copy
            && let [only] = self.vectors[..]
        {
            let len = chunk_len(only.iov_len);
            return opcode::Send::new(Fd(self.fd), only.iov_base.cast(), len).flags(flags).build();
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        let flags = flags.cast_unsigned();
        if self.outgoing.zero_copy {
            opcode::SendMsgZc::new(Fd(self.fd), &raw const self.header)
                .ioprio(REPORT_USAGE)
                .flags(flags)
                .build()
        } else {
            opcode::SendMsg::new(Fd(self.fd), &raw const self.header).flags(flags).build()
        }
    }

    /// Vectors for what has not been sent yet. The bytes lie on the heap or in shared memory, not in `outgoing`
    /// itself, so they stay where they are when it moves.
    fn point_at_rest(&mut self) {
        let mut skip = self.done;
        self.vectors.clear();
        for piece in &self.outgoing.pieces {
            let bytes: &[u8] = match piece {
                Piece::Own(range) => &self.outgoing.own[range.start as usize..range.end as usize],
                Piece::Shared(bytes) => bytes,
            };
            let rest = &bytes[skip.min(bytes.len())..];
            skip -= bytes.len() - rest.len();
            if !rest.is_empty() && self.vectors.len() < PIECES_PER_CALL_MAX {
                self.vectors
                    .push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            }
        }
    }

    /// The kernel has let go of one zero-copy send's memory.
    pub(crate) fn on_notification(&mut self, result: i32) {
        self.notifications -= 1;
        let copied = result.cast_unsigned() & COPIED != 0;
        self.copied = Some(copied || self.copied == Some(true));
    }

    /// An operation has ended; `notified_later` says that a notification is still to come for it.
    pub(crate) fn on_result(&mut self, result: i32, notified_later: bool) {
        self.notifications += u32::from(notified_later);
        match Progress::of(result) {
            Progress::Moved(0) => self.outcome = Some(Err(io::ErrorKind::WriteZero.into())),
            Progress::Moved(moved) => self.done += moved,
            Progress::Again => {}
            // The memory may not be pinned (RLIMIT_MEMLOCK) or the socket cannot do it: then by copy.
            Progress::Failed(libc::ENOBUFS | libc::ENOMEM | libc::EOPNOTSUPP) if self.outgoing.zero_copy => {
                self.outgoing.zero_copy = false;
                self.copied = Some(true);
            }
            Progress::Failed(code) => self.outcome = Some(Err(io::Error::from_raw_os_error(code))),
        }
        if self.done == self.len && self.outcome.is_none() {
            self.outcome = Some(Ok(()));
        }
    }

    pub(crate) fn wants_more(&self) -> bool {
        self.outcome.is_none()
    }

    /// Its socket was closed: the rest stays unsent.
    pub(crate) fn give_up(&mut self) {
        self.outcome = Some(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
    }

    /// What came of it, once the kernel uses none of its memory any more.
    pub(crate) fn take_outcome(&mut self) -> Option<io::Result<()>> {
        if self.notifications > 0 { None } else { self.outcome.take() }
    }
}
