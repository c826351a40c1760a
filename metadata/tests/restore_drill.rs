//! The bucket brings a cluster back (RELIABILITY X26, G8, B6, A2): what was acknowledged and shipped
//! is read at its old offsets, nothing is given out twice, and the life before is shut out.
#![cfg(feature = "server")]
#![allow(clippy::disallowed_methods, dead_code, reason = "tests may unwrap, and share helpers")]

#[path = "voters/cluster.rs"]
mod cluster;
#[path = "restore_drill/ledger.rs"]
mod ledger;
#[path = "restore_drill/single.rs"]
mod single;
#[path = "voters/small_disk.rs"]
mod small_disk;
#[path = "voters/world.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use aquifer_metadata::{
    backup::plan::Pace,
    client::Metadata,
    node::{Tuning, restore::RestoreError},
};
use aquifer_storage::{
    claim::{Claim, claim_prefix, read_claim},
    error::Outcome,
    format::{
        cluster_file::ClusterFile,
        record_batch::{StoredBatch, split_batches},
    },
    model::Lineage,
    seam::system,
};

use self::{
    cluster::{Cluster, until},
    ledger::Ledger,
    single::{
        Agent, JUMP, create_topic, pace, partition, read, register, restore_to, runs, shipped,
        shipping, start,
    },
};

const FIRST: Lineage = Lineage { number: 0, nonce: 9 };

