//! For the fuzzer: a session against a host made of arbitrary octets.

use crate::config::{Config, Habits, Timeouts};
use crate::flight::Flight;
use crate::link::Link;
use crate::session::{Output, Session};
use crate::transaction::Transaction;
use message::{ContentFacts, MailboxRef};
use std::sync::Arc;
use std::time::Instant;

const RECIPIENTS: [MailboxRef<'static>; 2] = [
    MailboxRef { local_part: "ann", domain: "example.net" },
    MailboxRef { local_part: "bob", domain: "example.net" },
];

/// The first octet chooses habits and the length of segments, the rest is what the host says. `now` is any time.
pub fn fuzz_session(now: Instant, bytes: &[u8]) {
    let Some((&choices, said)) = bytes.split_first() else { return };
    let config = Config {
        helo: "us.example".to_owned(),
        timeouts: Timeouts::RFC_5321,
        window_max: 8,
        transactions_max: u32::from(choices & 7),
    };
    let habits = Habits {
        no_pipelining: choices & 8 != 0,
        no_chunking: choices & 16 != 0,
        window: u16::from(choices & 24),
        helo_only: choices & 32 != 0,
        tls_broken: false,
    };
    let mut session = Session::new(now, Arc::new(config), habits, Link::default());
    let mut keys = 0;
    for segment in said.chunks(usize::from(choices >> 4) + 1) {
        session.handle_bytes(now, segment);
        drive(&mut session, now, &mut keys);
    }
    session.handle_closed(now, "end of input");
    while session.poll_output().is_some() {}
    assert_eq!(session.in_flight(), 0, "a closed session holds nothing");
}

/// What the engine does after each event.
fn drive(session: &mut Session, now: Instant, keys: &mut u32) {
    while let Some(output) = session.poll_output() {
        if let Output::Closed { .. } = output {
            assert_eq!(session.capacity(), 0, "a closed session takes nothing");
        }
    }
    while session.capacity() > 0 {
        let count = 1 + (*keys as usize) % RECIPIENTS.len();
        session.offer(&Transaction {
            key: *keys,
            reverse_path: "list@example.org",
            recipients: &RECIPIENTS[..count],
            content_len: 4,
            facts: ContentFacts::of(b"hi\r\n"),
            smtputf8: false,
            requires_tls: false,
        });
        *keys += 1;
    }
    let mut flight = Flight::default();
    while session.take_flight(now, &mut flight) {
        session.handle_sent(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = "220 hi\r\n250-them\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 0\r\n";

    proptest::proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_session(Instant::now(), &bytes);
        }

        #[test]
        fn fuzz_smoke_past_the_greeting(
            choices in proptest::prelude::any::<u8>(),
            said in "((250|250-|354|550|421|503|452|451|500) ?[ -~]{0,9}\r\n){0,30}",
        ) {
            fuzz_session(Instant::now(), &[&[choices], GREETING.as_bytes(), said.as_bytes()].concat());
        }
    }
}
