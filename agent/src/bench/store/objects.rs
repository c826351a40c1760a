//! Objects in memory, as the pieces they came in.

use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::xml::{Entry, NO_SUCH_KEY, Page, S3Error};

/// Objects up to this size are moved out of the buffers they came in, which may be much larger.
const COMPACT_BYTES_MAX: u64 = 64 << 10;

/// What objects may take, and what they take. Counts payloads, also of those that are still
/// arriving or still being sent.
#[derive(Debug)]
pub struct Memory {
    held_bytes: AtomicU64,
    bytes_max: u64,
}

impl Memory {
    /// Room for `bytes_max`.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { held_bytes: AtomicU64::new(0), bytes_max })
    }

    /// Whether `bytes` more fit now.
    pub fn has_room(&self, bytes: u64) -> bool {
        let held = self.held_bytes.load(Ordering::Relaxed);
        held.checked_add(bytes).is_some_and(|bytes| bytes <= self.bytes_max)
    }

    fn take(&self, bytes: u64) -> bool {
        let take = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.bytes_max);
        self.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// No room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFull;

/// A payload: pieces and where they end.
#[derive(Debug)]
pub struct Content {
    pieces: Vec<Bytes>,
    ends: Vec<u64>,
    bytes: u64,
    memory: Arc<Memory>,
}

impl Content {
    /// A payload of which nothing has come.
    pub fn empty(memory: &Arc<Memory>) -> Self {
        Self { pieces: Vec::new(), ends: Vec::new(), bytes: 0, memory: Arc::clone(memory) }
    }

    /// Appends a piece.
    ///
    /// # Errors
    /// [`MemoryFull`]; the piece is not kept.
    pub fn push(&mut self, piece: Bytes) -> Result<(), MemoryFull> {
        if piece.is_empty() {
            return Ok(());
        }
        if !self.memory.take(piece.len() as u64) {
            return Err(MemoryFull);
        }
        self.bytes += piece.len() as u64;
        self.pieces.push(piece);
        self.ends.push(self.bytes);
        Ok(())
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back the rest of receive buffers when the payload is small beside them.
    fn compact(&mut self) {
        if self.bytes == 0 || COMPACT_BYTES_MAX < self.bytes {
            return;
        }
        let mut whole = BytesMut::with_capacity(self.bytes as usize);
        for piece in &self.pieces {
            whole.extend_from_slice(piece);
        }
        self.pieces = vec![whole.freeze()];
        self.ends = vec![self.bytes];
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.memory.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An object.
#[derive(Debug)]
pub struct Object {
    content: Content,
    /// With its quotes. Stands for one PUT, not for the bytes: hashing them would be the dearest
    /// part of the store.
    pub etag: String,
    /// Seconds since 1970.
    pub modified_s: u64,
}

impl Object {
    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.content.bytes
    }
}

/// The bytes of an object's range, slice by slice.
#[derive(Debug)]
pub struct Slices {
    object: Arc<Object>,
    range: Range<u64>,
    next_piece: usize,
}

impl Slices {
    /// Slices of `range`, which lies inside the object.
    pub fn of(object: Arc<Object>, range: Range<u64>) -> Self {
        let next_piece = object.content.ends.partition_point(|end| *end <= range.start);
        Self { object, range, next_piece }
    }

    /// Bytes still to come.
    pub fn remaining(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Iterator for Slices {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.range.is_empty() {
            return None;
        }
        let piece = &self.object.content.pieces[self.next_piece];
        let end = self.object.content.ends[self.next_piece];
        let begin = end - piece.len() as u64;
        let slice_end = end.min(self.range.end);
        let slice = piece.slice((self.range.start - begin) as usize..(slice_end - begin) as usize);
        self.range.start = slice_end;
        self.next_piece += 1;
        Some(slice)
    }
}

/// What must hold for a PUT to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// The key is free.
    Absent,
    /// The object there has this ETag.
    Matches(String),
}

/// How many objects there are and how large they are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stock {
    /// Objects.
    pub count: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Which part of a bucket to list.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// Begin of the keys.
    pub prefix: &'a str,
    /// Only keys behind this one.
    pub after: Option<&'a str>,
    /// Folds keys at the first one behind the prefix; empty for none.
    pub delimiter: &'a str,
    /// Entries at most.
    pub keys_max: usize,
}

/// What a common prefix is followed by so that all its keys lie before it.
const LAST_CHAR: char = char::MAX;

/// All buckets. Any bucket is there.
#[derive(Debug, Default)]
pub struct Objects {
    buckets: Mutex<Buckets>,
    puts: AtomicU64,
}

type Buckets = BTreeMap<String, BTreeMap<String, Arc<Object>>>;

impl Objects {
    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores `content` at `key` of `bucket` and gives its ETag.
    ///
    /// # Errors
    /// The condition does not hold.
    pub fn put(
        &self,
        (bucket, key): (&str, &str),
        mut content: Content,
        condition: &Condition,
        now_s: u64,
    ) -> Result<String, S3Error> {
        content.compact();
        let number = self.puts.fetch_add(1, Ordering::Relaxed) + 1;
        let etag = format!("\"{number:032x}\"");
        let object = Arc::new(Object { content, etag: etag.clone(), modified_s: now_s });
        let mut buckets = self.buckets();
        let held = buckets.get(bucket).and_then(|objects| objects.get(key));
        match (condition, held) {
            (Condition::Absent, Some(_)) => return Err(S3Error::of_status(412)),
            (Condition::Matches(_), None) => return Err(NO_SUCH_KEY),
            (Condition::Matches(etag), Some(held)) if *etag != held.etag => {
                return Err(S3Error::of_status(412));
            }
            _ => {}
        }
        let objects = match buckets.get_mut(bucket) {
            Some(objects) => objects,
            None => buckets.entry(bucket.to_owned()).or_default(),
        };
        let replaced = objects.insert(key.to_owned(), object);
        drop(buckets);
        // Behind the lock: freeing many buffers takes its time.
        drop(replaced);
        Ok(etag)
    }

