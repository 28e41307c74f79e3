//! The program `ringpost`: owns the cores, the rings and the clock; carries bytes and events between the boxes.
//!
//! [`core::Core`] is one thread's life. Everything else serves it: [`config`] before it starts, [`daemon`] to
//! start and stop it, [`control`] for what would make it wait, [`observe`] for those who look on.
#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod auth;
pub mod campaigns;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
mod confine;
pub mod control;
pub mod core;
pub mod crossing;
pub mod daemon;
mod demands;
pub mod dkim;
pub mod domains;
mod drive;
pub mod egress;
pub mod events;
pub mod fetch;
mod files;
pub mod hosts;
pub mod ingress;
pub mod keeping;
pub mod keyset;
pub mod look;
pub mod mailboxes;
pub mod observe;
pub mod parts;
pub mod pop3d;
pub mod providers;
pub mod recovery;
pub mod returns;
mod rhythm;
pub mod routes;
pub mod settings;
pub mod sources;
pub mod steer;
pub mod supervise;
pub mod suppression;
mod timers;
pub mod tls;
pub mod tlsrpt;
pub mod verify;
