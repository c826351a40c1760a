//! One node that ships, an agent that writes through it, and a restore of both.

use std::{path::Path, sync::Arc, time::Duration};

use aquifer_metadata::{
    backup::plan::Pace,
    client::Metadata,
    machine::{
        Genesis,
        command::{
            BatchOutcome, Command, CommitPart, CommitReply, CreateTopic, HostPort, PartBatch,
            PartExtent, RegisterSession, Reply,
        },
        query::{Answer, PartitionRuns, Query},
    },
    node::{
        MetadataNode, NodeConfig, StartError, Tuning,
        folder::read_identity,
        restore::{Restore, RestoreError, Restored, restore},
    },
};
use aquifer_storage::{
    claim::claim_prefix,
    format::{cluster_file::ClusterFile, object_key::object_key},
    model::{
        CommitSeq, Lineage, ObjectName, ObjectSeq, Offset, PartitionIndex, SessionId, Timestamp,
        TopicId, TopicPartition,
    },
    seam::system,
    store::Store,
};
use bytes::Bytes;

use super::{cluster::until, ledger::Ledger};

pub const TOPIC: TopicId = TopicId::from_bytes([7; 16]);
pub const JUMP: u32 = 1_000_000;

pub fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionIndex::new(index) }
}

/// So fast that a test need not wait, and without a pause between snapshots.
pub fn pace() -> Pace {
    Pace {
        interval: Duration::from_millis(20),
        keep: Duration::from_secs(60),
        pause: Duration::ZERO,
        ..Pace::default()
    }
}

/// Claims the bucket, as a role does once its node runs.
pub async fn claim(store: &Ledger, lineage: Lineage) {
    let ours = ClusterFile { cluster_id: "test".into(), lineage };
    claim_prefix(store, &ours).await.unwrap();
}

/// The node of a folder: the first one, or whose it is.
pub async fn start(folder: &Path, tuning: Tuning) -> MetadataNode {
    let lineage = Lineage { number: 0, nonce: 9 };
    let genesis = match read_identity(folder).unwrap() {
        Some(owner) => Genesis { cluster_id: owner.cluster_id, lineage: owner.lineage },
        None => Genesis { cluster_id: "test".into(), lineage },
    };
    let config = NodeConfig { node_id: 1, data_dir: folder.to_path_buf(), genesis, tuning };
    for _ in 0..500 {
        match MetadataNode::start(config.clone(), system::seams()).await {
            Ok(node) => return node,
            // Whoever had it lets go of it a moment later.
            Err(StartError::Folder(error)) if error.to_string().contains("in use") => {
                system::seams().sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the folder stays locked");
}

pub async fn shipping(folder: &Path, store: &Ledger, pace: Pace) -> MetadataNode {
    let node = start(folder, Tuning::default()).await;
    claim(store, node.identity().lineage).await;
    node.ship_to(Arc::new(store.clone()), pace);
    node
}

/// Waits until everything applied can be restored.
pub async fn shipped(node: &MetadataNode) {
    until("everything to be shipped", || {
        let applied = node.applied_index();
        node.backup()?.covered.filter(|covered| applied <= *covered)
    })
    .await;
}

pub async fn create_topic(client: &impl Metadata, partitions: u32) {
    let create = Command::CreateTopic(CreateTopic {
        topic: TOPIC,
        name: "topic".into(),
        partitions,
        replication_factor: 1,
        configs: Default::default(),
    });
    client.propose(create).await.unwrap();
}

pub async fn register(client: &impl Metadata, request: u64) -> SessionId {
    let advertised = HostPort { host: "localhost".into(), port: 9092 };
    let command = Command::RegisterSession(RegisterSession { request, advertised, zone: None });
    match client.propose(command).await.unwrap().reply {
        Reply::Registered(registered) => registered.session,
        other => panic!("{other:?}"),
    }
}

/// An agent: puts an object first and commits it second.
pub struct Agent {
    pub session: SessionId,
    lineage: Lineage,
    seq: u64,
}

impl Agent {
    pub async fn new(client: &impl Metadata, lineage: Lineage, request: u64) -> Self {
        Self { session: register(client, request).await, lineage, seq: 0 }
    }

    /// Writes ten records that say `text`; the offset of the first.
    pub async fn write(
        &mut self,
        client: &impl Metadata,
        store: &Ledger,
        (partition, text): (TopicPartition, &str),
    ) -> i64 {
        let seq = ObjectSeq::new(self.seq);
        let name = ObjectName { lineage: self.lineage, session: self.session, seq, merged: false };
        let body = Bytes::copy_from_slice(text.as_bytes());
        store.put(&object_key(&name), vec![body]).await.unwrap();
        let batch = PartBatch {
            position: 0,
            length: text.len() as u32,
            record_count: 10,
            max_timestamp: Timestamp::from_millis(1),
            producer: None,
        };
        let part = CommitPart {
            session: self.session,
            commit_seq: CommitSeq::new(self.seq),
            acked_seq: CommitSeq::new(self.seq),
            low_seq: seq,
            object_seq: seq,
            object_bytes: text.len() as u64,
            producers: Vec::new(),
            extents: vec![PartExtent { partition, batches: vec![batch] }],
        };
        self.seq += 1;
        match client.propose(Command::Commit(part)).await.unwrap().reply {
            Reply::Commit(CommitReply::Applied(outcomes)) => match outcomes[0] {
                BatchOutcome::Appended { base, .. } => base.value(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

pub async fn runs(client: &impl Metadata, partition: TopicPartition, from: i64) -> PartitionRuns {
    let offset = Offset::new(from).unwrap();
    match client.query(Query::Runs { partition, offset, limit: 100 }).await.unwrap().1 {
        Answer::Runs(Some(runs)) => runs,
        other => panic!("{other:?}"),
    }
}

/// The bytes at an offset, and the first offset behind them.
pub async fn read(
    client: &impl Metadata,
    store: &Ledger,
    (partition, offset): (TopicPartition, i64),
) -> (Bytes, i64) {
    let run = runs(client, partition, offset).await.runs[0];
    let start = u64::from(run.position);
    let range = start..start + u64::from(run.length);
    let bytes = store.get_range(&object_key(&run.object), range).await.unwrap();
    (bytes, run.offsets.next.value())
}

pub async fn restore_to(folder: &Path, store: &Ledger) -> Result<Restored, RestoreError> {
    restore(Restore {
        store: Arc::new(store.clone()),
        data: folder.to_path_buf(),
        node_id: 1,
        address: "127.0.0.1:9340".into(),
        offset_jump: JUMP,
        seams: system::seams(),
    })
    .await
}
