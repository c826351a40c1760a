//! Raw PUT and GET through our own client: the denominator of every acknowledgement's latency.
//!
//! # Non-obvious
//! Few keys are written again and again with the same bytes: a store in memory would not hold
//! seconds of 4 MiB objects, and they are easily deleted.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use aquifer_storage::store::{FileStore, MemoryStore, S3Options, Store, StoreUrl, s3};
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    super::report::{Latency, micros_histogram},
    figures,
};

/// Sizes of objects in bytes.
const OBJECT_BYTES: [usize; 3] = [4 << 10, 512 << 10, 4 << 20];
/// Requests at once.
const CONCURRENCY: [usize; 2] = [1, 4];
/// Keys that each requester takes turns with.
const SLOTS: usize = 4;

/// Where the store is. Keys and region come from the environment; profiles
/// are not read.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The store that PUT and GET are measured against: s3://BUCKET/PREFIX, file:PATH or memory:.
    /// Without it they are skipped.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The address of an S3 store that is not AWS, such as http://127.0.0.1:9000.
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_S3")]
    s3_endpoint: Option<String>,
    #[arg(long, hide = true, env = "AWS_ENDPOINT_URL")]
    s3_endpoint_of_all_services: Option<String>,
    #[arg(long, hide = true, env = "AWS_REGION")]
    s3_region: Option<String>,
    #[arg(long, hide = true, env = "AWS_DEFAULT_REGION")]
    s3_region_of_all_services: Option<String>,
    #[arg(long, hide = true, env = "AWS_ACCESS_KEY_ID")]
    s3_access_key_id: Option<String>,
    #[arg(long, hide = true, hide_env_values = true, env = "AWS_SECRET_ACCESS_KEY")]
    s3_secret_access_key: Option<Secret>,
    #[arg(long, hide = true, hide_env_values = true, env = "AWS_SESSION_TOKEN")]
    s3_session_token: Option<Secret>,
    /// Whether the bucket is part of the host name.
    #[arg(long, hide = true, env = "AQUIFER_S3_VIRTUAL_HOSTED")]
    s3_virtual_hosted: bool,
}

/// A string that is not printed.
#[derive(Clone)]
struct Secret(String);

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl StoreArgs {
    /// Opens the store; `None` when none is named.
    ///
    /// # Errors
    /// An address that names no store, or a store that cannot be set up.
    pub fn open(&self) -> anyhow::Result<Option<Arc<dyn Store>>> {
        let Some(url) = &self.store else { return Ok(None) };
        Ok(Some(match StoreUrl::parse(url).context("--store")? {
            StoreUrl::Memory => Arc::new(MemoryStore::new()),
            StoreUrl::File { path } => Arc::new(FileStore::open(&path).context("--store")?),
            StoreUrl::S3 { bucket, prefix } => {
                let options = S3Options {
                    bucket,
                    prefix,
                    virtual_hosted: self.s3_virtual_hosted,
                    ..S3Options::default()
                };
                let store = s3::open(&options, &|name| self.variable(name));
                Arc::new(store.context("--store")?)
            }
            other @ (StoreUrl::Gcs { .. } | StoreUrl::Azure { .. }) => {
                anyhow::bail!("--store {other}: limits are measured of file, memory and s3 stores")
            }
        }))
    }

    /// The environment as the argument parser read it: libraries do not.
    fn variable(&self, name: &str) -> Option<String> {
        let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.0.clone());
        match name {
            "AWS_ENDPOINT_URL_S3" => self.s3_endpoint.clone(),
            "AWS_ENDPOINT_URL" => self.s3_endpoint_of_all_services.clone(),
            "AWS_REGION" => self.s3_region.clone(),
            "AWS_DEFAULT_REGION" => self.s3_region_of_all_services.clone(),
            "AWS_ACCESS_KEY_ID" => self.s3_access_key_id.clone(),
            "AWS_SECRET_ACCESS_KEY" => secret(&self.s3_secret_access_key),
            "AWS_SESSION_TOKEN" => secret(&self.s3_session_token),
            _ => None,
        }
    }
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    /// PUTs.
    pub put: bool,
    /// GETs of whole objects, as ranges.
    pub get: bool,
}

/// One kind of request at one size and concurrency.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StoreFigure {
    /// Of single requests.
    #[serde(flatten)]
    pub latency: Latency,
    /// Of all requesters together.
    pub mib_per_s: f64,
}

/// By size and concurrency, such as `4MiB_x4`.
#[derive(Debug, Default)]
pub struct StoreFigures {
    /// PUTs.
    pub put: BTreeMap<String, StoreFigure>,
    /// GETs.
    pub get: BTreeMap<String, StoreFigure>,
}

/// Requests of one kind, size and concurrency.
#[derive(Clone, Copy)]
enum Kind {
    Put,
    Get,
}

/// What the rounds of one figure add up to.
struct Sum {
    histogram: Histogram<u64>,
    bytes: u64,
    wall: Duration,
}

impl Sum {
    fn new() -> Self {
        Self { histogram: micros_histogram(), bytes: 0, wall: Duration::ZERO }
    }

