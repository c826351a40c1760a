//! `aquifer group`: list, describe, reset and delete consumer groups.

mod delete;
mod describe;
mod forget;
mod lag;
mod members;
mod offsets;
mod reset;

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand};
use serde::Serialize;

use self::reset::plan::Scope;
use super::{
    EXIT_CODES, Usage, World,
    client::{ANY, Client, ClientError, ConnectArgs},
    output::{Format, FormatArgs, Output, Table},
};
use crate::wire::messages::{ListGroupsRequest, ListGroupsResponse};

/// `aquifer group`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct GroupArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(subcommand)]
    command: GroupCommand,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Lists the groups.
    #[command(after_help = "Examples:
  aquifer group list
  aquifer group list --state Stable --state Empty
  aquifer group list -o json | jq -r '.groups[].group'")]
    List {
        /// Only those in this state, such as Stable or Empty. May be repeated.
        #[arg(long, value_name = "STATE")]
        state: Vec<String>,
    },
    /// Shows members, committed offsets and lag of groups.
    #[command(after_help = "Examples:
  aquifer group describe billing
  aquifer group describe billing -o json | jq '[.groups[0].offsets[].lag] | add'

Lag is how many offsets lie between the committed one and the end of the partition.")]
    Describe {
        /// Their names.
        #[arg(required = true, value_name = "GROUP")]
        names: Vec<String>,
    },
    /// Tells how much groups have not read yet, by partition or in total.
    #[command(after_help = "Examples:
  aquifer group lag billing
  aquifer group lag --summary
  aquifer group lag billing -o json | jq '.groups[0].topics[] | {topic, lag}'
  aquifer group lag billing -o json > saved.json  # for `reset --from-file`")]
    Lag(lag::LagArgs),
    /// Sends a group without members to other offsets.
    #[command(after_help = "Examples:
  aquifer group reset billing --topic orders --to earliest
  aquifer group reset billing --topic orders --to earliest --execute
  aquifer group reset billing --topic orders:0,2 --to 1500 --execute
  aquifer group reset billing --all-topics --to 2026-01-31T12:00:00Z --execute
  aquifer group reset billing --all-topics --to -2h --execute
  aquifer group reset billing --topic orders --shift -100 --execute
  aquifer group reset billing --from-file saved.json --execute

What it would do is shown, and done only with --execute. An offset that is not kept any more, or
not there yet, becomes the nearest one that is. A group that is not there is made.")]
    Reset(reset::ResetArgs),
    /// Deletes groups without members, with what they committed.
    #[command(after_help = "Examples:
  aquifer group delete billing
  aquifer group delete billing audit --if-exists
  aquifer group delete billing --topic orders --topic payments:0,2

With --topic the group stays, and only what it committed there is forgotten.")]
    Delete {
        /// Their names; one with --topic.
        #[arg(required = true, value_name = "GROUP")]
        names: Vec<String>,
        /// Only what was committed of this topic, or of some of its partitions, as orders:0,2. May
        /// be repeated.
        #[arg(short, long = "topic", value_name = "TOPIC[:N,...]", conflicts_with = "if_exists")]
        topics: Vec<Scope>,
        /// Groups that are not there are no error.
        #[arg(long)]
        if_exists: bool,
    },
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(args: GroupArgs, world: &World, mut output: Output) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.connect, world.seams.clone()).await?;
    let (client, output, format) = (&mut client, &mut output, args.format.output);
    match args.command {
        GroupCommand::List { state } => list(client, output, format, &state).await,
        GroupCommand::Describe { names } => describe::run(client, output, format, &names).await,
        GroupCommand::Lag(args) => lag::run(client, output, format, &args).await,
        GroupCommand::Reset(args) => reset::run(client, output, format, &args).await,
        GroupCommand::Delete { names, if_exists, topics } if topics.is_empty() => {
            delete::run(client, output, format, (&names, if_exists)).await
        }
        GroupCommand::Delete { names, topics, .. } => match names.as_slice() {
            [name] => forget::run(client, output, format, (name, &topics)).await,
            _ => Err(Usage::new("--topic is about one group").into()),
        },
    }
}

/// A group of the list.
#[derive(Clone, Debug, Serialize)]
struct ListedGroup {
    group: String,
    /// `classic`, `consumer`, `share` or `streams`; `None` of a broker that knows no types.
    #[serde(rename = "type")]
    kind: Option<String>,
    protocol_type: String,
    state: Option<String>,
}

async fn list(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    states: &[String],
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document {
        groups: Vec<ListedGroup>,
    }
    let mut groups = groups(client).await?;
    let is_wanted = |group: &ListedGroup| {
        let state = group.state.as_deref().unwrap_or_default();
        states.is_empty() || states.iter().any(|wanted| wanted.eq_ignore_ascii_case(state))
    };
    groups.retain(is_wanted);
    if format == Format::Json {
        return Ok(output.document(&Document { groups })?);
    }
    if groups.is_empty() {
        eprintln!("no groups");
        return Ok(());
    }
    let mut table = Table::new(&["group", "type", "protocol", "state"]);
    for group in groups {
        let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let protocol = Some(group.protocol_type).filter(|protocol| !protocol.is_empty());
        table.row([group.group, text(group.kind), text(protocol), text(group.state)]);
    }
    Ok(output.table(&table)?)
}

/// The groups of all brokers, by name.
async fn groups(client: &mut Client) -> Result<Vec<ListedGroup>, ClientError> {
    let mut found = BTreeMap::new();
    client
        .retrying(async |client| {
            client.cluster(Some(&[])).await?;
            let brokers: Vec<String> = client.brokers().values().cloned().collect();
            for broker in brokers {
                let request = ListGroupsRequest::default();
                let answer: ListGroupsResponse =
                    client.call_at(&broker, ANY, &request, Duration::ZERO).await?;
                ClientError::check(|| format!("groups of {broker}"), answer.error_code)?;
                for row in &answer.groups {
                    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                    let group = ListedGroup {
                        group: row.group_id.to_string(),
                        kind: some(&row.group_type).map(|kind| kind.to_lowercase()),
                        protocol_type: row.protocol_type.to_string(),
                        state: some(&row.group_state),
                    };
                    found.insert(group.group.clone(), group);
                }
            }
            Ok(())
        })
        .await?;
    Ok(found.into_values().collect())
}
