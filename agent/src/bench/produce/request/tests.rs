//! Laws of a patched Produce request.

use aquifer_storage::format::record_batch::validate_produced;
use bytes::Bytes;

use super::*;
use crate::{
    bench::{client::ProducerLease, produce::template::BatchShape},
    wire::{Reader, TopicRef, produce_walk::ProduceWalk},
};

/// Takes little at a time, and across slices.
#[derive(Default)]
struct Trickle(Vec<u8>, usize);

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = all.len().min(700);
        self.0.extend_from_slice(&all[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn shape(version: i16) -> RequestShape {
    RequestShape {
        version,
        topic_name: Str::from_static("bench"),
        topic_id: Uuid::from_bytes([9; 16]),
        acks: -1,
        timeout_ms: 30_000,
        batches: 3,
    }
}

fn variables(base_sequence: i32) -> BatchVariables {
    let producer = ProducerLease { id: 5, epoch: 0 };
    BatchVariables { producer, base_sequence, intended_micros: 1_700_000_000_000_001 }
}

fn batch() -> BatchTemplate {
    BatchTemplate::new(&BatchShape { batch_bytes: 2000, record_bytes: 100, seed: 1 }).unwrap()
}

#[test]
fn a_patched_request_is_read_back_in_every_version() {
    let batch = batch();
    for version in VERSIONS {
        let mut request = RequestTemplate::new(&shape(version), &batch);
        for round in 1..3 {
            request.set_correlation_id(1000 + round);
            (0..3).for_each(|i| request.set_batch(i as usize, 7 * i, &variables(round * 100 + i)));
            let mut written = Trickle::default();
            request.write_to(&mut written).unwrap();
            check(written.0.into(), version, round);
        }
    }
}

fn check(frame: Bytes, version: i16, round: i32) {
    let mut r = Reader::new(frame);
    let length = i32::read(&mut r, 0, false).unwrap();
    assert_eq!(length as usize, r.remaining());
    assert_eq!(i16::read(&mut r, 0, false).unwrap(), 0);
    assert_eq!(i16::read(&mut r, 0, false).unwrap(), version);
    let header = RequestHeader::decode(&mut r, ApiKey::Produce, version, true).unwrap();
    assert_eq!(header.correlation_id, 1000 + round);
    assert_eq!(header.client_id, Some(Str::from_static(CLIENT_ID)));
    let walk = ProduceWalk::read(r, version).unwrap();
    assert_eq!((walk.acks, walk.timeout_ms, walk.partition_count()), (-1, 30_000, 3));
    for (i, partition) in walk.iter().enumerate() {
        match partition.topic {
            TopicRef::Name(name) => assert!(version < 13 && name == "bench"),
            TopicRef::Id(id) => assert!(version == 13 && id == Uuid::from_bytes([9; 16])),
        }
        assert_eq!(partition.partition_index, 7 * i as i32);
        let records = partition.records.unwrap();
        let validated = validate_produced(records, 1 << 20).unwrap();
        assert_eq!(validated.header().base_sequence, round * 100 + i as i32);
    }
}

#[test]
fn a_closed_socket_is_an_error_and_not_a_loop() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Ok(0)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let batch = batch();
    let error = RequestTemplate::new(&shape(9), &batch).write_to(&mut Closed).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}
