//! message: whose turn a message takes, as decided when it comes.

use crate::sample;
use criterion::{Criterion, Throughput};
use message::{Marks, Traits};
use std::hint::black_box;

/// The pass over the header and the hash: a message of 4 KiB with eleven fields that are not looked for.
pub(crate) fn flows(criterion: &mut Criterion) {
    let content = sample::content(4 << 10, false);
    let mut group = criterion.benchmark_group("message/class");
    group.throughput(Throughput::Elements(1));
    group.bench_function("4 KiB", |bencher| {
        bencher.iter(|| {
            let marks = Marks::of(black_box(&content), "X-Tenant");
            let (campaign, tenant) = (marks.campaign.as_deref(), marks.tenant.as_deref());
            Traits { sender: "list@news.example.org", campaign, tenant }.flow(7)
        });
    });
    group.finish();
}
