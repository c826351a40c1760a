//! The `--data` folder: `LOCK` keeps a second process out, `node.json` says whose folder it is.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use aquifer_storage::{
    model::Lineage,
    seam::{Rng, Seams},
};
use serde::{Deserialize, Serialize};

use crate::wal::{
    Drive,
    disk::{Disk, FsDisk, read_whole, write_whole},
};

/// The newest layout of the folder this build knows.
const FORMAT: u32 = 1;
const LOCK_FILE: &str = "LOCK";
const NODE_FILE: &str = "node.json";
const INCARNATION_FILE: &str = "incarnation";
const FOUNDERS_FILE: &str = "founders";
const RAFT_FOLDER: &str = "raft";
/// A process that was killed keeps its locks until the system has taken its memory back.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Small enough that runs of a few minutes roll and purge many.
const SIMULATED_SEGMENT_BYTES: u32 = 256 * 1024;

/// Whose folder it is. Written once and never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: String,
    /// The metadata node's id, never used again once its folder is lost.
    pub node_id: u64,
    /// The life of the group it belongs to.
    pub lineage: Lineage,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process holds the lock.
    #[error("{path} is in use by process {pid}: stop it, or give this node another --data")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// What that process wrote into the lock file.
        pid: String,
    },
    /// A newer version wrote it.
    #[error("{path} has format {found}, this version reads up to {FORMAT}: upgrade aquifer")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The file is there but does not make sense.
    #[error("{path} is damaged: {reason}; restore this folder or start the node under a new id")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder is of another cluster, node or lineage.
    #[error("{path} belongs to {found}, not to {expected}: check --data")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        found: String,
        /// The node that was started.
        expected: String,
    },
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cluster {} node {} lineage {}", self.cluster_id, self.node_id, self.lineage)
    }
}

#[derive(Serialize, Deserialize)]
struct NodeFile {
    format: u32,
    cluster_id: String,
    node_id: u64,
    lineage_number: u32,
    /// Hex: JSON numbers do not hold 64 bits everywhere.
    lineage_nonce: String,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, FolderError> {
    result.map_err(|source| FolderError::Io { path: path.to_path_buf(), source })
}

/// The lock on a folder, released when dropped (and by the system when the process dies).
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder if need be and takes its lock.
    pub fn take(folder: &Path) -> Result<Self, FolderError> {
        at(folder, fs::create_dir_all(folder))?;
        let path = folder.join(LOCK_FILE);
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = at(&path, open)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only for the message: the holder may be between locking and writing.
                let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "?" } else { pid.trim() }.to_owned();
                return Err(FolderError::InUse { path: folder.to_path_buf(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(FolderError::Io { path, source }),
        }
        let mut name_holder = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        if let Err(error) = name_holder() {
            // Only for the message: a node starts on a full disk, too.
            tracing::debug!(%error, ?path, "cannot write the holder's process id");
        }
        Ok(Self { _file: file })
    }

    /// As [`Self::take`], once whoever holds it lets go of it within `patience`.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub async fn take_within(
        patience: Duration,
        folder: &Path,
        seams: &Seams,
    ) -> Result<Self, FolderError> {
        let deadline = seams.clock.mono() + patience;
        let mut is_said = false;
        loop {
            match Self::take(folder) {
                Err(error @ FolderError::InUse { .. }) if seams.clock.mono() < deadline => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::warn!(%error, ?patience, "waiting for it to end");
                    }
                    seams.sleep(LOCK_RETRY_INTERVAL).await;
                }
                taken => return taken,
            }
        }
    }
}

/// Where a node keeps what it must not lose.
pub struct Home {
    path: PathBuf,
    root: Arc<dyn Disk>,
    /// Holds the log.
    pub(super) log: Arc<dyn Disk>,
    /// Holds the snapshots, beside the log.
    pub(super) snapshots: Arc<dyn Disk>,
    pub(super) drive: Drive,
    /// What a sync takes, where the disk is not real.
    pub(super) sync_time: Duration,
    /// Segments of the log, where they are not of the usual size.
    pub(super) segment_bytes: Option<u32>,
    incarnation: OnceLock<u64>,
}

