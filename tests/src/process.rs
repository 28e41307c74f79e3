//! The programs as processes: the daemon, its witness and third-party peers, all on loopback.
//!
//! What is started here ends with its value: a drop ends the own child, by its pid, and nothing else. Ports are
//! the system's choice. Every wait polls and has a deadline; a deadline that passes is a failed test, with what
//! the daemon said. Trusts nobody: what a program prints is parsed, and a surprise is a failure.

pub mod browser;
pub mod client;
pub mod daemon;
pub mod dns;
pub mod home;
pub mod house;
pub mod http;
#[cfg(target_arch = "x86_64")]
pub mod inside;
pub mod knot;
pub mod peer;
pub mod programs;
pub mod setup;
pub mod sink;
pub mod source;
pub mod volume;
pub mod wait;
pub mod webhook;

pub use browser::Browser;
pub use client::Client;
pub use daemon::Daemon;
pub use dns::NameServer;
pub use house::{House, Plan};
pub use knot::{Chain, Knot, Zone};
pub use peer::{SmtpSink, peer};
pub use setup::{Setup, vacant};
pub use sink::Sink;
pub use volume::Volume;
pub use webhook::Webhook;
