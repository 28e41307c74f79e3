//! What the shared tables lock and count with. The model test puts a scheduler's own locks in this module's place.

pub(crate) use parking_lot::Mutex;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
