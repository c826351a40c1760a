//! Clients that behave as Kafka's do, in a world that loses answers, kills, grows and shrinks.
//! What they believe to hold is checked against each other, not against the coordinator.

use proptest::prelude::*;

use super::*;

const CLIENTS: usize = 5;

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    /// A client takes its next step; whether its answer is lost.
    Step(usize, bool),
    /// A client subscribes to other topics, by names or by an expression.
    Subscribe(usize, u8),
    /// A client leaves for good.
    Leave(usize),
    /// A static client leaves for a while.
    Pause(usize),
    /// A client is silent for its session.
    Die(usize),
    /// A topic grows.
    Grow(usize),
    /// A topic goes, and comes back under another id.
    Recreate(usize),
    /// Time passes.
    Pass(u64),
}

/// A consumer.
#[derive(Clone, Debug, Default)]
struct Client {
    /// Counts its lives: each has an id of its own.
    life: u32,
    /// 0 while it is not in.
    epoch: i32,
    wanted: u8,
    owned: BTreeSet<TopicPartition>,
    /// Its last answer was lost: it says everything again.
    unsure: bool,
}

const TOPICS: [&str; 3] = ["t", "u", "ux"];

struct Run {
    world: World,
    clients: Vec<Client>,
}

impl Run {
    fn new() -> Self {
        let world = World::new(&[("t", 3), ("u", 2), ("ux", 1)]);
        let client = |number: u8| Client { wanted: number, ..Client::default() };
        Self { world, clients: (1..=CLIENTS as u8).map(client).collect() }
    }

    fn id(&self, number: usize) -> String {
        format!("m{number}-{}", self.clients[number].life)
    }

    /// The heartbeat of a client as it is; every second one is static.
    fn says(&self, number: usize, epoch: i32) -> ConsumerHeartbeat {
        let client = &self.clients[number];
        let id = self.id(number);
        let instance = (number % 2 == 1).then(|| format!("i{number}"));
        let mut heartbeat = ConsumerHeartbeat { instance, ..holds(&id, epoch, &client.owned) };
        if epoch == 0 || client.unsure {
            let by_name = client.wanted & 8 == 0;
            let wanted = (0..3).filter(|place| client.wanted & (1 << place) != 0);
            let names = wanted.map(|place| TOPICS[place].to_owned());
            heartbeat.subscribed = Some(names.filter(|_| by_name).collect());
            heartbeat.regex = Some(if by_name { String::new() } else { "u.*".to_owned() });
            heartbeat.rebalance_timeout_ms = Some(30_000);
        }
        heartbeat
    }

    /// What a client forgets when it is out.
    fn abandon(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.epoch = 0;
        client.owned.clear();
        client.unsure = false;
    }

    fn step(&mut self, number: usize, is_lost: bool) {
        let heartbeat = self.says(number, self.clients[number].epoch);
        let answer = self.world.heartbeat(&heartbeat);
        if is_lost {
            self.clients[number].unsure = true;
            return;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(rejected) => {
                // An instance may still be held by what the client was before.
                let known = [
                    GroupRejected::UnknownMember,
                    GroupRejected::UnknownGroup,
                    GroupRejected::FencedMemberEpoch,
                    GroupRejected::FencedInstance,
                    GroupRejected::UnreleasedInstance,
                ];
                assert!(known.contains(&rejected.kind), "{rejected:?}");
                return self.abandon(number);
            }
        };
        self.clients[number].unsure = false;
        self.clients[number].epoch = answer.epoch.value();
        if let Some(told) = answer.assignment {
            self.take(number, held(&told));
        }
    }

