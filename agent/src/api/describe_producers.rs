//! DescribeProducers (61) v0: what is remembered of a partition's producers.

use aquifer_metadata::{
    client::CallError,
    machine::{
        QUERY_LISTED_MAX,
        query::{ActiveProducer, Answer, Query},
    },
};
use aquifer_storage::model::TopicPartition;

use super::{
    Request,
    admin::{self, Refusal},
    topics,
};
use crate::{
    broker::{Broker, mismatch},
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            DescribeProducersRequest, DescribeProducersResponse, DescribeProducersResponseTopics,
            DescribeProducersResponseTopicsPartitions as Partition,
            DescribeProducersResponseTopicsPartitionsActiveProducers as Producer,
        },
        walk::TopicRef,
    },
};

/// Kafka's number for "none": there are no transactions here yet.
const NONE: i32 = -1;

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            partitions.push(answer(index, described(broker, &topic.name, index).await));
        }
        topics.push(DescribeProducersResponseTopics { name: topic.name, partitions });
    }
    DescribeProducersResponse { throttle_time_ms: 0, topics }
}

fn answer(partition_index: i32, described: Result<Vec<ActiveProducer>, Refusal>) -> Partition {
    let row = |producer: ActiveProducer| Producer {
        producer_id: producer.producer.value(),
        producer_epoch: producer.epoch.value().into(),
        last_sequence: producer.last_sequence.value(),
        last_timestamp: producer.last_timestamp.millis(),
        coordinator_epoch: NONE,
        current_txn_start_offset: NONE.into(),
    };
    let (producers, (code, words)) = match described {
        Ok(producers) => (producers, (ErrorCode::None, None)),
        Err(refusal) => (Vec::new(), refusal),
    };
    Partition {
        partition_index,
        error_code: code.code(),
        error_message: words.map(Into::into),
        active_producers: producers.into_iter().map(row).collect(),
    }
}

async fn described(
    broker: &Broker,
    name: &Str,
    index: i32,
) -> Result<Vec<ActiveProducer>, Refusal> {
    if let Some(words) = admin::topic_name_refusal(name) {
        return Err((ErrorCode::InvalidTopicException, Some(words)));
    }
    let unknown = (ErrorCode::UnknownTopicOrPartition, Some(admin::NOT_HOSTED.to_owned()));
    let topic = match topics::resolve(broker, &TopicRef::Name(name.clone())).await {
        Ok(topic) => topic,
        Err(ErrorCode::UnknownTopicOrPartition) => return Err(unknown),
        Err(code) => return Err((code, None)),
    };
    let missing = (ErrorCode::UnknownTopicOrPartition, None);
    let partition = topics::partition(&topic, index).ok_or(missing)?;
    match producers(broker, partition).await {
        Ok(found) => found.ok_or(unknown),
        Err(error) => Err((ErrorCode::NotLeaderOrFollower, Some(error.to_string()))),
    }
}

/// All of them, page by page; `None` when the partition is gone.
async fn producers(
    broker: &Broker,
    partition: TopicPartition,
) -> Result<Option<Vec<ActiveProducer>>, CallError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let query = Query::Producers { partition, after, limit: QUERY_LISTED_MAX };
        let page = match broker.metadata.query(query).await? {
            (_, Answer::Producers(Some(page))) => page,
            (_, Answer::Producers(None)) => return Ok(None),
            (_, other) => return Err(mismatch("query", &other)),
        };
        after = page.last().map(|last| last.producer);
        let is_full = page.len() == QUERY_LISTED_MAX as usize;
        all.extend(page);
        if !is_full {
            return Ok(Some(all));
        }
    }
}
