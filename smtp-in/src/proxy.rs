//! The header by which a proxy says for whom it connects (HAProxy's PROXY protocol, versions 1 and 2).
//!
//! Strict: a header that is wrong anywhere is none, and its connection ends. Who may send one, the listener says.
//! Bounds: 107 octets of version 1, 16 and `V2_LEN_MAX` of version 2, whose further fields (TLVs) are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// With its CR LF; the protocol's own bound.
const V1_MAX: usize = 107;

const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Behind the 16 octets that every header of version 2 has: addresses and TLVs, a certificate's names among them.
const V2_LEN_MAX: usize = 4096;

/// Whom a header names; `None` where it names nobody (LOCAL, UNKNOWN, other families): then the peer is the client.
pub(crate) type Named = Option<(IpAddr, u16)>;

/// What is at the start of some octets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Parsed {
    /// So far it may be a header.
    More,
    Header {
        len: usize,
        named: Named,
    },
    NoHeader,
}

/// Holds the part of a header that came so far.
#[derive(Debug, Default)]
pub(crate) struct HeaderReader {
    partial: Vec<u8>,
}

/// How far a read went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// All octets are used.
    More,
    /// The header ended; so many octets were used, and not one behind it.
    End(usize, Named),
    Wrong,
}

impl HeaderReader {
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Progress {
        let had = self.partial.len();
        let room = (16 + V2_LEN_MAX - had).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..room]);
        match parse(&self.partial) {
            Parsed::More => Progress::More,
            // What was held was less than a header.
            Parsed::Header { len, named } => Progress::End(len - had, named),
            Parsed::NoHeader => Progress::Wrong,
        }
    }
}

/// Never `More` for as many octets as a header may have.
fn parse(bytes: &[u8]) -> Parsed {
    match bytes {
        [b'P', ..] => parse_v1(bytes),
        [b'\r', ..] => parse_v2(bytes),
        [] => Parsed::More,
        _ => Parsed::NoHeader,
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let within = &bytes[..bytes.len().min(V1_MAX)];
    match memchr::memchr(b'\n', within) {
        Some(end) => match within[..end].strip_suffix(b"\r").and_then(parse_v1_line) {
            Some(named) => Parsed::Header { len: end + 1, named },
            None => Parsed::NoHeader,
        },
        None if within.len() == V1_MAX || !starts_alike(within, b"PROXY ") => Parsed::NoHeader,
        None => Parsed::More,
    }
}

/// True if what there is of either is the same.
fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(found, wanted)| found == wanted)
}

fn parse_v1_line(line: &[u8]) -> Option<Named> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = line.split(' ');
    let (family, source, target) = (words.next()?, words.next()?, words.next()?);
    let (source, _) = match family {
        "TCP4" => (source.parse::<Ipv4Addr>().ok()?.into(), target.parse::<Ipv4Addr>().ok()?.into()),
        "TCP6" => (v6(source)?, v6(target)?),
        _ => return None,
    };
    let (port, _) = (parse_port(words.next()?)?, parse_port(words.next()?)?);
    words.next().is_none().then_some(Some((source.to_canonical(), port)))
}

