//! One file per version of entry and snapshot, kept for ever: what one build wrote, every later
//! build reads. `UPDATE=1` writes the current version's files.

#![allow(clippy::disallowed_methods, reason = "tests may unwrap")]

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use aquifer_metadata::{
    codec::{decode_entry, decode_snapshot, encode_entry, encode_snapshot},
    machine::{
        Genesis, MetadataState,
        command::{
            AlterConfigs, Command, CommitPart, CreatePartitions, CreateTopic, DeleteRecords, Entry,
            HostPort, PartBatch, PartExtent, PartProducer, RegisterSession, Reply, Stamp,
        },
        config::{
            ConfigAction, ConfigChange, ConfigKey, ConfigKind, ConfigOp, ConfigOrder,
            ConfigResource, ListChange, Overrides,
        },
        group::command::{
            CommitOffsets, CommittedOffset, GroupAction, GroupCommand, GroupReply, TopicOffsets,
        },
        group::consumer::{AssignedTopic, MemberEpoch, command::ConsumerHeartbeat},
        group::types::MemberId,
    },
};
use aquifer_storage::model::{
    CommitSeq, LeaderEpoch, Lineage, LogIndex, NodeId, ObjectSeq, Offset, PartitionIndex,
    ProducerEpoch, ProducerId, Sequence, SessionId, Timestamp, TopicId, TopicPartition,
};

fn partition(index: i32) -> TopicPartition {
    let topic = TopicId::from_bytes(*b"0123456789abcdef");
    TopicPartition { topic, partition: PartitionIndex::new(index) }
}

fn register(request: u64, zone: Option<&str>) -> Command {
    Command::RegisterSession(RegisterSession {
        request,
        advertised: HostPort { host: "agent.example".into(), port: 9092 },
        zone: zone.map(String::from),
    })
}

fn batch(position: u32, producer: Option<(u32, i32)>) -> PartBatch {
    PartBatch {
        position,
        length: 500,
        record_count: 10,
        max_timestamp: Timestamp::from_millis(1_790_000_000_000),
        producer: producer.map(|(place, first)| (place, Sequence::new(first).unwrap())),
    }
}

fn commit() -> Command {
    let epoch = ProducerEpoch::new(2).unwrap();
    Command::Commit(CommitPart {
        session: SessionId::new(1),
        commit_seq: CommitSeq::new(0),
        acked_seq: CommitSeq::new(0),
        low_seq: ObjectSeq::new(4),
        object_seq: ObjectSeq::new(4),
        object_bytes: 4096,
        producers: vec![PartProducer { id: ProducerId::new(7), epoch }],
        extents: vec![
            PartExtent {
                partition: partition(0),
                batches: vec![batch(0, Some((0, 0))), batch(500, Some((0, 0))), batch(1000, None)],
            },
            PartExtent { partition: partition(2), batches: vec![batch(1500, Some((0, 0)))] },
            PartExtent { partition: partition(9), batches: vec![batch(2000, None)] },
        ],
    })
}

fn commit_offsets() -> Command {
    let committed = CommittedOffset {
        offset: Offset::new(15).unwrap(),
        leader_epoch: Some(LeaderEpoch::new(3)),
        metadata: "note".into(),
    };
    Command::Group(GroupCommand {
        group: "readers".into(),
        action: GroupAction::CommitOffsets(CommitOffsets {
            member: MemberId::default(),
            instance: None,
            generation: None,
            knows_epochs: true,
            offsets: vec![(partition(0), committed)],
        }),
    })
}

/// Every command of level 1.
fn entry() -> Entry {
    let topic = |id: &[u8; 16], name: &str, configs: &[(&str, &str)]| {
        Command::CreateTopic(CreateTopic {
            topic: TopicId::from_bytes(*id),
            name: name.into(),
            partitions: 3,
            replication_factor: 3,
            configs: configs
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect::<BTreeMap<_, _>>(),
        })
    };
    Entry {
        stamp: Stamp { boot: 0xb007, mono_ms: 1000, wall_ms: 1_790_000_000_500 },
        min_level: 1,
        commands: vec![
            register(11, Some("zone-a")),
            register(12, None),
            topic(b"0123456789abcdef", "orders", &[("retention.ms", "1000")]),
            topic(b"fedcba9876543210", "gone", &[]),
            commit(),
            Command::DeleteTopic { topic: TopicId::from_bytes(*b"fedcba9876543210") },
            Command::AllocateProducerIds { session: SessionId::new(1) },
            Command::FenceSession { session: SessionId::new(2) },
            commit_offsets(),
            Command::Tick,
        ],
    }
}

