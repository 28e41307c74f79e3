//! Every sentence the sink says.

/// A code for the counters and the line as it goes out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a>(pub(crate) u16, pub(crate) &'a str);

pub(crate) const BYE: Reply<'_> = Reply(221, "221 2.0.0 Bye\r\n");
pub(crate) const SENDER_OK: Reply<'_> = Reply(250, "250 2.1.0 Ok\r\n");
pub(crate) const RECIPIENT_OK: Reply<'_> = Reply(250, "250 2.1.5 Ok\r\n");
pub(crate) const GO_AHEAD: Reply<'_> = Reply(354, "354 End data with <CR><LF>.<CR><LF>\r\n");
pub(crate) const TAKEN: Reply<'_> = Reply(250, "250 2.0.0 Taken\r\n");
pub(crate) const OK: Reply<'_> = Reply(250, "250 2.0.0 Ok\r\n");
pub(crate) const CANNOT_VERIFY: Reply<'_> = Reply(252, "252 2.1.5 Cannot verify\r\n");
pub(crate) const TOO_MANY_CONNECTIONS: Reply<'_> = Reply(421, "421 4.7.0 Too many connections\r\n");
pub(crate) const TOO_MANY_RECIPIENTS: Reply<'_> = Reply(452, "452 4.5.3 Too many recipients\r\n");
pub(crate) const LINE_TOO_LONG: Reply<'_> = Reply(500, "500 5.5.2 Line too long\r\n");
pub(crate) const UNKNOWN_COMMAND: Reply<'_> = Reply(502, "502 5.5.2 Command not recognized\r\n");
pub(crate) const SYNTAX: Reply<'_> = Reply(501, "501 5.5.4 Syntax error\r\n");
pub(crate) const HELLO_FIRST: Reply<'_> = Reply(503, "503 5.5.1 EHLO first\r\n");
pub(crate) const NESTED_MAIL: Reply<'_> = Reply(503, "503 5.5.1 Nested MAIL\r\n");
pub(crate) const MAIL_FIRST: Reply<'_> = Reply(503, "503 5.5.1 MAIL first\r\n");
pub(crate) const CHUNKS_BEGUN: Reply<'_> = Reply(503, "503 5.5.1 BDAT has begun\r\n");
pub(crate) const CHUNK_LOST: Reply<'_> = Reply(503, "503 5.5.1 An earlier chunk was refused\r\n");
pub(crate) const TOO_BIG: Reply<'_> = Reply(552, "552 5.3.4 Message too big\r\n");
pub(crate) const NO_RECIPIENTS: Reply<'_> = Reply(554, "554 5.5.1 No valid recipients\r\n");
pub(crate) const TLS_READY: Reply<'_> = Reply(220, "220 2.0.0 Ready to start TLS\r\n");
pub(crate) const TLS_FIRST: Reply<'_> = Reply(530, "530 5.7.0 Must issue a STARTTLS command first\r\n");
pub(crate) const TLS_ACTIVE: Reply<'_> = Reply(503, "503 5.5.1 TLS is active\r\n");
pub(crate) const AUTH_FIRST: Reply<'_> = Reply(530, "530 5.7.0 Authentication required\r\n");
pub(crate) const AUTH_DONE: Reply<'_> = Reply(503, "503 5.5.1 Already authenticated\r\n");
pub(crate) const AUTH_OK: Reply<'_> = Reply(235, "235 2.7.0 Authentication successful\r\n");
pub(crate) const AUTH_REFUSED: Reply<'_> = Reply(535, "535 5.7.8 Authentication credentials invalid\r\n");
pub(crate) const AUTH_MALFORMED: Reply<'_> = Reply(501, "501 5.5.2 Cannot decode, or cancelled\r\n");
pub(crate) const AUTH_MECHANISM: Reply<'_> = Reply(504, "504 5.5.4 Unrecognized authentication type\r\n");
pub(crate) const LHLO_ONLY: Reply<'_> = Reply(500, "500 5.5.1 This is LMTP: LHLO\r\n");
pub(crate) const REQUIRETLS_UNKNOWN: Reply<'_> = Reply(555, "555 5.5.4 REQUIRETLS is not offered\r\n");

/// What depends on how the sink was started.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) greeting: String,
    pub(crate) helo: String,
    /// The whole answer to EHLO or LHLO in the clear.
    pub(crate) ehlo: String,
    /// The same under TLS.
    pub(crate) ehlo_tls: String,
}

/// The extensions that a sink may be told to offer or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offers {
    pub(crate) pipelining: bool,
    pub(crate) chunking: bool,
    pub(crate) starttls: bool,
    pub(crate) auth: bool,
    pub(crate) size_max: u64,
}

impl Texts {
    pub(crate) fn new(name: &str, lmtp: bool, offers: Offers) -> Texts {
        let protocol = if lmtp { "LMTP" } else { "ESMTP" };
        Texts {
            greeting: format!("220 {name} {protocol}\r\n"),
            helo: format!("250 {name}\r\n"),
            ehlo: ehlo(name, offers, false),
            ehlo_tls: ehlo(name, offers, true),
        }
    }
}

/// RFC 8689 §2: REQUIRETLS is offered only under TLS; RFC 3207 §4.2: STARTTLS only before.
fn ehlo(name: &str, offers: Offers, under_tls: bool) -> String {
    let keywords = [
        (offers.pipelining, "PIPELINING"),
        (offers.chunking, "CHUNKING"),
        (offers.starttls && !under_tls, "STARTTLS"),
        (under_tls, "REQUIRETLS"),
        (offers.auth, "AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2"),
        (true, "8BITMIME"),
        (true, "SMTPUTF8"),
    ];
    let offered = keywords.iter().filter(|(offered, _)| *offered);
    let lines: String = offered.map(|(_, keyword)| format!("250-{keyword}\r\n")).collect();
    format!("250-{name}\r\n{lines}250-SIZE {}\r\n250 ENHANCEDSTATUSCODES\r\n", offers.size_max)
}
