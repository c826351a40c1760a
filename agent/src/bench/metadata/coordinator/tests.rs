//! Groups that are filled are at rest, and what is measured of them was done.

use aquifer_metadata::machine::{
    group::{
        query::{GroupAnswer, GroupAsk, GroupQuery},
        types::GroupState,
    },
    query::Query,
};
use clap::Parser;

use super::{asked::Coordinator, member::Member, *};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: MetadataArgs,
}

fn args(line: &[&str]) -> MetadataArgs {
    Line::parse_from(["bench"].iter().chain(line)).args
}

/// A group of five on twelve partitions, and how it is described.
async fn filled(protocol: Protocol, ask: GroupAsk) -> (Coordinator, Vec<Member>, GroupAnswer) {
    let coordinator = Coordinator::default();
    let shape = GroupsShape { protocol, members: 5, partitions: 12 };
    populate::create_topic(&coordinator, shape.partitions).await.unwrap();
    let members = populate::fill(&coordinator, shape, 3).await.unwrap();
    let group = members[0].group().to_owned();
    let described = coordinator.ask(Query::Group(GroupQuery { group, ask })).await.unwrap();
    (coordinator, members, described)
}

#[test]
fn more_members_of_a_group_than_members_and_empty_commits_are_refused() {
    for line in [
        ["--members", "0"].as_slice(),
        &["--members", "5", "--members-per-group", "6"],
        &["--members-per-group", "0"],
        &["--offsets-per-commit", "0"],
    ] {
        assert!(args(line).coordinator.check().is_err(), "{line:?}");
    }
    assert!(args(&["--coordinator", "pure,rest"]).coordinator.check().is_ok());
}

#[tokio::test]
async fn a_group_of_consumers_is_filled_until_each_partition_is_held_and_nobody_moves() {
    let (coordinator, members, described) =
        filled(Protocol::Consumer, GroupAsk::ConsumerDescribe).await;
    let GroupAnswer::ConsumerDescribed(Some(group)) = described else { panic!("{described:?}") };
    assert_eq!(group.state, GroupState::Stable);
    let held = group.members.iter().flat_map(|member| &member.assignment);
    assert_eq!(held.map(|topic| topic.partitions.len()).sum::<usize>(), 12);
    for mut member in members {
        assert!(member.beat(&coordinator).await.unwrap(), "{member:?}");
    }
}

#[tokio::test]
async fn a_classic_group_is_filled_until_each_member_has_its_assignment() {
    let (coordinator, members, described) = filled(Protocol::Classic, GroupAsk::Describe).await;
    let GroupAnswer::Described(Some(group)) = described else { panic!("{described:?}") };
    assert_eq!(group.state, GroupState::Stable);
    // Version, one topic, its name, a count, 2 or 3 partitions, nothing else.
    let lengths: Vec<_> = group.members.iter().map(|member| member.assignment.len()).collect();
    let empty = 2 + 4 + 2 + populate::TOPIC_NAME.len() + 4 + 4;
    assert_eq!(lengths.iter().sum::<usize>(), 5 * empty + 12 * 4, "{lengths:?}");
    for mut member in members {
        assert!(member.beat(&coordinator).await.unwrap(), "{member:?}");
    }
}

#[tokio::test]
async fn the_pure_machine_is_measured_with_all_members_in_it() {
    for (protocol, has_steps) in [(Protocol::Classic, false), (Protocol::Consumer, true)] {
        let shape = GroupsShape { protocol, members: 4, partitions: 4 };
        let pure = serde_json::to_value(pure::measure(shape, 3, 0.01).await.unwrap()).unwrap();
        assert_eq!(pure["members"], 12);
        assert!(0.0 < pure["heartbeats_per_core_s"].as_f64().unwrap(), "{pure}");
        assert!(20.0 < pure["snapshot_bytes_per_member"].as_f64().unwrap(), "{pure}");
        assert_eq!(pure["rebalance"].is_object(), has_steps, "{pure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_nodes_are_answered_and_the_folder_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for line in
        [["--protocol", "classic", "--voters", "1"], ["--protocol", "consumer", "--voters", "3"]]
    {
        let common = ["--data", data, "--agents", "2", "--seconds", "0.3", "--members", "12"];
        let own = ["--members-per-group", "3", "--committers", "3", "--offsets-per-commit", "1,2"];
        let args = args(&[common.as_slice(), &own, &line].concat());
        let (loads, rest) = with_members(&args, true, true).await.unwrap();
        let loads = serde_json::to_value(&loads).unwrap();
        assert!(0 < loads["00003"]["latency"]["count"].as_u64().unwrap(), "{loads}");
        let rest = serde_json::to_value(rest.unwrap()).unwrap();
        assert_eq!(rest["members"], 12);
        let offsets = serde_json::to_value(commits(&args).await.unwrap()).unwrap();
        let [one, two] = ["00001", "00002"].map(|count| &offsets["00003"][count]);
        let bytes = |load: &serde_json::Value| load["entry_bytes_per_commit"].as_f64().unwrap();
        assert!(bytes(one) + 2.0 < bytes(two), "{offsets}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_run_in_threads_that_are_told_apart_by_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let args = args(&["--data", folder.path().to_str().unwrap(), "--agents", "1"]);
    let (group, agents) = start(&args).await.unwrap();
    let name = async { Ok(std::fs::read_to_string("/proc/thread-self/comm")?) };
    assert_eq!(agents.run([name]).await.unwrap(), [format!("{}\n", agents::THREAD_NAME)]);
    drop(agents);
    group.stop().await.unwrap();
}
