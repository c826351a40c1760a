//! A Fetch request read in place: nothing is allocated per topic or partition.

use bytes::Bytes;

use super::{
    codec::{DecodeError, Element, Reader, Str},
    messages::{
        FetchRequest, FetchRequestReplicaState, FetchRequestTopicsPartitions as WirePartition,
        Message,
    },
    walk::{TopicRef, Topics},
};

/// A checked Fetch request. [`FetchWalk::iter`] yields its partitions.
#[derive(Clone, Debug)]
pub struct FetchWalk {
    /// -1 for a consumer; a broker's own id is what only a follower sends.
    pub replica_id: i32,
    /// How long the answer may wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// What the answer waits for.
    pub min_bytes: i32,
    /// The most the answer should hold.
    pub max_bytes: i32,
    /// 0 to read uncommitted, 1 to read committed.
    pub isolation_level: i8,
    /// The fetch session, 0 for none.
    pub session_id: i32,
    /// Its epoch: 0 opens one, -1 ends it.
    pub session_epoch: i32,
    /// The rack of the consumer, empty for none.
    pub rack_id: Str,
    partition_count: usize,
    topics: Topics<WirePartition>,
    forgotten: Option<Topics<i32>>,
}

/// One partition of a Fetch request.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartition {
    /// Its topic.
    pub topic: TopicRef,
    /// The place of the topic in the request: the answer is grouped in the same way.
    pub topic_index: usize,
    /// What is asked of it.
    pub partition: WirePartition,
}

impl FetchWalk {
    /// Reads a request body and checks it to its end.
    ///
    /// # Errors
    /// It is malformed, or of a version that is not served.
    pub fn parse(body: Bytes, version: i16) -> Result<Self, DecodeError> {
        let r = Reader::with_budget(body, usize::MAX);
        Self::read(r, version)
    }

    /// The same, of a reader that stands behind the request header.
    ///
    /// # Errors
    /// It is malformed, or of a version that is not served.
    pub fn read(mut r: Reader, version: i16) -> Result<Self, DecodeError> {
        if !FetchRequest::VERSIONS.contains(&version) {
            return Err(DecodeError::UnsupportedVersion);
        }
        let flexible = FetchRequest::is_flexible(version);
        let mut scalars = Scalars { r: &mut r, version, flexible };
        let replica_id = if version <= 14 { scalars.i32()? } else { -1 };
        let (max_wait_ms, min_bytes, max_bytes) = (scalars.i32()?, scalars.i32()?, scalars.i32()?);
        let isolation_level = i8::read(scalars.r, version, flexible)?;
        let (session_id, session_epoch) =
            if version >= 7 { (scalars.i32()?, scalars.i32()?) } else { (0, -1) };
        let topics =
            Topics::new(&r, version, flexible, (WirePartition::MIN_BYTES, read_partition))?;
        let (partition_count, mut r) = topics.check()?;
        let forgotten = match version {
            7.. => Some(Topics::new(&r, version, flexible, (i32::MIN_BYTES, read_index))?),
            _ => None,
        };
        if let Some(forgotten) = &forgotten {
            r = forgotten.check()?.1;
        }
        let rack_id =
            if version >= 11 { Str::read(&mut r, version, flexible)? } else { Str::EMPTY };
        let mut walk = Self {
            replica_id,
            max_wait_ms,
            min_bytes,
            max_bytes,
            isolation_level,
            session_id,
            session_epoch,
            rack_id,
            partition_count,
            topics,
            forgotten,
        };
        if flexible {
            walk.read_tags(&mut r, version)?;
        }
        Ok(walk)
    }

    fn read_tags(&mut self, r: &mut Reader, version: i16) -> Result<(), DecodeError> {
        let mut tags = r.tags()?;
        while let Some(tag) = tags.next(r)? {
            match tag {
                1 if version >= 15 => {
                    self.replica_id = FetchRequestReplicaState::read(r, version, true)?.replica_id;
                }
                _ => tags.skip(r)?,
            }
        }
        Ok(())
    }

    /// How many partitions there are, the same one twice counted twice.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// The partitions, in the order of the request.
    pub fn iter(&self) -> impl Iterator<Item = FetchPartition> + use<> {
        let mut topics = self.topics.clone();
        // `read` has been through these bytes: there is no error left to end the walk early.
        std::iter::from_fn(move || topics.step().ok().flatten())
            .map(|(topic, topic_index, partition)| FetchPartition { topic, topic_index, partition })
    }

    /// The partitions that an incremental fetch session is to drop.
    pub fn forgotten(&self) -> impl Iterator<Item = (TopicRef, i32)> + use<> {
        let mut topics = self.forgotten.clone();
        std::iter::from_fn(move || topics.as_mut()?.step().ok().flatten())
            .map(|(topic, _, partition)| (topic, partition))
    }
}

struct Scalars<'a> {
    r: &'a mut Reader,
    version: i16,
    flexible: bool,
}

impl Scalars<'_> {
    fn i32(&mut self) -> Result<i32, DecodeError> {
        i32::read(self.r, self.version, self.flexible)
    }
}

fn read_partition(r: &mut Reader, version: i16) -> Result<WirePartition, DecodeError> {
    WirePartition::read(r, version, FetchRequest::is_flexible(version))
}

fn read_index(r: &mut Reader, version: i16) -> Result<i32, DecodeError> {
    i32::read(r, version, FetchRequest::is_flexible(version))
}
