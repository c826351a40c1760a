//! Random clients against the group coordinator: whatever they do and in whatever order, the laws
//! of a group hold, a replica restored from a snapshot answers the same, and nobody owns twice.

use std::{collections::BTreeMap, time::Duration};

use aquifer_metadata::{
    codec::group::{
        command_from_proto, command_to_proto, groups_from_proto, groups_to_proto, reply_from_proto,
        reply_to_proto,
    },
    machine::{
        group::{
            GroupApplied, GroupSettings, Groups,
            command::{
                CommitOffsets, CommittedOffset, GroupAction, GroupCommand, GroupReply, Join,
                LeavingMember, Progress, RequestId, Sync, TopicOffsets,
            },
            query::{GroupAnswer, GroupAsk, GroupDescription, GroupQuery},
            types::{GenerationId, GroupRejected, GroupState, JoinResult, MemberId, SyncResult},
        },
        time::{Elapsed, WallTime},
    },
};
use aquifer_storage::model::{Offset, PartitionIndex, SessionId, TopicId, TopicPartition};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

const GROUP: &str = "g";
const CLIENTS: usize = 6;
/// Clients from this one on are static members.
const FIRST_STATIC: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Joins (with its id if it has one), saying this of itself.
    Join { client: usize, metadata: u8 },
    /// Asks what became of its join.
    AskJoin(usize),
    /// Syncs the generation it knows; the leader brings assignments.
    Sync(usize),
    /// Asks what became of its sync.
    AskSync(usize),
    /// Sends its last join once more.
    RepeatJoin(usize),
    /// Leaves.
    Leave(usize),
    /// Forgets everything but its instance.
    Restart(usize),
    /// Is expired, judged by its present touch or an old one.
    Expire { client: usize, stale: bool },
    /// Commits with the generation it knows.
    Commit(usize),
    /// An operator deletes the group.
    Delete,
    /// An operator deletes an offset.
    DeleteOffset { partition: i32 },
    /// Offsets of any age are too old.
    ExpireOffsets,
    /// Time passes.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    prop_oneof![
        6 => (client(), 0..2_u8).prop_map(|(client, metadata)| Step::Join { client, metadata }),
        6 => client().prop_map(Step::AskJoin),
        6 => client().prop_map(Step::Sync),
        3 => client().prop_map(Step::AskSync),
        1 => client().prop_map(Step::RepeatJoin),
        1 => client().prop_map(Step::Leave),
        1 => client().prop_map(Step::Restart),
        1 => (client(), any::<bool>()).prop_map(|(client, stale)| Step::Expire { client, stale }),
        3 => client().prop_map(Step::Commit),
        1 => Just(Step::Delete),
        1 => (0..6_i32).prop_map(|partition| Step::DeleteOffset { partition }),
        1 => Just(Step::ExpireOffsets),
        4 => (0..70_000_u64).prop_map(Step::Pass),
    ]
}

#[derive(Clone, Debug, Default)]
struct Client {
    id: Option<MemberId>,
    generation: GenerationId,
    members: Vec<MemberId>,
    leads: bool,
    skip_assignment: bool,
    last_join: Option<Join>,
}

struct World {
    groups: Groups,
    clients: Vec<Client>,
    now_ms: u64,
    counter: u64,
    version: u64,
    generation: i32,
    /// Which client each member id ever belonged to.
    holders: BTreeMap<MemberId, usize>,
    /// Who leads a generation, and its protocol.
    leaders: BTreeMap<GenerationId, (String, String)>,
    /// Each generation's assignment by place.
    assigned: BTreeMap<GenerationId, BTreeMap<String, Bytes>>,
}

