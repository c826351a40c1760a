//! Batches that real clients wrote, in every codec: what they hold is read record by record. Each
//! file is one batch of the same 200 records, as Kafka's Java client and librdkafka sent them.

use std::{fs, path::PathBuf};

use aquifer_storage::format::record_batch::{
    Codec, ValidatedBatch,
    compression::Packing,
    records::{Depth, walk_records},
    rework::{RecordRules, check_records, repacked},
    validate_produced,
};

const CODECS: [(&str, Codec); 5] = [
    ("none", Codec::None),
    ("gzip", Codec::Gzip),
    ("snappy", Codec::Snappy),
    ("lz4", Codec::Lz4),
    ("zstd", Codec::Zstd),
];

fn batch(client: &str, codec: &str) -> ValidatedBatch {
    let name = format!("batch-{client}-{codec}.bin");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let bytes = fs::read(path).expect("the golden file is committed");
    validate_produced(bytes.into(), usize::MAX).expect("a client's batch is sound")
}

/// Whether it holds the records that were sent.
fn assert_holds_them(batch: &ValidatedBatch) {
    for depth in [Depth::Heads, Depth::Whole] {
        let walk = walk_records(batch.header(), batch.bytes(), depth).expect("it begins");
        let heads: Vec<_> = walk.map(|head| head.expect("a record is sound")).collect();
        assert_eq!(heads.len(), 200);
        for (index, head) in (0_i32..).zip(&heads) {
            let has_key = index % 3 != 0;
            let key_bytes = if has_key { format!("k{index}").len() as i32 } else { 0 };
            let value_bytes = if depth == Depth::Whole { index % 50 } else { 0 };
            assert_eq!(head.offset_delta, index);
            assert_eq!(head.timestamp.millis(), 1_700_000_000_000 + i64::from(index) * 7);
            assert_eq!((head.has_key, head.sizes), (has_key, (key_bytes, value_bytes)));
        }
    }
    let newest = check_records(batch, RecordRules::default()).expect("no record is refused");
    assert_eq!(newest, batch.header().max_timestamp);
}

#[test]
fn records_of_real_clients_are_read_in_every_codec_and_kept_by_every_other() {
    for client in ["java", "librdkafka"] {
        for (name, codec) in CODECS {
            let batch = batch(client, name);
            assert_eq!(batch.header().attributes.codec(), Some(codec), "{client}");
            assert_holds_them(&batch);
            for (_, other) in CODECS {
                let packing =
                    Packing { codec: other, level: if other == Codec::Gzip { 9 } else { 1 } };
                let other = repacked(&batch, packing, usize::MAX).expect("it is compressed anew");
                assert_holds_them(&other);
            }
        }
    }
}
