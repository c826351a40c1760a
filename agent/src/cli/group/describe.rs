//! `aquifer group describe`: members, committed offsets and lag.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    members::{Member, Membership, membership},
    offsets::{committed, latest},
};
use crate::cli::{
    client::{Client, ClientError},
    failures,
    output::{Format, Output, Table},
};

/// A group, its members and how far it has read.
#[derive(Serialize)]
pub struct DescribedGroup {
    /// Its name.
    pub group: String,
    #[serde(rename = "type")]
    kind: &'static str,
    state: String,
    assignor: String,
    /// Its coordinator's address.
    coordinator: String,
    members: Vec<Member>,
    /// By topic and partition.
    pub offsets: Vec<GroupOffset>,
}

/// A partition that the group reads, or has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The next offset the group would read; `None` when it never committed.
    pub committed: Option<i64>,
    /// The offset that the next record gets; `None` when nobody serves the partition.
    pub latest: Option<i64>,
    /// How many offsets lie between them, where there are both.
    pub lag: Option<i64>,
    /// Who reads it now.
    member_id: Option<String>,
}

/// Describes the groups of `names`.
///
/// # Errors
/// One is not there, or its coordinator does not answer.
pub async fn run(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    names: &[String],
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document {
        groups: Vec<DescribedGroup>,
    }
    let (mut groups, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match described(client, name).await {
            Ok(group) => groups.push(group),
            Err(error) => errors.push(error.into()),
        }
    }
    if format == Format::Json {
        output.document(&Document { groups })?;
        return failures(errors);
    }
    for (at, group) in groups.iter().enumerate() {
        if 0 < at {
            output.text("\n")?;
        }
        print(output, group)?;
    }
    failures(errors)
}

/// How a group stands.
///
/// # Errors
/// It is not there, or nobody says.
pub async fn described(client: &mut Client, name: &str) -> Result<DescribedGroup, ClientError> {
    let (coordinator, membership, committed) = client
        .retrying(async |client| {
            let broker = client.coordinator(name).await?;
            let membership = membership(client, &broker, name).await?;
            let committed = committed(client, &broker, name).await?;
            Ok((broker, membership, committed))
        })
        .await?;
    let is_nothing = membership.members.is_empty() && committed.is_empty();
    if membership.state == "Dead" && is_nothing {
        return Err(super::delete::absent(client, name).await);
    }
    let readers = readers(&membership);
    let partitions: BTreeSet<(String, i32)> =
        readers.keys().chain(committed.keys()).cloned().collect();
    let latest = latest(client, &partitions).await?;
    let offsets = partitions.into_iter().map(|partition| {
        let (committed, latest) = (committed.get(&partition), latest.get(&partition));
        // A commit may be newer than the end that was asked for before it.
        let lag = committed.zip(latest).map(|(committed, latest)| (latest - committed).max(0));
        GroupOffset {
            committed: committed.copied(),
            latest: latest.copied(),
            lag,
            member_id: readers.get(&partition).cloned(),
            topic: partition.0,
            partition: partition.1,
        }
    });
    let offsets = offsets.collect();
    let Membership { kind, state, assignor, members } = membership;
    let group = name.to_owned();
    Ok(DescribedGroup { group, kind, state, assignor, coordinator, members, offsets })
}

/// Who reads each partition that is assigned.
fn readers(membership: &Membership) -> BTreeMap<(String, i32), String> {
    let mut readers = BTreeMap::new();
    for member in &membership.members {
        for row in &member.partitions {
            for partition in &row.partitions {
                readers.insert((row.topic.clone(), *partition), member.member_id.clone());
            }
        }
    }
    readers
}

fn print(output: &mut Output, group: &DescribedGroup) -> anyhow::Result<()> {
    let DescribedGroup { group: name, kind, state, coordinator, .. } = group;
    let members = match group.members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    let lag: i64 = group.offsets.iter().filter_map(|offset| offset.lag).sum();
    output.title(&format!("{name}  {kind}, {state}, {members}, lag {lag}"))?;
    let assignor = if group.assignor.is_empty() { "-" } else { &group.assignor };
    output.text(&format!("coordinator {coordinator}, assignor {assignor}\n"))?;
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    if !group.offsets.is_empty() {
        let mut table = Table::new(&["topic", "partition", "committed", "latest", "lag", "member"]);
        for offset in &group.offsets {
            table.row([
                offset.topic.clone(),
                offset.partition.to_string(),
                number(offset.committed),
                number(offset.latest),
                number(offset.lag),
                offset.member_id.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        output.text("\n")?;
        output.table(&table)?;
    }
    if !group.members.is_empty() {
        let mut table = Table::new(&["member", "instance", "client", "host", "partitions"]);
        for member in &group.members {
            let count: usize = member.partitions.iter().map(|row| row.partitions.len()).sum();
            table.row([
                member.member_id.clone(),
                member.instance_id.clone().unwrap_or_else(|| "-".to_owned()),
                member.client_id.clone(),
                member.host.clone(),
                count.to_string(),
            ]);
        }
        output.text("\n")?;
        output.table(&table)?;
    }
    Ok(())
}
