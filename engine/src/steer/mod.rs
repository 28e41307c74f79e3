//! An operator's orders to the queue: what they say ([`condition`]), what they carry ([`order`]), why recipients wait
//! ([`reason`]), and how both ends of the control socket write that down ([`wire`]).
//!
//! Nothing here does I/O. `drive/steer` carries orders out on a core, `control/socket` takes them in, `cli/queue` makes
//! them.

pub mod condition;
pub mod order;
pub mod reason;
pub mod wire;
