//! A node over a folder: what it answered is there after a restart, however it ended.
#![cfg(feature = "server")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aquifer_metadata::{
    client::Metadata,
    machine::{
        Genesis,
        command::{Command, HostPort, RegisterSession, Registered, Reply},
    },
    node::{MetadataNode, NodeConfig, StartError, Tuning, folder::FolderLock},
    wal::{Wal, WalConfig, disk::FsDisk},
    watch::WatchEvent,
};
use aquifer_storage::{
    model::{Lineage, LogIndex},
    seam::system,
};

fn config(folder: &Path, snapshot_entries: u64) -> NodeConfig {
    let lineage = Lineage { number: 0, nonce: 9 };
    NodeConfig {
        node_id: 1,
        data_dir: folder.to_path_buf(),
        genesis: Genesis { cluster_id: "test".into(), lineage },
        tuning: Tuning { snapshot_entries, ..Tuning::default() },
    }
}

async fn start(folder: &Path, snapshot_entries: u64) -> MetadataNode {
    MetadataNode::start(config(folder, snapshot_entries), system::seams()).await.unwrap()
}

async fn register(node: &MetadataNode, request: u64) -> Registered {
    let advertised = HostPort { host: "localhost".into(), port: 9092 };
    let command = Command::RegisterSession(RegisterSession { request, advertised, zone: None });
    match node.client().propose(command).await.unwrap().reply {
        Reply::Registered(registered) => registered,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_an_orderly_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), 10_000).await;
    let first = register(&node, 1).await;
    let index = node.client().read_index().await.unwrap();
    node.shutdown().await;
    drop(node);
    let node = restart(folder.path(), 10_000).await;
    assert!(index <= node.client().read_index().await.unwrap());
    assert_eq!(register(&node, 1).await, first, "a retry gets the first answer");
    assert_ne!(register(&node, 2).await.session, first.session);
    node.shutdown().await;
}

/// Background tasks let go of the folder a moment after the last handle is dropped.
async fn restart(folder: &Path, snapshot_entries: u64) -> MetadataNode {
    for _ in 0..200 {
        match MetadataNode::start(config(folder, snapshot_entries), system::seams()).await {
            Ok(node) => return node,
            Err(StartError::Folder(_)) => system::seams().sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the folder stays locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), 10_000).await;
    let refused = MetadataNode::start(config(folder.path(), 10_000), system::seams()).await;
    let message = refused.err().expect("refused").to_string();
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_after_snapshots_is_quick_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), 100).await;
    let mut first = None;
    for request in 0..350 {
        let registered = register(&node, request).await;
        first.get_or_insert(registered);
    }
    node.shutdown().await;
    drop(node);
    let snapshots = std::fs::read_dir(folder.path().join("raft"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("snap-"))
        .count();
    assert_eq!(snapshots, 1);
    let clock = system::seams().clock;
    let began = clock.mono();
    let node = restart(folder.path(), 100).await;
    let took = clock.mono().since(began);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(Some(register(&node, 0).await), first);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_starts_with_the_catalog_and_says_how_far_it_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), 10_000).await;
    register(&node, 1).await;
    let mut watch = node.client().open_watch(LogIndex::default()).await.unwrap();
    let Some(WatchEvent::Catalog(catalog)) = watch.events.recv().await else { panic!() };
    assert_eq!(catalog.nodes.len(), 1);
    assert!(matches!(watch.events.recv().await, Some(WatchEvent::Applied(_))));
    node.shutdown().await;
}

fn lose_the_log(folder: &Path) {
    for entry in std::fs::read_dir(folder.join("raft")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

async fn stopped_with_entries(folder: &Path, snapshot_entries: u64) {
    let node = start(folder, snapshot_entries).await;
    for request in 0..150 {
        register(&node, request).await;
    }
    node.shutdown().await;
    drop(node);
    drop(unlocked(folder).await);
}

/// Waits until whoever had the folder let go of it.
async fn unlocked(folder: &Path) -> FolderLock {
    for _ in 0..500 {
        match FolderLock::take(folder) {
            Ok(lock) => return lock,
            Err(_) => system::seams().sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the folder stays locked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_is_gone_is_refused_each_time() {
    for snapshot_entries in [10_000, 100] {
        let folder = tempfile::tempdir().unwrap();
        stopped_with_entries(folder.path(), snapshot_entries).await;
        lose_the_log(folder.path());
        for _ in 0..2 {
            let config = config(folder.path(), snapshot_entries);
            let refused = MetadataNode::start(config, system::seams()).await.err();
            assert!(matches!(refused, Some(StartError::LogMissing(_))), "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_does_not_reach_its_snapshot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    stopped_with_entries(folder.path(), 100).await;
    lose_the_log(folder.path());
    let wal = WalConfig::new("test", 1, 5);
    drop(Wal::open(Arc::new(FsDisk::new(folder.path().join("raft"))), &wal).unwrap());
    let refused = MetadataNode::start(config(folder.path(), 100), system::seams()).await.err();
    assert!(matches!(refused, Some(StartError::LogMissing(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_was_cut_short_is_a_first_start_again() {
    let folder = tempfile::tempdir().unwrap();
    // As left by a crash between the log and the owner's file.
    let wal = WalConfig::new("test", 1, 5);
    drop(Wal::open(Arc::new(FsDisk::new(folder.path().join("raft"))), &wal).unwrap());
    let node = start(folder.path(), 10_000).await;
    register(&node, 1).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dropped_at_work_keeps_its_lock_until_nothing_writes_and_loses_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for round in 0..4_u64 {
        let node = restart(folder.path(), 50).await;
        for (request, registered) in &answered {
            assert_eq!(register(&node, *request).await, *registered);
        }
        for request in round * 100..round * 100 + 60 {
            answered.push((request, register(&node, request).await));
        }
        for request in 0..64 {
            // Not waited for: under way when the node is dropped.
            let host = HostPort { host: "late".into(), port: 1 };
            let late = RegisterSession { request: 1 << 40 | request, advertised: host, zone: None };
            drop(node.proposer().submit(Command::RegisterSession(late)).await.unwrap());
        }
        drop(node);
        let lock = unlocked(folder.path()).await;
        let before = contents(&folder.path().join("raft"));
        system::seams().sleep(Duration::from_millis(300)).await;
        assert!(before == contents(&folder.path().join("raft")), "written without the lock");
        drop(lock);
    }
}

#[test]
fn a_runtime_that_goes_with_its_node_leaves_the_folder_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    let killed = runtime();
    let node = killed.block_on(start(folder.path(), 10_000));
    let first = killed.block_on(register(&node, 1));
    drop(killed);
    drop(node);
    let next = runtime();
    let node = next.block_on(restart(folder.path(), 10_000));
    assert_eq!(next.block_on(register(&node, 1)), first);
    next.block_on(node.shutdown());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_given_up_frees_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    for millis in [0, 1, 5, 20, 50] {
        let starting = MetadataNode::start(config(folder.path(), 100), system::seams());
        drop(system::seams().timeout(Duration::from_millis(millis), starting).await);
        drop(unlocked(folder.path()).await);
    }
    let node = restart(folder.path(), 100).await;
    node.shutdown().await;
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}
