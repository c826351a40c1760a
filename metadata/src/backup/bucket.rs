//! Reads a copy out of the bucket: lists what there is, takes the best that can be read, and
//! applies the entries behind it. The one place that LISTs to restore.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_storage::{
    error::{Outcome, StoreCondition, StoreError},
    model::{Lineage, LogIndex},
    store::Store,
};
use bytes::Bytes;

use super::{
    choice::{self, WholeSnapshot},
    file::{self, FileRefused},
    key::{BACKUP_PREFIX, BackupName, marker_key, parse_marker},
    marker::{Marker, MarkerRefused},
};
use crate::{codec, machine::MetadataState};

/// Keys asked for at once: as many as S3 gives.
const LIST_KEYS: usize = 1000;

/// Why nothing could be read back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store did not answer, or refused.
    #[error("the bucket cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A newer version wrote it: an older copy in its place would lose what it knows.
    #[error("{key}: {reason}")]
    Newer {
        /// What it is.
        key: String,
        /// What it says.
        reason: String,
    },
    /// A marker that says nothing: which offsets its life bound is not known.
    #[error("{key}: {source}; without it offsets could be bound twice")]
    Marker {
        /// Which.
        key: String,
        /// What is wrong.
        source: MarkerRefused,
    },
    /// There is no snapshot, or none that can be read.
    #[error("no backup of cluster {cluster_id} can be read under {BACKUP_PREFIX}/{}", told(.tried))]
    None {
        /// Whose.
        cluster_id: String,
        /// What was tried.
        tried: Vec<String>,
    },
}

fn told(tried: &[String]) -> String {
    if tried.is_empty() { String::new() } else { format!(": {}", tried.join("; ")) }
}

/// What lies in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Snapshots and chunks of every life.
    pub names: BTreeSet<BackupName>,
    /// The numbers of the lives that restores began.
    pub markers: BTreeSet<u32>,
}

/// Lists the backups under `prefix`.
pub async fn list(store: &dyn Store, prefix: &str) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), LIST_KEYS).await?;
        let Some(last) = page.last() else { return Ok(listing) };
        after = Some(last.key.clone());
        for listed in &page {
            listing.names.extend(BackupName::parse(&listed.key));
            listing.markers.extend(parse_marker(&listed.key));
        }
    }
}

/// Lists all backups.
pub async fn list_all(store: &dyn Store) -> Result<Listing, StoreError> {
    list(store, BACKUP_PREFIX).await
}

/// Reads all markers.
pub async fn markers(
    store: &dyn Store,
    listing: &Listing,
) -> Result<BTreeMap<u32, Marker>, BackupError> {
    let mut markers = BTreeMap::new();
    for number in &listing.markers {
        let key = marker_key(*number);
        let bytes = store.get(&key).await?;
        let marker = Marker::decode(&bytes);
        let marker = marker.map_err(|source| BackupError::Marker { key, source })?;
        markers.insert(*number, marker);
    }
    Ok(markers)
}

/// A state read back.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// As of `index`.
    pub state: MetadataState,
    /// The last entry that is in it.
    pub index: LogIndex,
    /// That entry's term.
    pub term: u64,
    /// The first part of the snapshot it began with.
    pub snapshot_key: String,
    /// Chunks applied behind the snapshot.
    pub chunks: usize,
    /// The last entry that any copy of this life claims to reach: beyond `index` when one of them
    /// could not be read.
    pub furthest: LogIndex,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Reads the best copy of cluster `cluster_id`, whose bucket `owner` has now.
pub async fn recover(
    store: &dyn Store,
    listing: &Listing,
    (cluster_id, owner): (&str, Lineage),
) -> Result<Recovered, BackupError> {
    let mut left_out = Vec::new();
    for snapshot in choice::snapshots(&listing.names, owner) {
        match read_snapshot(store, &snapshot, cluster_id).await {
            Ok((state, term)) => {
                let index = snapshot.index;
                let furthest = choice::furthest(&listing.names, snapshot.lineage).unwrap_or(index);
                let snapshot_key = snapshot.parts[0].key();
                let recovered =
                    Recovered { state, index, term, snapshot_key, chunks: 0, furthest, left_out };
                return replay(store, listing.names.clone(), recovered).await;
            }
            Err(Unreadable::Fatal(error)) => return Err(error),
            Err(Unreadable::LeftOut(why)) => left_out.push(why),
        }
    }
    Err(BackupError::None { cluster_id: cluster_id.to_owned(), tried: left_out })
}

