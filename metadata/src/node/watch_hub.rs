//! Fans effects out to watch streams, each with a bounded backlog.
//!
//! Apply calls in under the machine's lock, so a subscriber's backlog holds every change after
//! the state it read, in order; changes the state already contained are dropped by index when the
//! backlog is drained. A backlog above its bound is thrown away and the stream starts over from
//! the state. Lock order: the machine, then the hub.

pub mod stream;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use aquifer_storage::model::{LogIndex, Offset, SessionId, TopicId, TopicPartition};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    machine::{
        MetadataState,
        config::Overrides,
        effect::{Effect, Pointers, Run},
    },
    raft::state_machine::{ApplySink, MachineCell},
    watch::{CatalogNode, CatalogTopic, ResourceConfigs},
};

/// Unsent bytes above which a stream starts over: beyond this, state is shorter than its history.
pub const BACKLOG_BYTES_MAX: usize = 4 << 20;
const EVENT_BYTES: usize = 96;

/// A change on its way to a stream.
#[derive(Clone)]
enum Told {
    Topic(LogIndex, Arc<CatalogTopic>),
    TopicGone(LogIndex, TopicId),
    Configs(LogIndex, Arc<ResourceConfigs>),
    Nodes(Arc<Vec<CatalogNode>>),
    Advanced(Arc<Advance>),
    Group(Arc<str>, u64),
}

struct Advance {
    partition: TopicPartition,
    index: LogIndex,
    from: Offset,
    runs: Vec<Run>,
    pointers: Pointers,
}

impl Told {
    fn bytes(&self) -> usize {
        EVENT_BYTES
            + match self {
                Self::Topic(_, topic) => topic.name.len() + bytes_of(&topic.configs),
                Self::Configs(_, told) => told.key.name.len() + bytes_of(&told.overrides),
                Self::TopicGone(..) => 0,
                Self::Nodes(nodes) => nodes.len() * EVENT_BYTES,
                Self::Advanced(advance) => advance.runs.len() * size_of::<Run>(),
                Self::Group(group, _) => group.len(),
            }
    }
}

fn bytes_of(overrides: &Overrides) -> usize {
    overrides.iter().map(|(name, value)| EVENT_BYTES + name.len() + value.len()).sum()
}

#[derive(Default)]
struct Subscriber {
    backlog: VecDeque<Told>,
    bytes: usize,
    /// The backlog was thrown away: start over from the state.
    start_over: bool,
    wake: Arc<Notify>,
}

impl Subscriber {
    fn push(&mut self, told: Told) {
        if self.start_over {
            return; // The state to be read will contain it.
        }
        self.bytes += told.bytes();
        if BACKLOG_BYTES_MAX < self.bytes {
            self.start_over();
        } else {
            self.backlog.push_back(told);
        }
    }

    fn start_over(&mut self) {
        *self = Self { start_over: true, wake: self.wake.clone(), ..Self::default() };
    }
}

#[derive(Default)]
struct Inner {
    subscribers: BTreeMap<u64, Subscriber>,
    next_subscriber: u64,
    partitions: HashMap<TopicPartition, BTreeSet<u64>>,
    groups: HashMap<String, BTreeSet<u64>>,
    absent: BTreeSet<SessionId>,
    /// When a topic last came, changed or went, or configs changed.
    catalog_changed: LogIndex,
}

/// The hub of one node.
pub struct WatchHub {
    inner: Mutex<Inner>,
    applied: watch::Sender<LogIndex>,
    /// Who hashes the state at every so many entries.
    hashing: OnceLock<(u64, mpsc::Sender<(LogIndex, MetadataState)>)>,
}

impl Default for WatchHub {
    fn default() -> Self {
        let (applied, _) = watch::channel(LogIndex::default());
        Self { inner: Mutex::default(), applied, hashing: OnceLock::new() }
    }
}

