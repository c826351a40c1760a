//! A producer as Kafka's: several requests in flight, retries in order, sequences when idempotent.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use aquifer_agent::wire::{
    Records, Str,
    messages::{
        InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceRequestTopicData,
        ProduceRequestTopicDataPartitionData, ProduceResponse,
    },
};
use tokio::time::sleep;

use super::{
    Client, Partition,
    batch::{self, Stamp},
    connection::{Connection, Refused},
};
use crate::history::{Action, Answer, Key, Nanos, Operation, Send, Value};

/// Up to this version topics go by name.
const PRODUCE_VERSION: i16 = 12;
const INIT_VERSION: i16 = 4;
/// A batch that is not decided by then is given up, and its producer starts anew.
const DELIVERY_MAX: Duration = Duration::from_secs(120);
/// After the agent's own time-out.
const GRACE: Duration = Duration::from_secs(5);

const OUT_OF_ORDER: i16 = 45;
const DUPLICATE: i16 = 46;
const TIMED_OUT: i16 = 7;
const RETRIABLE: &[i16] = &[3, 5, 6, TIMED_OUT, 19, 56, 89];

/// What kind of producer it is.
#[derive(Clone, Copy, Debug)]
pub struct ProducerKind {
    /// With sequences and retries; else every batch is sent once.
    pub idempotent: bool,
    /// Requests in flight at most.
    pub in_flight_max: usize,
    /// How long it rests between two batches, at most.
    pub pause_max: Duration,
    /// How long an agent may take.
    pub timeout: Duration,
}

/// A batch that is not decided.
struct Batch {
    key: Key,
    place: u64,
    values: Vec<Value>,
    sequence: i32,
    began: Nanos,
    refusals: Vec<(i16, i64)>,
}

struct Request {
    correlation_id: i32,
    /// Places of its batches, each of another partition.
    places: Vec<(Key, u64)>,
}

struct Producer {
    client: Client,
    kind: ProducerKind,
    chain: u32,
    identity: Option<(i64, i16)>,
    next_place: u64,
    sequences: BTreeMap<Key, i32>,
    /// By partition, in order.
    undecided: BTreeMap<Key, VecDeque<Batch>>,
    in_flight: VecDeque<Request>,
    /// Something must be sent again, once nothing is in flight.
    again: bool,
    /// What was sent again is not decided: as Kafka's client, it then sends nothing new, or what
    /// is sent again would fall out of the broker's window of sequences.
    catching_up: bool,
}

/// Sends until told to stop and everything is decided.
pub async fn run(client: Client, kind: ProducerKind) {
    let chain = client.shared.new_chain();
    let mut producer = Producer {
        client,
        kind,
        chain,
        identity: None,
        next_place: 0,
        sequences: BTreeMap::new(),
        undecided: BTreeMap::new(),
        in_flight: VecDeque::new(),
        again: false,
        catching_up: false,
    };
    while !producer.is_done() {
        if let Err(Refused(reason)) = producer.connected().await {
            let number = producer.client.number;
            producer.client.shared.universe.trace.note(|| format!("client {number}: {reason}"));
        }
        producer.disconnected();
        let pause =
            producer.client.rng.between(Duration::from_millis(20), Duration::from_millis(300));
        sleep(pause).await;
    }
}

impl Producer {
    fn is_done(&self) -> bool {
        self.client.shared.is_stopping() && self.undecided.values().all(VecDeque::is_empty)
    }

