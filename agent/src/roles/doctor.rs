//! `aquifer doctor`: looks at the store, this machine and the metadata group.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use aquifer_agent::{
    cli::{Usage, output::Terminal},
    config::{self, Settings},
    doctor::{
        self, DoctorArgs,
        judge::{self, Claimed, FolderSeen, Life},
    },
};
use aquifer_metadata::{
    client::cluster::Operator,
    node::folder::{self, Identity},
};
use aquifer_storage::{
    claim::read_claim,
    format::object_key::probe_folder,
    model::Lineage,
    probe::{self, Depth, Finding, Verdict},
    seam::{Seams, system},
    store::{StoreUrl, s3::BucketApi},
};
use bytes::Bytes;
use futures::future::join_all;

use super::bucket::{self, Bucket};

/// How often the disk is synced: an odd number has a middle.
const SYNCS: usize = 9;
/// How long a node, or a name, is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Looks at everything and prints it.
///
/// # Errors
/// Settings that make no sense, or something that failed.
pub async fn run(args: &DoctorArgs, terminal: Terminal) -> anyhow::Result<()> {
    let settings = config::load(&args.flags()).map_err(|error| Usage::new(error.to_string()))?;
    let seams = settings.tls().secure(system::seams())?;
    let url = settings.store_url();
    let parsed = StoreUrl::parse(&url).map_err(|error| Usage::new(format!("--store: {error}")))?;
    if args.create_bucket {
        bucket::create(&parsed, &seams).await?;
    }
    let mut findings = Vec::new();
    let claimed = match bucket_at(&parsed, &seams) {
        Ok(Some(bucket)) => {
            findings.extend(store(&bucket, &seams).await);
            claimed(&bucket, &seams).await
        }
        Ok(None) => Ok(None),
        Err(error) => {
            let what = format!("{error:#}");
            findings.push(Finding::bad("store", Verdict::Failed, what, ""));
            Err("the store cannot be opened".to_owned())
        }
    };
    findings.push(judge::prefix(&claimed));
    findings.extend(machine(args, &settings, &claimed, &seams).await);
    let asked = nodes(&settings, &seams).await?;
    findings.extend(judge::nodes(&asked, &claimed));
    let failed = doctor::print(&url, &findings, args.format.output, terminal)?;
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", findings.len());
    Ok(())
}

/// Opens the store; `None` for a folder that is not there yet, which looking would make.
fn bucket_at(url: &StoreUrl, seams: &Seams) -> anyhow::Result<Option<Bucket>> {
    match url {
        StoreUrl::File { path } if !path.exists() => Ok(None),
        _ => bucket::open_url(&url.to_string(), seams).map(Some),
    }
}

async fn store(bucket: &Bucket, seams: &Seams) -> Vec<Finding> {
    if matches!(bucket.url, StoreUrl::Memory) {
        let what = "memory: keeps nothing beyond the process";
        let advice = "for trying things out only: --store file:PATH or s3://BUCKET/PREFIX";
        return vec![Finding::bad("store", Verdict::Warning, what, advice)];
    }
    let seen = probe::observe(bucket.store.as_ref(), Depth::Whole, seams).await;
    let mut findings = probe::judge::judge(&seen);
    if !seen.put.is_answered() {
        unreached(bucket, &mut findings, seams).await;
        return findings;
    }
    if let StoreUrl::S3 { bucket: name, prefix } = &bucket.url {
        match facts(bucket, (name, prefix), seams).await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                let what = format!("{error:#}");
                findings.push(Finding::bad("bucket", Verdict::Unknown, what, ""));
            }
        }
    }
    let swept = probe::sweep(bucket.store.as_ref(), seams.clock.wall());
    if let Some(Ok(count @ 1..)) = seams.timeout(ANSWER_MAX, swept).await {
        findings.push(Finding::ok("leftovers", format!("deleted {count} of tests that died")));
    }
    findings
}

/// A start waits for a store that does not answer; who asks what is wrong is told that this is.
async fn unreached(bucket: &Bucket, findings: &mut [Finding], seams: &Seams) {
    let Some(write) = findings.first_mut() else { return };
    if let (StoreUrl::S3 { bucket: name, prefix }, Verdict::Unknown) = (&bucket.url, write.verdict)
    {
        let options = bucket::s3_options(name, prefix);
        match BucketApi::from_environment(&options, &bucket::variable, seams.clone()) {
            Err(error) => write.what = error.to_string(),
            Ok(api) => match api.reach().await {
                Err(error) => write.what = format!("{}: {error}", write.what),
                Ok(status) => write.what = format!("{}; HEAD of it: {status}", write.what),
            },
        }
    }
    write.verdict = Verdict::Failed;
}

