//! What a request asks for, read from its head [pure].

use std::ops::Range;

/// Kinds of requests, as faults and counters know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes an object, or makes a bucket.
    Put,
    /// Reads an object.
    Get,
    /// Asks about an object or a bucket.
    Head,
    /// GET of a bucket or of the store.
    List,
    /// Deletes one object or a bucket.
    Delete,
    /// Deletes many objects.
    Post,
}

impl Kind {
    /// Every kind, in the order of `kind as usize`.
    pub const ALL: [Self; 6] =
        [Self::Put, Self::Get, Self::Head, Self::List, Self::Delete, Self::Post];

    /// The name in fault rules and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::List => "LIST",
            Self::Delete => "DELETE",
            Self::Post => "POST",
        }
    }
}

/// An operation of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stores an object.
    PutObject,
    /// Reads an object or a range of it.
    GetObject,
    /// An object's size, without its bytes.
    HeadObject,
    /// Deletes an object.
    DeleteObject,
    /// Lists objects, version 2.
    ListObjects,
    /// Deletes the objects that the body names.
    DeleteObjects,
    /// Anything of a bucket that is true of every bucket here: making it, its being there.
    TouchBucket,
    /// The bucket's region.
    BucketLocation,
    /// What this store does not do.
    Unsupported,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub kind: Kind,
    /// The operation.
    pub operation: Operation,
    /// The bucket; empty for the store itself.
    pub bucket: String,
    /// The key; of a LIST the prefix, of a bulk delete empty.
    pub key: String,
    /// The query, decoded.
    pub query: Vec<(String, String)>,
}

impl Target {
    /// The first value of `name` in the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A head that names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetRefused {
    /// No method of S3.
    #[error("the method is not allowed against this resource")]
    Method,
    /// A path or query that is no percent-encoded UTF-8.
    #[error("the URI is not percent-encoded UTF-8")]
    Uri,
    /// A key of more bytes than S3 takes.
    #[error("the key is longer than 1024 bytes")]
    KeyTooLong,
}

/// The most bytes a key may have.
const KEY_BYTES_MAX: usize = 1024;

/// Reads method, path and query.
///
/// # Errors
/// See [`TargetRefused`].
pub fn target(method: &str, path: &str, query: &str) -> Result<Target, TargetRefused> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let bucket = percent_decoded(bucket, false).ok_or(TargetRefused::Uri)?;
    let mut key = percent_decoded(key, false).ok_or(TargetRefused::Uri)?;
    let query = parameters(query).ok_or(TargetRefused::Uri)?;
    let kind = match (method, key.is_empty()) {
        ("PUT", _) => Kind::Put,
        ("GET", false) => Kind::Get,
        ("GET", true) => Kind::List,
        ("HEAD", _) => Kind::Head,
        ("DELETE", _) => Kind::Delete,
        ("POST", _) => Kind::Post,
        _ => return Err(TargetRefused::Method),
    };
    let operation = operation(kind, &bucket, &key, &query);
    if operation == Operation::ListObjects {
        let prefix = query.iter().find(|(name, _)| name == "prefix");
        key = prefix.map_or_else(String::new, |(_, prefix)| prefix.clone());
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(TargetRefused::KeyTooLong);
    }
    Ok(Target { kind, operation, bucket, key, query })
}

fn operation(kind: Kind, bucket: &str, key: &str, query: &[(String, String)]) -> Operation {
    // SDKs say what they call in x-id, and sign in X-Amz-; any other name asks for something else.
    let asks_more = |(name, _): &(String, String)| {
        name != "x-id" && !name.to_ascii_lowercase().starts_with("x-amz-")
    };
    let asked = |asked: &str| query.iter().any(|(name, _)| name == asked);
    let plain = !query.iter().any(asks_more);
    match (kind, bucket.is_empty(), key.is_empty()) {
        (_, true, _) => Operation::Unsupported,
        (Kind::List, false, _) if asked("list-type") => Operation::ListObjects,
        (Kind::List, false, _) if asked("location") => Operation::BucketLocation,
        (Kind::Post, false, true) if asked("delete") => Operation::DeleteObjects,
        (Kind::Put, false, false) if plain => Operation::PutObject,
        (Kind::Get, false, false) if plain => Operation::GetObject,
        (Kind::Head, false, false) if plain => Operation::HeadObject,
        (Kind::Delete, false, false) if plain => Operation::DeleteObject,
        (Kind::Put | Kind::Head | Kind::Delete, false, true) if plain => Operation::TouchBucket,
        _ => Operation::Unsupported,
    }
}

fn parameters(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let decoded = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decoded(name, true)?, percent_decoded(value, true)?))
    });
    decoded.collect()
}

/// `text` with its `%xx` decoded, and `+` as a space where it means that.
fn percent_decoded(text: &str, plus_is_space: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high << 4 | low).expect("two hexadecimal digits are a byte")
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// No range, or one that S3 passes over: the whole object.
    Whole,
    /// These bytes, which lie inside the object.
    Part(Range<u64>),
    /// Bytes that no object of this length has.
    Unsatisfiable,
}

