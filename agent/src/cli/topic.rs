//! `aquifer topic`: list, create, describe, alter, delete, delete-records.

mod delete_records;
mod describe;

use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::{
    EXIT_CODES, World, about_change,
    client::{Client, ClientError, ConnectArgs},
    config::{self, Change, Kind},
    failures,
    output::{Format, FormatArgs, Output, Table},
    value::parse_pair,
};
use crate::wire::{
    ErrorCode, Str, Uuid,
    messages::{
        CreatePartitionsRequest, CreatePartitionsRequestTopics, CreatePartitionsResponse,
        CreateTopicsRequest, CreateTopicsRequestTopics, CreateTopicsRequestTopicsConfigs,
        CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsRequestTopics, DeleteTopicsResponse,
    },
};

/// `aquifer topic`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct TopicArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(subcommand)]
    command: TopicCommand,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// Lists the topics.
    #[command(after_help = "Examples:
  aquifer topic list
  aquifer topic list --internal -b broker-1:9092,broker-2:9092
  aquifer topic list -o json | jq -r '.topics[].name'")]
    List {
        /// With the cluster's own topics.
        #[arg(long)]
        internal: bool,
    },
    /// Creates topics.
    #[command(after_help = "Examples:
  aquifer topic create orders
  aquifer topic create orders payments --partitions 6 --replication-factor 3
  aquifer topic create audit -p 1 -c retention.ms=86400000 -c max.message.bytes=2000000
  aquifer topic create orders --if-not-exists")]
    Create(CreateArgs),
    /// Shows partitions, offsets and settings of topics.
    #[command(after_help = "Examples:
  aquifer topic describe orders
  aquifer topic describe orders -o json | jq '.topics[0].partitions[].latest'")]
    Describe {
        /// Their names.
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
    },
    /// Changes the number of partitions, or settings, of a topic.
    #[command(after_help = "Examples:
  aquifer topic alter orders --partitions 12
  aquifer topic alter orders -c retention.ms=3600000 --unset max.message.bytes

Partitions can only become more, and keys then go to other partitions than before.")]
    Alter(AlterArgs),
    /// Deletes topics with all their records.
    #[command(after_help = "Examples:
  aquifer topic delete orders
  aquifer topic delete orders payments --if-exists")]
    Delete {
        /// Their names.
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// Topics that are not there are no error.
        #[arg(long)]
        if_exists: bool,
    },
    /// Deletes the oldest records of a topic, up to an offset.
    #[command(after_help = "Examples:
  aquifer topic delete-records orders --before 1000 --partition 0
  aquifer topic delete-records orders --before end

Consumers then begin at that offset; every other record keeps its own.")]
    DeleteRecords(delete_records::DeleteRecordsArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Their names.
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// How many partitions each gets [the broker's default].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many brokers hold each partition [the broker's default].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting, such as retention.ms=86400000. May be repeated.
    #[arg(short, long = "config", value_name = "NAME=VALUE", value_parser = parse_pair)]
    config: Vec<(String, String)>,
    /// Topics that are there already are no error.
    #[arg(long)]
    if_not_exists: bool,
    /// Ask whether it could be done, and do nothing.
    #[arg(long, visible_alias = "dry-run")]
    validate_only: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").args(["partitions", "config", "unset"]).required(true)
    .multiple(true)))]
struct AlterArgs {
    /// Its name.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// How many partitions it has then.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting, such as retention.ms=86400000. May be repeated.
    #[arg(short, long = "config", value_name = "NAME=VALUE", value_parser = parse_pair)]
    config: Vec<(String, String)>,
    /// A setting to go back to its default. May be repeated.
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// Ask whether it could be done, and do nothing.
    #[arg(long, visible_alias = "dry-run")]
    validate_only: bool,
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(args: TopicArgs, world: &World, mut output: Output) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.connect, world.seams.clone()).await?;
    let (client, output, format) = (&mut client, &mut output, args.format.output);
    match args.command {
        TopicCommand::List { internal } => list(client, output, format, internal).await,
        TopicCommand::Create(create) => self::create(client, output, format, &create).await,
        TopicCommand::Describe { names } => describe::run(client, output, format, &names).await,
        TopicCommand::Alter(alter) => self::alter(client, output, format, &alter).await,
        TopicCommand::Delete { names, if_exists } => {
            delete(client, output, format, &names, if_exists).await
        }
        TopicCommand::DeleteRecords(args) => {
            delete_records::run(client, output, format, &args).await
        }
    }
}

