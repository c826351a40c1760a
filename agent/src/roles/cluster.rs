//! `aquifer cluster`: operations on the metadata group, and how it stands.

use std::io::Write;

use anyhow::Context;
use aquifer_agent::{
    cli::{World, brokers, client::ConnectArgs, output::Terminal},
    config::{self, Cluster, ClusterCommand},
};
use aquifer_metadata::client::cluster::{GroupStatus, MemberStatus, Operator};
use aquifer_storage::seam::system;

mod restore;

/// Where a metadata node listens unless told otherwise.
const METADATA: &str = "127.0.0.1:9340";

pub async fn run(cluster: &Cluster, terminal: Terminal) -> anyhow::Result<()> {
    if let ClusterCommand::Status { bootstrap: Some(brokers), output, .. } = &cluster.command {
        let connect = ConnectArgs::plain(brokers.clone());
        let shutdown = super::signals::shutdown()?;
        let world = World { seams: system::seams(), terminal, shutdown };
        brokers::run(&connect, *output, &world).await?;
        if cluster.metadata.is_none() {
            return Ok(());
        }
        println!();
    }
    let text = match &cluster.command {
        ClusterCommand::Restore(flags) => restore::run(flags).await?,
        command => ask(cluster, command).await?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// What the group answers to `command`.
async fn ask(cluster: &Cluster, command: &ClusterCommand) -> anyhow::Result<String> {
    let named = cluster.metadata.as_deref().unwrap_or(METADATA);
    let addresses: Vec<String> = named
        .split(',')
        .map(|address| address.trim().to_owned())
        .filter(|address| !address.is_empty())
        .collect();
    for address in &addresses {
        config::parse_host_port(address).map_err(anyhow::Error::msg).context("--metadata")?;
    }
    let operator = Operator::new(addresses, cluster.tls.secure(system::seams())?);
    Ok(match *command {
        ClusterCommand::Status { hash, local: true, .. } => table(&operator.status(hash).await?),
        ClusterCommand::Status { hash, local: false, .. } => {
            table(&operator.leader_status(hash).await?)
        }
        ClusterCommand::AddVoter { id } => table(&operator.add_voter(id).await?),
        ClusterCommand::RemoveVoter { id } => table(&operator.remove_voter(id).await?),
        ClusterCommand::TransferLeader { id } => {
            format!("node {} leads\n", operator.transfer_leader(id).await?)
        }
        ClusterCommand::Snapshot => {
            let shipped = operator.ship_snapshot().await?;
            format!("everything up to entry {} is in {}\n", shipped.index, shipped.key)
        }
        ClusterCommand::Restore(_) => anyhow::bail!("a restore asks no node"),
    })
}

fn table(status: &GroupStatus) -> String {
    let lineage = status.lineage.unwrap_or_default();
    let leader = match status.leader {
        Some(leader) if leader == status.node => format!("node {leader}, term {}", status.term),
        Some(leader) => format!("node {leader}, term {}, says node {}", status.term, status.node),
        None => format!("none known to node {}", status.node),
    };
    let mut lines = vec![
        format!("cluster    {} lineage {}", status.cluster_id, lineage.number),
        format!("leader     {leader}"),
        format!(
            "log        last {}, committed {}, applied {} on node {}",
            status.last_index, status.committed_index, status.applied_index, status.node
        ),
    ];
    lines.push(format!("backup     {}", backup(status)));
    if let Some(hash) = status.state_hash {
        lines.push(format!("state      {hash:016x} at {}", status.applied_index));
    }
    let (node, role, behind, heard) = ("node", "role", "behind", "heard ago");
    lines.push(format!("{node:>12}  {role:8}  {behind:>10}  {heard:>9}  address"));
    for member in &status.members {
        let (behind, heard) = progress(status, member);
        let role = if member.voter { "voter" } else { "learner" };
        let (id, address) = (member.id, &member.address);
        lines.push(format!("{id:>12}  {role:8}  {behind:>10}  {heard:>9}  {address}"));
    }
    lines.join("\n") + "\n"
}

/// How far the copies in the bucket reach, as the node that makes them says.
fn backup(status: &GroupStatus) -> String {
    let Some(backup) = status.backup else {
        return format!("node {} ships none", status.node);
    };
    let Some(covered) = backup.covered_index else {
        return match status.leader {
            Some(leader) if leader != status.node => format!("node {leader} ships it"),
            _ => format!("none yet ({} failed requests)", backup.failures),
        };
    };
    let behind = status.applied_index.saturating_sub(covered);
    let age = backup.age_ms.unwrap_or_default() / 1000;
    match behind {
        0 => format!("up to {covered}, which is everything"),
        _ => format!("up to {covered}, {behind} entries behind, whole {age} s ago"),
    }
}

/// How many entries a member is behind, and since when it was not heard: the leader knows.
fn progress(status: &GroupStatus, member: &MemberStatus) -> (String, String) {
    if member.id == status.node && Some(member.id) == status.leader {
        return ("0".to_owned(), "leads".to_owned());
    }
    let behind = member.matched_index.map(|matched| status.last_index.saturating_sub(matched));
    let heard = member.silent_ms.map(|silent| format!("{silent} ms"));
    let unknown = || "?".to_owned();
    (behind.map_or_else(unknown, |entries| entries.to_string()), heard.unwrap_or_else(unknown))
}
