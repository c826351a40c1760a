//! What consumers of the classic protocol say to their assignor and get from it: Kafka's
//! `ConsumerProtocol`, versions 0 to 3. Later ones begin alike.

use bytes::{Buf, BufMut, Bytes};

/// Partitions by the names of their topics.
pub(super) type NamedPartitions = Vec<(String, Vec<i32>)>;

/// What a member subscribes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The version it came in.
    pub version: i16,
    /// Names of topics.
    pub topics: Vec<String>,
    /// What it holds (version 1 and later).
    pub owned: NamedPartitions,
    /// Its rack (version 3 and later).
    pub rack: Option<String>,
}

impl Subscription {
    /// From bytes; `None` for what is none.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let version = bytes.try_get_i16().ok().filter(|version| 0 <= *version)?;
        let mut topics = Vec::new();
        for _ in 0..count(&mut bytes)? {
            topics.push(text(&mut bytes)??);
        }
        skip_bytes(&mut bytes)?;
        let owned = if version < 1 { Vec::new() } else { partitions(&mut bytes)? };
        if 2 <= version {
            bytes.try_get_i32().ok()?; // The generation it holds that since.
        }
        let rack = if version < 3 { None } else { text(&mut bytes)? };
        Some(Self { version, topics, owned, rack })
    }
}

/// What an assignor gave a member; the flag: whether it also said something of its own.
pub(super) fn decode_assignment(mut bytes: Bytes) -> Option<(NamedPartitions, bool)> {
    if bytes.is_empty() {
        return Some((Vec::new(), false));
    }
    bytes.try_get_i16().ok().filter(|version| 0 <= *version)?;
    let partitions = partitions(&mut bytes)?;
    let has_own = skip_bytes(&mut bytes)?;
    Some((partitions, has_own))
}

/// An assignment in the version its member speaks.
pub(super) fn encode_assignment(version: i16, topics: &NamedPartitions) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i16(version.min(3));
    put_count(&mut bytes, topics.len());
    for (name, partitions) in topics {
        bytes.put_i16(i16::try_from(name.len()).unwrap_or(i16::MAX));
        bytes.extend_from_slice(name.as_bytes());
        put_count(&mut bytes, partitions.len());
        partitions.iter().for_each(|partition| bytes.put_i32(*partition));
    }
    bytes.put_i32(-1); // Nothing of the assignor's own.
    bytes.into()
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}

fn partitions(bytes: &mut Bytes) -> Option<NamedPartitions> {
    let mut topics = Vec::new();
    for _ in 0..count(bytes)? {
        let name = text(bytes)??;
        let mut indexes = Vec::new();
        for _ in 0..count(bytes)? {
            indexes.push(bytes.try_get_i32().ok()?);
        }
        topics.push((name, indexes));
    }
    Some(topics)
}

/// How many elements follow. Each has bytes, so that there is no more to loop over than there is.
fn count(bytes: &mut Bytes) -> Option<usize> {
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    (count <= bytes.len()).then_some(count)
}

/// A text, or none of a negative length; the outer `None` for what is neither.
#[allow(clippy::option_option, reason = "absent and malformed are told apart")]
fn text(bytes: &mut Bytes) -> Option<Option<String>> {
    let length = bytes.try_get_i16().ok()?;
    let Ok(length) = usize::try_from(length) else { return Some(None) };
    if bytes.len() < length {
        return None;
    }
    String::from_utf8(bytes.split_to(length).to_vec()).ok().map(Some)
}

/// Skips bytes with their length before them; whether there are some.
fn skip_bytes(bytes: &mut Bytes) -> Option<bool> {
    let length = bytes.try_get_i32().ok()?;
    let Ok(length) = usize::try_from(length) else { return Some(false) };
    if bytes.len() < length {
        return None;
    }
    bytes.advance(length);
    Some(0 < length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_reads_as_it_was_written() {
        let topics = vec![("a".to_owned(), vec![0, 2]), ("b".to_owned(), Vec::new())];
        let bytes = encode_assignment(1, &topics);
        assert_eq!(decode_assignment(bytes.clone()), Some((topics, false)));
        for length in 1..bytes.len() {
            assert_eq!(decode_assignment(bytes.slice(..length)), None, "{length} bytes");
        }
    }

    #[test]
    fn a_subscription_of_each_version_is_read() {
        let mut bytes = vec![0, 3, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        bytes.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 7]);
        bytes.extend([0, 0, 0, 5, 0, 1, b'r']);
        let read = |bytes: &[u8]| Subscription::decode(Bytes::copy_from_slice(bytes));
        let topics = vec!["t".to_owned()];
        let owned = vec![("t".to_owned(), vec![7])];
        let of_3 = Subscription { version: 3, topics, owned, rack: Some("r".to_owned()) };
        assert_eq!(read(&bytes), Some(of_3.clone()));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length} bytes");
        }
        bytes[1] = 1;
        assert_eq!(read(&bytes), Some(Subscription { version: 1, rack: None, ..of_3.clone() }));
        bytes[1] = 0;
        let of_0 = Subscription { version: 0, owned: Vec::new(), rack: None, ..of_3 };
        assert_eq!(read(&bytes), Some(of_0));
    }
}
