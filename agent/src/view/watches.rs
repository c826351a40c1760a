//! A connection's hold on the partitions it fetches: kept from request to request, so that a
//! request costs neither a subscription nor a timer per partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::Ordering},
};

use aquifer_storage::model::TopicPartition;
use futures::FutureExt;
use tokio::sync::{Notify, watch};

use super::{PartitionSnapshot, Shared, View, lock};

/// Watched partitions with one bell for all of them.
pub struct Watches {
    shared: Arc<Shared>,
    /// Its name among the bells of a partition.
    id: u64,
    bell: Arc<Bell>,
    held: BTreeMap<TopicPartition, Held>,
    round: u64,
}

/// What wakes a set of watches, and which of its partitions did: a set of ten thousand must not be
/// looked through for the one that moved.
#[derive(Default)]
pub(super) struct Bell {
    /// At most those that are held, and for a while those that were.
    pushed: Mutex<BTreeSet<TopicPartition>>,
    ring: Notify,
}

impl Bell {
    /// A partition shows something new. Who waits learns of it with the next [`Self::ring`].
    pub(super) fn note(&self, partition: TopicPartition) {
        lock(&self.pushed).insert(partition);
    }

    /// Wakes who waits.
    pub(super) fn ring(&self) {
        self.ring.notify_one();
    }
}

struct Held {
    receiver: watch::Receiver<PartitionSnapshot>,
    /// The last round that named it.
    round: u64,
}

impl View {
    /// An empty set of watches.
    pub fn watches(&self) -> Watches {
        let shared = Arc::clone(&self.shared);
        let id = shared.next_bell.fetch_add(1, Ordering::Relaxed);
        Watches { shared, id, bell: Arc::default(), held: BTreeMap::new(), round: 0 }
    }
}

impl Watches {
    /// Holds these partitions from now on, and no others.
    pub fn hold(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.round += 1;
        let (mut named, mut missing) = (0, Vec::new());
        for partition in partitions {
            match self.held.get_mut(&partition) {
                // A partition that was gone may have been added since.
                Some(held) if *held.receiver.borrow() == PartitionSnapshot::Gone => {
                    missing.push(partition);
                }
                Some(held) => {
                    named += usize::from(held.round != self.round);
                    held.round = self.round;
                }
                None => missing.push(partition),
            }
        }
        if named < self.held.len() {
            let round = self.round;
            let old = self.held.extract_if(.., |_, held| held.round != round);
            release(&self.shared, self.id, old.map(|(partition, _)| partition));
        }
        if !missing.is_empty() {
            self.add(missing);
        }
    }

    /// Holds these partitions from now on, and those that it held before.
    pub fn also_hold(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        let (mut gone, mut missing) = (Vec::new(), Vec::new());
        for partition in partitions {
            match self.held.get(&partition) {
                // One that was gone may have been added since.
                Some(held) if *held.receiver.borrow() == PartitionSnapshot::Gone => {
                    gone.push(partition);
                }
                Some(_) => {}
                None => missing.push(partition),
            }
        }
        self.let_go(gone.iter().copied());
        missing.extend(gone);
        if !missing.is_empty() {
            self.add(missing);
        }
    }

    /// Holds these no longer.
    pub fn let_go(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        let held = &mut self.held;
        let old = partitions.into_iter().filter(|partition| held.remove(partition).is_some());
        let old: Vec<TopicPartition> = old.collect();
        if !old.is_empty() {
            release(&self.shared, self.id, old.into_iter());
        }
    }

    fn add(&mut self, partitions: Vec<TopicPartition>) {
        let mut interest = lock(&self.shared.interest);
        for partition in partitions {
            if !self.held.contains_key(&partition) {
                let receiver = interest.watch(partition);
                let watched = interest.partitions.get_mut(&partition);
                let watched = watched.expect("it was just watched");
                watched.bells.insert(self.id, Arc::clone(&self.bell));
                self.held.insert(partition, Held { receiver, round: self.round });
            }
        }
        drop(interest);
        self.shared.interested.notify_one();
    }

    /// What is known now of a partition; `Pending` when it is not held.
    pub fn look(&self, partition: TopicPartition) -> PartitionSnapshot {
        let held = self.held.get(&partition);
        held.map_or(PartitionSnapshot::Pending, |held| held.receiver.borrow().clone())
    }

    /// Takes the partitions that were pushed since the last call: whoever looks at them afterwards
    /// sees it. Some may be held no longer.
    pub fn pushed(&self) -> BTreeSet<TopicPartition> {
        // At most one ring is kept. It goes first: a push in between is taken below and rings for
        // nothing, the other way round it would not be heard.
        let _ = self.bell.ring.notified().now_or_never();
        std::mem::take(&mut *lock(&self.bell.pushed))
    }

    /// Completes with the next push of any of the partitions since the last [`Self::pushed`]. May
    /// complete without one, once.
    ///
    /// # Cancel safety
    /// Dropping the future loses no push.
    pub async fn rung(&self) {
        self.bell.ring.notified().await;
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        release(&self.shared, self.id, self.held.keys().copied());
    }
}

fn release(shared: &Shared, bell: u64, partitions: impl Iterator<Item = TopicPartition>) {
    let now = shared.seams.clock.mono();
    let mut interest = lock(&shared.interest);
    for partition in partitions {
        if let Some(watched) = interest.partitions.get_mut(&partition) {
            watched.bells.remove(&bell);
            watched.release(now);
        }
    }
}
