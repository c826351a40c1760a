//! Replies to commands.

use aquifer_storage::model::{CommitSeq, LogIndex, ProducerId, SessionId, Timestamp};
use bytes::Bytes;

use super::{
    CodecError, admin,
    column::{Column, timestamp_step},
    config, group, node_id, offset, topic_from_proto, topic_to_proto,
};
use crate::{
    machine::command::{
        AppliedReply, BatchOutcome, BatchRejected, CommitReply, DeleteRecordsRejected,
        ProducerIdBlock, Registered, Reply, SessionFenced, TopicRejected,
    },
    proto::{
        self, commit_reply::Reply as CommitKind, producer_ids_outcome::Outcome as IdsKind,
        records_deleted::Outcome as DeletedKind, reply::Reply as Kind,
        topic_outcome::Outcome as TopicKind, topic_rejection,
    },
};

const APPENDED: u64 = 0;
const DUPLICATE: u64 = 1;
const REJECTED: u64 = 2;

/// A reply with its index as a message.
pub fn applied_reply_to_proto(applied: &AppliedReply) -> proto::AppliedReply {
    proto::AppliedReply {
        index: applied.index.value(),
        reply: Some(reply_to_proto(&applied.reply)),
    }
}

/// A reply with its index from a message.
pub fn applied_reply_from_proto(applied: proto::AppliedReply) -> Result<AppliedReply, CodecError> {
    Ok(AppliedReply {
        index: LogIndex::new(applied.index),
        reply: reply_from_proto(applied.reply.ok_or(CodecError::Missing("reply"))?)?,
    })
}

/// A reply as a message.
pub fn reply_to_proto(reply: &Reply) -> proto::Reply {
    let kind = match reply {
        Reply::Registered(registered) => Kind::Registered(proto::Registered {
            session: registered.session.value(),
            node_id: registered.node_id.value(),
        }),
        Reply::Done => Kind::Done(proto::Done {}),
        Reply::Commit(reply) => Kind::Commit(commit_reply_to_proto(reply)),
        Reply::TopicCreated(outcome) => Kind::TopicCreated(topic_outcome_to_proto(
            outcome.as_ref().map(|topic| topic_to_proto(*topic)),
        )),
        Reply::TopicDeleted(outcome) => {
            Kind::TopicDeleted(topic_outcome_to_proto(outcome.as_ref().map(|()| Bytes::new())))
        }
        Reply::ProducerIds(outcome) => Kind::ProducerIds(proto::ProducerIdsOutcome {
            outcome: Some(match outcome {
                Ok(block) => IdsKind::Block(proto::ProducerIdBlock {
                    first: block.first.value(),
                    count: block.count,
                }),
                Err(SessionFenced) => IdsKind::Fenced(proto::Done {}),
            }),
        }),
        Reply::RecordsDeleted(outcome) => Kind::RecordsDeleted(proto::RecordsDeleted {
            outcome: Some(match outcome {
                Ok(log_start) => DeletedKind::LogStart(log_start.value()),
                Err(DeleteRecordsRejected::UnknownPartition) => {
                    DeletedKind::UnknownPartition(proto::Done {})
                }
                Err(DeleteRecordsRejected::AboveHighWatermark { high_watermark }) => {
                    DeletedKind::AboveHighWatermark(high_watermark.value())
                }
            }),
        }),
        Reply::Group(reply) => Kind::Group(group::reply_to_proto(reply)),
        Reply::PartitionsCreated(outcome) => {
            Kind::PartitionsCreated(topic_outcome_to_proto(outcome.as_ref().map(|()| Bytes::new())))
        }
        Reply::NodeUnregistered(outcome) => {
            Kind::NodeUnregistered(admin::node_outcome_to_proto(*outcome))
        }
        Reply::ConfigsAltered(outcome) => Kind::ConfigsAltered(config::outcome_to_proto(outcome)),
    };
    proto::Reply { reply: Some(kind) }
}

