//! Laws of several nodes in one group that only show from within: a follower that is late to
//! apply, and entries that no node of this build may apply.

use std::net::SocketAddr;

use futures::{StreamExt, stream::FuturesUnordered};

use super::*;
use crate::{
    codec,
    machine::{
        LEVEL,
        command::{Entry, Stamp},
    },
    node::read_index::{ReadIndex, Source},
    raft::EncodedEntry,
    service::serve,
};

/// Nothing here is waited for that long, unless it never comes.
const NEVER: Duration = Duration::from_secs(60);

/// Three voters, the leader first.
struct Group {
    nodes: Vec<MetadataNode>,
    _folders: Vec<tempfile::TempDir>,
}

impl Group {
    async fn of_three() -> Self {
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let address = |listener: &tokio::net::TcpListener| listener.local_addr().unwrap();
        let addresses: Vec<SocketAddr> = listeners.iter().map(address).collect();
        let founders: BTreeMap<u64, String> =
            (1..).zip(addresses.iter().map(SocketAddr::to_string)).collect();
        let (mut nodes, mut folders) = (Vec::new(), Vec::new());
        for (node_id, listener) in (1..).zip(listeners) {
            let folder = tempfile::tempdir().unwrap();
            // A machine that does much else is no reason to vote.
            let timings =
                Timings { heartbeat_ms: 100, election_ms_min: 1_000, election_ms_max: 2_000 };
            let tuning = Tuning { timings, ..Tuning::default() };
            let config = NodeConfig { node_id, tuning, ..config(folder.path()) };
            let node = MetadataNode::start_member(config, system::seams()).await.unwrap();
            let serving = serve(listener, node.clone(), std::future::pending());
            node.seams().spawn("serve", async move { serving.await.unwrap() });
            node.form(founders.clone());
            nodes.push(node);
            folders.push(folder);
        }
        let seams = system::seams();
        let leads = |node: &MetadataNode| node.leadership().term().is_ok();
        let leader = async {
            loop {
                match nodes.iter().position(leads) {
                    Some(leader) => return leader,
                    None => seams.sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let leader = seams.timeout(NEVER, leader).await.expect("a leader");
        nodes.swap(0, leader);
        Self { nodes, _folders: folders }
    }

    async fn shutdown(self) {
        for node in self.nodes {
            node.halt().await;
        }
    }
}

/// Asks in the background.
fn ask(asks: &ReadIndex, seams: &Seams) -> oneshot::Receiver<Result<LogIndex, CallError>> {
    let (told, answer) = oneshot::channel();
    let asks = asks.clone();
    seams.spawn("ask", async move {
        let _ = told.send(asks.fresh().await);
    });
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_late_to_apply_answers_no_read_before_it_has() {
    let group = Group::of_three().await;
    let (leader, follower) = (&group.nodes[0], &group.nodes[1].inner);
    // Its own word on how far it applied is replaced by ours.
    let (apply, applied) = watch::channel(LogIndex::default());
    let (asks, serving) = ReadIndex::new(Source {
        raft: follower.raft.clone(),
        leadership: follower.leadership.clone(),
        peers: follower.peers.clone(),
        applied,
        seams: follower.seams.clone(),
    });
    follower.seams.spawn("late", serving);
    let seams = &follower.seams;
    let written = leader.propose(registration(7)).await.unwrap().index;
    let before = LogIndex::new(written.value() - 1);
    for late in [LogIndex::default(), before] {
        apply.send_replace(late);
        // The leader's index is there long before; nothing but apply is missing.
        let mut answer = ask(&asks, seams);
        let early = seams.timeout(Duration::from_millis(500), &mut answer).await;
        let early = early.transpose().unwrap();
        assert!(!matches!(early, Some(Ok(_))), "{early:?} at {late}, and {written} is written");
    }
    apply.send_replace(LogIndex::new(written.value() + 1_000));
    let read = seams.timeout(NEVER, ask(&asks, seams)).await.expect("an answer").unwrap().unwrap();
    assert!(written <= read, "{read} is behind {written}");
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_node_stops_at_an_entry_above_its_level_and_none_skips_it() {
    let group = Group::of_three().await;
    let leader = &group.nodes[0];
    let before = leader.propose(registration(1)).await.unwrap().index;
    let stamp = Stamp { boot: 1, mono_ms: 1, wall_ms: 1 };
    let above = Entry { stamp, min_level: LEVEL + 1, commands: vec![registration(2)] };
    let bytes = codec::encode_entry(&above);
    let raft = leader.raft().clone();
    raft.client_write_ff(EncodedEntry(bytes), None).await.unwrap();
    // The third may never learn that it is committed, once those who knew have stopped.
    let mut fatal: FuturesUnordered<_> =
        group.nodes.iter().map(async |node| (node, node.fatal().await.reason)).collect();
    for _ in 0..2 {
        let stopped = leader.seams().timeout(NEVER, fatal.next()).await;
        let (node, reason) = stopped.flatten().expect("a majority stops");
        let told = format!("level {}", LEVEL + 1);
        assert!(reason.contains(&told), "what it needs is said: {reason}");
        let refused = node.propose(registration(3)).await.unwrap_err();
        assert_ne!(refused.outcome, Outcome::Rejected, "another node may take it: {refused}");
        assert!(node.read_index().await.is_err());
    }
    for node in &group.nodes {
        assert!(node.applied_index() <= before, "neither it nor what follows is applied");
    }
    drop(fatal);
    group.shutdown().await;
}
