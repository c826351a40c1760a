//! A node behind a real socket: what its callers are told, also when it goes away and comes back.
#![cfg(feature = "server")]

use std::{net::SocketAddr, path::Path, time::Duration};

use aquifer_metadata::{
    client::{
        Heartbeat, Metadata,
        remote::{RemoteClient, RemoteConfig},
    },
    machine::{
        Genesis,
        command::{
            BatchOutcome, Command, CommitPart, CommitReply, CreateTopic, HostPort, PartBatch,
            PartExtent, RegisterSession, Registered, Reply,
        },
        query::{Answer, Query},
    },
    node::{MetadataNode, NodeConfig, StartError, Tuning},
    service::serve,
    watch::{WatchEvent, WatchRequest},
};
use aquifer_storage::{
    error::Outcome,
    model::{
        CommitSeq, Lineage, LogIndex, ObjectSeq, Offset, PartitionIndex, SessionId, Timestamp,
        TopicId, TopicPartition,
    },
    seam::system,
};
use tokio::{net::TcpListener, sync::oneshot};

const TOPIC: TopicId = TopicId::from_bytes([7; 16]);

/// A node and its service.
struct Served {
    node: MetadataNode,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Served {
    async fn start(folder: &Path, address: &str) -> Self {
        let node = start_node(folder).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let serving = serve(listener, node.clone(), async move {
            let _ = stopped.await;
        });
        system::seams().spawn("serve", async move {
            serving.await.unwrap();
            let _ = end.send(());
        });
        Self { node, address, stop, ended }
    }

    async fn stop(self) -> SocketAddr {
        self.stop.send(()).unwrap();
        let ended = system::seams().timeout(Duration::from_secs(3), self.ended).await;
        ended.expect("open streams do not hold the service up").unwrap();
        self.node.shutdown().await;
        self.address
    }

    fn client(&self) -> RemoteClient {
        client(self.address, Some("test"))
    }
}

fn client(address: SocketAddr, cluster_id: Option<&str>) -> RemoteClient {
    let config = RemoteConfig {
        addresses: vec![address.to_string()],
        cluster_id: cluster_id.map(str::to_owned),
        ..RemoteConfig::default()
    };
    RemoteClient::new(config, system::seams())
}

/// Background tasks of a node before let go of the folder a moment after its last handle.
async fn start_node(folder: &Path) -> MetadataNode {
    for _ in 0..200 {
        let config = NodeConfig {
            node_id: 1,
            data_dir: folder.to_path_buf(),
            genesis: Genesis {
                cluster_id: "test".into(),
                lineage: Lineage { number: 0, nonce: 9 },
            },
            tuning: Tuning::default(),
        };
        match MetadataNode::start(config, system::seams()).await {
            Ok(node) => return node,
            Err(StartError::Folder(_)) => system::seams().sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the folder stays locked");
}

async fn register(client: &RemoteClient) -> Registered {
    register_at(client, 9092).await
}

async fn register_at(client: &RemoteClient, port: u16) -> Registered {
    let advertised = HostPort { host: "localhost".into(), port };
    let command =
        Command::RegisterSession(RegisterSession { request: port.into(), advertised, zone: None });
    match client.propose(command).await.unwrap().reply {
        Reply::Registered(registered) => registered,
        other => panic!("{other:?}"),
    }
}

async fn create_topic(client: &RemoteClient) {
    let command = Command::CreateTopic(CreateTopic {
        topic: TOPIC,
        name: "orders".into(),
        partitions: 1,
        replication_factor: 1,
        configs: Default::default(),
    });
    let created = client.propose(command).await.unwrap().reply;
    assert_eq!(created, Reply::TopicCreated(Ok(TOPIC)));
}

fn partition() -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionIndex::new(0) }
}

/// Part `seq`, of one batch with ten records, in an object of its own.
fn part(session: SessionId, seq: u64, first: CommitSeq) -> CommitPart {
    CommitPart {
        session,
        commit_seq: CommitSeq::new(seq),
        acked_seq: first,
        low_seq: ObjectSeq::new(0),
        object_seq: ObjectSeq::new(seq),
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

fn base(reply: &CommitReply) -> i64 {
    let CommitReply::Applied(outcomes) = reply else { panic!("{reply:?}") };
    let [BatchOutcome::Appended { base, .. }] = outcomes[..] else { panic!("{outcomes:?}") };
    base.value()
}

/// Where a new session's stream begins: the node says so.
async fn first_seq(client: &RemoteClient, session: SessionId) -> CommitSeq {
    let mut stream = client.open_commits(session).await.unwrap();
    let early = part(session, 1_000, CommitSeq::new(1_000));
    stream.parts.send(early).await.unwrap();
    match stream.replies.recv().await.expect("an answer") {
        (_, CommitReply::Gap { next }) => next,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_over_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), "127.0.0.1:0").await;
    let client = client(served.address, None);
    assert_eq!(client.cluster_id(), None);
    let session = register(&client).await.session;
    assert_eq!(client.cluster_id(), Some("test"), "learned from the first reply");
    create_topic(&client).await;
    let index = client.read_index().await.unwrap();
    let query = Query::Runs { partition: partition(), offset: Offset::ZERO, limit: 10 };
    let (at, answer) = client.query(query).await.unwrap();
    assert!(index <= at);
    assert!(matches!(answer, Answer::Runs(Some(found)) if found.runs.is_empty()));
    let heard = client.heartbeat(session).await.unwrap();
    assert!(matches!(heard, Heartbeat::Live { index: at, .. } if index <= at));
    assert_eq!(client.heartbeat(SessionId::new(99)).await, Ok(Heartbeat::Fenced));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_stream_answers_in_order_and_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), "127.0.0.1:0").await;
    let client = served.client();
    let session = register(&client).await.session;
    create_topic(&client).await;
    let first = first_seq(&client, session).await;
    let mut stream = client.open_commits(session).await.unwrap();
    let seqs = first.value()..first.value() + 50;
    for seq in seqs.clone() {
        stream.parts.send(part(session, seq, first)).await.unwrap();
    }
    let mut answers = Vec::new();
    for seq in seqs.clone() {
        let (answered, reply) = stream.replies.recv().await.expect("an answer");
        assert_eq!(answered.value(), seq);
        assert_eq!(base(&reply), 10 * (seq - first.value()) as i64);
        answers.push(reply);
    }
    let address = served.stop().await;
    assert!(stream.replies.recv().await.is_none(), "the node's end closes the stream");

