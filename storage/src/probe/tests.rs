//! Stores that lie, each in one way, and what is said of them.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use super::{judge::*, *};
use crate::{
    error::{Outcome, StoreCondition, StoreError},
    format::object_key::{PROBE_PREFIX, probe_folder},
    model::Timestamp,
    seam::{Clock, MonoTime, Seams, system},
    store::{
        FileStore, Listed, MemoryStore, Store,
        fault::{Fault, FaultScript, FaultStore},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Writes are acknowledged and gone.
    LosesWrites,
    /// One byte of what is read is another one.
    OtherByte,
    /// A range starts one byte too early.
    RangeOff,
    /// A range is answered with an error.
    NoRanges,
    /// New objects are not listed.
    ListsLate,
    /// Lists are forbidden.
    ListDenied,
    /// Deletes are acknowledged and do nothing.
    KeepsDeleted,
    /// Deletes are forbidden.
    DeleteDenied,
    /// Deleted objects stay listed.
    ListsDeleted,
    /// `put_if_absent` overwrites.
    IgnoresConditions,
    /// The store knows no `put_if_absent`.
    NoConditions,
    /// Two at once both win.
    CheckThenWrite,
    /// Writes are forbidden.
    WriteDenied,
}

struct LyingStore {
    truth: MemoryStore,
    lie: Lie,
    /// Race keys that were asked for once.
    once: Mutex<BTreeMap<String, usize>>,
}

impl LyingStore {
    fn new(lie: Lie) -> Self {
        Self { truth: MemoryStore::new(), lie, once: Mutex::default() }
    }

    fn error(key: &str, condition: StoreCondition) -> StoreError {
        let (outcome, reason) = (Outcome::Rejected, "a lie".to_owned());
        StoreError { operation: "lie", key: key.to_owned(), outcome, condition, reason }
    }
}

#[async_trait]
impl Store for LyingStore {
    async fn put(&self, key: &str, body: Vec<Bytes>) -> Result<(), StoreError> {
        match self.lie {
            Lie::LosesWrites => Ok(()),
            Lie::WriteDenied => Err(Self::error(key, StoreCondition::Denied)),
            _ => self.truth.put(key, body).await,
        }
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        match self.lie {
            Lie::IgnoresConditions => self.truth.put(key, vec![body]).await,
            Lie::NoConditions => Err(Self::error(key, StoreCondition::Unsupported)),
            Lie::CheckThenWrite if key.contains("race") => {
                let mut once = self.once.lock().unwrap();
                let asked = once.entry(key.to_owned()).or_default();
                *asked += 1;
                assert!(*asked <= 2);
                Ok(())
            }
            _ => self.truth.put_if_absent(key, body).await,
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let starts_inside = 0 < range.start;
        match self.lie {
            Lie::NoRanges if starts_inside => Err(Self::error(key, StoreCondition::Unsupported)),
            Lie::RangeOff if starts_inside => {
                self.truth.get_range(key, range.start - 1..range.end - 1).await
            }
            Lie::OtherByte => {
                let mut bytes = self.truth.get_range(key, range).await?.to_vec();
                bytes[20_000] ^= 1;
                Ok(bytes.into())
            }
            _ => self.truth.get_range(key, range).await,
        }
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.truth.get(key).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        match self.lie {
            Lie::KeepsDeleted => Ok(()),
            Lie::DeleteDenied => Err(Self::error(&keys[0], StoreCondition::Denied)),
            _ => self.truth.delete_many(keys).await,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        match self.lie {
            Lie::ListsLate => Ok(Vec::new()),
            Lie::ListDenied => Err(Self::error(prefix, StoreCondition::Denied)),
            Lie::ListsDeleted => {
                Ok(vec![Listed { key: format!("{prefix}/body"), size_bytes: 70_001 }])
            }
            _ => self.truth.list(prefix, start_after, limit).await,
        }
    }
}

async fn findings(store: &dyn Store, depth: Depth) -> Vec<Finding> {
    judge(&observe(store, depth, &system::seams()).await)
}

async fn leftovers(store: &dyn Store) -> usize {
    store.list(PROBE_PREFIX, None, 100).await.unwrap().len()
}

#[tokio::test]
async fn a_store_that_keeps_its_word_has_no_finding_and_nothing_left_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Box<dyn Store>; 2] =
        [Box::new(MemoryStore::new()), Box::new(FileStore::open(folder.path()).unwrap())];
    for store in stores {
        for (depth, count) in [(Depth::Start, 6), (Depth::Whole, 7)] {
            let found = findings(&*store, depth).await;
            assert!(found.iter().all(|one| one.verdict == Verdict::Ok), "{found:?}");
            assert_eq!(found.len(), count, "{found:?}");
            assert_eq!(refusal(&found), None);
            assert_eq!(leftovers(&*store).await, 0);
        }
    }
}

#[tokio::test]
async fn a_store_is_refused_for_what_loses_records_and_told_of_the_rest() {
    use Verdict::{Failed, Warning};
    for (lie, check, verdict, words) in [
        (Lie::LosesWrites, "read after write", Failed, "not found"),
        (Lie::OtherByte, "read after write", Failed, "other bytes"),
        (Lie::RangeOff, "read a range", Failed, "other bytes"),
        (Lie::NoRanges, "read a range", Failed, "does not serve ranges"),
        (Lie::WriteDenied, "write", Failed, "s3:PutObject"),
        (Lie::KeepsDeleted, "delete", Failed, "still read"),
        (Lie::DeleteDenied, "delete", Failed, "s3:DeleteObject"),
        (Lie::ListsLate, "list after write", Warning, "not listed"),
        (Lie::ListDenied, "list after write", Warning, "s3:ListBucket"),
        (Lie::IgnoresConditions, "If-None-Match", Warning, "overwrites"),
        (Lie::NoConditions, "If-None-Match", Warning, "no conditional writes"),
    ] {
        let store = LyingStore::new(lie);
        for depth in [Depth::Start, Depth::Whole] {
            let found = findings(&store, depth).await;
            let first = found.iter().find(|one| one.verdict != Verdict::Ok);
            let first = first.unwrap_or_else(|| panic!("{lie:?} is not noticed"));
            assert_eq!((first.check, first.verdict), (check, verdict), "{lie:?}: {first:?}");
            assert!(first.to_string().contains(words), "{lie:?}: {first}");
            assert_eq!(refusal(&found).is_some(), verdict == Failed, "{lie:?}: {found:?}");
        }
    }
}

#[tokio::test]
async fn what_only_the_whole_test_sees_is_a_warning() {
    for (lie, check, words) in [
        (Lie::CheckThenWrite, "concurrent writers", "both of two writers won 8 times of 8"),
        (Lie::ListsDeleted, "delete", "still listed"),
    ] {
        let store = LyingStore::new(lie);
        let found = findings(&store, Depth::Start).await;
        assert!(found.iter().all(|one| one.verdict == Verdict::Ok), "{lie:?}: {found:?}");
        let found = findings(&store, Depth::Whole).await;
        let bad: Vec<_> = found.iter().filter(|one| one.verdict != Verdict::Ok).collect();
        assert_eq!((bad.len(), bad[0].check, bad[0].verdict), (1, check, Verdict::Warning));
        assert!(bad[0].what.contains(words), "{:?}", bad[0]);
    }
    let honest = findings(&LyingStore::new(Lie::None), Depth::Whole).await;
    assert!(honest.iter().any(|one| one.what == "one of two won, 8 times"), "{honest:?}");
}

/// One fault for all requests.
struct Always(Fault);

impl FaultScript for Always {
    fn next(&mut self, _operation: &'static str, _key: &str) -> Fault {
        self.0
    }
}

/// A clock whose sleeps end at once: what has not answered by then never does.
struct NoWaiting;

impl Clock for NoWaiting {
    fn mono(&self) -> MonoTime {
        MonoTime::from_zero(std::time::Duration::ZERO)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn sleep_until(&self, _deadline: MonoTime) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_unknown_and_never_refused() {
    for fault in [Fault::Refuse, Fault::SlowDown, Fault::LoseAnswer, Fault::Hang] {
        let store = FaultStore::new(MemoryStore::new(), Always(fault), system::seams());
        let seams = Seams { clock: Arc::new(NoWaiting), ..system::seams() };
        let found = judge(&observe(&store, Depth::Start, &seams).await);
        assert_eq!(refusal(&found), None, "{fault:?}: {found:?}");
        assert_eq!(found[0].verdict, Verdict::Unknown, "{fault:?}: {found:?}");
        assert_eq!(found.len(), 1, "what was not tried is not told: {found:?}");
        // A write without an answer may have happened, and is deleted all the same.
        assert_eq!(leftovers(store.inner()).await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn tests_that_run_at_once_do_not_disturb_each_other() {
    let store = MemoryStore::new();
    let all = (0..20).map(|_| findings(&store, Depth::Whole));
    for found in futures::future::join_all(all).await {
        assert!(found.iter().all(|one| one.verdict == Verdict::Ok), "{found:?}");
    }
    assert_eq!(store.stored_bytes(), 0);
}

#[tokio::test]
async fn only_what_died_a_day_ago_is_swept() {
    let store = MemoryStore::new();
    let day = 24 * 60 * 60 * 1000;
    let now = Timestamp::from_millis(100 * day);
    let old = format!("{}/body", probe_folder(Timestamp::from_millis(99 * day - 1), 7));
    let young = format!("{}/body", probe_folder(Timestamp::from_millis(99 * day), 8));
    let data = "wal/1f/1-000000000000feed/12/345".to_owned();
    for key in [&old, &young, &data, &"probe/not-ours".to_owned()] {
        store.put(key, vec![Bytes::from_static(b"x")]).await.unwrap();
    }
    assert_eq!(sweep(&store, now).await.unwrap(), 1);
    assert_eq!(store.get(&old).await.unwrap_err().condition, StoreCondition::NotFound);
    assert_eq!(store.stored_bytes(), 3);
    assert_eq!(sweep(&store, now).await.unwrap(), 0);
}
