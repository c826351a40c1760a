//! Where a client is sent [pure]: a stable ranking of the live agents for each partition, so that
//! caches stay warm while agents come and go. Every agent can serve every partition.

pub mod zone;

use aquifer_metadata::watch::CatalogNode;
use aquifer_storage::model::{NodeId, PartitionIndex, TopicId, TopicPartition};

/// The agents listed for a partition: its home agent in the client's `zone` first, then the rest
/// of that zone, then other zones, each by rank; as many as the replication factor asks and as
/// live, no id twice. Empty only when no agent lives.
pub fn replicas(
    partition: TopicPartition,
    nodes: &[CatalogNode],
    zone: Option<&str>,
    factor: u16,
) -> Vec<NodeId> {
    let mut ranked: Vec<(bool, u64, NodeId)> = nodes
        .iter()
        .map(|node| {
            let elsewhere = zone.is_some() && node.zone.as_deref() != zone;
            (elsewhere, !score(partition, node.node_id), node.node_id)
        })
        .collect();
    ranked.sort_unstable();
    ranked.dedup_by_key(|(_, _, node)| *node);
    ranked.truncate(usize::from(factor.max(1)));
    ranked.into_iter().map(|(_, _, node)| node).collect()
}

/// Where a thing with a name of its own, like a group, is placed: as this partition would be.
pub fn slot_of(name: &[u8]) -> TopicPartition {
    let mut hash = [0; 16];
    for (at, byte) in name.iter().enumerate() {
        hash[at % 16] = u8::wrapping_mul(hash[at % 16], 31).wrapping_add(*byte);
    }
    TopicPartition { topic: TopicId::from_bytes(hash), partition: PartitionIndex::new(0) }
}

/// Rendezvous score: the agent with the highest one is the partition's home. Removing an agent
/// moves only its own partitions.
fn score(partition: TopicPartition, node: NodeId) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let tail = partition.partition.value().to_le_bytes();
    let node = node.value().to_le_bytes();
    for byte in partition.topic.as_bytes().iter().chain(&tail).chain(&node) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV leaves the last bytes weakly mixed, and the node is last: finish as splitmix64 does.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use aquifer_metadata::machine::command::HostPort;
    use aquifer_storage::model::SessionId;

    use super::*;

    fn node(id: i32, zone: &str) -> CatalogNode {
        CatalogNode {
            node_id: NodeId::new(id),
            session: SessionId::new(id as u64),
            advertised: HostPort { host: "h".to_owned(), port: 1 },
            zone: Some(zone.to_owned()),
        }
    }

    fn partition(index: i32) -> TopicPartition {
        let topic = TopicId::from_bytes([7; 16]);
        TopicPartition { topic, partition: PartitionIndex::new(index) }
    }

    #[test]
    fn the_home_is_in_the_clients_zone() {
        let nodes = [node(1, "a"), node(2, "b"), node(3, "a"), node(4, "b")];
        for index in 0..100 {
            let listed = replicas(partition(index), &nodes, Some("b"), 3);
            assert!(listed[0].value() % 2 == 0 && listed[1].value() % 2 == 0);
            assert_eq!(listed.len(), 3);
        }
    }

    #[test]
    fn losing_an_agent_moves_only_its_own_partitions() {
        let nodes: Vec<_> = (1..=5).map(|id| node(id, "a")).collect();
        let mut homes = [0; 5];
        for index in 0..1000 {
            let before = replicas(partition(index), &nodes, None, 1)[0];
            let after = replicas(partition(index), &nodes[..4], None, 1)[0];
            homes[before.value() as usize - 1] += 1;
            assert!(before == after || before.value() == 5);
        }
        assert!(homes.iter().all(|count| (120..=280).contains(count)), "{homes:?}");
    }
}
