//! What is particular to one connection: to whom it leads, how it is protected, who we are there.

use crate::tls::TlsClient;
use std::fmt;
use std::sync::Arc;

/// See the module. `Link::default()` is plain SMTP to a host without a name.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// The MX host's name: SNI, and the name a certificate must be for where the policy names none. May be an address
    /// or an address literal (a relay); then no name is sent.
    pub host: Arc<str>,
    /// None: never STARTTLS. With `is_tls_implicit`: nothing can be sent.
    pub tls: Option<Arc<TlsClient>>,
    /// TLS from the first octet on (RFC 8314 §3, port 465). There is no plain text to fall back to.
    pub is_tls_implicit: bool,
    pub protocol: Protocol,
    /// Log in before the first transaction (RFC 4954).
    pub login: Option<Arc<Login>>,
    /// Tell every line said and heard as `Output::Trace`.
    pub is_traced: bool,
}

/// What the host speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protocol {
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and after the content one reply for each recipient that was accepted.
    Lmtp,
    /// As `Lmtp`, with whoever delivers to this machine's mailboxes: the reply to a content is its recipient's own, whose
    /// words mean nothing to us.
    Mailboxes,
}

impl Protocol {
    pub(crate) fn is_lmtp(self) -> bool {
        matches!(self, Protocol::Lmtp | Protocol::Mailboxes)
    }
}

/// Who we are at a host that wants to know.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub secret: Secret,
    /// Also over a connection that is not encrypted: for loopback, or because the operator says so.
    pub allow_plain_text: bool,
}

/// Decides which mechanisms may be used. Its `Debug` does not show it.
#[derive(Clone)]
pub enum Secret {
    /// CRAM-MD5 (RFC 2195), PLAIN (RFC 4616), LOGIN: the first of these that the host offers.
    Password(String),
    /// An access token, given by XOAUTH2.
    Token(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Login { user, secret, allow_plain_text } = self;
        write!(f, "Login {{ user: {user:?}, secret: {secret:?}, allow_plain_text: {allow_plain_text} }}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Password(_) => "Password(hidden)",
            Secret::Token(_) => "Token(hidden)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_text_hides_the_secret() {
        let secrets = [Secret::Password("hunter2".into()), Secret::Token("hunter2".into())];
        for secret in secrets {
            let login = Login { user: "ann".into(), secret, allow_plain_text: false };
            let text = format!("{login:?}");
            assert!(text.contains("ann") && text.contains("hidden") && !text.contains("hunter2"), "{text}");
        }
    }
}
