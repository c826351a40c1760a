//! Writes records as an idempotent producer: each batch until its outcome is known, once.
//!
//! # Invariants
//! - At most one batch of a partition is under way, and it is sent again with the sequence numbers
//!   it had: the broker tells a repetition from something new.
//! - A batch is cut in two only when the broker said that it was not written.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use aquifer_storage::{
    format::record_batch::{BatchProducer, Codec},
    model::{ProducerEpoch, ProducerId, Sequence},
    seam::MonoTime,
};
use futures::future::join_all;

use crate::{
    cli::{
        client::{Client, ClientError, Connection, Topic},
        records::{Record, encode_batch},
    },
    wire::{
        ErrorCode, Records,
        messages::{
            InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceRequestTopicData,
            ProduceRequestTopicDataPartitionData, ProduceResponse,
            ProduceResponseResponsesPartitionResponses as PartitionAnswer,
        },
    },
};

/// From version 13 on topics are named by id, which not every broker has.
const PRODUCE: std::ops::RangeInclusive<i16> = 3..=12;
/// Below `max.message.bytes` as Kafka has it by default, less a batch's header.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// Between two attempts.
const BACKOFF: Duration = Duration::from_millis(100);

/// A record on its way to a partition.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Where to.
    pub partition: i32,
    /// The record.
    pub record: Record,
    /// Its place in the input, from 1.
    pub ordinal: u64,
}

/// A record that is written.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// Where.
    pub partition: i32,
    /// `None` when an earlier attempt wrote it and the broker forgot where.
    pub offset: Option<i64>,
    /// Its time.
    pub timestamp: i64,
}

/// What became of some records.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Those that are written, in the order of the input.
    pub written: Vec<Delivered>,
    /// Why the others are not, or that it is not known.
    pub failed: Option<anyhow::Error>,
}

#[derive(Debug)]
struct Batch {
    records: Vec<Record>,
    ordinals: Vec<u64>,
    bytes: usize,
    sequence: Sequence,
    /// An attempt got no answer that says what became of it.
    is_unknown: bool,
}

/// An idempotent producer for one topic.
pub struct Producer {
    client: Client,
    topic: Topic,
    id: ProducerId,
    epoch: ProducerEpoch,
    next_sequences: BTreeMap<i32, Sequence>,
    queues: BTreeMap<i32, VecDeque<Batch>>,
    delivery_timeout: Duration,
    codec: Codec,
}

/// What one attempt of a batch came to.
enum Attempt {
    Written(i64),
    TooLarge,
    Failed(ClientError),
}

impl Producer {
    /// Gets a producer id.
    ///
    /// # Errors
    /// The broker gives none.
    pub async fn start(
        mut client: Client,
        topic: Topic,
        delivery_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let asking = async |client: &mut Client| {
            let answer: InitProducerIdResponse = client.call_any(0..=5, &request).await?;
            ClientError::check(|| "a producer id".to_owned(), answer.error_code)?;
            Ok(answer)
        };
        let answer = client.retrying(asking).await?;
        let no_epoch = || ClientError::Missing("the broker gave no producer epoch".to_owned());
        let epoch = ProducerEpoch::new(answer.producer_epoch).ok_or_else(no_epoch)?;
        Ok(Self {
            client,
            topic,
            id: ProducerId::new(answer.producer_id),
            epoch,
            next_sequences: BTreeMap::new(),
            queues: BTreeMap::new(),
            delivery_timeout,
            codec: Codec::None,
        })
    }

