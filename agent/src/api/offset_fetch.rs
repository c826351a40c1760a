//! OffsetFetch (9) v1-10: one group up to v7, several since v8, topic ids since v10. What was never
//! committed is offset -1 without an error.

use std::{collections::BTreeMap, sync::Arc};

use aquifer_metadata::{
    machine::group::{
        command::CommittedOffset,
        query::{GroupAnswer, GroupAsk, GroupQuery, OffsetReader},
        types::MemberId,
    },
    watch::CatalogTopic,
};
use aquifer_storage::model::{PartitionIndex, TopicId, TopicPartition};

use super::{
    Request,
    errors::{coordinator_error, group_error},
    topics,
};
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

const FIRST_WITH_ERROR: i16 = 2;
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
    let topics = answer.topics.into_iter().map(|topic| OffsetFetchResponseTopics {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(single).collect(),
    });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: answer.error_code,
        ..OffsetFetchResponse::default()
    }
}

fn single(one: OffsetFetchResponseGroupsTopicsPartitions) -> OffsetFetchResponseTopicsPartitions {
    OffsetFetchResponseTopicsPartitions {
        partition_index: one.partition_index,
        committed_offset: one.committed_offset,
        committed_leader_epoch: one.committed_leader_epoch,
        metadata: one.metadata,
        error_code: one.error_code,
    }
}

type Committed = BTreeMap<TopicPartition, CommittedOffset>;
type Topics = Vec<OffsetFetchResponseGroupsTopics>;

async fn fetch(
    broker: &Broker,
    version: i16,
    asked: OffsetFetchRequestGroups,
) -> OffsetFetchResponseGroups {
    let group = asked.group_id.as_str();
    let reader = reader(&asked);
    let answer = match &asked.topics {
        None => all(broker, (group, reader)).await,
        Some(topics) => some(broker, version, (group, reader), topics).await,
    };
    let (topics, code) = match (answer, asked.topics) {
        (Ok(topics), _) => (topics, ErrorCode::None),
        // Without a place for an error of the whole, each partition has it.
        (Err(code), Some(topics)) if version < FIRST_WITH_ERROR => {
            (topics.into_iter().map(|topic| rows(topic, |_| Err(code))).collect(), code)
        }
        (Err(code), _) => (Vec::new(), code),
    };
    OffsetFetchResponseGroups { group_id: asked.group_id, topics, error_code: code.code() }
}

/// A group, and the member that says it reads. Classic groups are told to whoever asks.
type Asker<'a> = (&'a str, Option<OffsetReader>);

/// The member of a request; neither a name nor an epoch is what clients without members send, and
/// all before version 9.
fn reader(asked: &OffsetFetchRequestGroups) -> Option<OffsetReader> {
    let (member, epoch) = (asked.member_id.as_ref(), asked.member_epoch);
    (member.is_some() || 0 <= epoch).then(|| OffsetReader {
        member: MemberId::new(member.map_or("", |member| member.as_str())),
        epoch,
    })
}

/// What a group committed; partitions it did not commit are left out.
async fn committed(
    broker: &Broker,
    (group, reader): Asker<'_>,
    partitions: Option<Vec<TopicPartition>>,
) -> Result<Committed, ErrorCode> {
    let ask = GroupAsk::Offsets { partitions, reader };
    let query = GroupQuery { group: group.to_owned(), ask };
    match broker.ask_group(query).await {
        Ok(GroupAnswer::Offsets(Ok(offsets))) => Ok(offsets.into_iter().collect()),
        Ok(GroupAnswer::Offsets(Err(rejected))) => Err(group_error(&rejected)),
        Ok(other) => Err(coordinator_error(&mismatch("query", &other))),
        Err(error) => Err(coordinator_error(&error)),
    }
}

/// A topic, or why there is none. `Err` outside when that cannot be told now: "nothing committed"
/// would make a consumer start over.
async fn find(
    broker: &Broker,
    by: &TopicRef,
) -> Result<Result<Arc<CatalogTopic>, ErrorCode>, ErrorCode> {
    match topics::resolve(broker, by).await {
        Err(code @ (ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId)) => {
            Ok(Err(code))
        }
        Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
        Ok(topic) => Ok(Ok(topic)),
    }
}

/// Everything the group committed, of topics that still exist.
async fn all(broker: &Broker, asker: Asker<'_>) -> Result<Topics, ErrorCode> {
    let mut by_topic: BTreeMap<TopicId, Vec<OffsetFetchResponseGroupsTopicsPartitions>> =
        BTreeMap::new();
    for (partition, offset) in &committed(broker, asker, None).await? {
        let row = row(partition.partition.value(), Some(offset));
        by_topic.entry(partition.topic).or_default().push(row);
    }
    let mut answers = Topics::with_capacity(by_topic.len());
    for (topic, partitions) in by_topic {
        if let Ok(topic) = find(broker, &TopicRef::Id(topic.into())).await? {
            let (name, topic_id) = (topic.name.as_str().into(), topic.id.into());
            answers.push(OffsetFetchResponseGroupsTopics { name, topic_id, partitions });
        }
    }
    Ok(answers)
}

/// What the group committed of the topics asked for. How many partitions a topic has does not
/// matter: this agent may learn it later than the group had a commit.
async fn some(
    broker: &Broker,
    version: i16,
    asker: Asker<'_>,
    asked: &[OffsetFetchRequestGroupsTopics],
) -> Result<Topics, ErrorCode> {
    let by_id = FIRST_BY_ID <= version;
    let mut found = Vec::with_capacity(asked.len());
    let mut partitions = Vec::new();
    for one in asked {
        let by = if by_id { TopicRef::Id(one.topic_id) } else { TopicRef::Name(one.name.clone()) };
        let topic = find(broker, &by).await?.map(|topic| topic.id);
        if let Ok(topic) = topic {
            partitions.extend(one.partition_indexes.iter().map(|index| at(topic, *index)));
        }
        found.push(topic);
    }
    let committed = committed(broker, asker, Some(partitions)).await?;
    let answers = asked.iter().zip(found).map(|(one, topic)| {
        rows(one.clone(), |index| match topic {
            Ok(topic) => Ok(committed.get(&at(topic, index))),
            Err(code) if by_id => Err(code),
            Err(_) => Ok(None),
        })
    });
    Ok(answers.collect())
}

fn at(topic: TopicId, index: i32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionIndex::new(index) }
}

/// A topic's rows, one for each partition asked for.
fn rows<'a>(
    asked: OffsetFetchRequestGroupsTopics,
    offset: impl Fn(i32) -> Result<Option<&'a CommittedOffset>, ErrorCode>,
) -> OffsetFetchResponseGroupsTopics {
    let partitions = asked.partition_indexes.iter().map(|index| match offset(*index) {
        Ok(offset) => row(*index, offset),
        Err(code) => OffsetFetchResponseGroupsTopicsPartitions {
            error_code: code.code(),
            ..row(*index, None)
        },
    });
    let partitions = partitions.collect();
    OffsetFetchResponseGroupsTopics { name: asked.name, topic_id: asked.topic_id, partitions }
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
