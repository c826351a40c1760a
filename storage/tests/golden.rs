//! Bytes of every format version, kept for ever: what was once written must stay readable, and
//! equal contents must give equal bytes. `UPDATE=1` writes the files of the current versions.

use std::{fs, path::PathBuf};

use aquifer_storage::{
    format::{
        cluster_file::ClusterFile,
        object::{ObjectBuilder, check_whole},
        record_batch::validate_produced,
        test_batch::TestBatch,
    },
    model::{Lineage, Offset, PartitionIndex, ProducerId, TopicId, TopicPartition},
};
use bytes::Bytes;

/// Compares `bytes` with the golden file `name`, or writes it under `UPDATE=1`.
fn assert_golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, bytes).expect("the golden directory is writable");
    }
    let golden = fs::read(&path).expect("the golden file is committed");
    assert!(golden == bytes, "{name} changed: that is a new format version, not an edit");
}

fn partition(topic: u8, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicId::from_bytes([topic; 16]),
        partition: PartitionIndex::new(partition),
    }
}

fn object(mut builder: ObjectBuilder) -> Vec<u8> {
    for (topic, index, records) in [(2, 0, 1), (1, 5, 3), (2, 0, 2), (1, 0, 1)] {
        let template = TestBatch {
            records,
            base_offset: i64::from(records),
            producer: (7, 1, 40),
            ..TestBatch::default()
        };
        let batch = validate_produced(template.bytes(), 10_000).expect("the batch is sound");
        builder.add(partition(topic, index), batch);
    }
    let offset = |value| Offset::new(value).expect("not negative");
    builder.add_aborted(partition(1, 5), ProducerId::new(7), (offset(3), offset(5)));
    builder.finish().body.concat()
}

#[test]
fn object_v1_has_not_changed() {
    let bytes = object(ObjectBuilder::merged());
    assert_golden("object-v1.bin", &bytes);
    let footer = check_whole(&Bytes::from(bytes)).expect("the golden object is sound");
    assert_eq!(footer.extents.len(), 3);
    assert_eq!(footer.index.len(), 3);
    assert_eq!(footer.aborted.len(), 1);
}

#[test]
fn cluster_file_v1_has_not_changed() {
    let file = ClusterFile {
        cluster_id: "golden-cluster".to_owned(),
        lineage: Lineage { number: 3, nonce: 0xfeed },
    };
    assert_golden("cluster-v1.json", &file.encode());
    assert_eq!(ClusterFile::decode(&file.encode()).expect("the golden file is sound"), file);
}
