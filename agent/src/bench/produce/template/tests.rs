//! Laws of a sealed batch.

use aquifer_storage::format::record_batch::{ValidatedBatch, validate_produced};
use proptest::prelude::*;

use super::*;

fn shape(batch_bytes: usize, record_bytes: usize) -> BatchShape {
    BatchShape { batch_bytes, record_bytes, seed: 7 }
}

fn sealed(template: &BatchTemplate, variables: &BatchVariables) -> Bytes {
    let mut bytes = vec![0xee; template.head_bytes()];
    template.seal(&mut bytes, variables);
    bytes.extend_from_slice(template.tail());
    bytes.into()
}

const VARIABLES: BatchVariables = BatchVariables {
    producer: ProducerLease { id: 1_000_007, epoch: 3 },
    base_sequence: 41,
    intended_micros: 1_700_000_000_123_456,
};

fn validated(batch: Bytes) -> ValidatedBatch {
    validate_produced(batch, BATCH_BYTES_MAX).expect("the batch is valid")
}

#[test]
fn a_sealed_batch_is_valid_and_carries_what_it_was_sealed_with() {
    let template = BatchTemplate::new(&shape(65_536, 1024)).unwrap();
    let batch = sealed(&template, &VARIABLES);
    assert_eq!(batch.len(), 65_536);
    let header = *validated(batch.clone()).header();
    let producer = header.producer().unwrap();
    assert_eq!((header.producer_id, header.producer_epoch), (1_000_007, 3));
    assert_eq!(producer.base_sequence.value(), 41);
    assert_eq!(header.max_timestamp.millis(), 1_700_000_000_123);
    assert_eq!((header.count, header.count - 1), (template.records(), header.last_offset_delta));
    assert_eq!(stamp::of_batch(&batch), Some(VARIABLES.intended_micros));
}

#[test]
fn a_template_is_sealed_again_and_again() {
    let template = BatchTemplate::new(&shape(4096, 100)).unwrap();
    let mut head = vec![0; template.head_bytes()];
    for sequence in [0, 1, i32::MAX, -1] {
        let variables = BatchVariables { base_sequence: sequence, ..VARIABLES };
        template.seal(&mut head, &variables);
        assert_eq!([&head, &template.tail()[..]].concat(), sealed(&template, &variables));
    }
    let plain = BatchVariables { producer: ProducerLease::NONE, base_sequence: -1, ..VARIABLES };
    assert!(validated(sealed(&template, &plain)).header().producer().is_none());
}

#[test]
fn payloads_do_not_repeat_and_the_seed_decides_them() {
    let template = |seed| BatchTemplate::new(&BatchShape { seed, ..shape(8192, 1000) }).unwrap();
    assert_eq!(template(1).tail(), template(1).tail());
    assert_ne!(template(1).tail(), template(2).tail());
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let refused = |shape| BatchTemplate::new(&shape).unwrap_err();
    assert_eq!(
        refused(shape(9000, 15)),
        ShapeRefused::RecordTooSmall { record_bytes: 15, min: 16 }
    );
    let min = BATCH_HEADER_BYTES + 7 + 16;
    assert_eq!(BatchTemplate::new(&shape(min, 16)).unwrap().records(), 1);
    let max = BATCH_BYTES_MAX;
    let batch_bytes = min - 1;
    assert_eq!(refused(shape(batch_bytes, 16)), ShapeRefused::BatchBytes { batch_bytes, min, max });
}

/// Reads the records one by one and returns the lengths of their values.
fn values(batch: &[u8]) -> Vec<usize> {
    fn varint(bytes: &mut &[u8]) -> i64 {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return (value >> 1) as i64 ^ -((value & 1) as i64);
            }
        }
    }
    let mut rest = &batch[BATCH_HEADER_BYTES..];
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let body = varint(&mut rest) as usize;
        let (mut record, behind) = rest.split_at(body);
        rest = behind;
        record = &record[1..];
        assert_eq!(varint(&mut record), 0);
        assert_eq!(varint(&mut record), lengths.len() as i64);
        assert_eq!(varint(&mut record), -1);
        let length = varint(&mut record) as usize;
        assert_eq!(record.len(), length + 1);
        assert_eq!(record[length], 0);
        lengths.push(length);
    }
    lengths
}

proptest! {
    #[test]
    fn batches_have_the_size_and_the_records_that_were_asked_for(
        batch_bytes in 90usize..40_000,
        record_bytes in 16usize..3_000,
    ) {
        let template = BatchTemplate::new(&shape(batch_bytes, record_bytes)).unwrap();
        prop_assert!(template.batch_bytes() <= batch_bytes);
        prop_assert!(batch_bytes <= template.batch_bytes() + 2);
        let batch = sealed(&template, &VARIABLES);
        validated(batch.clone());
        let lengths = values(&batch);
        prop_assert_eq!(lengths.len(), template.records() as usize);
        let (last, full) = lengths.split_last().unwrap();
        prop_assert!(full.iter().all(|length| *length == record_bytes));
        prop_assert!(full.is_empty() || record_bytes <= *last);
        prop_assert!(*last < 2 * record_bytes + 32);
    }
}