    async fn connected(&mut self) -> Result<(), Refused> {
        let mut connection = self.client.connect().await?;
        if self.kind.idempotent && self.identity.is_none() {
            self.identity = Some(init(&mut connection).await?);
        }
        self.again = true;
        while !self.is_done() {
            if self.again && self.in_flight.is_empty() {
                self.again = false;
                self.send_again(&mut connection).await?;
            }
            self.catching_up &= !self.undecided.values().all(VecDeque::is_empty);
            let may_send = !self.again && !self.catching_up && !self.client.shared.is_stopping();
            while may_send && self.in_flight.len() < self.kind.in_flight_max {
                let pause = self.client.rng.between(Duration::ZERO, self.kind.pause_max);
                sleep(pause).await;
                let batches = self.new_batches();
                self.send(&mut connection, &batches).await?;
            }
            match self.in_flight.pop_front() {
                Some(request) => self.receive(&mut connection, request).await?,
                None => sleep(Duration::from_millis(100)).await,
            }
            if self.client.rng.one_in(200) {
                return Ok(()); // Clients move.
            }
            if self.give_up() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// New batches for some partitions, one each.
    fn new_batches(&mut self) -> Vec<(Key, u64)> {
        let shared = self.client.shared.clone();
        let count = if self.client.rng.one_in(4) { 1 + self.client.rng.below(3) } else { 1 };
        let mut batches = BTreeMap::new();
        for _ in 0..count {
            let key = self.client.rng.pick(&shared.partitions).key;
            if batches.contains_key(&key) {
                continue;
            }
            let records = 1 + self.client.rng.below(5);
            let values: Vec<_> = (0..records).map(|_| Value(shared.new_value())).collect();
            let next = self.sequences.entry(key).or_default();
            let sequence = *next;
            *next += i32::try_from(values.len()).expect("a batch is small");
            let place = self.next_place;
            self.next_place += 1;
            let (began, refusals) = (shared.now(), Vec::new());
            let batch = Batch { key, place, values, sequence, began, refusals };
            self.undecided.entry(key).or_default().push_back(batch);
            batches.insert(key, place);
        }
        batches.into_iter().collect()
    }

    /// Sends what is undecided again, in order: one request per batch.
    async fn send_again(&mut self, connection: &mut Connection) -> Result<(), Refused> {
        let mut places: Vec<_> =
            self.undecided.values().flatten().map(|batch| (batch.place, batch.key)).collect();
        places.sort_unstable();
        self.catching_up = true;
        for (place, key) in places {
            self.send(connection, &[(key, place)]).await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        connection: &mut Connection,
        places: &[(Key, u64)],
    ) -> Result<(), Refused> {
        let shared = self.client.shared.clone();
        let mut topics = BTreeMap::<&str, Vec<_>>::new();
        for (key, place) in places {
            let Partition { topic, index, .. } = &shared.partitions[key.0 as usize];
            let undecided = self.undecided.get(key).into_iter().flatten();
            let batch = undecided.into_iter().find(|batch| batch.place == *place);
            let batch = batch.expect("only what is undecided is sent");
            let (producer_id, epoch) = self.identity.unwrap_or((-1, -1));
            let sequence = if self.kind.idempotent { batch.sequence } else { -1 };
            let timestamp_ms = i64::try_from(batch.began / 1_000_000).expect("a run is short");
            let stamp = Stamp { producer_id, epoch, sequence, timestamp_ms };
            let bytes = batch::build(*key, &batch.values, &stamp);
            topics.entry(topic).or_default().push(ProduceRequestTopicDataPartitionData {
                index: *index,
                records: Some(Records::from(bytes)),
            });
        }
        let topics = topics.into_iter().map(|(name, partition_data)| ProduceRequestTopicData {
            name: Str::from(name),
            partition_data,
            ..ProduceRequestTopicData::default()
        });
        let request = ProduceRequest {
            transactional_id: None,
            acks: if self.kind.idempotent || self.client.rng.one_in(2) { -1 } else { 1 },
            timeout_ms: i32::try_from(self.kind.timeout.as_millis()).expect("short"),
            topic_data: topics.collect(),
        };
        // Counted before it leaves: written in part, it may be read in whole.
        let places = places.to_vec();
        self.in_flight.push_back(Request { correlation_id: 0, places });
        let correlation_id = connection.send(PRODUCE_VERSION, &request).await?;
        self.in_flight.back_mut().expect("it was just put there").correlation_id = correlation_id;
        Ok(())
    }

    async fn receive(
        &mut self,
        connection: &mut Connection,
        request: Request,
    ) -> Result<(), Refused> {
        let Request { correlation_id, places } = request;
        let patience = self.kind.timeout + GRACE;
        let received = connection.receive(PRODUCE_VERSION, correlation_id, patience).await;
        let answer: ProduceResponse = match received {
            Ok(answer) => answer,
            Err(refused) => {
                self.in_flight.push_front(Request { correlation_id, places });
                return Err(refused);
            }
        };
        let shared = self.client.shared.clone();
        let mut answered = 0;
        for topic in &answer.responses {
            for partition in &topic.partition_responses {
                let found = shared
                    .partitions
                    .iter()
                    .find(|known| topic.name == *known.topic && known.index == partition.index);
                let key = found.expect("an agent answers what was asked").key;
                let place = places.iter().find(|(asked, _)| *asked == key);
                let (_, place) = *place.expect("an agent answers what was asked");
                let outcome = (partition.error_code, partition.base_offset);
                self.judge(connection.server, (key, place), outcome);
                answered += 1;
            }
        }
        assert_eq!(answered, places.len(), "every batch is answered");
        Ok(())
    }

    /// Decides a batch, or notes that it must be sent again.
    fn judge(&mut self, server: u32, (key, place): (Key, u64), (code, base): (i16, i64)) {
        let idempotent = self.kind.idempotent;
        let undecided = self.undecided.entry(key).or_default();
        let Some(at) = undecided.iter().position(|batch| batch.place == place) else { return };
        let is_first = at == 0;
        if code != 0 {
            undecided[at].refusals.push((code, base));
        }
        let answer = match code {
            0 => Answer::Done(base),
            DUPLICATE if idempotent && 0 <= base => Answer::Done(base),
            OUT_OF_ORDER if idempotent && !is_first => {
                self.again = true;
                return;
            }
            code if idempotent && RETRIABLE.contains(&code) => {
                self.again = true;
                return;
            }
            TIMED_OUT => Answer::Unknown,
            code => Answer::Failed(code),
        };
        let batch = undecided.remove(at).expect("it was just found");
        self.decide(server, batch, answer);
    }

    fn decide(&self, server: u32, batch: Batch, answer: Answer<i64>) {
        let Batch { key, place, values, began, refusals, .. } = batch;
        let (chain, idempotent) = (self.chain, self.kind.idempotent);
        // Without idempotence every batch is sent once.
        let sent_once = !idempotent;
        let send = Send { chain, place, values, idempotent, sent_once, answer, refusals };
        let process = self.client.number;
        let ended = self.client.shared.now();
        let action = Action::Send(send);
        self.client.shared.record(Operation { process, server, key, began, ended, action });
    }

    /// What is in flight may have happened.
    fn disconnected(&mut self) {
        self.in_flight.clear();
        if !self.kind.idempotent {
            self.forget();
        } else {
            self.give_up();
        }
    }

    /// Whether a batch was undecided for too long: then this producer is over, and another begins.
    fn give_up(&mut self) -> bool {
        let now = self.client.shared.now();
        let oldest = self.undecided.values().flatten().map(|batch| batch.began).min();
        let overdue = DELIVERY_MAX.as_nanos();
        let is_over = oldest.is_some_and(|began| overdue < u128::from(now - began));
        if is_over {
            self.forget();
        }
        is_over
    }

    fn forget(&mut self) {
        for batch in std::mem::take(&mut self.undecided).into_values().flatten() {
            self.decide(u32::MAX, batch, Answer::Unknown);
        }
        self.in_flight.clear();
        self.sequences.clear();
        self.identity = None;
        self.chain = self.client.shared.new_chain();
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
    let patience = Duration::from_secs(10);
    let answer: InitProducerIdResponse = connection.call(INIT_VERSION, &request, patience).await?;
    match answer.error_code {
        0 => Ok((answer.producer_id, answer.producer_epoch)),
        code => Err(Refused(format!("InitProducerId: {code}"))),
    }
}
