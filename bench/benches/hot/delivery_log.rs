//! engine: a verdict as a line of the delivery log.

use criterion::{BenchmarkId, Criterion};
use engine::observe::Line;
use message::{Lane, MessageId, Reply, UnixMillis, Verdict};
use std::hint::black_box;

pub(crate) fn lines(criterion: &mut Criterion) {
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("engine/delivery log line");
    let failed = "The email account that you tried to reach does not exist. Please check \"ann\" for typos";
    for (name, verdict) in [
        ("delivered", Verdict::Delivered(Reply::ours(250, (2, 0, 0), "Ok: queued as 4Vq1Zz2x8Lz"))),
        ("failed", Verdict::Failed(Reply::ours(550, (5, 1, 1), failed))),
    ] {
        let line = Line {
            at: UnixMillis(1_700_000_002_500),
            msg: MessageId(0x0100_0000_0040),
            index: 77_777,
            local_part: "subscriber077777",
            domain: "domain077.example",
            via: engine::observe::Via {
                host: "mx1.domain077.example",
                source: "default",
                tls: "TLS 1.3",
                ..engine::observe::Via::default()
            },
            attempt: 1,
            verdict: &verdict,
            is_suppressed: false,
            lane: Lane::Bulk,
            arrived: UnixMillis(1_700_000_000_000),
        };
        group.bench_with_input(BenchmarkId::from_parameter(name), &line, |bencher, line| {
            bencher.iter(|| {
                out.clear();
                black_box(line).render(&mut out);
                out.len()
            });
        });
    }
    group.finish();
}
