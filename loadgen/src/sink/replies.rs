//! Every sentence the sink says.

/// A code for the counters and the line as it goes out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a>(pub(crate) u16, pub(crate) &'a str);

pub(crate) const GREETING: Reply<'_> = Reply(220, "220 loadgen.test ESMTP\r\n");
pub(crate) const HELO: Reply<'_> = Reply(250, "250 loadgen.test\r\n");
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

/// The whole answer to EHLO.
pub(crate) fn ehlo(pipelining: bool, chunking: bool, size_max: u64) -> String {
    let pipelining = if pipelining { "250-PIPELINING\r\n" } else { "" };
    let chunking = if chunking { "250-CHUNKING\r\n" } else { "" };
    format!(
        "250-loadgen.test\r\n{pipelining}{chunking}250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE {size_max}\r\n\
         250 ENHANCEDSTATUSCODES\r\n"
    )
}
