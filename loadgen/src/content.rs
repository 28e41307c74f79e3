//! Message content that follows from (seed, message number), and the digest by which it is recognised.
//!
//! The first line is the token, `X-Loadgen: <run>-<message number>`: what a relay adds goes above it, so
//! source and sink digest from there on. The rest comes out of a pool of random lines, entered at a
//! place that depends on the message: making 4 KiB costs a copy, not a generator.
//! Bound: the pool is 64 KiB; a message is as large as asked.

use std::io::Write;

use crate::text::{mix, push_decimal};

pub(crate) const TOKEN_HEADER: &[u8] = b"X-Loadgen:";

const LINE_BYTES: usize = 78; // 76 characters and CRLF, as base64 bodies have
const POOL_LINES: usize = 840;
const DOT_LINE_EVERY: u64 = 16;

/// What the bytes of a run's messages depend on.
pub(crate) struct Content {
    run: String,
    seed: u64,
    from: String,
    size_bytes: usize,
    pool: Vec<u8>,
}

impl Content {
    pub(crate) fn new(seed: u64, from: &str, size_bytes: usize, dot_lines: bool) -> Content {
        let pool = pool(seed, dot_lines);
        Content { run: run_name(seed), seed, from: from.to_owned(), size_bytes, pool }
    }

    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The smallest size that holds the header and one line of body, for messages up to `number`.
    pub(crate) fn size_min(&self, number: u64) -> usize {
        let mut header = Vec::new();
        self.write_header(&mut header, number);
        header.len() + 2
    }

    /// Replaces `out` by message `number`, exactly `size_bytes` long, and returns its digest.
    pub(crate) fn write(&self, out: &mut Vec<u8>, number: u64) -> u64 {
        out.clear();
        self.write_header(out, number);
        self.write_body(out, number);
        digest(out)
    }

    fn write_header(&self, out: &mut Vec<u8>, number: u64) {
        out.extend_from_slice(TOKEN_HEADER);
        out.push(b' ');
        write_token(out, &self.run, number);
        // A Date and a Message-ID, so that no relay has a reason to add one below the token.
        let _infallible = write!(
            out,
            "\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\nFrom: <{from}>\r\nTo: undisclosed-recipients:;\r\n\
             Subject: loadgen {number}\r\nMessage-ID: <{run}.{number}@loadgen.test>\r\n\r\n",
            from = self.from,
            run = self.run,
        );
    }

    fn write_body(&self, out: &mut Vec<u8>, number: u64) {
        let place = mix(self.seed ^ mix(number)) % (POOL_LINES as u64);
        let mut line = usize::try_from(place).unwrap_or(0);
        while out.len() < self.size_bytes {
            let left = self.size_bytes - out.len();
            let take = line_len(left);
            let start = line * LINE_BYTES;
            out.extend_from_slice(&self.pool[start..start + take - 2]);
            out.extend_from_slice(b"\r\n");
            line = (line + 1) % POOL_LINES;
        }
    }
}

/// A line holds at least its CRLF, so no line may leave a single byte over.
fn line_len(left: usize) -> usize {
    match left {
        0..=LINE_BYTES => left.max(2),
        left if left == LINE_BYTES + 1 => LINE_BYTES - 1,
        _ => LINE_BYTES,
    }
}

/// The run's name: what makes two runs' tokens differ.
pub(crate) fn run_name(seed: u64) -> String {
    format!("{seed:x}")
}

pub(crate) fn write_token(out: &mut Vec<u8>, run: &str, number: u64) {
    out.extend_from_slice(run.as_bytes());
    out.push(b'-');
    push_decimal(out, number, 1);
}

/// A fast digest against loss and damage, not against malice.
pub(crate) fn digest(content: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(content)
}

fn pool(seed: u64, dot_lines: bool) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes: Vec<u8> = Vec::with_capacity(POOL_LINES * LINE_BYTES);
    let mut state = mix(seed);
    while bytes.len() < POOL_LINES * LINE_BYTES {
        state = mix(state);
        bytes.extend((0..8).map(|octet| ALPHABET[((state >> (octet * 8)) & 63) as usize]));
    }
    bytes.truncate(POOL_LINES * LINE_BYTES);
    if dot_lines {
        bytes.chunks_mut(LINE_BYTES).filter(|line| u64::from(line[5]) % DOT_LINE_EVERY == 0).for_each(dot);
    }
    bytes
}

/// Lines that need stuffing, and among them the two that look like an end of data.
fn dot(line: &mut [u8]) {
    line[0] = b'.';
    line[1] = if line[7].is_multiple_of(2) { b'.' } else { line[1] };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seed: u64, number: u64, size_bytes: usize, dot_lines: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Content::new(seed, "a@b.test", size_bytes, dot_lines).write(&mut out, number);
        out
    }

    #[test]
    fn a_message_is_exactly_as_long_as_asked_and_ends_its_last_line() {
        let min = Content::new(1, "a@b.test", 0, false).size_min(5);
        for size_bytes in (min..min + 400).chain([4096, 100_000, 1 << 20]) {
            let message = message(1, 5, size_bytes, true);
            assert_eq!(message.len(), size_bytes);
            assert!(message.ends_with(b"\r\n"));
            assert_eq!(
                memchr::memchr_iter(b'\n', &message).count(),
                memchr::memchr_iter(b'\r', &message).count()
            );
        }
    }

    #[test]
    fn a_message_follows_from_seed_and_number_alone() {
        assert_eq!(message(9, 3, 4096, false), message(9, 3, 4096, false));
        assert_ne!(digest(&message(9, 3, 4096, false)), digest(&message(9, 4, 4096, false)));
        assert_ne!(digest(&message(9, 3, 4096, false)), digest(&message(8, 3, 4096, false)));
    }

    #[test]
    fn dots_begin_lines_only_where_asked() {
        let finder = memchr::memmem::Finder::new(b"\r\n.");
        assert!(finder.find(&message(2, 0, 65536, true)).is_some());
        assert!(finder.find(&message(2, 0, 65536, false)).is_none());
    }
}
