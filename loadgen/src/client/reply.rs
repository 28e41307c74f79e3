//! A reply (RFC 5321 §4.2) as a client reads it: whole or not at all.

/// What octets so far amount to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Parsed {
    Reply { code: u16, len: usize },
    Partial,
    NotSmtp,
}

/// Each line has the code, then a hyphen on all lines but the last.
pub(crate) fn parse_reply(bytes: &[u8]) -> Parsed {
    let mut len = 0;
    while let Some(end) = memchr::memchr(b'\n', &bytes[len..]) {
        let line = &bytes[len..len + end];
        len += end + 1;
        match (code_of(line), line.get(3)) {
            (None, _) => return Parsed::NotSmtp,
            (Some(_), Some(b'-')) => {}
            (Some(code), Some(b' ' | b'\r') | None) => return Parsed::Reply { code, len },
            (Some(_), Some(_)) => return Parsed::NotSmtp,
        }
    }
    Parsed::Partial
}

fn code_of(line: &[u8]) -> Option<u16> {
    let code: u16 = std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()?;
    (200..600).contains(&code).then_some(code)
}

/// Must not panic, and must not take more than there is.
pub fn fuzz_reply(bytes: &[u8]) {
    if let Parsed::Reply { code, len } = parse_reply(bytes) {
        assert!((200..600).contains(&code) && len <= bytes.len());
    }
    Offers::of(bytes);
}

/// A whole reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// Its last line, for people.
    pub(crate) text: String,
}

/// What the answer to EHLO says may be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Offers {
    pub(crate) pipelining: bool,
    pub(crate) chunking: bool,
}

impl Offers {
    pub(crate) fn of(ehlo: &[u8]) -> Offers {
        let text = ehlo.to_ascii_uppercase();
        let offers = |keyword: &[u8]| {
            let mut lines = text.split(|&byte| byte == b'\n').skip(1).filter_map(|line| line.get(4..));
            lines.any(|line| line.trim_ascii() == keyword)
        };
        Offers { pipelining: offers(b"PIPELINING"), chunking: offers(b"CHUNKING") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::mix;

    #[test]
    fn a_reply_is_taken_only_when_whole() {
        assert_eq!(parse_reply(b"250 ok\r\n250 next"), Parsed::Reply { code: 250, len: 8 });
        assert_eq!(parse_reply(b"250-a\r\n250 b\r\n"), Parsed::Reply { code: 250, len: 14 });
        assert_eq!(parse_reply(b"250\r\n"), Parsed::Reply { code: 250, len: 5 });
        assert_eq!(parse_reply(b"250-a\r\n250"), Parsed::Partial);
        assert_eq!(parse_reply(b""), Parsed::Partial);
    }

    #[test]
    fn what_is_not_smtp_is_said_to_be() {
        for wrong in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"25\r\n", b"999 x\r\n", b"250_x\r\n", b"+50 x\r\n"]
        {
            assert_eq!(parse_reply(wrong), Parsed::NotSmtp, "{wrong:?}");
        }
    }

    #[test]
    fn any_octets_are_read_without_harm() {
        let alphabet = b"25059 -\r\nA\0\xff";
        for seed in 0..2000 {
            let octets: Vec<u8> = (0..seed % 40)
                .map(|at| alphabet[usize::try_from(mix(seed * 64 + at) % alphabet.len() as u64).unwrap()])
                .collect();
            fuzz_reply(&octets);
        }
    }
}
