//! How a group comes to be: the founder with the lowest id waits until it met all the others, each
//! on an empty folder, and writes the first membership; the others get it from its log.
//!
//! # Invariants
//! - One node only ever begins a group, and only when nobody of it was ever part of one.
//! - The membership names the data folder of each voter. A node on another folder is refused under
//!   that id for ever: what it voted for is not known any more.

use std::{collections::BTreeMap, time::Duration};

use aquifer_storage::seam::Seams;
use tokio::sync::watch;

use super::{Fatal, health::report, leadership::Leadership};
use crate::{
    proto::{self, hello_reply::Reply, refusal::Kind},
    raft::{
        Member, RaftHandle,
        network::{Grpc, Lane, PeerError, Peers},
    },
};

/// How often those that are missing are asked again, and how long one is waited for.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
const ASK_MAX: Duration = Duration::from_secs(1);
/// How often the members of a group greet each other.
const GREET_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is said who is missing.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// What a node without a group does.
pub(super) struct Formation {
    pub(super) raft: RaftHandle,
    pub(super) peers: Peers,
    /// Everyone who begins the group, with their addresses.
    pub(super) founders: BTreeMap<u64, String>,
    pub(super) fatal: watch::Sender<Option<Fatal>>,
    pub(super) seams: Seams,
}

impl Formation {
    /// Works until this node is part of a group, or never can be.
    pub(super) async fn run(self) {
        let mut said = None;
        while let Ok(false) = self.raft.is_initialized().await {
            let step = match self.meet().await {
                Ok(members) if self.begins() => {
                    let voters: Vec<u64> = members.keys().copied().collect();
                    match self.raft.initialize(members).await {
                        Ok(()) => tracing::info!(?voters, "began the metadata group"),
                        Err(error) => tracing::error!(%error, "cannot begin the metadata group"),
                    }
                    continue;
                }
                Ok(_) => format!("waiting for node {:?} to begin the group", self.first()),
                Err(Missing::Never(reason)) => return report(&self.fatal, &reason),
                Err(Missing::Yet(error)) => format!("waiting for the other nodes: {error}"),
            };
            let now = self.seams.clock.mono();
            if said.is_none_or(|at| SAY_INTERVAL < now.since(at)) {
                tracing::info!("{step}");
                said = Some(now);
            }
            self.seams.sleep(ASK_INTERVAL).await;
        }
    }

    fn first(&self) -> Option<u64> {
        self.founders.keys().next().copied()
    }

    fn begins(&self) -> bool {
        self.first() == Some(self.peers.me().id)
    }

    /// Who all the founders are, when each answers and none is part of a group.
    async fn meet(&self) -> Result<BTreeMap<u64, Member>, Missing> {
        let me = self.peers.me();
        let mut members = BTreeMap::new();
        for (id, address) in &self.founders {
            let mut member = Member { address: address.clone(), incarnation: me.incarnation };
            if *id != me.id {
                let hello = self.ask(*id, address).await?;
                member.incarnation = hello.incarnation;
                if hello.initialized && self.begins() {
                    return Err(Missing::Never(format!(
                        "node {id} at {address} is part of a group that does not know node {}: \
                         start this node with an empty --data and --join {address}",
                        me.id
                    )));
                }
            }
            members.insert(*id, member);
        }
        Ok(members)
    }

    async fn ask(&self, id: u64, address: &str) -> Result<proto::Hello, Missing> {
        let send = |mut grpc: Grpc, peer| {
            let request = proto::HelloRequest { peer: Some(peer) };
            async move { grpc.hello(request).await }
        };
        let member = Member { address: address.to_owned(), incarnation: 0 };
        match self.peers.call((id, &member), ASK_MAX, send).await?.reply {
            Some(Reply::Hello(hello)) => Ok(hello),
            Some(Reply::Refusal(refusal)) if refusal.kind() == Kind::Fenced => {
                Err(Missing::Never(refusal.reason))
            }
            Some(Reply::Refusal(refusal)) => Err(self.peers.refused(id, refusal).into()),
            None => {
                let reason = "it says nothing of itself".into();
                Err(PeerError::Unreachable { id, reason }.into())
            }
        }
    }
}

/// Meets the other members now and then, over the roads an election and the entries behind it
/// take: so that a new leader finds them made, and a node that is refused hears of it.
pub(super) async fn keep_in_touch(leadership: Leadership, peers: Peers, seams: Seams) {
    loop {
        let others = leadership.others();
        let greetings = others.iter().flat_map(|(id, member)| {
            let greet = |lane| greet(&peers, *id, member, lane, &seams);
            [greet(Lane::Control), greet(Lane::Entries)]
        });
        futures::future::join_all(greetings).await;
        let interval = if others.is_empty() { ASK_INTERVAL } else { GREET_INTERVAL };
        seams.sleep(interval).await;
    }
}

async fn greet(peers: &Peers, id: u64, member: &Member, lane: Lane, seams: &Seams) {
    let Ok(mut grpc) = peers.client(id, member, lane) else { return };
    let request = proto::HelloRequest { peer: Some(peers.me().speaking_to(id, member)) };
    let reply = seams.timeout(ASK_MAX, grpc.hello(request)).await;
    if let Some(Ok(reply)) = reply
        && let Some(Reply::Refusal(refusal)) = reply.into_inner().reply
    {
        peers.refused(id, refusal);
    }
}

/// Why a group cannot begin.
enum Missing {
    Yet(PeerError),
    Never(String),
}

impl From<PeerError> for Missing {
    fn from(error: PeerError) -> Self {
        Self::Yet(error)
    }
}
