//! The seam to the disk: what a node asks of a directory and of a file, and the real one.
//!
//! [`memory::MemoryDisk`] is the twin for tests and the simulator: it can run full, fail, lose
//! power and flip bits.

use std::{any::Any, fs, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

pub mod memory;

/// One directory of files.
///
/// Implementations MUST keep the effect of `create`, `rename` and `remove` over a power loss once
/// `sync_dir` returned, and MUST NOT report success of a sync that did not reach the medium.
pub trait Disk: Send + Sync + 'static {
    /// The names in the directory, those of directories too, in any order. Makes the directory when
    /// there is none.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>>;

    /// The directory `name` in this one. It is made by its own [`Self::list`].
    fn folder(&self, name: &str) -> Arc<dyn Disk>;

    /// Removes the directory `name` and what is in it.
    fn remove_folder(&self, name: &str) -> io::Result<()>;

    /// Gives a file or a directory another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. It stays readable for those who have it open.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Writes a new file `name` of `parts`, one behind the other, and makes its content durable.
#[cfg(feature = "server")]
pub(crate) fn write_whole(disk: &dyn Disk, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let file = disk.create(name)?;
    let mut offset = 0;
    for part in parts {
        file.write_at(offset, part)?;
        offset += part.len() as u64;
    }
    file.sync()
}

/// Reads all of the file `name`.
#[cfg(feature = "server")]
pub(crate) fn read_whole(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let size = usize::try_from(file.size()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; size];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// One open file.
pub trait WalFile: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable, and the size with it.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct FsDisk {
    dir: PathBuf,
    _guard: Option<Arc<dyn Any + Send + Sync>>,
}

impl FsDisk {
    /// Uses `dir`, which is made when the log is opened.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), _guard: None }
    }

    /// Keeps `guard` for as long as anyone may write: the log's writer holds its disk to its end.
    pub fn guarded(mut self, guard: Arc<dyn Any + Send + Sync>) -> Self {
        self._guard = Some(guard);
        self
    }
}

impl Disk for FsDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        if !self.dir.is_dir() {
            fs::create_dir_all(&self.dir)?;
            let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            fs::File::open(parent.unwrap_or(std::path::Path::new(".")))?.sync_all()?;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is not ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(FsFile { file: options.open(self.dir.join(name))? }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let file = fs::File::options().read(true).write(true).open(self.dir.join(name))?;
        Ok(Arc::new(FsFile { file }))
    }

    fn folder(&self, name: &str) -> Arc<dyn Disk> {
        Arc::new(Self { dir: self.dir.join(name), ..self.clone() })
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()
    }
}

struct FsFile {
    file: fs::File,
}

impl WalFile for FsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
