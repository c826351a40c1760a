//! Messages of groups. The snapshot is in [`snapshot`].

mod administration;
mod consumer;
mod consumer_snapshot;
mod snapshot;

use aquifer_storage::model::{LeaderEpoch, PartitionIndex, SessionId, TopicPartition};
use bytes::Bytes;

pub use self::snapshot::{groups_from_proto, groups_to_proto};
use super::{CodecError, offset, topic_from_proto, topic_to_proto};
use crate::{
    machine::group::{
        GroupSettings,
        command::{
            CommitOffsets, CommittedOffset, GroupAction, GroupCommand, GroupReply, Join,
            LeavingMember, PartitionIndexError, Progress, RequestId, Sync,
        },
        query::{GroupAnswer, GroupAsk, GroupQuery, OffsetReader},
        types::{GenerationId, GroupRejected, JoinResult, JoinedMember, MemberId, SyncResult},
    },
    proto,
};

use proto::{
    group_answer::Answer as AnswerKind, group_command::Action as ActionKind,
    group_join_outcome::Outcome as JoinOutcome, group_query::Ask as AskKind,
    group_rejection::Kind as Rejection, group_reply::Reply as ReplyKind,
    group_sync_outcome::Outcome as SyncOutcome,
};

type JoinAnswer = Result<Progress<JoinResult>, GroupRejected>;
type SyncAnswer = Result<Progress<SyncResult>, GroupRejected>;

/// A command as a message.
pub fn command_to_proto(command: &GroupCommand) -> proto::GroupCommand {
    let action = match &command.action {
        GroupAction::Join(join) => ActionKind::Join(join_to_proto(join)),
        GroupAction::Sync(sync) => ActionKind::Sync(sync_to_proto(sync)),
        GroupAction::Leave { members } => ActionKind::Leave(proto::GroupLeave {
            members: members.iter().map(leaving_to_proto).collect(),
        }),
        GroupAction::CommitOffsets(commit) => {
            ActionKind::CommitOffsets(proto::GroupCommitOffsets {
                member: text(&commit.member),
                instance: commit.instance.clone(),
                generation: commit.generation.map(GenerationId::value),
                offsets: offsets_to_proto(&commit.offsets),
                knows_no_epochs: !commit.knows_epochs,
            })
        }
        GroupAction::ExpireMember { member, judged } => {
            ActionKind::ExpireMember(proto::GroupExpireMember {
                member: text(member),
                judged: *judged,
            })
        }
        GroupAction::Delete => ActionKind::Delete(proto::GroupDone {}),
        GroupAction::DeleteOffsets { topics } => {
            ActionKind::DeleteOffsets(administration::delete_offsets_to_proto(topics))
        }
        GroupAction::ConsumerHeartbeat(heartbeat) => {
            ActionKind::ConsumerHeartbeat(consumer::heartbeat_to_proto(heartbeat))
        }
        GroupAction::ExpireOffsets { topics, retention_ms } => {
            let offsets = Some(administration::delete_offsets_to_proto(topics));
            let retention_ms = *retention_ms;
            ActionKind::ExpireOffsets(proto::GroupExpireOffsets { offsets, retention_ms })
        }
    };
    proto::GroupCommand { group: command.group.clone(), action: Some(action) }
}

