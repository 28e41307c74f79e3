//! A session under a peer that sends anything, for the fuzzer and for the properties below.

use crate::{Client, Gate, Limits, Output, Policy, Session, Stored, Timeouts};
use message::MessageId;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// Whatever comes and wherever it is cut, the session stays within its bounds and says the same. `now` is any time.
pub fn fuzz_session(now: Instant, bytes: &[u8]) {
    let whole = converse(now, bytes, bytes.len().max(1));
    for piece_len in [1, 2, 3, 7] {
        assert_eq!(converse(now, bytes, piece_len), whole, "pieces of {piece_len}");
    }
}

/// Bounds so low that short input reaches them.
fn tight_policy() -> Policy {
    let limits = Limits {
        size_max: 100,
        recipients_max: 3,
        command_line_max: 80,
        errors_max: 6,
        hops_max: 2,
        stores_in_flight_max: 2,
        replies_max: 300,
    };
    let timeouts = Timeouts { command_secs: 300, data_secs: 180, data_block_len: 64 };
    Policy {
        host_name: "mx.example.org".to_owned(),
        limits,
        timeouts,
        bulk_recipients: 100,
        offer_chunking: true,
    }
}

/// All that a session said and gave, in order. Stores end only once the session stops reading for them.
fn converse(now: Instant, bytes: &[u8], piece_len: usize) -> String {
    let client = Client { address: IpAddr::V4(Ipv4Addr::LOCALHOST), may_relay: true, may_flush: true };
    let mut peer = Peer {
        session: Session::new(now, Arc::new(tight_policy()), client),
        now,
        heard: String::new(),
        open: Vec::new(),
    };
    for piece in bytes.chunks(piece_len) {
        let mut at = 0;
        while at < piece.len() {
            let used = peer.session.handle_bytes(now, Gate::Open, &piece[at..]);
            at += used;
            assert!(used > 0 || peer.unblock(), "a session that stops reading must wait for something");
        }
    }
    while peer.unblock() {}
    peer.heard
}

struct Peer {
    session: Session,
    now: Instant,
    heard: String,
    open: Vec<crate::TransactionKey>,
}

impl Peer {
    /// Takes what there is; ends the newest store. False if there was nothing to do.
    fn unblock(&mut self) -> bool {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Store(submission) => {
                    self.open.push(submission.transaction);
                    self.heard += &format!("store {submission:?}\n");
                }
                Output::Flush(flush) => self.heard += &format!("{flush:?}\n"),
                Output::Close => self.heard += "close\n",
            }
        }
        let mut replies = Vec::new();
        let any = self.session.take_replies(&mut replies);
        self.heard += &String::from_utf8_lossy(&replies);
        let ended = self.open.pop();
        if let Some(key) = ended {
            self.session.handle_stored(self.now, key, Stored::Accepted(MessageId(u64::from(key.0))));
        }
        any || ended.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PHRASES: &[&[u8]] = &[
        b"EHLO a\r\n",
        b"HELO b\r\n",
        b"MAIL FROM:<a@b.c>\r\n",
        b"MAIL FROM:<>",
        b" SMTPUTF8",
        b" XVERP",
        b" SIZE=101",
        b" BODY=BINARYMIME",
        b"RCPT TO:<x@y.z>\r\n",
        b"RCPT TO:<postmaster>\r\n",
        b"RCPT TO:<\xc3\xa9@y.z>",
        b"DATA\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 9\r\n",
        b"BDAT 12 LAST\r\n",
        b"BDAT 99\r\n",
        b"BDAT x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"VRFY x\r\n",
        b"HELP\r\n",
        b"EXPN x\r\n",
        b"\r\n.\r\n",
        b".\r\n",
        b"\n.\n",
        b"\r\n.\n",
        b"\r",
        b"\n",
        b".",
        b"\r\n",
        b"Received: x\r\n",
        b"\0",
        b"body text that has some length\r\n",
        b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nBDAT 3 LAST\r\nabc",
        b"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nDATA\r\nS: x\r\n\r\nabc\r\n.\r\n",
    ];

    proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_session(Instant::now(), &bytes);
        }

        #[test]
        fn cuts_change_nothing_in_what_looks_like_mail(
            phrases in proptest::collection::vec(proptest::sample::select(PHRASES), 0..40),
        ) {
            fuzz_session(Instant::now(), &[b"EHLO a\r\n".as_slice(), &phrases.concat()].concat());
        }
    }
}
