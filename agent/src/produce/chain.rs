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
//! - A chain keeps its place as long as a batch of it is undecided or it is broken.

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

/// A chain's place among the [`Chains`], good until the last of its batches is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChainId(u32);

/// Every chain with something to remember.
#[derive(Debug, Default)]
pub(super) struct Chains {
    by_key: BTreeMap<ChainKey, ChainId>,
    /// By [`ChainId`].
    chains: Vec<Chain>,
    /// Places of chains that were forgotten.
    free: Vec<ChainId>,
}

#[derive(Debug)]
struct Chain {
    key: ChainKey,
    /// Batches that were not sent.
    queue: VecDeque<Link>,
    /// How many at the front of the queue have a part.
    assigned: usize,
    /// Batches admitted and not forgotten.
    batches: u32,
    /// Batches sent by an earlier session whose outcome is not known: what follows must wait,
    /// because it would go out on another stream.
    undecided_before: u32,
    broken: Option<Broken>,
}

impl Chain {
    fn new(key: ChainKey) -> Self {
        let (assigned, batches, undecided_before) = (0, 0, 0);
        Self { key, queue: VecDeque::new(), assigned, batches, undecided_before, broken: None }
    }

    /// Keeps the unsent batches that `keeps` names.
    fn retain(&mut self, mut keeps: impl FnMut(&Link) -> bool) {
        let (mut at, mut assigned) = (0, 0);
        self.queue.retain(|link| {
            let kept = keeps(link);
            assigned += usize::from(kept && at < self.assigned);
            at += 1;
            kept
        });
        self.assigned = assigned;
    }
}

#[derive(Debug)]
struct Link {
    id: BatchId,
    place: Option<ChainPlace>,
}

/// Links whose memory a place keeps from one chain to the next: what idempotent clients send.
const QUEUE_KEPT: usize = 5;

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
    /// Takes a batch behind the others of its chain, and remembers it until [`Self::forget`];
    /// `None` when the chain is broken there.
    pub(super) fn admit(
        &mut self,
        key: ChainKey,
        place: Option<ChainPlace>,
        id: BatchId,
    ) -> Option<ChainId> {
        let chain_id = self.open(key);
        let chain = self.get_mut(chain_id);
        if let (Some(broken), Some(place)) = (&mut chain.broken, place) {
            let first = *broken.refused.first().expect("a break has a place");
            if place.epoch == broken.epoch && is_after(place.sequence, first) {
                broken.refuse(place.sequence);
                return None;
            }
            if place.epoch == broken.epoch && place.sequence == first {
                broken.refused.remove(0);
            }
            if broken.epoch < place.epoch || broken.refused.is_empty() {
                chain.broken = None;
            }
            // An older epoch, or a retry of something before the break: metadata judges it.
        }
        chain.queue.push_back(Link { id, place });
        chain.batches += 1;
        Some(chain_id)
    }

    /// The chain of a key, which is new when it has none.
    fn open(&mut self, key: ChainKey) -> ChainId {
        *self.by_key.entry(key).or_insert_with(|| match self.free.pop() {
            Some(id) => {
                self.chains[id.0 as usize].key = key;
                id
            }
            None => {
                let id = u32::try_from(self.chains.len()).expect("a chain is in memory");
                self.chains.push(Chain::new(key));
                ChainId(id)
            }
        })
    }

    fn get_mut(&mut self, chain: ChainId) -> &mut Chain {
        &mut self.chains[chain.0 as usize]
    }

    /// Gives `id` a place in a part, if every predecessor was sent or has one.
    pub(super) fn assign(&mut self, chain: ChainId, id: BatchId) -> bool {
        let chain = self.get_mut(chain);
        let is_next = chain.undecided_before == 0
            && chain.queue.get(chain.assigned).is_some_and(|link| link.id == id);
        chain.assigned += usize::from(is_next);
        is_next
    }

    /// `id` was sent: from here on only metadata knows what becomes of it.
    pub(super) fn sent(&mut self, chain: ChainId, id: BatchId) {
        let chain = self.get_mut(chain);
        match chain.queue.front() {
            Some(front) if front.id == id => {
                chain.queue.pop_front();
                chain.assigned = chain.assigned.saturating_sub(1);
            }
            _ => chain.retain(|link| link.id != id),
        }
    }

    /// `id` ended in an error after which its client sends it again: breaks the chain there and
    /// returns the later unsent batches of the same epoch, which end with it.
    pub(super) fn fail(
        &mut self,
        chain: ChainId,
        id: BatchId,
        place: Option<ChainPlace>,
    ) -> Vec<BatchId> {
        let chain = self.get_mut(chain);
        chain.retain(|link| link.id != id);
        let mut followers = Vec::new();
        let Some(at) = place else { return followers };
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
        let mut broken = chain.broken.take();
        let mut refusing = broken.as_mut().filter(|broken| broken.epoch == at.epoch);
        chain.retain(|link| {
            let Some(place) = link.place.filter(|place| place.epoch == at.epoch) else {
                return true;
            };
            if link.id < id {
                return true;
            }
            if let Some(broken) = &mut refusing {
                broken.refuse(place.sequence);
            }
            followers.push(link.id);
            false
        });
        chain.broken = broken;
        followers
    }

    /// A sent batch of an ended session is not decided yet: its followers wait.
    pub(super) fn hold(&mut self, chain: ChainId) {
        self.get_mut(chain).undecided_before += 1;
    }

    /// It is decided, or nobody asks any more.
    pub(super) fn release(&mut self, chain: ChainId) {
        let chain = self.get_mut(chain);
        chain.undecided_before = chain.undecided_before.saturating_sub(1);
    }

    /// A batch has its outcome, and its chain is named for it no more.
    pub(super) fn forget(&mut self, chain: ChainId) {
        self.get_mut(chain).batches -= 1;
        self.tidy(chain);
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
        let of_connection: Vec<ChainId> = self
            .by_key
            .range(first..)
            .take_while(|(key, _)| key.connection == connection)
            .map(|(_, chain)| *chain)
            .collect();
        for chain in of_connection {
            self.get_mut(chain).broken = None;
            self.tidy(chain);
        }
    }

    /// Number of chains remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Frees the chain's place when nothing names it and nothing of it is to be remembered.
    fn tidy(&mut self, id: ChainId) {
        let chain = self.get_mut(id);
        if chain.batches == 0 && chain.broken.is_none() {
            debug_assert!(chain.queue.is_empty() && chain.undecided_before == 0);
            // The next chain here begins with this one's memory.
            chain.queue.shrink_to(QUEUE_KEPT);
            let key = chain.key;
            self.by_key.remove(&key);
            self.free.push(id);
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
