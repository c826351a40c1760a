//! The command line for Kafka: topics, records, groups and settings, of any broker.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | a small async Kafka client |
//! | [`topic`], [`produce`], [`consume`], [`group`], [`config`], [`brokers`] | the commands |
//! | [`records`] | batches there and back (pure) |
//! | [`template`], [`json`], [`output`] | how things are printed |
//! | [`partitioner`], [`value`], [`suggest`] | what the commands share (pure) |
//!
//! # Invariants
//! - Standard output has the answer and nothing else.
//! - The exit code is 0 when all was done, 1 when something failed, 2 when the command made no
//!   sense. A reader that closes our output ends the command with 0.
//! - A change whose outcome is not known is told as unknown, never as failed.

pub mod brokers;
pub mod client;
pub mod config;
pub mod consume;
pub mod group;
pub mod json;
pub mod output;
pub mod partitioner;
pub mod produce;
pub mod records;
pub mod suggest;
pub mod template;
pub mod topic;
pub mod value;

use std::fmt;

use aquifer_storage::seam::Seams;
use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use client::ClientError;
use output::{Output, Terminal};

/// What `--help` says at its end, everywhere.
pub const EXIT_CODES: &str = "\
Exit codes: 0 all done, 1 something failed (standard error says what), 2 the command makes no \
sense.";

/// Commands that speak Kafka to any broker.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Topics: list, create, describe, alter, delete.
    Topic(topic::TopicArgs),
    /// Write records to a topic: from arguments, a file or standard input.
    Produce(produce::ProduceArgs),
    /// Read records of a topic: from anywhere, to the end or for ever.
    Consume(consume::ConsumeArgs),
    /// Consumer groups: list, describe, lag, reset offsets, delete.
    Group(group::GroupArgs),
    /// Settings of topics, brokers and groups: get, set, unset.
    Config(config::ConfigArgs),
}

/// What a command has to work with.
pub struct World {
    /// Clock, randomness, tasks and network.
    pub seams: Seams,
    /// What standard output and error are.
    pub terminal: Terminal,
    /// Cancelled by Ctrl-C and SIGTERM.
    pub shutdown: CancellationToken,
}

/// A command that makes no sense: exit code 2.
#[derive(Debug)]
pub struct Usage(String);

impl Usage {
    /// Says what makes no sense, and what to do.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs a command to its end.
///
/// # Errors
/// [`Usage`], [`output::OutputError`], or what failed.
pub async fn run(command: Command, world: World) -> anyhow::Result<()> {
    let output = Output::new(world.terminal);
    match command {
        Command::Topic(args) => topic::run(args, &world, output).await,
        Command::Produce(args) => produce::run(args, &world, output).await,
        Command::Consume(args) => consume::run(args, &world, output).await,
        Command::Group(args) => group::run(args, &world, output).await,
        Command::Config(args) => config::run(args, &world, output).await,
    }
}

/// An error about a change, which says whether it may have happened.
fn about_change(error: ClientError, look: &str) -> anyhow::Error {
    if error.is_indefinite() {
        let unknown = format!("it is not known whether this happened: look with `aquifer {look}`");
        return anyhow::Error::new(error).context(unknown);
    }
    error.into()
}

/// What is left to say when some of many things failed, each told on its own line.
fn failures(errors: Vec<anyhow::Error>) -> anyhow::Result<()> {
    let lines: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
    match lines.len() {
        0 => Ok(()),
        _ => Err(anyhow::anyhow!(lines.join("\naquifer: "))),
    }
}