    /// The object at `key` of `bucket`.
    pub fn at(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        self.buckets().get(bucket)?.get(key).cloned()
    }

    /// Deletes `keys` of `bucket`; missing ones count as deleted.
    pub fn delete(&self, bucket: &str, keys: &[String]) {
        let mut buckets = self.buckets();
        let Some(objects) = buckets.get_mut(bucket) else { return };
        let deleted: Vec<_> = keys.iter().filter_map(|key| objects.remove(key)).collect();
        drop(buckets);
        drop(deleted);
    }

    /// A page of `bucket` in key order.
    pub fn list(&self, bucket: &str, listing: Listing<'_>) -> Page {
        let Listing { prefix, after, delimiter, keys_max } = listing;
        let mut page = Page::default();
        let buckets = self.buckets();
        let Some(objects) = buckets.get(bucket).filter(|_| 0 < keys_max) else { return page };
        let mut last = after.filter(|after| prefix <= *after).map(str::to_owned);
        loop {
            let from = last.as_deref().map_or(Bound::Included(prefix), Bound::Excluded);
            let next = objects.range::<str, _>((from, Bound::Unbounded)).next();
            let Some((key, object)) = next.filter(|(key, _)| key.starts_with(prefix)) else {
                return page;
            };
            let folded = folded(key, prefix, delimiter);
            if folded.is_some() && folded == page.common_prefixes.last().map(String::as_str) {
                last = Some(key.clone());
                continue;
            }
            if page.entries.len() + page.common_prefixes.len() == keys_max {
                page.next_after = last;
                return page;
            }
            match folded {
                Some(common) => {
                    last = Some(format!("{common}{LAST_CHAR}"));
                    page.common_prefixes.push(common.to_owned());
                }
                None => {
                    last = Some(key.clone());
                    page.entries.push(Entry {
                        key: key.clone(),
                        object_bytes: object.bytes(),
                        etag: object.etag.clone(),
                        modified_s: object.modified_s,
                    });
                }
            }
        }
    }

    /// What there is.
    pub fn stock(&self) -> Stock {
        let buckets = self.buckets();
        let objects = buckets.values().flat_map(BTreeMap::values);
        let none = Stock { count: 0, bytes: 0 };
        objects.fold(none, |Stock { count, bytes }, object| Stock {
            count: count + 1,
            bytes: bytes + object.bytes(),
        })
    }
}

/// `key` up to the first delimiter behind the prefix, with it.
fn folded<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let at = key[prefix.len()..].find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

#[cfg(test)]
mod tests;
