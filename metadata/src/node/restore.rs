//! Begins the next life of a cluster on an empty folder, from what the bucket holds, after the
//! majority of its metadata nodes was lost (DESIGN 7, "Restore").
//!
//! # Invariants
//! - A life is numbered above every life that left a trace, and claims its number before it writes
//!   anything else. A restore that stops half way only uses up a number.
//! - The bucket names the new life only once its state is in the bucket and on the disk: the next
//!   restore finds a copy that is past the jump, and no node begins without its state.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use aquifer_storage::{
    claim::{Claim, ClaimFailed, advance_claim, read_claim},
    error::{StoreCondition, StoreError},
    format::{
        cluster_file::ClusterFile, object::ObjectBuilder, object_key::object_key,
        record_batch::hole_batch,
    },
    model::{Lineage, LogIndex, PartitionIndex, TopicId, TopicPartition},
    seam::{Rng, Seams},
    store::Store,
};
use bytes::Bytes;

use super::folder::{FolderError, Home, Identity};
use crate::{
    backup::{
        bucket::{self, BackupError, Listing, Recovered},
        file::{Place, snapshot_objects},
        key::marker_key,
        marker::Marker,
    },
    codec,
    machine::{
        MetadataState, WallTime, invariants,
        restore::{Hole, NextLife, RestoreRefused},
    },
    raft::{
        Member, record,
        snapshot_file::{SnapshotError, SnapshotFiles},
    },
    wal::{self, Wal, WalConfig, WalError},
};

/// Numbers that may turn out to be taken by restores at the same time.
const NUMBERS_TRIED: u32 = 16;