/// A command from a message.
pub fn command_from_proto(command: proto::GroupCommand) -> Result<GroupCommand, CodecError> {
    let action = match command.action.ok_or(CodecError::Missing("group action"))? {
        ActionKind::Join(join) => GroupAction::Join(join_from_proto(join)?),
        ActionKind::Sync(sync) => GroupAction::Sync(sync_from_proto(sync)),
        ActionKind::Leave(leave) => {
            let members = leave.members.into_iter().map(leaving_from_proto).collect();
            GroupAction::Leave { members }
        }
        ActionKind::CommitOffsets(commit) => GroupAction::CommitOffsets(CommitOffsets {
            member: MemberId::new(commit.member),
            instance: commit.instance,
            generation: commit.generation.map(GenerationId::new),
            knows_epochs: !commit.knows_no_epochs,
            offsets: offsets_from_proto(commit.offsets)?,
        }),
        ActionKind::ExpireMember(expire) => GroupAction::ExpireMember {
            member: MemberId::new(expire.member),
            judged: expire.judged,
        },
        ActionKind::Delete(proto::GroupDone {}) => GroupAction::Delete,
        ActionKind::DeleteOffsets(delete) => GroupAction::DeleteOffsets {
            topics: administration::delete_offsets_from_proto(delete)?,
        },
        ActionKind::ConsumerHeartbeat(heartbeat) => {
            GroupAction::ConsumerHeartbeat(Box::new(consumer::heartbeat_from_proto(heartbeat)?))
        }
        ActionKind::ExpireOffsets(expire) => GroupAction::ExpireOffsets {
            topics: administration::delete_offsets_from_proto(expire.offsets.unwrap_or_default())?,
            retention_ms: expire.retention_ms,
        },
    };
    Ok(GroupCommand { group: command.group, action })
}

/// A reply as a message.
pub fn reply_to_proto(reply: &GroupReply) -> proto::GroupReply {
    let reply = match reply {
        GroupReply::Join(answer) => ReplyKind::Join(join_answer_to_proto(answer)),
        GroupReply::Sync(answer) => ReplyKind::Sync(sync_answer_to_proto(answer)),
        GroupReply::Leave(results) => ReplyKind::Leave(proto::GroupLeaveOutcome {
            members: results.iter().map(check_to_proto).collect(),
        }),
        GroupReply::CommitOffsets(result) => {
            let gone = result.iter().flatten().map(gone_to_proto).collect();
            let rejected = result.as_ref().err().map(rejected_to_proto);
            ReplyKind::CommitOffsets(proto::GroupCommitOutcome { gone, rejected })
        }
        GroupReply::Done => ReplyKind::Done(proto::GroupDone {}),
        GroupReply::Deleted(result) => ReplyKind::Deleted(check_to_proto(result)),
        GroupReply::OffsetsDeleted(result) => {
            ReplyKind::OffsetsDeleted(proto::GroupOffsetsDeleted {
                subscribed: result.as_ref().ok().cloned().unwrap_or_default(),
                rejected: result.as_ref().err().map(rejected_to_proto),
            })
        }
        GroupReply::ConsumerHeartbeat(result) => {
            ReplyKind::ConsumerHeartbeat(consumer::outcome_to_proto(Some(result)))
        }
    };
    proto::GroupReply { reply: Some(reply) }
}

/// A reply from a message.
pub fn reply_from_proto(reply: proto::GroupReply) -> Result<GroupReply, CodecError> {
    Ok(match reply.reply.ok_or(CodecError::Missing("group reply"))? {
        ReplyKind::Join(outcome) => GroupReply::Join(join_answer_from_proto(outcome)?),
        ReplyKind::Sync(outcome) => GroupReply::Sync(sync_answer_from_proto(outcome)?),
        ReplyKind::Leave(outcome) => {
            let results = outcome.members.into_iter().map(check_from_proto);
            GroupReply::Leave(results.collect::<Result<_, _>>()?)
        }
        ReplyKind::CommitOffsets(outcome) => GroupReply::CommitOffsets(match outcome.rejected {
            Some(rejected) => Err(rejected_from_proto(rejected)?),
            None => {
                let gone = outcome.gone.into_iter().map(gone_from_proto);
                Ok(gone.collect::<Result<_, _>>()?)
            }
        }),
        ReplyKind::Done(proto::GroupDone {}) => GroupReply::Done,
        ReplyKind::Deleted(outcome) => GroupReply::Deleted(check_from_proto(outcome)?),
        ReplyKind::OffsetsDeleted(outcome) => GroupReply::OffsetsDeleted(match outcome.rejected {
            Some(rejected) => Err(rejected_from_proto(rejected)?),
            None => Ok(outcome.subscribed),
        }),
        ReplyKind::ConsumerHeartbeat(outcome) => {
            let result = consumer::outcome_from_proto(outcome)?;
            GroupReply::ConsumerHeartbeat(result.ok_or(CodecError::Missing("heartbeat's outcome"))?)
        }
    })
}