    /// The same, with its batches compressed.
    #[must_use]
    pub fn compressed(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> i32 {
        i32::try_from(self.topic.partitions.len()).unwrap_or(i32::MAX)
    }

    /// Writes records; returns when the outcome of all is known, or is given up.
    pub async fn deliver(&mut self, records: Vec<Queued>) -> Delivery {
        for queued in records {
            self.enqueue(queued);
        }
        let mut written = Vec::new();
        let mut failed = None;
        let mut deadline = self.now() + self.delivery_timeout;
        while !self.queues.is_empty() && failed.is_none() {
            let before = written.len();
            let refused = self.attempt(&mut written).await;
            if before < written.len() {
                deadline = self.now() + self.delivery_timeout;
            }
            match refused {
                None => {}
                Some(error) if is_passing(&error) && self.now() + BACKOFF < deadline => {
                    failed = self.prepare_again().await.err();
                }
                Some(error) => failed = Some(error),
            }
        }
        written.sort_by_key(|(ordinal, _)| *ordinal);
        let written = written.into_iter().map(|(_, delivered)| delivered).collect();
        Delivery { written, failed: failed.map(|error| self.given_up(error)) }
    }

    fn now(&self) -> MonoTime {
        self.client.seams().clock.mono()
    }

    fn enqueue(&mut self, queued: Queued) {
        let queue = self.queues.entry(queued.partition).or_default();
        let bytes = queued.record.bytes_max();
        let room = |batch: &Batch| batch.bytes + bytes <= BATCH_BYTES_MAX;
        let next = self.next_sequences.entry(queued.partition).or_insert(Sequence::ZERO);
        if !queue.back().is_some_and(room) {
            queue.push_back(Batch::at(*next));
        }
        if let Some(batch) = queue.back_mut() {
            batch.bytes += bytes;
            batch.records.push(queued.record);
            batch.ordinals.push(queued.ordinal);
        }
        *next = next.advance(1);
    }

    /// Sends the first batch of every partition once. Returns the last refusal.
    async fn attempt(&mut self, written: &mut Vec<(u64, Delivered)>) -> Option<ClientError> {
        let (requests, mut refused) = self.requests().await;
        let timeout = Duration::ZERO;
        let sending = requests.into_iter().map(async |(mut connection, partitions, request)| {
            let answer: Result<ProduceResponse, _> =
                connection.call(PRODUCE, &request, timeout).await;
            (connection, partitions, answer)
        });
        for (connection, partitions, answer) in join_all(sending).await {
            match answer {
                Ok(answer) => {
                    self.client.put_back(connection);
                    let rows = answer.responses.into_iter();
                    let rows: Vec<_> = rows.flat_map(|topic| topic.partition_responses).collect();
                    for partition in partitions {
                        let row = rows.iter().find(|row| row.index == partition);
                        let attempt = self.judged(partition, row);
                        refused = self.settle(partition, attempt, written).or(refused);
                    }
                }
                Err(error) => {
                    for partition in partitions {
                        self.mark_unknown(partition, error.is_indefinite());
                    }
                    refused = Some(error);
                }
            }
        }
        refused
    }

    /// A request for each leader, with its connection and the partitions in it.
    async fn requests(
        &mut self,
    ) -> (Vec<(Connection, Vec<i32>, ProduceRequest)>, Option<ClientError>) {
        let mut refused = None;
        let mut by_leader = BTreeMap::<i32, Vec<i32>>::new();
        for partition in self.queues.keys() {
            let led = self.topic.partitions.get(partition).and_then(|partition| partition.leader);
            match led {
                Some(leader) => by_leader.entry(leader).or_default().push(*partition),
                None => refused = Some(crate::cli::client::no_leader(&self.topic, *partition)),
            }
        }
        let mut requests = Vec::new();
        for (leader, partitions) in by_leader {
            let connection = match self.client.broker(leader).await {
                Ok(broker) => self.client.take(&broker).await,
                Err(error) => Err(error),
            };
            match connection {
                Ok(connection) => {
                    let request = self.request(&partitions);
                    requests.push((connection, partitions, request));
                }
                Err(error) => refused = Some(error),
            }
        }
        (requests, refused)
    }

    fn request(&self, partitions: &[i32]) -> ProduceRequest {
        let of = |partition: &i32| {
            let batch = self.queues.get(partition).and_then(VecDeque::front)?;
            let (id, epoch) = (self.id, self.epoch);
            let producer = BatchProducer { id, epoch, base_sequence: batch.sequence };
            let records = Some(Records::from(encode_batch(&batch.records, producer, self.codec)));
            Some(ProduceRequestTopicDataPartitionData { index: *partition, records })
        };
        let data = ProduceRequestTopicData {
            name: self.topic.name.clone(),
            partition_data: partitions.iter().filter_map(of).collect(),
            ..ProduceRequestTopicData::default()
        };
        ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: self.client.patience_ms(),
            topic_data: vec![data],
        }
    }