    let served = Served::start(folder.path(), &address.to_string()).await;
    let mut stream = client.open_commits(session).await.unwrap();
    for seq in seqs.clone() {
        stream.parts.send(part(session, seq, first)).await.unwrap();
    }
    stream.parts.send(part(session, seqs.end + 1, first)).await.unwrap();
    for answer in answers {
        assert_eq!(
            stream.replies.recv().await.expect("an answer").1,
            answer,
            "a retry gets the first answer"
        );
    }
    let gap = CommitReply::Gap { next: CommitSeq::new(seqs.end) };
    assert_eq!(stream.replies.recv().await.expect("an answer").1, gap);
    drop(stream.parts);
    assert!(stream.replies.recv().await.is_none(), "the caller's end closes the stream");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_commit_stream_answers_what_was_sent_before() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), "127.0.0.1:0").await;
    let client = served.client();
    let session = register(&client).await.session;
    create_topic(&client).await;
    let first = first_seq(&client, session).await;
    let mut stream = client.open_commits(session).await.unwrap();
    for seq in first.value()..first.value() + 20 {
        stream.parts.send(part(session, seq, first)).await.unwrap();
    }
    drop(stream.parts);
    let mut answered = 0;
    while stream.replies.recv().await.is_some() {
        answered += 1;
    }
    assert_eq!(answered, 20);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_begins_with_the_catalog_and_follows_what_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), "127.0.0.1:0").await;
    let client = served.client();
    create_topic(&client).await;
    let session = register(&client).await.session;
    client.heartbeat(session).await.unwrap();
    let mut watch = client.open_watch(LogIndex::default()).await.unwrap();
    let Some(WatchEvent::Catalog(catalog)) = watch.events.recv().await else { panic!() };
    assert!(catalog.topics.contains_key(&TOPIC));
    assert!(matches!(watch.events.recv().await, Some(WatchEvent::Applied(_))));
    watch.requests.send(WatchRequest::Watch(partition())).await.unwrap();
    loop {
        match watch.events.recv().await.expect("the stream goes on") {
            WatchEvent::PartitionState(state) if state.partition == partition() => break,
            _ => {}
        }
    }
    served.stop().await;
}

