//! Laws of delivery: sequences, repetitions, and what is said of records that are not written.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::{
    cli::{
        client::testing::{Asked, Broker, Reply},
        records::Batch as SentBatch,
    },
    wire::{
        ApiKey,
        messages::{ProduceResponseResponses, ProduceResponseResponsesPartitionResponses},
    },
};

/// First sequence and count of every batch that came.
type Sent = Arc<Mutex<Vec<(i32, i32)>>>;

/// A broker that answers each Produce as `judge` says of (attempt, records in it).
fn broker(judge: impl Fn(usize, i32) -> Option<ErrorCode> + Send + 'static) -> (Arc<Broker>, Sent) {
    let sent = Sent::default();
    let seen = Arc::clone(&sent);
    let broker = Broker::new(&[], move |asked| match asked.key {
        ApiKey::InitProducerId => Some(asked.answer(&InitProducerIdResponse {
            producer_id: 7,
            ..InitProducerIdResponse::default()
        })),
        ApiKey::Produce => {
            let (sequence, count) = batch_of(asked);
            let mut seen = seen.lock().expect("no panic while held");
            seen.push((sequence, count));
            match judge(seen.len(), count) {
                None => Some(Reply::Close),
                Some(code) => Some(asked.answer(&answer(code, i64::from(sequence)))),
            }
        }
        _ => None,
    });
    (broker, sent)
}

fn batch_of(asked: &Asked) -> (i32, i32) {
    let request: ProduceRequest = asked.read();
    let partition = &request.topic_data[0].partition_data[0];
    let mut bytes = partition.records.as_ref().expect("a batch").to_bytes();
    let batch = SentBatch::take(&mut bytes).expect("it is whole").expect("one");
    (batch.header.base_sequence, batch.header.count)
}

/// Offsets are the sequences, as of a partition that only this producer writes to.
fn answer(code: ErrorCode, base_offset: i64) -> ProduceResponse {
    let row = ProduceResponseResponsesPartitionResponses {
        error_code: code.code(),
        base_offset,
        error_message: None,
        ..ProduceResponseResponsesPartitionResponses::default()
    };
    let topic = ProduceResponseResponses {
        name: "t".into(),
        partition_responses: vec![row],
        ..ProduceResponseResponses::default()
    };
    ProduceResponse { responses: vec![topic], ..ProduceResponse::default() }
}

async fn delivered(broker: &Arc<Broker>, count: u64, timeout: Duration) -> Delivery {
    let mut client = broker.client(Duration::from_secs(5)).await.expect("it is there");
    let topic = client.topic("t").await.expect("it is there");
    let mut producer = Producer::start(client, topic, timeout).await.expect("an id");
    let record = |ordinal: u64| Queued {
        partition: 0,
        record: Record { value: Some(Bytes::from(ordinal.to_string())), ..Record::default() },
        ordinal,
    };
    producer.deliver((1..=count).map(record).collect()).await
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_batch_without_an_answer_is_sent_again_with_its_sequence() {
    let (broker, sent) = broker(|attempt, _| (attempt != 1).then_some(ErrorCode::None));
    let delivery = delivered(&broker, 3, LONG).await;
    assert!(delivery.failed.is_none(), "{:?}", delivery.failed);
    let offsets: Vec<Option<i64>> = delivery.written.iter().map(|one| one.offset).collect();
    assert_eq!(offsets, [Some(0), Some(1), Some(2)]);
    assert_eq!(*sent.lock().expect("no panic while held"), [(0, 3), (0, 3)]);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let judge =
        |_, count| Some(if 2 < count { ErrorCode::MessageTooLarge } else { ErrorCode::None });
    let (broker, sent) = broker(judge);
    let delivery = delivered(&broker, 5, LONG).await;
    assert_eq!(delivery.written.len(), 5);
    let sent = sent.lock().expect("no panic while held");
    assert_eq!(*sent, [(0, 5), (0, 2), (2, 3), (2, 1), (3, 2)]);
}

#[tokio::test]
async fn a_refusal_is_told_as_not_written_and_silence_as_unknown() {
    let (refusing, _) = broker(|_, _| Some(ErrorCode::InvalidRecord));
    let failed = delivered(&refusing, 4, LONG).await.failed.expect("it is refused");
    assert_eq!(format!("{failed:#}"), "4 not written, the first is number 1: t/0: INVALID_RECORD");
    let (closing, sent) = broker(|_, _| None);
    let failed = delivered(&closing, 4, Duration::from_millis(300)).await.failed;
    let told = format!("{:#}", failed.expect("it gives up"));
    assert!(told.starts_with("of 4 it is not known whether they are, the first is number 1"));
    assert!(1 < sent.lock().expect("no panic while held").len(), "it tried again");
}

#[tokio::test]
async fn what_was_perhaps_written_stays_unknown_when_a_later_attempt_is_refused() {
    let (broker, _) = broker(|attempt, _| (attempt != 1).then_some(ErrorCode::InvalidRecord));
    let failed = delivered(&broker, 1, LONG).await.failed.expect("it is refused");
    let told = format!("{failed:#}");
    assert!(told.starts_with("of 1 it is not known whether they are"), "{told}");
}

#[tokio::test]
async fn a_repetition_that_the_broker_knows_is_written_without_an_offset() {
    let (broker, _) = broker(|_, _| Some(ErrorCode::DuplicateSequenceNumber));
    let delivery = delivered(&broker, 1, LONG).await;
    assert_eq!(delivery.written.iter().map(|one| one.offset).collect::<Vec<_>>(), [None]);
}

#[test]
fn a_batch_that_is_too_large_becomes_two_whose_sequences_go_on() {
    let record = |timestamp| Record { timestamp, ..Record::default() };
    let batch = Batch {
        records: (0..5).map(record).collect(),
        ordinals: (1..=5).collect(),
        bytes: 0,
        sequence: Sequence::new(i32::MAX).expect("not negative"),
        is_unknown: false,
    };
    let (first, second) = batch.halves();
    assert_eq!((first.records.len(), first.sequence.value()), (2, i32::MAX));
    assert_eq!(second.ordinals, [3, 4, 5]);
    assert_eq!(second.sequence.value(), 1, "0 follows the largest");
}
