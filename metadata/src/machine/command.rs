//! Every replicated command and its reply. A log entry is a stamp and the commands that waited
//! together; apply takes them in order.
//!
//! Input is validated before it is proposed; what only the state can decide is decided in apply
//! and answered as a rejection, never as a panic.

use std::collections::BTreeMap;

use aquifer_storage::model::{
    CommitSeq, LogIndex, NodeId, ObjectSeq, Offset, ProducerEpoch, ProducerId, Sequence, SessionId,
    Timestamp, TopicId, TopicPartition,
};

pub use super::{
    config::{AlterConfigs, ConfigRejected},
    group::command::{GroupAction, GroupCommand, GroupReply, Join},
};

/// The two clocks of the proposing leader, from which apply derives [`super::Elapsed`] and
/// [`super::WallTime`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Random per leader process: monotonic readings compare only within one boot.
    pub boot: u64,
    /// The leader's monotonic clock in milliseconds.
    pub mono_ms: u64,
    /// The leader's wall clock in milliseconds since the epoch. May go back.
    pub wall_ms: i64,
}

/// One entry of the replicated log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// When the leader assembled it.
    pub stamp: Stamp,
    /// A node below this level stops rather than misread the entry.
    pub min_level: u32,
    /// Applied in order.
    pub commands: Vec<Command>,
}

/// A change to the replicated state.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Starts a session: one life of an agent process.
    RegisterSession(RegisterSession),
    /// Ends a session that was silent too long, or that drained.
    FenceSession {
        /// The session judged.
        session: SessionId,
    },
    /// Appends a part's batches to their partitions.
    Commit(CommitPart),
    /// Creates one topic.
    CreateTopic(CreateTopic),
    /// Deletes one topic.
    DeleteTopic {
        /// The topic.
        topic: TopicId,
    },
    /// Hands the session a block of producer ids.
    AllocateProducerIds {
        /// The session that will use them.
        session: SessionId,
    },
    /// Raises the log start of one partition.
    DeleteRecords(DeleteRecords),
    /// A command to one group's coordinator.
    Group(GroupCommand),
    /// Gives a topic more partitions.
    CreatePartitions(CreatePartitions),
    /// Forgets the id and the address of a node that lives no more.
    UnregisterNode {
        /// The node.
        node: NodeId,
    },
    /// Lets elapsed time pass so that deadlines fall due. Proposed only while one is pending.
    Tick,
    /// Changes the config overrides of one resource.
    AlterConfigs(AlterConfigs),
}

/// The answer of [`Command`], at the same place of the entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `RegisterSession`.
    Registered(Registered),
    /// To `FenceSession`, `DeleteTopic` (unless rejected) and `Tick`.
    Done,
    /// To `Commit`.
    Commit(CommitReply),
    /// To `CreateTopic`.
    TopicCreated(Result<TopicId, TopicRejected>),
    /// To `DeleteTopic`.
    TopicDeleted(Result<(), TopicRejected>),
    /// To `AllocateProducerIds`: `count` ids from `first`, or the session is fenced.
    ProducerIds(Result<ProducerIdBlock, SessionFenced>),
    /// To `DeleteRecords`: the log start afterwards.
    RecordsDeleted(Result<Offset, DeleteRecordsRejected>),
    /// To `Group`.
    Group(GroupReply),
    /// To `AlterConfigs`.
    ConfigsAltered(Result<(), ConfigRejected>),
    /// To `CreatePartitions`.
    PartitionsCreated(Result<(), TopicRejected>),
    /// To `UnregisterNode`.
    NodeUnregistered(Result<(), NodeRejected>),
}

impl Command {
    /// The lowest [`super::LEVEL`] whose builds know the command: the `min_level` of an entry is
    /// at least that of each of its commands.
    pub fn level(&self) -> u32 {
        match self {
            Self::CreatePartitions(_) | Self::UnregisterNode { .. } | Self::DeleteRecords(_) => 2,
            Self::AlterConfigs(alter) => alter.level(),
            Self::Group(command) => match command.action {
                GroupAction::Delete | GroupAction::DeleteOffsets { .. } => 2,
                GroupAction::Join(Join { limits: Some(_), .. })
                | GroupAction::ExpireOffsets { .. } => 3,
                GroupAction::Join(_)
                | GroupAction::Sync(_)
                | GroupAction::Leave { .. }
                | GroupAction::CommitOffsets(_)
                | GroupAction::ExpireMember { .. } => 1,
                GroupAction::ConsumerHeartbeat(_) => 3,
            },
            Self::RegisterSession(_)
            | Self::FenceSession { .. }
            | Self::Commit(_)
            | Self::CreateTopic(_)
            | Self::DeleteTopic { .. }
            | Self::AllocateProducerIds { .. }
            | Self::Tick => 1,
        }
    }
}

/// Starts a session. A retry with the same `request` returns the first answer while that session
/// is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterSession {
    /// 64 random bits per process life: the retry key.
    pub request: u64,
    /// The address clients are told.
    pub advertised: HostPort,
    /// The availability zone, Kafka's rack.
    pub zone: Option<String>,
}

/// A host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What a new session needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The session.
    pub session: SessionId,
    /// The agent's node id: the same for every session that advertises this address.
    pub node_id: NodeId,
}

