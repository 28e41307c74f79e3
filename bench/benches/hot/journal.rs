//! queue: marks of one turn, and the frame that they are put in.

use criterion::{BenchmarkId, Criterion, Throughput};
use message::{MessageId, UnixMillis};
use queue::Attempts;
use queue::journal::{Journal, JournalNumber, Mark, Span, Waiting, Writer};
use std::hint::black_box;

/// Verdicts in one turn of a busy core.
const MARKS: u32 = 64;

const ID: MessageId = MessageId(1 << 24 | 64);

pub(crate) fn marks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/journal frame");
    group.throughput(Throughput::Elements(u64::from(MARKS)));
    // Neighbours join into one mark; recipients of several connections do not.
    for (name, step) in [("64 settled, neighbours", 1), ("64 settled, scattered", 7)] {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let mut journal = journal();
            bencher.iter(|| {
                (0..MARKS).for_each(|index| journal.settled(ID, index * step));
                frame(&mut journal)
            });
        });
    }
    group.bench_function("64 deferred", |bencher| {
        let mut journal = journal();
        bencher.iter(|| {
            for first in 0..MARKS {
                let span = Span { id: ID, first, count: 1 };
                let due = UnixMillis(1_700_000_000_000);
                journal.mark(black_box(&Mark::Deferred(Waiting {
                    span,
                    name_offset: 7,
                    attempts: Attempts::new(1),
                    due,
                })));
            }
            frame(&mut journal)
        });
    });
    group.finish();
}

fn journal() -> Journal {
    Journal::new(Writer { partition: 0, epoch: 1 }, JournalNumber(1), 1)
}

/// Ends the frame, its checksum included.
fn frame(journal: &mut Journal) -> usize {
    let len = journal.frame().map_or(0, |(_, bytes)| black_box(bytes).len());
    journal.frame_put();
    len
}