impl Home {
    /// Locks a folder of the operating system: until nobody is left who could write to it. The
    /// log is written through what `wrap` makes of its disk.
    pub fn lock(
        path: &Path,
        wrap: impl FnOnce(FsDisk) -> Arc<dyn Disk>,
    ) -> Result<Self, FolderError> {
        Ok(Self::locked(path, FolderLock::take(path)?, wrap))
    }

    /// As [`Self::lock`], of a folder whose last process may still be dying: it is waited for.
    pub async fn lock_patiently(
        path: &Path,
        wrap: impl FnOnce(FsDisk) -> Arc<dyn Disk>,
        seams: &Seams,
    ) -> Result<Self, FolderError> {
        Ok(Self::locked(path, FolderLock::take_within(LOCK_PATIENCE, path, seams).await?, wrap))
    }

    fn locked(path: &Path, lock: FolderLock, wrap: impl FnOnce(FsDisk) -> Arc<dyn Disk>) -> Self {
        let lock = Arc::new(lock);
        let raft = FsDisk::new(path.join(RAFT_FOLDER)).guarded(lock.clone());
        Self {
            path: path.to_path_buf(),
            root: Arc::new(FsDisk::new(path).guarded(lock)),
            log: wrap(raft.clone()),
            snapshots: Arc::new(raft),
            drive: Drive::Thread,
            sync_time: Duration::ZERO,
            segment_bytes: None,
            incarnation: OnceLock::new(),
        }
    }

    /// A simulated disk, which messages call `path`. No threads write to it; everything that waits
    /// for a sync is synced together after `sync_time`. The log's segments are small.
    pub fn simulated(path: &Path, disk: Arc<dyn Disk>, sync_time: Duration) -> Self {
        let raft = disk.folder(RAFT_FOLDER);
        Self {
            path: path.to_path_buf(),
            root: disk,
            log: raft.clone(),
            snapshots: raft,
            drive: Drive::Manual,
            sync_time,
            segment_bytes: Some(SIMULATED_SEGMENT_BYTES),
            incarnation: OnceLock::new(),
        }
    }

    /// The folder of the log and the snapshots, as messages call it.
    pub fn raft_path(&self) -> PathBuf {
        self.path.join(RAFT_FOLDER)
    }

    /// Whose it is; `None` when it never held a node.
    pub fn identity(&self) -> Result<Option<Identity>, FolderError> {
        parse_identity(self.path.join(NODE_FILE), read_whole(&*self.root, NODE_FILE))
    }

    /// What tells this home from any other that ever had, or will have, the same node id: drawn
    /// before it has an owner, and never changed from then on.
    pub fn incarnation(&self, rng: &dyn Rng) -> Result<u64, FolderError> {
        if let Some(known) = self.incarnation.get() {
            return Ok(*known);
        }
        let path = self.path.join(INCARNATION_FILE);
        let kept = match read_whole(&*self.root, INCARNATION_FILE) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(FolderError::Io { path, source }),
        };
        // Without an owner it was emptied, or is new: whatever stands there is nobody's.
        let kept = if self.identity()?.is_some() { kept } else { None };
        let incarnation = match kept {
            Some(bytes) => {
                let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
                let read = u64::from_str_radix(text, 16).ok().filter(|read| *read != 0);
                let reason = "not a number of 16 digits".to_owned();
                read.ok_or(FolderError::Damaged { path, reason })?
            }
            None => {
                let drawn = rng.next_u64().max(1);
                at(&path, self.write_small(INCARNATION_FILE, &format!("{drawn:016x}")))?;
                drawn
            }
        };
        Ok(*self.incarnation.get_or_init(|| incarnation))
    }

    /// Notes with whom a node that is not part of a group yet begins one, should it stop before.
    pub fn note_founders(&self, founders: &str) -> Result<(), FolderError> {
        let noted = self.write_small(FOUNDERS_FILE, founders);
        at(&self.path.join(FOUNDERS_FILE), noted)
    }

    /// What was noted.
    pub fn founders(&self) -> Result<Option<String>, FolderError> {
        match read_whole(&*self.root, FOUNDERS_FILE) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FolderError::Io { path: self.path.join(FOUNDERS_FILE), source }),
        }
    }

    fn write_small(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = format!("{name}.tmp");
        write_whole(&*self.root, &temporary, &[text.as_bytes(), b"\n"])?;
        self.root.rename(&temporary, name)?;
        self.root.sync_dir()
    }

    /// Checks that it is `expected`'s; `false` when it has no owner yet.
    pub fn is_owned(&self, expected: &Identity) -> Result<bool, FolderError> {
        match self.identity()? {
            None => Ok(false),
            Some(found) if found == *expected => Ok(true),
            Some(found) => Err(FolderError::Foreign {
                path: self.path.join(NODE_FILE),
                found: found.to_string(),
                expected: expected.to_string(),
            }),
        }
    }

    /// Checks that it is `expected`'s, or makes one without an owner its own: from then on a log
    /// must be there, so it is begun before.
    pub fn claim(&self, expected: &Identity) -> Result<(), FolderError> {
        if self.is_owned(expected)? {
            return Ok(());
        }
        at(&self.path.join(NODE_FILE), self.write_identity(expected))
    }

    fn write_identity(&self, identity: &Identity) -> io::Result<()> {
        const TEMPORARY: &str = "node.json.tmp";
        let file = NodeFile {
            format: FORMAT,
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            lineage_number: identity.lineage.number,
            lineage_nonce: format!("{:016x}", identity.lineage.nonce),
        };
        let text = serde_json::to_vec_pretty(&file).expect("numbers and strings have a JSON form");
        write_whole(&*self.root, TEMPORARY, &[&text])?;
        // What was made before, the log's folder above all, is there if this file is.
        self.root.sync_dir()?;
        self.root.rename(TEMPORARY, NODE_FILE)?;
        self.root.sync_dir()
    }
}

