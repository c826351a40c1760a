//! A node on a disk that runs full, fails, hangs or rots: what its callers may conclude.
#![cfg(feature = "server")]

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aquifer_metadata::{
    client::{
        CallError, Heartbeat, Metadata,
        remote::{RemoteClient, RemoteConfig},
    },
    machine::{
        Genesis,
        command::{Command, CreateTopic, HostPort, RegisterSession, Registered, Reply},
        query::{Answer, Query},
    },
    node::{MetadataNode, NodeConfig, StartError, Tuning, proposer::outcome_of},
    service::serve,
    wal::disk::{Disk, FsDisk, WalFile},
    watch::WatchEvent,
};
use aquifer_storage::{
    error::Outcome,
    model::{Lineage, LogIndex, Offset, PartitionIndex, SessionId, TopicId, TopicPartition},
    seam::system,
};

/// What goes wrong with a disk. Shared with the disk.
#[derive(Default)]
struct Faults {
    /// Bytes by which files may still grow; negative: as many as they like.
    room: AtomicI64,
    /// Reads that still succeed; negative: all.
    reads: AtomicI64,
    sync_fails: Mutex<bool>,
    held: Mutex<bool>,
    released: Condvar,
}

impl Faults {
    fn none() -> Arc<Self> {
        let faults = Self::default();
        faults.room.store(-1, Ordering::Relaxed);
        faults.reads.store(-1, Ordering::Relaxed);
        Arc::new(faults)
    }

    fn hold_syncs(&self, hold: bool) {
        *self.held.lock().unwrap() = hold;
        self.released.notify_all();
    }

    fn sync(&self) -> io::Result<()> {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.released.wait(held).unwrap();
        }
        if *self.sync_fails.lock().unwrap() {
            return Err(io::Error::other("injected fsync failure"));
        }
        Ok(())
    }

    fn take(left: &AtomicI64, amount: i64) -> bool {
        let take = |left: i64| match left {
            0.. if left < amount => None,
            0.. => Some(left - amount),
            _ => Some(left),
        };
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}

/// The folder's disk with those faults.
struct FaultyDisk {
    inner: FsDisk,
    faults: Arc<Faults>,
}

struct FaultyFile {
    inner: Arc<dyn WalFile>,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    fn file(&self, inner: Arc<dyn WalFile>) -> Arc<dyn WalFile> {
        Arc::new(FaultyFile { inner, faults: self.faults.clone() })
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.inner.open(name)?))
    }

    fn folder(&self, name: &str) -> Arc<dyn Disk> {
        self.inner.folder(name)
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        self.inner.remove_folder(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.inner.sync_dir()
    }
}

impl WalFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if !Faults::take(&self.faults.reads, 1) {
            return Err(io::Error::other("injected read failure"));
        }
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let grown = (offset + bytes.len() as u64).saturating_sub(self.inner.size()?);
        if !Faults::take(&self.faults.room, grown as i64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.inner.sync()
    }
}

fn config(folder: &Path, snapshot_entries: u64) -> NodeConfig {
    NodeConfig {
        node_id: 1,
        data_dir: folder.to_path_buf(),
        genesis: Genesis { cluster_id: "test".into(), lineage: Lineage { number: 0, nonce: 9 } },
        tuning: Tuning { snapshot_entries, ..Tuning::default() },
    }
}

/// No snapshots: what a restart finds is in the log.
const LOG_ONLY: u64 = 1 << 40;

async fn try_start(
    folder: &Path,
    snapshot_entries: u64,
    faults: &Arc<Faults>,
) -> Result<MetadataNode, StartError> {
    let wrap = |inner| -> Arc<dyn Disk> { Arc::new(FaultyDisk { inner, faults: faults.clone() }) };
    for _ in 0..500 {
        let config = config(folder, snapshot_entries);
        match MetadataNode::start_through(config, system::seams(), wrap).await {
            // Whoever had the folder before lets go of it a moment after its last handle.
            Err(StartError::Folder(_)) => system::seams().sleep(Duration::from_millis(10)).await,
            result => return result,
        }
    }
    panic!("the folder stays locked");
}