#[derive(Serialize)]
struct ListedTopic {
    name: String,
    id: Option<String>,
    partitions: usize,
    replication_factor: usize,
    internal: bool,
}

async fn list(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    internal: bool,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document {
        topics: Vec<ListedTopic>,
    }
    let all = client.cluster(None).await?.topics;
    let shown = all.iter().filter(|topic| internal || !topic.is_internal);
    let topics: Vec<ListedTopic> = shown
        .map(|topic| ListedTopic {
            name: topic.name.to_string(),
            id: topic.id.map(|id| id.to_string()),
            partitions: topic.partitions.len(),
            replication_factor: topic.replication_factor(),
            internal: topic.is_internal,
        })
        .collect();
    if format == Format::Json {
        return Ok(output.document(&Document { topics })?);
    }
    if topics.is_empty() {
        eprintln!("no topics yet: `aquifer topic create NAME` makes one");
        return Ok(());
    }
    let mut table = Table::new(&["topic", "partitions", "replicas"]);
    for topic in topics {
        let (partitions, replicas) = (topic.partitions, topic.replication_factor);
        table.row([topic.name, partitions.to_string(), replicas.to_string()]);
    }
    Ok(output.table(&table)?)
}

#[derive(Serialize)]
struct CreatedTopic {
    name: String,
    /// Whether it was made now; not with --validate-only, and not one that was there.
    created: bool,
    id: Option<String>,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
}

async fn create(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    args: &CreateArgs,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document {
        topics: Vec<CreatedTopic>,
    }
    let (mut topics, mut errors) = (Vec::new(), Vec::new());
    for name in &args.names {
        match create_topic(client, name, args).await {
            Ok(topic) => topics.push(topic),
            Err(error) => errors.push(about_change(error, &format!("topic describe {name}"))),
        }
    }
    if format == Format::Json {
        output.document(&Document { topics })?;
        return failures(errors);
    }
    for topic in topics {
        let name = &topic.name;
        let line = match (topic.created, args.validate_only, topic.partitions) {
            (false, true, _) => format!("topic {name} could be created\n"),
            (false, ..) => format!("topic {name} is there already\n"),
            (true, _, Some(count)) if 0 < count => {
                let partitions = if count == 1 { "partition" } else { "partitions" };
                format!("created topic {name} with {count} {partitions}\n")
            }
            _ => format!("created topic {name}\n"),
        };
        output.text(&line)?;
    }
    failures(errors)
}

async fn create_topic(
    client: &mut Client,
    name: &str,
    args: &CreateArgs,
) -> Result<CreatedTopic, ClientError> {
    let config = |(name, value): &(String, String)| CreateTopicsRequestTopicsConfigs {
        name: Str::from(name.as_str()),
        value: Some(Str::from(value.as_str())),
    };
    let topic = CreateTopicsRequestTopics {
        name: Str::from(name),
        num_partitions: args.partitions.unwrap_or(-1),
        replication_factor: args.replication_factor.unwrap_or(-1),
        assignments: Vec::new(),
        configs: args.config.iter().map(config).collect(),
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: client.patience_ms(),
        validate_only: args.validate_only,
    };
    let created = client
        .changing(async |client| {
            let answer: CreateTopicsResponse = client.call_controller(&request).await?;
            let Some(topic) = answer.topics.into_iter().next() else {
                return Err(ClientError::Missing(format!("no answer on topic {name}")));
            };
            let message = topic.error_message.as_deref();
            ClientError::check_told(|| format!("topic {name}"), topic.error_code, message)?;
            Ok(topic)
        })
        .await;
    let name = name.to_owned();
    match created {
        Ok(topic) => Ok(CreatedTopic {
            name,
            created: !args.validate_only,
            id: Some(topic.topic_id).filter(|id| !id.is_zero()).map(|id| id.to_string()),
            partitions: Some(topic.num_partitions).filter(|count| 0 <= *count),
            replication_factor: Some(topic.replication_factor).filter(|count| 0 <= *count),
        }),
        Err(error) if args.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
            let (id, partitions, replication_factor) = (None, None, None);
            Ok(CreatedTopic { name, created: false, id, partitions, replication_factor })
        }
        Err(error) => Err(error),
    }
}

