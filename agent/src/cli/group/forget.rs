//! `aquifer group delete --topic`: forgets some of what a group committed.

use std::time::Duration;

use serde::Serialize;

use super::{
    delete,
    offsets::{Offsets, committed},
    reset::plan::Scope,
};
use crate::{
    cli::{
        about_change,
        client::{ANY, Client, ClientError},
        failures,
        output::{Format, Output},
    },
    wire::{
        ErrorCode, Str,
        messages::{
            OffsetDeleteRequest, OffsetDeleteRequestTopics, OffsetDeleteRequestTopicsPartitions,
            OffsetDeleteResponse,
        },
    },
};

/// An offset that was forgotten.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Forgotten {
    topic: String,
    partition: i32,
    offset: i64,
}

/// Forgets what the group committed within `scopes`; the group stays.
///
/// # Errors
/// Nothing was committed there, members read the topic, or it is not known what happened. The
/// others are done all the same.
pub async fn run(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    (group, scopes): (&str, &[Scope]),
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        group: &'a str,
        deleted: Vec<Forgotten>,
    }
    let known = held(client, group).await?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for scope in scopes {
        let chosen = chosen(&known, scope);
        if chosen.is_empty() {
            errors.push(anyhow::anyhow!("group {group} committed nothing of {scope}"));
            continue;
        }
        match forget(client, group, scope, &chosen).await {
            Ok(answer) => {
                for (one, code) in chosen.into_iter().zip(answer) {
                    match refusal(group, &one, code) {
                        None => deleted.push(one),
                        Some(error) => errors.push(error),
                    }
                }
            }
            Err(error) => errors.push(about_change(error, &format!("group lag {group}"))),
        }
    }
    if format == Format::Json {
        output.document(&Document { group, deleted })?;
        return failures(errors);
    }
    for Forgotten { topic, partition, offset } in deleted {
        output.text(&format!("deleted offset {offset} of {topic}/{partition}\n"))?;
    }
    failures(errors)
}

/// What the group has committed.
async fn held(client: &mut Client, group: &str) -> anyhow::Result<Offsets> {
    let is_there = super::groups(client).await?.iter().any(|known| known.group == group);
    if !is_there {
        return Err(delete::absent(client, group).await.into());
    }
    let broker = client.coordinator(group).await?;
    Ok(committed(client, &broker, group).await?)
}

fn chosen(known: &Offsets, scope: &Scope) -> Vec<Forgotten> {
    let of_topic = known.iter().filter(|((topic, _), _)| *topic == scope.topic);
    let is_wanted =
        |partition: i32| scope.partitions.is_empty() || scope.partitions.contains(&partition);
    of_topic
        .filter(|((_, partition), _)| is_wanted(*partition))
        .map(|((topic, partition), offset)| Forgotten {
            topic: topic.clone(),
            partition: *partition,
            offset: *offset,
        })
        .collect()
}

/// The error code of each of `chosen`.
async fn forget(
    client: &mut Client,
    group: &str,
    scope: &Scope,
    chosen: &[Forgotten],
) -> Result<Vec<i16>, ClientError> {
    let index =
        |one: &Forgotten| OffsetDeleteRequestTopicsPartitions { partition_index: one.partition };
    let topic = OffsetDeleteRequestTopics {
        name: Str::from(scope.topic.as_str()),
        partitions: chosen.iter().map(index).collect(),
    };
    let request = OffsetDeleteRequest { group_id: Str::from(group), topics: vec![topic] };
    let answer: OffsetDeleteResponse = client
        .changing(async |client| {
            let broker = client.coordinator(group).await?;
            let answer: OffsetDeleteResponse =
                client.call_at(&broker, ANY, &request, Duration::ZERO).await?;
            ClientError::check(|| format!("group {group}"), answer.error_code)?;
            Ok(answer)
        })
        .await?;
    let rows = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let code = |one: &Forgotten| {
        let row = rows.clone().find(|row| row.partition_index == one.partition);
        row.map(|row| row.error_code)
            .ok_or_else(|| ClientError::Missing(format!("no answer about {}", one.partition)))
    };
    chosen.iter().map(code).collect()
}

fn refusal(group: &str, one: &Forgotten, code: i16) -> Option<anyhow::Error> {
    let subject = format!("{}/{}", one.topic, one.partition);
    if code == ErrorCode::GroupSubscribedToTopic.code() {
        let text = format!("members of group {group} read {subject}: stop them first");
        return Some(anyhow::anyhow!(text));
    }
    let checked = ClientError::check(|| format!("offset of {subject}"), code);
    checked.err().map(|error| about_change(error, &format!("group lag {group}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_without_partitions_is_all_that_was_committed_of_it() {
        let at = |topic: &str, partition| (topic.to_owned(), partition);
        let known =
            Offsets::from([(at("orders", 0), 5), (at("orders", 2), 7), (at("orders2", 0), 9)]);
        let partitions = |scope: &str| -> Vec<i32> {
            let scope: Scope = scope.parse().unwrap();
            chosen(&known, &scope).iter().map(|one| one.partition).collect()
        };
        assert_eq!(partitions("orders"), [0, 2]);
        assert_eq!(partitions("orders:2,3"), [2]);
        assert_eq!(partitions("order"), [0; 0]);
    }
}
