//! Chains: the order that the client of a batch relies on [pure].
//!
//! A chain is the batches of one (connection, producer id, partition) in the order the client
//! sent them. A batch may leave for metadata only behind its predecessors.
//!
//! # Invariants
//! - Batches of a chain are assigned to parts in the order they were admitted.
//! - A broken chain stays broken: once a producer's batch ended in a retriable error, nothing
//!   behind it is let in before that sequence, a higher epoch or a new connection arrives; and
//!   then what was refused behind it, in sequence order, before anything new. Otherwise metadata
//!   would see a gap that is none: the batch between is on its way back.
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

/// Most refused sequences remembered per chain. Idempotent clients have at most five requests in
/// flight; what a stranger one sends beyond this is refused too, and is let in when these are.
const REFUSED_MAX: usize = 64;

/// What the client will send again, in this order, before anything of this epoch is let in.
#[derive(Debug)]
struct Broken {
    epoch: ProducerEpoch,
    /// Ascending, without repeats, never empty.
    refused: Vec<Sequence>,
}

impl Broken {
    fn refuse(&mut self, sequence: Sequence) {
        let at = self.refused.partition_point(|refused| is_after(sequence, *refused));
        if self.refused.get(at) != Some(&sequence) {
            self.refused.insert(at, sequence);
            self.refused.truncate(REFUSED_MAX);
        }
    }
}

impl Chains {
    /// Takes a batch behind the others of its chain; `false` when the chain is broken there.
    pub(super) fn admit(&mut self, key: ChainKey, place: Option<ChainPlace>, id: BatchId) -> bool {
        let chain = self.chains.entry(key).or_default();
        if let (Some(broken), Some(place)) = (&mut chain.broken, place) {
            let first = *broken.refused.first().expect("a break has a place");
            if place.epoch == broken.epoch && is_after(place.sequence, first) {
                broken.refuse(place.sequence);
                return false;
            }
            if place.epoch == broken.epoch && place.sequence == first {
                broken.refused.remove(0);
            }
            if broken.epoch < place.epoch || broken.refused.is_empty() {
                chain.broken = None;
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

    /// `id` ended in an error after which its client sends it again: breaks the chain there and
    /// returns the later unsent batches of the same epoch, which end with it.
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
            let newest = chain.queue.iter().filter_map(|link| Some(link.place?.epoch)).max();
            let broken_at = chain.broken.as_ref().map(|broken| broken.epoch);
            if broken_at.max(newest) <= Some(at.epoch) {
                if broken_at < Some(at.epoch) {
                    chain.broken = Some(Broken { epoch: at.epoch, refused: Vec::new() });
                }
                if let Some(broken) = &mut chain.broken {
                    broken.refuse(at.sequence);
                }
            }
            let mut broken = chain.broken.as_mut().filter(|broken| broken.epoch == at.epoch);
            chain.queue.retain(|link| {
                let Some(place) = link.place.filter(|place| place.epoch == at.epoch) else {
                    return true;
                };
                if link.id < id {
                    return true;
                }
                if let Some(broken) = &mut broken {
                    broken.refuse(place.sequence);
                }
                followers.push(link.id);
                false
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
