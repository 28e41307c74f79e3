//! `loadgen source`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::client::ClientArgs;
use super::reach;
use crate::client::{Introduction, Target};
use crate::recipient::DomainPattern;
use crate::source::{Connection, Mode, Pace, SourceConfig};

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("a number above zero".into()),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ModeArg {
    Lockstep,
    Pipelined,
    Bdat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ConnectionArg {
    Kept,
    PerMessage,
}

/// Send a run of messages.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// Where to, such as 127.0.0.1:2525 or unix:/run/ringpost/submit
    pub target: Target,
    #[command(flatten)]
    pub client: ClientArgs,
    #[arg(long, default_value_t = 1)]
    pub messages: u64,
    /// Per message, in one transaction
    #[arg(long, default_value_t = 1)]
    pub recipients: u64,
    /// Bytes per message, header included
    #[arg(long, default_value_t = 4096)]
    pub size: usize,
    #[arg(long, default_value_t = 1)]
    pub sessions: usize,
    /// Messages per second (an open loop); without it each session sends as fast as it gets replies
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Add XVERP to MAIL FROM, with delimiters when given as --xverp=-=
    #[arg(long, value_name = "DELIMITERS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub xverp: Option<String>,
    #[arg(long, value_enum, default_value_t = ModeArg::Pipelined)]
    pub mode: ModeArg,
    #[arg(long, value_enum, default_value_t = ConnectionArg::Kept)]
    pub connection: ConnectionArg,
    /// BDAT transactions per send
    #[arg(long, default_value_t = 1)]
    pub window: usize,
    /// Recipients per send
    #[arg(long, default_value_t = 1000)]
    pub recipient_group: u64,
    /// Reverse-path, without brackets
    #[arg(long, default_value = "list-return@loadgen.test")]
    pub from: String,
    /// Recipients go round this many domains
    #[arg(long, default_value_t = 1)]
    pub domain_count: u64,
    #[arg(long, default_value = "d{:03}.test")]
    pub domain_pattern: DomainPattern,
    /// Makes the run repeatable; without it every run differs
    #[arg(long)]
    pub seed: Option<u64>,
    /// Let some lines of the content begin with a dot
    #[arg(long)]
    pub dot_lines: bool,
    /// Record what was sent
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// HDR interval log of the replies to the final dot
    #[arg(long, value_name = "FILE")]
    pub hist: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// In a private test namespace without a default route
    #[arg(long)]
    pub allow_non_loopback: bool,
}

impl SourceArgs {
    pub fn config(&self) -> SourceConfig {
        let defaults = SourceConfig::to(self.target.clone());
        let Introduction { target, helo, tls, account, reply_timeout } =
            self.client.introduction(&self.target);
        SourceConfig {
            target,
            helo,
            tls,
            account,
            reply_timeout,
            reach: reach(self.allow_non_loopback),
            messages: self.messages,
            recipients_per_message: self.recipients,
            size_bytes: self.size,
            sessions: self.sessions,
            pace: self.rate.map_or(Pace::Closed, Pace::PerSecond),
            xverp: self.xverp.clone(),
            mode: match self.mode {
                ModeArg::Lockstep => Mode::Lockstep,
                ModeArg::Pipelined => Mode::Pipelined,
                ModeArg::Bdat => Mode::Bdat,
            },
            connection: match self.connection {
                ConnectionArg::Kept => Connection::Kept,
                ConnectionArg::PerMessage => Connection::PerMessage,
            },
            window: self.window,
            recipient_group: self.recipient_group,
            reverse_path: self.from.clone(),
            domain_count: self.domain_count,
            domain_pattern: self.domain_pattern.clone(),
            seed: self.seed.unwrap_or(defaults.seed),
            dot_lines: self.dot_lines,
            audit: self.audit.clone(),
            histogram: self.hist.clone(),
        }
    }
}
