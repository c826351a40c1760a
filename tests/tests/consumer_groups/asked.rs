//! What members and operators may ask of a consumer group, request by request: Kafka's codes and
//! words.

use std::{net::SocketAddr, time::Duration, time::Instant};

use anyhow::{Context as _, ensure};
use aquifer_agent::wire::{Str, error_code::ErrorCode, messages::*};
use aquifer_tests::{process::Place, raw::Connection, typed::call};

use super::{PARTITIONS, create, process};

/// How long a member may wait for its first assignment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member of a consumer group, request by request.
struct Asker {
    connection: Connection,
    topic: Str,
    group: Str,
    member: Str,
    epoch: i32,
}

type Beat = ConsumerGroupHeartbeatResponse;

impl Asker {
    fn new(bootstrap: SocketAddr) -> anyhow::Result<Self> {
        let topic = format!("asked-{}", std::process::id());
        create(bootstrap, &topic)?;
        let group = format!("{topic}-group").into();
        let connection = Connection::open(bootstrap)?;
        Ok(Self { connection, topic: topic.into(), group, member: Str::EMPTY, epoch: 0 })
    }

    /// The request of who joins; it names the topic.
    fn joining(&self) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.member.clone(),
            rebalance_timeout_ms: 60_000,
            subscribed_topic_names: Some(vec![self.topic.clone()]),
            topic_partitions: Some(Vec::new()),
            ..Self::going_on(&self.group, &self.member, 0)
        }
    }

    /// The shortest request: everything is as it was.
    fn going_on(group: &Str, member: &Str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest {
            group_id: group.clone(),
            member_id: member.clone(),
            member_epoch: epoch,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: -1,
            subscribed_topic_names: None,
            subscribed_topic_regex: None,
            server_assignor: None,
            topic_partitions: None,
        }
    }

    fn beat(&mut self, version: i16, beat: &ConsumerGroupHeartbeatRequest) -> anyhow::Result<Beat> {
        call(&mut self.connection, version, beat)
    }

    /// Joins by version 0, which draws the id, and goes on until it holds the whole topic.
    fn join(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut answer = self.beat(0, &self.joining())?;
        // A new cluster first has to set its coordinator up.
        while answer.error_code == ErrorCode::CoordinatorNotAvailable.code() {
            ensure!(begun.elapsed() < PATIENCE, "no coordinator");
            std::thread::sleep(Duration::from_millis(100));
            answer = self.beat(0, &self.joining())?;
        }
        self.member = answer.member_id.clone().context("a member id")?;
        let mut held = 0;
        loop {
            ensure!(answer.error_code == 0, "{answer:?}");
            self.epoch = answer.member_epoch;
            if let Some(assigned) = &answer.assignment {
                let topics = assigned.topic_partitions.iter();
                held = topics.map(|topic| topic.partitions.len()).sum();
            }
            if held == PARTITIONS {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{held} partitions are held");
            std::thread::sleep(Duration::from_millis(100));
            answer = self.beat(0, &Self::going_on(&self.group, &self.member, self.epoch))?;
        }
    }

    /// The code of a commit of partition 0.
    fn commit(&mut self, version: i16, member: &str, epoch: i32) -> anyhow::Result<ErrorCode> {
        let partition = OffsetCommitRequestTopicsPartitions {
            committed_offset: 0,
            committed_metadata: Some(Str::EMPTY),
            ..OffsetCommitRequestTopicsPartitions::default()
        };
        let topic = OffsetCommitRequestTopics {
            name: self.topic.clone(),
            partitions: vec![partition],
            ..OffsetCommitRequestTopics::default()
        };
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: epoch,
            member_id: member.into(),
            group_instance_id: None,
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let answer: OffsetCommitResponse = call(&mut self.connection, version, &request)?;
        code(answer.topics[0].partitions[0].error_code)
    }

    /// The code of a question for all offsets, and how many partitions were told.
    fn fetch(&mut self, member: Option<&str>, epoch: i32) -> anyhow::Result<(ErrorCode, usize)> {
        let group = OffsetFetchRequestGroups {
            group_id: self.group.clone(),
            member_id: member.map(Str::from),
            member_epoch: epoch,
            topics: None,
        };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        let answer: OffsetFetchResponse = call(&mut self.connection, 9, &request)?;
        let told = &answer.groups[0];
        let count = told.topics.iter().map(|topic| topic.partitions.len()).sum();
        Ok((code(told.error_code)?, count))
    }

    /// How the groups stand that are listed under these types and states, and are this test's.
    fn listed(&mut self, types: &[&str], states: &[&str]) -> anyhow::Result<Vec<[String; 3]>> {
        let request = ListGroupsRequest {
            types_filter: types.iter().map(|one| Str::from(*one)).collect(),
            states_filter: states.iter().map(|one| Str::from(*one)).collect(),
        };
        let answer: ListGroupsResponse = call(&mut self.connection, 5, &request)?;
        let ours = answer.groups.iter().filter(|one| one.group_id == self.group);
        let told = ours.map(|one| {
            [&one.protocol_type, &one.group_state, &one.group_type].map(|text| text.to_string())
        });
        Ok(told.collect())
    }

    fn described(&mut self, group: &Str) -> anyhow::Result<ConsumerGroupDescribeResponseGroups> {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![group.clone()],
            include_authorized_operations: true,
        };
        let mut answer: ConsumerGroupDescribeResponse = call(&mut self.connection, 1, &request)?;
        answer.groups.pop().context("a group")
    }

    fn delete(&mut self) -> anyhow::Result<ErrorCode> {
        let request = DeleteGroupsRequest { groups_names: vec![self.group.clone()] };
        let answer: DeleteGroupsResponse = call(&mut self.connection, 2, &request)?;
        code(answer.results[0].error_code)
    }
}

