//! Objects as files of one folder. Always fsyncs: what is acknowledged survives a power cut.
//!
//! An object is staged in a file of its own, synced, renamed to its key and its folder synced, so
//! it is visible only whole. A staging file is locked while it is written; at the start, those that
//! nobody locks are leftovers of a crash and are removed. Any number of processes may share a
//! folder.
//!
//! # Invariants
//! - A `put` that returned `Ok` is on the disk: file, its folder, and every folder made for it.
//! - Nothing outside the root is touched: keys are checked before they become paths.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Listed, Store, key::Operation};
use crate::error::{Outcome, StoreCondition, StoreError};

mod walk;

/// Holds objects that are being written. Keys never start with a dot.
const STAGING: &str = ".staging";

/// A folder made for a put may be removed by a delete before the rename; then it is made again.
const FOLDER_ATTEMPTS: usize = 16;

/// Operations on the disk at once. On a disk that hangs they outlive their callers, each with its
/// thread and its body; the others wait where dropping them frees everything.
const UNDER_WAY_MAX: usize = 64;

/// A store in a folder.
#[derive(Debug)]
pub struct FileStore {
    folder: Arc<Folder>,
    under_way: Arc<Semaphore>,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    staging: PathBuf,
    process: u32,
    next_staged: AtomicU64,
}

/// What to do when the key exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Replace,
    Refuse,
}

impl FileStore {
    /// Opens the folder, making it when it is missing. Blocks: call it at the start.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        let staging = root.join(STAGING);
        fs::create_dir_all(&staging)?;
        sync_folder(&root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        remove_leftovers(&staging)?;
        let process = std::process::id();
        let folder = Folder { root, staging, process, next_staged: AtomicU64::new(0) };
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Ok(Self { folder: Arc::new(folder), under_way })
    }

    /// Runs `work` on a thread that may block. It runs to its end also when the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: Operation<'_>,
        work: impl FnOnce(&Folder) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.under_way).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let folder = Arc::clone(&self.folder);
        #[expect(clippy::disallowed_methods, reason = "this store is the seam to the file system")]
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit; // Until the work ends, not until its caller does.
            work(&folder)
        });
        match task.await {
            Ok(result) => result.map_err(|failed| failed.into_error(operation)),
            Err(stopped) => {
                let (outcome, condition) = (Outcome::Indefinite, StoreCondition::NoAnswer);
                Err(operation.error(outcome, condition, stopped))
            }
        }
    }

    async fn write(
        &self,
        operation: Operation<'_>,
        body: Vec<Bytes>,
        existing: Existing,
    ) -> Result<(), StoreError> {
        operation.check_key()?;
        let key = operation.key.to_owned();
        self.blocking(operation, move |folder| folder.write(&key, &body, existing)).await
    }
}

#[async_trait]
impl Store for FileStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        self.write(Operation { name: "put", key }, body, Existing::Replace).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.write(Operation { name: "put", key }, vec![body], Existing::Refuse).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        operation.check_key()?;
        operation.check_range(&range)?;
        let (path, asked) = (key.to_owned(), range.clone());
        let bytes = self.blocking(operation, move |folder| folder.read(&path, Some(asked))).await?;
        let got_bytes = bytes.len() as u64;
        if got_bytes != range.end - range.start {
            return Err(operation.short(&range, got_bytes));
        }
        Ok(bytes)
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let operation = Operation { name: "get", key };
        operation.check_key()?;
        let path = key.to_owned();
        self.blocking(operation, move |folder| folder.read(&path, None)).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        for key in &keys {
            Operation { name: "delete", key }.check_key()?;
        }
        let first = keys.first().cloned().unwrap_or_default();
        let operation = Operation { name: "delete", key: &first };
        self.blocking(operation, move |folder| folder.delete(&keys)).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let operation = Operation { name: "list", key: prefix };
        operation.check_prefix()?;
        let prefix = prefix.to_owned();
        let start_after = start_after.map(str::to_owned);
        self.blocking(operation, move |folder| {
            walk::list(&folder.root, &prefix, start_after.as_deref(), limit)
                .map_err(Failed::before_the_write)
        })
        .await
    }
}

impl Folder {
    fn write(&self, key: &str, body: &[Bytes], existing: Existing) -> Result<(), Failed> {
        let mut staged = self.stage(body).map_err(Failed::before_the_write)?;
        let target = self.root.join(key);
        let folder = target.parent().expect("a key lies below the root");
        let mut attempts = 0;
        loop {
            attempts += 1;
            match staged.move_to(&target, existing) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound && attempts < FOLDER_ATTEMPTS => {
                    match self.make_folder(folder) {
                        // A delete removed the folder above it at this moment.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        made => made.map_err(Failed::before_the_write)?,
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    return Err(Failed::AlreadyExists);
                }
                Err(error) => return Err(Failed::before_the_write(error)),
            }
        }
        // From here on readers see the object, but a power cut may still take it away.
        sync_folder(folder).map_err(|error| Failed::Io { error, outcome: Outcome::Indefinite })
    }

