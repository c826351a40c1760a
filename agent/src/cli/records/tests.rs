//! Batches there and back, in every codec, and damaged ones.

use aquifer_storage::model::{ProducerEpoch, ProducerId, Sequence};
use proptest::prelude::*;

use super::*;

fn producer() -> BatchProducer {
    BatchProducer {
        id: ProducerId::new(7),
        epoch: ProducerEpoch::new(0).expect("not negative"),
        base_sequence: Sequence::new(5).expect("not negative"),
    }
}

fn encode(records: &[Record]) -> Bytes {
    encode_batch(records, producer(), Codec::None)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    let header = (bytes(), proptest::option::of(bytes()));
    let headers = proptest::collection::vec(header, 0..4);
    let times = -1..4_000_000_000_000i64;
    (proptest::option::of(bytes()), proptest::option::of(bytes()), headers, times).prop_map(
        |(key, value, headers, timestamp)| {
            let headers = headers.into_iter().map(|(key, value)| Header { key, value }).collect();
            Record { key, value, headers, timestamp }
        },
    )
}

fn read(mut bytes: Bytes) -> Result<Vec<PlacedRecord>, RecordsDamaged> {
    let batch = Batch::take(&mut bytes)?.expect("a whole batch");
    assert!(bytes.is_empty());
    batch.records()
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_again(records in proptest::collection::vec(record(), 1..20)) {
        let placed = read(encode(&records)).unwrap();
        let again: Vec<Record> = placed.iter().map(|placed| placed.record.clone()).collect();
        prop_assert_eq!(&again, &records);
        let offsets: Vec<i64> = placed.iter().map(|placed| placed.offset).collect();
        prop_assert_eq!(offsets, (0..records.len() as i64).collect::<Vec<_>>());
        let size: usize = records.iter().map(Record::bytes_max).sum();
        prop_assert!(encode(&records).len() <= BATCH_HEADER_BYTES + size);
    }

    #[test]
    fn varints_of_any_number_are_read_again(number in any::<i64>()) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, number);
        prop_assert_eq!(take_varint(&mut Bytes::from(bytes)), Some(number));
    }

    #[test]
    fn damaged_records_are_an_error_and_never_a_panic(
        records in proptest::collection::vec(record(), 1..4), at in any::<usize>(), bit in 0..8,
    ) {
        let mut bytes = encode(&records).to_vec();
        let at = BATCH_HEADER_BYTES + at % (bytes.len() - BATCH_HEADER_BYTES);
        bytes[at] ^= 1u8 << bit;
        let told = read(bytes.clone().into());
        let is_told = matches!(told, Err(RecordsDamaged::Checksum { .. }));
        prop_assert!(is_told);
        reseal(&mut bytes);
        let _ = read(bytes.into());
    }
}

fn reseal(bytes: &mut [u8]) {
    let crc = Crc32c::of(&bytes[CRC_COVERS_FROM..]).value();
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn every_codec_is_packed_and_unpacked_and_an_unknown_one_is_named() {
    let value = Some(Bytes::from("water ".repeat(100)));
    let records = vec![Record { value, timestamp: 1, ..Record::default() }; 3];
    let plain = encode(&records);
    let expected = read(plain.clone()).unwrap();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let packed = encode_batch(&records, producer(), codec);
        assert!(packed.len() < plain.len(), "{codec:?}");
        assert_eq!(read(packed).as_ref(), Ok(&expected), "{codec:?}");
    }
    let mut unknown = plain.to_vec();
    unknown[22] = 6;
    reseal(&mut unknown);
    assert_eq!(read(unknown.into()), Err(RecordsDamaged::UnknownCodec { offset: 0, code: 6 }));
}

#[test]
fn nothing_is_unpacked_beyond_the_limit() {
    let zeros = vec![0; usize::try_from(UNPACKED_BYTES_MAX).unwrap() + 1];
    let mut packed = Vec::new();
    let packing = Packing { codec: Codec::Zstd, level: 1 };
    pack(packing, &mut zeros.as_slice(), &mut packed).unwrap();
    let refused = decompress(Codec::Zstd, packed.into()).unwrap_err();
    assert!(refused.contains("larger than 268435456 bytes"), "{refused}");
}

#[test]
fn a_batch_that_the_broker_cut_off_ends_the_answer() {
    let whole = encode(&[Record::default()]);
    for length in [0, 10, BATCH_HEADER_BYTES, whole.len() - 1] {
        let mut bytes = whole.slice(..length);
        assert!(Batch::take(&mut bytes).unwrap().is_none(), "{length}");
        assert!(bytes.is_empty());
    }
}

#[test]
fn a_count_without_records_allocates_nothing() {
    let mut bytes = encode(&[Record::default()]).to_vec();
    bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    reseal(&mut bytes);
    assert!(matches!(read(bytes.into()), Err(RecordsDamaged::Malformed { .. })));
}
