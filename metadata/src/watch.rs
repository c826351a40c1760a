//! What each agent is told: the catalog whole and then as deltas, partitions and groups on demand.
//!
//! `Applied(index)` says how far all of it is true. Nothing goes back: indexes and pointers only
//! grow for one agent, also over a reconnect, because the agent sends the highest index it has
//! seen.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use aquifer_storage::model::{Lineage, LogIndex, NodeId, SessionId, TopicId, TopicPartition};
use tokio::sync::mpsc;

use crate::machine::{
    command::HostPort,
    config::{ConfigKey, Overrides},
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
    /// The config overrides of one resource changed.
    Configs(Arc<ResourceConfigs>),
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
    /// Config overrides of brokers, groups and client metrics, where there are some.
    pub configs: BTreeMap<ConfigKey, Arc<Overrides>>,
}

/// The config overrides of a resource that is not a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceConfigs {
    /// The resource.
    pub key: ConfigKey,
    /// Its overrides; none any more when empty.
    pub overrides: Arc<Overrides>,
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

/// How far the taker of a channel of events has come. Takers work event by event, so one that has
/// taken `Applied(index)` out of its channel has taken in everything before it: nothing needs to
/// come back from it.
#[derive(Debug, Default)]
pub struct Taken {
    sent: u64,
    /// The agent list or the catalog changed since the last `Applied`.
    changed: bool,
    /// Each `Applied` behind such a change: its place in the channel, and what it said.
    waiting: VecDeque<(u64, LogIndex)>,
    seen: Option<LogIndex>,
}

impl Taken {
    /// `event` is about to be put into the channel.
    pub fn sending(&mut self, event: &WatchEvent) {
        self.sent += 1;
        match event {
            WatchEvent::Catalog(_)
            | WatchEvent::Topic(_)
            | WatchEvent::TopicGone(_)
            | WatchEvent::Configs(_)
            | WatchEvent::Nodes(_) => self.changed = true,
            WatchEvent::Applied(index) if std::mem::take(&mut self.changed) => {
                self.waiting.push_back((self.sent, *index));
            }
            WatchEvent::Applied(_)
            | WatchEvent::PartitionState(_)
            | WatchEvent::PartitionAdvanced { .. }
            | WatchEvent::PartitionGone(..)
            | WatchEvent::Group { .. } => {}
        }
    }

    /// Completes with each step that is worth a report: how far the catalog was taken in. Pends
    /// while there is none. To be asked on the task that puts events into the channel.
    ///
    /// # Cancel safety
    /// Dropping the future loses no step.
    pub async fn step(&mut self, events: &mpsc::Sender<WatchEvent>) -> LogIndex {
        loop {
            let in_channel = events.max_capacity() - events.capacity();
            let taken = self.sent.saturating_sub(in_channel as u64);
            let mut step = None;
            while let Some((_, index)) = self.waiting.pop_front_if(|(at, _)| *at <= taken) {
                step = Some(index);
            }
            if let Some(index) = step {
                self.seen = Some(index);
                return index;
            }
            if self.waiting.is_empty() {
                return std::future::pending().await;
            }
            // All of the channel is free once all of it was taken; closed, nobody takes.
            if events.reserve_many(events.max_capacity()).await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The last step, if there was one.
    pub fn seen(&self) -> Option<LogIndex> {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn put(taken: &mut Taken, events: &mpsc::Sender<WatchEvent>, event: WatchEvent) {
        taken.sending(&event);
        events.try_send(event).unwrap();
    }

    #[test]
    fn a_step_is_made_once_the_applied_behind_a_change_was_taken_and_not_before() {
        let (events, mut taker) = mpsc::channel(8);
        let mut taken = Taken::default();
        let applied = |index| WatchEvent::Applied(LogIndex::new(index));
        put(&mut taken, &events, WatchEvent::TopicGone(TopicId::from_bytes([1; 16])));
        put(&mut taken, &events, applied(4));
        put(&mut taken, &events, applied(5));
        put(&mut taken, &events, WatchEvent::Nodes(Vec::new()));
        put(&mut taken, &events, applied(6));
        assert_eq!(taken.step(&events).now_or_never(), None);
        taker.try_recv().unwrap();
        assert_eq!(taken.step(&events).now_or_never(), None, "it may be at the topic still");
        taker.try_recv().unwrap();
        assert_eq!(taken.step(&events).now_or_never(), Some(LogIndex::new(4)));
        assert_eq!(taken.step(&events).now_or_never(), None, "told once");
        while taker.try_recv().is_ok() {}
        assert_eq!(taken.step(&events).now_or_never(), Some(LogIndex::new(6)));
        put(&mut taken, &events, applied(7));
        while taker.try_recv().is_ok() {}
        assert_eq!(taken.step(&events).now_or_never(), None, "nothing changed");
        assert_eq!(taken.seen(), Some(LogIndex::new(6)));
    }
}
