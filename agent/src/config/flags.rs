//! What the command line takes.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use super::value::parse_pair;
use crate::{
    bench::Bench,
    cli::{EXIT_CODES, output, value::parse_duration},
    tls::TlsFlags,
};

/// Ids above belong to metadata nodes that join later.
pub const FOUNDER_ID_MAX: u64 = 99;

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
    /// Object store: file:PATH, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or
    /// memory: [file:<data>/bucket].
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
