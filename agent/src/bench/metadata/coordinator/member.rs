//! A member of a group as its client is: what it says, and what it makes of the answers.

use std::time::Duration;

use anyhow::{Context as _, bail};
use aquifer_metadata::machine::{
    command::{GroupAction, GroupReply},
    group::{
        command::{CommitOffsets, CommittedOffset},
        consumer::{
            AssignedTopic, MemberEpoch,
            command::{ConsumerHeartbeat, ConsumerHeartbeatResult},
        },
        query::{GroupAnswer, GroupAsk, GroupQuery},
        types::{GenerationId, MemberId},
    },
    query::Query,
};
use aquifer_storage::model::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};

use super::{
    asked::Coordinator,
    populate::{self, TOPIC_NAME},
};

/// `heartbeat.interval.ms` of clients of the classic protocol.
const CLASSIC_INTERVAL: Duration = Duration::from_secs(3);
/// `max.poll.interval.ms` of clients.
const REBALANCE_TIMEOUT_MS: u32 = 300_000;

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    group: String,
    id: MemberId,
    standing: Standing,
    /// How long it was told to wait until its next heartbeat.
    pub interval: Duration,
}

/// How it stands in its group.
#[derive(Clone, Debug)]
enum Standing {
    Classic {
        generation: GenerationId,
    },
    Consumer {
        epoch: MemberEpoch,
        owned: Vec<AssignedTopic>,
        /// It has to say what it owns.
        tells: bool,
    },
}

impl Member {
    /// A member of the classic protocol that has its assignment.
    pub fn classic(group: &str, id: MemberId, generation: GenerationId) -> Self {
        let standing = Standing::Classic { generation };
        Self { group: group.to_owned(), id, standing, interval: CLASSIC_INTERVAL }
    }

    /// A member of the consumer protocol that is not in yet.
    pub fn consumer(group: &str, id: MemberId) -> Self {
        let standing =
            Standing::Consumer { epoch: MemberEpoch::JOINS, owned: Vec::new(), tells: true };
        Self { group: group.to_owned(), id, standing, interval: Duration::ZERO }
    }

    /// Its heartbeat, as the leader is asked first.
    pub fn question(&self) -> Query {
        let ask = match &self.standing {
            Standing::Classic { generation } => GroupAsk::Heartbeat {
                member: self.id.clone(),
                instance: None,
                generation: *generation,
            },
            Standing::Consumer { epoch, owned, tells } => {
                let owned = tells.then(|| owned.clone());
                GroupAsk::ConsumerHeartbeat(Box::new(self.heartbeat(*epoch, owned)))
            }
        };
        Query::Group(GroupQuery { group: self.group.clone(), ask })
    }

    /// The same heartbeat as a command; those of the classic protocol change nothing.
    pub fn command(&self) -> Option<GroupAction> {
        let Query::Group(GroupQuery { ask: GroupAsk::ConsumerHeartbeat(heartbeat), .. }) =
            self.question()
        else {
            return None;
        };
        Some(GroupAction::ConsumerHeartbeat(heartbeat))
    }

    /// What its client says when it leaves a group of the consumer protocol.
    pub fn farewell(&self) -> GroupAction {
        let leaves = self.heartbeat(MemberEpoch::LEAVES, None);
        GroupAction::ConsumerHeartbeat(Box::new(leaves))
    }

    fn heartbeat(
        &self,
        epoch: MemberEpoch,
        owned: Option<Vec<AssignedTopic>>,
    ) -> ConsumerHeartbeat {
        let joins = epoch == MemberEpoch::JOINS;
        ConsumerHeartbeat {
            member: self.id.clone(),
            epoch,
            instance: None,
            rack: None,
            client_id: "bench".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: joins.then_some(REBALANCE_TIMEOUT_MS),
            subscribed: joins.then(|| vec![TOPIC_NAME.to_owned()]),
            regex: None,
            assignor: None,
            owned,
        }
    }

    /// Sends a heartbeat as an agent passes it on: what would change the group is proposed. Tells
    /// whether it changed nothing, neither there nor here.
    ///
    /// # Errors
    /// It was refused, or there was no answer.
    pub async fn beat(&mut self, coordinator: &Coordinator) -> anyhow::Result<bool> {
        let (result, is_asked) = match coordinator.ask(self.question()).await? {
            GroupAnswer::Heartbeat(Ok(())) => return Ok(true),
            GroupAnswer::ConsumerHeartbeat(Some(Ok(result))) => (result, true),
            GroupAnswer::ConsumerHeartbeat(None) => {
                let action = self.command().context("a heartbeat of the consumer protocol")?;
                match coordinator.tell(&self.group, action).await? {
                    GroupReply::ConsumerHeartbeat(Ok(result)) => (result, false),
                    other => bail!("{}: {other:?}", self.id.as_str()),
                }
            }
            other => bail!("{}: {other:?}", self.id.as_str()),
        };
        Ok(self.take_in(result) && is_asked)
    }

    /// Does as it is told, at once. Whether that is what it did before.
    pub fn take_in(&mut self, result: ConsumerHeartbeatResult) -> bool {
        self.interval = Duration::from_millis(result.heartbeat_interval_ms.into());
        let Standing::Consumer { epoch, owned, tells } = &mut self.standing else { return false };
        let is_same_epoch = *epoch == result.epoch;
        *epoch = result.epoch;
        let assigned = result.assignment.filter(|assigned| assigned != owned);
        *tells = assigned.is_some();
        if let Some(assigned) = assigned {
            *owned = assigned;
        }
        is_same_epoch && !*tells
    }

    /// A commit of offsets of the first `count` partitions.
    pub fn commit(&self, count: u32, offset: i64) -> GroupAction {
        let generation = match &self.standing {
            Standing::Classic { generation } => *generation,
            Standing::Consumer { epoch, .. } => GenerationId::new(epoch.value()),
        };
        let committed = CommittedOffset {
            offset: Offset::new(offset).expect("an offset is not negative"),
            leader_epoch: Some(LeaderEpoch::new(0)),
            metadata: String::new(),
        };
        let partition = |index| TopicPartition {
            topic: populate::topic(),
            partition: PartitionIndex::new(i32::try_from(index).expect("partitions are few")),
        };
        let offsets = (0..count).map(|index| (partition(index), committed.clone())).collect();
        GroupAction::CommitOffsets(CommitOffsets {
            member: self.id.clone(),
            instance: None,
            generation: Some(generation),
            knows_epochs: true,
            offsets,
        })
    }

    /// Its group.
    pub fn group(&self) -> &str {
        &self.group
    }
}
