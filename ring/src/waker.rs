//! A wake-up from any thread: an eventfd that the ring always has a read on.
//!
//! A burst of wake-ups costs one write: whoever finds `woken` set knows that an [`Event::Woken`](crate::Event)
//! is still to come. The ring clears it *before* it hands that event out, so what a thread did before its
//! wake-up is visible to whoever reacts to the event, and a later wake-up writes again: none is lost.

use crate::api::Wake;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};

#[derive(Debug)]
pub(crate) struct EventWaker {
    /// Blocking on purpose: with `O_NONBLOCK` the ring's read would fail at once instead of waiting.
    event: OwnedFd,
    woken: AtomicBool,
}

impl EventWaker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC)?, woken: AtomicBool::new(false) })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// The ring has seen the wake-up and is about to say so.
    pub(crate) fn clear(&self) {
        self.woken.swap(false, AcqRel);
    }
}

impl Wake for EventWaker {
    /// One atomic exchange; one system call if the ring was not yet woken.
    fn wake(&self) {
        if !self.woken.swap(true, AcqRel) {
            // Cannot fail: at most one write is outstanding, so the counter is far from its limit.
            let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.event, &1u64.to_ne_bytes()));
        }
    }
}
