//! A small model of metadata's side of a commit stream, for tests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use aquifer_metadata::{
    client::{CallError, CommitStream, Heartbeat, Metadata, WatchStream},
    machine::{
        command::{
            AppliedReply, BatchOutcome, BatchRejected, Command, CommitPart, CommitReply, PartBatch,
            ProducerIdBlock, Registered, Reply,
        },
        query::{Answer, Query},
    },
    watch::{WatchEvent, WatchRequest},
};
use aquifer_storage::{
    error::Outcome,
    model::{
        CommitSeq, LogIndex, NodeId, ObjectSeq, Offset, ProducerId, SessionId, Timestamp,
        TopicPartition,
    },
    seam::Seams,
};
use async_trait::async_trait;
use tokio::sync::mpsc;

/// Sessions and logs, as apply sees them.
#[derive(Debug, Default)]
pub(crate) struct ModelMachine {
    pub(crate) sessions: BTreeMap<SessionId, ModelSession>,
    pub(crate) logs: BTreeMap<TopicPartition, ModelLog>,
}

#[derive(Debug, Default)]
pub(crate) struct ModelSession {
    pub(crate) fenced: bool,
    next: u64,
    low: ObjectSeq,
    results: BTreeMap<CommitSeq, CommitReply>,
}

/// One partition: every appended batch, and the next sequence of each producer.
#[derive(Debug, Default)]
pub(crate) struct ModelLog {
    pub(crate) appended: Vec<(SessionId, ObjectSeq, PartBatch)>,
    pub(crate) end: i64,
    producers: BTreeMap<(i64, i16), Vec<(i32, i64)>>,
}

impl ModelMachine {
    /// Applies a part by the rules of DESIGN 4.6.
    pub(crate) fn commit(&mut self, part: &CommitPart) -> CommitReply {
        let Some(session) = self.sessions.get_mut(&part.session) else {
            return CommitReply::Fenced;
        };
        if part.commit_seq.value() < session.next {
            let result = session.results.get(&part.commit_seq);
            return result.cloned().unwrap_or(CommitReply::Forgotten);
        }
        if session.fenced {
            return CommitReply::Fenced;
        }
        if session.next < part.commit_seq.value() {
            return CommitReply::Gap { next: CommitSeq::new(session.next) };
        }
        if part.object_seq < session.low || part.low_seq < session.low {
            return CommitReply::SeqBelowLow;
        }
        assert!(
            part.object_seq.value() < session.low.value() + 1024,
            "an object outside the window was named"
        );
        session.next += 1;
        session.low = part.low_seq;
        session.results.retain(|seq, _| part.acked_seq <= *seq);
        let mut outcomes = Vec::new();
        for extent in &part.extents {
            let log = self.logs.entry(extent.partition).or_default();
            for batch in &extent.batches {
                outcomes.push(log.append(part, *batch));
            }
        }
        let reply = CommitReply::Applied(outcomes);
        session.results.insert(part.commit_seq, reply.clone());
        reply
    }
}

impl ModelLog {
    fn append(&mut self, part: &CommitPart, batch: PartBatch) -> BatchOutcome {
        let base = Offset::new(self.end).unwrap();
        if let Some((index, sequence)) = batch.producer {
            let producer = part.producers[index as usize];
            let key = (producer.id.value(), producer.epoch.value());
            let history = self.producers.entry(key).or_default();
            if let Some((_, base)) = history.iter().find(|(first, _)| *first == sequence.value()) {
                return BatchOutcome::Duplicate {
                    base: Offset::new(*base).unwrap(),
                    max_timestamp: batch.max_timestamp,
                    log_start: Offset::ZERO,
                };
            }
            let next = history.last().map_or(0, |(first, _)| first + 1);
            if sequence.value() != next {
                return BatchOutcome::Rejected(BatchRejected::OutOfOrderSequence);
            }
            history.push((sequence.value(), self.end));
        }
        self.appended.push((part.session, part.object_seq, batch));
        self.end += i64::from(batch.record_count);
        BatchOutcome::Appended { base, log_start: Offset::ZERO }
    }
}

impl ModelLog {
    /// The sequences of a producer's batches, in log order.
    pub(crate) fn sequences_of(&self, producer: i64) -> Vec<i32> {
        let key = (producer, 0);
        self.producers.get(&key).map_or_else(Vec::new, |history| {
            history.iter().map(|(sequence, _)| *sequence).collect()
        })
    }
}

/// Metadata in process, over [`ModelMachine`]: for tests of everything that talks to it.
pub(crate) struct ModelMetadata {
    pub(crate) machine: Arc<Mutex<ModelMachine>>,
    pub(crate) seams: Seams,
    /// Calls fail as if no node answered.
    pub(crate) away: Arc<AtomicBool>,
    /// Every n-th reply of a commit stream is lost, and the stream with it; 0 for none.
    pub(crate) lose_every: Arc<AtomicU64>,
    /// The far ends of watch streams as they are opened.
    pub(crate) watches: mpsc::Sender<WatchEnd>,
    requests: Mutex<BTreeMap<u64, Registered>>,
    ids: AtomicU64,
}