/// What S3's own API tells of a bucket.
async fn facts(
    bucket: &Bucket,
    (name, prefix): (&str, &str),
    seams: &Seams,
) -> anyhow::Result<Vec<Finding>> {
    let options = bucket::s3_options(name, prefix);
    let api = BucketApi::from_environment(&options, &bucket::variable, seams.clone())?;
    let key = format!("{}/bucket", probe_folder(seams.clock.wall(), seams.rng.next_u64()));
    // There must be something for a stale condition to be about.
    let written = bucket.store.put(&key, vec![Bytes::from_static(b"a test of the store")]).await;
    let facts = api.facts(name, &key).await;
    let deleted = bucket.store.delete_many(vec![key]).await;
    written.and(deleted).context("cannot write a test object")?;
    Ok(probe::bucket::judge_bucket(&facts))
}

async fn claimed(bucket: &Bucket, seams: &Seams) -> Claimed {
    let read = read_claim(bucket.store.as_ref());
    match seams.timeout(ANSWER_MAX, read).await {
        Some(Ok(claimed)) => Ok(claimed),
        Some(Err(error)) => Err(format!("{:#}", anyhow::Error::new(error))),
        None => Err("no answer".to_owned()),
    }
}

async fn machine(
    args: &DoctorArgs,
    settings: &Settings,
    claimed: &Claimed,
    seams: &Seams,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    // An agent that is told where the metadata is has no folder of its own.
    if settings.metadata.is_empty() || args.data.is_some() {
        findings.extend(judge::folder("data", &folder_seen(&settings.data, seams)));
        findings.extend(identity(&settings.data, claimed));
    }
    if let Ok(StoreUrl::File { path }) = StoreUrl::parse(&settings.store_url())
        && !path.starts_with(&settings.data)
    {
        findings.extend(judge::folder("store folder", &folder_seen(&path, seams)));
    }
    let mut ports = vec![("--kafka", settings.kafka), ("--http", settings.http)];
    ports.extend(args.listen.is_some().then_some(("--listen", settings.listen)));
    findings.extend(ports.into_iter().map(|(flag, at)| judge::port(flag, at, bound(at))));
    let host = settings.advertised().host;
    let resolved = resolved(&host, seams).await;
    findings.push(judge::advertised(&host, settings.kafka.ip(), &resolved));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    findings.push(judge::open_files(limit));
    findings
}

/// Whose the data folder is, when it is somebody's.
fn identity(data: &Path, claimed: &Claimed) -> Option<Finding> {
    const CHECK: &str = "data";
    match folder::read_identity(data) {
        Ok(None) => None,
        Ok(Some(Identity { cluster_id, lineage, .. })) => {
            let seen = Life { cluster_id, lineage, has_leader: true };
            Some(judge::life(CHECK, &data.display().to_string(), &seen, claimed))
        }
        Err(error) => Some(Finding::bad(CHECK, Verdict::Failed, error.to_string(), "")),
    }
}

/// Looks at a folder without changing it: what is written has no name.
fn folder_seen(path: &Path, seams: &Seams) -> FolderSeen {
    let exists = path.is_dir();
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let nearest = whole.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let sync = synced(nearest, seams).map_err(|error| (error.kind(), error.to_string()));
    let disk = rustix::fs::statvfs(nearest).ok();
    let free_bytes = disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    FolderSeen { path: path.display().to_string(), exists, sync, free_bytes }
}

fn synced(folder: &Path, seams: &Seams) -> io::Result<Duration> {
    let path = folder.join(format!(".aquifer-doctor-{:016x}", seams.rng.next_u64()));
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = seams.clock.mono();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        took.push(seams.clock.mono().since(begun));
    }
    took.sort_unstable();
    Ok(took[SYNCS / 2])
}

fn bound(address: SocketAddr) -> Result<(), ErrorKind> {
    TcpListener::bind(address).map(drop).map_err(|error| error.kind())
}

async fn resolved(host: &str, seams: &Seams) -> Result<Vec<IpAddr>, String> {
    let looked_up = tokio::net::lookup_host((host, 0));
    match seams.timeout(ANSWER_MAX, looked_up).await {
        None => Err("the name server does not answer".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(addresses)) => Ok(addresses.map(|address| address.ip()).collect()),
    }
}

/// What each metadata node says of itself.
async fn nodes(
    settings: &Settings,
    seams: &Seams,
) -> anyhow::Result<Vec<(String, Result<Life, String>)>> {
    let addresses = settings.metadata.split(',').map(str::trim).filter(|one| !one.is_empty());
    let addresses: Vec<String> = addresses.map(str::to_owned).collect();
    for address in &addresses {
        config::parse_host_port(address)
            .map_err(|error| Usage::new(format!("--metadata: {error}")))?;
    }
    let asked = addresses.into_iter().map(async |address| {
        let operator = Operator::new(vec![address.clone()], seams.clone());
        let answer = match seams.timeout(ANSWER_MAX, operator.status(false)).await {
            None => Err("no answer".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(status)) => {
                let lineage = status.lineage.unwrap_or_default();
                let lineage = Lineage { number: lineage.number, nonce: lineage.nonce };
                let has_leader = status.leader.is_some();
                Ok(Life { cluster_id: status.cluster_id, lineage, has_leader })
            }
        };
        (address, answer)
    });
    Ok(join_all(asked).await)
}
