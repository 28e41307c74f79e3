//! What a session asks its engine while it reads: at once by [`Door`], with an answer later by [`Question`].
//!
//! The session knows the protocol; who may come in, to whom mail may go and which password is right, it does not.

use crate::limits::Gate;
use message::Secret;
use message::{Mailbox, MailboxRef, ReversePath};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A refusal whose words are not the protocol's: an operator's, or a block list's. Printable ASCII, no line ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// 421, 450 to 459 or 550 to 559.
    pub code: u16,
    /// RFC 3463: the detail codes behind the class, which is the first digit of `code`.
    pub enhanced: (u8, u8),
    pub text: Arc<str>,
}

/// What becomes of a recipient.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// As it was given.
    AsGiven,
    /// Under another address: a suffix for clients that relay, an address literal that is ours.
    As(Mailbox),
}

/// Decided at once, on the core's thread: no call waits. Asked for each MAIL and RCPT that is well-formed and due.
pub trait Door {
    fn gate(&self) -> Gate;

    /// `size`: as MAIL announced it.
    fn sender(&mut self, client: &Client, sender: &ReversePath, size: Option<u64>) -> Result<(), Refusal>;

    /// `domain` of the recipient is as the client wrote it. One call per recipient of a list: no allocation where the
    /// answer is `AsGiven`.
    fn recipient(
        &mut self,
        client: &Client,
        sender: &ReversePath,
        recipient: MailboxRef<'_>,
    ) -> Result<Entry, Refusal>;
}

/// Who is at the other end, as far as it is known now.
#[derive(Clone, Debug)]
pub struct Client {
    pub origin: Origin,
    /// What this client may do; nothing until [`Answer::Welcome`].
    pub rights: Rights,
    /// The name that it logged in by (RFC 4954).
    pub login: Option<Arc<str>>,
    /// SHA-256 of the certificate that it showed, if it showed one; whether an authority of ours vouches for it.
    pub certificate: Option<Certificate>,
    pub is_encrypted: bool,
}

/// Where a session comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Canonical: no IPv4-mapped IPv6. After a PROXY header or XCLIENT this is the client that they named.
    Net { address: IpAddr, port: u16 },
    /// A process of this machine, by a Unix socket: its user, as the kernel says.
    Local { uid: u32 },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    pub sha256: [u8; 32],
    pub is_verified: bool,
}

/// What a client may do: made by the engine from its rules.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rights {
    /// May send to any domain.
    pub may_relay: bool,
    /// May have mail sent out now (RFC 1985).
    pub may_flush: bool,
    /// May say on whose behalf it comes (XCLIENT).
    pub may_xclient: bool,
    /// Smaller than the listener's, for this client (tcprules' DATABYTES).
    pub size_max: Option<u64>,
    /// Said to each RCPT, whatever else it may: a block list's word, kept back until we know who was to get what.
    pub refusal: Option<Refusal>,
    /// For the trace field: the client's name by reverse look-up that leads back to its address, and what its ident
    /// service says (RFC 1413). Printable ASCII, each at most 255 octets.
    pub name: Option<Arc<str>>,
    pub ident: Option<Arc<str>>,
    /// Which of the engine's rules it was: the engine's business (RELAYCLIENT's suffix, fix-ups).
    pub rule: u32,
}

/// Asked when it is due; the session reads no more until it has an answer. One at a time.
pub enum Question {
    /// Who this is has become known or has changed: at the connection's begin (behind its PROXY header), after a
    /// handshake that brought a certificate, after XCLIENT. Answer: `Welcome` or `Turned`.
    Introduce(Box<Client>),
    /// PLAIN or LOGIN. Answer: `LoggedIn`, `WrongLogin` or `Unavailable`.
    Password { user: String, password: Secret },
    /// Answer: as for `Password`. `digest`: HMAC-MD5 of `challenge`, keyed with the password (RFC 2195).
    CramMd5 { user: String, challenge: String, digest: [u8; 16] },
    /// Answer: `Scram`, or `Unavailable`. For a user that there is none of: keys made up, always the same for a name.
    ScramKeys { user: String },
    /// SCRAM's proof was right, or another step of the engine's is due after it. Answer: `LoggedIn` or `WrongLogin`.
    Prove { user: String },
}

/// What passwords could be guessed by is left out.
impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Question::Introduce(client) => f.debug_tuple("Introduce").field(client).finish(),
            Question::Password { user, .. } => write!(f, "Password({user:?})"),
            Question::CramMd5 { user, .. } => write!(f, "CramMd5({user:?})"),
            Question::ScramKeys { user } => write!(f, "ScramKeys({user:?})"),
            Question::Prove { user } => write!(f, "Prove({user:?})"),
        }
    }
}

/// See [`Question`].
#[derive(Debug)]
pub enum Answer {
    /// Greets, or goes on where it was, with these rights.
    Welcome(Rights),
    /// Says so and closes.
    Turned(Refusal),
    LoggedIn(Rights),
    WrongLogin,
    /// `454 4.7.0`, to [`crate::Output::Turn`] `451 4.3.2`: no fault of the client's.
    Unavailable,
    Scram(ScramKeys),
    /// To [`crate::Output::Turn`]: `250`, and when that was taken [`crate::Output::HandOver`]: mail goes the other way.
    Turning,
    /// `453`: no mail waits for these domains (RFC 2645 §5.2.1).
    NothingWaits,
    /// `450`: these domains are not this login's.
    TurnDenied,
}

/// What a server keeps of a password for SCRAM-SHA-256 (RFC 5802 §3, RFC 7677).
#[derive(Clone, Eq, PartialEq)]
pub struct ScramKeys {
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(hidden)")
    }
}

/// A connection before anything was read from it.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub origin: Origin,
    /// Our own end, for ident and PROXY's answers.
    pub local: Option<SocketAddr>,
    /// A PROXY header comes first (v1 or v2); without one the connection is closed.
    pub is_proxied: bool,
    /// Unpredictable and never used before: what challenges of CRAM-MD5 and SCRAM are made of.
    pub nonce: [u8; 16],
}
