//! Every sentence that we say. None quotes what the peer sent.
//!
//! Codes in brackets are RFC 2449's, RFC 3206's: AUTH the credentials are wrong, SYS/TEMP it is us and may pass, SYS/PERM
//! it is us and somebody must mend it.

use std::io::Write as _;

pub(crate) const READY: &str = "+OK ringpost";
pub(crate) const OK: &str = "+OK";
pub(crate) const BYE: &str = "+OK Bye";
pub(crate) const BEGIN_TLS: &str = "+OK Begin TLS now";
pub(crate) const PASSWORD_NEXT: &str = "+OK Password?";
pub(crate) const CONTENT_FOLLOWS: &str = "+OK Here it is";
pub(crate) const MARKED: &str = "+OK Goes with QUIT";
/// An empty challenge (RFC 5034 §4).
pub(crate) const GO_ON: &str = "+ ";
pub(crate) const END: &str = ".";

pub(crate) const UNKNOWN_COMMAND: &str = "-ERR Unknown command";
pub(crate) const BAD_ARGUMENTS: &str = "-ERR Bad arguments";
pub(crate) const BAD_NAME: &str = "-ERR Nobody can have such a name";
pub(crate) const LINE_TOO_LONG: &str = "-ERR Line too long";
pub(crate) const TOO_MANY_ERRORS: &str = "-ERR Too many errors";
pub(crate) const TOO_MANY_LOGINS: &str = "-ERR Too many wrong logins";
pub(crate) const LOGIN_FIRST: &str = "-ERR Log in first";
pub(crate) const LOGGED_IN_ALREADY: &str = "-ERR Logged in already";
pub(crate) const USER_FIRST: &str = "-ERR USER first";
pub(crate) const NOT_OFFERED: &str = "-ERR Not offered";
pub(crate) const TLS_FIRST: &str = "-ERR Passwords only over TLS: STLS first";
pub(crate) const NO_PLAIN: &str = "-ERR Passwords only over TLS";
pub(crate) const MECHANISM_UNKNOWN: &str = "-ERR No such mechanism here";
pub(crate) const CANCELLED: &str = "-ERR Cancelled as you wish";
pub(crate) const BAD_RESPONSE: &str = "-ERR Cannot read this response";
pub(crate) const WRONG_LOGIN: &str = "-ERR [AUTH] Wrong name or password";
pub(crate) const LOGIN_UNAVAILABLE: &str = "-ERR [SYS/TEMP] Cannot check passwords now, try later";
pub(crate) const NO_MAILDROP: &str = "-ERR [SYS/PERM] You have no mailbox here";
pub(crate) const MAILDROP_FAILED: &str = "-ERR [SYS/TEMP] Cannot open your mailbox now, try later";
pub(crate) const NO_SUCH_MESSAGE: &str = "-ERR No such message";
pub(crate) const MARKED_ALREADY: &str = "-ERR Marked for removal";
pub(crate) const VANISHED: &str = "-ERR It was removed meanwhile";
pub(crate) const READ_FAILED: &str = "-ERR [SYS/TEMP] Cannot read it now, try later";

/// For a connection that gets no session.
pub fn refusal_too_busy() -> &'static [u8] {
    b"-ERR [SYS/TEMP] Too many connections\r\n"
}

/// With its line end.
pub(crate) fn say(out: &mut Vec<u8>, sentence: &str) {
    print(out, format_args!("{sentence}\r\n"));
}

/// Writing to a `Vec` does not fail.
pub(crate) fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec cannot fail");
}