/// A question as a message.
pub fn query_to_proto(query: &GroupQuery) -> proto::GroupQuery {
    let ask = match &query.ask {
        GroupAsk::Join { member, request } => AskKind::Join(proto::GroupAskJoin {
            member: text(member),
            request: Some(request_to_proto(*request)),
        }),
        GroupAsk::Sync { member, generation } => AskKind::Sync(proto::GroupAskSync {
            member: text(member),
            generation: generation.value(),
        }),
        GroupAsk::Offsets { partitions, reader } => AskKind::Offsets(proto::GroupAskOffsets {
            all: partitions.is_none(),
            partitions: partitions.iter().flatten().map(partition_to_proto).collect(),
            reader: reader.as_ref().map(|reader| proto::GroupOffsetReader {
                member: text(&reader.member),
                epoch: reader.epoch,
            }),
        }),
        GroupAsk::Heartbeat { member, instance, generation } => {
            AskKind::Heartbeat(proto::GroupAskHeartbeat {
                member: text(member),
                instance: instance.clone(),
                generation: generation.value(),
            })
        }
        GroupAsk::Describe => AskKind::Describe(proto::GroupDone {}),
        GroupAsk::ConsumerHeartbeat(heartbeat) => {
            AskKind::ConsumerHeartbeat(consumer::heartbeat_to_proto(heartbeat))
        }
        GroupAsk::ConsumerDescribe => AskKind::ConsumerDescribe(proto::GroupDone {}),
    };
    proto::GroupQuery { group: query.group.clone(), ask: Some(ask) }
}

/// A question from a message.
pub fn query_from_proto(query: proto::GroupQuery) -> Result<GroupQuery, CodecError> {
    let ask = match query.ask.ok_or(CodecError::Missing("group question"))? {
        AskKind::Join(ask) => GroupAsk::Join {
            member: MemberId::new(ask.member),
            request: request_from_proto(ask.request)?,
        },
        AskKind::Sync(ask) => GroupAsk::Sync {
            member: MemberId::new(ask.member),
            generation: GenerationId::new(ask.generation),
        },
        AskKind::Offsets(ask) => {
            let partitions = ask.partitions.into_iter().map(|one| partition_from_proto(Some(one)));
            let partitions = partitions.collect::<Result<_, _>>()?;
            let reader = ask.reader.map(|reader| OffsetReader {
                member: MemberId::new(reader.member),
                epoch: reader.epoch,
            });
            GroupAsk::Offsets { partitions: (!ask.all).then_some(partitions), reader }
        }
        AskKind::Heartbeat(ask) => GroupAsk::Heartbeat {
            member: MemberId::new(ask.member),
            instance: ask.instance,
            generation: GenerationId::new(ask.generation),
        },
        AskKind::Describe(proto::GroupDone {}) => GroupAsk::Describe,
        AskKind::ConsumerHeartbeat(heartbeat) => {
            GroupAsk::ConsumerHeartbeat(Box::new(consumer::heartbeat_from_proto(heartbeat)?))
        }
        AskKind::ConsumerDescribe(proto::GroupDone {}) => GroupAsk::ConsumerDescribe,
    };
    Ok(GroupQuery { group: query.group, ask })
}

/// An answer as a message.
pub fn answer_to_proto(answer: &GroupAnswer) -> proto::GroupAnswer {
    let answer = match answer {
        GroupAnswer::Join(answer) => AnswerKind::Join(join_answer_to_proto(answer)),
        GroupAnswer::Sync(answer) => AnswerKind::Sync(sync_answer_to_proto(answer)),
        GroupAnswer::Offsets(result) => AnswerKind::Offsets(proto::GroupOffsets {
            offsets: result.as_ref().map_or(Vec::new(), |offsets| offsets_to_proto(offsets)),
            rejected: result.as_ref().err().map(rejected_to_proto),
        }),
        GroupAnswer::Heartbeat(result) => AnswerKind::Heartbeat(check_to_proto(result)),
        GroupAnswer::Described(found) => AnswerKind::Described(proto::GroupDescribed {
            found: found.as_ref().map(administration::description_to_proto),
        }),
        GroupAnswer::ConsumerHeartbeat(result) => {
            AnswerKind::ConsumerHeartbeat(consumer::outcome_to_proto(result.as_ref()))
        }
        GroupAnswer::ConsumerDescribed(found) => {
            AnswerKind::ConsumerDescribed(proto::ConsumerDescribed {
                found: found.as_ref().map(consumer::description_to_proto),
            })
        }
    };
    proto::GroupAnswer { answer: Some(answer) }
}

