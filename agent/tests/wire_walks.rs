//! The walks over Produce and Fetch say what the decoded messages say.

#[path = "wire_support/schema.rs"]
#[allow(dead_code)] // Nothing is damaged at random here.
mod schema;

use aquifer_agent::wire::{
    Reader, Records, TopicRef,
    fetch_walk::FetchWalk,
    messages::{FetchRequest, ProduceRequest},
    produce_walk::ProduceWalk,
};
use bytes::Bytes;
use schema::{Random, parse::Message};

fn request(key: i16) -> Message {
    let mut messages = schema::messages().into_iter();
    messages.find(|message| message.key == key && message.is_request).expect("in the table")
}

fn topic_ref(
    by_id: bool,
    name: aquifer_agent::wire::Str,
    id: aquifer_agent::wire::Uuid,
) -> TopicRef {
    if by_id { TopicRef::Id(id) } else { TopicRef::Name(name) }
}

#[test]
fn a_produce_walk_yields_what_the_request_holds() {
    let mut random = Random(7);
    let produce = request(0);
    for version in (3..=13).cycle().take(2_000) {
        let body = Bytes::from(schema::body(&produce, version, &mut random));
        let request = ProduceRequest::decode(&mut Reader::new(body.clone()), version).unwrap();
        let walk = ProduceWalk::parse(body, version).unwrap();
        assert_eq!(walk.transactional_id, request.transactional_id);
        assert_eq!((walk.acks, walk.timeout_ms), (request.acks, request.timeout_ms));
        let mut walked = walk.iter();
        for (index, topic) in request.topic_data.into_iter().enumerate() {
            for partition in topic.partition_data {
                let next = walked.next().expect("as many as were decoded");
                let name = topic_ref(version >= 13, topic.name.clone(), topic.topic_id);
                assert_eq!((next.topic, next.topic_index), (name, index));
                assert_eq!(next.partition_index, partition.index);
                assert_eq!(next.records.map(Records::from), partition.records);
            }
        }
        assert_eq!(walked.next(), None);
    }
}

#[test]
fn a_fetch_walk_yields_what_the_request_holds() {
    let mut random = Random(8);
    let fetch = request(1);
    for version in (4..=18).cycle().take(2_000) {
        let body = Bytes::from(schema::body(&fetch, version, &mut random));
        let request = FetchRequest::decode(&mut Reader::new(body.clone()), version).unwrap();
        let walk = FetchWalk::parse(body, version).unwrap();
        let replica_id = match version {
            15.. => request.replica_state.replica_id,
            _ => request.replica_id,
        };
        assert_eq!(walk.replica_id, replica_id);
        assert_eq!((walk.max_wait_ms, walk.min_bytes), (request.max_wait_ms, request.min_bytes));
        assert_eq!(
            (walk.max_bytes, walk.isolation_level),
            (request.max_bytes, request.isolation_level)
        );
        assert_eq!(
            (walk.session_id, walk.session_epoch),
            (request.session_id, request.session_epoch)
        );
        assert_eq!(walk.rack_id, request.rack_id);
        let walked: Vec<_> =
            walk.iter().map(|entry| (entry.topic, entry.topic_index, entry.partition)).collect();
        let mut decoded = Vec::new();
        for (index, topic) in request.topics.into_iter().enumerate() {
            let name = topic_ref(version >= 13, topic.topic, topic.topic_id);
            decoded.extend(topic.partitions.into_iter().map(|entry| (name.clone(), index, entry)));
        }
        assert_eq!(walked, decoded);
        let mut forgotten = Vec::new();
        for topic in request.forgotten_topics_data {
            let name = topic_ref(version >= 13, topic.topic, topic.topic_id);
            forgotten.extend(topic.partitions.into_iter().map(|index| (name.clone(), index)));
        }
        assert_eq!(walk.forgotten().collect::<Vec<_>>(), forgotten);
    }
}

#[test]
fn a_walk_refuses_a_request_that_is_damaged_behind_its_last_partition() {
    let mut random = Random(9);
    let requests = [request(0), request(1)];
    for (key, version) in [(0, 3), (0, 13), (1, 4), (1, 12), (1, 18)].into_iter().cycle().take(500)
    {
        let mut body = schema::body(&requests[key], version, &mut random);
        body.pop();
        let body = Bytes::from(body);
        let refused = match key {
            0 => ProduceWalk::parse(body, version).is_err(),
            _ => FetchWalk::parse(body, version).is_err(),
        };
        assert!(refused, "key {key} version {version}");
    }
}
