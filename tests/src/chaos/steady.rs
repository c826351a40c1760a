//! A producer with one batch on its way at any time: the longest pause between two of its acks is
//! how long a client went without service.
//!
//! It is in more of a hurry than Kafka's clients, whose back-off would hide short pauses: it goes
//! to the next agent as soon as a connection breaks, and when an answer takes two seconds.

use std::{sync::atomic::Ordering, time::Duration};

use aquifer_agent::wire::{
    Records, Str,
    messages::{
        InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceRequestTopicData,
        ProduceRequestTopicDataPartitionData, ProduceResponse,
    },
};
use tokio::time::{sleep, timeout};

use crate::{
    history::{Action, Answer, Key, Nanos, Operation, Send, Value},
    sim::client::{
        Client,
        batch::{self, Stamp},
        connection::{self, Connection, Refused},
    },
};

/// Processes with numbers from here on are steady producers.
pub const FIRST_NUMBER: u32 = 1000;
const PRODUCE_VERSION: i16 = 12;
const INIT_VERSION: i16 = 4;
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// How long an agent may take to decide, and how long its answer is waited for.
const DECIDE_MAX: Duration = Duration::from_millis(1500);
const ANSWER_MAX: Duration = Duration::from_millis(2000);
const RETRY_PAUSE: Duration = Duration::from_millis(5);

const DUPLICATE: i16 = 46;
const NOT_LEADER: i16 = 6;
const RETRIABLE: &[i16] = &[3, 5, NOT_LEADER, 7, 19, 56, 89];

/// A batch that is not decided.
struct Batch {
    value: Value,
    began: Nanos,
    refusals: Vec<(i16, i64)>,
}

struct Steady {
    client: Client,
    key: Key,
    rest: Duration,
    chain: u32,
    identity: Option<(i64, i16)>,
    /// Batches decided so far, with this identity: the next one's sequence.
    sequence: i32,
    sent: u64,
    undecided: Option<Batch>,
}

/// Sends to one partition, with a `rest` after each ack, until told to stop.
pub async fn run(client: Client, key: Key, rest: Duration) {
    let agents = client.shared.agents.len();
    let mut agent = client.number as usize % agents;
    // Other producers count their chains from 1.
    let chain = client.number * 1000;
    let mut steady =
        Steady { client, key, rest, chain, identity: None, sequence: 0, sent: 0, undecided: None };
    while !steady.is_done() {
        if let Err(Refused(reason)) = steady.connected(agent).await {
            let number = steady.client.number;
            steady.client.shared.universe.trace.note(|| format!("client {number}: {reason}"));
        }
        agent = (agent + 1) % agents;
        sleep(RETRY_PAUSE).await;
    }
}

impl Steady {
    fn is_done(&self) -> bool {
        self.client.shared.is_stopping() && self.undecided.is_none()
    }

    async fn connected(&mut self, agent: usize) -> Result<(), Refused> {
        let (address, life) = self.client.shared.agents[agent].clone();
        let opening = connection::open(&*self.client.process.seams.net, address);
        let stream = timeout(CONNECT_MAX, opening).await??;
        let server = agent as u32 * 10_000 + life.load(Ordering::Relaxed);
        let mut connection = Connection::new(stream, server);
        if self.identity.is_none() {
            self.identity = Some(init(&mut connection).await?);
            self.sequence = 0;
            self.chain += 1;
        }
        while !self.is_done() {
            let (code, base) = self.send(&mut connection).await?;
            if self.judge(server, code, base) {
                if self.identity.is_none() {
                    return Ok(());
                }
                sleep(self.rest).await;
                continue;
            }
            if code == NOT_LEADER {
                return Ok(());
            }
            sleep(RETRY_PAUSE).await;
        }
        Ok(())
    }

    /// Sends the undecided batch, or a new one; the code and offset it is answered with.
    async fn send(&mut self, connection: &mut Connection) -> Result<(i16, i64), Refused> {
        let shared = self.client.shared.clone();
        let number = u64::from(self.client.number);
        let batch = self.undecided.get_or_insert_with(|| {
            self.sent += 1;
            // Other producers count their values from 1.
            let value = Value(number << 40 | self.sent);
            Batch { value, began: shared.now(), refusals: Vec::new() }
        });
        let partition = &shared.partitions[self.key.0 as usize];
        let (producer_id, epoch) = self.identity.unwrap_or((-1, -1));
        let timestamp_ms = i64::try_from(batch.began / 1_000_000).expect("a run is short");
        let stamp = Stamp { producer_id, epoch, sequence: self.sequence, timestamp_ms };
        let records = batch::build(self.key, &[batch.value], &stamp);
        let topic = ProduceRequestTopicData {
            name: Str::from(partition.topic.as_str()),
            partition_data: vec![ProduceRequestTopicDataPartitionData {
                index: partition.index,
                records: Some(Records::from(records)),
            }],
            ..ProduceRequestTopicData::default()
        };
        let request = ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: i32::try_from(DECIDE_MAX.as_millis()).expect("short"),
            topic_data: vec![topic],
        };
        let answer: ProduceResponse =
            connection.call(PRODUCE_VERSION, &request, ANSWER_MAX).await?;
        let answered = answer.responses.iter().flat_map(|topic| &topic.partition_responses).next();
        let answered = answered.expect("an agent answers what was asked");
        Ok((answered.error_code, answered.base_offset))
    }

    /// Whether the batch is decided.
    fn judge(&mut self, server: u32, code: i16, base: i64) -> bool {
        let Some(mut batch) = self.undecided.take() else { return true };
        if code != 0 {
            batch.refusals.push((code, base));
        }
        let answer = match code {
            0 => Answer::Done(base),
            DUPLICATE if 0 <= base => Answer::Done(base),
            code if RETRIABLE.contains(&code) => {
                self.undecided = Some(batch);
                return false;
            }
            code => {
                self.identity = None; // The laws judge this answer; a new producer goes on.
                Answer::Failed(code)
            }
        };
        let Batch { value, began, refusals } = batch;
        let send = Send {
            chain: self.chain,
            place: self.sent,
            values: vec![value],
            idempotent: true,
            sent_once: false,
            answer,
            refusals,
        };
        self.sequence += 1;
        let (process, key, ended) = (self.client.number, self.key, self.client.shared.now());
        let action = Action::Send(send);
        self.client.shared.record(Operation { process, server, key, began, ended, action });
        true
    }
}

async fn init(connection: &mut Connection) -> Result<(i64, i16), Refused> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let answer: InitProducerIdResponse =
        connection.call(INIT_VERSION, &request, ANSWER_MAX).await?;
    match answer.error_code {
        0 => Ok((answer.producer_id, answer.producer_epoch)),
        code => Err(Refused(format!("InitProducerId: {code}"))),
    }
}
