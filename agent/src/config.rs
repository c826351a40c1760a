//! Settings: defaults, then the TOML file, then `AQUIFER_*` variables, then flags. An error names
//! the setting and where it came from.

use std::{
    collections::BTreeMap, fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr,
    time::Duration,
};

use aquifer_metadata::machine::command::HostPort;
use clap::{Args, Parser, Subcommand};
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    bench::Bench,
    cli::{EXIT_CODES, output, value::parse_duration},
    configs::{layers, rule, table},
    placement::zone::ZoneBlocks,
    tls::TlsFlags,
};

/// Ids above belong to metadata nodes that join later.
pub const FOUNDER_ID_MAX: u64 = 99;
/// More voters only make every commit slower.
const VOTERS_MAX: usize = 7;

/// A Kafka broker without disks.
#[derive(Debug, Parser)]
#[command(name = "aquifer", version, about, long_about = None, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to run; `up` when left out.
    #[command(subcommand)]
    pub role: Option<Role>,
    /// Flags of the default role, `up`.
    #[command(flatten)]
    pub flags: Flags,
}

/// What this process is.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Everything in one process: one metadata voter and one agent, on a local folder or any
    /// bucket.
    Up(Flags),
    /// One node of the metadata group.
    Metadata(Flags),
    /// A stateless agent that speaks the Kafka protocol.
    Agent(Flags),
    /// The metadata group: how it stands, and changes of it.
    Cluster(Cluster),
    /// Asks a process whether it serves: exit code 0 when it does, for a container's health check.
    Health(HealthFlags),
    /// Tries out the store and looks at this machine: what stops Aquifer, and what to do.
    Doctor(crate::doctor::DoctorArgs),
    /// What speaks Kafka to any broker.
    #[command(flatten)]
    Client(crate::cli::Command),
    /// Prints a completion script for a shell.
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Load, a store with S3's shape, and the limits of this machine.
    #[command(subcommand)]
    Bench(Bench),
}

const STATUS_HELP: &str = "Examples:
  aquifer cluster status
  aquifer cluster status --metadata node-1:9340,node-2:9340
  aquifer cluster status --bootstrap broker-1:9092 -o json";

const HEALTH_HELP: &str = "Examples:
  aquifer health
  aquifer health --http 127.0.0.1:9644 --timeout 1s
  aquifer health --live

The address is otherwise looked for as the process itself does: AQUIFER_HTTP, then the file.";

const COMPLETION_HELP: &str = "Examples:
  aquifer completion bash > /etc/bash_completion.d/aquifer
  aquifer completion zsh > \"${fpath[1]}/_aquifer\"
  aquifer completion fish > ~/.config/fish/completions/aquifer.fish";

/// An operation on the metadata group.
#[derive(Clone, Debug, Args)]
pub struct Cluster {
    /// Metadata nodes to ask; any one will do [127.0.0.1:9340].
    #[arg(long, value_name = "ADDR,...", env = "AQUIFER_METADATA", global = true)]
    pub metadata: Option<String>,
    /// What an operator proves itself with.
    #[command(flatten)]
    pub tls: TlsFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What an operator may ask of the metadata group.
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// Who is in the group, who leads it, and how far each node is.
    #[command(after_help = STATUS_HELP)]
    Status {
        /// Ask these Kafka brokers, ours or others, for the brokers and the metadata quorum, and
        /// the metadata nodes only when --metadata names some.
        #[arg(short, long, visible_alias = "bootstrap-server", value_name = "HOST:PORT,...")]
        bootstrap: Option<String>,
        /// How to print what the brokers say.
        #[arg(short, long, value_name = "FORMAT", default_value = "table", requires = "bootstrap")]
        output: output::Format,
        /// With the hash of the state, which is equal on all nodes at equal indexes.
        #[arg(long)]
        hash: bool,
        /// As the first node that answers sees it, be it the leader or not.
        #[arg(long)]
        local: bool,
    },
    /// Makes a node that joined a voter, once it caught up.
    AddVoter {
        /// Its id.
        id: u64,
    },
    /// Removes a voter, or a node that joined, for ever.
    RemoveVoter {
        /// Its id.
        id: u64,
    },
    /// Hands leadership to another voter.
    TransferLeader {
        /// Its id; the voter that is furthest when left out.
        id: Option<u64>,
    },
    /// Ships a snapshot of the metadata to the bucket now.
    Snapshot,
    /// After the majority of the metadata nodes was lost: begins the cluster's next life, with one
    /// voter, from the last backup in the bucket. Asks no node; none of the old ones may run.
    Restore(RestoreFlags),
}

