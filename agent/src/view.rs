//! What this agent knows of metadata: one watch stream, followed for ever and shared by all.
//!
//! [`View`] is a cloneable handle over the catalog, the applied index and the watched partitions
//! and groups. [`ViewService`] is the one task that follows the stream; it reconnects with backoff
//! and re-asks for everything that is still watched.
//!
//! # Invariants
//! - Nothing goes back: the applied index, a partition's index and its pointers only grow.
//! - The catalog and the partitions show an index before [`View::applied`] reaches it. After a
//!   reconnect or a gap it stands still until every partition shown was told of again.
//! - A snapshot is of one index: its rows and pointers belong together.
//!
//! # Not here
//! Rows below the window (asked by query), and what a fetch makes of the rows (`fetch`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aquifer_metadata::{
    client::{CallError, Metadata},
    watch::{Catalog, CatalogTopic, PartitionState, WatchRequest},
};
use aquifer_storage::{
    error::Outcome,
    model::{LogIndex, TopicId, TopicPartition},
    seam::{MonoTime, Seams},
};
use tokio::sync::{Notify, oneshot, watch};

mod follow;
mod index;
mod watches;
mod window;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
pub(crate) mod testing;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;

pub use follow::ViewService;
pub use watches::Watches;

use index::CatalogIndex;
use watches::Bell;

/// How long an unused watch is kept: a consumer that polls slowly must not cost a resync per poll.
pub const UNWATCH_AFTER: Duration = Duration::from_secs(60);

/// Silent metadata for this long makes clients better off at another agent. An agent whose clock is
/// 10 % slow notices before a leader whose clock is 10 % fast fences it (RELIABILITY G6).
pub const SILENT_AFTER: Duration = Duration::from_secs(12);

/// The longest [`View::fresh`] takes: as long as one call to metadata may.
const FRESH_MAX: Duration = Duration::from_secs(5);

/// A watched partition as this agent knows it.
#[derive(Clone, Debug, PartialEq)]
pub enum PartitionSnapshot {
    /// Asked for, not answered yet.
    Pending,
    /// It does not exist (any more).
    Gone,
    /// Its last rows and its pointers.
    Known(Arc<PartitionState>),
}

/// What this agent knows of metadata.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
}

/// The state behind every handle. No lock is held across an await, and no two at once but a bell's
/// inside that of `interest`.
struct Shared {
    metadata: Arc<dyn Metadata>,
    seams: Seams,
    catalog: RwLock<CatalogIndex>,
    complete: watch::Sender<bool>,
    applied: watch::Sender<LogIndex>,
    interest: Mutex<Interest>,
    /// The follower looks at `interest.pending` again.
    interested: Notify,
    fresh: Mutex<FreshRound>,
    heard_ms: AtomicU64,
    next_bell: AtomicU64,
}

/// Who watches what. `pending` holds one request per key, so it is bounded by what is watched.
#[derive(Default)]
struct Interest {
    partitions: BTreeMap<TopicPartition, Watched<PartitionSnapshot>>,
    groups: BTreeMap<String, Watched<Option<u64>>>,
    pending: Pending,
    /// Partitions that show what an earlier stream, or this one before a gap, told.
    unconfirmed: BTreeSet<TopicPartition>,
    /// Told by the stream, and true once `unconfirmed` is empty.
    told: LogIndex,
    /// Bells of partitions that show something new, rung when nothing more is there to be taken.
    unrung: BTreeMap<u64, Arc<Bell>>,
}

/// Requests not yet handed to the stream: `true` watches, `false` unwatches.
#[derive(Default)]
struct Pending {
    partitions: BTreeMap<TopicPartition, bool>,
    groups: BTreeMap<String, bool>,
}

struct Watched<T> {
    value: watch::Sender<T>,
    /// Rung with each new value, for those who wait for one of many.
    bells: BTreeMap<u64, Arc<Bell>>,
    users: usize,
    idle_since: MonoTime,
}

type FreshReply = oneshot::Sender<Result<LogIndex, CallError>>;

/// Callers of [`View::fresh`] that the next round will answer.
#[derive(Default)]
struct FreshRound {
    running: bool,
    waiting: Vec<FreshReply>,
}

impl View {
    /// A view of `metadata`, and the service that keeps it true.
    pub fn new(metadata: Arc<dyn Metadata>, seams: Seams) -> (Self, ViewService) {
        let shared = Arc::new(Shared {
            metadata,
            catalog: RwLock::default(),
            complete: watch::Sender::new(false),
            applied: watch::Sender::new(LogIndex::default()),
            interest: Mutex::default(),
            interested: Notify::new(),
            fresh: Mutex::default(),
            heard_ms: AtomicU64::new(millis(seams.clock.mono())),
            next_bell: AtomicU64::new(0),
            seams,
        });
        (Self { shared: Arc::clone(&shared) }, ViewService::new(shared))
    }