fn code(code: i16) -> anyhow::Result<ErrorCode> {
    ErrorCode::from_code(code).with_context(|| format!("code {code}"))
}

#[test]
fn members_and_operators_are_answered_in_kafkas_codes_and_words() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (bootstrap, _process) = process(&folder)?;
    let mut asker = Asker::new(bootstrap)?;
    intervals(&mut asker)?;
    asker.join()?;
    assert_eq!(asker.member.len(), 22, "an id as Kafka draws them: {}", asker.member);
    let (group, member, epoch) = (asker.group.clone(), asker.member.clone(), asker.epoch);
    heartbeats(&mut asker)?;
    offsets(&mut asker)?;
    descriptions(&mut asker)?;
    assert_eq!(asker.delete()?, ErrorCode::NonEmptyGroup);
    let left = asker.beat(1, &Asker::going_on(&group, &member, -1))?;
    assert_eq!((left.error_code, left.member_epoch, left.heartbeat_interval_ms), (0, -1, 0));
    let described = asker.described(&group)?;
    assert_eq!((described.group_state.as_str(), described.members.len()), ("Empty", 0));
    assert_eq!(asker.listed(&["CONSUMER"], &["empty"])?, [["consumer", "Empty", "consumer"]]);
    ensure!(epoch < described.group_epoch, "who leaves makes a new assignment necessary");
    assert_eq!(asker.delete()?, ErrorCode::None);
    assert_eq!(asker.described(&group)?.error_code, ErrorCode::GroupIdNotFound.code());
    Ok(())
}

