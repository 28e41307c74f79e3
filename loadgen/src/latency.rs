//! Latencies as people compare them: percentiles of an HDR histogram, in microseconds.

use hdrhistogram::Histogram;
use serde::Serialize;

const NANOS_MAX: u64 = 3_600_000_000_000; // an hour; what takes longer is recorded as one

/// Three significant digits of nanoseconds. Of fixed size: saturating does not resize.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(NANOS_MAX, 3).expect("an hour in nanoseconds is within its limits")
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
}

impl Percentiles {
    /// From a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Percentiles {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: micros(histogram.max()),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "the histogram has three digits, an f64 has fifteen")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}
