//! Backups of the metadata: that they are shipped, and how far they reach.

use std::{fmt, sync::Arc};

use aquifer_agent::config::Settings;
use aquifer_metadata::{backup::plan::Pace, node::MetadataNode};
use aquifer_storage::store::url::StoreUrl;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use super::bucket::Bucket;

/// Ships copies of the metadata to the bucket. A store in memory goes with the process.
pub fn ship(settings: &Settings, bucket: &Bucket, node: &MetadataNode) {
    if matches!(bucket.url, StoreUrl::Memory) {
        return;
    }
    let (interval, keep) = (settings.options.backup_interval, settings.options.backup_keep);
    node.ship_to(Arc::clone(&bucket.store), Pace { interval, keep, ..Pace::default() });
}

/// What brings a lost data folder back from the bucket.
pub fn restore_command(settings: &Settings) -> String {
    let (store, data) = (settings.store_url(), settings.data.display());
    let (id, listen) = (settings.id, settings.listen);
    format!("aquifer cluster restore --store {store} --data {data} --id {id} --listen {listen}")
}

/// How far the backups of a node in this process reach.
pub struct BackupMetrics(pub MetadataNode);

impl fmt::Debug for BackupMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupMetrics").finish_non_exhaustive()
    }
}

impl Collector for BackupMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(status) = self.0.backup() else { return Ok(()) };
        let index = status.covered.map_or(0, |index| index.value());
        // Before the first one there is no age: it would read as fresh.
        let age = status.age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        let gauge = ConstGauge::new(index as f64);
        let (name, help) = ("aquifer_backup_index", "The last metadata entry in the bucket");
        let kind = gauge.metric_type();
        gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        let gauge = ConstGauge::new(age);
        let (name, help) = ("aquifer_backup_age_seconds", "Since the bucket held every entry");
        gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        for (name, help, value) in [
            ("aquifer_backup_snapshots", "Metadata snapshots shipped", status.snapshots),
            ("aquifer_backup_chunks", "Chunks of the metadata log shipped", status.chunks),
            ("aquifer_backup_bytes", "Bytes shipped", status.bytes),
            ("aquifer_backup_failures", "Requests that failed", status.failures),
        ] {
            let counter = ConstCounter::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}