    /// Topics, configs and live agents. Keep it for one request only: holding it makes the next
    /// change copy.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog().catalog()
    }

    /// The topic of this name.
    pub fn topic_by_name(&self, name: &str) -> Option<Arc<CatalogTopic>> {
        self.shared.catalog().topic_by_name(name)
    }

    /// The topic of this id.
    pub fn topic(&self, topic: TopicId) -> Option<Arc<CatalogTopic>> {
        self.shared.catalog().topic(topic)
    }

    /// How far everything this view shows is true.
    pub fn applied(&self) -> LogIndex {
        *self.shared.applied.borrow()
    }

    /// Completes once the view has shown everything up to `index`. Bound it with a timeout: it
    /// takes as long as the stream is away.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn wait_applied(&self, index: LogIndex) {
        let mut applied = self.shared.applied.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = applied.wait_for(|applied| index <= *applied).await;
    }

    /// Completes once the catalog is complete for the first time.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn ready(&self) {
        let _ = self.shared.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Makes the view linearizable: it then shows every command answered anywhere before this
    /// call. One round serves every caller waiting when it starts. Takes a few seconds at most.
    ///
    /// # Errors
    /// There is no leader, or the stream is away or behind: the view may be stale.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn fresh(&self) -> Result<LogIndex, CallError> {
        let caught_up = self.shared.seams.timeout(FRESH_MAX, self.catch_up()).await;
        caught_up.unwrap_or_else(|| Err(unavailable("the view does not catch up")))
    }

    async fn catch_up(&self) -> Result<LogIndex, CallError> {
        let (reply, answer) = oneshot::channel();
        let start = {
            let mut round = lock(&self.shared.fresh);
            round.waiting.push(reply);
            !std::mem::replace(&mut round.running, true)
        };
        if start {
            let shared = Arc::clone(&self.shared);
            self.shared.seams.spawn("view-fresh", read_index_rounds(shared));
        }
        let index = answer.await.unwrap_or_else(|_| Err(unavailable("the agent is stopping")))?;
        self.wait_applied(index).await;
        Ok(index)
    }

    /// Watches a partition. It is unwatched [`UNWATCH_AFTER`] the last handle is dropped.
    pub fn watch(&self, partition: TopicPartition) -> PartitionWatch {
        let mut interest = lock(&self.shared.interest);
        let receiver = interest.watch(partition);
        let ask = !interest.pending.partitions.is_empty();
        drop(interest);
        if ask {
            self.shared.interested.notify_one();
        }
        PartitionWatch { shared: Arc::clone(&self.shared), partition, receiver }
    }

    /// Watches a group's version.
    pub fn watch_group(&self, group: &str) -> GroupWatch {
        let mut interest = lock(&self.shared.interest);
        let Interest { groups, pending, .. } = &mut *interest;
        let watched = groups.entry(group.to_owned()).or_insert_with(|| {
            pending.groups.insert(group.to_owned(), true);
            Watched::new(None)
        });
        watched.users += 1;
        let receiver = watched.value.subscribe();
        drop(interest);
        self.shared.interested.notify_one();
        GroupWatch { shared: Arc::clone(&self.shared), group: group.to_owned(), receiver }
    }

    /// For how long the stream has said nothing; see [`SILENT_AFTER`].
    pub fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.shared.heard_ms.load(Ordering::Relaxed));
        self.shared.seams.clock.mono().since_zero().saturating_sub(heard)
    }

    /// Whether the stream has said nothing for [`SILENT_AFTER`].
    pub fn is_silent(&self) -> bool {
        SILENT_AFTER <= self.silent_for()
    }

    /// Completes once the stream has said nothing for [`SILENT_AFTER`].
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn silent(&self) {
        loop {
            let left = SILENT_AFTER.saturating_sub(self.silent_for());
            if left.is_zero() {
                return;
            }
            self.shared.seams.sleep(left).await;
        }
    }
}

impl Interest {
    fn watch(&mut self, partition: TopicPartition) -> watch::Receiver<PartitionSnapshot> {
        let Self { partitions, pending, unconfirmed, .. } = self;
        let watched = partitions.entry(partition).or_insert_with(|| {
            pending.partitions.insert(partition, true);
            Watched::new(PartitionSnapshot::Pending)
        });
        watched.users += 1;
        // A partition that was gone may have been added since.
        if *watched.value.borrow() == PartitionSnapshot::Gone {
            watched.value.send_replace(PartitionSnapshot::Pending);
            pending.partitions.insert(partition, true);
            unconfirmed.remove(&partition);
        }
        watched.value.subscribe()
    }
}

