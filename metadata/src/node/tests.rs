//! Laws of a metadata node.

use std::path::Path;

use aquifer_storage::{
    model::{
        CommitSeq, Lineage, ObjectSeq, Offset, PartitionIndex, Timestamp, TopicId, TopicPartition,
    },
    seam::{BoxFuture, Clock, MonoTime, system},
};

use super::*;
use crate::{
    client::{CommitStream, Metadata},
    machine::{
        command::{
            AlterConfigs, CommitPart, CommitReply, CreateTopic, HostPort, PartBatch, PartExtent,
            RegisterSession, Reply,
        },
        config::{ConfigAction, ConfigChange, ConfigKey, ConfigKind, ConfigOp, ConfigResource},
    },
    raft::{
        Vote,
        library::{AppendEntriesRequest, WatchReceiver},
    },
    watch::{PartitionState, WatchEvent, WatchRequest},
};

mod group;

/// Sleeps as long as it should and never moves: no session is silent for long, however slow the
/// disk is.
struct StillClock(Arc<dyn Clock>);

impl Clock for StillClock {
    fn mono(&self) -> MonoTime {
        MonoTime::from_zero(Duration::ZERO)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1)
    }

    fn sleep_until(&self, deadline: MonoTime) -> BoxFuture<'static, ()> {
        self.0.sleep_until(self.0.mono() + deadline.since_zero())
    }
}

async fn start(folder: &Path) -> MetadataNode {
    start_with(folder, system::seams()).await
}

fn config(folder: &Path) -> NodeConfig {
    NodeConfig {
        node_id: 1,
        data_dir: folder.to_path_buf(),
        genesis: Genesis { cluster_id: "test".into(), lineage: Lineage { number: 0, nonce: 9 } },
        tuning: Tuning::default(),
    }
}

async fn start_with(folder: &Path, seams: Seams) -> MetadataNode {
    MetadataNode::start(config(folder), seams).await.unwrap()
}

fn registration(request: u64) -> Command {
    let advertised = HostPort { host: "localhost".into(), port: 9092 };
    Command::RegisterSession(RegisterSession { request, advertised, zone: None })
}

async fn register(node: &MetadataNode, request: u64) -> SessionId {
    match node.propose(registration(request)).await.unwrap().reply {
        Reply::Registered(registered) => registered.session,
        other => panic!("{other:?}"),
    }
}

fn topic(number: u8) -> TopicId {
    TopicId::from_bytes([number + 1; 16])
}

fn creation(number: u8, padding: usize) -> Command {
    Command::CreateTopic(CreateTopic {
        topic: topic(number),
        name: format!("topic-{number}"),
        partitions: 1,
        replication_factor: 1,
        configs: BTreeMap::from([("padding".to_owned(), "x".repeat(padding))]),
    })
}

fn partition() -> TopicPartition {
    TopicPartition { topic: topic(0), partition: PartitionIndex::new(0) }
}

/// Part `seq`, of one batch with ten records, in an object of its own.
fn part(session: SessionId, seq: CommitSeq, object: u64) -> CommitPart {
    CommitPart {
        session,
        commit_seq: seq,
        acked_seq: CommitSeq::new(0),
        low_seq: ObjectSeq::new(0),
        object_seq: ObjectSeq::new(object),
        object_bytes: 100,
        producers: Vec::new(),
        extents: vec![PartExtent {
            partition: partition(),
            batches: vec![PartBatch {
                position: 0,
                length: 100,
                record_count: 10,
                max_timestamp: Timestamp::from_millis(5),
                producer: None,
            }],
        }],
    }
}

async fn committed(stream: &mut CommitStream, part: CommitPart) -> CommitReply {
    stream.parts.send(part).await.unwrap();
    stream.replies.recv().await.expect("an answer").1
}

/// What the session's next part must be.
async fn next_seq(node: &MetadataNode, session: SessionId) -> CommitSeq {
    let mut stream = node.client().open_commits(session).await.unwrap();
    match committed(&mut stream, part(session, CommitSeq::new(1 << 40), 0)).await {
        CommitReply::Gap { next } => next,
        other => panic!("{other:?}"),
    }
}

