//! Commits over leaders that die: nothing is lost, doubled or reordered, and the pause is short.
#![cfg(feature = "server")]
#![allow(clippy::disallowed_methods, reason = "a test may unwrap and spawn")]
#![allow(dead_code, reason = "not every test uses all of what they share")]

#[path = "voters/cluster.rs"]
mod cluster;
#[path = "voters/committer.rs"]
mod committer;
#[path = "voters/small_disk.rs"]
mod small_disk;
#[path = "voters/world.rs"]
mod world;

use std::time::Duration;

use aquifer_metadata::{client::Metadata, node::Tuning, watch::WatchEvent};
use aquifer_storage::{model::LogIndex, seam::system};
use tokio::sync::watch;

use self::{
    cluster::{Cluster, register, until},
    committer::{Committer, create_topic, partition},
};

/// Kills the leader `kills` times under one committer and returns the longest pause of each, as
/// milliseconds, in ascending order.
async fn pauses(tuning: Tuning, kills: usize) -> Vec<u128> {
    let seams = system::seams();
    let mut cluster = Cluster::of_three(tuning).await;
    let client = cluster.client();
    create_topic(&client).await;
    let committer = Committer::new(client, 1, seams.clone()).await;
    let (stop, stopped) = watch::channel(false);
    let committing = tokio::spawn(committer.run(stopped));
    let mut windows = Vec::new();
    for _ in 0..kills {
        seams.sleep(Duration::from_millis(700)).await;
        let leader = cluster.leader().await;
        let from = seams.clock.mono();
        cluster.kill(leader).await;
        cluster.leader().await;
        seams.sleep(Duration::from_millis(800)).await;
        windows.push((from, seams.clock.mono()));
        cluster.start(leader).await.unwrap();
    }
    stop.send(true).unwrap();
    let committer = committing.await.unwrap();
    committer.check();
    cluster.agree().await;
    let mut pauses: Vec<u128> =
        windows.into_iter().map(|(from, to)| committer.longest_gap(from, to).as_millis()).collect();
    pauses.sort_unstable();
    println!(
        "{} parts on {} streams; pauses in ms: {pauses:?}",
        committer.acked.len(),
        committer.streams
    );
    pauses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_go_on_in_order_and_without_a_hole_over_leaders_that_die() {
    pauses(Cluster::calm(), 3).await;
}

/// The number of the README: `VOTER_KILLS=20 cargo test -p aquifer-metadata --features server
/// --test voters_failover pause -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pause_of_a_leader_that_dies_is_short() {
    let kills = std::env::var("VOTER_KILLS").ok().and_then(|kills| kills.parse().ok());
    let pauses = pauses(Tuning::default(), kills.unwrap_or(2)).await;
    let median = pauses[pauses.len() / 2];
    println!("median {median} ms, longest {} ms", pauses[pauses.len() - 1]);
    assert!(median < 3_000, "{pauses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_serves_watch_streams_whose_index_never_goes_back() {
    let mut cluster = Cluster::of_three(Cluster::calm()).await;
    let client = cluster.client();
    create_topic(&client).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let reader = cluster.client_of([follower]);
    let mut seen = LogIndex::default();
    for number in 1..4u16 {
        register(&client, number).await.unwrap();
        let index = client.read_index().await.unwrap();
        let mut watch = reader.open_watch(seen).await.unwrap();
        let mut told = LogIndex::default();
        while told < index {
            let event = watch.events.recv().await.expect("the stream goes on");
            if let WatchEvent::Applied(applied) = event {
                assert!(seen <= applied && told <= applied, "{applied} behind {seen} or {told}");
                told = applied;
            }
        }
        seen = told;
    }
    // A node that is behind what the agent saw does not serve it.
    let ahead = LogIndex::new(seen.value() + 1_000);
    let seams = system::seams();
    let early = seams.timeout(Duration::from_millis(500), reader.open_watch(ahead)).await;
    assert!(early.is_none(), "it waits to catch up");
    cluster.kill(leader).await;
    let next = cluster.leader().await;
    let watch = reader.open_watch(seen).await;
    assert!(watch.is_ok(), "node {next} leads now: {:?}", watch.err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_answers_reads_at_an_index_the_leader_gave() {
    let cluster = Cluster::of_three(Cluster::calm()).await;
    let client = cluster.client();
    create_topic(&client).await;
    let leader = cluster.leader().await;
    for id in (1..=3).filter(|id| *id != leader) {
        let written = client.read_index().await.unwrap();
        let node = cluster.node(id);
        let read = node.read_index().await.unwrap();
        assert!(written <= read, "node {id} read at {read}, behind {written}");
        assert!(read <= node.applied_index());
        let query = aquifer_metadata::machine::query::Query::Runs {
            partition: partition(),
            offset: aquifer_storage::model::Offset::new(0).expect("zero is an offset"),
            limit: 10,
        };
        node.query(query).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_catalog_waits_for_agents_whose_stream_is_a_followers() {
    let cluster = Cluster::of_three(Cluster::calm()).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    // Finds the follower first, which serves its watch stream, and then follows it to the leader.
    let agent = cluster.client_of([follower]);
    let mut watch = agent.open_watch(LogIndex::default()).await.unwrap();
    let session = register(&agent, 1).await.unwrap();
    let reading = tokio::spawn(async move { while watch.events.recv().await.is_some() {} });
    agent.heartbeat(session).await.unwrap();
    let beating = tokio::spawn({
        let agent = agent.clone();
        async move {
            loop {
                agent.heartbeat(session).await.unwrap();
                system::seams().sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let node = cluster.node(leader).clone();
    until("the agent's session to be present", || {
        (node.applied_index() <= cluster.node(follower).applied_index()).then_some(())
    })
    .await;
    let seams = system::seams();
    let began = seams.clock.mono();
    create_topic(&cluster.client()).await;
    let took = seams.clock.mono().since(began);
    assert!(took < Duration::from_millis(800), "the agent was waited for in vain: {took:?}");
    beating.abort();
    reading.abort();
}
