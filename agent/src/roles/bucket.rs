//! Opens the object store a role was told to use, with credentials where AWS SDK users put them.

use std::{env, sync::Arc};

use anyhow::Context;
use aquifer_agent::config::Settings;
use aquifer_storage::{
    probe::{self, Depth, Verdict},
    seam::Seams,
    store::{
        Store, azure,
        file::FileStore,
        gcs,
        hedge::HedgedStore,
        memory::MemoryStore,
        metered::{MeteredStore, StoreCounters},
        retry::{RetryPolicy, RetryingStore},
        s3::{self, BucketApi, NotMade, S3Options},
        url::StoreUrl,
    },
};

/// The store, decorated, and what a banner says of it.
#[derive(Clone)]
pub struct Bucket {
    /// Retried, hedged and counted.
    pub store: Arc<dyn Store>,
    /// Requests by kind.
    pub counters: StoreCounters,
    /// How it is reached.
    pub url: StoreUrl,
}

/// Opens the store of `settings`. Sends nothing yet, but to make the bucket if that is asked for.
pub async fn open(settings: &Settings, seams: &Seams) -> anyhow::Result<Bucket> {
    let bucket = open_url(&settings.store_url(), seams)?;
    if settings.create_bucket {
        create(&bucket.url, seams).await?;
    }
    Ok(bucket)
}

/// Makes the bucket unless it is there, and adds our lifecycle rules. Other stores need no making.
///
/// # Errors
/// The store refuses to make it. Missing rules and a store that is down are warnings.
pub async fn create(url: &StoreUrl, seams: &Seams) -> anyhow::Result<()> {
    let (bucket, prefix) = match url {
        StoreUrl::S3 { bucket, prefix } => (bucket, prefix),
        StoreUrl::Gcs { bucket: name, .. } | StoreUrl::Azure { container: name, .. } => {
            anyhow::bail!("--create-bucket makes buckets of S3: make {name} with the store's tools")
        }
        StoreUrl::File { .. } | StoreUrl::Memory => return Ok(()),
    };
    let options = s3_options(bucket, prefix);
    let api = BucketApi::from_environment(&options, &variable, seams.clone()).context("--store")?;
    match api.make().await {
        Ok(true) => tracing::info!("made the bucket {bucket}"),
        Ok(false) => {}
        Err(error @ NotMade::NoAnswer(_)) => {
            tracing::warn!("--create-bucket {bucket}: {error}");
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("--create-bucket {bucket}")),
    }
    match api.add_rules().await {
        Ok(true) => tracing::info!("added lifecycle rules for {url}"),
        Ok(false) => {}
        Err(error) => tracing::warn!("lifecycle rules of {bucket}: {error}"),
    }
    Ok(())
}

/// Opens the store at `url`. Sends nothing yet.
pub fn open_url(url: &str, seams: &Seams) -> anyhow::Result<Bucket> {
    let url = StoreUrl::parse(url).context("--store")?;
    let (store, counters): (Arc<dyn Store>, _) = match &url {
        StoreUrl::Memory => decorate(MemoryStore::new(), seams),
        StoreUrl::File { path } => {
            let store = FileStore::open(path)
                .with_context(|| format!("--store: cannot use the folder {}", path.display()))?;
            decorate(store, seams)
        }
        StoreUrl::S3 { bucket, prefix } => {
            let options = s3_options(bucket, prefix);
            decorate(s3::open(&options, &variable).context("--store")?, seams)
        }
        StoreUrl::Gcs { bucket, prefix } => {
            decorate(gcs::open(bucket, prefix, &variable).context("--store")?, seams)
        }
        StoreUrl::Azure { container, prefix } => {
            decorate(azure::open(container, prefix, &variable).context("--store")?, seams)
        }
    };
    Ok(Bucket { store, counters, url })
}

/// Reads a variable of the environment.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// What the environment does not say of a bucket.
pub fn s3_options(bucket: &str, prefix: &str) -> S3Options {
    S3Options {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        virtual_hosted: variable("AQUIFER_S3_VIRTUAL_HOSTED").is_some_and(|on| on == "true"),
        ..S3Options::default()
    }
}

impl Bucket {
    /// Tries the store out with a few requests, says what it lacks, and whether enough of it
    /// answered to tell.
    ///
    /// # Errors
    /// The store would lose records: it must not be used.
    pub async fn prove(&self, seams: &Seams) -> anyhow::Result<bool> {
        if matches!(self.url, StoreUrl::Memory) {
            return Ok(true);
        }
        let seen = probe::observe(self.store.as_ref(), Depth::Start, seams).await;
        let findings = probe::judge::judge(&seen);
        if let Some(finding) = probe::judge::refusal(&findings) {
            anyhow::bail!(
                "--store {} cannot be used: {finding}; `aquifer doctor --store {}` tells more",
                self.url,
                self.url
            );
        }
        for finding in &findings {
            match finding.verdict {
                Verdict::Ok => {}
                Verdict::Unknown => tracing::warn!("{} could not be tested: {finding}", self.url),
                Verdict::Warning | Verdict::Failed => tracing::warn!("{}: {finding}", self.url),
            }
        }
        Ok(findings.iter().all(|finding| finding.verdict != Verdict::Unknown))
    }

    /// Tries the store out once more if that told nothing before, now that it answered something.
    ///
    /// # Errors
    /// As [`Bucket::prove`].
    pub async fn prove_unless(&self, is_proven: bool, seams: &Seams) -> anyhow::Result<()> {
        if !is_proven {
            self.prove(seams).await?;
        }
        Ok(())
    }
}

fn decorate<S: Store>(store: S, seams: &Seams) -> (Arc<dyn Store>, StoreCounters) {
    // Counted innermost: retries and hedges cost requests too.
    let metered = MeteredStore::new(store);
    let counters = metered.counters();
    let hedged = HedgedStore::new(metered, seams.clone());
    let store = RetryingStore::new(hedged, RetryPolicy::default(), seams.clone());
    (Arc::new(store), counters)
}
