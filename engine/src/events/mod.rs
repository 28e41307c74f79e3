//! Events: what became of recipients, said once and in one form (docs/events.md has every field and every kind).
//!
//! [`Event`] is what there is to say, made by its kind (`kinds.rs`); cores and the control thread log it, and whoever
//! reads the log finds a line of JSON for each. The log is a folder of files ([`folder`]): written by the cores
//! (`drive/events.rs`) and the control thread ([`log`]), looked after by a thread of its own ([`keeper`]), read by
//! [`reader`] from a place that [`cursor`] keeps. `control/consumers` sends it on.

pub mod cursor;
pub mod event;
pub mod folder;
mod json;
pub mod keeper;
mod kinds;
pub mod line;
pub mod log;
pub mod reader;

pub use event::{Event, Kind, Stamp};
pub(crate) use kinds::About;
pub use kinds::Way;
pub use log::EventLog;
