//! OffsetForLeaderEpoch (23) v2-4: where the records of a life of the cluster end. The leader epoch
//! changes with a restore only, so a truncation is signalled there and nowhere else: to a reader
//! that is past what the restored life knows of the one it read (KIP-320).

use std::time::Duration;

use aquifer_metadata::machine::{
    effect::{Pointers, Run},
    query::{Answer, Query},
};
use aquifer_storage::{
    model::{Offset, TopicPartition},
    seam::MonoTime,
};
use futures::{StreamExt, stream};

use super::{Request, topics};
use crate::{
    broker::Broker,
    wire::{
        error_code::ErrorCode,
        messages::{
            OffsetForLeaderEpochRequest, OffsetForLeaderEpochRequestTopicsPartitions,
            OffsetForLeaderEpochResponse, OffsetForLeaderEpochResponseTopics,
            OffsetForLeaderEpochResponseTopicsPartitions,
        },
        walk::TopicRef,
    },
};

/// Kafka's "no such epoch" and "no such offset".
const UNDEFINED: i32 = -1;

/// Rows looked at per question.
const PROBE_ROWS: u32 = 64;
/// How long a question may take.
const PROBE_MAX: Duration = Duration::from_secs(5);

pub async fn handle(
    broker: &Broker,
    _: &Request<'_>,
    body: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    // One linearizable look for the whole request.
    let fresh = broker.view.fresh().await.is_ok();
    let deadline = broker.seams.clock.mono() + topics::ASKED_MAX;
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        let by_name = &TopicRef::Name(topic.topic.clone());
        let deadline = fresh.then_some(deadline);
        let rows =
            stream::iter(topic.partitions).map(|asked| answer(broker, by_name, asked, deadline));
        let partitions = rows.buffered(topics::PARTITIONS_AT_ONCE).collect().await;
        topics.push(OffsetForLeaderEpochResponseTopics { topic: topic.topic, partitions });
    }
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

async fn answer(
    broker: &Broker,
    topic: &TopicRef,
    asked: OffsetForLeaderEpochRequestTopicsPartitions,
    deadline: Option<MonoTime>,
) -> OffsetForLeaderEpochResponseTopicsPartitions {
    let found = match deadline {
        Some(deadline) => topics::until(broker, deadline, end_of(broker, topic, &asked)).await,
        None => Err(ErrorCode::LeaderNotAvailable),
    };
    row(asked.partition, found)
}

fn row(
    partition: i32,
    found: Result<EpochEnd, ErrorCode>,
) -> OffsetForLeaderEpochResponseTopicsPartitions {
    let (code, end) = match found {
        Ok(end) => (ErrorCode::None, end),
        Err(code) => (code, EpochEnd::UNKNOWN),
    };
    OffsetForLeaderEpochResponseTopicsPartitions {
        error_code: code.code(),
        partition,
        leader_epoch: end.epoch,
        end_offset: end.offset.map_or(-1, Offset::value),
    }
}

/// The largest epoch that is not above the one asked for, and the first offset behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EpochEnd {
    epoch: i32,
    offset: Option<Offset>,
}

impl EpochEnd {
    const UNKNOWN: Self = Self { epoch: UNDEFINED, offset: None };
}

async fn end_of(
    broker: &Broker,
    topic: &TopicRef,
    asked: &OffsetForLeaderEpochRequestTopicsPartitions,
) -> Result<EpochEnd, ErrorCode> {
    let place = (asked.partition, asked.current_leader_epoch);
    let state = topics::partition_state(broker, topic, place).await?;
    let pointers = state.pointers;
    let present = pointers.leader_epoch.value();
    // As Kafka: nothing is known of an epoch to come, and none is below 0.
    if asked.leader_epoch < 0 || present < asked.leader_epoch {
        return Ok(EpochEnd::UNKNOWN);
    }
    if asked.leader_epoch == present {
        return Ok(EpochEnd { epoch: present, offset: Some(pointers.high_watermark) });
    }
    search(broker, state.partition, asked.leader_epoch, &pointers).await
}

async fn search(
    broker: &Broker,
    partition: TopicPartition,
    epoch: i32,
    pointers: &Pointers,
) -> Result<EpochEnd, ErrorCode> {
    let mut search = Search::new(epoch, pointers);
    while let Some(offset) = search.probe() {
        let query = Query::Runs { partition, offset, limit: PROBE_ROWS };
        match broker.seams.timeout(PROBE_MAX, broker.metadata.query(query)).await {
            Some(Ok((_, Answer::Runs(Some(rows))))) => search.learn(offset, &rows.runs),
            Some(Ok((_, Answer::Runs(None)))) => return Err(ErrorCode::UnknownTopicOrPartition),
            Some(Ok((_, other))) => {
                tracing::error!(?other, "metadata answered a query of rows with something else");
                return Err(ErrorCode::UnknownServerError);
            }
            Some(Err(_)) | None => return Err(ErrorCode::LeaderNotAvailable),
        }
    }
    Ok(search.end())
}

/// Finds by halving where rows of later lives begin. Lives only rise along a log, and each object
/// says which one wrote it.
#[derive(Debug)]
struct Search {
    epoch: i32,
    /// Everything below is of `epoch` or before.
    low: Offset,
    /// Everything from here on is of a later life.
    high: Offset,
    /// The life of what is next below `low`.
    below: Option<i32>,
    /// Whether `high` is where a row of a later life was seen to begin, and what is right before
    /// it was not asked for yet: it is likely of a life before, and then it is found.
    ends_at_later: bool,
}

