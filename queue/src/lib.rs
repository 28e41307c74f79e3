//! Keeps mail and decides what goes when.
//!
//! [`log`] writes messages so that a crash cannot take them, [`journal`] records what became of their recipients,
//! [`store`] is the state that both amount to (a recipient is owed, delivered or failed), [`schedule`] says when a
//! deferred recipient is due, [`site_table`] what a site gets in connections and messages, [`fanout`] turns a list on disk into
//! deliveries. `FORMAT.md` beside this crate's manifest explains every byte on disk.
//!
//! No I/O and no clock here: the engine carries out what these machines ask for, and the simulator does so too.
#![forbid(unsafe_code)]

pub mod bounce;
pub mod fanout;
pub mod journal;
pub mod log;
pub mod range;
pub mod schedule;
pub mod site_table;
pub mod source;
pub mod store;
mod sync;

pub use range::{Attempts, Range};
pub use store::MessageKey;