async fn start(folder: &Path, faults: &Arc<Faults>) -> MetadataNode {
    try_start(folder, LOG_ONLY, faults).await.unwrap()
}

fn topic(number: u32) -> TopicId {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    TopicId::from_bytes(id)
}

fn creation(number: u32, bytes: usize) -> Command {
    Command::CreateTopic(CreateTopic {
        topic: topic(number),
        name: format!("topic-{number}"),
        partitions: 1,
        replication_factor: 1,
        configs: BTreeMap::from([("padding".to_owned(), "x".repeat(bytes))]),
    })
}

async fn create(node: &MetadataNode, number: u32, bytes: usize) -> Result<(), CallError> {
    let reply = node.client().propose(creation(number, bytes)).await?.reply;
    assert_eq!(reply, Reply::TopicCreated(Ok(topic(number))));
    Ok(())
}

fn registration(request: u64) -> Command {
    let advertised = HostPort { host: "localhost".into(), port: 9092 };
    Command::RegisterSession(RegisterSession { request, advertised, zone: None })
}

fn registered(reply: Reply) -> Registered {
    let Reply::Registered(registered) = reply else { panic!("{reply:?}") };
    registered
}

async fn register(node: &MetadataNode, request: u64) -> Registered {
    registered(node.client().propose(registration(request)).await.unwrap().reply)
}

async fn exists(node: &MetadataNode, number: u32) -> bool {
    let partition = TopicPartition { topic: topic(number), partition: PartitionIndex::new(0) };
    let query = Query::Runs { partition, offset: Offset::ZERO, limit: 1 };
    matches!(node.query(query).await.unwrap().1, Answer::Runs(Some(_)))
}

/// Creates topics until the disk is full; those that were answered.
async fn fill(node: &MetadataNode, first: u32) -> (u32, CallError) {
    for number in first..first + 1000 {
        if let Err(error) = create(node, number, 400_000).await {
            return (number, error);
        }
    }
    panic!("the disk does not run full");
}

/// Reads, heartbeats and watches go on for a while, and no command is taken.
async fn works_but_commits_nothing(node: &MetadataNode, session: SessionId, refused: u32) {
    let seams = system::seams();
    let mut watch = node.client().open_watch(LogIndex::default()).await.unwrap();
    let until = seams.clock.mono() + Duration::from_millis(2500);
    let soon = Duration::from_millis(500);
    let mut number = refused;
    while seams.clock.mono() < until {
        let submitted = [
            node.proposer().submit(creation(number, 400_000)).await.unwrap(),
            node.proposer().submit(registration(u64::from(number) << 20)).await.unwrap(),
        ];
        seams.timeout(soon, node.read_index()).await.expect("reads do not wait").unwrap();
        assert!(seams.timeout(soon, exists(node, 0)).await.expect("nor do queries"));
        assert!(matches!(node.heartbeat(session), Ok(Heartbeat::Live { .. })));
        loop {
            let event = seams.timeout(soon, watch.events.recv()).await.expect("watches go on");
            if matches!(event.expect("the stream goes on"), WatchEvent::Applied(_)) {
                break;
            }
        }
        for receipt in submitted {
            let outcome = seams.timeout(soon, outcome_of(receipt)).await.expect("refused at once");
            let error = outcome.unwrap_err();
            assert_eq!(error.outcome, Outcome::Unavailable, "a definite refusal: {error}");
            assert!(error.reason.contains("disk is full"), "{error}");
        }
        number += 1;
        seams.sleep(Duration::from_millis(100)).await;
    }
}

