//! What the read path counts.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// Counters of the read path. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct FetchMetrics {
    /// Reads that met an object which is no longer there, and asked metadata again.
    pub refreshed: Counter,
    /// Objects that metadata still names and the bucket did not have for 30 s: data loss.
    pub lost_objects: Counter,
    /// Reads that met damaged bytes, in the cache or in the bucket.
    pub damaged: Counter,
    /// Answers sent empty because the memory for fetches did not suffice in time.
    pub starved: Counter,
    /// Partitions that were planned: what a fetch costs besides the bytes it sends.
    pub planned: Counter,
}

impl FetchMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let Self { refreshed, lost_objects, damaged, starved, planned } = self;
        let rows = [
            ("fetch_refreshed", "Reads of objects that were replaced", refreshed),
            ("fetch_lost_objects", "Referenced objects missing for 30 s", lost_objects),
            ("fetch_damaged", "Reads that met damaged bytes", damaged),
            ("fetch_starved", "Empty answers for lack of memory", starved),
            ("fetch_planned_partitions", "Partitions looked at for answers", planned),
        ];
        for (name, help, counter) in rows {
            registry.register(name, help, counter.clone());
        }
    }
}
