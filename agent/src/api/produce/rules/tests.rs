//! Laws of what topics ask of batches.

use aquifer_storage::{
    format::{record_batch::validate_produced, test_batch::TestBatch},
    model::TopicId,
};

use super::*;

const NOW: i64 = 1_790_000_000_000;
const HOUR: i64 = 3_600_000;

fn rules(configs: &[(&str, &str)]) -> TopicRules {
    let topic = CatalogTopic {
        id: TopicId::from_bytes([1; 16]),
        name: "t".to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: configs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
    };
    let configs = topic.configs.clone();
    TopicRules::at(&Arc::new(topic), &configs, Timestamp::from_millis(NOW))
}

fn batch(change: impl FnOnce(&mut TestBatch)) -> ValidatedBatch {
    let mut batch = TestBatch { timestamp_ms: NOW, records: 2, ..TestBatch::default() };
    change(&mut batch);
    validate_produced(batch.bytes(), usize::MAX).unwrap()
}

#[test]
fn by_default_records_stay_unread_and_the_bytes_as_they_are() {
    let (rules, batch) = (rules(&[]), batch(|_| {}));
    assert!(!rules.wants_records(&batch));
    let stored = rules.stamped(batch.clone());
    assert_eq!(stored.bytes().as_ptr(), batch.bytes().as_ptr());
    assert_eq!(rules.append_time_ms(), -1);
}

#[test]
fn without_a_config_its_default_holds() {
    let told =
        |rules: &TopicRules| (rules.records, rules.packing, rules.is_full, rules.append_time);
    let every: Vec<_> =
        topic_config::TOPIC_CONFIGS.iter().map(|one| (one.name, one.default)).collect();
    let (none, all) = (rules(&[]), rules(&every));
    assert_eq!(told(&none), told(&all));
    for codec in ["gzip", "lz4", "zstd"] {
        let mut configs = every.clone();
        configs.retain(|(name, _)| *name != "compression.type");
        configs.push(("compression.type", codec));
        assert_eq!(rules(&[("compression.type", codec)]).packing, rules(&configs).packing);
    }
}

#[test]
fn a_timestamp_out_of_range_names_the_record_and_the_range() {
    let rules = rules(&[("message.timestamp.before.max.ms", "1000")]);
    let late = batch(|batch| batch.timestamp_step_ms = 2 * HOUR as u32);
    assert!(rules.wants_records(&late));
    let refused = rules.rework(late, 0).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidTimestamp);
    assert_eq!(refused.words, "One or more records have been rejected due to invalid timestamp");
    let (oldest, newest, time) = (NOW - 1000, NOW + HOUR, NOW + 2 * HOUR);
    let words = format!(
        "Timestamp {time} of message with offset 1 is out of range. The timestamp should be within \
         [{oldest}, {newest}]"
    );
    let told = RecordError { batch_index: 1, batch_index_error_message: Some(words.into()) };
    assert_eq!(refused.records, [told]);
    let old = batch(|batch| batch.timestamp_ms = NOW - 1001);
    assert_eq!(rules.rework(old, 0).unwrap_err().records.len(), 2);
    let timeless = batch(|batch| batch.timestamp_ms = -1);
    assert!(!rules.wants_records(&timeless));
}

#[test]
fn with_the_time_of_the_append_every_record_has_that_and_no_timestamp_is_out_of_range() {
    let rules = rules(&[("message.timestamp.type", "LogAppendTime")]);
    for timestamp_ms in [0, -1, NOW, i64::MAX / 2] {
        let sent = batch(|batch| batch.timestamp_ms = timestamp_ms);
        assert!(!rules.wants_records(&sent));
        let stored = rules.stamped(sent);
        let read = validate_produced(stored.bytes().clone(), usize::MAX).unwrap();
        assert!(read.header().attributes.is_append_time());
        assert_eq!(read.header().max_timestamp.millis(), NOW);
    }
    assert_eq!(rules.append_time_ms(), NOW);
    let claims = batch(|batch| batch.attributes = 8);
    assert!(rules.wants_records(&claims));
    let refused = rules.rework(claims, 0).unwrap_err();
    assert_eq!((refused.code, refused.records.len()), (ErrorCode::InvalidTimestamp, 2));
}

