//! How consumers of the event log stand, for those who watch: how far each is behind, and what it costs to reach it.

use crate::events::EventLog;
use crate::events::log::Standing;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Of all consumers, when somebody asks.
#[derive(Debug)]
pub(in crate::control) struct Metrics(pub(in crate::control) Arc<EventLog>);

type Measure = fn(&EventLog, &Standing) -> u64;

/// Those that also fall.
const GAUGES: [(&str, &str, Measure); 4] = [
    ("consumer_lag_events", "Events that a consumer has not got", |log, standing| {
        log.behind(standing.place()).events
    }),
    ("consumer_lag_octets", "Octets of them", |log, standing| log.behind(standing.place()).octets),
    ("consumer_lag_seconds", "Age of the oldest event that is on its way to it", |_, standing| {
        lag_secs(standing)
    }),
    ("consumer_refusing", "1 while it refuses events for good: somebody must mend it", |_, standing| {
        u64::from(standing.is_refusing.load(Ordering::Relaxed))
    }),
];

const COUNTERS: [(&str, &str, Measure); 5] = [
    ("consumer_attempts", "Batches that were tried", |_, standing| standing.attempts.load(Ordering::Relaxed)),
    ("consumer_failures", "Tries that failed", |_, standing| standing.failures.load(Ordering::Relaxed)),
    ("consumer_events", "Events that arrived", |_, standing| standing.events.load(Ordering::Relaxed)),
    ("consumer_lost", "Events removed before it had them", |_, standing| {
        standing.lost.load(Ordering::Relaxed)
    }),
    ("consumer_damaged", "Lines of the log that could not be read", |_, standing| {
        standing.damaged.load(Ordering::Relaxed)
    }),
];

fn lag_secs(standing: &Standing) -> u64 {
    match standing.oldest_at_ms.load(Ordering::Relaxed) {
        0 => 0,
        at => crate::clock::wall().0.saturating_sub(at) / 1000,
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let consumers = self.0.consumers();
        for (name, help, measure) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for consumer in &consumers {
                let value = i64::try_from(measure(&self.0, consumer)).unwrap_or(i64::MAX);
                let labels = [("consumer", consumer.name.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, measure) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for consumer in &consumers {
                let labels = [("consumer", consumer.name.as_str())];
                ConstCounter::new(measure(&self.0, consumer)).encode(family.encode_family(&labels)?)?;
            }
        }
        let lost = ConstCounter::new(self.0.files_lost.load(Ordering::Relaxed));
        let help = "Files of the event log that were removed before everybody had read them";
        lost.encode(encoder.encode_descriptor("event_files_lost", help, None, lost.metric_type())?)
    }
}
