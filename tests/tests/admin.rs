//! What operators do, with two agents and one metadata node: what is done through one agent is so
//! at the other, and what is told by all of them is told once.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use aquifer_agent::wire::{Str, error_code::ErrorCode, messages::*};
use aquifer_storage::format::test_batch::TestBatch;
use aquifer_tests::{
    process::{Place, Process, free_address, metadata_node},
    raw::{Connection, Heard, create_topics, created_topics, fetch, fetched, produce, produced},
    typed::call,
};

/// A metadata node and two agents, each under an address of its own.
struct World {
    agents: [Option<Process>; 2],
    connections: [Connection; 2],
    _metadata: Process,
}

const FIRST: usize = 0;
const SECOND: usize = 1;

impl World {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut place = Place::new(folder.join("data"))?;
        place.store = Some(format!("file:{}", folder.join("bucket").display()));
        let address = free_address()?;
        let metadata = metadata_node(&place, address)?;
        let mut agent = || -> anyhow::Result<(Process, Connection)> {
            (place.kafka, place.http) = (free_address()?, free_address()?);
            let process = place.agent(address)?;
            Ok((process, Connection::open(place.kafka)?))
        };
        let ((first, to_first), (second, to_second)) = (agent()?, agent()?);
        Ok(Self {
            agents: [Some(first), Some(second)],
            connections: [to_first, to_second],
            _metadata: metadata,
        })
    }

    fn at(&mut self, agent: usize) -> &mut Connection {
        &mut self.connections[agent]
    }

    fn create(&mut self, topics: &[(&str, i32)]) -> anyhow::Result<()> {
        let answer = self.at(FIRST).call(&create_topics(topics))?;
        let refused = created_topics(&answer)?.into_iter().find(|(_, code)| *code != 0);
        ensure!(refused.is_none(), "{refused:?}");
        Ok(())
    }

    /// Produces one batch and returns its length in bytes.
    fn produce(&mut self, agent: usize, topic: &str, index: i32) -> anyhow::Result<i64> {
        self.produce_as(agent, topic, index, TestBatch::default())
    }

    fn produce_as(
        &mut self,
        agent: usize,
        topic: &str,
        index: i32,
        batch: TestBatch,
    ) -> anyhow::Result<i64> {
        let records = batch.bytes();
        let answer =
            self.at(agent).call(&produce(-1, 10_000, &[(topic, index, Some(&records))]))?;
        let row = produced(&answer)?.pop().context("a row")?;
        ensure!(row.code == 0, "{row:?}");
        Ok(records.len() as i64)
    }

    fn grow(&mut self, agent: usize, topic: &str, count: i32) -> anyhow::Result<(i16, String)> {
        let topics =
            vec![CreatePartitionsRequestTopics { name: topic.into(), count, assignments: None }];
        let request = CreatePartitionsRequest { topics, timeout_ms: 10_000, validate_only: false };
        let answer: CreatePartitionsResponse = call(self.at(agent), 3, &request)?;
        let row = answer.results.first().context("a row")?;
        let words = row.error_message.as_ref().map(Str::to_string).unwrap_or_default();
        Ok((row.error_code, words))
    }

    /// Sizes by topic and partition, as both agents tell them.
    fn sizes(&mut self) -> anyhow::Result<BTreeMap<(String, i32), Vec<i64>>> {
        let mut sizes = BTreeMap::<_, Vec<i64>>::new();
        for agent in [FIRST, SECOND] {
            let request = DescribeLogDirsRequest { topics: None };
            let answer: DescribeLogDirsResponse = call(self.at(agent), 5, &request)?;
            let [directory] = &answer.results[..] else { anyhow::bail!("{answer:?}") };
            ensure!(answer.error_code == 0 && directory.error_code == 0, "{answer:?}");
            for topic in &directory.topics {
                for row in &topic.partitions {
                    let key = (topic.name.to_string(), row.partition_index);
                    sizes.entry(key).or_default().push(row.partition_size);
                }
            }
        }
        Ok(sizes)
    }

    fn commit(&mut self, agent: usize, group: &str, topic: &str) -> anyhow::Result<()> {
        let partition = OffsetCommitRequestTopicsPartitions {
            committed_metadata: Some(Str::EMPTY),
            ..OffsetCommitRequestTopicsPartitions::default()
        };
        let topic = OffsetCommitRequestTopics {
            name: topic.into(),
            partitions: vec![partition],
            ..OffsetCommitRequestTopics::default()
        };
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let answer: OffsetCommitResponse = call(self.at(agent), 8, &request)?;
        ensure!(answer.topics[0].partitions[0].error_code == 0, "{answer:?}");
        Ok(())
    }

    /// Groups with their states, as both agents tell them.
    fn groups(&mut self) -> anyhow::Result<Vec<(String, String)>> {
        let mut groups = Vec::new();
        for agent in [FIRST, SECOND] {
            let answer: ListGroupsResponse =
                call(self.at(agent), 5, &ListGroupsRequest::default())?;
            ensure!(answer.error_code == 0, "{answer:?}");
            let row = |one: &ListGroupsResponseGroups| {
                (one.group_id.to_string(), one.group_state.to_string())
            };
            groups.extend(answer.groups.iter().map(row));
        }
        groups.sort();
        Ok(groups)
    }

    fn unregister(&mut self, id: i32) -> anyhow::Result<(i16, String)> {
        let request = UnregisterBrokerRequest { broker_id: id };
        let answer: UnregisterBrokerResponse = call(self.at(FIRST), 0, &request)?;
        let words = answer.error_message.map(|words| words.to_string()).unwrap_or_default();
        Ok((answer.error_code, words))
    }
}

