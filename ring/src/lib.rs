//! io_uring behind one small interface, [`Ring`], that the simulator implements too.
//!
//! [`Ring`] is what a core thread can ask of the world: sockets, the queue's files, a wait, a wake-up. The core
//! loop knows nothing else, so it runs unchanged on [`Uring`] and in the simulator.
//!
//! The rule that makes it safe: an operation owns its buffers from the call that submits it until the event that
//! ends it, whatever happens to its socket or its caller in between.
//!
//! ```text
//!   uring       the ring itself: start, one wait, the end
//!   socket      what the calls on sockets do         file   the same for files
//!   op          operations in flight, and the submission entry of each
//!   submission  the kernel's queue in: nothing pushed is ever lost, links stay whole
//!   completion  the kernel's queue out: which operation is this for?
//!   buffers     receive buffers lent to the kernel, aligned buffers for the disk
//!   table       names for sockets and files that notice when they are stale
//!   waker       a wake-up from any thread            probe  why a ring cannot start, in one sentence
//! ```

mod api;
mod buffers;
mod completion;
mod file;
mod op;
mod probe;
mod socket;
mod submission;
mod table;
mod uring;
mod waker;

pub use api::*;
pub use probe::StartError;
pub use uring::{Uring, UringConfig};
