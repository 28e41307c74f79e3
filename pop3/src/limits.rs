//! What a session may use up and what it offers: set by the operator, shared by all sessions.

/// How we serve mail.
#[derive(Clone, Debug)]
pub struct Policy {
    pub limits: Limits,
    pub tls_use: TlsUse,
    /// Let passwords come in plain text from anywhere.
    pub plain_logins: bool,
    /// The client has so long for its next command (RFC 1939 §3: at least 10 minutes).
    pub idle_secs: u64,
}

/// Whether the caller can encrypt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsUse {
    None,
    /// STLS for those who want it (RFC 2595).
    Offer,
}

/// The bounds of one session and the answer at each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Octets of a command with its line end (RFC 2449 §4: 255). Past it: `-ERR`, and the line is skipped to its end.
    pub line_max: usize,
    /// As `line_max`, of what carries a name or a password: USER, PASS, APOP, AUTH and its response.
    pub login_line_max: usize,
    /// Commands that were refused. The last of them gets another `-ERR`, and the session ends.
    pub errors_max: u32,
    /// Wrong passwords. The last of them gets another `-ERR`, and the session ends.
    pub logins_max: u32,
    /// Octets of replies that nobody took yet. At it: we read and list no more until they are taken. A single line may
    /// pass it by its own length.
    pub replies_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_max: 255,
            // A name of 255 octets, a password of 480, both once more in base64 with a second name: 1,324.
            login_line_max: 2048,
            errors_max: 20,
            logins_max: 3,
            replies_max: 16 << 10,
        }
    }
}
