//! The trace field that every host adds on top (RFC 5321 §4.4).

use crate::time::UnixMillis;
use std::net::IpAddr;

/// What a `Received` field tells. `helo` is what the client called itself, already checked to be printable.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    pub helo: &'a str,
    pub client: IpAddr,
    /// This host's own name.
    pub by: &'a str,
    /// `SMTP`, `ESMTP`, `UTF8SMTP` (RFC 3848, RFC 6531 §4.3).
    pub with: &'static str,
    pub at: UnixMillis,
}

impl Received<'_> {
    /// Appends the field with its line end. Every line stays under 998 octets: the parts are bounded.
    pub fn render(&self, out: &mut Vec<u8>) {
        let helo = &self.helo[..self.helo.floor_char_boundary(255)];
        let literal = match self.client {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        for part in [
            "Received: from ",
            helo,
            " (",
            &literal,
            ")\r\n\tby ",
            self.by,
            " with ",
            self.with,
            "; ",
            &self.at.rfc5322(),
            "\r\n",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_reads_as_the_rfc_shows() {
        let mut out = Vec::new();
        let client = "127.0.0.1".parse().unwrap();
        Received { helo: "mx.example", client, by: "relay.example", with: "ESMTP", at: UnixMillis(0) }
            .render(&mut out);
        let want = "Received: from mx.example ([127.0.0.1])\r\n\tby relay.example with ESMTP; Thu, 01 Jan 1970 00:00:00 +0000\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
