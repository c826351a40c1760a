//! A member by the classic protocol: eager, so it gives up everything before it joins again.

use std::time::Duration;

use aquifer_agent::wire::{
    Str,
    messages::{
        HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupRequestProtocols,
        JoinGroupResponse, LeaveGroupRequest, LeaveGroupRequestMembers, LeaveGroupResponse,
        SyncGroupRequest, SyncGroupRequestAssignments, SyncGroupResponse,
    },
};
use bytes::{Buf, BufMut, Bytes};
use tokio::time::{sleep, timeout};

use super::{
    super::{
        Client,
        connection::{Connection, Refused},
    },
    COORDINATOR_AWAY, Committer, FENCED_INSTANCE, ILLEGAL_GENERATION, PATIENCE,
    REBALANCE_IN_PROGRESS, Seat, UNKNOWN_MEMBER, Unruly,
    ledger::Ledger,
    mischief, requests, work,
};
use crate::history::{Key, groups::Protocols};

const JOIN_VERSION: i16 = 7;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_VERSION: i16 = 4;
const MEMBER_ID_REQUIRED: i16 = 79;
const PROTOCOL: &str = "range";
/// A join waits for every other member, and for newcomers to a group that was empty.
const JOIN_MAX: Duration = Duration::from_secs(25);
/// Goodbye takes no longer.
const LEAVE_MAX: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(700);

struct Member {
    client: Client,
    seat: Seat,
    ledger: Ledger,
    /// Empty before it is given one.
    id: String,
    /// `None` while it has to join.
    generation: Option<i32>,
    gone: Option<Committer>,
}

/// Is in the group until told to stop, as well as it can.
pub async fn run(client: Client, seat: Seat) {
    let ledger = Ledger::new(&client.shared, &seat.group, seat.instance);
    let mut member =
        Member { client, seat, ledger, id: String::new(), generation: None, gone: None };
    while !member.client.shared.is_stopping() {
        if let Err(Refused(reason)) = member.connected().await {
            member.client.note(&reason);
        }
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
            epoch: self.generation.unwrap_or(-1),
            held: self.ledger.held(),
        }
    }

    fn forget(&mut self) {
        self.give_up();
        self.ledger.renew(self.client.shared.now());
        self.id.clear();
    }

    async fn leave(&mut self, connection: &mut Connection) -> Result<(), Refused> {
        let id = self.id.clone();
        self.forget();
        if id.is_empty() {
            return Ok(());
        }
        let member = LeaveGroupRequestMembers {
            member_id: Str::from(id.as_str()),
            group_instance_id: self.seat.instance_id().map(Str::from),
            reason: None,
        };
        let request = LeaveGroupRequest {
            group_id: self.group_id(),
            members: vec![member],
            ..LeaveGroupRequest::default()
        };
        let answer: LeaveGroupResponse = connection.call(LEAVE_VERSION, &request, PATIENCE).await?;
        self.client.note(&format!("{id} leaves: {}", answer.error_code));
        Ok(())
    }
}

impl Member {
    async fn connected(&mut self) -> Result<(), Refused> {
        let mut connection = self.client.connect().await?;
        while !self.client.shared.is_stopping() {
            if let Some(mischief) = mischief(&self.client, &self.seat) {
                self.misbehave(mischief, &mut connection).await?;
            }
            match self.generation {
                None => self.rejoin(&mut connection).await?,
                Some(generation) => self.beat(&mut connection, generation).await?,
            }
            if self.generation.is_some() {
                let (committer, mut gone) = (self.committer(), self.gone.take());
                let worked =
                    work(&self.client, &mut connection, &self.seat, &committer, &mut gone).await;
                self.gone = gone;
                worked?;
            }
            if self.client.rng.one_in(30) {
                return Ok(()); // To another agent.
            }
            sleep(self.client.rng.between(INTERVAL / 4, INTERVAL)).await;
        }
        Ok(())
    }

    fn group_id(&self) -> Str {
        Str::from(self.seat.group.name.as_str())
    }

    /// Joins and syncs.
    async fn rejoin(&mut self, connection: &mut Connection) -> Result<(), Refused> {
        if self.seat.group.protocols != Protocols::Classic {
            // Under an id that it had, it may come back to a consumer group after it was out.
            self.ledger.end_life();
        }
        let Some(joined) = self.join(connection).await? else { return Ok(()) };
        let leads = joined.leader == joined.member_id && !joined.leader.is_empty();
        let members: Vec<&str> = joined.members.iter().map(|one| one.member_id.as_str()).collect();
        let assignments = if leads { self.assign(&members) } else { Vec::new() };
        let generation = joined.generation_id;
        let request = SyncGroupRequest {
            group_id: self.group_id(),
            generation_id: generation,
            member_id: joined.member_id.clone(),
            group_instance_id: self.seat.instance_id().map(Str::from),
            protocol_type: Some(Str::from("consumer")),
            protocol_name: joined.protocol_name.clone(),
            assignments,
        };
        let began = self.client.shared.now();
        let answer: SyncGroupResponse = connection.call(SYNC_VERSION, &request, JOIN_MAX).await?;
        let ended = self.client.shared.now();
        match answer.error_code {
            0 => {
                let keys = self.keys(answer.assignment);
                self.ledger.confirmed((began, ended), true);
                self.ledger.told(generation, &keys, (began, ended));
                keys.iter().for_each(|key| self.ledger.gain(*key, ended));
                self.generation = Some(generation);
            }
            code => self.out("sync", code),
        }
        Ok(())
    }

