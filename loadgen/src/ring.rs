//! Starts a tokio-uring runtime on the calling thread.
//!
//! The flags are the ones that tokio-uring 0.5 survives: it waits by epoll on the ring, which DEFER_TASKRUN
//! never wakes. Dropping one of its operations does not cancel it, so every time limit here is a
//! [`Watch`]: it shuts the socket down, and the operation's owner sees it end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio_uring::net::{TcpStream, UnixStream};

const SUBMISSIONS: u32 = 2048;
const COMPLETIONS: u32 = 16384;

/// Runs `main` on a ring of this thread until it ends.
pub(crate) fn run<F: Future>(main: F) -> io::Result<F::Output> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(COMPLETIONS).setup_submit_all();
    ring.setup_coop_taskrun().setup_taskrun_flag().setup_single_issuer();
    let mut builder = tokio_uring::builder();
    builder.entries(SUBMISSIONS).uring_builder(&ring);
    Ok(tokio_uring::Runtime::new(&builder)?.block_on(main))
}

/// A socket that can be ended while an operation of it is with the kernel.
pub(crate) trait ShutDown {
    fn shut_down(&self);
}

impl ShutDown for TcpStream {
    fn shut_down(&self) {
        // Fails only where the peer was faster; then the wait ends anyway.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl ShutDown for UnixStream {
    fn shut_down(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// One connection as the time limit sees it: since when has its owner been waiting for the peer?
pub(crate) struct Pulse {
    stream: Rc<dyn ShutDown>,
    waiting_since: Cell<Option<Instant>>,
}

impl Pulse {
    pub(crate) fn wait_begins(&self, now: Instant) {
        self.waiting_since.set(Some(now));
    }

    pub(crate) fn wait_ends(&self) {
        self.waiting_since.set(None);
    }

    fn is_overdue(&self, now: Instant, limit: Duration) -> bool {
        self.waiting_since.get().is_some_and(|since| now.duration_since(since) > limit)
    }

    fn shut_down(&self) {
        self.stream.shut_down();
    }
}

/// The connections of one thread, so that they can be shut down when overdue or when the run ends.
#[derive(Default)]
pub(crate) struct Watch {
    pulses: RefCell<Vec<Weak<Pulse>>>,
}

impl Watch {
    pub(crate) fn add(&self, stream: Rc<dyn ShutDown>) -> Rc<Pulse> {
        let pulse = Rc::new(Pulse { stream, waiting_since: Cell::new(None) });
        let mut pulses = self.pulses.borrow_mut();
        if pulses.len() == pulses.capacity() {
            pulses.retain(|pulse| pulse.strong_count() > 0); // bound: twice the most ever open at once
        }
        pulses.push(Rc::downgrade(&pulse));
        pulse
    }

    /// Shuts down each connection whose peer has been silent for longer than `limit`.
    pub(crate) fn sweep(&self, now: Instant, limit: Duration) {
        for pulse in self.pulses.borrow().iter().filter_map(Weak::upgrade) {
            if pulse.is_overdue(now, limit) {
                pulse.shut_down();
            }
        }
    }

    pub(crate) fn shut_down_all(&self) {
        self.pulses.borrow().iter().filter_map(Weak::upgrade).for_each(|pulse| pulse.shut_down());
    }

    pub(crate) fn open_count(&self) -> usize {
        self.pulses.borrow().iter().filter(|pulse| pulse.strong_count() > 0).count()
    }
}

/// The processor time this process has used so far.
pub(crate) fn cpu_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(spent.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), nanos)
}

/// Nanoseconds since the Unix epoch; wall time, because source and sink are two processes.
pub(crate) fn now_ns() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
