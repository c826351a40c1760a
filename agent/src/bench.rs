//! `aquifer bench`: load, a store with S3's shape, and the limits of this machine.
//!
//! Every figure is meant to be read beside another of the same run: a physical limit, a modelled
//! floor or a peer. Latencies count from the moment a request was meant to leave, so that a stall
//! is not hidden by the generator waiting for it (coordinated omission).
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time on real sockets")]

pub mod client;
pub mod clock;
pub mod delivery;
pub mod fetch;
pub mod floor;
pub mod idle;
pub mod limits;
pub mod metadata;
pub mod process;
pub mod produce;
pub mod report;
pub mod stamp;
pub mod start;
pub mod store;

use clap::Subcommand;

/// What to measure, or what to measure against.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// An S3-speaking store with S3's latencies, for benchmarks and fault tests.
    Store(store::StoreArgs),
    /// Open-loop produce load over raw Kafka frames.
    Produce(produce::ProduceArgs),
    /// Reads topics over raw Kafka frames.
    Fetch(fetch::FetchArgs),
    /// What latencies add up to at best: a model.
    Floor(floor::FloorArgs),
    /// Cold start of a broker, and what it costs while idle.
    Start(start::StartArgs),
    /// Memory that idle clients and partitions take.
    Idle(idle::IdleArgs),
    /// What this machine can do at best: sockets, checksums, fsync, raw PUT and GET.
    Limits(limits::LimitsArgs),
    /// Commits through a metadata group in this process, and what its runs cost.
    Metadata(metadata::MetadataArgs),
}

/// Runs one of them to its end.
///
/// # Errors
/// A bad argument, a peer that cannot be reached, or an answer that is not what was asked for.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Store(args) => store::run(args).await,
        Bench::Produce(args) => produce::run(args).await,
        Bench::Fetch(args) => fetch::run(args).await,
        Bench::Floor(args) => floor::run(args).await,
        Bench::Start(args) => start::run(args).await,
        Bench::Idle(args) => idle::run(args).await,
        Bench::Limits(args) => limits::run(args).await,
        Bench::Metadata(args) => metadata::run(args).await,
    }
}