/// Creates a topic with the broker's defaults, for `produce --create`; one that is there is fine.
///
/// # Errors
/// It cannot be created.
pub async fn create_if_absent(client: &mut Client, name: &str) -> Result<(), ClientError> {
    let args = CreateArgs {
        names: Vec::new(),
        partitions: None,
        replication_factor: None,
        config: Vec::new(),
        if_not_exists: true,
        validate_only: false,
    };
    create_topic(client, name, &args).await.map(drop)
}

async fn alter(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    args: &AlterArgs,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        topic: &'a str,
        partitions: Option<i32>,
        set: Vec<&'a str>,
        unset: Vec<&'a str>,
        validate_only: bool,
    }
    let name = args.name.as_str();
    let topic = client.topic(name).await?;
    let look = format!("topic describe {name}");
    let mut changes: Vec<Change> =
        args.config.iter().map(|(name, value)| Change::Set(name.clone(), value.clone())).collect();
    changes.extend(args.unset.iter().cloned().map(Change::Unset));
    // Settings first: what is wrong with them is known before partitions are there for ever.
    if !changes.is_empty() {
        config::change(client, Kind::Topic, name, &changes, args.validate_only).await?;
    }
    if let Some(count) = args.partitions {
        let altered = grow(client, name, count, args.validate_only).await;
        altered.map_err(|error| about_change(error, &look))?;
    }
    if format == Format::Json {
        return Ok(output.document(&Document {
            topic: name,
            partitions: args.partitions,
            set: args.config.iter().map(|(name, _)| name.as_str()).collect(),
            unset: args.unset.iter().map(String::as_str).collect(),
            validate_only: args.validate_only,
        })?);
    }
    if args.validate_only {
        return Ok(output.text(&format!("topic {name} could be altered\n"))?);
    }
    if let Some(count) = args.partitions {
        let before = topic.partitions.len();
        output.text(&format!("topic {name} has {count} partitions now, {before} before\n"))?;
    }
    Ok(output.text(&config::told(&format!("topic {name}"), &changes))?)
}

async fn grow(
    client: &mut Client,
    name: &str,
    count: i32,
    validate_only: bool,
) -> Result<(), ClientError> {
    let topic = CreatePartitionsRequestTopics { name: Str::from(name), count, assignments: None };
    let timeout_ms = client.patience_ms();
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms, validate_only };
    client
        .changing(async |client| {
            let answer: CreatePartitionsResponse = client.call_controller(&request).await?;
            for result in &answer.results {
                let message = result.error_message.as_deref();
                ClientError::check_told(|| format!("topic {name}"), result.error_code, message)?;
            }
            Ok(())
        })
        .await
}

async fn delete(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    names: &[String],
    if_exists: bool,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Document {
        deleted: Vec<String>,
    }
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match delete_topic(client, name).await {
            Ok(()) => deleted.push(name.clone()),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                if !if_exists {
                    errors.push(client.no_topic(name).await.into());
                }
            }
            Err(error) => errors.push(about_change(error, &format!("topic describe {name}"))),
        }
    }
    if format == Format::Json {
        output.document(&Document { deleted })?;
    } else {
        for name in deleted {
            output.text(&format!("deleted topic {name}\n"))?;
        }
    }
    failures(errors)
}

async fn delete_topic(client: &mut Client, name: &str) -> Result<(), ClientError> {
    // Up to version 5 the names are a list of their own.
    let topic = DeleteTopicsRequestTopics { name: Some(Str::from(name)), topic_id: Uuid::ZERO };
    let request = DeleteTopicsRequest {
        topics: vec![topic],
        topic_names: vec![Str::from(name)],
        timeout_ms: client.patience_ms(),
    };
    client
        .changing(async |client| {
            let answer: DeleteTopicsResponse = client.call_controller(&request).await?;
            for topic in &answer.responses {
                let message = topic.error_message.as_deref();
                ClientError::check_told(|| format!("topic {name}"), topic.error_code, message)?;
            }
            Ok(())
        })
        .await
}