impl Shared {
    fn catalog(&self) -> std::sync::RwLockReadGuard<'_, CatalogIndex> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) {
        self.heard_ms.store(millis(self.seams.clock.mono()), Ordering::Relaxed);
    }
}

impl<T> Watched<T> {
    fn new(value: T) -> Self {
        Self {
            value: watch::Sender::new(value),
            bells: BTreeMap::new(),
            users: 0,
            idle_since: MonoTime::from_zero(Duration::ZERO),
        }
    }

    fn release(&mut self, now: MonoTime) {
        self.users -= 1;
        self.idle_since = now;
    }

    fn is_idle(&self, now: MonoTime) -> bool {
        self.users == 0 && UNWATCH_AFTER <= now.since(self.idle_since)
    }
}

/// One user's hold on a watched partition.
pub struct PartitionWatch {
    shared: Arc<Shared>,
    partition: TopicPartition,
    receiver: watch::Receiver<PartitionSnapshot>,
}

impl PartitionWatch {
    /// The partition.
    pub fn partition(&self) -> TopicPartition {
        self.partition
    }

    /// What is known now.
    pub fn current(&self) -> PartitionSnapshot {
        self.receiver.borrow().clone()
    }

    /// Completes once the snapshot differs from the one last seen by this or [`Self::known`] (at
    /// first: from the one at [`View::watch`]).
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn changed(&mut self) -> PartitionSnapshot {
        // The sender outlives every watch: an entry in use is never removed.
        let _ = self.receiver.changed().await;
        self.receiver.borrow_and_update().clone()
    }

    /// The state, once answered; `None` when the partition does not exist.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn known(&mut self) -> Option<Arc<PartitionState>> {
        let snapshot =
            self.receiver.wait_for(|snapshot| *snapshot != PartitionSnapshot::Pending).await;
        match snapshot.as_deref() {
            Ok(PartitionSnapshot::Known(state)) => Some(Arc::clone(state)),
            _ => None,
        }
    }
}

impl Drop for PartitionWatch {
    fn drop(&mut self) {
        let now = self.shared.seams.clock.mono();
        if let Some(watched) = lock(&self.shared.interest).partitions.get_mut(&self.partition) {
            watched.release(now);
        }
    }
}

/// One user's hold on a watched group.
pub struct GroupWatch {
    shared: Arc<Shared>,
    group: String,
    receiver: watch::Receiver<Option<u64>>,
}

impl GroupWatch {
    /// The group's version; `None` before it was answered, 0 when the group does not exist.
    pub fn version(&self) -> Option<u64> {
        *self.receiver.borrow()
    }

    /// Completes once the group's version is above `version`. Bound it with a timeout.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn passed(&mut self, version: u64) -> u64 {
        let passed =
            self.receiver.wait_for(|known| known.is_some_and(|known| version < known)).await;
        passed.ok().and_then(|known| *known).unwrap_or(version)
    }
}

impl Drop for GroupWatch {
    fn drop(&mut self) {
        let now = self.shared.seams.clock.mono();
        if let Some(watched) = lock(&self.shared.interest).groups.get_mut(&self.group) {
            watched.release(now);
        }
    }
}

/// Asks for a read index as long as somebody waits for one: a round answers only callers that
/// were waiting before it began.
async fn read_index_rounds(shared: Arc<Shared>) {
    loop {
        let waiting = {
            let mut round = lock(&shared.fresh);
            if round.waiting.is_empty() {
                round.running = false;
                return;
            }
            std::mem::take(&mut round.waiting)
        };
        let answer = shared.metadata.read_index().await;
        for reply in waiting {
            // A caller that went away no longer needs the answer.
            let _ = reply.send(answer.clone());
        }
    }
}

fn unavailable(reason: &str) -> CallError {
    CallError { call: "read_index", outcome: Outcome::Unavailable, reason: reason.to_owned() }
}

/// A poisoned lock means a panic while it was held; the state is still whole, since every
/// section only moves values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(at: MonoTime) -> u64 {
    u64::try_from(at.since_zero().as_millis()).unwrap_or(u64::MAX)
}

/// The stream requests of what is pending, unwatches first; takes them.
fn take_requests(pending: &mut Pending) -> Vec<WatchRequest> {
    let partitions = std::mem::take(&mut pending.partitions)
        .into_iter()
        .map(|(key, on)| if on { WatchRequest::Watch(key) } else { WatchRequest::Unwatch(key) });
    let groups = std::mem::take(&mut pending.groups).into_iter().map(|(key, on)| {
        if on { WatchRequest::WatchGroup(key) } else { WatchRequest::UnwatchGroup(key) }
    });
    partitions.chain(groups).collect()
}