#[test]
fn new_partitions_are_served_by_every_agent_once_they_were_answered() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::start(folder.path())?;
    world.create(&[("t", 1)])?;
    for count in 2..12 {
        let (asked, other) = if count % 2 == 0 { (FIRST, SECOND) } else { (SECOND, FIRST) };
        let last = count - 1;
        let too_early = world.at(other).call(&fetch("t", last, 0, 0))?;
        ensure!(fetched(&too_early)?.code == ErrorCode::UnknownTopicOrPartition.code());
        ensure!(world.grow(asked, "t", count)? == (0, String::new()));
        world.produce(other, "t", last)?;
        for agent in [asked, other] {
            let answer = fetched(&world.at(agent).call(&fetch("t", last, 0, 5_000))?)?;
            ensure!((answer.code, answer.batches.len()) == (0, 1), "{answer:?}");
        }
        let words = format!("Topic already has {count} partition(s).");
        ensure!(world.grow(other, "t", count)? == (ErrorCode::InvalidPartitions.code(), words));
    }
    Ok(())
}

#[test]
fn a_fetch_session_is_given_the_records_of_a_partition_that_came_later() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::start(folder.path())?;
    world.create(&[("t", 1)])?;
    let partition = |index| FetchRequestTopicsPartitions {
        partition: index,
        partition_max_bytes: 1 << 20,
        ..FetchRequestTopicsPartitions::default()
    };
    let topic = FetchRequestTopics {
        topic: "t".into(),
        partitions: vec![partition(0), partition(1)],
        ..FetchRequestTopics::default()
    };
    let open = FetchRequest {
        max_wait_ms: 0,
        session_epoch: 0,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    let opened: FetchResponse = call(world.at(FIRST), 11, &open)?;
    ensure!(opened.session_id != 0, "{opened:?}");
    world.grow(SECOND, "t", 2)?;
    world.produce(SECOND, "t", 1)?;
    let mut session_epoch = 1;
    loop {
        let next = FetchRequest {
            max_wait_ms: 1_000,
            min_bytes: 1,
            session_id: opened.session_id,
            session_epoch,
            ..FetchRequest::default()
        };
        let answer: FetchResponse = call(world.at(FIRST), 11, &next)?;
        ensure!(answer.error_code == 0 && session_epoch < 20, "{answer:?}");
        let rows = answer.responses.iter().flat_map(|topic| &topic.partitions);
        if rows.clone().any(|row| row.error_code == 0 && row.high_watermark == 1) {
            return Ok(());
        }
        session_epoch += 1;
    }
}

#[test]
fn sizes_are_what_was_produced_and_each_partition_is_told_by_one_agent() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::start(folder.path())?;
    world.create(&[("many", 20), ("few", 1)])?;
    let mut expected: BTreeMap<(String, i32), Vec<i64>> =
        (0..20).map(|index| (("many".to_owned(), index), vec![0])).collect();
    expected.insert(("few".to_owned(), 0), vec![0]);
    for (agent, topic, index) in [(FIRST, "many", 3), (SECOND, "many", 3), (SECOND, "few", 0)] {
        let bytes = world.produce(agent, topic, index)?;
        expected.get_mut(&(topic.to_owned(), index)).context("it is there")?[0] += bytes;
    }
    let told = world.sizes()?;
    ensure!(told == expected, "{told:?}");
    Ok(())
}

