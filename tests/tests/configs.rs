//! Configs over real sockets: what one agent altered, every agent shows and acts on at once; nothing
//! is lost when two alter together, or when metadata is killed.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

use std::{collections::BTreeSet, net::SocketAddr, thread};

use anyhow::{Context, ensure};
use aquifer_storage::format::test_batch::TestBatch;
use aquifer_tests::{
    process::{Place, Process, free_address, metadata_node},
    raw::{
        Bytes, Connection, Fields, Request, create_topics, created_topics, key, produce, produced,
    },
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_CONFIG: i16 = 40;

/// One metadata node and two agents with an address, and so a node id, each.
struct World {
    agents: [SocketAddr; 2],
    metadata: Process,
    place: Place,
    address: SocketAddr,
    _agents: [Process; 2],
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut place = Place::new(folder.path().join("data"))?;
        place.store = Some(format!("file:{}", folder.path().join("bucket").display()));
        let address = free_address()?;
        let metadata = metadata_node(&place, address)?;
        let agent = || -> anyhow::Result<(SocketAddr, Process)> {
            let mut agent = place.clone();
            (agent.kafka, agent.http) = (free_address()?, free_address()?);
            Ok((agent.kafka, agent.agent(address)?))
        };
        // In this order, so that their node ids are 1 and 2.
        let (first, second) = (agent()?, agent()?);
        let agents = [first.0, second.0];
        let world = Self {
            agents,
            metadata,
            place,
            address,
            _agents: [first.1, second.1],
            _folder: folder,
        };
        let answer = Connection::open(agents[0])?.call(&create_topics(&[("t", 1)]))?;
        ensure!(created_topics(&answer)? == [("t".to_owned(), 0)], "the topic was not created");
        Ok(world)
    }
}

/// One operation on one config; the error code.
fn alter(
    agent: SocketAddr,
    (resource_type, name): (i8, &str),
    (config, operation, value): (&str, i8, &str),
) -> anyhow::Result<i16> {
    let body = Bytes::new().i32(1).i8(resource_type).string(name).i32(1);
    let body = body.string(config).i8(operation).string(value).i8(0);
    let request = Request::new(key::INCREMENTAL_ALTER_CONFIGS, 0, body);
    let answer = Connection::open(agent)?.call(&request)?;
    let mut fields = Fields::new(&answer);
    let (_throttle, _count) = (fields.i32()?, fields.count()?);
    fields.i16()
}

/// The value of one config.
fn describe(
    agent: SocketAddr,
    (resource_type, name): (i8, &str),
    config: &str,
) -> anyhow::Result<String> {
    let body = Bytes::new().i32(1).i8(resource_type).string(name).i32(1).string(config).i8(0);
    let answer = Connection::open(agent)?.call(&Request::new(key::DESCRIBE_CONFIGS, 1, body))?;
    let mut fields = Fields::new(&answer);
    let (_throttle, _count, code) = (fields.i32()?, fields.count()?, fields.i16()?);
    ensure!(code == 0, "described with error {code}");
    let _message = fields.string()?;
    fields.take(1)?;
    let _name = fields.string()?;
    ensure!(fields.count()? == 1, "no such config: {config}");
    let _config = fields.string()?;
    fields.string()
}

/// The error code of a batch of some ninety bytes.
fn append(agent: SocketAddr) -> anyhow::Result<i16> {
    let batch = TestBatch { value: vec![b'x'; 30], ..TestBatch::default() }.bytes().to_vec();
    let answer = Connection::open(agent)?.call(&produce(-1, 10_000, &[("t", 0, Some(&batch))]))?;
    Ok(produced(&answer)?.first().context("an answer")?.code)
}

