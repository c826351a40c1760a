//! How many requests came and how long they took.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    super::report::{Latency, micros_histogram},
    request::Kind,
};

/// Counts since the start, or since the last reset.
#[derive(Debug)]
pub struct Counters {
    requests: [AtomicU64; Kind::ALL.len()],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    faults: AtomicU64,
    puts: Mutex<Histogram<u64>>,
    gets: Mutex<Histogram<u64>>,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CountersReport {
    /// Requests of each kind, those that failed too.
    #[serde(rename = "PUT")]
    pub puts: u64,
    /// Requests for objects.
    #[serde(rename = "GET")]
    pub gets: u64,
    /// Requests about objects.
    #[serde(rename = "HEAD")]
    pub heads: u64,
    /// Listings.
    #[serde(rename = "LIST")]
    pub lists: u64,
    /// Deletes of one key.
    #[serde(rename = "DELETE")]
    pub deletes: u64,
    /// Deletes of many keys.
    #[serde(rename = "POST")]
    pub posts: u64,
    /// Bytes of request bodies that were read.
    pub bytes_in: u64,
    /// Bytes of answers' bodies, upstream's too.
    pub bytes_out: u64,
    /// Requests that a fault rule applied to.
    pub faults: u64,
    /// From the end of a PUT's head to its answer, whatever it says; without requests that a fault
    /// kept from being applied.
    pub put_latency: Latency,
    /// From the end of a GET's head to the last byte of its answer leaving for the socket.
    pub get_latency: Latency,
}

impl Counters {
    /// All zero.
    pub fn zero() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; Kind::ALL.len()],
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            puts: Mutex::new(micros_histogram()),
            gets: Mutex::new(micros_histogram()),
        }
    }

    /// A request came.
    pub fn count(&self, kind: Kind) {
        self.requests[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A fault rule applied.
    pub fn count_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a request came.
    pub fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of an answer left.
    pub fn count_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A request took `elapsed`. Of interest for PUT and GET.
    pub fn record(&self, kind: Kind, elapsed: Duration) {
        let histogram = match kind {
            Kind::Put => &self.puts,
            Kind::Get => &self.gets,
            Kind::Head | Kind::List | Kind::Delete | Kind::Post => return,
        };
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// The counts now.
    pub fn report(&self) -> CountersReport {
        let requests = |kind: Kind| self.requests[kind as usize].load(Ordering::Relaxed);
        let latency = |histogram: &Mutex<Histogram<u64>>| {
            Latency::of_micros(&histogram.lock().unwrap_or_else(PoisonError::into_inner))
        };
        CountersReport {
            puts: requests(Kind::Put),
            gets: requests(Kind::Get),
            heads: requests(Kind::Head),
            lists: requests(Kind::List),
            deletes: requests(Kind::Delete),
            posts: requests(Kind::Post),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            put_latency: latency(&self.puts),
            get_latency: latency(&self.gets),
        }
    }

    /// Back to zero.
    pub fn reset(&self) {
        let sums = [&self.bytes_in, &self.bytes_out, &self.faults];
        for count in self.requests.iter().chain(sums) {
            count.store(0, Ordering::Relaxed);
        }
        for histogram in [&self.puts, &self.gets] {
            histogram.lock().unwrap_or_else(PoisonError::into_inner).reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_forgets_everything_and_nothing_else_does() {
        let counters = Counters::zero();
        let zero = serde_json::to_value(counters.report()).unwrap();
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            (0..=index).for_each(|_| counters.count(kind));
            counters.record(kind, Duration::from_millis(7));
        }
        counters.count_in(10);
        counters.count_out(20);
        counters.count_fault();
        let report = serde_json::to_value(counters.report()).unwrap();
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(report[kind.name()], index + 1);
        }
        assert_eq!((&report["bytes_in"], &report["bytes_out"]), (&10.into(), &20.into()));
        assert_eq!((&report["faults"], &report["get_latency"]["count"]), (&1.into(), &1.into()));
        let p50 = report["put_latency"]["p50_ms"].as_f64().unwrap();
        assert!((p50 - 7.0).abs() < 0.05, "{p50}");
        counters.reset();
        assert_eq!(serde_json::to_value(counters.report()).unwrap(), zero);
    }
}