fn v6(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Digits without a leading zero.
fn parse_port(text: &str) -> Option<u16> {
    let legal = text == "0" || text.bytes().all(|octet| octet.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| legal)
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    if !starts_alike(bytes, V2_START) {
        return Parsed::NoHeader;
    }
    let Some((start, rest)) = bytes.split_first_chunk::<16>() else { return Parsed::More };
    let len = usize::from(u16::from_be_bytes([start[14], start[15]]));
    let wanted = addresses_len(start[12], start[13]);
    if len > V2_LEN_MAX || wanted.is_none_or(|wanted| len < wanted) {
        return Parsed::NoHeader;
    }
    match rest.get(..len) {
        Some(rest) => Parsed::Header { len: 16 + len, named: v2_named(start[12], start[13], rest) },
        None => Parsed::More,
    }
}

/// Octets of addresses that a command and a family must bring. `None` for what no stream has.
fn addresses_len(command: u8, family: u8) -> Option<usize> {
    match (command, family) {
        // LOCAL: the proxy's own connection, whatever stands there.
        (0x20, _) => Some(0),
        (0x21, 0x00) => Some(0),
        (0x21, 0x11) => Some(12),
        (0x21, 0x21) => Some(36),
        (0x21, 0x31) => Some(216),
        _ => None,
    }
}

fn v2_named(command: u8, family: u8, rest: &[u8]) -> Named {
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    match (command, family) {
        (0x21, 0x11) => Some((Ipv4Addr::from(*rest.first_chunk::<4>()?).into(), port(8)?)),
        (0x21, 0x21) => {
            let address = IpAddr::V6(Ipv6Addr::from(*rest.first_chunk::<16>()?));
            Some((address.to_canonical(), port(32)?))
        }
        _ => None,
    }
}

/// However it is cut, a header is the same header and uses the same octets.
pub fn fuzz_proxy(bytes: &[u8]) {
    let whole = read_in_pieces(bytes, bytes.len().max(1));
    for piece_len in [1, 2, 5, 16] {
        assert_eq!(read_in_pieces(bytes, piece_len), whole, "pieces of {piece_len}");
    }
    if let Some((used, _)) = whole.flatten() {
        assert!((8..=16 + V2_LEN_MAX).contains(&used), "{used}");
    }
}

/// `None`: more is to come; `Some(None)`: it is none; else how long it is and whom it names.
fn read_in_pieces(bytes: &[u8], piece_len: usize) -> Option<Option<(usize, Named)>> {
    let (mut reader, mut before) = (HeaderReader::default(), 0);
    for piece in bytes.chunks(piece_len) {
        match reader.read(piece) {
            Progress::More => before += piece.len(),
            Progress::End(used, named) => return Some(Some((before + used, named))),
            Progress::Wrong => return Some(None),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(bytes: &[u8]) -> Option<Option<(usize, Named)>> {
        fuzz_proxy(bytes);
        read_in_pieces(bytes, bytes.len().max(1))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_START, &[command, family][..], &len, rest].concat()
    }

    #[test]
    fn version_1_names_its_client_and_no_octet_more() {
        let header = b"PROXY TCP4 192.0.2.1 203.0.113.7 56324 25\r\n";
        let client = Some(("192.0.2.1".parse().unwrap(), 56324));
        assert_eq!(named(&[header, &b"EHLO a\r\n"[..]].concat()), Some(Some((header.len(), client))));
        let client = Some(("2001:db8::1".parse().unwrap(), 1));
        assert_eq!(named(b"PROXY TCP6 2001:db8::1 ::1 1 25\r\n"), Some(Some((33, client))));
        assert_eq!(named(b"PROXY UNKNOWN\r\n"), Some(Some((15, None))));
        assert_eq!(named(b"PROXY UNKNOWN ffff: anything 1\r\n"), Some(Some((32, None))));
    }

    #[test]
    fn mapped_addresses_are_those_of_version_4() {
        let client = Some(("192.0.2.1".parse().unwrap(), 1));
        assert_eq!(named(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), Some(Some((37, client))));
    }

    #[test]
    fn version_1_is_strict() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat();
        assert_eq!(long.len(), 108);
        let wrong = [
            &b"PROXY TCP4 192.0.2.1 203.0.113.7 56324 25\n"[..],
            b"PROXY  TCP4 192.0.2.1 203.0.113.7 1 25\r\n",
            b"PROXY TCP4 192.0.2.1 203.0.113.7 1 25 \r\n",
            b"PROXY TCP4 192.0.2.1 203.0.113.7 1\r\n",
            b"PROXY TCP4 192.0.2.1 203.0.113.7 01 25\r\n",
            b"PROXY TCP4 192.0.2.1 203.0.113.7 +1 25\r\n",
            b"PROXY TCP4 192.0.2.1 203.0.113.7 65536 25\r\n",
            b"PROXY TCP4 192.0.2.01 203.0.113.7 1 25\r\n",
            b"PROXY TCP4 ::1 ::1 1 25\r\n",
            b"PROXY TCP6 192.0.2.1 203.0.113.7 1 25\r\n",
            b"PROXY UDP4 192.0.2.1 203.0.113.7 1 25\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"proxy UNKNOWN\r\n",
            b"PROXY\r\n",
            b"PR\r\n",
            b"PA",
            b"EHLO a\r\n",
            &long,
        ];
        for header in wrong {
            assert_eq!(named(header), Some(None), "{}", header.escape_ascii());
        }
        assert_eq!(named(&long[..106]), None);
    }

    #[test]
    fn version_2_skips_what_it_does_not_need() {
        let addresses = [192, 0, 2, 1, 203, 0, 113, 7, 0xdc, 0x04, 0, 25];
        let client = Some(("192.0.2.1".parse().unwrap(), 56324));
        let header = v2(0x21, 0x11, &[&addresses[..], &[4, 0, 1, 0]].concat());
        assert_eq!(named(&[&header[..], b"EHLO"].concat()), Some(Some((32, client))));
        let mut addresses = [0; 36];
        (addresses[15], addresses[33]) = (1, 9);
        assert_eq!(named(&v2(0x21, 0x21, &addresses)), Some(Some((52, Some(("::1".parse().unwrap(), 9))))));
        for nobody in [v2(0x20, 0x11, &[]), v2(0x20, 0xff, &[1]), v2(0x21, 0, &[]), v2(0x21, 0x31, &[0; 216])]
        {
            assert_eq!(named(&nobody), Some(Some((nobody.len(), None))));
        }
    }

    #[test]
    fn version_2_is_strict() {
        let mut wrong = vec![
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; V2_LEN_MAX + 1]),
        ];
        wrong.push(b"\r\n\r\n\0\r\nQUIX".to_vec());
        for header in wrong {
            assert_eq!(named(&header), Some(None), "{}", header[..12].escape_ascii());
        }
        let longest = v2(0x21, 0x11, &[0; V2_LEN_MAX]);
        assert!(matches!(named(&longest), Some(Some((4112, Some(_))))));
        assert_eq!(named(&longest[..4111]), None);
    }

    proptest! {
        #[test]
        fn fuzz_smoke(start in 0..3usize, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let starts = [&b""[..], b"PROXY TCP4 ", V2_START];
            fuzz_proxy(&[starts[start], &bytes].concat());
        }
    }
}
