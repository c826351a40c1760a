//! Fetches from all leaders at once, and goes on where a leader moves or a broker restarts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    time::Duration,
};

use aquifer_storage::seam::MonoTime;
use futures::{StreamExt as _, stream::FuturesUnordered};

use super::{aborted::Aborted, start::Ends};
use crate::{
    cli::{
        client::{Client, ClientError, Connection, Isolation, OffsetSpec, Topic},
        records::{Batch, PlacedRecord, RecordsDamaged},
    },
    wire::{
        ErrorCode,
        messages::{
            FetchRequest, FetchRequestTopics, FetchRequestTopicsPartitions, FetchResponse,
            FetchResponseResponsesPartitions as PartitionAnswer,
        },
    },
};

/// From version 13 on topics are named by id, which not every broker has.
const FETCH: std::ops::RangeInclusive<i16> = 4..=12;
/// The longest a broker waits for records.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Of one answer, and of one partition in it.
const ANSWER_BYTES_MAX: i32 = 16 << 20;
const PARTITION_BYTES_MAX: i32 = 4 << 20;
/// Between two attempts.
const BACKOFF: Duration = Duration::from_millis(200);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Records of a partition, in their order.
    Records(i32, Vec<PlacedRecord>),
    /// Something to tell that is no record.
    Note(String),
}

/// Why reading cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cluster's answer, or none.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What is stored cannot be read.
    #[error("{topic}/{partition}: {reason}")]
    Damaged {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is wrong.
        reason: RecordsDamaged,
    },
}

struct Position {
    next: i64,
    /// Without `--follow`, where it ends.
    end: i64,
}

struct Fetched {
    leader: i32,
    partitions: Vec<i32>,
    answer: Result<(Connection, FetchResponse), ClientError>,
}

type Fetch = Pin<Box<dyn Future<Output = Fetched>>>;

/// Reads the partitions of one topic.
pub struct Reader {
    client: Client,
    topic: Topic,
    isolation: Isolation,
    follow: bool,
    positions: BTreeMap<i32, Position>,
    under_way: FuturesUnordered<Fetch>,
    busy: BTreeSet<i32>,
    events: VecDeque<Event>,
    /// Since when nothing but errors came.
    failing_since: Option<MonoTime>,
}

impl Reader {
    /// Reads what `ends` names, and what comes after it where `follow` says so.
    pub fn new(
        client: Client,
        topic: Topic,
        ends: &Ends,
        isolation: Isolation,
        follow: bool,
    ) -> Self {
        let position = |(index, range): (&i32, &super::start::Range)| {
            (*index, Position { next: range.from, end: range.end })
        };
        Self {
            client,
            topic,
            isolation,
            follow,
            positions: ends.0.iter().map(position).collect(),
            under_way: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            events: VecDeque::new(),
            failing_since: None,
        }
    }

