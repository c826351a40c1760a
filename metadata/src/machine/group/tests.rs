//! Kafka's rules of classic groups, one sentence each.

use std::collections::BTreeSet;

use aquifer_storage::model::{Offset, PartitionIndex, SessionId, TopicId, TopicPartition};
use bytes::Bytes;

use super::{
    GroupSettings, Groups, LivenessMember,
    command::{
        CommitOffsets, CommittedOffset, GroupAction, GroupCommand, GroupReply, Join, LeavingMember,
        PartitionIndexError, Progress, RequestId, Sync,
    },
    query::{GroupAnswer, GroupAsk, GroupQuery},
    types::{GenerationId, GroupRejected, JoinResult, MemberId, SyncResult},
};
use crate::machine::time::{Elapsed, WallTime};

mod administration;
mod expiry;
mod joining;
mod leaving;
mod model;
mod offsets;
mod statics;
mod syncing;

const GROUP: &str = "orders";

/// Groups, a clock, and shorthands. Every command checks every invariant.
struct World {
    groups: Groups,
    now_ms: u64,
    requests: u64,
    deleted: BTreeSet<TopicPartition>,
}

fn member(id: &str) -> MemberId {
    MemberId::new(id)
}

fn generation(value: i32) -> GenerationId {
    GenerationId::new(value)
}

fn partition(index: i32) -> TopicPartition {
    let topic = TopicId::from_bytes([7; 16]);
    TopicPartition { topic, partition: PartitionIndex::new(index) }
}

fn ready<T: std::fmt::Debug>(progress: Result<Progress<T>, GroupRejected>) -> T {
    match progress {
        Ok(Progress::Ready(result)) => result,
        other => panic!("expected an answer, got {other:?}"),
    }
}

fn is_pending<T>(progress: &Result<Progress<T>, GroupRejected>) -> bool {
    matches!(progress, Ok(Progress::Pending { .. }))
}

impl World {
    fn new() -> Self {
        Self::with(GroupSettings::default())
    }

    fn with(settings: GroupSettings) -> Self {
        let groups = Groups::new(settings);
        Self { groups, now_ms: 0, requests: 0, deleted: BTreeSet::new() }
    }

    fn apply(&mut self, action: GroupAction) -> GroupReply {
        let now = Elapsed::from_millis(self.now_ms);
        let wall = WallTime::from_millis(1_000_000 + i64::try_from(self.now_ms).unwrap());
        let command = GroupCommand { group: GROUP.to_owned(), action };
        let exists = |partition: TopicPartition| !self.deleted.contains(&partition);
        let before = self.groups.version(GROUP);
        let applied = self.groups.apply(&command, now, wall, &exists);
        assert!(self.groups.version(GROUP) >= before);
        assert_eq!(self.groups.broken_invariant(), None);
        applied.reply
    }

    /// Lets time pass, ticking at every deadline on the way.
    fn pass(&mut self, millis: u64) {
        let end = self.now_ms + millis;
        while let Some(deadline) = self.groups.next_deadline().filter(|at| at.millis() <= end) {
            self.now_ms = deadline.millis();
            self.tick();
        }
        self.now_ms = end;
        self.tick();
    }

    fn tick(&mut self) {
        let now = Elapsed::from_millis(self.now_ms);
        self.groups.tick(now, WallTime::from_millis(2_000_000), &|_| true);
        assert_eq!(self.groups.broken_invariant(), None);
        assert!(self.groups.next_deadline().is_none_or(|deadline| deadline > now));
    }

