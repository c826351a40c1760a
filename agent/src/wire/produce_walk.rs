//! A Produce request read in place: nothing is allocated per topic or partition.

use bytes::Bytes;

use super::{
    codec::{DecodeError, Element, Nullable, Reader, Str},
    messages::{Message, ProduceRequest, ProduceRequestTopicDataPartitionData},
    walk::{TopicRef, Topics},
};

/// A checked Produce request. [`ProduceWalk::iter`] yields its partitions.
#[derive(Clone, Debug)]
pub struct ProduceWalk {
    /// The transactional id, of a transactional producer.
    pub transactional_id: Option<Str>,
    /// 0, 1 or -1; any other number is the client's mistake.
    pub acks: i16,
    /// How long the client waits.
    pub timeout_ms: i32,
    partition_count: usize,
    topics: Topics<Entry>,
}

/// One partition of a Produce request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    /// Its topic.
    pub topic: TopicRef,
    /// The place of the topic in the request: the answer is grouped in the same way.
    pub topic_index: usize,
    /// Its index in the topic.
    pub partition_index: i32,
    /// Record batches, a slice of the frame; null and empty differ.
    pub records: Option<Bytes>,
}

type Entry = (i32, Option<Bytes>);

impl ProduceWalk {
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
        if !ProduceRequest::VERSIONS.contains(&version) {
            return Err(DecodeError::UnsupportedVersion);
        }
        let flexible = ProduceRequest::is_flexible(version);
        let transactional_id = Str::read_nullable(&mut r, version, flexible)?;
        let acks = i16::read(&mut r, version, flexible)?;
        let timeout_ms = i32::read(&mut r, version, flexible)?;
        let entry = (ProduceRequestTopicDataPartitionData::MIN_BYTES, read_entry as _);
        let topics = Topics::new(&r, version, flexible, entry)?;
        let (partition_count, mut end) = topics.check()?;
        if flexible {
            end.skip_tags()?;
        }
        Ok(Self { transactional_id, acks, timeout_ms, partition_count, topics })
    }

    /// How many partitions there are, the same one twice counted twice.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// The partitions, in the order of the request.
    pub fn iter(&self) -> impl Iterator<Item = ProducePartition> + use<> {
        let mut topics = self.topics.clone();
        // `read` has been through these bytes: there is no error left to end the walk early.
        std::iter::from_fn(move || topics.step().ok().flatten()).map(
            |(topic, topic_index, (partition_index, records))| ProducePartition {
                topic,
                topic_index,
                partition_index,
                records,
            },
        )
    }
}

fn read_entry(r: &mut Reader, version: i16) -> Result<Entry, DecodeError> {
    let flexible = ProduceRequest::is_flexible(version);
    let index = i32::read(r, version, flexible)?;
    let records = Bytes::read_nullable(r, version, flexible)?;
    if flexible {
        r.skip_tags()?;
    }
    Ok((index, records))
}
