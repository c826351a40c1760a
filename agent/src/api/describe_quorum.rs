//! DescribeQuorum (55) v0-2: how the metadata group stands.

use aquifer_metadata::client::cluster::{GroupStatus, MemberStatus};

use super::{
    Request,
    quorum::{QUORUM_TOPIC, directory_id, replica_id},
};
use crate::{
    broker::Broker,
    config,
    wire::{
        error_code::ErrorCode,
        messages::{
            DescribeQuorumRequest, DescribeQuorumResponse, DescribeQuorumResponseNodes,
            DescribeQuorumResponseNodesListeners, DescribeQuorumResponseTopics,
            DescribeQuorumResponseTopicsPartitions,
            DescribeQuorumResponseTopicsPartitionsCurrentVoters as Voter,
            DescribeQuorumResponseTopicsPartitionsObservers as Observer,
        },
    },
};

/// What the listener of a metadata node is called, in lists of listeners.
const LISTENER: &str = "METADATA";

pub async fn handle(
    broker: &Broker,
    _request: &Request<'_>,
    body: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let asks_for_the_quorum = body.topics.len() == 1
        && body.topics[0].topic_name == *QUORUM_TOPIC
        && body.topics[0].partitions.len() == 1
        && body.topics[0].partitions[0].partition_index == 0;
    if !asks_for_the_quorum {
        return unknown(&body);
    }
    match broker.quorum.quorum().await {
        Ok(status) => described(&status, broker.seams.clock.wall().millis()),
        Err(error) => DescribeQuorumResponse {
            error_code: ErrorCode::NotLeaderOrFollower.code(),
            error_message: Some(error.to_string().into()),
            ..DescribeQuorumResponse::default()
        },
    }
}

/// Each partition asked for is one that this API does not know.
fn unknown(body: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = body.topics.iter().map(|topic| DescribeQuorumResponseTopics {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| DescribeQuorumResponseTopicsPartitions {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                ..DescribeQuorumResponseTopicsPartitions::default()
            })
            .collect(),
    });
    DescribeQuorumResponse { topics: topics.collect(), ..DescribeQuorumResponse::default() }
}

/// What only the leader knows of a member is -1 when another node answered.
struct Progress {
    log_end: i64,
    last_fetch_ms: i64,
    last_caught_up_ms: i64,
}

impl Progress {
    fn of(status: &GroupStatus, member: &MemberStatus, now_ms: i64) -> Self {
        let end = |index: u64| i64::try_from(index).map_or(i64::MAX, |index| index + 1);
        if status.leader == Some(member.id) && status.node == member.id {
            let log_end = end(status.last_index);
            return Self { log_end, last_fetch_ms: now_ms, last_caught_up_ms: now_ms };
        }
        let heard = member.silent_ms.and_then(|ms| i64::try_from(ms).ok());
        let heard = heard.map_or(-1, |silent| now_ms - silent);
        let is_level = member.matched_index == Some(status.last_index);
        Self {
            log_end: member.matched_index.map_or(-1, end),
            last_fetch_ms: heard,
            last_caught_up_ms: if is_level { heard } else { -1 },
        }
    }
}

fn described(status: &GroupStatus, now_ms: i64) -> DescribeQuorumResponse {
    let progress = |member: &MemberStatus| Progress::of(status, member, now_ms);
    let (voters, observers): (Vec<_>, Vec<_>) =
        status.members.iter().partition(|member| member.voter);
    let voters = voters.into_iter().map(|member| {
        let Progress { log_end, last_fetch_ms, last_caught_up_ms } = progress(member);
        Voter {
            replica_id: replica_id(member.id),
            replica_directory_id: directory_id(member.incarnation),
            log_end_offset: log_end,
            last_fetch_timestamp: last_fetch_ms,
            last_caught_up_timestamp: last_caught_up_ms,
        }
    });
    let observers = observers.into_iter().map(|member| {
        let Progress { log_end, last_fetch_ms, last_caught_up_ms } = progress(member);
        Observer {
            replica_id: replica_id(member.id),
            replica_directory_id: directory_id(member.incarnation),
            log_end_offset: log_end,
            last_fetch_timestamp: last_fetch_ms,
            last_caught_up_timestamp: last_caught_up_ms,
        }
    });
    let partition = DescribeQuorumResponseTopicsPartitions {
        partition_index: 0,
        leader_id: status.leader.map_or(-1, replica_id),
        leader_epoch: i32::try_from(status.term).unwrap_or(i32::MAX),
        high_watermark: i64::try_from(status.committed_index).map_or(i64::MAX, |index| index + 1),
        current_voters: voters.collect(),
        observers: observers.collect(),
        ..DescribeQuorumResponseTopicsPartitions::default()
    };
    let topic = DescribeQuorumResponseTopics {
        topic_name: QUORUM_TOPIC.into(),
        partitions: vec![partition],
    };
    DescribeQuorumResponse {
        topics: vec![topic],
        nodes: status.members.iter().filter(|member| member.voter).map(node).collect(),
        ..DescribeQuorumResponse::default()
    }
}

/// The node of `aquifer up` is reached by nobody, and has no listener.
fn node(member: &MemberStatus) -> DescribeQuorumResponseNodes {
    let address = config::parse_host_port(&member.address).ok();
    let listener = address.map(|address| DescribeQuorumResponseNodesListeners {
        name: LISTENER.into(),
        host: address.host.as_str().into(),
        port: address.port,
    });
    DescribeQuorumResponseNodes {
        node_id: replica_id(member.id),
        listeners: listener.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_and_observers_are_told_as_the_leader_sees_them() {
        let member = |id, voter, matched_index| MemberStatus {
            id,
            voter,
            matched_index,
            address: format!("node-{id}:9340"),
            silent_ms: matched_index.map(|_| 20),
            incarnation: id + 50,
        };
        let status = GroupStatus {
            node: 1,
            leader: Some(1),
            term: 7,
            last_index: 99,
            committed_index: 98,
            members: vec![
                member(1, true, None),
                member(2, true, Some(99)),
                member(3, true, None),
                member(104, false, Some(40)),
            ],
            ..GroupStatus::default()
        };
        let answer = described(&status, 1000);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.leader_id, partition.leader_epoch), (1, 7));
        assert_eq!(partition.high_watermark, 99);
        let told = |voter: &Voter| {
            let Voter { replica_id, log_end_offset, .. } = *voter;
            (replica_id, log_end_offset, voter.last_fetch_timestamp, voter.last_caught_up_timestamp)
        };
        let voters: Vec<_> = partition.current_voters.iter().map(told).collect();
        assert_eq!(voters, [(1, 100, 1000, 1000), (2, 100, 980, 980), (3, -1, -1, -1)]);
        let [observer] = &partition.observers[..] else { panic!("{partition:?}") };
        assert_eq!((observer.replica_id, observer.log_end_offset), (104, 41));
        assert_eq!((observer.last_fetch_timestamp, observer.last_caught_up_timestamp), (980, -1));
        assert_eq!(answer.nodes.len(), 3, "of voters only");
        assert_eq!(&*answer.nodes[1].listeners[0].host, "node-2");
    }
}
