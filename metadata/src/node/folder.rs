//! The `--data` folder: `LOCK` keeps a second process out, `node.json` says whose folder it is.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use aquifer_storage::model::Lineage;
use serde::{Deserialize, Serialize};

/// The newest layout of the folder this build knows.
const FORMAT: u32 = 1;
const LOCK_FILE: &str = "LOCK";
const NODE_FILE: &str = "node.json";

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
}

/// Reads whose folder it is; `None` for a folder that never held a node.
pub fn read_identity(folder: &Path) -> Result<Option<Identity>, FolderError> {
    let path = folder.join(NODE_FILE);
    let bytes = match fs::read(&path) {
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

/// Checks that the folder is `expected`'s; `false` when it has no owner yet.
pub fn is_owned(folder: &Path, expected: &Identity) -> Result<bool, FolderError> {
    match read_identity(folder)? {
        None => Ok(false),
        Some(found) if found == *expected => Ok(true),
        Some(found) => Err(FolderError::Foreign {
            path: folder.join(NODE_FILE),
            found: found.to_string(),
            expected: expected.to_string(),
        }),
    }
}

/// Checks that the folder is `expected`'s, or makes a folder without an owner its own: from then
/// on a log must be there, so it is begun before.
pub fn claim(folder: &Path, expected: &Identity) -> Result<(), FolderError> {
    if is_owned(folder, expected)? {
        return Ok(());
    }
    write_identity(folder, &folder.join(NODE_FILE), expected)
}

fn write_identity(folder: &Path, path: &Path, identity: &Identity) -> Result<(), FolderError> {
    let file = NodeFile {
        format: FORMAT,
        cluster_id: identity.cluster_id.clone(),
        node_id: identity.node_id,
        lineage_number: identity.lineage.number,
        lineage_nonce: format!("{:016x}", identity.lineage.nonce),
    };
    let text = serde_json::to_vec_pretty(&file).expect("numbers and strings have a JSON form");
    let temporary = folder.join("node.json.tmp");
    let mut out = at(&temporary, File::create(&temporary))?;
    at(&temporary, out.write_all(&text))?;
    at(&temporary, out.sync_all())?;
    // What was made before, the log's folder above all, is there if this file is.
    let sync_folder = || File::open(folder).and_then(|folder| folder.sync_all());
    at(folder, sync_folder())?;
    at(path, fs::rename(&temporary, path))?;
    at(folder, sync_folder())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_folder_stays_with_its_first_owner() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_identity(folder.path()).unwrap(), None);
        claim(folder.path(), &identity()).unwrap();
        claim(folder.path(), &identity()).unwrap();
        assert_eq!(read_identity(folder.path()).unwrap(), Some(identity()));
        let other = Identity { node_id: 2, ..identity() };
        assert!(matches!(claim(folder.path(), &other), Err(FolderError::Foreign { .. })));
    }

    #[test]
    fn a_newer_format_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NODE_FILE), br#"{"format": 2, "what": "ever"}"#).unwrap();
        let refused = read_identity(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("upgrade"), "{refused}");
    }
}