/// Silence makes a session absent after 750 ms, so only less than that shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_watch_takes_its_session_out_of_the_node_list() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), "127.0.0.1:0").await;
    let (leaver, other) = (served.client(), served.client());
    let left = register_at(&leaver, 1).await.session;
    let stays = register_at(&other, 2).await.session;
    let clock = system::seams().clock;
    for _ in 0..5 {
        leaver.heartbeat(left).await.unwrap();
        let began = clock.mono();
        let mut watch = leaver.open_watch(LogIndex::default()).await.unwrap();
        assert!(watch.events.recv().await.is_some());
        drop(watch);
        let mut watch = other.open_watch(LogIndex::default()).await.unwrap();
        loop {
            other.heartbeat(stays).await.unwrap();
            let nodes = match watch.events.recv().await.expect("the stream goes on") {
                WatchEvent::Catalog(catalog) => catalog.nodes.clone(),
                WatchEvent::Nodes(nodes) => nodes,
                _ => continue,
            };
            if nodes.iter().map(|node| node.session).eq([stays]) {
                break;
            }
        }
        if clock.mono().since(began) < Duration::from_millis(700) {
            served.stop().await;
            return;
        }
    }
    panic!("the session was absent only by its silence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused_by_every_call() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), "127.0.0.1:0").await;
    let foreign = client(served.address, Some("other"));
    let session = SessionId::new(1);
    let query = Query::Runs { partition: partition(), offset: Offset::ZERO, limit: 1 };
    let outcomes = [
        foreign.propose(Command::Tick).await.map(drop),
        foreign.read_index().await.map(drop),
        foreign.query(query).await.map(drop),
        foreign.heartbeat(session).await.map(drop),
        foreign.open_commits(session).await.map(drop),
        foreign.open_watch(LogIndex::default()).await.map(drop),
    ];
    for refused in outcomes {
        let error = refused.unwrap_err();
        assert_eq!(error.outcome, Outcome::Rejected, "{error}");
        assert!(error.reason.contains("test"), "{error}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_never_left_is_unavailable() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let client = client(address, None);
    for _ in 0..3 {
        let error = client.propose(Command::Tick).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Unavailable, "{error}");
    }
    let none = RemoteClient::new(RemoteConfig::default(), system::seams());
    assert_eq!(none.read_index().await.unwrap_err().outcome, Outcome::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_was_sent_and_not_answered_is_indefinite() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = RemoteConfig {
        addresses: vec![silent.local_addr().unwrap().to_string()],
        deadline: Duration::from_millis(300),
        ..RemoteConfig::default()
    };
    let client = RemoteClient::new(config, system::seams());
    let error = client.propose(Command::Tick).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Indefinite, "{error}");
    assert_eq!(client.read_index().await.unwrap_err().outcome, Outcome::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_at_another_node_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), "127.0.0.1:0").await;
    let config = RemoteConfig {
        addresses: vec!["127.0.0.1:1".into(), served.address.to_string()],
        ..RemoteConfig::default()
    };
    let client = RemoteClient::new(config, system::seams());
    let before = client.read_index().await.unwrap();
    let address = served.stop().await;
    let served = Served::start(folder.path(), &address.to_string()).await;
    assert!(before <= client.read_index().await.unwrap());
    served.stop().await;
}
