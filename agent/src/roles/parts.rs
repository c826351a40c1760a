//! The parts of a running agent, and starting a metadata node: used by more than one role.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Context;
use aquifer_agent::{
    admin_http::{self, Readiness},
    broker::Broker,
    config::Settings,
    configs::{group_defaults, layers::is_topic_default},
    fetch::{FetchDeps, FetchLimits, Fetcher},
    group_lag,
    metrics::{Metrics, StoreMetrics},
    produce::{FlushLimits, Producer, ProducerConfig, ProducerDeps, PutBudget, WriteThrough},
    server::listener,
    session::{Session, SessionConfig},
    view::View,
    wire::Uuid,
};
use aquifer_metadata::{
    client::{Metadata, cluster::Quorum},
    machine::{
        Genesis,
        command::{Command, HostPort, Reply},
    },
    node::{MetadataNode, NodeConfig, Tuning, folder},
};
use aquifer_storage::{
    budget::Budgets,
    cache::{ObjectReader, memory::MokaCache},
    claim::{Claim, ClaimFailed, claim_prefix, read_claim},
    error::Outcome,
    format::cluster_file::ClusterFile,
    model::{Lineage, ObjectName},
    seam::Seams,
    store::url::StoreUrl,
};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    backups::{self, BackupMetrics},
    bucket::Bucket,
};

/// Between two attempts to tell metadata what this agent was given.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What `up` may hold; a dedicated agent asks for more with `--memory`.
const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;

/// Blocks on their way from the bucket may take this part of the cache's memory beside it, once
/// for tail reads and once for catch-up.
const FLIGHT_SHARE: u64 = 4;

/// PUTs per second that a bucket bill is safe with, and that a local disk does not feel.
const PUTS_PER_SECOND: (u32, u32) = (10, 50);
const PUT_BURST: u32 = 100;

/// S3 Standard, us-east-1.
const DOLLARS_PER_PUT: f64 = 5e-6;
const SECONDS_PER_MONTH: f64 = 2_592_000.0;

/// Starts the metadata node of `settings.data`, with a new identity when the folder is new.
pub async fn start_node(
    settings: &Settings,
    bucket: &Bucket,
    seams: &Seams,
) -> anyhow::Result<MetadataNode> {
    let genesis = match folder::read_identity(&settings.data).context("--data")? {
        Some(found) => Genesis { cluster_id: found.cluster_id, lineage: found.lineage },
        None => {
            refuse_claimed(settings, bucket, seams).await?;
            new_cluster(seams)
        }
    };
    let config = NodeConfig {
        node_id: settings.id,
        data_dir: settings.data.clone(),
        genesis,
        tuning: tuning(settings),
    };
    MetadataNode::start(config, seams.clone()).await.context("--data")
}

/// What a metadata node does otherwise when it is told so.
pub fn tuning(settings: &Settings) -> Tuning {
    Tuning { offset_expiry: settings.options.offset_expiry, ..Tuning::default() }
}