/// Makes the node believe that node 2 leads a later term.
async fn depose(node: &MetadataNode) {
    let term = node.inner.raft.metrics().borrow_watched().current_term;
    let rpc = AppendEntriesRequest {
        vote: Vote::new_committed(term + 5, 2),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    node.inner.raft.append_entries(rpc).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_node_refuses_what_it_did_not_hand_over_and_claims_no_failure_of_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let session = register(&node, 1).await;
    node.propose(creation(0, 0)).await.unwrap();
    let first = next_seq(&node, session).await;
    let mut stream = node.client().open_commits(session).await.unwrap();
    let answer = committed(&mut stream, part(session, first, 0)).await;
    let mut handed = Vec::new();
    let submitting = async {
        for request in 100..160 {
            handed.push(node.proposer().submit(registration(request)).await.unwrap());
            tokio::task::yield_now().await;
        }
    };
    // Until it may stand again, below, however slow this machine is.
    node.inner.raft.runtime_config().elect(false);
    tokio::join!(submitting, depose(&node));
    // Until then, Raft itself refuses: with words that it also has for entries in its log.
    while node.inner.raft.as_leader().is_ok() {
        node.seams().sleep(Duration::from_millis(1)).await;
    }
    let refused = node.propose(registration(2)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Unavailable, "{refused}");
    assert_eq!(node.heartbeat(session).unwrap_err().outcome, Outcome::Unavailable);
    assert_eq!(node.read_index().await.unwrap_err().outcome, Outcome::Unavailable);

    // Nobody else votes: it leads again. Until somebody does, what was in its log and not on its
    // disk is neither committed nor cut, so it has no outcome.
    node.inner.raft.runtime_config().elect(true);
    let mut outcomes = Vec::new();
    for receipt in handed {
        outcomes.push(proposer::outcome_of(receipt).await);
    }
    let mut seen = None;
    for _ in 0..200 {
        match node.propose(registration(3)).await {
            Ok(applied) => {
                seen = Some(applied.reply);
                break;
            }
            Err(error) => assert_ne!(error.outcome, Outcome::Rejected, "{error}"),
        }
        node.seams().sleep(Duration::from_millis(50)).await;
    }
    let Some(Reply::Registered(newest)) = seen else { panic!("it does not lead again") };
    for (request, outcome) in (100..).zip(outcomes) {
        let retried = register(&node, request).await;
        match outcome {
            Ok(_) => assert!(retried < newest.session, "{request} had happened"),
            Err(error) if error.outcome == Outcome::Unavailable => {
                assert!(newest.session < retried, "{request} had not happened");
            }
            Err(error) => assert_eq!(error.outcome, Outcome::Indefinite, "{error}"),
        }
    }
    let mut stream = node.client().open_commits(session).await.unwrap();
    let again = committed(&mut stream, part(session, first, 0)).await;
    assert_eq!(again, answer, "a retried part gets its first answer");
    node.shutdown().await;
}

/// What an agent holds of the one partition it watches, and of the catalog.
#[derive(Default)]
struct Held {
    topics: BTreeMap<TopicId, u32>,
    partition: Option<PartitionState>,
    catalogs: usize,
    applied: LogIndex,
}

impl Held {
    fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Catalog(catalog) => {
                self.catalogs += 1;
                self.topics =
                    catalog.topics.values().map(|topic| (topic.id, topic.partitions)).collect();
            }
            WatchEvent::Topic(topic) => {
                self.topics.insert(topic.id, topic.partitions);
            }
            WatchEvent::TopicGone(topic) => {
                self.topics.remove(&topic);
            }
            WatchEvent::PartitionState(state) => {
                let held = self.partition.as_ref().map(|held| held.index);
                assert!(held <= Some(state.index), "a partition does not go back");
                self.partition = Some(state);
            }
            WatchEvent::PartitionAdvanced { from_index, index, from, runs, pointers, .. } => {
                let held = self.partition.as_mut().expect("its state came first");
                assert_eq!(held.index, from_index, "nothing is skipped");
                held.index = index;
                held.runs.retain(|run| run.offsets.base < from);
                held.runs.extend(runs);
                held.pointers = pointers;
            }
            WatchEvent::Applied(index) => {
                assert!(self.applied <= index, "the index does not go back");
                self.applied = index;
            }
            WatchEvent::Nodes(_)
            | WatchEvent::Configs(_)
            | WatchEvent::Group { .. }
            | WatchEvent::PartitionGone(..) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_configs_is_told_to_those_who_watch_and_to_those_who_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    register(&node, 1).await;
    let mut watch = node.client().open_watch(LogIndex::default()).await.unwrap();
    let key = ConfigKey { kind: ConfigKind::Broker, name: String::new() };
    let set = |name: &str, value: &str| {
        let action = ConfigAction::Set(value.to_owned());
        Command::AlterConfigs(AlterConfigs {
            resource: ConfigResource::Other(key.clone()),
            change: ConfigChange::Incremental(vec![ConfigOp { name: name.to_owned(), action }]),
            orders: Vec::new(),
        })
    };
    for (name, value) in [("log.retention.ms", "7"), ("message.max.bytes", "9")] {
        let applied = node.propose(set(name, value)).await.unwrap();
        assert_eq!(applied.reply, Reply::ConfigsAltered(Ok(())));
    }
    let both = [("log.retention.ms", "7"), ("message.max.bytes", "9")];
    let both = both.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expected = BTreeMap::from([(key.clone(), Arc::new(BTreeMap::from(both)))]);

    let mut held = BTreeMap::new();
    let seams = node.seams().clone();
    while held != expected {
        let event = seams.timeout(Duration::from_secs(20), async {
            // The index that an idle stream repeats is no news.
            loop {
                match watch.events.recv().await.unwrap() {
                    WatchEvent::Applied(_) => {}
                    event => return event,
                }
            }
        });
        match event.await.expect("the changes are told") {
            WatchEvent::Catalog(catalog) => held = catalog.configs.clone(),
            WatchEvent::Configs(told) => {
                held.insert(told.key.clone(), Arc::clone(&told.overrides));
            }
            _ => {}
        }
    }
    let mut later = node.client().open_watch(LogIndex::default()).await.unwrap();
    let WatchEvent::Catalog(catalog) = later.events.recv().await.unwrap() else { panic!() };
    assert_eq!(catalog.configs, expected);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_stops_reading_costs_a_bounded_backlog_and_then_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    let seams = system::seams();
    let clock = Arc::new(StillClock(seams.clock.clone()));
    let node = start_with(folder.path(), Seams { clock, ..seams }).await;
    let session = register(&node, 1).await;
    node.propose(creation(0, 0)).await.unwrap();
    let first = next_seq(&node, session).await;
    let mut watch = node.client().open_watch(LogIndex::default()).await.unwrap();
    watch.requests.send(WatchRequest::Watch(partition())).await.unwrap();
    let mut held = Held::default();
    while held.partition.is_none() {
        held.take(watch.events.recv().await.unwrap());
    }
    assert_eq!(held.catalogs, 1);

    let mut commits = node.client().open_commits(session).await.unwrap();
    let mut worst = 0;
    for round in 1..60_u8 {
        for step in 0..8 {
            let number = u64::from(round) * 8 + step;
            let seq = CommitSeq::new(first.value() + number - 8);
            let reply = committed(&mut commits, part(session, seq, number)).await;
            assert!(matches!(reply, CommitReply::Applied(_)), "{reply:?}");
        }
        let submitted = node.proposer().submit(creation(round, 200_000)).await.unwrap();
        proposer::outcome_of(submitted).await.unwrap();
        worst = worst.max(node.inner.hub.backlog_bytes());
    }
    assert!(watch_hub::BACKLOG_BYTES_MAX / 2 < worst, "the backlog was used: {worst}");
    assert!(worst <= watch_hub::BACKLOG_BYTES_MAX, "{worst}");
    let last = node.read_index().await.unwrap();
    while held.applied < last {
        held.take(watch.events.recv().await.expect("it is not cut off"));
    }
    assert!(2 <= held.catalogs, "it started over");
    let (catalog, state) = {
        let machine = node.inner.machine.lock();
        (machine.state.catalog(), machine.state.partition_state(partition()).unwrap())
    };
    let topics: BTreeMap<_, _> = catalog.topics.iter().map(|(id, t)| (*id, t.partitions)).collect();
    assert_eq!(held.topics, topics);
    let held = held.partition.unwrap();
    assert_eq!(held.pointers, state.pointers);
    assert_eq!(held.pointers.high_watermark, Offset::new(59 * 8 * 10).unwrap());
    assert!(held.runs.ends_with(&state.runs[state.runs.len().saturating_sub(20)..]));
    node.shutdown().await;
}

#[test]
fn a_leader_on_a_slow_clock_falls_silent_before_a_voter_on_a_fast_one_stands() {
    let config = config(Path::new("."));
    let timings = config.tuning.timings;
    let raft = startup::raft_config(&config, false);
    let stands = Duration::from_millis(raft.election_timeout_max + raft.election_timeout_min);
    // Both counted from when the voter last heard the leader, which is not before the leader asked.
    let (speaks, stands) = (timings.lease() * 1000 / 900, stands * 1000 / 1100);
    assert!(speaks < stands, "it speaks for {speaks:?}, and another may lead after {stands:?}");
    assert!(timings.heartbeat_ms * 2 < timings.election_ms_max, "one heartbeat may be lost");
}
