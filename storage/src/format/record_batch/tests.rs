//! Laws of record batch.

use proptest::prelude::*;

use super::*;
use crate::format::test_batch::TestBatch;

const MAX_BYTES: usize = 1024 * 1024;

fn validate(records: impl Into<Bytes>) -> Result<ValidatedBatch, BatchRejected> {
    validate_produced(records.into(), MAX_BYTES)
}

fn rejected(records: impl Into<Bytes>) -> RejectedAs {
    validate(records).expect_err("the batch breaks a rule").rejected_as()
}

/// A sound batch with byte `at` replaced and its CRC made right again.
fn resealed(at: usize, value: u8) -> Vec<u8> {
    let mut bytes = TestBatch::default().bytes().to_vec();
    bytes[at] = value;
    TestBatch::reseal(&mut bytes);
    bytes
}

#[test]
fn a_sound_batch_is_taken_without_a_copy() {
    let records = TestBatch { records: 3, ..TestBatch::default() }.bytes();
    let batch = validate(records.clone()).unwrap();
    assert_eq!(batch.bytes().as_ptr(), records.as_ptr());
    assert_eq!(batch.record_count(), 3);
    assert_eq!(batch.header().producer(), None);
}

#[test]
fn an_empty_set_is_an_invalid_record() {
    assert_eq!(rejected(Bytes::new()), RejectedAs::InvalidRecord);
    assert_eq!(rejected(vec![0; 11]), RejectedAs::InvalidRecord);
}

#[test]
fn a_second_batch_is_an_invalid_record() {
    let one = TestBatch::default().bytes();
    assert_eq!(rejected([&one[..], &one[..]].concat()), RejectedAs::InvalidRecord);
}

#[test]
fn a_cut_batch_behind_the_first_is_ignored() {
    let one = TestBatch::default().bytes();
    for tail in [1, 11, 40, one.len() - 1] {
        let records = [&one[..], &one[..tail]].concat();
        assert_eq!(validate(records).unwrap().bytes(), &one);
    }
}

#[test]
fn older_magic_is_invalid_and_unknown_magic_is_corrupt() {
    for (magic, told) in [
        (0_u8, RejectedAs::InvalidRecord),
        (1, RejectedAs::InvalidRecord),
        (3, RejectedAs::Corrupt),
        (0xff, RejectedAs::Corrupt),
    ] {
        assert_eq!(rejected(resealed(MAGIC_AT, magic)), told);
    }
}

#[test]
fn a_damaged_byte_is_corrupt() {
    let sound = TestBatch::default().bytes();
    for at in 17..sound.len() {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 1;
        assert_eq!(rejected(bytes), RejectedAs::Corrupt, "byte {at}");
    }
}

#[test]
fn a_length_too_short_is_corrupt_and_too_long_is_invalid() {
    let sound = TestBatch::default().bytes();
    for (length, told) in [
        (-1_i32, RejectedAs::Corrupt),
        (0, RejectedAs::Corrupt),
        (48, RejectedAs::Corrupt),
        (i32::MAX, RejectedAs::InvalidRecord),
        (sound.len() as i32 - 11, RejectedAs::InvalidRecord),
    ] {
        let mut bytes = sound.to_vec();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes.truncate(sound.len());
        assert_eq!(rejected(bytes), told, "length {length}");
    }
}

#[test]
fn a_batch_above_the_limit_is_too_large() {
    let records = TestBatch::default().bytes();
    let at_limit = validate_produced(records.clone(), records.len());
    assert!(at_limit.is_ok());
    let above = validate_produced(records.clone(), records.len() - 1).unwrap_err();
    assert_eq!(above.rejected_as(), RejectedAs::TooLarge);
}

#[test]
fn an_unknown_codec_is_corrupt() {
    for code in 5..=7 {
        assert_eq!(rejected(resealed(22, code)), RejectedAs::Corrupt);
    }
}

#[test]
fn clients_may_not_write_control_batches() {
    assert_eq!(validate(resealed(22, 1 << 5)), Err(BatchRejected::Control));
}