/// An answer from a message.
pub fn answer_from_proto(answer: proto::GroupAnswer) -> Result<GroupAnswer, CodecError> {
    Ok(match answer.answer.ok_or(CodecError::Missing("group answer"))? {
        AnswerKind::Join(outcome) => GroupAnswer::Join(join_answer_from_proto(outcome)?),
        AnswerKind::Sync(outcome) => GroupAnswer::Sync(sync_answer_from_proto(outcome)?),
        AnswerKind::Offsets(offsets) => GroupAnswer::Offsets(match offsets.rejected {
            Some(rejected) => Err(rejected_from_proto(rejected)?),
            None => Ok(offsets_from_proto(offsets.offsets)?),
        }),
        AnswerKind::Heartbeat(outcome) => GroupAnswer::Heartbeat(check_from_proto(outcome)?),
        AnswerKind::Described(answer) => {
            let found = answer.found.map(administration::description_from_proto).transpose()?;
            GroupAnswer::Described(found)
        }
        AnswerKind::ConsumerHeartbeat(outcome) => {
            GroupAnswer::ConsumerHeartbeat(consumer::outcome_from_proto(outcome)?)
        }
        AnswerKind::ConsumerDescribed(answer) => {
            let found = answer.found.map(consumer::description_from_proto).transpose()?;
            GroupAnswer::ConsumerDescribed(found)
        }
    })
}

fn join_to_proto(join: &Join) -> proto::GroupJoin {
    proto::GroupJoin {
        request: Some(request_to_proto(join.request)),
        member: text(&join.member),
        proposed_member: text(&join.proposed_member),
        require_known_member: join.require_known_member,
        instance: join.instance.clone(),
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        session_timeout_ms: join.session_timeout_ms,
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        protocol_type: join.protocol_type.clone(),
        protocols: protocols_to_proto(&join.protocols),
        limits: join.limits.map(|limits| proto::GroupLimits {
            initial_rebalance_delay_ms: limits.initial_rebalance_delay_ms,
            max_size: limits.max_size,
            session_timeout_min_ms: limits.session_timeout_min_ms,
            session_timeout_max_ms: limits.session_timeout_max_ms,
        }),
    }
}

fn join_from_proto(join: proto::GroupJoin) -> Result<Join, CodecError> {
    Ok(Join {
        request: request_from_proto(join.request)?,
        member: MemberId::new(join.member),
        proposed_member: MemberId::new(join.proposed_member),
        require_known_member: join.require_known_member,
        instance: join.instance,
        client_id: join.client_id,
        client_host: join.client_host,
        session_timeout_ms: join.session_timeout_ms,
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        protocol_type: join.protocol_type,
        protocols: protocols_from_proto(join.protocols),
        limits: join.limits.map(|limits| GroupSettings {
            initial_rebalance_delay_ms: limits.initial_rebalance_delay_ms,
            max_size: limits.max_size,
            session_timeout_min_ms: limits.session_timeout_min_ms,
            session_timeout_max_ms: limits.session_timeout_max_ms,
        }),
    })
}

fn sync_to_proto(sync: &Sync) -> proto::GroupSync {
    let assignments = sync.assignments.iter();
    proto::GroupSync {
        member: text(&sync.member),
        instance: sync.instance.clone(),
        generation: sync.generation.value(),
        protocol_type: sync.protocol_type.clone(),
        protocol: sync.protocol.clone(),
        assignments: assignments.map(|(id, bytes)| assignment_to_proto(id, bytes)).collect(),
    }
}

fn sync_from_proto(sync: proto::GroupSync) -> Sync {
    Sync {
        member: MemberId::new(sync.member),
        instance: sync.instance,
        generation: GenerationId::new(sync.generation),
        protocol_type: sync.protocol_type,
        protocol: sync.protocol,
        assignments: sync.assignments.into_iter().map(assignment_from_proto).collect(),
    }
}

