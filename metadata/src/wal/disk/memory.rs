//! A disk in memory that fails the way disks do: power loss drops or tears what was not synced,
//! operations fail on demand, space runs out, bits flip.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Disk, WalFile};

/// The unit that a power loss keeps or drops as a whole.
const SECTOR_BYTES: usize = 512;

/// A directory in memory. Clones share it, and the directories in it share its fate.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    world: Arc<Mutex<World>>,
    /// What the names in this directory begin with: nothing, or a path that ends in a slash.
    prefix: String,
}

#[derive(Default)]
struct World {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    bytes_max: Option<u64>,
    operations_left: Option<u64>,
    syncs: u64,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
                for inside in below_name(names, from) {
                    let file = names.remove(&inside).expect("it was just listed");
                    names.insert(format!("{to}{}", &inside[from.len()..]), file);
                }
            }
        }
    }

    /// Whether the name that changed stands in the directory of names with `prefix`.
    fn is_in(&self, prefix: &str) -> bool {
        let (Self::Add(name, _) | Self::Remove(name) | Self::Rename(name, _)) = self;
        name.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/'))
    }
}

/// The names in the directory `folder`, and in those below it.
fn below_name(names: &BTreeMap<String, usize>, folder: &str) -> Vec<String> {
    let prefix = format!("{folder}/");
    let inside = names.range(prefix.clone()..).map(|(name, _)| name);
    inside.take_while(|name| name.starts_with(&prefix)).cloned().collect()
}

impl World {
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => return Err(io::Error::other("injected disk failure")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|&file| self.files[file].bytes.len() as u64).sum()
    }
}

/// Writes `bytes` at `offset`, growing with zeros.
fn overlay(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[offset..end].copy_from_slice(bytes);
}

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no holder of this lock panics")
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Limits the size of all files together; `None` lifts the limit.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.lock().bytes_max = bytes_max;
    }

    /// Lets the next `operations` writes, syncs and name changes pass and all later ones fail;
    /// `None` repairs the disk.
    pub fn fail_after(&self, operations: Option<u64>) {
        self.lock().operations_left = operations;
    }

    /// How many file syncs succeeded.
    pub fn sync_count(&self) -> u64 {
        self.lock().syncs
    }

    /// The size of all files together.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used()
    }

    /// The names of all files, in order; those in other directories as paths.
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// The content of a file; empty when there is none.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let world = self.lock();
        let file = world.names.get(&self.path(name));
        file.map(|&file| world.files[file].bytes.clone()).unwrap_or_default()
    }

    /// Replaces a file, durably: damage from outside.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut world = self.lock();
        if let Some(&file) = world.names.get(&self.path(name)) {
            world.files[file] = Content { durable: bytes.clone(), bytes, unsynced: Vec::new() };
        }
    }

    /// Removes a file, durably: damage from outside.
    pub fn lose(&self, name: &str) {
        let mut world = self.lock();
        let path = self.path(name);
        world.names.remove(&path);
        world.durable_names.remove(&path);
    }

    /// An independent disk with what is visible now, all of it durable.
    pub fn fork(&self) -> Self {
        let world = self.lock();
        let copy = |file: &Content| Content {
            bytes: file.bytes.clone(),
            durable: file.bytes.clone(),
            unsynced: Vec::new(),
        };
        let forked = World {
            files: world.files.iter().map(copy).collect(),
            names: world.names.clone(),
            durable_names: world.names.clone(),
            ..World::default()
        };
        Self { world: Arc::new(Mutex::new(forked)), prefix: self.prefix.clone() }
    }

    /// An independent disk with what a power loss now would leave at least, all of it durable.
    pub fn fork_durable(&self) -> Self {
        let world = self.lock();
        let copy = |file: &Content| Content {
            bytes: file.durable.clone(),
            durable: file.durable.clone(),
            unsynced: Vec::new(),
        };
        let forked = World {
            files: world.files.iter().map(copy).collect(),
            names: world.durable_names.clone(),
            durable_names: world.durable_names.clone(),
            ..World::default()
        };
        Self { world: Arc::new(Mutex::new(forked)), prefix: self.prefix.clone() }
    }

    /// Cuts the power: of everything not synced, `random` decides what reached the medium. Writes
    /// may be torn at any byte, or lose any of their sectors; name changes keep a prefix. Also
    /// repairs a disk that was told to fail.
    pub fn lose_power(&self, random: &mut dyn FnMut() -> u64) {
        let mut world = self.lock();
        let kept = below(random, world.unsynced_names.len() + 1);
        let changes = std::mem::take(&mut world.unsynced_names);
        for change in &changes[..kept] {
            change.apply(&mut world.durable_names);
        }
        world.names = world.durable_names.clone();
        for file in &mut world.files {
            let writes = std::mem::take(&mut file.unsynced);
            match random() % 4 {
                0 => {}
                1 => writes.iter().for_each(|(at, bytes)| overlay(&mut file.durable, *at, bytes)),
                2 => tear(&mut file.durable, &writes, random),
                _ => scatter(&mut file.durable, &writes, random),
            }
            file.bytes = file.durable.clone();
        }
        world.operations_left = None;
    }
}

