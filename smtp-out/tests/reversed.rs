//! A session over a connection that the host made, encrypted before the roles were reversed (RFC 2645).

// A test may panic.
#![allow(clippy::unwrap_used)]

mod tls_host;

use message::{ContentFacts, MailboxRef};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use smtp_out::{
    Config, Encrypted, Flight, FlightPiece, Habits, Link, Output, Protection, Session, Timeouts, Transaction,
    Verified,
};
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Instant;
use tls_host::{World, server};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// The customer, who connected, and is the host now.
struct Customer {
    connection: ClientConnection,
    opened: String,
}

/// A connection whose handshake is done, both ends of it.
fn connected() -> (Customer, ServerConnection) {
    let world = World::new();
    let mut roots = RootCertStore::empty();
    roots.add(world.root.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, world.time())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut theirs = ClientConnection::new(Arc::new(config), "mx.example".try_into().unwrap()).unwrap();
    let mut ours = ServerConnection::new(server(world.identity("mx.example"), false)).unwrap();
    while ours.is_handshaking() || theirs.wants_write() || ours.wants_write() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        theirs.write_tls(&mut there).unwrap();
        ours.read_tls(&mut &there[..]).unwrap();
        ours.process_new_packets().unwrap();
        ours.write_tls(&mut back).unwrap();
        theirs.read_tls(&mut &back[..]).unwrap();
        theirs.process_new_packets().unwrap();
    }
    (Customer { connection: theirs, opened: String::new() }, ours)
}

impl Customer {
    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).unwrap();
            let state = self.connection.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.connection.reader().read_exact(&mut plain).unwrap();
            self.opened += std::str::from_utf8(&plain).unwrap();
        }
    }

    fn say(&mut self, plain: &str) -> Vec<u8> {
        self.connection.writer().write_all(plain.as_bytes()).unwrap();
        let mut out = Vec::new();
        self.connection.write_tls(&mut out).unwrap();
        out
    }
}

/// What our session sends now, as the customer reads it.
fn heard(session: &mut Session, customer: &mut Customer, now: Instant) -> String {
    let mut flight = Flight::default();
    while session.take_flight(now, &mut flight) {
        let mut plain = Vec::new();
        for piece in &flight.pieces {
            match piece {
                FlightPiece::Own(range) => {
                    plain.extend_from_slice(&flight.own[range.start as usize..range.end as usize]);
                }
                FlightPiece::Content { .. } => plain.extend_from_slice(CONTENT),
            }
        }
        let mut out = Vec::new();
        if flight.is_raw {
            out.clone_from(&plain)
        } else {
            session.seal(&plain, &mut out)
        }
        customer.hear(&out);
        session.handle_sent(now);
    }
    std::mem::take(&mut customer.opened)
}

fn reversed(sealed: ServerConnection, now: Instant) -> Session {
    let config = Config {
        helo: "us.example".to_owned(),
        timeouts: Timeouts::RFC_5321,
        window_max: 8,
        transactions_max: 0,
    };
    Session::reversed(now, Arc::new(config), Habits::default(), Link::default(), Some(sealed))
}

#[test]
fn mail_goes_out_over_the_tls_that_came_in() {
    let ((mut customer, ours), now) = (connected(), Instant::now());
    let mut session = reversed(ours, now);
    let Some(Output::Protection(Protection::Encrypted(Encrypted { version, verified, .. }))) =
        session.poll_output()
    else {
        panic!("how it is protected is known at once");
    };
    assert_eq!((version, verified), ("TLS 1.3", Verified::Login));
    assert_eq!(heard(&mut session, &mut customer, now), "", "the customer greets first");
    session.handle_bytes(now, &customer.say("220 customer.example ready\r\n"));
    assert_eq!(heard(&mut session, &mut customer, now), "EHLO us.example\r\n");
    // It is encrypted already, whatever is offered.
    session.handle_bytes(now, &customer.say("250-customer.example\r\n250-STARTTLS\r\n250 REQUIRETLS\r\n"));
    assert_eq!(session.poll_output(), Some(Output::Ready));
    let recipients = [MailboxRef { local_part: "bob", domain: "customer.example" }];
    let transaction = Transaction {
        key: 7,
        reverse_path: "ann@example.org",
        recipients: &recipients,
        content_len: CONTENT.len() as u64,
        facts: ContentFacts::of(CONTENT),
        smtputf8: false,
        requires_tls: true,
        asked: None,
    };
    session.offer(&transaction);
    for (command, reply) in [
        ("MAIL FROM:<ann@example.org> REQUIRETLS\r\n", "250 ok\r\n"),
        ("RCPT TO:<bob@customer.example>\r\n", "250 ok\r\n"),
        ("DATA\r\n", "354 go\r\n"),
        ("Subject: x\r\n\r\nhello\r\n.\r\n", "250 taken\r\n"),
    ] {
        assert_eq!(heard(&mut session, &mut customer, now), command);
        session.handle_bytes(now, &customer.say(reply));
    }
    assert!(matches!(session.poll_output(), Some(Output::Verdict { key: 7, .. })));
    session.quit(now);
    assert_eq!(heard(&mut session, &mut customer, now), "QUIT\r\n");
}

#[test]
fn greeting_that_came_behind_the_atrn_is_heard() {
    let ((mut customer, mut ours), now) = (connected(), Instant::now());
    let greeting = customer.say("220 customer.example ready\r\n");
    ours.read_tls(&mut &greeting[..]).unwrap();
    ours.process_new_packets().unwrap();
    let mut session = reversed(ours, now);
    assert_eq!(heard(&mut session, &mut customer, now), "EHLO us.example\r\n");
}