/// The bytes that `header` asks for of an object of `object_bytes`.
pub fn asked_range(header: Option<&str>, object_bytes: u64) -> Asked {
    let Some(spelled) = header.and_then(|header| header.strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = spelled.split_once('-') else { return Asked::Whole };
    let (first, last) = (first.trim(), last.trim());
    let range = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Asked::Whole,
        (true, false) => match last.parse::<u64>() {
            Ok(suffix) => object_bytes.saturating_sub(suffix)..object_bytes,
            Err(_) => return Asked::Whole,
        },
        (false, open) => {
            let last = if open { Ok(u64::MAX) } else { last.parse::<u64>() };
            match (first.parse::<u64>(), last) {
                (Ok(first), Ok(last)) if first <= last => {
                    first..last.saturating_add(1).min(object_bytes)
                }
                _ => return Asked::Whole,
            }
        }
    };
    if range.is_empty() { Asked::Unsatisfiable } else { Asked::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, path: &str, query: &str) -> Target {
        target(method, path, query).unwrap()
    }

    #[test]
    fn a_request_has_one_kind_and_one_operation() {
        for (method, path, query, kind, operation) in [
            ("PUT", "/b/k", "", Kind::Put, Operation::PutObject),
            ("PUT", "/b/k", "x-id=PutObject", Kind::Put, Operation::PutObject),
            ("PUT", "/b/k", "X-Amz-Expires=5", Kind::Put, Operation::PutObject),
            ("PUT", "/b/k", "partNumber=1&uploadId=u", Kind::Put, Operation::Unsupported),
            ("PUT", "/b", "", Kind::Put, Operation::TouchBucket),
            ("PUT", "/b/", "lifecycle", Kind::Put, Operation::Unsupported),
            ("GET", "/b/k", "", Kind::Get, Operation::GetObject),
            ("GET", "/b/k", "acl", Kind::Get, Operation::Unsupported),
            ("GET", "/b", "list-type=2&prefix=p", Kind::List, Operation::ListObjects),
            ("GET", "/b/", "location", Kind::List, Operation::BucketLocation),
            ("GET", "/b", "", Kind::List, Operation::Unsupported),
            ("GET", "/", "", Kind::List, Operation::Unsupported),
            ("HEAD", "/b/k", "", Kind::Head, Operation::HeadObject),
            ("HEAD", "/b", "", Kind::Head, Operation::TouchBucket),
            ("DELETE", "/b/k", "", Kind::Delete, Operation::DeleteObject),
            ("POST", "/b", "delete", Kind::Post, Operation::DeleteObjects),
            ("POST", "/b/", "delete=", Kind::Post, Operation::DeleteObjects),
            ("POST", "/b/k", "uploads", Kind::Post, Operation::Unsupported),
        ] {
            let target = at(method, path, query);
            let found = (target.kind, target.operation);
            assert_eq!(found, (kind, operation), "{method} {path}?{query}");
        }
        assert_eq!(target("PATCH", "/b/k", ""), Err(TargetRefused::Method));
        assert!(Kind::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    }

    #[test]
    fn keys_are_decoded_and_keep_their_slashes() {
        let put = at("PUT", "/b/a%20b/c+d//%C3%A4", "");
        assert_eq!((put.bucket.as_str(), put.key.as_str()), ("b", "a b/c+d//ä"));
        let list = at("GET", "/b", "list-type=2&prefix=a%2Fb+c&max-keys=5");
        assert_eq!(list.key, "a/b c");
        assert_eq!((list.parameter("max-keys"), list.parameter("x")), (Some("5"), None));
        for path in ["/b/%", "/b/%4", "/b/%zz", "/b/%+1", "/b/%ff", "/%ff/k"] {
            assert_eq!(target("GET", path, ""), Err(TargetRefused::Uri), "{path}");
        }
        let long = format!("/b/{}", "k".repeat(1025));
        assert_eq!(target("PUT", &long, ""), Err(TargetRefused::KeyTooLong));
        assert_eq!(at("PUT", &long[..long.len() - 1], "").key.len(), 1024);
    }

    #[test]
    fn a_range_lies_inside_the_object_or_is_unsatisfiable() {
        for (header, asked) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-5", Asked::Part(2..6)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=9-99", Asked::Part(9..10)),
            ("bytes=0-18446744073709551615", Asked::Part(0..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=10-12", Asked::Unsatisfiable),
            ("bytes=5-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=0-1,4-5", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ] {
            assert_eq!(asked_range(Some(header), 10), asked, "{header}");
        }
        assert_eq!(asked_range(None, 10), Asked::Whole);
        assert_eq!(asked_range(Some("bytes=0-0"), 0), Asked::Unsatisfiable);
        assert_eq!(asked_range(Some("bytes=-1"), 0), Asked::Unsatisfiable);
    }
}