/// What agents are given counts for groups and members that are there already.
#[test]
fn what_an_agent_is_started_with_counts_for_every_group_until_another_starts_without()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    let mut process = place.up()?;
    let mut asker = Asker::new(place.kafka)?;
    asker.join()?;
    let interval = |asker: &mut Asker| -> anyhow::Result<i32> {
        asker.connection = Connection::open(place.kafka)?;
        let (member, epoch) = (asker.member.clone(), asker.epoch);
        let answer = asker.beat(1, &Asker::going_on(&asker.group.clone(), &member, epoch))?;
        ensure!(answer.error_code == 0, "{answer:?}");
        Ok(answer.heartbeat_interval_ms)
    };
    assert_eq!(interval(&mut asker)?, 500);
    process.kill()?;
    let (timeout, millis) = (Duration::from_secs(4), "group.consumer.session.timeout.ms=4000");
    let given = ["-o", millis, "-o", "group.consumer.heartbeat.interval.ms=700"];
    place.arguments.extend(given.map(str::to_owned));
    process = place.up()?;
    let heard_after = Instant::now();
    assert_eq!(interval(&mut asker)?, 700);
    let members = |asker: &mut Asker| -> anyhow::Result<usize> {
        Ok(asker.described(&asker.group.clone())?.members.len())
    };
    while members(&mut asker)? != 0 {
        ensure!(heard_after.elapsed() < PATIENCE, "it is missed by nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
    let missed = heard_after.elapsed();
    ensure!(timeout <= missed, "expired already after {missed:?}");
    process.kill()?;
    place.arguments.truncate(place.arguments.len() - given.len());
    let _process = place.up()?;
    asker.connection = Connection::open(place.kafka)?;
    asker.join()?;
    assert_eq!(interval(&mut asker)?, 500);
    Ok(())
}

/// It gives its members the time it stood still, and not another session.
#[test]
fn a_silent_member_is_missed_after_one_session_although_the_leader_stood_still()
-> anyhow::Result<()> {
    let session = Duration::from_secs(6);
    let folder = tempfile::tempdir()?;
    let mut place = Place::new(folder.path().join("data"))?;
    let given = ["-o", "group.consumer.session.timeout.ms=6000"];
    place.arguments.extend(given.map(str::to_owned));
    let process = place.up()?;
    let mut asker = Asker::new(place.kafka)?;
    asker.join()?;
    let heard_before = Instant::now();
    std::thread::sleep(session / 2);
    process.signal("STOP")?;
    std::thread::sleep(session / 2);
    process.signal("CONT")?;
    let group = asker.group.clone();
    while !asker.described(&group)?.members.is_empty() {
        ensure!(heard_before.elapsed() < PATIENCE, "it is missed by nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
    let missed = heard_before.elapsed();
    ensure!(session < missed, "expired already after {missed:?}");
    // Another session would end after one and a half, behind the half of standing still.
    ensure!(missed < session * 2, "missed only after {missed:?}");
    Ok(())
}

/// Configs of the group act on its members.
fn intervals(asker: &mut Asker) -> anyhow::Result<()> {
    let config = IncrementalAlterConfigsRequestResourcesConfigs {
        name: "consumer.heartbeat.interval.ms".into(),
        config_operation: 0,
        value: Some("7000".into()),
    };
    let resource = IncrementalAlterConfigsRequestResources {
        resource_type: 32,
        resource_name: asker.group.clone(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer: IncrementalAlterConfigsResponse = call(&mut asker.connection, 1, &request)?;
    ensure!(answer.responses[0].error_code == 0, "{answer:?}");
    Ok(())
}

fn heartbeats(asker: &mut Asker) -> anyhow::Result<()> {
    let (group, member, epoch) = (asker.group.clone(), asker.member.clone(), asker.epoch);
    let as_before = asker.beat(1, &Asker::going_on(&group, &member, epoch))?;
    assert_eq!((as_before.error_code, as_before.member_epoch), (0, epoch));
    assert_eq!(as_before.assignment, None, "what is as before is not told again");
    assert_eq!(as_before.heartbeat_interval_ms, 7_000, "the group's own config");
    let mut told =
        |request: &ConsumerGroupHeartbeatRequest| -> anyhow::Result<(ErrorCode, String)> {
            let answer = asker.beat(1, request)?;
            assert_eq!((answer.member_id, answer.member_epoch), (None, 0));
            Ok((
                code(answer.error_code)?,
                answer.error_message.map_or_else(String::new, |m| m.to_string()),
            ))
        };
    let nobody = Asker::going_on(&group, &Str::EMPTY, 0);
    let words = "MemberId can't be empty.".to_owned();
    assert_eq!(told(&nobody)?, (ErrorCode::InvalidRequest, words));
    let stranger = Asker::going_on(&group, &"stranger".into(), 1);
    let words = format!("Member stranger is not a member of group {group}.");
    assert_eq!(told(&stranger)?, (ErrorCode::UnknownMemberId, words));
    let ahead = Asker::going_on(&group, &member, epoch + 5);
    let words = format!(
        "The consumer group member has a greater member epoch ({}) than the one known by the group \
         coordinator ({epoch}). The member must abandon all its partitions and rejoin.",
        epoch + 5
    );
    assert_eq!(told(&ahead)?, (ErrorCode::FencedMemberEpoch, words));
    let mut odd = Asker::going_on(&group, &member, epoch);
    odd.server_assignor = Some("sticky".into());
    let words = "ServerAssignor sticky is not supported. Supported assignors: uniform, range.";
    assert_eq!(told(&odd)?, (ErrorCode::UnsupportedAssignor, words.to_owned()));
    let absent = Asker::going_on(&"no-such-group".into(), &member, 1);
    let words = "Consumer group no-such-group not found.".to_owned();
    assert_eq!(told(&absent)?, (ErrorCode::GroupIdNotFound, words));
    Ok(())
}

fn offsets(asker: &mut Asker) -> anyhow::Result<()> {
    let (member, epoch) = (asker.member.to_string(), asker.epoch);
    assert_eq!(asker.commit(8, &member, epoch)?, ErrorCode::UnsupportedVersion);
    assert_eq!(asker.commit(8, "stranger", epoch)?, ErrorCode::UnknownMemberId);
    assert_eq!(asker.fetch(None, -1)?, (ErrorCode::None, 0), "none of these was taken");
    assert_eq!(asker.commit(9, &member, epoch)?, ErrorCode::None);
    assert_eq!(asker.commit(9, &member, epoch + 1)?, ErrorCode::StaleMemberEpoch);
    assert_eq!(asker.commit(9, "stranger", epoch)?, ErrorCode::UnknownMemberId);
    assert_eq!(asker.commit(9, "", -1)?, ErrorCode::UnknownMemberId, "while it has members");

    assert_eq!(asker.fetch(Some(&member), epoch)?, (ErrorCode::None, 1));
    assert_eq!(asker.fetch(None, -1)?, (ErrorCode::None, 1), "whoever does not say who it is");
    assert_eq!(asker.fetch(Some(&member), epoch + 1)?, (ErrorCode::StaleMemberEpoch, 0));
    assert_eq!(asker.fetch(Some("stranger"), epoch)?, (ErrorCode::UnknownMemberId, 0));
    let topic = OffsetDeleteRequestTopics {
        name: asker.topic.clone(),
        partitions: vec![OffsetDeleteRequestTopicsPartitions { partition_index: 0 }],
    };
    let request = OffsetDeleteRequest { group_id: asker.group.clone(), topics: vec![topic] };
    let answer: OffsetDeleteResponse = call(&mut asker.connection, 0, &request)?;
    let told = answer.topics[0].partitions[0].error_code;
    assert_eq!(code(told)?, ErrorCode::GroupSubscribedToTopic);
    Ok(())
}

fn descriptions(asker: &mut Asker) -> anyhow::Result<()> {
    let stable = [["consumer", "Stable", "consumer"].map(str::to_owned)];
    assert_eq!(asker.listed(&[], &[])?, stable);
    assert_eq!(asker.listed(&["Consumer"], &["STABLE"])?, stable);
    assert_eq!(asker.listed(&["classic"], &[])?, Vec::<[String; 3]>::new());
    assert_eq!(asker.listed(&["consumer"], &["Reconciling"])?, Vec::<[String; 3]>::new());

    let group = asker.group.clone();
    for (version, expected, words) in [
        (5, ErrorCode::None, None),
        (6, ErrorCode::GroupIdNotFound, Some(format!("Group {group} is not a classic group."))),
    ] {
        let request = DescribeGroupsRequest {
            groups: vec![group.clone()],
            include_authorized_operations: false,
        };
        let answer: DescribeGroupsResponse = call(&mut asker.connection, version, &request)?;
        let told = &answer.groups[0];
        assert_eq!((told.group_state.as_str(), code(told.error_code)?), ("Dead", expected));
        assert_eq!(told.error_message.as_ref().map(|words| words.to_string()), words);
    }

    let told = asker.described(&group)?;
    assert_eq!((told.group_state.as_str(), told.assignor_name.as_str()), ("Stable", "uniform"));
    assert_eq!((told.group_epoch, told.assignment_epoch), (asker.epoch, asker.epoch));
    assert_eq!(told.authorized_operations, 3400);
    let [member] = &told.members[..] else { anyhow::bail!("one member: {told:?}") };
    assert_eq!((&member.member_id, member.member_epoch), (&asker.member, asker.epoch));
    assert_eq!((member.client_host.as_str(), member.member_type), ("/127.0.0.1", 1));
    assert_eq!(member.subscribed_topic_names, std::slice::from_ref(&asker.topic));
    assert_eq!(member.subscribed_topic_regex, Some(Str::EMPTY), "none, as Kafka says it");
    let [held] = &member.assignment.topic_partitions[..] else { anyhow::bail!("one topic") };
    assert_eq!((&held.topic_name, held.partitions.len()), (&asker.topic, PARTITIONS));
    let [target] = &member.target_assignment.topic_partitions[..] else {
        anyhow::bail!("one topic")
    };
    assert_eq!((&target.topic_name, target.partitions.len()), (&asker.topic, PARTITIONS));

    let absent = asker.described(&"no-such-group".into())?;
    let words = Some(Str::from("Group no-such-group not found."));
    assert_eq!((absent.error_code, absent.error_message), (69, words));
    let nameless = asker.described(&Str::EMPTY)?;
    assert_eq!(
        (code(nameless.error_code)?, nameless.error_message),
        (ErrorCode::InvalidGroupId, None)
    );
    // A group that only has offsets is a classic one.
    let (consumer, simple) = (asker.group.clone(), Str::from(format!("{}-simple", asker.group)));
    asker.group = simple.clone();
    assert_eq!(asker.commit(9, "", -1)?, ErrorCode::None);
    let words = Some(format!("Group {simple} is not a consumer group.").into());
    let classic = asker.described(&simple)?;
    assert_eq!((classic.error_code, classic.error_message), (69, words));
    assert_eq!(asker.delete()?, ErrorCode::None);
    asker.group = consumer;
    Ok(())
}
