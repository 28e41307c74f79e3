//! queue: a message as it goes into a segment.

use crate::sample;
use criterion::{BenchmarkId, Criterion, Throughput};
use message::{
    BodyKind, Class, ContentFacts, Envelope, Lane, MailAsked, Mailbox, MailboxRef, MessageId, Recipients,
    ReversePath, UnixMillis, Verp,
};
use queue::log::record::{Bound, Layout, Location, NewMessage, encode, meta_of};
use std::hint::black_box;

pub(crate) fn envelope(recipients: usize, domains: usize) -> Envelope {
    let mut list = Recipients::new();
    for index in 0..recipients {
        list.push(MailboxRef::parse(&sample::recipient(index, domains)).expect("a sample is an address"));
    }
    let sender = Mailbox::parse("list@example.org").expect("an address");
    Envelope {
        reverse_path: ReversePath::Mailbox(sender),
        verp: Some(Verp::DEFAULT),
        body: BodyKind::SevenBit,
        smtputf8: false,
        requires_tls: false,
        lane: Lane::Bulk,
        asked: MailAsked::default(),
        recipients: list,
    }
}

/// Head, checksums and copies of a message of 4 KiB to one recipient.
pub(crate) fn encoding(criterion: &mut Criterion) {
    let (meta, content) = (meta_of(&envelope(1, 1)), sample::content(4 << 10, false));
    let message = NewMessage {
        meta: &meta,
        recipients: 1,
        layout: Layout { verp: true, asked: false, table: false },
        body: BodyKind::SevenBit,
        smtputf8: false,
        requires_tls: false,
        lane: Lane::Bulk,
        class: Class::default(),
        content: &content,
        facts: ContentFacts::of(&content),
        arrived: UnixMillis(1_700_000_000_000),
        moved: None,
    };
    let bound = Bound::new(Location::new(1, 4096), 0, 7);
    let id = MessageId::new(0, 1, 4096).expect("a place on a unit");
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("queue/record encode");
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("4 KiB", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&message), id, bound, &mut out)
        });
    });
    group.finish();
}

/// The envelope as the meta part has it: recipients grouped by domain. The list's domains come in turn, which is
/// the worst order for the sort.
pub(crate) fn envelopes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/meta_of");
    for (name, recipients, domains) in
        [("1 recipient", 1, 1), ("10,000 recipients at 100 domains", 10_000, 100)]
    {
        let envelope = envelope(recipients, domains);
        group.throughput(Throughput::Elements(recipients as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &envelope, |bencher, envelope| {
            bencher.iter(|| meta_of(black_box(envelope)));
        });
    }
    group.finish();
}
