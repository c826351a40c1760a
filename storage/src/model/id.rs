//! Ids: each names one kind of thing and is never reused.

use std::fmt;

/// Defines a number newtype with a private field, `new`, `value` and `Display`.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a number read from the wire, the log or a snapshot.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number, for encoding.
            pub const fn value(self) -> $inner {
                self.0
            }

            /// The next id.
            ///
            /// # Panics
            /// When the number space is exhausted, which is a bug: it would reuse an id.
            #[must_use]
            pub fn next(self) -> Self {
                let exhausted = concat!(stringify!($name), " space is exhausted");
                Self(self.0.checked_add(1).expect(exhausted))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// One life of an agent process. Given by metadata, never reused.
    SessionId(u64)
}
number_id! {
    /// The place of an object within its session, consecutive from 0.
    ObjectSeq(u64)
}
number_id! {
    /// The place of a part within its session's commit stream, consecutive from 0.
    CommitSeq(u64)
}
number_id! {
    /// Index of an entry of the replicated log: how far a node or agent has applied it.
    LogIndex(u64)
}
number_id! {
    /// Kafka's node id of an agent: interned per advertised `host:port`, from 1.
    NodeId(i32)
}
number_id! {
    /// Zero-based index of a partition within its topic; never negative.
    PartitionIndex(i32)
}
number_id! {
    /// A producer id; never negative.
    ProducerId(i64)
}

/// A topic's id: 128 random bits, a new one for each topic created, also under an old name.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// Kafka's "no id" on the wire.
    pub const ZERO: Self = Self([0; 16]);

    /// Wraps the 16 bytes of a UUID, most significant first.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// A topic partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// One life of a metadata group. A restore from backup starts the next; the nonce keeps the
/// data of two groups that claimed the same prefix apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage {
    /// Counts restores; also every partition's leader epoch.
    pub number: u32,
    /// 64 random bits drawn when the lineage began.
    pub nonce: u64,
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.nonce)
    }
}

/// The name of an object, from which its key is computed. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The lineage the writing session belongs to.
    pub lineage: Lineage,
    /// The session that wrote it.
    pub session: SessionId,
    /// Its place within the session.
    pub seq: ObjectSeq,
    /// Whether a merge wrote it (`merged/`) rather than a flush (`wal/`).
    pub merged: bool,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.merged { "merged" } else { "wal" };
        write!(f, "{kind}/{}/{}/{}", self.lineage, self.session, self.seq)
    }
}
