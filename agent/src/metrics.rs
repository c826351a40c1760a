//! Counters of this agent, as Prometheus sees them. Labels are bounded: API names and purposes,
//! never clients; topics and groups only in [`GroupLag`], which has a limit.

use std::fmt;

use aquifer_storage::store::metered::StoreCounters;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
    },
    registry::Registry,
};

use crate::{fetch::metrics::FetchMetrics, group_lag::GroupLag};

/// One API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabel {
    /// Kafka's name of the API.
    pub api: &'static str,
}

/// Everything counted. Cloning shares the counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Open client connections.
    pub connections: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Requests answered, by API.
    pub requests: Family<ApiLabel, Counter>,
    /// Connections closed because of what the client sent.
    pub refused_frames: Counter,
    /// Bytes of record batches accepted.
    pub produced_bytes: Counter,
    /// Bytes sent in Fetch answers.
    pub fetched_bytes: Counter,
    /// The read path.
    pub fetch: FetchMetrics,
    /// How far groups are behind.
    pub group_lag: GroupLag,
}

impl Metrics {
    /// Registers all counters under `aquifer_`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.group_lag.clone()));
        let registry = registry.sub_registry_with_prefix("aquifer");
        let Self { connections, accepted, requests, refused_frames, produced_bytes, .. } = self;
        registry.register("connections", "Open client connections", connections.clone());
        registry.register("connections_accepted", "Connections accepted", accepted.clone());
        registry.register("requests", "Requests answered", requests.clone());
        registry.register(
            "frames_refused",
            "Connections closed for bad bytes",
            refused_frames.clone(),
        );
        registry.register("produced_bytes", "Record batch bytes accepted", produced_bytes.clone());
        self.fetch.register(registry);
        registry.register("fetched_bytes", "Bytes of Fetch answers", self.fetched_bytes.clone());
    }
}

/// Requests to the object store, which are what a bucket bills.
#[derive(Debug)]
pub struct StoreMetrics(pub StoreCounters);

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.snapshot();
        let kinds = [
            ("put", counts.put),
            ("get", counts.get),
            ("delete", counts.delete),
            ("list", counts.list),
        ];
        for (kind, counts) in kinds {
            let rows = [
                ("requests", "Requests started", counts.requests),
                ("errors", "Requests that failed", counts.errors),
                ("bytes", "Bytes written or read", counts.bytes),
            ];
            for (what, help, value) in rows {
                let name = format!("aquifer_store_{kind}_{what}");
                let counter = ConstCounter::new(value);
                let kind = counter.metric_type();
                counter.encode(encoder.encode_descriptor(&name, help, None, kind)?)?;
            }
        }
        Ok(())
    }
}

/// The registry as Prometheus reads it.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a String cannot fail");
    text
}
