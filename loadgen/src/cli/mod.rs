//! The command line's arguments, as types another program can take over: each becomes its config by `config()`.

mod client;
mod press;
mod sink;
mod smuggle;
mod socks5;
mod source;

use std::path::PathBuf;

use clap::Args;

use crate::address::Reach;
use crate::audit::AuditConfig;
use crate::audit::verp::{Delimiters, VerpCheck};

pub use client::{ClientArgs, ClientTlsArg};
pub use press::{
    CrowdArgs, DripArg, DripArgs, FloodArgs, GarbageArgs, IdleArgs, OriginArgs, PressArgs, PressCommand,
    Sources,
};
pub use sink::{BrokenTlsArg, SinkArgs, TlsArg, TlsArgs, TlsVersionArg};
pub use smuggle::SmuggleArgs;
pub use socks5::Socks5Args;
pub use source::{ConnectionArg, ModeArg, SourceArgs};

fn reach(allow_non_loopback: bool) -> Reach {
    if allow_non_loopback { Reach::PrivateNamespace } else { Reach::Loopback }
}

/// Compare what was sent with what was received.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// What a source recorded; once per run
    #[arg(long, value_name = "FILE", required = true)]
    pub sent: Vec<PathBuf>,
    /// What a sink recorded
    #[arg(long, value_name = "FILE", required = true)]
    pub received: Vec<PathBuf>,
    /// Check reverse-paths: a prefix such as list-return- or a pattern such as list-return-{}@lists.test
    #[arg(long, value_name = "PREFIX")]
    pub verp: Option<String>,
    /// Before the recipient, and in place of its @
    #[arg(long, default_value = "+=", allow_hyphen_values = true)]
    pub verp_delimiters: Delimiters,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl AuditArgs {
    pub fn config(&self) -> AuditConfig {
        let verp = self.verp.as_deref().map(|pattern| VerpCheck::new(pattern, self.verp_delimiters));
        AuditConfig { sent: self.sent.clone(), received: self.received.clone(), verp }
    }
}
