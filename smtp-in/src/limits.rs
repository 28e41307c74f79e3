//! What a session may use up, and what its client may do: set by the operator, shared by all sessions.

use std::net::IpAddr;

/// How we take mail. Shared by all sessions of a listener.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting, in EHLO's reply and behind `<postmaster>`.
    pub host_name: String,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// A message for more recipients than this goes behind other mail, unless it names its priority.
    pub bulk_recipients: u32,
    /// Offer CHUNKING and BINARYMIME (RFC 3030).
    pub offer_chunking: bool,
}

/// The bounds of one session and the answer at each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Octets of content, announced by SIZE. Past it: `552`, and what came is dropped at once.
    pub size_max: u64,
    /// Recipients per transaction, announced by LIMITS. Past it: `452 4.5.3` for each.
    pub recipients_max: u32,
    /// Octets of a command line with its CR LF. Past it: `500`, and the line is skipped to its end.
    /// RFC 5321 §4.5.3.1.4 asks for 512, and extensions add to it.
    pub command_line_max: usize,
    /// Bad commands between two messages. The last of them gets `421 4.7.0`.
    pub errors_max: u32,
    /// `Received` and `Delivered-To` fields. Past it: `554 5.4.6`.
    pub hops_max: usize,
    /// Messages whose reply waits for their store. At it: we stop reading until one is stored.
    pub stores_in_flight_max: usize,
    /// Octets of replies that nobody took yet. At it: we stop reading until they are taken. A single reply may
    /// pass it by its own length.
    pub replies_max: usize,
}

/// How long we wait for a client (RFC 5321 §4.5.3.2). No time runs while a store is in flight: then the client
/// waits for us.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For the next whole command line. Octets that do not complete one win no time.
    pub command_secs: u64,
    /// For the next `data_block_len` octets of content, or its end if that comes first.
    pub data_secs: u64,
    /// Octets of content that win another `data_secs`: the quotient is the slowest client that we bear.
    pub data_block_len: u64,
}

/// Who is at the other end, as the engine knows it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub address: IpAddr,
    /// May send to any domain.
    pub may_relay: bool,
    /// May have mail sent out now (RFC 1985).
    pub may_flush: bool,
}

/// Whether the queue takes mail now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gate {
    Open,
    /// No space: `452 4.3.1` to MAIL and to the DATA or first BDAT of a transaction.
    Full,
    /// The log is poisoned: `451 4.3.0` to the same.
    Broken,
}