    /// Revokes what it shall not have any more, and takes what is new.
    fn take(&mut self, number: usize, told: BTreeSet<TopicPartition>) {
        let members = self.world.describe().map(|group| group.members).unwrap_or_default();
        for (other, client) in self.clients.iter().enumerate() {
            // Who is out by now does not know it yet; its partitions are free.
            let is_in = members
                .iter()
                .any(|member| member.member.as_str() == self.id(other) && member.epoch.value() > 0);
            if other != number && is_in {
                let both: Vec<_> = client.owned.intersection(&told).collect();
                assert!(both.is_empty(), "{both:?} is still held by {}", self.id(other));
            }
        }
        self.clients[number].owned = told;
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Step(number, is_lost) => self.step(*number, *is_lost),
            Event::Subscribe(number, wanted) => {
                self.clients[*number].wanted = *wanted;
                self.clients[*number].unsure = true;
            }
            Event::Leave(number) => {
                let _ = self.world.heartbeat(&self.says(*number, -1));
                self.abandon(*number);
                self.clients[*number].life += 1;
            }
            Event::Pause(number) if number % 2 == 1 => {
                let _ = self.world.heartbeat(&self.says(*number, -2));
                self.abandon(*number);
                self.clients[*number].life += 1;
            }
            Event::Pause(_) => {}
            Event::Die(number) => {
                let id = self.id(*number);
                let mut all = self.world.groups.members_for_liveness(&self.world.catalog);
                let watched = all.find(|watched| watched.member.as_str() == id);
                drop(all);
                if let Some(watched) = watched {
                    let (member, judged) = (watched.member, watched.touched);
                    self.world.apply(GroupAction::ExpireMember { member, judged });
                }
            }
            Event::Grow(place) => {
                let size = self.world.catalog.topics[TOPICS[*place]].1;
                self.world.grow(TOPICS[*place], (size + 1).min(6));
            }
            Event::Recreate(place) => {
                self.world.delete(TOPICS[*place]);
                self.world.create(TOPICS[*place], 2);
            }
            Event::Pass(millis) => self.world.pass(*millis),
        }
    }

    /// Everybody takes steps until nobody's do anything, and has what the group meant it to have.
    fn converge(&mut self) {
        for _ in 0..8 {
            for number in 0..CLIENTS {
                self.step(number, false);
            }
        }
        // An instance whose holder was killed, or did not hear that it is in, is free after its
        // session: Kafka lets nobody have it before.
        let stale: Vec<_> = self.world.groups.members_for_liveness(&self.world.catalog).collect();
        let is_in = |number: &usize| self.clients[*number].epoch > 0;
        let ids: Vec<String> = (0..CLIENTS).filter(is_in).map(|number| self.id(number)).collect();
        for watched in stale.into_iter().filter(|one| !ids.contains(&one.member.as_str().into())) {
            let (member, judged) = (watched.member, watched.touched);
            self.world.apply(GroupAction::ExpireMember { member, judged });
        }
        for _ in 0..8 {
            for number in 0..CLIENTS {
                self.step(number, false);
            }
        }
        let group = self.world.describe().unwrap();
        assert_eq!(group.state, GroupState::Stable, "{group:#?}");
        let mut all = BTreeSet::new();
        for (number, client) in self.clients.iter().enumerate() {
            let id = self.id(number);
            let found = group.members.iter().find(|member| member.member.as_str() == id);
            let member = found.expect("everybody is in");
            assert_eq!(client.owned, held(&member.target), "{id} has what it shall have");
            all.extend(client.owned.iter().copied());
        }
        let topics = &self.world.catalog.topics;
        let mut expected = BTreeSet::new();
        for client in &self.clients {
            for (place, name) in TOPICS.iter().enumerate() {
                let by_name = client.wanted & 8 == 0;
                let wants = if by_name { client.wanted & (1 << place) != 0 } else { place > 0 };
                let (topic, size) = topics[*name];
                let partition =
                    |index| TopicPartition { topic, partition: PartitionIndex::new(index) };
                expected.extend((0..size as i32).filter(|_| wants).map(partition));
            }
        }
        assert_eq!(all, expected, "and together they have everything");
    }
}

fn events() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    prop_oneof![
        30 => (client.clone(), prop::bool::weighted(0.15)).prop_map(|(n, lost)| Event::Step(n, lost)),
        2 => (client.clone(), 0_u8..16).prop_map(|(n, wanted)| Event::Subscribe(n, wanted)),
        1 => client.clone().prop_map(Event::Leave),
        1 => client.clone().prop_map(Event::Pause),
        1 => client.prop_map(Event::Die),
        1 => (0..TOPICS.len()).prop_map(Event::Grow),
        1 => (0..TOPICS.len()).prop_map(Event::Recreate),
        2 => (0_u64..40_000).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_is_held_twice_and_everybody_settles(
        events in prop::collection::vec(events(), 0..120),
        interval in prop::option::of(0_u32..3_000),
    ) {
        let mut run = Run::new();
        if let Some(millis) = interval {
            run.world.set("consumer.assignment.interval.ms", &millis.to_string());
        }
        for event in &events {
            run.event(event);
        }
        run.world.set("consumer.assignment.interval.ms", "0");
        run.converge();
    }
}
