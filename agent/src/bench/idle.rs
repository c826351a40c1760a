//! What clients and partitions cost a broker that nobody uses: its memory before and after.

use std::{thread, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;

use super::{
    client::{Cluster, Connection, NewTopic},
    process::CpuReading,
    report,
};

/// Arguments.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    /// Brokers to connect to: host:port,...
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Connections that say who they are and then nothing.
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// Topics to create.
    #[arg(long, default_value_t = 0)]
    topics: usize,
    /// Partitions of each.
    #[arg(long, default_value_t = 1000)]
    partitions: i32,
    /// Seconds to hold still before the memory is read.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
    /// The broker's processes.
    #[arg(long, value_delimiter = ',', required = true)]
    pid: Vec<u32>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct IdleReport {
    connections: usize,
    partitions: i64,
    rss_before_mib: f64,
    rss_after_mib: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kib_per_connection: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kib_per_partition: Option<f64>,
    /// From the first request to the last answer.
    create_s: f64,
}

/// Runs it.
///
/// # Errors
/// The broker refuses a connection or a topic.
pub async fn run(args: IdleArgs) -> anyhow::Result<()> {
    tokio::task::block_in_place(|| measure(&args))
}

fn measure(args: &IdleArgs) -> anyhow::Result<()> {
    ensure!(0 < args.connections || 0 < args.topics, "give --connections or --topics");
    let cluster = Cluster::new(&args.bootstrap)?;
    // What the first of each costs is not what the next one costs.
    let first = cluster.connect()?;
    let before = resident_mib(args)?;
    let from = std::time::Instant::now();
    let mut open = vec![first];
    for number in 1..=args.connections {
        let broker = open[0].broker().to_owned();
        let context = || format!("connection {number} of {}", args.connections);
        open.push(Connection::open(&broker).with_context(context)?);
    }
    for number in 0..args.topics {
        cluster.ensure_topic(&NewTopic {
            name: format!("bench-idle-{number}"),
            partitions: args.partitions,
            replication_factor: -1,
        })?;
    }
    let create_s = from.elapsed().as_secs_f64();
    let after = resident_mib(args)?;
    let partitions = i64::from(args.partitions) * i64::try_from(args.topics)?;
    let per = |count: f64| (0.0 < count).then(|| (after - before) * 1024.0 / count);
    let only_connections = args.topics == 0;
    let report = IdleReport {
        connections: args.connections,
        partitions,
        rss_before_mib: before,
        rss_after_mib: after,
        kib_per_connection: per(args.connections as f64).filter(|_| only_connections),
        kib_per_partition: per(partitions as f64).filter(|_| args.connections == 0),
        create_s,
    };
    report::print(&report, args.json)
}

/// Resident memory of the broker's processes, once they came to rest.
fn resident_mib(args: &IdleArgs) -> anyhow::Result<f64> {
    thread::sleep(Duration::from_secs_f64(args.settle));
    let now = CpuReading::take(&args.pid)?;
    Ok(now.until(&now).iter().map(|process| process.rss_mib).sum())
}
