//! What handlers of admin requests share: names, manual assignments, deadlines, and which agent
//! answers for what.

use std::{future::Future, time::Duration};

use aquifer_metadata::watch::{CatalogNode, CatalogTopic};
use aquifer_storage::model::{NodeId, PartitionIndex, TopicPartition};

use crate::{broker::Broker, placement, wire::error_code::ErrorCode};

/// A refusal, with Kafka's words where it has some.
pub type Refusal = (ErrorCode, Option<String>);

/// Every operation on a topic, as bits: READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE and both of
/// configs. Without an authorizer everybody may do everything.
pub const TOPIC_OPERATIONS: i32 = 3576;

/// Every operation on the cluster.
pub const CLUSTER_OPERATIONS: i32 = 8096;

/// Every operation on a group.
pub const GROUP_OPERATIONS: i32 = 3400;

/// Kafka's words for a partition or a topic that does not exist.
pub const NOT_HOSTED: &str = "This server does not host this topic-partition.";

/// Partitions of one topic at most: more would make one answer, and one topic's row, unreasonably
/// large.
pub const TOPIC_PARTITIONS_MAX: i32 = 100_000;

/// Kafka's words for a request above its own limit.
pub const TOO_MANY_PARTITIONS: &str = "Excessively large number of partitions per request.";

/// The longest topic name, in UTF-16 units as Java counts.
const NAME_LENGTH_MAX: usize = 249;

/// The operations of an answer: told only when asked for.
pub fn operations(asked: bool, all: i32) -> i32 {
    if asked { all } else { i32::MIN }
}

/// Why a topic cannot have this name.
pub fn topic_name_refusal(name: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let why = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if NAME_LENGTH_MAX < name.encode_utf16().count() => {
            format!("the length of '{name}' is longer than the max allowed length 249")
        }
        _ if !name.bytes().all(legal) => format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        ),
        _ => return None,
    };
    Some(format!("Topic name is invalid: {why}"))
}

/// Refuses a partition's replicas that Kafka would refuse: none, nodes that do not live, one twice,
/// or another number than `factor`. Where they are means nothing here.
pub fn check_assignment(
    replicas: &[i32],
    nodes: &[CatalogNode],
    factor: Option<usize>,
) -> Result<(), Refusal> {
    let refused = |why: String| {
        let words = format!("The manual partition assignment includes {why}");
        Err((ErrorCode::InvalidReplicaAssignment, Some(words)))
    };
    if replicas.is_empty() {
        return refused("an empty replica list.".to_owned());
    }
    let mut ascending = replicas.to_vec();
    ascending.sort_unstable();
    for (at, id) in ascending.iter().enumerate() {
        if !nodes.iter().any(|node| node.node_id.value() == *id) {
            return refused(format!("broker {id}, but no such broker is registered."));
        }
        if 0 < at && ascending[at - 1] == *id {
            return refused(format!("the broker {id} more than once."));
        }
    }
    match factor {
        Some(factor) if factor != replicas.len() => refused(format!(
            "a partition with {} replica(s), but this is not consistent with previous \
             partitions, which have {factor} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

/// The agents told for a partition to a client of `zone`, its home first.
pub fn replicas(
    topic: &CatalogTopic,
    index: i32,
    nodes: &[CatalogNode],
    zone: Option<&str>,
) -> Vec<i32> {
    let partition = TopicPartition { topic: topic.id, partition: PartitionIndex::new(index) };
    let listed = placement::replicas(partition, nodes, zone, topic.replication_factor);
    listed.into_iter().map(NodeId::value).collect()
}

/// What this agent answers for where clients ask every agent and join what they hear: each thing
/// has one owner among the live nodes, whatever the asking client's zone.
pub struct Ownership {
    nodes: Vec<CatalogNode>,
    this: NodeId,
}

impl Ownership {
    /// As of now.
    pub async fn now(broker: &Broker) -> Self {
        Self { this: broker.session.registered().await.node_id, nodes: broker.nodes() }
    }

    /// Whether this agent answers for what is placed like `slot`.
    pub fn covers(&self, slot: TopicPartition) -> bool {
        let owner = placement::replicas(slot, &self.nodes, None, 1);
        owner.first() == Some(&self.this)
    }
}

/// What `work` gives within a request's own deadline. A deadline that has passed begins nothing;
/// work that is given up may still happen.
pub async fn within<T>(
    broker: &Broker,
    timeout_ms: i32,
    work: impl Future<Output = T>,
) -> Option<T> {
    let limit = u64::try_from(timeout_ms).ok().filter(|millis| 0 < *millis)?;
    broker.seams.timeout(Duration::from_millis(limit), work).await
}

#[cfg(test)]
mod tests {
    use aquifer_metadata::machine::command::HostPort;
    use aquifer_storage::model::SessionId;

    use super::*;

    fn nodes(ids: &[i32]) -> Vec<CatalogNode> {
        let node = |id: &i32| CatalogNode {
            node_id: NodeId::new(*id),
            session: SessionId::new(1),
            advertised: HostPort { host: "h".to_owned(), port: 1 },
            zone: None,
        };
        ids.iter().map(node).collect()
    }

    #[test]
    fn names_are_refused_in_kafkas_words() {
        let refused = |name: &str| topic_name_refusal(name).unwrap_or_default();
        assert_eq!(refused(""), "Topic name is invalid: the empty string is not allowed");
        assert_eq!(refused(".."), "Topic name is invalid: '..' is not allowed");
        assert!(refused(&"ä".repeat(250)).ends_with("the max allowed length 249"));
        assert!(refused(&"ä".repeat(249)).ends_with("'.', '_' and '-'"), "characters, not bytes");
        let characters = "Topic name is invalid: 'a b' contains one or more characters other than \
                          ASCII alphanumerics, '.', '_' and '-'";
        assert_eq!(refused("a b"), characters);
        assert_eq!(topic_name_refusal(&"x".repeat(249)), None);
    }

    #[test]
    fn an_assignment_names_live_nodes_once_and_as_many_as_the_others() {
        let nodes = nodes(&[1, 2, 3]);
        let words = |replicas: &[i32], factor: Option<usize>| {
            let refused = check_assignment(replicas, &nodes, factor);
            refused.err().and_then(|(_, words)| words).unwrap_or_default()
        };
        assert_eq!(words(&[3, 1], Some(2)), "");
        assert!(words(&[], None).ends_with("an empty replica list."));
        assert!(words(&[1, 9], None).contains("broker 9, but no such broker is registered."));
        assert!(words(&[2, 1, 2], None).ends_with("the broker 2 more than once."));
        assert!(words(&[1], Some(2)).contains("with 1 replica(s), but this is not consistent"));
    }
}
