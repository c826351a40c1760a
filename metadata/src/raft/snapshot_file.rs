//! Snapshots on the local disk: `snap-<index>/state`, written whole under a temporary name, made
//! durable, then renamed. At most one is kept once the next is durable.
//!
//! # Invariants
//! - A snapshot under its final name is complete and was fsynced, directory included.
//! - One that does not read back is an error, never "no snapshot": the log before it is purged.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{LogId, SnapshotMeta, record};
use crate::wal::{
    Drive,
    disk::{Disk, FsDisk, read_whole, write_whole},
};

/// The first bytes of the file; the last digit is the version of its layout.
const MAGIC: &[u8; 8] = b"AQSNAP\x00\x01";
/// Magic, meta length, body length, CRC.
const HEAD_BYTES: usize = 8 + 4 + 8 + 4;
/// The meta is a log id and a membership; more is damage.
const META_BYTES_MAX: usize = 1 << 20;
const FILE_NAME: &str = "state";
const PREFIX: &str = "snap-";
const TEMPORARY: &str = ".tmp";

/// Why snapshots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed.
    #[error("snapshot {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not read back as it was written.
    #[error("snapshot {path} is damaged: {reason}; restore this node from another or a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io { ref source, .. } => Self::new(source.kind(), error),
            SnapshotError::Damaged { .. } => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, SnapshotError> {
    result.map_err(|source| SnapshotError::Io { path: path.to_path_buf(), source })
}

/// The snapshots of one node. Calls block on the disk.
pub struct SnapshotFiles {
    /// Named in messages.
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    drive: Drive,
    /// The newest durable snapshot; held while one is written, so that writers take turns.
    newest: Mutex<Option<SnapshotMeta>>,
}

impl SnapshotFiles {
    /// Opens the snapshots in a folder of the operating system, as [`Self::open_on`].
    pub fn open(folder: &Path) -> Result<(Self, Option<(SnapshotMeta, Bytes)>), SnapshotError> {
        Self::open_on(Arc::new(FsDisk::new(folder)), folder, Drive::Thread)
    }

    /// Opens the snapshots on `disk`, which messages call `folder`: removes unfinished ones and
    /// reads the newest, if any. With [`Drive::Thread`] the work on them gets threads of its own.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        folder: &Path,
        drive: Drive,
    ) -> Result<(Self, Option<(SnapshotMeta, Bytes)>), SnapshotError> {
        let mut indexes = Vec::new();
        for name in at(folder, disk.list())? {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if rest.ends_with(TEMPORARY) {
                at(&folder.join(&name), disk.remove_folder(&name))?;
            } else if let Ok(index) = rest.parse::<u64>() {
                indexes.push(index);
            }
        }
        indexes.sort_unstable();
        let newest = match indexes.pop() {
            None => None,
            Some(index) => Some(read(&*disk, folder, index)?),
        };
        for index in indexes {
            // Superseded before a crash: the newer one is durable and reads back.
            at(folder, disk.remove_folder(&name_of(index)))?;
        }
        let meta = newest.as_ref().map(|(meta, _)| meta.clone());
        let folder = folder.to_path_buf();
        let files = Self { folder, disk, drive, newest: Mutex::new(meta) };
        Ok((files, newest))
    }

    /// Makes a snapshot durable and forgets the older one. A snapshot that is not newer than the
    /// one kept is dropped: the kept one serves as well.
    pub fn save(&self, meta: &SnapshotMeta, body: &[u8]) -> Result<(), SnapshotError> {
        let mut newest = self.newest.lock().expect("no panic while a snapshot is written");
        let index = index_of(meta.last_log_id.as_ref());
        if newest.as_ref().is_some_and(|kept| index <= index_of(kept.last_log_id.as_ref())) {
            return Ok(());
        }
        let done = name_of(index);
        let temporary = format!("{done}{TEMPORARY}");
        let path = self.folder.join(&temporary);
        if at(&self.folder, self.disk.list())?.contains(&temporary) {
            at(&path, self.disk.remove_folder(&temporary))?;
        }
        if let Err(error) = write(&*self.disk.folder(&temporary), meta, body) {
            // A full disk gets back what the try took; else the next open removes it.
            let _ = self.disk.remove_folder(&temporary);
            return at(&path, Err(error));
        }
        at(&path, self.disk.rename(&temporary, &done))?;
        at(&self.folder, self.disk.sync_dir())?;
        if let Some(older) = newest.replace(meta.clone()) {
            let older = name_of(index_of(older.last_log_id.as_ref()));
            at(&self.folder.join(&older), self.disk.remove_folder(&older))?;
        }
        Ok(())
    }

    /// The newest snapshot, read from disk.
    pub fn newest(&self) -> Result<Option<(SnapshotMeta, Bytes)>, SnapshotError> {
        let newest = self.newest.lock().expect("no panic while a snapshot is written");
        let Some(meta) = newest.as_ref() else { return Ok(None) };
        read(&*self.disk, &self.folder, index_of(meta.last_log_id.as_ref())).map(Some)
    }

    /// Runs work that takes long or blocks on the disk, on a thread of its own, and waits for it.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self.drive {
            Drive::Inline | Drive::Manual => return work(),
            Drive::Thread => {}
        }
        let (done, result) = oneshot::channel();
        thread::Builder::new().name("aquifer-snapshot".into()).spawn(move || {
            // A receiver that is gone was shut down; the work is done all the same.
            let _ = done.send(work());
        })?;
        result.await.unwrap_or_else(|_| Err(io::Error::other("the snapshot thread panicked")))
    }
}