fn leaving_to_proto(leaving: &LeavingMember) -> proto::GroupLeavingMember {
    proto::GroupLeavingMember { member: text(&leaving.member), instance: leaving.instance.clone() }
}

fn leaving_from_proto(leaving: proto::GroupLeavingMember) -> LeavingMember {
    LeavingMember { member: MemberId::new(leaving.member), instance: leaving.instance }
}

fn gone_to_proto(gone: &PartitionIndexError) -> proto::GroupPartitionGone {
    proto::GroupPartitionGone { partition: gone.partition.value(), position: gone.position }
}

fn gone_from_proto(gone: proto::GroupPartitionGone) -> Result<PartitionIndexError, CodecError> {
    if gone.partition < 0 {
        return Err(CodecError::Invalid("partition"));
    }
    let partition = PartitionIndex::new(gone.partition);
    Ok(PartitionIndexError { partition, position: gone.position })
}

fn join_answer_to_proto(answer: &JoinAnswer) -> proto::GroupJoinOutcome {
    let outcome = match answer {
        Ok(Progress::Ready(result)) => JoinOutcome::Ready(proto::GroupJoinResult {
            generation: result.generation.value(),
            protocol_type: result.protocol_type.clone(),
            protocol: result.protocol.clone(),
            leader: text(&result.leader),
            member: text(&result.member),
            members: result.members.iter().map(joined_to_proto).collect(),
            skip_assignment: result.skip_assignment,
        }),
        Ok(Progress::Pending { member, version }) => {
            JoinOutcome::Pending(pending_to_proto(member, *version))
        }
        Err(rejected) => JoinOutcome::Rejected(rejected_to_proto(rejected)),
    };
    proto::GroupJoinOutcome { outcome: Some(outcome) }
}

fn join_answer_from_proto(outcome: proto::GroupJoinOutcome) -> Result<JoinAnswer, CodecError> {
    Ok(match outcome.outcome.ok_or(CodecError::Missing("join outcome"))? {
        JoinOutcome::Ready(result) => Ok(Progress::Ready(JoinResult {
            generation: GenerationId::new(result.generation),
            protocol_type: result.protocol_type,
            protocol: result.protocol,
            leader: MemberId::new(result.leader),
            member: MemberId::new(result.member),
            members: result.members.into_iter().map(joined_from_proto).collect(),
            skip_assignment: result.skip_assignment,
        })),
        JoinOutcome::Pending(pending) => Ok(pending_from_proto(pending)),
        JoinOutcome::Rejected(rejected) => Err(rejected_from_proto(rejected)?),
    })
}

fn sync_answer_to_proto(answer: &SyncAnswer) -> proto::GroupSyncOutcome {
    let outcome = match answer {
        Ok(Progress::Ready(result)) => SyncOutcome::Ready(proto::GroupSyncResult {
            protocol_type: result.protocol_type.clone(),
            protocol: result.protocol.clone(),
            assignment: result.assignment.clone(),
        }),
        Ok(Progress::Pending { member, version }) => {
            SyncOutcome::Pending(pending_to_proto(member, *version))
        }
        Err(rejected) => SyncOutcome::Rejected(rejected_to_proto(rejected)),
    };
    proto::GroupSyncOutcome { outcome: Some(outcome) }
}

fn sync_answer_from_proto(outcome: proto::GroupSyncOutcome) -> Result<SyncAnswer, CodecError> {
    Ok(match outcome.outcome.ok_or(CodecError::Missing("sync outcome"))? {
        SyncOutcome::Ready(result) => Ok(Progress::Ready(SyncResult {
            protocol_type: result.protocol_type,
            protocol: result.protocol,
            assignment: result.assignment,
        })),
        SyncOutcome::Pending(pending) => Ok(pending_from_proto(pending)),
        SyncOutcome::Rejected(rejected) => Err(rejected_from_proto(rejected)?),
    })
}