#[test]
fn count_and_offset_range_must_agree() {
    for (count, delta) in [(0_i32, 0_i32), (0, -1), (2, 0), (1, 1), (-1, 0), (i32::MAX, 0)] {
        let mut bytes = TestBatch::default().bytes().to_vec();
        bytes[23..27].copy_from_slice(&delta.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        TestBatch::reseal(&mut bytes);
        assert_eq!(
            validate(bytes),
            Err(BatchRejected::CountMismatch { count, last_offset_delta: delta })
        );
    }
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_invalid_unless_compressed() {
    let mut bytes = TestBatch::default().bytes().to_vec();
    bytes[23..27].copy_from_slice(&999_999_i32.to_be_bytes());
    bytes[57..61].copy_from_slice(&1_000_000_i32.to_be_bytes());
    TestBatch::reseal(&mut bytes);
    assert_eq!(rejected(bytes.clone()), RejectedAs::InvalidRecord);
    bytes[22] = 4;
    TestBatch::reseal(&mut bytes);
    assert!(validate(bytes).is_ok());
}

#[test]
fn a_producer_id_needs_an_epoch_and_a_sequence() {
    let with = |producer| validate(TestBatch { producer, ..TestBatch::default() }.bytes());
    assert!(with((-1, -1, -1)).is_ok());
    assert!(with((7, 0, 0)).unwrap().header().producer().is_some());
    assert!(matches!(with((7, 0, -1)), Err(BatchRejected::NegativeProducerField { .. })));
    assert!(matches!(with((7, -1, 0)), Err(BatchRejected::NegativeProducerField { .. })));
}

#[test]
fn a_transactional_batch_needs_a_producer() {
    assert_eq!(validate(resealed(22, 1 << 4)), Err(BatchRejected::TransactionalWithoutProducer));
}

#[test]
fn stamping_the_append_time_keeps_the_checksum_right() {
    let batch = validate(TestBatch { records: 5, ..TestBatch::default() }.bytes()).unwrap();
    let stamped = batch.with_append_time(Timestamp::from_millis(1_700_000_000_000));
    let again = validate(stamped.bytes().clone()).unwrap();
    assert_eq!(again, stamped);
    assert!(again.has_client_append_time());
    assert_eq!(again.header().max_timestamp.millis(), 1_700_000_000_000);
    let cleared = again.with_create_time();
    assert!(!cleared.has_client_append_time());
    assert_eq!(validate(cleared.bytes().clone()).unwrap(), cleared);
}

#[test]
fn a_patched_header_keeps_the_checksum_right() {
    let batch = TestBatch::default().bytes();
    let head = patched_header(&batch, Offset::new(42).unwrap(), LeaderEpoch::new(3));
    let whole = Bytes::from([&head[..], &batch[BATCH_HEADER_BYTES..]].concat());
    let stored = split_batches(whole).next().unwrap().unwrap().check().unwrap();
    assert_eq!(stored.header().base_offset, 42);
    assert_eq!(stored.header().leader_epoch.value(), 3);
}

#[test]
fn splitting_gives_back_the_batches() {
    let batches: Vec<Bytes> =
        (1..5).map(|records| TestBatch { records, ..TestBatch::default() }.bytes()).collect();
    let split: Vec<Bytes> = split_batches(Bytes::from(batches.concat()))
        .map(|batch| batch.unwrap().check().unwrap().bytes().clone())
        .collect();
    assert_eq!(split, batches);
}

#[test]
fn splitting_stops_at_the_first_damage() {
    let one = TestBatch::default().bytes();
    let mut split = split_batches(Bytes::from([&one[..], &one[..one.len() - 1]].concat()));
    assert!(split.next().unwrap().is_ok());
    assert!(matches!(split.next(), Some(Err(BatchDamaged::Truncated { .. }))));
    assert!(split.next().is_none());
}

#[test]
fn a_header_survives_encoding() {
    let bytes = TestBatch { producer: (9, 2, 77), ..TestBatch::default() }.bytes();
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.encode()[..], bytes[..BATCH_HEADER_BYTES]);
}

use header::MAGIC_AT;

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = validate(bytes.clone());
        let _ = split_batches(bytes).count();
    }

    #[test]
    fn a_sound_batch_with_hostile_edits_never_panics(
        edits in proptest::collection::vec((0_usize..80, any::<u8>()), 1..8),
    ) {
        let mut bytes = TestBatch::default().bytes().to_vec();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        TestBatch::reseal(&mut bytes);
        if let Ok(batch) = validate(bytes) {
            prop_assert!(1 <= batch.record_count());
        }
    }

    #[test]
    fn the_checksum_of_a_batch_needs_no_pass(records in 1_u32..50) {
        let bytes = TestBatch { records, ..TestBatch::default() }.bytes();
        let checked: CheckedBatch = validate(bytes.clone()).unwrap().into();
        prop_assert_eq!(checked.checksum(), Crc32c::of(&bytes));
    }
}
