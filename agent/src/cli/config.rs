//! `aquifer config`: settings of topics, brokers and groups.

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::{
    EXIT_CODES, Usage, World, about_change,
    client::{ANY, Client, ClientError, ConnectArgs},
    output::{Format, FormatArgs, Output, Table},
    suggest,
    value::parse_pair,
};
use crate::wire::{
    ErrorCode, Str,
    messages::{
        DescribeConfigsRequest, DescribeConfigsRequestResources, DescribeConfigsResponse,
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsRequestResources,
        IncrementalAlterConfigsRequestResourcesConfigs, IncrementalAlterConfigsResponse,
    },
};

/// `aquifer config`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ConfigArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(subcommand)]
    command: ConfigCommand,
}

/// What to do with settings.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Shows settings: those that are not at their default, or the ones named.
    #[command(after_help = "Examples:
  aquifer config get topic orders
  aquifer config get topic orders retention.ms cleanup.policy
  aquifer config get broker 1 --all
  aquifer config get broker default
  aquifer config get topic orders --all -o json")]
    Get {
        #[command(flatten)]
        entity: Entity,
        /// Only these settings.
        #[arg(value_name = "SETTING")]
        settings: Vec<String>,
        /// Also those at their default.
        #[arg(short, long, conflicts_with = "settings")]
        all: bool,
    },
    /// Changes settings.
    #[command(after_help = "Examples:
  aquifer config set topic orders retention.ms=86400000
  aquifer config set group billing consumer.session.timeout.ms=50000
  aquifer config set broker default log.retention.ms=3600000")]
    Set {
        #[command(flatten)]
        entity: Entity,
        /// The settings.
        #[arg(required = true, value_name = "SETTING=VALUE", value_parser = parse_pair)]
        settings: Vec<(String, String)>,
        /// Ask whether it could be done, and do nothing.
        #[arg(long, visible_alias = "dry-run")]
        validate_only: bool,
    },
    /// Takes settings back to their defaults.
    #[command(after_help = "Examples:
  aquifer config unset topic orders retention.ms max.message.bytes")]
    Unset {
        #[command(flatten)]
        entity: Entity,
        /// The settings.
        #[arg(required = true, value_name = "SETTING")]
        settings: Vec<String>,
        /// Ask whether it could be done, and do nothing.
        #[arg(long, visible_alias = "dry-run")]
        validate_only: bool,
    },
}

/// Whose settings.
#[derive(Clone, Debug, Args)]
struct Entity {
    /// What has the settings.
    kind: Kind,
    /// A topic's name, a broker's id (or `default` for all brokers), a group's name.
    name: String,
}

/// What can have settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A topic.
    Topic,
    /// A broker, or all of them.
    Broker,
    /// A consumer group.
    Group,
}

impl Kind {
    const fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::Group => 32,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Broker => "broker",
            Self::Group => "group",
        }
    }
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To a value.
    Set(String, String),
    /// To its default.
    Unset(String),
}

impl Change {
    fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Unset(name) => name,
        }
    }
}

/// A setting, as the broker tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    name: String,
    /// `None` for a secret.
    value: Option<String>,
    /// Kafka's name of where the value comes from.
    source: &'static str,
    read_only: bool,
    sensitive: bool,
}

impl Setting {
    /// Whether somebody set it.
    pub fn is_changed(&self) -> bool {
        self.source != "DEFAULT_CONFIG"
    }
}

const fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(args: ConfigArgs, world: &World, mut output: Output) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.connect, world.seams.clone()).await?;
    let (client, format) = (&mut client, args.format.output);
    match args.command {
        ConfigCommand::Get { entity, settings, all } => {
            get(client, &mut output, format, &entity, &settings, all).await
        }
        ConfigCommand::Set { entity, settings, validate_only } => {
            let set = settings.into_iter().map(|(name, value)| Change::Set(name, value));
            alter(client, &mut output, format, &entity, &set.collect::<Vec<_>>(), validate_only)
                .await
        }
        ConfigCommand::Unset { entity, settings, validate_only } => {
            let unset = settings.into_iter().map(Change::Unset).collect::<Vec<_>>();
            alter(client, &mut output, format, &entity, &unset, validate_only).await
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    name: &'a str,
    configs: Vec<Setting>,
}

#[expect(clippy::too_many_arguments, reason = "what the command line says, in its order")]
async fn get(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    entity: &Entity,
    wanted: &[String],
    all: bool,
) -> anyhow::Result<()> {
    let Entity { kind, name } = entity;
    if *kind == Kind::Topic {
        client.topic(name).await?; // Which knows what else may have been meant.
    }
    let names: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mut configs = settings(client, *kind, name, &names).await?;
    let absent = |name: &&&str| !configs.iter().any(|setting| setting.name == **name);
    if let Some(absent) = names.iter().find(absent) {
        return Err(no_setting(client, *kind, name, absent).await.into());
    }
    configs.retain(|setting| all || !wanted.is_empty() || setting.is_changed());
    if format == Format::Json {
        return Ok(output.document(&Document { kind: *kind, name, configs })?);
    }
    if configs.is_empty() {
        eprintln!("all settings of {} {name} are at their defaults; --all shows them", kind.word());
        return Ok(());
    }
    Ok(output.table(&table(&configs))?)
}

/// Settings as a table.
pub fn table(configs: &[Setting]) -> Table {
    let mut table = Table::new(&["setting", "value", "source"]);
    for setting in configs {
        let value = match &setting.value {
            Some(value) => value.clone(),
            None if setting.sensitive => "(secret)".to_owned(),
            None => "-".to_owned(),
        };
        table.row([setting.name.clone(), value, setting.source.to_lowercase()]);
    }
    table
}

/// The settings of `names`, or all for none.
///
/// # Errors
/// The broker does not say.
pub async fn settings(
    client: &mut Client,
    kind: Kind,
    name: &str,
    names: &[&str],
) -> Result<Vec<Setting>, ClientError> {
    let resource = DescribeConfigsRequestResources {
        resource_type: kind.code(),
        resource_name: Str::from(resource_name(kind, name)),
        configuration_keys: (!names.is_empty())
            .then(|| names.iter().map(|name| Str::from(*name)).collect()),
    };
    let request =
        DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
    let mut settings = Vec::new();
    client
        .retrying(async |client| {
            settings.clear();
            let broker = broker_of(client, kind, name).await?;
            let answer: DescribeConfigsResponse = match broker {
                Some(broker) => {
                    client.call_at(&broker, ANY, &request, std::time::Duration::ZERO).await?
                }
                None => client.call_any(ANY, &request).await?,
            };
            for result in &answer.results {
                let message = result.error_message.as_deref();
                let subject = || format!("{} {name}", kind.word());
                ClientError::check_told(subject, result.error_code, message)?;
                settings.extend(result.configs.iter().map(|row| Setting {
                    name: row.name.to_string(),
                    value: row.value.as_ref().map(Str::to_string),
                    source: source_name(row.config_source),
                    read_only: row.read_only,
                    sensitive: row.is_sensitive,
                }));
            }
            Ok(())
        })
        .await?;
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(settings)
}

/// The empty name stands for all brokers.
fn resource_name(kind: Kind, name: &str) -> &str {
    if kind == Kind::Broker && name == "default" { "" } else { name }
}

/// A broker's own settings are asked of that broker; any one knows the others.
async fn broker_of(
    client: &mut Client,
    kind: Kind,
    name: &str,
) -> Result<Option<String>, ClientError> {
    if kind != Kind::Broker || name == "default" {
        return Ok(None);
    }
    let no_id = || format!("{name:?} is no broker's id: write a number, or default for all");
    let id = name.parse().map_err(|_| ClientError::Missing(no_id()))?;
    client.broker(id).await.map(Some)
}

async fn no_setting(client: &mut Client, kind: Kind, name: &str, wanted: &str) -> ClientError {
    let all = settings(client, kind, name, &[]).await.unwrap_or_default();
    let hint = suggest::hint(wanted, all.iter().map(|setting| setting.name.as_str()));
    ClientError::Missing(format!("{} {name} has no setting {wanted}{hint}", kind.word()))
}

#[expect(clippy::too_many_arguments, reason = "what the command line says, in its order")]
async fn alter(
    client: &mut Client,
    output: &mut Output,
    format: Format,
    entity: &Entity,
    changes: &[Change],
    validate_only: bool,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Changed<'a> {
        #[serde(rename = "type")]
        kind: Kind,
        name: &'a str,
        changed: Vec<&'a str>,
        validate_only: bool,
    }
    let Entity { kind, name } = entity;
    change(client, *kind, name, changes, validate_only).await?;
    if format == Format::Json {
        let changed = changes.iter().map(Change::name).collect();
        return Ok(output.document(&Changed { kind: *kind, name, changed, validate_only })?);
    }
    let whose = format!("{} {name}", kind.word());
    if validate_only {
        return Ok(output.text(&format!("{whose} could be changed so\n"))?);
    }
    Ok(output.text(&told(&whose, changes))?)
}

