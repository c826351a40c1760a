//! Laws of object.

use proptest::prelude::*;

use super::*;
use crate::{
    format::{
        record_batch::{CheckedBatch, split_batches, validate_produced},
        test_batch::TestBatch,
    },
    model::{Offset, PartitionIndex, ProducerId, TopicId},
};

fn partition(topic: u8, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicId::from_bytes([topic; 16]),
        partition: PartitionIndex::new(partition),
    }
}

fn batch(template: &TestBatch) -> CheckedBatch {
    validate_produced(template.bytes(), usize::MAX).unwrap().into()
}

fn whole(built: &BuiltObject) -> Bytes {
    let bytes = Bytes::from(built.body.concat());
    assert_eq!(bytes.len() as u64, built.object_bytes);
    bytes
}

#[test]
fn extents_stand_in_partition_order_and_batches_in_order_of_arrival() {
    let mut builder = ObjectBuilder::new();
    let added: Vec<(TopicPartition, CheckedBatch)> = [(2, 0), (1, 7), (2, 0), (1, 3), (2, 0)]
        .iter()
        .zip(1..)
        .map(|(&(t, p), records)| {
            (partition(t, p), batch(&TestBatch { records, ..TestBatch::default() }))
        })
        .collect();
    for (index, (partition, batch)) in added.iter().enumerate() {
        assert_eq!(builder.add(*partition, batch.clone()), index);
    }
    let built = builder.finish();
    let order: Vec<_> = built.extents.iter().map(|extent| extent.partition).collect();
    assert_eq!(order, [partition(1, 3), partition(1, 7), partition(2, 0)]);
    assert_eq!(built.extents[2].batch_count, 3);
    assert_eq!(built.extents[2].record_count, 1 + 3 + 5);
    let object = whole(&built);
    for (position, (partition, batch)) in built.positions.iter().zip(&added) {
        assert_eq!(position.partition, *partition);
        let range = position.range.as_usize_range().unwrap();
        assert_eq!(object.slice(range), batch.bytes());
    }
}

#[test]
fn the_body_is_the_producers_own_buffers() {
    let bytes = TestBatch::default().bytes();
    let mut builder = ObjectBuilder::new();
    builder.add(partition(1, 0), validate_produced(bytes.clone(), 1000).unwrap());
    assert_eq!(builder.finish().body[0].as_ptr(), bytes.as_ptr());
}

#[test]
fn a_merged_object_has_a_sparse_index_and_its_aborted_transactions() {
    let mut builder = ObjectBuilder::merged();
    let records = 2000;
    let mut base_offset = 0;
    while builder.body_bytes() < 3 * 1024 * 1024 {
        let template =
            TestBatch { records, base_offset, value: vec![7; 32], ..TestBatch::default() };
        builder.add(partition(1, 0), batch(&template));
        base_offset += i64::from(records);
    }
    let offset = |value| Offset::new(value).unwrap();
    builder.add_aborted(partition(1, 0), ProducerId::new(5), (offset(10), offset(20)));
    builder.add_aborted(partition(9, 0), ProducerId::new(5), (offset(10), offset(20)));
    let object = whole(&builder.finish());
    let footer = check_whole(&object).unwrap();
    assert_eq!(footer.index.len(), 3);
    assert_eq!(footer.aborted.len(), 1);
    for point in &footer.index {
        let at = usize::try_from(point.position).unwrap();
        let found = split_batches(object.slice(at..)).next().unwrap().unwrap();
        assert_eq!(found.header.base_offset, point.offset.value());
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let mut builder = ObjectBuilder::new();
    builder.add(partition(1, 0), batch(&TestBatch::default()));
    builder.add(partition(2, 0), batch(&TestBatch::default()));
    let object = whole(&builder.finish());
    for at in 0..object.len() {
        let mut damaged = object.to_vec();
        damaged[at] ^= 0x40;
        let in_reserved = object.len() - TRAILER_BYTES + 10 <= at && at < object.len() - 8;
        assert_eq!(check_whole(&damaged.into()).is_ok(), in_reserved, "byte {at}");
    }
}

#[test]
fn a_newer_format_says_what_to_do() {
    let mut trailer = Trailer { footer_bytes: 0, footer_checksum: Crc32c::EMPTY }.encode();
    trailer[9] = 2;
    let error = Trailer::decode(&trailer).unwrap_err();
    assert_eq!(error.to_string(), "object format 2 is newer than 1: upgrade this agent");
}

#[test]
fn an_unknown_section_is_skipped_unless_it_must_be_known() {
    let with_section = |kind: u16| {
        let mut footer = vec![0, 0, 0, 0, 0, 0, 0, 1];
        footer.extend_from_slice(&kind.to_be_bytes());
        footer.extend_from_slice(&[0, 9, 0, 0, 0, 2, 1, 2]);
        let trailer =
            Trailer { footer_bytes: footer.len() as u32, footer_checksum: Crc32c::of(&footer) };
        footer.extend_from_slice(&trailer.encode());
        read_footer(&footer)
    };
    assert_eq!(with_section(77), Ok(Footer::default()));
    assert_eq!(with_section(0x8001), Err(ObjectDamaged::UnknownSection { kind: 0x8001 }));
}

proptest! {
    #[test]
    fn objects_survive_a_round_trip(
        batches in proptest::collection::vec((0_u8..4, 0_i32..4, 1_u32..20, any::<bool>()), 1..40),
    ) {
        let mut builder = ObjectBuilder::new();
        for &(topic, index, records, late) in &batches {
            let timestamp_ms = if late { 9_000 } else { 1_000 };
            let template = TestBatch { records, timestamp_ms, ..TestBatch::default() };
            builder.add(partition(topic, index), batch(&template));
        }
        let built = builder.finish();
        let object = whole(&built);
        let footer = check_whole(&object).unwrap();
        prop_assert_eq!(&footer.extents, &built.extents);
        for extent in &footer.extents {
            let bytes = object.slice(extent.range.as_usize_range().unwrap());
            let split: Vec<_> = split_batches(bytes).map(Result::unwrap).collect();
            prop_assert_eq!(split.len(), extent.batch_count as usize);
            let newest = split.iter().map(|batch| batch.header.max_timestamp).max();
            prop_assert_eq!(newest, Some(extent.max_timestamp));
        }
        let again = footer.encode();
        prop_assert_eq!(&object[object.len() - again.len()..], &again[..]);
    }

    #[test]
    fn hostile_objects_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        footer_bytes in 0_u32..420,
    ) {
        let _ = read_footer(&bytes);
        // The same again with a sound trailer, so that the footer's parser is reached.
        let from = bytes.len().saturating_sub(footer_bytes as usize);
        let footer_checksum = Crc32c::of(&bytes[from..]);
        bytes.extend_from_slice(&Trailer { footer_bytes, footer_checksum }.encode());
        let _ = check_whole(&bytes.into());
    }
}
