//! Clients as they are, over one group: they join, work, commit, rejoin after a refusal, lose
//! their connection, fall silent and come back in any order. Checked after every step:
//! - every answer of one generation names one leader and one protocol, and generations grow;
//! - a member's assignment is what the leader gave it in that generation, and never another;
//! - who is parked is woken: its answer does not change unless the version moved;
//! - and once clients only go on, they are all stable in one generation, and nobody else is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// More than a first join may be parked, and the rounds of rebalancing after that.
const HEALED_WITHIN_MS: u64 = 400_000;
const CLIENTS: usize = 4;

/// What a client's next request is.
#[derive(Clone, Debug)]
enum State {
    /// Not running.
    Gone,
    /// Has to join.
    Out,
    /// Its JoinGroup waits at an agent.
    Joining { version: u64, number: u64 },
    /// Has to sync.
    Joined(JoinResult),
    /// Its SyncGroup waits at an agent.
    Syncing { version: u64, at: GenerationId },
    /// Consumes.
    Stable { at: GenerationId },
}

struct Client {
    id: MemberId,
    state: State,
    instance: Option<String>,
    asks_id_first: bool,
    metadata: u8,
    last_join: Option<Join>,
}

/// What is known of a generation, by who its members are rather than by their ids.
struct Generation {
    leader: String,
    protocol: String,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The client does what a client does next.
    Step(usize),
    /// Its process dies.
    Kill(usize),
    /// It starts again and remembers nothing.
    Start(usize),
    /// The connection its request waits on breaks.
    Disconnect(usize),
    Leave(usize),
    /// Subscribes to something else.
    Resubscribe(usize),
    /// An agent sends the join again: it did not hear the answer.
    RepeatJoin(usize),
    Commit(usize),
    Pass(u64),
    /// A while in which everyone only goes on.
    Quiet,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let client = 0..CLIENTS;
    let op = prop_oneof![
        12 => client.clone().prop_map(Op::Step),
        1 => client.clone().prop_map(Op::Kill),
        2 => client.clone().prop_map(Op::Start),
        1 => client.clone().prop_map(Op::Disconnect),
        1 => client.clone().prop_map(Op::Leave),
        1 => client.clone().prop_map(Op::Resubscribe),
        1 => client.clone().prop_map(Op::RepeatJoin),
        1 => client.prop_map(Op::Commit),
        1 => Just(Op::Quiet),
        3 => prop_oneof![Just(10_u64), Just(500), Just(3_000), Just(11_000), Just(61_000)]
            .prop_map(Op::Pass),
    ];
    proptest::collection::vec(op, 1..150)
}

/// The clients, their group, and the metadata leader's notes of who was heard.
struct Model {
    world: World,
    clients: Vec<Client>,
    heard: BTreeMap<MemberId, (u64, u64)>,
    /// Who stands behind each id: the id itself, or the static member.
    owners: BTreeMap<MemberId, String>,
    generations: BTreeMap<GenerationId, Generation>,
    newest: GenerationId,
    drawn: u32,
}

impl Model {
    fn new() -> Self {
        let client = |index: usize| Client {
            id: MemberId::default(),
            state: State::Out,
            instance: (index == 0).then(|| "static".to_owned()),
            asks_id_first: index != 1,
            metadata: 0,
            last_join: None,
        };
        Self {
            world: World::new(),
            clients: (0..CLIENTS).map(client).collect(),
            heard: BTreeMap::new(),
            owners: BTreeMap::new(),
            generations: BTreeMap::new(),
            newest: GenerationId::default(),
            drawn: 0,
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Step(index) => self.step(index),
            Op::Kill(index) => self.clients[index].state = State::Gone,
            Op::Start(index) => {
                self.clients[index].id = MemberId::default();
                self.clients[index].state = State::Out;
            }
            Op::Disconnect(index) => {
                let client = &mut self.clients[index];
                if matches!(client.state, State::Joining { .. })
                    && client.last_join.as_ref().is_some_and(|join| join.member.is_empty())
                {
                    // Its agent knew its id, it did not: it comes back as somebody else.
                    client.id = MemberId::default();
                }
                if matches!(client.state, State::Joining { .. } | State::Syncing { .. }) {
                    client.state = State::Out;
                }
            }
            Op::Leave(index) => self.leave(index),
            Op::Resubscribe(index) => {
                let client = &mut self.clients[index];
                client.metadata = client.metadata.wrapping_add(1);
                if !matches!(client.state, State::Gone) {
                    client.state = State::Out;
                }
            }
            Op::RepeatJoin(index) => self.repeat_join(index),
            Op::Commit(index) => self.commit(index),
            Op::Pass(millis) => self.pass(millis),
            Op::Quiet => self.rounds(20),
        }
        self.note_generation();
        self.nobody_parked_missed_its_answer();
    }

