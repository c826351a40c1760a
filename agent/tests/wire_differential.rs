//! Our codec against the table of messages and against two other implementations.

#[path = "wire_support/others.rs"]
mod others;
#[path = "wire_support/schema.rs"]
mod schema;

use aquifer_agent::wire::{
    DecodeError, Reader, Writer,
    messages::{MESSAGES, MessageId, recode},
};
use bytes::Bytes;
use schema::Random;

const BODIES_PER_VERSION: usize = 60;

fn ours(of: MessageId, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut r = Reader::new(Bytes::copy_from_slice(body));
    let mut w = Writer::default();
    recode(of, &mut r, Some(&mut w))?;
    Ok(w.into_bytes().to_vec())
}

/// Every message in every version, each with some random bodies.
fn for_each_body(seed: u64, mut check: impl FnMut(MessageId, Vec<u8>, &mut Random)) {
    let mut random = Random(seed);
    for message in schema::messages() {
        for version in message.versions.first..=message.last_version() {
            let of = MessageId { key: message.key, is_request: message.is_request, version };
            for _ in 0..BODIES_PER_VERSION {
                let body = schema::body(&message, version, &mut random);
                check(of, body, &mut random);
            }
        }
    }
}

#[test]
fn every_message_of_the_table_is_generated() {
    let table = schema::messages();
    assert_eq!(table.len(), 154);
    assert_eq!(table.len(), MESSAGES.len());
    for (line, spec) in table.iter().zip(MESSAGES) {
        assert_eq!(
            (line.key, line.is_request, &*line.name),
            (spec.key, spec.is_request, spec.name)
        );
        assert_eq!((line.versions.first, line.last_version()), spec.versions);
        assert_eq!(line.first_flexible, spec.first_flexible);
    }
}

#[test]
fn valid_bodies_are_encoded_as_they_were_read_by_all_three_codecs() {
    for_each_body(1, |of, body, _| {
        let MessageId { key, is_request, version } = of;
        assert_eq!(ours(of, &body).as_deref(), Ok(&*body), "{of:?}");
        let kacrab = others::kacrab(key, is_request, version, &body);
        assert_eq!(kacrab.as_deref(), Some(&*body), "kacrab {of:?}");
        if !others::newer_than_4_1(key, is_request, version) {
            let other = others::kafka_protocol(key, is_request, version, &body);
            assert_eq!(other.as_deref(), Some(&*body), "kafka-protocol {of:?}");
        }
    });
}

#[test]
fn a_body_cut_short_is_an_error() {
    for_each_body(2, |of, mut body, random| {
        if !body.is_empty() {
            body.truncate(random.below(body.len()));
            assert!(ours(of, &body).is_err(), "{of:?} {body:02x?}");
        }
    });
}

#[test]
fn bytes_after_a_body_are_ignored() {
    for_each_body(3, |of, body, random| {
        let mut longer = body.clone();
        longer.extend(random.next().to_be_bytes());
        assert_eq!(ours(of, &longer).as_deref(), Ok(&*body), "{of:?}");
    });
}

#[test]
fn damaged_bodies_mean_the_same_to_us_and_to_kacrab() {
    let (mut both, mut refused) = (0, 0);
    for_each_body(4, |of, mut body, random| {
        schema::mutate(&mut body, random);
        let Some(other) = others::kacrab(of.key, of.is_request, of.version, &body) else { return };
        match ours(of, &body) {
            // The other keeps unknown tags, so what it writes is read once more.
            Ok(first) => {
                both += 1;
                assert_eq!(ours(of, &other), Ok(first), "{of:?} {body:02x?}");
            }
            // Kafka refuses a null where there may be none, and so do we.
            Err(error) => {
                refused += 1;
                assert_eq!(error, DecodeError::UnexpectedNull, "{of:?} {body:02x?}");
            }
        }
    });
    assert!(refused < both / 5, "{both} taken by both, {refused} by kacrab only");
}