/// What becomes of an object that gave nothing.
enum Unreadable {
    /// Another copy may serve.
    LeftOut(String),
    /// None would: try again, or with a newer version.
    Fatal(BackupError),
}

impl Unreadable {
    fn of(key: &str, refused: FileRefused) -> Self {
        let reason = refused.to_string();
        match refused {
            FileRefused::Newer { .. } => {
                Self::Fatal(BackupError::Newer { key: key.to_owned(), reason })
            }
            FileRefused::Damaged { .. } => Self::LeftOut(format!("{key}: {reason}")),
        }
    }
}

async fn get(store: &dyn Store, key: &str) -> Result<Bytes, Unreadable> {
    store.get(key).await.map_err(|error| {
        let is_gone = error.condition == StoreCondition::NotFound;
        if is_gone || error.outcome == Outcome::Corrupt {
            Unreadable::LeftOut(format!("{key}: {}", error.reason))
        } else {
            Unreadable::Fatal(error.into())
        }
    })
}

async fn read_snapshot(
    store: &dyn Store,
    snapshot: &WholeSnapshot,
    cluster_id: &str,
) -> Result<(MetadataState, u64), Unreadable> {
    let key = snapshot.parts[0].key();
    let mut bytes = Vec::new();
    for part in &snapshot.parts {
        bytes.extend_from_slice(&get(store, &part.key()).await?);
    }
    let decoded = file::decode_snapshot(&bytes.into());
    let (place, body) = decoded.map_err(|refused| Unreadable::of(&key, refused))?;
    if place.cluster_id != cluster_id
        || (place.lineage, place.index) != (snapshot.lineage, snapshot.index)
    {
        let why = format!("{key}: it is of cluster {} lineage {}", place.cluster_id, place.lineage);
        return Err(Unreadable::LeftOut(why));
    }
    let state = codec::decode_snapshot(&body).map_err(|error| not_understood(&key, error))?;
    Ok((state, place.term))
}

/// A checksum held, so these are the bytes that were written.
fn not_understood(key: &str, error: codec::CodecError) -> Unreadable {
    let reason = error.to_string();
    match error {
        codec::CodecError::LevelTooHigh { .. } => {
            Unreadable::Fatal(BackupError::Newer { key: key.to_owned(), reason })
        }
        _ => Unreadable::LeftOut(format!("{key}: {reason}")),
    }
}

/// Applies chunk after chunk.
async fn replay(
    store: &dyn Store,
    mut names: BTreeSet<BackupName>,
    mut recovered: Recovered,
) -> Result<Recovered, BackupError> {
    let lineage = recovered.state.lineage();
    while let Some(name) = choice::chunk_behind(&names, lineage, recovered.index) {
        match apply_chunk(store, &name, &recovered).await {
            Ok((state, index, term)) => {
                (recovered.state, recovered.index, recovered.term) = (state, index, term);
                recovered.chunks += 1;
            }
            Err(Unreadable::Fatal(error)) => return Err(error),
            Err(Unreadable::LeftOut(why)) => {
                recovered.left_out.push(why);
                names.remove(&name);
            }
        }
    }
    Ok(recovered)
}

/// The state behind a chunk; nothing of the chunk when an entry of it cannot be applied.
async fn apply_chunk(
    store: &dyn Store,
    name: &BackupName,
    before: &Recovered,
) -> Result<(MetadataState, LogIndex, u64), Unreadable> {
    let key = name.key();
    let bytes = get(store, &key).await?;
    let chunk = file::decode_chunk(&bytes).map_err(|refused| Unreadable::of(&key, refused))?;
    let mut state = before.state.clone();
    let follows = chunk.first <= before.index.next() && before.index < chunk.place.index;
    if chunk.place.cluster_id != state.cluster_id()
        || chunk.place.lineage != state.lineage()
        || !follows
    {
        return Err(Unreadable::LeftOut(format!("{key}: it does not go on behind the snapshot")));
    }
    for logged in &chunk.entries {
        let index = LogIndex::new(logged.index);
        if index <= before.index {
            continue; // The snapshot has it.
        }
        let entry = codec::decode_entry(&logged.entry);
        let entry = entry.map_err(|error| not_understood(&key, error))?;
        state.apply(index, logged.term, &entry);
    }
    Ok((state, chunk.place.index, chunk.place.term))
}