impl World {
    fn new(initial_rebalance_delay_ms: u32) -> Self {
        let settings =
            GroupSettings { initial_rebalance_delay_ms, max_size: 5, ..GroupSettings::default() };
        Self {
            groups: Groups::new(settings),
            clients: vec![Client::default(); CLIENTS],
            now_ms: 0,
            counter: 0,
            version: 0,
            generation: 0,
            holders: BTreeMap::new(),
            leaders: BTreeMap::new(),
            assigned: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join { client, metadata } => self.join(client, metadata),
            Step::AskJoin(client) => self.ask_join(client),
            Step::Sync(client) => self.sync(client),
            Step::AskSync(client) => self.ask_sync(client),
            Step::RepeatJoin(client) => {
                if let Some(join) = self.clients[client].last_join.clone() {
                    self.send_join(client, join);
                }
            }
            Step::Leave(client) => {
                if let Some(member) = self.clients[client].id.take() {
                    let leaving = LeavingMember { member, instance: instance(client) };
                    self.apply(GroupAction::Leave { members: vec![leaving] });
                }
            }
            Step::Restart(client) => self.clients[client] = Client::default(),
            Step::Expire { client, stale } => self.expire(client, stale),
            Step::Commit(client) => self.commit(client),
            Step::Delete => self.delete(),
            Step::DeleteOffset { partition } => self.delete_offset(partition),
            Step::ExpireOffsets => self.expire_offsets(),
            Step::Pass(millis) => self.pass(millis),
        }
    }

    /// Applies through the codec, here and on a replica made from a snapshot.
    fn apply(&mut self, action: GroupAction) -> GroupReply {
        let command = GroupCommand { group: GROUP.to_owned(), action };
        let decoded = command_from_proto(command_to_proto(&command)).unwrap();
        assert_eq!(decoded, command);
        let mut replica = self.replica();
        let now = Elapsed::from_millis(self.now_ms);
        let wall = WallTime::from_millis(9);
        let before = self.groups.version(GROUP);
        let applied = self.groups.apply(&command, now, wall, &|_| true);
        assert_eq!(replica.apply(&command, now, wall, &|_| true), applied);
        assert_eq!(replica, self.groups);
        let GroupApplied { reply, changed } = applied;
        assert_eq!(reply_from_proto(reply_to_proto(&reply)).unwrap(), reply);
        let group_moved = self.groups.version(GROUP) != before;
        assert!(group_moved || changed.is_empty());
        assert!(changed.iter().all(|(group, version)| group == GROUP && *version > before));
        self.check();
        reply
    }

    fn replica(&self) -> Groups {
        let replica = groups_from_proto(groups_to_proto(&self.groups)).unwrap();
        assert_eq!(replica, self.groups);
        replica
    }

    fn check(&mut self) {
        assert_eq!(self.groups.broken_invariant(), None);
        let version = self.groups.version(GROUP);
        assert!(version >= self.version, "the version fell");
        self.version = version;
        let generation = self.generation_now();
        assert!(generation >= self.generation, "the generation fell");
        self.generation = generation;
    }

    /// The group's generation; of an absent group the last one, which was 0: only groups that
    /// never completed a join are forgotten.
    fn generation_now(&self) -> i32 {
        let snapshot = groups_to_proto(&self.groups);
        snapshot.groups.first().map_or(self.generation, |group| group.generation)
    }

    fn join(&mut self, client: usize, metadata: u8) {
        self.counter += 1;
        let protocol = |name: &str| (name.to_owned(), Bytes::copy_from_slice(&[metadata]));
        let order =
            if client.is_multiple_of(2) { ["range", "sticky"] } else { ["sticky", "range"] };
        let join = Join {
            request: RequestId { session: SessionId::new(1), number: self.counter },
            member: self.clients[client].id.clone().unwrap_or_default(),
            proposed_member: MemberId::new(format!("{client}-{}", self.counter)),
            require_known_member: !client.is_multiple_of(3),
            instance: instance(client),
            client_id: client.to_string(),
            client_host: "/::1".to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".to_owned(),
            protocols: order.map(protocol).to_vec(),
            limits: (client == 2).then(|| self.groups.settings()),
        };
        self.holders.insert(join.proposed_member.clone(), client);
        self.clients[client].last_join = Some(join.clone());
        self.send_join(client, join);
    }

    fn send_join(&mut self, client: usize, join: Join) {
        match self.apply(GroupAction::Join(join)) {
            GroupReply::Join(answer) => self.joined(client, answer),
            other => panic!("{other:?}"),
        }
    }