/// Takes commands again within a few seconds.
async fn heals(node: &MetadataNode, number: u32) {
    for _ in 0..50 {
        match create(node, number, 10).await {
            Ok(()) => return,
            Err(error) => assert_eq!(error.outcome, Outcome::Unavailable, "{error}"),
        }
        system::seams().sleep(Duration::from_millis(100)).await;
    }
    panic!("the node does not take commands again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_commands_only_and_freed_space_heals_it() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::none();
    let node = start(folder.path(), &faults).await;
    let session = register(&node, 1).await.session;
    faults.room.store(0, Ordering::SeqCst);
    let (refused, error) = fill(&node, 0).await;
    assert_eq!(error.outcome, Outcome::Unavailable, "{error}");
    assert!(5 < refused, "the room at hand is used: {refused}");
    works_but_commits_nothing(&node, session, refused).await;
    faults.room.store(-1, Ordering::SeqCst);
    heals(&node, 5000).await;
    node.shutdown().await;
    drop(node);
    let node = start(folder.path(), &faults).await;
    for number in (0..refused).chain([5000]) {
        assert!(exists(&node, number).await, "topic {number} was answered");
    }
    assert!(!exists(&node, refused).await, "topic {refused} was refused");
    assert_eq!(register(&node, 1).await.session, session);
    node.shutdown().await;
}

/// The disk runs full while the next segment is being prepared: nobody knows before it is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_at_once_are_each_applied_or_refused_when_the_disk_runs_full_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::none();
    let node = start(folder.path(), &faults).await;
    faults.room.store(15 << 20, Ordering::SeqCst);
    let mut receipts = Vec::new();
    for number in 0..30 {
        receipts.push(node.proposer().submit(creation(number, 1_000_000)).await.unwrap());
    }
    let mut applied = Vec::new();
    for receipt in receipts {
        let outcome = system::seams().timeout(Duration::from_secs(10), outcome_of(receipt)).await;
        match outcome.expect("none waits for space") {
            Ok(_) => applied.push(true),
            Err(error) => {
                assert_eq!(error.outcome, Outcome::Unavailable, "{error}");
                applied.push(false);
            }
        }
        let read = system::seams().timeout(Duration::from_secs(5), node.read_index()).await;
        read.expect("reads do not wait").unwrap();
    }
    assert!(applied.contains(&true) && applied.contains(&false));
    for (number, applied) in (0..).zip(applied) {
        assert_eq!(exists(&node, number).await, applied, "topic {number}");
    }
    node.shutdown().await;
}

