//! Sends mail: the SMTP client side as a machine without I/O.
//!
//! A [`Session`] is one connection to one host. The caller tells it what happened (`handle_*`), gives it
//! transactions while it has [`Session::capacity`], sends the flights that [`Session::take_flight`] builds and
//! drains [`Session::poll_output`]. The number of flights per message is what a delivery costs, so the session
//! puts as much into one as the host has shown it can take.
//!
//! Whether and how a connection is encrypted stands in its [`Link`]; what came of it is told as [`Output::Protection`].
//!
//! Nothing here does I/O or reads a clock, and nothing that a host sends is trusted.
#![forbid(unsafe_code)]

mod classify;
mod config;
mod extensions;
mod flight;
mod fuzz;
mod link;
mod policy;
mod protection;
mod reply;
mod sasl;
mod session;
mod tls;
mod transaction;

pub use classify::{Stage, classify};
pub use config::{Config, Habits, Timeouts};
pub use flight::{Flight, FlightPiece};
pub use fuzz::fuzz_session;
pub use link::{Link, Login, Protocol, Secret};
pub use policy::{TlsPolicy, Tlsa};
pub use protection::{Encrypted, FailureKind, Protection, TlsFailure, Verified, WhyPlain};
pub use reply::fuzz_reply;
pub use session::{Custody, Direction, Output, Session};
pub use tls::{TlsBase, TlsBaseError, TlsClient};
pub use transaction::{Asked, Offered, RECIPIENTS_MAX, Transaction};
