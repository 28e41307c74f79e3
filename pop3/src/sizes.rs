//! The file of sizes: what the messages of a Maildir come to on the wire, where their names do not say.
//!
//! To know it a message must be read whole; this file keeps what came out. Lines: `ringpost-sizes 1 CHECKSUM`, then for
//! each message `WIRE FILE UNIQUE`: octets that are sent, octets of the file, the unique part of its name. CHECKSUM is half
//! a BLAKE3 of all that follows the first line, in hexadecimal.
//!
//! A file that is torn, cut, of another version or of anything else is as good as none. An entry holds for a file of just
//! that length, since nobody changes a message that was delivered. The mailbox's owner can write it and deceive nobody else.
//! Bounds: [`FILE_MAX`]; what has no room there, and names with a line end, are counted each time.

use crate::maildrop::MESSAGES_MAX;
use std::collections::HashMap;
use std::fmt::Write as _;

/// Octets: room for 100,000 messages with names as long as they usually are.
pub const FILE_MAX: usize = 12 << 20;

/// In the Maildir's own folder.
pub const FILE_NAME: &str = "ringpost-sizes";

const HEAD: &str = "ringpost-sizes 1 ";

/// Hexadecimal digits of the checksum.
const CHECKSUM_LEN: usize = 32;

/// What was counted before.
#[derive(Debug, Default)]
pub struct Sizes {
    known: HashMap<Box<[u8]>, Lens>,
}

/// Octets that are sent, and of the file.
type Lens = (u64, u64);

impl Sizes {
    /// Nothing, if the file is not as we write it.
    pub fn read(file: &[u8]) -> Sizes {
        parse(file).unwrap_or_default()
    }

    /// Octets that are sent for a file of `file_len` octets.
    pub fn wire_len(&self, unique: &[u8], file_len: u64) -> Option<u64> {
        let (wire_len, of) = self.known.get(unique)?;
        (*of == file_len).then_some(*wire_len)
    }

    /// Messages that it knows, those that are no more there among them.
    pub fn count(&self) -> usize {
        self.known.len()
    }
}

fn parse(file: &[u8]) -> Option<Sizes> {
    let rest = file.get(..FILE_MAX.min(file.len())).filter(|kept| kept.len() == file.len())?;
    let rest = rest.strip_prefix(HEAD.as_bytes())?;
    let (checksum, body) = rest.split_at_checked(CHECKSUM_LEN)?;
    let body = body.strip_prefix(b"\n")?;
    if checksum != checksum_of(body).as_bytes() {
        return None;
    }
    let lines = body.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
    let known = lines.take(MESSAGES_MAX).map(entry).collect::<Option<_>>()?;
    Some(Sizes { known })
}

fn entry(line: &[u8]) -> Option<(Box<[u8]>, Lens)> {
    let mut parts = line.splitn(3, |octet| *octet == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    let (wire_len, file_len) = (number()?, number()?);
    Some((parts.next()?.into(), (wire_len, file_len)))
}

/// A file in the making.
#[derive(Debug, Default)]
pub struct Writer {
    body: Vec<u8>,
}

impl Writer {
    pub fn add(&mut self, unique: &[u8], file_len: u64, wire_len: u64) {
        let mut numbers = String::with_capacity(42);
        write!(numbers, "{wire_len} {file_len} ").expect("writing to a String cannot fail");
        let len = HEAD.len() + CHECKSUM_LEN + 1 + self.body.len() + numbers.len() + unique.len() + 1;
        if len > FILE_MAX || unique.contains(&b'\n') {
            return;
        }
        self.body.extend_from_slice(numbers.as_bytes());
        self.body.extend_from_slice(unique);
        self.body.push(b'\n');
    }

    pub fn into_file(self) -> Vec<u8> {
        let head = format!("{HEAD}{}\n", checksum_of(&self.body));
        [head.as_bytes(), &self.body].concat()
    }
}

fn checksum_of(body: &[u8]) -> String {
    blake3::hash(body).to_hex()[..CHECKSUM_LEN].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.add(b"1.a", 10, 12);
        writer.add(b"2 b\xff", 0, 0);
        writer.add(b"3\nc", 1, 1);
        writer.into_file()
    }

    #[test]
    fn what_is_written_is_read() {
        let sizes = Sizes::read(&file());
        assert_eq!((sizes.wire_len(b"1.a", 10), sizes.wire_len(b"2 b\xff", 0)), (Some(12), Some(0)));
        assert_eq!((sizes.wire_len(b"1.a", 11), sizes.wire_len(b"3\nc", 1)), (None, None));
        assert_eq!(sizes.count(), 2);
        assert_eq!(Sizes::read(&Writer::default().into_file()).count(), 0);
    }

    #[test]
    fn what_is_damaged_is_as_good_as_none() {
        let whole = file();
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert_eq!(Sizes::read(&torn).count(), 0, "octet {at}");
            assert_eq!(Sizes::read(&whole[..at]).count(), 0, "cut at {at}");
        }
        assert_eq!(Sizes::read(&[&whole[..], b"x"].concat()).count(), 0);
    }

    #[test]
    fn a_file_has_a_bound() {
        let mut writer = Writer::default();
        let name = [b'n'; 250];
        for number in 0..60_000_u64 {
            writer.add(&[number.to_string().as_bytes(), &name].concat(), number, number);
        }
        let file = writer.into_file();
        assert!(file.len() <= FILE_MAX && file.len() > FILE_MAX - 300);
        assert!(Sizes::read(&file).count() > 40_000);
        assert_eq!(Sizes::read(&[&file[..], &[b'\n'; 300]].concat()).count(), 0);
    }
}
