//! The stores that need no server, against the suite for every store.

use aquifer_storage::store::{FileStore, MemoryStore, Store, conformance::check_store};
use bytes::Bytes;

#[tokio::test]
async fn the_memory_store_conforms() {
    check_store(&MemoryStore::new()).await;
}

#[tokio::test]
async fn the_file_store_conforms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    check_store(&FileStore::open(folder.path().join("bucket")).expect("opens")).await;
}

#[tokio::test]
async fn objects_of_a_folder_survive_a_restart_and_leftovers_do_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = FileStore::open(folder.path()).expect("opens");
    store.put("wal/a", vec![Bytes::from_static(b"kept")]).await.expect("a put works");
    let leftover = folder.path().join(".staging/1-0");
    std::fs::write(&leftover, b"half").expect("the staging folder is there");
    let being_written = folder.path().join(".staging/2-0");
    let locked = std::fs::File::create(&being_written).expect("the staging folder is there");
    locked.lock().expect("locks work");
    drop(store);
    let store = FileStore::open(folder.path()).expect("opens again");
    assert_eq!(store.get("wal/a").await.expect("it is still there"), "kept");
    assert!(!leftover.exists());
    assert!(being_written.exists(), "another process is writing it");
    assert_eq!(store.list("", None, 10).await.expect("listing works").len(), 1);
}

#[tokio::test]
async fn folders_vanish_with_their_last_object_while_others_are_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = FileStore::open(folder.path()).expect("opens");
    for round in 0..20 {
        let keys: Vec<String> = (0..8).map(|n| format!("wal/0{n}/s/{round}")).collect();
        let puts = keys.iter().map(|key| store.put(key, vec![Bytes::from_static(b"x")]));
        let deletes =
            store.delete_many((0..8).map(|n| format!("wal/0{n}/s/{}", round - 1)).collect());
        let (written, deleted) =
            futures::future::join(futures::future::join_all(puts), deletes).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        deleted.expect("deleting works");
    }
    let last = (0..8).map(|n| format!("wal/0{n}/s/19")).collect();
    store.delete_many(last).await.expect("deleting works");
    assert!(!folder.path().join("wal").exists(), "no folder without an object");
}