/// Reads whose folder it is; `None` for a folder that never held a node.
pub fn read_identity(folder: &Path) -> Result<Option<Identity>, FolderError> {
    let path = folder.join(NODE_FILE);
    let read = fs::read(&path);
    parse_identity(path, read)
}

fn parse_identity(
    path: PathBuf,
    read: io::Result<Vec<u8>>,
) -> Result<Option<Identity>, FolderError> {
    let bytes = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => at(&path, result)?,
    };
    let damaged = |reason: String| FolderError::Damaged { path: path.clone(), reason };
    // The format first: a newer file may have other fields.
    let format: FormatOnly =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if FORMAT < format.format {
        return Err(FolderError::Newer { path, found: format.format });
    }
    let file: NodeFile =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let nonce = u64::from_str_radix(&file.lineage_nonce, 16)
        .map_err(|error| damaged(format!("lineage_nonce: {error}")))?;
    Ok(Some(Identity {
        cluster_id: file.cluster_id,
        node_id: file.node_id,
        lineage: Lineage { number: file.lineage_number, nonce },
    }))
}

#[cfg(test)]
mod tests {
    use aquifer_storage::seam::system;

    use super::*;

    fn identity() -> Identity {
        let lineage = Lineage { number: 2, nonce: u64::MAX };
        Identity { cluster_id: "c".into(), node_id: 1, lineage }
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        FolderLock::take(folder.path()).unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ends_is_waited_for_as_long_as_there_is_patience() {
        let folder = tempfile::tempdir().unwrap();
        let seams = system::seams();
        let held = FolderLock::take(folder.path()).unwrap();
        let mut taking =
            std::pin::pin!(FolderLock::take_within(LOCK_PATIENCE, folder.path(), &seams));
        assert!(futures::poll!(&mut taking).is_pending());
        drop(held);
        let _taken = taking.await.unwrap();
        let refused = FolderLock::take_within(Duration::ZERO, folder.path(), &seams).await;
        assert!(matches!(refused, Err(FolderError::InUse { .. })), "{refused:?}");
    }

    #[test]
    fn a_folder_stays_with_its_first_owner() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_identity(folder.path()).unwrap(), None);
        let home = Home::lock(folder.path(), |disk| Arc::new(disk)).unwrap();
        home.claim(&identity()).unwrap();
        home.claim(&identity()).unwrap();
        assert_eq!(home.identity().unwrap(), Some(identity()));
        assert_eq!(read_identity(folder.path()).unwrap(), Some(identity()));
        let other = Identity { node_id: 2, ..identity() };
        assert!(matches!(home.claim(&other), Err(FolderError::Foreign { .. })));
    }

    #[test]
    fn a_newer_format_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NODE_FILE), br#"{"format": 2, "what": "ever"}"#).unwrap();
        let refused = read_identity(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("upgrade"), "{refused}");
    }
}