/// A file system of its own, of some MiB. `None` where there may be none.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<(Self, tempfile::TempDir)> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]);
        match mount.arg(folder.path()).output() {
            Ok(done) if done.status.success() => {
                let mounted = Self(folder.path().to_path_buf());
                Some((mounted, folder))
            }
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr);
                println!("skipped: needs root to mount a small disk: {}", said.trim());
                None
            }
            Err(error) => {
                println!("skipped: cannot run mount: {error}");
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all that is free.
    fn fill_up(&self) {
        let mut options = fs::File::options();
        let mut filler = options.append(true).create(true).open(self.filler()).unwrap();
        for step in [1 << 20, 4096, 1] {
            while io::Write::write_all(&mut filler, &vec![7; step]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_full_file_system_the_same_holds_also_over_a_restart() {
    let Some((disk, folder)) = SmallDisk::mount(40) else { return };
    let data = folder.path().join("data");
    let faults = Faults::none();
    let node = start(&data, &faults).await;
    let session = register(&node, 1).await.session;
    create(&node, 0, 10).await.unwrap();
    disk.fill_up();
    let (refused, error) = fill(&node, 1).await;
    assert_eq!(error.outcome, Outcome::Unavailable, "{error}");
    works_but_commits_nothing(&node, session, refused).await;
    node.shutdown().await;
    drop(node);

    let node = start(&data, &faults).await;
    assert!(exists(&node, refused - 1).await, "a node starts on a full disk and answers");
    fs::remove_file(disk.filler()).unwrap();
    heals(&node, 5000).await;
    for number in 0..refused {
        assert!(exists(&node, number).await, "topic {number} was answered");
    }
    assert!(!exists(&node, refused).await, "topic {refused} was refused");
    node.shutdown().await;
}

fn snapshots(data: &Path) -> usize {
    let whole = |name: &str| name.starts_with("snap-") && !name.ends_with(".tmp");
    let entries = fs::read_dir(data.join("raft")).unwrap();
    entries.filter(|entry| whole(&entry.as_ref().unwrap().file_name().to_string_lossy())).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_waits_for_space_and_leaves_none_of_it_taken() {
    let Some((disk, folder)) = SmallDisk::mount(64) else { return };
    let data = folder.path().join("data");
    let faults = Faults::none();
    let node = try_start(&data, 10, &faults).await.unwrap();
    disk.fill_up();
    for number in 0..12 {
        create(&node, number, 100_000).await.unwrap();
    }
    let seams = system::seams();
    seams.sleep(Duration::from_millis(1500)).await;
    assert_eq!(snapshots(&data), 0);
    create(&node, 12, 10).await.expect("the log has its own room");
    fs::remove_file(disk.filler()).unwrap();
    for _ in 0..100 {
        if snapshots(&data) == 1 {
            node.shutdown().await;
            return;
        }
        seams.sleep(Duration::from_millis(100)).await;
    }
    panic!("no snapshot after there was space again");
}

/// Commands under way while the disk does not answer: handed to the log, or still in the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_shutdown_what_was_queued_is_refused_and_what_was_handed_over_is_never_called_failed() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::none();
    let node = start(folder.path(), &faults).await;
    register(&node, 0).await;
    faults.hold_syncs(true);
    let seams = system::seams();
    let entries = || node.metrics().entries_proposed.load(Ordering::Relaxed);
    let mut receipts = Vec::new();
    for request in 1..=8 {
        let before = entries();
        receipts.push(node.proposer().submit(registration(request)).await.unwrap());
        while request <= 4 && entries() == before {
            seams.sleep(Duration::from_millis(1)).await; // Each into an entry of its own.
        }
    }
    let mut handed = receipts;
    let queued = handed.split_off(4);
    let answers = async {
        let mut outcomes = Vec::new();
        for receipt in queued {
            outcomes.push(outcome_of(receipt).await);
        }
        outcomes
    };
    // Those need no disk; only then does it answer the others.
    let release = async {
        let refused = seams.timeout(Duration::from_secs(60), answers).await;
        faults.hold_syncs(false);
        refused.expect("what was queued is answered while the disk hangs")
    };
    let ((), refused) = tokio::join!(node.shutdown(), release);
    let mut outcomes = Vec::new();
    for receipt in handed {
        outcomes.push(outcome_of(receipt).await);
    }
    let unavailable = |outcome: &Result<_, CallError>| matches!(outcome, Err(error) if error.outcome == Outcome::Unavailable);
    assert!(refused.iter().all(unavailable), "they were not handed over: {refused:?}");
    assert!(!outcomes.iter().any(unavailable), "four entries were: {outcomes:?}");
    outcomes.extend(refused);
    drop(node);
    let node = start(folder.path(), &faults).await;
    let newest = register(&node, 99).await.session;
    for (request, outcome) in (1..).zip(outcomes) {
        let retried = register(&node, request).await;
        match outcome {
            Ok(applied) => assert_eq!(retried, registered(applied.reply), "a retry's answer"),
            Err(error) if error.outcome == Outcome::Unavailable => {
                assert!(newest < retried.session, "{request} had not happened");
            }
            Err(error) => assert_eq!(error.outcome, Outcome::Indefinite, "{error}"),
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_answer_takes_too_long_is_indefinite_and_its_retry_gets_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::none();
    let node = start(folder.path(), &faults).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = vec![listener.local_addr().unwrap().to_string()];
    let serving = serve(listener, node.clone(), std::future::pending());
    node.seams().spawn("serve", async move { serving.await.unwrap() });
    let deadline = Duration::from_millis(300);
    let remote = RemoteConfig { addresses, deadline, ..RemoteConfig::default() };
    let client = RemoteClient::new(remote, system::seams());
    client.read_index().await.unwrap();
    faults.hold_syncs(true);
    let error = client.propose(registration(5)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Indefinite, "{error}");
    client.read_index().await.expect("reads do not wait for the disk");
    faults.hold_syncs(false);
    let first = registered(client.propose(registration(5)).await.unwrap().reply);
    let next = registered(client.propose(registration(6)).await.unwrap().reply);
    assert_eq!(first.session.value() + 1, next.session.value(), "registered once");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_ends_the_node_and_nothing_is_answered_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::none();
    let node = start(folder.path(), &faults).await;
    let before = register(&node, 1).await;
    *faults.sync_fails.lock().unwrap() = true;
    let error = node.client().propose(registration(2)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Indefinite, "{error}");
    let seams = system::seams();
    let fatal = seams.timeout(Duration::from_secs(3), node.fatal()).await.expect("it must end");
    assert!(fatal.reason.contains("fsync"), "{fatal}");
    *faults.sync_fails.lock().unwrap() = false; // A later fsync may claim success.
    for request in 3..6 {
        assert!(node.client().propose(registration(request)).await.is_err());
        assert!(node.read_index().await.is_err());
    }
    node.shutdown().await;
    drop(node);
    let node = start(folder.path(), &faults).await;
    assert_eq!(register(&node, 1).await, before);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_while_nothing_is_written_ends_the_node_too() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::none();
    let node = start(folder.path(), &faults).await;
    // Half a segment: from here on the next one is prepared in the background.
    for number in 0..19 {
        create(&node, number, 400_000).await.unwrap();
    }
    *faults.sync_fails.lock().unwrap() = true;
    let last = node.client().propose(creation(19, 1_000_000)).await;
    assert!(last.is_err_and(|error| error.outcome == Outcome::Indefinite));
    let seams = system::seams();
    seams.timeout(Duration::from_secs(3), node.fatal()).await.expect("it must end");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_read_does_not_start_and_what_can_be_read_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &Faults::none()).await;
    let first = register(&node, 1).await;
    create(&node, 1, 10).await.unwrap();
    node.shutdown().await;
    drop(node);
    let mut refusals = 0;
    for reads in 0..40 {
        let faults = Faults::none();
        faults.reads.store(reads, Ordering::SeqCst);
        match try_start(folder.path(), LOG_ONLY, &faults).await {
            Err(error) => {
                refusals += 1;
                assert!(error.to_string().contains("injected read failure"), "{error}");
            }
            Ok(node) => {
                assert_eq!(register(&node, 1).await, first);
                node.shutdown().await;
                assert!(2 <= refusals, "the segment and its entries are read");
                return;
            }
        }
    }
    panic!("it does not start with 40 reads");
}

async fn refusal(folder: &Path) -> String {
    let refused = try_start(folder, LOG_ONLY, &Faults::none()).await;
    refused.err().expect("a damaged folder is refused").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_in_the_log_is_fatal_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path(), &Faults::none()).await;
    for request in 0..50 {
        register(&node, request).await;
    }
    node.shutdown().await;
    drop(node);
    let file = fs::read_dir(folder.path().join("raft"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .expect("a node has a log");
    drop(start(folder.path(), &Faults::none()).await); // It can be opened as it is.
    system::seams().sleep(Duration::from_millis(300)).await;
    let whole = fs::read(&file).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
    for place in (0..used).step_by(used / 60).chain([600, used / 2]) {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        if is_padding(&whole, place) {
            continue;
        }
        fs::write(&file, &bytes).unwrap();
        let refusal = refusal(folder.path()).await;
        assert!(refusal.contains(&name), "flip at {place}: {refusal}");
        assert!(refusal.contains("at byte"), "flip at {place}: {refusal}");
    }
    fs::write(&file, &whole).unwrap();
    start(folder.path(), &Faults::none()).await.shutdown().await;
}

/// Zeros between frames and behind a segment's header carry nothing.
fn is_padding(whole: &[u8], place: usize) -> bool {
    let around = place.saturating_sub(8)..(place + 8).min(whole.len());
    whole[place] == 0 && whole[around].iter().filter(|byte| **byte == 0).count() > 6
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_the_snapshot_is_fatal_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let node = try_start(folder.path(), 20, &Faults::none()).await.unwrap();
    for request in 0..60 {
        register(&node, request).await;
    }
    while snapshots(folder.path()) == 0 {
        system::seams().sleep(Duration::from_millis(20)).await;
    }
    node.shutdown().await;
    drop(node);
    drop(start(folder.path(), &Faults::none()).await);
    system::seams().sleep(Duration::from_millis(300)).await;
    let file = fs::read_dir(folder.path().join("raft"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("state"))
        .find(|path| path.exists())
        .expect("it was waited for");
    let whole = fs::read(&file).unwrap();
    for place in (0..whole.len()).step_by(whole.len() / 20) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let refusal = refusal(folder.path()).await;
        assert!(refusal.contains(&file.display().to_string()), "flip at {place}: {refusal}");
    }
}
