//! AlterPartitionReassignments (45) v0-1. Agents hold no data, so there is nothing to move: what
//! asks for the agents that a partition is told with is done, anything else is refused.

use aquifer_metadata::watch::{CatalogNode, CatalogTopic};

use super::{
    Request,
    admin::{self, Refusal},
    errors::admin_error,
    topics,
};
use crate::{
    broker::Broker,
    wire::{
        codec::Str,
        error_code::ErrorCode,
        messages::{
            AlterPartitionReassignmentsRequest as Reassign,
            AlterPartitionReassignmentsResponse as Response,
            AlterPartitionReassignmentsResponseResponses as Topic,
            AlterPartitionReassignmentsResponseResponsesPartitions as Partition,
        },
    },
};

pub async fn handle(broker: &Broker, request: &Request<'_>, body: Reassign) -> Response {
    let may_change_factor = body.allow_replication_factor_change;
    let whole = |code: ErrorCode, words: Option<String>| Response {
        allow_replication_factor_change: may_change_factor,
        error_code: code.code(),
        error_message: words.map(Into::into),
        ..Response::default()
    };
    if let Err(error) = broker.view.fresh().await {
        return whole(admin_error(&error), Some(error.to_string()));
    }
    let nodes = broker.nodes();
    let place = Place { nodes: &nodes, zone: broker.zone_of(request), may_change_factor };
    let mut responses = Vec::with_capacity(body.topics.len());
    for asked in body.topics {
        let topic = broker.view.topic_by_name(&asked.name);
        let partitions = asked.partitions.into_iter().map(|one| {
            let (index, replicas) = (one.partition_index, one.replicas.as_deref());
            let judged = place.judge(&asked.name, topic.as_deref(), index, replicas);
            let (code, words) = judged.err().unwrap_or_default();
            Partition {
                partition_index: index,
                error_code: code.code(),
                error_message: words.map(Into::into),
            }
        });
        let partitions = partitions.collect();
        responses.push(Topic { name: asked.name, partitions });
    }
    Response { responses, ..whole(ErrorCode::None, None) }
}

struct Place<'a> {
    nodes: &'a [CatalogNode],
    zone: Option<&'a str>,
    may_change_factor: bool,
}

impl Place<'_> {
    /// `replicas` are those asked for; none cancels what is under way.
    fn judge(
        &self,
        name: &Str,
        topic: Option<&CatalogTopic>,
        index: i32,
        replicas: Option<&[i32]>,
    ) -> Result<(), Refusal> {
        let unknown = |words: String| Err((ErrorCode::UnknownTopicOrPartition, Some(words)));
        let Some(topic) = topic else {
            return unknown(format!("Unable to find a topic named {name}."));
        };
        if topics::partition(topic, index).is_none() {
            return unknown(format!("Unable to find partition {name}:{index}."));
        }
        let Some(replicas) = replicas else {
            return Err((ErrorCode::NoReassignmentInProgress, None));
        };
        admin::check_assignment(replicas, self.nodes, None)?;
        let present = admin::replicas(topic, index, self.nodes, self.zone);
        if replicas == present {
            return Ok(());
        }
        if !self.may_change_factor && replicas.len() != present.len() {
            let words = format!(
                "The replication factor is changed from {} to {}",
                present.len(),
                replicas.len()
            );
            return Err((ErrorCode::InvalidReplicationFactor, Some(words)));
        }
        let words = format!(
            "Partition {name}-{index} is served by {present:?}, which follows from the live \
             agents and cannot be chosen: no agent holds data, so there is nothing to move."
        );
        Err((ErrorCode::InvalidReplicaAssignment, Some(words)))
    }
}

#[cfg(test)]
mod tests {
    use aquifer_metadata::machine::command::HostPort;
    use aquifer_storage::model::{NodeId, SessionId, TopicId};

    use super::*;

    #[test]
    fn only_what_is_so_already_can_be_asked_for_and_nothing_is_ever_under_way() {
        let node = |id: i32| CatalogNode {
            node_id: NodeId::new(id),
            session: SessionId::new(1),
            advertised: HostPort { host: "h".to_owned(), port: 1 },
            zone: None,
        };
        let nodes = [1, 2, 3].map(node);
        let topic = CatalogTopic {
            id: TopicId::from_bytes([7; 16]),
            name: "t".to_owned(),
            partitions: 1,
            replication_factor: 2,
            configs: Default::default(),
        };
        let judge = |may_change_factor, index, replicas: Option<&[i32]>| {
            let place = Place { nodes: &nodes, zone: None, may_change_factor };
            let judged = place.judge(&Str::from_static("t"), Some(&topic), index, replicas);
            judged.err().map_or(ErrorCode::None, |(code, _)| code)
        };
        let present = admin::replicas(&topic, 0, &nodes, None);
        let other: Vec<i32> = present.iter().rev().copied().collect();
        assert_eq!(judge(true, 0, Some(&present)), ErrorCode::None);
        assert_eq!(judge(true, 0, Some(&other)), ErrorCode::InvalidReplicaAssignment);
        assert_eq!(judge(true, 0, Some(&[1, 2, 3])), ErrorCode::InvalidReplicaAssignment);
        assert_eq!(judge(false, 0, Some(&[1, 2, 3])), ErrorCode::InvalidReplicationFactor);
        assert_eq!(judge(true, 0, None), ErrorCode::NoReassignmentInProgress);
        assert_eq!(judge(true, 1, None), ErrorCode::UnknownTopicOrPartition);
    }
}