fn index_of(log_id: Option<&LogId>) -> u64 {
    log_id.map_or(0, |id| id.index)
}

fn name_of(index: u64) -> String {
    format!("{PREFIX}{index:020}")
}

fn checksum(meta: &[u8], body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&(meta.len() as u32).to_le_bytes());
    digest.update(&(body.len() as u64).to_le_bytes());
    digest.update(meta);
    digest.update(body);
    digest.finalize() as u32
}

fn write(disk: &dyn Disk, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
    let meta = record::encode_snapshot_meta(meta);
    let mut head = Vec::with_capacity(HEAD_BYTES + meta.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    head.extend_from_slice(&(body.len() as u64).to_le_bytes());
    head.extend_from_slice(&checksum(&meta, body).to_le_bytes());
    head.extend_from_slice(&meta);
    disk.list()?; // Makes the folder.
    write_whole(disk, FILE_NAME, &[&head, body])?;
    disk.sync_dir()
}

fn read(
    disk: &dyn Disk,
    folder: &Path,
    index: u64,
) -> Result<(SnapshotMeta, Bytes), SnapshotError> {
    let path = folder.join(name_of(index)).join(FILE_NAME);
    let damaged =
        |reason: &str| SnapshotError::Damaged { path: path.clone(), reason: reason.into() };
    let bytes = Bytes::from(match read_whole(&*disk.folder(&name_of(index)), FILE_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("the file is missing"));
        }
        result => at(&path, result)?,
    });
    if bytes.len() < HEAD_BYTES {
        return Err(damaged("shorter than its header"));
    }
    if bytes[..7] != MAGIC[..7] {
        return Err(damaged("not a snapshot"));
    }
    if bytes[7] != MAGIC[7] {
        return Err(damaged("written by a newer version of aquifer"));
    }
    let number = |from: usize| {
        u32::from_le_bytes(bytes[from..from + 4].try_into().expect("four bytes of the header"))
    };
    let meta_bytes = number(8) as usize;
    let body_bytes = u64::from(number(12)) | u64::from(number(16)) << 32;
    let expected = (HEAD_BYTES + meta_bytes) as u64;
    if META_BYTES_MAX < meta_bytes || expected.checked_add(body_bytes) != Some(bytes.len() as u64) {
        return Err(damaged("its length is not the one it states"));
    }
    let meta = bytes.slice(HEAD_BYTES..HEAD_BYTES + meta_bytes);
    let body = bytes.slice(HEAD_BYTES + meta_bytes..);
    if checksum(&meta, &body) != number(20) {
        return Err(damaged("checksum mismatch"));
    }
    let meta = record::decode_snapshot_meta(&meta).map_err(|error| damaged(&error.to_string()))?;
    Ok((meta, body))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::wal::disk::memory::MemoryDisk;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(record::log_id(1, 1, index)), ..SnapshotMeta::default() }
    }

    #[test]
    fn the_newest_snapshot_is_read_back_and_the_older_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (files, none) = SnapshotFiles::open(folder.path()).unwrap();
        assert!(none.is_none());
        files.save(&meta(3), b"three").unwrap();
        files.save(&meta(5), b"five").unwrap();
        files.save(&meta(4), b"late").unwrap();
        assert_eq!(files.newest().unwrap().unwrap().1, "five");
        let (_, newest) = SnapshotFiles::open(folder.path()).unwrap();
        assert_eq!(newest.unwrap(), (meta(5), Bytes::from_static(b"five")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_snapshot_is_removed_at_open() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("snap-00000000000000000007.tmp")).unwrap();
        let (_, newest) = SnapshotFiles::open(folder.path()).unwrap();
        assert!(newest.is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = SnapshotFiles::open(folder.path()).unwrap();
        files.save(&meta(3), b"state of the machine").unwrap();
        let path = folder.path().join(name_of(3)).join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(SnapshotFiles::open(folder.path()).is_err(), "flip at {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert!(SnapshotFiles::open(folder.path()).is_err(), "cut at {place}");
        }
        fs::remove_file(&path).unwrap();
        assert!(SnapshotFiles::open(folder.path()).is_err());
    }

    #[test]
    fn a_power_loss_leaves_the_old_snapshot_or_the_new_one() {
        let mut random = 7u64;
        for operations in 0..12 {
            let disk = MemoryDisk::default();
            let open = |disk: &MemoryDisk| {
                let disk = Arc::new(disk.clone());
                SnapshotFiles::open_on(disk, Path::new("memory"), Drive::Inline).unwrap()
            };
            let (files, _) = open(&disk);
            files.save(&meta(3), b"three").unwrap();
            disk.fail_after(Some(operations));
            let saved = files.save(&meta(5), b"five").is_ok();
            disk.lose_power(&mut || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random >> 33
            });
            let (_, newest) = open(&disk);
            let (_, body) = newest.expect("a snapshot was durable");
            assert!(body == "five" || body == "three" && !saved, "{operations}: {body:?}");
        }
    }
}
