//! What the coordinator of consumer groups answers and takes in a second, and what members cost
//! it: `aquifer bench metadata --coordinator`.
//!
//! # Non-obvious
//! - Agents have threads of their own, and CPU is what all others of the process use: that of the
//!   leader where there is one voter, of the three nodes together where there are three.
//! - Members are simulated: no Kafka frame is read or written, and no agent notes anything.

use std::collections::BTreeMap;

use anyhow::ensure;
use aquifer_storage::seam::system;
use clap::{Args, ValueEnum};
use serde::Serialize;

pub mod agents;
pub mod asked;
pub mod heartbeats;
pub mod member;
pub mod offsets;
pub mod populate;
pub mod pure;

use super::{
    super::{limits::machine::Machine, limits::machine::MachineWatch, report},
    MetadataArgs,
    group::{Group, GroupShape},
};
use agents::Agents;
use heartbeats::{HeartbeatLoad, RestLoad};
use offsets::OffsetLoad;
use populate::{GroupsShape, Protocol};
use pure::Pure;

/// Members there may be; more is a mistyped number.
const MEMBERS_MAX: u32 = 1_000_000;
/// Offsets that one commit may name here.
const OFFSETS_MAX: u32 = 10_000;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The machine alone: heartbeats, memory, snapshot, one assignment of a large group.
    Pure,
    /// Heartbeats over gRPC in a closed loop.
    Heartbeats,
    /// All members at rest, over gRPC.
    Rest,
    /// Commits of offsets over gRPC in a closed loop.
    Offsets,
}

/// Arguments.
#[derive(Clone, Debug, Args)]
pub struct CoordinatorArgs {
    /// Measures consumer groups instead of commits of records. Several: a,b
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub coordinator: Vec<Part>,
    /// Which protocol members speak.
    #[arg(long, value_enum, default_value = "consumer")]
    protocol: Protocol,
    /// Members of all groups.
    #[arg(long, default_value_t = 10_000)]
    members: u32,
    /// Members of a group.
    #[arg(long, default_value_t = 10)]
    members_per_group: u32,
    /// Offsets of one commit; each is measured for --seconds.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    offsets_per_commit: Vec<u32>,
}

impl CoordinatorArgs {
    /// Refuses what cannot be measured.
    ///
    /// # Errors
    /// Which argument, and what it may be.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=MEMBERS_MAX).contains(&self.members), "--members is 1 to {MEMBERS_MAX}");
        ensure!(
            (1..=self.members).contains(&self.members_per_group),
            "--members-per-group is 1 to --members"
        );
        ensure!(
            self.offsets_per_commit.iter().all(|count| (1..=OFFSETS_MAX).contains(count)),
            "--offsets-per-commit are 1 to {OFFSETS_MAX} each"
        );
        Ok(())
    }

    fn groups(&self) -> u32 {
        self.members.div_ceil(self.members_per_group)
    }

    /// Groups in which each member has a partition.
    fn shape(&self) -> GroupsShape {
        let members = self.members_per_group;
        GroupsShape { protocol: self.protocol, members, partitions: members }
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct CoordinatorReport {
    machine: Machine,
    protocol: Protocol,
    voters: u8,
    agents: u32,
    members: u32,
    members_per_group: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pure: Option<Pure>,
    /// By heartbeats that wait at once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    heartbeats: BTreeMap<String, HeartbeatLoad>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<RestLoad>,
    /// By commits that wait at once, then by offsets of each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    offsets: BTreeMap<String, BTreeMap<String, OffsetLoad>>,
}

/// Runs it.
///
/// # Errors
/// A folder that cannot be used, or a group that refuses what it is asked.
pub async fn run(args: &MetadataArgs) -> anyhow::Result<()> {
    let own = &args.coordinator;
    own.check()?;
    let watch = MachineWatch::start();
    let asked = |part| own.coordinator.contains(&part);
    // First: what is measured by resident memory wants a process that held nothing.
    let pure = match asked(Part::Pure) {
        true => Some(pure::measure(own.shape(), own.groups(), args.seconds).await?),
        false => None,
    };
    let (mut heartbeats, mut rest) = (BTreeMap::new(), None);
    if asked(Part::Heartbeats) || asked(Part::Rest) {
        (heartbeats, rest) = with_members(args, asked(Part::Heartbeats), asked(Part::Rest)).await?;
    }
    let mut offsets = BTreeMap::new();
    if asked(Part::Offsets) {
        offsets = commits(args).await?;
    }
    let report = CoordinatorReport {
        machine: watch.end(),
        protocol: own.protocol,
        voters: args.voters,
        agents: args.agents,
        members: own.members,
        members_per_group: own.members_per_group,
        pure,
        heartbeats,
        rest,
        offsets,
    };
    report::print(&report, args.json)
}

/// Nodes with agents beside them.
async fn start(args: &MetadataArgs) -> anyhow::Result<(Group, Agents)> {
    let folder = format!("aquifer-bench-coordinator-{}", std::process::id());
    let shape = GroupShape { voters: args.voters, grpc: true };
    let group = Group::start(args.data.join(folder), &system::seams(), shape).await?;
    let agents = Agents::of(&group, args.agents)?;
    Ok((group, agents))
}

async fn with_members(
    args: &MetadataArgs,
    loops: bool,
    rests: bool,
) -> anyhow::Result<(BTreeMap<String, HeartbeatLoad>, Option<RestLoad>)> {
    let (group, agents) = start(args).await?;
    let own = &args.coordinator;
    let idle_percent = heartbeats::idle_percent(args.seconds.min(3.0)).await?;
    let members = agents.populate(own.shape(), own.groups()).await?;
    let mut loads = BTreeMap::new();
    for waiting in args.committers.iter().filter(|_| loops) {
        let load = heartbeats::closed_loop(&agents, &members, *waiting, args.seconds).await?;
        loads.insert(format!("{waiting:05}"), load);
    }
    let rest = match rests {
        true => Some(heartbeats::at_rest(&agents, members, idle_percent, args.seconds).await?),
        false => None,
    };
    drop(agents);
    group.stop().await?;
    Ok((loads, rest))
}

async fn commits(
    args: &MetadataArgs,
) -> anyhow::Result<BTreeMap<String, BTreeMap<String, OffsetLoad>>> {
    let (group, agents) = start(args).await?;
    let own = &args.coordinator;
    let most = own.offsets_per_commit.iter().copied().max().unwrap_or(1);
    let committers = args.committers.iter().copied().max().unwrap_or(1);
    // Groups of one, so that whoever commits holds what it commits.
    let shape = GroupsShape { protocol: own.protocol, members: 1, partitions: most };
    let members = agents.populate(shape, u32::try_from(committers)?).await?;
    let mut loads = BTreeMap::new();
    for waiting in &args.committers {
        let by_count: &mut BTreeMap<_, _> = loads.entry(format!("{waiting:05}")).or_default();
        for count in &own.offsets_per_commit {
            let what = (*waiting, *count);
            let pair = (&group, &agents);
            let load = offsets::closed_loop(pair, &members, what, args.seconds).await?;
            by_count.insert(format!("{count:05}"), load);
        }
    }
    drop(agents);
    group.stop().await?;
    Ok(loads)
}

#[cfg(test)]
mod tests;
