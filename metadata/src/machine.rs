//! The replicated state and how entries change it: synchronous, total, deterministic, in memory.
//!
//! Every replica applies every entry; only the leader runs the effects. This file dispatches; each
//! aggregate has its own.
//!
//! # Invariants
//! - Equal entries on equal states give equal states, replies and effects on every replica.
//! - No entry makes apply panic: what only the state can decide is answered as a rejection.
//! - A clone costs O(1) and shares everything: a snapshot never blocks apply.

pub mod command;
pub mod config;
pub mod effect;
pub mod group;
pub mod query;
pub mod time;

mod commit;
pub mod invariants;
pub(crate) mod node;
pub(crate) mod object;
pub(crate) mod partition_log;
pub(crate) mod producer;
pub mod restore;
pub mod session;
pub mod topic;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aquifer_storage::model::{
    LeaderEpoch, Lineage, LogIndex, NodeId, Offset, ProducerId, SessionId, TopicId, TopicPartition,
};

use self::{
    command::{
        Command, CreatePartitions, CreateTopic, DeleteRecords, DeleteRecordsRejected, Entry,
        GroupCommand, NodeRejected, ProducerIdBlock, RegisterSession, Registered, Reply,
        SessionFenced, TopicRejected,
    },
    config::{AlterConfigs, ConfigKey, ConfigRejected, ConfigResource, Configs, Overrides},
    effect::{Effect, Pointers, Run},
    group::{Groups, LivenessMember, surroundings::Surroundings},
    node::Nodes,
    object::Objects,
    partition_log::{PartitionLogs, Row},
    producer::{ProducerIds, ProducerState, Producers},
    query::{ActiveProducer, Answer, PartitionRuns, Query, TimeSpec},
    session::Sessions,
    time::Clocks,
    topic::Topics,
};
use crate::watch::{Catalog, CatalogNode, CatalogTopic, PartitionState, WINDOW_RUNS_MAX};

pub use self::time::{Elapsed, WallTime};

/// The newest level of entries this build applies. A node stops at an entry above it.
pub const LEVEL: u32 = 3;

/// Rows below log starts that one entry forgets: about a millisecond's work.
const SURPLUS_ROWS_MAX: usize = 4096;

/// Rows one query answers at most.
pub const QUERY_RUNS_MAX: u32 = 4096;

/// Partitions, producers or groups one query lists at most: a few hundred kilobytes.
pub const QUERY_LISTED_MAX: u32 = 10_000;

/// What a state begins with, once for every lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The cluster's id.
    pub cluster_id: String,
    /// The lineage; its number is every partition's leader epoch.
    pub lineage: Lineage,
}

/// What applying an entry gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One reply per command, in order.
    pub replies: Vec<Reply>,
    /// What the world should learn.
    pub effects: Vec<Effect>,
}

/// The replicated state.
#[derive(Clone, Debug)]
pub struct MetadataState {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) index: LogIndex,
    pub(crate) clocks: Clocks,
    pub(crate) topics: Topics,
    pub(crate) logs: PartitionLogs,
    pub(crate) objects: Objects,
    pub(crate) producers: Producers,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) sessions: Sessions,
    pub(crate) nodes: Nodes,
    pub(crate) groups: Groups,
    pub(crate) configs: Configs,
}

impl MetadataState {
    /// The empty state of a lineage.
    pub fn new(genesis: Genesis) -> Self {
        Self {
            genesis: Arc::new(genesis),
            index: LogIndex::default(),
            clocks: Clocks::default(),
            topics: Topics::default(),
            logs: PartitionLogs::default(),
            objects: Objects::default(),
            producers: Producers::default(),
            producer_ids: ProducerIds::default(),
            sessions: Sessions::default(),
            nodes: Nodes::default(),
            groups: Groups::default(),
            configs: Configs::default(),
        }
    }

    /// Finds what is derived from several aggregates, once a snapshot's rows are all in place.
    pub(crate) fn complete(&mut self) {
        let sessions = &self.sessions;
        self.objects.restore_open(|object| sessions.may_name(object));
    }

