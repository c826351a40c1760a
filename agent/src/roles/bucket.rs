//! Opens the object store a role was told to use, with credentials where AWS SDK users put them.

use std::{env, sync::Arc};

use anyhow::Context;
use aquifer_agent::config::Settings;
use aquifer_storage::{
    seam::Seams,
    store::{
        Store,
        file::FileStore,
        hedge::HedgedStore,
        memory::MemoryStore,
        metered::{MeteredStore, StoreCounters},
        retry::{RetryPolicy, RetryingStore},
        s3::{S3Options, S3Store},
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

/// Opens the store of `settings`. Sends nothing yet.
pub fn open(settings: &Settings, seams: &Seams) -> anyhow::Result<Bucket> {
    open_url(&settings.store_url(), seams)
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
            let variable = |name: &str| env::var(name).ok();
            let options = S3Options {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                virtual_hosted: variable("AQUIFER_S3_VIRTUAL_HOSTED")
                    .is_some_and(|on| on == "true"),
                ..S3Options::default()
            };
            decorate(S3Store::from_environment(&options, &variable).context("--store")?, seams)
        }
    };
    Ok(Bucket { store, counters, url })
}

fn decorate<S: Store>(store: S, seams: &Seams) -> (Arc<dyn Store>, StoreCounters) {
    // Counted innermost: retries and hedges cost requests too.
    let metered = MeteredStore::new(store);
    let counters = metered.counters();
    let hedged = HedgedStore::new(metered, seams.clone());
    let store = RetryingStore::new(hedged, RetryPolicy::default(), seams.clone());
    (Arc::new(store), counters)
}
