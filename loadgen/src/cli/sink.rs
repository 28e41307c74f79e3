//! `loadgen sink`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::reach;
use crate::address::{AddressError, parse_range};
use crate::sink::{Account, Fault, SinkConfig, TlsConfig, TlsMode, TlsVersion};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TlsArg {
    /// STARTTLS is offered
    Offer,
    /// MAIL and AUTH need it
    Require,
    /// Before the greeting
    Implicit,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TlsVersionArg {
    #[value(name = "1.2")]
    V1_2,
    #[value(name = "1.3")]
    V1_3,
}

/// What comes instead of a handshake.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BrokenTlsArg {
    Garbage,
    Alert,
    Close,
    Reset,
    Silence,
}

pub(super) fn parse_account(text: &str) -> Result<Account, String> {
    let (user, password) = text.split_once(':').ok_or("USER:PASSWORD")?;
    Ok(Account { user: user.into(), password: password.into() })
}

/// Take mail in, and note what was accepted.
///
/// A fault is STAGE[CONDITIONS]=WHAT[:PROBABILITY[:by-address]], a reply STAGE[CONDITIONS]=CODE TEXT.
///
/// Stages: connect, ehlo, starttls, handshake, auth, mail, rcpt, data, chunk (a BDAT command), content (its first
/// octets), dot (the reply to it, by DATA or by BDAT), quit.
///
/// WHAT: a code of 400-599 (421 also closes), drop, reset (RST), silence (never another word), garbage; at handshake
/// alert; at dot drop-after-accept, reset-after-accept, silence-after-accept. At content only 421 is a code.
///
/// CONDITIONS, all of which must hold: first=N, after=N (how often, over the whole sink), source=IP, address=PATH or
/// address=@DOMAIN, helo=NAME, probability=P, by-address.
#[derive(Args, Clone, Debug)]
pub struct SinkArgs {
    /// Where to listen: 127.0.0.1:2525, or many with 127.0.11.1-100:2525; port 0 takes a free one
    #[arg(required = true)]
    pub addresses: Vec<String>,
    /// In the greeting, and in a certificate that is made; several with commas, the first greets
    #[arg(long = "name", value_delimiter = ',', default_value = "loadgen.test")]
    pub names: Vec<String>,
    /// Each with its own listeners (SO_REUSEPORT)
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    #[arg(long)]
    pub no_pipelining: bool,
    #[arg(long)]
    pub no_chunking: bool,
    /// LMTP (RFC 2033): LHLO, and a reply to the content for each recipient
    #[arg(long)]
    pub lmtp: bool,
    /// A PROXY header, version 1 or 2, comes first and says where the client is
    #[arg(long)]
    pub proxy_protocol: bool,
    /// No MAIL before AUTH: PLAIN, LOGIN, CRAM-MD5, or XOAUTH2 with the password as bearer token
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_account)]
    pub auth: Option<Account>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Misbehave, such as rcpt=550:0.01:by-address or content[first=3]=reset
    #[arg(long = "fault", value_name = "STAGE[CONDITIONS]=WHAT:PROBABILITY")]
    pub faults: Vec<Fault>,
    /// Say this instead, such as 'dot[first=9,source=127.0.0.2]=421 4.7.28 Too fast'; \n begins another line
    #[arg(long = "reply", value_name = "STAGE[CONDITIONS]=CODE TEXT", value_parser = Fault::reply)]
    pub replies: Vec<Fault>,
    /// Milliseconds before each group of replies
    #[arg(long, default_value_t = 0)]
    pub delay: u64,
    /// Close a connection after this many messages
    #[arg(long, default_value_t = 0)]
    pub close_after: u64,
    /// Decides which faults strike
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Bytes per message
    #[arg(long, default_value_t = 1 << 30)]
    pub size_max: u64,
    /// Per transaction
    #[arg(long, default_value_t = 1_000_000)]
    pub recipients_max: u64,
    /// Per thread
    #[arg(long, default_value_t = 10_000)]
    pub connections_max: u64,
    /// Seconds of silence before a connection is closed
    #[arg(long, default_value_t = 300)]
    pub idle: u64,
    /// Record what was accepted
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Record each connection: source, EHLO name, TLS, messages, end
    #[arg(long, value_name = "FILE")]
    pub connections: Option<PathBuf>,
    /// Keep what was accepted, a file in this folder for each content
    #[arg(long, value_name = "FOLDER")]
    pub contents: Option<PathBuf>,
    /// Report the peaks of connections, MAIL commands and messages in any window of so many seconds, per source
    #[arg(long = "window", value_name = "SECONDS", value_delimiter = ',', default_value = "1,60")]
    pub windows: Vec<u64>,
    /// Print counters every so many milliseconds
    #[arg(long, default_value_t = 0)]
    pub stats_interval: u64,
    /// Stop at the end of standard input, which a parent's death is
    #[arg(long)]
    pub stop_on_stdin_eof: bool,
    /// In a private test namespace without a default route
    #[arg(long)]
    pub allow_non_loopback: bool,
}

