//! The PROXY header, versions 1 and 2, as a load balancer puts it before the dialogue: where the client is.
//!
//! Pure. Trusts nothing: what is no header is `Bad`, and the connection ends. Bound: `HEADER_MAX` octets; version
//! 2's extensions are skipped, but count.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const HEADER_MAX: usize = 4096;
const LINE_MAX: usize = 107; // version 1, CRLF included
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What `bytes` begin with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Header {
    /// More octets are needed.
    Part,
    Bad,
    /// `source` is none where the proxy speaks for itself; `len` is that of the header.
    Whole {
        source: Option<IpAddr>,
        len: usize,
    },
}

pub(crate) fn parse(bytes: &[u8]) -> Header {
    let shared = bytes.len().min(SIGNATURE.len());
    if bytes[..shared] == SIGNATURE[..shared] {
        return parse_binary(bytes).unwrap_or(Header::Part);
    }
    let line = &bytes[..bytes.len().min(LINE_MAX)];
    match memchr::memchr(b'\n', line) {
        Some(end) => parse_line(&line[..end], end + 1).unwrap_or(Header::Bad),
        None if bytes.len() < LINE_MAX && b"PROXY "[..shared.min(6)] == bytes[..shared.min(6)] => {
            Header::Part
        }
        None => Header::Bad,
    }
}

fn parse_line(line: &[u8], len: usize) -> Option<Header> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r")?).ok()?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let source: IpAddr = match words.next()? {
        "UNKNOWN" => return Some(Header::Whole { source: None, len }),
        "TCP4" => words.next()?.parse::<Ipv4Addr>().ok()?.into(),
        "TCP6" => words.next()?.parse::<Ipv6Addr>().ok()?.into(),
        _ => return None,
    };
    let (_destination, port, _) = (words.next()?, words.next()?.parse::<u16>().ok()?, words.next()?);
    (words.next().is_none() && port > 0).then_some(Header::Whole { source: Some(source), len })
}

/// None where octets are missing.
fn parse_binary(bytes: &[u8]) -> Option<Header> {
    let &[.., command, family, high, low] = bytes.get(..16)? else { return None };
    let len = 16 + usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || command & 15 > 1 || len > HEADER_MAX {
        return Some(Header::Bad);
    }
    let rest = bytes.get(16..len)?;
    let source = match (command & 15, family >> 4) {
        (1, 1) => rest.first_chunk::<12>().map(|[a, b, c, d, ..]| IpAddr::from([*a, *b, *c, *d])),
        (1, 2) => {
            rest.first_chunk::<36>().and_then(|all| all.first_chunk::<16>()).map(|ip| IpAddr::from(*ip))
        }
        _ => return Some(Header::Whole { source: None, len }),
    };
    Some(source.map_or(Header::Bad, |source| Header::Whole { source: Some(source), len }))
}

/// For the fuzzer: whatever the octets, a whole header lies within them.
pub fn fuzz_proxy(bytes: &[u8]) {
    if let Header::Whole { len, .. } = parse(bytes) {
        assert!(len <= bytes.len() && len <= HEADER_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &[u8]) -> Option<(Option<IpAddr>, usize)> {
        // However it is cut, what comes before the end is a part.
        match parse(text) {
            Header::Whole { source, len } => {
                assert!((0..len).all(|cut| parse(&text[..cut]) == Header::Part), "{text:?}");
                Some((source, len))
            }
            _ => None,
        }
    }

    #[test]
    fn version_one_names_the_source() {
        let line = b"PROXY TCP4 127.0.0.9 127.0.0.1 5000 25\r\nEHLO";
        assert_eq!(whole(line), Some((Some([127, 0, 0, 9].into()), 40)));
        assert_eq!(whole(b"PROXY TCP6 ::9 ::1 5000 25\r\n"), Some((Some("::9".parse().unwrap()), 28)));
        assert_eq!(whole(b"PROXY UNKNOWN ignored\r\n"), Some((None, 23)));
        for bad in [
            &b"EHLO x\r\n"[..],
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP4 127.0.0.1\r\n",
            b"PROXY \n",
            &[b'P'; 200],
        ] {
            assert_eq!(parse(bad), Header::Bad, "{bad:?}");
        }
    }

    #[test]
    fn version_two_names_the_source() {
        let v4 = [SIGNATURE, &[0x21, 0x11, 0, 15], &[127, 0, 0, 9, 127, 0, 0, 1, 19, 136, 0, 25], &[4, 0, 0]]
            .concat();
        assert_eq!(whole(&v4), Some((Some([127, 0, 0, 9].into()), 31)));
        let v6 = [SIGNATURE, &[0x21, 0x21, 0, 36], &[0xfd; 36]].concat();
        assert_eq!(whole(&v6), Some((Some([0xfd; 16].into()), 52)));
        assert_eq!(whole(&[SIGNATURE, &[0x20, 0, 0, 0]].concat()), Some((None, 16)));
        for bad in [[0x31, 0x11, 0, 0], [0x21, 0x11, 0, 4], [0x21, 0x11, 0xff, 0xff]] {
            assert_eq!(parse(&[SIGNATURE, &bad, &[0; 4]].concat()), Header::Bad, "{bad:?}");
        }
    }

    #[test]
    fn arbitrary_octets_do_no_harm() {
        let mut dice = crate::text::mix(7);
        for len in 0..400 {
            let mut bytes = SIGNATURE[..len % 13].to_vec();
            bytes.extend((0..len).map(|_| {
                dice = crate::text::mix(dice);
                dice.to_le_bytes()[0]
            }));
            fuzz_proxy(&bytes);
        }
    }
}
