//! OffsetFetch (9) v1-10: one group up to v7, several since v8, topic ids since v10. What was never
//! committed is offset -1 without an error.

use std::collections::BTreeMap;

use aquifer_metadata::machine::group::{
    command::CommittedOffset,
    query::{GroupAnswer, GroupAsk, GroupQuery},
};
use aquifer_storage::model::{TopicId, TopicPartition};

use super::{Request, errors::coordinator_error, topics};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        codec::{Str, Uuid},
        error_code::ErrorCode,
        messages::{
            OffsetFetchRequest, OffsetFetchRequestGroups, OffsetFetchRequestGroupsTopics,
            OffsetFetchResponse, OffsetFetchResponseGroups, OffsetFetchResponseGroupsTopics,
            OffsetFetchResponseGroupsTopicsPartitions, OffsetFetchResponseTopics,
            OffsetFetchResponseTopicsPartitions,
        },
        walk::TopicRef,
    },
};

const FIRST_WITH_GROUPS: i16 = 8;
const FIRST_BY_ID: i16 = 10;

pub async fn handle(
    broker: &Broker,
    request: &Request<'_>,
    body: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if FIRST_WITH_GROUPS <= request.version {
        let mut groups = Vec::with_capacity(body.groups.len());
        for group in body.groups {
            groups.push(fetch(broker, request.version, group).await);
        }
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    let group = OffsetFetchRequestGroups {
        group_id: body.group_id,
        topics: body.topics.map(|topics| {
            let one = |topic: crate::wire::messages::OffsetFetchRequestTopics| {
                let (name, partition_indexes) = (topic.name, topic.partition_indexes);
                OffsetFetchRequestGroupsTopics { name, partition_indexes, topic_id: Uuid::ZERO }
            };
            topics.into_iter().map(one).collect()
        }),
        ..OffsetFetchRequestGroups::default()
    };
    let answer = fetch(broker, request.version, group).await;
    let code = answer.error_code;
    let topics = answer.topics.into_iter().map(|topic| OffsetFetchResponseTopics {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(|one| single(one, code)).collect(),
    });
    // v1 has no error of the whole: `single` gave it to each partition.
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: code,
        ..OffsetFetchResponse::default()
    }
}

fn single(
    one: OffsetFetchResponseGroupsTopicsPartitions,
    code: i16,
) -> OffsetFetchResponseTopicsPartitions {
    OffsetFetchResponseTopicsPartitions {
        partition_index: one.partition_index,
        committed_offset: one.committed_offset,
        committed_leader_epoch: one.committed_leader_epoch,
        metadata: one.metadata,
        error_code: if one.error_code == 0 { code } else { one.error_code },
    }
}

type Committed = BTreeMap<TopicPartition, CommittedOffset>;

async fn fetch(
    broker: &Broker,
    version: i16,
    asked: OffsetFetchRequestGroups,
) -> OffsetFetchResponseGroups {
    let ask = GroupAsk::Offsets { partitions: None };
    let query = GroupQuery { group: asked.group_id.as_str().to_owned(), ask };
    let committed: Result<Committed, ErrorCode> = match broker.ask_group(query).await {
        Ok(GroupAnswer::Offsets(offsets)) => Ok(offsets.into_iter().collect()),
        Ok(other) => Err(coordinator_error(&mismatch("query", &other))),
        Err(error) => Err(coordinator_error(&error)),
    };
    let (code, committed) = match committed {
        Ok(committed) => (ErrorCode::None, committed),
        Err(code) => (code, Committed::new()),
    };
    let topics = match asked.topics {
        None => all(broker, &committed),
        Some(topics) => {
            let mut answers = Vec::with_capacity(topics.len());
            for topic in topics {
                answers.push(one_topic(broker, version, &committed, topic).await);
            }
            answers
        }
    };
    OffsetFetchResponseGroups { group_id: asked.group_id, topics, error_code: code.code() }
}

fn row(index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponseGroupsTopicsPartitions {
    let epoch = offset.and_then(|offset| offset.leader_epoch);
    OffsetFetchResponseGroupsTopicsPartitions {
        partition_index: index,
        committed_offset: offset.map_or(-1, |offset| offset.offset.value()),
        committed_leader_epoch: epoch.map_or(-1, |epoch| epoch.value()),
        metadata: Some(offset.map_or(Str::EMPTY, |offset| offset.metadata.as_str().into())),
        error_code: ErrorCode::None.code(),
    }
}

/// Everything the group committed, of topics that still exist.
fn all(broker: &Broker, committed: &Committed) -> Vec<OffsetFetchResponseGroupsTopics> {
    let mut topics: BTreeMap<TopicId, OffsetFetchResponseGroupsTopics> = BTreeMap::new();
    for (partition, offset) in committed {
        let Some(topic) = broker.view.topic(partition.topic) else { continue };
        let entry = topics.entry(topic.id).or_insert_with(|| OffsetFetchResponseGroupsTopics {
            name: topic.name.as_str().into(),
            topic_id: topic.id.into(),
            partitions: Vec::new(),
        });
        entry.partitions.push(row(partition.partition.value(), Some(offset)));
    }
    topics.into_values().collect()
}

async fn one_topic(
    broker: &Broker,
    version: i16,
    committed: &Committed,
    asked: OffsetFetchRequestGroupsTopics,
) -> OffsetFetchResponseGroupsTopics {
    let by_id = FIRST_BY_ID <= version;
    let by = if by_id { TopicRef::Id(asked.topic_id) } else { TopicRef::Name(asked.name.clone()) };
    let found = topics::resolve(broker, &by).await;
    let partitions = asked.partition_indexes.iter().map(|index| {
        let partition = found.as_ref().ok().and_then(|topic| topics::partition(topic, *index));
        let mut row = row(*index, partition.and_then(|partition| committed.get(&partition)));
        if let (true, Err(code)) = (by_id, &found) {
            row.error_code = code.code();
        }
        row
    });
    let partitions = partitions.collect();
    OffsetFetchResponseGroupsTopics { name: asked.name, topic_id: asked.topic_id, partitions }
}