/// How the sink speaks TLS.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    #[arg(long, value_enum)]
    pub tls: Option<TlsArg>,
    /// The chain in PEM; without it a self-signed certificate for --name is made
    #[arg(long, value_name = "FILE", requires = "key", requires = "tls")]
    pub cert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Write the certificate that was made, in PEM
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "cert")]
    pub cert_out: Option<PathBuf>,
    /// Sign it by an authority made for it, whose certificate is written here, in PEM
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "cert")]
    pub ca_out: Option<PathBuf>,
    /// Only this version; without it 1.2 and 1.3
    #[arg(long, value_enum, requires = "tls")]
    pub tls_version: Option<TlsVersionArg>,
    /// No tickets, no session cache
    #[arg(long, requires = "tls")]
    pub no_resumption: bool,
    /// Ask for a client certificate, take any, and record it
    #[arg(long, requires = "tls")]
    pub ask_client_certificate: bool,
    /// Always, instead of the handshake; short for --fault handshake=…
    #[arg(long, value_enum, requires = "tls")]
    pub broken_tls: Option<BrokenTlsArg>,
}

impl TlsArgs {
    fn config(&self) -> Option<TlsConfig> {
        let mode = match self.tls? {
            TlsArg::Offer => TlsMode::Offer,
            TlsArg::Require => TlsMode::Require,
            TlsArg::Implicit => TlsMode::Implicit,
        };
        Some(TlsConfig {
            mode,
            identity: self.cert.clone().zip(self.key.clone()),
            cert_out: self.cert_out.clone(),
            authority_out: self.ca_out.clone(),
            version: self.tls_version.map(|version| match version {
                TlsVersionArg::V1_2 => TlsVersion::V1_2,
                TlsVersionArg::V1_3 => TlsVersion::V1_3,
            }),
            resumption: !self.no_resumption,
            ask_client_certificate: self.ask_client_certificate,
        })
    }

    fn fault(&self) -> Option<Fault> {
        let what = match self.broken_tls? {
            BrokenTlsArg::Garbage => "garbage",
            BrokenTlsArg::Alert => "alert",
            BrokenTlsArg::Close => "close",
            BrokenTlsArg::Reset => "reset",
            BrokenTlsArg::Silence => "silence",
        };
        format!("handshake={what}").parse().ok()
    }
}

impl SinkArgs {
    pub fn config(&self) -> Result<SinkConfig, AddressError> {
        let ranges = self.addresses.iter().map(|text| parse_range(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(SinkConfig {
            addresses: ranges.concat(),
            reach: reach(self.allow_non_loopback),
            names: self.names.clone(),
            threads: self.threads,
            pipelining: !self.no_pipelining,
            chunking: !self.no_chunking,
            lmtp: self.lmtp,
            tls: self.tls.config(),
            account: self.auth.clone(),
            proxy_protocol: self.proxy_protocol,
            faults: self.replies.iter().chain(&self.faults).cloned().chain(self.tls.fault()).collect(),
            delay: Duration::from_millis(self.delay),
            close_after: self.close_after,
            seed: self.seed,
            size_max: self.size_max,
            recipients_max: self.recipients_max,
            connections_max: self.connections_max,
            idle_max: Duration::from_secs(self.idle),
            audit: self.audit.clone(),
            connections: self.connections.clone(),
            contents: self.contents.clone(),
            windows: self.windows.clone(),
            stats_interval: Duration::from_millis(self.stats_interval),
            stop_on_stdin_eof: self.stop_on_stdin_eof,
            announce: true,
        })
    }
}