    fn note_generation(&mut self) {
        // A group that is forgotten had nobody in any generation.
        let now = self.world.groups.iter().map(|(_, group)| group.generation).next();
        let now = now.unwrap_or_default();
        assert!(self.newest <= now, "generations grow");
        self.newest = now;
    }

    fn step(&mut self, index: usize) {
        match self.clients[index].state.clone() {
            State::Gone => {}
            State::Out => self.join(index),
            State::Joining { number, .. } => {
                let id = self.clients[index].id.clone();
                let answer = self.world.ask_join(id.as_str(), number);
                self.joined(index, number, answer);
            }
            State::Joined(joined) => self.sync(index, &joined),
            State::Syncing { at, .. } => {
                let id = self.clients[index].id.clone();
                let answer = self.world.ask_sync(id.as_str(), at.value());
                self.synced(index, at, answer);
            }
            State::Stable { at } => {
                let client = &self.clients[index];
                let instance = client.instance.as_deref();
                match self.world.heartbeat_of(client.id.as_str(), instance, at.value()) {
                    Ok(()) => self.hear(index),
                    Err(rejected) => {
                        // It waits for its other work first, and lives meanwhile.
                        self.hear(index);
                        self.refused(index, &rejected);
                    }
                }
            }
        }
    }

    fn join(&mut self, index: usize) {
        self.drawn += 1;
        let drawn = format!("m{}", self.drawn);
        let client = &self.clients[index];
        let known = !client.id.is_empty();
        let join = self.world.a_join(if known { client.id.as_str() } else { &drawn }, known);
        let join = Join {
            proposed_member: member(&drawn),
            require_known_member: client.asks_id_first && client.instance.is_none(),
            instance: client.instance.clone(),
            protocols: vec![("range".to_owned(), Bytes::copy_from_slice(&[client.metadata]))],
            ..join
        };
        let owner = client.instance.clone().unwrap_or_else(|| drawn.clone());
        self.owners.insert(member(&drawn), owner);
        self.clients[index].last_join = Some(join.clone());
        let number = join.request.number;
        let answer = self.world.join(join);
        self.joined(index, number, answer);
    }

    fn repeat_join(&mut self, index: usize) {
        let Some(join) = self.clients[index].last_join.clone() else { return };
        let number = join.request.number;
        let answer = self.world.join(join);
        // Only the join a client still waits for is answered to it.
        if matches!(self.clients[index].state, State::Joining { number: waits, .. } if waits == number)
        {
            self.joined(index, number, answer);
        }
    }

    fn joined(
        &mut self,
        index: usize,
        number: u64,
        answer: Result<Progress<JoinResult>, GroupRejected>,
    ) {
        self.note_generation();
        match answer {
            Ok(Progress::Pending { member, version }) => {
                // The agent learns the id; the client does not, until the answer.
                self.clients[index].id = member;
                self.clients[index].state = State::Joining { version, number };
                self.hear(index);
            }
            Ok(Progress::Ready(joined)) => {
                self.check_generation(&joined);
                self.clients[index].id = joined.member.clone();
                self.clients[index].state = State::Joined(joined);
            }
            Err(rejected) => self.refused(index, &rejected),
        }
    }

    fn check_generation(&mut self, joined: &JoinResult) {
        assert!(joined.generation <= self.newest, "an answer from the future");
        let leader = self.owners[&joined.leader].clone();
        let protocol = joined.protocol.clone();
        // A late answer may name the leader of the round after; its sync is refused.
        let status =
            self.world.heartbeat_of(joined.member.as_str(), None, joined.generation.value());
        if status == Err(GroupRejected::RebalanceInProgress) {
            return;
        }
        let known = self
            .generations
            .entry(joined.generation)
            .or_insert_with(|| Generation { leader: leader.clone(), protocol: protocol.clone() });
        assert_eq!((&known.leader, &known.protocol), (&leader, &protocol), "one leader");
    }

    fn sync(&mut self, index: usize, joined: &JoinResult) {
        let at = joined.generation;
        let given = joined.members.iter().map(|other| {
            let owner = &self.owners[&other.member];
            (other.member.clone(), Bytes::from(format!("{} {owner}", at.value())))
        });
        let sync = Sync {
            member: joined.member.clone(),
            instance: self.clients[index].instance.clone(),
            generation: at,
            protocol_type: Some(joined.protocol_type.clone()),
            protocol: Some(joined.protocol.clone()),
            assignments: if joined.skip_assignment { Vec::new() } else { given.collect() },
        };
        let answer = self.world.sync_as(sync);
        self.synced(index, at, answer);
    }