impl Search {
    fn new(epoch: i32, pointers: &Pointers) -> Self {
        let (low, high) = (pointers.log_start, pointers.high_watermark);
        Self { epoch, low, high, below: None, ends_at_later: false }
    }

    /// What to ask for next; `None` when it is found.
    fn probe(&self) -> Option<Offset> {
        let (low, high) = (self.low.value(), self.high.value());
        let next = if self.ends_at_later { high - 1 } else { low + (high - low) / 2 };
        (low < high).then(|| Offset::new(next)).flatten()
    }

    /// Takes the rows from `asked` on. There are none when what was there is deleted meanwhile.
    fn learn(&mut self, asked: Offset, rows: &[Run]) {
        // One look right before it: where that is of a later life too, halving goes on.
        let was_before_it = std::mem::take(&mut self.ends_at_later);
        if rows.is_empty() {
            self.high = asked;
        }
        for (place, run) in rows.iter().enumerate() {
            let life = i32::try_from(run.object.lineage.number).unwrap_or(i32::MAX);
            if self.epoch < life {
                // In front of the first there may be more of its kind.
                let begins =
                    if place == 0 { run.offsets.base.min(asked) } else { run.offsets.base };
                self.high = self.high.min(begins).max(self.low);
                self.ends_at_later = !was_before_it;
                return;
            }
            self.low = self.low.max(run.offsets.next).min(self.high);
            self.below = Some(life);
        }
    }

    /// As Kafka: where nothing of it or before is left, it ends where the log begins.
    fn end(&self) -> EpochEnd {
        EpochEnd { epoch: self.below.unwrap_or(self.epoch), offset: Some(self.low) }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests {
    use aquifer_storage::model::{
        LeaderEpoch, Lineage, ObjectName, ObjectSeq, OffsetRange, SessionId, Timestamp,
    };

    use super::*;

    fn offset(value: i64) -> Offset {
        Offset::new(value).unwrap()
    }

    fn run(base: i64, next: i64, life: u32) -> Run {
        let lineage = Lineage { number: life, nonce: 1 };
        Run {
            offsets: OffsetRange { base: offset(base), next: offset(next) },
            object: ObjectName {
                lineage,
                session: SessionId::new(1),
                seq: ObjectSeq::new(1),
                merged: false,
            },
            object_bytes: 1,
            position: 0,
            length: 1,
            max_timestamp: Timestamp::NONE,
            offsets_final: false,
        }
    }

    /// The end of an epoch, and how many questions it took, `limit` rows each.
    fn searched(log: &[Run], log_start: i64, epoch: i32, limit: usize) -> (EpochEnd, usize) {
        let end = log.last().map_or(offset(log_start), |run| run.offsets.next);
        let pointers = Pointers {
            log_start: offset(log_start),
            last_stable: end,
            high_watermark: end,
            leader_epoch: LeaderEpoch::new(9),
        };
        let (mut search, mut questions) = (Search::new(epoch, &pointers), 0);
        while let Some(probe) = search.probe() {
            let rows = log.iter().filter(|run| probe < run.offsets.next).take(limit);
            search.learn(probe, &rows.copied().collect::<Vec<_>>());
            questions += 1;
            assert!(questions < 100, "{search:?}");
        }
        (search.end(), questions)
    }

    fn at(epoch: i32, value: i64) -> EpochEnd {
        EpochEnd { epoch, offset: Some(offset(value)) }
    }

    #[test]
    fn an_epoch_ends_where_the_next_life_left_its_hole() {
        let hole = 1_000_000_000;
        let log = [
            run(0, 10, 0),
            run(10, 30, 0),
            run(30, 30 + hole, 2),
            run(30 + hole, 40 + hole, 2),
            run(40 + hole, 40 + 2 * hole, 5),
        ];
        for limit in 1..6 {
            let find = |epoch| searched(&log, 0, epoch, limit).0;
            assert_eq!(find(0), at(0, 30));
            assert_eq!(find(1), at(0, 30), "nothing was written in life 1");
            assert_eq!(find(2), at(2, 40 + hole));
            assert_eq!(find(4), at(2, 40 + hole));
            assert_eq!(searched(&log, 20, 0, limit).0, at(0, 30));
        }
    }

    #[test]
    fn of_an_epoch_before_the_first_record_the_end_is_where_the_log_begins() {
        let log = [run(100, 200, 3), run(200, 300, 3)];
        assert_eq!(searched(&log, 150, 1, 4).0, at(1, 150));
        assert_eq!(searched(&[], 7, 0, 4).0, at(0, 7));
    }

    #[test]
    fn many_rows_take_few_questions() {
        let mut log: Vec<Run> = (0..100_000).map(|n| run(n * 3, n * 3 + 3, 0)).collect();
        log.push(run(300_000, 1_000_300_000, 1));
        log.extend((0..50).map(|n| run(1_000_300_000 + n, 1_000_300_001 + n, 1)));
        let (end, questions) = searched(&log, 0, 0, PROBE_ROWS as usize);
        assert_eq!(end, at(0, 300_000));
        assert!(questions <= 20, "{questions}");
    }

    #[test]
    fn what_ends_right_before_a_hole_that_was_seen_takes_one_more_question() {
        let mut log: Vec<Run> = (0..100_000).map(|n| run(n * 3, n * 3 + 3, 0)).collect();
        log.push(run(300_000, 1_000_300_000, 1));
        let (end, questions) = searched(&log, 0, 0, PROBE_ROWS as usize);
        assert_eq!(end, at(0, 300_000));
        assert!(questions <= 2, "{questions}");
    }
}
