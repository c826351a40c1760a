//! A member by the consumer protocol of KIP-848, as Kafka's: what it has to give up it gives up
//! before it says so, and it says everything again when it may have missed an answer.

use std::{collections::BTreeMap, time::Duration};

use aquifer_agent::wire::{
    Str,
    messages::{
        ConsumerGroupHeartbeatRequest as Request,
        ConsumerGroupHeartbeatRequestTopicPartitions as Owned,
        ConsumerGroupHeartbeatResponse as Response,
        ConsumerGroupHeartbeatResponseAssignment as Assignment,
    },
};
use tokio::time::{sleep, timeout};

use super::{
    super::{
        Client,
        connection::{Connection, Refused},
    },
    COORDINATOR_AWAY, Committer, FENCED_EPOCH, FENCED_INSTANCE, NO_SUCH_GROUP, PATIENCE, Seat,
    UNKNOWN_MEMBER, UNRELEASED_INSTANCE, Unruly,
    ledger::Ledger,
    mischief, requests, work,
};
use crate::history::Key;

/// The version in which a member brings its own id.
const VERSION: i16 = 1;
const JOINS: i32 = 0;
const LEAVES: i32 = -1;
const LEAVES_FOR_A_WHILE: i32 = -2;
/// Goodbye takes no longer.
const LEAVE_MAX: Duration = Duration::from_secs(10);

struct Member {
    client: Client,
    seat: Seat,
    ledger: Ledger,
    id: String,
    epoch: i32,
    /// What it holds is not what it said last.
    has_news: bool,
    /// An answer is missing: everything is said again.
    is_unsure: bool,
    /// What it was, or held, before.
    gone: Option<Committer>,
}

/// Is in the group until told to stop, as well as it can.
pub async fn run(client: Client, seat: Seat) {
    let ledger = Ledger::new(&client.shared, &seat.group, seat.instance);
    let id = format!("consumer-{}", ledger.member().0);
    let mut member = Member {
        client,
        seat,
        ledger,
        id,
        epoch: JOINS,
        has_news: false,
        is_unsure: false,
        gone: None,
    };
    while !member.client.shared.is_stopping() {
        if let Err(Refused(reason)) = member.connected().await {
            member.client.note(&reason);
        }
        member.is_unsure = true;
        let pause =
            member.client.rng.between(Duration::from_millis(20), Duration::from_millis(300));
        sleep(pause).await;
    }
    member.end().await;
}

impl Unruly for Member {
    fn client(&self) -> &Client {
        &self.client
    }

    fn seat(&self) -> &Seat {
        &self.seat
    }

    fn committer(&self) -> Committer {
        Committer {
            member: self.ledger.member(),
            id: self.id.clone(),
            instance: self.seat.instance_id(),
            epoch: self.epoch,
            held: self.ledger.held(),
        }
    }

    fn forget(&mut self) {
        self.renew();
    }

    async fn leave(&mut self, connection: &mut Connection) -> Result<(), Refused> {
        let was_in = self.epoch != JOINS;
        self.abandon();
        self.epoch = JOINS;
        if !was_in {
            return Ok(());
        }
        let for_a_while = self.seat.instance.is_some() && !self.client.rng.one_in(3);
        let request = Request {
            group_id: Str::from(self.seat.group.name.as_str()),
            member_id: Str::from(self.id.as_str()),
            member_epoch: if for_a_while { LEAVES_FOR_A_WHILE } else { LEAVES },
            instance_id: self.seat.instance_id().map(Str::from),
            ..Request::default()
        };
        let answer: Result<Response, Refused> = connection.call(VERSION, &request, PATIENCE).await;
        let code = answer.as_ref().map(|answer| answer.error_code);
        self.client.note(&format!("{} leaves: {code:?}", self.id));
        if code != Ok(0) {
            // It may leave yet, late: whoever comes back must not be the one that goes.
            self.renew();
        }
        answer.map(|_| ())
    }
}

impl Member {
    async fn connected(&mut self) -> Result<(), Refused> {
        let mut connection = self.client.connect().await?;
        while !self.client.shared.is_stopping() {
            if let Some(mischief) = mischief(&self.client, &self.seat) {
                self.misbehave(mischief, &mut connection).await?;
            }
            let interval = self.beat(&mut connection).await?;
            if self.epoch != JOINS {
                let (committer, mut gone) = (self.committer(), self.gone.take());
                let worked =
                    work(&self.client, &mut connection, &self.seat, &committer, &mut gone).await;
                self.gone = gone;
                worked?;
                if self.client.rng.one_in(6) {
                    let reader = Some((self.id.as_str(), self.epoch));
                    let group = &self.seat.group;
                    requests::fetch(&self.client, &mut connection, group, reader).await?;
                }
            }
            if self.client.rng.one_in(30) {
                return Ok(()); // To another agent.
            }
            sleep(self.client.rng.between(interval / 2, interval)).await;
        }
        Ok(())
    }

