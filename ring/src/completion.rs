//! The queue out of the kernel: which operation is a completion for, and is it the last one?
//!
//! All completions are copied out before the first is handled (16 bytes each), so that handling one may submit.

use crate::api::Event;
use crate::op::{Op, UserData};
use crate::uring::Uring;
use io_uring::cqueue;
use std::io;

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) user_data: UserData,
    /// What the system call would have returned, errors negated.
    pub(crate) result: i32,
    flags: u32,
}

impl Completion {
    /// More completions follow for the same entry.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that it brings.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The kernel is done with the memory of a zero-copy send.
    pub(crate) fn is_notification(&self) -> bool {
        cqueue::notif(self.flags)
    }

    pub(crate) fn outcome(&self) -> io::Result<()> {
        if self.result < 0 { Err(io::Error::from_raw_os_error(-self.result)) } else { Ok(()) }
    }
}

impl From<cqueue::Entry> for Completion {
    fn from(entry: cqueue::Entry) -> Self {
        Self { user_data: UserData(entry.user_data()), result: entry.result(), flags: entry.flags() }
    }
}

impl Uring {
    /// Handles every completion that is there. No allocation in the steady state.
    pub(crate) fn reap(&mut self, events: &mut Vec<Event>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        reaped.extend(self.submission.ring().completion().map(Completion::from));
        for completion in reaped.drain(..) {
            self.on_completion(completion, events);
        }
        self.reaped = reaped;
    }

    fn on_completion(&mut self, completion: Completion, events: &mut Vec<Event>) {
        if completion.user_data == UserData::NOBODY {
            return;
        }
        let id = completion.user_data.id();
        match self.ops.op(id) {
            Op::Accept { .. } => self.on_accepted(id, completion, events),
            Op::Connect(_) => self.on_connected(id, completion, events),
            Op::Receive(_) => self.on_received(id, completion, events),
            Op::Send(_) => self.on_sent(id, completion, events),
            Op::Write(_) => self.on_written(id, completion, events),
            Op::Read(_) => self.on_read(id, completion, events),
            Op::Open(_) => self.on_opened(id, completion, events),
            Op::Sync { .. } | Op::Allocate { .. } | Op::Remove { .. } => self.on_done(id, completion, events),
            Op::Wake { .. } => self.on_woken(id, events),
        }
    }
}