    /// Applies the entry at `index`: first lets time pass to its stamp, then its commands in order.
    /// At the end producers are forgotten that were silent too long or are too many, and rows of
    /// deleted records.
    pub fn apply(&mut self, index: LogIndex, term: u64, entry: &Entry) -> Applied {
        self.index = index;
        self.clocks.advance(entry.stamp, term);
        let mut effects = Vec::new();
        self.pass_time(&mut effects);
        let replies =
            entry.commands.iter().map(|command| self.dispatch(command, &mut effects)).collect();
        let surplus = self.logs.forget_surplus(SURPLUS_ROWS_MAX);
        self.release(surplus.into_iter());
        self.producers.sweep(self.clocks.elapsed(), producer::STATES_MAX);
        Applied { replies, effects }
    }

    /// Lets everything happen that fell due, capped per entry.
    fn pass_time(&mut self, effects: &mut Vec<Effect>) {
        let now = self.clocks.elapsed();
        self.sessions.sweep(now);
        self.topics.sweep(now);
        let around = Around { topics: &self.topics, configs: &self.configs };
        let changed = self.groups.tick(now, self.clocks.wall(), &around);
        effects.extend(changed.into_iter().map(group_changed));
    }

    fn dispatch(&mut self, command: &Command, effects: &mut Vec<Effect>) -> Reply {
        match command {
            Command::RegisterSession(register) => self.register_session(register, effects),
            Command::FenceSession { session } => self.fence_session(*session, effects),
            Command::Commit(part) => Reply::Commit(self.commit(part, effects)),
            Command::CreateTopic(create) => Reply::TopicCreated(self.create_topic(create, effects)),
            Command::DeleteTopic { topic } => {
                Reply::TopicDeleted(self.delete_topic(*topic, effects))
            }
            Command::AllocateProducerIds { session } => {
                Reply::ProducerIds(self.allocate_producer_ids(*session))
            }
            Command::DeleteRecords(delete) => {
                Reply::RecordsDeleted(self.delete_records(delete, effects))
            }
            Command::Group(command) => {
                let (now, wall) = (self.clocks.elapsed(), self.clocks.wall());
                let around = Around { topics: &self.topics, configs: &self.configs };
                let applied = self.groups.apply(command, now, wall, &around);
                effects.extend(applied.changed.into_iter().map(group_changed));
                Reply::Group(applied.reply)
            }
            Command::CreatePartitions(create) => {
                Reply::PartitionsCreated(self.create_partitions(*create, effects))
            }
            Command::UnregisterNode { node } => {
                Reply::NodeUnregistered(self.unregister_node(*node))
            }
            Command::Tick => Reply::Done,
            Command::AlterConfigs(alter) => {
                Reply::ConfigsAltered(self.alter_configs(alter, effects))
            }
        }
    }

    fn register_session(&mut self, register: &RegisterSession, effects: &mut Vec<Effect>) -> Reply {
        let node_id = self.nodes.intern(&register.advertised);
        let (session, is_new) = self.sessions.register(register, node_id);
        if is_new {
            effects.push(Effect::NodesChanged);
        }
        // A retry is told what the first try was, whatever address it names now.
        let node_id = self.sessions.get(session).map_or(node_id, |session| session.node);
        Reply::Registered(Registered { session, node_id })
    }

    fn fence_session(&mut self, session: SessionId, effects: &mut Vec<Effect>) -> Reply {
        if let Some(low_seq) = self.sessions.fence(session, self.clocks.elapsed()) {
            self.objects.close(session, (low_seq, None), self.index);
            effects.extend([Effect::SessionFenced(session), Effect::NodesChanged]);
        }
        Reply::Done
    }

    fn create_topic(
        &mut self,
        create: &CreateTopic,
        effects: &mut Vec<Effect>,
    ) -> Result<TopicId, TopicRejected> {
        if self.topics.create(create)? {
            self.groups.catalog_changed();
            effects.push(Effect::TopicChanged(create.topic));
        }
        Ok(create.topic)
    }

