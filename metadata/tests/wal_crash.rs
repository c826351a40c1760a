//! The log against a disk that loses power at any operation: what was acknowledged is there, in
//! order, and nothing that was removed comes back.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use aquifer_metadata::wal::{
    Callback, Drive, LogId, Recovered, Refused, Vote, Wal, WalConfig, WalEntry, WalError,
    disk::memory::MemoryDisk,
};
use bytes::Bytes;
use futures::executor::block_on;

/// splitmix64: the same seed gives the same run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the log must hold after some prefix of the requests.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<WalEntry>,
}

impl Model {
    fn next(&self) -> u64 {
        match (self.entries.last(), self.purged) {
            (Some(entry), _) => entry.id.index + 1,
            (None, Some(purged)) => purged.index + 1,
            (None, None) => 0,
        }
    }
}

struct World {
    random: Random,
    disk: MemoryDisk,
    wal: Option<Wal>,
    term: u64,
    /// The models after each record since the last crash, the acknowledged one first.
    models: Vec<Model>,
    dropped_models: usize,
    acked: Arc<AtomicUsize>,
    committed: u64,
    /// What was committed when entries were last accepted.
    hinted: u64,
    /// What entries that are durable were accepted behind, one append before: it is in the log.
    hint_acked: Arc<AtomicU64>,
    refused_full: usize,
    torn: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            disk: MemoryDisk::default(),
            wal: None,
            term: 1,
            models: vec![Model::default()],
            dropped_models: 0,
            acked: Arc::default(),
            committed: 0,
            hinted: 0,
            hint_acked: Arc::default(),
            refused_full: 0,
            torn: 0,
        }
    }

    fn config(&mut self) -> WalConfig {
        let mut config = WalConfig::new("fuzz", 7, self.random.next());
        config.segment_bytes = 16 * 1024;
        config.cache_bytes_max = 2048;
        config.drive = Drive::Manual;
        config
    }

    /// Opens the log, through crashes during the recovery itself.
    fn open(&mut self) {
        let (wal, recovered) = loop {
            if self.random.below(3) == 0 {
                self.disk.fail_after(Some(self.random.below(40)));
            }
            match Wal::open(Arc::new(self.disk.clone()), &self.config()) {
                Ok(opened) => break opened,
                Err(WalError::Io { .. }) => self.disk.lose_power(&mut || self.random.next()),
                Err(error) => panic!("an undamaged log must open: {error}"),
            }
        };
        self.disk.fail_after(None);
        self.torn += usize::from(recovered.torn.is_some());
        self.adopt(&wal, &recovered);
        self.wal = Some(wal);
    }

    /// The recovered log is what some prefix of the requests made, and no acknowledged one is
    /// missing.
    fn adopt(&mut self, wal: &Wal, recovered: &Recovered) {
        let entries = wal.read(0..u64::MAX, usize::MAX).expect("recovered entries are readable");
        let range = recovered.entries.clone();
        assert_eq!(range.end - range.start, entries.len() as u64);
        let found = Model { vote: recovered.vote, purged: recovered.purged, entries };
        let acked = self.acked.load(Ordering::SeqCst) - self.dropped_models;
        assert!(self.models[acked..].contains(&found), "not a prefix from the acknowledged on");
        assert_eq!(found.next(), recovered.last.map_or(0, |last| last.index + 1));
        self.committed = recovered.committed.map_or(0, |committed| committed.index + 1);
        assert!(self.hint_acked.load(Ordering::SeqCst) <= self.committed, "a hint was lost");
        self.hinted = self.committed;
        self.models = vec![found];
        self.dropped_models = 0;
        self.acked = Arc::default();
    }

    fn model(&self) -> Model {
        self.models.last().expect("there is a model").clone()
    }

    /// A callback that notes that everything up to `count` more models is durable.
    fn ack(&self, count: usize) -> Callback {
        let (acked, upto) = (Arc::clone(&self.acked), self.dropped_models + self.models.len() - 1);
        Box::new(move |result| {
            if result.is_ok() {
                let before = acked.swap(upto + count, Ordering::SeqCst);
                assert!(before <= upto + count, "callbacks run in order");
            }
        })
    }

    fn settle(&mut self, result: Result<(), Refused>, models: Vec<Model>) {
        match result {
            Ok(()) => self.models.extend(models),
            Err(Refused { error: WalError::DiskFull, .. }) => self.refused_full += 1,
            Err(Refused { error: WalError::Stopped { .. }, .. }) => {}
            Err(refused) => panic!("the request fits the log: {}", refused.error),
        }
    }

    fn append(&mut self, wal: &Wal) {
        let count = 1 + self.random.below(6);
        let mut model = self.model();
        let (mut entries, mut models) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let bytes = match self.random.below(8) {
                0 => 0,
                1 => self.random.below(9000),
                _ => self.random.below(300),
            };
            let fill = u8::try_from(self.random.below(4)).expect("below 4");
            let id = LogId { term: self.term, node_id: 7, index: model.next() };
            let payload = Bytes::from(vec![fill; usize::try_from(bytes).expect("small")]);
            entries.push(WalEntry { id, payload });
            model.entries.push(entries[entries.len() - 1].clone());
            models.push(model.clone());
        }
        // Where a hint and an entry do not both fit, the hint is left to the next one.
        let (told, hint) = (Arc::clone(&self.hint_acked), self.hinted);
        let acked = self.ack(models.len());
        let done: Callback = Box::new(move |result| {
            if result.is_ok() {
                told.fetch_max(hint, Ordering::SeqCst);
            }
            acked(result);
        });
        let result = block_on(wal.append(&entries, done));
        if result.is_ok() {
            self.hinted = self.committed;
        }
        self.settle(result, models);
    }

    fn step(&mut self, wal: &Wal) {
        let mut model = self.model();
        match self.random.below(20) {
            0 | 1 => {
                self.term += 1;
                let vote =
                    Vote { term: self.term, node_id: self.random.below(3), committed: false };
                model.vote = Some(vote);
                let done = self.ack(1);
                let result = block_on(wal.save_vote(vote, done));
                self.settle(result, vec![model]);
            }
            2 => {
                let first = model.purged.map_or(0, |purged| purged.index + 1).max(self.committed);
                if first < model.next() {
                    let from = first + self.random.below(model.next() - first);
                    model.entries.retain(|entry| entry.id.index < from);
                    let done = self.ack(1);
                    let result = block_on(wal.truncate_after(from.checked_sub(1), done));
                    self.settle(result, vec![model]);
                }
            }
            3 => {
                if let Some(first) = model.entries.first() {
                    let at = self.random.below(model.next() + 2 - first.id.index);
                    let known = model.entries.get(usize::try_from(at).expect("small"));
                    let index = first.id.index + at;
                    let id = known.map_or(LogId { term: self.term, node_id: 7, index }, |e| e.id);
                    model.purged = Some(id);
                    model.entries.retain(|entry| index < entry.id.index);
                    let done = self.ack(1);
                    let result = block_on(wal.purge(id, done));
                    self.settle(result, vec![model]);
                }
            }
            4 => {
                if let Some(last) = model.entries.last() {
                    let _ = wal.save_committed(last.id);
                    self.committed = wal.state().committed.map_or(0, |id| id.index + 1);
                }
            }
            5..=8 => wal.run_waiting(),
            9 => self.disk.limit_bytes(Some(self.disk.used_bytes() + self.random.below(20_000))),
            10 => {
                self.disk.limit_bytes(None);
                let _ = block_on(wal.retry_space());
            }
            _ => self.append(wal),
        }
    }

    fn cycle(&mut self) {
        self.open();
        let wal = self.wal.take().expect("just opened");
        let doomed = self.random.below(2) == 0;
        if doomed {
            self.disk.fail_after(Some(self.random.below(60)));
        }
        for _ in 0..self.random.below(60) {
            self.step(&wal);
        }
        if self.random.below(4) == 0 {
            wal.run_waiting();
        }
        let visible = wal.read(0..u64::MAX, usize::MAX);
        if let Ok(visible) = visible {
            assert_eq!(visible, self.model().entries, "accepted entries are readable at once");
        }
        drop(wal);
        self.disk.limit_bytes(None);
        self.disk.fail_after(None);
        // Otherwise only the process died, and the system keeps what was written.
        if self.random.below(4) != 0 {
            self.disk.lose_power(&mut || self.random.next());
        }
    }
}

#[test]
fn what_was_acknowledged_survives_any_crash_and_what_was_removed_stays_away() {
    let (mut torn, mut full) = (0, 0);
    for seed in 0..100 {
        let mut world = World::new(seed);
        for _ in 0..50 {
            world.cycle();
        }
        torn += world.torn;
        full += world.refused_full;
    }
    assert!(50 < torn && 500 < full, "the run is hostile: {torn} torn, {full} refused");
}
