//! What `bench produce` prints.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::Serialize;

use super::{Load, Outcome, ProduceArgs, timeline::Interval};
use crate::bench::{
    fetch::summary::ReadFigures,
    process::{ProcessUse, gib, gib_per_cpu_second, mib},
    report::Latency,
};

/// A connection that was lost.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Its broker.
    pub broker: String,
    /// Why.
    pub reason: String,
    /// When, in seconds after the first request was due.
    pub at_s: f64,
}

/// The report. Counts and rates are those of the measured window unless they say otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct ProduceReport {
    topic: String,
    produce_version: i16,
    partitions: i32,
    connections: usize,
    in_flight: usize,
    batch_bytes: usize,
    records_per_batch: i32,
    batches_per_request: usize,
    idempotent: bool,
    /// Requests a second that were due, 0 in a closed loop.
    rate: f64,
    duration_s: f64,
    /// Answered in the window.
    requests: u64,
    requests_per_s: f64,
    /// Bytes of appended batches.
    mib_per_s: f64,
    /// From the intended send time to the answer.
    ack: Latency,
    /// From the actual write to the answer.
    ack_from_write: Latency,
    /// How late requests were written.
    slip: Latency,
    /// The longest time without any acknowledgement.
    ack_gap_max_ms: f64,
    /// Due in the run but never written.
    not_sent: u64,
    /// Written but never answered, in the run.
    unanswered: u64,
    /// Refused batches by name, in the run.
    errors: BTreeMap<String, u64>,
    /// Refused only for being in flight behind a refused one, in the run.
    errors_behind_an_error: u64,
    failed_connections: Vec<Failure>,
    /// Connections that ended early: not made up for.
    lost_connections: u64,
    /// Latencies by intended send time, appended bytes by the time of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Vec<Interval>>,
    processes: Vec<ProcessUse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gib_per_broker_cpu_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_cpu_us_per_request: Option<f64>,
    /// Of this process, the reader's included.
    generator_cpu_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    generator_cpu_s_per_gib: Option<f64>,
    /// What was read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<ReadFigures>,
    /// From the acknowledgement of a batch to its arrival, pair by pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_after_ack: Option<Latency>,
    /// Batches that arrived before their acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_before_ack: Option<u64>,
}

impl ProduceReport {
    /// Sums up a load that has ended.
    pub fn new(args: &ProduceArgs, load: &Load, outcome: &Outcome, version: i16) -> Self {
        let totals = load.acks_seen.totals();
        let bytes = totals.batches * load.batch.batch_bytes() as u64;
        let seconds = load.window.seconds();
        let (from, to) = &outcome.cpu;
        let processes = from.until(to);
        let broker_cpu_s: f64 = processes.iter().map(|process| process.cpu_s).sum();
        let generator_cpu_s = from.own_until(to);
        let deliveries = load.delivery.as_ref().map(|delivery| delivery.deliveries());
        let failures = load.failures.lock().map(|failures| failures.clone());
        Self {
            topic: load.topic_name.clone(),
            produce_version: version,
            partitions: args.partitions,
            connections: args.connections,
            in_flight: args.in_flight,
            batch_bytes: load.batch.batch_bytes(),
            records_per_batch: load.batch.records(),
            batches_per_request: args.batches_per_request,
            idempotent: args.idempotent,
            rate: args.rate,
            duration_s: seconds,
            requests: totals.requests,
            requests_per_s: totals.requests as f64 / seconds,
            mib_per_s: mib(bytes) / seconds,
            ack: Latency::of_micros(&totals.from_intended),
            ack_from_write: Latency::of_micros(&totals.from_write),
            slip: Latency::of_micros(&totals.slip),
            ack_gap_max_ms: load.acks_seen.gap_micros_max() as f64 / 1000.0,
            not_sent: outcome.lanes.not_sent,
            unanswered: outcome.lanes.unanswered,
            errors: totals.errors,
            errors_behind_an_error: totals.errors_behind_an_error,
            failed_connections: failures.unwrap_or_default(),
            lost_connections: outcome.lanes.lost,
            timeline: load.timeline.as_ref().map(|t| t.intervals(load.batch.batch_bytes() as u64)),
            gib_per_broker_cpu_s: gib_per_cpu_second(bytes, &processes),
            broker_cpu_us_per_request: (broker_cpu_s > 0.0 && totals.requests != 0)
                .then(|| broker_cpu_s * 1e6 / totals.requests as f64),
            processes,
            generator_cpu_s,
            generator_cpu_s_per_gib: (bytes != 0).then(|| generator_cpu_s / gib(bytes)),
            read: outcome.read.as_ref().map(|read| ReadFigures::new(read, seconds)),
            read_after_ack: deliveries.as_ref().map(|d| Latency::of_micros(&d.read_after_ack)),
            read_before_ack: deliveries.as_ref().map(|d| d.read_before_ack),
        }
    }

    /// Whether the figures are to be trusted.
    ///
    /// # Errors
    /// What happened that should not.
    pub fn verdict(&self) -> anyhow::Result<()> {
        if let Some(Failure { broker, reason, at_s }) =
            self.failed_connections.first().filter(|_| self.lost_connections != 0)
        {
            let lost = self.lost_connections;
            bail!("{lost} connections were lost, first to {broker} after {at_s:.1} s: {reason}");
        }
        if self.ack.count == 0 && !self.errors.is_empty() {
            bail!("every request was refused: {:?}", self.errors);
        }
        self.read.as_ref().map_or(Ok(()), ReadFigures::verdict)
    }
}