#[test]
fn what_one_agent_altered_the_other_shows_and_acts_on_at_once() -> anyhow::Result<()> {
    let world = World::start()?;
    let [first, second] = world.agents;
    let (topic, all, other) = ((TOPIC, "t"), (BROKER, ""), (BROKER, "2"));
    for round in 0..20 {
        let value = format!("{}", 1_000 + round);
        let (by, at) = if round % 2 == 0 { (first, second) } else { (second, first) };
        ensure!(alter(by, topic, ("retention.ms", SET, &value))? == 0);
        ensure!(describe(at, topic, "retention.ms")? == value, "round {round}");
    }
    let large = |config| (config, SET, "50");
    let gone = |config| (config, DELETE, "");
    ensure!(append(second)? == 0);
    ensure!(alter(first, topic, large("max.message.bytes"))? == 0);
    ensure!(append(second)? == MESSAGE_TOO_LARGE, "altered on the topic");
    ensure!(alter(first, topic, gone("max.message.bytes"))? == 0);
    ensure!(append(second)? == 0, "deleted on the topic");

    ensure!(alter(first, all, large("message.max.bytes"))? == 0);
    ensure!(describe(second, topic, "max.message.bytes")? == "50");
    ensure!(append(second)? == MESSAGE_TOO_LARGE, "altered for all brokers");
    ensure!(alter(second, all, gone("message.max.bytes"))? == 0);
    ensure!(append(first)? == 0, "deleted for all brokers");

    ensure!(alter(first, other, large("message.max.bytes"))? == 0);
    ensure!(append(first)? == 0, "altered for the other one");
    ensure!(append(second)? == MESSAGE_TOO_LARGE, "altered for one broker");
    Ok(())
}

#[test]
fn defaults_of_groups_that_an_agent_is_started_with_count_at_every_agent() -> anyhow::Result<()> {
    const TIMEOUT: &str = "consumer.session.timeout.ms";
    let world = World::start()?;
    let [first, second] = world.agents;
    let start = |given: &[&str]| -> anyhow::Result<Process> {
        let mut agent = world.place.clone();
        (agent.kafka, agent.http) = (free_address()?, free_address()?);
        agent.arguments.extend(given.iter().map(|one| (*one).to_owned()));
        agent.agent(world.address)
    };
    let shown = |agent| describe(agent, (GROUP, "g"), TIMEOUT);
    ensure!(shown(first)? == "45000");
    let least = "group.consumer.min.session.timeout.ms=7000";
    let _third = start(&["-o", "group.consumer.session.timeout.ms=8000", "-o", least])?;
    ensure!((shown(first)?, shown(second)?) == ("8000".into(), "8000".into()));
    ensure!(describe(first, (BROKER, "2"), "group.consumer.session.timeout.ms")? == "8000");
    ensure!(alter(second, (GROUP, "g"), (TIMEOUT, SET, "7000"))? == 0, "at least what is told");
    ensure!(alter(second, (GROUP, "g"), (TIMEOUT, SET, "6999"))? == INVALID_CONFIG);
    ensure!(shown(first)? == "7000", "a group's own goes before");
    let _fourth = start(&[])?;
    ensure!(describe(second, (GROUP, "h"), TIMEOUT)? == "45000", "the last start counts");
    Ok(())
}

#[test]
fn nothing_is_lost_when_two_agents_alter_one_topic_or_when_metadata_is_killed() -> anyhow::Result<()>
{
    const EACH: usize = 20;
    const LIST: &str = "follower.replication.throttled.replicas";
    let mut world = World::start()?;
    let writers = world.agents.map(|agent| {
        thread::spawn(move || -> anyhow::Result<()> {
            for index in 0..EACH {
                let item = format!("{index}:{}", agent.port());
                let code = alter(agent, (TOPIC, "t"), (LIST, APPEND, &item))?;
                ensure!(code == 0, "{item}: {code}");
            }
            Ok(())
        })
    });
    for writer in writers {
        writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
    }
    ensure!(alter(world.agents[0], (BROKER, ""), ("log.retention.ms", SET, "7"))? == 0);
    let expected: BTreeSet<String> = world
        .agents
        .iter()
        .flat_map(|agent| (0..EACH).map(|index| format!("{index}:{}", agent.port())))
        .collect();
    for round in 0..2 {
        for agent in world.agents {
            let list = describe(agent, (TOPIC, "t"), LIST)?;
            let items: BTreeSet<String> = list.split(',').map(str::to_owned).collect();
            ensure!(items == expected, "round {round}: {list}");
            ensure!(describe(agent, (TOPIC, "t"), "retention.ms")? == "7", "round {round}");
        }
        world.metadata.kill()?;
        world.metadata = metadata_node(&world.place, world.address)?;
    }
    Ok(())
}