fn below(random: &mut dyn FnMut() -> u64, bound: usize) -> usize {
    usize::try_from(random() % bound as u64).expect("below a usize")
}

/// Keeps the writes up to a random byte.
fn tear(durable: &mut Vec<u8>, writes: &[(usize, Vec<u8>)], random: &mut dyn FnMut() -> u64) {
    let total: usize = writes.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut left = below(random, total + 1);
    for (at, bytes) in writes {
        let kept = left.min(bytes.len());
        overlay(durable, *at, &bytes[..kept]);
        left -= kept;
    }
}

/// Keeps a random half of the sectors.
fn scatter(durable: &mut Vec<u8>, writes: &[(usize, Vec<u8>)], random: &mut dyn FnMut() -> u64) {
    for (at, bytes) in writes {
        let mut from = 0;
        while from < bytes.len() {
            let sector = SECTOR_BYTES - (at + from) % SECTOR_BYTES;
            let to = bytes.len().min(from + sector);
            if random().is_multiple_of(2) {
                overlay(durable, at + from, &bytes[from..to]);
            }
            from = to;
        }
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let world = self.lock();
        let here = world.names.keys().filter_map(|name| name.strip_prefix(&self.prefix));
        let mut names: Vec<String> =
            here.filter_map(|name| name.split('/').next()).map(str::to_owned).collect();
        names.dedup(); // What is in one directory stands together.
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let mut world = self.lock();
        world.operate()?;
        world.files.push(Content::default());
        let file = world.files.len() - 1;
        world.change(NameChange::Add(self.path(name), file));
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        let file = self.lock().file(&self.path(name))?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn folder(&self, name: &str) -> Arc<dyn Disk> {
        Arc::new(Self { world: Arc::clone(&self.world), prefix: format!("{}{name}/", self.prefix) })
    }

    fn remove_folder(&self, name: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.operate()?;
        for inside in below_name(&world.names, &self.path(name)) {
            world.change(NameChange::Remove(inside));
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.operate()?;
        let (from, to) = (self.path(from), self.path(to));
        if below_name(&world.names, &from).is_empty() {
            world.file(&from)?;
        }
        world.change(NameChange::Rename(from, to));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.operate()?;
        world.file(&self.path(name))?;
        world.change(NameChange::Remove(self.path(name)));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.operate()?;
        let World { unsynced_names, durable_names, .. } = &mut *world;
        unsynced_names.retain(|change| {
            let synced = change.is_in(&self.prefix);
            if synced {
                change.apply(durable_names);
            }
            !synced
        });
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl WalFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.file].bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let world = self.disk.lock();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let source = start
            .checked_add(buffer.len())
            .and_then(|end| world.files[self.file].bytes.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(source);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.disk.lock();
        world.operate()?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let size = world.files[self.file].bytes.len();
        let grown = (start + bytes.len()).saturating_sub(size) as u64;
        if world.bytes_max.is_some_and(|max| grown != 0 && max < world.used() + grown) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut world.files[self.file];
        overlay(&mut file.bytes, start, bytes);
        file.unsynced.push((start, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.lock();
        world.operate()?;
        world.syncs += 1;
        let file = &mut world.files[self.file];
        for (at, bytes) in std::mem::take(&mut file.unsynced) {
            overlay(&mut file.durable, at, &bytes);
        }
        Ok(())
    }
}
