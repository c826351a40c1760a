//! What `bench fetch` prints.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::Serialize;

use super::{FetchArgs, ReadTotals};
use crate::bench::{
    clock::Window,
    process::{CpuReading, ProcessUse, gib, gib_per_cpu_second, mib},
    report::Latency,
};

/// What was read. Counts and rates are those of the measured window unless they say otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct ReadFigures {
    duration_s: f64,
    mib: f64,
    mib_per_s: f64,
    batches: u64,
    records: u64,
    records_per_s: f64,
    fetches: u64,
    /// Answers without records.
    empty_fetches: u64,
    /// Of answers with records.
    kib_per_fetch: f64,
    /// From request to whole answer, of answers with records.
    fetch: Latency,
    /// From the intended send time of `bench produce` to the arrival.
    end_to_end: Latency,
    /// Offsets there but unread at the end.
    lag: u64,
    /// In the run.
    holes: u64,
    /// In the run.
    duplicates: u64,
    /// By name, in the run.
    errors: BTreeMap<String, u64>,
    /// Before the end that was set, in the run.
    unread: u64,
    failed_connections: Vec<String>,
    /// Readers that ended early.
    lost: u64,
}

impl ReadFigures {
    /// Sums up.
    pub fn new(totals: &ReadTotals, seconds: f64) -> Self {
        let seconds = seconds.max(1e-6);
        let filled = totals.fetches.saturating_sub(totals.empty_fetches);
        Self {
            duration_s: seconds,
            mib: mib(totals.bytes),
            mib_per_s: mib(totals.bytes) / seconds,
            batches: totals.batches,
            records: totals.records,
            records_per_s: totals.records as f64 / seconds,
            fetches: totals.fetches,
            empty_fetches: totals.empty_fetches,
            kib_per_fetch: totals.bytes as f64 / 1024.0 / filled.max(1) as f64,
            fetch: Latency::of_micros(&totals.fetch),
            end_to_end: Latency::of_micros(&totals.end_to_end),
            lag: totals.lag,
            holes: totals.holes,
            duplicates: totals.duplicates,
            errors: totals.errors.clone(),
            unread: totals.unread,
            failed_connections: totals.failures.clone(),
            lost: totals.lost,
        }
    }

    /// Whether the figures are to be trusted.
    ///
    /// # Errors
    /// What happened that should not.
    pub fn verdict(&self) -> anyhow::Result<()> {
        if self.lost != 0 {
            let reason = self.failed_connections.first().map_or("", String::as_str);
            bail!("{} readers ended early: {reason}", self.lost);
        }
        if self.unread != 0 {
            bail!("{} offsets were not read in time", self.unread);
        }
        if self.holes != 0 || self.duplicates != 0 {
            bail!("{} holes and {} duplicates were read", self.holes, self.duplicates);
        }
        Ok(())
    }
}

/// The report.
#[derive(Clone, Debug, Serialize)]
pub struct FetchReport {
    topic: String,
    groups: usize,
    /// Of all groups together.
    connections: usize,
    #[serde(flatten)]
    figures: ReadFigures,
    processes: Vec<ProcessUse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gib_per_broker_cpu_s: Option<f64>,
    generator_cpu_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    generator_cpu_s_per_gib: Option<f64>,
}

impl FetchReport {
    /// Sums up a run that has ended.
    pub fn new(
        (args, connections): (&FetchArgs, usize),
        window: &Window,
        totals: &ReadTotals,
        (from, to): &(CpuReading, CpuReading),
    ) -> Self {
        // Without a duration the run ends with its last byte.
        let end = window.end.min(totals.last_arrival_micros.max(window.start + 1));
        let end = if args.duration.is_some() { window.end } else { end };
        let processes = from.until(to);
        let generator_cpu_s = from.own_until(to);
        Self {
            topic: args.topic.clone(),
            groups: args.groups,
            connections,
            figures: ReadFigures::new(totals, Window { end, ..*window }.seconds()),
            gib_per_broker_cpu_s: gib_per_cpu_second(totals.bytes, &processes),
            processes,
            generator_cpu_s,
            generator_cpu_s_per_gib: (totals.bytes != 0)
                .then(|| generator_cpu_s / gib(totals.bytes)),
        }
    }

    /// Whether the figures are to be trusted.
    ///
    /// # Errors
    /// What happened that should not.
    pub fn verdict(&self) -> anyhow::Result<()> {
        self.figures.verdict()
    }
}
