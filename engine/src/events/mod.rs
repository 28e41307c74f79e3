//! Events: what became of recipients, said once and in one form (docs/events.md has every field and every kind).
//!
//! [`Event`] is what there is to say; cores and the control thread log it, and whoever reads the log finds a line of
//! JSON for each.

pub mod event;
mod json;

pub use event::{Event, Kind, Stamp};
