//! gzip, piece by piece, with a bound on how much may come out of how little.
//!
//! Several members one after the other are one list (RFC 1952 §2.2), as `cat a.gz b.gz` makes them.
//! Bounds: [`STEP_OUT_MAX`] octets out of a step; past [`FREE_LEN`] octets no more than [`RATIO_MAX`] times what came in.

use flate2::write::MultiGzDecoder;
use std::io::{self, Write};

/// Octets that are put in at a time: deflate makes at most 1,032 times as much of them.
const STEP_IN: usize = 1 << 10;

/// Octets that come out of a step, with what the decoder had held back.
const STEP_OUT_MAX: usize = 2 << 20;

/// A list of addresses shrinks to a third or a tenth. Nothing that people write shrinks so far.
const RATIO_MAX: u64 = 200;

/// Octets out before the ratio is looked at.
const FREE_LEN: u64 = 1 << 20;

/// Why it cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum GunzipError {
    #[error("this is not whole gzip: {0}")]
    Wrong(io::Error),
    #[error("it unpacks to more than 200 times its length: send it without Content-Encoding, or in parts")]
    Bomb,
}

/// See the module.
#[derive(Debug)]
pub struct Gunzip {
    decoder: MultiGzDecoder<Held>,
    octets_in: u64,
    octets_out: u64,
}

/// What came out and was not taken.
#[derive(Debug, Default)]
struct Held(Vec<u8>);

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > STEP_OUT_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Gunzip {
    fn default() -> Gunzip {
        Gunzip { decoder: MultiGzDecoder::new(Held::default()), octets_in: 0, octets_out: 0 }
    }
}

impl Gunzip {
    /// Takes the beginning of `piece` and says how much of it; what came out of it stands in `out`, and replaces what was there.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<usize, GunzipError> {
        let step = &piece[..piece.len().min(STEP_IN)];
        self.decoder.write_all(step).map_err(wrong)?;
        // It would hold back what came out until it gets more: a body that is cut off loses nothing that came before.
        self.decoder.flush().map_err(wrong)?;
        self.octets_in += step.len() as u64;
        self.take(out)?;
        Ok(step.len())
    }

    /// There is no more: what is left comes out.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), GunzipError> {
        self.decoder.try_finish().map_err(wrong)?;
        self.take(out)
    }

    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), GunzipError> {
        out.clear();
        std::mem::swap(out, &mut self.decoder.get_mut().0);
        self.octets_out += out.len() as u64;
        let is_bomb = self.octets_out > FREE_LEN && self.octets_out / RATIO_MAX > self.octets_in;
        if is_bomb { Err(GunzipError::Bomb) } else { Ok(()) }
    }
}

fn wrong(error: io::Error) -> GunzipError {
    match error.kind() {
        io::ErrorKind::OutOfMemory => GunzipError::Bomb,
        _ => GunzipError::Wrong(error),
    }
}

/// Any octets: no panic, and the bound holds.
pub fn fuzz_gunzip(bytes: &[u8]) {
    let (mut gunzip, mut out, mut rest) = (Gunzip::default(), Vec::new(), bytes);
    while !rest.is_empty() {
        let Ok(used) = gunzip.feed(rest, &mut out) else { return };
        assert!(used > 0 && out.len() <= STEP_OUT_MAX);
        rest = &rest[used..];
    }
    let _ = gunzip.finish(&mut out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    fn zip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unzip(bytes: &[u8], piece_len: usize) -> Result<Vec<u8>, GunzipError> {
        let (mut gunzip, mut out, mut whole) = (Gunzip::default(), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(piece_len) {
            while !piece.is_empty() {
                let used = gunzip.feed(piece, &mut out)?;
                whole.extend_from_slice(&out);
                piece = &piece[used..];
            }
        }
        gunzip.finish(&mut out)?;
        whole.extend_from_slice(&out);
        Ok(whole)
    }

    #[test]
    fn members_one_after_the_other_are_one_list() {
        let both = [zip(b"email\nann@a.test\n"), zip(b"bob@b.test\n")].concat();
        for piece_len in [1, 7, 4096] {
            assert_eq!(unzip(&both, piece_len).unwrap(), b"email\nann@a.test\nbob@b.test\n");
        }
    }

    #[test]
    fn what_is_cut_off_or_changed_is_an_error() {
        let whole = zip(&b"ann@a.test\n".repeat(1000));
        assert!(matches!(unzip(&whole[..whole.len() - 1], 64), Err(GunzipError::Wrong(_))));
        let mut changed = whole.clone();
        let place = changed.len() - 6;
        changed[place] ^= 1;
        assert!(matches!(unzip(&changed, 64), Err(GunzipError::Wrong(_))));
        assert!(matches!(unzip(b"email\nann@a.test\n", 64), Err(GunzipError::Wrong(_))));
    }

    #[test]
    fn a_bomb_ends_before_it_goes_off() {
        let bomb = zip(&vec![0; 64 << 20]);
        let (mut gunzip, mut out, mut rest, mut sum) = (Gunzip::default(), Vec::new(), &bomb[..], 0);
        let ended = loop {
            match gunzip.feed(rest, &mut out) {
                Ok(used) => (rest, sum) = (&rest[used..], sum + out.len()),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, GunzipError::Bomb) && sum < 4 << 20, "{ended:?} after {sum}");
    }

    proptest! {
        #[test]
        fn everything_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..20_000), piece_len in 1usize..3000) {
            prop_assert_eq!(unzip(&zip(&bytes), piece_len).unwrap(), bytes);
        }

        #[test]
        fn any_octets_end_somehow(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            fuzz_gunzip(&bytes);
            fuzz_gunzip(&[&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &bytes].concat());
        }
    }
}
