//! `aquifer group delete`: forgets groups and what they committed.

use std::time::Duration;

use serde::Serialize;

use crate::{
    cli::{
        about_change,
        client::{ANY, Client, ClientError},
        failures,
        output::{Format, Output},
        suggest,
    },
    wire::{
        ErrorCode, Str,
        messages::{DeleteGroupsRequest, DeleteGroupsResponse},
    },
};

/// Deletes groups.
///
/// # Errors
/// One is not there, has members, or it is not known what happened. The others are done all the
/// same.
pub async fn run(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    (names, if_exists): (&[String], bool),
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document {
        deleted: Vec<String>,
    }
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match delete(client, name).await {
            Ok(()) => deleted.push(name.clone()),
            Err(error) => match error.code() {
                Some(ErrorCode::GroupIdNotFound) if if_exists => {}
                Some(ErrorCode::GroupIdNotFound) => errors.push(absent(client, name).await.into()),
                Some(ErrorCode::NonEmptyGroup) => {
                    errors.push(anyhow::anyhow!("group {name} has members: stop them first"));
                }
                _ => errors.push(about_change(error, &format!("group describe {name}"))),
            },
        }
    }
    if format == Format::Json {
        output.document(&Document { deleted })?;
    } else {
        for name in deleted {
            output.text(&format!("deleted group {name}\n"))?;
        }
    }
    failures(errors)
}

async fn delete(client: &mut Client, name: &str) -> Result<(), ClientError> {
    let request = DeleteGroupsRequest { groups_names: vec![Str::from(name)] };
    client
        .changing(async |client| {
            let broker = client.coordinator(name).await?;
            let answer: DeleteGroupsResponse =
                client.call_at(&broker, ANY, &request, Duration::ZERO).await?;
            let row = answer.results.first();
            let row = row.ok_or_else(|| ClientError::Missing("no answer".to_owned()))?;
            ClientError::check(|| format!("group {name}"), row.error_code)
        })
        .await
}

/// What to say of a group that is not there.
pub async fn absent(client: &mut Client, name: &str) -> ClientError {
    let known = super::groups(client).await.unwrap_or_default();
    let hint = suggest::hint(name, known.iter().map(|group| group.group.as_str()));
    ClientError::Missing(format!("there is no group {name}{hint}"))
}