#[test]
fn a_client_that_claims_append_time_is_corrected_where_clients_say_the_time() {
    let stored = rules(&[]).stamped(batch(|batch| batch.attributes = 8));
    assert!(!stored.header().attributes.is_append_time());
    assert_eq!(stored.header().max_timestamp.millis(), NOW);
}

#[test]
fn a_batch_is_compressed_anew_unless_it_is_as_the_topic_says() {
    for (name, codec) in [
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
    ] {
        let rules = rules(&[("compression.type", name)]);
        let plain = batch(|batch| batch.producer = (7, 1, 5));
        assert!(rules.wants_records(&plain));
        let stored = rules.rework(plain.clone(), 0).unwrap();
        assert_eq!(stored.header().attributes.codec(), Some(codec));
        assert_eq!(stored.header().producer(), plain.header().producer());
        assert!(!rules.wants_records(&stored), "it is as the topic says");
    }
    let none = rules(&[("compression.type", "uncompressed")]);
    assert!(!none.wants_records(&batch(|_| {})));
}

#[test]
fn a_batch_that_grows_past_the_limit_is_too_large() {
    let zstd = rules(&[("compression.type", "zstd")]);
    let packed = zstd.rework(batch(|batch| batch.records = 500), 0).unwrap();
    let rules = rules(&[("compression.type", "uncompressed"), ("max.message.bytes", "2000")]);
    assert!(packed.bytes().len() < 2000);
    assert_eq!(rules.rework(packed, 0).unwrap_err().code, ErrorCode::MessageTooLarge);
}

#[test]
fn a_compacted_topic_refuses_records_without_key_and_says_which() {
    let rules = rules(&[("cleanup.policy", "delete, compact")]);
    let keyless = batch(|_| {});
    assert!(rules.wants_records(&keyless));
    let refused = rules.rework(keyless, 3).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRecord);
    let words = "Compacted topic cannot accept message without key in topic partition t-3";
    let message = format!(
        "One or more records have been rejected due to 2 record errors in total, and only showing \
         the first three errors at most: [RecordError(batchIndex=0, message='{words}'), \
         RecordError(batchIndex=1, message='{words}')]"
    );
    assert_eq!(refused.words, message);
    let told = |index| RecordError {
        batch_index: index,
        batch_index_error_message: Some(Str::from_static(words)),
    };
    assert_eq!(refused.records, [told(0), told(1)]);
}

#[test]
fn full_validation_finds_what_headers_do_not_show() {
    let mut bytes = batch(|_| {}).bytes().to_vec();
    bytes[61] += 2; // The first record says that it is a byte longer.
    TestBatch::reseal(&mut bytes);
    let lies = validate_produced(bytes.into(), usize::MAX).unwrap();
    assert!(!rules(&[]).wants_records(&lies));
    let full = rules(&[("aquifer.validate", "full")]);
    assert!(full.wants_records(&lies));
    assert_eq!(full.rework(lies, 0).unwrap_err().code, ErrorCode::InvalidRecord);
    // The largest timestamp is the records', whatever the header says.
    let mut bytes = batch(|_| {}).bytes().to_vec();
    bytes[35..43].copy_from_slice(&(NOW - 5).to_be_bytes());
    TestBatch::reseal(&mut bytes);
    let modest = validate_produced(bytes.into(), usize::MAX).unwrap();
    let stored = full.rework(modest, 0).unwrap();
    assert_eq!(stored.header().max_timestamp.millis(), NOW);
    assert_eq!(validate_produced(stored.bytes().clone(), usize::MAX).unwrap(), stored);
}
