//! `loadgen press`.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::client::ClientArgs;
use crate::address::parse_range;
use crate::client::Target;
use crate::press::{CrowdConfig, Drip, FloodConfig, GarbageConfig, Stay};

/// Press a server as the internet does: idle, drip, flood or talk garbage. Loopback only.
#[derive(Args, Clone, Debug)]
pub struct PressArgs {
    #[command(subcommand)]
    pub command: PressCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub enum PressCommand {
    /// Connections that greet and then say nothing: how many are alive at the end, and what the others were told
    Idle(IdleArgs),
    /// Connections that say one octet at a time: when each was cut
    Drip(DripArgs),
    /// Connections as fast as they can be had: how many are greeted, turned away or refused, each second
    Flood(FloodArgs),
    /// Octets that mean nothing: exit 1 if the answer is no SMTP or nobody is there afterwards
    Garbage(GarbageArgs),
}

/// What all of them share.
#[derive(Args, Clone, Debug)]
pub struct OriginArgs {
    /// Where to, such as 127.0.0.1:2525 or unix:/run/ringpost/submit
    pub target: Target,
    /// Where from, taking turns: 127.0.0.5, or many with 127.0.0.1-100
    #[arg(long, default_value = "", value_parser = parse_sources)]
    pub sources: Sources,
    #[command(flatten)]
    pub client: ClientArgs,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Addresses to come from; none leaves it to the kernel.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub Vec<IpAddr>);

fn parse_sources(text: &str) -> Result<Sources, String> {
    if text.is_empty() {
        return Ok(Sources::default());
    }
    let addresses = text.parse::<IpAddr>().map(|ip| vec![ip]).or_else(|_| {
        parse_range(&format!("{text}:0")).map(|all| all.iter().map(|address| address.ip()).collect())
    });
    addresses.map(Sources).map_err(|_| "an address or a range of last octets, such as 127.0.0.1-100".into())
}

/// A crowd that stays.
#[derive(Args, Clone, Debug)]
pub struct CrowdArgs {
    #[command(flatten)]
    pub press: OriginArgs,
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// Seconds to stay, from when all are open
    #[arg(long, default_value_t = 60)]
    pub hold: u64,
    /// Stop at the end of standard input, which a parent's death is
    #[arg(long)]
    pub stop_on_stdin_eof: bool,
}

impl CrowdArgs {
    fn config(&self, stay: Stay) -> CrowdConfig {
        CrowdConfig {
            sources: self.press.sources.0.clone(),
            hold: Duration::from_secs(self.hold),
            ..CrowdConfig::new(self.press.client.introduction(&self.press.target), self.connections, stay)
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    #[command(flatten)]
    pub crowd: CrowdArgs,
}

impl IdleArgs {
    pub fn config(&self) -> CrowdConfig {
        self.crowd.config(Stay::Idle)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DripArg {
    /// One command that never ends
    Command,
    /// Whole commands, each of which is answered
    Commands,
    /// Content after DATA
    Data,
    /// Content of a chunk
    Bdat,
    /// A TLS record in place of the handshake
    Handshake,
}

#[derive(Args, Clone, Debug)]
pub struct DripArgs {
    #[command(flatten)]
    pub crowd: CrowdArgs,
    #[arg(long, value_enum, default_value_t = DripArg::Command)]
    pub of: DripArg,
    /// Milliseconds from octet to octet
    #[arg(long, default_value_t = 1000)]
    pub every: u64,
    /// Whom content is for, without brackets
    #[arg(long, default_value = "u000000@d001.test")]
    pub recipient: String,
}

impl DripArgs {
    pub fn config(&self) -> CrowdConfig {
        let of = match self.of {
            DripArg::Command => Drip::Command,
            DripArg::Commands => Drip::Commands,
            DripArg::Data => Drip::Data,
            DripArg::Bdat => Drip::Bdat,
            DripArg::Handshake => Drip::Handshake,
        };
        let stay = Stay::Drip { of, every: Duration::from_millis(self.every) };
        CrowdConfig { recipient: self.recipient.clone(), ..self.crowd.config(stay) }
    }
}

#[derive(Args, Clone, Debug)]
pub struct FloodArgs {
    #[command(flatten)]
    pub press: OriginArgs,
    /// Seconds
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10)]
    pub lasting: u64,
    /// Connections being opened at a time
    #[arg(long, default_value_t = 32)]
    pub workers: usize,
    /// Keep as many of the greeted open; without it each ends at once
    #[arg(long, value_name = "MAX", default_value_t = 0)]
    pub keep: usize,
}

impl FloodArgs {
    pub fn config(&self) -> FloodConfig {
        FloodConfig {
            introduction: self.press.client.introduction(&self.press.target),
            sources: self.press.sources.0.clone(),
            lasting: Duration::from_secs(self.lasting),
            workers: self.workers,
            keep_max: self.keep,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct GarbageArgs {
    #[command(flatten)]
    pub press: OriginArgs,
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// For each connection
    #[arg(long, default_value_t = 65536)]
    pub octets: usize,
    /// The same seed says the same
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl GarbageArgs {
    pub fn config(&self) -> GarbageConfig {
        GarbageConfig {
            introduction: self.press.client.introduction(&self.press.target),
            sources: self.press.sources.0.clone(),
            connections: self.connections,
            octets: self.octets,
            seed: self.seed,
        }
    }
}
