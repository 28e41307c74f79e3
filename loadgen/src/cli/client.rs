//! Who a client is and under which TLS: the arguments that all clients share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::sink::parse_account;
use crate::client::{ClientTls, ClientTlsMode, Introduction, Target};
use crate::sink::Account;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClientTlsArg {
    /// After EHLO
    Starttls,
    /// Before the greeting
    Implicit,
}

/// How a client introduces itself.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    #[arg(long, default_value = "source.loadgen.test")]
    pub helo: String,
    #[arg(long, value_enum)]
    pub tls: Option<ClientTlsArg>,
    /// Believe only these authorities, in PEM; without it anyone
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca_file: Option<PathBuf>,
    /// Name to ask for (SNI) and, with --ca-file, to demand
    #[arg(long, value_name = "NAME", default_value = "loadgen.test")]
    pub server_name: String,
    /// A full handshake for each connection
    #[arg(long, requires = "tls")]
    pub no_resumption: bool,
    /// AUTH PLAIN on each connection
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_account)]
    pub auth: Option<Account>,
    /// Seconds to wait for a reply
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
}

impl ClientArgs {
    pub(super) fn tls(&self) -> Option<ClientTls> {
        let mode = match self.tls? {
            ClientTlsArg::Starttls => ClientTlsMode::StartTls,
            ClientTlsArg::Implicit => ClientTlsMode::Implicit,
        };
        let (ca_file, name) = (self.ca_file.clone(), self.server_name.clone());
        Some(ClientTls { mode, ca_file, name, resumption: !self.no_resumption })
    }

    pub(super) fn introduction(&self, target: &Target) -> Introduction {
        Introduction {
            target: target.clone(),
            helo: self.helo.clone(),
            tls: self.tls(),
            account: self.auth.clone(),
            reply_timeout: Duration::from_secs(self.timeout),
        }
    }
}
