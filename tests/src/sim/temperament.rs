//! What kind of world a seed is: which faults it knows, how often, and what its machines are like.
//!
//! A world in which everything goes wrong equally often is an average world, and rare mistakes need
//! extreme ones: some faults left out, others all the time (Groce et al., Swarm Testing, 2012).

use std::time::Duration;

use super::rng::SimRng;

/// Kinds of bad answers of the store.
pub const WEATHERS: u64 = 8;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An agent is killed.
    KillAgent,
    /// A metadata node is killed, with or without power.
    KillNode,
    /// Links are cut.
    Cut,
    /// The leader is cut off from the other nodes, and from nobody else.
    CutPeers,
    /// A node's answers are held back and lost.
    HoldAnswers,
    /// A process stands still.
    Stop,
    /// Some of the store's answers are bad.
    Weather,
    /// The store is away for longer than everybody tries.
    Outage,
    /// The network is slow.
    Latency,
    /// A disk fails or runs full.
    Disk,
    /// A wall clock is set.
    WallClock,
    /// Something happens at the worst moment: see [`super::aim`].
    Aim,
}

impl Fault {
    /// Every kind, with what it weighs in an average world.
    const ALL: [(Self, u64); 12] = [
        (Self::KillAgent, 18),
        (Self::KillNode, 16),
        (Self::Cut, 20),
        (Self::CutPeers, 6),
        (Self::HoldAnswers, 8),
        (Self::Stop, 10),
        (Self::Weather, 12),
        (Self::Outage, 1),
        (Self::Latency, 4),
        (Self::Disk, 5),
        (Self::WallClock, 7),
        (Self::Aim, 20),
    ];
}

/// A seed's kind of world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Temperament {
    weights: Vec<(Fault, u64)>,
    /// The longest time between two faults.
    pub rest_max: Duration,
    /// A node's sync takes up to this long; each node's has a time of its own.
    pub sync_max: Duration,
    /// The only kind of bad answer the store gives, of [`WEATHERS`]; `None` for all of them.
    pub weather: Option<u64>,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries a group keeps behind its snapshot.
    pub entries_kept: u64,
    /// The size of each of an agent's caches.
    pub cache_bytes: usize,
    /// Consumers.
    pub consumers: u64,
    /// A consumer goes back once in so many polls.
    pub goes_back_one_in: u64,
    /// Of a hundred producers but the first, so many are not idempotent.
    pub plain_percent: u64,
    /// What producers let an agent take, in seconds.
    pub timeouts: &'static [u64],
}

impl Temperament {
    /// The one of this seed.
    pub fn of(seed: u64) -> Self {
        let rng = SimRng::stream(seed, "temperament");
        let mut weights = Fault::ALL.to_vec();
        if !rng.one_in(4) {
            weights.retain(|(fault, _)| *fault != Fault::Outage && rng.one_in(2));
            for (_, weight) in &mut weights {
                *weight *= *rng.pick(&[1, 1, 4, 12]);
            }
        }
        if weights.is_empty() {
            weights.push(*rng.pick(&Fault::ALL));
        }
        let ms = Duration::from_millis;
        Self {
            weights,
            rest_max: *rng.pick(&[ms(600), ms(2_000), ms(4_000), ms(10_000)]),
            sync_max: *rng.pick(&[ms(2), ms(2), ms(10), ms(40)]),
            weather: rng.one_in(2).then(|| rng.below(WEATHERS)),
            snapshot_entries: *rng.pick(&[5, 12, 25, 80, 200]),
            entries_kept: *rng.pick(&[0, 20, 1000]),
            cache_bytes: *rng.pick(&[2 << 10, 16 << 10, 512 << 10]),
            consumers: *rng.pick(&[1, 2, 2, 4]),
            goes_back_one_in: *rng.pick(&[3, 30, 30]),
            plain_percent: *rng.pick(&[0, 33, 33, 80]),
            timeouts: rng.pick::<&[u64]>(&[&[1, 3], &[3, 10, 30], &[3, 10, 30], &[30, 60]]),
        }
    }

    /// Whether this world knows a kind of fault.
    pub fn knows(&self, fault: Fault) -> bool {
        self.weights.iter().any(|(known, _)| *known == fault)
    }

    /// The next fault.
    pub fn draw(&self, rng: &SimRng) -> Fault {
        let total = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = rng.below(total);
        for (fault, weight) in &self.weights {
            match drawn.checked_sub(*weight) {
                Some(left) => drawn = left,
                None => return *fault,
            }
        }
        unreachable!("what is drawn lies below the sum of all weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_temperament_and_draws_only_its_own_faults() {
        let mut seen = Vec::new();
        for seed in 0..200 {
            let temperament = Temperament::of(seed);
            assert_eq!(temperament, Temperament::of(seed));
            let rng = SimRng::new(seed);
            for _ in 0..50 {
                let fault = temperament.draw(&rng);
                assert!(temperament.weights.iter().any(|(known, _)| *known == fault));
                seen.push(fault);
            }
        }
        assert!(Fault::ALL.iter().all(|(fault, _)| seen.contains(fault)), "every kind happens");
    }
}
