//! io_uring behind one small interface, [`Ring`], that the simulator implements too.
//!
//! [`Ring`] is what a core thread can ask of the world: sockets, the queue's files, a wait, a wake-up. The core
//! loop knows nothing else, so it runs unchanged on [`Uring`] and in the simulator.
//!
//! The rule that makes it safe: an operation owns its buffers from the call that submits it until the event that
//! ends it, whatever happens to its socket or its caller in between.

mod api;

pub use api::*;
