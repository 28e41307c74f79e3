//! A line for each connection: who came, from where, by which name, under which protection, and how it ended.
//!
//! FORMAT.md describes the fields. Trusts nothing: what a client chose is one printable word or a hyphen.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::session::Facts;
use super::tls::Secured;

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The sink closed it, after QUIT or with its last reply.
    Finished,
    /// The client left.
    Gone,
    /// A fault without a word.
    Broken,
    Error,
}

pub(crate) struct Visit<'a> {
    pub(crate) opened_ns: u64,
    pub(crate) closed_ns: u64,
    /// As PROXY says, where it speaks.
    pub(crate) source: IpAddr,
    pub(crate) port: u16,
    pub(crate) sink: SocketAddr,
    pub(crate) secured: Option<&'a Secured>,
    pub(crate) facts: Facts<'a>,
    pub(crate) end: End,
}

impl Visit<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Visit { opened_ns, closed_ns, source, port, sink, facts, .. } = self;
        let helo = String::from_utf8_lossy(facts.helo);
        let _infallible =
            write!(out, "{opened_ns}\t{closed_ns}\t{source}\t{port}\t{sink}\t{}\t", or_hyphen(&helo));
        self.write_tls(out);
        let user = if facts.is_authenticated { "auth" } else { "-" };
        let _infallible = writeln!(out, "\t{user}\t{}\t{}\t{}", facts.mails, facts.messages, self.end_name());
    }

    fn write_tls(&self, out: &mut Vec<u8>) {
        let _infallible = match self.secured {
            None => write!(out, "-\t-\t-\t-\t-"),
            Some(secured) => write!(
                out,
                "{:?}\t{}\t{}\t{}\t{}",
                secured.version,
                secured.suite,
                if secured.is_resumed { "resumed" } else { "full" },
                or_hyphen(secured.server_name.as_deref().unwrap_or("")),
                or_hyphen(secured.client_certificate.as_deref().unwrap_or("")),
            ),
        };
    }

    fn end_name(&self) -> &'static str {
        match self.end {
            End::Finished if self.facts.said_quit => "quit",
            End::Finished => "finished",
            End::Gone => "gone",
            End::Broken => "broken",
            End::Error => "error",
        }
    }
}

fn or_hyphen(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