#[test]
fn producers_are_told_with_what_they_sent_last() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::start(folder.path())?;
    world.create(&[("t", 2)])?;
    for first in [0, 3] {
        let batch = TestBatch {
            records: 3,
            producer: (77, 2, first),
            timestamp_ms: 1_700_000_000_000,
            ..TestBatch::default()
        };
        world.produce_as(FIRST, "t", 0, batch)?;
    }
    let topics =
        vec![DescribeProducersRequestTopics { name: "t".into(), partition_indexes: vec![0, 1, 2] }];
    let request = DescribeProducersRequest { topics };
    let answer: DescribeProducersResponse = call(world.at(SECOND), 0, &request)?;
    let [first, second, third] = &answer.topics[0].partitions[..] else {
        anyhow::bail!("{answer:?}")
    };
    let [producer] = &first.active_producers[..] else { anyhow::bail!("{answer:?}") };
    ensure!((producer.producer_id, producer.producer_epoch, producer.last_sequence) == (77, 2, 5));
    ensure!(producer.last_timestamp == 1_700_000_000_000, "{producer:?}");
    ensure!(second.error_code == 0 && second.active_producers.is_empty(), "{second:?}");
    ensure!(third.error_code == ErrorCode::UnknownTopicOrPartition.code(), "{third:?}");
    Ok(())
}

#[test]
fn groups_are_listed_once_by_all_agents_and_gone_for_all_once_deleted() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::start(folder.path())?;
    world.create(&[("t", 1)])?;
    let names: Vec<String> = (0..20).map(|number| format!("group-{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        world.commit(number % 2, name, "t")?;
    }
    let empty = |name: &String| (name.clone(), "Empty".to_owned());
    ensure!(world.groups()? == names.iter().map(empty).collect::<Vec<_>>());
    let gone = names[7].as_str();
    let request = DeleteGroupsRequest { groups_names: vec![gone.into(), "nobody".into()] };
    let answer: DeleteGroupsResponse = call(world.at(FIRST), 2, &request)?;
    let codes: Vec<i16> = answer.results.iter().map(|row| row.error_code).collect();
    ensure!(codes == [0, ErrorCode::GroupIdNotFound.code()], "{answer:?}");
    let request = DescribeGroupsRequest {
        groups: vec![gone.into(), names[8].as_str().into()],
        include_authorized_operations: false,
    };
    let answer: DescribeGroupsResponse = call(world.at(SECOND), 6, &request)?;
    let states: Vec<&str> = answer.groups.iter().map(|group| &*group.group_state).collect();
    ensure!(states == ["Dead", "Empty"], "{answer:?}");
    ensure!(world.groups()?.len() == 19);
    let topics = vec![OffsetDeleteRequestTopics {
        name: "t".into(),
        partitions: vec![OffsetDeleteRequestTopicsPartitions { partition_index: 0 }],
    }];
    let request = OffsetDeleteRequest { group_id: names[8].as_str().into(), topics };
    let answer: OffsetDeleteResponse = call(world.at(SECOND), 0, &request)?;
    ensure!((answer.error_code, answer.topics[0].partitions[0].error_code) == (0, 0), "{answer:?}");
    let answer: OffsetDeleteResponse = call(world.at(FIRST), 0, &request)?;
    ensure!(answer.error_code == ErrorCode::GroupIdNotFound.code(), "{answer:?}");
    Ok(())
}

#[test]
fn only_a_dead_agents_id_is_forgotten() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::start(folder.path())?;
    let (code, words) = world.unregister(2)?;
    ensure!(code == ErrorCode::InvalidRequest.code() && words.contains("lives"), "{words}");
    let (code, words) = world.unregister(77)?;
    ensure!(code == ErrorCode::BrokerIdNotRegistered.code());
    ensure!(words == "Broker ID 77 is not currently registered");
    let second = world.agents[SECOND].take().context("it runs")?;
    ensure!(second.terminate()?, "it ends in order");
    ensure!(world.unregister(2)? == (0, String::new()));
    ensure!(world.unregister(2)?.0 == ErrorCode::BrokerIdNotRegistered.code());
    Ok(())
}

/// No request of these APIs ends a connection, whatever is in it.
#[test]
fn requests_about_nothing_are_answered() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut world = World::start(folder.path())?;
    let at = world.at(FIRST);
    let _: ElectLeadersResponse = call(at, 2, &ElectLeadersRequest::default())?;
    let _: UpdateFeaturesResponse = call(at, 2, &UpdateFeaturesRequest::default())?;
    let _: DescribeTopicPartitionsResponse =
        call(at, 0, &DescribeTopicPartitionsRequest::default())?;
    let _: AlterPartitionReassignmentsResponse =
        call(at, 1, &AlterPartitionReassignmentsRequest::default())?;
    let _: ListPartitionReassignmentsResponse =
        call(at, 0, &ListPartitionReassignmentsRequest::default())?;
    let _: CreatePartitionsResponse = call(at, 0, &CreatePartitionsRequest::default())?;
    at.patience(std::time::Duration::from_millis(100))?;
    ensure!(at.hear()? == Heard::Silence, "the connection is open");
    Ok(())
}
