//! What every client here has in common: where to, under which TLS, as whom, and how a reply is read.
//!
//! The source drives its own ring; the ill-behaved clients and the smuggler use [`line`]. Trusts no peer.

mod line;
mod reply;
mod target;
mod tls;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::sink::Account;

pub(crate) use line::{Caller, Line, last_words, shown};
pub use line::{ClientError, Introduction};
pub use reply::fuzz_reply;
pub(crate) use reply::{Offers, Parsed, Reply, parse_reply};
pub use target::{Target, TargetError};
pub(crate) use tls::Secure;
pub use tls::{ClientTls, ClientTlsError, ClientTlsMode};

/// RFC 4616, with the initial response in the command (RFC 4954 §4).
pub(crate) fn auth_plain(account: &Account) -> Vec<u8> {
    let secret = format!("\0{}\0{}", account.user, account.password);
    format!("AUTH PLAIN {}\r\n", STANDARD.encode(secret)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_as_rfc_4616_has_it() {
        let account = Account { user: "tim".into(), password: "tanstaaftanstaaf".into() };
        assert_eq!(auth_plain(&account), b"AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n");
    }
}