impl WatchHub {
    /// Hands a clone of the state to `states` at each index that `every` divides. One that finds
    /// the one before still under way is left out.
    pub(super) fn hash_every(&self, every: u64, states: mpsc::Sender<(LogIndex, MetadataState)>) {
        let first = self.hashing.set((every.max(1), states));
        debug_assert!(first.is_ok(), "a hub has one node");
    }

    /// How far this node has applied and told the log.
    pub fn applied(&self) -> watch::Receiver<LogIndex> {
        self.applied.subscribe()
    }

    /// When the catalog last changed, as far as this node knows: never too early.
    pub fn catalog_index(&self) -> LogIndex {
        self.inner().catalog_changed
    }

    /// The live sessions that are not absent.
    pub fn present_sessions(&self, machine: &MachineCell) -> Vec<SessionId> {
        let machine = machine.lock();
        let inner = self.inner();
        let live = machine.state.live_sessions().into_iter();
        live.filter(|session| !inner.absent.contains(session)).collect()
    }

    /// Unsent bytes of the longest backlog.
    #[cfg(test)]
    pub(super) fn backlog_bytes(&self) -> usize {
        self.inner().subscribers.values().map(|one| one.bytes).max().unwrap_or(0)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the hub is held")
    }

    /// Leaves these sessions out of node lists and tells everyone if that changes them.
    pub fn set_absent(&self, absent: BTreeSet<SessionId>, machine: &MachineCell) {
        if self.inner().absent == absent {
            return;
        }
        let machine = machine.lock();
        let mut inner = self.inner();
        inner.absent = absent;
        inner.tell_nodes(&machine.state);
    }

    /// Starts a backlog. What is applied from now on is in it.
    fn subscribe(&self) -> (u64, Arc<Notify>) {
        let mut inner = self.inner();
        let id = inner.next_subscriber;
        inner.next_subscriber += 1;
        let subscriber = Subscriber::default();
        let wake = subscriber.wake.clone();
        inner.subscribers.insert(id, subscriber);
        (id, wake)
    }

    fn unsubscribe(&self, id: u64) {
        let mut inner = self.inner();
        inner.subscribers.remove(&id);
        inner.partitions.retain(|_, interested| {
            interested.remove(&id);
            !interested.is_empty()
        });
        inner.groups.retain(|_, interested| {
            interested.remove(&id);
            !interested.is_empty()
        });
    }

    fn watch_partition(&self, id: u64, partition: TopicPartition) {
        self.inner().partitions.entry(partition).or_default().insert(id);
    }

    fn unwatch_partition(&self, id: u64, partition: &TopicPartition) {
        let mut inner = self.inner();
        if let Some(interested) = inner.partitions.get_mut(partition) {
            interested.remove(&id);
            if interested.is_empty() {
                inner.partitions.remove(partition);
            }
        }
    }

    fn watch_group(&self, id: u64, group: &str) {
        self.inner().groups.entry(group.to_owned()).or_default().insert(id);
    }

    fn unwatch_group(&self, id: u64, group: &str) {
        let mut inner = self.inner();
        if let Some(interested) = inner.groups.get_mut(group) {
            interested.remove(&id);
            if interested.is_empty() {
                inner.groups.remove(group);
            }
        }
    }

    /// Takes a backlog, whether it must start over, and how far it reaches.
    fn drain(&self, id: u64) -> (Vec<Told>, bool, LogIndex) {
        let mut inner = self.inner();
        let applied = *self.applied.borrow();
        let subscriber = inner.subscribers.get_mut(&id).expect("a stream drains until it ends");
        subscriber.bytes = 0;
        let start_over = std::mem::take(&mut subscriber.start_over);
        (subscriber.backlog.drain(..).collect(), start_over, applied)
    }

    /// The live agents that are not absent.
    fn present_nodes(&self, state: &MetadataState) -> Vec<CatalogNode> {
        present(state, &self.inner().absent)
    }
}

/// If everyone is absent, the silence is more likely ours, and an empty list helps nobody.
fn present(state: &MetadataState, absent: &BTreeSet<SessionId>) -> Vec<CatalogNode> {
    let all = state.nodes();
    let present: Vec<_> =
        all.iter().filter(|node| !absent.contains(&node.session)).cloned().collect();
    if present.is_empty() { all } else { present }
}

