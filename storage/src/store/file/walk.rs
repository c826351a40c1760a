//! Lists a folder in the order of keys, which is not the order of paths: `a-b` < `a/b`.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use crate::store::Listed;

/// Lists at most `limit` files under `prefix` with keys after `start_after`.
pub(super) fn list(
    root: &Path,
    prefix: &str,
    start_after: Option<&str>,
    limit: usize,
) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let start = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    // Folders still to visit and files still to list; the next in key order is the last.
    let mut pending = vec![start];
    while let Some(key) = pending.pop() {
        if limit <= listed.len() {
            break;
        }
        if key.is_empty() || key.ends_with('/') {
            pending.extend(children(root, &key, start_after)?.into_iter().rev());
        } else if let Some(metadata) = present(fs::metadata(root.join(&key)))? {
            listed.push(Listed { key, size_bytes: metadata.len() });
        }
    }
    Ok(listed)
}

/// The entries of a folder as keys in order, folders ending in `/`, without those that lie wholly
/// before `start_after`.
fn children(root: &Path, folder: &str, start_after: Option<&str>) -> io::Result<Vec<String>> {
    let Some(entries) = present(fs::read_dir(root.join(folder)))? else {
        return Ok(Vec::new()); // Removed, or never there.
    };
    let mut keys = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue; // The staging folder, or nothing of ours.
        };
        let Some(kind) = present(entry.file_type())? else { continue };
        let key = format!("{folder}{name}{}", if kind.is_dir() { "/" } else { "" });
        let wanted = start_after
            .is_none_or(|after| after < key.as_str() || (kind.is_dir() && after.starts_with(&key)));
        if wanted {
            keys.push(key);
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// `None` for an entry that vanished between two looks.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
