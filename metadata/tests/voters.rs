//! A metadata group of three voters: what it acknowledged survives the loss of any one of them, a
//! minority acknowledges nothing, and whoever should not be heard is refused.
#![cfg(feature = "server")]
#![allow(clippy::disallowed_methods, reason = "a test may unwrap and spawn")]
#![allow(dead_code, reason = "not every test uses all of what they share")]

#[path = "voters/cluster.rs"]
mod cluster;
#[path = "voters/small_disk.rs"]
mod small_disk;
#[path = "voters/world.rs"]
mod world;

use std::{collections::BTreeMap, time::Duration};

use aquifer_metadata::{
    client::{Heartbeat, Metadata},
    machine::command::{Command, CreateTopic},
    node::Tuning,
    proto::{self, compare_reply::Reply as CompareKind, raft_client::RaftClient},
};
use aquifer_storage::{
    error::Outcome,
    model::{SessionId, TopicId},
    seam::system,
};

use self::cluster::{Cluster, lineage, register, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_leader_and_a_node_that_returns_catches_up() {
    let mut cluster = Cluster::of_three(Cluster::calm()).await;
    let client = cluster.client();
    let first = register(&client, 1).await.unwrap();
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    let second = until_registered(&client, 2).await;
    assert_ne!(first, second);
    assert_eq!(until_registered(&client, 1).await, first, "a retry gets the first answer");
    cluster.start(leader).await.unwrap();
    cluster.agree().await;
    let live = cluster.node(leader).heartbeat(first);
    assert!(live.is_err(), "the node that returned does not lead: {live:?}");
}

/// Registers as agents do: an outcome that is not known is asked for again.
async fn until_registered(client: &impl Metadata, number: u16) -> SessionId {
    for _ in 0..100 {
        match register(client, number).await {
            Ok(session) => return session,
            Err(error) => assert_ne!(error.outcome, Outcome::Rejected, "{error}"),
        }
        system::seams().sleep(Duration::from_millis(20)).await;
    }
    panic!("no majority answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_alone_acknowledges_nothing_and_answers_nothing() {
    let mut cluster = Cluster::of_three(Cluster::calm()).await;
    let client = cluster.client();
    let session = register(&client, 1).await.unwrap();
    let leader = cluster.leader().await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id).await;
    }
    let node = cluster.node(leader).clone();
    until("the leader to notice", || node.leadership().term().err()).await;
    assert_eq!(node.heartbeat(session).unwrap_err().outcome, Outcome::Unavailable);
    assert_eq!(node.read_index().await.unwrap_err().outcome, Outcome::Unavailable);
    assert!(node.client().open_commits(session).await.is_err());
    let refused = register(&node.client(), 2).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Unavailable, "certainly no effect: {refused}");
    let back = (1..=3).find(|id| *id != leader).unwrap();
    cluster.start(back).await.unwrap();
    until_registered(&client, 3).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_no_heartbeat_and_no_read_and_what_it_took_is_not_lost() {
    let cluster = Cluster::of_three(Cluster::calm()).await;
    let session = register(&cluster.client(), 1).await.unwrap();
    let old = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let stale = cluster.client_of([old]);
    stale.read_index().await.unwrap();
    for other in &others {
        cluster.world.cut(old, *other);
    }
    let new = cluster.leader_of(&others).await;
    assert!(cluster.node(old).leadership().term().is_err(), "two never lead at once");
    // What the new leader acknowledges, the old one must not contradict.
    let second = register(&cluster.client_of(others.clone()), 2).await.unwrap();
    let call = stale.heartbeat(session);
    let call = system::seams().timeout(Duration::from_secs(1), call).await;
    assert!(!matches!(call, Some(Ok(_))), "a cut-off leader answered a heartbeat: {call:?}");
    assert!(cluster.node(old).read_index().await.is_err());
    assert!(cluster.node(old).client().open_commits(second).await.is_err());
    cluster.world.heal();
    cluster.agree().await;
    assert_eq!(cluster.leader().await, new, "a node that returns does not disturb");
    let live = cluster.client().heartbeat(second).await.unwrap();
    assert!(matches!(live, Heartbeat::Live { .. }), "{live:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_refused_under_its_old_id() {
    let mut cluster = Cluster::of_three(Cluster::calm()).await;
    let client = cluster.client();
    register(&client, 1).await.unwrap();
    let leader = cluster.leader().await;
    let wiped = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(wiped).await;
    cluster.wipe(wiped);
    cluster.start(wiped).await.unwrap();
    let fatal = cluster.node(wiped).fatal();
    let fatal = system::seams().timeout(Duration::from_secs(10), fatal).await.unwrap();
    let told = format!("node {wiped} of this cluster was started on another --data folder");
    assert!(fatal.reason.contains(&told), "{}", fatal.reason);
    assert_eq!(cluster.node(wiped).applied_index().value(), 0, "it took no part");
    until_registered(&client, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_what_to_do() {
    let mut cluster = Cluster::new(3, Cluster::calm()).await;
    cluster.start(1).await.unwrap();
    cluster.start(2).await.unwrap();
    for (id, life, advice) in [("other", 0, "of cluster other"), ("test", 1, "was restored")] {
        cluster.wipe(3);
        let config = cluster.config(3, id, lineage(life));
        cluster.start_as(config, cluster.founders()).await.unwrap();
        let refusal = until("the refusal", || {
            let said = cluster.node(3).refusals();
            said.into_values().find(|reason| reason.contains(advice))
        });
        refusal.await;
        assert!(cluster.node(1).leadership().term().is_err(), "no group of strangers");
        cluster.kill(3).await;
    }
    cluster.wipe(3);
    cluster.start(3).await.unwrap();
    cluster.leader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_what_the_others_purged_gets_a_snapshot() {
    let tuning = Tuning { snapshot_entries: 20, entries_kept: 0, ..Cluster::calm() };
    let mut cluster = Cluster::of_three(tuning).await;
    let client = cluster.client();
    register(&client, 1).await.unwrap();
    let leader = cluster.leader().await;
    let late = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(late).await;
    for number in 2..120 {
        until_registered(&client, number).await;
    }
    let node = cluster.node(leader).clone();
    let purged = || node.status(false).purged_index.filter(|purged| 60 < *purged);
    until("the leader to purge", purged).await;
    cluster.start(late).await.unwrap();
    cluster.agree().await;
    cluster.kill(late).await;
    cluster.start(late).await.unwrap();
    cluster.agree().await;
    until_registered(&client, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_leadership_over_fails_no_call_of_the_client() {
    let mut cluster = Cluster::of_three(Cluster::calm()).await;
    let client = cluster.client();
    let session = register(&client, 1).await.unwrap();
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let calling = tokio::spawn(async move {
        let mut calls = 0u16;
        while !*stopped.borrow_and_update() {
            calls += 1;
            register(&client, 1_000 + calls).await.expect("a proposal");
            client.heartbeat(session).await.expect("a heartbeat");
            client.read_index().await.expect("a read");
        }
        calls
    });
    for _ in 0..3 {
        let before = cluster.leader().await;
        let to = cluster.node(before).transfer_leader(None).await.unwrap();
        assert_ne!(to, before);
        until("the new leader", || cluster.node(to).leadership().term().ok()).await;
        system::seams().sleep(Duration::from_millis(100)).await;
    }
    let before = cluster.leader().await;
    cluster.stop(before).await;
    cluster.start(before).await.unwrap();
    cluster.leader().await;
    stop.send(true).unwrap();
    assert!(10 < calling.await.unwrap());
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voter_becomes_three_and_its_first_node_is_removed_while_commits_go_on() {
    let mut cluster = Cluster::new(1, Cluster::calm()).await;
    cluster.start(1).await.unwrap();
    cluster.leader().await;
    let first = register(&cluster.client(), 1).await.unwrap();
    let mut joined = Vec::new();
    for _ in 0..2 {
        let id = cluster.join().await;
        assert!(99 < id && !joined.contains(&id), "ids are given once: {id} after {joined:?}");
        let operator = cluster.operator();
        for _ in 0..200 {
            match operator.add_voter(id).await {
                Ok(_) => break,
                Err(error) => assert!(error.to_string().contains("behind"), "{error}"),
            }
            system::seams().sleep(Duration::from_millis(50)).await;
        }
        joined.push(id);
    }
    let status = cluster.operator().leader_status(false).await.unwrap();
    assert_eq!(status.members.iter().filter(|member| member.voter).count(), 3, "{status:?}");
    assert!(status.members.iter().all(|member| member.matched_index.is_some()), "{status:?}");
    let operator = cluster.operator();
    operator.transfer_leader(Some(joined[0])).await.unwrap();
    operator.remove_voter(1).await.unwrap();
    let refused = operator.remove_voter(1).await.unwrap_err();
    assert!(refused.to_string().contains("not in the group"), "{refused}");
    cluster.kill(1).await;
    let client = cluster.client();
    assert_eq!(until_registered(&client, 1).await, first);
    until_registered(&client, 2).await;
    cluster.agree().await;
    let later = cluster.join().await;
    assert!(joined.iter().all(|id| *id < later), "{later} after {joined:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_compare_their_states_and_one_that_differs_stops() {
    let tuning = Tuning { hash_entries: 16, ..Cluster::calm() };
    let cluster = Cluster::of_three(tuning).await;
    let client = cluster.client();
    for number in 1..40 {
        until_registered(&client, number).await;
    }
    let leader = cluster.leader().await;
    let (index, hash) = until("a hash", || cluster.node(leader).checkpoint()).await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    until("the same hash there", || {
        (cluster.node(follower).checkpoint() == Some((index, hash))).then_some(())
    })
    .await;
    // The leader compared, and nobody had to stop.
    system::seams().sleep(Duration::from_secs(6)).await;
    let told = |hash: u64, differs: bool| {
        let address = format!("http://{}", cluster.addresses[&follower]);
        let peer = proto::Peer {
            version: 1,
            cluster_id: "test".into(),
            lineage: Some(proto::Lineage { number: 0, nonce: 9 }),
            from: leader,
            from_incarnation: cluster.node(leader).incarnation(),
            to: follower,
            to_incarnation: 0,
        };
        let request =
            proto::CompareRequest { peer: Some(peer), index: index.value(), hash, differs };
        async move {
            let mut grpc = RaftClient::connect(address).await.unwrap();
            grpc.compare(request).await.unwrap().into_inner().reply
        }
    };
    assert_eq!(told(hash, true).await, Some(CompareKind::Hash(hash)));
    assert_eq!(told(hash + 1, false).await, Some(CompareKind::Hash(hash)));
    let fatal = cluster.node(follower).fatal();
    let early = system::seams().timeout(Duration::from_millis(100), fatal).await;
    assert!(early.is_none(), "it was not told that it differs: {early:?}");
    told(hash + 1, true).await;
    let fatal = cluster.node(follower).fatal();
    let fatal = system::seams().timeout(Duration::from_secs(1), fatal).await.unwrap();
    assert!(fatal.reason.contains("differs from the group's"), "{}", fatal.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_lets_another_lead() {
    let cluster = Cluster::of_three(Cluster::calm()).await;
    let client = cluster.client();
    let before = cluster.leader().await;
    cluster.room.fill(before);
    let config =
        |number: u16| BTreeMap::from([("k".to_owned(), number.to_string().repeat(50_000))]);
    let create = |number: u16| {
        Command::CreateTopic(CreateTopic {
            topic: TopicId::from_bytes([number as u8 + 1; 16]),
            name: format!("topic-{number}"),
            partitions: 1,
            replication_factor: 1,
            configs: config(number),
        })
    };
    for number in 0..200 {
        for _ in 0..100 {
            match client.propose(create(number)).await {
                Ok(_) => break,
                Err(error) => assert_ne!(error.outcome, Outcome::Rejected, "{error}"),
            }
            system::seams().sleep(Duration::from_millis(50)).await;
        }
        if cluster.node(before).leadership().term().is_err() {
            assert_ne!(cluster.leader().await, before);
            until_registered(&client, 1).await;
            return;
        }
    }
    panic!("node {before} leads on");
}
