//! The log of messages: append-only segments, one commit at a time, durable before anybody hears of it.

pub mod index;
pub mod record;
pub mod recovery;
pub mod writer;

pub use index::Groups;
pub use record::{Head, Location, Meta, NewMessage};
pub use recovery::{Depth, Life, Scan, ScanError, read_life, scan_segment};
pub use writer::{AppendToken, Log, LogConfig, LogOutput, SegmentNumber};
