//! A session that commits parts one behind the other, as an agent's writer does: on each new
//! stream it sends again what was not answered.

use std::{collections::VecDeque, time::Duration};

use aquifer_metadata::{
    client::{CommitStream, Metadata, remote::RemoteClient},
    machine::command::{
        BatchOutcome, Command, CommitPart, CommitReply, CreateTopic, PartBatch, PartExtent,
    },
};
use aquifer_storage::{
    model::{CommitSeq, ObjectSeq, PartitionIndex, SessionId, Timestamp, TopicId, TopicPartition},
    seam::{MonoTime, Seams},
};

use super::cluster::register;

const TOPIC: TopicId = TopicId::from_bytes([7; 16]);
/// Parts sent and not answered.
const AHEAD_MAX: usize = 8;
/// Offsets of one part.
const RECORDS: i64 = 10;

pub fn partition() -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionIndex::new(0) }
}

pub async fn create_topic(client: &impl Metadata) {
    let command = Command::CreateTopic(CreateTopic {
        topic: TOPIC,
        name: "orders".into(),
        partitions: 2,
        replication_factor: 1,
        configs: Default::default(),
    });
    client.propose(command).await.unwrap();
}

pub struct Committer {
    client: RemoteClient,
    session: SessionId,
    partition: TopicPartition,
    seams: Seams,
    unanswered: VecDeque<u64>,
    next: u64,
    /// When each part was answered, and the offset it was given.
    pub acked: Vec<(MonoTime, i64)>,
    pub streams: u64,
}

impl Committer {
    pub async fn new(client: RemoteClient, number: u16, seams: Seams) -> Self {
        let session = register(&client, number).await.unwrap();
        let mut committer = Self {
            client,
            session,
            partition: partition(),
            seams,
            unanswered: VecDeque::new(),
            next: 0,
            acked: Vec::new(),
            streams: 0,
        };
        committer.next = committer.first_seq().await;
        committer
    }

    /// Commits to this partition.
    pub fn on(mut self, partition: i32) -> Self {
        self.partition.partition = PartitionIndex::new(partition);
        self
    }

    /// Where a session's stream begins: the node says so.
    async fn first_seq(&self) -> u64 {
        let mut stream = self.client.open_commits(self.session).await.unwrap();
        stream.parts.send(self.part(1_000_000)).await.unwrap();
        match stream.replies.recv().await.expect("an answer") {
            (_, CommitReply::Gap { next }) => next.value(),
            other => panic!("{other:?}"),
        }
    }

    fn part(&self, seq: u64) -> CommitPart {
        CommitPart {
            session: self.session,
            commit_seq: CommitSeq::new(seq),
            acked_seq: CommitSeq::new(self.unanswered.front().copied().unwrap_or(seq).min(seq)),
            low_seq: ObjectSeq::new(seq.saturating_sub(100)),
            object_seq: ObjectSeq::new(seq),
            object_bytes: 100,
            producers: Vec::new(),
            extents: vec![PartExtent {
                partition: self.partition,
                batches: vec![PartBatch {
                    position: 0,
                    length: 100,
                    record_count: RECORDS as u32,
                    max_timestamp: Timestamp::from_millis(5),
                    producer: None,
                }],
            }],
        }
    }

    /// Commits until `stop` says so.
    pub async fn run(mut self, stop: tokio::sync::watch::Receiver<bool>) -> Self {
        while !*stop.borrow() {
            match self.client.open_commits(self.session).await {
                Ok(stream) => {
                    self.streams += 1;
                    self.serve(stream, &stop).await;
                }
                Err(_) => self.seams.sleep(Duration::from_millis(5)).await,
            }
        }
        self
    }

    async fn serve(&mut self, stream: CommitStream, stop: &tokio::sync::watch::Receiver<bool>) {
        let CommitStream { parts, mut replies } = stream;
        for seq in self.unanswered.clone() {
            if parts.send(self.part(seq)).await.is_err() {
                return;
            }
        }
        while !*stop.borrow() {
            while self.unanswered.len() < AHEAD_MAX {
                let part = self.part(self.next);
                self.unanswered.push_back(self.next);
                self.next += 1;
                if parts.send(part).await.is_err() {
                    return;
                }
            }
            let Some((seq, reply)) = replies.recv().await else { return };
            match reply {
                CommitReply::Applied(outcomes) => {
                    assert_eq!(self.unanswered.pop_front(), Some(seq.value()), "in order");
                    let [BatchOutcome::Appended { base, .. }] = outcomes[..] else {
                        panic!("{outcomes:?}");
                    };
                    self.acked.push((self.seams.clock.mono(), base.value()));
                }
                // A part before it was lost with its leader: all of them are sent again.
                CommitReply::Gap { .. } => return,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Every part was applied once, in order: the offsets have neither holes nor repeats.
    pub fn check(&self) {
        let bases: Vec<i64> = self.acked.iter().map(|(_, base)| *base).collect();
        let first = bases[0];
        for (place, base) in bases.iter().enumerate() {
            assert_eq!(*base, first + place as i64 * RECORDS, "part {place} of {}", bases.len());
        }
    }

    /// The longest time without an answer that ended between `from` and `to`.
    pub fn longest_gap(&self, from: MonoTime, to: MonoTime) -> Duration {
        let answered = |two: &&[(MonoTime, i64)]| from <= two[1].0 && two[1].0 <= to;
        let gaps = self.acked.windows(2).filter(answered).map(|two| two[1].0.since(two[0].0));
        gaps.max().unwrap_or(to.since(from))
    }
}
