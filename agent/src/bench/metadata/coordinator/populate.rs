//! Fills groups with members until nobody has anything to do.

use anyhow::{bail, ensure};
use aquifer_metadata::machine::{
    command::{Command, CreateTopic, GroupAction, GroupReply, Reply},
    group::{
        GroupSettings,
        command::{Join, Progress, RequestId, Sync},
        query::{GroupAnswer, GroupAsk, GroupQuery},
        types::{JoinResult, MemberId},
    },
    query::Query,
};
use aquifer_storage::model::{SessionId, TopicId};
use bytes::{BufMut as _, Bytes};
use clap::ValueEnum;
use serde::Serialize;

use super::{asked::Coordinator, member::Member};

/// What everybody reads.
pub const TOPIC_NAME: &str = "bench-groups";

/// Looks at a group until it must have come to rest.
const LOOKS_MAX: usize = 1000;
/// How long an empty group of the classic protocol is held open for its next member.
const HELD_OPEN_MS: u32 = 50;
/// The version of what classic members tell their assignor, and of what it tells them.
const SUBSCRIPTION_VERSION: i16 = 3;

/// Which protocol members speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// JoinGroup, SyncGroup, Heartbeat.
    Classic,
    /// ConsumerGroupHeartbeat.
    Consumer,
}

/// Groups that are alike.
#[derive(Clone, Copy, Debug)]
pub struct GroupsShape {
    /// Their protocol.
    pub protocol: Protocol,
    /// Members of each.
    pub members: u32,
    /// Partitions of the topic that all of them read.
    pub partitions: u32,
}

/// The topic's id.
pub fn topic() -> TopicId {
    TopicId::from_bytes([0x5a; 16])
}

/// Creates the topic.
///
/// # Errors
/// It is refused.
pub async fn create_topic(coordinator: &Coordinator, partitions: u32) -> anyhow::Result<()> {
    let create = CreateTopic {
        topic: topic(),
        name: TOPIC_NAME.to_owned(),
        partitions,
        replication_factor: 1,
        configs: std::collections::BTreeMap::new(),
    };
    let reply = coordinator.propose(Command::CreateTopic(create)).await?;
    ensure!(matches!(reply, Reply::TopicCreated(Ok(_))), "{reply:?}");
    Ok(())
}

/// Fills group `number`.
///
/// # Errors
/// A member is refused, or the group does not come to rest.
pub async fn fill(
    coordinator: &Coordinator,
    shape: GroupsShape,
    number: u32,
) -> anyhow::Result<Vec<Member>> {
    let group = format!("bench-group-{number}");
    match shape.protocol {
        Protocol::Classic => fill_classic(coordinator, shape, &group).await,
        Protocol::Consumer => fill_consumer(coordinator, shape, &group).await,
    }
}

/// The id of a member, as long as Kafka's.
pub fn member_id(group: &str, number: u32) -> MemberId {
    MemberId::new(format!("{group}-{number:05}-0123456789abcdef"))
}

async fn fill_consumer(
    coordinator: &Coordinator,
    shape: GroupsShape,
    group: &str,
) -> anyhow::Result<Vec<Member>> {
    let one = |number| Member::consumer(group, member_id(group, number));
    let mut members: Vec<Member> = (0..shape.members).map(one).collect();
    for _ in 0..LOOKS_MAX {
        let mut is_at_rest = true;
        for member in &mut members {
            is_at_rest &= member.beat(coordinator).await?;
        }
        if is_at_rest {
            return Ok(members);
        }
        coordinator.pause().await;
    }
    bail!("{group} does not come to rest")
}

