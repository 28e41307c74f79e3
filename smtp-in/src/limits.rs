//! What a session may use up and what it offers: set by the operator, shared by all sessions of a listener.

use crate::tls::TlsServer;
use std::sync::Arc;

/// How we take mail. Shared by all sessions of a listener; a session keeps the one that it began under.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting, in EHLO's reply and behind `<postmaster>`. Printable ASCII without a space.
    pub host_name: String,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// A message for more recipients than this goes behind other mail, unless it names its priority.
    pub bulk_recipients: u32,
    /// Offer CHUNKING and BINARYMIME (RFC 3030).
    pub offer_chunking: bool,
    /// ATRN (RFC 2645), for those who logged in.
    pub turn_use: TurnUse,
    /// Without it nothing is encrypted, whatever `tls_use` says.
    pub tls: Option<Arc<TlsServer>>,
    pub tls_use: TlsUse,
    /// Ways to log in (RFC 4954), offered over TLS and to this machine's own processes; see `auth_without_tls`.
    pub mechanisms: Vec<Mechanism>,
    /// Let passwords come in plain text from anywhere.
    pub auth_without_tls: bool,
    /// RFC 6409: MAIL from a client that neither logged in nor may relay gets `530 5.7.0`.
    pub needs_login: bool,
    /// The greeting waits so long; whoever speaks before it gets `554 5.5.1` and is closed. 0: no wait, and octets that
    /// come early are read in their turn.
    pub greeting_delay_secs: u64,
    /// Give out [`crate::Output::Rejected`].
    pub tells_rejections: bool,
}

/// What a listener's TLS is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TlsUse {
    /// STARTTLS for those who want it (RFC 3207).
    #[default]
    Offer,
    /// STARTTLS before MAIL, AUTH and ETRN: `530 5.7.0`.
    Require,
    /// From the first octet (RFC 8314 §3.3).
    Implicit,
}

/// Whether mail may be had over the connection that it was asked for by (RFC 2645).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TurnUse {
    #[default]
    Never,
    Offer,
    /// It is what the listener is for: no mail is taken (§5.4).
    Only,
}

/// A way to log in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    Login,
    /// RFC 2195.
    CramMd5,
    /// RFC 5802, RFC 7677; without channel binding.
    ScramSha256,
}

impl Mechanism {
    pub const ALL: [Mechanism; 4] =
        [Mechanism::ScramSha256, Mechanism::CramMd5, Mechanism::Plain, Mechanism::Login];

    /// As EHLO announces it and AUTH names it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
        }
    }
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
    /// Commands that bring no mail on between two messages: MAIL, RSET, NOOP, VRFY, HELP, EHLO, ETRN, refused BDAT. Past
    /// it: `421 4.7.0`.
    pub idle_commands_max: u32,
    /// Wrong passwords in a session. The last of them gets `535 5.7.8` and `421 4.7.0`.
    pub logins_max: u32,
    /// `Received` and `Delivered-To` fields. Past it: `554 5.4.6`.
    pub hops_max: usize,
    /// Messages whose reply waits for their store. At it: we stop reading until one is stored.
    pub stores_in_flight_max: usize,
    /// Octets of replies that nobody took yet. At it: we stop reading until they are taken. A single reply may
    /// pass it by its own length.
    pub replies_max: usize,
}

/// How long we wait for a client (RFC 5321 §4.5.3.2). No time runs while a store is in flight: then the client
/// waits for us. Nor while a question is open.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For the next whole command line. Octets that do not complete one win no time.
    pub command_secs: u64,
    /// For the next `data_block_len` octets of content, or its end if that comes first.
    pub data_secs: u64,
    /// Octets of content that win another `data_secs`: the quotient is the slowest client that we bear.
    pub data_block_len: u64,
    /// For a whole TLS handshake, and for a PROXY header. Nothing is said then, as nothing would be understood.
    pub handshake_secs: u64,
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