    fn delete_topic(
        &mut self,
        topic: TopicId,
        effects: &mut Vec<Effect>,
    ) -> Result<(), TopicRejected> {
        if !self.topics.delete(topic, self.clocks.elapsed())? {
            return Ok(()); // A retry.
        }
        for log in self.logs.remove_topic(topic) {
            self.release(log.rows());
        }
        self.producers.remove_topic(topic);
        self.groups.catalog_changed();
        effects.push(Effect::TopicChanged(topic));
        effects.extend(self.groups.topic_deleted(topic).into_iter().map(group_changed));
        Ok(())
    }

    fn alter_configs(
        &mut self,
        alter: &AlterConfigs,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ConfigRejected> {
        match &alter.resource {
            ConfigResource::Topic(topic) => {
                let held = self.topics.get(*topic).ok_or(ConfigRejected::UnknownTopic)?;
                let after = alter.changed(&held.configs)?;
                if after != held.configs {
                    self.topics.configure(*topic, after);
                    effects.push(Effect::TopicChanged(*topic));
                }
            }
            ConfigResource::Other(key) => {
                if self.configs.alter(key, alter)? {
                    effects.push(Effect::ConfigsChanged(key.clone()));
                }
            }
        }
        Ok(())
    }

    fn create_partitions(
        &mut self,
        create: CreatePartitions,
        effects: &mut Vec<Effect>,
    ) -> Result<(), TopicRejected> {
        if self.topics.grow(create.topic, create.partitions)? {
            self.groups.catalog_changed();
            effects.push(Effect::TopicChanged(create.topic));
        }
        Ok(())
    }

    /// Agents only know nodes that live: nobody is told.
    fn unregister_node(&mut self, node: NodeId) -> Result<(), NodeRejected> {
        if self.sessions.live().any(|(_, session)| session.node == node) {
            return Err(NodeRejected::Live);
        }
        if self.nodes.forget(node) { Ok(()) } else { Err(NodeRejected::Unknown) }
    }

    fn delete_records(
        &mut self,
        delete: &DeleteRecords,
        effects: &mut Vec<Effect>,
    ) -> Result<Offset, DeleteRecordsRejected> {
        let partition = delete.partition;
        if !self.topics.has(partition) {
            return Err(DeleteRecordsRejected::UnknownPartition);
        }
        let Pointers { log_start, high_watermark, .. } = self.pointers(partition);
        let to = delete.before.unwrap_or(high_watermark);
        if high_watermark < to {
            return Err(DeleteRecordsRejected::AboveHighWatermark { high_watermark });
        }
        if to <= log_start {
            return Ok(log_start);
        }
        self.logs.raise_log_start(partition, to);
        // No row is replaced: only the pointers moved.
        let (from, runs, pointers) = (high_watermark, Vec::new(), self.pointers(partition));
        effects.push(Effect::PartitionAdvanced { partition, from, runs, pointers });
        Ok(to)
    }

    /// Takes removed rows off their objects, and condemns those that are garbage now.
    fn release(&mut self, rows: impl Iterator<Item = Row>) {
        for row in rows {
            let Some(unused) = self.objects.remove_run(row.object) else { continue };
            if !self.sessions.may_name(&unused) {
                self.objects.condemn(row.object, self.index);
            }
        }
    }

    fn allocate_producer_ids(
        &mut self,
        session: SessionId,
    ) -> Result<ProducerIdBlock, SessionFenced> {
        if !self.sessions.is_live(session) {
            return Err(SessionFenced);
        }
        let count = ProducerIds::BLOCK;
        Ok(ProducerIdBlock { first: self.producer_ids.allocate(), count })
    }
}

/// Topics and configs as groups see them.
struct Around<'a> {
    topics: &'a Topics,
    configs: &'a Configs,
}

impl Surroundings for Around<'_> {
    fn has(&self, partition: TopicPartition) -> bool {
        self.topics.has(partition)
    }

    fn topic(&self, name: &str) -> Option<(TopicId, u32)> {
        self.topics.named(name).map(|topic| (topic.id, topic.partitions))
    }

    fn each_topic(&self, tell: &mut dyn FnMut(&str, TopicId)) {
        self.topics.iter().for_each(|topic| tell(&topic.name, topic.id));
    }

    fn name_of(&self, topic: TopicId) -> Option<String> {
        self.topics.get(topic).map(|topic| topic.name.clone())
    }

    fn partitions(&self, topic: TopicId) -> Option<u32> {
        self.topics.get(topic).map(|topic| topic.partitions)
    }

    fn config(&self, of: &ConfigKey, name: &str) -> Option<String> {
        self.configs.get(of)?.get(name).cloned()
    }
}