/// The session no longer exists or was fenced: nothing happened and nothing of it ever will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFenced;

/// A block of producer ids, `first..first+count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many.
    pub count: u32,
}

/// The batches of one object that one commit carries (DESIGN 4.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPart {
    /// The committing session.
    pub session: SessionId,
    /// The part's place in the session's stream. Applied only when it is the next one.
    pub commit_seq: CommitSeq,
    /// Results up to and including the one before this are read and may be forgotten:
    /// the first sequence whose result the session still wants.
    pub acked_seq: CommitSeq,
    /// The session's promise that no smaller object seq will be named again.
    pub low_seq: ObjectSeq,
    /// The object that holds the bytes.
    pub object_seq: ObjectSeq,
    /// The object's whole length in bytes (the same in each part of it).
    pub object_bytes: u64,
    /// Producers of this part's batches, interned: batches name them by index.
    pub producers: Vec<PartProducer>,
    /// Batches by partition, in the order they are applied.
    pub extents: Vec<PartExtent>,
}

/// A producer named by batches of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartProducer {
    /// Its id.
    pub id: ProducerId,
    /// The epoch the batches carry.
    pub epoch: ProducerEpoch,
}

/// One partition's batches within a part, in append order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartExtent {
    /// The partition.
    pub partition: TopicPartition,
    /// Its batches.
    pub batches: Vec<PartBatch>,
}

/// One record batch within an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartBatch {
    /// First byte within the object.
    pub position: u32,
    /// Length in bytes.
    pub length: u32,
    /// Records, at least 1.
    pub record_count: u32,
    /// The batch's largest timestamp.
    pub max_timestamp: Timestamp,
    /// Index into `producers` and the batch's base sequence; `None` without idempotence.
    pub producer: Option<(u32, Sequence)>,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitReply {
    /// Applied, now or by an earlier try: one outcome per batch, in the part's order.
    Applied(Vec<BatchOutcome>),
    /// Not applied, no effect: the session's stream is at `next`; send from there again.
    Gap {
        /// The sequence the session must send next.
        next: CommitSeq,
    },
    /// Applied before, but its result was acknowledged and is gone.
    Forgotten,
    /// Not applied: the session is fenced.
    Fenced,
    /// Not applied: `object_seq` is below a promised `low_seq`, or `low_seq` itself fell.
    SeqBelowLow,
}

/// What became of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Appended at `base`.
    Appended {
        /// Offset of the first record.
        base: Offset,
        /// The partition's log start offset at that moment.
        log_start: Offset,
    },
    /// A retry of a batch appended before.
    Duplicate {
        /// Offset of the first record of the original.
        base: Offset,
        /// The original's largest timestamp.
        max_timestamp: Timestamp,
        /// The partition's log start offset.
        log_start: Offset,
    },
    /// Refused: it did not and will not happen.
    Rejected(BatchRejected),
}

/// Why a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchRejected {
    /// The topic was deleted, or has no such partition.
    UnknownPartition,
    /// The sequence does not follow the last one (a gap, or a duplicate too old to be known).
    OutOfOrderSequence,
    /// The producer epoch is older than one seen on this partition.
    InvalidProducerEpoch,
    /// The offset space of the partition is exhausted.
    OffsetsExhausted,
}

/// Creates one topic. Names, counts and configs were validated before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Random, drawn by the proposer.
    pub topic: TopicId,
    /// The name, valid by Kafka's rules.
    pub name: String,
    /// At least 1.
    pub partitions: u32,
    /// As asked; shapes Metadata answers only.
    pub replication_factor: u16,
    /// Overrides, validated.
    pub configs: BTreeMap<String, String>,
}

/// Gives a topic more partitions: it has at least so many afterwards. Whoever asks saw that it had
/// fewer, so one that has them by now answers `Ok`: a retry, or somebody else at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreatePartitions {
    /// The topic.
    pub topic: TopicId,
    /// How many it has afterwards, at least 1.
    pub partitions: u32,
}

/// Why a node was not unregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRejected {
    /// No such node.
    Unknown,
    /// An agent of this node lives.
    Live,
}

/// Raises the log start of a partition: what is below is not read any more. A retry changes
/// nothing and is told how far the log start is by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteRecords {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset that stays; `None` for none of those that are there.
    pub before: Option<Offset>,
}

/// Why records were not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteRecordsRejected {
    /// No such partition.
    UnknownPartition,
    /// There are no such offsets yet.
    AboveHighWatermark {
        /// The next offset to be assigned.
        high_watermark: Offset,
    },
}

/// Why a topic command was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRejected {
    /// A topic of this name exists.
    AlreadyExists {
        /// Its id.
        topic: TopicId,
    },
    /// The name differs from an existing one only in `.` and `_`.
    Collides {
        /// The existing name.
        with: String,
    },
    /// The id was used before (a retry of an applied create answers `Ok`, so this is a bug or an
    /// attack).
    IdReused,
    /// No such topic.
    Unknown,
    /// The cluster's partition limit would be passed.
    TooManyPartitions,
}

/// The place of an applied entry and the replies to its commands.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedReply {
    /// The index the command was applied at.
    pub index: LogIndex,
    /// The reply.
    pub reply: Reply,
}
