//! The disk of a machine, as one process on it sees it: after the process's death it changes
//! nothing any more.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aquifer_metadata::wal::disk::{Disk, WalFile};

use super::{
    aim::{Aim, Moment},
    net::Host,
};

/// A directory seen by a process.
pub struct ProcessDisk {
    inner: Arc<dyn Disk>,
    alive: Arc<AtomicBool>,
    synced: (Aim, Host),
}

impl ProcessDisk {
    /// `inner` for as long as the process is `alive`; who waits for a sync of `host` is told.
    pub fn new(inner: Arc<dyn Disk>, alive: Arc<AtomicBool>, (aim, host): (Aim, Host)) -> Self {
        Self { inner, alive, synced: (aim, host) }
    }

    fn check(&self) -> io::Result<()> {
        check(&self.alive)
    }

    fn file(&self, inner: Arc<dyn WalFile>) -> Arc<dyn WalFile> {
        Arc::new(ProcessFile { inner, alive: self.alive.clone(), synced: self.synced.clone() })
    }
}

fn check(alive: &AtomicBool) -> io::Result<()> {
    if alive.load(Ordering::Relaxed) { Ok(()) } else { Err(io::Error::other("killed")) }
}

impl Disk for ProcessDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.check()?;
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        self.check()?;
        Ok(self.file(self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        self.check()?;
        Ok(self.file(self.inner.open(name)?))
    }

    fn folder(&self, name: &str) -> Arc<dyn Disk> {
        Arc::new(Self::new(self.inner.folder(name), self.alive.clone(), self.synced.clone()))
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        self.check()?;
        self.inner.remove_folder(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check()?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check()?;
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.check()?;
        self.inner.sync_dir()
    }
}

struct ProcessFile {
    inner: Arc<dyn WalFile>,
    alive: Arc<AtomicBool>,
    synced: (Aim, Host),
}

impl WalFile for ProcessFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        check(&self.alive)?;
        self.inner.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        check(&self.alive)?;
        self.inner.sync()?;
        let (aim, host) = &self.synced;
        aim.pass(Moment::Synced(*host));
        Ok(())
    }
}