fn listed(limit: u32) -> usize {
    limit.min(QUERY_LISTED_MAX) as usize
}

fn active_producer((producer, state): (ProducerId, &ProducerState)) -> Option<ActiveProducer> {
    let last = state.batches.last()?;
    let (last_sequence, last_timestamp) = (last.last, last.max_timestamp);
    Some(ActiveProducer { producer, epoch: state.epoch, last_sequence, last_timestamp })
}

fn group_changed((group, version): (String, u64)) -> Effect {
    Effect::GroupChanged { group, version }
}

/// Reads, each of the state at [`MetadataState::applied_index`].
impl MetadataState {
    /// Answers a query.
    pub fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Runs { partition, offset, limit } => {
                let exists = self.topics.has(*partition);
                Answer::Runs(exists.then(|| PartitionRuns {
                    pointers: self.pointers(*partition),
                    runs: self.runs_from(
                        *partition,
                        *offset,
                        (*limit).min(QUERY_RUNS_MAX) as usize,
                    ),
                }))
            }
            Query::RunByTime { partition, offset, time } => {
                let exists = self.topics.has(*partition);
                Answer::Runs(exists.then(|| PartitionRuns {
                    pointers: self.pointers(*partition),
                    runs: self.run_by_time(*partition, *offset, *time).into_iter().collect(),
                }))
            }
            Query::Group(query) => {
                let around = Around { topics: &self.topics, configs: &self.configs };
                Answer::Group(self.groups.query(query, &around))
            }
            Query::Sizes { from, to, limit } => {
                let logs = self.logs.range(*from, *to).take(listed(*limit));
                Answer::Sizes(logs.map(|(at, log)| (at, log.record_bytes())).collect())
            }
            Query::Producers { partition, after, limit } => {
                let exists = self.topics.has(*partition);
                Answer::Producers(exists.then(|| {
                    let states = self.producers.of_partition(*partition, *after);
                    states.take(listed(*limit)).filter_map(active_producer).collect()
                }))
            }
            Query::Groups { after, limit } => {
                Answer::Groups(self.groups.listed(after.as_deref(), listed(*limit)))
            }
        }
    }

    /// Topics and live agents.
    pub fn catalog(&self) -> Catalog {
        Catalog {
            cluster_id: self.genesis.cluster_id.clone(),
            lineage: Some(self.genesis.lineage),
            topics: self.topics.catalog(),
            nodes: self.nodes(),
            configs: self.configs.iter().map(|(key, held)| (key.clone(), held.clone())).collect(),
        }
    }

    /// The overrides of a resource that is not a topic; none are no resource.
    pub fn resource_configs(&self, key: &ConfigKey) -> Arc<Overrides> {
        self.configs.get(key).cloned().unwrap_or_default()
    }

    /// A topic as agents know it.
    pub fn catalog_topic(&self, topic: TopicId) -> Option<Arc<CatalogTopic>> {
        self.topics.get(topic).cloned()
    }

    /// Live agents by node id; agents behind one address are one node, told with the newest
    /// session.
    pub fn nodes(&self) -> Vec<CatalogNode> {
        let mut nodes: BTreeMap<NodeId, CatalogNode> = BTreeMap::new();
        for (id, session) in self.sessions.live() {
            let node = CatalogNode {
                node_id: session.node,
                session: id,
                advertised: session.advertised.clone(),
                zone: session.zone.clone(),
            };
            nodes.insert(session.node, node);
        }
        nodes.into_values().collect()
    }

    /// A partition's pointers and last rows; `None` when it does not exist.
    pub fn partition_state(&self, partition: TopicPartition) -> Option<PartitionState> {
        if !self.topics.has(partition) {
            return None;
        }
        let pointers = self.pointers(partition);
        let rows = self.logs.get(partition).map(|log| log.last_rows(WINDOW_RUNS_MAX));
        let rows = rows.unwrap_or_default();
        let readable = rows.iter().filter(|row| pointers.log_start < row.next());
        let runs = readable.map(|row| self.run(row)).collect();
        Some(PartitionState { partition, index: self.index, runs, pointers })
    }

    /// A group's version; 0 when it does not exist.
    pub fn group_version(&self, group: &str) -> u64 {
        self.groups.version(group)
    }

    /// Sessions the leader judges the silence of, ascending.
    pub fn live_sessions(&self) -> Vec<SessionId> {
        self.sessions.live().map(|(id, _)| id).collect()
    }

    /// Whether the session lives.
    pub fn is_live_session(&self, session: SessionId) -> bool {
        self.sessions.is_live(session)
    }

    /// Group members the leader judges the silence of.
    pub fn group_members_for_liveness(&self) -> Vec<LivenessMember> {
        let around = Around { topics: &self.topics, configs: &self.configs };
        self.groups.members_for_liveness(&around).collect()
    }

    /// The commands of a round of expiry of committed offsets, at most `limit`.
    pub fn expirable_offsets(
        &self,
        wall: WallTime,
        retention: Duration,
        limit: usize,
    ) -> Vec<GroupCommand> {
        let name_of = |topic| self.topics.get(topic).map(|topic| topic.name.clone());
        self.groups.expirable((wall, retention), &name_of, limit)
    }

    /// The next deadline that needs a `Tick` when nothing else is proposed. What only frees memory
    /// (fenced sessions, deleted ids, producers) has none: it waits for the next entry.
    pub fn pending_deadline(&self) -> Option<Elapsed> {
        self.groups.next_deadline()
    }

    /// Elapsed time as of the last entry.
    pub fn elapsed(&self) -> Elapsed {
        self.clocks.elapsed()
    }

    /// The leader's wall time as of the last entry.
    pub fn wall(&self) -> WallTime {
        self.clocks.wall()
    }

    /// The index of the last entry applied.
    pub fn applied_index(&self) -> LogIndex {
        self.index
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        &self.genesis.cluster_id
    }

    /// Partitions of all topics together.
    pub fn partition_count(&self) -> u64 {
        self.topics.partition_count()
    }

    /// The lineage.
    pub fn lineage(&self) -> Lineage {
        self.genesis.lineage
    }

    /// A hash of everything: equal on replicas at one index. Reads the whole state; take it from a
    /// clone, off the apply path.
    pub fn state_hash(&self) -> u64 {
        crate::codec::snapshot::state_hash(self)
    }

    /// The leader epoch of every partition.
    fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch::new(i32::try_from(self.genesis.lineage.number).unwrap_or(i32::MAX))
    }

    fn pointers(&self, partition: TopicPartition) -> Pointers {
        let log = self.logs.get(partition);
        let high_watermark = log.map_or(Offset::ZERO, |log| log.high_watermark());
        Pointers {
            log_start: log.map_or(Offset::ZERO, |log| log.log_start()),
            last_stable: high_watermark,
            high_watermark,
            leader_epoch: self.leader_epoch(),
        }
    }

    fn runs_from(&self, partition: TopicPartition, offset: Offset, limit: usize) -> Vec<Run> {
        let Some(log) = self.logs.get(partition) else { return Vec::new() };
        let offset = offset.max(log.log_start());
        log.rows_from(offset).take(limit).map(|row| self.run(&row)).collect()
    }

    fn run_by_time(
        &self,
        partition: TopicPartition,
        offset: Offset,
        time: TimeSpec,
    ) -> Option<Run> {
        let log = self.logs.get(partition)?;
        let offset = offset.max(log.log_start());
        let oldest = match time {
            TimeSpec::Since(oldest) => oldest,
            TimeSpec::Newest => log.newest_since(offset)?,
        };
        log.first_since(offset, oldest).map(|row| self.run(&row))
    }

    fn run(&self, row: &Row) -> Run {
        let object = self.objects.get(row.object).expect("a row names an interned object");
        Run {
            offsets: row.offsets(),
            object: object.name,
            object_bytes: object.bytes,
            position: row.position,
            length: row.length,
            max_timestamp: row.max_timestamp,
            offsets_final: row.offsets_final,
        }
    }
}