fn joined_to_proto(joined: &JoinedMember) -> proto::GroupJoinedMember {
    proto::GroupJoinedMember {
        member: text(&joined.member),
        instance: joined.instance.clone(),
        metadata: joined.metadata.clone(),
    }
}

fn joined_from_proto(joined: proto::GroupJoinedMember) -> JoinedMember {
    JoinedMember {
        member: MemberId::new(joined.member),
        instance: joined.instance,
        metadata: joined.metadata,
    }
}

fn pending_to_proto(member: &MemberId, version: u64) -> proto::GroupPending {
    proto::GroupPending { member: text(member), version }
}

fn pending_from_proto<T>(pending: proto::GroupPending) -> Progress<T> {
    Progress::Pending { member: MemberId::new(pending.member), version: pending.version }
}

fn check_to_proto(result: &Result<(), GroupRejected>) -> proto::GroupCheckOutcome {
    proto::GroupCheckOutcome { rejected: result.as_ref().err().map(rejected_to_proto) }
}

fn check_from_proto(
    outcome: proto::GroupCheckOutcome,
) -> Result<Result<(), GroupRejected>, CodecError> {
    outcome.rejected.map_or(Ok(Ok(())), |rejected| Ok(Err(rejected_from_proto(rejected)?)))
}

fn rejected_to_proto(rejected: &GroupRejected) -> proto::GroupRejection {
    let kind = match rejected {
        GroupRejected::UnknownMember => Rejection::UnknownMember,
        GroupRejected::MemberIdRequired(_) => Rejection::MemberIdRequired,
        GroupRejected::IllegalGeneration => Rejection::IllegalGeneration,
        GroupRejected::RebalanceInProgress => Rejection::RebalanceInProgress,
        GroupRejected::InconsistentProtocol => Rejection::InconsistentProtocol,
        GroupRejected::FencedInstance => Rejection::FencedInstance,
        GroupRejected::UnknownGroup => Rejection::UnknownGroup,
        GroupRejected::GroupFull => Rejection::GroupFull,
        GroupRejected::InvalidSessionTimeout => Rejection::InvalidSessionTimeout,
        GroupRejected::NonEmpty => Rejection::NonEmpty,
        GroupRejected::FencedMemberEpoch => Rejection::FencedMemberEpoch,
        GroupRejected::StaleMemberEpoch => Rejection::StaleMemberEpoch,
        GroupRejected::UnreleasedInstance => Rejection::UnreleasedInstance,
        GroupRejected::UnsupportedAssignor => Rejection::UnsupportedAssignor,
        GroupRejected::InvalidRegex => Rejection::InvalidRegex,
        GroupRejected::InvalidRequest => Rejection::InvalidRequest,
        GroupRejected::NotStable => Rejection::NotStable,
        GroupRejected::EpochUnknown => Rejection::EpochUnknown,
    };
    let member = match rejected {
        GroupRejected::MemberIdRequired(member) => text(member),
        _ => String::new(),
    };
    proto::GroupRejection { kind: kind.into(), member }
}

fn rejected_from_proto(rejected: proto::GroupRejection) -> Result<GroupRejected, CodecError> {
    Ok(match rejected.kind() {
        Rejection::Unspecified => return Err(CodecError::Missing("group rejection")),
        Rejection::UnknownMember => GroupRejected::UnknownMember,
        Rejection::MemberIdRequired => {
            GroupRejected::MemberIdRequired(MemberId::new(rejected.member))
        }
        Rejection::IllegalGeneration => GroupRejected::IllegalGeneration,
        Rejection::RebalanceInProgress => GroupRejected::RebalanceInProgress,
        Rejection::InconsistentProtocol => GroupRejected::InconsistentProtocol,
        Rejection::FencedInstance => GroupRejected::FencedInstance,
        Rejection::UnknownGroup => GroupRejected::UnknownGroup,
        Rejection::GroupFull => GroupRejected::GroupFull,
        Rejection::InvalidSessionTimeout => GroupRejected::InvalidSessionTimeout,
        Rejection::NonEmpty => GroupRejected::NonEmpty,
        Rejection::FencedMemberEpoch => GroupRejected::FencedMemberEpoch,
        Rejection::StaleMemberEpoch => GroupRejected::StaleMemberEpoch,
        Rejection::UnreleasedInstance => GroupRejected::UnreleasedInstance,
        Rejection::UnsupportedAssignor => GroupRejected::UnsupportedAssignor,
        Rejection::InvalidRegex => GroupRejected::InvalidRegex,
        Rejection::InvalidRequest => GroupRejected::InvalidRequest,
        Rejection::NotStable => GroupRejected::NotStable,
        Rejection::EpochUnknown => GroupRejected::EpochUnknown,
    })
}

