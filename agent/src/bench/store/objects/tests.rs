//! Laws of objects in memory.

use super::*;

fn content(memory: &Arc<Memory>, pieces: &[&'static str]) -> Content {
    let mut content = Content::empty(memory);
    for piece in pieces {
        content.push(Bytes::from_static(piece.as_bytes())).unwrap();
    }
    content
}

fn put(objects: &Objects, key: &str, condition: &Condition) -> Result<String, S3Error> {
    objects.put(("b", key), content(&Memory::new(100), &["x"]), condition, 1)
}

#[test]
fn any_range_of_any_pieces_gives_its_bytes_without_a_copy() {
    let content = content(&Memory::new(100), &["deep ", "", "wat", "er"]);
    let pieces: Vec<_> = content.pieces.iter().map(|piece| piece.as_ptr()).collect();
    let object = Arc::new(Object { content, etag: String::new(), modified_s: 0 });
    for start in 0..=10 {
        for end in start..=10 {
            let slices = Slices::of(Arc::clone(&object), start..end);
            assert_eq!(slices.remaining(), end - start);
            let read: Vec<u8> = slices.flatten().collect();
            assert_eq!(read, b"deep water"[start as usize..end as usize], "{start}..{end}");
        }
    }
    let slices: Vec<_> = Slices::of(object, 0..10).collect();
    assert_eq!(slices.iter().map(|slice| slice.as_ptr()).collect::<Vec<_>>(), pieces);
}

#[test]
fn memory_is_what_objects_arriving_stored_and_being_read_take() {
    let memory = Memory::new(10);
    let objects = Objects::default();
    let mut arriving = content(&memory, &["12345678"]);
    assert_eq!(arriving.push(Bytes::from_static(b"123")), Err(MemoryFull));
    arriving.push(Bytes::from_static(b"90")).unwrap();
    assert!(memory.has_room(0) && !memory.has_room(1) && !memory.has_room(u64::MAX));
    objects.put(("b", "k"), arriving, &Condition::Any, 0).unwrap();
    let read = objects.at("b", "k").unwrap();
    objects.delete("b", &["k".to_owned(), "missing".to_owned()]);
    assert!(!memory.has_room(1), "a reader still holds it");
    drop(read);
    assert!(memory.has_room(10));
    drop(content(&memory, &["12345"]));
    assert!(memory.has_room(10), "an upload that ends early gives back what it took");
    assert_eq!(objects.stock(), Stock { count: 0, bytes: 0 });
}

#[test]
fn a_small_object_does_not_keep_its_receive_buffer() {
    let memory = Memory::new(1 << 30);
    let objects = Objects::default();
    let buffer = Bytes::from(vec![7; 400_000]);
    for (key, length) in [("small", 1000), ("large", 100_000)] {
        let mut content = Content::empty(&memory);
        content.push(buffer.slice(..length)).unwrap();
        objects.put(("b", key), content, &Condition::Any, 0).unwrap();
    }
    let first = |key| objects.at("b", key).unwrap().content.pieces[0].as_ptr();
    assert_ne!(first("small"), buffer.as_ptr());
    assert_eq!(first("large"), buffer.as_ptr());
    assert_eq!(objects.stock(), Stock { count: 2, bytes: 101_000 });
}

#[test]
fn a_condition_that_does_not_hold_changes_nothing() {
    let objects = Objects::default();
    let first = put(&objects, "k", &Condition::Absent).unwrap();
    assert_eq!(put(&objects, "k", &Condition::Absent).unwrap_err().status, 412);
    let wrong = Condition::Matches("\"0\"".to_owned());
    assert_eq!(put(&objects, "k", &wrong).unwrap_err().status, 412);
    assert_eq!(put(&objects, "free", &wrong).unwrap_err().code, "NoSuchKey");
    assert_eq!(objects.at("b", "k").unwrap().etag, first);
    let second = put(&objects, "k", &Condition::Matches(first.clone())).unwrap();
    assert_ne!(first, second);
    assert_eq!(objects.at("b", "k").unwrap().etag, second);
    assert!(objects.at("b", "free").is_none() && objects.at("other", "k").is_none());
}

/// All pages of a listing, `keys_max` at a time.
fn pages(objects: &Objects, prefix: &str, delimiter: &str, keys_max: usize) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), None::<String>);
    loop {
        let listing = Listing { prefix, after: after.as_deref(), delimiter, keys_max };
        let page = objects.list("b", listing);
        let mut found: Vec<_> = page.entries.into_iter().map(|entry| entry.key).collect();
        found.extend(page.common_prefixes);
        found.sort();
        assert!(found.len() <= keys_max);
        names.extend(found);
        match page.next_after {
            Some(next) => after = Some(next),
            None => return names,
        }
    }
}

#[test]
fn pages_of_any_size_make_up_the_same_listing() {
    let objects = Objects::default();
    let odd = format!("p/x/{LAST_CHAR}{LAST_CHAR}");
    for key in ["p/b", "p/a/1", "p/a/2", "p/a0", &odd, "p/x/1", "p/x/2", "q", "o/1"] {
        put(&objects, key, &Condition::Any).unwrap();
    }
    for keys_max in 1..10 {
        let keys = pages(&objects, "p/", "", keys_max);
        assert_eq!(keys, ["p/a/1", "p/a/2", "p/a0", "p/b", "p/x/1", "p/x/2", &odd]);
        assert_eq!(pages(&objects, "", "/", keys_max.max(2)), ["o/", "p/", "q"]);
        assert_eq!(pages(&objects, "p/a/", "/", keys_max), ["p/a/1", "p/a/2"]);
    }
    assert_eq!(pages(&objects, "p/", "/", 9), ["p/a/", "p/a0", "p/b", "p/x/"]);
    let listing = Listing { prefix: "p/", after: Some("p/a0"), delimiter: "", keys_max: 1 };
    assert_eq!(objects.list("b", listing).entries[0].key, "p/b");
    assert_eq!(objects.list("b", Listing { after: Some("z"), ..listing }), Page::default());
    let before = Listing { after: Some("a"), ..listing };
    assert_eq!(objects.list("b", before).entries[0].key, "p/a/1");
    assert_eq!(objects.list("b", Listing { keys_max: 0, ..listing }), Page::default());
    assert_eq!(objects.list("missing", listing), Page::default());
}
