//! smtp-out: a session with its window open, with a host that takes everything.

use criterion::{Criterion, Throughput};
use message::{ContentFacts, MailboxRef, Verdict};
use smtp_out::{Config, Flight, Habits, Link, Offered, Output, Session, Timeouts, Transaction};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WINDOW: u16 = 8;
const REPLY: &[u8] = b"250 2.0.0 Ok\r\n";

/// A session past EHLO whose window has grown already.
struct Wire {
    session: Session,
    now: Instant,
    flight: Flight,
    replies: Vec<u8>,
}

impl Wire {
    fn new() -> Wire {
        let config = Config {
            helo: "us.example".to_owned(),
            timeouts: Timeouts::RFC_5321,
            window_max: WINDOW,
            transactions_max: 0,
        };
        let now = Instant::now();
        let habits = Habits { window: 2 * WINDOW, ..Habits::default() };
        let session = Session::new(now, Arc::new(config), habits, Link::default());
        let mut wire = Wire { session, now, flight: Flight::default(), replies: Vec::new() };
        wire.hear(b"220 them.example\r\n");
        assert!(wire.session.take_flight(now, &mut wire.flight));
        wire.session.handle_sent(now);
        wire.hear(b"250-them.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 50000000\r\n");
        assert_eq!(wire.session.capacity(), usize::from(WINDOW));
        wire
    }

    /// A full window of transactions goes out in one flight.
    fn send(&mut self) {
        for key in 0..u32::from(WINDOW) {
            let transaction = Transaction {
                key,
                reverse_path: "list+ann=example.net@example.org",
                recipients: &[MailboxRef { local_part: "ann", domain: "example.net" }],
                content_len: 4096,
                facts: ContentFacts::default(),
                smtputf8: false,
                requires_tls: false,
                asked: None,
            };
            let Offered::Taken = self.session.offer(black_box(&transaction)) else { unreachable!("it fits") };
        }
        assert!(self.session.take_flight(self.now, &mut self.flight));
        self.session.handle_sent(self.now);
    }

    /// Replies come in one receive. Returns how many recipients were delivered.
    fn hear(&mut self, replies: &[u8]) -> usize {
        self.session.handle_bytes(self.now, replies);
        let mut delivered = 0;
        while let Some(output) = self.session.poll_output() {
            delivered +=
                usize::from(matches!(output, Output::Verdict { verdict: Verdict::Delivered(_), .. }));
            black_box(output);
        }
        delivered
    }

    /// As many replies as the flight has commands: lines of its own octets.
    fn answer_all(&mut self) {
        let commands = self.flight.own.iter().filter(|octet| **octet == b'\n').count();
        self.replies = REPLY.repeat(commands);
    }
}

fn wire_and_replies() -> (Wire, Vec<u8>) {
    let mut wire = Wire::new();
    wire.send();
    wire.answer_all();
    let replies = std::mem::take(&mut wire.replies);
    assert_eq!(wire.hear(&replies), usize::from(WINDOW));
    (wire, replies)
}

/// Eight deliveries: offer, flight, replies, verdicts.
pub(crate) fn windows(criterion: &mut Criterion) {
    let (mut wire, replies) = wire_and_replies();
    let mut group = criterion.benchmark_group("smtp-out/window");
    group.throughput(Throughput::Elements(u64::from(WINDOW)));
    group.bench_function("8 transactions", |bencher| {
        bencher.iter(|| {
            wire.send();
            wire.hear(&replies)
        });
    });
    group.finish();
}

/// The replies of that alone, with their verdicts; reading the clock twice is in it, some 40 ns.
pub(crate) fn replies(criterion: &mut Criterion) {
    let (mut wire, replies) = wire_and_replies();
    let mut group = criterion.benchmark_group("smtp-out/replies");
    group.throughput(Throughput::Elements((replies.len() / REPLY.len()) as u64));
    group.bench_function("of 8 transactions", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                wire.send();
                let began = Instant::now();
                black_box(wire.hear(black_box(&replies)));
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
}
