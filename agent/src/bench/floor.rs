//! What latencies add up to at best: the model that B3 to B5 divide measured latencies by.
//!
//! # Not here
//! Hedging, metadata outages, a store that slows down under load: a floor knows none of them.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use rand::{SeedableRng, rngs::StdRng};
use serde::Serialize;

pub mod model;
pub mod self_clocked;

use super::report;
use model::{Delay, Parts, Percentiles, Quorum, Request, Tail};
use self_clocked::{ArrivalPattern, Load, Rules};

/// More samples than this add no digit and cost gigabytes.
const SAMPLES_MAX: usize = 10_000_000;

/// Arguments. Times are milliseconds.
#[derive(Debug, Args)]
pub struct FloorArgs {
    /// The flush interval: how long the oldest buffered batch waits at most.
    #[arg(long, value_name = "MS")]
    flush_ms: f64,
    /// Median of a PUT.
    #[arg(long, value_name = "MS")]
    put_p50: f64,
    /// 99th percentile of a PUT.
    #[arg(long, value_name = "MS")]
    put_p99: f64,
    /// Median of the consumer's GET; 0 when its agent has the bytes.
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    get_p50: f64,
    /// 99th percentile of the consumer's GET.
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    get_p99: f64,
    /// Median of a commit.
    #[arg(long, value_name = "MS", default_value_t = 3.0)]
    commit_p50: f64,
    /// 99th percentile of a commit.
    #[arg(long, value_name = "MS", default_value_t = 10.0)]
    commit_p99: f64,
    /// Round trip between client and agent.
    #[arg(long, value_name = "MS", default_value_t = 1.0)]
    rtt: f64,
    /// From the commit to the reading agent knowing of it.
    #[arg(long, value_name = "MS", default_value_t = 1.0)]
    notify: f64,
    /// A PUT goes to COPIES buckets and is done once ACKS of them hold it.
    #[arg(long, value_name = "ACKS:COPIES", default_value = "1:1")]
    quorum: Quorum,
    /// This fraction of the store's requests takes FACTOR times as long.
    #[arg(long, value_name = "FRACTION:FACTOR", default_value = "0:1")]
    tail: Tail,
    /// Requests drawn.
    #[arg(long, default_value_t = 200_000)]
    samples: usize,
    /// The same seed gives the same output.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    self_clocked: SelfClockedArgs,
    /// Prints one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of the self-clocked model.
#[derive(Debug, Args)]
struct SelfClockedArgs {
    /// Flush at once when no PUT is in flight, as the agent does, instead of on a timer only.
    #[arg(long, requires = "rate")]
    self_clocked: bool,
    /// Requests per second at one agent.
    #[arg(long, value_name = "REQ/S", requires = "self_clocked")]
    rate: Option<f64>,
    /// Bytes of one request.
    #[arg(long, requires = "self_clocked", default_value_t = 65_536)]
    bytes: u64,
    /// How requests arrive.
    #[arg(long, requires = "self_clocked", default_value = "uniform")]
    arrivals: Arrivals,
    /// Connections that take turns and are answered in order; 0 when every request is on its own.
    #[arg(long, requires = "self_clocked", default_value_t = 0)]
    connections: usize,
    /// A buffer of this size is flushed at once.
    #[arg(long, requires = "self_clocked", default_value_t = 8 << 20)]
    object_bytes: u64,
    /// MiB per second of one PUT, on top of its latency; 0 when bytes cost no time.
    #[arg(long, value_name = "MIB/S", requires = "self_clocked", default_value_t = 0.0)]
    put_mib_per_s: f64,
    /// PUTs per second that may be sustained; 0 when they are free.
    #[arg(long, value_name = "PUT/S", requires = "self_clocked", default_value_t = 0)]
    put_budget: u32,
    /// PUTs that may come at once within the budget.
    #[arg(long, value_name = "PUTS", requires = "self_clocked", default_value_t = 100)]
    put_burst: u32,
}

/// How requests arrive.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Arrivals {
    /// In equal steps, as an open-loop generator sends them.
    Uniform,
    /// Independently of each other.
    Poisson,
}

/// An argument that describes nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FloorRefused {
    /// No pair of numbers.
    #[error("{text:?} is not two numbers with ':' between")]
    NotAPair {
        /// As given.
        text: String,
    },
    /// A percentile pair that no lognormal has.
    #[error("p50 {p50} and p99 {p99} describe no delay: 0 < p50 <= p99 < 10 minutes, or both 0")]
    Delay {
        /// Median in milliseconds.
        p50: f64,
        /// 99th percentile in milliseconds.
        p99: f64,
    },
    /// A quorum of none or of more than there are.
    #[error("quorum {acks}:{copies} cannot be met: 1 <= ACKS <= COPIES <= 16")]
    Quorum {
        /// Copies waited for.
        acks: usize,
        /// Copies written.
        copies: usize,
    },
    /// A tail that is none.
    #[error("tail {fraction}:{factor}: FRACTION is 0 to 1 and FACTOR 1 to 1000")]
    Tail {
        /// Of all requests.
        fraction: f64,
        /// How much slower.
        factor: f64,
    },
    /// A number out of its range.
    #[error("{name} {value} is not {range}")]
    Range {
        /// The flag.
        name: &'static str,
        /// As given.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
}

