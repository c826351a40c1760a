//! `aquifer group describe`: members, committed offsets and lag.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use super::members::{Member, Membership, membership};
use crate::{
    cli::{
        client::{Client, ClientError, Isolation, OffsetSpec},
        failures,
        output::{Format, Output, Table},
        suggest,
    },
    wire::{
        Str,
        messages::{OffsetFetchRequest, OffsetFetchRequestGroups, OffsetFetchResponse},
    },
};

/// From version 10 on topics are named by id only, which says nothing to a reader.
const OFFSET_FETCH: std::ops::RangeInclusive<i16> = 2..=9;

#[derive(Serialize)]
struct DescribedGroup {
    group: String,
    #[serde(rename = "type")]
    kind: &'static str,
    state: String,
    assignor: String,
    /// Its coordinator's address.
    coordinator: String,
    members: Vec<Member>,
    offsets: Vec<GroupOffset>,
}

/// A partition that the group reads, or has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct GroupOffset {
    topic: String,
    partition: i32,
    /// The next offset the group would read; `None` when it never committed.
    committed: Option<i64>,
    /// The offset that the next record gets; `None` when nobody serves the partition.
    latest: Option<i64>,
    lag: Option<i64>,
    /// Who reads it now.
    member_id: Option<String>,
}

type Committed = BTreeMap<(String, i32), i64>;

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

async fn described(client: &mut Client, name: &str) -> Result<DescribedGroup, ClientError> {
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
        let known = super::groups(client).await.unwrap_or_default();
        let hint = suggest::hint(name, known.iter().map(|group| group.group.as_str()));
        return Err(ClientError::Missing(format!("there is no group {name}{hint}")));
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

/// All committed offsets of a group.
async fn committed(
    client: &mut Client,
    broker: &str,
    group: &str,
) -> Result<Committed, ClientError> {
    // Up to version 7 a request is about one group and says so elsewhere.
    let of_group = OffsetFetchRequestGroups {
        group_id: Str::from(group),
        member_id: None,
        member_epoch: -1,
        topics: None,
    };
    let request = OffsetFetchRequest {
        group_id: Str::from(group),
        topics: None,
        groups: vec![of_group],
        require_stable: false,
    };
    let answer: OffsetFetchResponse =
        client.call_at(broker, OFFSET_FETCH, &request, Duration::ZERO).await?;
    let subject = || format!("offsets of group {group}");
    ClientError::check(subject, answer.error_code)?;
    let mut committed = Committed::new();
    let mut insert = |topic: &Str, partition: i32, offset: i64| {
        if 0 <= offset {
            committed.insert((topic.to_string(), partition), offset);
        }
    };
    for topic in &answer.topics {
        for row in &topic.partitions {
            ClientError::check(subject, row.error_code)?;
            insert(&topic.name, row.partition_index, row.committed_offset);
        }
    }
    for of_group in &answer.groups {
        ClientError::check(subject, of_group.error_code)?;
        for topic in &of_group.topics {
            for row in &topic.partitions {
                ClientError::check(subject, row.error_code)?;
                insert(&topic.name, row.partition_index, row.committed_offset);
            }
        }
    }
    Ok(committed)
}

/// Where the partitions end; those of topics that are gone have no end.
async fn latest(
    client: &mut Client,
    partitions: &BTreeSet<(String, i32)>,
) -> Result<Committed, ClientError> {
    let names: BTreeSet<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return Ok(Committed::new());
    }
    let mut latest = Committed::new();
    for topic in client.cluster(Some(&names)).await?.topics {
        let wanted = |index: &i32| partitions.contains(&(topic.name.to_string(), *index));
        let led = topic
            .partitions
            .iter()
            .filter(|(index, partition)| wanted(index) && partition.leader.is_some());
        let led: Vec<i32> = led.map(|(index, _)| *index).collect();
        let found =
            client.offsets(&topic, &led, OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
        for (index, listed) in found {
            if let Some(offset) = listed.offset {
                latest.insert((topic.name.to_string(), index), offset);
            }
        }
    }
    Ok(latest)
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
