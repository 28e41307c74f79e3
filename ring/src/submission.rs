//! The queue into the kernel, and the one system call.
//!
//! Nothing pushed is lost and order is kept: when the kernel's queue is full it is submitted without waiting, and
//! if the kernel takes nothing just then (out of memory), entries wait in a backlog that goes first at the next
//! call. A link joins two entries only within one submission, so the two travel as one [`Unit`].
//!
//! Bound: the backlog is as long as the operations in flight, which their callers bound.

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, squeue};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Entries that must reach the kernel in one submission: one, or two that are linked.
#[derive(Debug)]
pub(crate) enum Unit {
    One(squeue::Entry),
    Linked([squeue::Entry; 2]),
}

pub(crate) struct Submission {
    ring: IoUring,
    backlog: VecDeque<Unit>,
    /// The kernel took only a part of a submission: it may have cut a link in two.
    cut: bool,
    /// Completions to wait for, and for how many microseconds at most once there is one.
    gather: (u32, u32),
}

/// A wait of a year is as good as for ever, and the kernel's clock cannot overflow.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl Submission {
    pub(crate) fn new(ring: IoUring) -> Self {
        Self { ring, backlog: VecDeque::new(), cut: false, gather: (1, 0) }
    }

    pub(crate) fn ring(&mut self) -> &mut IoUring {
        &mut self.ring
    }

    pub(crate) fn set_gather(&mut self, want: u32, linger: Duration) {
        let micros = u32::try_from(linger.as_micros()).unwrap_or(u32::MAX);
        self.gather = if want > 1 && crate::probe::has_min_wait() { (want, micros) } else { (1, 0) };
    }

    /// Queues a unit; one copy, and a system call only when the queue is full.
    ///
    /// # Safety
    /// Whatever the entries point to stays valid and in place until their last completion.
    pub(crate) unsafe fn push(&mut self, unit: Unit) {
        // SAFETY: the caller's promise, handed on.
        let pushed = self.backlog.is_empty() && unsafe { self.push_or_submit(&unit) };
        if !pushed {
            self.backlog.push_back(unit);
        }
    }

    /// # Safety
    /// As for [`Self::push`].
    unsafe fn push_or_submit(&mut self, unit: &Unit) -> bool {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            self.try_push(unit) || (self.enter(None, 0, EnterFlags::empty()).is_ok() && self.try_push(unit))
        }
    }

    /// # Safety
    /// As for [`Self::push`].
    unsafe fn try_push(&mut self, unit: &Unit) -> bool {
        let mut queue = self.ring.submission();
        // SAFETY: the caller's promise, handed on.
        unsafe {
            match unit {
                Unit::One(entry) => queue.push(entry).is_ok(),
                Unit::Linked(entries) => queue.push_multiple(entries).is_ok(),
            }
        }
    }

    /// Moves the backlog into the queue as far as the kernel lets us.
    fn flush_backlog(&mut self) {
        while let Some(unit) = self.backlog.pop_front() {
            // SAFETY: `push` was promised that the unit's memory stays until its completion, which cannot have
            // come: the kernel has not seen the unit yet.
            if !unsafe { self.push_or_submit(&unit) } {
                self.backlog.push_front(unit);
                return;
            }
        }
    }

    /// Submits what is queued and waits for a completion, at most `timeout` (zero: only looks). One system call.
    pub(crate) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.flush_backlog();
        let look_only = timeout == Some(Duration::ZERO) || !self.backlog.is_empty();
        // Without GETEVENTS the kernel does not run the work that DEFER_TASKRUN put off, nor hand out completions
        // that did not fit the queue before.
        let flags = EnterFlags::GETEVENTS;
        match self.enter(timeout, if look_only { 0 } else { self.gather.0 }, flags) {
            Err(error) if is_passing(&error) => Ok(()),
            result => result,
        }
    }

    fn enter(&mut self, timeout: Option<Duration>, want: u32, flags: EnterFlags) -> io::Result<()> {
        let span = timeout.map(|timeout| Timespec::from(timeout.min(WAIT_MAX)));
        let mut args = SubmitArgs::new();
        if let Some(span) = &span {
            args = args.timespec(span);
        }
        if want > 1 {
            args = args.min_wait_usec(self.gather.1);
        }
        let queued =
            u32::try_from(self.ring.submission().len()).expect("a queue has fewer than 2^32 entries");
        let flags = (flags | EnterFlags::EXT_ARG).bits();
        // SAFETY: `args` is the structure that EXT_ARG announces and outlives the call, as does `span`.
        let taken = unsafe { self.ring.submitter().enter(queued, want, flags, Some(&args)) };
        let left = self.ring.submission().len();
        self.cut |= left > 0;
        taken.map(drop)
    }

    /// Whether a submission was taken in part since the last call.
    pub(crate) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }
}

/// Not failures: a signal came, the time is over, or the kernel is short of something just now (then what is
/// queued stays queued).
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::EINTR, libc::ETIME, libc::EAGAIN, libc::EBUSY, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}
