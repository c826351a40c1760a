//! Laws of codec.

use std::sync::Arc;

use aquifer_storage::model::{CommitSeq, ProducerEpoch, ProducerId, Sequence, Timestamp};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

use super::{part::part_to_proto, *};
use crate::{
    machine::{
        command::{Command, CommitPart, Entry, PartBatch, PartExtent, PartProducer, Stamp},
        config::{ConfigKey, ConfigKind, Overrides},
    },
    watch::{Catalog, ResourceConfigs, WatchEvent},
};

/// A part of one object with `extents` partitions of `batches` batches each, as a busy agent of a
/// long-lived cluster would send it.
fn busy_part(extents: i32, batches: u32) -> CommitPart {
    let mut position = 20;
    let mut extent = |partition: i32| PartExtent {
        partition: TopicPartition {
            topic: TopicId::from_bytes([1 + (partition % 3) as u8; 16]),
            partition: PartitionIndex::new(partition * 37),
        },
        batches: (0..batches)
            .map(|n| {
                let length = 12_345 + n;
                position += length;
                PartBatch {
                    position: position - length,
                    length,
                    record_count: 100 + n,
                    max_timestamp: Timestamp::from_millis(1_790_000_000_000 + i64::from(n * 17)),
                    producer: Some((n % 7, Sequence::new(1_900_000_000 + n as i32).unwrap())),
                }
            })
            .collect(),
    };
    CommitPart {
        session: SessionId::new(1234),
        commit_seq: CommitSeq::new(99_999),
        acked_seq: CommitSeq::new(99_990),
        low_seq: ObjectSeq::new(77_000),
        object_seq: ObjectSeq::new(77_010),
        extents: (0..extents).map(&mut extent).collect(),
        object_bytes: u64::from(position),
        producers: (0..7)
            .map(|n| PartProducer {
                id: ProducerId::new(5_000_000 + n),
                epoch: ProducerEpoch::new(3).unwrap(),
            })
            .collect(),
    }
}

fn entry(part: CommitPart) -> Entry {
    let stamp = Stamp { boot: 7, mono_ms: 8, wall_ms: 9 };
    Entry { stamp, min_level: 1, commands: vec![Command::Commit(part), Command::Tick] }
}

#[test]
fn a_commit_costs_at_most_24_bytes_per_row_and_16_per_batch() {
    let few = part_to_proto(&busy_part(200, 1)).encoded_len();
    let many = part_to_proto(&busy_part(200, 11)).encoded_len();
    let per_batch = (many - few) as f64 / 2000.0;
    let per_row = few as f64 / 200.0 - per_batch;
    assert!(per_batch <= 16.0, "{per_batch} bytes per batch");
    assert!(per_row <= 24.0, "{per_row} bytes per row");
}

#[test]
fn an_entry_survives_the_round_trip() {
    let entry = entry(busy_part(20, 5));
    assert_eq!(decode_entry(&encode_entry(&entry)), Ok(entry));
}

#[test]
fn an_entry_above_our_level_is_told_apart_from_damage() {
    let supported = crate::machine::LEVEL;
    let newer = Entry { min_level: supported + 1, ..Entry::default() };
    let refused = CodecError::LevelTooHigh { level: supported + 1, supported };
    assert_eq!(decode_entry(&encode_entry(&newer)), Err(refused));
}

#[test]
fn a_snapshot_above_our_level_is_refused_before_its_rows_are_read() {
    let supported = crate::machine::LEVEL;
    let header = proto::SnapshotHeader { min_level: supported + 1, ..Default::default() };
    let mut bytes = vec![0x0a]; // Field 1 of `Snapshot`; behind it a row that only a newer one has.
    header.encode_length_delimited(&mut bytes).unwrap();
    bytes.extend([0x9a, 0x06, 0x00]);
    let refused = CodecError::LevelTooHigh { level: supported + 1, supported };
    assert_eq!(decode_snapshot(&bytes).err(), Some(refused));
}

#[test]
fn a_command_this_build_does_not_know_is_refused() {
    // Field 99 of `Command`, as a newer build might write it.
    let unknown = [0x0a, 0x00, 0x1a, 0x03, 0x9a, 0x06, 0x00];
    assert_eq!(decode_entry(&unknown), Err(CodecError::Missing("command")));
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_it_sizes_anything() {
    let mut message = part_to_proto(&busy_part(1, 3));
    message.extents[2] = u64::MAX;
    assert_eq!(part::part_from_proto(&message), Err(CodecError::TooLong("batch count")));
    message.extents[2] = 2;
    assert_eq!(part::part_from_proto(&message), Err(CodecError::TooLong("batches")));
}

#[test]
fn batches_beyond_the_object_empty_ones_and_unknown_producers_are_refused() {
    let good = busy_part(1, 1);
    let refused = |change: &dyn Fn(&mut CommitPart)| {
        let mut part = good.clone();
        change(&mut part);
        part::part_from_proto(&part_to_proto(&part)).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|part| part.object_bytes -= 1));
    assert!(refused(&|part| part.extents[0].batches[0].record_count = 0));
    assert!(refused(&|part| part.producers.clear()));
}

