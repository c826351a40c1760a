//! Laws of file: disks that are full, and disks that hang.

use std::{process::Command, sync::Arc, time::Duration};

use super::*;

/// A file system of 4 MiB, unmounted when dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, with the reason printed, where mounting is not allowed.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: mount: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a file somebody still has open does not keep it mounted.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// A pipe at a key: reading it blocks, as a dead disk does, until this is dropped.
struct HangingKey(PathBuf);

impl HangingKey {
    /// `None`, with the reason printed, where pipes cannot be made.
    fn make(path: PathBuf) -> Option<Self> {
        let made = Command::new("mkfifo").arg(&path).status();
        if made.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        println!("skipped: no mkfifo");
        None
    }
}

impl Drop for HangingKey {
    fn drop(&mut self) {
        // With both ends open for ever, whoever opens it later does not block either.
        let opened = OpenOptions::new().read(true).write(true).open(&self.0);
        std::mem::forget(opened);
    }
}

fn megabytes(count: usize) -> Vec<Bytes> {
    vec![Bytes::from(vec![7; 1 << 20]); count]
}

fn staged_files(store: &FileStore) -> usize {
    fs::read_dir(&store.folder.staging).unwrap().count()
}

#[tokio::test]
async fn a_full_disk_refuses_whole_objects_and_heals_when_space_returns() {
    let Some(disk) = SmallDisk::mount() else { return };
    let root = disk.folder.path().join("bucket");
    let store = FileStore::open(&root).unwrap();
    store.put("wal/a", megabytes(2)).await.unwrap();
    store.put("wal/b", megabytes(1)).await.unwrap();

    for key in ["wal/c", "other/deep/c"] {
        let error = store.put(key, megabytes(2)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Unavailable, "nothing happened, try again: {error}");
        assert_eq!(error.condition, StoreCondition::Busy, "{error}");
        let error = store.put_if_absent(key, megabytes(2).concat().into()).await.unwrap_err();
        assert_eq!((error.outcome, error.condition), (Outcome::Unavailable, StoreCondition::Busy));
        let error = store.get(key).await.unwrap_err();
        assert_eq!(error.condition, StoreCondition::NotFound, "no half object: {error}");
    }
    assert_eq!(staged_files(&store), 0, "a failed put gives its space back");
    assert_eq!(store.list("", None, 10).await.unwrap().len(), 2);
    let error = store.put("wal/a", megabytes(2)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Unavailable, "a repeat needs room for both: {error}");
    assert_eq!(store.get("wal/a").await.unwrap().len(), 2 << 20, "the old bytes stand");

    drop(store);
    let store = FileStore::open(&root).expect("a full disk opens");
    store.delete_many(vec!["wal/a".to_owned()]).await.expect("a full disk can be emptied");
    store.put("other/deep/c", megabytes(2)).await.expect("space returned");
    assert_eq!(store.get("other/deep/c").await.unwrap().len(), 2 << 20);
    assert_eq!(store.get("wal/b").await.unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn a_hanging_disk_keeps_a_bounded_number_of_operations() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::open(folder.path()).unwrap());
    let Some(hanging) = HangingKey::make(folder.path().join("hanging")) else { return };
    let body = Bytes::from(vec![7; 1 << 20]);
    for _ in 0..3 * UNDER_WAY_MAX {
        // Whoever waits longer goes away, as a retry does.
        let reads = store.get("hanging");
        let _ = tokio::time::timeout(Duration::from_millis(1), reads).await;
        let _ = tokio::time::timeout(Duration::ZERO, store.put("a", vec![body.clone()])).await;
    }
    let folders = Arc::strong_count(&store.folder);
    assert!(UNDER_WAY_MAX / 2 < folders && folders <= UNDER_WAY_MAX + 1, "{folders}");

    drop(hanging);
    let deadline = Duration::from_secs(60);
    let writes = store.put("after", vec![body.clone()]);
    tokio::time::timeout(deadline, writes).await.expect("the disk is back").unwrap();
    assert_eq!(store.get("after").await.unwrap(), body);
    let all = u32::try_from(UNDER_WAY_MAX).unwrap();
    let ended = store.under_way.acquire_many(all);
    drop(tokio::time::timeout(deadline, ended).await.expect("all reads ended").unwrap());
}

/// As containers that share a folder: the same process number, the same counter.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_with_one_number_share_a_folder_and_starts_do_not_disturb_them() {
    const PUTS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let writers: Vec<_> = (1..=3_u8)
        .map(|writer| {
            let store = FileStore::open(&root).unwrap();
            tokio::spawn(async move {
                for put in 0..PUTS {
                    let body = Bytes::from(vec![writer; 100 * usize::from(writer)]);
                    store.put(&format!("{writer}/{put}"), vec![body.clone()]).await.unwrap();
                    store.put_if_absent(&format!("{writer}/{put}-new"), body).await.unwrap();
                }
            })
        })
        .collect();
    let starting = root.clone();
    let starts = tokio::task::spawn_blocking(move || {
        for _ in 0..3 * PUTS {
            FileStore::open(&starting).expect("a start beside writers");
        }
    });
    for task in writers {
        task.await.unwrap();
    }
    starts.await.unwrap();

    let store = FileStore::open(&root).unwrap();
    assert_eq!(staged_files(&store), 0);
    for writer in 1..=3_u8 {
        for put in 0..PUTS {
            for key in [format!("{writer}/{put}"), format!("{writer}/{put}-new")] {
                let body = store.get(&key).await.unwrap();
                assert_eq!(body, vec![writer; 100 * usize::from(writer)], "{key}");
            }
        }
    }
}
