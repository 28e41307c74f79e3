//! queue: recipients of a list, one by one, out of a window of names.

use crate::record::envelope;
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use message::{ContentFacts, MessageId, ReversePath, UnixMillis};
use queue::fanout::{Handling, Letter, OpenRange};
use queue::log::record::{Layout, Meta, meta_of};
use queue::range::DomainKey;
use queue::{Attempts, MessageKey, Range};
use std::hint::black_box;
use std::sync::Arc;

const NAMES: usize = 1000;

pub(crate) fn names(criterion: &mut Criterion) {
    let open = open();
    let mut group = criterion.benchmark_group("queue/fan-out");
    group.throughput(Throughput::Elements(NAMES as u64));
    group.bench_function("next_name of 1,000", |bencher| {
        bencher.iter(|| {
            let mut open = open.clone();
            let mut octets = 0;
            while let Some(name) = open.next_name() {
                octets += black_box(name).text(open.window()).len();
            }
            octets
        });
    });
    group.finish();
}

fn open() -> OpenRange {
    let meta = Bytes::from(meta_of(&envelope(NAMES, 1)));
    let group = Meta::parse(&meta, Layout { verp: true, asked: false, table: false })
        .and_then(|meta| meta.groups().next())
        .expect("one domain");
    let range = Range {
        message: MessageKey(0),
        domain: DomainKey(0),
        first: 0,
        count: group.count,
        name_offset: group.name_offset,
        attempts: Attempts::NONE,
        reason: 0,
    };
    let content = (Bytes::new(), ContentFacts::default());
    let letter = Letter::new(
        (MessageId(1 << 24), UnixMillis(0)),
        (ReversePath::Null, None),
        content,
        Handling::default(),
    );
    OpenRange::new(range, Arc::new(letter), meta, 0)
}