#[test]
fn cut_or_damaged_entries_never_panic() {
    let bytes = encode_entry(&entry(busy_part(3, 3)));
    for length in 0..bytes.len() {
        let _ = decode_entry(&bytes[..length]); // Some cuts fall between fields and still parse.
    }
    for place in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        for flip in [0x01, 0x80, 0xff] {
            damaged[place] ^= flip;
            let _ = decode_entry(&damaged);
        }
    }
}

/// Parts small enough to be wrong in every way.
fn any_part() -> impl Strategy<Value = CommitPart> {
    let batch = (0..40_u32, 0..40_u32, 0..4_u32, any::<i64>(), option::of((0..3_u32, 0..9_i32)));
    let batch = batch.prop_map(|(position, length, record_count, millis, producer)| PartBatch {
        position,
        length,
        record_count,
        max_timestamp: Timestamp::from_millis(millis),
        producer: producer.map(|(place, first)| (place, Sequence::new(first).unwrap())),
    });
    let extent = (0..3_u8, -1..20_i32, vec(batch, 0..4)).prop_map(|(topic, partition, batches)| {
        let topic = TopicId::from_bytes([topic; 16]);
        let partition = PartitionIndex::new(partition);
        PartExtent { partition: TopicPartition { topic, partition }, batches }
    });
    let producer = (-1..9_i64, 0..9_i16).prop_map(|(id, epoch)| PartProducer {
        id: ProducerId::new(id),
        epoch: ProducerEpoch::new(epoch).unwrap(),
    });
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), 30..100_u64);
    (numbers, vec(producer, 1..4), vec(extent, 0..4)).prop_map(
        |((commit_seq, acked_seq, low_seq, object_seq, object_bytes), producers, extents)| {
            CommitPart {
                session: SessionId::new(9),
                commit_seq: CommitSeq::new(commit_seq),
                acked_seq: CommitSeq::new(acked_seq),
                low_seq: ObjectSeq::new(low_seq),
                object_seq: ObjectSeq::new(object_seq),
                object_bytes,
                producers,
                extents,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_said_to_be_kept_by_encoding_is_what_comes_back_as_it_was(part in any_part()) {
        let entry = entry(part);
        let comes_back = decode_entry(&encode_entry(&entry)) == Ok(entry.clone());
        prop_assert_eq!(is_kept_by_encoding(&entry), comes_back);
    }
}

#[test]
fn every_answer_to_a_deletion_of_records_reads_back() {
    use crate::machine::command::{DeleteRecordsRejected, Reply};
    let at = |value| Offset::new(value).unwrap();
    let above = DeleteRecordsRejected::AboveHighWatermark { high_watermark: at(7) };
    let unknown = DeleteRecordsRejected::UnknownPartition;
    for outcome in [Ok(at(0)), Ok(at(i64::MAX)), Err(unknown), Err(above)] {
        let reply = Reply::RecordsDeleted(outcome);
        assert_eq!(reply_from_proto(reply_to_proto(&reply)), Ok(reply));
    }
    let negative = proto::records_deleted::Outcome::LogStart(-1);
    let negative = proto::RecordsDeleted { outcome: Some(negative) };
    let reply = Some(proto::reply::Reply::RecordsDeleted(negative));
    assert!(reply_from_proto(proto::Reply { reply }).is_err());
}

/// Whoever could not read it would take the stream for damaged, again and again.
#[test]
fn a_watcher_is_not_told_of_kinds_of_resources_that_its_build_does_not_know() {
    let defaults = ConfigKey::group_defaults();
    let broker = ConfigKey { kind: ConfigKind::Broker, name: String::new() };
    let overrides = Arc::new(Overrides::from([("a".to_owned(), "1".to_owned())]));
    let keys = [&broker, &defaults];
    let catalog = Catalog {
        configs: keys.map(|key| (key.clone(), Arc::clone(&overrides))).into(),
        ..Catalog::default()
    };
    let told = |event: &WatchEvent, level| watch_event_to_proto(event, level);
    let events = keys.map(|key| {
        let (key, overrides) = (key.clone(), Arc::clone(&overrides));
        WatchEvent::Configs(Arc::new(ResourceConfigs { key, overrides }))
    });
    let catalog = WatchEvent::Catalog(Arc::new(catalog));
    for (level, known) in [(1, 0), (2, 1), (3, 2)] {
        let count = events.iter().filter(|event| told(event, level).is_some()).count();
        assert_eq!(count, known, "level {level}");
        let Ok(WatchEvent::Catalog(catalog)) =
            watch_event_from_proto(told(&catalog, level).unwrap())
        else {
            panic!("the catalog is told at every level")
        };
        assert_eq!(catalog.configs.len(), known, "level {level}");
    }
}
