//! Making a message out of what a program or a person wrote: the rules of qmail-inject on RFC 5322.
//!
//! [`token`] cuts a structured field into words and specials, [`address_list`] understands what they mean,
//! [`header`] finds the fields and the body, [`inject`] builds envelope and content of a new message, and [`mod@fix_up`]
//! mends what an authorised client sent by SMTP.
//!
//! Pure: time, host names, identity and whatever makes a Message-ID unique are arguments. Trusts nothing in the
//! text. Bound: time and memory are linear in the input; nothing recurses.

pub mod address_list;
pub mod fix_up;
mod followup;
pub mod header;
pub mod hosts;
pub mod identity;
pub mod inject;
pub mod masquerade;
pub mod options;
mod quoting;
mod recipients;
pub(crate) mod role;
mod sender;
pub mod stamp;
pub mod token;

pub use fix_up::{FixUp, fix_up};
pub use hosts::{Hosts, HostsError};
pub use identity::Identity;
pub use inject::{InjectError, Injected, Injector};
pub use masquerade::{Masquerade, MasqueradeError};
pub use options::{ArgumentSyntax, Letters, Options, RecipientsFrom};
pub use stamp::{Stamp, Unique, Zone};