fn only_batch(bytes: bytes::Bytes) -> StoredBatch {
    let mut batches = split_batches(bytes);
    let batch = batches.next().unwrap().unwrap();
    assert_eq!(batches.next(), None);
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_lost_their_folders_come_back_as_the_next_life() {
    let store = Ledger::new();
    let mut cluster = Cluster::of_three(Cluster::calm()).await;
    single::claim(&store, FIRST).await;
    for id in 1..=3 {
        cluster.node(id).ship_to(Arc::new(store.clone()), pace());
    }
    let old = cluster.client();
    create_topic(&old, 2).await;
    let mut agent = Agent::new(&old, FIRST, 1).await;
    assert_eq!(agent.write(&old, &store, (partition(0), "first")).await, 0);
    assert_eq!(agent.write(&old, &store, (partition(0), "second")).await, 10);
    shipped(cluster.node(cluster.leader().await)).await;
    // Nothing of what follows is shipped, and all of it is acknowledged.
    store.fail_after(1);
    assert_eq!(agent.write(&old, &store, (partition(0), "lost")).await, 20);
    for id in 1..=3 {
        cluster.kill(id).await;
        cluster.wipe(id);
    }
    store.heal();

    let folder = tempfile::tempdir().unwrap();
    let restored = restore_to(folder.path(), &store).await.unwrap();
    assert_eq!((restored.from, restored.lineage.number), (FIRST, 1));
    assert_eq!((restored.partitions, restored.offset_jump), (2, u64::from(JUMP)));
    assert!(restored.left_out.is_empty() && restored.furthest == restored.index, "{restored:?}");
    let stands = read_claim(&store).await.unwrap().unwrap();
    assert_eq!(stands.lineage, restored.lineage);
    let mine = ClusterFile { cluster_id: "test".into(), lineage: FIRST };
    let claim = claim_prefix(&store, &mine).await.unwrap();
    assert_eq!(claim, Claim::NewerLineage { found: stands }, "a node of the life before stops");

    let node = start(folder.path(), Cluster::calm()).await;
    let seams = cluster.world.seams(1);
    let running = cluster.serve(1, node.clone(), &seams).await;
    let refused = old.heartbeat(agent.session).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
    assert!(refused.reason.contains("lineage 1-"), "{refused}");

    let new = node.client();
    assert_eq!(read(&new, &store, (partition(0), 0)).await.0, "first");
    assert_eq!(read(&new, &store, (partition(0), 10)).await, ("second".into(), 20));
    let jump = i64::from(JUMP);
    for (asked, index, end) in [(20, 0, 20 + jump), (777, 0, 20 + jump), (0, 1, jump)] {
        let (hole, next) = read(&new, &store, (partition(index), asked)).await;
        let hole = only_batch(hole).check().unwrap();
        assert_eq!((hole.header().count, hole.header().offset_count()), (0, Some(JUMP)));
        assert_eq!(next, end, "a reader at {asked} goes on behind the hole");
    }
    let mut agent = Agent::new(&new, restored.lineage, 1).await;
    assert!(1_000_000 < agent.session.value(), "ids go on far behind");
    assert_eq!(agent.write(&new, &store, (partition(0), "third")).await, 20 + jump);
    assert_eq!(agent.write(&new, &store, (partition(1), "other")).await, jump);
    assert_eq!(read(&new, &store, (partition(0), 20 + jump)).await.0, "third");
    let pointers = runs(&new, partition(0), 0).await.pointers;
    assert_eq!((pointers.log_start.value(), pointers.leader_epoch.value()), (0, 1));

    // It is a node like any other: it starts again, and others can join it.
    node.shutdown().await;
    drop((node, new, running));
    let node = start(folder.path(), Cluster::calm()).await;
    assert_eq!(read(&node.client(), &store, (partition(0), 20 + jump)).await.0, "third");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_loss_before_anything_was_shipped_binds_no_offset_twice() {
    let store = Ledger::new();
    let first = tempfile::tempdir().unwrap();
    let node = shipping(first.path(), &store, pace()).await;
    create_topic(&node.client(), 1).await;
    let mut agent = Agent::new(&node.client(), FIRST, 1).await;
    agent.write(&node.client(), &store, (partition(0), "kept")).await;
    shipped(&node).await;
    node.shutdown().await;
    let second = tempfile::tempdir().unwrap();
    let restored = restore_to(second.path(), &store).await.unwrap();
    let node = start(second.path(), Tuning::default()).await;
    let mut agent = Agent::new(&node.client(), restored.lineage, 1).await;
    let bound = agent.write(&node.client(), &store, (partition(0), "lost")).await;
    node.shutdown().await;

    // From the copy that the restore itself made, and then from the one before, which must jump
    // over the life in between too.
    for damaged in [false, true] {
        let keys = store.keys(&format!("meta/{}", restored.lineage)).await;
        assert_eq!(keys.len(), 1, "{keys:?}");
        if damaged {
            store.damage(&keys[0], |bytes| *bytes.last_mut().unwrap() ^= 1).await;
            for key in store.keys("meta").await {
                if key.starts_with("meta/2-") {
                    store.damage(&key, |bytes| bytes.truncate(9)).await;
                }
            }
        }
        let third = tempfile::tempdir().unwrap();
        let again = restore_to(third.path(), &store).await.unwrap();
        assert_eq!(again.from, if damaged { FIRST } else { restored.lineage });
        assert_eq!(again.left_out.is_empty(), !damaged, "{again:?}");
        let node = start(third.path(), Tuning::default()).await;
        let client = node.client();
        assert_eq!(read(&client, &store, (partition(0), 0)).await.0, "kept");
        let mut agent = Agent::new(&client, again.lineage, 1).await;
        let base = agent.write(&client, &store, (partition(0), "new")).await;
        assert!(bound + 10 <= base, "offset {bound} was bound, and {base} is now");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_stops_at_any_write_can_be_repeated() {
    let store = Ledger::new();
    let first = tempfile::tempdir().unwrap();
    let node = shipping(first.path(), &store, pace()).await;
    create_topic(&node.client(), 1).await;
    shipped(&node).await;
    node.shutdown().await;
    // Marker, filling, snapshot, cluster.json.
    for writes in 0..4 {
        store.fail_after(writes);
        let folder = tempfile::tempdir().unwrap();
        let stopped = restore_to(folder.path(), &store).await;
        assert!(stopped.is_err(), "write {writes} is needed");
        let stands = read_claim(&store).await.unwrap().unwrap();
        assert_eq!(stands.lineage, FIRST, "the life before owns the bucket until all is done");
    }
    store.heal();
    let folder = tempfile::tempdir().unwrap();
    let restored = restore_to(folder.path(), &store).await.unwrap();
    // The first try left no marker; the others used up a number each.
    assert_eq!(restored.lineage.number, 4);
    let node = start(folder.path(), Tuning::default()).await;
    register(&node.client(), 1).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_left_out_and_said_and_a_newer_format_is_not_worked_around() {
    let store = Ledger::new();
    let folder = tempfile::tempdir().unwrap();
    let node = shipping(folder.path(), &store, pace()).await;
    let client = node.client();
    create_topic(&client, 1).await;
    let mut agent = Agent::new(&client, FIRST, 1).await;
    agent.write(&client, &store, (partition(0), "first")).await;
    shipped(&node).await;
    let newest = node.ship_snapshot().await.unwrap();
    agent.write(&client, &store, (partition(0), "second")).await;
    shipped(&node).await;
    node.shutdown().await;

    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    };
    store.damage(&newest.key, flip).await;
    let folder = tempfile::tempdir().unwrap();
    let restored = restore_to(folder.path(), &store).await.unwrap();
    assert!(restored.left_out[0].contains(&newest.key), "{restored:?}");
    assert!(1 <= restored.chunks && restored.index == restored.furthest, "the log leads past it");

    // Of that life only, so that what the restore wrote does not serve.
    for key in store.keys("meta").await.iter().filter(|key| key.starts_with("meta/1-")) {
        store.damage(key, |bytes| bytes.clear()).await;
    }
    let chunks = store.keys(&format!("meta/{FIRST}")).await;
    let last = chunks.iter().rfind(|key| key.contains("/log-")).unwrap();
    store.damage(last, flip).await;
    let folder = tempfile::tempdir().unwrap();
    let restored = restore_to(folder.path(), &store).await.unwrap();
    assert!(restored.index < restored.furthest, "entries are lost, and that is said: {restored:?}");
    assert!(restored.left_out.iter().any(|why| why.contains(last)), "{restored:?}");

    store.damage(last, |bytes| bytes[7] = 200).await;
    for key in store.keys("meta").await.iter().filter(|key| key.starts_with("meta/2-")) {
        store.damage(key, |bytes| bytes.clear()).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let refused = restore_to(folder.path(), &store).await.unwrap_err().to_string();
    assert!(refused.contains("newer aquifer") && refused.contains(last), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_and_a_bucket_without_a_backup_are_refused_with_advice() {
    let store = Ledger::new();
    let folder = tempfile::tempdir().unwrap();
    let empty = restore_to(folder.path(), &store).await.unwrap_err();
    assert!(matches!(empty, RestoreError::NoCluster), "{empty}");
    single::claim(&store, FIRST).await;
    let none = restore_to(folder.path(), &store).await.unwrap_err().to_string();
    assert!(none.contains("no backup of cluster test"), "{none}");
    let node = shipping(folder.path(), &store, pace()).await;
    shipped(&node).await;
    let used = restore_to(folder.path(), &store).await.unwrap_err().to_string();
    assert!(used.contains("in use"), "{used}");
    node.shutdown().await;
    drop(node);
    let mut refused = String::new();
    for _ in 0..500 {
        refused = restore_to(folder.path(), &store).await.unwrap_err().to_string();
        if !refused.contains("in use") {
            break;
        }
        system::seams().sleep(Duration::from_millis(10)).await;
    }
    assert!(refused.contains("empty --data"), "{refused}");
    assert_eq!(store.keys("meta/lineage").await, Vec::<String>::new(), "no number was used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_makes_the_copy_old_and_nothing_else_wait() {
    let store = Ledger::new();
    let folder = tempfile::tempdir().unwrap();
    let tuning = Tuning { snapshot_entries: 50, ..Tuning::default() };
    let node = start(folder.path(), tuning).await;
    single::claim(&store, FIRST).await;
    node.ship_to(Arc::new(store.clone()), pace());
    shipped(&node).await;
    let before = node.backup().unwrap();
    store.fail_after(0);
    register(&node.client(), 1).await;
    until("a request to fail", || (0 < node.backup()?.failures).then_some(())).await;
    // The log is cut behind the shipper meanwhile: what it lacks is in no log any more.
    for request in 2..200 {
        register(&node.client(), request).await;
    }
    let during = node.backup().unwrap();
    assert_eq!(during.covered, before.covered);
    assert!(Duration::ZERO < during.age.unwrap());
    store.heal();
    shipped(&node).await;
    let whole = node.applied_index();
    node.shutdown().await;
    let restored = restore_to(tempfile::tempdir().unwrap().path(), &store).await.unwrap();
    assert_eq!(restored.index, whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_backups_go_and_an_idle_cluster_asks_the_store_for_nothing() {
    let store = Ledger::new();
    let folder = tempfile::tempdir().unwrap();
    let node = shipping(folder.path(), &store, Pace { keep: Duration::ZERO, ..pace() }).await;
    for request in 0..5 {
        register(&node.client(), request).await;
        shipped(&node).await;
        node.ship_snapshot().await.unwrap();
    }
    let prefix = format!("meta/{FIRST}");
    let mut kept = Vec::new();
    for _ in 0..500 {
        kept = store.keys(&prefix).await;
        if kept.iter().filter(|key| key.contains("/snapshot-")).count() <= 2 {
            break;
        }
        system::seams().sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kept.iter().filter(|key| key.contains("/snapshot-")).count(), 2, "{kept:?}");
    system::seams().sleep(Duration::from_secs(1)).await;
    assert_eq!(store.keys(&prefix).await, kept);
    assert_eq!(store.lists(), 2, "to its end, once, for what others may have left");
    node.shutdown().await;
    let restored = restore_to(tempfile::tempdir().unwrap().path(), &store).await.unwrap();
    assert!(restored.left_out.is_empty());
}