    async fn join(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<JoinGroupResponse>, Refused> {
        let protocol =
            JoinGroupRequestProtocols { name: Str::from(PROTOCOL), metadata: self.subscription() };
        let request = JoinGroupRequest {
            group_id: self.group_id(),
            session_timeout_ms: self.seat.group.session_ms(),
            rebalance_timeout_ms: self.seat.group.rebalance_ms(),
            member_id: Str::from(self.id.as_str()),
            group_instance_id: self.seat.instance_id().map(Str::from),
            protocol_type: Str::from("consumer"),
            protocols: vec![protocol],
            reason: None,
        };
        let began = self.client.shared.now();
        let answer: JoinGroupResponse = connection.call(JOIN_VERSION, &request, JOIN_MAX).await?;
        let ended = self.client.shared.now();
        match answer.error_code {
            0 => {
                let id = answer.member_id.as_str();
                if id != self.id {
                    self.ledger.renew(ended);
                    id.clone_into(&mut self.id);
                }
                self.ledger.is_in(began);
                self.ledger.rejoined(&self.id, ended);
                self.ledger.told(answer.generation_id, &[], (began, ended));
                return Ok(Some(answer));
            }
            MEMBER_ID_REQUIRED => {
                self.ledger.renew(ended);
                answer.member_id.as_str().clone_into(&mut self.id);
            }
            code => self.out("join", code),
        }
        Ok(None)
    }

    async fn beat(&mut self, connection: &mut Connection, generation: i32) -> Result<(), Refused> {
        let request = HeartbeatRequest {
            group_id: self.group_id(),
            generation_id: generation,
            member_id: Str::from(self.id.as_str()),
            group_instance_id: self.seat.instance_id().map(Str::from),
        };
        let began = self.client.shared.now();
        let answer: HeartbeatResponse =
            connection.call(HEARTBEAT_VERSION, &request, PATIENCE).await?;
        let ended = self.client.shared.now();
        match answer.error_code {
            0 => self.ledger.confirmed((began, ended), true),
            REBALANCE_IN_PROGRESS => {
                self.ledger.is_in(began);
                let before = self.committer();
                if self.client.rng.one_in(2) {
                    let seat = &self.seat;
                    requests::commit(&self.client, connection, seat, &before, &before.held).await?;
                }
                self.give_up();
            }
            code => self.out("heartbeat", code),
        }
        Ok(())
    }

    /// What follows from an error code.
    fn out(&mut self, what: &str, code: i16) {
        self.client.note(&format!("{code} to a {what} of {}", self.id));
        match code {
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION => self.give_up(),
            UNKNOWN_MEMBER | FENCED_INSTANCE => {
                self.give_up();
                self.ledger.renew(self.client.shared.now());
                self.id.clear();
            }
            code if COORDINATOR_AWAY.contains(&code) => {}
            code => self.client.unexpected(&format!("{code} to a {what} of {}", self.id)),
        }
    }

    /// It holds nothing any more, and has to join.
    fn give_up(&mut self) {
        if !self.ledger.held().is_empty() {
            self.gone = Some(self.committer());
        }
        self.ledger.lose_all(self.client.shared.now());
        self.generation = None;
    }

    async fn end(&mut self) {
        let left = async {
            let mut connection = self.client.connect().await?;
            self.leave(&mut connection).await
        };
        // Whoever cannot say goodbye is just gone.
        let _ = timeout(LEAVE_MAX, left).await;
        self.forget();
    }

    /// `ConsumerProtocolSubscription` version 1: all topics, and nothing that it would keep.
    fn subscription(&self) -> Bytes {
        let mut bytes = Vec::new();
        bytes.put_i16(1);
        let topics: Vec<&str> = self.client.shared.topics().collect();
        bytes.put_i32(i32::try_from(topics.len()).expect("few"));
        for topic in topics {
            put_text(&mut bytes, topic);
        }
        bytes.put_i32(-1);
        bytes.put_i32(0);
        bytes.into()
    }

    /// The leader's work: every partition to one of `members`, in turn.
    fn assign(&self, members: &[&str]) -> Vec<SyncGroupRequestAssignments> {
        let turn = self.client.rng.below(members.len() as u64);
        let turn = usize::try_from(turn).expect("an index");
        let partitions = self.client.shared.partitions.iter();
        let placed: Vec<_> = partitions
            .enumerate()
            .map(|(place, partition)| ((place + turn) % members.len(), partition))
            .collect();
        let given = |(member, id): (usize, &&str)| {
            let mut bytes = Vec::new();
            bytes.put_i16(1);
            let own: Vec<_> = placed.iter().filter(|(place, _)| *place == member).collect();
            bytes.put_i32(i32::try_from(own.len()).expect("few"));
            for (_, partition) in own {
                put_text(&mut bytes, &partition.topic);
                bytes.put_i32(1);
                bytes.put_i32(partition.index);
            }
            bytes.put_i32(-1);
            SyncGroupRequestAssignments { member_id: Str::from(*id), assignment: bytes.into() }
        };
        members.iter().enumerate().map(given).collect()
    }

    /// The partitions of a `ConsumerProtocolAssignment`.
    fn keys(&self, mut assignment: Bytes) -> Vec<Key> {
        let mut keys = Vec::new();
        if assignment.is_empty() {
            return keys;
        }
        assignment.get_i16();
        for _ in 0..assignment.get_i32() {
            let length = usize::try_from(assignment.get_i16()).expect("a name");
            let topic = assignment.split_to(length);
            for _ in 0..assignment.get_i32() {
                let index = assignment.get_i32();
                let mut partitions = self.client.shared.partitions.iter();
                let found =
                    partitions.find(|one| one.topic.as_bytes() == &topic[..] && one.index == index);
                keys.push(found.expect("a partition that there is").key);
            }
        }
        keys
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.put_i16(i16::try_from(text.len()).expect("short"));
    bytes.extend_from_slice(text.as_bytes());
}
