//! The suppression list (B24): who gets no mail, from one list or from any, and why.
//!
//! What is on disk is a set of keyed hashes ([`crate::keyset`], [`keys`]); with `keep_addresses` the addresses stand beside them,
//! for the export alone. One thread writes ([`Suppression`]); each core looks into the list by itself, without a lock
//! ([`Screen`]): at RCPT if it is to refuse, and always before a recipient is offered to its host. What a core would have to read from the
//! disk is read by others, and the recipient has its turn afterwards.
//!
//! A hard bounce is not lost: its recipient stays owed until the entry is durable, so a crash before that only means that
//! its host is asked once more. Bounds: [`ORDERS_MAX`] orders wait for the writer, [`ORDER_LEN_MAX`] entries in
//! each; then who asks waits as well, a core by trying again.

mod ask;
mod book;
mod csv;
mod entry;
mod keys;
mod rules;
mod screen;
mod transfer;
mod writer;

pub use ask::{Ask, EntryRow, ROWS_MAX, StatRow, Told, WhoRow, filter_of, fuzz_suppression_ask};
pub use book::{Asked, Book, Exported, Filter, Store};
pub use csv::{Defaults, HEADER, Import, fuzz_suppression_csv, push_line, seconds_text};
pub use entry::{Entry, Listed, Reason, Who};
pub use keys::Keys;
pub use rules::SuppressionRules;
pub(crate) use rules::builder as pattern_builder;
pub(crate) use screen::{Refusing, Screen, Screened};
pub use transfer::{Imported, Piece};
pub use writer::{Feed, ORDER_LEN_MAX, ORDERS_MAX, Refused, SuppressError, Suppression};
