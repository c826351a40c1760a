//! The suite that every [`Store`] must pass. Run it on an empty store.

use bytes::Bytes;

use super::{Listed, Store};
use crate::error::{Outcome, StoreCondition, StoreError};

/// Runs every check.
///
/// # Panics
/// At the first broken rule, naming it.
pub async fn check_store(store: &dyn Store) {
    what_was_put_is_read(store).await;
    a_missing_key_is_not_found(store).await;
    a_wrong_range_is_an_error(store).await;
    a_repeated_put_is_harmless(store).await;
    only_the_first_put_if_absent_wins(store).await;
    a_deleted_object_is_gone_and_deleting_again_is_no_error(store).await;
    a_list_pages_in_key_order(store).await;
    a_key_outside_the_alphabet_is_refused(store).await;
}

async fn what_was_put_is_read(store: &dyn Store) {
    let body = vec![
        Bytes::new(),
        Bytes::from_static(b"deep "),
        Bytes::from_static(b"water"),
        Bytes::new(),
    ];
    store.put("c/read", body).await.expect("a put of several buffers works");
    assert_eq!(read(store, "c/read").await, "deep water");
    for (range, expected) in [(0..10, "deep water"), (0..1, "d"), (9..10, "r"), (3..7, "p wa")] {
        let bytes = store.get_range("c/read", range).await.expect("the range lies inside");
        assert_eq!(bytes, expected);
    }
    store.put("c/empty", Vec::new()).await.expect("an empty object is an object");
    assert_eq!(read(store, "c/empty").await, "");
}

async fn a_missing_key_is_not_found(store: &dyn Store) {
    let error = store.get("c/missing").await.expect_err("the key is missing");
    assert_error(&error, Outcome::Rejected, StoreCondition::NotFound);
    let error = store.get_range("c/missing", 0..1).await.expect_err("the key is missing");
    assert_error(&error, Outcome::Rejected, StoreCondition::NotFound);
    let error = store.get("c").await.expect_err("a folder is no object");
    assert_error(&error, Outcome::Rejected, StoreCondition::NotFound);
    let error = store.get("c/read/below").await.expect_err("an object is no folder");
    assert_error(&error, Outcome::Rejected, StoreCondition::NotFound);
}

async fn a_wrong_range_is_an_error(store: &dyn Store) {
    #[expect(clippy::reversed_empty_ranges, reason = "that is what must be refused")]
    for empty in [3..3, 4..3] {
        let error = store.get_range("c/read", empty).await.expect_err("covers no byte");
        assert_eq!(error.outcome, Outcome::Rejected, "{error}");
    }
    for past_end in [0..11, 9..12, 10..11, 100..101, 0..u64::MAX] {
        let error = store.get_range("c/read", past_end).await.expect_err("passes the end");
        assert_eq!(error.outcome, Outcome::Corrupt, "{error}");
    }
}

async fn a_repeated_put_is_harmless(store: &dyn Store) {
    for _ in 0..2 {
        store.put("c/twice", vec![Bytes::from_static(b"same")]).await.expect("may be repeated");
        assert_eq!(read(store, "c/twice").await, "same");
    }
}

async fn only_the_first_put_if_absent_wins(store: &dyn Store) {
    match store.put_if_absent("c/once", Bytes::from_static(b"first")).await {
        Err(error) if error.condition == StoreCondition::Unsupported => return,
        first => first.expect("the key is free"),
    }
    let second = store.put_if_absent("c/once", Bytes::from_static(b"second")).await;
    let error = second.expect_err("the key is taken");
    assert_error(&error, Outcome::Rejected, StoreCondition::AlreadyExists);
    assert_eq!(read(store, "c/once").await, "first");
}

async fn a_deleted_object_is_gone_and_deleting_again_is_no_error(store: &dyn Store) {
    for key in ["d/one", "d/deep/two", "d/keep"] {
        store.put(key, vec![Bytes::from_static(b"x")]).await.expect("a put works");
    }
    let keys = ["d/one", "d/deep/two", "d/never"].map(str::to_owned).to_vec();
    for _ in 0..2 {
        store.delete_many(keys.clone()).await.expect("a missing key counts as deleted");
    }
    store.delete_many(Vec::new()).await.expect("deleting nothing works");
    let error = store.get("d/deep/two").await.expect_err("it is deleted");
    assert_error(&error, Outcome::Rejected, StoreCondition::NotFound);
    assert_eq!(read(store, "d/keep").await, "x");
    store.put("d/deep/two", vec![Bytes::from_static(b"y")]).await.expect("may be written again");
    assert_eq!(read(store, "d/deep/two").await, "y");
}

async fn a_list_pages_in_key_order(store: &dyn Store) {
    // In key order, which is neither that of folders nor that of numbers.
    let keys = ["l/a-b", "l/a.c", "l/a/1", "l/a/10", "l/a/2/x", "l/a0", "l/b"];
    for key in keys.iter().rev().chain(&["l-not", "m/not"]) {
        let body = vec![Bytes::from(key.as_bytes().to_vec())];
        store.put(key, body).await.expect("a put works");
    }
    let all = list(store, "l", None, 100).await;
    assert_eq!(names(&all), keys);
    assert!(all.iter().all(|listed| listed.size_bytes == listed.key.len() as u64));
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map(|listed: &Listed| listed.key.clone());
        let page = list(store, "l", after.as_deref(), 2).await;
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2, "a page is at most as long as asked");
        paged.extend(page);
    }
    assert_eq!(paged, all, "pages make up the whole");
    assert_eq!(names(&list(store, "l/a", None, 100).await), ["l/a/1", "l/a/10", "l/a/2/x"]);
    assert_eq!(names(&list(store, "l", Some("l/a/15"), 2).await), ["l/a/2/x", "l/a0"]);
    assert!(list(store, "nothing", None, 10).await.is_empty());
    assert!(list(store, "l", None, 0).await.is_empty());
    let whole = list(store, "", None, 1000).await;
    assert!(keys.iter().all(|key| whole.iter().any(|listed| listed.key == *key)));
    assert!(whole.is_sorted_by(|a, b| a.key < b.key), "the whole store lists in key order");
}

async fn a_key_outside_the_alphabet_is_refused(store: &dyn Store) {
    for key in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "a b", "a\0", "ä", "a\\b", "a%2f"]
    {
        let error = store.put(key, Vec::new()).await.expect_err("the key is refused");
        assert_eq!(error.outcome, Outcome::Rejected, "{error}");
        assert!(store.get(key).await.is_err(), "{key:?} is refused");
        assert!(store.delete_many(vec![key.to_owned()]).await.is_err(), "{key:?} is refused");
    }
}

async fn read(store: &dyn Store, key: &str) -> Bytes {
    store.get(key).await.expect("the object was put")
}

async fn list(
    store: &dyn Store,
    prefix: &str,
    start_after: Option<&str>,
    limit: usize,
) -> Vec<Listed> {
    store.list(prefix, start_after, limit).await.expect("listing works")
}

fn names(listed: &[Listed]) -> Vec<&str> {
    listed.iter().map(|listed| listed.key.as_str()).collect()
}

fn assert_error(error: &StoreError, outcome: Outcome, condition: StoreCondition) {
    assert_eq!((error.outcome, error.condition), (outcome, condition), "{error}");
}
