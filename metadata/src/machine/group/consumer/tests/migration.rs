//! Members of both protocols in one group.

use aquifer_storage::model::{Offset, SessionId};
use bytes::{BufMut, Bytes};

use super::{
    super::protocol::{decode_assignment, encode_assignment},
    *,
};
use crate::machine::group::{
    GroupSettings,
    command::{CommitOffsets, CommittedOffset, Join, LeavingMember, Progress, RequestId, Sync},
    types::{GenerationId, GroupKind, JoinResult},
};

/// A subscription of version 1: topics, nothing of its own, and what it holds of "t".
fn subscription(topics: &[&str], owned: &[i32]) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(1);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.extend(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.put_i32(1);
    bytes.put_i16(1);
    bytes.extend(b"t");
    bytes.put_i32(owned.len() as i32);
    owned.iter().for_each(|partition| bytes.put_i32(*partition));
    bytes.into()
}

impl World {
    fn a_classic_join(&mut self, id: &str, owned: &[i32]) -> Join {
        self.now_ms += 1;
        let is_known = self
            .describe()
            .is_some_and(|group| group.members.iter().any(|member| member.member.as_str() == id));
        Join {
            request: RequestId { session: SessionId::new(1), number: self.now_ms },
            member: MemberId::new(if is_known { id } else { "" }),
            proposed_member: MemberId::new(id),
            require_known_member: false,
            instance: None,
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), subscription(&["t"], owned))],
            limits: None,
        }
    }

    /// A commit by a version that has no member epochs.
    fn old_commit(&mut self, id: &str, epoch: Option<i32>) -> Result<(), GroupRejected> {
        let committed =
            CommittedOffset { offset: Offset::ZERO, leader_epoch: None, metadata: String::new() };
        let commit = CommitOffsets {
            member: MemberId::new(id),
            instance: None,
            generation: epoch.map(GenerationId::new),
            knows_epochs: false,
            offsets: vec![(at(1, 0), committed)],
        };
        match self.apply(GroupAction::CommitOffsets(commit)) {
            GroupReply::CommitOffsets(answer) => answer.map(drop),
            other => panic!("{other:?}"),
        }
    }

    fn apply_join(&mut self, join: Join) -> Result<Progress<JoinResult>, GroupRejected> {
        match self.apply(GroupAction::Join(join)) {
            GroupReply::Join(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn try_classic_join(
        &mut self,
        id: &str,
        owned: &[i32],
    ) -> Result<Progress<JoinResult>, GroupRejected> {
        let join = self.a_classic_join(id, owned);
        self.apply_join(join)
    }

    fn classic_join(&mut self, id: &str, owned: &[i32]) -> i32 {
        match self.try_classic_join(id, owned) {
            Ok(Progress::Ready(joined)) => {
                assert_eq!((joined.protocol.as_str(), joined.leader.as_str()), ("range", ""));
                joined.generation.value()
            }
            other => panic!("{other:?}"),
        }
    }

    fn classic_sync(&mut self, id: &str, generation: i32, leads: &[(&str, &[i32])]) -> Vec<i32> {
        let given = leads.iter().map(|(id, partitions)| {
            let topics = vec![("t".to_owned(), partitions.to_vec())];
            (MemberId::new(*id), encode_assignment(1, &topics))
        });
        let sync = Sync {
            member: MemberId::new(id),
            instance: None,
            generation: GenerationId::new(generation),
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: given.collect(),
        };
        match self.apply(GroupAction::Sync(sync)) {
            GroupReply::Sync(Ok(Progress::Ready(synced))) => {
                let (topics, _) = decode_assignment(synced.assignment).unwrap();
                topics.into_iter().flat_map(|(_, partitions)| partitions).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn classic_heartbeat(&self, id: &str, generation: i32) -> Result<(), GroupRejected> {
        let generation = GenerationId::new(generation);
        let ask = GroupAsk::Heartbeat { member: MemberId::new(id), instance: None, generation };
        match self.ask(ask) {
            GroupAnswer::Heartbeat(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn kind(&self) -> GroupKind {
        self.groups.listed(None, 1)[0].kind
    }

    /// One member of the classic protocol that holds both partitions of "t" in generation 1.
    fn of_one_classic_member() -> Self {
        let mut world = Self::new(&[("t", 2)]);
        assert!(matches!(world.try_classic_join("a", &[]), Ok(Progress::Pending { .. })));
        world.pass(3_000);
        assert_eq!(world.classic_sync("a", 1, &[("a", &[0, 1])]), [0, 1]);
        world
    }
}

#[test]
fn a_commit_that_has_no_epoch_is_for_members_of_the_classic_protocol() {
    let mut world = World::new(&[("t", 2)]);
    assert_eq!(world.old_commit("", None), Ok(()), "nobody is in");
    world.join("a", &["t"]);
    assert_eq!(world.old_commit("a", Some(2)), Err(GroupRejected::EpochUnknown));
    assert_eq!(world.old_commit("b", Some(2)), Err(GroupRejected::UnknownMember));
    let generation = world.classic_join("b", &[]);
    assert_eq!(world.old_commit("b", Some(generation)), Ok(()));
    let illegal = Err(GroupRejected::IllegalGeneration);
    assert_eq!(world.old_commit("b", Some(generation + 1)), illegal);
}

#[test]
fn a_classic_group_is_upgraded_by_the_first_consumer_and_downgraded_with_the_last() {
    let mut world = World::of_one_classic_member();
    assert_eq!(world.join("c", &["t"]), (2, BTreeSet::new()), "a has everything");
    assert_eq!(world.kind(), GroupKind::Consumer);
    let classic: Vec<bool> =
        world.describe().unwrap().members.iter().map(|member| member.is_classic).collect();
    assert_eq!(classic, [true, false]);
    // a is told to rejoin, gives up what it has to, and rejoins.
    assert_eq!(world.classic_heartbeat("a", 1), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(world.classic_join("a", &[0, 1]), 1);
    assert_eq!(world.classic_sync("a", 1, &[]), [0]);
    assert_eq!(world.classic_heartbeat("a", 1), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(world.classic_join("a", &[0]), 2);
    assert_eq!(world.classic_sync("a", 2, &[]), [0]);
    assert_eq!(world.classic_heartbeat("a", 2), Ok(()));
    assert_eq!(world.ok(&goes_on("c", 2)), (2, Some(of_1(&[1]))));
    assert_eq!(world.state(), GroupState::Stable);
    // The last member of the consumer protocol goes: a goes on in a classic group.
    world.ok(&goes_on("c", -1));
    assert_eq!(world.kind(), GroupKind::Classic);
    assert_eq!(world.classic_heartbeat("a", 2), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(world.classic_heartbeat("a", 3), Err(GroupRejected::IllegalGeneration));
    let leaving = LeavingMember { member: MemberId::new("a"), instance: None };
    let left = world.apply(GroupAction::Leave { members: vec![leaving] });
    assert_eq!(left, GroupReply::Leave(vec![Ok(())]));
}

#[test]
fn a_member_of_the_classic_protocol_joins_a_consumer_group() {
    let mut world = World::new(&[("t", 2)]);
    world.join("c", &["t"]);
    assert_eq!(world.classic_join("a", &[]), 3);
    assert_eq!(world.classic_sync("a", 3, &[]), [] as [i32; 0], "c has everything");
    assert_eq!(world.classic_heartbeat("a", 3), Ok(()), "it waits for c");
    assert_eq!(world.ok(&goes_on("c", 2)), (2, Some(of_1(&[0]))).clone());
    world.ok(&holds("c", 2, &of_1(&[0])));
    assert_eq!(world.classic_heartbeat("a", 3), Err(GroupRejected::RebalanceInProgress));
    assert_eq!(world.classic_join("a", &[]), 3);
    assert_eq!(world.classic_sync("a", 3, &[]), [1]);
    assert_eq!(world.classic_heartbeat("a", 4), Err(GroupRejected::IllegalGeneration));
    assert_eq!(world.classic_heartbeat("c", 3), Err(GroupRejected::UnknownMember));
}

/// By the limits that the join carries, or by those of the cluster.
#[test]
fn the_session_timeout_of_who_joins_by_the_classic_protocol_is_judged_here_too() {
    let mut world = World::new(&[("t", 2)]);
    world.join("c", &["t"]);
    let own = GroupSettings {
        session_timeout_min_ms: 100,
        session_timeout_max_ms: 200,
        ..GroupSettings::default()
    };
    let refused = [
        (None, 0),
        (None, 5_999),
        (None, 1_800_001),
        (Some(own), 99),
        (Some(own), 201),
        (Some(own), 10_000),
    ];
    for (limits, session_timeout_ms) in refused {
        let join = world.a_classic_join("a", &[]);
        let before = world.groups.clone();
        let answer = world.apply_join(Join { session_timeout_ms, limits, ..join });
        assert_eq!(answer, Err(GroupRejected::InvalidSessionTimeout), "{session_timeout_ms}");
        assert!(world.groups == before, "a refusal changes nothing");
    }
    let allowed =
        [("a", None, 6_000), ("b", None, 1_800_000), ("d", Some(own), 100), ("e", Some(own), 200)];
    for (id, limits, session_timeout_ms) in allowed {
        let join = world.a_classic_join(id, &[]);
        let answer = world.apply_join(Join { session_timeout_ms, limits, ..join });
        assert!(matches!(answer, Ok(Progress::Ready(_))), "{session_timeout_ms}: {answer:?}");
        // What was judged is what its silence counts by.
        let watched = world.groups.members_for_liveness(&world.catalog);
        let mut watched = watched.filter(|one| one.member.as_str() == id);
        assert_eq!(watched.next().map(|one| one.session_timeout_ms), Some(session_timeout_ms));
    }
    // Who is in and comes again is judged again, and is not out for it.
    let join = world.a_classic_join("a", &[]);
    let again = world.apply_join(Join { session_timeout_ms: 5_999, ..join });
    assert_eq!(again, Err(GroupRejected::InvalidSessionTimeout));
    let is_in = world.describe().unwrap().members.iter().any(|one| one.member.as_str() == "a");
    assert!(is_in);
}

#[test]
fn who_does_not_rejoin_or_sync_in_time_is_out() {
    let mut world = World::of_one_classic_member();
    world.join("c", &["t"]);
    world.pass(60_000);
    assert_eq!(world.classic_heartbeat("a", 1), Err(GroupRejected::UnknownMember));
    assert_eq!(world.ok(&goes_on("c", 2)), (3, Some(of_1(&[0, 1]))));
    world.classic_join("b", &[]);
    world.pass(60_000);
    assert_eq!(world.describe().unwrap().members.len(), 1, "b did not sync");
}

#[test]
fn a_join_that_is_sent_again_is_answered_again() {
    let mut world = World::new(&[("t", 2)]);
    world.join("c", &["t"]);
    world.classic_join("a", &[]);
    let before = world.groups.clone();
    world.now_ms -= 1;
    world.classic_join("a", &[]);
    assert!(world.groups == before);
}

#[test]
fn the_policy_says_who_may_join_and_which_groups_change() {
    let mut world = World::new(&[("t", 2)]);
    world.set("consumer.migration.policy", "disabled");
    world.join("c", &["t"]);
    let refused = world.try_classic_join("a", &[]);
    assert_eq!(refused, Err(GroupRejected::InconsistentProtocol));
    let mut world = World::of_one_classic_member();
    world.set("consumer.migration.policy", "downgrade");
    let message = "Cannot upgrade classic group orders to consumer group because online upgrade \
                   is disabled.";
    let refused = (GroupRejected::UnknownGroup, message.to_owned());
    assert_eq!(world.refused(&joins("c", &["t"])), refused);
    world.set("consumer.migration.policy", "upgrade");
    world.join("c", &["t"]);
    world.ok(&goes_on("c", -1));
    assert_eq!(world.kind(), GroupKind::Consumer, "it stays one");
}

#[test]
fn a_group_whose_members_say_what_kafkas_consumers_do_not_is_not_upgraded() {
    let mut world = World::new(&[("t", 2)]);
    assert!(matches!(world.try_classic_join("a", &[]), Ok(Progress::Pending { .. })));
    world.pass(3_000);
    let sync = Sync {
        member: MemberId::new("a"),
        instance: None,
        generation: GenerationId::new(1),
        protocol_type: None,
        protocol: None,
        assignments: vec![(MemberId::new("a"), Bytes::from_static(b"\x00"))],
    };
    world.apply(GroupAction::Sync(sync));
    let message = "Cannot upgrade classic group orders to consumer group because the embedded \
                   consumer protocol is malformed.";
    let refused = (GroupRejected::UnknownGroup, message.to_owned());
    assert_eq!(world.refused(&joins("c", &["t"])), refused);
}

/// In a rebalance nobody knows who still reads what: one that joined then would get it too.
#[test]
fn a_classic_group_that_rebalances_is_upgraded_afterwards() {
    let mut world = World::of_one_classic_member();
    assert!(matches!(world.try_classic_join("b", &[]), Ok(Progress::Pending { .. })));
    let message = "Classic group orders is rebalancing, and upgraded after that.";
    let refused = (GroupRejected::NotStable, message.to_owned());
    assert_eq!(world.refused(&joins("c", &["t"])), refused, "members are asked to rejoin");
    world.pass(60_000);
    assert_eq!(world.refused(&joins("c", &["t"])), refused, "the leader is to assign");
    assert_eq!(world.classic_sync("b", 2, &[("b", &[0, 1])]), [0, 1]);
    assert_eq!(world.join("c", &["t"]), (3, BTreeSet::new()), "b has everything");
}

#[test]
fn who_synced_and_owes_partitions_has_its_rebalance_timeout_to_come_again() {
    let mut world = World::of_one_classic_member();
    world.join("c", &["t"]);
    assert_eq!(world.classic_join("a", &[0, 1]), 1);
    assert_eq!(world.classic_sync("a", 1, &[]), [0]);
    world.pass(59_999);
    assert_eq!(world.classic_heartbeat("a", 1), Err(GroupRejected::RebalanceInProgress));
    world.pass(1);
    assert_eq!(world.classic_heartbeat("a", 1), Err(GroupRejected::UnknownMember));
    assert_eq!(world.ok(&goes_on("c", 2)), (3, Some(of_1(&[0, 1]))));
}