/// Metadata's ends of a watch stream.
pub(crate) struct WatchEnd {
    pub(crate) seen: LogIndex,
    pub(crate) requests: mpsc::Receiver<WatchRequest>,
    pub(crate) events: mpsc::Sender<WatchEvent>,
}

impl ModelMetadata {
    pub(crate) fn new(seams: Seams) -> (Arc<Self>, mpsc::Receiver<WatchEnd>) {
        let (watches, opened) = mpsc::channel(16);
        let metadata = Self {
            machine: Arc::default(),
            seams,
            away: Arc::default(),
            lose_every: Arc::default(),
            watches,
            requests: Mutex::default(),
            ids: AtomicU64::new(0),
        };
        (Arc::new(metadata), opened)
    }

    pub(crate) fn fence_all(&self) {
        self.machine
            .lock()
            .unwrap()
            .sessions
            .values_mut()
            .for_each(|session| session.fenced = true);
    }

    fn present(&self) -> Result<(), CallError> {
        let error = CallError {
            call: "model",
            outcome: Outcome::Indefinite,
            reason: "nobody answers".to_owned(),
        };
        if self.away.load(Ordering::SeqCst) { Err(error) } else { Ok(()) }
    }

    fn register(&self, request: u64) -> Registered {
        let mut machine = self.machine.lock().unwrap();
        let mut requests = self.requests.lock().unwrap();
        let next = SessionId::new(machine.sessions.len() as u64 + 1);
        let registered = requests
            .entry(request)
            .or_insert(Registered { session: next, node_id: NodeId::new(1) })
            .clone();
        machine.sessions.entry(registered.session).or_default();
        registered
    }
}

#[async_trait]
impl Metadata for ModelMetadata {
    async fn propose(&self, command: Command) -> Result<AppliedReply, CallError> {
        self.present()?;
        let reply = match command {
            Command::RegisterSession(register) => {
                Reply::Registered(self.register(register.request))
            }
            Command::AllocateProducerIds { .. } => {
                let first = self.ids.fetch_add(1000, Ordering::SeqCst) as i64;
                let first = ProducerId::new(first);
                Reply::ProducerIds(Ok(ProducerIdBlock { first, count: 1000 }))
            }
            _ => Reply::Done,
        };
        Ok(AppliedReply { index: LogIndex::new(1), reply })
    }

    async fn read_index(&self) -> Result<LogIndex, CallError> {
        self.present()?;
        Ok(LogIndex::new(self.ids.fetch_add(1, Ordering::SeqCst) + 1))
    }

    async fn query(&self, _query: Query) -> Result<(LogIndex, Answer), CallError> {
        self.present()?;
        Ok((LogIndex::new(1), Answer::Runs(None)))
    }

    async fn heartbeat(&self, session: SessionId) -> Result<Heartbeat, CallError> {
        self.present()?;
        let machine = self.machine.lock().unwrap();
        let fenced = machine.sessions.get(&session).is_none_or(|session| session.fenced);
        let live = Heartbeat::Live { wall: Timestamp::from_millis(77), index: LogIndex::new(1) };
        Ok(if fenced { Heartbeat::Fenced } else { live })
    }

    async fn open_commits(&self, _session: SessionId) -> Result<CommitStream, CallError> {
        self.present()?;
        let (parts, mut received) = mpsc::channel::<CommitPart>(8);
        let (sender, replies) = mpsc::channel(8);
        let (machine, away) = (Arc::clone(&self.machine), Arc::clone(&self.away));
        let lose_every = Arc::clone(&self.lose_every);
        self.seams.spawn("model-commits", async move {
            let mut count = 0;
            while let Some(part) = received.recv().await {
                if away.load(Ordering::SeqCst) {
                    return;
                }
                let reply = machine.lock().unwrap().commit(&part);
                count += 1;
                let lose_every = lose_every.load(Ordering::SeqCst);
                if lose_every != 0 && count % lose_every == 0 {
                    return;
                }
                let _ = sender.send((part.commit_seq, reply)).await;
            }
        });
        Ok(CommitStream { parts, replies })
    }

    async fn open_watch(&self, seen: LogIndex) -> Result<WatchStream, CallError> {
        self.present()?;
        let (requests, receiver) = mpsc::channel(8);
        let (sender, events) = mpsc::channel(8);
        let end = WatchEnd { seen, requests: receiver, events: sender };
        self.watches.send(end).await.expect("the test holds the receiver");
        Ok(WatchStream { requests, events })
    }
}
