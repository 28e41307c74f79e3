//! A session under a peer that sends anything, contents of any octets, files of sizes that anybody wrote: for the fuzzer,
//! and for the properties in `tests`.

#[cfg(test)]
mod tests;

use crate::maildrop::{Entry, Folder, Maildrop};
use crate::sizes::Sizes;
use crate::wire::{Count, Encoder};
use crate::{Arrival, Attempt, Limits, Login, Output, Policy, Session, TlsUse, Unreadable};
use std::sync::Arc;
use std::time::Instant;

/// Whatever comes and wherever it is cut, the session stays within its bounds and says the same; what is removed was
/// marked and is there. The first octet chooses whether somebody is logged in already. `now` is any time.
pub fn fuzz_session(now: Instant, bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let opening: &[u8] = if first % 2 == 0 { b"" } else { LOGIN };
    let all = [opening, bytes].concat();
    let whole = converse(now, &all, all.len().max(1));
    for piece_len in [1, 2, 3, 7] {
        assert_eq!(converse(now, &all, piece_len), whole, "pieces of {piece_len}");
    }
}

/// Of any content: what is sent reads back to it, with CR LF line ends, and is as long as was counted.
pub fn fuzz_content(bytes: &[u8]) {
    let wanted = with_cr_lf(bytes);
    let mut count = Count::default();
    bytes.chunks(5).for_each(|piece| count.add(piece));
    assert_eq!(count.len(), wanted.len() as u64);
    for piece_len in [1, 2, 3, usize::MAX] {
        let (mut encoder, mut sent) = (Encoder::new(None), Vec::new());
        bytes.chunks(piece_len).for_each(|piece| encoder.write(piece, &mut sent));
        encoder.finish(&mut sent);
        assert_eq!(decode(&sent), wanted, "pieces of {piece_len}");
    }
}

/// What is read of a file of sizes is bounded by the file.
pub fn fuzz_sizes(bytes: &[u8]) {
    assert!(Sizes::read(bytes).count() <= bytes.len() / 5);
}

const LOGIN: &[u8] = b"USER a\r\nPASS b\r\n";

const CONTENTS: [&[u8]; 4] = [b"A: b\n\n.c\nd\n", b"", b"no end", b"A: b\r\n\r\n..\r\n"];

/// Bounds so low that short input reaches them.
fn tight_policy() -> Policy {
    let limits = Limits { line_max: 40, login_line_max: 80, errors_max: 6, logins_max: 2, replies_max: 64 };
    Policy { limits, tls_use: TlsUse::Offer, plain_logins: false, idle_secs: 600 }
}

fn maildrop() -> Maildrop {
    let entry =
        |index: usize| Entry { folder: Folder::Cur, name: format!("{index}.a:2,").into_bytes().into() };
    let count = |content: &[u8]| {
        let mut count = Count::default();
        count.add(content);
        count.len()
    };
    // The last one is listed and cannot be read.
    let lens = CONTENTS.iter().map(|content| count(content)).chain([9]);
    Maildrop::new(lens.enumerate().map(|(index, len)| (entry(index), len)))
}

/// All that a session said and wished for, in order.
fn converse(now: Instant, bytes: &[u8], piece_len: usize) -> String {
    let arrival = Arrival { is_local: true, is_encrypted: false, stamp: Some("<1@a>".into()) };
    let mut peer =
        Peer { session: Session::new(now, Arc::new(tight_policy()), arrival), now, heard: String::new() };
    peer.settle();
    for piece in bytes.chunks(piece_len) {
        let mut at = 0;
        while at < piece.len() {
            let used = peer.session.handle_bytes(now, &piece[at..]);
            at += used;
            assert!(peer.settle() || used > 0, "a session that stops reading must wait for something");
        }
    }
    peer.heard
}

struct Peer {
    session: Session,
    now: Instant,
    heard: String,
}

impl Peer {
    /// Takes what there is, and answers it. False if there was nothing to do.
    fn settle(&mut self) -> bool {
        let before = self.heard.len();
        loop {
            self.take();
            let Some(output) = self.session.poll_output() else { break };
            self.heard += &format!("{output:?}\n");
            self.answer(output);
        }
        self.heard.len() > before
    }

    fn take(&mut self) {
        let mut replies = Vec::new();
        while self.session.take_replies(&mut replies) {
            // A wish's answer, a listed line and two replies may pass the bound.
            assert!(replies.len() <= 64 + 400, "{} octets at once", replies.len());
            self.heard += &replies.escape_ascii().to_string();
            replies.clear();
        }
    }

    fn answer(&mut self, output: Output) {
        let now = self.now;
        match output {
            Output::Check(attempt) => self.session.handle_login(now, check(&attempt)),
            Output::Open(_) => self.session.handle_maildrop(now, Ok(maildrop())),
            Output::Read(index) => match CONTENTS.get(index) {
                Some(content) => {
                    for piece in content.chunks(3) {
                        if self.session.wants_content() {
                            self.session.handle_content(piece);
                        }
                    }
                    self.session.handle_content_end(now);
                }
                None => self.session.handle_unreadable(now, Unreadable::Vanished),
            },
            Output::Remove(marked) => {
                assert!(marked.iter().all(|index| *index <= CONTENTS.len()) && !marked.is_empty());
                self.session.handle_removed(now, 0);
            }
            // The handshake never ends: what is thrown away until then depends on where it is cut, and should.
            Output::BeginTls | Output::Close => {}
        }
    }
}

/// One user, `a`, whose password is `b`; `?` cannot be looked up.
fn check(attempt: &Attempt) -> Login {
    match attempt {
        Attempt::Password { user, .. } | Attempt::Apop { user, .. } if **user == *"?" => Login::Unavailable,
        Attempt::Password { user, password } if **user == *"a" && password.octets() == b"b" => Login::Right,
        Attempt::Password { .. } | Attempt::Apop { .. } => Login::Wrong,
    }
}

/// As a client undoes it.
fn decode(sent: &[u8]) -> Vec<u8> {
    let lines = sent.strip_suffix(b".\r\n").expect("a final dot");
    let mut content = Vec::new();
    for line in lines.split_inclusive(|octet| *octet == b'\n') {
        assert!(line.ends_with(b"\r\n") && line != b".\r\n", "{}", line.escape_ascii());
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}

/// By another way than [`crate::wire`]'s.
fn with_cr_lf(content: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for octet in content {
        if *octet == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(*octet);
    }
    if !content.is_empty() && content.last() != Some(&b'\n') {
        out.extend_from_slice(b"\r\n");
    }
    out
}
