//! The witness: an SMTP source, sink and audit that share no code with what they measure.
//!
//! [`source::run`] sends messages whose every byte follows from (run, message number), [`sink::run`] takes them
//! in and notes what arrived, [`audit::run`] compares the two files. A defect in the engine's SMTP cannot hide
//! behind the same defect here, because nothing here comes from the engine.
//!
//! Trusts nothing that a peer sends; trusts its own audit files as far as they parse. Loopback only, unless a
//! network without a way out is asked for by name (see [`address`]).

#![forbid(unsafe_code)]

pub mod address;
pub mod audit;
pub mod cli;
pub mod client;
mod content;
pub mod latency;
pub mod press;
pub mod recipient;
mod records;
mod ring;
pub mod sink;
pub mod smuggle;
pub mod socks5;
pub mod source;
pub mod stop;
mod text;
mod trust;