/// From where to where.
pub struct Restore {
    /// Holds the backups and the objects.
    pub store: Arc<dyn Store>,
    /// The folder of the only voter that the new life begins with. Without any node's data.
    pub data: PathBuf,
    /// That voter's id, from 1 to 99.
    pub node_id: u64,
    /// Where other nodes will reach it, `host:port`.
    pub address: String,
    /// How many offsets a life may have bound in one partition behind its backup, at least 1.
    pub offset_jump: u32,
    /// Randomness, above all.
    pub seams: Seams,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The cluster.
    pub cluster_id: String,
    /// The life the backup is of.
    pub from: Lineage,
    /// The life that begins.
    pub lineage: Lineage,
    /// The last entry that is in it.
    pub index: LogIndex,
    /// The wall time of that entry: what was acknowledged later is not in it.
    pub wall: WallTime,
    /// The snapshot it began with.
    pub snapshot_key: String,
    /// Chunks of the log applied behind it.
    pub chunks: usize,
    /// The last entry that a backup claims to reach; beyond `index` if one could not be read.
    pub furthest: LogIndex,
    /// What could not be read, and why.
    pub left_out: Vec<String>,
    /// By how much every partition's next offset was raised.
    pub offset_jump: u64,
    /// How many partitions there are.
    pub partitions: u64,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder holds a node's data.
    #[error(
        "{0} holds the data of a metadata node: start that node, or give an empty --data (a \
         restore never overwrites one)"
    )]
    NotEmpty(PathBuf),
    /// The bucket is of no cluster.
    #[error("the store holds no cluster under this prefix: check --store")]
    NoCluster,
    /// Whose the bucket is cannot be read, or not be written.
    #[error(transparent)]
    Claim(#[from] ClaimFailed),
    /// Another restore finished meanwhile.
    #[error("another restore was faster: the store is at lineage {found} now, empty --data")]
    Overtaken {
        /// The life that it began.
        found: String,
    },
    /// Every number that was tried is taken.
    #[error("the lineages up to {0} are taken by restores at the same time: try again")]
    Taken(u32),
    /// Nothing to restore from.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The store failed. What was begun only uses up a lineage number: repeat it.
    #[error("the restore stopped half way, and can be repeated on an empty --data: {0}")]
    Store(#[from] StoreError),
    /// The state takes no such jump.
    #[error(transparent)]
    Refused(#[from] RestoreRefused),
    /// The restored state is not sound, which is a bug: nothing was written.
    #[error(
        "the restored state breaks an invariant ({0}): keep the bucket as it is, and report it"
    )]
    Broken(&'static str),
    /// The disk failed.
    #[error("metadata log: {0}")]
    Log(#[from] WalError),
    /// The disk failed.
    #[error("metadata {0}")]
    Snapshot(#[from] SnapshotError),
}

/// Restores. Nodes and agents of the life before must not run any more: those that do go on by
/// themselves until they are started anew.
///
/// # Cancel safety
/// Dropping the future may leave a lineage number used up and a folder that must be emptied.
pub async fn restore(request: Restore) -> Result<Restored, RestoreError> {
    let home = Home::lock_patiently(&request.data, |disk| Arc::new(disk), &request.seams).await?;
    check_empty(&home, &request.data)?;
    let store = request.store.as_ref();
    let claimed = read_claim(store).await?.ok_or(RestoreError::NoCluster)?;
    let listing = bucket::list_all(store).await.map_err(BackupError::from)?;
    let owner = (claimed.cluster_id.as_str(), claimed.lineage);
    let recovered = bucket::recover(store, &listing, owner).await?;
    let lives = Lives { claimed: &claimed, copy: recovered.state.lineage(), listing: &listing };
    let (lineage, holes) = lives.begin(&request).await?;
    let (state, object) = begin(&recovered, lineage, (request.offset_jump, holes))?;
    store.put(&object.0, object.1).await?;
    let place = Place {
        cluster_id: claimed.cluster_id.clone(),
        lineage,
        index: recovered.index,
        term: recovered.term + 1,
    };
    let body = Bytes::from(codec::encode_snapshot(&state));
    for (name, part) in snapshot_objects(&place, body.clone(), request.seams.rng.next_u64()) {
        store.put(&name.key(), part).await?;
    }
    let identity =
        Identity { cluster_id: claimed.cluster_id.clone(), node_id: request.node_id, lineage };
    write_folder(&home, &identity, (&place, &body), &request).await?;
    let ours = ClusterFile { cluster_id: claimed.cluster_id, lineage };
    match advance_claim(store, &ours).await? {
        Claim::Claimed | Claim::Ours => {}
        Claim::NewerLineage { found } | Claim::OlderLineage { found } => {
            return Err(RestoreError::Overtaken { found: found.lineage.to_string() });
        }
        Claim::Foreign { cluster_id } => return Err(RestoreError::Overtaken { found: cluster_id }),
    }
    home.claim(&identity)?;
    Ok(Restored {
        cluster_id: ours.cluster_id,
        from: recovered.state.lineage(),
        lineage,
        index: recovered.index,
        wall: recovered.state.wall(),
        snapshot_key: recovered.snapshot_key,
        chunks: recovered.chunks,
        furthest: recovered.furthest,
        left_out: recovered.left_out,
        offset_jump: u64::from(request.offset_jump) * u64::from(holes),
        partitions: state.partition_count(),
    })
}

fn check_empty(home: &Home, path: &Path) -> Result<(), RestoreError> {
    let names = home.log.list();
    let names = names.map_err(|source| FolderError::Io { path: home.raft_path(), source })?;
    if home.identity()?.is_some() || !names.is_empty() {
        return Err(RestoreError::NotEmpty(path.to_path_buf()));
    }
    Ok(())
}

/// The lives before.
struct Lives<'a> {
    claimed: &'a ClusterFile,
    copy: Lineage,
    listing: &'a Listing,
}

impl Lives<'_> {
    /// Claims the number of the next life, and says how many holes it needs.
    async fn begin(&self, request: &Restore) -> Result<(Lineage, u32), RestoreError> {
        let store = request.store.as_ref();
        let mut markers = bucket::markers(store, self.listing).await?;
        let left = self.listing.names.iter().map(|name| name.lineage.number);
        let highest = left.chain([self.claimed.lineage.number]).max().unwrap_or_default();
        for _ in 0..NUMBERS_TRIED {
            let marked = markers.keys().next_back().copied().unwrap_or_default();
            let number = highest.max(marked) + 1;
            let lineage = Lineage { number, nonce: request.seams.rng.next_u64() };
            let holes = holes_behind(self.copy, &markers, request.offset_jump);
            let marker = Marker {
                cluster_id: self.claimed.cluster_id.clone(),
                lineage,
                offset_jump: u64::from(request.offset_jump) * u64::from(holes),
            };
            let found = mark(store, &marker).await?;
            if found == marker {
                return Ok((lineage, holes));
            }
            markers.insert(number, found);
        }
        Err(RestoreError::Taken(highest.max(markers.keys().next_back().copied().unwrap_or(0))))
    }
}

/// How many holes a life needs that begins from a copy of life `copy`: one for what that life bound
/// behind the copy, and for each life since as many as it began with, and one for what it bound.
fn holes_behind(copy: Lineage, markers: &BTreeMap<u32, Marker>, jump: u32) -> u32 {
    let since = markers.range(copy.number + 1..).map(|(_, marker)| {
        let holes = marker.offset_jump.div_ceil(u64::from(jump.max(1))) + 1;
        u32::try_from(holes).unwrap_or(u32::MAX)
    });
    since.fold(1, u32::saturating_add)
}

/// Puts the marker where none is; returns the one that is there then.
async fn mark(store: &dyn Store, marker: &Marker) -> Result<Marker, RestoreError> {
    let key = marker_key(marker.lineage.number);
    let body = Bytes::from(marker.encode());
    let failure = match store.put_if_absent(&key, body.clone()).await {
        Ok(()) => return Ok(marker.clone()),
        Err(error) if error.condition == StoreCondition::Unsupported => {
            store.put(&key, vec![body]).await.err()
        }
        Err(error) => Some(error),
    };
    // It may be this very write after a lost answer: what stands there decides.
    match (store.get(&key).await, failure) {
        (Ok(bytes), _) => {
            Ok(Marker::decode(&bytes).map_err(|source| BackupError::Marker { key, source })?)
        }
        (Err(_), Some(error)) | (Err(error), None) => Err(error.into()),
    }
}

/// The state of the new life, and the object that its holes are made of.
fn begin(
    recovered: &Recovered,
    lineage: Lineage,
    (offset_jump, holes): (u32, u32),
) -> Result<(MetadataState, (String, Vec<Bytes>)), RestoreError> {
    if offset_jump == 0 || aquifer_storage::format::record_batch::HOLE_OFFSETS_MAX < offset_jump {
        return Err(RestoreRefused::Jump.into());
    }
    let batch = hole_batch(offset_jump);
    let batch_bytes = batch.bytes().len() as u32; // A header.
    let mut builder = ObjectBuilder::new();
    // Rows of all partitions name the one batch. The object says of itself that it is of none.
    let nobody = TopicPartition { topic: TopicId::ZERO, partition: PartitionIndex::new(0) };
    builder.add(nobody, batch);
    let built = builder.finish();
    let hole = Hole { offsets: offset_jump, object_bytes: built.object_bytes, batch_bytes };
    let life = NextLife { lineage, hole, holes };
    let name = recovered.state.hole_object(&life)?;
    let state = recovered.state.restored(&life)?;
    match invariants::violations(&state).first() {
        Some(broken) => Err(RestoreError::Broken(broken)),
        None => Ok((state, (object_key(&name), built.body))),
    }
}

/// Makes the folder what that of a single voter is which cut its log at a snapshot and stopped.
async fn write_folder(
    home: &Home,
    identity: &Identity,
    (place, body): (&Place, &Bytes),
    request: &Restore,
) -> Result<(), RestoreError> {
    let rng: &dyn Rng = &*request.seams.rng;
    let incarnation = home.incarnation(rng)?;
    let (term, node_id, index) = (place.term, identity.node_id, place.index.value());
    let config = WalConfig::new(identity.cluster_id.clone(), node_id, rng.next_u64());
    let (log, _) = Wal::open(Arc::clone(&home.log), &config)?;
    log.save_vote_synced(wal::Vote { term, node_id, committed: true }).await?;
    let purged = log.purge(wal::LogId { term, node_id, index }, Box::new(|_| {})).await;
    purged.map_err(|refused| refused.error)?;
    log.barrier().await?;
    let member = Member { address: request.address.clone(), incarnation };
    let meta = record::single_voter(record::log_id(term, node_id, index), node_id, member);
    let snapshots = Arc::clone(&home.snapshots);
    let (files, _) = SnapshotFiles::open_on(snapshots, &home.raft_path(), home.drive)?;
    files.save(&meta, body)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(number: u32, offset_jump: u64) -> (u32, Marker) {
        let lineage = Lineage { number, nonce: 1 };
        (number, Marker { cluster_id: "c".into(), lineage, offset_jump })
    }

    #[test]
    fn a_copy_of_an_older_life_needs_a_hole_for_all_that_the_later_ones_may_have_bound() {
        let copy = |number| Lineage { number, nonce: 1 };
        let markers = BTreeMap::from([marker(1, 100), marker(2, 250)]);
        assert_eq!(holes_behind(copy(2), &markers, 100), 1);
        // Life 2 began 250 behind its copy, which takes three holes, and bound up to one more.
        assert_eq!(holes_behind(copy(1), &markers, 100), 1 + 3 + 1);
        assert_eq!(holes_behind(copy(0), &markers, 100), 1 + (1 + 1) + (3 + 1));
    }
}