    /// A join as a member that has (or, new, proposes) this id.
    fn a_join(&mut self, id: &str, known: bool) -> Join {
        self.requests += 1;
        Join {
            request: RequestId { session: SessionId::new(1), number: self.requests },
            member: member(if known { id } else { "" }),
            proposed_member: member(id),
            require_known_member: false,
            instance: None,
            client_id: "test".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"r"))],
            limits: None,
        }
    }

    fn join(&mut self, join: Join) -> Result<Progress<JoinResult>, GroupRejected> {
        match self.apply(GroupAction::Join(join)) {
            GroupReply::Join(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn join_new(&mut self, id: &str) -> Result<Progress<JoinResult>, GroupRejected> {
        let join = self.a_join(id, false);
        self.join(join)
    }

    fn rejoin(&mut self, id: &str) -> Result<Progress<JoinResult>, GroupRejected> {
        let join = self.a_join(id, true);
        self.join(join)
    }

    fn ask_join(&self, id: &str, number: u64) -> Result<Progress<JoinResult>, GroupRejected> {
        let request = RequestId { session: SessionId::new(1), number };
        match self.ask(GroupAsk::Join { member: member(id), request }) {
            GroupAnswer::Join(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn a_sync(id: &str, at: i32, assignments: &[(&str, &'static str)]) -> Sync {
        let given = assignments.iter();
        Sync {
            member: member(id),
            instance: None,
            generation: generation(at),
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: given.map(|(id, given)| (member(id), Bytes::from(*given))).collect(),
        }
    }

    fn sync_as(&mut self, sync: Sync) -> Result<Progress<SyncResult>, GroupRejected> {
        match self.apply(GroupAction::Sync(sync)) {
            GroupReply::Sync(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn sync(
        &mut self,
        id: &str,
        at: i32,
        assignments: &[(&str, &'static str)],
    ) -> Result<Progress<SyncResult>, GroupRejected> {
        self.sync_as(Self::a_sync(id, at, assignments))
    }

    fn ask_sync(&self, id: &str, at: i32) -> Result<Progress<SyncResult>, GroupRejected> {
        match self.ask(GroupAsk::Sync { member: member(id), generation: generation(at) }) {
            GroupAnswer::Sync(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&self, id: &str, at: i32) -> Result<(), GroupRejected> {
        self.heartbeat_of(id, None, at)
    }

    fn heartbeat_of(&self, id: &str, instance: Option<&str>, at: i32) -> Result<(), GroupRejected> {
        let instance = instance.map(str::to_owned);
        let ask = GroupAsk::Heartbeat { member: member(id), instance, generation: generation(at) };
        match self.ask(ask) {
            GroupAnswer::Heartbeat(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, ask: GroupAsk) -> GroupAnswer {
        self.groups.query(&GroupQuery { group: GROUP.to_owned(), ask }, &|_| true)
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupRejected>> {
        let members = members.iter().map(|(id, instance)| LeavingMember {
            member: member(id),
            instance: instance.map(str::to_owned),
        });
        match self.apply(GroupAction::Leave { members: members.collect() }) {
            GroupReply::Leave(results) => results,
            other => panic!("{other:?}"),
        }
    }

    fn watched(&self, id: &str) -> Option<LivenessMember> {
        self.groups.members_for_liveness(&|_| true).find(|watched| watched.member == member(id))
    }

    /// What the leader does with a silent member.
    fn expire(&mut self, id: &str) {
        let judged = self.watched(id).map_or(0, |watched| watched.touched);
        self.apply(GroupAction::ExpireMember { member: member(id), judged });
    }

    fn commit(
        &mut self,
        id: &str,
        at: Option<i32>,
        offset: i64,
    ) -> Result<Vec<PartitionIndexError>, GroupRejected> {
        let committed = CommittedOffset {
            offset: Offset::new(offset).expect("not negative"),
            leader_epoch: None,
            metadata: "note".to_owned(),
        };
        let commit = CommitOffsets {
            member: member(id),
            instance: None,
            generation: at.map(generation),
            knows_epochs: true,
            offsets: vec![(partition(0), committed.clone()), (partition(1), committed)],
        };
        match self.apply(GroupAction::CommitOffsets(commit)) {
            GroupReply::CommitOffsets(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn committed(&self) -> Vec<i64> {
        match self.ask(GroupAsk::Offsets { partitions: None, reader: None }) {
            GroupAnswer::Offsets(Ok(offsets)) => {
                offsets.into_iter().map(|(_, committed)| committed.offset.value()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// `ids` have joined generation 1 (`ids[0]` leads) and have not synced.
    fn completing(ids: &[&str]) -> Self {
        let mut world = Self::new();
        for id in ids {
            assert!(is_pending(&world.join_new(id)));
        }
        world.pass(60_000);
        world
    }

    /// `ids` are stable in generation 1, `ids[0]` leads, each is assigned its own id.
    fn stable(ids: &[&'static str]) -> Self {
        let mut world = Self::completing(ids);
        let assignments: Vec<(&str, &'static str)> = ids.iter().map(|id| (*id, *id)).collect();
        for id in ids {
            let given = if id == &ids[0] { assignments.as_slice() } else { &[] };
            assert_eq!(ready(world.sync(id, 1, given)).assignment, Bytes::from(*id));
        }
        world
    }
}

#[test]
fn an_idle_stable_group_has_no_deadline_so_nothing_is_ticked() {
    let world = World::stable(&["a", "b"]);
    assert_eq!(world.groups.next_deadline(), None);
}

#[test]
fn a_version_does_not_fall_when_a_group_is_forgotten_and_made_again() {
    let mut world = World::new();
    let _ = world.join_new("a");
    let before = world.groups.version(GROUP);
    world.leave(&[("a", None)]);
    let between = world.groups.version(GROUP);
    assert!(between > before);
    let join = Join { require_known_member: true, ..world.a_join("b", false) };
    let _ = world.join(join);
    assert!(world.groups.version(GROUP) >= between);
    let _ = world.rejoin("b");
    assert!(world.groups.version(GROUP) > between);
}

#[test]
fn a_refused_command_leaves_no_group_behind() {
    let mut world = World::new();
    assert_eq!(world.rejoin("ghost"), Err(GroupRejected::UnknownMember));
    assert_eq!(world.commit("", Some(1), 5), Err(GroupRejected::UnknownGroup));
    assert_eq!(world.groups, Groups::default());
}

#[test]
fn a_tick_before_a_deadline_or_twice_changes_nothing() {
    let mut world = World::new();
    let _ = world.join_new("a");
    world.now_ms = 2_999;
    let before = world.groups.clone();
    world.tick();
    assert_eq!(world.groups, before);
    world.now_ms = 3_000;
    world.tick();
    let after = world.groups.clone();
    world.tick();
    assert_eq!(world.groups, after);
}
