//! Batches there and back, in every codec, and damaged ones.

use std::io::Write as _;

use aquifer_storage::model::{ProducerEpoch, ProducerId, Sequence};
use proptest::prelude::*;

use super::*;

fn producer() -> BatchProducer {
    BatchProducer {
        id: ProducerId::new(7),
        epoch: ProducerEpoch::new(0).unwrap(),
        base_sequence: Sequence::new(5).unwrap(),
    }
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
        let placed = read(encode_batch(&records, producer())).unwrap();
        let again: Vec<Record> = placed.iter().map(|placed| placed.record.clone()).collect();
        prop_assert_eq!(&again, &records);
        let offsets: Vec<i64> = placed.iter().map(|placed| placed.offset).collect();
        prop_assert_eq!(offsets, (0..records.len() as i64).collect::<Vec<_>>());
        let size: usize = records.iter().map(Record::bytes_max).sum();
        prop_assert!(encode_batch(&records, producer()).len() <= BATCH_HEADER_BYTES + size);
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
        let mut bytes = encode_batch(&records, producer()).to_vec();
        let at = BATCH_HEADER_BYTES + at % (bytes.len() - BATCH_HEADER_BYTES);
        bytes[at] ^= 1u8 << bit;
        let told = read(bytes.clone().into());
        let is_told = matches!(told, Err(RecordsDamaged::Checksum { .. }));
        prop_assert!(is_told);
        reseal(&mut bytes);
        let _ = read(bytes.into());
    }
}

/// The same batch with its records packed.
fn packed(batch: &Bytes, codec: u16, pack: impl Fn(&[u8]) -> Vec<u8>) -> Bytes {
    let mut bytes = batch[..BATCH_HEADER_BYTES].to_vec();
    bytes.extend(pack(&batch[BATCH_HEADER_BYTES..]));
    bytes[22] = codec as u8;
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    reseal(&mut bytes);
    bytes.into()
}

fn reseal(bytes: &mut [u8]) {
    let crc = Crc32c::of(&bytes[CRC_COVERS_FROM..]).value();
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn xerial(bytes: &[u8]) -> Vec<u8> {
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for chunk in bytes.chunks(10) {
        let block = snap::raw::Encoder::new().compress_vec(chunk).unwrap();
        framed.extend((block.len() as u32).to_be_bytes());
        framed.extend(block);
    }
    framed
}

#[test]
fn every_codec_is_unpacked() {
    let value = Some(Bytes::from("water ".repeat(100)));
    let records = vec![Record { value, timestamp: 1, ..Record::default() }; 3];
    let plain = encode_batch(&records, producer());
    let expected = read(plain.clone()).unwrap();
    let snappy = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let all = [
        packed(&plain, 1, gzip),
        packed(&plain, 2, snappy),
        packed(&plain, 2, xerial),
        packed(&plain, 3, lz4),
        packed(&plain, 4, zstd),
    ];
    for (at, batch) in all.into_iter().enumerate() {
        assert_eq!(read(batch).as_ref(), Ok(&expected), "{at}");
    }
    let unknown = read(packed(&plain, 6, <[u8]>::to_vec));
    assert_eq!(unknown, Err(RecordsDamaged::UnknownCodec { offset: 0, code: 6 }));
}

#[test]
fn nothing_is_unpacked_beyond_the_limit() {
    let zeros = vec![0; 100_000];
    let snappy = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
    let all = [
        (Codec::Gzip, gzip(&zeros)),
        (Codec::Snappy, snappy),
        (Codec::Snappy, xerial(&zeros)),
        (Codec::Lz4, lz4(&zeros)),
        (Codec::Zstd, zstd::encode_all(&zeros[..], 3).unwrap()),
    ];
    for (codec, bytes) in all {
        let packed = Bytes::from(bytes);
        let at_most = |max| decompress(codec, packed.clone(), max).map(|bytes| bytes.len());
        assert_eq!(at_most(100_000), Ok(100_000), "{codec:?}");
        let refused = at_most(99_999).unwrap_err();
        assert!(refused.contains("larger than 99999 bytes"), "{codec:?}: {refused}");
    }
}

#[test]
fn a_batch_that_the_broker_cut_off_ends_the_answer() {
    let whole = encode_batch(&[Record::default()], producer());
    for length in [0, 10, BATCH_HEADER_BYTES, whole.len() - 1] {
        let mut bytes = whole.slice(..length);
        assert!(Batch::take(&mut bytes).unwrap().is_none(), "{length}");
        assert!(bytes.is_empty());
    }
}

#[test]
fn a_count_without_records_allocates_nothing() {
    let mut bytes = encode_batch(&[Record::default()], producer()).to_vec();
    bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    reseal(&mut bytes);
    assert!(matches!(read(bytes.into()), Err(RecordsDamaged::Malformed { .. })));
}
