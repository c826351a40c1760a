//! Chains: the order that the client of a batch relies on [pure].
//!
//! A chain is the batches of one (connection, producer id, partition) in the order the client
//! sent them. A batch may leave for metadata only behind its predecessors.
//!
//! # Invariants
//! - Batches of a chain are assigned to parts in the order they were admitted.
//! - A broken chain stays broken: once a producer's batch ended in a retriable definite error,
//!   nothing behind it is let in before that sequence, a higher epoch or a new connection arrives.
//! - Without a producer id the chain only orders.

use std::collections::{BTreeMap, VecDeque};

use aquifer_storage::model::{ProducerEpoch, ProducerId, Sequence, TopicPartition};

use super::{BatchId, ConnectionId};

/// Which chain a batch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChainKey {
    pub(super) connection: ConnectionId,
    pub(super) producer: Option<ProducerId>,
    pub(super) partition: TopicPartition,
}

/// Where in its producer's stream a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChainPlace {
    pub(super) epoch: ProducerEpoch,
    pub(super) sequence: Sequence,
}

/// Every chain with something to remember.
#[derive(Debug, Default)]
pub(super) struct Chains {
    chains: BTreeMap<ChainKey, Chain>,
}

#[derive(Debug, Default)]
struct Chain {
    /// Batches that were not sent.
    queue: VecDeque<Link>,
    /// Batches sent by an earlier session whose outcome is not known: what follows must wait,
    /// because it would go out on another stream.
    undecided_before: u32,
    broken: Option<Broken>,
}

impl Chain {
    /// How many batches at the front have a part.
    fn assigned(&self) -> usize {
        self.queue.partition_point(|link| link.assigned)
    }
}

#[derive(Debug)]
struct Link {
    id: BatchId,
    place: Option<ChainPlace>,
    assigned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Broken {
    at: ChainPlace,
    id: BatchId,
}

impl Chains {
    /// Takes a batch behind the others of its chain; `false` when the chain is broken there.
    pub(super) fn admit(&mut self, key: ChainKey, place: Option<ChainPlace>, id: BatchId) -> bool {
        let chain = self.chains.entry(key).or_default();
        if let (Some(broken), Some(place)) = (chain.broken, place) {
            if place.epoch > broken.at.epoch || place == broken.at {
                chain.broken = None;
            } else if place.epoch == broken.at.epoch && is_after(place.sequence, broken.at.sequence)
            {
                return false;
            }
            // An older epoch, or a retry of something before the break: metadata judges it.
        }
        chain.queue.push_back(Link { id, place, assigned: false });
        true
    }

    /// Whether every predecessor of `id` is sent or assigned to a part.
    pub(super) fn is_next(&self, key: &ChainKey, id: BatchId) -> bool {
        let Some(chain) = self.chains.get(key) else { return false };
        chain.undecided_before == 0
            && chain.queue.get(chain.assigned()).is_some_and(|link| link.id == id)
    }

    /// `id` has a place in a part.
    pub(super) fn assign(&mut self, key: &ChainKey, id: BatchId) {
        debug_assert!(self.is_next(key, id), "batches are assigned in the order of their chain");
        if let Some(chain) = self.chains.get_mut(key) {
            let at = chain.assigned();
            if let Some(link) = chain.queue.get_mut(at) {
                link.assigned = true;
            }
        }
    }

    /// `id` was sent: from here on only metadata knows what becomes of it.
    pub(super) fn sent(&mut self, key: &ChainKey, id: BatchId) {
        let Some(chain) = self.chains.get_mut(key) else { return };
        match chain.queue.front() {
            Some(front) if front.id == id => drop(chain.queue.pop_front()),
            _ => chain.queue.retain(|link| link.id != id),
        }
        self.tidy(key);
    }

    /// `id` ended in a retriable definite error: breaks the chain there and returns the later
    /// unsent batches of the same epoch, which end with it.
    pub(super) fn fail(
        &mut self,
        key: &ChainKey,
        id: BatchId,
        place: Option<ChainPlace>,
    ) -> Vec<BatchId> {
        let chain = self.chains.entry(*key).or_default();
        chain.queue.retain(|link| link.id != id);
        let mut followers = Vec::new();
        if let Some(at) = place {
            let shadowed = chain.broken.is_some_and(|broken| {
                at.epoch < broken.at.epoch || (at.epoch == broken.at.epoch && broken.id < id)
            });
            let renewed = chain
                .queue
                .iter()
                .any(|link| link.place.is_some_and(|place| at.epoch < place.epoch));
            if !shadowed && !renewed {
                chain.broken = Some(Broken { at, id });
            }
            chain.queue.retain(|link| {
                let follows =
                    id < link.id && link.place.is_some_and(|place| place.epoch == at.epoch);
                if follows {
                    followers.push(link.id);
                }
                !follows
            });
        }
        self.tidy(key);
        followers
    }

    /// A sent batch of an ended session is not decided yet: its followers wait.
    pub(super) fn hold(&mut self, key: &ChainKey) {
        self.chains.entry(*key).or_default().undecided_before += 1;
    }

    /// It is decided, or nobody asks any more.
    pub(super) fn release(&mut self, key: &ChainKey) {
        if let Some(chain) = self.chains.get_mut(key) {
            chain.undecided_before = chain.undecided_before.saturating_sub(1);
        }
        self.tidy(key);
    }

    /// The connection is gone: nothing of it arrives any more, so its breaks are forgotten.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        // Keys sort by connection first.
        let first = ChainKey {
            connection,
            producer: None,
            partition: TopicPartition {
                topic: aquifer_storage::model::TopicId::ZERO,
                partition: aquifer_storage::model::PartitionIndex::new(i32::MIN),
            },
        };
        let keys: Vec<ChainKey> = self
            .chains
            .range(first..)
            .map(|(key, _)| *key)
            .take_while(|key| key.connection == connection)
            .collect();
        for key in keys {
            if let Some(chain) = self.chains.get_mut(&key) {
                chain.broken = None;
            }
            self.tidy(&key);
        }
    }

    /// Number of chains remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.chains.len()
    }

    fn tidy(&mut self, key: &ChainKey) {
        let idle = self.chains.get(key).is_some_and(|chain| {
            chain.queue.is_empty() && chain.undecided_before == 0 && chain.broken.is_none()
        });
        if idle {
            self.chains.remove(key);
        }
    }
}

/// Whether `sequence` stands behind `reference`, in a space that wraps past 2^31-1.
fn is_after(sequence: Sequence, reference: Sequence) -> bool {
    let distance = sequence.value().wrapping_sub(reference.value()) & i32::MAX;
    0 < distance && distance < 1 << 30
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may unwrap")]
mod tests;
