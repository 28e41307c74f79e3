//! smtp-in: commands and content through a session, from octets to a submission.

use crate::sample;
use criterion::{BenchmarkId, Criterion, Throughput};
use smtp_in::bare::{self, Open};
use smtp_in::door::{Answer, Rights};
use smtp_in::{Limits, Output, Policy, Session, Stored};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// What one receive of the engine brings at most.
const PIECE: usize = 16 << 10;

const RECIPIENTS: usize = 500;

/// A session past EHLO, and its client's end of the wire.
struct Wire {
    session: Session,
    now: Instant,
    replies: Vec<u8>,
}

impl Wire {
    fn new() -> Wire {
        let policy = bare::policy();
        let limits = Limits { size_max: 50 << 20, idle_commands_max: u32::MAX, ..policy.limits };
        let policy = Policy { limits, ..policy };
        let now = Instant::now();
        let mut session = Session::new(now, Arc::new(policy), bare::arrival());
        assert!(matches!(session.poll_output(), Some(Output::Ask(_))));
        session.handle_answer(now, Answer::Welcome(Rights { may_relay: true, ..Rights::default() }));
        let mut wire = Wire { session, now, replies: Vec::new() };
        wire.say(b"EHLO client.example\r\n");
        wire
    }

    /// Sends octets as the engine receives them, stores what comes of them, reads the replies.
    fn say(&mut self, octets: &[u8]) -> usize {
        for piece in octets.chunks(PIECE) {
            let used = self.session.handle_bytes(self.now, &mut Open, piece);
            assert_eq!(used, piece.len(), "no bound is reached");
            while let Some(Output::Store(submission)) = self.session.poll_output() {
                let id = message::MessageId(u64::from(submission.transaction.0));
                self.session.handle_stored(self.now, submission.transaction, Stored::Accepted(id));
                black_box(submission);
            }
        }
        self.replies.clear();
        self.session.take_replies(&mut self.replies);
        self.replies.len()
    }

    fn last_reply(&self) -> &str {
        std::str::from_utf8(&self.replies).unwrap_or("").lines().last().unwrap_or("")
    }
}

/// MAIL, 500 pipelined RCPTs and RSET, as one buffer.
pub(crate) fn commands(criterion: &mut Criterion) {
    let mut octets = b"MAIL FROM:<list@example.org> XVERP\r\n".to_vec();
    for index in 0..RECIPIENTS {
        octets.extend_from_slice(format!("RCPT TO:<{}>\r\n", sample::recipient(index, 100)).as_bytes());
    }
    octets.extend_from_slice(b"RSET\r\n");
    let mut wire = Wire::new();
    wire.say(&octets);
    assert_eq!(wire.replies.len(), RECIPIENTS * 14 + 14 + 14, "each was accepted");
    let mut group = criterion.benchmark_group("smtp-in/commands");
    group.throughput(Throughput::Elements(RECIPIENTS as u64));
    group.bench_function("500 RCPT", |bencher| bencher.iter(|| wire.say(black_box(&octets))));
    group.finish();
}

/// A whole message of one recipient by DATA: MAIL to the reply to its final dot.
pub(crate) fn data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("smtp-in/data");
    for (name, len, dots) in
        [("4 KiB", 4, false), ("4 KiB, dots", 4, true), ("64 KiB", 64, false), ("64 KiB, dots", 64, true)]
    {
        let mut octets = b"MAIL FROM:<list@example.org>\r\nRCPT TO:<ann@example.net>\r\nDATA\r\n".to_vec();
        octets.extend(message::content::dot_stuff(&sample::content(len << 10, dots)));
        octets.extend_from_slice(b".\r\n");
        let mut wire = Wire::new();
        wire.say(&octets);
        assert!(wire.last_reply().starts_with("250 2.0.0 Ok: queued"), "{}", wire.last_reply());
        group.throughput(Throughput::Bytes(octets.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &octets, |bencher, octets| {
            bencher.iter(|| wire.say(black_box(octets)));
        });
    }
    group.finish();
}