/// A reply from a message.
pub fn reply_from_proto(reply: proto::Reply) -> Result<Reply, CodecError> {
    Ok(match reply.reply.ok_or(CodecError::Missing("reply"))? {
        Kind::Registered(registered) => Reply::Registered(Registered {
            session: SessionId::new(registered.session),
            node_id: node_id(registered.node_id)?,
        }),
        Kind::Done(proto::Done {}) => Reply::Done,
        Kind::Commit(reply) => Reply::Commit(commit_reply_from_proto(&reply)?),
        Kind::TopicCreated(outcome) => {
            Reply::TopicCreated(match topic_outcome_from_proto(outcome)? {
                Ok(topic) => Ok(topic_from_proto(&topic)?),
                Err(rejected) => Err(rejected),
            })
        }
        Kind::TopicDeleted(outcome) => {
            Reply::TopicDeleted(topic_outcome_from_proto(outcome)?.map(drop))
        }
        Kind::ProducerIds(outcome) => Reply::ProducerIds(producer_ids_from_proto(outcome)?),
        Kind::RecordsDeleted(deleted) => {
            Reply::RecordsDeleted(match deleted.outcome.ok_or(CodecError::Missing("outcome"))? {
                DeletedKind::LogStart(log_start) => Ok(offset(log_start)?),
                DeletedKind::UnknownPartition(proto::Done {}) => {
                    Err(DeleteRecordsRejected::UnknownPartition)
                }
                DeletedKind::AboveHighWatermark(high_watermark) => {
                    let high_watermark = offset(high_watermark)?;
                    Err(DeleteRecordsRejected::AboveHighWatermark { high_watermark })
                }
            })
        }
        Kind::Group(reply) => Reply::Group(group::reply_from_proto(reply)?),
        Kind::PartitionsCreated(outcome) => {
            Reply::PartitionsCreated(topic_outcome_from_proto(outcome)?.map(drop))
        }
        Kind::NodeUnregistered(outcome) => {
            Reply::NodeUnregistered(admin::node_outcome_from_proto(&outcome)?)
        }
        Kind::ConfigsAltered(outcome) => {
            Reply::ConfigsAltered(config::outcome_from_proto(outcome)?)
        }
    })
}

/// The reply to a part as a message.
pub fn commit_reply_to_proto(reply: &CommitReply) -> proto::CommitReply {
    let kind = match reply {
        CommitReply::Applied(outcomes) => CommitKind::Applied(outcomes_to_proto(outcomes)),
        CommitReply::Gap { next } => CommitKind::GapNext(next.value()),
        CommitReply::Forgotten => CommitKind::Forgotten(proto::Done {}),
        CommitReply::Fenced => CommitKind::Fenced(proto::Done {}),
        CommitReply::SeqBelowLow => CommitKind::SeqBelowLow(proto::Done {}),
    };
    proto::CommitReply { reply: Some(kind) }
}

/// The reply to a part from a message.
pub fn commit_reply_from_proto(reply: &proto::CommitReply) -> Result<CommitReply, CodecError> {
    Ok(match reply.reply.as_ref().ok_or(CodecError::Missing("commit reply"))? {
        CommitKind::Applied(outcomes) => CommitReply::Applied(outcomes_from_proto(outcomes)?),
        CommitKind::GapNext(next) => CommitReply::Gap { next: CommitSeq::new(*next) },
        CommitKind::Forgotten(proto::Done {}) => CommitReply::Forgotten,
        CommitKind::Fenced(proto::Done {}) => CommitReply::Fenced,
        CommitKind::SeqBelowLow(proto::Done {}) => CommitReply::SeqBelowLow,
    })
}

/// A timestamp's step counts from here.
const NO_TIMESTAMP: Timestamp = Timestamp::from_millis(0);

pub(super) fn outcomes_to_proto(outcomes: &[BatchOutcome]) -> proto::BatchOutcomes {
    let mut column = Vec::with_capacity(outcomes.len() * 3);
    for outcome in outcomes {
        match outcome {
            BatchOutcome::Appended { base, log_start } => {
                column.extend([APPENDED, base.value() as u64, log_start.value() as u64]);
            }
            BatchOutcome::Duplicate { base, max_timestamp, log_start } => column.extend([
                DUPLICATE,
                base.value() as u64,
                timestamp_step(NO_TIMESTAMP, *max_timestamp),
                log_start.value() as u64,
            ]),
            BatchOutcome::Rejected(why) => column.extend([REJECTED, rejection_number(*why)]),
        }
    }
    proto::BatchOutcomes { outcomes: column }
}