    fn figure(&self) -> StoreFigure {
        let mib_per_s = self.bytes as f64 / 1_048_576.0 / self.wall.as_secs_f64();
        StoreFigure {
            latency: Latency::of_micros(&self.histogram),
            mib_per_s: (mib_per_s * 100.0).round() / 100.0,
        }
    }
}

/// Objects of one size that requesters take turns with.
#[derive(Clone)]
struct Objects {
    store: Arc<dyn Store>,
    folder: Arc<str>,
    body: Bytes,
}

impl Objects {
    fn new(store: Arc<dyn Store>, run: &str, object_bytes: usize) -> Self {
        // No two neighbors alike: a store that compresses must not look faster.
        let byte = |at: usize| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8;
        Self {
            store,
            folder: format!("bench-limits/{run}/{object_bytes}").into(),
            body: (0..object_bytes).map(byte).collect(),
        }
    }

    fn key(&self, requester: usize, turn: usize) -> String {
        format!("{}/{requester}-{}", self.folder, turn % SLOTS)
    }

    fn keys(&self) -> Vec<String> {
        let requesters = CONCURRENCY.into_iter().max().unwrap_or(0);
        let keys = |requester| (0..SLOTS).map(move |turn| self.key(requester, turn));
        (0..requesters).flat_map(keys).collect()
    }

    async fn request(&self, kind: Kind, key: &str) -> anyhow::Result<()> {
        let object_bytes = self.body.len();
        match kind {
            Kind::Put => {
                let put = self.store.put(key, vec![self.body.clone()]).await;
                put.with_context(|| format!("PUT of {object_bytes} bytes"))
            }
            Kind::Get => {
                let got = self.store.get_range(key, 0..object_bytes as u64).await;
                let got = got.with_context(|| format!("GET of {object_bytes} bytes"))?;
                anyhow::ensure!(got == self.body, "the store gave other bytes than it was given");
                Ok(())
            }
        }
    }

    /// Writes every key once: connections open, and GETs find something.
    async fn prepare(&self) -> anyhow::Result<()> {
        for key in self.keys() {
            self.request(Kind::Put, &key).await?;
        }
        Ok(())
    }

    /// One requester: a request at a time for `run`. Returns latencies in microseconds.
    async fn requests(
        self,
        kind: Kind,
        requester: usize,
        run: Duration,
    ) -> anyhow::Result<Histogram<u64>> {
        let mut histogram = micros_histogram();
        let started = Instant::now();
        let mut turn = 0;
        while started.elapsed() < run {
            let key = self.key(requester, turn);
            let sent = Instant::now();
            self.request(kind, &key).await?;
            let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
            histogram.saturating_record(micros);
            turn += 1;
        }
        Ok(histogram)
    }

    /// All requesters at once.
    async fn round(
        &self,
        kind: Kind,
        concurrency: usize,
        run: Duration,
        sum: &mut Sum,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut requesters = JoinSet::new();
        for requester in 0..concurrency {
            requesters.spawn(self.clone().requests(kind, requester, run));
        }
        while let Some(ended) = requesters.join_next().await {
            let histogram = ended.context("a requester ended early")??;
            sum.bytes += histogram.len() * self.body.len() as u64;
            sum.histogram += histogram;
        }
        sum.wall += started.elapsed();
        Ok(())
    }
}

/// Measures each kind, size and concurrency for `run` in each of `rounds`, and tidies up.
///
/// # Errors
/// A request failed: nothing is retried.
pub async fn measure(
    store: &Arc<dyn Store>,
    kinds: Kinds,
    run: Duration,
    rounds: u32,
) -> anyhow::Result<StoreFigures> {
    // Two runs against one bucket must not delete each other's objects.
    let name = format!("{:016x}", rand::random::<u64>());
    let objects = OBJECT_BYTES.map(|bytes| Objects::new(store.clone(), &name, bytes));
    let measured = measure_all(&objects, kinds, run, rounds).await;
    let keys = objects.iter().flat_map(Objects::keys).collect();
    if let Err(error) = store.delete_many(keys).await {
        tracing::warn!(%error, run = name, "objects under bench-limits/ stay behind");
    }
    measured
}

async fn measure_all(
    objects: &[Objects],
    kinds: Kinds,
    run: Duration,
    rounds: u32,
) -> anyhow::Result<StoreFigures> {
    for objects in objects {
        objects.prepare().await?;
    }
    let (mut puts, mut gets) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..rounds {
        for objects in objects {
            for concurrency in CONCURRENCY {
                let size = figures::size_name(objects.body.len());
                let name = format!("{size}_x{concurrency}");
                if kinds.put {
                    let sum = puts.entry(name.clone()).or_insert_with(Sum::new);
                    objects.round(Kind::Put, concurrency, run, sum).await?;
                }
                if kinds.get {
                    let sum = gets.entry(name).or_insert_with(Sum::new);
                    objects.round(Kind::Get, concurrency, run, sum).await?;
                }
            }
        }
    }
    let figures = |sums: BTreeMap<String, Sum>| {
        sums.into_iter().map(|(name, sum)| (name, sum.figure())).collect()
    };
    Ok(StoreFigures { put: figures(puts), get: figures(gets) })
}
