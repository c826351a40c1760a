//! A disk that runs full when a test says so.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use aquifer_metadata::wal::disk::{Disk, FsDisk, WalFile};

/// Which nodes' disks are full.
#[derive(Clone, Default)]
pub struct Rooms(Arc<Mutex<BTreeMap<u64, Arc<AtomicBool>>>>);

impl Rooms {
    pub fn entry(&self, id: u64) -> Arc<AtomicBool> {
        self.0.lock().unwrap().entry(id).or_default().clone()
    }

    pub fn fill(&self, id: u64) {
        self.entry(id).store(true, Ordering::SeqCst);
    }
}

pub struct SmallDisk {
    inner: FsDisk,
    full: Arc<AtomicBool>,
}

struct SmallFile {
    inner: Arc<dyn WalFile>,
    full: Arc<AtomicBool>,
}

impl SmallDisk {
    pub fn new(inner: FsDisk, full: Arc<AtomicBool>) -> Self {
        Self { inner, full }
    }

    fn file(&self, inner: Arc<dyn WalFile>) -> Arc<dyn WalFile> {
        Arc::new(SmallFile { inner, full: self.full.clone() })
    }
}

impl Disk for SmallDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(self.file(self.inner.open(name)?))
    }

    fn folder(&self, name: &str) -> Arc<dyn Disk> {
        self.inner.folder(name)
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        self.inner.remove_folder(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
}

impl WalFile for SmallFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let grows = self.inner.size()? < offset + bytes.len() as u64;
        if grows && self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}
