//! The nouns of mail, shared by every other box: what an address, an envelope, a reply and a verdict are.
//!
//! Everything that a peer or an operator wrote is parsed here once, at the border, into a type that can no
//! longer be wrong. Nothing here does I/O or reads a clock.
#![forbid(unsafe_code)]

pub mod address;
mod base32;
pub mod build;
pub mod canonical;
pub mod cdb;
pub mod class;
mod coding;
pub mod compose;
pub mod content;
pub mod copies;
pub mod dkim;
pub mod dsn;
pub mod envelope;
pub mod failure;
pub mod header;
pub mod id;
pub mod labels;
pub mod lane;
pub mod list;
pub mod merge;
pub mod notify;
pub mod path;
pub mod qsbmf;
pub mod received;
pub mod reply;
pub mod report;
pub mod results;
pub mod secret;
pub mod time;
pub mod unsubscribe;
pub mod verdict;
pub mod verp;

pub use address::{AddressError, Domain, Mailbox, MailboxRef};
pub use class::{CampaignNumber, Class, Flow, Marks, PoolTag, Traits};
pub use content::ContentFacts;
pub use envelope::{BodyKind, Envelope, RecipientIndex, Recipients};
pub use failure::FailureClass;
pub use id::MessageId;
pub use labels::Labels;
pub use lane::{Lane, Priority, Wish};
pub use list::{LIST_ID_MAX, list_id, list_of};
pub use notify::{EnvelopeId, MailAsked, Notify, OriginalRecipient, RecipientAsked, Ret, Wanted};
pub use path::{ForwardPath, ReversePath};
pub use reply::{EnhancedCode, Reply};
pub use secret::Secret;
pub use time::UnixMillis;
pub use verdict::{Scope, Verdict};
pub use verp::{Verp, VerpKey};
