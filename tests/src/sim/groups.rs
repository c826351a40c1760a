//! The groups of a world: drawn from its seed, made ready, and looked at in the end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aquifer_agent::wire::{
    Str, Uuid,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest,
        DescribeGroupsResponse, MetadataRequest, MetadataRequestTopics, MetadataResponse,
    },
};
use aquifer_metadata::{
    client::{
        Metadata as _,
        remote::{RemoteClient, RemoteConfig},
    },
    machine::{
        command::Command,
        config::{
            AlterConfigs, ConfigAction, ConfigChange, ConfigKey, ConfigKind, ConfigOp,
            ConfigResource,
        },
    },
    node::expiry::OffsetExpiry,
};
use tokio::time::sleep;

use super::{
    client::{Client, connection::Refused, member::Seat, reader},
    rng::SimRng,
};
use crate::history::groups::{Described, GroupNumber, Groups, Protocols};

/// The least that Kafka's classic groups allow; a consumer group's least is 45 s, which agents
/// insist on, so it is told to the metadata group itself.
const SESSION: Duration = Duration::from_secs(6);
/// More than a session: see the leases of [`crate::history::groups`].
const REBALANCE: Duration = Duration::from_secs(8);
const HEARTBEAT_MS: u64 = 1_000;
/// Kafka's, which no run reaches while wall clocks are right.
const RETENTION_LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(15);
const METADATA_VERSION: i16 = 12;
const GROUP_ID_NOT_FOUND: i16 = 69;

/// What one seed's groups are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When committed offsets expire.
    pub retention: Duration,
    groups: Vec<GroupPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct GroupPlan {
    protocols: Protocols,
    seats: Vec<SeatPlan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeatPlan {
    is_classic: bool,
    is_static: bool,
    misbehaves_one_in: u64,
}

impl Plan {
    /// Of a seed.
    pub fn of(seed: u64) -> Self {
        let rng = SimRng::stream(seed, "groups");
        let seconds = Duration::from_secs;
        let retention = *rng.pick(&[seconds(3), seconds(8), RETENTION_LONG]);
        let groups = (0..1 + rng.below(2)).map(|_| GroupPlan::drawn(&rng)).collect();
        Self { retention, groups }
    }

    /// What the metadata nodes go by.
    pub fn expiry(&self) -> OffsetExpiry {
        OffsetExpiry { retention: self.retention, check_interval: Duration::from_secs(1) }
    }

    /// Whether nothing expires that is not long out of date.
    pub fn keeps_offsets(&self) -> bool {
        self.retention == RETENTION_LONG
    }
}

impl GroupPlan {
    fn drawn(rng: &SimRng) -> Self {
        use Protocols::{Both, Classic, Consumer};
        let protocols = *rng.pick(&[Classic, Consumer, Consumer, Both]);
        let misbehaves_one_in = *rng.pick(&[4, 8, 15, 60]);
        let seats = (0..2 + rng.below(3)).map(|_| SeatPlan {
            is_classic: match protocols {
                Classic => true,
                Consumer => false,
                Both => rng.one_in(2),
            },
            is_static: rng.one_in(4),
            misbehaves_one_in,
        });
        Self { protocols, seats: seats.collect() }
    }
}

/// A group as its members know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number in histories.
    pub number: GroupNumber,
    /// Its id.
    pub name: String,
    /// What its members speak.
    pub protocols: Protocols,
    /// The session timeout of its members.
    pub session: Duration,
    /// What they have for giving something up.
    pub rebalance: Duration,
    /// The topics it reads, with their ids.
    pub topics: BTreeMap<String, Uuid>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            number: GroupNumber(0),
            name: String::new(),
            protocols: Protocols::Classic,
            session: SESSION,
            rebalance: REBALANCE,
            topics: BTreeMap::new(),
        }
    }
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).expect("short")
}

impl Group {
    /// The session timeout, as requests name it.
    pub fn session_ms(&self) -> i32 {
        millis(self.session)
    }

    /// The rebalance timeout, as requests name it.
    pub fn rebalance_ms(&self) -> i32 {
        millis(self.rebalance)
    }

    /// The id of a topic.
    ///
    /// # Panics
    /// It is none of the group's.
    pub fn topic_id(&self, topic: &str) -> Uuid {
        self.topics[topic]
    }
}

/// The groups of a plan, with what its members need to know. However long it takes.
pub async fn prepare(admin: &Client, plan: &Plan, nodes: &[String]) -> Vec<Arc<Group>> {
    let topics = loop {
        match topic_ids(admin).await {
            Ok(topics) => break topics,
            Err(Refused(reason)) => {
                admin.shared.universe.trace.note(|| format!("ids of topics: {reason}"));
                sleep(Duration::from_millis(250)).await;
            }
        }
    };
    let group = |(number, plan): (u32, &GroupPlan)| Group {
        number: GroupNumber(number),
        name: format!("group{number}"),
        protocols: plan.protocols,
        topics: topics.clone(),
        ..Group::default()
    };
    let groups: Vec<_> = (0..).zip(&plan.groups).map(group).map(Arc::new).collect();
    let remote = RemoteConfig { addresses: nodes.to_vec(), ..RemoteConfig::default() };
    let metadata = RemoteClient::new(remote, admin.process.seams.clone());
    for group in &groups {
        while let Err(error) = metadata.propose(configured(group)).await {
            admin.shared.universe.trace.note(|| format!("configs of {}: {error}", group.name));
            sleep(Duration::from_millis(250)).await;
        }
    }
    let protocols = groups.iter().map(|group| group.protocols).collect();
    let seen = Groups { protocols, ..Groups::default() };
    admin.shared.note_groups(|| format!("{plan:?}"), |groups| *groups = seen);
    groups
}