/// `A:B` of `text`.
fn pair<A: FromStr, B: FromStr>(text: &str) -> Result<(A, B), FloorRefused> {
    let refused = || FloorRefused::NotAPair { text: text.to_owned() };
    let (left, right) = text.split_once(':').ok_or_else(refused)?;
    Ok((left.parse().map_err(|_| refused())?, right.parse().map_err(|_| refused())?))
}

impl FromStr for Quorum {
    type Err = FloorRefused;

    fn from_str(text: &str) -> Result<Self, FloorRefused> {
        let (acks, copies) = pair(text)?;
        Self::new(acks, copies)
    }
}

impl FromStr for Tail {
    type Err = FloorRefused;

    fn from_str(text: &str) -> Result<Self, FloorRefused> {
        let (fraction, factor) = pair(text)?;
        Self::new(fraction, factor)
    }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct FloorReport {
    model: &'static str,
    samples: usize,
    /// One PUT on its own.
    put: Percentiles,
    /// From the request leaving the producer to its acknowledgement arriving.
    ack: Percentiles,
    /// From the request leaving the producer to the records arriving at a consumer.
    e2e: Percentiles,
    #[serde(skip_serializing_if = "Option::is_none")]
    puts_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_bytes_mean: Option<f64>,
}

/// Runs it.
///
/// # Errors
/// Arguments out of their ranges.
#[allow(clippy::unused_async, reason = "the signature of every subcommand")]
pub async fn run(args: FloorArgs) -> anyhow::Result<()> {
    report::print(&floor(&args)?, args.json)
}

fn within(
    name: &'static str,
    value: f64,
    ok: bool,
    range: &'static str,
) -> Result<(), FloorRefused> {
    if ok { Ok(()) } else { Err(FloorRefused::Range { name, value, range }) }
}

fn floor(args: &FloorArgs) -> Result<FloorReport, FloorRefused> {
    let times = [("--flush-ms", args.flush_ms), ("--rtt", args.rtt), ("--notify", args.notify)];
    for (name, value) in times {
        within(name, value, (0.0..=600_000.0).contains(&value), "0 to 600000 ms")?;
    }
    let samples_fit = (1..=SAMPLES_MAX).contains(&args.samples);
    within("--samples", args.samples as f64, samples_fit, "1 to 10000000")?;
    let parts = Parts {
        put: Request::new(Delay::new(args.put_p50, args.put_p99)?, args.quorum, args.tail),
        get: Request::new(Delay::new(args.get_p50, args.get_p99)?, Quorum::ONE, args.tail),
        commit: Delay::new(args.commit_p50, args.commit_p99)?,
        rtt_ms: args.rtt,
        notify_ms: args.notify,
    };
    let mut rng = StdRng::seed_from_u64(args.seed);
    let put = Percentiles::of((0..args.samples).map(|_| parts.put.draw_ms(&mut rng)).collect());
    let latencies;
    let (mut puts_per_s, mut object_bytes_mean) = (None, None);
    if let Some(rate) = args.self_clocked.rate {
        let (load, rules) = self_clocked_input(args, rate)?;
        let run = self_clocked::run(&load, &rules, &parts, &mut rng);
        puts_per_s = Some(run.puts_per_s);
        object_bytes_mean = Some(run.object_bytes_mean);
        latencies = run.latencies;
    } else {
        latencies = model::timed(args.flush_ms, &parts, args.samples, &mut rng);
    }
    Ok(FloorReport {
        model: if puts_per_s.is_some() { "self-clocked" } else { "timed" },
        samples: args.samples,
        put,
        ack: Percentiles::of(latencies.ack_ms),
        e2e: Percentiles::of(latencies.e2e_ms),
        puts_per_s,
        object_bytes_mean,
    })
}

fn self_clocked_input(args: &FloorArgs, rate: f64) -> Result<(Load, Rules), FloorRefused> {
    let flags = &args.self_clocked;
    within("--rate", rate, (0.001..=10_000_000.0).contains(&rate), "0.001 to 10000000")?;
    let bytes_fit = (1..=1 << 30).contains(&flags.bytes);
    within("--bytes", flags.bytes as f64, bytes_fit, "1 to 2^30")?;
    let object_fits = (1..=1 << 30).contains(&flags.object_bytes);
    within("--object-bytes", flags.object_bytes as f64, object_fits, "1 to 2^30")?;
    let connections_fit = flags.connections <= 1_000_000;
    within("--connections", flags.connections as f64, connections_fit, "0 to 1000000")?;
    let bandwidth_fits = flags.put_mib_per_s == 0.0 || (0.001..=1e9).contains(&flags.put_mib_per_s);
    within("--put-mib-per-s", flags.put_mib_per_s, bandwidth_fits, "0 or 0.001 to 1e9")?;
    let arrivals = match flags.arrivals {
        Arrivals::Uniform => ArrivalPattern::Uniform,
        Arrivals::Poisson => ArrivalPattern::Poisson,
    };
    let load = Load {
        requests: args.samples,
        per_second: rate,
        request_bytes: flags.bytes,
        arrivals,
        connections: flags.connections,
    };
    let rules = Rules {
        flush_ms: args.flush_ms,
        object_bytes: flags.object_bytes,
        put_ms_per_byte: match flags.put_mib_per_s {
            0.0 => 0.0,
            mib_per_s => 1000.0 / (mib_per_s * 1_048_576.0),
        },
        put_budget_per_s: flags.put_budget,
        put_burst: flags.put_burst.max(1),
    };
    Ok((load, rules))
}

#[cfg(test)]
mod tests;
