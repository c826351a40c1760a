//! OffsetDelete (47) v0.

use std::collections::BTreeMap;

use aquifer_metadata::machine::group::command::{GroupAction, GroupReply, TopicOffsets};
use aquifer_storage::model::TopicId;

use super::{
    Request,
    errors::{coordinator_error, group_error},
    topics,
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        error_code::ErrorCode,
        messages::{
            OffsetDeleteRequest, OffsetDeleteRequestTopics, OffsetDeleteResponse,
            OffsetDeleteResponseTopics, OffsetDeleteResponseTopicsPartitions as Partition,
        },
        walk::TopicRef,
    },
};

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let whole = |code: ErrorCode| OffsetDeleteResponse {
        error_code: code.code(),
        ..OffsetDeleteResponse::default()
    };
    if body.group_id.is_empty() {
        return whole(ErrorCode::InvalidGroupId);
    }
    let mut asked = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        asked.push(sorted_out(broker, topic).await);
    }
    let wanted: Vec<TopicOffsets> = asked.iter().filter_map(|one| one.offsets.clone()).collect();
    // As in Kafka, a group is only asked about what exists.
    let ids: Vec<TopicId> = wanted.iter().map(|topic| topic.topic).collect();
    let kept: BTreeMap<TopicId, bool> = if wanted.is_empty() && !asked.is_empty() {
        BTreeMap::new()
    } else {
        match broker.group(&body.group_id, GroupAction::DeleteOffsets { topics: wanted }).await {
            Ok(GroupReply::OffsetsDeleted(Ok(kept))) => ids.into_iter().zip(kept).collect(),
            Ok(GroupReply::OffsetsDeleted(Err(rejected))) => return whole(group_error(&rejected)),
            Ok(other) => return whole(coordinator_error(&mismatch("propose", &other))),
            Err(error) => return whole(coordinator_error(&error)),
        }
    };
    let topics = asked.into_iter().map(|one| one.answer(&kept)).collect();
    OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() }
}

/// A topic of a request: what of it exists, and what each partition of it that does not is told.
struct Asked {
    topic: OffsetDeleteRequestTopics,
    offsets: Option<TopicOffsets>,
    missing: Vec<(i32, ErrorCode)>,
}

async fn sorted_out(broker: &Broker, topic: OffsetDeleteRequestTopics) -> Asked {
    let indexes = topic.partitions.iter().map(|one| one.partition_index);
    let found = match topics::resolve(broker, &TopicRef::Name(topic.name.clone())).await {
        Ok(found) => found,
        Err(code) => {
            let missing = indexes.map(|index| (index, code)).collect();
            return Asked { topic, offsets: None, missing };
        }
    };
    let (mut partitions, mut missing) = (Vec::new(), Vec::new());
    for index in indexes {
        match topics::partition(&found, index) {
            Some(partition) => partitions.push(partition.partition),
            None => missing.push((index, ErrorCode::UnknownTopicOrPartition)),
        }
    }
    let name = found.name.clone();
    let offsets = TopicOffsets { topic: found.id, name, partitions };
    let offsets = (!offsets.partitions.is_empty()).then_some(offsets);
    Asked { topic, offsets, missing }
}

impl Asked {
    /// `kept` says of each topic whether members read it.
    fn answer(self, kept: &BTreeMap<TopicId, bool>) -> OffsetDeleteResponseTopics {
        let row = |(index, code): (i32, ErrorCode)| Partition {
            partition_index: index,
            error_code: code.code(),
        };
        let judged = self.offsets.into_iter().flat_map(|offsets| {
            let is_kept = kept.get(&offsets.topic).copied().unwrap_or(false);
            let code = if is_kept { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            offsets.partitions.into_iter().map(move |index| (index.value(), code))
        });
        let partitions = self.missing.into_iter().chain(judged).map(row).collect();
        OffsetDeleteResponseTopics { name: self.topic.name, partitions }
    }
}
