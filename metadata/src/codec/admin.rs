//! Messages of what operators ask: sizes, producers, lists of groups, nodes that are forgotten.

use aquifer_storage::model::{
    PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicPartition,
};

use super::{CodecError, narrow, topic_from_proto, topic_to_proto};
use crate::{
    machine::{
        command::NodeRejected,
        group::types::{GroupKind, GroupState},
        query::{ActiveProducer, GroupListed},
    },
    proto::{self, node_outcome::Kind as NodeKind},
};

type NodeOutcome = Result<(), NodeRejected>;

pub(super) fn node_outcome_to_proto(outcome: NodeOutcome) -> proto::NodeOutcome {
    let kind = match outcome {
        Ok(()) => NodeKind::Done,
        Err(NodeRejected::Unknown) => NodeKind::Unknown,
        Err(NodeRejected::Live) => NodeKind::Live,
    };
    proto::NodeOutcome { kind: kind.into() }
}

pub(super) fn node_outcome_from_proto(
    outcome: &proto::NodeOutcome,
) -> Result<NodeOutcome, CodecError> {
    let kind = NodeKind::try_from(outcome.kind);
    Ok(match kind.map_err(|_| CodecError::Missing("node outcome"))? {
        NodeKind::Done => Ok(()),
        NodeKind::Unknown => Err(NodeRejected::Unknown),
        NodeKind::Live => Err(NodeRejected::Live),
    })
}

/// A partition, or a bound of a range of them: its index may be any number.
pub(super) fn partition_to_proto(partition: TopicPartition) -> proto::AdminPartition {
    proto::AdminPartition {
        topic: topic_to_proto(partition.topic),
        partition: partition.partition.value(),
    }
}

pub(super) fn partition_from_proto(
    partition: Option<proto::AdminPartition>,
) -> Result<TopicPartition, CodecError> {
    let partition = partition.ok_or(CodecError::Missing("partition"))?;
    Ok(TopicPartition {
        topic: topic_from_proto(&partition.topic)?,
        partition: PartitionIndex::new(partition.partition),
    })
}

pub(super) fn sizes_to_proto(sizes: &[(TopicPartition, u64)]) -> proto::SizesAnswer {
    let size = |(partition, bytes): &(TopicPartition, u64)| proto::PartitionSize {
        partition: Some(partition_to_proto(*partition)),
        bytes: *bytes,
    };
    proto::SizesAnswer { sizes: sizes.iter().map(size).collect() }
}

pub(super) fn sizes_from_proto(
    answer: proto::SizesAnswer,
) -> Result<Vec<(TopicPartition, u64)>, CodecError> {
    let size = |size: proto::PartitionSize| Ok((partition_from_proto(size.partition)?, size.bytes));
    answer.sizes.into_iter().map(size).collect()
}

pub(super) fn producers_to_proto(producers: Option<&[ActiveProducer]>) -> proto::ProducersAnswer {
    let one = |producer: &ActiveProducer| proto::ActiveProducer {
        producer: producer.producer.value(),
        epoch: i32::from(producer.epoch.value()),
        last_sequence: producer.last_sequence.value(),
        last_timestamp: producer.last_timestamp.millis(),
    };
    let exists = producers.is_some();
    let producers = producers.unwrap_or_default().iter().map(one).collect();
    proto::ProducersAnswer { exists, producers }
}

pub(super) fn producers_from_proto(
    answer: proto::ProducersAnswer,
) -> Result<Option<Vec<ActiveProducer>>, CodecError> {
    if !answer.exists {
        return Ok(None);
    }
    let one = |producer: proto::ActiveProducer| {
        let epoch = narrow(producer.epoch, "producer epoch")?;
        let last_sequence = Sequence::new(producer.last_sequence);
        Ok(ActiveProducer {
            producer: ProducerId::new(producer.producer),
            epoch: ProducerEpoch::new(epoch).ok_or(CodecError::Invalid("producer epoch"))?,
            last_sequence: last_sequence.ok_or(CodecError::Invalid("sequence"))?,
            last_timestamp: Timestamp::from_millis(producer.last_timestamp),
        })
    };
    answer.producers.into_iter().map(one).collect::<Result<_, _>>().map(Some)
}

pub(super) fn groups_to_proto(groups: &[GroupListed]) -> proto::GroupsAnswer {
    let one = |listed: &GroupListed| proto::GroupListed {
        group: listed.group.clone(),
        state: state_to_proto(listed.state).into(),
        protocol_type: listed.protocol_type.clone(),
        is_consumer: listed.kind == GroupKind::Consumer,
    };
    proto::GroupsAnswer { groups: groups.iter().map(one).collect() }
}

pub(super) fn groups_from_proto(
    answer: proto::GroupsAnswer,
) -> Result<Vec<GroupListed>, CodecError> {
    let one = |listed: proto::GroupListed| {
        let (state, protocol_type) = (state_from_proto(listed.state)?, listed.protocol_type);
        let kind = if listed.is_consumer { GroupKind::Consumer } else { GroupKind::Classic };
        Ok(GroupListed { group: listed.group, state, protocol_type, kind })
    };
    answer.groups.into_iter().map(one).collect()
}

pub(super) fn state_to_proto(state: GroupState) -> proto::GroupStateName {
    use proto::GroupStateName as Name;
    match state {
        GroupState::Empty => Name::GroupStateEmpty,
        GroupState::PreparingRebalance => Name::GroupStatePreparingRebalance,
        GroupState::CompletingRebalance => Name::GroupStateCompletingRebalance,
        GroupState::Stable => Name::GroupStateStable,
        GroupState::Assigning => Name::GroupStateAssigning,
        GroupState::Reconciling => Name::GroupStateReconciling,
    }
}

pub(super) fn state_from_proto(state: i32) -> Result<GroupState, CodecError> {
    use proto::GroupStateName as Name;
    Ok(match Name::try_from(state) {
        Ok(Name::GroupStateEmpty) => GroupState::Empty,
        Ok(Name::GroupStatePreparingRebalance) => GroupState::PreparingRebalance,
        Ok(Name::GroupStateCompletingRebalance) => GroupState::CompletingRebalance,
        Ok(Name::GroupStateStable) => GroupState::Stable,
        Ok(Name::GroupStateAssigning) => GroupState::Assigning,
        Ok(Name::GroupStateReconciling) => GroupState::Reconciling,
        Ok(Name::GroupStateUnspecified) | Err(_) => {
            return Err(CodecError::Missing("group state"));
        }
    })
}
