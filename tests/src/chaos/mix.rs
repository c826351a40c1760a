//! One fault after the other, drawn from a seed: what a long run does.
//!
//! Every fourth period has no fault: some faults only show in how things go on. After each period
//! everything is put right, and must work again before the next fault comes.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    lab::{Lab, Server},
    load::Load,
    network::Cut,
};
use crate::sim::rng::SimRng;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing.
    None,
    /// kill -9 of an agent.
    KillAgent,
    /// kill -9 of the leader.
    KillLeader,
    /// kill -9 of another node.
    KillFollower,
    /// kill -9 of two nodes: nothing is acknowledged.
    KillMajority,
    /// kill -9 of everything but the store.
    KillAll,
    /// An agent stands still.
    PauseAgent,
    /// The leader stands still.
    PauseLeader,
    /// The leader hands over.
    Transfer,
    /// The leader hears and reaches no other node.
    CutLeader,
    /// The leader reaches no other node, and hears them.
    MuteLeader,
    /// The leader hears no other node, and reaches them.
    DeafLeader,
    /// Two nodes do not reach each other; both reach the third.
    CutPair,
    /// An agent reaches no node: what it sends disappears.
    CutAgent,
    /// An agent reaches no node, and is told.
    RejectAgent,
    /// An agent does not reach the store.
    CutAgentFromStore,
    /// The store stands still.
    PauseStore,
    /// The store refuses, loses answers, hangs.
    StoreFails,
}

/// All of them.
const FAULTS: &[Fault] = &[
    Fault::KillAgent,
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::KillMajority,
    Fault::KillAll,
    Fault::PauseAgent,
    Fault::PauseLeader,
    Fault::Transfer,
    Fault::CutLeader,
    Fault::MuteLeader,
    Fault::DeafLeader,
    Fault::CutPair,
    Fault::CutAgent,
    Fault::RejectAgent,
    Fault::CutAgentFromStore,
    Fault::PauseStore,
    Fault::StoreFails,
];

/// A store that fails in every way at once, a part of the time.
pub const STORE_FAULTS: &str = r#"[
    {"method":"PUT","action":"status:503","fraction":0.1},
    {"method":"PUT","action":"drop-answer","fraction":0.1},
    {"method":"PUT","action":"hang","fraction":0.02},
    {"method":"PUT","action":"reset","fraction":0.05},
    {"method":"GET","action":"status:500","fraction":0.1},
    {"method":"GET","action":"hang","fraction":0.02},
    {"method":"GET","action":"reset","fraction":0.05}]"#;

/// How long it took until everything worked again, by fault: how often, and the longest.
pub type Recoveries = BTreeMap<Fault, (u32, Duration)>;

/// Breaks and repairs until `length` has passed.
pub fn run(
    lab: &mut Lab,
    load: &mut Load,
    rng: &SimRng,
    length: Duration,
) -> anyhow::Result<Recoveries> {
    let end = Instant::now() + length;
    let mut recoveries = Recoveries::new();
    while Instant::now() < end {
        let fault = if rng.one_in(4) { Fault::None } else { *rng.pick(FAULTS) };
        let period = rng.between(Duration::from_millis(500), Duration::from_secs(6));
        println!("{fault:?} for {period:?}");
        inflict(lab, rng, fault)?;
        sleep(period);
        lab.all_running()?;
        repair(lab)?;
        let recovery = load.progress()?;
        let (times, longest) = recoveries.entry(fault).or_default();
        *times += 1;
        *longest = recovery.max(*longest);
    }
    Ok(recoveries)
}

fn inflict(lab: &mut Lab, rng: &SimRng, fault: Fault) -> anyhow::Result<()> {
    let agents: Vec<Server> = lab.agents().map(Server::Agent).collect();
    let agent = *rng.pick(&agents);
    let nodes = [1, 2, 3].map(Server::Node);
    let leader = Server::Node(lab.leader()?);
    let followers: Vec<Server> = nodes.into_iter().filter(|node| *node != leader).collect();
    match fault {
        Fault::None => Ok(()),
        Fault::KillAgent => lab.kill(agent),
        Fault::KillLeader => lab.kill(leader),
        Fault::KillFollower => lab.kill(*rng.pick(&followers)),
        Fault::KillMajority => {
            lab.kill(leader)?;
            lab.kill(*rng.pick(&followers))
        }
        Fault::KillAll => nodes.into_iter().chain(agents).try_for_each(|server| lab.kill(server)),
        Fault::PauseAgent => lab.pause(agent),
        Fault::PauseLeader => lab.pause(leader),
        Fault::Transfer => lab.operate(&["transfer-leader"]).map(drop),
        Fault::CutLeader => lab.isolate(leader, &followers, Cut::Drop),
        Fault::MuteLeader => {
            followers.iter().try_for_each(|other| lab.cut(leader, *other, Cut::Drop))
        }
        Fault::DeafLeader => {
            followers.iter().try_for_each(|other| lab.cut(*other, leader, Cut::Drop))
        }
        Fault::CutPair => lab.isolate(leader, &followers[..1], Cut::Drop),
        Fault::CutAgent => lab.isolate(agent, &nodes, Cut::Drop),
        Fault::RejectAgent => lab.isolate(agent, &nodes, Cut::Reject),
        Fault::CutAgentFromStore => lab.isolate(agent, &[Server::Store], Cut::Drop),
        Fault::PauseStore => lab.pause(Server::Store),
        Fault::StoreFails => lab.store().fail(STORE_FAULTS),
    }
}

/// Puts everything right.
fn repair(lab: &mut Lab) -> anyhow::Result<()> {
    lab.network.heal()?;
    let agents = lab.agents().map(Server::Agent);
    let servers: Vec<Server> = [1, 2, 3].map(Server::Node).into_iter().chain(agents).collect();
    for server in servers.iter().copied().chain([Server::Store]) {
        if lab.is_running(server) {
            lab.resume(server)?;
        } else {
            lab.launch(server)?;
        }
    }
    lab.store().fail("[]")
}
