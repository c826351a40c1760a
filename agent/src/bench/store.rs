//! A store with S3's shape: an S3 server in memory that takes as long as S3 does and fails on
//! demand, or that layer alone in front of a real server.
//!
//! A request's latency counts from the end of its head. An answer to a PUT leaves after it and not
//! before the body could have come at the connection's bandwidth; the body of an answer to a GET
//! begins after it and leaves at that bandwidth.
//!
//! # Non-obvious
//! - Any credentials are good and any bucket is there.
//! - Bytes are neither hashed nor copied: an ETag stands for one PUT, and an object is a list of
//!   the buffers it came in. Small objects are copied once, out of larger buffers.
//! - Waits end within about a millisecond of the drawn latency, either way: a tick of the timer.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

pub mod admin;
pub mod body;
pub mod chunked;
pub mod counters;
pub mod fault;
pub mod latency;
pub mod local;
pub mod objects;
pub mod request;
pub mod serve;
pub mod upstream;
pub mod xml;

use crate::config::ByteSize;
use body::Bandwidth;
use latency::{LatencyModel, Preset, Tail};
use local::LocalStore;
use serve::{Backend, Stub};
use upstream::UpstreamAddress;

/// More MiB per second than this are no limit.
const BANDWIDTH_MIB_MAX: f64 = 1e6;

/// Arguments.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Where to listen. Port 0 takes any; the line that is printed names it.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Whose latencies and bandwidth to imitate.
    #[arg(long, default_value = "zero")]
    preset: Preset,
    /// The same seed draws the same latencies, and the same requests to fail.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// MiB per second of one connection each way, 0 for no limit; otherwise the preset's: 85 for
    /// S3, none for zero.
    #[arg(long, value_name = "MIB/S")]
    bandwidth: Option<f64>,
    /// This fraction of PUTs takes FACTOR times as long, such as 0.01:5.
    #[arg(long, value_name = "FRACTION:FACTOR")]
    tail: Option<Tail>,
    /// PUTs beyond so many bytes of objects are refused with S3's error 500.
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    memory: ByteSize,
    /// Stores nothing: delays, counts and fails requests on their way to this S3 server.
    #[arg(long, value_name = "http://HOST:PORT")]
    upstream: Option<UpstreamAddress>,
}

impl StoreArgs {
    /// The store that is asked for.
    ///
    /// # Errors
    /// A bandwidth that is none.
    pub fn stub(&self) -> anyhow::Result<Stub> {
        let mib = self.bandwidth.or(self.preset.mib_per_second()).unwrap_or(0.0);
        let fits = (0.0..=BANDWIDTH_MIB_MAX).contains(&mib);
        anyhow::ensure!(fits, "--bandwidth {mib} is not 0 to {BANDWIDTH_MIB_MAX} MiB/s");
        let backend = match &self.upstream {
            None => Backend::Local(LocalStore::new(self.memory.0)),
            Some(address) => Backend::Upstream(address.clone()),
        };
        let latency = LatencyModel::new(self.preset, self.tail.unwrap_or(Tail::NONE), self.seed);
        Ok(Stub::new(backend, latency, Bandwidth::of_mib_per_second(mib), self.seed))
    }
}

/// Runs it until the process ends.
///
/// # Errors
/// A bad argument, or an address that is taken.
pub async fn run(args: StoreArgs) -> anyhow::Result<()> {
    let stub = args.stub()?;
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("--listen {}", args.listen))?;
    println!("store listening on http://{}, preset {:?}", listener.local_addr()?, args.preset);
    serve::serve(listener, Arc::new(stub)).await;
    Ok(())
}

#[cfg(test)]
mod tests;