/// Every command of level 2 that is of topics, nodes and groups.
fn entry_of_level_2() -> Entry {
    let group = |action| Command::Group(GroupCommand { group: "readers".into(), action });
    let offsets = TopicOffsets {
        topic: TopicId::from_bytes(*b"0123456789abcdef"),
        name: "orders".into(),
        partitions: vec![PartitionIndex::new(2), PartitionIndex::new(0)],
    };
    Entry {
        stamp: Stamp { boot: 0xb007, mono_ms: 2000, wall_ms: 1_790_000_001_500 },
        min_level: 2,
        commands: vec![
            Command::CreatePartitions(CreatePartitions {
                topic: TopicId::from_bytes(*b"0123456789abcdef"),
                partitions: 5,
            }),
            Command::FenceSession { session: SessionId::new(1) },
            Command::UnregisterNode { node: NodeId::new(1) },
            group(GroupAction::DeleteOffsets { topics: vec![offsets] }),
            group(GroupAction::Delete),
        ],
    }
}

fn state() -> MetadataState {
    let lineage = Lineage { number: 3, nonce: 0x0123_4567_89ab_cdef };
    let mut state = MetadataState::new(Genesis { cluster_id: "golden".into(), lineage });
    state.apply(LogIndex::new(41), 5, &entry());
    state
}

/// Records are deleted up to the middle of a row, and up to the end of a log.
fn entry_of_deletions() -> Entry {
    let delete = |index, before: Option<i64>| {
        let before = before.map(|before| Offset::new(before).unwrap());
        Command::DeleteRecords(DeleteRecords { partition: partition(index), before })
    };
    let stamp = Stamp { boot: 0xb007, mono_ms: 1001, wall_ms: 1_790_000_000_501 };
    Entry { stamp, min_level: 2, commands: vec![delete(0, Some(15)), delete(2, None)] }
}

/// The file's bytes; writes `current` to it first when asked to.
fn golden(name: &str, current: &[u8]) -> Vec<u8> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, current).unwrap();
    }
    fs::read(&file).unwrap()
}