/// What a restore needs to know.
#[derive(Clone, Debug, Args)]
pub struct RestoreFlags {
    /// The cluster's object store: file:PATH or s3://bucket/prefix.
    #[arg(long, value_name = "URL")]
    pub store: String,
    /// Folder of the node to begin with. Must hold no metadata.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The node's id.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=FOUNDER_ID_MAX))]
    pub id: u64,
    /// Where that node will listen, so that others can join it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9340")]
    pub listen: SocketAddr,
    /// More offsets than any partition got after the backup: next offsets rise by so many.
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i32::MAX as i64))]
    pub offset_jump: u32,
}

/// Flags shared by all roles. Every one can also be set as `AQUIFER_<NAME>` or in the TOML file.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct Flags {
    /// TOML file with settings under the flags' names; Kafka's server settings under `[server]`.
    #[arg(long, value_name = "FILE", env = "AQUIFER_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Folder of the metadata log, snapshots and, by default, the bucket [./aquifer-data].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Object store: file:PATH, s3://bucket/prefix or memory: [file:<data>/bucket].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Make the bucket of --store if it is not there, and add lifecycle rules for what is left of
    /// uploads and of deleted versions.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_bucket: bool,
    /// Kafka listener [127.0.0.1:9092].
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<String>,
    /// Health and metrics listener [127.0.0.1:9644].
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Address that clients are told [the Kafka listener].
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Availability zone, Kafka's rack.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Metadata nodes an agent connects to.
    #[arg(long, value_name = "ADDR,...")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// Metadata nodes that begin a group together, as ID=HOST:PORT: the same list on each of them,
    /// at its first start.
    #[arg(long, value_name = "ID=ADDR,...")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voters: Option<String>,
    /// A metadata node whose group this one, on an empty --data, joins.
    #[arg(long, value_name = "ADDR", conflicts_with = "voters")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// This metadata node's id among --voters, from 1.
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Where a metadata node listens [127.0.0.1:9340].
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// What this process proves itself with to metadata nodes and agents.
    #[command(flatten)]
    #[serde(flatten)]
    pub tls: TlsFlags,
    /// Memory an agent may hold, such as 512MiB or 4GiB.
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Partitions of an automatically created topic [1].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_partitions: Option<u32>,
    /// A server setting by its Kafka or Aquifer name, such as -o flush.interval.ms=50.
    #[arg(short = 'o', value_name = "NAME=VALUE", value_parser = parse_pair)]
    #[serde(skip)]
    pub options: Vec<(String, String)>,
}

/// All settings of a process, checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// See [`Flags::data`].
    pub data: PathBuf,
    /// See [`Flags::store`]; `None` means `file:<data>/bucket`.
    #[serde(default)]
    pub store: Option<String>,
    /// See [`Flags::create_bucket`].
    #[serde(default)]
    pub create_bucket: bool,
    /// See [`Flags::kafka`].
    pub kafka: SocketAddr,
    /// See [`Flags::http`].
    pub http: SocketAddr,
    /// See [`Flags::advertise`].
    #[serde(default, deserialize_with = "host_port")]
    pub advertise: Option<HostPort>,
    /// See [`Flags::zone`].
    #[serde(default)]
    pub zone: Option<String>,
    /// See [`Flags::metadata`].
    #[serde(default)]
    pub metadata: String,
    /// See [`Flags::voters`].
    #[serde(default)]
    pub voters: Option<String>,
    /// See [`Flags::join`].
    #[serde(default)]
    pub join: Option<String>,
    /// See [`Flags::id`].
    pub id: u64,
    /// See [`Flags::listen`].
    pub listen: SocketAddr,
    /// See [`TlsFlags::tls_cert`].
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// See [`TlsFlags::tls_key`].
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// See [`TlsFlags::tls_ca`].
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// See [`Flags::memory`].
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// See [`Flags::num_partitions`].
    pub num_partitions: u32,
    /// Kafka's server settings by name, as given.
    #[serde(default)]
    pub server: BTreeMap<String, figment::value::Value>,
    /// The same, checked.
    #[serde(skip)]
    pub options: ServerOptions,
}