fn text(member: &MemberId) -> String {
    member.as_str().to_owned()
}

fn request_to_proto(request: RequestId) -> proto::GroupRequestId {
    proto::GroupRequestId { session: request.session.value(), number: request.number }
}

fn request_from_proto(request: Option<proto::GroupRequestId>) -> Result<RequestId, CodecError> {
    let request = request.ok_or(CodecError::Missing("request id"))?;
    Ok(RequestId { session: SessionId::new(request.session), number: request.number })
}

fn protocols_to_proto(protocols: &[(String, Bytes)]) -> Vec<proto::GroupProtocol> {
    let protocol = |(name, metadata): &(String, Bytes)| proto::GroupProtocol {
        name: name.clone(),
        metadata: metadata.clone(),
    };
    protocols.iter().map(protocol).collect()
}

fn protocols_from_proto(protocols: Vec<proto::GroupProtocol>) -> Vec<(String, Bytes)> {
    protocols.into_iter().map(|protocol| (protocol.name, protocol.metadata)).collect()
}

fn assignment_to_proto(id: &MemberId, assignment: &Bytes) -> proto::GroupMemberAssignment {
    proto::GroupMemberAssignment { member: text(id), assignment: assignment.clone() }
}

fn assignment_from_proto(given: proto::GroupMemberAssignment) -> (MemberId, Bytes) {
    (MemberId::new(given.member), given.assignment)
}

fn partition_to_proto(partition: &TopicPartition) -> proto::GroupTopicPartition {
    proto::GroupTopicPartition {
        topic: topic_to_proto(partition.topic),
        partition: partition.partition.value(),
    }
}

fn partition_from_proto(
    partition: Option<proto::GroupTopicPartition>,
) -> Result<TopicPartition, CodecError> {
    let partition = partition.ok_or(CodecError::Missing("partition"))?;
    if partition.partition < 0 {
        return Err(CodecError::Invalid("partition"));
    }
    Ok(TopicPartition {
        topic: topic_from_proto(&partition.topic)?,
        partition: PartitionIndex::new(partition.partition),
    })
}

fn committed_to_proto(committed: &CommittedOffset) -> proto::GroupCommittedOffset {
    proto::GroupCommittedOffset {
        offset: committed.offset.value(),
        leader_epoch: committed.leader_epoch.map(LeaderEpoch::value),
        metadata: committed.metadata.clone(),
    }
}

fn committed_from_proto(
    committed: Option<proto::GroupCommittedOffset>,
) -> Result<CommittedOffset, CodecError> {
    let committed = committed.ok_or(CodecError::Missing("committed offset"))?;
    Ok(CommittedOffset {
        offset: offset(committed.offset)?,
        leader_epoch: committed.leader_epoch.map(LeaderEpoch::new),
        metadata: committed.metadata,
    })
}

fn offsets_to_proto(
    offsets: &[(TopicPartition, CommittedOffset)],
) -> Vec<proto::GroupPartitionOffset> {
    let one =
        |(partition, committed): &(TopicPartition, CommittedOffset)| proto::GroupPartitionOffset {
            partition: Some(partition_to_proto(partition)),
            committed: Some(committed_to_proto(committed)),
        };
    offsets.iter().map(one).collect()
}

fn offsets_from_proto(
    offsets: Vec<proto::GroupPartitionOffset>,
) -> Result<Vec<(TopicPartition, CommittedOffset)>, CodecError> {
    let one = |offset: proto::GroupPartitionOffset| {
        Ok((partition_from_proto(offset.partition)?, committed_from_proto(offset.committed)?))
    };
    offsets.into_iter().map(one).collect()
}