impl Inner {
    fn tell_all(&mut self, told: &Told) {
        for subscriber in self.subscribers.values_mut() {
            subscriber.push(told.clone());
            subscriber.wake.notify_one();
        }
    }

    fn tell(&mut self, ids: &BTreeSet<u64>, told: &Told) {
        for id in ids {
            if let Some(subscriber) = self.subscribers.get_mut(id) {
                subscriber.push(told.clone());
                subscriber.wake.notify_one();
            }
        }
    }

    fn tell_nodes(&mut self, state: &MetadataState) {
        let nodes = Told::Nodes(Arc::new(present(state, &self.absent)));
        self.tell_all(&nodes);
    }

    fn tell_effect(&mut self, index: LogIndex, effect: Effect, state: &MetadataState) {
        match effect {
            Effect::TopicChanged(topic) => {
                self.catalog_changed = index;
                let told = match state.catalog_topic(topic) {
                    Some(topic) => Told::Topic(index, topic),
                    None => Told::TopicGone(index, topic),
                };
                self.tell_all(&told);
            }
            Effect::ConfigsChanged(key) => {
                self.catalog_changed = index;
                let overrides = state.resource_configs(&key);
                let told = Arc::new(ResourceConfigs { key, overrides });
                self.tell_all(&Told::Configs(index, told));
            }
            Effect::PartitionAdvanced { partition, from, runs, pointers } => {
                if let Some(ids) = self.partitions.get(&partition).cloned() {
                    let advance = Advance { partition, index, from, runs, pointers };
                    self.tell(&ids, &Told::Advanced(Arc::new(advance)));
                }
            }
            Effect::GroupChanged { group, version } => {
                if let Some(ids) = self.groups.get(&group).cloned() {
                    self.tell(&ids, &Told::Group(group.into(), version));
                }
            }
            Effect::NodesChanged => self.tell_nodes(state),
            // Its own heartbeat tells it; everyone else learns by `NodesChanged`.
            Effect::SessionFenced(_) => {}
        }
    }
}

/// Joins the advances of each partition: an entry may carry many parts, and a stream tells a
/// partition's news by index, so a second one of the same index would be taken for known.
fn one_advance_each(effects: Vec<Effect>) -> Vec<Effect> {
    let mut joined: Vec<Effect> = Vec::with_capacity(effects.len());
    let mut places: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    for effect in effects {
        let Effect::PartitionAdvanced { partition, from, runs, pointers } = effect else {
            joined.push(effect);
            continue;
        };
        match places.get(&partition).and_then(|place| joined.get_mut(*place)) {
            Some(Effect::PartitionAdvanced { from: first, runs: held, pointers: last, .. }) => {
                held.retain(|run| run.offsets.base < from);
                held.extend(runs);
                (*first, *last) = ((*first).min(from), pointers);
            }
            _ => {
                places.insert(partition, joined.len());
                joined.push(Effect::PartitionAdvanced { partition, from, runs, pointers });
            }
        }
    }
    joined
}

impl ApplySink for WatchHub {
    fn applied(&self, index: LogIndex, effects: Vec<Effect>, state: &MetadataState) {
        if let Some((every, states)) = self.hashing.get()
            && index.value().is_multiple_of(*every)
        {
            let _ = states.try_send((index, state.clone())); // Left out: see `hash_every`.
        }
        let mut inner = self.inner();
        for effect in one_advance_each(effects) {
            inner.tell_effect(index, effect, state);
        }
        // Under the hub's lock, so that a drain never reports an index it has not told.
        self.applied.send_replace(index);
    }

    fn installed(&self, index: LogIndex, _state: &MetadataState) {
        let mut inner = self.inner();
        for subscriber in inner.subscribers.values_mut() {
            subscriber.start_over();
            subscriber.wake.notify_one();
        }
        inner.catalog_changed = index;
        self.applied.send_replace(index);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