/// Server settings with meaning here, by their Kafka or Aquifer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `default.replication.factor`: what Metadata shows for automatically created topics.
    pub default_replication_factor: u16,
    /// `flush.interval.ms`: the longest a batch waits for its object to fill, in milliseconds.
    pub flush_interval_ms: u64,
    /// `object.size`: the writer closes an object at this many bytes.
    pub object_bytes: usize,
    /// `put.budget`: PUTs per second, bursts of ten times that up to 100.
    pub puts_per_second: Option<u32>,
    /// `fetch.max.bytes`: the most one Fetch answers.
    pub fetch_bytes_max: usize,
    /// `socket.request.max.bytes`: the largest frame.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`.
    pub idle_ms_max: u64,
    /// `drain.delay.ms`: how long a draining agent keeps serving after `/readyz` turned 503, so
    /// that a load balancer moves its clients first. `None` means not set: see
    /// [`Settings::drain_delay`].
    pub drain_delay_ms: Option<u64>,
    /// `backup.interval`: how long committed metadata may wait until it is shipped to the bucket.
    pub backup_interval: Duration,
    /// `backup.keep`: how long older backups of the metadata stay in the bucket.
    pub backup_keep: Duration,
    /// `client.zone.blocks`: zones by client address, such as
    /// `10.0.0.0/16=us-east-1a,10.1.0.0/16=us-east-1b`; a zone in the client id goes before.
    pub client_zone_blocks: ZoneBlocks,
    /// Every setting that was given, as text by its name. Also the defaults of topics under Kafka's
    /// broker names, such as `log.retention.ms`, which brokers' dynamic configs go before.
    pub given: BTreeMap<String, String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            auto_create_topics: true,
            delete_topics: true,
            default_replication_factor: 1,
            flush_interval_ms: 100,
            object_bytes: 8 << 20,
            puts_per_second: None,
            fetch_bytes_max: 55 << 20,
            request_bytes_max: 100 << 20,
            idle_ms_max: 600_000,
            drain_delay_ms: None,
            backup_interval: Duration::from_secs(15),
            backup_keep: Duration::from_secs(60 * 60),
            client_zone_blocks: ZoneBlocks::default(),
            given: BTreeMap::new(),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The figment error names the key and its source.
    #[error("{0}")]
    Invalid(Box<figment::Error>),
    /// A server setting with a bad value or name.
    #[error("server setting {name} (from {from}): {reason}")]
    Server {
        /// Its name.
        name: String,
        /// `-o`, or the TOML file.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// Settings that do not fit together.
    #[error("{0}")]
    Conflict(String),
}

impl ConfigError {
    fn server(name: &str, from: &str, reason: impl fmt::Display) -> Self {
        Self::Server { name: name.to_owned(), from: from.to_owned(), reason: reason.to_string() }
    }
}

/// Defaults that do not depend on anything.
#[derive(Serialize)]
struct Defaults {
    data: &'static str,
    kafka: &'static str,
    http: &'static str,
    listen: &'static str,
    id: u64,
    num_partitions: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, Args)]
#[command(after_help = HEALTH_HELP)]
pub struct HealthFlags {
    /// The process's health listener [127.0.0.1:9644].
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// The process's TOML file, when that says where its health listener is.
    #[arg(long, value_name = "FILE", env = "AQUIFER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Whether it is alive, rather than whether clients should be sent to it.
    #[arg(long)]
    pub live: bool,
    /// How long it may take to answer, such as 500ms or 10s.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// Merges all sources for a role's `flags`.
///
/// # Errors
/// The first setting that is unknown, malformed or in conflict, with its source.
pub fn load(flags: &Flags) -> Result<Settings, ConfigError> {
    let mut settings: Settings =
        sources(flags).extract().map_err(|error| ConfigError::Invalid(Box::new(error)))?;
    for (name, value) in &settings.server {
        let text = match value {
            figment::value::Value::String(_, text) => text.clone(),
            figment::value::Value::Bool(_, flag) => flag.to_string(),
            figment::value::Value::Num(_, number) => {
                number.to_i128().map(|n| n.to_string()).unwrap_or_default()
            }
            _ => return Err(ConfigError::server(name, "the file", "must be a plain value")),
        };
        settings.options.set(name, &text, "the file")?;
    }
    for (name, value) in &flags.options {
        match name.as_str() {
            "num.partitions" => {
                settings.num_partitions = parse(name, value, "-o")?;
                settings.options.given.insert(name.clone(), value.clone());
            }
            _ => settings.options.set(name, value, "-o")?,
        }
    }
    if !(1..=10_000).contains(&settings.num_partitions) {
        return Err(ConfigError::Conflict("num.partitions must be 1 to 10000".to_owned()));
    }
    settings.resolve_advertise()?;
    Ok(settings)
}

/// Where a process with these sources serves health and metrics.
///
/// # Errors
/// The address is malformed, or the file cannot be read; with its source.
pub fn http_address(flags: &HealthFlags) -> Result<SocketAddr, ConfigError> {
    let HealthFlags { http, config, .. } = flags.clone();
    let flags = Flags { http, config, ..Flags::default() };
    sources(&flags).extract_inner("http").map_err(|error| ConfigError::Invalid(Box::new(error)))
}

fn sources(flags: &Flags) -> Figment {
    let defaults = Defaults {
        data: "./aquifer-data",
        kafka: "127.0.0.1:9092",
        http: "127.0.0.1:9644",
        listen: "127.0.0.1:9340",
        id: 1,
        num_partitions: 1,
    };
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(path) = &flags.config {
        figment = figment.merge(Toml::file_exact(path));
    }
    figment
        .merge(
            Env::prefixed("AQUIFER_")
                .ignore(&["bootstrap", "config", "log", "s3_virtual_hosted"])
                .lowercase(true),
        )
        .merge(Serialized::defaults(flags))
}

impl Settings {
    /// The store's URL.
    pub fn store_url(&self) -> String {
        match &self.store {
            Some(url) => url.clone(),
            None => format!("file:{}", self.data.join("bucket").display()),
        }
    }

