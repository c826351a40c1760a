//! What the answers to produce requests add up to.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hdrhistogram::Histogram;

use super::in_flight::Sent;
use crate::bench::{client::error_name, clock::Window, report::micros_histogram};

/// Histograms are large: connections share a few of them.
const SHARDS_MAX: usize = 8;

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The request.
    pub sent: Sent,
    /// When the answer had come whole.
    pub answered_micros: u64,
    /// The error codes of its batches, 0 for none.
    pub codes: Vec<i16>,
    /// Whether the producer id of the request had been given up by then.
    pub is_outdated: bool,
}

/// Totals of some connections.
#[derive(Clone, Debug)]
pub struct AckTotals {
    /// From the intended send time, of requests meant for the window.
    pub from_intended: Histogram<u64>,
    /// From the actual write, of the same.
    pub from_write: Histogram<u64>,
    /// From the intended time to the actual write, of the same.
    pub slip: Histogram<u64>,
    /// Requests answered in the window.
    pub requests: u64,
    /// Batches appended in the window.
    pub batches: u64,
    /// Batches appended in all.
    pub batches_ever: u64,
    /// Refused batches by code, warm-up included.
    pub errors: BTreeMap<String, u64>,
    /// Batches refused only because they were in flight behind a refused one.
    pub errors_behind_an_error: u64,
}

impl AckTotals {
    fn new() -> Self {
        Self {
            from_intended: micros_histogram(),
            from_write: micros_histogram(),
            slip: micros_histogram(),
            requests: 0,
            batches: 0,
            batches_ever: 0,
            errors: BTreeMap::new(),
            errors_behind_an_error: 0,
        }
    }

    fn add(&mut self, window: &Window, answer: &Answer) {
        let Sent { intended_micros, written_micros, .. } = answer.sent;
        let appended = answer.codes.iter().filter(|code| **code == 0).count() as u64;
        self.batches_ever += appended;
        for code in answer.codes.iter().filter(|code| **code != 0) {
            match answer.is_outdated {
                true => self.errors_behind_an_error += 1,
                false => *self.errors.entry(error_name(*code)).or_default() += 1,
            }
        }
        if window.contains(answer.answered_micros) {
            self.requests += 1;
            self.batches += appended;
        }
        if window.contains(intended_micros) && appended == answer.codes.len() as u64 {
            let answered = answer.answered_micros;
            self.from_intended.saturating_record(answered.saturating_sub(intended_micros));
            self.from_write.saturating_record(answered.saturating_sub(written_micros));
            self.slip.saturating_record(written_micros.saturating_sub(intended_micros));
        }
    }

    fn merge(&mut self, other: &Self) {
        let bounds = "all histograms have the same bounds";
        self.from_intended.add(&other.from_intended).expect(bounds);
        self.from_write.add(&other.from_write).expect(bounds);
        self.slip.add(&other.slip).expect(bounds);
        self.requests += other.requests;
        self.batches += other.batches;
        self.batches_ever += other.batches_ever;
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
        self.errors_behind_an_error += other.errors_behind_an_error;
    }
}

/// Totals that all connections add to.
#[derive(Debug)]
pub struct AckStats {
    window: Window,
    shards: Vec<Mutex<AckTotals>>,
    last_ack_micros: AtomicU64,
    gap_micros_max: AtomicU64,
}

impl AckStats {
    /// Nothing yet.
    pub fn new(window: Window, connections: usize) -> Self {
        let shards = connections.clamp(1, SHARDS_MAX);
        Self {
            window,
            shards: (0..shards).map(|_| Mutex::new(AckTotals::new())).collect(),
            last_ack_micros: AtomicU64::new(0),
            gap_micros_max: AtomicU64::new(0),
        }
    }

    /// Adds an answer that came on a connection.
    pub fn add(&self, connection: usize, answer: &Answer) {
        if answer.codes.contains(&0) {
            self.note_ack(answer.answered_micros);
        }
        let shard = &self.shards[connection % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner).add(&self.window, answer);
    }

    /// All of them together.
    pub fn totals(&self) -> AckTotals {
        let mut totals = AckTotals::new();
        for shard in &self.shards {
            totals.merge(&shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        totals
    }

    /// The longest time in the window in which nothing was acknowledged, in microseconds.
    pub fn gap_micros_max(&self) -> u64 {
        let last = self.last_ack_micros.load(Ordering::Relaxed).max(self.window.start);
        let until_end = self.window.end.saturating_sub(last);
        self.gap_micros_max.load(Ordering::Relaxed).max(until_end)
    }

    fn note_ack(&self, at: u64) {
        let Window { start, end } = self.window;
        let before = self.last_ack_micros.fetch_max(at, Ordering::Relaxed);
        let gap = at.min(end).saturating_sub(before.max(start));
        if self.gap_micros_max.load(Ordering::Relaxed) < gap {
            self.gap_micros_max.fetch_max(gap, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { start: 1_000_000, end: 2_000_000 };

    fn answer(intended: u64, written: u64, answered: u64, codes: &[i16]) -> Answer {
        let sent = Sent {
            correlation_id: 0,
            intended_micros: intended,
            written_micros: written,
            generation: 0,
        };
        let codes = codes.to_vec();
        Answer { sent, answered_micros: answered, codes, is_outdated: false }
    }

    #[test]
    fn latency_counts_requests_meant_for_the_window_however_late_they_left() {
        let stats = AckStats::new(WINDOW, 1);
        stats.add(0, &answer(999_999, 1_000_000, 1_000_100, &[0])); // Warm-up, answered inside.
        stats.add(0, &answer(1_500_000, 1_900_000, 2_100_000, &[0, 0])); // Answered outside.
        let totals = stats.totals();
        assert_eq!((totals.from_intended.len(), totals.requests, totals.batches), (1, 1, 1));
        assert_eq!(totals.batches_ever, 3);
        assert!(totals.from_intended.equivalent(totals.from_intended.max(), 600_000));
        assert!(totals.from_write.equivalent(totals.from_write.max(), 200_000));
        assert!(totals.slip.equivalent(totals.slip.max(), 400_000));
    }

    #[test]
    fn refused_batches_count_by_name_and_have_no_latency() {
        let stats = AckStats::new(WINDOW, 3);
        stats.add(0, &answer(1_100_000, 1_100_000, 1_100_500, &[45, 0]));
        let outdated =
            Answer { is_outdated: true, ..answer(1_100_000, 1_100_000, 1_100_500, &[45]) };
        stats.add(1, &outdated);
        let totals = stats.totals();
        let errors = BTreeMap::from([("OUT_OF_ORDER_SEQUENCE_NUMBER".to_owned(), 1)]);
        assert_eq!((totals.errors, totals.errors_behind_an_error), (errors, 1));
        assert_eq!((totals.from_intended.len(), totals.batches), (0, 1));
    }

    #[test]
    fn the_gap_between_acks_reaches_to_both_ends_of_the_window() {
        let stats = AckStats::new(WINDOW, 1);
        assert_eq!(stats.gap_micros_max(), 1_000_000);
        stats.add(0, &answer(0, 0, 1_300_000, &[0]));
        stats.add(0, &answer(0, 0, 1_400_000, &[45]));
        stats.add(0, &answer(0, 0, 1_800_000, &[0]));
        assert_eq!(stats.gap_micros_max(), 500_000);
        stats.add(0, &answer(0, 0, 2_400_000, &[0]));
        assert_eq!(stats.gap_micros_max(), 500_000);
    }
}
