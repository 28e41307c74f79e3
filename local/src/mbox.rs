//! Delivery into a mailbox file: one message behind the other, under the file's lock (flock).
//!
//! A message is its `From ` line, its trace fields, its lines, and an empty line. A line that begins with `From `, or
//! with `>` before that, gets one `>` more, so that it can be told and taken back. The file is synced before a message
//! is reported, and so is the name of one that was empty; what fails on the way is cut off again. A crash may leave a part of a message that was not reported:
//! the next delivery begins behind an empty line of its own, so no message is ever glued to another.
//!
//! Bound: the message is copied in pieces of [`PIECE_LEN`], lines may be of any length.

use crate::disk::{Disk, parent_of};
use crate::failure::{Failure, reason};
use crate::maildir::PIECE_LEN;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

const FROM: &[u8] = b"From ";

/// Why a message is not in a mailbox file.
#[derive(Debug, thiserror::Error)]
pub enum MboxError {
    #[error("Unable to open {path}: {}. (#4.2.1)", reason(source))]
    Open { path: String, source: io::Error },
    #[error("File has been locked for 30 seconds straight. (#4.3.0)")]
    Locked,
    #[error("Unable to read message: {}. (#4.3.0)", reason(source))]
    Read { source: io::Error },
    #[error("Unable to write {path}: {}. (#4.3.0)", reason(source))]
    Write { path: String, source: io::Error },
}

impl From<MboxError> for Failure {
    fn from(error: MboxError) -> Failure {
        Failure::soft(error.to_string())
    }
}

/// Delivers `top`, whose first line is the `From ` line, and then `content`, whose lines end in LF.
pub fn deliver<D: Disk>(
    disk: &mut D,
    path: &Path,
    top: &[u8],
    content: &mut dyn Read,
) -> Result<(), MboxError> {
    let shown = || path.display().to_string();
    let mut file = disk.open(path).map_err(|source| MboxError::Open { path: shown(), source })?;
    let is_locked = match disk.lock(&mut file) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::TimedOut => return Err(MboxError::Locked),
        // As qmail: where there are no locks it delivers all the same, but takes nothing back.
        Err(_) => false,
    };
    let start = disk.len(&mut file).map_err(|source| MboxError::Write { path: shown(), source })?;
    let done = append(disk, &mut file, start, top, content).and_then(|()| match start {
        0 => keep_name(disk, path).map_err(Wrong::Write),
        _ => Ok(()),
    });
    if done.is_err() && is_locked {
        // If this fails too, the next delivery leaves an empty line.
        let _ = disk.truncate(&mut file, start).and_then(|()| disk.sync(&mut file));
    }
    done.map_err(|wrong| match wrong {
        Wrong::Read(source) => MboxError::Read { source },
        Wrong::Write(source) => MboxError::Write { path: shown(), source },
    })
}

enum Wrong {
    Read(io::Error),
    Write(io::Error),
}

fn append<D: Disk>(
    disk: &mut D,
    file: &mut D::File,
    start: u64,
    top: &[u8],
    content: &mut dyn Read,
) -> Result<(), Wrong> {
    let gap = gap(disk, file, start).map_err(Wrong::Write)?;
    let mut out = [gap, top].concat();
    let mut quoter = Quoter::default();
    let mut piece = vec![0; PIECE_LEN];
    loop {
        let len = match content.read(&mut piece) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Wrong::Read(error)),
        };
        quoter.quote(&piece[..len], &mut out);
        if len == 0 {
            quoter.finish(&mut out);
        }
        disk.append(file, &out).map_err(Wrong::Write)?;
        out.clear();
        if len == 0 {
            return disk.sync(file).map_err(Wrong::Write);
        }
    }
}

/// The file may be new, and a crash must not take its name. Where the folder may not be read, its file system has to keep
/// names of synced files by itself, as all that are in use for mailboxes do.
fn keep_name<D: Disk>(disk: &mut D, path: &Path) -> io::Result<()> {
    match disk.sync_folder(parent_of(path)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// What is missing at the end of the file so that the next line follows an empty one.
fn gap<D: Disk>(disk: &mut D, file: &mut D::File, len: u64) -> io::Result<&'static [u8]> {
    if len == 0 {
        return Ok(b"");
    }
    let tail = disk.read_at(file, len.saturating_sub(2), 2)?;
    Ok(match tail[..] {
        [b'\n', b'\n'] | [b'\n'] => b"",
        [.., b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

/// Puts `>` before `From ` at the start of lines, those behind other `>` too. Where a run of `>` gets one more does not
/// show, so only five octets are ever held back.
#[derive(Clone, Copy, Debug, Default)]
struct Quoter {
    at: At,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum At {
    /// That many octets of `From ` were seen, and not written. 0: a line begins, or a `>` at its start was written.
    Matched(usize),
    InLine,
    /// As `Matched(0)`, right behind a line's end.
    #[default]
    Start,
}

impl Quoter {
    fn quote(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while let Some((first, rest)) = piece.split_first() {
            let matched = match self.at {
                At::InLine => {
                    let end = memchr::memchr(b'\n', piece).map_or(piece.len(), |at| at + 1);
                    out.extend_from_slice(&piece[..end]);
                    if piece[end - 1] == b'\n' {
                        self.at = At::Start;
                    }
                    piece = &piece[end..];
                    continue;
                }
                At::Start => 0,
                At::Matched(count) => count,
            };
            if *first == FROM[matched] {
                self.at = At::Matched(matched + 1);
                if matched + 1 == FROM.len() {
                    out.push(b'>');
                    out.extend_from_slice(FROM);
                    self.at = At::InLine;
                }
                piece = rest;
            } else if matched == 0 && *first == b'>' {
                out.push(b'>');
                self.at = At::Matched(0);
                piece = rest;
            } else {
                out.extend_from_slice(&FROM[..matched]);
                self.at = At::InLine;
            }
        }
    }

    /// Ends the last line and adds an empty one.
    fn finish(self, out: &mut Vec<u8>) {
        if let At::Matched(count) = self.at {
            out.extend_from_slice(&FROM[..count]);
        }
        if self.at != At::Start {
            out.push(b'\n');
        }
        out.push(b'\n');
    }
}

/// What a message's lines are in a mailbox file, the empty one at its end included.
pub fn quoted(content: &[u8]) -> Vec<u8> {
    let (mut quoter, mut out) = (Quoter::default(), Vec::new());
    quoter.quote(content, &mut out);
    quoter.finish(&mut out);
    out
}

/// For the fuzzer: cut in other places it is quoted the same, no line in it begins a message, and it can be taken back.
pub fn fuzz_mbox(bytes: &[u8]) {
    let Some((cut, content)) = bytes.split_first() else { return };
    let whole = quoted(content);
    let (mut quoter, mut pieces) = (Quoter::default(), Vec::new());
    content.chunks(usize::from(*cut).max(1)).for_each(|piece| quoter.quote(piece, &mut pieces));
    quoter.finish(&mut pieces);
    assert_eq!(pieces, whole);
    let mut back = Vec::new();
    for line in whole.split_inclusive(|octet| *octet == b'\n') {
        assert!(!line.starts_with(FROM));
        let marks = line.iter().take_while(|octet| **octet == b'>').count();
        back.extend_from_slice(if marks > 0 && line[marks..].starts_with(FROM) { &line[1..] } else { line });
    }
    assert!(back.starts_with(content) && back.len() - content.len() <= 2);
}

#[cfg(test)]
mod tests;
