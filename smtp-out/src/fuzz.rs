//! For the fuzzer: a session against a host made of arbitrary octets.

use crate::config::{Config, Habits, Timeouts};
use crate::flight::Flight;
use crate::link::{Link, Login, Protocol, Secret};
use crate::policy::TlsPolicy;
use crate::session::{Output, Session};
use crate::tls::{TlsBase, TlsClient};
use crate::transaction::Transaction;
use message::{ContentFacts, MailboxRef};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

const RECIPIENTS: [MailboxRef<'static>; 2] = [
    MailboxRef { local_part: "ann", domain: "example.net" },
    MailboxRef { local_part: "bob", domain: "example.net" },
];

/// The first octet chooses habits and the length of segments, the second what the connection is for, the rest is what
/// the host says. `now` is any time. A handshake begins where the host lets it; arbitrary octets do not finish it.
pub fn fuzz_session(now: Instant, bytes: &[u8]) {
    let Some((&[choices, purpose], said)) = bytes.split_first_chunk() else { return };
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
        tls_broken: purpose & 64 != 0,
    };
    let mut session = Session::new(now, Arc::new(config), habits, link(purpose));
    let mut keys = 0;
    for segment in said.chunks(usize::from(choices >> 4) + 1) {
        session.handle_bytes(now, segment);
        drive(&mut session, now, &mut keys);
    }
    session.handle_closed(now, "end of input");
    while session.poll_output().is_some() {}
    assert_eq!(session.in_flight(), 0, "a closed session holds nothing");
}

/// Made once: roots and certificates are nothing that a host decides.
fn client(policy: &TlsPolicy) -> Option<Arc<TlsClient>> {
    static BASE: OnceLock<TlsBase> = OnceLock::new();
    let base = BASE.get_or_init(|| TlsBase::new(Vec::new(), None).expect("no roots, no certificate"));
    base.client(policy)
}

fn link(purpose: u8) -> Link {
    let policy = [TlsPolicy::Never, TlsPolicy::Never, TlsPolicy::May, TlsPolicy::Encrypt];
    let secret = match purpose & 8 {
        0 => Secret::Password("secret".to_owned()),
        _ => Secret::Token("secret".to_owned()),
    };
    let login = Login { user: "us".to_owned(), secret, allow_plain_text: purpose & 16 != 0 };
    Link {
        host: "mx.example".into(),
        tls: client(&policy[usize::from(purpose & 3)]),
        is_tls_implicit: purpose & 0b1000_0011 == 0b1000_0011,
        protocol: match purpose & 40 {
            40 => Protocol::Mailboxes,
            32 => Protocol::Lmtp,
            _ => Protocol::Smtp,
        },
        login: (purpose & 20 != 0).then(|| Arc::new(login)),
        is_traced: purpose & 128 != 0,
    }
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
            requires_tls: *keys % 5 == 4,
            asked: None,
        });
        *keys += 1;
    }
    let mut flight = Flight::default();
    while session.take_flight(now, &mut flight) {
        assert!(flight.is_raw || !session.is_sealing(), "no host of this kind gets as far as sealing");
        session.handle_sent(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = "220 hi\r\n250-them\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-STARTTLS\r\n\
        250-AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2\r\n250 SIZE 0\r\n";

    proptest::proptest! {
        #[test]
        fn fuzz_smoke(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_session(Instant::now(), &bytes);
        }

        #[test]
        fn fuzz_smoke_past_the_greeting(
            choices in proptest::prelude::any::<[u8; 2]>(),
            said in "((250|250-|354|550|421|503|452|451|500|334|235|220) ?[ -~]{0,9}\r\n){0,30}",
        ) {
            fuzz_session(Instant::now(), &[&choices, GREETING.as_bytes(), said.as_bytes()].concat());
        }

        /// What comes in place of the host's side of a handshake; the first octets look like a record of it.
        #[test]
        fn fuzz_smoke_in_the_handshake(
            choices in proptest::prelude::any::<u8>(),
            is_record in proptest::prelude::any::<bool>(),
            octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let header: &[u8] = if is_record { &[22, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3] } else { &[] };
            // Implicit TLS, whatever else.
            fuzz_session(Instant::now(), &[&[choices, 0b1000_0011], header, &octets].concat());
        }
    }
}