    /// What this process proves itself with.
    pub fn tls(&self) -> TlsFlags {
        let Self { tls_cert, tls_key, tls_ca, .. } = self.clone();
        TlsFlags { tls_cert, tls_key, tls_ca }
    }

    /// The address clients are told.
    pub fn advertised(&self) -> HostPort {
        self.advertise.clone().unwrap_or_else(|| HostPort {
            host: self.kafka.ip().to_string(),
            port: self.kafka.port(),
        })
    }

    /// How long a draining agent keeps serving: five seconds where clients come through another
    /// address than this agent's own, which a load balancer then has to take it out of.
    pub fn drain_delay(&self) -> Duration {
        let own = HostPort { host: self.kafka.ip().to_string(), port: self.kafka.port() };
        let behind_another = self.advertise.as_ref().is_some_and(|advertise| *advertise != own);
        let default = if behind_another { 5000 } else { 0 };
        Duration::from_millis(self.options.drain_delay_ms.unwrap_or(default))
    }

    fn resolve_advertise(&self) -> Result<(), ConfigError> {
        if self.advertise.is_none() && self.kafka.ip().is_unspecified() {
            return Err(ConfigError::Conflict(format!(
                "--kafka {} listens on every address, so clients cannot be told one: \
                 add --advertise HOST:PORT",
                self.kafka
            )));
        }
        Ok(())
    }
}

impl ServerOptions {
    fn set(&mut self, name: &str, value: &str, from: &str) -> Result<(), ConfigError> {
        match name {
            "auto.create.topics.enable" => self.auto_create_topics = parse(name, value, from)?,
            "delete.topic.enable" => self.delete_topics = parse(name, value, from)?,
            "default.replication.factor" => {
                self.default_replication_factor = parse(name, value, from)?;
            }
            "flush.interval.ms" => {
                self.flush_interval_ms = bounded(name, value, from, 1, 10_000)?;
            }
            "object.size" => {
                let bytes: ByteSize = parse(name, value, from)?;
                let range = 64 << 10..=64 << 20;
                if !range.contains(&bytes.0) {
                    return Err(ConfigError::server(name, from, "must be 64KiB to 64MiB"));
                }
                self.object_bytes = bytes.0 as usize;
            }
            "put.budget" => {
                let puts: u64 = bounded(name, value, from, 1, 100_000)?;
                self.puts_per_second = Some(puts as u32);
            }
            "fetch.max.bytes" => {
                self.fetch_bytes_max = bounded(name, value, from, 1024, 1 << 30)? as usize;
            }
            "socket.request.max.bytes" => {
                self.request_bytes_max = bounded(name, value, from, 1 << 16, 1 << 30)? as usize;
            }
            "connections.max.idle.ms" => {
                self.idle_ms_max = bounded(name, value, from, 1000, u64::MAX)?;
            }
            "client.zone.blocks" => self.client_zone_blocks = parse(name, value, from)?,
            "drain.delay.ms" => {
                self.drain_delay_ms = Some(bounded(name, value, from, 0, 600_000)?);
            }
            "backup.interval" => {
                let range = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
                self.backup_interval = period(name, value, from, range)?;
            }
            "backup.keep" => {
                let range = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
                self.backup_keep = period(name, value, from, range)?;
            }
            _ => {
                let known = table::broker().get(name).filter(|_| layers::is_topic_default(name));
                let Some(known) = known else {
                    return Err(ConfigError::server(name, from, "unknown, or not honoured here"));
                };
                let value = rule::check(name, value, known.config_type, known.rule)
                    .map_err(|words| ConfigError::server(name, from, words))?;
                self.given.insert(name.to_owned(), value);
                return Ok(());
            }
        }
        self.given.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(
    name: &str,
    value: &str,
    from: &str,
) -> Result<T, ConfigError> {
    value.parse().map_err(|error| ConfigError::server(name, from, format!("{value:?}: {error}")))
}

fn bounded(name: &str, value: &str, from: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
    let number: u64 = parse(name, value, from)?;
    if min <= number && number <= max {
        Ok(number)
    } else {
        Err(ConfigError::server(name, from, format!("{number} is not in {min}..={max}")))
    }
}

/// A time with its unit: `500ms`, `15s`, `90m`, `1h`, `7d`.
fn period(
    name: &str,
    value: &str,
    from: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: Option<u64> = value[..value.len() - unit.len()].parse().ok();
    let millis: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let millis = number.zip(millis).and_then(|(number, unit)| number.checked_mul(unit));
    let Some(period) = millis.map(Duration::from_millis) else {
        let reason = format!("{value:?} is no time with its unit, such as 500ms, 15s, 90m or 1h");
        return Err(ConfigError::server(name, from, reason));
    };
    if range.contains(&period) {
        Ok(period)
    } else {
        let reason = format!("{value} is not from {:?} to {:?}", range.start(), range.end());
        Err(ConfigError::server(name, from, reason))
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses `id=host:port,...`: one to seven voters, with ids from 1 to 99.
///
/// # Errors
/// What is wrong.
pub fn parse_voters(text: &str) -> Result<BTreeMap<u64, String>, String> {
    let mut voters = BTreeMap::new();
    for one in text.split(',') {
        let (id, address) = one.trim().split_once('=').ok_or(format!("{one:?} is not ID=ADDR"))?;
        let id = id.parse().ok().filter(|id| (1..=FOUNDER_ID_MAX).contains(id));
        let id = id.ok_or(format!("{one:?} has no id from 1 to {FOUNDER_ID_MAX}"))?;
        parse_host_port(address)?;
        if voters.values().any(|known| known == address) {
            return Err(format!("{address} is named twice"));
        }
        if voters.insert(id, address.to_owned()).is_some() {
            return Err(format!("id {id} is named twice"));
        }
    }
    if VOTERS_MAX < voters.len() {
        return Err(format!("{} voters are more than {VOTERS_MAX}: use 3 or 5", voters.len()));
    }
    Ok(voters)
}

/// Parses `host:port`, also `[::1]:port`.
///
/// # Errors
/// What is missing.
pub fn parse_host_port(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or(format!("{text:?} is not HOST:PORT"))?;
    let port = port.parse().map_err(|_| format!("{text:?} has no port from 1 to 65535"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || port == 0 {
        return Err(format!("{text:?} is not HOST:PORT"));
    }
    Ok(HostPort { host, port })
}

fn host_port<'de, D: Deserializer<'de>>(source: D) -> Result<Option<HostPort>, D::Error> {
    let text = Option::<String>::deserialize(source)?;
    text.map(|text| parse_host_port(&text).map_err(serde::de::Error::custom)).transpose()
}

/// A number of bytes, written with or without a unit: `1048576`, `64KiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u64 = match &text[digits.len()..] {
            "" | "B" => 1,
            "K" | "KB" | "KiB" => 1 << 10,
            "M" | "MB" | "MiB" => 1 << 20,
            "G" | "GB" | "GiB" => 1 << 30,
            other => return Err(format!("unknown unit {other:?}: use KiB, MiB or GiB")),
        };
        let number: u64 = digits.trim().parse().map_err(|_| format!("{text:?} is not a size"))?;
        number.checked_mul(unit).map(Self).ok_or(format!("{text:?} is too large"))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(u64),
            Words(String),
        }
        match Text::deserialize(source)? {
            Text::Number(bytes) => Ok(Self(bytes)),
            Text::Words(words) => words.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests;