/// Refuses to begin a cluster where one is, whose data folder was lost perhaps. Waits for a store
/// that is down.
async fn refuse_claimed(settings: &Settings, bucket: &Bucket, seams: &Seams) -> anyhow::Result<()> {
    loop {
        match read_claim(bucket.store.as_ref()).await {
            Ok(None) => return Ok(()),
            Ok(Some(found)) => anyhow::bail!(
                "{} belongs to cluster {} already, and --data {} is empty: give its folder, or \
                 another --store prefix, or, when its folder was lost, run `{}`",
                settings.store_url(),
                found.cluster_id,
                settings.data.display(),
                backups::restore_command(settings)
            ),
            Err(error @ ClaimFailed::File { .. }) => return Err(error.into()),
            Err(error @ ClaimFailed::Store { .. }) => {
                tracing::warn!(%error, "cannot read whose the bucket is yet, trying again");
                seams.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// A cluster that nobody has heard of.
pub fn new_cluster(seams: &Seams) -> Genesis {
    let mut id = [0; 16];
    seams.rng.fill(&mut id);
    let lineage = Lineage { number: 0, nonce: seams.rng.next_u64() };
    Genesis { cluster_id: Uuid::from_bytes(id).to_string(), lineage }
}

/// Claims the bucket's prefix for the node's cluster, or refuses to touch another's data. Waits
/// for a store that is down: only an answer can refuse.
pub async fn claim(
    settings: &Settings,
    bucket: &Bucket,
    _node: &MetadataNode,
    seams: &Seams,
) -> anyhow::Result<()> {
    let identity = folder::read_identity(&settings.data)
        .context("--data")?
        .context("a started node has an identity")?;
    let mine = ClusterFile { cluster_id: identity.cluster_id.clone(), lineage: identity.lineage };
    loop {
        match claim_prefix(bucket.store.as_ref(), &mine).await {
            Ok(Claim::Claimed | Claim::Ours) => return Ok(()),
            Ok(Claim::Foreign { cluster_id }) => anyhow::bail!(
                "{} belongs to cluster {cluster_id}, and {} to cluster {}: give the data folder of \
                 that cluster, or another --store prefix; if the folder was lost, move this one \
                 away and run `{}`",
                settings.store_url(),
                settings.data.display(),
                identity.cluster_id,
                backups::restore_command(settings)
            ),
            Ok(Claim::NewerLineage { .. }) => anyhow::bail!(
                "{} was restored into a newer lineage: {} is an old copy and must not be used",
                settings.store_url(),
                settings.data.display()
            ),
            Ok(Claim::OlderLineage { found }) => anyhow::bail!(
                "{} is still at lineage {}, {} is a later one: its restore stopped half way, \
                 repeat it on an empty --data",
                settings.store_url(),
                found.lineage,
                settings.data.display()
            ),
            Err(error @ ClaimFailed::File { .. }) => return Err(error.into()),
            Err(error @ ClaimFailed::Store { .. }) => {
                tracing::warn!(%error, "cannot claim the bucket yet, trying again");
                seams.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// A started agent.
pub struct Agent {
    broker: Arc<Broker>,
    settings: Settings,
    bucket: Bucket,
    kafka: TcpListener,
    readiness: watch::Sender<Readiness>,
    /// Cancelled last: stops the background services.
    services: CancellationToken,
}

impl Agent {
    /// Binds HTTP at once, registers, waits for the catalog, then binds Kafka. Waits for ever for
    /// metadata and store; fails only for the configuration. `backups` are of a metadata node in
    /// this process.
    pub async fn start(
        settings: Settings,
        (metadata, quorum): (Arc<dyn Metadata>, Arc<dyn Quorum>),
        bucket: Bucket,
        seams: Seams,
        backups: Option<BackupMetrics>,
    ) -> anyhow::Result<Self> {
        let services = CancellationToken::new();
        let (metrics, readiness) =
            serve_http(&settings, &bucket, &seams, &services, backups).await?;
        let (view, service) = View::new(Arc::clone(&metadata), seams.clone());
        seams.spawn("view", service.run(services.clone().cancelled_owned()));
        let config =
            SessionConfig { advertised: settings.advertised(), zone: settings.zone.clone() };
        let (session, service) = Session::new(config, Arc::clone(&metadata), seams.clone());
        seams.spawn("session", service.run(services.clone().cancelled_owned()));
        session.registered().await;
        view.ready().await;
        view.fresh().await.ok(); // The catalog then lists this agent; clients retry if it cannot.
        tell_group_defaults(&settings, &*metadata, &view, &seams).await;

        let memory = settings.memory.map_or(MEMORY_BYTES_DEFAULT, |size| size.0);
        let budgets = Arc::new(Budgets::split(memory));
        let (tail, history) = MokaCache::pair(budgets.cache.capacity_bytes());
        let store = Arc::clone(&bucket.store);
        let reader = ObjectReader::new(store, Arc::new(tail), history)
            .with_flight_bytes(budgets.cache.capacity_bytes() / FLIGHT_SHARE);
        let lineage = view.catalog().lineage.context("the catalog names the lineage")?;
        let config = ProducerConfig { limits: flush_limits(&settings, &bucket), lineage };
        let deps = ProducerDeps {
            store: Arc::clone(&bucket.store),
            metadata: Arc::clone(&metadata),
            session: session.clone(),
            written: Arc::new(CacheWrites { reader: reader.clone(), seams: seams.clone() }),
            seams: seams.clone(),
        };
        let (producer, service) = Producer::new(config, deps);
        seams.spawn("producer", service.run(services.clone().cancelled_owned()));
        let limits = FetchLimits {
            response_bytes_max: settings.options.fetch_bytes_max,
            ..FetchLimits::default()
        };
        let deps = FetchDeps {
            metadata: Arc::clone(&metadata),
            view: view.clone(),
            reader,
            budget: budgets.fetch.clone(),
            seams: seams.clone(),
        };
        let fetcher = Fetcher::new(deps, limits).counting(metrics.fetch.clone());
        let kafka = TcpListener::bind(settings.kafka)
            .await
            .with_context(|| format!("--kafka {}", settings.kafka))?;
        let broker = Arc::new(Broker {
            metadata,
            quorum,
            view,
            session,
            producer,
            fetcher,
            budgets,
            seams,
            metrics,
            has_given_defaults: settings.options.given.keys().any(|name| is_topic_default(name)),
            options: settings.options.clone(),
            num_partitions: settings.num_partitions,
            zone: settings.zone.clone(),
            connections: AtomicU64::new(0),
            group_requests: AtomicU64::new(0),
            reworks: tokio::sync::Semaphore::new(aquifer_agent::broker::REWORKS_MAX).into(),
        });
        let lag = group_lag::run(Arc::clone(&broker), services.clone().cancelled_owned());
        broker.seams.spawn("group lag", lag);
        readiness.send_replace(Readiness::Ready);
        Ok(Self { broker, settings, bucket, kafka, readiness, services })
    }

    /// Says what runs where, what it may cost, and what to type next.
    pub fn announce(&self, role: &str) {
        let settings = &self.settings;
        let advertised = settings.advertised();
        let HostPort { host, port } = &advertised;
        println!("Aquifer {} ({role}) is ready", env!("CARGO_PKG_VERSION"));
        println!("  Kafka     {} (clients are told {host}:{port})", settings.kafka);
        println!("  health    http://{}/readyz, /metrics", settings.http);
        println!("  bucket    {}", settings.store_url());
        println!("  cost      {}", self.cost());
        println!();
        println!("  try       echo hello | kcat -b {} -P -t first", settings.kafka);
        println!("            kcat -b {} -C -t first -o beginning -e", settings.kafka);
    }

    /// What the store may cost, for people.
    fn cost(&self) -> String {
        let puts = puts_per_second(&self.settings, &self.bucket);
        match self.bucket.url {
            StoreUrl::S3 { .. } | StoreUrl::Gcs { .. } | StoreUrl::Azure { .. } => {
                let dollars = f64::from(puts) * SECONDS_PER_MONTH * DOLLARS_PER_PUT;
                format!(
                    "at most {puts} PUT/s besides full objects: up to ${dollars:.0} a month at \
                     S3 list prices; idle costs nothing"
                )
            }
            StoreUrl::File { .. } => "none: a local folder, fsynced".to_owned(),
            StoreUrl::Memory => "none, and NOTHING SURVIVES this process".to_owned(),
        }
    }

    /// Serves until `shutdown`, then drains: readiness flips, listeners close, what was read is
    /// answered, buffers are flushed and committed.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { broker, settings, kafka, readiness, services, .. } = self;
        let accepting = CancellationToken::new();
        let serve = listener::run(kafka, Arc::clone(&broker), accepting.clone());
        let drain = async {
            shutdown.cancelled().await;
            readiness.send_replace(Readiness::NotReady("draining".to_owned()));
            broker.seams.sleep(settings.drain_delay()).await;
            accepting.cancel();
        };
        tokio::join!(serve, drain);
        broker.producer.drain().await;
        broker.session.end().await;
        services.cancel();
        Ok(())
    }
}

/// Tells metadata the defaults of consumer groups that this agent was given, if they differ from
/// those it goes by. Waits for a leader.
async fn tell_group_defaults(
    settings: &Settings,
    metadata: &dyn Metadata,
    view: &View,
    seams: &Seams,
) {
    let given = &settings.options.given;
    loop {
        // Each time anew: an attempt may have been taken without an answer.
        let told = match view.fresh().await {
            Err(error) => Err(error),
            Ok(_) => match group_defaults::change(given, &view.catalog()) {
                None => return,
                Some(alter) => metadata.propose(Command::AlterConfigs(alter)).await,
            },
        };
        match told {
            Ok(applied) if applied.reply == Reply::ConfigsAltered(Ok(())) => {
                tracing::info!("consumer groups go by the defaults that this agent was given");
                return;
            }
            Ok(applied) => {
                tracing::warn!(reply = ?applied.reply, "consumer groups keep their defaults");
                return;
            }
            Err(error) if matches!(error.outcome, Outcome::Rejected | Outcome::Corrupt) => {
                tracing::warn!(%error, "consumer groups keep the defaults they had");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell the defaults of consumer groups yet");
                seams.sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Binds and serves health and metrics, not ready yet.
async fn serve_http(
    settings: &Settings,
    bucket: &Bucket,
    seams: &Seams,
    services: &CancellationToken,
    backups: Option<BackupMetrics>,
) -> anyhow::Result<(Arc<Metrics>, watch::Sender<Readiness>)> {
    let metrics = Arc::new(Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    registry.register_collector(Box::new(StoreMetrics(bucket.counters.clone())));
    if let Some(backups) = backups {
        registry.register_collector(Box::new(backups));
    }
    let starting = Readiness::NotReady("connecting to metadata".to_owned());
    let (readiness, ready) = watch::channel(starting);
    let http = admin_http::bind(settings.http)
        .await
        .with_context(|| format!("--http {}", settings.http))?;
    let stop = services.clone().cancelled_owned();
    seams.spawn("http", admin_http::serve(http, ready, Arc::new(registry), stop));
    Ok((metrics, readiness))
}

fn puts_per_second(settings: &Settings, bucket: &Bucket) -> u32 {
    let (on_bucket, on_folder) = PUTS_PER_SECOND;
    let default = if !matches!(bucket.url, StoreUrl::File { .. } | StoreUrl::Memory) {
        on_bucket
    } else {
        on_folder
    };
    settings.options.puts_per_second.unwrap_or(default)
}

fn flush_limits(settings: &Settings, bucket: &Bucket) -> FlushLimits {
    let per_second = puts_per_second(settings, bucket);
    FlushLimits {
        object_bytes: settings.options.object_bytes as u64,
        interval: Duration::from_millis(settings.options.flush_interval_ms),
        put_budget: PutBudget { per_second, burst: PUT_BURST },
        ..FlushLimits::default()
    }
}

/// Puts what was just written into the tail cache, so that its readers need no GET.
struct CacheWrites {
    reader: ObjectReader,
    seams: Seams,
}

impl WriteThrough for CacheWrites {
    fn written(&self, name: ObjectName, body: &[Bytes]) {
        // The call makes the object readable; what is spawned only hands it to the cache.
        let insert = self.reader.insert_written(name, body);
        self.seams.spawn("write-through", insert);
    }
}
