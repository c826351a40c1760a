//! Matches the acknowledgement of a batch with its arrival at a reader of the same process.
//!
//! The difference of two percentiles is not a percentile of the differences: each batch is
//! matched by its partition and base offset.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use hdrhistogram::Histogram;

use super::report::micros_histogram;

/// The first half of a pair that came.
#[derive(Clone, Copy, Debug)]
enum Half {
    AckedAt(u64),
    ReadAt(u64),
}

/// Pairs up acknowledgements and arrivals.
#[derive(Debug)]
pub struct DeliveryLog(Mutex<State>);

#[derive(Debug)]
struct State {
    waiting: HashMap<(i32, i64), Half>,
    read_after_ack: Histogram<u64>,
    read_before_ack: u64,
}

/// What the pairs showed.
#[derive(Clone, Debug)]
pub struct Deliveries {
    /// From the acknowledgement to the arrival, 0 where the batch arrived first.
    pub read_after_ack: Histogram<u64>,
    /// How many arrived before their acknowledgement did.
    pub read_before_ack: u64,
}

impl Default for DeliveryLog {
    fn default() -> Self {
        Self(Mutex::new(State {
            waiting: HashMap::new(),
            read_after_ack: micros_histogram(),
            read_before_ack: 0,
        }))
    }
}

impl DeliveryLog {
    /// The batch at this base offset of a partition was acknowledged.
    pub fn acked(&self, partition: i32, base_offset: i64, at_micros: u64) {
        self.note((partition, base_offset), Half::AckedAt(at_micros));
    }

    /// The batch was read.
    pub fn read(&self, partition: i32, base_offset: i64, at_micros: u64) {
        self.note((partition, base_offset), Half::ReadAt(at_micros));
    }

    /// What there was so far.
    pub fn deliveries(&self) -> Deliveries {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { read_after_ack, read_before_ack, .. } = &*state;
        Deliveries { read_after_ack: read_after_ack.clone(), read_before_ack: *read_before_ack }
    }

    fn note(&self, batch: (i32, i64), half: Half) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (acked, read) = match (state.waiting.remove(&batch), half) {
            (Some(Half::AckedAt(acked)), Half::ReadAt(read))
            | (Some(Half::ReadAt(read)), Half::AckedAt(acked)) => (acked, read),
            (_, first) => {
                state.waiting.insert(batch, first);
                return;
            }
        };
        state.read_before_ack += u64::from(read < acked);
        state.read_after_ack.saturating_record(read.saturating_sub(acked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_matched_whichever_half_comes_first() {
        let log = DeliveryLog::default();
        log.acked(0, 5, 1_000);
        log.read(1, 5, 1_500); // Another partition.
        log.read(0, 5, 1_700);
        log.acked(1, 5, 1_600);
        let Deliveries { read_after_ack, read_before_ack } = log.deliveries();
        assert_eq!((read_after_ack.len(), read_before_ack), (2, 1));
        assert!(read_after_ack.equivalent(read_after_ack.max(), 700));
    }
}
