//! Metrics and health for those who watch: `GET /metrics` (OpenMetrics), `GET /healthz`.
//!
//! Reads the cores' counters; changes nothing. Bound: axum's own limits on what a request may be.

use crate::crossing::Crossing;
use crate::suppression::Suppression;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Serves until the process ends.
pub(super) async fn serve(listener: std::net::TcpListener, crossing: Arc<Crossing>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "serving HTTP"),
    };
    let router =
        Router::new().route("/metrics", get(metrics)).route("/healthz", get(health)).with_state(crossing);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "serving HTTP");
    }
}

async fn metrics(State(crossing): State<Arc<Crossing>>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("ringpost");
    if let Some(log) = crossing.events.get() {
        registry.register_collector(Box::new(super::consumers::Metrics(Arc::clone(log))));
    }
    registry.register_collector(Box::new(Cores(crossing)));
    let mut page = String::new();
    let status =
        if encode(&mut page, &registry).is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page)
}

/// 200 while mail is taken, 503 when a failed write has stopped it.
async fn health(State(crossing): State<Arc<Crossing>>) -> impl IntoResponse {
    if crossing.counters.iter().all(|counters| counters.poisoned.get() == 0) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "a write failed: no mail is taken until a restart\n")
    }
}

/// Counters of all cores, merged when somebody asks.
#[derive(Debug)]
struct Cores(Arc<Crossing>);

/// Those that also fall.
const GAUGES: [&str; 9] = [
    "queued_messages",
    "queued_recipients",
    "deferred_recipients",
    "held_recipients",
    "sessions_in",
    "sessions_out",
    "poisoned",
    "log_octets",
    "log_live_octets",
];

impl Collector for Cores {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let cores: Vec<_> = self.0.counters.iter().map(|counters| counters.each()).collect();
        let Some(first) = cores.first() else { return Ok(()) };
        for (place, (name, help, _)) in first.iter().enumerate() {
            let sum: u64 = cores.iter().map(|core| core[place].2).sum();
            if GAUGES.contains(name) {
                let gauge = ConstGauge::new(i64::try_from(sum).unwrap_or(i64::MAX));
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
            } else {
                let counter = ConstCounter::new(sum);
                counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
            }
        }
        self.0.suppression.get().map_or(Ok(()), |list| encode_list(list, &mut encoder))
    }
}

fn encode_list(list: &Suppression, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let entries = ConstGauge::new(i64::try_from(list.len()).unwrap_or(i64::MAX));
    let (name, help) = ("suppression_entries", "Entries of the suppression list");
    entries.encode(encoder.encode_descriptor(name, help, None, entries.metric_type())?)?;
    let waits = ConstCounter::new(list.waits());
    let (name, help) =
        ("suppression_waits", "Changes of the suppression list that had to wait for its writer");
    waits.encode(encoder.encode_descriptor(name, help, None, waits.metric_type())?)
}
