//! `loadgen socks5`.

use std::net::SocketAddr;

use clap::Args;

use super::reach;
use crate::socks5::{Login, Socks5Config};

fn parse_login(text: &str) -> Result<Login, String> {
    let (user, password) = text.split_once(':').ok_or("USER:PASSWORD")?;
    Ok(Login { user: user.into(), password: password.into() })
}

/// A SOCKS5 proxy (RFC 1928) in front of a sink: CONNECT to addresses, not to names.
#[derive(Args, Clone, Debug)]
pub struct Socks5Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:1080")]
    pub listen: SocketAddr,
    /// Ask for user and password (RFC 1929); without it for nothing
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_login)]
    pub auth: Option<Login>,
    /// Connections at a time; more wait
    #[arg(long, default_value_t = 1000)]
    pub connections_max: usize,
    /// Refuse every request with this reply code, such as 5 (connection refused)
    #[arg(long, value_name = "CODE")]
    pub refuse: Option<u8>,
    /// Connect from this address
    #[arg(long, value_name = "IP")]
    pub source: Option<std::net::IpAddr>,
    /// Stop at the end of standard input, which a parent's death is
    #[arg(long)]
    pub stop_on_stdin_eof: bool,
    /// In a private test namespace without a default route
    #[arg(long)]
    pub allow_non_loopback: bool,
}

impl Socks5Args {
    pub fn config(&self) -> Socks5Config {
        Socks5Config {
            listen: self.listen,
            reach: reach(self.allow_non_loopback),
            login: self.auth.clone(),
            connections_max: self.connections_max,
            refuse: self.refuse,
            source: self.source,
            stop_on_stdin_eof: self.stop_on_stdin_eof,
            announce: true,
        }
    }
}
