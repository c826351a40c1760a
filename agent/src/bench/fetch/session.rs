//! An incremental fetch session (KIP-227) as a client keeps it. [pure]
//!
//! The first request names every partition; those after it only what changed. A broker that opens
//! no session gets full requests on and on.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::{
    ErrorCode, Str, Uuid,
    messages::{FetchRequest, FetchRequestTopics, FetchRequestTopicsPartitions},
};

/// Sizes and waits of every request.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// The most an answer should hold.
    pub max_bytes: i32,
    /// The most of one partition in it.
    pub partition_max_bytes: i32,
    /// What an answer waits for.
    pub min_bytes: i32,
    /// How long it waits for that.
    pub max_wait_ms: i32,
}

/// What one broker is asked for.
#[derive(Clone, Debug)]
pub struct FetchSession {
    topic_name: Str,
    topic_id: Uuid,
    positions: BTreeMap<i32, i64>,
    changed: BTreeSet<i32>,
    id: i32,
    epoch: i32,
}

impl FetchSession {
    /// A session over these partitions, from these offsets on; not opened yet.
    pub fn new(topic_name: Str, topic_id: Uuid, positions: BTreeMap<i32, i64>) -> Self {
        Self { topic_name, topic_id, positions, changed: BTreeSet::new(), id: 0, epoch: 0 }
    }

    /// The next request.
    pub fn request(&self, limits: &FetchLimits) -> FetchRequest {
        let of = |(partition, offset): (&i32, &i64)| FetchRequestTopicsPartitions {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: limits.partition_max_bytes,
            ..FetchRequestTopicsPartitions::default()
        };
        let is_named = |partition: &i32| self.epoch == 0 || self.changed.contains(partition);
        let named = self.positions.iter().filter(|(partition, _)| is_named(partition));
        let partitions: Vec<_> = named.map(of).collect();
        let topic = FetchRequestTopics {
            topic: self.topic_name.clone(),
            topic_id: self.topic_id,
            partitions,
        };
        FetchRequest {
            max_wait_ms: limits.max_wait_ms,
            min_bytes: limits.min_bytes,
            max_bytes: limits.max_bytes,
            session_id: self.id,
            session_epoch: self.epoch,
            topics: if topic.partitions.is_empty() { Vec::new() } else { vec![topic] },
            ..FetchRequest::default()
        }
    }

    /// The request was answered, with a session or without one (`id` 0).
    pub fn answered(&mut self, id: i32) {
        self.changed.clear();
        if id == 0 {
            return self.reset();
        }
        self.id = id;
        // As in Kafka: 0 and -1 have meanings of their own.
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// Starts over with a full request.
    pub fn reset(&mut self) {
        (self.id, self.epoch) = (0, 0);
    }

    /// Asks for another offset of a partition from now on.
    pub fn advance(&mut self, partition: i32, offset: i64) {
        if self.positions.insert(partition, offset) != Some(offset) {
            self.changed.insert(partition);
        }
    }
}

/// Whether an error of the whole answer means that the broker forgot the session.
pub fn is_session_lost(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::FetchSessionIdNotFound
                | ErrorCode::InvalidFetchSessionEpoch
                | ErrorCode::FetchSessionTopicIdError
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FetchLimits =
        FetchLimits { max_bytes: 9, partition_max_bytes: 8, min_bytes: 7, max_wait_ms: 6 };

    fn session() -> FetchSession {
        let positions = BTreeMap::from([(0, 10), (1, 20), (2, 30)]);
        FetchSession::new(Str::from_static("t"), Uuid::ZERO, positions)
    }

    fn asked(session: &FetchSession) -> (i32, i32, Vec<(i32, i64)>) {
        let request = session.request(&LIMITS);
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        let positions = partitions.map(|p| (p.partition, p.fetch_offset)).collect();
        (request.session_id, request.session_epoch, positions)
    }

    #[test]
    fn an_open_session_names_only_what_changed() {
        let mut session = session();
        assert_eq!(asked(&session), (0, 0, vec![(0, 10), (1, 20), (2, 30)]));
        session.answered(77);
        assert_eq!(asked(&session), (77, 1, vec![]));
        session.advance(1, 25);
        session.advance(2, 30); // No change.
        assert_eq!(asked(&session), (77, 1, vec![(1, 25)]));
        session.answered(77);
        assert_eq!(asked(&session), (77, 2, vec![]));
    }

    #[test]
    fn without_a_session_every_request_is_full() {
        let mut session = session();
        session.answered(0);
        session.advance(0, 11);
        assert_eq!(asked(&session), (0, 0, vec![(0, 11), (1, 20), (2, 30)]));
    }

    #[test]
    fn a_lost_session_starts_over_from_where_it_was() {
        let mut session = session();
        session.answered(77);
        session.advance(1, 25);
        session.reset();
        assert_eq!(asked(&session), (0, 0, vec![(0, 10), (1, 25), (2, 30)]));
        assert!(is_session_lost(70) && is_session_lost(71) && !is_session_lost(0));
    }
}