    /// What comes next; `None` when all partitions are read to their end.
    ///
    /// # Cancel safety
    /// Dropping the future may lose an answer, and with it the place: for the end of the program.
    ///
    /// # Errors
    /// Reading cannot go on.
    pub async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.follow {
                self.positions.retain(|_, position| position.next < position.end);
            }
            if self.positions.is_empty() {
                return Ok(None);
            }
            let begun = self.begin().await;
            let taken = match (begun, self.under_way.next().await) {
                (_, Some(fetched)) => self.take(fetched).await,
                (Err(error), None) => Err(error.into()),
                (Ok(()), None) => Ok(()),
            };
            match taken {
                Ok(()) => {}
                Err(ReadError::Client(error)) => self.wait_out(error).await?,
                Err(damaged) => return Err(damaged),
            }
        }
    }

    /// Asks every leader that is not asked yet.
    async fn begin(&mut self) -> Result<(), ClientError> {
        let mut by_leader = BTreeMap::<i32, Vec<i32>>::new();
        let mut refused = Ok(());
        for index in self.positions.keys() {
            match self.topic.partitions.get(index).and_then(|partition| partition.leader) {
                Some(leader) if self.busy.contains(&leader) => {}
                Some(leader) => by_leader.entry(leader).or_default().push(*index),
                None => refused = Err(crate::cli::client::no_leader(&self.topic, *index)),
            }
        }
        for (leader, partitions) in by_leader {
            let connection = match self.client.broker(leader).await {
                Ok(broker) => self.client.take(&broker).await,
                Err(error) => Err(error),
            };
            match connection {
                Ok(connection) => self.send(leader, connection, partitions),
                Err(error) => refused = Err(error),
            }
        }
        refused
    }

    fn send(&mut self, leader: i32, mut connection: Connection, partitions: Vec<i32>) {
        let row = |index: &i32| FetchRequestTopicsPartitions {
            partition: *index,
            fetch_offset: self.positions.get(index).map_or(0, |position| position.next),
            partition_max_bytes: PARTITION_BYTES_MAX,
            log_start_offset: -1,
            ..FetchRequestTopicsPartitions::default()
        };
        let topic = FetchRequestTopics {
            topic: self.topic.name.clone(),
            partitions: partitions.iter().map(row).collect(),
            ..FetchRequestTopics::default()
        };
        let request = FetchRequest {
            cluster_id: None,
            replica_id: -1,
            max_wait_ms: WAIT_MAX.as_millis() as i32,
            min_bytes: 1,
            max_bytes: ANSWER_BYTES_MAX,
            isolation_level: self.isolation.code(),
            topics: vec![topic],
            ..FetchRequest::default()
        };
        self.busy.insert(leader);
        self.under_way.push(Box::pin(async move {
            let answer = connection.call(FETCH, &request, WAIT_MAX).await;
            let answer = answer.map(|answer| (connection, answer));
            Fetched { leader, partitions, answer }
        }));
    }

    async fn take(&mut self, fetched: Fetched) -> Result<(), ReadError> {
        self.busy.remove(&fetched.leader);
        let (connection, answer) = fetched.answer?;
        self.client.put_back(connection);
        ClientError::check(|| format!("topic {}", self.topic.name), answer.error_code)?;
        let mut refused = Ok(());
        for row in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            if !fetched.partitions.contains(&row.partition_index) {
                continue;
            }
            if let Err(error) = self.partition(row).await {
                refused = Err(error);
            }
        }
        if refused.is_ok() {
            self.failing_since = None;
        }
        refused
    }

    async fn partition(&mut self, row: PartitionAnswer) -> Result<(), ReadError> {
        let index = row.partition_index;
        let name = self.topic.name.clone();
        if ErrorCode::from_code(row.error_code) == Some(ErrorCode::OffsetOutOfRange) {
            return self.out_of_range(index).await;
        }
        ClientError::check(|| format!("{name}/{index}"), row.error_code)?;
        let Some(position) = self.positions.get_mut(&index) else { return Ok(()) };
        let end = if self.follow { i64::MAX } else { position.end };
        let damaged =
            |reason| ReadError::Damaged { topic: name.to_string(), partition: index, reason };
        let mut aborted = Aborted::of(row.aborted_transactions.as_deref().unwrap_or_default());
        let mut bytes = row.records.unwrap_or_default().to_bytes();
        let mut records = Vec::new();
        while let Some(batch) = Batch::take(&mut bytes).map_err(damaged)? {
            let is_skipped = aborted.skips(&batch) || batch.header.attributes.is_control();
            let next = position.next;
            if next < batch.next_offset() && !is_skipped {
                let found = batch.records().map_err(damaged)?.into_iter();
                records.extend(found.filter(|one| next <= one.offset && one.offset < end));
            }
            position.next = next.max(batch.next_offset());
        }
        if !records.is_empty() {
            self.events.push_back(Event::Records(index, records));
        }
        Ok(())
    }

    /// What was asked for is deleted, or not there yet: says so, and goes on where it can.
    async fn out_of_range(&mut self, index: i32) -> Result<(), ReadError> {
        let (topic, name) = (self.topic.clone(), self.topic.name.clone());
        let found =
            self.client.offsets(&topic, &[index], OffsetSpec::Earliest, self.isolation).await?;
        let first = found.get(&index).and_then(|listed| listed.offset).unwrap_or(0);
        let Some(position) = self.positions.get_mut(&index) else { return Ok(()) };
        let at = position.next;
        if at < first {
            position.next = first;
            let text = format!("{name}/{index}: offsets {at} to {} are deleted", first - 1);
            self.events.push_back(Event::Note(text));
            return Ok(());
        }
        let subject = || format!("{name}/{index} at offset {at}");
        let code = ErrorCode::OffsetOutOfRange.code();
        let message = Some("the partition ends before it");
        Ok(ClientError::check_told(subject, code, message)?)
    }

    /// Waits, and asks again who leads what; gives up what does not pass.
    async fn wait_out(&mut self, error: ClientError) -> Result<(), ReadError> {
        let now = self.client.seams().clock.mono();
        let passes = error.is_transient() || matches!(error, ClientError::NotKafka { .. });
        let since = *self.failing_since.get_or_insert(now);
        // Whoever follows wants to follow over a restart, however long it takes.
        let is_patient = self.follow || now.since(since) < self.client.patience();
        if !passes || !is_patient {
            return Err(error.into());
        }
        if since == now && self.follow {
            self.events.push_back(Event::Note(format!("{error}; trying again")));
        }
        let seams = self.client.seams().clone();
        seams.sleep(BACKOFF).await;
        match self.client.topic(&self.topic.name).await {
            Ok(topic) => self.topic = topic,
            Err(error) if error.is_transient() || matches!(error, ClientError::NotKafka { .. }) => {
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
