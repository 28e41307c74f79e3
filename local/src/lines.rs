//! Content as this machine keeps it: lines end in LF, where mail on its way has CR LF.

use std::io::{self, BufRead, ErrorKind, Read};

/// Octets read at a time.
const PIECE_LEN: usize = 32 << 10;

/// Reads what is in `inner`, with LF for each CR LF. A CR anywhere else stays.
#[derive(Debug)]
pub struct Lf<R> {
    inner: R,
    piece: Vec<u8>,
    /// Octets of `piece` that were handed out, and that there are.
    at: usize,
    len: usize,
    /// The last octet was a CR that was not handed out yet.
    holds_cr: bool,
    is_over: bool,
}

impl<R: Read> Lf<R> {
    pub fn new(inner: R) -> Lf<R> {
        Lf { inner, piece: vec![0; PIECE_LEN + 1], at: 0, len: 0, holds_cr: false, is_over: false }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.at = 0;
        let start = usize::from(self.holds_cr);
        let read = self.inner.read(&mut self.piece[start..])?;
        self.is_over = read == 0;
        if start == 1 {
            self.piece[0] = b'\r';
        }
        let whole = start + read;
        // The last CR waits for what follows it, if anything does.
        self.holds_cr = !self.is_over && self.piece[..whole].ends_with(b"\r");
        let whole = whole - usize::from(self.holds_cr);
        let mut kept = 0;
        for at in 0..whole {
            if self.piece[at] != b'\r' || at + 1 >= whole || self.piece[at + 1] != b'\n' {
                self.piece[kept] = self.piece[at];
                kept += 1;
            }
        }
        self.len = kept;
        Ok(())
    }
}

impl<R: Read> Read for Lf<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.len && !self.is_over {
            self.refill()?;
        }
        let len = out.len().min(self.len - self.at);
        out[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// True if `line`, its LF included, is a line of the header. Lines may be of any length.
pub fn header_has(content: &mut dyn BufRead, line: &[u8]) -> io::Result<bool> {
    // Of each line: how much of it is that of `line`, and whether any octet was another.
    let (mut len, mut is_same) = (0_usize, true);
    loop {
        let piece = match content.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            piece => piece?,
        };
        if piece.is_empty() {
            return Ok(false);
        }
        let end = memchr::memchr(b'\n', piece).map_or(piece.len(), |at| at + 1);
        let part = &piece[..end];
        is_same = is_same && line.get(len..).is_some_and(|rest| rest.starts_with(part));
        len = len.saturating_add(end);
        let is_whole = part.ends_with(b"\n");
        content.consume(end);
        if is_whole {
            if is_same && len == line.len() {
                return Ok(true);
            }
            if len == 1 {
                return Ok(false);
            }
            (len, is_same) = (0, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    /// Gives at most so many octets at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = self.0.len().min(self.1).min(out.len());
            out[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn lf(content: &[u8], at_a_time: usize) -> Vec<u8> {
        let mut out = Vec::new();
        Lf::new(Slow(content, at_a_time)).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn only_cr_lf_becomes_lf() {
        for at_a_time in [1, 2, 100] {
            assert_eq!(lf(b"a\r\nb\rc\r\r\n\n\r", at_a_time), b"a\nb\rc\r\n\n\r");
            assert_eq!(lf(b"", at_a_time), b"");
        }
    }

    #[test]
    fn a_line_of_the_header_is_found_exactly() {
        let has = |content: &str| {
            let line = b"Delivered-To: a@b.test\n";
            let whole = header_has(&mut content.as_bytes(), line).unwrap();
            let mut slow = BufReader::with_capacity(3, content.as_bytes());
            assert_eq!(header_has(&mut slow, line).unwrap(), whole);
            whole
        };
        assert!(has("Subject: x\nDelivered-To: a@b.test\n\nbody"));
        assert!(has("Delivered-To: a@b.test\n"));
        for other in [
            "Delivered-To: a@b.test",
            "delivered-to: a@b.test\n",
            "Delivered-To: a@b.test \n",
            "Delivered-To: a@b.tes\n",
            "XDelivered-To: a@b.test\n",
            "Subject: x\n\nDelivered-To: a@b.test\n",
            "",
        ] {
            assert!(!has(other), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_is_the_same(content in "[a\r\n]{0,40}", at_a_time in 1_usize..9) {
            prop_assert_eq!(lf(content.as_bytes(), at_a_time), content.replace("\r\n", "\n").into_bytes());
        }
    }
}