async fn fill_classic(
    coordinator: &Coordinator,
    shape: GroupsShape,
    group: &str,
) -> anyhow::Result<Vec<Member>> {
    let ids: Vec<MemberId> = (0..shape.members).map(|number| member_id(group, number)).collect();
    for (number, id) in (1..).zip(&ids) {
        let reply = coordinator.tell(group, GroupAction::Join(first_join(id, number))).await?;
        ensure!(matches!(reply, GroupReply::Join(Ok(_))), "{}: {reply:?}", id.as_str());
    }
    let mut joined = Vec::new();
    for (number, id) in (1..).zip(&ids) {
        joined.push(await_join(coordinator, group, id, number).await?);
    }
    // The leader first: nobody waits then.
    joined.sort_by_key(|result| result.members.is_empty());
    let mut members = Vec::new();
    for result in joined {
        let (id, generation) = (result.member.clone(), result.generation);
        let sync = GroupAction::Sync(sync(result, shape.partitions));
        let reply = coordinator.tell(group, sync).await?;
        let GroupReply::Sync(Ok(Progress::Ready(_))) = reply else {
            bail!("{}: {reply:?}", id.as_str())
        };
        members.push(Member::classic(group, id, generation));
    }
    Ok(members)
}

fn request(number: u64) -> RequestId {
    RequestId { session: SessionId::new(1), number }
}

fn first_join(id: &MemberId, number: u64) -> Join {
    let settings = GroupSettings::default();
    Join {
        request: request(number),
        member: MemberId::default(),
        proposed_member: id.clone(),
        require_known_member: false,
        instance: None,
        client_id: "bench".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), subscription())],
        limits: Some(GroupSettings { initial_rebalance_delay_ms: HELD_OPEN_MS, ..settings }),
    }
}

async fn await_join(
    coordinator: &Coordinator,
    group: &str,
    id: &MemberId,
    number: u64,
) -> anyhow::Result<JoinResult> {
    for _ in 0..LOOKS_MAX {
        let ask = GroupAsk::Join { member: id.clone(), request: request(number) };
        let query = Query::Group(GroupQuery { group: group.to_owned(), ask });
        match coordinator.ask(query).await? {
            GroupAnswer::Join(Ok(Progress::Ready(result))) => return Ok(result),
            GroupAnswer::Join(Ok(Progress::Pending { .. })) => coordinator.pause().await,
            other => bail!("{}: {other:?}", id.as_str()),
        }
    }
    bail!("{group} does not come to rest")
}

/// The leader's sync deals partitions out in turn, everybody else's only asks.
fn sync(result: JoinResult, partitions: u32) -> Sync {
    let count = result.members.len();
    let dealt = |place: usize| (place as u32..partitions).step_by(count.max(1));
    let assignments = (0..).zip(&result.members);
    let assignments =
        assignments.map(|(place, one)| (one.member.clone(), assignment(dealt(place)))).collect();
    Sync {
        member: result.member,
        instance: None,
        generation: result.generation,
        protocol_type: Some(result.protocol_type),
        protocol: Some(result.protocol),
        assignments,
    }
}

/// What a member tells its assignor: Kafka's `ConsumerProtocolSubscription`.
fn subscription() -> Bytes {
    let mut bytes = named_topic();
    bytes.put_i32(-1); // Nothing of its own.
    bytes.put_i32(0); // It owns nothing,
    bytes.put_i32(-1); // since no generation,
    bytes.put_i16(-1); // and has no rack.
    bytes.into()
}

/// What it is told: Kafka's `ConsumerProtocolAssignment`.
fn assignment(partitions: impl Iterator<Item = u32>) -> Bytes {
    let mut bytes = named_topic();
    let partitions: Vec<u32> = partitions.collect();
    bytes.put_u32(u32::try_from(partitions.len()).expect("partitions are few"));
    partitions.into_iter().for_each(|partition| bytes.put_u32(partition));
    bytes.put_i32(-1); // Nothing of the assignor's own.
    bytes.into()
}

fn named_topic() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_i16(SUBSCRIPTION_VERSION);
    bytes.put_i32(1);
    bytes.put_i16(i16::try_from(TOPIC_NAME.len()).expect("the name is short"));
    bytes.put_slice(TOPIC_NAME.as_bytes());
    bytes
}
