//! What each agent is told: the catalog whole and then as deltas, partitions and groups on demand.
//!
//! `Applied(index)` says how far all of it is true. Nothing goes back: indexes and pointers only
//! grow for one agent, also over a reconnect, because the agent sends the highest index it has
//! seen.

use std::{collections::BTreeMap, sync::Arc};

use aquifer_storage::model::{Lineage, LogIndex, NodeId, SessionId, TopicId, TopicPartition};

use crate::machine::{
    command::HostPort,
    effect::{Pointers, Run},
};

/// What an agent asks of its watch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRequest {
    /// Push this partition's state and advances.
    Watch(TopicPartition),
    /// Stop doing so.
    Unwatch(TopicPartition),
    /// Push this group's version.
    WatchGroup(String),
    /// Stop doing so.
    UnwatchGroup(String),
}

/// What a metadata node pushes.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// The whole catalog; the first event, and again after a gap.
    Catalog(Arc<Catalog>),
    /// A topic was created or changed.
    Topic(Arc<CatalogTopic>),
    /// A topic is gone.
    TopicGone(TopicId),
    /// The live agents, whole.
    Nodes(Vec<CatalogNode>),
    /// A watched partition, whole: the last rows and the pointers.
    PartitionState(PartitionState),
    /// A watched partition moved: rows at or beyond `from` are replaced by `runs`.
    PartitionAdvanced {
        /// The partition.
        partition: TopicPartition,
        /// The index before; a mismatch with what the agent holds means resync (watch again).
        from_index: LogIndex,
        /// The index of this advance.
        index: LogIndex,
        /// Base of the first replaced row.
        from: aquifer_storage::model::Offset,
        /// The new rows.
        runs: Vec<Run>,
        /// The pointers afterwards.
        pointers: Pointers,
    },
    /// A watched partition does not exist (any more).
    PartitionGone(TopicPartition, LogIndex),
    /// A watched group's version.
    Group {
        /// The group.
        group: String,
        /// Its version; 0 when the group does not exist.
        version: u64,
    },
    /// Everything up to this index has been told.
    Applied(LogIndex),
}

/// A watched partition as of `index`.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionState {
    /// The partition.
    pub partition: TopicPartition,
    /// The applied index.
    pub index: LogIndex,
    /// The last rows, at most [`WINDOW_RUNS_MAX`], contiguous up to the high watermark.
    pub runs: Vec<Run>,
    /// The pointers.
    pub pointers: Pointers,
}

/// Rows pushed for a watched partition: more would cost every agent memory for history that
/// catch-up readers ask for by query.
pub const WINDOW_RUNS_MAX: usize = 64;

/// Topics, configs and live agents: what Metadata answers are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// The cluster's id.
    pub cluster_id: String,
    /// The lineage; its number is every partition's leader epoch.
    pub lineage: Option<Lineage>,
    /// Topics by id.
    pub topics: BTreeMap<TopicId, Arc<CatalogTopic>>,
    /// Live agents.
    pub nodes: Vec<CatalogNode>,
}

/// A topic as agents know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTopic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Its partition count.
    pub partitions: u32,
    /// The replication factor it was created with.
    pub replication_factor: u16,
    /// Config overrides.
    pub configs: BTreeMap<String, String>,
}

/// A live agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogNode {
    /// Kafka's node id; agents behind one address share it.
    pub node_id: NodeId,
    /// One session of that node.
    pub session: SessionId,
    /// The address clients are told.
    pub advertised: HostPort,
    /// The zone, Kafka's rack.
    pub zone: Option<String>,
}