    /// Writes and syncs the bytes under a name of their own.
    fn stage(&self, body: &[Bytes]) -> io::Result<Staged> {
        // Before the first write, so that a failed write leaves nothing behind.
        let mut staged = self.new_staged()?;
        write_all(&mut staged.file, body)?;
        staged.file.sync_all()?;
        Ok(staged)
    }

    /// A new file that no other process writes, truncates or removes. In containers that share the
    /// folder many a process has our number: a name that is taken belongs to somebody else.
    fn new_staged(&self) -> io::Result<Staged> {
        loop {
            let number = self.next_staged.fetch_add(1, Ordering::Relaxed);
            let path = self.staging.join(format!("{}-{number}", self.process));
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(&self.staging)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            file.lock()?;
            // A process that starts may have taken it for a leftover before it was locked.
            if file.metadata()?.nlink() > 0 {
                return Ok(Staged { path, file, moved: false });
            }
        }
    }

    /// Makes a folder below the root and syncs every folder that got an entry.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut above = folder;
        while above != self.root && !above.is_dir() {
            missing.push(above);
            above = above.parent().expect("a folder of a key lies below the root");
        }
        for made in missing.into_iter().rev() {
            match fs::create_dir(made) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => sync_folder(made.parent().expect("lies below the root"))?,
            }
        }
        Ok(())
    }

    fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, Failed> {
        let read = || -> io::Result<Bytes> {
            let mut file = File::open(self.root.join(key))?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(ErrorKind::NotFound.into());
            }
            let range = range.unwrap_or(0..metadata.len());
            // The file's length bounds what a range from elsewhere can make us allocate.
            let end = range.end.min(metadata.len());
            let byte_count = end.saturating_sub(range.start);
            file.seek(SeekFrom::Start(range.start))?;
            let capacity = usize::try_from(byte_count).map_err(io::Error::other)?;
            let mut bytes = Vec::with_capacity(capacity);
            file.take(byte_count).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        };
        read().map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Failed::NotFound,
            _ => Failed::before_the_write(error),
        })
    }

    fn delete(&self, keys: &[String]) -> Result<(), Failed> {
        for key in keys {
            let path = self.root.join(key);
            match fs::remove_file(&path) {
                Err(error) if !is_absent(&error) => {
                    return Err(Failed::Io { error, outcome: Outcome::Indefinite });
                }
                _ => self.remove_empty_folders(&path),
            }
        }
        Ok(())
    }

    /// Folders cost inodes; one that fills at this moment is not empty and stays.
    fn remove_empty_folders(&self, path: &Path) {
        let folders = path.ancestors().skip(1).take_while(|folder| *folder != self.root);
        for folder in folders {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// A written file that has no key yet. Removed when dropped.
struct Staged {
    path: PathBuf,
    file: File,
    /// The name is free, and soon another's.
    moved: bool,
}

impl Staged {
    fn move_to(&mut self, target: &Path, existing: Existing) -> io::Result<()> {
        match existing {
            Existing::Replace => {
                fs::rename(&self.path, target)?;
                self.moved = true;
            }
            // A link, unlike a rename, fails when the name exists.
            Existing::Refuse => fs::hard_link(&self.path, target)?,
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.moved {
            // What stays is a leftover that the next start removes.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Why a piece of file work failed.
enum Failed {
    NotFound,
    AlreadyExists,
    Io { error: io::Error, outcome: Outcome },
}

impl Failed {
    fn before_the_write(error: io::Error) -> Self {
        Self::Io { error, outcome: Outcome::Unavailable }
    }

    fn into_error(self, operation: Operation<'_>) -> StoreError {
        match self {
            Self::NotFound => operation.not_found(),
            Self::AlreadyExists => operation.already_exists(),
            Self::Io { error, outcome } => {
                let condition = match error.kind() {
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                        StoreCondition::Denied
                    }
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreCondition::Busy,
                    ErrorKind::Unsupported => StoreCondition::Unsupported,
                    _ => StoreCondition::Other,
                };
                operation.error(outcome, condition, error)
            }
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn write_all(file: &mut File, body: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = body.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0); // Drops leading empty buffers.
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes staging files that no living process holds locked.
fn remove_leftovers(staging: &Path) -> io::Result<()> {
    for entry in fs::read_dir(staging)? {
        let path = entry?.path();
        match File::open(&path) {
            Ok(file) if file.try_lock().is_ok() => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {} // Or its writer, or another start, was faster.
            },
            _ => {} // Being written by another process, or just gone.
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