/// What was changed, one line a setting.
pub fn told(whose: &str, changes: &[Change]) -> String {
    let line = |change: &Change| match change {
        Change::Set(name, value) => format!("{whose}: {name} is {value} now\n"),
        Change::Unset(name) => format!("{whose}: {name} is at its default now\n"),
    };
    changes.iter().map(line).collect()
}

/// Changes settings.
///
/// # Errors
/// The broker refuses, or it is not known whether it did it.
pub async fn change(
    client: &mut Client,
    kind: Kind,
    name: &str,
    changes: &[Change],
    validate_only: bool,
) -> anyhow::Result<()> {
    let config = |change: &Change| IncrementalAlterConfigsRequestResourcesConfigs {
        name: Str::from(change.name()),
        config_operation: i8::from(matches!(change, Change::Unset(_))),
        value: match change {
            Change::Set(_, value) => Some(Str::from(value.as_str())),
            Change::Unset(_) => None,
        },
    };
    let mut names: Vec<&str> = changes.iter().map(Change::name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Usage::new(format!("{} is there twice", twice[0])).into());
    }
    let resource = IncrementalAlterConfigsRequestResources {
        resource_type: kind.code(),
        resource_name: Str::from(resource_name(kind, name)),
        configs: changes.iter().map(config).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only };
    let asked = client
        .changing(async |client| {
            let answer: IncrementalAlterConfigsResponse =
                match broker_of(client, kind, name).await? {
                    Some(broker) => {
                        client.call_at(&broker, ANY, &request, std::time::Duration::ZERO).await?
                    }
                    None => client.call_controller(&request).await?,
                };
            for row in &answer.responses {
                let message = row.error_message.as_deref();
                let subject = || format!("{} {name}", kind.word());
                ClientError::check_told(subject, row.error_code, message)?;
            }
            Ok(())
        })
        .await;
    let Err(error) = asked else { return Ok(()) };
    match (kind, error.code()) {
        (Kind::Topic, Some(ErrorCode::UnknownTopicOrPartition)) => {
            Err(client.no_topic(name).await.into())
        }
        (_, Some(ErrorCode::InvalidConfig)) => {
            Err(explained(client, kind, name, changes, error).await)
        }
        _ => Err(about_change(error, &format!("config get {} {name}", kind.word()))),
    }
}

/// The refusal, and the setting that may have been meant where one is unknown.
async fn explained(
    client: &mut Client,
    kind: Kind,
    name: &str,
    changes: &[Change],
    refused: ClientError,
) -> anyhow::Error {
    let all = settings(client, kind, name, &[]).await.unwrap_or_default();
    let known = |wanted: &str| all.iter().any(|setting| setting.name == wanted);
    let unknown = changes.iter().map(Change::name).find(|name| !known(name));
    let hint = unknown
        .map(|wanted| suggest::hint(wanted, all.iter().map(|setting| setting.name.as_str())));
    match hint {
        Some(hint) if !hint.is_empty() => anyhow::anyhow!("{refused}{hint}"),
        _ => refused.into(),
    }
}
