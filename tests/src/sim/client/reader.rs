//! Reading: one Fetch, one ListOffsets, a whole log; all of it noted in the history.

use std::{collections::BTreeMap, time::Duration};

use aquifer_agent::wire::{
    Str,
    messages::{
        FetchRequest, FetchRequestTopics, FetchRequestTopicsPartitions, FetchResponse,
        ListOffsetsRequest, ListOffsetsRequestTopics, ListOffsetsRequestTopicsPartitions,
        ListOffsetsResponse,
    },
};

use super::{
    Client, Partition, batch,
    connection::{Connection, Refused},
};
use crate::history::{Action, Answer, Key, LogEnd, Operation, Poll, Polled};

/// Up to this version topics go by name.
const FETCH_VERSION: i16 = 12;
const LIST_VERSION: i16 = 7;
/// Clients give a connection up when nothing comes for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one answer may take.
#[derive(Clone, Copy, Debug)]
pub struct PollLimits {
    /// How long it waits for records.
    pub wait: Duration,
    /// Bytes of one partition.
    pub bytes: i32,
}

/// Connects to one agent.
///
/// # Errors
/// It does not answer.
pub async fn connect(client: &Client, agent: usize) -> Result<Connection, String> {
    client.connect_to(agent).await.map_err(|refused| refused.0)
}

/// Asks for records of some partitions; each answer is one operation of the history.
///
/// # Errors
/// The connection broke: nothing is known.
pub async fn poll(
    client: &Client,
    connection: &mut Connection,
    asked: &[(Key, i64)],
    limits: PollLimits,
) -> Result<Vec<(Key, Answer<Polled>)>, Refused> {
    let partitions = &client.shared.partitions;
    let mut topics = BTreeMap::<&str, Vec<_>>::new();
    for (key, offset) in asked {
        let Partition { topic, index, .. } = &partitions[key.0 as usize];
        topics.entry(topic).or_default().push(FetchRequestTopicsPartitions {
            partition: *index,
            fetch_offset: *offset,
            partition_max_bytes: limits.bytes,
            ..FetchRequestTopicsPartitions::default()
        });
    }
    let topics = topics.into_iter().map(|(topic, partitions)| FetchRequestTopics {
        topic: Str::from(topic),
        partitions,
        ..FetchRequestTopics::default()
    });
    let request = FetchRequest {
        max_wait_ms: i32::try_from(limits.wait.as_millis()).expect("short"),
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: topics.collect(),
        ..FetchRequest::default()
    };
    let began = client.shared.now();
    let answer: FetchResponse = connection.call(FETCH_VERSION, &request, PATIENCE).await?;
    let mut answers = Vec::new();
    for topic in &answer.responses {
        for partition in &topic.partitions {
            let known = partitions.iter().find(|known| {
                topic.topic == *known.topic && known.index == partition.partition_index
            });
            let key = known.expect("an agent answers what was asked").key;
            let (_, from) = *asked.iter().find(|(asked, _)| *asked == key).expect("as asked");
            let answer = match partition.error_code {
                0 => {
                    let bytes = partition.records.as_ref().map(|records| records.to_bytes());
                    let records = batch::records(key, &bytes.unwrap_or_default())
                        .expect("an agent answers whole batches");
                    // Batches begin before the offset asked for; clients leave that out.
                    let records = records.into_iter().filter(|record| from <= record.offset);
                    Answer::Done(Polled {
                        records: records.collect(),
                        high_watermark: partition.high_watermark,
                        log_start: partition.log_start_offset,
                    })
                }
                code => Answer::Failed(code),
            };
            note(
                client,
                connection,
                key,
                began,
                Action::Poll(Poll { from, answer: answer.clone() }),
            );
            answers.push((key, answer));
        }
    }
    Ok(answers)
}

fn note(client: &Client, connection: &Connection, key: Key, began: u64, action: Action) {
    let (process, server, ended) = (client.number, connection.server, client.shared.now());
    client.shared.record(Operation { process, server, key, began, ended, action });
}

/// Asks for an end of a log.
///
/// # Errors
/// The connection broke.
pub async fn list_offsets(
    client: &Client,
    connection: &mut Connection,
    key: Key,
    end: LogEnd,
) -> Result<Answer<i64>, Refused> {
    let Partition { topic, index, .. } = &client.shared.partitions[key.0 as usize];
    let partition = ListOffsetsRequestTopicsPartitions {
        partition_index: *index,
        timestamp: match end {
            LogEnd::Earliest => -2,
            LogEnd::Latest => -1,
        },
        ..ListOffsetsRequestTopicsPartitions::default()
    };
    let topic =
        ListOffsetsRequestTopics { name: Str::from(topic.as_str()), partitions: vec![partition] };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let began = client.shared.now();
    let answer: ListOffsetsResponse = connection.call(LIST_VERSION, &request, PATIENCE).await?;
    let partition = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    let partition = partition.expect("an agent answers what was asked");
    let answer = match partition.error_code {
        0 => Answer::Done(partition.offset),
        code => Answer::Failed(code),
    };
    let action = Action::ListOffsets { end, answer: answer.clone() };
    note(client, connection, key, began, action);
    Ok(answer)
}

/// Reads a whole log through one agent, from its start to the end it has when asked.
///
/// # Errors
/// The connection broke, or the agent refused.
pub async fn read_all(client: &Client, agent: usize, key: Key) -> Result<Polled, Refused> {
    let mut connection = client.connect_to(agent).await?;
    let refused = |what: &str, answer: String| Refused(format!("{key:?} {what}: {answer}"));
    let mut end_of = async |end| {
        let answer = list_offsets(client, &mut connection, key, end).await?;
        answer.done().copied().ok_or_else(|| refused("list offsets", format!("{answer:?}")))
    };
    let log_start = end_of(LogEnd::Earliest).await?;
    let high_watermark = end_of(LogEnd::Latest).await?;
    let mut records = Vec::new();
    let limits = PollLimits { wait: Duration::from_millis(500), bytes: 1 << 20 };
    let mut position = log_start;
    while position < high_watermark {
        let answers = poll(client, &mut connection, &[(key, position)], limits).await?;
        for (_, answer) in answers {
            let Answer::Done(polled) = answer else {
                return Err(refused("poll", format!("{answer:?}")));
            };
            if polled.records.is_empty() {
                return Err(refused("poll", format!("nothing at {position}")));
            }
            position = polled.records.last().map_or(position, |record| record.offset + 1);
            records.extend(polled.records);
        }
    }
    Ok(Polled { records, high_watermark, log_start })
}
