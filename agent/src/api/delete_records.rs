//! DeleteRecords (21) v0-2: raises log starts. Streams purges its repartition topics with it.

use std::collections::BTreeMap;

use aquifer_metadata::machine::command::{
    AppliedReply, Command, DeleteRecords, DeleteRecordsRejected, Reply,
};
use aquifer_storage::{error::Outcome, model::Offset};
use futures::{StreamExt, stream};

use super::{Request, topics};
use crate::{
    broker::{Broker, mismatch},
    topic_config,
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsResponseTopics,
            DeleteRecordsResponseTopicsPartitions,
        },
        walk::TopicRef,
    },
};

/// Everything that is there.
const HIGH_WATERMARK: i64 = -1;

pub async fn handle(
    broker: &Broker,
    _: &Request<'_>,
    body: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    // As Kafka: each partition is answered once, and what is asked of it last counts.
    let mut asked: BTreeMap<Str, BTreeMap<i32, i64>> = BTreeMap::new();
    for topic in body.topics {
        for one in topic.partitions {
            asked.entry(topic.name.clone()).or_default().insert(one.partition_index, one.offset);
        }
    }
    let deadline = broker.seams.clock.mono() + topics::ASKED_MAX;
    let mut answers = Vec::with_capacity(asked.len());
    for (name, partitions) in asked {
        let by_name = &TopicRef::Name(name.clone());
        let rows = stream::iter(partitions).map(|(index, offset)| async move {
            let left = deadline.since(broker.seams.clock.mono());
            let deleting = delete(broker, by_name, (index, offset));
            // It may have happened.
            let timed_out = Err(ErrorCode::RequestTimedOut);
            row(index, broker.seams.timeout(left, deleting).await.unwrap_or(timed_out))
        });
        let partitions = rows.buffered(topics::CHANGES_AT_ONCE).collect().await;
        answers.push(DeleteRecordsResponseTopics { name, partitions });
    }
    DeleteRecordsResponse { topics: answers, ..DeleteRecordsResponse::default() }
}

fn row(index: i32, deleted: Result<Offset, ErrorCode>) -> DeleteRecordsResponseTopicsPartitions {
    DeleteRecordsResponseTopicsPartitions {
        partition_index: index,
        low_watermark: deleted.map_or(-1, Offset::value),
        error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
    }
}

/// Deletes a partition's records before `offset` and returns its log start. This agent shows it
/// then; others before they answer where a log starts.
async fn delete(
    broker: &Broker,
    topic: &TopicRef,
    (index, offset): (i32, i64),
) -> Result<Offset, ErrorCode> {
    let found = topics::resolve(broker, topic).await?;
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let partition = topics::partition(&found, index).ok_or(unknown)?;
    let configs = broker.effective_configs(&found);
    let before = admit(&found.name, &configs, offset)?;
    let command = Command::DeleteRecords(DeleteRecords { partition, before });
    match broker.metadata.propose(command).await {
        Ok(AppliedReply { index, reply: Reply::RecordsDeleted(deleted) }) => {
            topics::shown(broker, index).await;
            deleted.map_err(|rejected| match rejected {
                DeleteRecordsRejected::UnknownPartition => unknown,
                DeleteRecordsRejected::AboveHighWatermark { .. } => ErrorCode::OffsetOutOfRange,
            })
        }
        Ok(other) => {
            tracing::error!(error = %mismatch("propose", &other), "records are not deleted");
            Err(ErrorCode::RequestTimedOut)
        }
        Err(error) => Err(match error.outcome {
            Outcome::Indefinite => ErrorCode::RequestTimedOut,
            Outcome::Rejected | Outcome::Fenced | Outcome::Unavailable | Outcome::Corrupt => {
                ErrorCode::LeaderNotAvailable
            }
        }),
    }
}

/// Before which offset records may be deleted; `None` for all that are there.
fn admit(
    topic: &str,
    configs: &BTreeMap<String, String>,
    offset: i64,
) -> Result<Option<Offset>, ErrorCode> {
    if topics::is_internal(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    if topic_config::is_compacted_only(configs) {
        return Err(ErrorCode::PolicyViolation);
    }
    match offset {
        HIGH_WATERMARK => Ok(None),
        _ => Offset::new(offset).map(Some).ok_or(ErrorCode::OffsetOutOfRange),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests {
    use super::*;

    fn judge(name: &str, policy: Option<&str>, offset: i64) -> Result<Option<Offset>, ErrorCode> {
        let configs = policy.map(|policy| ("cleanup.policy".to_owned(), policy.to_owned()));
        admit(name, &configs.into_iter().collect(), offset)
    }

    #[test]
    fn compacted_and_internal_topics_and_offsets_that_are_none_are_refused() {
        let kept = Err(ErrorCode::PolicyViolation);
        let whole = Ok(Some(Offset::new(7).unwrap()));
        let cases = [
            (None, 7, whole),
            (None, 0, Ok(Some(Offset::ZERO))),
            (None, -1, Ok(None)),
            (None, -2, Err(ErrorCode::OffsetOutOfRange)),
            (Some("compact"), 7, kept),
            (Some("compact"), -2, kept),
            (Some("compact,delete"), 7, whole),
            (Some("delete"), 7, whole),
            (Some(""), 7, whole),
        ];
        for (policy, offset, expected) in cases {
            assert_eq!(judge("t", policy, offset), expected, "{policy:?} {offset}");
        }
        let internal = Err(ErrorCode::InvalidTopicException);
        assert_eq!(judge("__consumer_offsets", None, 0), internal);
    }
}