/// Sets a group's session timeout and how often its members are heard.
fn configured(group: &Group) -> Command {
    let set = |name: &str, value: u64| ConfigOp {
        name: name.to_owned(),
        action: ConfigAction::Set(value.to_string()),
    };
    let session_ms = u64::try_from(group.session_ms()).expect("positive");
    let changes = vec![
        set("consumer.session.timeout.ms", session_ms),
        set("consumer.heartbeat.interval.ms", HEARTBEAT_MS),
    ];
    let key = ConfigKey { kind: ConfigKind::Group, name: group.name.clone() };
    Command::AlterConfigs(AlterConfigs {
        resource: ConfigResource::Other(key),
        change: ConfigChange::Incremental(changes),
        orders: Vec::new(),
    })
}

async fn topic_ids(admin: &Client) -> Result<BTreeMap<String, Uuid>, Refused> {
    let mut connection = reader::connect(admin, 0).await.map_err(Refused)?;
    let topic = |name| MetadataRequestTopics { name: Some(Str::from(name)), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(admin.shared.topics().map(topic).collect()),
        ..MetadataRequest::default()
    };
    let answer: MetadataResponse = connection.call(METADATA_VERSION, &request, PATIENCE).await?;
    let mut topics = BTreeMap::new();
    for topic in answer.topics {
        if topic.error_code != 0 {
            return Err(Refused(format!("{:?}: {}", topic.name, topic.error_code)));
        }
        topics.insert(topic.name.expect("it was asked for").as_str().to_owned(), topic.topic_id);
    }
    Ok(topics)
}

/// The places to take: in which group, and whether by the classic protocol.
pub fn seats(plan: &Plan, groups: &[Arc<Group>]) -> Vec<(Seat, bool)> {
    let mut seats = Vec::new();
    for (group, plan) in groups.iter().zip(&plan.groups) {
        for (number, seat) in (0..).zip(&plan.seats) {
            let SeatPlan { is_classic, is_static, misbehaves_one_in } = *seat;
            let instance = is_static.then_some(number);
            seats.push((Seat { group: group.clone(), instance, misbehaves_one_in }, is_classic));
        }
    }
    seats
}

/// Who is in each group now.
///
/// # Errors
/// No agent can say.
pub async fn describe(admin: &Client, groups: &[Arc<Group>]) -> Result<Vec<Described>, String> {
    let mut described = Vec::new();
    for group in groups {
        let mut tries = 0;
        described.push(loop {
            match described_once(admin, group, tries).await {
                Ok(one) => break one,
                Err(Refused(reason)) if 20 <= tries => {
                    return Err(format!("{} cannot be described: {reason}", group.name));
                }
                Err(_) => sleep(Duration::from_millis(250)).await,
            }
            tries += 1;
        });
    }
    Ok(described)
}

async fn described_once(admin: &Client, group: &Group, tries: usize) -> Result<Described, Refused> {
    let agent = tries % admin.shared.agents.len();
    let mut connection = reader::connect(admin, agent).await.map_err(Refused)?;
    let began = admin.shared.now();
    let name = || Str::from(group.name.as_str());
    let told = |members: Vec<String>| Described { group: group.number, began, members };
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![name()],
        ..ConsumerGroupDescribeRequest::default()
    };
    let answer: ConsumerGroupDescribeResponse = connection.call(0, &request, PATIENCE).await?;
    let answer = answer.groups.into_iter().next().expect("an agent answers what was asked");
    match answer.error_code {
        0 => {
            let members = answer.members.iter();
            return Ok(told(members.map(|one| one.member_id.as_str().to_owned()).collect()));
        }
        GROUP_ID_NOT_FOUND => {}
        code => return Err(Refused(format!("{code}"))),
    }
    let request = DescribeGroupsRequest { groups: vec![name()], ..Default::default() };
    let answer: DescribeGroupsResponse = connection.call(5, &request, PATIENCE).await?;
    let answer = answer.groups.into_iter().next().expect("an agent answers what was asked");
    if answer.error_code != 0 {
        return Err(Refused(format!("{}", answer.error_code)));
    }
    let members = answer.members.iter();
    Ok(told(members.map(|one| one.member_id.as_str().to_owned()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_every_kind_of_group_and_member_happens() {
        let plans: Vec<Plan> = (0..100).map(Plan::of).collect();
        assert_eq!(plans, (0..100).map(Plan::of).collect::<Vec<_>>());
        let groups = || plans.iter().flat_map(|plan| &plan.groups);
        for protocols in [Protocols::Classic, Protocols::Consumer, Protocols::Both] {
            assert!(groups().any(|group| group.protocols == protocols), "{protocols:?}");
        }
        let seats = || groups().flat_map(|group| &group.seats);
        for is in [true, false] {
            assert!(seats().any(|seat| seat.is_static == is), "static {is}");
            assert!(plans.iter().any(|plan| plan.keeps_offsets() == is), "kept {is}");
        }
        let both = || groups().filter(|group| group.protocols == Protocols::Both);
        assert!(both().any(|group| group.seats.iter().any(|seat| seat.is_classic)));
        assert!(both().any(|group| group.seats.iter().any(|seat| !seat.is_classic)));
    }
}
