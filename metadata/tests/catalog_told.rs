//! A change of the catalog is answered once every agent that is present knows it, over real gRPC.
#![cfg(feature = "server")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use aquifer_metadata::{
    client::{
        Metadata,
        remote::{RemoteClient, RemoteConfig},
    },
    machine::{
        Genesis,
        command::{Command, CreateTopic, HostPort, RegisterSession, Reply},
        query::Query,
    },
    node::{MetadataNode, NodeConfig, Tuning},
    service::serve,
    watch::WatchEvent,
};
use aquifer_storage::{
    error::Outcome,
    model::{Lineage, LogIndex, Offset, PartitionIndex, SessionId, TopicId, TopicPartition},
    seam::{Seams, system},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

const LINEAGE: Lineage = Lineage { number: 1, nonce: 9 };

async fn serve_node(folder: &Path) -> (MetadataNode, SocketAddr) {
    let (node, address, stop) = serve_at(folder, "127.0.0.1:0", LINEAGE).await;
    std::mem::forget(stop); // Serves as long as the test.
    (node, address)
}

async fn serve_at(
    folder: &Path,
    address: &str,
    lineage: Lineage,
) -> (MetadataNode, SocketAddr, oneshot::Sender<()>) {
    let config = NodeConfig {
        node_id: 1,
        data_dir: folder.to_path_buf(),
        genesis: Genesis { cluster_id: "test".into(), lineage },
        tuning: Tuning::default(),
    };
    let node = MetadataNode::start(config, system::seams()).await.unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(listener, node.clone(), async move {
        let _ = stopped.await;
    });
    node.seams().spawn("serve", async move { serving.await.unwrap() });
    (node, address, stop)
}

fn client(address: SocketAddr, lineage: Option<Lineage>) -> RemoteClient {
    let addresses = vec![address.to_string()];
    let config = RemoteConfig { addresses, lineage, ..RemoteConfig::default() };
    RemoteClient::new(config, system::seams())
}

/// How an agent reads its watch stream: the pause before it takes each event; `None` stops it.
type Pace = watch::Sender<Option<Duration>>;

/// An agent as far as the catalog goes: heartbeats, and follows its watch stream.
struct Agent {
    client: RemoteClient,
    topics: Arc<Mutex<BTreeSet<TopicId>>>,
    pace: Pace,
    _alive: mpsc::Sender<()>,
}

impl Agent {
    /// Watches before it registers, as agents do.
    async fn start(address: SocketAddr, port: u16) -> Self {
        let client = client(address, None);
        let topics = Arc::<Mutex<BTreeSet<TopicId>>>::default();
        let (pace, paced) = watch::channel(Some(Duration::ZERO));
        let (alive, gone) = mpsc::channel(1);
        let seams = system::seams();
        let stream = client.open_watch(LogIndex::default()).await.unwrap();
        seams.spawn("follow", follow(stream, topics.clone(), paced, seams.clone()));
        let advertised = HostPort { host: "localhost".into(), port };
        let register = RegisterSession { request: port.into(), advertised, zone: None };
        let reply = client.propose(Command::RegisterSession(register)).await.unwrap().reply;
        let Reply::Registered(registered) = reply else { panic!("{reply:?}") };
        let beating = client.clone();
        seams.clone().spawn("heartbeat", beat(beating, registered.session, gone, seams));
        Self { client, topics, pace, _alive: alive }
    }

    fn knows(&self, topic: TopicId) -> bool {
        self.topics.lock().unwrap().contains(&topic)
    }

    async fn create(&self, number: u8) -> (TopicId, Duration) {
        let topic = TopicId::from_bytes([number + 1; 16]);
        let command = CreateTopic {
            topic,
            name: format!("topic-{number}"),
            partitions: 1,
            replication_factor: 1,
            configs: Default::default(),
        };
        let seams = system::seams();
        let began = seams.clock.mono();
        let reply = self.client.propose(Command::CreateTopic(command)).await.unwrap().reply;
        assert_eq!(reply, Reply::TopicCreated(Ok(topic)));
        (topic, seams.clock.mono().since(began))
    }
}

async fn follow(
    mut stream: aquifer_metadata::client::WatchStream,
    topics: Arc<Mutex<BTreeSet<TopicId>>>,
    mut pace: watch::Receiver<Option<Duration>>,
    seams: Seams,
) {
    loop {
        let Ok(pause) = pace.wait_for(Option::is_some).await.map(|pause| *pause) else { return };
        seams.sleep(pause.unwrap_or_default()).await;
        let event = tokio::select! {
            event = stream.events.recv() => event,
            changed = pace.changed() => if changed.is_ok() { continue } else { return },
        };
        match event {
            None => return,
            Some(WatchEvent::Catalog(catalog)) => {
                *topics.lock().unwrap() = catalog.topics.keys().copied().collect();
            }
            Some(WatchEvent::Topic(topic)) => {
                topics.lock().unwrap().insert(topic.id);
            }
            Some(WatchEvent::TopicGone(topic)) => {
                topics.lock().unwrap().remove(&topic);
            }
            Some(_) => {}
        }
    }
}

async fn beat(
    client: RemoteClient,
    session: SessionId,
    mut gone: mpsc::Receiver<()>,
    seams: Seams,
) {
    loop {
        client.heartbeat(session).await.ok();
        if seams.timeout(Duration::from_millis(200), gone.recv()).await.is_some() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_created_through_one_agent_is_known_to_the_other_when_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (node, address) = serve_node(folder.path()).await;
    let (one, two) = (Agent::start(address, 1).await, Agent::start(address, 2).await);
    for number in 0..20 {
        let (topic, _) = one.create(number).await;
        assert!(one.knows(topic) && two.knows(topic), "topic {number}");
    }
    // Slow enough that an answer without the wait would be first, and well within the second.
    two.pace.send(Some(Duration::from_millis(30))).unwrap();
    for number in 20..25 {
        let (topic, waited) = one.create(number).await;
        assert!(two.knows(topic), "topic {number}");
        assert!(waited < Duration::from_millis(900), "{waited:?}");
    }
    let topic = TopicId::from_bytes([4; 16]);
    one.client.propose(Command::DeleteTopic { topic }).await.unwrap();
    assert!(!one.knows(topic) && !two.knows(topic), "so is a deletion");
    assert_eq!(untold(&node), 0);
    node.shutdown().await;
}

fn untold(node: &MetadataNode) -> u64 {
    node.metrics().catalog_changes_untold.load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_reads_nothing_delays_an_answer_by_a_second_and_a_dead_one_by_less() {
    let folder = tempfile::tempdir().unwrap();
    let (node, address) = serve_node(folder.path()).await;
    let (one, two) = (Agent::start(address, 1).await, Agent::start(address, 2).await);
    one.create(0).await;
    two.pace.send(None).unwrap();
    // It may be about to take one event more: two topics are two events at least.
    one.create(1).await;
    let (topic, waited) = one.create(2).await;
    assert!(!two.knows(topic));
    assert!(Duration::from_secs(1) <= waited && waited < Duration::from_millis(1500), "{waited:?}");
    assert!(1 <= untold(&node));
    drop(two);
    let (_, waited) = one.create(3).await;
    assert!(waited < Duration::from_millis(950), "{waited:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_in_the_process_is_waited_for_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let (node, address) = serve_node(folder.path()).await;
    let local = node.client();
    let mut stream = local.open_watch(LogIndex::default()).await.unwrap();
    let advertised = HostPort { host: "localhost".into(), port: 7 };
    let register = RegisterSession { request: 7, advertised, zone: None };
    let reply = local.propose(Command::RegisterSession(register)).await.unwrap().reply;
    let Reply::Registered(registered) = reply else { panic!("{reply:?}") };
    local.heartbeat(registered.session).await.unwrap();
    let remote = Agent::start(address, 8).await;
    let taking = async {
        loop {
            let event = stream.events.recv().await.expect("the stream goes on");
            if matches!(event, WatchEvent::Topic(_)) {
                system::seams().sleep(Duration::from_millis(200)).await;
                return stream.events.recv().await;
            }
        }
    };
    let ((_, waited), applied) = tokio::join!(remote.create(1), taking);
    assert!(matches!(applied, Some(WatchEvent::Applied(_))), "{applied:?}");
    assert!(Duration::from_millis(200) <= waited && waited < Duration::from_millis(900));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_of_another_life_of_the_cluster_is_refused_by_every_call() {
    let folder = tempfile::tempdir().unwrap();
    let (node, address) = serve_node(folder.path()).await;
    client(address, Some(LINEAGE)).read_index().await.unwrap();
    let before = Lineage { number: 0, ..LINEAGE };
    let same_number = Lineage { nonce: 8, ..LINEAGE };
    for other in [before, same_number] {
        let old = client(address, Some(other));
        let session = SessionId::new(1);
        let partition = TopicPartition {
            topic: TopicId::from_bytes([1; 16]),
            partition: PartitionIndex::new(0),
        };
        let query = Query::Runs { partition, offset: Offset::ZERO, limit: 1 };
        let outcomes = [
            old.propose(Command::Tick).await.map(drop),
            old.read_index().await.map(drop),
            old.query(query).await.map(drop),
            old.heartbeat(session).await.map(drop),
            old.open_commits(session).await.map(drop),
            old.open_watch(LogIndex::default()).await.map(drop),
        ];
        for refused in outcomes {
            let error = refused.unwrap_err();
            assert_eq!(error.outcome, Outcome::Rejected, "{error}");
            assert!(error.reason.contains(&LINEAGE.to_string()), "{error}");
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_learns_its_lineage_once_and_is_refused_by_the_next() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (node, address, stop) = serve_at(one.path(), "127.0.0.1:0", LINEAGE).await;
    let client = client(address, None);
    assert_eq!(client.lineage(), None);
    client.read_index().await.unwrap();
    assert_eq!(client.lineage(), Some(LINEAGE));
    stop.send(()).unwrap();
    node.shutdown().await;
    drop(node);
    let restored = Lineage { number: 2, nonce: 5 };
    let (node, _, _stop) = serve_at(two.path(), &address.to_string(), restored).await;
    let error = client.propose(Command::Tick).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Rejected, "{error}");
    node.shutdown().await;
}