pub(super) fn outcomes_from_proto(
    outcomes: &proto::BatchOutcomes,
) -> Result<Vec<BatchOutcome>, CodecError> {
    let mut column = Column::new(&outcomes.outcomes, "batch outcome");
    let mut read = Vec::with_capacity(column.remaining() / 3);
    while !column.is_empty() {
        read.push(match column.next()? {
            APPENDED => {
                BatchOutcome::Appended { base: column.offset()?, log_start: column.offset()? }
            }
            DUPLICATE => BatchOutcome::Duplicate {
                base: column.offset()?,
                max_timestamp: column.timestamp(NO_TIMESTAMP)?,
                log_start: column.offset()?,
            },
            REJECTED => BatchOutcome::Rejected(rejection(column.next()?)?),
            _ => return Err(CodecError::Missing("batch outcome")),
        });
    }
    Ok(read)
}

const fn rejection_number(why: BatchRejected) -> u64 {
    match why {
        BatchRejected::UnknownPartition => 1,
        BatchRejected::OutOfOrderSequence => 2,
        BatchRejected::InvalidProducerEpoch => 3,
        BatchRejected::OffsetsExhausted => 4,
    }
}

const fn rejection(number: u64) -> Result<BatchRejected, CodecError> {
    Ok(match number {
        1 => BatchRejected::UnknownPartition,
        2 => BatchRejected::OutOfOrderSequence,
        3 => BatchRejected::InvalidProducerEpoch,
        4 => BatchRejected::OffsetsExhausted,
        _ => return Err(CodecError::Missing("batch rejection")),
    })
}

fn topic_outcome_to_proto(outcome: Result<Bytes, &TopicRejected>) -> proto::TopicOutcome {
    let kind = match outcome {
        Ok(topic) => TopicKind::Topic(topic),
        Err(rejected) => TopicKind::Rejected(topic_rejection_to_proto(rejected)),
    };
    proto::TopicOutcome { outcome: Some(kind) }
}

fn topic_rejection_to_proto(rejected: &TopicRejected) -> proto::TopicRejection {
    use topic_rejection::Kind;
    let (kind, topic, with) = match rejected {
        TopicRejected::AlreadyExists { topic } => {
            (Kind::AlreadyExists, topic_to_proto(*topic), String::new())
        }
        TopicRejected::Collides { with } => (Kind::Collides, Bytes::new(), with.clone()),
        TopicRejected::IdReused => (Kind::IdReused, Bytes::new(), String::new()),
        TopicRejected::Unknown => (Kind::Unknown, Bytes::new(), String::new()),
        TopicRejected::TooManyPartitions => (Kind::TooManyPartitions, Bytes::new(), String::new()),
    };
    proto::TopicRejection { kind: kind.into(), topic, with }
}

fn topic_outcome_from_proto(
    outcome: proto::TopicOutcome,
) -> Result<Result<Bytes, TopicRejected>, CodecError> {
    use topic_rejection::Kind;
    let rejected = match outcome.outcome.ok_or(CodecError::Missing("topic outcome"))? {
        TopicKind::Topic(topic) => return Ok(Ok(topic)),
        TopicKind::Rejected(rejected) => rejected,
    };
    Ok(Err(match rejected.kind() {
        Kind::AlreadyExists => {
            TopicRejected::AlreadyExists { topic: topic_from_proto(&rejected.topic)? }
        }
        Kind::Collides => TopicRejected::Collides { with: rejected.with },
        Kind::IdReused => TopicRejected::IdReused,
        Kind::Unknown => TopicRejected::Unknown,
        Kind::TooManyPartitions => TopicRejected::TooManyPartitions,
        Kind::Unspecified => return Err(CodecError::Missing("topic rejection")),
    }))
}

fn producer_ids_from_proto(
    outcome: proto::ProducerIdsOutcome,
) -> Result<Result<ProducerIdBlock, SessionFenced>, CodecError> {
    Ok(match outcome.outcome.ok_or(CodecError::Missing("producer ids"))? {
        IdsKind::Block(block) if block.first < 0 => {
            return Err(CodecError::Invalid("producer id"));
        }
        IdsKind::Block(block) => {
            Ok(ProducerIdBlock { first: ProducerId::new(block.first), count: block.count })
        }
        IdsKind::Fenced(proto::Done {}) => Err(SessionFenced),
    })
}
