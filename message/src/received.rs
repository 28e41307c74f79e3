//! The trace field that every host adds on top (RFC 5321 §4.4).

use crate::time::UnixMillis;
use std::net::IpAddr;

/// What a `Received` field tells. `helo` is what the client called itself, already checked to be printable.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    pub helo: &'a str,
    pub from: Peer<'a>,
    /// How the connection was protected, if it was.
    pub tls: Option<Tls<'a>>,
    /// This host's own name.
    pub by: &'a str,
    /// `SMTP`, `ESMTP`, `ESMTPSA` and so on (RFC 3848, RFC 6531 §4.3).
    pub with: &'static str,
    pub at: UnixMillis,
}

/// Who the client is, as we know and not as it says.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    Net {
        address: IpAddr,
        /// Its name, by a look-up that leads back to its address.
        name: Option<&'a str>,
        /// What its ident service says (RFC 1413).
        ident: Option<&'a str>,
    },
    /// A process of this machine, by its user.
    Local { uid: u32 },
}

/// Such as `TLS 1.3` and `TLS13_AES_256_GCM_SHA384`.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    pub version: &'a str,
    pub cipher: &'a str,
}

impl Received<'_> {
    /// Appends the field with its line end. Every line stays under 998 octets: the parts are bounded.
    pub fn render(&self, out: &mut Vec<u8>) {
        let helo = &self.helo[..self.helo.floor_char_boundary(255)];
        for part in ["Received: from ", helo, " ("] {
            out.extend_from_slice(part.as_bytes());
        }
        self.from.render(out);
        out.push(b')');
        if let Some(Tls { version, cipher }) = self.tls {
            for part in ["\r\n\t(using ", version, " with ", cipher, ")"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        for part in ["\r\n\tby ", self.by, " with ", self.with, "; ", &self.at.rfc5322(), "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

impl Peer<'_> {
    /// `ident@name [address]`, or `uid 1000`.
    fn render(self, out: &mut Vec<u8>) {
        let text = match self {
            Peer::Local { uid } => format!("uid {uid}"),
            Peer::Net { address, name, ident } => {
                let literal = match address {
                    IpAddr::V4(ip) => format!("[{ip}]"),
                    IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
                };
                let (ident, at) = ident.map_or(("", ""), |ident| (comment_safe(ident), "@"));
                let (name, blank) = name.map_or(("", ""), |name| (comment_safe(name), " "));
                format!("{ident}{at}{name}{blank}{literal}")
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// Nothing of it where it would end the comment that it stands in.
fn comment_safe(text: &str) -> &str {
    let is_safe = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'(' | b')' | b'\\');
    if text.len() <= 255 && text.bytes().all(is_safe) { text } else { "unknown" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(from: Peer<'_>, tls: Option<Tls<'_>>) -> String {
        let mut out = Vec::new();
        Received { helo: "mx.example", from, tls, by: "relay.example", with: "ESMTP", at: UnixMillis(0) }
            .render(&mut out);
        String::from_utf8(out).unwrap()
    }

    const BEHIND: &str = "\r\n\tby relay.example with ESMTP; Thu, 01 Jan 1970 00:00:00 +0000\r\n";

    #[test]
    fn field_reads_as_the_rfc_shows() {
        let address = "127.0.0.1".parse().unwrap();
        let want = format!("Received: from mx.example ([127.0.0.1]){BEHIND}");
        assert_eq!(rendered(Peer::Net { address, name: None, ident: None }, None), want);
    }

    #[test]
    fn what_is_known_of_a_client_stands_beside_its_address() {
        let address = "2001:db8::1".parse().unwrap();
        let tls = Tls { version: "TLS 1.3", cipher: "TLS13_AES_128_GCM_SHA256" };
        let from = Peer::Net { address, name: Some("out.example"), ident: Some("ann") };
        let want = format!(
            "Received: from mx.example (ann@out.example [IPv6:2001:db8::1])\r\n\
             \t(using TLS 1.3 with TLS13_AES_128_GCM_SHA256){BEHIND}"
        );
        assert_eq!(rendered(from, Some(tls)), want);
    }

    #[test]
    fn local_submitter_is_named_by_its_user() {
        assert_eq!(
            rendered(Peer::Local { uid: 1000 }, None),
            format!("Received: from mx.example (uid 1000){BEHIND}")
        );
    }

    #[test]
    fn nothing_that_a_client_made_up_ends_the_comment() {
        let address = "127.0.0.1".parse().unwrap();
        let from = Peer::Net { address, name: None, ident: Some("a) by evil (") };
        assert!(rendered(from, None).contains("(unknown@[127.0.0.1])"));
    }
}