    /// A sign of life, and what follows from its answer. Gives the time until the next.
    async fn beat(&mut self, connection: &mut Connection) -> Result<Duration, Refused> {
        let joins = self.epoch == JOINS;
        if joins {
            self.ledger.end_life();
        }
        let says_all = joins || self.is_unsure;
        let topics = self.client.shared.topics().map(Str::from);
        let request = Request {
            group_id: Str::from(self.seat.group.name.as_str()),
            member_id: Str::from(self.id.as_str()),
            member_epoch: self.epoch,
            instance_id: self.seat.instance_id().map(Str::from),
            rebalance_timeout_ms: if says_all { self.seat.group.rebalance_ms() } else { -1 },
            subscribed_topic_names: says_all.then(|| topics.collect()),
            topic_partitions: (says_all || self.has_news).then(|| self.owned()),
            ..Request::default()
        };
        let began = self.client.shared.now();
        self.ledger.asked(began);
        self.is_unsure = true;
        let answer: Response = connection.call(VERSION, &request, PATIENCE).await?;
        let ended = self.client.shared.now();
        let interval = Duration::from_millis(500);
        match answer.error_code {
            0 => return self.accepted(answer, (began, ended), connection).await,
            FENCED_EPOCH | UNKNOWN_MEMBER | NO_SUCH_GROUP => {
                self.abandon();
                self.epoch = JOINS;
            }
            FENCED_INSTANCE => self.renew(),
            UNRELEASED_INSTANCE => {}
            code if COORDINATOR_AWAY.contains(&code) => {}
            code => self.client.unexpected(&format!("{code} to a heartbeat of {}", self.id)),
        }
        let (id, epoch, code) = (&self.id, self.epoch, answer.error_code);
        self.client.note(&format!("{code} to {id} in epoch {epoch}"));
        Ok(interval)
    }

    /// What it holds, by topic.
    fn owned(&self) -> Vec<Owned> {
        let mut topics = BTreeMap::<_, Vec<i32>>::new();
        for (key, _) in self.ledger.held() {
            let partition = self.client.partition(key);
            let id = self.seat.group.topic_id(&partition.topic);
            topics.entry(*id.as_bytes()).or_default().push(partition.index);
        }
        let one = |(id, partitions)| Owned { topic_id: id_of(id), partitions };
        topics.into_iter().map(one).collect()
    }

    async fn accepted(
        &mut self,
        answer: Response,
        (began, ended): (u64, u64),
        connection: &mut Connection,
    ) -> Result<Duration, Refused> {
        self.is_unsure = false;
        self.has_news = false;
        if self.epoch == JOINS {
            self.ledger.joined(&self.id, ended);
        }
        self.epoch = answer.member_epoch;
        let assigned = answer.assignment.as_ref().map(|assignment| self.keys(assignment));
        let held = self.ledger.held();
        let (mut gives_up, mut gets) = (Vec::new(), Vec::new());
        if let Some(assigned) = &assigned {
            gives_up.extend(held.iter().filter(|(key, _)| !assigned.contains(key)).copied());
            gets.extend(assigned.iter().filter(|key| !self.ledger.holds(**key)).copied());
        }
        self.ledger.confirmed((began, ended), gives_up.is_empty());
        if let Some(assigned) = assigned {
            self.ledger.told(self.epoch, &assigned, (began, ended));
        }
        gets.iter().for_each(|key| self.ledger.gain(*key, ended));
        self.has_news = !gives_up.is_empty() || !gets.is_empty();
        if gives_up.is_empty() {
            let interval = u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0).max(50);
            let waits = if self.has_news { 20 } else { interval };
            return Ok(Duration::from_millis(waits));
        }
        let before = Committer { held: gives_up.clone(), ..self.committer() };
        let mut outcome = Ok(());
        if self.client.rng.one_in(2) {
            let seat = &self.seat;
            outcome = requests::commit(&self.client, connection, seat, &before, &gives_up).await;
        }
        gives_up.iter().for_each(|(key, _)| self.ledger.lose(*key, self.client.shared.now()));
        self.gone = Some(before);
        outcome?;
        let slow = self.client.rng.one_in(4) && !self.client.shared.is_calm();
        let slow = if slow { self.seat.group.session / 2 } else { Duration::from_millis(40) };
        Ok(self.client.rng.between(Duration::from_millis(1), slow))
    }

    fn keys(&self, assignment: &Assignment) -> Vec<Key> {
        let mut keys = Vec::new();
        for topic in &assignment.topic_partitions {
            for index in &topic.partitions {
                let partitions = &self.client.shared.partitions;
                let found = partitions.iter().find(|one| {
                    self.seat.group.topic_id(&one.topic) == topic.topic_id && one.index == *index
                });
                keys.push(found.expect("a partition that there is").key);
            }
        }
        keys
    }

    /// It is out, and gives up everything at once.
    fn abandon(&mut self) {
        if !self.ledger.held().is_empty() {
            self.gone = Some(self.committer());
        }
        self.ledger.lose_all(self.client.shared.now());
        self.ledger.end_life();
    }

    /// It comes back as somebody else.
    fn renew(&mut self) {
        self.abandon();
        self.ledger.renew(self.client.shared.now());
        self.id = format!("consumer-{}", self.ledger.member().0);
        self.epoch = JOINS;
    }

    /// Leaves for good.
    async fn end(&mut self) {
        let left = async {
            let mut connection = self.client.connect().await?;
            self.leave(&mut connection).await
        };
        // Whoever cannot say goodbye is just gone.
        let _ = timeout(LEAVE_MAX, left).await;
        self.abandon();
    }
}

fn id_of(bytes: [u8; 16]) -> aquifer_agent::wire::Uuid {
    aquifer_agent::wire::Uuid::from_bytes(bytes)
}
