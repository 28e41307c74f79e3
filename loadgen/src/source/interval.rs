//! The HDR interval log, one histogram a second, written by a thread of its own.
//!
//! Compressing a histogram takes milliseconds, which the ring's thread does not have.
//! Bound: eight histograms on their way; a slower disk loses seconds, not the run.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

const UNDERWAY_MAX: usize = 8;

type Second = (u64, Histogram<u64>);

pub(crate) struct IntervalLog {
    seconds: SyncSender<Second>,
    writer: JoinHandle<io::Result<()>>,
}

impl IntervalLog {
    pub(crate) fn new(file: File) -> IntervalLog {
        let (seconds, incoming) = sync_channel(UNDERWAY_MAX);
        let writer = std::thread::spawn(move || write_all(file, &incoming));
        IntervalLog { seconds, writer }
    }

    pub(crate) fn write(&self, second: u64, histogram: Histogram<u64>) {
        let _ = self.seconds.try_send((second, histogram)); // full: see the bound; gone: close() says why
    }

    pub(crate) fn close(self) -> io::Result<()> {
        drop(self.seconds);
        self.writer.join().unwrap_or_else(|_| Err(io::Error::other("the interval log's thread panicked")))
    }
}

fn write_all(file: File, seconds: &Receiver<Second>) -> io::Result<()> {
    let (mut file, mut serializer, start) =
        (BufWriter::new(file), V2DeflateSerializer::new(), SystemTime::now());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("reply to the final dot; values in ns, max printed in ms")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut file, &mut serializer)?;
    for (second, histogram) in seconds {
        let (from, length) = (Duration::from_secs(second), Duration::from_secs(1));
        log.write_histogram(&histogram, from, length, Tag::new("smtp.commit")).map_err(io::Error::other)?;
    }
    file.flush()
}
