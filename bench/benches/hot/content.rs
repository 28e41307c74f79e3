//! message: the one look at a content, and the doubling of its dots.

use crate::sample;
use criterion::{BenchmarkId, Criterion, Throughput};
use message::ContentFacts;
use message::content::dot_stuff;
use std::hint::black_box;

const CASES: [(&str, usize, bool); 4] = [
    ("4 KiB", 4 << 10, false),
    ("4 KiB, dots", 4 << 10, true),
    ("64 KiB", 64 << 10, false),
    ("64 KiB, dots", 64 << 10, true),
];

pub(crate) fn facts(criterion: &mut Criterion) {
    each(criterion, "message/content facts", |content| {
        black_box(ContentFacts::of(content));
    });
}

pub(crate) fn stuffing(criterion: &mut Criterion) {
    each(criterion, "message/dot_stuff", |content| {
        black_box(dot_stuff(content));
    });
}

fn each(criterion: &mut Criterion, name: &str, cost: impl Fn(&[u8])) {
    let mut group = criterion.benchmark_group(name);
    for (case, len, dots) in CASES {
        let content = sample::content(len, dots);
        assert_eq!(ContentFacts::of(&content).has_dot_lines(), dots);
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(case), &content, |bencher, content| {
            bencher.iter(|| cost(black_box(content)));
        });
    }
    group.finish();
}
