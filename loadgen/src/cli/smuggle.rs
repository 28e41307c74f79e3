//! `loadgen smuggle`.

use std::path::PathBuf;

use clap::Args;

use super::client::ClientArgs;
use crate::client::Target;
use crate::recipient::DomainPattern;
use crate::smuggle::SmuggleConfig;

/// Try to make one message two: by every end of data that is none, and by contents that tempt a server to mend them.
///
/// Exit 1 if the server took one for several. What it sent on is for the audit of --audit and the sink's record.
/// Loopback only.
#[derive(Args, Clone, Debug)]
pub struct SmuggleArgs {
    /// Where to, such as 127.0.0.1:2525 or unix:/run/ringpost/submit
    pub target: Target,
    #[command(flatten)]
    pub client: ClientArgs,
    /// Recipients go round this many domains
    #[arg(long, default_value_t = 1)]
    pub domain_count: u64,
    #[arg(long, default_value = "d{:03}.test")]
    pub domain_pattern: DomainPattern,
    /// Reverse-path, without brackets; null by default, so that no bounce comes back
    #[arg(long, default_value = "")]
    pub from: String,
    /// Makes the run repeatable; without it every run differs
    #[arg(long)]
    pub seed: Option<u64>,
    /// Only the cases whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Record what was sent
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl SmuggleArgs {
    pub fn config(&self) -> SmuggleConfig {
        let defaults = SmuggleConfig::to(self.client.introduction(&self.target));
        SmuggleConfig {
            seed: self.seed.unwrap_or(defaults.seed),
            domain_count: self.domain_count,
            domain_pattern: self.domain_pattern.clone(),
            reverse_path: self.from.clone(),
            only: self.only.clone(),
            audit: self.audit.clone(),
            ..defaults
        }
    }
}