    fn judged(&self, partition: i32, row: Option<&PartitionAnswer>) -> Attempt {
        let subject = || format!("{}/{partition}", self.topic.name);
        let Some(row) = row else {
            return Attempt::Failed(ClientError::Missing(format!("no answer on {}", subject())));
        };
        let several = self.queues.get(&partition).and_then(VecDeque::front);
        let is_one = several.is_none_or(|batch| batch.records.len() == 1);
        match ErrorCode::from_code(row.error_code) {
            Some(ErrorCode::None) => Attempt::Written(row.base_offset),
            Some(ErrorCode::DuplicateSequenceNumber) => Attempt::Written(-1),
            Some(ErrorCode::MessageTooLarge) if !is_one => Attempt::TooLarge,
            _ => {
                let words = row.record_errors.first();
                let words = words.and_then(|record| record.batch_index_error_message.as_deref());
                let message = row.error_message.as_deref().or(words);
                match ClientError::check_told(subject, row.error_code, message) {
                    Err(error) => Attempt::Failed(error),
                    Ok(()) => Attempt::Written(row.base_offset),
                }
            }
        }
    }

    fn settle(
        &mut self,
        partition: i32,
        attempt: Attempt,
        written: &mut Vec<(u64, Delivered)>,
    ) -> Option<ClientError> {
        match attempt {
            Attempt::Failed(error) => {
                self.mark_unknown(partition, error.is_indefinite());
                return Some(error);
            }
            Attempt::TooLarge => {
                let queue = self.queues.entry(partition).or_default();
                if let Some(batch) = queue.pop_front() {
                    let (first, second) = batch.halves();
                    queue.push_front(second);
                    queue.push_front(first);
                }
            }
            Attempt::Written(base) => {
                let queue = self.queues.entry(partition).or_default();
                let batch = queue.pop_front();
                let rows = batch.iter().flat_map(|batch| batch.ordinals.iter().zip(&batch.records));
                for (offset, (ordinal, record)) in (base..).zip(rows) {
                    let offset = (0 <= base).then_some(offset);
                    let timestamp = record.timestamp;
                    written.push((*ordinal, Delivered { partition, offset, timestamp }));
                }
                if queue.is_empty() {
                    self.queues.remove(&partition);
                }
            }
        }
        None
    }

    fn mark_unknown(&mut self, partition: i32, is_unknown: bool) {
        let batch = self.queues.get_mut(&partition).and_then(VecDeque::front_mut);
        if let Some(batch) = batch {
            // A later refusal does not undo what an earlier attempt may have done.
            batch.is_unknown |= is_unknown;
        }
    }

    async fn prepare_again(&mut self) -> Result<(), ClientError> {
        let seams = self.client.seams().clone();
        seams.sleep(BACKOFF).await;
        match self.client.topic(&self.topic.name).await {
            Ok(topic) => self.topic = topic,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The error, with how many records it leaves unwritten or unknown.
    fn given_up(&self, error: ClientError) -> anyhow::Error {
        let batches = || self.queues.values().flatten();
        let count = |unknown: bool| -> usize {
            batches().filter(|b| b.is_unknown == unknown).map(|b| b.records.len()).sum()
        };
        let first = batches().filter_map(|batch| batch.ordinals.first()).min();
        let first =
            first.map_or_else(String::new, |first| format!(", the first is number {first}"));
        let text = match (count(false), count(true)) {
            (no, 0) => format!("{no} not written{first}"),
            (0, unknown) => format!("of {unknown} it is not known whether they are{first}"),
            (no, unknown) => {
                format!("{no} not written, and of {unknown} it is not known{first}")
            }
        };
        anyhow::Error::new(error).context(text)
    }
}

impl Batch {
    fn at(sequence: Sequence) -> Self {
        let (records, ordinals) = (Vec::new(), Vec::new());
        Self { records, ordinals, bytes: 0, sequence, is_unknown: false }
    }

    fn halves(mut self) -> (Self, Self) {
        let at = self.records.len() / 2;
        let (records, ordinals) = (self.records.split_off(at), self.ordinals.split_off(at));
        let sequence = self.sequence.advance(u32::try_from(at).unwrap_or(u32::MAX));
        // Both are full: nothing that comes later may overtake what was cut off.
        self.bytes = BATCH_BYTES_MAX;
        let bytes = BATCH_BYTES_MAX;
        (self, Self { records, ordinals, bytes, sequence, is_unknown: false })
    }
}

/// Whether the same batch should be sent again.
fn is_passing(error: &ClientError) -> bool {
    // A broker that comes up may take a connection and close it again.
    error.is_transient() || error.is_indefinite() || matches!(error, ClientError::NotKafka { .. })
}

#[cfg(test)]
mod tests;
