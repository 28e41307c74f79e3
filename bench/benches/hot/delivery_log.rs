//! engine: a verdict as a line of the event log.

use criterion::{BenchmarkId, Criterion};
use engine::events::{Event, Kind, Stamp};
use message::{Lane, MailboxRef, MessageId, Reply, UnixMillis};
use std::hint::black_box;

pub(crate) fn lines(criterion: &mut Criterion) {
    let mut out = Vec::new();
    let mut group = criterion.benchmark_group("engine/event line");
    let failed = "The email account that you tried to reach does not exist. Please check \"ann\" for typos";
    for (kind, reply) in [
        (Kind::Delivered, Reply::ours(250, (2, 0, 0), "Ok: queued as 4Vq1Zz2x8Lz")),
        (Kind::Failed, Reply::ours(550, (5, 1, 1), failed)),
    ] {
        let event = Event {
            msg: Some(MessageId(0x0100_0000_0040)),
            index: Some(77_777),
            recipient: Some(MailboxRef { local_part: "subscriber077777", domain: "domain077.example" }),
            sender: "newsletter@lists.example.org",
            campaign: "spring-2027",
            site: "mx1.domain077.example",
            host: "mx1.domain077.example",
            source: "default",
            tls: "TLS 1.3",
            attempt: 1,
            reply: Some(&reply),
            lane: Some(Lane::Bulk),
            delay_ms: Some(2500),
            ..Event::new(kind)
        };
        let stamp = Stamp { id: Some(0x1_0000_0001), at: UnixMillis(1_700_000_002_500) };
        group.bench_with_input(BenchmarkId::from_parameter(kind.name()), &event, |bencher, event| {
            bencher.iter(|| {
                out.clear();
                black_box(event).render(stamp, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}
