//! What a session is told before it starts: our name, how long to wait, how much to have in flight, and what
//! earlier connections taught us about the host.

use std::time::Duration;

/// The same for every session; shared by `Arc`.
#[derive(Clone, Debug)]
pub struct Config {
    /// What EHLO says: our host name or address literal.
    pub helo: String,
    pub timeouts: Timeouts,
    /// Transactions in flight at most, where the host takes CHUNKING and PIPELINING. At least 1.
    pub window_max: u16,
    /// Transactions per connection at most; then the session quits by itself. 0: no limit.
    pub transactions_max: u32,
}

/// How long to wait per stage. Each starts anew with every reply and every flight that is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    pub greeting: Duration,
    /// For EHLO, STARTTLS and each step of AUTH.
    pub ehlo: Duration,
    /// For a TLS handshake as a whole: no octet of the host's makes it longer.
    pub tls: Duration,
    pub mail: Duration,
    pub rcpt: Duration,
    pub data_begin: Duration,
    /// To get rid of a flight, per MiB of content begun.
    pub data_block: Duration,
    pub data_end: Duration,
    pub quit: Duration,
}

impl Timeouts {
    /// RFC 5321 §4.5.3.2; it names none for EHLO, TLS and QUIT, nor would a longer one at QUIT serve anybody.
    pub const RFC_5321: Timeouts = Timeouts {
        greeting: Duration::from_secs(300),
        ehlo: Duration::from_secs(300),
        tls: Duration::from_secs(60),
        mail: Duration::from_secs(300),
        rcpt: Duration::from_secs(300),
        data_begin: Duration::from_secs(120),
        data_block: Duration::from_secs(180),
        data_end: Duration::from_secs(600),
        quit: Duration::from_secs(5),
    };
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts::RFC_5321
    }
}

/// What is remembered about a host between connections. The caller keeps it with an expiry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Habits {
    /// It offered PIPELINING and broke on it.
    pub no_pipelining: bool,
    /// It offered CHUNKING and broke on it.
    pub no_chunking: bool,
    /// The window the last connection got to: at most half is believed. 0: unknown.
    pub window: u16,
    /// It refused EHLO and took HELO.
    pub helo_only: bool,
    /// It offered STARTTLS and the handshake came to nothing: where the policy lets mail go in plain text, it does.
    pub tls_broken: bool,
}