/// A file that an earlier build wrote.
fn kept(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

#[test]
fn an_entry_of_version_1_reads_and_writes_as_ever() {
    let bytes = encode_entry(&entry());
    let kept = kept("entry-v1.bin");
    assert_eq!(decode_entry(&kept), Ok(entry()));
    assert_eq!(bytes, kept);
}

#[test]
fn a_snapshot_of_version_1_still_reads() {
    let restored = decode_snapshot(&kept("snapshot-v1.bin")).unwrap();
    assert_eq!(restored.state_hash(), state().state_hash());
    assert_eq!(encode_snapshot(&restored), encode_snapshot(&state()));
}

#[test]
fn deletions_of_records_read_and_write_as_ever_in_version_2() {
    let entry = entry_of_deletions();
    let bytes = encode_entry(&entry);
    let kept = golden("entry-v2-delete-records.bin", &bytes);
    assert_eq!(decode_entry(&kept), Ok(entry));
    assert_eq!(bytes, kept);
}

#[test]
fn a_snapshot_with_deleted_records_reads_and_writes_as_ever() {
    let mut state = state();
    state.apply(LogIndex::new(42), 5, &entry_of_deletions());
    let bytes = encode_snapshot(&state);
    let kept = golden("snapshot-v2-delete-records.bin", &bytes);
    let restored = decode_snapshot(&kept).unwrap();
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(encode_snapshot(&restored), kept);
    assert_eq!(bytes, kept);
}

#[test]
fn an_entry_of_version_2_with_changes_of_topics_nodes_and_groups_reads_and_writes_as_ever() {
    let bytes = encode_entry(&entry_of_level_2());
    let kept = golden("entry-v2-admin.bin", &bytes);
    let levels: Vec<u32> = entry_of_level_2().commands.iter().map(Command::level).collect();
    assert_eq!(levels, [2, 1, 2, 2, 2], "builds before must stop at what they do not know");
    assert!(entry().commands.iter().all(|command| command.level() == 1));
    assert_eq!(decode_entry(&kept), Ok(entry_of_level_2()));
    assert_eq!(bytes, kept);
}

#[test]
fn a_snapshot_of_version_2_with_a_forgotten_node_reads_and_writes_as_ever() {
    let mut state = state();
    state.apply(LogIndex::new(42), 5, &entry_of_level_2());
    let bytes = encode_snapshot(&state);
    let kept = golden("snapshot-v2-admin.bin", &bytes);
    let restored = decode_snapshot(&kept).unwrap();
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(bytes, kept);
}

/// Its producers are dated by the wall clock, which says nothing of elapsed time: they count as
/// having written just now.
#[test]
fn a_snapshot_from_before_producers_were_dated_by_elapsed_time_still_reads() {
    let restored = decode_snapshot(&kept("snapshot-v1-wall.bin")).unwrap();
    assert_eq!(restored.state_hash(), state().state_hash());
}

fn alter(resource: ConfigResource, change: ConfigChange) -> Command {
    let order = ConfigOrder { lesser: ("least".into(), -7), greater: ("most".into(), i64::MAX) };
    Command::AlterConfigs(AlterConfigs { resource, change, orders: vec![order] })
}

/// Every change of configs.
fn entry_of_configs() -> Entry {
    let op = |name: &str, action| ConfigOp { name: name.into(), action };
    let list = |items: &str| ListChange { items: items.into(), default: "delete".into() };
    let other = |kind, name: &str| ConfigResource::Other(ConfigKey { kind, name: name.into() });
    let one = |name: &str, value: &str| Overrides::from([(name.into(), value.into())]);
    Entry {
        stamp: Stamp { boot: 0xb007, mono_ms: 2000, wall_ms: 1_790_000_001_500 },
        min_level: 2,
        commands: vec![
            alter(
                ConfigResource::Topic(TopicId::from_bytes(*b"0123456789abcdef")),
                ConfigChange::Incremental(vec![
                    op("retention.ms", ConfigAction::Delete),
                    op("cleanup.policy", ConfigAction::Append(list("compact"))),
                ]),
            ),
            alter(
                other(ConfigKind::Broker, ""),
                ConfigChange::Incremental(vec![
                    op("log.retention.ms", ConfigAction::Set("7".into())),
                    op("log.cleanup.policy", ConfigAction::Subtract(list("delete"))),
                ]),
            ),
            alter(
                other(ConfigKind::Broker, "1"),
                ConfigChange::Replace(one("message.max.bytes", "9")),
            ),
            alter(
                other(ConfigKind::Group, "readers"),
                ConfigChange::Replace(one("share.auto.offset.reset", "earliest")),
            ),
            alter(
                other(ConfigKind::ClientMetrics, "all"),
                ConfigChange::Replace(one("interval.ms", "100")),
            ),
        ],
    }
}

#[test]
fn an_entry_of_version_2_with_configs_reads_and_writes_as_ever() {
    let bytes = encode_entry(&entry_of_configs());
    let kept = golden("entry-v2-configs.bin", &bytes);
    assert_eq!(decode_entry(&kept), Ok(entry_of_configs()));
    assert_eq!(bytes, kept);
}

#[test]
fn a_snapshot_of_version_2_with_configs_reads_and_writes_as_ever() {
    let mut state = state();
    let applied = state.apply(LogIndex::new(42), 5, &entry_of_configs());
    assert_eq!(applied.replies, vec![Reply::ConfigsAltered(Ok(())); 5]);
    let bytes = encode_snapshot(&state);
    let kept = golden("snapshot-v2-configs.bin", &bytes);
    let restored = decode_snapshot(&kept).unwrap();
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(encode_snapshot(&restored), kept);
    assert_eq!(bytes, kept);
    assert_eq!(restored.catalog(), state.catalog());
}

/// What an agent was given for groups: builds before level 3 do not know such a resource.
#[test]
fn defaults_of_groups_are_of_version_3_in_the_log_and_in_a_snapshot() {
    let given = [("group.consumer.session.timeout.ms".to_owned(), "9000".to_owned())];
    let defaults = alter(
        ConfigResource::Other(ConfigKey::group_defaults()),
        ConfigChange::Replace(Overrides::from(given)),
    );
    assert_eq!(defaults.level(), 3);
    assert!(entry_of_configs().commands.iter().all(|command| command.level() == 2));
    let entry = Entry { min_level: 3, commands: vec![defaults], ..entry_of_configs() };
    let bytes = encode_entry(&entry);
    let kept = golden("entry-v3-group-defaults.bin", &bytes);
    assert_eq!(decode_entry(&kept).as_ref(), Ok(&entry));
    assert_eq!(bytes, kept);
    let mut state = state();
    let applied = state.apply(LogIndex::new(42), 5, &entry);
    assert_eq!(applied.replies, [Reply::ConfigsAltered(Ok(()))]);
    let bytes = encode_snapshot(&state);
    let kept = golden("snapshot-v3-group-defaults.bin", &bytes);
    assert_eq!(bytes, kept);
    let restored = decode_snapshot(&kept).unwrap();
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(restored.catalog(), state.catalog());
    assert_eq!(encode_snapshot(&restored), kept);
}

fn heartbeat(heartbeat: ConsumerHeartbeat) -> Command {
    let action = GroupAction::ConsumerHeartbeat(Box::new(heartbeat));
    Command::Group(GroupCommand { group: "readers".into(), action })
}

/// Two members join, one with everything a heartbeat can say; the first is told to give up
/// partitions, and the topic that an expression stands for grows.
fn entry_of_consumers() -> Entry {
    let joins = |id: &str| ConsumerHeartbeat {
        member: MemberId::new(id),
        epoch: MemberEpoch::JOINS,
        instance: None,
        rack: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: Some(60_000),
        subscribed: Some(vec!["orders".into(), "none".into()]),
        regex: None,
        assignor: None,
        owned: Some(vec![]),
    };
    let rich = ConsumerHeartbeat {
        instance: Some("i".into()),
        rack: Some("zone-a".into()),
        subscribed: Some(vec![]),
        regex: Some("ord.*".into()),
        assignor: Some("range".into()),
        ..joins("a")
    };
    let goes_on = ConsumerHeartbeat {
        epoch: MemberEpoch::new(2),
        instance: Some("i".into()),
        rebalance_timeout_ms: None,
        subscribed: None,
        owned: Some(vec![AssignedTopic {
            topic: TopicId::from_bytes(*b"0123456789abcdef"),
            partitions: (0..3).map(PartitionIndex::new).collect(),
        }]),
        ..joins("a")
    };
    let away = ConsumerHeartbeat {
        epoch: MemberEpoch::LEAVES_FOR_A_WHILE,
        instance: Some("j".into()),
        ..joins("c")
    };
    let commands = vec![
        heartbeat(rich),
        heartbeat(ConsumerHeartbeat { instance: Some("j".into()), ..joins("c") }),
        heartbeat(joins("b")),
        heartbeat(goes_on),
        heartbeat(away),
        Command::CreatePartitions(CreatePartitions {
            topic: TopicId::from_bytes(*b"0123456789abcdef"),
            partitions: 4,
        }),
    ];
    let stamp = Stamp { boot: 0xb007, mono_ms: 2000, wall_ms: 1_790_000_001_500 };
    Entry { stamp, min_level: 3, commands }
}

#[test]
fn an_entry_of_version_3_with_heartbeats_reads_and_writes_as_ever() {
    let entry = entry_of_consumers();
    let bytes = encode_entry(&entry);
    let kept = golden("entry-v3-consumers.bin", &bytes);
    let levels: Vec<u32> = entry.commands.iter().map(Command::level).collect();
    assert_eq!(levels, [3, 3, 3, 3, 3, 2], "builds before must stop at what they do not know");
    assert_eq!(decode_entry(&kept), Ok(entry));
    assert_eq!(bytes, kept);
}

#[test]
fn a_snapshot_of_version_3_with_a_consumer_group_reads_and_writes_as_ever() {
    let mut state = state();
    let applied = state.apply(LogIndex::new(42), 5, &entry_of_consumers());
    let taken = |reply: &Reply| {
        matches!(reply, Reply::Group(GroupReply::ConsumerHeartbeat(Ok(_))))
            || matches!(reply, Reply::PartitionsCreated(Ok(())))
    };
    assert!(applied.replies.iter().all(taken), "{:?}", applied.replies);
    let bytes = encode_snapshot(&state);
    let kept = golden("snapshot-v3-consumers.bin", &bytes);
    let restored = decode_snapshot(&kept).unwrap();
    assert_eq!(restored.state_hash(), state.state_hash());
    assert_eq!(encode_snapshot(&restored), kept);
    assert_eq!(bytes, kept);
}
