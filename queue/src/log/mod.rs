//! The log of messages: append-only segments, one commit at a time, durable before anybody hears of it.

pub mod record;
pub mod recovery;
pub mod writer;

pub use record::{Head, Meta, NewMessage};
pub use recovery::{Scan, ScanError, SegmentSource, scan_segment};
pub use writer::{AppendToken, Log, LogConfig, LogOutput, SegmentNumber};