    fn ask_join(&mut self, client: usize) {
        let Some(member) = self.clients[client].id.clone() else { return };
        let Some(request) = self.clients[client].last_join.as_ref().map(|join| join.request) else {
            return;
        };
        match self.ask(GroupAsk::Join { member, request }) {
            GroupAnswer::Join(answer) => self.joined(client, answer),
            other => panic!("{other:?}"),
        }
    }

    fn joined(&mut self, client: usize, answer: Result<Progress<JoinResult>, GroupRejected>) {
        match answer {
            Ok(Progress::Pending { member, .. }) => self.clients[client].id = Some(member),
            Ok(Progress::Ready(result)) => self.take_generation(client, result),
            Err(GroupRejected::MemberIdRequired(member)) => self.clients[client].id = Some(member),
            Err(GroupRejected::UnknownMember | GroupRejected::FencedInstance) => {
                self.clients[client].id = None;
            }
            Err(GroupRejected::RebalanceInProgress | GroupRejected::GroupFull) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    fn take_generation(&mut self, client: usize, result: JoinResult) {
        assert_eq!(self.holders[&result.member], client);
        assert_eq!(result.generation.value(), self.generation, "an answer is of the last one");
        let leads = result.leader == result.member;
        assert_eq!(leads, !result.members.is_empty(), "only the leader sees the members");
        // During a rebalance the leader may be another than that of the last generation.
        if leads && self.is_settled() {
            let known = (self.place(&result.member), result.protocol.clone());
            let first = self.leaders.entry(result.generation).or_insert_with(|| known.clone());
            assert_eq!(*first, known, "a generation has one leader and one protocol");
        }
        let state = &mut self.clients[client];
        state.id = Some(result.member);
        state.generation = result.generation;
        state.members = result.members.into_iter().map(|joined| joined.member).collect();
        state.leads = leads;
        state.skip_assignment = result.skip_assignment;
    }

    fn is_settled(&self) -> bool {
        use aquifer_metadata::proto::group_snapshot::Phase;
        let snapshot = groups_to_proto(&self.groups);
        let phase = snapshot.groups.first().and_then(|group| group.phase.as_ref());
        matches!(phase, Some(Phase::Completing(_) | Phase::Stable(_)))
    }

    fn sync(&mut self, client: usize) {
        let state = self.clients[client].clone();
        let Some(member) = state.id else { return };
        self.counter += 1;
        let mut assignments = Vec::new();
        if state.leads && !state.skip_assignment {
            for id in &state.members {
                let token =
                    format!("{}/{}/{}", state.generation.value(), id.as_str(), self.counter);
                assignments.push((id.clone(), Bytes::from(token)));
            }
        }
        let by_place: BTreeMap<String, Bytes> =
            assignments.iter().map(|(id, token)| (self.place(id), token.clone())).collect();
        let sync = Sync {
            member,
            instance: instance(client),
            generation: state.generation,
            protocol_type: Some("consumer".to_owned()),
            protocol: None,
            assignments,
        };
        let GroupReply::Sync(answer) = self.apply(GroupAction::Sync(sync)) else {
            panic!("a sync is answered as one")
        };
        if state.leads && answer.is_ok() {
            self.assigned.entry(state.generation).or_insert(by_place);
        }
        self.synced(client, answer);
    }

    /// What an assignment belongs to: a static member's instance, else the member id (a client
    /// that restarted leaves its old id behind).
    fn place(&self, id: &MemberId) -> String {
        instance(self.holders[id]).unwrap_or_else(|| id.as_str().to_owned())
    }

    fn ask_sync(&mut self, client: usize) {
        let Some(member) = self.clients[client].id.clone() else { return };
        let generation = self.clients[client].generation;
        match self.ask(GroupAsk::Sync { member, generation }) {
            GroupAnswer::Sync(answer) => self.synced(client, answer),
            other => panic!("{other:?}"),
        }
    }

    fn synced(&mut self, client: usize, answer: Result<Progress<SyncResult>, GroupRejected>) {
        let generation = self.clients[client].generation;
        let place = self.clients[client].id.as_ref().map(|id| self.place(id)).unwrap_or_default();
        match answer {
            Ok(Progress::Pending { .. }) => {
                assert!(!self.assigned.contains_key(&generation), "the assignment is there");
            }
            Ok(Progress::Ready(result)) => {
                let assigned = self.assigned[&generation].get(&place).cloned();
                assert_eq!(Some(result.assignment), assigned, "the leader's word, once");
            }
            Err(GroupRejected::UnknownMember | GroupRejected::FencedInstance) => {
                self.clients[client].id = None;
            }
            Err(GroupRejected::RebalanceInProgress | GroupRejected::IllegalGeneration) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    fn expire(&mut self, client: usize, stale: bool) {
        let Some(member) = self.clients[client].id.clone() else { return };
        let watched =
            self.groups.members_for_liveness(&|_| true).find(|watched| watched.member == member);
        let Some(watched) = watched else { return };
        let before = self.groups.clone();
        let judged = if stale { watched.touched - 1 } else { watched.touched };
        self.apply(GroupAction::ExpireMember { member, judged });
        assert!(!stale || self.groups == before, "a touched member is spared");
    }

    fn commit(&mut self, client: usize) {
        let Some(member) = self.clients[client].id.clone() else { return };
        let generation = self.clients[client].generation;
        let partition = TopicPartition {
            topic: TopicId::from_bytes([1; 16]),
            partition: PartitionIndex::new(i32::try_from(client).unwrap()),
        };
        let committed = CommittedOffset {
            offset: Offset::new(i64::try_from(self.now_ms).unwrap()).expect("not negative"),
            leader_epoch: None,
            metadata: String::new(),
        };
        let before = self.ask(GroupAsk::Offsets { partitions: None, reader: None });
        let reply = self.apply(GroupAction::CommitOffsets(CommitOffsets {
            member,
            instance: instance(client),
            generation: Some(generation),
            knows_epochs: true,
            offsets: vec![(partition, committed)],
        }));
        if reply == GroupReply::CommitOffsets(Ok(Vec::new())) {
            assert_eq!(generation.value(), self.generation, "an old generation committed");
        } else {
            assert_eq!(before, self.ask(GroupAsk::Offsets { partitions: None, reader: None }));
        }
    }

    fn delete(&mut self) {
        let before = self.groups.clone();
        let known = match self.ask(GroupAsk::Describe) {
            GroupAnswer::Described(found) => found,
            other => panic!("{other:?}"),
        };
        // A rebalance that waits for ids that were given out goes on when nobody is left in it: the
        // group is not empty then, as in Kafka.
        let is_empty = |group: &GroupDescription| group.state == GroupState::Empty;
        if known.as_ref().is_some_and(is_empty) {
            self.begin_again();
        }
        let reply = self.apply(GroupAction::Delete);
        match known {
            None => assert_eq!(reply, GroupReply::Deleted(Err(GroupRejected::UnknownGroup))),
            Some(group) if is_empty(&group) => {
                assert!(group.members.is_empty());
                assert_eq!(reply, GroupReply::Deleted(Ok(())));
                assert_eq!(self.ask(GroupAsk::Describe), GroupAnswer::Described(None));
            }
            Some(_) => {
                assert_eq!(reply, GroupReply::Deleted(Err(GroupRejected::NonEmpty)));
                assert_eq!(self.groups, before);
            }
        }
    }

    /// What comes next is another group of the same name.
    fn begin_again(&mut self) {
        self.generation = 0;
        self.leaders.clear();
        self.assigned.clear();
        // What a client knows of the old generations would be taken for the new ones' word.
        for client in &mut self.clients {
            let (id, last_join) = (client.id.take(), client.last_join.take());
            *client = Client { id, last_join, ..Client::default() };
        }
    }

    fn expire_offsets(&mut self) {
        let name_of = |_| Some("t".to_owned());
        let age = (WallTime::from_millis(9), Duration::ZERO);
        let Some(command) = self.groups.expirable(age, &name_of, 1).pop() else { return };
        let known = match self.ask(GroupAsk::Describe) {
            GroupAnswer::Described(found) => found.expect("something of it is too old"),
            other => panic!("{other:?}"),
        };
        if known.state == GroupState::Empty {
            self.begin_again(); // Unless an id is out, in which case the generation is kept.
        }
        assert_eq!(self.apply(command.action), GroupReply::Done);
        if known.state == GroupState::Empty {
            self.generation = self.generation_now();
            assert_eq!(
                self.ask(GroupAsk::Offsets { partitions: None, reader: None }),
                GroupAnswer::Offsets(Ok(Vec::new()))
            );
        } else {
            let now = self.ask(GroupAsk::Describe);
            assert_eq!(now, GroupAnswer::Described(Some(known)), "members go on as they were");
        }
    }

    /// Members of this model say nothing that is a subscription: only an empty group lets go.
    fn delete_offset(&mut self, index: i32) {
        let topic = TopicId::from_bytes([1; 16]);
        let partitions = vec![PartitionIndex::new(index)];
        let topics = vec![TopicOffsets { topic, name: "t".to_owned(), partitions }];
        let before = self.ask(GroupAsk::Offsets { partitions: None, reader: None });
        let reply = self.apply(GroupAction::DeleteOffsets { topics });
        if reply != GroupReply::OffsetsDeleted(Ok(vec![false])) {
            assert_eq!(before, self.ask(GroupAsk::Offsets { partitions: None, reader: None }));
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now_ms += millis;
        let now = Elapsed::from_millis(self.now_ms);
        let mut replica = self.replica();
        let changed = self.groups.tick(now, WallTime::from_millis(9), &|_| true);
        assert_eq!(replica.tick(now, WallTime::from_millis(9), &|_| true), changed);
        assert_eq!(replica, self.groups);
        assert!(self.groups.next_deadline().is_none_or(|deadline| deadline > now));
        self.check();
    }

    fn ask(&self, ask: GroupAsk) -> GroupAnswer {
        self.groups.query(&GroupQuery { group: GROUP.to_owned(), ask }, &|_| true)
    }

    /// Every client follows the protocol until nothing is pending: the group must settle.
    fn heal(&mut self) {
        for round in 0..40 {
            for client in 0..CLIENTS {
                let member = self.clients[client].id.clone().unwrap_or_default();
                let ask = GroupAsk::Heartbeat {
                    member,
                    instance: instance(client),
                    generation: self.clients[client].generation,
                };
                let waits = matches!(
                    self.clients[client].last_join.as_ref().map(|join| self.ask(GroupAsk::Join {
                        member: self.clients[client].id.clone().unwrap_or_default(),
                        request: join.request,
                    })),
                    Some(GroupAnswer::Join(Ok(Progress::Pending { .. })))
                );
                if waits {
                    self.ask_join(client);
                } else if self.ask(ask) != GroupAnswer::Heartbeat(Ok(())) {
                    if round > 0 && self.clients[client].id.is_none() && client == 3 {
                        continue; // one place fewer than clients
                    }
                    self.join(client, 0);
                    self.ask_join(client);
                }
            }
            for client in 0..CLIENTS {
                self.ask_join(client);
                self.sync(client);
            }
            self.pass(3_000);
        }
        assert!(self.is_settled(), "{:?}", groups_to_proto(&self.groups));
    }
}

fn instance(client: usize) -> Option<String> {
    (client >= FIRST_STATIC).then(|| format!("instance-{client}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_of_a_group_hold_whatever_its_members_do(
        steps in vec(step(), 1..160),
        delay in prop_oneof![Just(0_u32), Just(3_000)],
    ) {
        let mut world = World::new(delay);
        for step in steps {
            world.take(step);
        }
    }

    #[test]
    fn a_group_settles_once_its_members_follow_the_protocol(steps in vec(step(), 1..80)) {
        let mut world = World::new(3_000);
        for step in steps {
            world.take(step);
        }
        world.heal();
    }
}