    fn synced(
        &mut self,
        index: usize,
        at: GenerationId,
        answer: Result<Progress<SyncResult>, GroupRejected>,
    ) {
        match answer {
            Ok(Progress::Pending { version, .. }) => {
                self.clients[index].state = State::Syncing { version, at };
                self.hear(index);
            }
            Ok(Progress::Ready(synced)) => {
                let owner = &self.owners[&self.clients[index].id];
                let expected = Bytes::from(format!("{} {owner}", at.value()));
                assert_eq!(synced.assignment, expected, "as its leader said");
                self.clients[index].state = State::Stable { at };
            }
            Err(rejected) => self.refused(index, &rejected),
        }
    }

    /// What clients do about a refusal: join again, as the same member if they may.
    fn refused(&mut self, index: usize, rejected: &GroupRejected) {
        let client = &mut self.clients[index];
        match rejected {
            GroupRejected::MemberIdRequired(id) => client.id = id.clone(),
            GroupRejected::RebalanceInProgress | GroupRejected::IllegalGeneration => {}
            GroupRejected::UnknownMember | GroupRejected::FencedInstance => {
                client.id = MemberId::default();
            }
            other => panic!("no client of this group may be refused with {other:?}"),
        }
        client.state = State::Out;
    }

    fn leave(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.state = State::Gone;
        let (id, instance) = (client.id.clone(), client.instance.clone());
        if !id.is_empty() {
            let _ = self.world.leave(&[(id.as_str(), instance.as_deref())]);
        }
    }

    fn commit(&mut self, index: usize) {
        let State::Stable { at } = self.clients[index].state else { return };
        let id = self.clients[index].id.clone();
        let before = self.world.committed();
        if self.world.commit(id.as_str(), Some(at.value()), 7).is_ok() {
            assert_eq!(at, self.newest, "only the newest generation commits");
            self.hear(index);
        } else {
            assert_eq!(self.world.committed(), before);
        }
    }

    fn hear(&mut self, index: usize) {
        if let Some((_, heard)) = self.heard.get_mut(&self.clients[index].id) {
            *heard = self.world.now_ms;
        }
    }

    /// Lets time pass in the steps of the metadata leader, which expires who is silent. Agents ask
    /// for those who are parked.
    fn pass(&mut self, millis: u64) {
        let end = self.world.now_ms + millis;
        while self.world.now_ms < end {
            self.world.pass(500.min(end - self.world.now_ms));
            let before = std::mem::take(&mut self.heard);
            let watched: Vec<LivenessMember> =
                self.world.groups.members_for_liveness(&|_| true).collect();
            for one in watched {
                let heard = before
                    .get(&one.member)
                    .filter(|(touched, _)| *touched == one.touched)
                    .map_or(self.world.now_ms, |(_, heard)| *heard);
                if heard + u64::from(one.session_timeout_ms) < self.world.now_ms {
                    let action = GroupAction::ExpireMember {
                        member: one.member.clone(),
                        judged: one.touched,
                    };
                    self.world.apply(action);
                }
                self.heard.insert(one.member, (one.touched, heard));
            }
            for index in 0..CLIENTS {
                if matches!(
                    self.clients[index].state,
                    State::Joining { .. } | State::Syncing { .. }
                ) {
                    self.hear(index);
                }
            }
        }
    }

    fn nobody_parked_missed_its_answer(&self) {
        let now = self.world.groups.version(GROUP);
        for client in &self.clients {
            let id = client.id.as_str();
            let parked = match client.state {
                State::Joining { version, number } if version == now => {
                    is_pending(&self.world.ask_join(id, number))
                }
                State::Syncing { version, at } if version == now => {
                    is_pending(&self.world.ask_sync(id, at.value()))
                }
                _ => true,
            };
            assert!(parked, "{id} was answered without being woken");
        }
    }

    /// Everyone who runs only goes on, until all are stable together.
    fn heal(&mut self) {
        let end = self.world.now_ms + HEALED_WITHIN_MS;
        while !self.is_healed() {
            assert!(self.world.now_ms < end, "the group does not settle");
            self.rounds(1);
        }
    }

    fn rounds(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for index in 0..CLIENTS {
                self.run(Op::Step(index));
            }
            self.pass(500);
        }
    }

    fn is_healed(&self) -> bool {
        let running = || self.clients.iter().filter(|client| !matches!(client.state, State::Gone));
        let all_work = running().all(|client| match client.state {
            State::Stable { at } => {
                let instance = client.instance.as_deref();
                self.world.heartbeat_of(client.id.as_str(), instance, at.value()) == Ok(())
            }
            _ => false,
        });
        let members =
            self.world.groups.iter().map(|(_, group)| group.members.size()).sum::<usize>();
        all_work && members == running().count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_group_keeps_its_word_to_every_client_and_settles(ops in ops()) {
        let mut model = Model::new();
        for op in ops {
            model.run(op);
        }
        model.heal();
    }
}
